//! What a worker tells the outside about its runner.

use super::super::transition_log::sentence;
use super::Worker;
use super::ongoing_failure::OngoingFailure;
use crate::clock::Clock;
use crate::engine::report;
use crate::lifecycle::{self, Outcome, State, Step};
use crate::model::{RunnerReport, Timestamp};
use crate::ops::{Disk, Error, Server};
use crate::status::{Operation, OperationOutcome, RunnerStatus};

/// What the server said about the credential when it was asked last, in this life of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Acceptance {
    /// It has not answered yet.
    #[default]
    Unknown,
    /// It accepts it. A new token that the server issued, or that another of our processes has checked and
    /// put there, counts too.
    Accepted,
    /// It refuses it.
    Refused,
}

impl Acceptance {
    /// What it is after an outcome: a question without an answer changes nothing.
    pub(super) fn after(self, outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Registered(_) | Outcome::Accepted(_) | Outcome::Rotated(_) | Outcome::Adopted(_) => Self::Accepted,
            Outcome::Refused | Outcome::ResetRefused | Outcome::Removed => Self::Refused,
            Outcome::NotRotated
            | Outcome::Withheld
            | Outcome::RotationClosed
            | Outcome::Deferred { .. }
            | Outcome::Lost { .. }
            | Outcome::MustAct(_)
            | Outcome::Unsaved
            | Outcome::Saved
            | Outcome::Nudged
            | Outcome::Unregistered => self,
        }
    }
}

impl<S: Server, D: Disk, C: Clock> Worker<S, D, C> {
    /// Puts up how the runner stands and what comes next.
    pub(in super::super) fn post(&self) {
        let next = lifecycle::plan(&self.state, &self.rules);
        let report = report(&self.runner, &self.state, next);
        let wanted_name = self.enrollment.as_ref().map(|enrollment| enrollment.entry.name.clone());
        let name = report.name.clone().or(wanted_name);
        let status = RunnerStatus {
            label: name.clone().unwrap_or_else(|| self.runner.label().to_owned()),
            report: RunnerReport { name, error: self.trouble(), ..report },
            host: self.runner.record.url.authority(),
            not_ready_because: self.not_ready_because(),
            last_rotation_at: self.runner.record.last_reset_at,
            next_rotation_at: self.next_rotation_at(),
            time: self.time,
            skew_millis: self.skew_millis,
        };
        self.shared.registry.update(&self.runner.record.key, status);
    }

    fn next_rotation_at(&self) -> Option<Timestamp> {
        let State::Active(active) = &self.state else { return None };
        lifecycle::rotate_at(&active.validity, self.rules.rotate?, self.rules.phase)
    }

    /// What is wrong with it, in one sentence.
    fn trouble(&self) -> Option<String> {
        let entry_status = sentence(&self.state).or_else(|| self.is_unsaved().then(|| UNSAVED.to_owned()));
        join(entry_status, self.complaint_text())
    }

    /// Why it is not ready, in one sentence.
    fn not_ready_because(&self) -> Option<String> {
        let obstacle = match (&self.state, self.acceptance) {
            (State::Unregistered(_), _) => "it is not registered yet",
            (State::Uncertain(_) | State::Rejected(_) | State::Failed(_), _) => return self.trouble(),
            (State::Active(_) | State::NotRenewable(_), Acceptance::Unknown) => {
                "the server has not said yet whether it accepts the token"
            }
            (State::Active(_) | State::NotRenewable(_), Acceptance::Refused) => {
                "the server has refused the token and is asked again"
            }
            (State::Active(_) | State::NotRenewable(_), Acceptance::Accepted) if self.is_unsaved() => UNSAVED,
            (State::Active(_), Acceptance::Accepted) if self.cannot_rotate() => CANNOT_ROTATE,
            (State::Active(_) | State::NotRenewable(_), Acceptance::Accepted) | (State::Retired { .. }, _) => {
                return None;
            }
        };
        join(Some(obstacle.to_owned()), self.complaint_text())
    }

    fn cannot_rotate(&self) -> bool {
        self.ongoing_failure.as_ref().is_some_and(OngoingFailure::is_about_rotation)
    }

    fn complaint_text(&self) -> Option<String> {
        self.ongoing_failure.as_ref().map(|ongoing_failure| ongoing_failure.text.clone())
    }

    fn is_unsaved(&self) -> bool {
        matches!(&self.state, State::Active(active) if active.unsaved.is_some())
    }

    /// Counts what became of a step that is counted.
    pub(super) fn count(&self, step: Step, result: &Result<Vec<Outcome>, Error>) {
        let deed = match step {
            Step::Register => Operation::Registration,
            Step::Rotate => Operation::Rotation,
            Step::ResetById | Step::RegisterAgain => Operation::Recovery,
            Step::Verify | Step::Save => return,
        };
        let operation_outcome = match result {
            Ok(outcomes) => outcomes.first().copied().map(operation_outcome),
            Err(error) => Some(operation_outcome(error.outcome())),
        };
        if let Some(operation_outcome) = operation_outcome {
            self.shared.counters.count_operation(deed, operation_outcome);
        }
    }
}

/// What is told of a runner whose new token config.toml does not hold.
const UNSAVED: &str = "config.toml does not hold the token yet, writing it is tried again";

/// What is told of a runner whose token was due to be replaced, and could not be.
const CANNOT_ROTATE: &str = "its token is due to be replaced, which fails";

fn join(entry_status: Option<String>, ongoing_failure: Option<String>) -> Option<String> {
    match (entry_status, ongoing_failure) {
        (Some(entry_status), Some(ongoing_failure)) => Some(format!("{entry_status}; {ongoing_failure}")),
        (entry_status, ongoing_failure) => entry_status.or(ongoing_failure),
    }
}

fn operation_outcome(outcome: Outcome) -> OperationOutcome {
    match outcome {
        Outcome::Registered(_) | Outcome::Accepted(_) | Outcome::Rotated(_) => OperationOutcome::Done,
        Outcome::Adopted(_) => OperationOutcome::Adopted,
        Outcome::NotRotated => OperationOutcome::Unchanged,
        Outcome::Withheld => OperationOutcome::Withheld,
        Outcome::Refused | Outcome::ResetRefused | Outcome::RotationClosed | Outcome::Removed | Outcome::MustAct(_) => {
            OperationOutcome::Refused
        }
        Outcome::Lost { .. } => OperationOutcome::Lost,
        Outcome::Deferred { .. } | Outcome::Unsaved | Outcome::Saved | Outcome::Nudged | Outcome::Unregistered => {
            OperationOutcome::Failed
        }
    }
}
