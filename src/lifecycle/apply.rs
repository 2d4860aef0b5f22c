//! State transitions: how each outcome changes each state.

use std::time::Duration;

use super::schedule::{
    Fraction, backoff, between_resets, certainty_wait, doubled, fruitless_backoff, honoured, look_again_spacing,
    verify_spacing,
};
use super::{
    Active, Failed, NotRenewable, Rejected, Rejection, Rules, Rungs, State, Step, Trouble, Uncertain, Unregistered,
    Unsaved, Validity,
};
use crate::model::Timestamp;

/// The time of an outcome, with the randomness for its delay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// Server time.
    pub now: Timestamp,
    /// A fresh random number.
    pub chance: Fraction,
}

/// The result of a step, or another event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The runner was registered, or a given token was accepted for the first time.
    Registered(Validity),
    /// The server accepted the token and reported this validity.
    Accepted(Validity),
    /// The server refused the token in a verification.
    Refused,
    /// The server refused the token in a reset.
    ResetRefused,
    /// The token was rotated.
    Rotated(Validity),
    /// A reset was answered with the old token: nothing changed.
    NotRotated,
    /// A reset was due but not sent, because another machine uses the token.
    Withheld,
    /// The server does not renew this token.
    RotationClosed,
    /// The runner was deleted on the server.
    Removed,
    /// The step had no effect, and a retry is safe.
    Deferred {
        /// The server's `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The answer to a register or reset was lost: the request may have been executed.
    Lost {
        /// The server's `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The user must act.
    MustAct(Trouble),
    /// Another credential was found and adopted.
    Adopted(Validity),
    /// Writing the credential to config.toml failed.
    Unsaved,
    /// The credential was written to config.toml.
    Saved,
    /// The runner is to be checked now: after a signal, a changed file or a clock jump.
    Nudged,
    /// The runner was unregistered.
    Unregistered,
    /// The runner is no longer managed: its entry or enrollment was removed.
    Released,
    /// The runner was unregistered and is to be registered again, with the remaining credential if any.
    Reenrolled(Option<Validity>),
}

/// Returns the state after an outcome.
///
/// Total: every state handles every outcome. An outcome that does not follow from the state's plan (say a rotation of a
/// rejected token) is believed, because it describes what happened.
#[must_use]
pub fn apply(state: State, outcome: Outcome, rules: &Rules, moment: Moment) -> State {
    match outcome {
        Outcome::Unregistered | Outcome::Released => State::Retired { since: moment.now },
        _ if matches!(state, State::Retired { .. }) => state,
        Outcome::Registered(validity) | Outcome::Adopted(validity) => {
            State::Active(good(validity, reset_time(&state), rules, moment.now))
        }
        Outcome::Rotated(validity) => {
            let reset_from = moment.now.plus(between_resets(&rules.timing, validity.life()));
            State::Active(Active {
                since: active_since(&state, moment.now),
                ..good(validity, reset_from, rules, moment.now)
            })
        }
        Outcome::Reenrolled(None) => State::unregistered(moment.now),
        Outcome::Reenrolled(Some(validity)) => State::found(validity, reset_time(&state), moment.now),
        Outcome::Accepted(validity) => accepted(state, validity, rules, moment.now),
        Outcome::Refused => refused(state, rules, moment),
        Outcome::ResetRefused => refused(fruitless_reset(state, Duration::ZERO, rules, moment.now), rules, moment),
        Outcome::NotRotated | Outcome::Withheld => not_rotated(state, rules, moment),
        Outcome::RotationClosed => rotation_closed(state, rules, moment),
        Outcome::Deferred { retry_after } => deferred(state, retry_after, rules, moment),
        Outcome::Removed => removed(state, rules, moment.now),
        Outcome::Lost { retry_after } => lost(state, retry_after, rules, moment),
        Outcome::MustAct(trouble) => must_act(state, trouble, rules, moment),
        Outcome::Unsaved => unsaved(state, rules, moment),
        Outcome::Saved => saved(state),
        Outcome::Nudged => nudged(state, moment.now),
    }
}

/// The state of a credential that the server has just accepted.
fn good(validity: Validity, reset_from: Timestamp, rules: &Rules, now: Timestamp) -> Active {
    let verify_at = now.plus(verify_spacing(rules.verify_interval, rules.phase));
    Active { verify_at, ..Active::new(validity, reset_from, now) }
}

fn reset_time(state: &State) -> Timestamp {
    match state {
        State::Active(active) => active.reset_from,
        _ => Timestamp::EARLIEST,
    }
}

fn active_since(state: &State, now: Timestamp) -> Timestamp {
    match state {
        State::Active(active) => active.since,
        _ => now,
    }
}

fn accepted(state: State, validity: Validity, rules: &Rules, now: Timestamp) -> State {
    match state {
        State::Active(active) => State::Active(Active {
            since: active.since,
            fruitless_resets: active.fruitless_resets,
            unsaved: active.unsaved,
            ..good(validity, active.reset_from, rules, now)
        }),
        State::Uncertain(uncertain) => accepted_again(uncertain, validity, rules, now),
        State::NotRenewable(state) => State::NotRenewable(NotRenewable {
            validity,
            verify_at: now.plus(verify_spacing(rules.verify_interval, rules.phase)),
            failures: 0,
            refused_at: None,
            ..state
        }),
        State::Rejected(_) | State::Failed(_) | State::Unregistered(_) => {
            State::Active(good(validity, Timestamp::EARLIEST, rules, now))
        }
        State::Retired { .. } => state,
    }
}

/// The old token was accepted. A lagging replica may do so once; the second acceptance proves that the reset was not
/// executed.
fn accepted_again(state: Uncertain, validity: Validity, rules: &Rules, now: Timestamp) -> State {
    let accepted = state.accepted + 1;
    if accepted < 2 {
        let wait = certainty_wait(&rules.timing, rules.timing.settle_after, validity.left(now));
        return State::Uncertain(Uncertain { validity, ask_at: now.plus(wait), accepted, failures: 0, ..state });
    }
    let reset_from = now.plus(fruitless_backoff(&rules.timing, state.fruitless_resets, &validity, now));
    State::Active(Active { fruitless_resets: state.fruitless_resets, ..good(validity, reset_from, rules, now) })
}

/// Delays the next reset after one without a new token: longer with each consecutive one, and at least `least`.
fn fruitless_reset(state: State, least: Duration, rules: &Rules, now: Timestamp) -> State {
    let State::Active(active) = state else { return state };
    let fruitless_resets = active.fruitless_resets.saturating_add(1);
    let wait = fruitless_backoff(&rules.timing, fruitless_resets, &active.validity, now).max(least);
    State::Active(Active { fruitless_resets, reset_from: now.plus(wait), ..active })
}

fn refused(state: State, rules: &Rules, moment: Moment) -> State {
    let now = moment.now;
    match state {
        State::Active(active) => {
            let Some(refused_at) = first_refusal(&active.validity, active.refused_at, now) else {
                return State::Rejected(rejected_by_age(active.validity, rules, now));
            };
            let wait = certainty_wait(&rules.timing, rules.timing.confirm_after, active.validity.left(now));
            State::Active(Active {
                verify_at: now.plus(wait),
                retry_from: now,
                failures: 0,
                refused_at: Some(refused_at),
                ..active
            })
        }
        State::NotRenewable(state) => {
            let Some(refused_at) = first_refusal(&state.validity, state.refused_at, now) else {
                return State::Rejected(rejected_by_age(state.validity, rules, now));
            };
            let wait = certainty_wait(&rules.timing, rules.timing.confirm_after, state.validity.left(now));
            State::NotRenewable(NotRenewable { verify_at: now.plus(wait), refused_at: Some(refused_at), ..state })
        }
        State::Uncertain(state) => State::Rejected(rejected(state.validity, Rejection::Lost, rules, now)),
        State::Rejected(state) if rules.recovery.next_rung(&state).is_some() => {
            State::Rejected(climb(state, rules, now))
        }
        // Still refused. A registration that was declined before may succeed now.
        State::Rejected(state) => {
            let rungs = Rungs { register_failed: false, ..state.rungs };
            State::Rejected(look_again(Rejected { rungs, recover_from: now, failures: 0, ..state }, rules, now))
        }
        State::Failed(Failed { validity: Some(validity), .. }) => {
            State::Rejected(rejected_by_age(validity, rules, now))
        }
        State::Unregistered(_) | State::Failed(Failed { validity: None, .. }) => {
            must_act(state, Trouble::GivenTokenRefused, rules, moment)
        }
        State::Retired { .. } => state,
    }
}

/// The time of a refusal that needs confirmation; `None` for the second refusal, or after the expiry.
fn first_refusal(validity: &Validity, refused_at: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    (refused_at.is_none() && !validity.is_expired(now)).then_some(now)
}

fn rejected(validity: Validity, rejection: Rejection, rules: &Rules, now: Timestamp) -> Rejected {
    let look_again_at = now.plus(look_again_spacing(&rules.timing, rules.phase));
    Rejected { since: now, validity, rejection, look_again_at, rungs: Rungs::default(), failures: 0, recover_from: now }
}

fn rejected_by_age(validity: Validity, rules: &Rules, now: Timestamp) -> Rejected {
    let rejection = if validity.is_expired(now) { Rejection::Expired } else { Rejection::Refused };
    rejected(validity, rejection, rules, now)
}

fn look_again(state: Rejected, rules: &Rules, now: Timestamp) -> Rejected {
    Rejected { look_again_at: now.plus(look_again_spacing(&rules.timing, rules.phase)), ..state }
}

/// Marks the current rung as failed; the next one is due at once.
fn climb(mut state: Rejected, rules: &Rules, now: Timestamp) -> Rejected {
    match rules.recovery.next_rung(&state) {
        Some(Step::ResetById) => state.rungs.reset_failed = true,
        Some(Step::RegisterAgain) => state.rungs.register_failed = true,
        Some(Step::Register | Step::Verify | Step::Rotate | Step::Save | Step::Unregister) | None => {}
    }
    look_again(Rejected { failures: 0, recover_from: now, ..state }, rules, now)
}

/// The runner was deleted on the server: it is not recovered until a nudge.
fn removed(state: State, rules: &Rules, now: Timestamp) -> State {
    let Some(validity) = state.validity().copied() else { return state };
    let mut rejected =
        if let State::Rejected(rejected) = state { rejected } else { rejected_by_age(validity, rules, now) };
    rejected.rungs.is_removed = true;
    State::Rejected(look_again(rejected, rules, now))
}

/// An immediate retry would not change the token either.
fn not_rotated(state: State, rules: &Rules, moment: Moment) -> State {
    match state {
        State::Rejected(state) => State::Rejected(climb(state, rules, moment.now)),
        State::Active(active) => {
            let least = between_resets(&rules.timing, active.validity.life());
            let active = Active { failures: 0, retry_from: moment.now, ..active };
            fruitless_reset(State::Active(active), least, rules, moment.now)
        }
        other => deferred(other, None, rules, moment),
    }
}

fn rotation_closed(state: State, rules: &Rules, moment: Moment) -> State {
    if let State::Rejected(state) = state {
        return State::Rejected(climb(state, rules, moment.now));
    }
    let verify_at = moment.now.plus(verify_spacing(rules.verify_interval, rules.phase));
    match state {
        State::NotRenewable(state) => State::NotRenewable(NotRenewable { verify_at, ..state }),
        state => match state.validity() {
            Some(validity) => State::NotRenewable(NotRenewable {
                since: moment.now,
                validity: *validity,
                verify_at,
                failures: 0,
                refused_at: None,
            }),
            None => must_act(state, Trouble::Unsupported, rules, moment),
        },
    }
}

fn deferred(state: State, retry_after: Option<Duration>, rules: &Rules, moment: Moment) -> State {
    let timing = &rules.timing;
    let delay = |failures: u32, validity: Option<&Validity>| {
        let backoff = backoff(timing, failures, validity, moment.now, moment.chance);
        let left = validity.and_then(|validity| validity.left(moment.now));
        let requested = retry_after.map(|delay| honoured(timing, delay, left));
        moment.now.plus(requested.unwrap_or_default().max(backoff))
    };
    match state {
        State::Unregistered(state) => {
            let failures = state.failures.saturating_add(1);
            State::Unregistered(Unregistered { failures, retry_from: delay(failures, None), ..state })
        }
        State::Active(state) => {
            let failures = state.failures.saturating_add(1);
            let retry_from = delay(failures, Some(&state.validity));
            // A failed verification is retried before the end of its interval.
            State::Active(Active { failures, retry_from, verify_at: state.verify_at.min(retry_from), ..state })
        }
        State::Uncertain(state) => {
            let failures = state.failures.saturating_add(1);
            // The lost reset was a failed request too, so the first delay is longer than in other states.
            let least = certainty_wait(timing, timing.settle_after, state.validity.left(moment.now)) / 4;
            let ask_at = delay(failures, Some(&state.validity)).max(moment.now.plus(least));
            State::Uncertain(Uncertain { failures, ask_at, ..state })
        }
        State::NotRenewable(state) => {
            let failures = state.failures.saturating_add(1);
            State::NotRenewable(NotRenewable { failures, verify_at: delay(failures, Some(&state.validity)), ..state })
        }
        State::Rejected(state) => {
            let failures = state.failures.saturating_add(1);
            let retry_from = delay(failures, None);
            State::Rejected(Rejected { failures, recover_from: retry_from, look_again_at: retry_from, ..state })
        }
        State::Failed(state) => {
            let failures = state.failures.saturating_add(1);
            State::Failed(Failed { failures, look_again_at: delay(failures, None), ..state })
        }
        State::Retired { .. } => state,
    }
}

fn lost(state: State, retry_after: Option<Duration>, rules: &Rules, moment: Moment) -> State {
    let (validity, fruitless) = match state {
        State::Active(Active { validity, fruitless_resets, .. }) => (validity, fruitless_resets),
        State::NotRenewable(NotRenewable { validity, .. }) => (validity, 0),
        // Each repetition may leave one more runner behind, so it waits for the settling time.
        State::Unregistered(state) => {
            let failures = state.failures.saturating_add(1);
            let retry_from = settled_retry(failures, retry_after, rules, moment);
            return State::Unregistered(Unregistered { failures, retry_from, ..state });
        }
        State::Rejected(state) => {
            let failures = state.failures.saturating_add(1);
            let recover_from = settled_retry(failures, retry_after, rules, moment);
            return State::Rejected(look_again(Rejected { failures, recover_from, ..state }, rules, moment.now));
        }
        // These states only send verifications, which are safe to retry.
        State::Uncertain(_) | State::Failed(_) | State::Retired { .. } => {
            return deferred(state, retry_after, rules, moment);
        }
    };
    let wait = certainty_wait(&rules.timing, rules.timing.settle_after, validity.left(moment.now));
    State::Uncertain(Uncertain {
        since: moment.now,
        validity,
        ask_at: moment.now.plus(wait),
        accepted: 0,
        failures: 0,
        fruitless_resets: fruitless.saturating_add(1),
    })
}

/// The settling time doubles with each consecutive loss, because each may have left a runner behind.
fn settled_retry(failures: u32, retry_after: Option<Duration>, rules: &Rules, moment: Moment) -> Timestamp {
    let settling = doubled(rules.timing.settle_after, failures).min(rules.timing.look_again);
    let requested = retry_after.map(|delay| honoured(&rules.timing, delay, None)).unwrap_or_default();
    let backoff = backoff(&rules.timing, failures, None, moment.now, moment.chance);
    moment.now.plus(backoff.max(settling).max(requested))
}

fn must_act(state: State, trouble: Trouble, rules: &Rules, moment: Moment) -> State {
    match state {
        State::Rejected(state) => return State::Rejected(climb(state, rules, moment.now)),
        // Only an acceptance or a refusal of the old token settles this state.
        State::Uncertain(_) => return deferred(state, None, rules, moment),
        _ => {}
    }
    let since = match &state {
        State::Failed(failed) if failed.trouble == trouble => failed.since,
        _ => moment.now,
    };
    State::Failed(Failed {
        since,
        validity: state.validity().copied(),
        trouble,
        failures: 0,
        look_again_at: moment.now.plus(look_again_spacing(&rules.timing, rules.phase)),
    })
}

fn unsaved(state: State, rules: &Rules, moment: Moment) -> State {
    let State::Active(active) = state else { return state };
    let failures = active.unsaved.as_ref().map_or(0, |unsaved| unsaved.failures).saturating_add(1);
    let delay = backoff(&rules.timing, failures, Some(&active.validity), moment.now, moment.chance);
    State::Active(Active { unsaved: Some(Unsaved { failures, retry_from: moment.now.plus(delay) }), ..active })
}

fn saved(state: State) -> State {
    let State::Active(active) = state else { return state };
    State::Active(Active { unsaved: None, ..active })
}

/// Makes the next step due now. Counters stay, so repeated nudges of a failing runner cause one request each.
fn nudged(state: State, now: Timestamp) -> State {
    match state {
        State::Unregistered(state) => State::Unregistered(Unregistered { retry_from: now, ..state }),
        State::Active(state) => State::Active(Active { verify_at: now, retry_from: now, ..state }),
        State::NotRenewable(state) => State::NotRenewable(NotRenewable { verify_at: now, ..state }),
        State::Rejected(state) => {
            let rungs = Rungs { is_removed: false, register_failed: false, ..state.rungs };
            State::Rejected(Rejected { look_again_at: now, recover_from: now, rungs, ..state })
        }
        State::Failed(state) => State::Failed(Failed { look_again_at: now, ..state }),
        // The settling time is for the server and must pass.
        State::Uncertain(_) | State::Retired { .. } => state,
    }
}
