//! State transitions: how each outcome changes each state.
//!
//! No single answer has a lasting consequence: what an answer claims is counted in a [`Finding`], and a state is left
//! for good only once a [`Proof`] is met.

use std::time::Duration;

use super::schedule::{
    Fraction, Fruitless, Proof, after_reset, backoff, between_resets, certainty_wait, doubled, fruitless_backoff,
    honoured, look_again_spacing, renew_again_spacing, settling_wait, verify_spacing,
};
use super::{
    Active, Failed, NotRenewable, Rejected, Rejection, Rules, Rungs, State, Step, Trouble, Uncertain, Unregistered,
    Unsaved, Validity,
};
use crate::model::{Boot, Claim, Finding, Stamp, Timestamp};

/// The time of an outcome, with the randomness for its delay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// Server time.
    pub now: Timestamp,
    /// The boot that `since_boot` counts from.
    pub boot: Boot,
    /// Time since boot.
    pub since_boot: Duration,
    /// A fresh random number.
    pub chance: Fraction,
}

impl Moment {
    /// The moment by both clocks, for evidence.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        let since_boot_ms = u64::try_from(self.since_boot.as_millis()).unwrap_or(u64::MAX);
        Stamp { at: self.now, boot: self.boot, since_boot_ms }
    }
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
    /// The server answered a verification with something that a human must act on.
    Claimed(Trouble),
    /// A verification got an answer that is not one of GitLab's.
    NotUnderstood {
        /// The server's `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// config.toml holds an unknown token that is not proven dead, so the credential was not written over it.
    Disputed,
    /// A reset was not sent: config.toml holds an unknown token, which is verified first.
    Contested,
    /// The token was accepted, but a replica that lags may have said so: the same runner at another address has got a new
    /// one just now. No reset before a later acceptance.
    Doubtful,
    /// The server refused the token in a reset.
    ResetRefused,
    /// The token was rotated.
    Rotated(Validity),
    /// A reset was answered with the old token: nothing changed.
    NotRotated,
    /// A reset was due but not sent, because another machine uses the token.
    Withheld,
    /// A reset was not sent, because there is no place for the new token: there is no state directory, and no entry.
    NoEntry,
    /// The server does not renew this token.
    RotationClosed,
    /// A call by the runner's id: the runner does not exist.
    Removed,
    /// The step had no effect, and a retry is safe.
    Deferred {
        /// The server's `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// A registration was not sent, because another process has registered a runner of the name. An inventory gives that one
    /// to the enrollment.
    RegisteredElsewhere,
    /// A reset surely had no effect. A verification comes before the next one.
    ResetDeferred {
        /// The server's `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The answer to a register or reset was lost: the request may have been executed.
    Lost {
        /// The server's `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The answer to a reset by another process was lost, which says why the token is dead.
    LostElsewhere,
    /// The server declined a register or reset with something that a human must act on.
    Declined(Trouble),
    /// The server did not confirm an unregistration.
    NotUnregistered(Settling),
    /// The user must act: something on this machine prevents the step.
    MustAct(Trouble),
    /// Another credential was found and adopted.
    Adopted(Validity),
    /// Writing the credential to config.toml failed.
    Unsaved,
    /// The credential was written to config.toml.
    Saved,
    /// The runner is to be checked now: after a changed file or a clock jump.
    Nudged,
    /// The estimate of the server's time was corrected.
    TimeCorrected {
        /// What this moment was by the former estimate.
        before: Timestamp,
        /// The earliest time of the next reset after that of a former process, if only now is known how long that was ago.
        reset_from: Option<Timestamp>,
    },
    /// A token that the runner is registered or reset with was replaced: what the old one did not allow may succeed now.
    SecretReplaced,
    /// A person asks for a new attempt of everything that failed.
    Requested,
    /// The runner was unregistered.
    Unregistered,
    /// The runner is no longer managed: its entry or enrollment was removed.
    Released,
    /// The runner was unregistered and is to be registered again, with the remaining credential if any.
    Reenrolled(Option<Validity>),
}

impl Outcome {
    /// Whether it says how it stands with the runner's current token: it is new to the state, or the server has judged it.
    #[must_use]
    pub fn tells_of_token(&self) -> bool {
        matches!(self, Self::Registered(_) | Self::Accepted(_) | Self::Refused | Self::Rotated(_) | Self::Adopted(_))
    }
}

/// How it is found out what became of a deletion that the server did not confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settling {
    /// By a verification: a refused token means that the runner is gone.
    Ask,
    /// By a verification; an accepted token may mean that the deleted manager exists again, so its deletion is repeated.
    AskThenRepeat,
    /// By the same deletion once more.
    Repeat,
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
            let reset_from = moment.now.plus(after_reset(rules, &validity, moment.now));
            State::Active(Active {
                since: active_since(&state, moment.now),
                ..good(validity, reset_from, rules, moment.now)
            })
        }
        Outcome::Reenrolled(None) => State::unregistered(moment.now),
        Outcome::Reenrolled(Some(validity)) => State::found(validity, reset_time(&state), moment.now),
        Outcome::Accepted(validity) => accepted(state, validity, rules, moment.now),
        Outcome::Refused => claimed(state, Claim::Refused, None, rules, moment),
        Outcome::Claimed(trouble) => claimed(state, Claim::MustAct(trouble), None, rules, moment),
        Outcome::NotUnderstood { retry_after } => claimed(state, Claim::NotUnderstood, retry_after, rules, moment),
        Outcome::Disputed => disputed(state, rules, moment.now),
        Outcome::Contested => contested(state, rules, moment.now),
        Outcome::Doubtful => doubtful(state, rules, moment.now),
        Outcome::ResetRefused => reset_refused(state, rules, moment),
        Outcome::NotRotated | Outcome::Withheld => not_rotated(state, rules, moment),
        Outcome::NoEntry => no_entry(state, rules, moment),
        Outcome::RotationClosed => declined(state, Claim::NotRenewable, rules, moment),
        Outcome::Declined(trouble) => declined(state, Claim::MustAct(trouble), rules, moment),
        Outcome::Removed => declined(state, Claim::Removed, rules, moment),
        Outcome::Deferred { retry_after } => deferred(state, retry_after, rules, moment),
        Outcome::RegisteredElsewhere => deferred(state, None, rules, moment),
        Outcome::ResetDeferred { retry_after } => asking_first(deferred(state, retry_after, rules, moment)),
        Outcome::Lost { retry_after } => lost(state, retry_after, rules, moment),
        Outcome::LostElsewhere => match state {
            State::Rejected(state) => State::Rejected(Rejected { rejection: Rejection::Lost, ..state }),
            other => lost(other, None, rules, moment),
        },
        Outcome::NotUnregistered(_) => verified_soon(state, moment.now),
        Outcome::MustAct(trouble) => must_act(state, trouble, rules, moment),
        Outcome::Unsaved => unsaved(state, rules, moment),
        Outcome::Saved => saved(state),
        Outcome::Nudged => nudged(state, moment.now),
        Outcome::TimeCorrected { before, reset_from } => time_corrected(state, before, reset_from, moment.now),
        Outcome::SecretReplaced => secret_replaced(state, moment.now),
        Outcome::Requested => requested(state, moment.now),
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
            changed: active.changed,
            unsaved: active.unsaved,
            ..good(validity, active.reset_from, rules, now)
        }),
        State::Uncertain(uncertain) => accepted_again(uncertain, validity, rules, now),
        State::NotRenewable(state) => State::NotRenewable(NotRenewable {
            validity,
            verify_at: now.plus(verify_spacing(rules.verify_interval, rules.phase)),
            failures: 0,
            asked: None,
            ..state
        }),
        State::Failed(Failed { changed, .. }) => {
            State::Active(Active { changed, ..good(validity, Timestamp::EARLIEST, rules, now) })
        }
        State::Rejected(_) | State::Unregistered(_) => State::Active(good(validity, Timestamp::EARLIEST, rules, now)),
        State::Retired { .. } => state,
    }
}

