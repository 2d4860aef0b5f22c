//! What became of an access token, for people and scripts.

use std::path::Path;

use serde::Serialize;

use super::kept::{KeptSession, KeptToken};
use crate::cli::Exit;
use crate::cli::access_text::access_line;
use crate::cli::error::of_class;
use crate::cli::report::Reporter;
use crate::error_chain::chain;
use crate::lifecycle::{AccessKeeping, AccessObstacle, UsedElsewhere, access as rules};
use crate::model::{AccessTokenReport, Action, Timestamp};
use crate::ops::{AccessError, AccessPass};
use crate::secret::SourceError;

/// The name of the rows in a document.
const NAME: &str = "access_tokens";

/// What a command has found out about a token, and done.
#[derive(Debug, Serialize)]
pub(super) struct TokenRow {
    #[serde(flatten)]
    pub(super) report: AccessTokenReport,
    /// What was done; null if nothing was asked for.
    pub(super) action: Option<Action>,
    /// The file that the token was also written into.
    written_to: Option<String>,
    /// Why the exit code is not 0.
    error: Option<String>,
    #[serde(skip)]
    pub(super) exit: Exit,
    /// Whether it was rotated, and the new one is not where it belongs.
    #[serde(skip)]
    is_unfinished: bool,
    /// What is against a rotation, unless the report says it.
    #[serde(skip)]
    obstacle: Option<AccessObstacle>,
    /// Time of the server.
    #[serde(skip)]
    now: Timestamp,
}

impl TokenRow {
    /// What a pass has found.
    pub(super) fn of(session: &KeptSession, token: &KeptToken, pass: &AccessPass) -> Self {
        let report = session.report(token, pass);
        let error = pass.error.as_ref().map(|error| report.last_error.clone().unwrap_or_else(|| chain(error)));
        let exit = pass.error.as_ref().map_or(Exit::Done, exit_of);
        let keeping =
            AccessKeeping { rotate: true, used_elsewhere: UsedElsewhere::Report, ..token.access.keeping.clone() };
        let obstacle = rules::obstacle(&pass.record, &keeping).filter(|obstacle| {
            let is_said = report.last_error.as_ref().is_some_and(|said| said.contains(obstacle.as_str()));
            pass.error.is_none() && !is_said
        });
        let is_unfinished = matches!(pass.error, Some(AccessError::Unfinished { .. }));
        Self { report, action: None, written_to: None, error, exit, is_unfinished, obstacle, now: pass.now }
    }

    /// The same after something was done.
    pub(super) fn done(self, action: Action) -> Self {
        Self { action: Some(action), ..self }
    }

    /// The same after the token was also written into a file.
    pub(super) fn written(self, path: &Path) -> Self {
        Self { written_to: Some(path.display().to_string()), ..self }
    }

    /// The same after a failure that is not one of the pass.
    pub(super) fn failed(self, exit: Exit, error: String) -> Self {
        Self { exit, error: Some(error), ..self }
    }

    fn text(&self) -> String {
        let subject = format!("access token for {}", self.report.server);
        let done = match self.action {
            Some(Action::Rotated) => format!("rotated, {} has the new one: ", self.report.source),
            Some(Action::Unchanged) => "its rotation is not due: ".to_owned(),
            Some(Action::Failed | Action::Refused) if self.is_unfinished => {
                "rotated, but the new one is not stored everywhere: ".to_owned()
            }
            Some(Action::Failed | Action::Refused) => "not rotated: ".to_owned(),
            Some(_) | None => String::new(),
        };
        let copy = self.written_to.as_ref().map(|path| format!("  it was written into {path} too\n"));
        let obstacle = self.obstacle.map(|obstacle| format!("  it cannot be rotated: {}\n", obstacle.as_str()));
        let line = access_line(&self.report, self.now);
        format!("{subject}: {done}{line}\n{}{}", copy.unwrap_or_default(), obstacle.unwrap_or_default())
    }

    /// What a person has to know besides, for stderr.
    fn remark(&self) -> Option<String> {
        let subject = format!("access token for {}", self.report.server);
        match (&self.error, &self.report.last_error) {
            (Some(error), _) => Some(format!("error: {subject}: {error}")),
            (None, Some(problem)) => Some(format!("warning: {subject}: {problem}")),
            (None, None) => None,
        }
    }
}

/// Reports rows in the requested format, and returns the exit code of all together.
pub(super) fn report_rows(reporter: &Reporter, rows: &[TokenRow]) -> Exit {
    if reporter.is_json() {
        reporter.rows(NAME, rows.iter());
    } else {
        for row in rows {
            reporter.answer(&row.text());
            row.remark().iter().for_each(|line| reporter.remark(line));
        }
    }
    Exit::of_all(&rows.iter().map(|row| row.exit).collect::<Vec<_>>())
}

/// The exit code of a command whose pass was not completed.
pub(in crate::cli) fn exit_of(error: &AccessError) -> Exit {
    match error {
        AccessError::Source(SourceError::WrongClass { .. }) => Exit::Usage,
        AccessError::Source(_)
        | AccessError::Disk(_)
        | AccessError::NotHeld
        | AccessError::NoPlace(_)
        | AccessError::Unfinished { .. } => Exit::LocalFile,
        AccessError::Asking(failure) | AccessError::Rotating(failure) => of_class(failure.class),
        AccessError::Uncertain { .. } | AccessError::Unproven(_) | AccessError::NotKnownYet => Exit::Unreachable,
        AccessError::Lost | AccessError::Obstacle(AccessObstacle::Scope) => Exit::Refused,
        AccessError::Obstacle(_) | AccessError::Stopping => Exit::Failed,
    }
}
