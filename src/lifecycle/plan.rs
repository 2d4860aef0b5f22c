//! The next step of a runner.

use super::schedule::{Rotation, rotate_at};
use super::{Active, NotRenewable, Rejected, Rules, State, Trouble};
use crate::model::{Claim, Finding, Step, Timestamp, Why};

/// A planned step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The step.
    pub step: Step,
    /// Server time from which it is due; may lie in the past.
    pub at: Timestamp,
    /// The reason, for logs and reports.
    pub why: Why,
}

/// Returns the next step; `None` for a retired runner.
///
/// Independent of the time, which only enters through [`apply()`](super::apply()).
#[must_use]
pub fn plan(state: &State, rules: &Rules) -> Option<Plan> {
    match state {
        State::Unregistered(state) => {
            let why = if state.failures == 0 { Why::NotRegistered } else { Why::Retry };
            Some(Plan { step: Step::Register, at: state.retry_from, why })
        }
        State::Active(state) => Some(plan_active(state, rules)),
        State::Uncertain(state) => Some(Plan { step: Step::Verify, at: state.ask_at, why: Why::SettleLostAnswer }),
        State::Rejected(state) => Some(plan_rejected(state, rules)),
        State::NotRenewable(state) => Some(plan_not_renewable(state, rules)),
        State::Failed(state) => {
            // A lost registration is not repeated: only the tokens that it may have brought are verified.
            let may_register = state.validity.is_none() && state.trouble != Trouble::RegistrationLost;
            let step = if may_register { Step::Register } else { Step::Verify };
            Some(Plan { step, at: state.look_again_at, why: Why::LookAgain })
        }
        State::Retired { .. } => None,
    }
}

/// The token and every candidate are verified before each rung.
fn plan_rejected(state: &Rejected, rules: &Rules) -> Plan {
    let verify = Plan { step: Step::Verify, at: state.look_again_at, why: Why::LookAgain };
    match rules.recovery.next_rung(state) {
        Some(step) if state.is_settled() => Plan { step, at: state.recover_from, why: Why::Recovery },
        Some(_) | None => verify,
    }
}

fn plan_not_renewable(state: &NotRenewable, rules: &Rules) -> Plan {
    let why = why_verify(state.asked, state.failures);
    let verify = Plan { step: Step::Verify, at: state.verify_at, why };
    let reset_at = if rules.is_twin { state.validity.pressing_from() } else { Some(state.reset_at) };
    let not_before = match rules.rotate {
        Some(rotation @ Rotation::LastResort { .. }) => rotate_at(&state.validity, rotation, rules.phase),
        Some(Rotation::AtShare(_)) => Some(state.reset_at),
        None => None,
    };
    let reset_at = reset_at.zip(not_before).map(|(at, not_before)| at.max(not_before).max(state.reset_at));
    match reset_at.filter(|_| state.asked.is_none()) {
        Some(at) if at < state.verify_at => Plan { step: Step::Rotate, at, why: Why::LookAgain },
        _ => verify,
    }
}

fn plan_active(state: &Active, rules: &Rules) -> Plan {
    let why = why_verify(state.asked, state.failures);
    let verify = Plan { step: Step::Verify, at: state.verify_at.max(state.retry_from), why };
    let request = match plan_rotation(state, rules) {
        Some(rotation) if goes_before(&rotation, &verify, state) => rotation,
        _ => verify,
    };
    match &state.unsaved {
        Some(unsaved) if unsaved.retry_from <= request.at => {
            Plan { step: Step::Save, at: unsaved.retry_from, why: Why::Unsaved }
        }
        _ => request,
    }
}

/// If both are due, the verification goes first because its answer contains the server's time. After a failure the
/// rotation goes first: a persistently failing verification must not delay it. A failed rotation waits for the next
/// verification.
fn goes_before(rotation: &Plan, verify: &Plan, state: &Active) -> bool {
    let is_first = rotation.at < verify.at || (rotation.at == verify.at && state.failures > 0);
    is_first && !state.ask_first && state.asked.is_none_or(|finding| finding.claim == Claim::NotUnderstood)
}

fn why_verify(asked: Option<Finding>, failures: u32) -> Why {
    match (asked.map(|finding| finding.claim), failures) {
        (Some(Claim::Refused), _) => Why::ConfirmRefusal,
        (None, 0) => Why::Interval,
        (Some(_) | None, _) => Why::Retry,
    }
}

/// When the token of an active runner is due for rotation; `None` for any other runner, and if it is never due.
#[must_use]
pub fn next_rotation(state: &State, rules: &Rules) -> Option<Timestamp> {
    let State::Active(active) = state else { return None };
    rotate_at(&active.validity, rules.rotate?, rules.phase)
}

fn plan_rotation(state: &Active, rules: &Rules) -> Option<Plan> {
    let share_at = rotate_at(&state.validity, rules.rotate?, rules.phase)?;
    let due_at = if rules.is_twin { share_at.max(state.validity.pressing_from()?) } else { share_at };
    let at = due_at.max(state.reset_from).max(state.retry_from);
    let why = match rules.rotate? {
        _ if state.failures > 0 => Why::Retry,
        Rotation::AtShare(_) => Why::ShareOfLife,
        Rotation::LastResort { .. } => Why::LastResort,
    };
    Some(Plan { step: Step::Rotate, at, why })
}
