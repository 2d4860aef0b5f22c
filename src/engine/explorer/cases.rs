//! What the explorer has found, shrunk and kept.

use super::act::Act::*;
use super::act::When::{After, Await};
use super::act::{Act, Move, When};
use super::gitlab::Call::{
    Any, DeleteManager, DeleteRunner, Probe, Register as Registration, Reset, ResetById, Verify as Verification,
};
use super::gitlab::{Body, Fault as Trouble, Oddity};
use super::people::Mistakes;
use super::play::{Setup, play};

const DAY: Setup = Setup { life: 86_400, age: 0, jitter: 7, is_stateless: false, mistakes: Mistakes::Together };
const TWO_HOURS: Setup = Setup { life: 7200, ..DAY };
const FOR_EVER: Setup = Setup { life: 0, ..DAY };
/// A rotation is due at once.
const DUE: Setup = Setup { age: 77_760, ..DAY };

const HALF: Setup = Setup { age: 43_200, ..DAY };

fn keeps_every_promise(setup: Setup, acts: &[(When, Act)]) {
    let moves: Vec<_> = acts.iter().cloned().map(|(when, act)| Move(when, act)).collect();
    let played = play(setup, &moves, true);
    assert!(played.violations.is_empty(), "{:?}\n{}", played.violations, played.trace.join("\n"));
}

const NOW: When = After(0);

#[test]
fn a_date_ahead_of_gitlabs_own_clock_causes_no_stream_of_rotations() {
    keeps_every_promise(DAY, &[(NOW, DateAhead(90_000)), (NOW, Reboot), (After(60), Wait)]);
}

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
fn settings_that_changed_while_config_toml_could_not_be_read_are_followed() {
    keeps_every_promise(
        Setup { jitter: 3_008_445, ..DAY },
        &[
            (NOW, StartDaemon),
            (NOW, Unregister(1)),
            (NOW, Unregister(3)),
            (After(29_281), Enroll(0)),
            (NOW, DiskFault("read", 1)),
            (After(1), WallJump(30)),
        ],
    );
}

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
fn a_runner_whose_refused_entry_a_person_has_dropped_is_left_alone_until_a_reload() {
    keeps_every_promise(
        Setup { age: 51_840, jitter: 3_014_621, ..DAY },
        &[
            (NOW, StartDaemon),
            (NOW, Enroll(0)),
            (NOW, Backup),
            (NOW, Fault(Probe, Trouble::ServerError)),
            (NOW, Fault(Reset, Trouble::CutAfter)),
            (After(60), DuplicateEntry(2)),
            (Await(23), VerifyDelete(3)),
            (NOW, Rotate(3)),
        ],
    );
}

