use std::time::Duration;

use super::memory::{DAY, Fault, Keeper, Machine, Running, World, keeper, killed, pass};
use super::{AccessError, AccessEvent, AccessPass, AccessWish};
use crate::lifecycle::access::{self as rules, ASK_INTERVAL};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_year_of_90_day_tokens_has_each_rotated_before_a_third_is_left_and_the_file_always_good() {
    let world = World::new();
    let machine = world.machine();
    let keeper = keeper(&machine);
    let end = world.now().plus(365 * DAY);
    while world.now() < end {
        let pass = pass(&keeper, AccessWish::Keep);
        assert!(pass.error.is_none(), "{:?}", pass.error);
        assert!(pass.wait <= ASK_INTERVAL);
        // Calls of runners that are created and recovered meanwhile.
        for part in 1..=4 {
            world.advance(pass.wait / 4 + Duration::from_millis(1));
            assert!(world.is_file_good(), "{part}");
        }
    }
    let inner = world.0.borrow();
    for (token, at) in &inner.rotated {
        let known = &inner.tokens[token];
        assert!(known.expires_at.since(*at) > 29 * DAY, "{} at {at}", known.expires_at);
    }
    // Two thirds of 90 days are 60, and a year has six of them.
    assert_eq!((inner.rotated.len(), inner.posts, inner.reuses), (6, 6, 0));
}

#[test]
fn the_trap_springs_if_a_rotation_without_an_answer_is_repeated() {
    for (is_blind, expected) in [(true, 1), (false, 0)] {
        let world = World::new();
        let machine = world.machine();
        let keeper = keeper(&machine);
        keeper.repeats_blindly.set(is_blind);
        pass(&keeper, AccessWish::Keep);
        world.0.borrow_mut().fault = Fault::Cut;
        pass(&keeper, AccessWish::Rotate);
        for _ in 0..5 {
            world.advance(11 * MINUTE);
            pass(&keeper, AccessWish::Rotate);
        }
        assert_eq!(world.0.borrow().reuses, expected, "{is_blind}");
    }
}

#[test]
fn a_lost_answer_whose_token_is_dead_waits_for_a_person_and_takes_a_new_token_at_once() {
    let world = World::new();
    let machine = world.machine();
    let keeper = keeper(&machine);
    pass(&keeper, AccessWish::Keep);
    world.0.borrow_mut().fault = Fault::Cut;
    let lost = pass(&keeper, AccessWish::Rotate);
    assert!(matches!(lost.error, Some(AccessError::Rotating(_))) && lost.is_pending);
    world.advance(MINUTE);
    assert!(matches!(pass(&keeper, AccessWish::Rotate).error, Some(AccessError::Uncertain { .. })));
    world.advance(MINUTE);
    let settled = pass(&keeper, AccessWish::Rotate);
    assert_eq!(settled.events, [AccessEvent::Lost]);
    for _ in 0..3 {
        world.advance(DAY);
        assert!(matches!(pass(&keeper, AccessWish::Rotate).error, Some(AccessError::Lost)));
    }
    assert_eq!(world.0.borrow().posts, 1);
    let new = world.person_puts_a_new_token();
    let taken = pass(&keeper, AccessWish::Keep);
    assert_eq!(taken.events, [AccessEvent::Found(new.fingerprint())]);
    assert!(taken.error.is_none() && taken.record.lost_at.is_none());
    assert!(pass(&keeper, AccessWish::Rotate).error.is_none());
    assert!(world.is_file_good());
}

#[test]
fn a_rotation_that_was_not_executed_is_sent_again_once_no_replica_can_be_behind() {
    let world = World::new();
    let machine = world.machine();
    let keeper = keeper(&machine);
    pass(&keeper, AccessWish::Keep);
    world.0.borrow_mut().fault = Fault::Failed;
    assert!(pass(&keeper, AccessWish::Rotate).is_pending);
    world.advance(9 * MINUTE);
    assert!(matches!(pass(&keeper, AccessWish::Rotate).error, Some(AccessError::Uncertain { .. })));
    assert_eq!(world.0.borrow().posts, 1);
    world.advance(MINUTE);
    let again = pass(&keeper, AccessWish::Rotate);
    assert!(again.events.contains(&AccessEvent::NotExecuted) && again.error.is_none(), "{again:?}");
    assert_eq!((world.0.borrow().posts, world.is_file_good()), (2, true));
}