/// The old token was accepted. A lagging replica may do so once; the second acceptance proves that the reset was not
/// executed.
fn accepted_again(state: Uncertain, validity: Validity, rules: &Rules, now: Timestamp) -> State {
    let accepted = state.accepted + 1;
    if accepted < 2 {
        let wait = settling_wait(&rules.timing, validity.left(now));
        let ask_at = now.plus(wait);
        return State::Uncertain(Uncertain { validity, ask_at, accepted, asked: None, failures: 0, ..state });
    }
    let reset_from =
        now.plus(fruitless_backoff(&rules.timing, Fruitless::Lost, state.fruitless_resets, &validity, now));
    State::Active(Active { fruitless_resets: state.fruitless_resets, ..good(validity, reset_from, rules, now) })
}

/// Counts what the answer to a verification claims, and concludes once that is proven.
fn claimed(state: State, claim: Claim, retry_after: Option<Duration>, rules: &Rules, moment: Moment) -> State {
    let (now, stamp, timing) = (moment.now, moment.stamp(), &rules.timing);
    let asked = match &state {
        // It is about a token in an odd answer.
        State::Failed(Failed { validity: None, trouble: Trouble::RegistrationLost, .. }) => {
            return deferred(state, retry_after, rules, moment);
        }
        State::Active(Active { asked, .. })
        | State::NotRenewable(NotRenewable { asked, .. })
        | State::Uncertain(Uncertain { asked, .. })
        | State::Failed(Failed { asked, .. }) => *asked,
        // It says nothing about the token that was asked about, and to ask again spends none.
        State::Unregistered(_) if claim == Claim::NotUnderstood => return deferred(state, retry_after, rules, moment),
        State::Unregistered(_) => return declined(state, given_token_claim(claim), rules, moment),
        // No rung answers so; if one does, it is a failure of the rung.
        State::Rejected(rejected) if rejected.is_settled() && rules.recovery.next_rung(rejected).is_some() => {
            return deferred(state, retry_after, rules, moment);
        }
        State::Rejected(_) if claim == Claim::Refused => return still_refused(state, rules, now),
        State::Rejected(_) | State::Retired { .. } => return deferred(state, retry_after, rules, moment),
    };
    let Some(validity) = state.validity().copied() else {
        return must_act(state, trouble_of(given_token_claim(claim)), rules, moment);
    };
    let finding = Finding::added(asked, claim, stamp);
    let proof = Proof::of(claim, timing, validity.left(now));
    if proof.is_met(&finding, &stamp) {
        return concluded(state, claim, &validity, rules, moment, finding);
    }
    let at = now.plus(proof.wait(&finding, &stamp, timing));
    let asked = Some(finding);
    match state {
        // As any failed verification: the answer says nothing about the runner.
        State::Active(_) | State::NotRenewable(_) | State::Uncertain(_) if claim == Claim::NotUnderstood => {
            with_asked(deferred(state, retry_after, rules, moment), asked)
        }
        State::Active(state) => {
            State::Active(Active { verify_at: at, retry_from: now, failures: 0, ask_first: false, asked, ..state })
        }
        State::NotRenewable(state) => State::NotRenewable(NotRenewable { verify_at: at, asked, ..state }),
        State::Uncertain(state) => State::Uncertain(Uncertain { ask_at: at, asked, ..state }),
        State::Failed(state) => {
            let look_again_at = at.min(now.plus(look_again_spacing(timing, rules.phase, validity.left(now))));
            State::Failed(Failed { look_again_at, asked, ..state })
        }
        other => other,
    }
}

