//! Several records of one runner.

use super::*;

#[test]
fn a_former_token_of_one_of_two_records_of_a_runner_is_followed() {
    keeps_every_promise(
        Setup { jitter: 3_015_532, ..FOR_EVER },
        &[
            (NOW, Register(2)),
            (NOW, StartDaemon),
            (NOW, SwapToken(1, 2)),
            (NOW, ResetInGitlab(2, true)),
            (After(1), Backup),
            (NOW, Restore(1)),
            (NOW, KillDaemon),
        ],
    );
}

#[test]
fn a_runner_whose_entry_had_lost_its_id_goes_back_to_the_token_in_its_former_record() {
    keeps_every_promise(
        Setup { jitter: 2_002_274, ..FOR_EVER },
        &[
            (NOW, Register(0)),
            (NOW, Enroll(0)),
            (NOW, ResetInGitlab(3, true)),
            (NOW, DuplicateEntry(2)),
            (NOW, RemoveId(2)),
            (NOW, StartDaemon),
            (NOW, Restore(1)),
        ],
    );
}

#[test]
fn an_enrollment_that_takes_over_one_of_two_records_of_a_runner_follows_the_token_of_the_other() {
    keeps_every_promise(
        Setup { jitter: 5_001_617, ..DAY },
        &[
            (NOW, Verify(1)),
            (NOW, RegisterForce(0)),
            (NOW, RemoveId(2)),
            (NOW, DeleteEntry(0)),
            (NOW, ResetInGitlab(3, true)),
            (NOW, RotateById(2)),
            (NOW, StartDaemon),
            (NOW, BlankToken(1)),
            (After(61), Enroll(3)),
            (NOW, DuplicateEntry(0)),
        ],
    );
}

#[test]
fn two_records_of_one_runner_do_not_replace_each_others_token_if_the_entry_of_one_was_given_away() {
    keeps_every_promise(
        Setup { jitter: 20_045_019, ..TWO_HOURS },
        &[
            (NOW, Life(86_400)),
            (NOW, DeleteInGitlab(2)),
            (NOW, Reboot),
            (NOW, ResetInGitlab(1, true)),
            (After(23_716), KillDaemon),
            (After(600), Wait),
            (NOW, Register(0)),
            (NOW, VerifyDelete(1)),
            (NOW, DeleteEntry(2)),
            (NOW, StartDaemon),
            (NOW, SwapToken(3, 3)),
            (After(3528), Rotate(1)),
            (After(600), UnregisterPolicy(0)),
            (NOW, Enroll(0)),
            (NOW, Quit),
            (NOW, StartDaemon),
            (After(25_579), DeleteEntry(3)),
            (After(29_436), StartDaemon),
            (After(10_166), CloseRotation(3, false)),
            (NOW, KillDaemon),
            (NOW, DiskFault("edit", 2)),
            (After(2018), ResetInGitlab(2, true)),
            (After(60), SwapToken(1, 1)),
            (After(600), Hangup),
            (NOW, Unregister(3)),
            (After(600), Unregister(0)),
            (NOW, Fault(Verification, Trouble::CutAfter)),
            (After(600), Terminate),
            (NOW, Verify(1)),
            (NOW, Fault(ResetById, Trouble::SameToken)),
            (NOW, Fault(Registration, Trouble::Gateway(201, Body::Empty))),
            (NOW, Register(2)),
            (After(600), Share(2)),
            (After(8841), Quit),
            (NOW, Fault(ResetById, Trouble::Gateway(408, Body::Empty))),
            (NOW, Verify(2)),
            (NOW, BlankToken(1)),
        ],
    );
}

#[test]
fn a_record_that_has_gone_over_to_a_runner_does_not_make_that_one_its_former_runner() {
    keeps_every_promise(
        Setup { jitter: 30_001_578, ..DAY },
        &[
            (NOW, StartDaemon),
            (NOW, ResetInGitlab(1, true)),
            (NOW, ResetInGitlab(0, true)),
            (After(1), StartDaemon),
            (NOW, Restore(2)),
            (NOW, SwapToken(3, 3)),
        ],
    );
}

#[test]
fn the_token_of_a_second_record_of_one_runner_is_followed() {
    keeps_every_promise(
        HALF,
        &[
            (NOW, StartDaemon),
            (NOW, Register(2)),
            (NOW, Backup),
            (NOW, RegisterForce(0)),
            (NOW, Unregister(3)),
            (NOW, RemoveId(3)),
            (NOW, Enroll(0)),
            (NOW, ResetInGitlab(0, true)),
            (After(1), Verify(1)),
            (NOW, KillDaemon),
            (NOW, RestoreConfig),
        ],
    );
}

