//! Tokens that are replaced, lost, refused, and good again.

use super::*;

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
fn a_former_token_is_held_when_gitlab_is_restored_from_a_backup() {
    keeps_every_promise(TWO_HOURS, &[(NOW, StartDaemon), (After(11_712), Reboot), (NOW, Restore(1))]);
}

#[test]
fn a_restored_gitlab_is_followed_without_a_moment_in_which_nothing_holds_its_token() {
    keeps_every_promise(DUE, &[(NOW, StartDaemon), (NOW, Restore(2)), (NOW, Hangup)]);
}

#[test]
fn a_token_in_an_answer_with_an_odd_expiry_or_content_type_is_kept() {
    for oddity in Oddity::ALL {
        keeps_every_promise(DAY, &[(NOW, Fault(Any, Trouble::Odd(oddity))), (NOW, Register(1))]);
        keeps_every_promise(DAY, &[(NOW, Fault(Any, Trouble::Odd(oddity))), (NOW, Rotate(0))]);
    }
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
fn one_404_to_a_reset_by_id_ends_no_recovery() {
    for trouble in [Trouble::Gateway(404, Body::Message), Trouble::Missing] {
        let played = keeps_every_promise(
            DUE,
            &[
                (NOW, AccessToken(true)),
                (NOW, Fault(Reset, Trouble::CutAfter)),
                (NOW, Fault(ResetById, trouble)),
                (NOW, StartDaemon),
                (After(600), Wait),
            ],
        );
        let soon = played.trace.iter().take_while(|line| !line.ends_with("rest"));
        let answers = soon.filter(|line| line.contains("ResetById about")).count();
        assert_eq!(answers, 2, "a 404 and a success:\n{}", played.trace.join("\n"));
    }
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
fn a_reset_that_a_command_has_lost_is_settled_although_a_gateway_was_not_understood_before() {
    keeps_every_promise(
        Setup { jitter: 93_003_631, ..DAY },
        &[
            (NOW, SwapToken(2, 2)),
            (NOW, Life(7200)),
            (NOW, Reboot),
            (NOW, Enroll(0)),
            (After(1), Lag(10)),
            (NOW, GatewayFor(2000, 202, Body::Error)),
            (NOW, RegisterAgainPolicy(2)),
            (After(890), Hangup),
            (NOW, Restore(3)),
            (NOW, RotateById(2)),
        ],
    );
}

#[test]
fn a_stop_does_not_forget_the_reset_that_a_command_has_lost() {
    keeps_every_promise(
        Setup { age: 51_840, jitter: 160_002_362, ..DAY },
        &[
            (NOW, StartDaemon),
            (NOW, Unenroll(1)),
            (NOW, Unregister(0)),
            (NOW, Fault(Reset, Trouble::CutAfter)),
            (NOW, Enroll(3)),
            (After(1), Rotate(1)),
            (After(60), Restore(3)),
            (After(60), Terminate),
        ],
    );
}
