//! Registrations whose answer was lost or not understood.

use super::*;

#[test]
fn time_that_passes_after_two_refusals_does_not_prove_a_registered_token_dead() {
    keeps_every_promise(
        Setup { jitter: 70_000_608, ..FOR_EVER },
        &[
            (NOW, Reboot),
            (NOW, Fault(Registration, Trouble::Odd(Oddity::JsonApi))),
            (NOW, Enroll(1)),
            (Await(17), Lag(30)),
            (Await(24), Terminate),
            (After(60), StartDaemon),
            (NOW, Hangup),
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
fn a_registration_without_an_answer_is_not_made_good_by_a_second_one_at_once() {
    keeps_every_promise(
        DAY,
        &[(NOW, Fault(Registration, Trouble::CutAfter)), (NOW, Enroll(0)), (NOW, StartDaemon), (After(600), Wait)],
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