#[test]
fn two_records_of_one_runner_do_not_write_its_entries_in_turn() {
    keeps_every_promise(
        Setup { jitter: 3_003_667, ..DAY },
        &[
            (NOW, StartDaemon),
            (NOW, KillDaemon),
            (NOW, Enroll(2)),
            (NOW, SwapToken(3, 2)),
            (NOW, Rotate(1)),
            (NOW, ResetInGitlab(2, true)),
            (NOW, Restore(3)),
        ],
    );
}

#[test]
fn two_records_of_one_runner_do_not_both_reset_its_token() {
    keeps_every_promise(
        Setup { age: 3600, jitter: 90_515, ..TWO_HOURS },
        &[
            (NOW, Fault(Reset, Trouble::CutAfter)),
            (NOW, ResetInGitlab(1, false)),
            (NOW, StartDaemon),
            (NOW, SwapToken(1, 3)),
            (NOW, Fault(Reset, Trouble::Gateway(404, Body::Empty))),
            (After(28_644), Hangup),
        ],
    );
}

#[test]
fn a_lost_reset_of_one_record_is_not_repeated_by_another_one_with_the_same_token() {
    keeps_every_promise(
        Setup { age: 3600, jitter: 1359, ..TWO_HOURS },
        &[
            (NOW, StartDaemon),
            (NOW, Terminate),
            (NOW, ResetInGitlab(3, true)),
            (NOW, DeleteInGitlab(0)),
            (NOW, Fault(Registration, Trouble::GatewayAfter(204, Body::Message))),
            (After(2153), DuplicateEntry(2)),
            (NOW, StartDaemon),
            (After(60), Fault(Reset, Trouble::CutAfter)),
            (NOW, SwapToken(3, 0)),
            (NOW, ResetInGitlab(0, true)),
            (After(4509), Backup),
        ],
    );
    keeps_every_promise(
        Setup { jitter: 4338, ..DAY },
        &[
            (NOW, Maintenance(2000)),
            (After(1), StartDaemon),
            (After(60), Life(7200)),
            (Await(7), ResetInGitlab(1, true)),
            (NOW, Terminate),
            (Await(8), DuplicateEntry(3)),
            (Await(5), Enroll(1)),
            (Await(11), Hangup),
            (Await(22), Hangup),
            (NOW, Hangup),
            (Await(1), RemoveId(1)),
            (Await(17), Fault(Reset, Trouble::Gateway(201, Body::Html))),
            (Await(13), Enroll(3)),
            (NOW, DiskFault("begin", 1)),
            (After(650), Backup),
            (NOW, VerifyDelete(0)),
            (Await(10), Unregister(0)),
            (After(600), Rotate(3)),
            (NOW, Reboot),
            (After(3345), ResetInGitlab(1, true)),
        ],
    );
}

#[test]
fn two_records_of_one_runner_do_not_fill_config_toml_with_entries() {
    keeps_every_promise(
        Setup { jitter: 2_003_851, ..DAY },
        &[
            (NOW, StartDaemon),
            (NOW, Enroll(0)),
            (NOW, SwapToken(1, 2)),
            (After(1), Terminate),
            (NOW, Fault(Any, Trouble::Gateway(407, Body::Error))),
            (After(9679), Enroll(2)),
            (NOW, Unregister(0)),
            (NOW, OldRelease(true)),
            (After(16_415), Restore(2)),
            (NOW, Unregister(0)),
            (NOW, ResetInGitlab(0, true)),
            (After(2566), StartDaemon),
            (After(22_345), Hangup),
        ],
    );
}

#[test]
fn no_record_resets_a_runner_by_id_after_a_gateways_answer_to_such_a_reset_by_another() {
    keeps_every_promise(
        Setup { jitter: 78_166, mistakes: Mistakes::OneByOne, ..HALF },
        &[
            (After(2705), Verify(1)),
            (After(3990), RotateById(0)),
            (NOW, Register(2)),
            (NOW, AccessToken(true)),
            (After(60), DeleteInGitlab(2)),
            (After(600), DeleteEntry(3)),
            (NOW, StartDaemon),
            (NOW, Enroll(0)),
            (After(3456), DiskFault("begin", 5)),
            (NOW, ResetInGitlab(0, true)),
            (NOW, Restore(1)),
            (NOW, SwapToken(1, 2)),
            (After(1), Fault(Probe, Trouble::Gateway(202, Body::Empty))),
            (NOW, Restore(2)),
            (After(22_381), Enroll(1)),
            (Await(22), Fault(ResetById, Trouble::Gateway(301, Body::Message))),
        ],
    );
}
