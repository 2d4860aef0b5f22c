//! Which runner an enrollment has.

use super::*;

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
fn an_enrollment_takes_over_what_a_command_has_registered() {
    keeps_every_promise(DAY, &[(NOW, RegisterForce(0)), (NOW, Enroll(0))]);
}

#[test]
fn two_enrollments_of_one_name_never_share_a_runner() {
    keeps_every_promise(DAY, &[(NOW, StartDaemon), (NOW, Enroll(0)), (After(10), Enroll(3)), (After(60), Reboot)]);
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
fn a_former_token_brings_back_a_found_runner_that_is_never_deleted() {
    keeps_every_promise(
        Setup { jitter: 110_002_297, ..FOR_EVER },
        &[
            (NOW, Reboot),
            (NOW, Enroll(0)),
            (After(1), Restore(2)),
            (NOW, SwapToken(2, 3)),
            (NOW, WallJump(90_000)),
            (NOW, Life(7200)),
            (After(1775), RegisterForce(0)),
            (NOW, Quit),
            (After(10_712), Enroll(0)),
            (NOW, StartDaemon),
            (After(60), Terminate),
        ],
    );
}

#[test]
fn an_enrollment_gets_the_entry_that_kept_its_registration_waiting() {
    keeps_every_promise(
        Setup { jitter: 120_016_129, ..DAY },
        &[
            (NOW, StartDaemon),
            (NOW, Fault(DeleteRunner, Trouble::CutAfter)),
            (After(24_463), RestoreConfig),
            (After(9370), ResetInGitlab(1, false)),
            (NOW, Enroll(1)),
            (NOW, Hangup),
            (NOW, Terminate),
            (NOW, SwapToken(2, 3)),
            (After(25_861), Fault(Registration, Trouble::CutAfter)),
            (NOW, RegisterAgainPolicy(2)),
            (After(27_273), Restore(3)),
        ],
    );
}

#[test]
fn a_backup_restored_between_a_verification_and_a_registration_goes_unnoticed() {
    keeps_every_promise(
        Setup { jitter: 130_000_971, ..FOR_EVER },
        &[
            (NOW, StartDaemon),
            (NOW, Fault(ResetById, Trouble::CutAfter)),
            (NOW, Enroll(1)),
            (After(1), KillDaemon),
            (NOW, Rotate(0)),
            (NOW, Unregister(3)),
            (NOW, Fault(Probe, Trouble::ServerError)),
            (NOW, RotateById(1)),
            (After(600), Wait),
            (NOW, Reboot),
            (Await(20), Restore(3)),
        ],
    );
}

#[test]
fn no_runner_is_registered_beside_one_that_the_enrollment_had_left_for_another() {
    keeps_every_promise(
        Setup { jitter: 18_150, mistakes: Mistakes::OneByOne, ..FOR_EVER },
        &[
            (NOW, Register(0)),
            (NOW, Unregister(0)),
            (NOW, Unregister(2)),
            (NOW, ResetInGitlab(2, false)),
            (NOW, SwapToken(2, 1)),
            (NOW, Fault(ResetById, Trouble::CutAfter)),
            (NOW, Enroll(0)),
            (NOW, StartDaemon),
            (After(60), RotateById(0)),
            (NOW, ResetInGitlab(2, true)),
        ],
    );
}