#[test]
fn a_rotated_token_that_configuration_management_puts_back_is_replaced_by_the_new_one() {
    let world = World::new();
    let machine = world.machine();
    let keeper = keeper(&machine);
    pass(&keeper, AccessWish::Keep);
    let old = world.0.borrow().file.clone();
    pass(&keeper, AccessWish::Rotate);
    let new = world.file_token().unwrap();
    world.0.borrow_mut().file = old;
    let restored = pass(&keeper, AccessWish::Keep);
    assert_eq!(restored.events, [AccessEvent::Restored(new.fingerprint())]);
    assert!(world.is_file_good());
}

#[test]
fn a_token_in_an_answer_that_is_not_gitlabs_replaces_nothing() {
    let world = World::new();
    let machine = world.machine();
    let keeper = keeper(&machine);
    pass(&keeper, AccessWish::Keep);
    world.0.borrow_mut().fault = Fault::Foreign;
    assert!(matches!(pass(&keeper, AccessWish::Rotate).error, Some(AccessError::Unproven(_))));
    assert!(world.is_file_good());
    world.advance(11 * MINUTE);
    assert_eq!(pass(&keeper, AccessWish::Keep).events, [AccessEvent::NotExecuted]);
    assert!(world.is_file_good() && pass(&keeper, AccessWish::Rotate).error.is_none() && world.is_file_good());
}

#[test]
fn a_full_disk_spends_no_token_and_a_broken_journal_loses_none() {
    let world = World::new();
    let machine = world.machine();
    let keeper = keeper(&machine);
    pass(&keeper, AccessWish::Keep);
    world.0.borrow_mut().is_full = true;
    assert!(pass(&keeper, AccessWish::Rotate).error.is_some());
    assert_eq!(world.0.borrow().posts, 0);
    world.0.borrow_mut().is_full = false;
    world.0.borrow_mut().is_journal_broken = true;
    assert!(pass(&keeper, AccessWish::Rotate).error.is_none());
    assert!(world.is_file_good());
    assert_eq!(keeper.copies.under_way(), 0);
}

#[test]
fn a_limit_of_the_instance_is_named_and_nothing_is_tried_but_once_a_day() {
    let world = World::new();
    let machine = world.machine();
    let keeper = keeper(&machine);
    pass(&keeper, AccessWish::Keep);
    world.0.borrow_mut().fault = Fault::Declined;
    world.advance(61 * DAY);
    let declined = pass(&keeper, AccessWish::Keep);
    assert_eq!(declined.record.declined.as_deref(), Some("400 expires_at"));
    assert_eq!(declined.wait, ASK_INTERVAL);
    assert!(!declined.is_pending && world.is_file_good());
    // The limit was raised.
    assert!(pass(&keeper, AccessWish::Rotate).record.declined.is_none());
}

#[test]
fn a_process_of_another_state_directory_rotates_no_token_that_was_sent_before() {
    let world = World::new();
    let (ours, other) = (world.machine(), world.machine());
    let (first, second) = (keeper(&ours), keeper(&other));
    pass(&first, AccessWish::Keep);
    world.0.borrow_mut().fault = Fault::Cut;
    pass(&first, AccessWish::Rotate);
    killed(first);
    // A replica does not know of the rotation yet.
    world.0.borrow_mut().lag = 9 * MINUTE;
    let settling = pass(&second, AccessWish::Rotate);
    assert!(matches!(settling.error, Some(AccessError::Uncertain { .. })), "{:?}", settling.error);
    assert_eq!(world.0.borrow().posts, 1);
}

#[test]
fn a_new_token_ends_on_the_day_that_the_settings_ask_for() {
    let world = World::new();
    let machine = world.machine();
    let keeper = keeper(&machine);
    pass(&keeper, AccessWish::Rotate);
    let expires_at = pass(&keeper, AccessWish::Keep).record.facts.unwrap().expires_at.unwrap();
    assert_eq!(expires_at, world.now().plus(90 * DAY).start_of_day());
    assert_eq!(rules::LIFE, 90 * DAY);
}

/// A keeper that has asked about its token once.
fn known() -> (World, Machine, Keeper) {
    let world = World::new();
    let machine = world.machine();
    let keeper = keeper(&machine);
    assert!(pass(&keeper, AccessWish::Keep).error.is_none());
    (world, machine, keeper)
}

