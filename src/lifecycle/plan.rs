//! What comes next for a runner.

use super::schedule::rotate_at;
use super::{Active, Failed, Rules, State};
use crate::model::{Step, Timestamp, Why};

/// One thing to do, when, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What.
    pub step: Step,
    /// Server time from which it is due; may lie in the past.
    pub at: Timestamp,
    /// The reason, for people.
    pub why: Why,
}

/// Says what comes next; `None` once the runner is retired.
///
/// A function of the state alone: the time enters through [`apply()`](super::apply()), so asking twice
/// gives the same answer.
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
            let why = match (state.refused_at, state.failures) {
                (Some(_), _) => Why::ConfirmRefusal,
                (None, 0) => Why::Interval,
                (None, _) => Why::Retry,
            };
            Some(Plan { step: Step::Verify, at: state.verify_at, why })
        }
        State::Failed(state) => Some(plan_failed(state)),
        State::Retired { .. } => None,
    }
}

fn plan_active(state: &Active, rules: &Rules) -> Plan {
    let verify = plan_verify(state);
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

/// Of two that are due at once the verification goes first, since its answer tells the server's time;
/// after a failure the rotation does, so that a verify that never works cannot hold it up.
fn goes_before(rotation: &Plan, verify: &Plan, state: &Active) -> bool {
    let is_first = rotation.at < verify.at || (rotation.at == verify.at && state.failures > 0);
    is_first && state.refused_at.is_none()
}

fn plan_verify(state: &Active) -> Plan {
    let why = match (state.refused_at, state.failures) {
        (Some(_), _) => Why::ConfirmRefusal,
        (None, 0) => Why::Interval,
        (None, _) => Why::Retry,
    };
    Plan { step: Step::Verify, at: state.verify_at.max(state.retry_from), why }
}

fn plan_rotation(state: &Active, rules: &Rules) -> Option<Plan> {
    let share_at = rotate_at(&state.validity, rules.rotate?, rules.phase)?;
    let at = share_at.max(state.reset_from).max(state.retry_from);
    let why = if state.failures == 0 { Why::ShareOfLife } else { Why::Retry };
    Some(Plan { step: Step::Rotate, at, why })
}

fn plan_failed(state: &Failed) -> Plan {
    let step = if state.validity.is_some() { Step::Verify } else { Step::Register };
    Plan { step, at: state.look_again_at, why: Why::LookAgain }
}
