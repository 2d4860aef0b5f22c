//! Unregistrations: by a command, at a stop, cut off, and beside the daemon.

use super::*;

#[test]
fn a_daemon_that_starts_during_an_unregistration_leaves_the_runner_alone_afterwards() {
    keeps_every_promise(
        Setup { jitter: 3_061_472, ..DUE },
        &[
            (NOW, Enroll(1)),
            (NOW, RegisterAgainPolicy(2)),
            (After(19_789), StartDaemon),
            (NOW, Enroll(3)),
            (NOW, Quit),
            (NOW, Restore(2)),
            (NOW, Unregister(2)),
            (NOW, StartDaemon),
        ],
    );
}

#[test]
fn an_unregistration_does_not_delete_a_runner_whose_token_is_in_an_entry_with_another_id() {
    keeps_every_promise(
        Setup { jitter: 3_005_486, ..DUE },
        &[
            (NOW, StartDaemon),
            (NOW, Backup),
            (NOW, Enroll(0)),
            (NOW, Fault(Reset, Trouble::Gateway(504, Body::Error))),
            (NOW, Unregister(0)),
            (NOW, Enroll(1)),
            (NOW, RestoreConfig),
            (NOW, KillDaemon),
            (NOW, Unregister(1)),
            (NOW, Unregister(2)),
            (NOW, SwapToken(2, 1)),
            (NOW, Unregister(0)),
        ],
    );
}

#[test]
fn an_unregistration_ends_if_another_entry_gets_the_runners_token_while_it_waits() {
    keeps_every_promise(
        Setup { age: 51_840, jitter: 3_016_607, ..DAY },
        &[
            (NOW, DeleteInGitlab(1)),
            (After(25_648), Fault(Reset, Trouble::CutAfter)),
            (NOW, StartDaemon),
            (NOW, SwapToken(3, 0)),
            (NOW, Unregister(2)),
        ],
    );
}

#[test]
fn an_unregistration_whose_journal_stays_is_not_finished_over_a_token_that_is_given_again() {
    keeps_every_promise(
        DAY,
        &[
            (NOW, Enroll(2)),
            (NOW, StartDaemon),
            (NOW, DuplicateEntry(1)),
            (NOW, DiskFault("clear", 5)),
            (NOW, KillDaemon),
            (NOW, Unregister(2)),
            (NOW, StartDaemon),
            (NOW, RegisterForce(1)),
        ],
    );
}

#[test]
fn a_registration_after_an_unregistration_whose_journal_could_not_be_cleared_is_not_repeated() {
    keeps_every_promise(
        Setup { jitter: 2_000_848, ..FOR_EVER },
        &[
            (NOW, Enroll(1)),
            (NOW, StartDaemon),
            (NOW, Fault(DeleteRunner, Trouble::CutAfter)),
            (NOW, Terminate),
            (NOW, Fault(Registration, Trouble::CutAfter)),
            (NOW, StartDaemon),
            (NOW, RegisterAgainPolicy(2)),
            (NOW, DiskFault("clear", 1)),
            (After(600), DeleteEntry(0)),
            (NOW, KillDaemon),
            (NOW, StartDaemon),
        ],
    );
}

#[test]
fn what_was_seen_of_another_runner_in_an_entry_goes_with_an_unregistration_whose_journal_stays() {
    keeps_every_promise(
        Setup { jitter: 30_035_583, ..HALF },
        &[
            (NOW, StartDaemon),
            (After(668), DuplicateEntry(3)),
            (After(776), DeleteEntry(0)),
            (After(60), Terminate),
            (After(2332), Fault(DeleteManager, Trouble::Connect)),
            (After(600), GatewayFor(2000, 201, Body::Empty)),
            (NOW, RotateById(0)),
            (NOW, SwapToken(1, 2)),
            (After(14_635), Terminate),
            (NOW, BlankToken(3)),
            (After(2592), StartDaemon),
            (After(19_791), VerifyDelete(2)),
            (NOW, KillDaemon),
            (NOW, Hangup),
            (After(60), ResetInGitlab(0, false)),
            (NOW, DiskFault("clear", 5)),
            (After(600), DateAhead(3)),
            (NOW, Restore(3)),
            (NOW, Unregister(3)),
            (After(60), CloseRotation(3, false)),
            (After(600), Unregister(0)),
        ],
    );
}

