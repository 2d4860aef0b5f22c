//! What a one-shot command does next, until it has what it wants of a runner.
//!
//! A command asks for steps before they are due. How long it waits in between, and how often it tries, follows from
//! the same states and times as in the daemon.

use super::schedule::settling_wait;
use super::{Active, Outcome, Plan, Rules, Settling, State, Step, Why};
use crate::model::Timestamp;

/// What a command wants of a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// An answer to one verification.
    Verified,
    /// Certainty about a reset whose answer was lost.
    Settled,
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
    /// A shared runner with a token that is accepted and in its store: a new one, requested by the runner's id, once none
    /// that is known is accepted.
    Healed,
    /// A config.toml that holds the credential.
    Saved,
    /// A disk that holds a token which is in memory alone: the credential, or one in an odd answer.
    Stored,
    /// One attempt to unregister the runner.
    Unregistered,
}

/// A step that a command has taken, with what came of it.
pub type Taken = (Step, Outcome);

/// How often a command asks about a reset whose answer was lost.
const SETTLING_VERIFICATIONS: usize = 4;

/// The next step towards a goal; `None` once the goal is reached, or out of reach.
///
/// `taken` has the steps since the command began, oldest first. What a former process found out is in the state.
#[must_use]
pub fn plan_towards(goal: Goal, state: &State, taken: &[Taken], rules: &Rules, now: Timestamp) -> Option<Plan> {
    let at_once = |step| Some(Plan { step, at: now, why: Why::Requested });
    match goal {
        Goal::Verified if taken.is_empty() => at_once(Step::Verify),
        Goal::Verified => None,
        Goal::Settled => settling(state, taken, rules, now),
        Goal::Refused => match taken.last() {
            None => at_once(Step::Verify),
            Some((_, Outcome::Refused)) => confirmation(state),
            Some(_) => None,
        },
        Goal::Registered => registration(Step::Register, state, taken, rules, now),
        Goal::RegisteredAgain => registration(Step::RegisterAgain, state, taken, rules, now),
        Goal::Rotated => rotation(Step::Rotate, state, taken, rules, now),
        Goal::RotatedById => rotation(Step::ResetById, state, taken, rules, now),
        Goal::Healed => healing(state, taken, rules, now),
        Goal::Unregistered => unregistration(state, taken, rules, now),
        Goal::Saved => unsaved(state, rules, now),
        Goal::Stored if matches!(taken.last(), Some((Step::Save, outcome)) if *outcome != Outcome::Unsaved) => None,
        Goal::Stored => unsaved(state, rules, now).or_else(|| {
            let at = now.plus(rules.timing.floor);
            Some(Plan { step: Step::Save, at, why: Why::Unsaved })
        }),
    }
}

/// The next write of a credential that config.toml does not hold.
fn unsaved(state: &State, rules: &Rules, now: Timestamp) -> Option<Plan> {
    let State::Active(Active { unsaved: Some(unsaved), .. }) = state else { return None };
    // A person waits, and the disk is this machine's own.
    let at = unsaved.retry_from.min(now.plus(rules.timing.floor));
    Some(Plan { step: Step::Save, at, why: Why::Unsaved })
}

/// The verification that confirms a refusal; `None` once it is confirmed.
fn confirmation(state: &State) -> Option<Plan> {
    let at = match state {
        State::Active(state) => state.verify_at,
        State::NotRenewable(state) => state.verify_at,
        State::Uncertain(state) => state.ask_at,
        State::Failed(state) => state.look_again_at,
        // With the candidates, before anything rests on the refusals.
        State::Rejected(state) if !state.is_settled() => state.look_again_at,
        State::Rejected(_) | State::Unregistered(_) | State::Retired { .. } => return None,
    };
    Some(Plan { step: Step::Verify, at, why: Why::ConfirmRefusal })
}

/// The verification that settles a reset whose answer was lost, of this process or of a former one; `None` if the
/// state is settled, or if enough were made in vain.
fn settling(state: &State, taken: &[Taken], rules: &Rules, now: Timestamp) -> Option<Plan> {
    let State::Uncertain(state) = state else { return None };
    let settling = taken.iter().rev().take_while(|(step, _)| *step == Step::Verify).count();
    // No longer than this, whatever the server wishes: a person waits.
    let wait = settling_wait(&rules.timing, state.validity.left(now));
    let plan = Plan { step: Step::Verify, at: state.ask_at.min(now.plus(wait)), why: Why::SettleLostAnswer };
    (settling < SETTLING_VERIFICATIONS).then_some(plan)
}

