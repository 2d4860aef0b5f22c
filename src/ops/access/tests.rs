use std::time::Duration;

use super::memory::{DAY, Fault, World, keeper, killed, pass};
use super::{AccessError, AccessEvent, AccessWish};
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
    let declined = pass(&keeper, AccessWish::Rotate);
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
