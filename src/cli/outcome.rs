//! The result of a command for each runner.

use super::{Error, Exit};
use crate::error_chain::chain;
use crate::model::{Action, RunnerReport};
use crate::store::{Entry, EntryProblem};

/// The result of a command for one runner.
#[derive(Debug)]
pub(super) struct RunnerOutcome {
    /// The report for scripts; its `error` is also shown to people.
    pub(super) report: RunnerReport,
    /// The result for people, without the runner's name.
    pub(super) line: String,
    /// What the user can do.
    pub(super) hint: Option<String>,
    /// The exit code for this runner.
    pub(super) exit: Exit,
}

impl RunnerOutcome {
    /// A success.
    pub(super) fn done(report: RunnerReport, action: Action, line: impl Into<String>) -> Self {
        let report = RunnerReport { action: Some(action), ..report };
        Self { report, line: line.into(), hint: None, exit: Exit::Done }
    }

    /// A failure.
    pub(super) fn failed(report: RunnerReport, action: Action, line: impl Into<String>, error: &Error) -> Self {
        let report = RunnerReport { action: Some(action), error: Some(chain(error)), ..report };
        Self { report, line: line.into(), hint: error.hint().map(str::to_owned), exit: error.exit() }
    }

    /// The same as the report of the selected entry, with what it means for `others` that have the same token.
    pub(super) fn of_entry(mut self, entry: Option<&Entry>, others: &[Entry]) -> Self {
        let Some(entry) = entry else { return self };
        self.report.name = entry.name.clone().or(self.report.name);
        self.report.executor = entry.executor.clone().or(self.report.executor);
        if others.is_empty() || self.line.is_empty() {
            return self;
        }
        let (here, elsewhere): (Vec<_>, Vec<_>) = others.iter().partition(|other| other.url == entry.url);
        let has_changed = match self.report.action {
            Some(Action::Rotated) => true,
            Some(Action::Dropped) | None => return self,
            Some(_) => false,
        };
        if !here.is_empty() {
            let meaning = if has_changed { "has the new token too" } else { "has the same token" };
            self.line = format!("{}; {} {meaning}", self.line, described(&here));
        }
        if let (true, Some(other)) = (has_changed, elsewhere.first()) {
            let name = other.name.as_deref().unwrap_or_default();
            self.hint = Some(format!(
                "{} had the same token: `verify --name {name}` asks that server whether it is the same runner",
                described(&elsewhere)
            ));
        } else if !elsewhere.is_empty() {
            self.line = format!("{}; {} has the same token", self.line, described(&elsewhere));
        }
        self
    }

    /// A failure because of an unusable entry.
    pub(super) fn unusable(entry: &Entry, problem: &EntryProblem) -> Self {
        let error = Error::Verdict {
            exit: Exit::LocalFile,
            message: format!("the entry in line {} cannot be used: {problem}", entry.line),
            hint: None,
        };
        Self::failed(of_entry(entry), Action::Failed, "not done: its entry cannot be used", &error)
    }
}

/// Names entries: ``the entry `docker` in line 12``.
pub(super) fn described(entries: &[&Entry]) -> String {
    let one = |entry: &&Entry| match (&entry.name, &entry.url) {
        (Some(name), Some(url)) => format!("the entry `{name}` at {url}"),
        (Some(name), None) => format!("the entry `{name}`"),
        (None, _) => format!("the entry in line {}", entry.line),
    };
    entries.iter().map(one).collect::<Vec<_>>().join(" and ")
}

/// The report of an entry without a record.
pub(super) fn of_entry(entry: &Entry) -> RunnerReport {
    RunnerReport {
        name: entry.name.clone(),
        id: entry.id,
        url: entry.url.clone(),
        executor: entry.executor.clone(),
        token_fingerprint: entry.token.token().map(crate::secret::Token::fingerprint),
        token_obtained_at: entry.obtained_at,
        token_expires_at: entry.expiry.at(),
        ..RunnerReport::default()
    }
}