/// A registration into an entry whose runner has a lost reset waits until that is settled.
fn registration(step: Step, state: &State, taken: &[Taken], rules: &Rules, now: Timestamp) -> Option<Plan> {
    if let State::Uncertain(_) = state {
        return settling(state, taken, rules, now);
    }
    match (taken.iter().rfind(|(taken, _)| *taken == step), state) {
        (None, _) => Some(Plan { step, at: now, why: Why::Requested }),
        (Some((_, Outcome::Deferred { .. })), State::Unregistered(state)) => {
            Some(Plan { step, at: state.retry_from, why: Why::Retry })
        }
        (Some(_), _) => None,
    }
}

/// Settles a lost answer first, and writes a token that config.toml does not hold yet. A reset is sent once; one whose
/// answer is lost is settled and not repeated. A reset by the runner's id needs no settling: it replaces whichever
/// token is there.
fn rotation(reset: Step, state: &State, taken: &[Taken], rules: &Rules, now: Timestamp) -> Option<Plan> {
    let at_once = |step| Some(Plan { step, at: now, why: Why::Requested });
    let mut resets = taken.iter().filter(|(step, _)| matches!(step, Step::Rotate | Step::ResetById));
    let last_reset = resets.next_back();
    if matches!(state, State::Uncertain(_)) && !(reset == Step::ResetById && last_reset.is_none()) {
        return settling(state, taken, rules, now);
    }
    match (last_reset, taken.last()) {
        (None, None) if is_unsaved(state) => at_once(Step::Save),
        (None, Some((Step::Save, outcome))) if *outcome != Outcome::Saved => None,
        // A former reset that was lost has cost the token.
        (None, Some((Step::Verify, _))) if matches!(state, State::Rejected(_)) => None,
        (None, _) => at_once(reset),
        (Some((Step::Rotate, Outcome::ResetRefused)), Some((Step::Rotate, _))) if rules.recovery.reset_by_id => {
            at_once(Step::ResetById)
        }
        // The unknown token in config.toml is asked about once more, and then the reset is sent.
        (Some((_, Outcome::Contested)), Some((Step::Rotate | Step::ResetById, _))) if taken.len() < MOST_CONTESTS => {
            confirmation(state)
        }
        (Some((_, Outcome::Contested)), Some((Step::Verify, Outcome::Accepted(_)))) => match state {
            State::Active(Active { ask_first: true, .. }) if taken.len() < MOST_CONTESTS => confirmation(state),
            _ => at_once(reset),
        },
        (Some(_), _) => None,
    }
}

/// Verifies until the token is accepted and compared with the store's, or a refusal is confirmed; then the reset is sent,
/// once. One that was surely not sent waits for another machine, whose change may still bring a token, and which is asked
/// about again.
fn healing(state: &State, taken: &[Taken], rules: &Rules, now: Timestamp) -> Option<Plan> {
    let at_once = |step| Some(Plan { step, at: now, why: Why::Requested });
    if taken.len() >= MOST_STEPS_OF_HEALING {
        return None;
    }
    match (taken.last(), state) {
        (None, _) => at_once(Step::Verify),
        (Some((Step::Verify, Outcome::Refused)), _) => confirmation(state).or_else(|| at_once(Step::ResetById)),
        (
            Some((Step::Verify, Outcome::Accepted(_) | Outcome::Adopted(_))),
            State::Active(Active { ask_first: true, .. }),
        ) => confirmation(state),
        (Some((Step::ResetById, Outcome::Deferred { .. })), _) => {
            Some(Plan { step: Step::Verify, at: now.plus(rules.timing.confirm_after / 4), why: Why::Retry })
        }
        (Some(_), _) => None,
    }
}

/// Longer than another machine is waited for, with two steps in a quarter of a minute.
const MOST_STEPS_OF_HEALING: usize = 24;