fn with_asked(state: State, asked: Option<Finding>) -> State {
    match state {
        State::Active(state) => State::Active(Active { asked, ..state }),
        State::NotRenewable(state) => State::NotRenewable(NotRenewable { asked, ..state }),
        State::Uncertain(state) => State::Uncertain(Uncertain { asked, ..state }),
        other => other,
    }
}

/// What a verification has proven.
fn concluded(
    state: State,
    claim: Claim,
    validity: &Validity,
    rules: &Rules,
    moment: Moment,
    finding: Finding,
) -> State {
    match (claim, state) {
        (Claim::Refused, State::Uncertain(_)) => {
            State::Rejected(rejected(*validity, Rejection::Lost, rules, moment.now))
        }
        (Claim::Refused, _) => State::Rejected(rejected_by_age(*validity, rules, moment.now)),
        // Only an acceptance or a refusal of the old token settles a lost reset.
        (_, state @ State::Uncertain(_)) => with_asked(deferred(state, None, rules, moment), Some(finding)),
        (claim, state) => match must_act(state, trouble_of(claim), rules, moment) {
            State::Failed(state) => State::Failed(Failed { asked: Some(finding), ..state }),
            other => other,
        },
    }
}

/// A refusal of a token that was given for an enrollment is about that token.
fn given_token_claim(claim: Claim) -> Claim {
    match claim {
        Claim::Refused => Claim::MustAct(Trouble::GivenTokenRefused),
        other => other,
    }
}

