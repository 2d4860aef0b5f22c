//! The next step of a runner.

use super::schedule::rotate_at;
use super::{Active, Rules, State};
use crate::model::{Step, Timestamp, Why};

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
        State::Rejected(state) => Some(match rules.recovery.next_rung(state) {
            Some(step) => Plan { step, at: state.recover_from, why: Why::Recovery },
            None => Plan { step: Step::Verify, at: state.look_again_at, why: Why::LookAgain },
        }),
        State::NotRenewable(state) => {
            Some(Plan { step: Step::Verify, at: state.verify_at, why: why_verify(state.refused_at, state.failures) })
        }
        State::Failed(state) => {
            let step = if state.validity.is_some() { Step::Verify } else { Step::Register };
            Some(Plan { step, at: state.look_again_at, why: Why::LookAgain })
        }
        State::Retired { .. } => None,
    }
}

fn plan_active(state: &Active, rules: &Rules) -> Plan {
    let why = why_verify(state.refused_at, state.failures);
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
/// rotation goes first: a persistently failing verification must not delay it.
fn goes_before(rotation: &Plan, verify: &Plan, state: &Active) -> bool {
    let is_first = rotation.at < verify.at || (rotation.at == verify.at && state.failures > 0);
    is_first && state.refused_at.is_none()
}

fn why_verify(refused_at: Option<Timestamp>, failures: u32) -> Why {
    match (refused_at, failures) {
        (Some(_), _) => Why::ConfirmRefusal,
        (None, 0) => Why::Interval,
        (None, _) => Why::Retry,
    }
}

fn plan_rotation(state: &Active, rules: &Rules) -> Option<Plan> {
    let share_at = rotate_at(&state.validity, rules.rotate?, rules.phase)?;
    let at = share_at.max(state.reset_from).max(state.retry_from);
    let why = if state.failures == 0 { Why::ShareOfLife } else { Why::Retry };
    Some(Plan { step: Step::Rotate, at, why })
}
