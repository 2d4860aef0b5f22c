//! The status of a runner, as the worker publishes it.

use super::Worker;
use super::ongoing_failure::OngoingFailure;
use crate::clock::Clock;
use crate::daemon::transition_log::sentence;
use crate::engine::{Driver, StepReport};
use crate::lifecycle::{self, Outcome, State, Step};
use crate::model::{RunnerReport, Timestamp};
use crate::ops::{Disk, Server};
use crate::status::{Operation, OperationOutcome, RunnerStatus};
use crate::store::Record;

/// What the server said about the credential last, since this process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) enum Acceptance {
    /// It has not answered yet.
    #[default]
    Unknown,
    /// It accepts it. A new token that the server issued, or that another of our processes has verified, counts too.
    Accepted,
    /// It refuses it.
    Refused,
}

impl Acceptance {
    /// What it is after an outcome. A missing answer changes nothing.
    pub(super) fn after(self, outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Registered(_) | Outcome::Accepted(_) | Outcome::Rotated(_) | Outcome::Adopted(_) => Self::Accepted,
            Outcome::Refused | Outcome::ResetRefused | Outcome::Removed => Self::Refused,
            Outcome::NotRotated
            | Outcome::Withheld
            | Outcome::NoEntry
            | Outcome::RotationClosed
            | Outcome::Claimed(_)
            | Outcome::NotUnderstood { .. }
            | Outcome::Disputed
            | Outcome::Contested
            | Outcome::Doubtful
            | Outcome::Declined(_)
            | Outcome::NotUnregistered(_)
            | Outcome::SecretReplaced
            | Outcome::Requested
            | Outcome::Deferred { .. }
            | Outcome::RegisteredElsewhere
            | Outcome::ResetDeferred { .. }
            | Outcome::Lost { .. }
            | Outcome::LostElsewhere
            | Outcome::MustAct(_)
            | Outcome::Unsaved
            | Outcome::Saved
            | Outcome::Nudged
            | Outcome::TimeCorrected { .. }
            | Outcome::Unregistered
            | Outcome::Released
            | Outcome::Reenrolled(_) => self,
        }
    }
}

impl<S: Server, D: Disk, C: Clock> Worker<S, D, C> {
    /// Publishes the runner's state and its next step.
    pub(in super::super) fn publish(&self) {
        let driver = &self.driver;
        let report = driver.report();
        let wanted_name = driver.enrollment.as_deref().map(|enrollment| enrollment.entry.name.clone());
        let name = report.name.clone().or(wanted_name);
        let status = RunnerStatus {
            key: driver.runner.record.key.clone(),
            report: RunnerReport { name, error: self.trouble(), ..report },
            not_ready_because: self.not_ready_because(),
            last_rotation_at: driver.runner.record.last_reset_at,
            next_rotation_at: self.next_rotation_at(),
            time: driver.time,
            skew_millis: driver.skew_millis,
        };
        self.shared.registry.update(status);
    }

    /// Tells the dispatcher of hooks what is known of the runner, once its token is where it belongs.
    pub(super) fn tell_hooks(&self) {
        let Driver { runner, rules, .. } = &self.driver;
        if runner.is_unstored() || self.is_unsaved() {
            return;
        }
        let (state, now) = (self.driver.state(), self.driver.now());
        let is_rejected = match (state, self.acceptance) {
            (State::Rejected(_), _) => Some(true),
            (State::Active(_) | State::NotRenewable(_), Acceptance::Accepted) => Some(false),
            (State::Active(_) | State::NotRenewable(_), Acceptance::Unknown | Acceptance::Refused)
            | (State::Unregistered(_) | State::Uncertain(_) | State::Failed(_) | State::Retired { .. }, _) => None,
        };
        let is_expiring = lifecycle::hooks::is_expiring(state, rules, now);
        self.shared.hooks.see_runner(runner, is_rejected, is_expiring, now);
    }

    fn next_rotation_at(&self) -> Option<Timestamp> {
        lifecycle::next_rotation(self.driver.state(), &self.driver.rules)
    }

    /// The runner's problem in one sentence.
    fn trouble(&self) -> Option<String> {
        let driver = &self.driver;
        let of_state = sentence(&driver.runner.record, driver.state(), driver.enrollment.as_deref(), driver.now())
            .or_else(|| self.is_unsaved().then(|| UNSAVED.to_owned()));
        let of_state = of_state.or_else(|| self.given_away());
        let failure = match driver.state() {
            // The state has the remedy already.
            State::Rejected(_) => self.ongoing_failure.as_deref().map(OngoingFailure::text_beside_refusal),
            _ => self.failure_text(),
        };
        join(of_state, failure)
    }

