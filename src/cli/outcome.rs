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