fn trouble_of(claim: Claim) -> Trouble {
    match claim {
        Claim::MustAct(trouble) => trouble,
        Claim::NotUnderstood => Trouble::NotUnderstood,
        Claim::NotRenewable | Claim::Removed | Claim::Refused => Trouble::Unsupported,
    }
}

/// Counts how the server has declined a request that changes something, and concludes once that is proven.
fn declined(state: State, claim: Claim, rules: &Rules, moment: Moment) -> State {
    let (now, stamp, timing) = (moment.now, moment.stamp(), &rules.timing);
    let changed = match &state {
        State::Unregistered(state) => state.changed,
        State::Active(state) => state.changed,
        State::Rejected(state) => state.changed,
        State::NotRenewable(state) => state.changed,
        State::Failed(state) => state.changed,
        State::Uncertain(_) | State::Retired { .. } => return deferred(state, None, rules, moment),
    };
    let left = state.validity().and_then(|validity| validity.left(now));
    let finding = Finding::added(changed, claim, stamp);
    let proof = match (claim, &state) {
        // A rung of the recovery ladder is given up as reluctantly as a registration.
        (Claim::NotRenewable, State::Rejected(_)) => Proof::of_three(timing, left),
        (Claim::NotUnderstood, _) => Proof::of_a_day(timing, left),
        (claim, _) => Proof::of(claim, timing, left),
    };
    let (is_proven, wait) = (proof.is_met(&finding, &stamp), proof.wait(&finding, &stamp, timing));
    let (changed, at) = (Some(finding), now.plus(wait));
    match state {
        State::Unregistered(state) if !is_proven => {
            let failures = state.failures.saturating_add(1);
            State::Unregistered(Unregistered { failures, retry_from: at, changed, ..state })
        }
        State::Active(state) if !is_proven || claim == Claim::Removed => State::Active(Active {
            verify_at: now,
            retry_from: now,
            reset_from: at.max(state.reset_from),
            ask_first: true,
            changed,
            ..state
        }),
        State::Active(Active { validity, .. }) if claim == Claim::NotRenewable => {
            let verify_at = now.plus(verify_spacing(rules.verify_interval, rules.phase));
            let reset_at = now.plus(renew_again_spacing(timing, left));
            let since = now;
            State::NotRenewable(NotRenewable {
                since,
                validity,
                verify_at,
                reset_at,
                failures: 0,
                asked: None,
                changed,
            })
        }
        State::NotRenewable(state) if claim == Claim::NotRenewable || !is_proven => {
            let spacing = renew_again_spacing(timing, left);
            State::NotRenewable(NotRenewable { reset_at: now.plus(spacing), verify_at: now, changed, ..state })
        }
        State::Rejected(state) if is_proven && claim == Claim::Removed => {
            let rungs = Rungs { is_removed: true, ..state.rungs };
            State::Rejected(look_again(Rejected { rungs, changed, ..state }, rules, now))
        }
        State::Rejected(state) if is_proven => State::Rejected(climb(Rejected { changed, ..state }, rules, now)),
        State::Rejected(state) => {
            let failures = state.failures.saturating_add(1);
            State::Rejected(Rejected { failures, recover_from: at, look_again_at: at, changed, ..state })
        }
        State::Failed(state) if !is_proven => State::Failed(Failed { look_again_at: at, changed, ..state }),
        state => match must_act(state, trouble_of(claim), rules, moment) {
            State::Failed(state) => State::Failed(Failed { changed, ..state }),
            other => other,
        },
    }
}

/// Whether the token is dead is for a verification to find out, now and before another reset.
fn reset_refused(state: State, rules: &Rules, moment: Moment) -> State {
    if matches!(state, State::Unregistered(_)) {
        return declined(state, Claim::MustAct(Trouble::RegistrationRefused), rules, moment);
    }
    match state {
        State::Active(active) => State::Active(fruitless_and_asked(active, rules, moment.now)),
        State::NotRenewable(state) => {
            let reset_at = moment.now.plus(renew_again_spacing(&rules.timing, state.validity.left(moment.now)));
            State::NotRenewable(NotRenewable { verify_at: moment.now, reset_at, ..state })
        }
        other => deferred(other, None, rules, moment),
    }
}

