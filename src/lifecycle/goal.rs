//! What a one-shot command does next, until it has what it wants of a runner.
//!
//! A command asks for steps before they are due. How long it waits in between, and how often it tries, follows from
//! the same states and times as in the daemon.

use super::schedule::certainty_wait;
use super::{Active, Outcome, Plan, Rules, State, Step, Why, plan};
use crate::model::Timestamp;

/// What a command wants of a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// An answer to one verification.
    Verified,
    /// A confirmed refusal of the token.
    Refused,
    /// A registration, repeated while the server surely did not execute it.
    Registered,
    /// The same into an entry that exists.
    RegisteredAgain,
    /// A new token, requested by the present one; by the runner's id if that one is refused and the rules allow it.
    Rotated,
    /// A new token, requested by the runner's id.
    RotatedById,
    /// A config.toml that holds the credential.
    Saved,
    /// One attempt to unregister the runner.
    Unregistered,
}

/// A step that a command has taken, with what came of it.
pub type Taken = (Step, Outcome);

/// How often a command asks about a reset whose answer was lost.
const SETTLING_VERIFICATIONS: usize = 4;

/// How many refusals confirm each other.
const CONFIRMING_REFUSALS: usize = 2;

/// The next step towards a goal; `None` once the goal is reached, or out of reach.
///
/// `taken` has the steps since the command began, oldest first.
#[must_use]
pub fn plan_towards(goal: Goal, state: &State, taken: &[Taken], rules: &Rules, now: Timestamp) -> Option<Plan> {
    let at_once = |step| Some(Plan { step, at: now, why: Why::Requested });
    match goal {
        Goal::Verified if taken.is_empty() => at_once(Step::Verify),
        Goal::Unregistered if taken.is_empty() => at_once(Step::Unregister),
        Goal::Verified | Goal::Unregistered => None,
        Goal::Refused => match taken.last() {
            None => at_once(Step::Verify),
            Some((_, Outcome::Refused)) if taken.len() < CONFIRMING_REFUSALS => {
                Some(Plan { step: Step::Verify, at: confirm_at(state, rules), why: Why::ConfirmRefusal })
            }
            Some(_) => None,
        },
        Goal::Registered => registration(Step::Register, state, taken, now),
        Goal::RegisteredAgain => registration(Step::RegisterAgain, state, taken, now),
        Goal::Rotated => rotation(Step::Rotate, state, taken, rules, now),
        Goal::RotatedById => rotation(Step::ResetById, state, taken, rules, now),
        Goal::Saved => match state {
            State::Active(Active { unsaved: Some(unsaved), .. }) => {
                Some(Plan { step: Step::Save, at: unsaved.retry_from, why: Why::Unsaved })
            }
            _ => None,
        },
    }
}

/// When a refusal that was just received is to be confirmed.
fn confirm_at(state: &State, rules: &Rules) -> Timestamp {
    match state {
        State::Active(state) => state.verify_at,
        State::NotRenewable(state) => state.verify_at,
        // Past the expiry one refusal is enough for the state, which leaves the entry where it is.
        state => {
            let left = state.validity().and_then(|validity| validity.left(state.since()));
            state.since().plus(certainty_wait(&rules.timing, rules.timing.confirm_after, left))
        }
    }
}

fn registration(step: Step, state: &State, taken: &[Taken], now: Timestamp) -> Option<Plan> {
    match (taken.last(), state) {
        (None, _) => Some(Plan { step, at: now, why: Why::Requested }),
        (Some((_, Outcome::Deferred { .. })), State::Unregistered(state)) => {
            Some(Plan { step, at: state.retry_from, why: Why::Retry })
        }
        (Some(_), _) => None,
    }
}

/// Settles a lost answer first, and writes a token that config.toml does not hold yet. A reset is sent once; one whose
/// answer is lost is settled and not repeated.
fn rotation(reset: Step, state: &State, taken: &[Taken], rules: &Rules, now: Timestamp) -> Option<Plan> {
    let at_once = |step| Some(Plan { step, at: now, why: Why::Requested });
    if matches!(state, State::Uncertain(_)) {
        let settling = taken.iter().rev().take_while(|(step, _)| *step == Step::Verify).count();
        return plan(state, rules).filter(|_| settling < SETTLING_VERIFICATIONS);
    }
    let mut resets = taken.iter().filter(|(step, _)| matches!(step, Step::Rotate | Step::ResetById));
    match (resets.next(), taken.last()) {
        (None, None) if is_unsaved(state) => at_once(Step::Save),
        (None, Some((Step::Save, outcome))) if *outcome != Outcome::Saved => None,
        (None, _) => at_once(reset).filter(|_| !matches!(state, State::Rejected(_))),
        (Some((Step::Rotate, Outcome::ResetRefused)), Some((Step::Rotate, _))) if rules.recovery.reset_by_id => {
            at_once(Step::ResetById)
        }
        (Some(_), _) => None,
    }
}

fn is_unsaved(state: &State) -> bool {
    matches!(state, State::Active(Active { unsaved: Some(_), .. }))
}