fn rotate_with(world: &World, keeper: &Keeper, fault: Fault) -> AccessPass {
    world.0.borrow_mut().fault = fault;
    pass(keeper, AccessWish::Rotate)
}

#[test]
fn a_new_token_that_the_state_directory_cannot_take_is_put_into_the_file() {
    let (world, machine, first) = known();
    let rotated = rotate_with(&world, &first, Fault::StateBroken);
    assert!(matches!(rotated.error, Some(AccessError::Unfinished { is_held: true, .. })), "{:?}", rotated.error);
    assert!(world.is_file_good());
    // The loss is over: a stop has nothing to wait for, and the rotation is reported once.
    assert!(!rotated.is_unsaved && !rotated.is_pending && first.copies.exposed() == 0);
    assert!(matches!(rotated.events[..], [AccessEvent::Rotated(_)]), "{:?}", rotated.events);
    assert!(pass(&first, AccessWish::Keep).events.is_empty());
    killed(first);
    world.0.borrow_mut().is_state_broken = false;
    let found = pass(&keeper(&machine), AccessWish::Rotate);
    assert!(found.error.is_none() && world.is_file_good(), "{:?}", found.error);
    assert_eq!(world.0.borrow().reuses, 0);
}

#[test]
fn a_state_directory_that_is_back_learns_of_a_rotation_once() {
    let (world, _, keeper) = known();
    rotate_with(&world, &keeper, Fault::StateBroken);
    world.0.borrow_mut().is_state_broken = false;
    let healed = pass(&keeper, AccessWish::Keep);
    assert!(healed.error.is_none() && healed.events.is_empty(), "{healed:?}");
    assert_eq!((healed.record.rotations, healed.record.token), (1, world.file_token()));
}

#[test]
fn a_new_token_in_memory_alone_is_said_to_be_and_stored_within_seconds() {
    let (world, _, keeper) = known();
    let rotated = rotate_with(&world, &keeper, Fault::AllBroken);
    assert!(rotated.is_unsaved && !rotated.is_pending && rotated.wait == rules::STORE_PAUSE, "{rotated:?}");
    for _ in 0..5 {
        let still = pass(&keeper, AccessWish::Keep);
        assert!(still.is_unsaved && still.events.is_empty() && still.wait == rules::STORE_PAUSE, "{still:?}");
    }
    {
        let mut inner = world.0.borrow_mut();
        (inner.is_full, inner.is_state_broken) = (false, false);
    }
    let stored = pass(&keeper, AccessWish::Keep);
    assert!(stored.error.is_none() && !stored.is_unsaved && world.is_file_good(), "{stored:?}");
    assert!(matches!(stored.events[..], [AccessEvent::Rotated(_)]));
}

#[test]
fn an_answer_with_the_old_token_in_it_rotates_nothing() {
    let (world, _, keeper) = known();
    assert!(matches!(rotate_with(&world, &keeper, Fault::Echo).error, Some(AccessError::Unproven(_))));
    world.advance(11 * MINUTE);
    let settled = pass(&keeper, AccessWish::Rotate);
    assert_eq!(settled.events[0], AccessEvent::NotExecuted);
    assert!(settled.error.is_none() && world.is_file_good(), "{settled:?}");
}

#[test]
fn an_unproven_token_is_lost_once_the_old_one_is_dead_too_and_a_persons_is_taken_at_once() {
    for is_lost in [false, true] {
        let (world, _, keeper) = known();
        let old = world.file_token().unwrap();
        rotate_with(&world, &keeper, Fault::Foreign);
        world.0.borrow_mut().revoke(old.digest());
        world.advance(MINUTE);
        assert!(matches!(pass(&keeper, AccessWish::Keep).error, Some(AccessError::Unproven(_))));
        if is_lost {
            world.advance(11 * MINUTE);
            let lost = pass(&keeper, AccessWish::Keep);
            assert!(matches!(lost.error, Some(AccessError::Lost)) && lost.events == [AccessEvent::Lost], "{lost:?}");
            assert!(pass(&keeper, AccessWish::Keep).events.is_empty());
        }
        let new = world.person_puts_a_new_token();
        let taken = pass(&keeper, AccessWish::Keep);
        assert_eq!(taken.events, [AccessEvent::Found(new.fingerprint())]);
        assert!(taken.error.is_none() && !taken.is_pending, "{:?}", taken.error);
        assert!(pass(&keeper, AccessWish::Rotate).error.is_none() && world.is_file_good());
    }
}