/// Delays the next reset after one without a new token: longer with each consecutive one, and at least `least`.
fn fruitless_reset(active: Active, least: Duration, rules: &Rules, now: Timestamp) -> Active {
    let fruitless_resets = active.fruitless_resets.saturating_add(1);
    let wait =
        fruitless_backoff(&rules.timing, Fruitless::Answered, fruitless_resets, &active.validity, now).max(least);
    Active { fruitless_resets, reset_from: now.plus(wait), ..active }
}

/// As [`fruitless_reset`], with a verification now, and no other reset before it.
fn fruitless_and_asked(active: Active, rules: &Rules, now: Timestamp) -> Active {
    let active = fruitless_reset(active, Duration::ZERO, rules, now);
    Active { verify_at: now, retry_from: now, ask_first: true, ..active }
}

/// When an acceptance that settles nothing is followed by another verification. An expiry that has passed contradicts the
/// acceptance, and nothing is urgent then.
fn asked_again_at(active: &Active, rules: &Rules, now: Timestamp) -> Timestamp {
    let left = active.validity.left(now).filter(|left| !left.is_zero());
    now.plus(certainty_wait(&rules.timing, rules.timing.confirm_after, left))
}

/// The unknown token in config.toml needs another refusal, and ours an acceptance after it. It may never get one: a
/// pressing token of ours is rotated nevertheless, and config.toml keeps the unknown one.
fn disputed(state: State, rules: &Rules, now: Timestamp) -> State {
    let State::Active(active) = state else { return state };
    let verify_at = active.verify_at.min(asked_again_at(&active, rules, now));
    let ask_first = !active.validity.is_pressing(now);
    State::Active(Active { verify_at, retry_from: now, ask_first, ..active })
}

/// No reset before a verification, which is due now unless one is planned for the same reason.
fn contested(state: State, rules: &Rules, now: Timestamp) -> State {
    match state {
        State::Active(active) if active.ask_first => State::Active(active),
        // The server may accept both, and not say whose the unknown one is: each time the next try comes later.
        State::Active(active) => State::Active(fruitless_and_asked(active, rules, now)),
        // The unknown token is verified with the next look.
        State::Rejected(state) => {
            let at = now.plus(certainty_wait(&rules.timing, rules.timing.confirm_after, state.validity.left(now)));
            State::Rejected(Rejected { look_again_at: at, recover_from: at, ..state })
        }
        State::NotRenewable(state) => {
            let spacing = renew_again_spacing(&rules.timing, state.validity.left(now));
            State::NotRenewable(NotRenewable { verify_at: now, reset_at: now.plus(spacing), ..state })
        }
        other => verified_soon(other, now),
    }
}

/// Neither a reset nor a longer wait rests on the acceptance: the token is verified again.
fn doubtful(state: State, rules: &Rules, now: Timestamp) -> State {
    let State::Active(active) = state else { return contested(state, rules, now) };
    let at = asked_again_at(&active, rules, now);
    let (verify_at, reset_from) = (active.verify_at.min(at), active.reset_from.max(at));
    State::Active(Active { verify_at, reset_from, ask_first: true, ..active })
}

/// A failed reset: no other one before a verification.
fn asking_first(state: State) -> State {
    match state {
        State::Active(active) => State::Active(Active { verify_at: active.retry_from, ask_first: true, ..active }),
        State::NotRenewable(state) => State::NotRenewable(NotRenewable { reset_at: state.verify_at, ..state }),
        other => other,
    }
}

fn rejected(validity: Validity, rejection: Rejection, rules: &Rules, now: Timestamp) -> Rejected {
    // One more verification asks every candidate, now that they may be followed; then comes the first rung.
    let at = now.plus(rules.timing.floor);
    let rungs = Rungs::default();
    Rejected { since: now, validity, rejection, look_again_at: at, rungs, failures: 0, recover_from: at, changed: None }
}

fn rejected_by_age(validity: Validity, rules: &Rules, now: Timestamp) -> Rejected {
    let rejection = if validity.is_expired(now) { Rejection::Expired } else { Rejection::Refused };
    rejected(validity, rejection, rules, now)
}

fn look_again(state: Rejected, rules: &Rules, now: Timestamp) -> Rejected {
    let spacing = look_again_spacing(&rules.timing, rules.phase, state.validity.left(now));
    Rejected { look_again_at: now.plus(spacing), ..state }
}

