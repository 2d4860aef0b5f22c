//! What is told about each runner when a command is done with it.

use super::{Error, Exit};
use crate::error_chain::chain;
use crate::model::{Action, RunnerReport, StateName, Timestamp};
use crate::ops::Runner;
use crate::store::{Entry, EntryProblem};

/// What became of one runner.
#[derive(Debug)]
pub(super) struct RunnerOutcome {
    /// What scripts get; its `error` is also what people get.
    pub(super) report: RunnerReport,
    /// The end of the line for people that begins with the runner's name.
    pub(super) line: String,
    /// What the user can do about it.
    pub(super) hint: Option<String>,
    /// How it counts for the exit code.
    pub(super) exit: Exit,
}

impl RunnerOutcome {
    /// It went well.
    pub(super) fn done(report: RunnerReport, action: Action, line: impl Into<String>) -> Self {
        let report = RunnerReport { action: Some(action), ..report };
        Self { report, line: line.into(), hint: None, exit: Exit::Done }
    }

    /// It did not.
    pub(super) fn failed(report: RunnerReport, action: Action, line: impl Into<String>, error: &Error) -> Self {
        let report = RunnerReport { action: Some(action), error: Some(chain(error)), ..report };
        Self { report, line: line.into(), hint: error.hint().map(str::to_owned), exit: error.exit() }
    }

    /// Its entry cannot be used.
    pub(super) fn unusable(entry: &Entry, problem: &EntryProblem) -> Self {
        let error = Error::Verdict {
            exit: Exit::LocalFile,
            message: format!("the entry in line {} cannot be used: {problem}", entry.line),
            hint: None,
        };
        Self::failed(of_entry(entry), Action::Failed, "not done: its entry cannot be used", &error)
    }
}

/// Tells about a runner as its record has it.
pub(super) fn of_runner(runner: &Runner, now: Timestamp) -> RunnerReport {
    let record = &runner.record;
    let validity = runner.validity(now);
    RunnerReport {
        name: record.name.clone(),
        id: record.id,
        url: Some(record.url.clone()),
        executor: runner.executor.clone(),
        token_fingerprint: record.credential.as_ref().map(|credential| credential.token.fingerprint()),
        token_obtained_at: validity.map(|validity| validity.obtained_at),
        token_expires_at: validity.and_then(|validity| validity.expiry.at()),
        state: record.state.unwrap_or(StateName::Unknown),
        since: record.since,
        last_verify: record.last_verify.clone(),
        next: None,
        action: None,
        error: None,
    }
}

/// Tells about an entry that nothing else is known of.
pub(super) fn of_entry(entry: &Entry) -> RunnerReport {
    RunnerReport {
        name: entry.name.clone(),
        id: entry.id,
        url: entry.url.clone(),
        executor: entry.executor.clone(),
        token_fingerprint: entry.token.token().map(crate::secret::Token::fingerprint),
        token_obtained_at: entry.obtained_at,
        token_expires_at: entry.expiry.at(),
        state: StateName::Unknown,
        since: None,
        last_verify: None,
        next: None,
        action: None,
        error: None,
    }
}