#[test]
fn a_clock_that_was_ahead_at_the_rotation_does_not_hold_up_its_settlement() {
    let (world, _, keeper) = known();
    world.0.borrow_mut().ahead = 300 * DAY;
    rotate_with(&world, &keeper, Fault::Failed);
    assert!(matches!(pass(&keeper, AccessWish::Rotate).error, Some(AccessError::Uncertain { .. })));
    world.advance(10 * MINUTE);
    let settled = pass(&keeper, AccessWish::Rotate);
    assert!(settled.error.is_none() && settled.events.contains(&AccessEvent::NotExecuted), "{settled:?}");
}

#[test]
fn one_answer_of_a_clock_that_is_ahead_settles_nothing() {
    let (world, _, keeper) = known();
    rotate_with(&world, &keeper, Fault::Cut);
    // A replica that does not know of the rotation, behind a gateway whose clock is wrong for one answer.
    world.advance(MINUTE);
    world.0.borrow_mut().lag = 5 * MINUTE;
    world.0.borrow_mut().ahead = DAY;
    let uncertain = pass(&keeper, AccessWish::Rotate);
    assert!(matches!(uncertain.error, Some(AccessError::Uncertain { .. })), "{:?}", uncertain.error);
    assert_eq!((world.0.borrow().posts, world.0.borrow().reuses), (1, 0));
}

#[test]
fn a_lost_token_that_the_server_accepts_long_after_is_not_lost() {
    let (world, _, keeper) = known();
    rotate_with(&world, &keeper, Fault::Failed);
    world.0.borrow_mut().is_refusing = true;
    for _ in 0..3 {
        pass(&keeper, AccessWish::Keep);
        world.advance(MINUTE);
    }
    assert!(matches!(pass(&keeper, AccessWish::Keep).error, Some(AccessError::Lost)));
    world.0.borrow_mut().is_refusing = false;
    assert!(matches!(pass(&keeper, AccessWish::Rotate).error, Some(AccessError::Uncertain { .. })));
    world.advance(11 * MINUTE);
    let healed = pass(&keeper, AccessWish::Rotate);
    assert_eq!(healed.events[0], AccessEvent::NotExecuted);
    assert!(healed.error.is_none() && healed.record.lost_at.is_none() && world.is_file_good(), "{healed:?}");
    assert_eq!((world.0.borrow().posts, world.0.borrow().reuses), (2, 0));
}

#[test]
fn a_rotated_token_that_a_restored_gitlab_accepts_again_is_taken() {
    let (world, _, keeper) = known();
    let old = world.file_token().unwrap();
    pass(&keeper, AccessWish::Rotate);
    world.advance(DAY);
    world.0.borrow_mut().forget_rotation(old.digest());
    assert!(pass(&keeper, AccessWish::Keep).error.is_some());
    world.0.borrow_mut().file = Some(old.expose().to_owned());
    let taken = pass(&keeper, AccessWish::Keep);
    assert!(taken.error.is_none() && taken.events[0] == AccessEvent::Found(old.fingerprint()), "{taken:?}");
    assert!(pass(&keeper, AccessWish::Rotate).error.is_none() && world.is_file_good());
    assert_eq!(world.0.borrow().reuses, 0);
}

#[test]
fn a_refused_rotation_that_only_a_command_asked_for_is_not_remembered() {
    let (world, _, keeper) = known();
    assert!(rotate_with(&world, &keeper, Fault::Declined).error.is_some());
    assert!(pass(&keeper, AccessWish::Keep).record.declined.is_none());
}

#[test]
fn a_replica_that_does_not_know_the_new_token_yet_asks_nothing_of_a_person() {
    let (world, _, keeper) = known();
    world.0.borrow_mut().lag = MINUTE;
    world.advance(2 * MINUTE);
    for _ in 0..2 {
        let done = pass(&keeper, AccessWish::Rotate);
        assert!(matches!(done.error, Some(AccessError::NotKnownYet)), "{:?}", done.error);
        assert!(done.record.refused_at.is_none());
    }
    world.advance(MINUTE);
    assert!(pass(&keeper, AccessWish::Keep).error.is_none());
}