#[test]
fn an_unregistration_that_waits_concerns_no_other_runner_that_the_record_goes_over_to() {
    keeps_every_promise(
        Setup { age: 51_840, jitter: 30_013_664, ..DAY },
        &[(NOW, Fault(Any, Trouble::CutAfter)), (NOW, Rotate(3)), (NOW, Unregister(1)), (NOW, SwapToken(1, 2))],
    );
    keeps_every_promise(
        Setup { age: 51_840, jitter: 30_013_664, ..DAY },
        &[
            (NOW, OldRelease(true)),
            (NOW, Fault(Any, Trouble::CutAfter)),
            (NOW, Rotate(3)),
            (NOW, Unregister(1)),
            (NOW, SwapToken(1, 2)),
            (After(600), DiskFault("record", 1)),
        ],
    );
}

#[test]
fn a_runner_whose_token_another_entry_uses_is_not_unregistered() {
    keeps_every_promise(FOR_EVER, &[(NOW, StartDaemon), (NOW, DuplicateEntry(3)), (NOW, Unregister(2))]);
    keeps_every_promise(DAY, &[(NOW, DuplicateEntry(2)), (NOW, Unregister(3))]);
}

#[test]
fn a_gateways_404_to_a_deletion_leaves_entry_and_runner() {
    let gone = Trouble::Gateway(404, Body::Message);
    let at_stop =
        [(NOW, StartDaemon), (NOW, Enroll(0)), (After(1), Fault(DeleteRunner, gone.clone())), (NOW, Terminate)];
    keeps_every_promise(DAY, &at_stop);
    let manager_at_stop = [
        (NOW, UnregisterPolicy(2)),
        (NOW, StartDaemon),
        (After(60), Fault(DeleteManager, gone.clone())),
        (NOW, Terminate),
    ];
    for (acts, name) in [
        (&[(NOW, Fault(DeleteRunner, gone.clone())), (NOW, Unregister(0))][..], "found"),
        (&[(NOW, Fault(DeleteManager, gone)), (NOW, Unregister(1))], "created"),
        (&manager_at_stop, "created"),
    ] {
        let played = keeps_every_promise(DAY, acts);
        assert!(played.entry_names.iter().any(|entry| entry == name), "{}", played.trace.join("\n"));
    }
}

#[test]
fn an_unregistration_that_failed_deletes_nothing_later() {
    for trouble in [Trouble::CutBefore, Trouble::Gateway(503, Body::Message), Trouble::ServerError] {
        keeps_every_promise(
            DAY,
            &[(NOW, Fault(DeleteRunner, trouble)), (NOW, Unregister(0)), (After(60), StartDaemon)],
        );
    }
}

#[test]
fn a_settled_unregistration_leaves_an_entry_that_a_person_has_given_to_another_runner() {
    keeps_every_promise(
        DAY,
        &[(NOW, DiskFault("answered", 2)), (NOW, Verify(2)), (NOW, Unregister(0)), (NOW, SwapToken(0, 1))],
    );
}

#[test]
fn an_entry_that_gets_a_new_token_during_an_unregistration_is_not_dropped() {
    keeps_every_promise(
        DUE,
        &[
            (NOW, StartDaemon),
            (NOW, ResetInGitlab(3, true)),
            (NOW, ResetInGitlab(3, false)),
            (After(61), KillDaemon),
            (NOW, StartDaemon),
            (Await(19), Unregister(0)),
            (Await(20), ResetInGitlab(0, true)),
        ],
    );
}

#[test]
fn an_unregistration_after_a_restore_asks_the_token_of_the_entry() {
    keeps_every_promise(
        FOR_EVER,
        &[
            (NOW, StartDaemon),
            (NOW, Backup),
            (NOW, Rotate(0)),
            (NOW, Restore(2)),
            (NOW, RestoreConfig),
            (NOW, Unregister(0)),
        ],
    );
}

#[test]
fn a_created_runner_that_an_enrollment_has_taken_over_is_never_deleted_as_a_whole() {
    keeps_every_promise(
        DAY,
        &[
            (NOW, Unregister(1)),
            (NOW, Unregister(1)),
            (NOW, Enroll(1)),
            (NOW, OldRelease(true)),
            (NOW, StartDaemon),
            (NOW, Restore(1)),
            (NOW, SwapToken(1, 0)),
            (After(600), Unregister(1)),
        ],
    );
}

#[test]
fn a_confirmed_unregistration_is_finished_before_its_runner_is_verified_again() {
    keeps_every_promise(
        FOR_EVER,
        &[
            (NOW, StartDaemon),
            (After(1), DiskFault("edit", 1)),
            (NOW, Unregister(1)),
            (After(8000), Verify(0)),
            (NOW, Wait),
        ],
    );
}

