//! What an outcome makes of a state.

use std::time::Duration;

use super::schedule::{
    Fraction, backoff, between_resets, certainty_wait, doubled, look_again_spacing, obeyed, vain_backoff,
    verify_spacing,
};
use super::{
    Active, Failed, NotRenewable, Rejected, Rejection, Rules, Rungs, State, Step, Trouble, Uncertain, Unregistered,
    Unsaved, Validity,
};
use crate::model::Timestamp;

/// The time of an outcome, with the draw of chance that its delay may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// Server time.
    pub now: Timestamp,
    /// A fresh draw.
    pub chance: Fraction,
}

/// What became of a step, or what was found out otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The runner was made, or a given token was accepted for the first time.
    Registered(Validity),
    /// A genuine answer accepted the token, whose times are now known to be these.
    Accepted(Validity),
    /// A genuine answer to a question refused the token.
    Refused,
    /// A genuine answer to a reset refused the token.
    ResetRefused,
    /// The token was replaced.
    Rotated(Validity),
    /// The answer to a reset was the token we had: nothing changed.
    NotRotated,
    /// A reset was due and not sent, since it would shut out somebody else.
    Withheld,
    /// The server will not renew this token.
    RotationClosed,
    /// The server no longer has the runner: somebody removed it.
    Removed,
    /// Nothing happened that we know of, and asking again does no harm.
    Deferred {
        /// How long the server wishes to be left alone.
        retry_after: Option<Duration>,
    },
    /// The answer to a register or reset was lost: it may have happened.
    Lost {
        /// How long the server wishes to be left alone.
        retry_after: Option<Duration>,
    },
    /// Nothing helps until a human acts.
    MustAct(Trouble),
    /// Another credential was found and is now held.
    Adopted(Validity),
    /// The credential could not be written to config.toml.
    Unsaved,
    /// The credential is in config.toml after all.
    Saved,
    /// Someone asks for a look now: a signal, a changed file, a clock that jumped.
    Nudged,
    /// The runner was unregistered.
    Unregistered,
    /// The runner is left alone from now on: its entry or its enrollment is gone.
    Released,
    /// The runner was unregistered and its enrollment wants it back, with the credential that is left, if any.
    Reenrolled(Option<Validity>),
}

/// Takes the state through one outcome.
///
/// Total: every outcome is answered in every state. One that cannot follow from the state's own plan
/// (say a rotation of a rejected token) is taken at its word, since it tells what is.
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
        Outcome::ResetRefused => refused(in_vain(state, Duration::ZERO, rules, moment.now), rules, moment),
        Outcome::NotRotated | Outcome::Withheld => not_rotated(state, rules, moment),
        Outcome::RotationClosed => rotation_closed(state, rules, moment),
        Outcome::Deferred { retry_after } => deferred(state, retry_after, rules, moment),
        Outcome::Removed => removed(state, rules, moment),
        Outcome::Lost { retry_after } => lost(state, retry_after, rules, moment),
        Outcome::MustAct(trouble) => must_act(state, trouble, rules, moment),
        Outcome::Unsaved => unsaved(state, rules, moment),
        Outcome::Saved => saved(state),
        Outcome::Nudged => nudged(state, moment.now),
    }
}