/// A deletion that the server does not confirm is not repeated by itself, but for that of a manager, which is
/// idempotent: a verification finds out whether the runner is gone.
fn unregistration(state: &State, taken: &[Taken], rules: &Rules, now: Timestamp) -> Option<Plan> {
    let at_once = |step| Some(Plan { step, at: now, why: Why::Requested });
    if let State::Uncertain(_) = state {
        return settling(state, taken, rules, now);
    }
    let mut deletions = taken.iter().filter(|(step, _)| *step == Step::Unregister);
    let (first, is_repeated) = (deletions.next().map(|(_, outcome)| *outcome), deletions.next().is_some());
    match (first, taken.last()) {
        // Nothing, or what preceded the deletion is settled.
        (None, None | Some((Step::Verify, _))) => at_once(Step::Unregister),
        (Some(Outcome::NotUnregistered(Settling::Repeat)), Some((Step::Unregister, _))) if !is_repeated => {
            at_once(Step::Unregister)
        }
        (Some(Outcome::NotUnregistered(_)), Some((Step::Unregister, Outcome::NotUnregistered(settling))))
            if !is_repeated || *settling != Settling::Repeat =>
        {
            (taken.len() < MOST_STEPS_OF_A_DELETION).then(|| at_once(Step::Verify)).flatten()
        }
        (Some(_), Some((Step::Verify, Outcome::Refused))) => confirmation(state).or_else(|| at_once(Step::Unregister)),
        (
            Some(Outcome::NotUnregistered(Settling::AskThenRepeat)),
            Some((Step::Verify, Outcome::Accepted(_) | Outcome::Adopted(_))),
        ) if !is_repeated => at_once(Step::Unregister),
        _ => None,
    }
}

/// A deletion, two verifications and their deletion again: no unregistration needs more.
const MOST_STEPS_OF_A_DELETION: usize = 6;

/// A reset that meets an unknown token in config.toml, twice with a verification, and the reset itself.
const MOST_CONTESTS: usize = 8;