#[test]
fn a_claimed_id_is_not_recovered_by_a_process_without_a_state_directory() {
    keeps_every_promise(
        Setup { age: 3600, jitter: 3_018_803, is_stateless: true, ..TWO_HOURS },
        &[
            (NOW, StartDaemon),
            (NOW, AccessToken(true)),
            (NOW, Enroll(1)),
            (After(1), Fault(Any, Trouble::GatewayAfter(502, Body::Message))),
            (NOW, Rotate(3)),
            (NOW, Quit),
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
fn a_former_token_that_another_process_forgets_while_the_disk_fails_is_kept() {
    keeps_every_promise(
        FOR_EVER,
        &[
            (NOW, StartDaemon),
            (NOW, DiskFault("record", 5)),
            (NOW, DiskFault("answered", 2)),
            (NOW, DiskFault("edit", 2)),
            (NOW, Quit),
            (NOW, StartDaemon),
            (NOW, RotateById(3)),
            (After(1), Maintenance(2000)),
            (After(60), Restore(3)),
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
fn a_reset_by_id_that_a_command_has_lost_holds_up_no_registration_by_the_daemon() {
    keeps_every_promise(
        FOR_EVER,
        &[
            (NOW, StartDaemon),
            (NOW, Enroll(3)),
            (After(1), Fault(ResetById, Trouble::CutAfter)),
            (NOW, Restore(3)),
            (After(9807), Wait),
            (After(600), RotateById(2)),
            (NOW, RegisterAgainPolicy(2)),
        ],
    );
}

#[test]
fn a_token_in_an_odd_answer_is_judged_by_the_servers_time_before_another_runner_is_registered() {
    keeps_every_promise(
        Setup { jitter: 2_000_929, ..DUE },
        &[
            (NOW, Fault(Registration, Trouble::Connect)),
            (NOW, Fault(Registration, Trouble::Odd(Oddity::TextJson))),
            (NOW, WallJump(90_000)),
            (NOW, Reboot),
            (NOW, Enroll(1)),
            (NOW, Lag(30)),
            (After(60), Hangup),
        ],
    );
}

#[test]
fn a_runner_that_a_person_registers_anew_is_the_enrollments_without_a_state_directory() {
    keeps_every_promise(
        Setup { jitter: 3_061_023, age: 6480, is_stateless: true, ..TWO_HOURS },
        &[
            (NOW, StartDaemon),
            (NOW, Enroll(0)),
            (After(1), Enroll(0)),
            (NOW, Restore(3)),
            (NOW, RegisterAgainPolicy(2)),
            (NOW, RegisterForce(0)),
        ],
    );
    keeps_every_promise(
        Setup { jitter: 3_001_973, is_stateless: true, ..DAY },
        &[
            (NOW, BlankToken(0)),
            (NOW, Register(1)),
            (NOW, Life(21_600)),
            (NOW, ResetInGitlab(1, true)),
            (NOW, RegisterForce(0)),
            (NOW, Enroll(0)),
            (NOW, RemoveId(0)),
            (NOW, SwapToken(3, 0)),
            (NOW, StartDaemon),
            (NOW, Life(7200)),
            (NOW, WallJump(7200)),
            (After(11_678), KillDaemon),
            (NOW, Fault(Verification, Trouble::Connect)),
            (NOW, StartDaemon),
            (After(20_889), RegisterForce(0)),
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
fn a_runner_whose_enrollment_comes_back_is_not_released_and_taken_up_in_turn() {
    keeps_every_promise(
        Setup { jitter: 5_009_892, ..TWO_HOURS },
        &[
            (NOW, Fault(Any, Trouble::Gateway(503, Body::EmptyObject))),
            (NOW, Fault(Any, Trouble::Slow(9))),
            (NOW, Enroll(0)),
            (NOW, DiskFault("probe", 5)),
            (NOW, Fault(Any, Trouble::CutBefore)),
            (NOW, Fault(Any, Trouble::ServerError)),
            (NOW, Enroll(3)),
            (NOW, Fault(Probe, Trouble::CutAfter)),
            (NOW, StartDaemon),
            (After(896), DeleteEntry(3)),
            (NOW, Unenroll(0)),
            (After(3968), Unregister(1)),
            (After(600), Life(7200)),
            (After(1914), Fault(Verification, Trouble::GatewayAfter(503, Body::Token))),
            (NOW, Enroll(0)),
        ],
    );
}

#[test]
fn a_start_with_a_clock_behind_puts_no_rotation_off_once_the_servers_time_is_known() {
    keeps_every_promise(
        Setup { life: 7200, age: 4320, jitter: 20_048_949, ..DAY },
        &[
            (NOW, StartDaemon),
            (NOW, WallJump(-7200)),
            (After(755), StartDaemon),
            (After(60), Quit),
            (After(1912), Verify(1)),
            (After(600), Fault(DeleteManager, Trouble::CutAfter)),
            (After(1354), Fault(Any, Trouble::Throttle)),
            (After(600), Fault(Reset, Trouble::CutAfter)),
            (After(1), Hangup),
            (After(600), KillDaemon),
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
fn a_runner_without_an_entry_and_without_a_state_directory_causes_no_stream_of_requests() {
    keeps_every_promise(
        Setup { is_stateless: true, ..DAY },
        &[
            (After(25_811), Register(2)),
            (NOW, CloseRotation(0, true)),
            (NOW, StartDaemon),
            (After(20_914), Rotate(1)),
            (After(20_961), Hangup),
            (NOW, SwapToken(0, 1)),
        ],
    );
}

#[test]
fn without_a_state_directory_a_daemon_registers_no_second_runner_beside_one_that_has_replaced_its_own() {
    keeps_every_promise(
        Setup { jitter: 20_048_740, is_stateless: true, ..DAY },
        &[
            (NOW, DeleteInGitlab(0)),
            (NOW, RegisterForce(1)),
            (NOW, Enroll(1)),
            (NOW, Fault(Reset, Trouble::GatewayAfter(503, Body::Token))),
            (After(29_263), Reboot),
            (NOW, ResetInGitlab(0, true)),
            (NOW, RegisterForce(1)),
            (After(17_311), StartDaemon),
            (After(13_402), Unregister(3)),
        ],
    );
    keeps_every_promise(
        Setup { jitter: 20_031_195, is_stateless: true, ..HALF },
        &[
            (NOW, Fault(ResetById, Trouble::ServerError)),
            (NOW, StartDaemon),
            (NOW, Enroll(1)),
            (After(1), UnregisterPolicy(0)),
            (NOW, DeleteInGitlab(3)),
            (NOW, SwapToken(2, 3)),
            (After(1), Fault(DeleteManager, Trouble::Slow(5))),
            (After(60), Fault(ResetById, Trouble::CutBefore)),
            (NOW, Fault(DeleteRunner, Trouble::Gateway(404, Body::Message))),
            (NOW, Unregister(3)),
            (NOW, Fault(DeleteManager, Trouble::GatewayAfter(500, Body::Html))),
            (NOW, Fault(Any, Trouble::ServerError)),
            (NOW, Enroll(0)),
            (After(1), Rotate(1)),
            (NOW, RegisterAgainPolicy(2)),
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
fn a_new_token_that_another_process_has_noted_while_the_disk_fails_is_kept() {
    keeps_every_promise(
        Setup { age: 51_840, jitter: 30_011_641, ..DAY },
        &[
            (NOW, StartDaemon),
            (NOW, DiskFault("answered", 2)),
            (NOW, DiskFault("record", 5)),
            (NOW, Rotate(2)),
            (After(1), Unregister(2)),
            (NOW, DeleteEntry(2)),
        ],
    );
}

#[test]
fn a_backup_that_brings_back_an_expired_token_asks_for_nothing() {
    keeps_every_promise(
        Setup { jitter: 30_016_858, ..FOR_EVER },
        &[
            (NOW, StartDaemon),
            (NOW, Life(7200)),
            (NOW, DuplicateEntry(0)),
            (NOW, Enroll(0)),
            (NOW, DateAhead(2_000_000)),
            (NOW, Rotate(2)),
            (NOW, AccessToken(true)),
            (NOW, Life(0)),
            (NOW, KillDaemon),
            (After(11_845), StartDaemon),
            (After(10_779), Fault(ResetById, Trouble::GatewayAfter(504, Body::Empty))),
            (NOW, Restore(1)),
        ],
    );
}

#[test]
fn a_token_that_a_person_has_dropped_stays_dropped_although_its_runner_is_given_again() {
    keeps_every_promise(
        Setup { jitter: 30_030_126, ..HALF },
        &[
            (NOW, Enroll(2)),
            (NOW, Fault(ResetById, Trouble::CutAfter)),
            (NOW, StartDaemon),
            (NOW, RotateById(2)),
            (After(600), VerifyDelete(2)),
            (NOW, Register(2)),
            (NOW, Restore(3)),
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
fn a_reload_does_not_forget_what_another_enrollment_of_the_name_has_lost_since() {
    keeps_every_promise(
        Setup { jitter: 5_006_081, ..DAY },
        &[
            (NOW, Enroll(2)),
            (NOW, Life(7200)),
            (NOW, Enroll(0)),
            (NOW, Fault(Reset, Trouble::CutAfter)),
            (NOW, StartDaemon),
            (After(1237), Fault(Registration, Trouble::GatewayAfter(502, Body::Error))),
            (After(3009), Fault(Registration, Trouble::GatewayAfter(503, Body::Html))),
            (After(600), StartDaemon),
            (NOW, Enroll(3)),
            (After(1), Hangup),
        ],
    );
}

#[test]
fn a_runner_that_was_parted_from_the_name_of_its_enrollment_stays_so() {
    keeps_every_promise(
        Setup { jitter: 30_000_751, ..DUE },
        &[
            (NOW, RegisterForce(1)),
            (NOW, SwapToken(3, 3)),
            (NOW, Enroll(1)),
            (NOW, Unregister(2)),
            (NOW, StartDaemon),
            (NOW, DeleteEntry(0)),
            (NOW, Terminate),
        ],
    );
    keeps_every_promise(
        Setup { jitter: 30_035_533, ..FOR_EVER },
        &[
            (NOW, StartDaemon),
            (NOW, Enroll(3)),
            (After(1), Lag(2)),
            (NOW, DuplicateEntry(2)),
            (NOW, Fault(Registration, Trouble::ServerError)),
            (NOW, Unregister(2)),
            (NOW, SwapToken(2, 1)),
            (NOW, Hangup),
            (NOW, Enroll(0)),
            (After(1), Fault(Any, Trouble::Throttle)),
            (NOW, Hangup),
        ],
    );
}

#[test]
fn a_runner_that_an_access_token_has_shown_to_be_deleted_stays_so_without_that_token() {
    keeps_every_promise(
        Setup { age: 4320, jitter: 30_028_514, ..TWO_HOURS },
        &[
            (NOW, StartDaemon),
            (NOW, AccessToken(true)),
            (NOW, RegisterAgainPolicy(2)),
            (NOW, RegisterForce(0)),
            (NOW, Restore(2)),
            (After(600), StartDaemon),
            (NOW, Quit),
            (NOW, AccessToken(false)),
            (NOW, Enroll(3)),
        ],
    );
}

#[test]
fn a_runner_that_a_command_has_made_for_another_enrollment_of_the_name_is_none_of_this_one() {
    keeps_every_promise(
        Setup { age: 51_840, jitter: 30_015_643, ..DAY },
        &[
            (NOW, Enroll(2)),
            (NOW, Enroll(3)),
            (NOW, StartDaemon),
            (NOW, Enroll(0)),
            (After(3477), RegisterForce(0)),
            (NOW, Unenroll(3)),
            (After(27_622), GatewayFor(10, 200, Body::Empty)),
            (NOW, Enroll(0)),
            (NOW, Share(3)),
            (After(18_428), Fault(Any, Trouble::Gateway(403, Body::Token))),
            (After(23_811), Lag(2)),
        ],
    );
}

#[test]
fn a_rotation_whose_token_no_file_takes_goes_on_until_one_does() {
    keeps_every_promise(
        Setup { jitter: 40_031_522, ..DAY },
        &[
            (NOW, DiskFault("record", 2)),
            (NOW, DiskFault("answered", 5)),
            (NOW, DiskFault("edit", 5)),
            (NOW, Rotate(2)),
            (After(60), Rotate(2)),
        ],
    );
}

#[test]
fn another_runners_token_in_an_entry_takes_nothing_from_its_runner() {
    keeps_every_promise(TWO_HOURS, &[(NOW, StartDaemon), (NOW, Quit), (NOW, SwapToken(3, 2))]);
}

#[test]
fn a_former_token_that_a_command_has_adopted_stays_in_the_record_beside_a_daemon() {
    keeps_every_promise(
        FOR_EVER,
        &[
            (NOW, StartDaemon),
            (After(2), ResetInGitlab(1, true)),
            (After(1), DiskFault("edit", 1)),
            (NOW, Restore(1)),
            (NOW, VerifyDelete(1)),
            (After(60), Backup),
        ],
    );
    keeps_every_promise(
        HALF,
        &[
            (NOW, StartDaemon),
            (NOW, RotateById(1)),
            (NOW, DiskFault("edit", 1)),
            (NOW, Restore(1)),
            (NOW, Reboot),
            (Await(4), VerifyDelete(3)),
            (After(60), Unregister(3)),
        ],
    );
}

#[test]
fn a_reload_that_was_asked_for_before_an_answer_was_lost_repeats_no_registration() {
    for awaits in 3..20 {
        keeps_every_promise(
            DAY,
            &[
                (NOW, Fault(Registration, Trouble::CutAfter)),
                (NOW, Enroll(3)),
                (NOW, StartDaemon),
                (Await(awaits), Hangup),
            ],
        );
    }
}

#[test]
fn a_former_token_is_held_when_gitlab_is_restored_from_a_backup() {
    keeps_every_promise(TWO_HOURS, &[(NOW, StartDaemon), (After(11_712), Reboot), (NOW, Restore(1))]);
}

#[test]
fn a_restored_gitlab_is_followed_without_a_moment_in_which_nothing_holds_its_token() {
    keeps_every_promise(DUE, &[(NOW, StartDaemon), (NOW, Restore(2)), (NOW, Hangup)]);
}

#[test]
fn an_enrollment_takes_over_what_a_command_has_registered() {
    keeps_every_promise(DAY, &[(NOW, RegisterForce(0)), (NOW, Enroll(0))]);
}

#[test]
fn two_enrollments_of_one_name_get_one_runner_each() {
    keeps_every_promise(DAY, &[(NOW, StartDaemon), (NOW, Enroll(0)), (After(10), Enroll(3)), (After(60), Reboot)]);
}

#[test]
fn a_runner_whose_token_another_entry_uses_is_not_unregistered() {
    keeps_every_promise(FOR_EVER, &[(NOW, StartDaemon), (NOW, DuplicateEntry(3)), (NOW, Unregister(2))]);
    keeps_every_promise(DAY, &[(NOW, DuplicateEntry(2)), (NOW, Unregister(3))]);
}

#[test]
fn a_token_in_an_answer_with_an_odd_expiry_or_content_type_is_kept() {
    for oddity in Oddity::ALL {
        keeps_every_promise(DAY, &[(NOW, Fault(Any, Trouble::Odd(oddity))), (NOW, Register(1))]);
        keeps_every_promise(DAY, &[(NOW, Fault(Any, Trouble::Odd(oddity))), (NOW, Rotate(0))]);
    }
}

#[test]
fn an_odd_registration_whose_token_was_not_verified_is_not_repeated() {
    keeps_every_promise(
        DAY,
        &[
            (NOW, Fault(Any, Trouble::Odd(Oddity::NumberTime))),
            (NOW, Fault(Verification, Trouble::ServerError)),
            (NOW, Enroll(1)),
            (NOW, Reboot),
            (NOW, Hangup),
        ],
    );
}

#[test]
fn a_journal_that_could_not_be_cleared_does_not_end_the_rotations() {
    keeps_every_promise(
        DAY,
        &[
            (NOW, StartDaemon),
            (NOW, Fault(Reset, Trouble::Connect)),
            (NOW, DiskFault("clear", 5)),
            (After(59_000), Wait),
        ],
    );
}

#[test]
fn a_lagging_replica_overwrites_no_token_that_a_person_has_written() {
    keeps_every_promise(DAY, &[(NOW, StartDaemon), (After(60), Lag(30)), (NOW, ResetInGitlab(0, true))]);
}

#[test]
fn a_gateways_404_to_a_deletion_leaves_entry_and_runner() {
    let gone = Trouble::Gateway(404, Body::Message);
    let at_stop =
        [(NOW, StartDaemon), (NOW, Enroll(0)), (After(1), Fault(DeleteRunner, gone.clone())), (NOW, Terminate)];
    keeps_every_promise(DAY, &at_stop);
    keeps_every_promise(DAY, &[(NOW, Fault(DeleteRunner, gone)), (NOW, Unregister(0))]);
}

#[test]
fn a_reset_is_not_repeated_until_a_verification_is_answered() {
    keeps_every_promise(
        Setup { life: 7200, age: 4320, ..DAY },
        &[(NOW, StartDaemon), (NOW, GatewayFor(2000, 404, Body::EmptyObject)), (After(600), Wait)],
    );
}

#[test]
fn an_answer_that_ten_seconds_take_is_not_cut_by_a_stop() {
    for stop in [Terminate, Quit] {
        keeps_every_promise(DUE, &[(NOW, Fault(Reset, Trouble::Slow(20))), (NOW, StartDaemon), (After(1), stop)]);
    }
}

#[test]
fn a_registration_without_an_answer_is_not_made_good_by_a_second_one_at_once() {
    keeps_every_promise(
        DAY,
        &[(NOW, Fault(Registration, Trouble::CutAfter)), (NOW, Enroll(0)), (NOW, StartDaemon), (After(600), Wait)],
    );
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
fn an_entry_is_dropped_only_after_its_candidates_were_asked() {
    keeps_every_promise(DUE, &[(NOW, StartDaemon), (NOW, Restore(2)), (NOW, VerifyDelete(0))]);
}

#[test]
fn a_blanked_token_is_written_again_after_a_disk_error() {
    keeps_every_promise(
        DUE,
        &[(NOW, Reboot), (NOW, Enroll(0)), (After(1), Wait), (NOW, DiskFault("probe", 5)), (NOW, BlankToken(2))],
    );
}

#[test]
fn a_token_that_a_command_has_lost_is_replaced_by_the_next_daemon() {
    keeps_every_promise(
        DAY,
        &[
            (NOW, StartDaemon),
            (NOW, Enroll(0)),
            (After(60), Fault(Reset, Trouble::CutAfter)),
            (NOW, Rotate(2)),
            (NOW, KillDaemon),
            (After(600), Wait),
        ],
    );
}

#[test]
fn a_journal_that_cannot_be_cleared_after_a_closed_rotation_is_waited_for() {
    keeps_every_promise(
        Setup { life: 7200, age: 3600, ..DAY },
        &[
            (After(1200), CloseRotation(0, true)),
            (NOW, StartDaemon),
            (After(600), DiskFault("clear", 2)),
            (After(60), Wait),
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
fn two_tokens_that_an_old_server_accepts_for_one_entry_cause_no_stream_of_requests() {
    keeps_every_promise(
        TWO_HOURS,
        &[(NOW, OldRelease(true)), (NOW, StartDaemon), (After(60), SwapToken(1, 0)), (After(6900), Wait)],
    );
}

#[test]
fn an_odd_registration_by_a_command_is_taken_over_by_the_enrollment_of_its_name() {
    keeps_every_promise(
        FOR_EVER,
        &[
            (NOW, Fault(Verification, Trouble::Throttle)),
            (NOW, Fault(Any, Trouble::Odd(Oddity::EmptyTime))),
            (NOW, Register(1)),
            (NOW, Enroll(1)),
        ],
    );
}

#[test]
fn a_killed_registration_is_repeated_by_no_other_process() {
    for next in [Register(0), Enroll(0), Register(3)] {
        keeps_every_promise(
            DAY,
            &[
                (NOW, Fault(Registration, Trouble::Slow(10))),
                (NOW, Register(0)),
                (After(1), KillCommands),
                (NOW, StartDaemon),
                (NOW, next),
                (After(60), Register(0)),
                (NOW, Enroll(0)),
                (After(60), Reboot),
            ],
        );
    }
}

#[test]
fn a_lost_registration_of_the_daemon_is_not_repeated_by_a_command() {
    for fault in [Trouble::CutAfter, Trouble::GatewayAfter(502, Body::Html)] {
        keeps_every_promise(
            DAY,
            &[
                (NOW, Fault(Registration, fault)),
                (NOW, StartDaemon),
                (NOW, Enroll(0)),
                (After(10), Register(0)),
                (NOW, KillDaemon),
                (NOW, Register(0)),
                (NOW, RegisterForce(0)),
                (NOW, StartDaemon),
                (After(60), Hangup),
            ],
        );
    }
}

#[test]
fn a_copy_of_config_toml_from_many_rotations_ago_gets_the_present_token() {
    keeps_every_promise(TWO_HOURS, &[(NOW, Backup), (NOW, StartDaemon), (After(120_000), RestoreConfig)]);
}

#[test]
fn a_runner_that_a_person_has_registered_again_is_served_by_the_running_daemon() {
    keeps_every_promise(
        DAY,
        &[
            (NOW, Enroll(0)),
            (NOW, StartDaemon),
            (After(1), Unregister(2)),
            (After(1), Life(7200)),
            (After(1), RegisterForce(0)),
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
fn a_closed_rotation_under_a_date_past_the_expiry_causes_no_stream_of_requests() {
    keeps_every_promise(
        HALF,
        &[
            (NOW, StartDaemon),
            (NOW, DeleteInGitlab(2)),
            (NOW, DeleteInGitlab(0)),
            (NOW, DuplicateEntry(2)),
            (NOW, CloseRotation(0, true)),
            (NOW, DateAhead(34_560_000)),
            (After(29_807), Wait),
        ],
    );
}

#[test]
fn an_enrollment_whose_entry_was_unregistered_gets_a_runner_with_the_next_start() {
    keeps_every_promise(
        DAY,
        &[
            (NOW, Unregister(3)),
            (NOW, DeleteEntry(2)),
            (NOW, StartDaemon),
            (NOW, Enroll(3)),
            (After(1), DuplicateEntry(2)),
            (NOW, Unregister(2)),
            (NOW, DeleteEntry(3)),
            (After(64), Share(3)),
            (After(60), Terminate),
        ],
    );
}

#[test]
fn a_token_that_a_command_has_lost_is_replaced_by_the_daemon_beside_it() {
    keeps_every_promise(
        Setup { life: 86_400, age: 51_840, ..DAY },
        &[
            (NOW, Enroll(1)),
            (NOW, Reboot),
            (NOW, Fault(Reset, Trouble::GatewayAfter(504, Body::Empty))),
            (NOW, Rotate(2)),
        ],
    );
}

#[test]
fn a_wait_from_when_a_wrong_date_was_believed_keeps_no_token_from_its_rotation() {
    keeps_every_promise(
        TWO_HOURS,
        &[
            (NOW, StartDaemon),
            (NOW, DateAhead(2_000_000)),
            (NOW, ResetInGitlab(0, true)),
            (Await(6), Maintenance(2000)),
        ],
    );
    keeps_every_promise(
        Setup { life: 7200, age: 4320, ..DAY },
        &[
            (NOW, Register(2)),
            (NOW, Maintenance(2000)),
            (NOW, Reboot),
            (NOW, ResetInGitlab(2, true)),
            (Await(24), DateAhead(34_560_000)),
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
fn a_clock_ahead_by_almost_a_whole_life_beside_a_refuted_date_causes_no_stream_of_rotations() {
    keeps_every_promise(
        Setup { life: 7200, age: 4320, ..DAY },
        &[
            (NOW, StartDaemon),
            (NOW, WallJump(7200)),
            (NOW, WallJump(-30)),
            (NOW, DateAhead(34_560_000)),
            (After(600), RemoveId(2)),
        ],
    );
    // The later of two clocks that are both ahead by a part of a life.
    keeps_every_promise(
        Setup { life: 7200, age: 4320, ..DAY },
        &[(NOW, StartDaemon), (NOW, WallJump(7200)), (NOW, WallJump(-30)), (NOW, DateAhead(3600)), (After(600), Wait)],
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
fn a_date_far_ahead_throws_no_token_without_an_expiry_away() {
    keeps_every_promise(
        FOR_EVER,
        &[(NOW, StartDaemon), (After(60), DateAhead(34_560_000)), (NOW, Rotate(0)), (NOW, Hangup), (NOW, Restore(2))],
    );
}

#[test]
fn clocks_that_are_both_ahead_by_more_than_a_life_cause_no_stream_of_rotations() {
    keeps_every_promise(
        Setup { jitter: 2_934_344_658, is_stateless: true, ..DAY },
        &[
            (After(22_382), DiskFault("get_record", 2)),
            (NOW, WallJump(90_000)),
            (NOW, Enroll(0)),
            (NOW, DateAhead(90_000)),
            (NOW, CloseRotation(1, true)),
            (NOW, StartDaemon),
            (After(26_129), DiskFault("read", 1)),
            (After(29_774), Hangup),
            (After(12_268), Fault(Verification, Trouble::SameToken)),
            (NOW, SwapToken(1, 0)),
            (After(779), Enroll(2)),
            (After(1), Fault(Registration, Trouble::CutBefore)),
        ],
    );
}

#[test]
fn a_clock_ahead_by_almost_a_whole_life_causes_no_stream_of_rotations() {
    keeps_every_promise(DAY, &[(NOW, WallJump(7200)), (NOW, WallJump(-30)), (NOW, Life(7200)), (NOW, Enroll(3))]);
    keeps_every_promise(
        TWO_HOURS,
        &[(NOW, StartDaemon), (NOW, Enroll(0)), (NOW, WallJump(-30)), (NOW, WallJump(7200))],
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
fn a_reload_from_before_a_lost_registration_does_not_repeat_it() {
    keeps_every_promise(
        Setup { jitter: 300_503, ..FOR_EVER },
        &[
            (NOW, StartDaemon),
            (NOW, Hangup),
            (NOW, Enroll(0)),
            (NOW, Down(8000)),
            (NOW, DeleteInGitlab(0)),
            (After(60), Fault(Verification, Trouble::ServerError)),
            (NOW, GatewayFor(10, 502, Body::Error)),
            (After(3), Fault(Registration, Trouble::CutAfter)),
            (Await(1), Rotate(2)),
            (Await(8), Hangup),
        ],
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
fn a_reload_registers_again_although_config_toml_could_not_be_read() {
    keeps_every_promise(
        Setup { jitter: 202_710, ..DAY },
        &[
            (NOW, Reboot),
            (NOW, WallJump(7200)),
            (NOW, Unregister(2)),
            (NOW, DeleteEntry(3)),
            (After(60), Enroll(1)),
            (After(1), RegisterAgainPolicy(2)),
            (NOW, Unregister(2)),
            (NOW, DiskFault("read", 2)),
            (NOW, Hangup),
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
fn an_enrollment_whose_entry_was_unregistered_takes_the_runner_that_was_registered_for_it_since() {
    keeps_every_promise(
        TWO_HOURS,
        &[
            (NOW, Enroll(1)),
            (NOW, StartDaemon),
            (NOW, RegisterForce(1)),
            (NOW, DeleteInGitlab(1)),
            (NOW, SwapToken(3, 3)),
            (NOW, KillDaemon),
            (NOW, Unregister(2)),
            (After(25_424), Register(1)),
        ],
    );
}

#[test]
fn a_new_registration_renews_every_entry_of_the_runner() {
    keeps_every_promise(
        DAY,
        &[
            (NOW, Unregister(3)),
            (NOW, Enroll(3)),
            (NOW, StartDaemon),
            (NOW, SwapToken(2, 1)),
            (NOW, RemoveId(0)),
            (NOW, RemoveId(1)),
            (NOW, Life(7200)),
            (NOW, DeleteInGitlab(0)),
            (NOW, Enroll(0)),
            (After(60), ResetInGitlab(3, true)),
            (After(1), Quit),
            (After(21_027), Lag(10)),
            (NOW, Reboot),
            (After(60), Quit),
            (After(11_962), VerifyDelete(0)),
            (NOW, ResetInGitlab(3, true)),
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
fn a_daemon_goes_on_after_a_lost_registration_once_a_command_has() {
    keeps_every_promise(
        Setup { jitter: 4719, ..DAY },
        &[
            (NOW, UnregisterPolicy(0)),
            (NOW, CloseRotation(1, true)),
            (NOW, Enroll(1)),
            (NOW, StartDaemon),
            (NOW, RegisterAgainPolicy(2)),
            (NOW, Fault(Registration, Trouble::CutAfter)),
            (NOW, Restore(2)),
            (NOW, DateAhead(60)),
            (NOW, Fault(Registration, Trouble::Gateway(405, Body::Html))),
            (After(600), RegisterForce(1)),
        ],
    );
    // The daemon need not run meanwhile.
    keeps_every_promise(
        Setup { jitter: 4719, ..DAY },
        &[
            (NOW, UnregisterPolicy(0)),
            (NOW, CloseRotation(1, true)),
            (NOW, Enroll(1)),
            (NOW, StartDaemon),
            (NOW, RegisterAgainPolicy(2)),
            (NOW, Fault(Registration, Trouble::CutAfter)),
            (NOW, Restore(2)),
            (After(600), DateAhead(60)),
            (NOW, Terminate),
            (NOW, Fault(Registration, Trouble::Gateway(405, Body::Html))),
            (NOW, RegisterForce(1)),
        ],
    );
}

#[test]
fn a_daemon_without_a_state_directory_waits_for_a_person_although_a_command_has_gone_on() {
    keeps_every_promise(
        Setup { age: 6480, jitter: 9149, is_stateless: true, ..TWO_HOURS },
        &[
            (NOW, Fault(Registration, Trouble::GatewayAfter(204, Body::Message))),
            (NOW, StartDaemon),
            (NOW, Fault(Registration, Trouble::Gateway(400, Body::Token))),
            (NOW, Enroll(3)),
            (After(1), RegisterForce(0)),
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
fn a_reset_that_a_command_has_lost_is_known_to_a_daemon_whose_own_reset_is_refused() {
    keeps_every_promise(
        Setup { age: 4320, jitter: 40_007_444, ..TWO_HOURS },
        &[
            (NOW, StartDaemon),
            (NOW, Unregister(0)),
            (NOW, Enroll(1)),
            (After(7086), DiskFault("clear", 1)),
            (NOW, Fault(ResetById, Trouble::CutAfter)),
            (NOW, Hangup),
            (NOW, RotateById(3)),
        ],
    );
}

#[test]
fn a_reset_that_a_command_has_lost_is_known_to_a_daemon_that_knows_its_token_to_be_dead() {
    keeps_every_promise(
        Setup { age: 4320, jitter: 40_007_444, ..TWO_HOURS },
        &[
            (NOW, StartDaemon),
            (NOW, Unregister(0)),
            (NOW, Enroll(1)),
            (After(7086), DiskFault("clear", 1)),
            (NOW, Fault(ResetById, Trouble::CutAfter)),
            (After(60), Restore(3)),
            (NOW, Hangup),
            (After(60), Fault(DeleteRunner, Trouble::Gateway(418, Body::Token))),
            (NOW, RotateById(3)),
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
fn an_enrollment_that_takes_over_a_restored_entry_remembers_the_registration_that_it_has_lost() {
    keeps_every_promise(
        Setup { jitter: 40_038_020, ..TWO_HOURS },
        &[
            (NOW, Enroll(1)),
            (NOW, StartDaemon),
            (NOW, Backup),
            (NOW, Fault(Registration, Trouble::GatewayAfter(503, Body::Html))),
            (NOW, Terminate),
            (NOW, RestoreConfig),
            (NOW, Reboot),
            (After(22_141), KillDaemon),
            (NOW, Register(1)),
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
fn of_two_registrations_at_one_moment_only_the_one_whose_answer_was_cut_is_lost() {
    keeps_every_promise(
        Setup { age: 3600, jitter: 40_009_416, ..TWO_HOURS },
        &[
            (NOW, Fault(Registration, Trouble::Slow(5))),
            (NOW, DeleteInGitlab(0)),
            (NOW, VerifyDelete(0)),
            (After(60), DeleteEntry(1)),
            (After(60), Fault(Any, Trouble::CutBefore)),
            (NOW, Fault(Probe, Trouble::Throttle)),
            (NOW, Enroll(1)),
            (NOW, Enroll(0)),
            (NOW, Fault(Registration, Trouble::CutAfter)),
            (NOW, StartDaemon),
            (Await(14), RegisterForce(0)),
            (NOW, KillDaemon),
            (After(11_051), Unregister(0)),
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
fn a_token_that_a_person_has_put_beside_an_earlier_time_is_pressing_earlier() {
    keeps_every_promise(
        Setup { age: 3600, jitter: 60_047_430, ..TWO_HOURS },
        &[
            (NOW, StartDaemon),
            (After(338), Fault(Verification, Trouble::Connect)),
            (Await(23), RotateById(3)),
            (After(600), KillDaemon),
            (After(3693), Fault(ResetById, Trouble::Gateway(201, Body::Html))),
            (After(600), Fault(Verification, Trouble::CutBefore)),
            (After(60), Fault(DeleteRunner, Trouble::Throttle)),
            (NOW, SwapToken(2, 2)),
            (After(600), Reboot),
            (After(60), GatewayFor(100, 422, Body::Message)),
            (After(60), Wait),
        ],
    );
}

#[test]
fn a_refused_token_that_a_wrong_date_had_called_expired_is_looked_at_again_in_hours() {
    keeps_every_promise(
        Setup { jitter: 60_008_527, ..HALF },
        &[
            (NOW, DateAhead(2_000_000)),
            (NOW, Unregister(0)),
            (NOW, ResetInGitlab(2, false)),
            (NOW, Reboot),
            (After(9862), Register(2)),
            (NOW, KillDaemon),
            (After(17_281), StartDaemon),
            (NOW, Restore(3)),
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
fn a_registration_is_not_lost_with_the_answer_to_a_verification_at_the_same_moment() {
    keeps_every_promise(
        Setup { age: 6480, jitter: 70_004_265, ..TWO_HOURS },
        &[
            (NOW, Fault(Registration, Trouble::Slow(5))),
            (NOW, StartDaemon),
            (NOW, Fault(Probe, Trouble::Odd(Oddity::SpacedTime))),
            (NOW, Enroll(0)),
            (NOW, Fault(Any, Trouble::CutAfter)),
            (After(60), KillDaemon),
            (After(6873), Fault(Any, Trouble::Gateway(410, Body::Token))),
        ],
    );
}

#[test]
fn a_lost_registration_stays_forgotten_although_its_runner_was_deleted_meanwhile() {
    keeps_every_promise(
        Setup { jitter: 4082, ..FOR_EVER },
        &[
            (NOW, StartDaemon),
            (NOW, Fault(Registration, Trouble::CutAfter)),
            (NOW, ResetInGitlab(3, true)),
            (NOW, Enroll(2)),
            (NOW, Fault(DeleteManager, Trouble::Gateway(201, Body::Error))),
            (NOW, Fault(Any, Trouble::Gateway(413, Body::EmptyObject))),
            (NOW, Fault(Any, Trouble::Slow(5))),
            (NOW, Restore(3)),
            (NOW, StartDaemon),
            (NOW, Fault(Verification, Trouble::Slow(20))),
            (NOW, Fault(Verification, Trouble::SameToken)),
            (NOW, Enroll(1)),
            (NOW, Fault(DeleteManager, Trouble::CutBefore)),
            (NOW, Backup),
            (After(1), Quit),
            (NOW, Register(0)),
            (NOW, StartDaemon),
            (NOW, Unregister(2)),
            (NOW, Fault(Probe, Trouble::GatewayAfter(204, Body::Html))),
            (NOW, WallJump(90_000)),
            (NOW, DeleteInGitlab(3)),
            (NOW, Fault(DeleteRunner, Trouble::CutAfter)),
            (NOW, RegisterForce(1)),
            (NOW, Restore(2)),
        ],
    );
}

#[test]
fn clocks_that_agreed_for_a_long_life_are_judged_anew_for_a_short_one() {
    keeps_every_promise(
        Setup { jitter: 80_003_063, ..HALF },
        &[
            (NOW, DateAhead(-7200)),
            (NOW, Life(7200)),
            (NOW, StartDaemon),
            (NOW, ResetInGitlab(0, true)),
            (After(60), Verify(0)),
            (After(60), Hangup),
        ],
    );
}

#[test]
fn a_token_that_a_command_has_written_is_taken_up_although_config_toml_cannot_be_read_at_that_moment() {
    keeps_every_promise(
        Setup { jitter: 80_049_948, ..TWO_HOURS },
        &[
            (NOW, StartDaemon),
            (NOW, KillDaemon),
            (After(8974), Restore(2)),
            (NOW, StartDaemon),
            (After(60), RotateById(1)),
            (Await(5), DiskFault("read", 2)),
        ],
    );
}

#[test]
fn no_date_alone_ends_a_former_token_that_was_noted_by_another_one() {
    keeps_every_promise(
        Setup { jitter: 80_006_453, ..FOR_EVER },
        &[
            (NOW, StartDaemon),
            (NOW, ResetInGitlab(0, true)),
            (NOW, Terminate),
            (NOW, DateAhead(90_000)),
            (NOW, Fault(Verification, Trouble::CutBefore)),
            (NOW, StartDaemon),
            (After(60), Fault(Any, Trouble::CutAfter)),
            (NOW, KillDaemon),
            (NOW, DateAhead(34_560_000)),
            (NOW, StartDaemon),
            (After(60), Enroll(1)),
            (NOW, Restore(3)),
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
fn without_a_state_directory_a_token_that_a_backup_brings_back_during_its_reset_is_written_over() {
    let stateless = Setup { is_stateless: true, ..DAY };
    keeps_every_promise(stateless, &[(NOW, Fault(Reset, Trouble::Slow(2))), (NOW, Rotate(3)), (NOW, Restore(1))]);
    keeps_every_promise(stateless, &[(NOW, DiskFault("edit", 1)), (NOW, Rotate(3)), (NOW, Restore(3))]);
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
fn a_command_that_waits_for_a_runner_does_not_forget_the_lost_registration_that_follows_it() {
    keeps_every_promise(
        Setup { age: 6480, jitter: 100_000_395, ..TWO_HOURS },
        &[
            (After(2555), KillDaemon),
            (NOW, VerifyDelete(0)),
            (After(60), Enroll(0)),
            (NOW, KillCommands),
            (NOW, Reboot),
            (After(60), Terminate),
            (NOW, Register(0)),
            (NOW, Fault(Registration, Trouble::CutAfter)),
            (NOW, DiskFault("answered", 1)),
            (NOW, Unregister(3)),
            (NOW, StartDaemon),
            (Await(7), Unregister(3)),
            (After(60), Fault(Verification, Trouble::Slow(9))),
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
fn without_a_state_directory_no_second_runner_is_registered_beside_a_good_entry_of_the_name() {
    // An old config.toml has an entry of its name, beside which the daemon restores the present one.
    keeps_every_promise(
        Setup { age: 6480, jitter: 80_045_719, is_stateless: true, ..TWO_HOURS },
        &[
            (NOW, StartDaemon),
            (NOW, Enroll(0)),
            (After(1), Backup),
            (NOW, KillDaemon),
            (NOW, Unregister(2)),
            (After(19_796), StartDaemon),
            (NOW, RestoreConfig),
        ],
    );
    keeps_every_promise(
        Setup { age: 3600, jitter: 80_014_830, is_stateless: true, ..TWO_HOURS },
        &[
            (NOW, StartDaemon),
            (NOW, Enroll(1)),
            (After(1), Lag(30)),
            (NOW, Backup),
            (After(24_142), Wait),
            (NOW, Restore(3)),
            (After(8200), Reboot),
            (After(60), RestoreConfig),
        ],
    );
    keeps_every_promise(
        Setup { age: 51_840, jitter: 80_059_958, is_stateless: true, ..DAY },
        &[
            (NOW, Life(7200)),
            (NOW, Register(0)),
            (NOW, Backup),
            (NOW, Fault(Registration, Trouble::Odd(Oddity::Status200))),
            (NOW, RegisterForce(0)),
            (NOW, StartDaemon),
            (After(9869), Fault(Any, Trouble::SameToken)),
            (NOW, Enroll(0)),
            (After(1), Fault(Probe, Trouble::Slow(5))),
            (NOW, RestoreConfig),
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
fn a_runner_that_no_answer_has_named_for_its_enrollment_does_not_hold_up_a_registration() {
    keeps_every_promise(
        Setup { age: 6480, jitter: 80_018_087, ..TWO_HOURS },
        &[
            (NOW, StartDaemon),
            (NOW, Unregister(0)),
            (NOW, Fault(Registration, Trouble::GatewayAfter(200, Body::Token))),
            (NOW, Enroll(0)),
            (After(1), SwapToken(2, 2)),
            (After(1), Enroll(2)),
            (NOW, ResetInGitlab(0, true)),
            (NOW, Hangup),
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
fn a_given_token_that_was_replaced_is_not_adopted_again_at_a_replica_that_lags() {
    keeps_every_promise(
        Setup { jitter: 90_037_488, is_stateless: true, ..DAY },
        &[
            (NOW, StartDaemon),
            (After(600), Enroll(2)),
            (After(600), Verify(3)),
            (NOW, DateAhead(3)),
            (NOW, KillDaemon),
            (After(28_308), CloseRotation(1, true)),
            (NOW, Hangup),
            (NOW, Down(2000)),
            (After(600), DateAhead(0)),
            (NOW, Wait),
            (NOW, DateAhead(0)),
            (After(60), DiskFault("probe", 1)),
            (After(600), Enroll(1)),
            (After(600), Fault(Verification, Trouble::CutAfter)),
            (After(25_326), Wait),
            (NOW, Life(7200)),
            (NOW, KillCommands),
            (NOW, ResetInGitlab(0, true)),
            (After(600), Fault(Verification, Trouble::SameToken)),
            (NOW, StartDaemon),
            (After(1), Lag(30)),
            (After(1), Lag(30)),
            (After(1), Enroll(0)),
        ],
    );
}

#[test]
fn a_difference_of_clocks_that_a_long_life_tolerates_is_judged_anew_for_a_shorter_one() {
    keeps_every_promise(
        Setup { jitter: 90_011_492, ..DAY },
        &[
            (NOW, StartDaemon),
            (NOW, Enroll(2)),
            (NOW, Life(7200)),
            (After(2404), Unregister(3)),
            (After(600), Fault(ResetById, Trouble::Gateway(501, Body::Message))),
            (After(10_319), VerifyDelete(2)),
            (After(1419), ResetInGitlab(1, true)),
            (After(981), Fault(ResetById, Trouble::CutAfter)),
            (After(25_188), RegisterAgainPolicy(1)),
            (After(7410), Wait),
            (NOW, Down(8000)),
            (NOW, DateAhead(-7200)),
            (After(600), Enroll(2)),
            (After(13_043), AccessToken(false)),
            (NOW, Reboot),
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
fn a_lost_registration_waits_on_if_a_command_could_not_forget_it() {
    keeps_every_promise(
        Setup { jitter: 90_018_055, ..TWO_HOURS },
        &[
            (NOW, DiskFault("forget", 5)),
            (NOW, Enroll(1)),
            (NOW, StartDaemon),
            (NOW, Fault(Registration, Trouble::CutAfter)),
            (NOW, RegisterAgainPolicy(2)),
            (NOW, Restore(1)),
            (After(600), KillDaemon),
            (NOW, RegisterForce(1)),
        ],
    );
}

#[test]
fn without_a_state_directory_what_was_seen_goes_with_the_worker_of_a_found_runner() {
    keeps_every_promise(
        Setup { age: 6480, jitter: 90_000_955, is_stateless: true, ..TWO_HOURS },
        &[
            (NOW, Register(0)),
            (After(16_486), KillDaemon),
            (NOW, GatewayFor(2000, 410, Body::EmptyObject)),
            (NOW, StartDaemon),
            (After(60), Enroll(0)),
            (After(1), DateAhead(0)),
        ],
    );
}

#[test]
fn a_lost_registration_is_not_forgotten_by_a_step_that_fails_at_the_disk() {
    keeps_every_promise(
        Setup { age: 6480, jitter: 91_007_665, ..TWO_HOURS },
        &[
            (NOW, Enroll(0)),
            (NOW, Enroll(1)),
            (NOW, DiskFault("clear", 1)),
            (NOW, DiskFault("probe", 5)),
            (After(600), Fault(Registration, Trouble::CutAfter)),
            (After(600), StartDaemon),
            (After(4), ResetInGitlab(3, true)),
            (NOW, DiskFault("read", 5)),
            (After(60), Share(1)),
        ],
    );
}

#[test]
fn a_registration_is_lost_with_its_own_answer_alone() {
    keeps_every_promise(
        Setup { age: 6480, jitter: 91_020_519, ..TWO_HOURS },
        &[
            (NOW, StartDaemon),
            (NOW, Enroll(1)),
            (NOW, Fault(Reset, Trouble::Odd(Oddity::SpacedTime))),
            (NOW, Terminate),
            (After(600), Restore(3)),
            (NOW, Fault(Registration, Trouble::Slow(9))),
            (NOW, Enroll(0)),
            (After(60), Fault(Registration, Trouble::CutAfter)),
            (NOW, StartDaemon),
            (NOW, Fault(Reset, Trouble::GatewayAfter(204, Body::Message))),
            (After(11_953), Fault(ResetById, Trouble::Connect)),
        ],
    );
}

#[test]
fn nothing_is_urgent_about_a_token_that_has_expired_by_a_clock_that_is_ahead() {
    keeps_every_promise(
        Setup { jitter: 91_002_302, ..DAY },
        &[
            (NOW, Unregister(1)),
            (NOW, Enroll(0)),
            (NOW, Reboot),
            (After(12_777), Quit),
            (After(5869), Terminate),
            (NOW, StartDaemon),
            (After(2373), WallJump(7200)),
            (After(9380), Hangup),
            (After(27_008), ResetInGitlab(3, true)),
            (NOW, Fault(Reset, Trouble::GatewayAfter(200, Body::Empty))),
            (NOW, Enroll(2)),
            (After(22_754), DiskFault("clear", 1)),
            (NOW, Restore(1)),
        ],
    );
}

#[test]
fn an_enrollment_asks_again_soon_although_a_gateway_has_answered_about_the_token_of_an_odd_answer() {
    keeps_every_promise(
        Setup { jitter: 93_003_226, ..TWO_HOURS },
        &[
            (NOW, Fault(Registration, Trouble::Gateway(200, Body::Token))),
            (NOW, Enroll(1)),
            (NOW, Reboot),
            (NOW, GatewayFor(100, 201, Body::EmptyObject)),
            (NOW, Hangup),
        ],
    );
}
