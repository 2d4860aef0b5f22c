//! Entries that got another runner's token, or lost their token or id.

use super::*;

#[test]
fn a_runner_whose_former_token_is_in_the_entry_of_another_one_gets_its_own_back() {
    keeps_every_promise(
        Setup { age: 51_840, jitter: 2603, ..DAY },
        &[
            (NOW, StartDaemon),
            (NOW, KillDaemon),
            (NOW, SwapToken(0, 1)),
            (NOW, Backup),
            (NOW, Rotate(1)),
            (NOW, RestoreConfig),
        ],
    );
    keeps_every_promise(
        Setup { jitter: 7837, ..DUE },
        &[
            (NOW, StartDaemon),
            (NOW, Fault(Any, Trouble::GatewayAfter(500, Body::Empty))),
            (NOW, SwapToken(0, 1)),
            (NOW, KillDaemon),
            (NOW, Restore(3)),
            (After(60), Backup),
            (After(600), StartDaemon),
            (After(600), Terminate),
            (NOW, RestoreConfig),
        ],
    );
}

#[test]
fn a_token_that_was_verified_in_the_entry_of_another_runner_comes_back_into_its_own() {
    keeps_every_promise(
        Setup { jitter: 402_505, ..DAY },
        &[
            (NOW, Backup),
            (NOW, Rotate(0)),
            (NOW, ResetInGitlab(3, false)),
            (NOW, SwapToken(1, 0)),
            (NOW, Verify(1)),
            (NOW, RestoreConfig),
        ],
    );
    keeps_every_promise(
        Setup { jitter: 402_505, ..DAY },
        &[
            (NOW, Backup),
            (NOW, Verify(1)),
            (NOW, Rotate(0)),
            (NOW, ResetInGitlab(3, false)),
            (NOW, SwapToken(1, 0)),
            (NOW, Verify(1)),
            (NOW, RestoreConfig),
        ],
    );
}

#[test]
fn an_entry_that_is_another_runners_by_its_token_gets_no_second_one_of_its_name() {
    keeps_every_promise(
        Setup { jitter: 3_016_927, ..TWO_HOURS },
        &[
            (NOW, StartDaemon),
            (NOW, Enroll(0)),
            (After(1), SwapToken(2, 0)),
            (NOW, RemoveId(2)),
            (NOW, KillDaemon),
            (NOW, RegisterAgainPolicy(2)),
            (After(19_516), Lag(2)),
        ],
    );
}

#[test]
fn an_enrollment_whose_entry_got_another_runners_token_never_deletes_that_runner() {
    keeps_every_promise(
        Setup { jitter: 2_003_227, ..DUE },
        &[
            (NOW, Unregister(3)),
            (NOW, StartDaemon),
            (NOW, Register(2)),
            (NOW, Enroll(1)),
            (NOW, Hangup),
            (NOW, SwapToken(2, 0)),
            (After(1), Terminate),
            (NOW, StartDaemon),
            (NOW, Terminate),
        ],
    );
}

#[test]
fn a_token_in_an_entry_without_an_id_belongs_to_no_runner_before_an_answer_names_one() {
    keeps_every_promise(
        Setup { jitter: 5_003_567, ..FOR_EVER },
        &[
            (NOW, Backup),
            (NOW, RemoveId(0)),
            (NOW, ResetInGitlab(3, true)),
            (NOW, Fault(Verification, Trouble::CutAfter)),
            (NOW, Verify(2)),
            (NOW, RestoreConfig),
        ],
    );
}

#[test]
fn an_entry_that_got_two_tokens_from_an_old_server_stays_that_of_its_record() {
    keeps_every_promise(
        FOR_EVER,
        &[
            (NOW, StartDaemon),
            (NOW, OldRelease(true)),
            (NOW, ResetInGitlab(0, true)),
            (After(600), KillDaemon),
            (NOW, ResetInGitlab(0, true)),
            (NOW, Restore(3)),
        ],
    );
}