fn is_unsaved(state: &State) -> bool {
    matches!(state, State::Active(Active { unsaved: Some(_), .. }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lifecycle::tests::{moment, rules, validity};
    use crate::lifecycle::{Moment, Recovery, RegisterAgain, Rejection, Validity, apply};

    /// A command in the middle of its work, driven by outcomes.
    struct Command {
        goal: Goal,
        rules: Rules,
        current: State,
        taken: Vec<Taken>,
        moment: Moment,
    }

    impl Command {
        fn new(goal: Goal) -> Self {
            let current = State::found(validity(), Timestamp::EARLIEST, moment(0).now);
            Self { goal, rules: rules(), current, taken: Vec::new(), moment: moment(0) }
        }

        fn after(mut self, outcome: Outcome) -> Self {
            self.current = apply(self.current, outcome, &self.rules, self.moment);
            self
        }

        fn plan(&self) -> Option<Plan> {
            plan_towards(self.goal, &self.current, &self.taken, &self.rules, self.moment.now)
        }

        /// Waits for the next step, takes it, and returns the step with its reason and the wait for it.
        fn take(&mut self, outcome: Outcome) -> (Step, Why, Duration) {
            let plan = self.plan().expect("a step");
            let wait = plan.at.since(self.moment.now);
            self.moment.now = self.moment.now.plus(wait);
            self.moment.since_boot += wait;
            self.current = apply(self.current.clone(), outcome, &self.rules, self.moment);
            self.taken.push((plan.step, outcome));
            (plan.step, plan.why, wait)
        }
    }

    const DEFERRED: Outcome = Outcome::Deferred { retry_after: None };
    const DECLINED: Outcome = Outcome::Declined(crate::lifecycle::Trouble::AccessDenied);
    const LOST: Outcome = Outcome::Lost { retry_after: None };

    #[test]
    fn a_command_takes_its_step_at_once_and_once() {
        for (goal, step, outcome) in [
            (Goal::Verified, Step::Verify, Outcome::Accepted(validity())),
            (Goal::Verified, Step::Verify, DEFERRED),
            (Goal::Refused, Step::Verify, Outcome::Accepted(validity())),
            (Goal::Rotated, Step::Rotate, Outcome::Rotated(validity())),
            (Goal::Rotated, Step::Rotate, DEFERRED),
            (Goal::RotatedById, Step::ResetById, Outcome::NotRotated),
            (Goal::Registered, Step::Register, Outcome::Registered(validity())),
            (Goal::RegisteredAgain, Step::RegisterAgain, DECLINED),
            (Goal::Unregistered, Step::Unregister, DEFERRED),
            (Goal::Unregistered, Step::Unregister, Outcome::Unregistered),
        ] {
            let mut command = Command::new(goal);
            assert_eq!(command.take(outcome), (step, Why::Requested, Duration::ZERO), "{goal:?}");
            assert_eq!(command.plan(), None, "{goal:?} after {outcome:?}");
        }
    }

    #[test]
    fn a_refusal_is_confirmed_after_the_wait_of_lifecycle_and_once_more_with_the_candidates() {
        let mut command = Command::new(Goal::Refused);
        command.take(Outcome::Refused);
        assert_eq!(command.take(Outcome::Refused), (Step::Verify, Why::ConfirmRefusal, rules().timing.confirm_after));
        assert_eq!(command.take(Outcome::Refused), (Step::Verify, Why::ConfirmRefusal, rules().timing.floor));
        assert_eq!(command.plan(), None);
        assert!(matches!(command.current, State::Rejected(_)));
    }

    #[test]
    fn an_expired_token_is_verified_twice_before_it_counts_as_refused() {
        let mut command = Command::new(Goal::Refused);
        let expired = Validity { expiry: crate::model::Expiry::At(moment(0).now), ..validity() };
        command.current = State::found(expired, Timestamp::EARLIEST, moment(0).now);
        command.take(Outcome::Refused);
        assert_eq!(command.take(Outcome::Refused), (Step::Verify, Why::ConfirmRefusal, rules().timing.floor));
        assert_eq!(command.take(Outcome::Refused), (Step::Verify, Why::ConfirmRefusal, rules().timing.floor));
        assert_eq!(command.plan(), None);
    }

    #[test]
    fn a_reset_without_an_answer_is_settled_and_not_repeated() {
        let mut command = Command::new(Goal::Rotated);
        command.take(LOST);
        let settling = (Step::Verify, Why::SettleLostAnswer, rules().timing.settle_after);
        assert_eq!(command.take(Outcome::Accepted(validity())), settling);
        assert_eq!(command.take(Outcome::Accepted(validity())), settling);
        assert!(matches!(command.current, State::Active(_)));
        assert_eq!(command.plan(), None);
    }

    #[test]
    fn a_reset_that_a_former_process_lost_is_settled_first() {
        let mut command = Command::new(Goal::Rotated).after(LOST);
        command.take(Outcome::Accepted(validity()));
        command.take(Outcome::Accepted(validity()));
        assert_eq!(command.take(Outcome::Rotated(validity())).0, Step::Rotate);
        let mut refused = Command::new(Goal::Rotated).after(LOST);
        refused.take(Outcome::Refused);
        refused.take(Outcome::Refused);
        assert!(matches!(&refused.current, State::Rejected(rejected) if rejected.rejection == Rejection::Lost));
        assert_eq!(refused.plan(), None);
    }

    #[test]
    fn settling_ends_after_four_verifications_without_an_answer() {
        let mut command = Command::new(Goal::Rotated);
        command.take(LOST);
        for _ in 0..4 {
            assert_eq!(command.take(DEFERRED).0, Step::Verify);
        }
        assert_eq!(command.plan(), None);
    }

    #[test]
    fn a_server_cannot_make_a_command_wait_for_hours() {
        let mut command = Command::new(Goal::Rotated);
        command.take(LOST);
        let busy = Outcome::Deferred { retry_after: Some(Duration::from_secs(7200)) };
        for _ in 0..4 {
            assert_eq!(command.take(busy).2, rules().timing.settle_after);
        }
    }

    #[test]
    fn a_deletion_that_is_not_confirmed_is_settled_by_asking() {
        let undeleted = |settling| Outcome::NotUnregistered(settling);
        // The runner is gone: two refusals prove it, and then the deletion is concluded.
        let mut gone = Command::new(Goal::Unregistered);
        gone.take(undeleted(Settling::Ask));
        assert_eq!(gone.take(Outcome::Refused).0, Step::Verify);
        assert_eq!(gone.take(Outcome::Refused), (Step::Verify, Why::ConfirmRefusal, rules().timing.confirm_after));
        assert_eq!(gone.take(Outcome::Refused).0, Step::Verify, "with the candidates");
        assert_eq!(gone.take(Outcome::Unregistered).0, Step::Unregister);
        assert_eq!(gone.plan(), None);
        // The runner lives: its deletion is not repeated by itself, that of a manager is, once.
        for (settling, repeated) in [(Settling::Ask, None), (Settling::AskThenRepeat, Some(Step::Unregister))] {
            let mut lives = Command::new(Goal::Unregistered);
            lives.take(undeleted(settling));
            assert_eq!(lives.take(Outcome::Accepted(validity())).0, Step::Verify);
            assert_eq!(lives.plan().map(|plan| plan.step), repeated);
        }
        let mut lost = Command::new(Goal::Unregistered);
        lost.take(undeleted(Settling::Repeat));
        assert_eq!(lost.take(undeleted(Settling::Repeat)).0, Step::Unregister);
        assert_eq!(lost.plan(), None);
    }

    #[test]
    fn a_lost_reset_is_settled_before_a_registration_or_a_deletion() {
        for (goal, step) in [
            (Goal::Unregistered, Step::Unregister),
            (Goal::RegisteredAgain, Step::RegisterAgain),
            (Goal::RotatedById, Step::ResetById),
        ] {
            let mut command = Command::new(goal).after(LOST);
            if goal != Goal::RotatedById {
                assert_eq!(command.take(Outcome::Refused).0, Step::Verify, "{goal:?}");
                assert_eq!(command.take(Outcome::Refused).0, Step::Verify, "{goal:?}");
            }
            assert_eq!(command.plan().map(|plan| plan.step), Some(step), "{goal:?}");
        }
    }

    #[test]
    fn dead_shared_runner_is_reset_once_its_refusal_is_confirmed() {
        let mut command = Command::new(Goal::Healed);
        assert_eq!(command.take(Outcome::Refused).0, Step::Verify);
        assert_eq!(command.take(Outcome::Refused), (Step::Verify, Why::ConfirmRefusal, rules().timing.confirm_after));
        while command.plan().is_some_and(|plan| plan.step == Step::Verify) {
            command.take(Outcome::Refused);
        }
        // Another machine may still bring a token.
        assert_eq!(command.take(DEFERRED), (Step::ResetById, Why::Requested, Duration::ZERO));
        assert_eq!(command.take(Outcome::Refused), (Step::Verify, Why::Retry, rules().timing.confirm_after / 4));
        assert_eq!(command.take(Outcome::Rotated(validity())).0, Step::ResetById);
        assert_eq!(command.plan(), None);
        let mut accepted = Command::new(Goal::Healed);
        accepted.take(Outcome::Accepted(validity()));
        assert_eq!(accepted.plan(), None);
    }

    #[test]
    fn an_unsaved_token_is_written_before_the_next_reset() {
        let mut command = Command::new(Goal::Rotated).after(Outcome::Unsaved);
        assert_eq!(command.take(Outcome::Saved), (Step::Save, Why::Requested, Duration::ZERO));
        assert_eq!(command.take(Outcome::Rotated(validity())).0, Step::Rotate);
        let mut failing = Command::new(Goal::Rotated).after(Outcome::Unsaved);
        failing.take(Outcome::Unsaved);
        assert_eq!(failing.plan(), None, "no token is spent while one is not saved");
    }

    #[test]
    fn a_refused_token_is_reset_by_id_only_where_the_rules_allow_it() {
        for allowed in [false, true] {
            let mut command = Command::new(Goal::Rotated);
            command.rules.recovery = Recovery { reset_by_id: allowed, register: RegisterAgain::Never };
            command.take(Outcome::ResetRefused);
            let next = command.plan().map(|plan| plan.step);
            assert_eq!(next, allowed.then_some(Step::ResetById));
            if allowed {
                command.take(Outcome::MustAct(crate::lifecycle::Trouble::AccessDenied));
                assert_eq!(command.plan(), None);
            }
        }
    }

    #[test]
    fn a_registration_is_repeated_only_after_a_deferral() {
        let mut command = Command::new(Goal::RegisteredAgain).after(Outcome::Reenrolled(None));
        command.take(DEFERRED);
        let (step, why, wait) = command.take(DEFERRED);
        assert_eq!((step, why), (Step::RegisterAgain, Why::Retry));
        assert!(wait >= rules().timing.floor, "{wait:?}");
        command.take(LOST);
        assert_eq!(command.plan(), None, "it may have made a runner");
    }

    #[test]
    fn a_token_is_saved_until_config_toml_holds_it() {
        let mut command = Command::new(Goal::Saved).after(Outcome::Unsaved);
        let waits: Vec<_> = (0..5).map(|_| command.take(Outcome::Unsaved).2).collect();
        assert_eq!(waits, [rules().timing.floor; 5]);
        command.take(Outcome::Saved);
        assert_eq!(command.plan(), None);
    }
}
