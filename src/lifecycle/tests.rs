//! Every state with every outcome, and properties of all of them.

use std::time::Duration;

use proptest::prelude::*;

use super::schedule::rotate_at;
use super::*;
use crate::model::{Boot, Expiry, StateName, Timestamp};

const NOW: i64 = 1_000_000_000;
const DAY: u64 = 86_400;
const LOST: Outcome = Outcome::Lost { retry_after: None };

fn at(secs: i64) -> Timestamp {
    Timestamp::from_millis((NOW + secs) * 1000)
}

pub(super) fn moment(secs: i64) -> Moment {
    moment_at(at(secs), Fraction::ZERO)
}

fn moment_at(now: Timestamp, chance: Fraction) -> Moment {
    Moment { now, boot: Boot(1), since_boot: now.since(Timestamp::from_millis(0)), chance }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(super) fn rules() -> Rules {
    Rules {
        timing: Arc::default(),
        verify_interval: secs(3600),
        rotate: Some(Rotation::AtShare(Share::DEFAULT)),
        is_twin: false,
        is_untimed: false,
        recovery: Recovery::default(),
        phase: Fraction::ZERO,
    }
}

/// A token issued at `NOW` that lives a day.
pub(super) fn validity() -> Validity {
    validity_of(DAY)
}

fn validity_of(life_secs: u64) -> Validity {
    Validity { obtained_at: at(0), expiry: Expiry::At(at(0).plus(secs(life_secs))) }
}

fn active() -> State {
    apply(State::unregistered(at(0)), Outcome::Registered(validity()), &rules(), moment(0))
}

fn after(state: State, outcomes: &[Outcome]) -> State {
    outcomes.iter().fold(state, |state, outcome| apply(state, *outcome, &rules(), moment(1)))
}

#[test]
fn what_waits_goes_on_waiting_for_as_long_when_the_time_is_corrected() {
    const AHEAD: i64 = 23 * 86_400;
    // A rotation at a share of the life is the server's own time.
    let rules = Rules { rotate: None, ..rules() };
    let corrected = |state, before, now| {
        let outcome = Outcome::TimeCorrected { before: at(before), reset_from: None };
        apply(state, outcome, &rules, moment(now))
    };
    for state in every_state().into_iter().filter(|state| plan(state, &rules).is_some()) {
        let planned = plan(&state, &rules).unwrap();
        let ahead = corrected(state.clone(), 1000, 1000 + AHEAD);
        assert_eq!(plan(&ahead, &rules).unwrap().at, planned.at.plus(Duration::from_secs(AHEAD.unsigned_abs())));
        assert_eq!(corrected(ahead, 1000 + AHEAD, 1000), state);
    }
}

/// The state after the same answer three times within ten minutes, which proves anything but a misunderstanding.
fn proven(state: State, outcome: Outcome) -> State {
    [1, 301, 601].into_iter().fold(state, |state, secs| apply(state, outcome, &rules(), moment(secs)))
}

fn every_state() -> Vec<State> {
    let states = vec![
        State::unregistered(at(0)),
        active(),
        after(active(), &[Outcome::Lost { retry_after: None }]),
        proven(active(), Outcome::Refused),
        proven(active(), Outcome::RotationClosed),
        proven(active(), Outcome::Claimed(Trouble::Orphaned)),
        after(active(), &[Outcome::Unregistered]),
    ];
    let names: Vec<_> = states.iter().map(|state| state.name().as_str()).collect();
    assert_eq!(names, ["unregistered", "active", "uncertain", "rejected", "not_renewable", "failed", "retired"]);
    states
}

#[test]
fn every_state_handles_every_outcome() {
    let accepted = Outcome::Accepted(validity());
    let deferred = Outcome::Deferred { retry_after: None };
    // From each state of `every_state`, in its order; `=` keeps the state.
    #[rustfmt::skip]
    let table: [(Outcome, [&str; 7]); 34] = [
        (Outcome::Registered(validity()), ["active",  "active",        "active",        "active",   "active",        "active",   "="]),
        (accepted,                    ["active",  "=",             "=",             "active",   "=",             "active",   "="]),
        (Outcome::Refused,            ["=",       "=",             "=",             "=",        "=",             "=",        "="]),
        (Outcome::Claimed(Trouble::Unassigned), ["=", "=",         "=",             "=",        "=",             "=",        "="]),
        (Outcome::NotUnderstood { retry_after: None }, ["=", "=",  "=",             "=",        "=",             "=",        "="]),
        (Outcome::Disputed,           ["=",       "=",             "=",             "=",        "=",             "=",        "="]),
        (Outcome::Contested,          ["=",       "=",             "=",             "=",        "=",             "=",        "="]),
        (Outcome::Doubtful,           ["=",       "=",             "=",             "=",        "=",             "=",        "="]),
        (Outcome::ResetRefused,       ["=",       "=",             "=",             "=",        "=",             "=",        "="]),
        (Outcome::Rotated(validity()),    ["active",  "=",             "active",        "active",   "active",        "active",   "="]),
        (Outcome::NotRotated,         ["=",       "=",             "=",             "=",        "=",             "=",        "="]),
        (Outcome::Withheld,           ["=",       "=",             "=",             "=",        "=",             "=",        "="]),
        (Outcome::NoEntry,            ["=",       "=",             "=",             "=",        "=",             "=",        "="]),
        (Outcome::RotationClosed,     ["=",       "=",             "=",             "=",        "=",             "=",        "="]),
        (Outcome::Declined(Trouble::Unassigned), ["=", "=",        "=",             "=",        "=",             "=",        "="]),
        (Outcome::Removed,            ["=",       "=",             "=",             "=",        "=",             "=",        "="]),
        (deferred,                    ["=",       "=",             "=",             "=",        "=",             "=",        "="]),
        (Outcome::RegisteredElsewhere, ["=",      "=",             "=",             "=",        "=",             "=",        "="]),
        (Outcome::ResetDeferred { retry_after: None }, ["=", "=",  "=",             "=",        "=",             "=",        "="]),
        (Outcome::Lost { retry_after: None },               ["failed",       "uncertain",     "=",             "=",        "uncertain",     "uncertain", "="]),
        (Outcome::LostElsewhere,      ["failed",  "uncertain",     "=",             "=",        "uncertain",     "uncertain", "="]),
        (Outcome::NotUnregistered(Settling::Ask), ["=", "=",       "=",             "=",        "=",             "=",        "="]),
        (Outcome::MustAct(Trouble::LocalFile), ["failed", "failed", "=",            "=",        "failed",        "=",        "="]),
        (Outcome::Adopted(validity()),    ["active",  "=",             "active",        "active",   "active",        "active",   "="]),
        (Outcome::Unsaved,            ["=",       "=",             "=",             "=",        "=",             "=",        "="]),
        (Outcome::Saved,              ["=",       "=",             "=",             "=",        "=",             "=",        "="]),
        (Outcome::Nudged,             ["=",       "=",             "=",             "=",        "=",             "=",        "="]),
        (Outcome::TimeCorrected { before: at(0), reset_from: None }, ["=",      "=",             "=",             "=",        "=",             "=",        "="]),
        (Outcome::SecretReplaced,     ["=",       "=",             "=",             "=",        "=",             "=",        "="]),
        (Outcome::Requested,          ["=",       "=",             "=",             "=",        "=",             "=",        "="]),
        (Outcome::Unregistered,       ["retired", "retired",       "retired",       "retired",  "retired",       "retired",  "="]),
        (Outcome::Released,           ["retired", "retired",       "retired",       "retired",  "retired",       "retired",  "="]),
        (Outcome::Reenrolled(None),   ["=",       "unregistered",  "unregistered",  "unregistered", "unregistered", "unregistered", "="]),
        (Outcome::Reenrolled(Some(validity())), ["active", "=",    "active",        "active",   "active",        "active",   "="]),
    ];
    for (outcome, expected) in table {
        for (state, name) in every_state().into_iter().zip(expected) {
            let before = state.name().as_str();
            let expected = if name == "=" { before } else { name };
            assert_eq!(apply(state, outcome, &rules(), moment(2)).name().as_str(), expected, "{before} × {outcome:?}");
        }
    }
}

#[test]
fn a_token_is_verified_before_it_is_first_rotated() {
    let overdue = State::found(validity(), at(0), at(0).plus(secs(DAY * 9 / 10)));
    assert_eq!(plan(&overdue, &rules()).unwrap().step, Step::Verify);
    let verified = apply(overdue, Outcome::Accepted(validity()), &rules(), moment(77_760));
    let next = plan(&verified, &rules()).unwrap();
    assert_eq!((next.step, next.why), (Step::Rotate, Why::ShareOfLife));
}

#[test]
fn a_failing_verification_does_not_delay_a_rotation() {
    let overdue = State::found(validity(), at(0), at(80_000));
    let failed = apply(overdue, Outcome::Deferred { retry_after: None }, &rules(), moment(80_000));
    assert_eq!(plan(&failed, &rules()).unwrap().step, Step::Rotate);
}

#[test]
fn a_refusal_counts_once_another_one_comes_a_minute_later() {
    let once = apply(active(), Outcome::Refused, &rules(), moment(10));
    let next = plan(&once, &rules()).unwrap();
    assert_eq!((next.step, next.why, next.at), (Step::Verify, Why::ConfirmRefusal, at(70)));
    let State::Rejected(rejected) = apply(once, Outcome::Refused, &rules(), moment(70)) else { panic!() };
    assert_eq!(rejected.rejection, Rejection::Refused);
}

#[test]
fn neither_nudges_nor_a_restart_nor_a_wrong_date_confirm_a_refusal_sooner() {
    let once = apply(active(), Outcome::Refused, &rules(), moment(10));
    for nudge in [Outcome::Nudged, Outcome::Requested] {
        let nudged = apply(once.clone(), nudge, &rules(), moment(11));
        assert_eq!(plan(&nudged, &rules()).unwrap().at, at(11));
        let twice = apply(nudged, Outcome::Refused, &rules(), moment(12));
        assert!(matches!(&twice, State::Active(_)), "{nudge:?}");
        assert_eq!(plan(&twice, &rules()).unwrap().at, at(70), "{nudge:?}");
    }
    let restarted = State::restored(Some(validity()), at(0), &once.evidence(), at(12));
    assert!(matches!(apply(restarted.clone(), Outcome::Refused, &rules(), moment(13)), State::Active(_)));
    assert!(matches!(apply(restarted, Outcome::Refused, &rules(), moment(70)), State::Rejected(_)));
    // The `Date` of the second answer is an hour ahead.
    let ahead = Moment { now: at(3612), ..moment(12) };
    assert!(matches!(apply(once, Outcome::Refused, &rules(), ahead), State::Active(_)));
}

#[test]
fn what_was_concluded_survives_a_restart_with_its_reason() {
    let lost = after(active(), &[LOST]);
    let lost = apply(lost, Outcome::Refused, &rules(), moment(100));
    let lost = apply(lost, Outcome::Refused, &rules(), moment(160));
    let rules = recovering(false, RegisterAgain::Expired);
    for state in
        [lost, proven(active(), Outcome::RotationClosed), proven(active(), Outcome::Claimed(Trouble::Orphaned))]
    {
        let restored = State::restored(Some(validity()), at(0), &state.evidence(), at(1000));
        assert_eq!(restored.evidence(), state.evidence());
        assert_eq!(plan(&restored, &rules).unwrap().step, Step::Verify, "{restored:?}");
        if matches!(restored, State::Rejected(_)) {
            let asked = apply(restored, Outcome::Refused, &rules, moment(1000));
            assert_eq!(next_step(&asked, &rules), Step::RegisterAgain, "a lost token is registered again");
        }
    }
}

#[test]
fn an_acceptance_clears_a_refusal() {
    let once = apply(active(), Outcome::Refused, &rules(), moment(10));
    let State::Active(cleared) = apply(once, Outcome::Accepted(validity()), &rules(), moment(70)) else { panic!() };
    assert_eq!(cleared.asked, None);
}

#[test]
fn refusals_with_an_acceptance_in_between_are_not_two() {
    for begun in [active(), proven(active(), Outcome::RotationClosed)] {
        let name = begun.name();
        let once = apply(begun, Outcome::Refused, &rules(), moment(1000));
        let accepted = apply(once, Outcome::Accepted(validity()), &rules(), moment(1030));
        let restarted = State::restored(Some(validity()), at(0), &accepted.evidence(), at(1031));
        for state in [accepted, restarted] {
            let again = apply(state, Outcome::Refused, &rules(), moment(1100));
            assert_eq!((again.name(), plan(&again, &rules()).unwrap().at), (name, at(1160)));
            let twice = apply(again, Outcome::Refused, &rules(), moment(1160));
            assert_eq!(twice.name(), StateName::Rejected, "{name:?}");
        }
    }
}

#[test]
fn after_the_expiry_two_refusals_count_at_the_shortest_delay() {
    let once = apply(active(), Outcome::Refused, &rules(), moment(90_000));
    assert_eq!(plan(&once, &rules()).unwrap().at, at(90_002));
    let State::Rejected(rejected) = apply(once, Outcome::Refused, &rules(), moment(90_002)) else { panic!() };
    assert_eq!(rejected.rejection, Rejection::Expired);
}

#[test]
fn one_answer_to_a_reset_concludes_nothing_and_a_verification_follows() {
    for outcome in [
        Outcome::RotationClosed,
        Outcome::ResetRefused,
        Outcome::Declined(Trouble::InvalidRequest),
        Outcome::ResetDeferred { retry_after: None },
        Outcome::Removed,
    ] {
        let due = State::found(validity(), at(0), at(60_000));
        let due = apply(due, Outcome::Accepted(validity()), &rules(), moment(60_000));
        assert_eq!(next_step(&due, &rules()), Step::Rotate);
        let state = apply(due, outcome, &rules(), moment(60_000));
        assert_eq!((state.name(), next_step(&state, &rules())), (StateName::Active, Step::Verify), "{outcome:?}");
        // An acceptance makes the rotation due again, in time before the expiry.
        let accepted = apply(state, Outcome::Accepted(validity()), &rules(), moment(60_010));
        let mut next = plan(&accepted, &rules()).unwrap();
        assert!(next.at < at(80_000), "{outcome:?} {next:?}");
        if next.step == Step::Verify {
            let later = apply(accepted, Outcome::Accepted(validity()), &rules(), moment(63_000));
            next = plan(&later, &rules()).unwrap();
        }
        assert_eq!(next.step, Step::Rotate, "{outcome:?}");
    }
}

#[test]
fn a_token_that_is_not_renewed_is_tried_again_daily_and_on_request() {
    let rules = rules();
    let long = validity_of(30 * DAY);
    let state = State::found(long, at(0), at(0));
    let state = proven(state, Outcome::RotationClosed);
    assert_eq!(state.name(), StateName::NotRenewable);
    let requested = apply(state.clone(), Outcome::Requested, &rules, moment(700));
    let verified = apply(requested, Outcome::Accepted(long), &rules, moment(700));
    assert_eq!(next_step(&verified, &rules), Step::Rotate);
    let mut state = state;
    let mut now = 700;
    let mut resets = 0;
    while now < 3 * 86_400 {
        let next = plan(&state, &rules).unwrap();
        now = now.max(i64::try_from(next.at.since(at(0)).as_secs()).unwrap());
        let outcome = if next.step == Step::Rotate { Outcome::RotationClosed } else { Outcome::Accepted(long) };
        resets += u32::from(next.step == Step::Rotate);
        state = apply(state, outcome, &rules, moment(now));
    }
    assert!((2..=4).contains(&resets), "{resets}");
}

#[test]
fn a_token_that_is_not_renewed_is_not_urgent_once_its_expiry_has_passed() {
    let short = validity_of(3600);
    let closed = proven(State::found(short, at(0), at(0)), Outcome::RotationClosed);
    let accepted = apply(closed, Outcome::Accepted(short), &rules(), moment(4000));
    // A server whose clock is ahead accepts it still.
    for outcome in [Outcome::RotationClosed, Outcome::ResetRefused] {
        let state = apply(accepted.clone(), outcome, &rules(), moment(4000));
        let State::NotRenewable(state) = &state else { panic!("{state:?}") };
        assert_eq!(state.reset_at, at(4000 + DAY.cast_signed()), "{outcome:?}");
    }
}

#[test]
fn a_repeated_refusal_to_renew_is_followed_by_a_verification_at_once() {
    let closed = apply(closed_and_requested(), Outcome::RotationClosed, &rules(), moment(700));
    let next = plan(&closed, &rules()).unwrap();
    assert_eq!((closed.name(), next.step, next.at), (StateName::NotRenewable, Step::Verify, at(700)));
}

#[test]
fn a_human_is_asked_for_after_three_equal_answers_in_ten_minutes() {
    for outcome in [Outcome::Claimed(Trouble::InvalidRequest), Outcome::Declined(Trouble::RegistrationDisabled)] {
        let begun = if matches!(outcome, Outcome::Claimed(_)) { active() } else { State::unregistered(at(0)) };
        let mut state = begun;
        let mut times = Vec::new();
        while state.name() != StateName::Failed {
            let next = plan(&state, &rules()).unwrap();
            let now = next.at.max(at(0));
            times.push(now);
            state = apply(state, outcome, &rules(), moment_at(now, Fraction::ZERO));
        }
        assert_eq!(times.len(), 3, "{outcome:?}");
        assert_eq!(times[2].since(times[0]), secs(600), "{outcome:?}");
    }
}

#[test]
fn a_human_is_asked_for_sooner_if_the_token_has_a_short_life() {
    let mut state = State::found(validity_of(1200), at(0), at(0));
    let mut times = Vec::new();
    while state.name() != StateName::Failed {
        let now = plan(&state, &rules()).unwrap().at.max(at(0));
        times.push(now);
        state = apply(state, Outcome::Claimed(Trouble::InvalidRequest), &rules(), moment_at(now, Fraction::ZERO));
    }
    let span = times[times.len() - 1].since(times[0]);
    assert!(times.len() == 3 && span <= secs(1200 / 8), "{times:?}");
}

#[test]
fn a_failed_runner_is_looked_at_again_within_an_eighth_of_the_life_left() {
    let short = validity_of(7200);
    let state = State::found(short, at(0), at(0));
    let State::Failed(failed) = proven(state, Outcome::Claimed(Trouble::Orphaned)) else { panic!() };
    assert!(failed.look_again_at <= at(602 + (7200 - 601) / 8), "{failed:?}");
}

#[test]
fn answers_that_are_not_understood_are_reported_after_a_day() {
    let forever = Validity { obtained_at: at(0), expiry: Expiry::Never };
    let mut state = State::found(forever, at(0), at(0));
    let mut now = at(0);
    while state.name() == StateName::Active {
        now = now.max(plan(&state, &rules()).unwrap().at);
        state = apply(state, Outcome::NotUnderstood { retry_after: None }, &rules(), moment_at(now, Fraction::ZERO));
    }
    let State::Failed(failed) = &state else { panic!("{state:?}") };
    assert_eq!(failed.trouble, Trouble::NotUnderstood);
    assert!(now.since(at(0)) >= secs(DAY) && now.since(at(0)) < secs(DAY + 600), "{now}");
    assert_eq!(apply(state, Outcome::Accepted(forever), &rules(), moment(100_000)).name(), StateName::Active);
}

#[test]
fn a_registration_whose_answer_was_lost_is_repeated_only_on_request() {
    let lost = apply(State::unregistered(at(0)), LOST, &rules(), moment(0));
    let mut state = lost;
    for hour in 1..48 {
        assert_eq!(next_step(&state, &rules()), Step::Verify);
        state = apply(state, LOST, &rules(), moment(hour * 3600));
        state = apply(state, Outcome::Nudged, &rules(), moment(hour * 3600));
    }
    let restarted = State::restored(None, at(0), &state.evidence(), at(180_000));
    assert_eq!(next_step(&restarted, &rules()), Step::Verify);
    let requested = apply(restarted, Outcome::Requested, &rules(), moment(180_000));
    assert_eq!(next_step(&requested, &rules()), Step::Register);
}

#[test]
fn a_lost_registration_of_a_failed_enrollment_is_remembered_too() {
    let failed = proven(State::unregistered(at(0)), Outcome::Declined(Trouble::RegistrationDisabled));
    assert_eq!((failed.name(), next_step(&failed, &rules())), (StateName::Failed, Step::Register));
    let lost = apply(failed, LOST, &rules(), moment(30_000));
    let restarted = State::restored(None, at(0), &lost.evidence(), at(60_000));
    for state in [lost, restarted] {
        assert_eq!(next_step(&state, &rules()), Step::Verify);
        let nudged = apply(state.clone(), Outcome::Nudged, &rules(), moment(60_000));
        assert_eq!(next_step(&nudged, &rules()), Step::Verify);
        let requested = apply(state, Outcome::Requested, &rules(), moment(60_000));
        assert_eq!(next_step(&requested, &rules()), Step::Register);
    }
}

#[test]
fn a_contested_reset_by_id_is_not_sent_before_the_unknown_token_was_asked_about() {
    let rules = recovering(true, RegisterAgain::Never);
    let contested = apply(expired(&rules), Outcome::Contested, &rules, moment(90_004));
    let next = plan(&contested, &rules).unwrap();
    // The token has expired, so the wait is the shortest one.
    assert_eq!((contested.name(), next.step, next.at), (StateName::Rejected, Step::Verify, at(90_006)));
    let refused = apply(contested, Outcome::Refused, &rules, moment(90_006));
    assert_eq!(next_step(&refused, &rules), Step::ResetById);
    let adopted = apply(expired(&rules), Outcome::Adopted(validity()), &rules, moment(90_006));
    assert_eq!(adopted.name(), StateName::Active);
}

/// A token that is not renewed, whose reset was asked for by a person and is due.
fn closed_and_requested() -> State {
    let closed = State::found(validity_of(30 * DAY), at(0), at(0));
    let closed = apply(proven(closed, Outcome::RotationClosed), Outcome::Requested, &rules(), moment(700));
    let due = apply(closed, Outcome::Accepted(validity_of(30 * DAY)), &rules(), moment(700));
    assert_eq!((due.name(), next_step(&due, &rules())), (StateName::NotRenewable, Step::Rotate));
    due
}

#[test]
fn a_contested_reset_of_a_token_that_is_not_renewed_waits_for_a_verification_and_a_day() {
    let contested = apply(closed_and_requested(), Outcome::Contested, &rules(), moment(700));
    let next = plan(&contested, &rules()).unwrap();
    assert_eq!((contested.name(), next.step, next.at), (StateName::NotRenewable, Step::Verify, at(700)));
    let accepted = apply(contested, Outcome::Accepted(validity_of(30 * DAY)), &rules(), moment(700));
    let State::NotRenewable(state) = &accepted else { panic!("{accepted:?}") };
    assert_eq!(state.reset_at, at(700 + DAY.cast_signed()));
}

#[test]
fn a_deferred_reset_of_a_token_that_is_not_renewed_is_not_repeated_at_once() {
    let mut state = closed_and_requested();
    let mut now = at(700);
    let mut waits = Vec::new();
    for _ in 0..6 {
        state = apply(state, Outcome::Deferred { retry_after: None }, &rules(), moment_at(now, Fraction::ZERO));
        let next = plan(&state, &rules()).unwrap();
        waits.push(next.at.since(now).as_secs());
        now = now.max(next.at);
    }
    assert!(waits[0] >= 2 && waits.is_sorted() && waits[5] > waits[0], "{waits:?}");
}

#[test]
fn a_life_that_contradicts_the_clock_is_no_reason_to_rotate_all_the_time() {
    let contradictory = Validity { obtained_at: at(200_000), expiry: Expiry::At(at(DAY.cast_signed())) };
    let state = apply(active(), Outcome::Rotated(contradictory), &rules(), moment(200_000));
    let State::Active(active) = &state else { panic!() };
    // Two thirds of two hours, GitLab's shortest life.
    assert_eq!(active.reset_from, at(204_800));
    // A process that has just started has not heard the server's time: its clock does not delay the next reset.
    let restarted = reset_from(&Timing::default(), &contradictory, Some(at(200_000)), at(200_060));
    assert_eq!(restarted, at(200_600));
}

#[test]
fn a_token_is_replaced_within_four_fifths_of_its_life_although_three_resets_in_a_row_are_lost() {
    for life in [600, 3600, 7200, DAY] {
        let validity = validity_of(life);
        let rules = Rules { rotate: "50%".parse().ok().map(Rotation::AtShare), ..rules() };
        let mut state = apply(State::unregistered(at(0)), Outcome::Registered(validity), &rules, moment(0));
        let (mut now, mut lost) = (at(0), 0);
        loop {
            let next = plan(&state, &rules).unwrap();
            now = now.max(next.at);
            let outcome = match next.step {
                Step::Rotate if lost == 3 => break,
                Step::Rotate => {
                    lost += 1;
                    LOST
                }
                _ => Outcome::Accepted(validity),
            };
            state = apply(state, outcome, &rules, moment_at(now, Fraction::ZERO));
        }
        assert!(now.since(at(0)) <= secs(life) * 4 / 5, "{now:?} of a life of {life} s");
    }
}

#[test]
fn a_lost_answer_is_settled_by_verifying_the_old_token() {
    let lost = apply(active(), Outcome::Lost { retry_after: None }, &rules(), moment(100));
    assert_eq!(plan(&lost, &rules()).unwrap(), Plan { step: Step::Verify, at: at(160), why: Why::SettleLostAnswer });
    let accepted = Outcome::Accepted(validity());
    let once = apply(lost.clone(), accepted, &rules(), moment(160));
    assert_eq!(plan(&once, &rules()).unwrap().at, at(220));
    let twice = apply(once, accepted, &rules(), moment(220));
    assert_eq!(twice.name(), StateName::Active);
    let refused = apply(lost, Outcome::Refused, &rules(), moment(160));
    assert_eq!((refused.name(), plan(&refused, &rules()).unwrap().at), (StateName::Uncertain, at(220)));
    let State::Rejected(rejected) = apply(refused, Outcome::Refused, &rules(), moment(220)) else { panic!() };
    assert_eq!(rejected.rejection, Rejection::Lost);
}

#[test]
fn a_nudge_does_not_shorten_the_settling_time() {
    let lost = apply(active(), Outcome::Lost { retry_after: None }, &rules(), moment(100));
    assert_eq!(apply(lost.clone(), Outcome::Nudged, &rules(), moment(101)), lost);
}

#[test]
fn a_nudge_ends_the_wait_after_failures_to_settle_a_lost_answer() {
    let mut state = after(active(), &[Outcome::Lost { retry_after: None }]);
    // The server is away past the expiry, which nothing is urgent after.
    let mut asked_at = at(0);
    while asked_at < at(90_000) {
        asked_at = plan(&state, &rules()).unwrap().at;
        state = apply(state, Outcome::Deferred { retry_after: None }, &rules(), moment_at(asked_at, Fraction::ZERO));
    }
    let now = asked_at.plus(secs(1));
    assert!(plan(&state, &rules()).unwrap().at > now.plus(secs(60)));
    // Another machine has brought a token.
    let nudged = apply(state, Outcome::Nudged, &rules(), moment_at(now, Fraction::ZERO));
    let next = plan(&nudged, &rules()).unwrap();
    assert_eq!((next.step, next.at), (Step::Verify, now));
}

#[test]
fn resets_of_very_short_lived_tokens_keep_the_minimum_time() {
    let state = apply(active(), Outcome::Rotated(validity_of(3)), &rules(), moment(0));
    let next = plan(&state, &rules()).unwrap();
    assert_eq!((next.step, next.at), (Step::Rotate, at(5)));
}

#[test]
fn an_unchanged_token_does_not_cause_a_loop() {
    let due = active();
    let state = apply(due, Outcome::NotRotated, &rules(), moment(60_000));
    let next = plan(&state, &rules()).unwrap();
    assert!(next.step != Step::Rotate || next.at >= at(60_600), "{next:?}");
}

#[test]
fn retry_after_is_honoured_up_to_half_of_the_remaining_life() {
    let deferred = Outcome::Deferred { retry_after: Some(secs(10 * DAY)) };
    let state = apply(active(), deferred, &rules(), moment(86_400 - 600));
    assert_eq!(plan(&state, &rules()).unwrap().at, at(86_400 - 300));
    let state = apply(active(), deferred, &rules(), moment(10));
    assert_eq!(plan(&state, &rules()).unwrap().at, at(10 + 3600));
}

#[test]
fn an_unsaved_token_is_written_first_and_retried_forever() {
    let mut state = active();
    for n in 1..50 {
        state = apply(state, Outcome::Unsaved, &rules(), moment(n));
        let next = plan(&state, &rules()).unwrap();
        assert_eq!((next.step, next.why), (Step::Save, Why::Unsaved));
        assert!(next.at <= at(n + 300));
    }
    assert_ne!(plan(&apply(state, Outcome::Saved, &rules(), moment(60)), &rules()).unwrap().step, Step::Save);
}

#[test]
fn an_implausible_time_of_issue_is_replaced_by_first_sight() {
    let first_seen = at(1000);
    let expiry = Expiry::At(at(5000));
    for obtained_at in [None, Some(at(2000)), Some(at(5000)), Some(at(9000))] {
        assert_eq!(Validity::new(obtained_at, expiry, first_seen).obtained_at, first_seen, "{obtained_at:?}");
    }
    for obtained_at in [at(-100_000), at(1000), at(1200)] {
        assert_eq!(Validity::new(Some(obtained_at), expiry, first_seen).obtained_at, obtained_at);
    }
}

#[test]
fn a_verification_can_reveal_the_expiry() {
    let never = Validity { obtained_at: at(0), expiry: Expiry::Unknown };
    let state = State::found(never, at(0), at(0));
    let learned = apply(state, Outcome::Accepted(validity()), &rules(), moment(0));
    let Some(Plan { step: Step::Verify, .. }) = plan(&learned, &rules()) else { panic!() };
    assert_eq!(learned.validity().unwrap().life(), Some(secs(DAY)));
}

fn recovering(reset_by_id: bool, register: RegisterAgain) -> Rules {
    Rules { recovery: Recovery { reset_by_id, register }, ..rules() }
}

fn next_step(state: &State, rules: &Rules) -> Step {
    plan(state, rules).unwrap().step
}

/// A token that expired, was refused twice, and then once more with all its candidates: the first rung is due.
fn expired(rules: &Rules) -> State {
    [90_000, 90_002, 90_004]
        .into_iter()
        .fold(active(), |state, secs| apply(state, Outcome::Refused, rules, moment(secs)))
}

#[test]
fn every_candidate_is_verified_before_the_first_rung() {
    let rules = recovering(true, RegisterAgain::Always);
    let dead =
        [90_000, 90_002].into_iter().fold(active(), |state, secs| apply(state, Outcome::Refused, &rules, moment(secs)));
    assert_eq!(plan(&dead, &rules).unwrap(), Plan { step: Step::Verify, at: at(90_004), why: Why::LookAgain });
    assert_eq!(next_step(&apply(dead, Outcome::Refused, &rules, moment(90_004)), &rules), Step::ResetById);
}

#[test]
fn the_ladder_is_climbed_by_allowed_rungs_only() {
    assert_eq!(next_step(&expired(&rules()), &rules()), Step::Verify);
    let register = recovering(false, RegisterAgain::Expired);
    assert_eq!(next_step(&expired(&register), &register), Step::RegisterAgain);
    let both = recovering(true, RegisterAgain::Expired);
    let expired = expired(&both);
    assert_eq!(plan(&expired, &both).unwrap(), Plan { step: Step::ResetById, at: at(90_004), why: Why::Recovery });
    let recovered = apply(expired, Outcome::Rotated(validity()), &both, moment(90_004));
    assert_eq!(recovered.name(), StateName::Active);
}

#[test]
fn a_rung_is_given_up_after_the_same_answer_three_times_with_verifications_in_between() {
    let both = recovering(true, RegisterAgain::Expired);
    for decline in [Outcome::Declined(Trouble::AccessDenied), Outcome::RotationClosed] {
        let mut state = expired(&both);
        let mut now = at(90_004);
        let mut steps = Vec::new();
        while steps.last() != Some(&Step::RegisterAgain) {
            let next = plan(&state, &both).unwrap();
            now = now.max(next.at);
            steps.push(next.step);
            let outcome = if next.step == Step::Verify { Outcome::Refused } else { decline };
            state = apply(state, outcome, &both, moment_at(now, Fraction::ZERO));
        }
        let resets = steps.iter().filter(|step| **step == Step::ResetById).count();
        let verifications = steps.iter().filter(|step| **step == Step::Verify).count();
        assert!(resets >= 3 && verifications >= 2, "{decline:?} {steps:?}");
    }
}

#[test]
fn a_replaced_access_token_is_tried_before_a_new_registration() {
    let rules = recovering(true, RegisterAgain::Expired);
    let both_failed = || {
        let (mut state, mut now) = (expired(&rules), at(90_004));
        loop {
            let State::Rejected(rejected) = &state else { panic!() };
            if rejected.rungs.reset_failed && rejected.rungs.register_failed {
                return state;
            }
            let next = plan(&state, &rules).unwrap();
            now = now.max(next.at);
            let refused = Outcome::Declined(Trouble::AccessDenied);
            let outcome = if next.step == Step::Verify { Outcome::Refused } else { refused };
            state = apply(state, outcome, &rules, moment_at(now, Fraction::ZERO));
        }
    };
    for (replaced, expected) in [
        (Outcome::SecretReplaced, Step::ResetById),
        (Outcome::Requested, Step::ResetById),
        (Outcome::Nudged, Step::RegisterAgain),
    ] {
        let looking = apply(both_failed(), replaced, &rules, moment(200_000));
        let verified = apply(looking, Outcome::Refused, &rules, moment(200_000));
        assert_eq!(plan(&verified, &rules).unwrap(), Plan { step: expected, at: at(200_000), why: Why::Recovery });
    }
}

#[test]
fn a_revoked_token_is_registered_again_only_with_always() {
    for (register, expected) in [(RegisterAgain::Expired, Step::Verify), (RegisterAgain::Always, Step::RegisterAgain)] {
        let rules = recovering(false, register);
        let revoked =
            [10, 70, 72].into_iter().fold(active(), |state, secs| apply(state, Outcome::Refused, &rules, moment(secs)));
        assert_eq!(next_step(&revoked, &rules), expected);
    }
}

#[test]
fn a_removed_runner_is_recovered_only_after_a_nudge() {
    let rules = recovering(true, RegisterAgain::Always);
    let once = apply(expired(&rules), Outcome::Removed, &rules, moment(90_004));
    let State::Rejected(rejected) = &once else { panic!() };
    assert!(!rejected.rungs.is_removed, "one answer proves nothing");
    let removed = apply(once, Outcome::Removed, &rules, moment(90_100));
    assert_eq!(next_step(&removed, &rules), Step::Verify);
    let nudged = apply(removed, Outcome::Nudged, &rules, moment(90_101));
    let verified = apply(nudged, Outcome::Refused, &rules, moment(90_101));
    assert_eq!(next_step(&verified, &rules), Step::ResetById);
}

/// Simulates the server: `answer` returns the outcome of every step at the time it is due. Returns the requests.
fn play(
    mut state: State,
    rules: &Rules,
    until: Timestamp,
    mut answer: impl FnMut(Plan) -> (Outcome, Fraction),
) -> Vec<Plan> {
    let mut now = at(0);
    let mut requests = Vec::new();
    while let Some(next) = plan(&state, rules) {
        now = now.max(next.at);
        if now > until {
            break;
        }
        if next.step != Step::Save {
            requests.push(Plan { at: now, ..next });
        }
        assert!(requests.len() < 10_000, "a loop without a pause: {next:?}");
        let (outcome, chance) = answer(next);
        state = apply(state, outcome, rules, moment_at(now, chance));
    }
    requests
}

/// Asserts the request rate of one runner towards a server that always fails. A rung of the recovery ladder is preceded by
/// a verification each time.
fn assert_few(requests: &[Plan]) {
    let within = |from: i64, to: i64| requests.iter().filter(|plan| plan.at >= at(from) && plan.at < at(to)).count();
    assert!(within(0, 600) < 24, "{} in the first ten minutes", within(0, 600));
    for hour in 0..5 {
        let count = within(600 + hour * 3600, 4200 + hour * 3600);
        assert!(count <= 40, "{count} in an hour");
    }
}

fn any_fraction() -> impl Strategy<Value = Fraction> {
    any::<u32>().prop_map(Fraction::from_bits)
}

fn any_expiry() -> impl Strategy<Value = Expiry> {
    prop_oneof![
        Just(Expiry::Unknown),
        Just(Expiry::Never),
        (-200_000_i64..2_000_000).prop_map(|offset| Expiry::At(at(offset))),
    ]
}

fn any_validity() -> impl Strategy<Value = Validity> {
    (prop::option::of(-200_000_i64..200_000), any_expiry(), -1000_i64..1000)
        .prop_map(|(obtained, expiry, seen)| Validity::new(obtained.map(at), expiry, at(seen)))
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        any_validity().prop_map(Outcome::Registered),
        any_validity().prop_map(Outcome::Accepted),
        Just(Outcome::Refused),
        Just(Outcome::ResetRefused),
        any_validity().prop_map(Outcome::Rotated),
        Just(Outcome::NotRotated),
        Just(Outcome::Withheld),
        Just(Outcome::NoEntry),
        Just(Outcome::RotationClosed),
        Just(Outcome::Claimed(Trouble::Unassigned)),
        Just(Outcome::NotUnderstood { retry_after: None }),
        Just(Outcome::Disputed),
        Just(Outcome::LostElsewhere),
        Just(Outcome::Contested),
        Just(Outcome::Doubtful),
        Just(Outcome::Declined(Trouble::Unassigned)),
        Just(Outcome::ResetDeferred { retry_after: None }),
        Just(Outcome::RegisteredElsewhere),
        Just(Outcome::NotUnregistered(Settling::Ask)),
        Just(Outcome::Requested),
        Just(Outcome::SecretReplaced),
        Just(Outcome::Removed),
        prop::option::of(0_u64..10_000_000)
            .prop_map(|secs| Outcome::Deferred { retry_after: secs.map(Duration::from_secs) }),
        Just(LOST),
        Just(Outcome::MustAct(Trouble::Orphaned)),
        any_validity().prop_map(Outcome::Adopted),
        Just(Outcome::Unsaved),
        Just(Outcome::Saved),
        Just(Outcome::Nudged),
        prop::option::of(any_validity()).prop_map(Outcome::Reenrolled),
    ]
}