#[test]
fn a_given_token_in_the_entry_of_another_enrollment_does_not_take_its_runner() {
    keeps_every_promise(
        Setup { jitter: 20_023_010, ..DUE },
        &[(NOW, RegisterForce(1)), (NOW, Register(0)), (NOW, Enroll(2)), (NOW, Enroll(0)), (NOW, SwapToken(3, 2))],
    );
    keeps_every_promise(
        Setup { jitter: 20_010_651, ..DAY },
        &[
            (NOW, DiskFault("answered", 5)),
            (NOW, Unregister(0)),
            (NOW, Register(1)),
            (NOW, Enroll(2)),
            (NOW, Fault(Verification, Trouble::Gateway(409, Body::Message))),
            (NOW, DeleteInGitlab(3)),
            (NOW, SwapToken(2, 0)),
            (NOW, Enroll(1)),
        ],
    );
}

#[test]
fn a_token_that_was_in_the_entry_of_another_runner_alone_is_asked_about_before_its_own_one_is_registered_again() {
    keeps_every_promise(
        Setup { age: 3600, jitter: 20_046_268, ..TWO_HOURS },
        &[
            (NOW, StartDaemon),
            (NOW, Enroll(3)),
            (After(60), Down(100)),
            (After(600), Enroll(0)),
            (After(1), Wait),
            (After(1), RegisterAgainPolicy(1)),
            (After(60), RegisterAgainPolicy(2)),
            (After(1), DeleteInGitlab(0)),
            (NOW, Restore(2)),
            (NOW, SwapToken(3, 3)),
            (NOW, KillDaemon),
            (NOW, DeleteEntry(2)),
            (NOW, DiskFault("answered", 2)),
            (After(4853), CloseRotation(1, true)),
            (NOW, ResetInGitlab(3, true)),
            (NOW, DateAhead(34_560_000)),
            (NOW, DiskFault("edit", 2)),
            (NOW, StartDaemon),
            (Await(2), DeleteEntry(2)),
        ],
    );
}

#[test]
fn an_enrollment_whose_entry_has_another_name_and_lost_its_token_is_registered_anew_in_that_entry() {
    keeps_every_promise(
        Setup { jitter: 20_046_407, ..FOR_EVER },
        &[
            (NOW, StartDaemon),
            (NOW, RotateById(2)),
            (NOW, Life(21_600)),
            (NOW, Enroll(0)),
            (NOW, Enroll(3)),
            (After(1), Unregister(1)),
            (After(1), DiskFault("begin", 2)),
            (After(60), Fault(ResetById, Trouble::Gateway(429, Body::Html))),
            (NOW, StartDaemon),
            (After(60), Unregister(0)),
            (After(600), Terminate),
            (After(2662), Terminate),
            (NOW, GatewayFor(10, 405, Body::Html)),
            (NOW, KillCommands),
            (After(600), Verify(2)),
            (NOW, SwapToken(1, 1)),
            (After(6459), SwapToken(2, 3)),
            (After(600), Unenroll(2)),
            (After(600), Fault(ResetById, Trouble::Gateway(407, Body::Token))),
            (After(600), Fault(Verification, Trouble::CutBefore)),
            (NOW, StartDaemon),
            (After(3493), Fault(ResetById, Trouble::SameToken)),
            (After(16_618), Enroll(2)),
            (After(3577), KillDaemon),
            (After(12_101), Hangup),
            (NOW, BlankToken(0)),
        ],
    );
}

#[test]
fn a_runner_whose_token_a_person_has_put_into_an_entry_is_not_deleted_at_a_server_that_names_no_ids() {
    keeps_every_promise(
        DAY,
        &[
            (NOW, StartDaemon),
            (NOW, Enroll(1)),
            (After(600), Restore(3)),
            (After(3003), OldRelease(true)),
            (NOW, SwapToken(2, 0)),
            (After(1), Terminate),
        ],
    );
}