#[test]
fn a_verification_does_not_bring_back_a_manager_whose_entry_is_still_to_be_removed() {
    keeps_every_promise(
        DAY,
        &[(NOW, Unregister(0)), (NOW, DiskFault("edit", 2)), (NOW, Verify(0)), (NOW, Unregister(1)), (NOW, Verify(0))],
    );
}

#[test]
fn an_unregistration_that_learns_a_new_token_leaves_the_other_entry_that_has_it() {
    keeps_every_promise(
        TWO_HOURS,
        &[
            (NOW, StartDaemon),
            (NOW, Quit),
            (NOW, SwapToken(2, 1)),
            (NOW, DeleteInGitlab(0)),
            (NOW, ResetInGitlab(0, true)),
            (NOW, Unregister(1)),
        ],
    );
}

#[test]
fn an_enrollment_whose_entry_was_unregistered_unregisters_no_runner_of_another_entry() {
    keeps_every_promise(
        DAY,
        &[
            (NOW, DeleteInGitlab(0)),
            (NOW, StartDaemon),
            (NOW, DeleteInGitlab(3)),
            (NOW, Enroll(1)),
            (After(1), ResetInGitlab(1, false)),
            (NOW, SwapToken(2, 2)),
            (NOW, Unregister(0)),
            (After(60), StartDaemon),
            (After(1), Unregister(1)),
            (NOW, Terminate),
        ],
    );
}

#[test]
fn an_unregistration_does_not_follow_a_token_whose_runner_the_server_does_not_name() {
    keeps_every_promise(
        HALF,
        &[
            (NOW, StartDaemon),
            (NOW, OldRelease(true)),
            (NOW, Register(0)),
            (NOW, Unregister(3)),
            (NOW, SwapToken(0, 1)),
            (After(1), Terminate),
            (NOW, ResetInGitlab(3, true)),
            (NOW, Unregister(2)),
            (After(60), Lag(2)),
        ],
    );
}

#[test]
fn a_verification_that_has_waited_for_an_unregistration_does_not_bring_the_manager_back() {
    keeps_every_promise(
        Setup { jitter: 40_012_896, ..DAY },
        &[
            (NOW, StartDaemon),
            (NOW, Terminate),
            (NOW, Unregister(2)),
            (NOW, DiskFault("forget", 1)),
            (NOW, Fault(Any, Trouble::Slow(2))),
            (NOW, DiskFault("record", 1)),
            (NOW, Unregister(2)),
            (NOW, StartDaemon),
            (After(60), ResetInGitlab(0, true)),
        ],
    );
    keeps_every_promise(
        Setup { jitter: 50_015_805, ..DUE },
        &[
            (NOW, StartDaemon),
            (After(60), Unregister(2)),
            (NOW, Fault(Any, Trouble::Slow(9))),
            (NOW, Share(0)),
            (NOW, Unregister(0)),
            (NOW, Verify(0)),
            (NOW, DiskFault("forget", 1)),
            (After(60), StartDaemon),
        ],
    );
}

#[test]
fn tokens_of_a_runner_whose_deletion_was_refused_went_with_its_record() {
    keeps_every_promise(
        Setup { jitter: 40_034_764, ..FOR_EVER },
        &[
            (NOW, StartDaemon),
            (NOW, DeleteInGitlab(2)),
            (NOW, ResetInGitlab(1, false)),
            (NOW, DiskFault("probe", 2)),
            (NOW, Hangup),
            (NOW, Quit),
            (NOW, RotateById(1)),
            (After(60), StartDaemon),
            (NOW, Unregister(1)),
            (NOW, SwapToken(3, 3)),
            (NOW, Verify(2)),
            (NOW, Restore(3)),
        ],
    );
}

#[test]
fn an_unregistration_that_the_disk_does_not_let_finish_causes_no_stream_of_attempts() {
    keeps_every_promise(
        Setup { jitter: 60_001_595, ..TWO_HOURS },
        &[
            (NOW, StartDaemon),
            (NOW, DiskFault("clear", 1)),
            (NOW, Backup),
            (NOW, DiskFault("forget", 5)),
            (NOW, Unregister(1)),
            (After(7165), RestoreConfig),
            (After(1), StartDaemon),
        ],
    );
}

#[test]
fn a_runner_whose_registration_is_answered_after_a_stop_was_asked_for_is_unregistered() {
    keeps_every_promise(
        Setup { jitter: 60_013_395, ..FOR_EVER },
        &[
            (NOW, StartDaemon),
            (NOW, Fault(Probe, Trouble::Slow(5))),
            (NOW, Enroll(1)),
            (After(1), Fault(Verification, Trouble::SameToken)),
            (Await(6), Terminate),
        ],
    );
}