/// The token and its candidates are still refused: the next rung is due, and rungs that were declined before may
/// succeed from now on.
fn still_refused(state: State, rules: &Rules, now: Timestamp) -> State {
    let State::Rejected(state) = state else { return state };
    let is_at_the_top = rules.recovery.next_rung(&state).is_none();
    let (rungs, failures) = if is_at_the_top {
        (Rungs { reset_failed: false, register_failed: false, ..state.rungs }, 0)
    } else {
        (state.rungs, state.failures)
    };
    State::Rejected(look_again(Rejected { rungs, recover_from: now, failures, ..state }, rules, now))
}

/// Marks the current rung as failed; the next one is due at once.
fn climb(mut state: Rejected, rules: &Rules, now: Timestamp) -> Rejected {
    match rules.recovery.next_rung(&state) {
        Some(Step::ResetById) => state.rungs.reset_failed = true,
        Some(Step::RegisterAgain) => state.rungs.register_failed = true,
        Some(Step::Register | Step::Verify | Step::Rotate | Step::Save | Step::Unregister) | None => {}
    }
    // The next rung is declined by its own answers.
    look_again(Rejected { failures: 0, recover_from: now, changed: None, ..state }, rules, now)
}

/// An immediate retry would not change the token either.
fn not_rotated(state: State, rules: &Rules, moment: Moment) -> State {
    match state {
        State::Rejected(state) => State::Rejected(climb(state, rules, moment.now)),
        State::Active(active) => {
            let least = between_resets(&rules.timing, active.validity.life());
            let active = Active { failures: 0, retry_from: moment.now, ..active };
            State::Active(fruitless_reset(active, least, rules, moment.now))
        }
        State::NotRenewable(state) => {
            let reset_at = moment.now.plus(renew_again_spacing(&rules.timing, state.validity.left(moment.now)));
            State::NotRenewable(NotRenewable { reset_at, ..state })
        }
        other => deferred(other, None, rules, moment),
    }
}

/// The next try comes later each time: an accepted verification does not bring the entry back.
fn no_entry(state: State, rules: &Rules, moment: Moment) -> State {
    match state {
        State::Active(_) | State::NotRenewable(_) => not_rotated(state, rules, moment),
        other => deferred(other, None, rules, moment),
    }
}

/// So many failures in a row show that no verification will be answered in time for a pressing token.
const PRESSING_FAILURES: u32 = 3;

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
            let verify_at = state.verify_at.min(retry_from);
            // Verifications that fail time and again do not hold up the reset of a pressing token, nor does a claim that
            // none of them has repeated.
            let is_held_up = !(failures >= PRESSING_FAILURES && state.validity.is_pressing(moment.now));
            let ask_first = state.ask_first && is_held_up;
            let asked = state.asked.filter(|finding| is_held_up || finding.count > 1);
            State::Active(Active { failures, retry_from, verify_at, ask_first, asked, ..state })
        }
        State::Uncertain(state) => {
            let failures = state.failures.saturating_add(1);
            // The lost reset was a failed request too, so the first delay is longer than in other states.
            let least = settling_wait(timing, state.validity.left(moment.now)) / 4;
            let ask_at = delay(failures, Some(&state.validity)).max(moment.now.plus(least));
            State::Uncertain(Uncertain { failures, ask_at, ..state })
        }
        State::NotRenewable(state) => {
            let failures = state.failures.saturating_add(1);
            let verify_at = delay(failures, Some(&state.validity));
            let reset_at = state.reset_at.max(verify_at);
            State::NotRenewable(NotRenewable { failures, verify_at, reset_at, ..state })
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
        State::NotRenewable(NotRenewable { validity, .. }) | State::Failed(Failed { validity: Some(validity), .. }) => {
            (validity, 0)
        }
        // A repetition would leave one more runner behind, so it is for a person to ask for. A token in an odd answer is
        // asked about soon.
        State::Unregistered(_) | State::Failed(Failed { validity: None, .. }) => {
            let is_known = matches!(&state, State::Failed(failed) if failed.trouble == Trouble::RegistrationLost);
            let lost = if is_known { state } else { must_act(state, Trouble::RegistrationLost, rules, moment) };
            return deferred(lost, retry_after, rules, moment);
        }
        State::Rejected(mut state) => {
            let failures = state.failures.saturating_add(1);
            if rules.recovery.next_rung(&state) == Some(Step::RegisterAgain) {
                state.rungs.register_lost = true;
            }
            let recover_from = settled_retry(failures, retry_after, rules, moment);
            return State::Rejected(Rejected { failures, recover_from, look_again_at: recover_from, ..state });
        }
        // This state only sends verifications, which are safe to retry.
        State::Uncertain(_) | State::Retired { .. } => {
            return deferred(state, retry_after, rules, moment);
        }
    };
    let wait = settling_wait(&rules.timing, validity.left(moment.now));
    State::Uncertain(Uncertain {
        since: moment.now,
        validity,
        ask_at: moment.now.plus(wait),
        accepted: 0,
        asked: None,
        failures: 0,
        fruitless_resets: fruitless.saturating_add(1),
    })
}