#[test]
fn a_runner_whose_entry_had_another_token_without_an_id_for_a_while_finds_that_token_again() {
    keeps_every_promise(
        Setup { jitter: 30_000_068, ..DAY },
        &[
            (NOW, RegisterForce(1)),
            (NOW, DuplicateEntry(1)),
            (NOW, Backup),
            (NOW, Unregister(0)),
            (NOW, DeleteEntry(0)),
            (NOW, DeleteEntry(1)),
            (NOW, RemoveId(1)),
            (NOW, ResetInGitlab(2, true)),
            (NOW, Fault(Probe, Trouble::Throttle)),
            (NOW, DeleteInGitlab(2)),
            (After(24_067), ResetInGitlab(3, true)),
            (NOW, ResetInGitlab(3, false)),
            (NOW, StartDaemon),
            (NOW, RestoreConfig),
            (NOW, Restore(3)),
            (After(19_530), RemoveId(3)),
            (After(19_798), DiskFault("begin", 2)),
        ],
    );
}

#[test]
fn a_given_token_in_the_entry_of_a_found_runner_does_not_take_it() {
    keeps_every_promise(
        Setup { jitter: 30_023_348, ..TWO_HOURS },
        &[
            (NOW, StartDaemon),
            (After(9533), Fault(ResetById, Trouble::GatewayAfter(503, Body::Html))),
            (NOW, Enroll(2)),
            (NOW, SwapToken(0, 2)),
            (After(60), Backup),
            (NOW, Terminate),
        ],
    );
    keeps_every_promise(
        Setup { jitter: 20_018_056, ..FOR_EVER },
        &[
            (NOW, StartDaemon),
            (NOW, SwapToken(1, 0)),
            (NOW, GatewayFor(2000, 403, Body::Empty)),
            (NOW, Unregister(1)),
            (NOW, SwapToken(1, 2)),
            (NOW, Enroll(2)),
            (After(1), ResetInGitlab(0, true)),
            (NOW, Restore(2)),
        ],
    );
}

#[test]
fn another_runners_token_in_an_entry_takes_nothing_from_its_runner() {
    keeps_every_promise(TWO_HOURS, &[(NOW, StartDaemon), (NOW, Quit), (NOW, SwapToken(3, 2))]);
}

#[test]
fn two_tokens_that_an_old_server_accepts_for_one_entry_cause_no_stream_of_requests() {
    keeps_every_promise(
        TWO_HOURS,
        &[(NOW, OldRelease(true)), (NOW, StartDaemon), (After(60), SwapToken(1, 0)), (After(6900), Wait)],
    );
}

#[test]
fn a_copy_of_config_toml_from_many_rotations_ago_gets_the_present_token() {
    keeps_every_promise(TWO_HOURS, &[(NOW, Backup), (NOW, StartDaemon), (After(120_000), RestoreConfig)]);
}

#[test]
fn an_entry_that_claims_the_id_of_a_former_claim_is_not_the_runner_that_the_server_has_named_since() {
    keeps_every_promise(
        HALF,
        &[
            (NOW, Backup),
            (NOW, DeleteInGitlab(1)),
            (NOW, DiskFault("clear", 1)),
            (NOW, SwapToken(3, 3)),
            (NOW, StartDaemon),
            (NOW, Rotate(1)),
            (NOW, RestoreConfig),
            (NOW, Unregister(1)),
        ],
    );
}

#[test]
fn an_entry_without_an_id_whose_id_an_old_server_does_not_name_is_followed_before_a_second_registration() {
    keeps_every_promise(
        Setup { life: 7200, age: 4320, ..DAY },
        &[
            (NOW, Life(21_600)),
            (After(23_933), StartDaemon),
            (NOW, Enroll(3)),
            (After(9906), RemoveId(2)),
            (NOW, Unregister(0)),
            (NOW, Enroll(0)),
            (NOW, Fault(DeleteManager, Trouble::GatewayAfter(502, Body::EmptyObject))),
            (After(1), Quit),
            (NOW, OldRelease(true)),
            (After(15_763), Unenroll(1)),
            (NOW, ResetInGitlab(3, true)),
            (NOW, StartDaemon),
        ],
    );
}