/// Asserts the invariants of every reachable state.
fn assert_legal(state: &State, now: Timestamp) {
    match state {
        State::Active(active) => {
            assert!(active.failures == 0 || active.retry_from >= active.since.min(now));
            assert!(active.asked.is_none_or(|finding| finding.first.at <= now));
        }
        State::Uncertain(uncertain) => {
            assert!(uncertain.accepted < 2, "it should be settled");
            assert!(uncertain.fruitless_resets > 0);
        }
        State::Rejected(rejected) => {
            assert!(rejected.rejection != Rejection::Expired || rejected.validity.is_expired(rejected.since));
        }
        State::Unregistered(_) | State::NotRenewable(_) | State::Failed(_) | State::Retired { .. } => {}
    }
    assert!(state.since() <= now, "{state:?}");
}

fn last_resort(is_issue_known: bool) -> Rules {
    Rules { rotate: Some(Rotation::LastResort { is_issue_known }), ..rules() }
}

#[test]
fn last_resort_is_planned_for_the_last_tenth_and_says_so() {
    let mut state = after(active(), &[Outcome::Accepted(validity())]);
    // No verification is due before it.
    let State::Active(active) = &mut state else { panic!("{state:?}") };
    active.verify_at = at(2 * DAY.cast_signed());
    let next = plan(&state, &last_resort(true)).unwrap();
    assert_eq!((next.step, next.at, next.why), (Step::Rotate, at(DAY.cast_signed() / 10 * 9), Why::LastResort));
    assert_eq!(next_rotation(&state, &last_resort(true)), Some(next.at));
    let never = Rules { rotate: None, ..rules() };
    assert_eq!((plan(&state, &never).unwrap().step, next_rotation(&state, &never)), (Step::Verify, None));
}

