//! What is told about each runner when a command is done with it.

use super::{Error, Exit};
use crate::error_chain::chain;
use crate::model::{Action, RunnerReport, StateName, Timestamp, format_span, is_unprintable};
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

/// A text of somebody else's without what could move the cursor or hide something.
pub(super) fn shown(text: &str) -> String {
    text.chars().map(|character| if is_unprintable(character) { '?' } else { character }).collect()
}

/// A runner's name for people, with what tells it from others of that name.
pub(super) fn label(report: &RunnerReport) -> String {
    match (report.name.as_deref().map(shown), report.id, &report.url) {
        (Some(name), Some(id), _) => format!("`{name}` (id {id})"),
        (Some(name), None, _) => format!("`{name}`"),
        (None, Some(id), Some(url)) => format!("(id {id} at {url})"),
        (None, Some(id), None) => format!("(id {id})"),
        (None, None, Some(url)) => format!("(at {url})"),
        (None, None, None) => "(without a name)".to_owned(),
    }
}

/// When a token ends: `expires 2027-01-15T08:00:00Z (in 2d 4h)`.
pub(super) fn end(expires_at: Option<Timestamp>, now: Timestamp) -> String {
    match expires_at.map(Timestamp::whole_seconds) {
        None => "does not expire".to_owned(),
        Some(at) if at <= now => format!("expired {at} ({} ago)", format_span(now.since(at))),
        Some(at) => format!("expires {at} (in {})", format_span(at.since(now))),
    }
}