#[test]
fn a_given_runner_that_an_enrollment_has_taken_an_entry_over_with_is_never_deleted_as_a_whole() {
    keeps_every_promise(
        Setup { life: 86_400, age: 51_840, ..DAY },
        &[
            (NOW, StartDaemon),
            (NOW, Fault(Verification, Trouble::Gateway(501, Body::Error))),
            (NOW, Enroll(2)),
            (NOW, SwapToken(2, 2)),
            (After(1), Unregister(2)),
        ],
    );
}

#[test]
fn another_runners_dead_token_in_its_entry_leaves_an_enrollment_the_runner_that_a_command_has_made() {
    keeps_every_promise(
        Setup { life: 86_400, age: 51_840, ..DAY },
        &[
            (NOW, Register(2)),
            (After(48_436), Register(1)),
            (NOW, SwapToken(3, 2)),
            (NOW, Enroll(1)),
            (After(38_572), StartDaemon),
        ],
    );
}

#[test]
fn a_command_registers_nothing_beside_a_runner_whose_entry_has_just_lost_its_token() {
    keeps_every_promise(
        Setup { jitter: 201_056, ..DUE },
        &[
            (NOW, Unregister(1)),
            (NOW, Unregister(3)),
            (NOW, Register(1)),
            (NOW, Enroll(0)),
            (NOW, DiskFault("begin", 2)),
            (NOW, Fault(Registration, Trouble::Throttle)),
            (NOW, StartDaemon),
            (Await(10), VerifyDelete(1)),
            (After(60), Fault(DeleteManager, Trouble::Gateway(200, Body::Error))),
            (Await(22), Register(0)),
            (NOW, BlankToken(3)),
        ],
    );
}

#[test]
fn an_enrollment_with_a_given_token_takes_no_other_runner_whose_token_is_in_its_entry() {
    keeps_every_promise(
        Setup { life: 86_400, age: 51_840, ..DAY },
        &[(NOW, Register(1)), (NOW, Register(2)), (NOW, Enroll(2)), (NOW, SwapToken(3, 3)), (NOW, Enroll(1))],
    );
}

#[test]
fn a_runner_that_is_registered_anew_completes_an_entry_whose_token_was_blanked() {
    keeps_every_promise(
        Setup { age: 77_760, ..DAY },
        &[
            (NOW, DeleteEntry(3)),
            (After(1200), RegisterAgainPolicy(2)),
            (After(600), Enroll(0)),
            (NOW, StartDaemon),
            (NOW, BlankToken(1)),
            (NOW, Restore(2)),
        ],
    );
}

#[test]
fn a_copy_of_an_entry_with_another_runners_token_does_not_make_the_enrollment_that_runner() {
    keeps_every_promise(
        DAY,
        &[
            (NOW, StartDaemon),
            (NOW, Enroll(0)),
            (After(1), OldRelease(false)),
            (NOW, Restore(1)),
            (NOW, Enroll(1)),
            (After(1), DuplicateEntry(2)),
            (NOW, Unregister(0)),
            (NOW, SwapToken(3, 3)),
            (After(60), Verify(3)),
            (NOW, Terminate),
        ],
    );
}

#[test]
fn an_enrollment_whose_entry_lost_its_id_and_got_a_new_token_goes_on_with_it_at_an_old_server() {
    keeps_every_promise(
        DAY,
        &[
            (NOW, RegisterAgainPolicy(2)),
            (NOW, Enroll(0)),
            (NOW, StartDaemon),
            (NOW, DeleteInGitlab(2)),
            (NOW, RemoveId(2)),
            (NOW, OldRelease(true)),
            (NOW, ResetInGitlab(2, true)),
            (After(1), StartDaemon),
        ],
    );
}