#[test]
fn a_file_without_an_access_token_makes_one_rotation_no_more_than_one_event() {
    let (world, _, keeper) = known();
    let mut running = Running::start(&keeper, AccessWish::Rotate);
    world.allow(Some(0));
    // Up to the request, while which the file is damaged.
    while world.0.borrow().posts == 0 {
        world.allow(Some(1));
        assert!(running.run().is_none());
    }
    world.0.borrow_mut().file = Some("two words".to_owned());
    world.allow(None);
    assert!(running.run().unwrap().error.is_some());
    drop(running);
    for _ in 0..3 {
        assert!(pass(&keeper, AccessWish::Keep).events.is_empty());
    }
    world.0.borrow_mut().file = Some(String::new());
    let done = pass(&keeper, AccessWish::Keep);
    assert!(matches!(done.events[..], [AccessEvent::Rotated(_)]) && world.is_file_good(), "{done:?}");
}

#[test]
fn processes_that_share_the_file_take_each_others_questions_for_their_own() {
    let world = World::new();
    let (ours, other) = (world.machine(), world.machine());
    let (first, second) = (keeper(&ours), keeper(&other));
    for _ in 0..10 {
        pass(&first, AccessWish::Keep);
        // The server notes a use at most once in ten minutes: it shows the question of the other one.
        world.advance(30 * Duration::from_secs(1));
        world.use_is_noted(Duration::from_secs(30));
        let done = pass(&second, AccessWish::Keep);
        assert_eq!(done.record.uses_elsewhere, 0);
        world.advance(DAY - MINUTE);
        world.use_is_noted(Duration::ZERO);
    }
}

#[test]
fn a_rotated_token_that_a_person_puts_back_is_taken_while_an_unproven_answer_is_kept() {
    let (world, _, keeper) = known();
    let first = world.file_token().unwrap();
    rotate_with(&world, &keeper, Fault::Failed);
    let second = world.person_puts_a_new_token();
    pass(&keeper, AccessWish::Keep);
    assert!(matches!(rotate_with(&world, &keeper, Fault::Foreign).error, Some(AccessError::Unproven(_))));
    world.0.borrow_mut().revoke(second.digest());
    world.advance(11 * MINUTE);
    pass(&keeper, AccessWish::Keep);
    world.0.borrow_mut().file = Some(first.expose().to_owned());
    let taken = pass(&keeper, AccessWish::Keep);
    assert!(taken.error.is_none() && taken.events[0] == AccessEvent::Found(first.fingerprint()), "{taken:?}");
    assert!(pass(&keeper, AccessWish::Rotate).error.is_none() && world.is_file_good());
}

#[test]
fn an_odd_answer_is_journaled_as_soon_as_that_is_possible() {
    let (world, machine, first) = known();
    world.0.borrow_mut().is_journal_broken = true;
    let mut running = Running::start(&first, AccessWish::Rotate);
    world.0.borrow_mut().fault = Fault::Odd;
    // The server does not answer questions any more once it has rotated.
    while world.0.borrow().posts == 0 {
        world.allow(Some(1));
        assert!(running.run().is_none());
    }
    world.0.borrow_mut().is_down = true;
    world.allow(None);
    assert!(running.run().unwrap().is_unsaved);
    drop(running);
    assert!(!pass(&first, AccessWish::Keep).is_unsaved);
    killed(first);
    world.0.borrow_mut().is_down = false;
    let settled = pass(&keeper(&machine), AccessWish::Keep);
    assert!(matches!(settled.events[..], [AccessEvent::Rotated(_)]) && world.is_file_good(), "{settled:?}");
}

#[tokio::test]
async fn calls_are_sent_with_a_token_that_counts_again() {
    let (world, _, keeper) = known();
    let old = world.file_token().unwrap();
    pass(&keeper, AccessWish::Rotate);
    let access = keeper.access_token(&old);
    let sent = async || keeper.uses.begin(&keeper.access.url, &access).await.token.clone();
    assert_eq!(Some(sent().await), world.file_token());
    world.advance(DAY);
    world.0.borrow_mut().forget_rotation(old.digest());
    world.0.borrow_mut().file = Some(old.expose().to_owned());
    assert!(pass(&keeper, AccessWish::Keep).error.is_none());
    assert_eq!(sent().await, old);
}