    /// Why it is not ready, in one sentence.
    fn not_ready_because(&self) -> Option<String> {
        let reason = match (self.driver.state(), self.acceptance) {
            (State::Unregistered(_), _) => "it is not registered yet",
            (State::Uncertain(_) | State::Rejected(_) | State::Failed(_), _) => return self.trouble(),
            (State::Active(_) | State::NotRenewable(_), Acceptance::Unknown) => "the token is not verified yet",
            (State::Active(_) | State::NotRenewable(_), Acceptance::Refused) => {
                "the server has refused the token and is asked again"
            }
            (State::Active(_) | State::NotRenewable(_), Acceptance::Accepted) if self.is_unsaved() => UNSAVED,
            (State::Active(_), Acceptance::Accepted) if self.cannot_rotate() => CANNOT_ROTATE,
            (State::Active(_) | State::NotRenewable(_), Acceptance::Accepted) if self.given_away().is_some() => {
                return self.trouble();
            }
            (State::Active(_) | State::NotRenewable(_), Acceptance::Accepted) => {
                let trouble = self.driver.runner.store_trouble()?;
                return Some(format!("the store of the shared runner cannot be used: {trouble}"));
            }
            (State::Retired { .. }, _) => return None,
        };
        join(Some(reason.to_owned()), self.failure_text())
    }

    /// That config.toml does not hold its token, because a person has put another runner's token into its entry.
    fn given_away(&self) -> Option<String> {
        given_away(&self.driver.runner.record)
    }

    fn cannot_rotate(&self) -> bool {
        self.ongoing_failure.as_deref().is_some_and(OngoingFailure::is_about_rotation)
    }

    fn failure_text(&self) -> Option<String> {
        self.ongoing_failure.as_deref().map(OngoingFailure::text)
    }

    fn is_unsaved(&self) -> bool {
        matches!(self.driver.state(), State::Active(active) if active.unsaved.is_some())
    }

    /// Counts the steps that have a counter.
    pub(super) fn count(&self, report: &StepReport) {
        let operation = match report.step {
            Step::Register => Operation::Registration,
            Step::Rotate => Operation::Rotation,
            Step::ResetById | Step::RegisterAgain => Operation::Recovery,
            Step::Verify | Step::Save | Step::Unregister => return,
        };
        if let Some(outcome) = report.outcomes.first() {
            self.shared.counters.count_operation(operation, operation_outcome(*outcome));
        }
    }
}

/// A new token is not in config.toml.
const UNSAVED: &str = "config.toml does not hold the token yet, the write is retried";

/// A token is due for rotation, and rotating fails.
const CANNOT_ROTATE: &str = "its token is due for rotation, and rotating fails";

fn given_away(record: &Record) -> Option<String> {
    let other = record.given_to?;
    Some(format!(
        "its entry in config.toml was given to runner {other}: put this runner's token back, or unregister it; the state directory keeps its token"
    ))
}

fn join(of_state: Option<String>, failure: Option<String>) -> Option<String> {
    match (of_state, failure) {
        (Some(of_state), Some(failure)) => Some(format!("{of_state}; {failure}")),
        (of_state, failure) => of_state.or(failure),
    }
}

fn operation_outcome(outcome: Outcome) -> OperationOutcome {
    match outcome {
        Outcome::Registered(_) | Outcome::Accepted(_) | Outcome::Rotated(_) => OperationOutcome::Done,
        Outcome::Adopted(_) => OperationOutcome::Adopted,
        Outcome::NotRotated => OperationOutcome::Unchanged,
        Outcome::Withheld => OperationOutcome::Withheld,
        Outcome::Refused
        | Outcome::ResetRefused
        | Outcome::RotationClosed
        | Outcome::Removed
        | Outcome::Claimed(_)
        | Outcome::Declined(_)
        | Outcome::MustAct(_) => OperationOutcome::Refused,
        Outcome::Lost { .. } | Outcome::LostElsewhere => OperationOutcome::Lost,
        Outcome::Deferred { .. }
        | Outcome::RegisteredElsewhere
        | Outcome::ResetDeferred { .. }
        | Outcome::NoEntry
        | Outcome::NotUnderstood { .. }
        | Outcome::Disputed
        | Outcome::Contested
        | Outcome::Doubtful
        | Outcome::NotUnregistered(_)
        | Outcome::SecretReplaced
        | Outcome::Requested
        | Outcome::Unsaved
        | Outcome::Saved
        | Outcome::Nudged
        | Outcome::TimeCorrected { .. }
        | Outcome::Unregistered
        | Outcome::Released
        | Outcome::Reenrolled(_) => OperationOutcome::Failed,
    }
}