/// The settling time doubles with each consecutive loss, because each may have made another token.
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
    let validity = state.validity().copied();
    let left = validity.and_then(|validity| validity.left(moment.now));
    State::Failed(Failed {
        since,
        validity,
        trouble,
        failures: 0,
        look_again_at: moment.now.plus(look_again_spacing(&rules.timing, rules.phase, left)),
        asked: None,
        changed: None,
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

fn verified_soon(state: State, now: Timestamp) -> State {
    match state {
        State::Active(state) => State::Active(Active { verify_at: now, retry_from: now, ..state }),
        State::NotRenewable(state) => State::NotRenewable(NotRenewable { verify_at: now, ..state }),
        State::Failed(state) if state.validity.is_some() => State::Failed(Failed { look_again_at: now, ..state }),
        other => other,
    }
}

/// Makes the next step due now. Counters and evidence stay, so repeated nudges of a failing runner cause one request
/// each and prove nothing sooner.
fn nudged(state: State, now: Timestamp) -> State {
    match state {
        State::Unregistered(state) => State::Unregistered(Unregistered { retry_from: now, ..state }),
        State::Active(_) => verified_soon(state, now),
        State::NotRenewable(state) => {
            State::NotRenewable(NotRenewable { verify_at: now, reset_at: state.reset_at, ..state })
        }
        State::Rejected(state) => {
            let rungs = Rungs { is_removed: false, register_failed: false, ..state.rungs };
            State::Rejected(Rejected { look_again_at: now, recover_from: now, rungs, ..state })
        }
        State::Failed(state) => State::Failed(Failed { look_again_at: now, ..state }),
        // The settling time is for the server and must pass. After it, only failed requests have put the question off.
        State::Uncertain(state) if state.failures > 0 && state.asked.is_none() => {
            State::Uncertain(Uncertain { ask_at: now, ..state })
        }
        State::Uncertain(_) | State::Retired { .. } => state,
    }
}

/// `reset_from` follows from the last reset of a former process; one of this process that brought no token has set its own
/// time.
fn time_corrected(state: State, before: Timestamp, reset_from: Option<Timestamp>, now: Timestamp) -> State {
    match state.corrected(before, now) {
        State::Active(active) if active.fruitless_resets == 0 => {
            State::Active(Active { reset_from: reset_from.unwrap_or(active.reset_from), ..active })
        }
        corrected => corrected,
    }
}

/// As [`nudged`]; what the old secret was declined for says nothing about the new one, and the reset by id comes first
/// again.
fn secret_replaced(state: State, now: Timestamp) -> State {
    match nudged(state, now) {
        State::Unregistered(state) => State::Unregistered(Unregistered { changed: None, failures: 0, ..state }),
        State::Failed(state) => State::Failed(Failed { changed: None, failures: 0, ..state }),
        State::Rejected(state) => {
            let rungs = Rungs { reset_failed: false, ..state.rungs };
            State::Rejected(Rejected { rungs, changed: None, failures: 0, ..state })
        }
        other => other,
    }
}

/// As [`nudged`], and what must not be repeated by itself may be tried once more.
fn requested(state: State, now: Timestamp) -> State {
    match nudged(state, now) {
        State::NotRenewable(state) => State::NotRenewable(NotRenewable { reset_at: now, ..state }),
        State::Failed(Failed { validity: None, trouble: Trouble::RegistrationLost, .. }) => State::unregistered(now),
        State::Rejected(state) => {
            let rungs = Rungs { register_lost: false, reset_failed: false, ..state.rungs };
            State::Rejected(Rejected { rungs, ..state })
        }
        other => other,
    }
}