#[test]
fn a_reset_that_was_not_understood_waits_for_a_verification_after_its_record_has_moved_too() {
    keeps_every_promise(
        Setup { age: 3600, jitter: 40_040_439, ..TWO_HOURS },
        &[
            (NOW, Reboot),
            (NOW, RegisterForce(1)),
            (After(21_952), Fault(DeleteRunner, Trouble::Slow(2))),
            (After(600), Fault(Registration, Trouble::Gateway(413, Body::Html))),
            (NOW, Fault(Verification, Trouble::ServerError)),
            (Await(11), GatewayFor(2000, 404, Body::EmptyObject)),
            (Await(4), Wait),
            (Await(19), UnregisterPolicy(0)),
            (NOW, Enroll(1)),
            (After(1), Enroll(1)),
        ],
    );
}

#[test]
fn a_runner_that_had_the_entry_of_an_enrollment_for_a_while_is_not_unregistered_for_it() {
    keeps_every_promise(
        Setup { jitter: 40_020_060, ..DAY },
        &[
            (NOW, Enroll(3)),
            (NOW, StartDaemon),
            (NOW, SwapToken(2, 2)),
            (After(60), Unregister(3)),
            (Await(23), DeleteEntry(3)),
            (NOW, Unregister(1)),
            (After(60), Terminate),
        ],
    );
}

#[test]
fn a_claimed_id_beside_a_token_of_which_no_answer_has_named_the_runner_is_not_recovered() {
    keeps_every_promise(
        Setup { jitter: 40_032_230, ..DUE },
        &[
            (NOW, StartDaemon),
            (NOW, DeleteInGitlab(3)),
            (NOW, OldRelease(true)),
            (NOW, Enroll(0)),
            (After(1), ResetInGitlab(3, true)),
            (After(60), DateAhead(-7200)),
            (NOW, AccessToken(true)),
            (After(1), Quit),
            (NOW, Fault(Any, Trouble::CutAfter)),
            (NOW, Rotate(1)),
        ],
    );
    keeps_every_promise(
        Setup { jitter: 40_032_230, ..DUE },
        &[
            (NOW, StartDaemon),
            (NOW, DeleteInGitlab(3)),
            (NOW, OldRelease(true)),
            (NOW, Enroll(0)),
            (After(1), ResetInGitlab(3, true)),
            (After(60), DateAhead(-7200)),
            (After(1), AccessToken(true)),
            (NOW, Restore(1)),
            (After(600), KillDaemon),
            (NOW, Fault(Any, Trouble::CutAfter)),
            (NOW, Rotate(1)),
        ],
    );
}

#[test]
fn an_enrollment_is_registered_again_beside_a_runner_that_had_its_entry_for_a_while() {
    keeps_every_promise(
        Setup { age: 6480, jitter: 60_018_767, ..TWO_HOURS },
        &[
            (NOW, StartDaemon),
            (NOW, Enroll(0)),
            (After(1), ResetInGitlab(1, true)),
            (NOW, Restore(2)),
            (NOW, Enroll(1)),
            (NOW, Unregister(0)),
            (After(600), Unregister(3)),
            (NOW, SwapToken(1, 3)),
            (After(3277), RegisterAgainPolicy(2)),
            (NOW, BlankToken(3)),
            (After(60), Terminate),
        ],
    );
}

#[test]
fn a_runner_that_goes_on_with_its_former_token_in_the_entry_of_another_one_does_not_get_that_ones_name() {
    keeps_every_promise(
        Setup { jitter: 60_023_059, ..DUE },
        &[
            (NOW, StartDaemon),
            (NOW, Fault(Registration, Trouble::SameToken)),
            (NOW, KillDaemon),
            (NOW, Register(1)),
            (NOW, SwapToken(2, 0)),
            (NOW, Life(7200)),
            (NOW, RotateById(3)),
            (After(28_110), StartDaemon),
            (NOW, Unregister(3)),
            (NOW, Down(2000)),
            (NOW, Enroll(1)),
        ],
    );
}