#[test]
fn a_token_that_no_answer_has_said_to_be_accepted_again_went_with_its_unregistration() {
    keeps_every_promise(
        Setup { jitter: 60_040_031, ..FOR_EVER },
        &[
            (NOW, StartDaemon),
            (NOW, Enroll(2)),
            (After(1), Unregister(2)),
            (NOW, Fault(Verification, Trouble::CutAfter)),
            (NOW, Quit),
            (NOW, StartDaemon),
            (NOW, ResetInGitlab(2, true)),
            (NOW, Enroll(2)),
            (NOW, RegisterAgainPolicy(2)),
            (After(1), Restore(3)),
        ],
    );
}

#[test]
fn a_token_in_an_odd_answer_goes_with_an_unregistration_whose_journal_stays() {
    keeps_every_promise(
        Setup { jitter: 60_047_459, ..FOR_EVER },
        &[
            (NOW, Register(0)),
            (NOW, Unregister(1)),
            (NOW, Fault(Verification, Trouble::CutAfter)),
            (NOW, DiskFault("forget", 5)),
            (NOW, Fault(Registration, Trouble::Odd(Oddity::Status200))),
            (NOW, RegisterForce(0)),
            (NOW, Unregister(1)),
        ],
    );
}

#[test]
fn a_runner_that_was_unregistered_and_whose_token_is_asked_about_for_another_one_is_let_go() {
    keeps_every_promise(
        Setup { jitter: 80_004_110, ..DAY },
        &[
            (NOW, StartDaemon),
            (NOW, Enroll(2)),
            (After(1), Enroll(2)),
            (NOW, RegisterForce(1)),
            (NOW, Fault(Probe, Trouble::Gateway(201, Body::Token))),
            (After(3244), WallJump(-30)),
            (NOW, SwapToken(1, 3)),
            (NOW, Fault(Registration, Trouble::Slow(9))),
            (NOW, Fault(Reset, Trouble::Connect)),
            (NOW, Enroll(1)),
            (NOW, Fault(Registration, Trouble::Gateway(409, Body::Message))),
            (After(1), Fault(Reset, Trouble::Gateway(502, Body::Error))),
            (NOW, Fault(Registration, Trouble::Throttle)),
            (NOW, DeleteInGitlab(3)),
            (NOW, ResetInGitlab(1, true)),
            (NOW, Unregister(0)),
            (After(600), Unregister(3)),
            (NOW, VerifyDelete(3)),
        ],
    );
}

#[test]
fn a_command_unregisters_the_runner_that_was_made_anew_and_whose_entry_still_has_the_former_token() {
    keeps_every_promise(
        Setup { jitter: 100_010_606, ..HALF },
        &[
            (NOW, StartDaemon),
            (NOW, Enroll(1)),
            (After(1), DuplicateEntry(2)),
            (NOW, KillCommands),
            (NOW, Fault(Probe, Trouble::Gateway(401, Body::Empty))),
            (After(1174), RegisterAgainPolicy(2)),
            (NOW, Share(2)),
            (After(1), Terminate),
            (NOW, DeleteInGitlab(3)),
            (NOW, DiskFault("edit", 2)),
            (NOW, StartDaemon),
            (After(55), DeleteEntry(2)),
            (After(10), Fault(Verification, Trouble::Gateway(413, Body::EmptyObject))),
            (NOW, Unregister(2)),
        ],
    );
}

#[test]
fn an_unregistration_that_was_cut_off_removes_an_entry_with_a_dead_token_too() {
    keeps_every_promise(
        Setup { age: 6480, jitter: 70_015_444, ..TWO_HOURS },
        &[
            (NOW, RegisterForce(1)),
            (NOW, ResetInGitlab(3, true)),
            (NOW, RegisterAgainPolicy(2)),
            (NOW, Enroll(1)),
            (After(15_541), DiskFault("answered", 2)),
            (NOW, VerifyDelete(2)),
            (After(60), Unregister(2)),
        ],
    );
}

#[test]
fn one_of_two_entries_goes_although_both_have_got_a_token_that_the_runner_does_not_know() {
    keeps_every_promise(
        Setup { jitter: 110_018_927, ..DAY },
        &[
            (NOW, StartDaemon),
            (NOW, SwapToken(1, 0)),
            (NOW, ResetInGitlab(0, true)),
            (After(1), ResetInGitlab(0, true)),
            (NOW, Restore(2)),
            (NOW, Unregister(0)),
            (NOW, KillDaemon),
            (NOW, ResetInGitlab(1, true)),
        ],
    );
}

