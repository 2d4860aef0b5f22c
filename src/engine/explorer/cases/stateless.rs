//! Without a state directory.

use super::*;

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
fn without_a_state_directory_a_token_that_a_backup_brings_back_during_its_reset_is_written_over() {
    let stateless = Setup { is_stateless: true, ..DAY };
    keeps_every_promise(stateless, &[(NOW, Fault(Reset, Trouble::Slow(2))), (NOW, Rotate(3)), (NOW, Restore(1))]);
    keeps_every_promise(stateless, &[(NOW, DiskFault("edit", 1)), (NOW, Rotate(3)), (NOW, Restore(3))]);
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
fn without_a_state_directory_the_token_of_another_runner_is_none_of_a_twin() {
    keeps_every_promise(
        Setup { jitter: 120_006_385, is_stateless: true, ..DUE },
        &[
            (NOW, StartDaemon),
            (NOW, Fault(DeleteRunner, Trouble::SameToken)),
            (NOW, Enroll(0)),
            (NOW, Unregister(1)),
            (After(1), RemoveId(0)),
            (NOW, ResetInGitlab(3, true)),
            (After(1), DateAhead(2_000_000)),
            (NOW, ResetInGitlab(3, false)),
            (After(1928), DiskFault("forget", 1)),
            (NOW, SwapToken(1, 1)),
            (After(1), Terminate),
        ],
    );
}

#[test]
fn without_a_state_directory_a_runner_goes_from_one_enrollment_to_another_one_of_its_name() {
    keeps_every_promise(
        Setup { jitter: 180_004_244, is_stateless: true, ..TWO_HOURS },
        &[
            (After(14_708), Enroll(0)),
            (NOW, StartDaemon),
            (NOW, Unenroll(0)),
            (NOW, Fault(Reset, Trouble::ServerError)),
            (NOW, Enroll(3)),
            (After(17_206), Fault(Verification, Trouble::GatewayAfter(502, Body::Message))),
        ],
    );
}

#[test]
fn an_entry_with_a_dead_token_is_not_restored_for_another_runner_to_write_over_again_and_again() {
    keeps_every_promise(
        Setup { age: 3600, jitter: 18_991, is_stateless: true, ..TWO_HOURS },
        &[
            (NOW, Reboot),
            (NOW, Enroll(1)),
            (After(1), Verify(1)),
            (NOW, Restore(1)),
            (NOW, Enroll(0)),
            (After(1), Quit),
            (NOW, Fault(Registration, Trouble::GatewayAfter(503, Body::Token))),
            (After(14_217), Hangup),
            (NOW, SwapToken(2, 3)),
            (NOW, StartDaemon),
            (After(60), UnregisterPolicy(2)),
        ],
    );
}