#[test]
fn a_registration_goes_over_an_entry_of_its_name_without_an_id_whose_token_is_dead() {
    keeps_every_promise(
        Setup { jitter: 80_027_881, ..DAY },
        &[
            (NOW, Unregister(2)),
            (NOW, RegisterAgainPolicy(2)),
            (NOW, StartDaemon),
            (NOW, Enroll(0)),
            (After(1), Wait),
            (NOW, KillDaemon),
            (NOW, ResetInGitlab(2, true)),
            (NOW, RemoveId(1)),
            (NOW, Restore(2)),
        ],
    );
}

#[test]
fn an_enrollment_whose_entry_gets_another_runners_token_while_it_takes_its_runner_over_is_served() {
    keeps_every_promise(
        Setup { age: 51_840, jitter: 90_013_019, ..DAY },
        &[
            (NOW, StartDaemon),
            (NOW, Life(7200)),
            (NOW, RegisterForce(1)),
            (NOW, RegisterAgainPolicy(2)),
            (After(1256), Verify(2)),
            (NOW, Enroll(1)),
            (NOW, SwapToken(2, 0)),
        ],
    );
}

#[test]
fn a_runner_that_was_registered_anew_is_none_of_its_enrollment_in_another_runners_entry() {
    keeps_every_promise(
        Setup { jitter: 90_020_524, ..DUE },
        &[
            (NOW, Register(0)),
            (NOW, StartDaemon),
            (NOW, DeleteInGitlab(1)),
            (NOW, ResetInGitlab(2, false)),
            (NOW, RegisterAgainPolicy(2)),
            (NOW, Enroll(0)),
            (After(600), Wait),
            (NOW, SwapToken(0, 2)),
            (NOW, Restore(1)),
            (After(1), ResetInGitlab(0, true)),
        ],
    );
}

#[test]
fn a_token_in_the_entry_of_another_runner_expires_when_the_server_says() {
    keeps_every_promise(
        Setup { jitter: 93_005_183, ..HALF },
        &[
            (NOW, Enroll(2)),
            (NOW, Unregister(1)),
            (NOW, StartDaemon),
            (After(1425), Wait),
            (NOW, Unregister(0)),
            (After(9166), OldRelease(false)),
            (After(28_016), SwapToken(1, 0)),
            (Await(13), CloseRotation(3, true)),
            (NOW, Quit),
            (After(19_712), Fault(ResetById, Trouble::SameToken)),
            (After(3187), Hangup),
            (After(14_076), Fault(Any, Trouble::Connect)),
            (NOW, StartDaemon),
            (After(27), GatewayFor(100, 404, Body::Empty)),
            (After(60), Quit),
        ],
    );
}

#[test]
fn an_enrollment_gets_the_entry_of_its_name_back_that_has_neither_an_id_nor_a_good_token() {
    keeps_every_promise(
        Setup { age: 4320, jitter: 140_021_793, ..TWO_HOURS },
        &[
            (NOW, StartDaemon),
            (NOW, Enroll(1)),
            (NOW, RegisterForce(0)),
            (NOW, Restore(2)),
            (After(19_584), Enroll(2)),
            (NOW, Terminate),
            (NOW, StartDaemon),
            (NOW, KillDaemon),
            (NOW, RemoveId(3)),
            (NOW, ResetInGitlab(3, true)),
            (NOW, RegisterAgainPolicy(2)),
            (After(28_476), AccessToken(true)),
        ],
    );
}

#[test]
fn a_token_that_was_found_for_a_former_runner_brings_that_one_back() {
    keeps_every_promise(
        Setup { jitter: 150_005_085, ..FOR_EVER },
        &[
            (NOW, Fault(Reset, Trouble::CutAfter)),
            (NOW, SwapToken(3, 0)),
            (NOW, Rotate(0)),
            (NOW, Reboot),
            (NOW, Enroll(1)),
            (After(3013), Hangup),
            (NOW, Backup),
            (NOW, SwapToken(0, 3)),
            (After(3069), StartDaemon),
            (NOW, KillDaemon),
            (NOW, ResetInGitlab(3, false)),
            (NOW, ResetInGitlab(0, true)),
            (NOW, Rotate(2)),
            (NOW, RestoreConfig),
        ],
    );
}