/// A credential that a genuine answer has just proven good.
fn good(validity: Validity, reset_from: Timestamp, rules: &Rules, now: Timestamp) -> Active {
    Active {
        since: now,
        validity,
        verify_at: now.plus(verify_spacing(rules.verify_interval, rules.phase)),
        reset_from,
        failures: 0,
        retry_from: now,
        resets_in_vain: 0,
        refused_at: None,
        unsaved: None,
    }
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
            resets_in_vain: active.resets_in_vain,
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

/// The old token still works: once may be a replica that lags behind the reset, twice is proof that
/// the reset did not happen.
fn accepted_again(state: Uncertain, validity: Validity, rules: &Rules, now: Timestamp) -> State {
    let accepted = state.accepted + 1;
    if accepted < 2 {
        let wait = certainty_wait(&rules.timing, rules.timing.settle_after, validity.left(now));
        return State::Uncertain(Uncertain { validity, ask_at: now.plus(wait), accepted, failures: 0, ..state });
    }
    let reset_from = now.plus(vain_backoff(&rules.timing, state.resets_in_vain, &validity, now));
    State::Active(Active { resets_in_vain: state.resets_in_vain, ..good(validity, reset_from, rules, now) })
}

/// A reset that brought no new token: the next one waits longer with each in a row, and at least `least`.
fn in_vain(state: State, least: Duration, rules: &Rules, now: Timestamp) -> State {
    match state {
        State::Active(active) => {
            let resets_in_vain = active.resets_in_vain.saturating_add(1);
            let wait = vain_backoff(&rules.timing, resets_in_vain, &active.validity, now).max(least);
            State::Active(Active { resets_in_vain, reset_from: now.plus(wait), ..active })
        }
        other => other,
    }
}

fn refused(state: State, rules: &Rules, moment: Moment) -> State {
    let now = moment.now;
    match state {
        State::Active(active) => {
            let Some(refused_at) = first_refusal(&active.validity, active.refused_at, now) else {
                return rejected(active.validity, None, rules, now);
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
                return rejected(state.validity, None, rules, now);
            };
            let wait = certainty_wait(&rules.timing, rules.timing.confirm_after, state.validity.left(now));
            State::NotRenewable(NotRenewable { verify_at: now.plus(wait), refused_at: Some(refused_at), ..state })
        }
        State::Uncertain(state) => rejected(state.validity, Some(Rejection::Lost), rules, now),
        State::Rejected(state) if rules.recovery.next_rung(&state).is_some() => {
            State::Rejected(climb(state, rules, now))
        }
        // Another look found it refused still; what could not be registered then may be by now.
        State::Rejected(state) => {
            let rungs = Rungs { register_failed: false, ..state.rungs };
            State::Rejected(look_again(Rejected { rungs, recover_from: now, failures: 0, ..state }, rules, now))
        }
        State::Failed(Failed { validity: Some(validity), .. }) => rejected(validity, None, rules, now),
        State::Unregistered(_) | State::Failed(Failed { validity: None, .. }) => {
            must_act(state, Trouble::GivenTokenRefused, rules, moment)
        }
        State::Retired { .. } => state,
    }
}

/// The refusal that needs to be confirmed; none if this one counts: the second, or one past the expiry.
fn first_refusal(validity: &Validity, refused_at: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    (refused_at.is_none() && !validity.is_expired(now)).then_some(now)
}

fn rejected(validity: Validity, rejection: Option<Rejection>, rules: &Rules, now: Timestamp) -> State {
    let by_age = if validity.is_expired(now) { Rejection::Expired } else { Rejection::Refused };
    State::Rejected(Rejected {
        since: now,
        validity,
        rejection: rejection.unwrap_or(by_age),
        look_again_at: now.plus(look_again_spacing(&rules.timing, rules.phase)),
        rungs: Rungs::default(),
        failures: 0,
        recover_from: now,
    })
}

fn look_again(state: Rejected, rules: &Rules, now: Timestamp) -> Rejected {
    Rejected { look_again_at: now.plus(look_again_spacing(&rules.timing, rules.phase)), ..state }
}

/// The present rung has failed for good: the next one is tried at once.
fn climb(mut state: Rejected, rules: &Rules, now: Timestamp) -> Rejected {
    match rules.recovery.next_rung(&state) {
        Some(Step::ResetById) => state.rungs.reset_failed = true,
        Some(Step::RegisterAgain) => state.rungs.register_failed = true,
        Some(Step::Register | Step::Verify | Step::Rotate | Step::Save | Step::Unregister) | None => {}
    }
    look_again(Rejected { failures: 0, recover_from: now, ..state }, rules, now)
}

/// Somebody removed the runner on the server; so it stays, until somebody acts here too.
fn removed(state: State, rules: &Rules, moment: Moment) -> State {
    let state = match state {
        State::Active(Active { validity, .. })
        | State::Uncertain(Uncertain { validity, .. })
        | State::NotRenewable(NotRenewable { validity, .. })
        | State::Failed(Failed { validity: Some(validity), .. }) => rejected(validity, None, rules, moment.now),
        State::Rejected(_)
        | State::Retired { .. }
        | State::Unregistered(_)
        | State::Failed(Failed { validity: None, .. }) => state,
    };
    match state {
        State::Rejected(mut state) => {
            state.rungs.is_removed = true;
            State::Rejected(look_again(state, rules, moment.now))
        }
        other => other,
    }
}

/// A reset that changes nothing will change nothing a moment later either.
fn not_rotated(state: State, rules: &Rules, moment: Moment) -> State {
    match state {
        State::Rejected(state) => State::Rejected(climb(state, rules, moment.now)),
        State::Active(active) => {
            let least = between_resets(&rules.timing, active.validity.life());
            let active = Active { failures: 0, retry_from: moment.now, ..active };
            in_vain(State::Active(active), least, rules, moment.now)
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
        let wished =
            retry_after.map(|wish| obeyed(timing, wish, validity.and_then(|validity| validity.left(moment.now))));
        moment.now.plus(wished.unwrap_or_default().max(backoff))
    };
    match state {
        State::Unregistered(state) => {
            let failures = state.failures.saturating_add(1);
            State::Unregistered(Unregistered { failures, retry_from: delay(failures, None), ..state })
        }
        State::Active(state) => {
            let failures = state.failures.saturating_add(1);
            let retry_from = delay(failures, Some(&state.validity));
            // A failed check is repeated sooner than the interval would have it.
            State::Active(Active { failures, retry_from, verify_at: state.verify_at.min(retry_from), ..state })
        }
        State::Uncertain(state) => {
            let failures = state.failures.saturating_add(1);
            // The reset itself has been a request, so asking again starts out slower than elsewhere.
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
    let (validity, in_vain) = match state {
        State::Active(Active { validity, resets_in_vain, .. }) => (validity, resets_in_vain),
        State::NotRenewable(NotRenewable { validity, .. }) => (validity, 0),
        State::Unregistered(state) => return State::Unregistered(lost_registration(state, retry_after, rules, moment)),
        State::Rejected(state) => {
            let failures = state.failures.saturating_add(1);
            let recover_from = settled_retry(failures, retry_after, rules, moment);
            return State::Rejected(look_again(Rejected { failures, recover_from, ..state }, rules, moment.now));
        }
        // No reset is sent in these states, so what was lost is the answer to a question.
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
        resets_in_vain: in_vain.saturating_add(1),
    })
}

/// A registration that may have happened is repeated only after the settling time: each repetition may
/// leave one more runner behind.
fn lost_registration(
    state: Unregistered,
    retry_after: Option<Duration>,
    rules: &Rules,
    moment: Moment,
) -> Unregistered {
    let failures = state.failures.saturating_add(1);
    Unregistered { failures, retry_from: settled_retry(failures, retry_after, rules, moment), ..state }
}

/// The settling time doubles with each loss in a row: what each may have left behind adds up.
fn settled_retry(failures: u32, retry_after: Option<Duration>, rules: &Rules, moment: Moment) -> Timestamp {
    let settling = doubled(rules.timing.settle_after, failures).min(rules.timing.look_again);
    let wished = retry_after.map(|wish| obeyed(&rules.timing, wish, None)).unwrap_or_default();
    let backoff = backoff(&rules.timing, failures, None, moment.now, moment.chance);
    moment.now.plus(backoff.max(settling).max(wished))
}

fn must_act(state: State, trouble: Trouble, rules: &Rules, moment: Moment) -> State {
    match state {
        State::Rejected(state) => return State::Rejected(climb(state, rules, moment.now)),
        // A doubt is settled by a yes or a no to the old token, and by nothing else.
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
    match state {
        State::Active(active) => {
            let failures = active.unsaved.as_ref().map_or(0, |unsaved| unsaved.failures).saturating_add(1);
            let delay = backoff(&rules.timing, failures, Some(&active.validity), moment.now, moment.chance);
            State::Active(Active { unsaved: Some(Unsaved { failures, retry_from: moment.now.plus(delay) }), ..active })
        }
        other => other,
    }
}

fn saved(state: State) -> State {
    match state {
        State::Active(active) => State::Active(Active { unsaved: None, ..active }),
        other => other,
    }
}

/// Brings the next look forward. Counters stay, so that nudging a failing runner again and again makes
/// no request more than one for each nudge.
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
        // The settling time is there for the server's sake and cannot be hurried.
        State::Uncertain(_) | State::Retired { .. } => state,
    }
}