#[test]
fn token_first_seen_shortly_before_its_expiry_has_time_for_retries() {
    const TENTH: i64 = 720;
    for (seen_secs, expected) in [(40 * DAY, 36 * 86_400), (3600, 3600 - TENTH), (600, 600 - TENTH)] {
        let validity = validity_of(seen_secs);
        let at_of = |is_issue_known| rotate_at(&validity, Rotation::LastResort { is_issue_known }, Fraction::ZERO);
        assert_eq!(at_of(false), Some(at(expected)), "{seen_secs}");
        assert_eq!(at_of(true), Some(at(seen_secs.cast_signed() / 10 * 9)), "{seen_secs}");
    }
}

#[test]
fn token_that_is_not_renewed_waits_for_the_last_resort_too() {
    let mut closed = proven(active(), Outcome::RotationClosed);
    let State::NotRenewable(state) = &mut closed else { panic!("{closed:?}") };
    (state.asked, state.verify_at) = (None, at(2 * DAY.cast_signed()));
    assert!(plan(&closed, &rules()).unwrap().at < at(DAY.cast_signed() / 10 * 9));
    let next = plan(&closed, &last_resort(true)).unwrap();
    assert_eq!((next.step, next.at), (Step::Rotate, at(DAY.cast_signed() / 10 * 9)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_rotation_is_planned_before_75_percent_of_the_life(
        life in 1_u64..400 * DAY, percent in 10_u32..=74, phase in any_fraction()
    ) {
        let share: Share = format!("{percent}%").parse().unwrap();
        let validity = validity_of(life);
        let at = rotate_at(&validity, Rotation::AtShare(share), phase).unwrap();
        prop_assert!(at < validity.expiry.at().unwrap());
        prop_assert!(at < validity.obtained_at.plus(secs(life).mul_f64(0.75)));
        prop_assert!(at >= validity.obtained_at);
    }

    #[test]
    fn last_resort_leaves_gitlab_runner_its_turn_and_a_twelfth_of_the_life(
        life in 60_u64..400 * DAY, phase in any_fraction()
    ) {
        let validity = validity_of(life);
        let at = rotate_at(&validity, Rotation::LastResort { is_issue_known: true }, phase).unwrap();
        prop_assert!(at >= validity.obtained_at.plus(secs(life).mul_f64(0.9)).minus(Duration::from_millis(1)));
        prop_assert!(at <= validity.expiry.at().unwrap().minus(secs(life) / 13));
    }

    #[test]
    fn a_healthy_token_is_rotated_before_75_percent_of_its_life(
        life in 10_u64..40 * DAY, phase in any_fraction(), draws in prop::collection::vec(any_fraction(), 8)
    ) {
        let rules = Rules { phase, ..rules() };
        let mut validity = validity_of(life);
        let mut state = State::found(validity, at(0), at(0));
        let mut now = at(0);
        let mut rotations = 0;
        for draw in draws.iter().cycle().take(400) {
            let next = plan(&state, &rules).unwrap();
            now = now.max(next.at);
            let outcome = match next.step {
                Step::Rotate => {
                    rotations += 1;
                    prop_assert!(now <= validity.obtained_at.plus(secs(life).mul_f64(0.75)).max(validity.obtained_at.plus(secs(5))));
                    validity = Validity { obtained_at: now, expiry: Expiry::At(now.plus(secs(life))) };
                    Outcome::Rotated(validity)
                }
                _ => Outcome::Accepted(validity),
            };
            state = apply(state, outcome, &rules, moment_at(now, *draw));
            if rotations == 5 {
                break;
            }
        }
    }

    #[test]
    fn no_sequence_of_outcomes_reaches_an_illegal_state(
        validity in any_validity(), steps in prop::collection::vec((any_outcome(), any_fraction(), 0_i64..100_000), 0..60)
    ) {
        let rules = rules();
        let mut now = at(0);
        let mut state = State::found(validity, at(0), now);
        for (outcome, chance, passed) in steps {
            now = now.plus(secs(passed.unsigned_abs()));
            state = apply(state, outcome, &rules, moment_at(now, chance));
            assert_legal(&state, now);
            let next = plan(&state, &rules);
            prop_assert!(next.is_some());
            prop_assert_eq!(plan(&state, &rules), next);
        }
    }

    #[test]
    fn a_failed_step_is_not_retried_at_once(
        validity in any_validity(), steps in prop::collection::vec((any_outcome(), any_fraction(), 0_i64..100_000), 0..20),
        failure in prop_oneof![
            Just(Outcome::Refused), Just(LOST), Just(Outcome::NotRotated),
            Just(Outcome::Deferred { retry_after: None }), Just(Outcome::MustAct(Trouble::Unassigned)),
        ],
    ) {
        let rules = rules();
        let mut now = at(0);
        let mut state = State::found(validity, at(0), now);
        for (outcome, chance, passed) in steps {
            now = now.plus(secs(passed.unsigned_abs()));
            state = apply(state, outcome, &rules, moment_at(now, chance));
        }
        let Some(before) = plan(&state, &rules) else { return Ok(()) };
        if matches!(failure, Outcome::NotRotated | Outcome::Withheld) && before.step != Step::Rotate {
            return Ok(());
        }
        now = now.max(before.at);
        state = apply(state, failure, &rules, moment_at(now, Fraction::ZERO));
        let next = plan(&state, &rules).unwrap();
        // Another step may have been due anyway, but the failed one must wait.
        let is_rung = next.why == Why::Recovery;
        prop_assert!(
            next.step == Step::Save || is_rung || next.step != before.step || next.at >= now.plus(secs(2)),
            "{before:?} {next:?}"
        );
    }

    #[test]
    fn a_permanently_failing_server_gets_few_requests(
        life in prop::option::of(20 * 3600_u64..40 * DAY),
        chances in prop::collection::vec(any_fraction(), 1..50),
        failure in prop_oneof![
            Just(Outcome::Deferred { retry_after: None }), Just(Outcome::Refused),
            Just(LOST), Just(Outcome::MustAct(Trouble::Orphaned)),
        ],
        registered in any::<bool>(), reset_by_id in any::<bool>(),
        register in prop_oneof![Just(RegisterAgain::Never), Just(RegisterAgain::Expired), Just(RegisterAgain::Always)],
    ) {
        let rules = recovering(reset_by_id, register);
        let expiry = life.map_or(Expiry::Never, |life| Expiry::At(at(0).plus(secs(life))));
        let validity = Validity { obtained_at: at(0), expiry };
        let state = if registered { State::found(validity, at(0), at(0)) } else { State::unregistered(at(0)) };
        let mut chances = chances.into_iter().cycle();
        let requests = play(state, &rules, at(6 * 3600), |_| (failure, chances.next().unwrap()));
        assert_few(&requests);
    }

    #[test]
    fn a_server_that_renews_nothing_gets_few_requests(
        chances in prop::collection::vec(any_fraction(), 1..50),
        answer in prop_oneof![
            Just(Outcome::ResetRefused), Just(Outcome::NotRotated), Just(Outcome::RotationClosed),
            Just(Outcome::MustAct(Trouble::Unassigned)), Just(LOST), Just(Outcome::Deferred { retry_after: None }),
        ],
        registered in any::<bool>(),
    ) {
        let validity = Validity { obtained_at: at(-400_000), expiry: Expiry::At(at(30 * 86_400)) };
        let rules = Rules { rotate: Some(Rotation::AtShare("10%".parse().unwrap())), ..rules() };
        let state = if registered { State::found(validity, at(0), at(0)) } else { State::unregistered(at(0)) };
        let mut chances = chances.into_iter().cycle();
        let requests = play(state, &rules, at(6 * 3600), |plan| {
            let outcome = if plan.step == Step::Verify { Outcome::Accepted(validity) } else { answer };
            (outcome, chances.next().unwrap())
        });
        assert_few(&requests);
    }

    #[test]
    fn a_server_that_loses_every_reset_gets_few_requests(chances in prop::collection::vec(any_fraction(), 1..50)) {
        let overdue = Validity { obtained_at: at(-70_000), expiry: Expiry::At(at(30 * 86_400)) };
        let rules = Rules { rotate: Some(Rotation::AtShare("10%".parse().unwrap())), ..rules() };
        let overdue = Validity { obtained_at: at(-400_000), ..overdue };
        let mut chances = chances.into_iter().cycle();
        let requests = play(State::found(overdue, at(0), at(0)), &rules, at(6 * 3600), |plan| {
            let outcome = match plan.step {
                Step::Rotate => LOST,
                _ => Outcome::Accepted(overdue),
            };
            (outcome, chances.next().unwrap())
        });
        assert_few(&requests);
    }

    #[test]
    fn the_delays_of_a_lasting_failure_never_shrink(chance in any_fraction()) {
        let validity = Validity { obtained_at: at(0), expiry: Expiry::At(at(400 * 86_400)) };
        let requests = play(State::found(validity, at(0), at(0)), &rules(), at(4 * 3600), |_| {
            (Outcome::Deferred { retry_after: None }, chance)
        });
        let delays: Vec<_> = requests.windows(2).map(|pair| pair[1].at.since(pair[0].at)).collect();
        prop_assert!(delays.windows(2).all(|pair| pair[1] >= pair[0]), "{delays:?}");
    }
}

#[test]
fn a_pressing_token_waits_neither_for_a_judgement_nor_for_a_failing_verification() {
    let rules = rules();
    let deferred = Outcome::Deferred { retry_after: None };
    for (outcomes, is_enough) in [(&[Outcome::Disputed][..], true), (&[deferred], false), (&[deferred, deferred], true)]
    {
        for (secs, is_pressing) in [(70_000, false), (80_000, true)] {
            let reset = apply(active(), Outcome::ResetDeferred { retry_after: None }, &rules, moment(secs));
            let later = |state, outcome: &Outcome| apply(state, *outcome, &rules, moment(secs + 60));
            let state = outcomes.iter().fold(reset, later);
            let State::Active(active) = &state else { panic!("{state:?}") };
            assert_eq!(active.ask_first, !(is_enough && is_pressing), "{outcomes:?} after {secs} s");
        }
    }
}

#[test]
fn one_refusal_that_no_verification_repeats_does_not_let_a_token_expire() {
    let rules = rules();
    let deferred = Outcome::Deferred { retry_after: None };
    let mut state = apply(active(), Outcome::Refused, &rules, moment(80_000));
    for secs in [80_700, 80_800, 80_900] {
        assert_eq!(plan(&state, &rules).unwrap().step, Step::Verify, "{secs}");
        state = apply(state, deferred, &rules, moment(secs));
    }
    assert_eq!(plan(&state, &rules).unwrap().step, Step::Rotate);
}

#[test]
fn what_declined_one_rung_says_nothing_about_the_next_one() {
    let recovery = Recovery { reset_by_id: true, register: RegisterAgain::Always };
    let rules = Rules { recovery, ..rules() };
    let declined = Outcome::Declined(Trouble::AccessDenied);
    let mut state = apply(proven(active(), Outcome::Refused), Outcome::Refused, &rules, moment(700));
    for secs in [800, 1_100, 1_400] {
        state = apply(state, declined, &rules, moment(secs));
        state = apply(state, Outcome::Refused, &rules, moment(secs + 1));
    }
    assert!(matches!(&state, State::Rejected(state) if state.rungs.reset_failed), "{state:?}");
    let state = apply(state, declined, &rules, moment(1_500));
    assert!(matches!(&state, State::Rejected(state) if !state.rungs.register_failed), "{state:?}");
}

#[test]
fn an_expired_token_is_not_pressing_and_a_candidate_is_waited_for_for_ten_minutes() {
    let validity = validity();
    for (secs, is_pressing) in [(70_000, false), (80_000, true), (86_399, true), (86_400, false), (90_000, false)] {
        assert_eq!(validity.is_pressing(at(secs)), is_pressing, "{secs}");
    }
    let State::Rejected(state) = proven(active(), Outcome::Refused) else { panic!("not rejected") };
    let since = state.since;
    assert!(state.awaits_candidates(&rules().timing, since.plus(secs(599))));
    assert!(!state.awaits_candidates(&rules().timing, since.plus(secs(600))));
}

#[test]
fn what_an_old_secret_was_declined_for_does_not_count_against_the_new_one() {
    let recovery = Recovery { reset_by_id: true, register: RegisterAgain::Always };
    let rules = Rules { recovery, ..rules() };
    let declined = Outcome::Declined(Trouble::AccessDenied);
    let rejected = apply(proven(active(), Outcome::Refused), Outcome::Refused, &rules, moment(700));
    for (before, is_concluded) in [
        (
            rejected,
            (|state: &State| matches!(state, State::Rejected(state) if state.rungs.reset_failed)) as fn(&State) -> bool,
        ),
        (State::unregistered(at(0)), |state: &State| matches!(state, State::Failed(_))),
    ] {
        let mut state = before;
        for secs in [800, 1_300] {
            state = apply(state, declined, &rules, moment(secs));
        }
        assert!(is_concluded(&apply(state.clone(), declined, &rules, moment(1_500))), "{state:?}");
        let state = apply(state, Outcome::SecretReplaced, &rules, moment(1_400));
        assert!(!is_concluded(&apply(state.clone(), declined, &rules, moment(1_500))), "{state:?}");
    }
}

#[test]
fn a_pressing_token_waits_half_a_minute_for_another_reset_of_it_and_never_half_of_what_is_left() {
    let validity = validity();
    for (sent_at, now, waits) in [
        (80_000, 80_000, true),
        (80_000, 80_029, true),
        (80_000, 80_030, false),
        // One from the future was dated by another clock.
        (80_001, 80_000, false),
        (86_380, 86_386, true),
        (86_380, 86_387, false),
        (86_380, 86_400, false),
    ] {
        assert_eq!(validity.waits_for_other_reset(at(sent_at), at(now)), waits, "{sent_at} {now}");
    }
}

#[test]
fn a_twin_is_rotated_only_once_its_token_is_pressing() {
    let twin = Rules { is_twin: true, ..rules() };
    let State::Active(state) = active() else { panic!() };
    let state = Active { verify_at: at(0).plus(secs(2 * DAY)), ..state };
    let next = plan(&State::Active(state), &twin).unwrap();
    assert_eq!((next.step, next.at), (Step::Rotate, at(0).plus(secs(DAY * 7 / 8))));
    assert!(validity().is_pressing(next.at) && !validity().is_pressing(at(0).plus(secs(DAY * 7 / 8 - 1))));
}

#[test]
fn a_doubtful_acceptance_is_followed_by_a_verification_and_never_by_a_reset() {
    for now in [1, DAY * 2 / 3, DAY * 15 / 16] {
        let accepted = apply(active(), Outcome::Accepted(validity()), &rules(), moment(now.cast_signed()));
        let doubtful = apply(accepted, Outcome::Doubtful, &rules(), moment(now.cast_signed()));
        let next = plan(&doubtful, &rules()).unwrap();
        assert_eq!((next.step, next.at), (Step::Verify, at(0).plus(secs(now + 60))));
    }
}

#[test]
fn a_token_outlives_its_twins_only_by_an_acceptance_that_no_lag_explains() {
    let replaced = Some(at(0));
    for (secs_later, life, expected) in
        [(1, None, false), (600, None, false), (601, None, true), (299, Some(2400), false), (301, Some(2400), true)]
    {
        let expiry = life.map_or(Expiry::Unknown, |life| Expiry::At(at(0).plus(secs(life))));
        assert_eq!(outlives_twin(at(0).plus(secs(secs_later)), replaced, expiry), expected, "{secs_later} {life:?}");
    }
}

#[test]
fn a_token_in_an_odd_answer_to_a_registration_is_asked_about_soon_and_then_less_often() {
    let rules = rules();
    let mut state = State::unregistered(at(0));
    let (mut now, mut waits) = (1, Vec::new());
    for outcome in [LOST, Outcome::NotUnderstood { retry_after: None }, LOST, Outcome::Deferred { retry_after: None }] {
        state = apply(state, outcome, &rules, moment(now));
        let plan = plan(&state, &rules).unwrap();
        assert_eq!(plan.step, Step::Verify, "a registration is not repeated after {outcome:?}");
        assert!(matches!(&state, State::Failed(failed) if failed.trouble == Trouble::RegistrationLost));
        waits.push(plan.at.since(at(now)));
        now = i64::try_from(plan.at.since(at(0)).as_secs()).unwrap() + 1;
    }
    assert!(waits[0] < secs(10) && waits.is_sorted(), "{waits:?}");
    assert!((0..20).fold(state, |state, _| apply(state, LOST, &rules, moment(now))).name() == StateName::Failed);
}