#[test]
fn an_unregistration_does_not_go_over_to_a_former_runner_that_a_backup_brings_back() {
    keeps_every_promise(
        Setup { jitter: 93_015_427, ..DUE },
        &[
            (NOW, StartDaemon),
            (NOW, Enroll(0)),
            (NOW, DeleteEntry(0)),
            (NOW, Fault(Reset, Trouble::CutAfter)),
            (After(1), Fault(Registration, Trouble::ServerError)),
            (NOW, Fault(ResetById, Trouble::CutAfter)),
            (NOW, ResetInGitlab(3, false)),
            (NOW, RotateById(1)),
            (NOW, Register(1)),
            (After(17_691), StartDaemon),
            (NOW, Restore(3)),
            (NOW, KillDaemon),
            (NOW, Rotate(1)),
            (NOW, DiskFault("record", 5)),
            (After(600), Lag(30)),
            (NOW, Unregister(1)),
        ],
    );
}

#[test]
fn tokens_of_a_former_runner_went_with_the_record_of_the_one_that_was_made_since() {
    keeps_every_promise(
        Setup { jitter: 93_003_291, ..FOR_EVER },
        &[
            (NOW, StartDaemon),
            (NOW, Enroll(0)),
            (After(1), RegisterAgainPolicy(2)),
            (NOW, DeleteInGitlab(3)),
            (After(601), Terminate),
            (NOW, Restore(2)),
            (NOW, Restore(1)),
        ],
    );
}

#[test]
fn an_unregistration_does_not_go_over_to_another_runner_whose_token_the_daemon_has_reset() {
    keeps_every_promise(
        Setup { jitter: 130_017_301, ..FOR_EVER },
        &[
            (NOW, Fault(DeleteManager, Trouble::CutBefore)),
            (NOW, Register(2)),
            (NOW, StartDaemon),
            (After(600), Fault(Probe, Trouble::CutAfter)),
            (After(600), Fault(Any, Trouble::Slow(20))),
            (NOW, Life(86_400)),
            (NOW, Unregister(3)),
            (After(27_555), RotateById(0)),
            (After(60), Enroll(1)),
            (NOW, DateAhead(3)),
            (After(3404), Fault(Registration, Trouble::Gateway(501, Body::Message))),
            (After(21_738), Verify(2)),
            (After(600), DiskFault("begin", 2)),
            (After(600), OldRelease(true)),
            (NOW, DiskFault("edit", 2)),
            (NOW, Enroll(0)),
            (NOW, DiskFault("begin", 2)),
            (After(60), Unregister(1)),
            (NOW, Fault(Any, Trouble::Connect)),
            (After(826), Fault(Reset, Trouble::CutBefore)),
            (Await(7), Hangup),
            (NOW, SwapToken(2, 0)),
            (NOW, RegisterAgainPolicy(2)),
            (NOW, Reboot),
            (NOW, Unregister(2)),
            (After(3615), ResetInGitlab(2, true)),
            (NOW, Unregister(2)),
            (After(7466), DateAhead(90_000)),
            (After(15_066), StartDaemon),
            (NOW, Restore(2)),
            (Await(4), Wait),
            (Await(11), Wait),
            (Await(10), Unregister(0)),
            (NOW, RegisterAgainPolicy(1)),
        ],
    );
}

#[test]
fn a_reload_finishes_an_unregistration_that_was_cut_off_and_registers_again() {
    keeps_every_promise(
        Setup { jitter: 140_004_533, ..FOR_EVER },
        &[
            (NOW, Unregister(1)),
            (NOW, RegisterAgainPolicy(2)),
            (NOW, Fault(DeleteRunner, Trouble::Slow(2))),
            (NOW, StartDaemon),
            (NOW, Enroll(3)),
            (After(60), Restore(1)),
            (After(600), Register(2)),
            (After(3328), Unregister(1)),
            (Await(16), KillCommands),
            (NOW, Hangup),
        ],
    );
}

#[test]
fn an_enrollment_whose_entry_was_removed_beside_that_of_the_runner_itself_has_left_it() {
    keeps_every_promise(
        Setup { age: 51_840, jitter: 140_007_906, ..DAY },
        &[
            (NOW, Enroll(1)),
            (NOW, Unregister(2)),
            (NOW, StartDaemon),
            (NOW, SwapToken(1, 0)),
            (After(1), Fault(Reset, Trouble::Slow(2))),
            (NOW, Terminate),
            (NOW, StartDaemon),
            (NOW, Unregister(1)),
            (NOW, Terminate),
        ],
    );
}
