//! Clocks of GitLab, of gateways and of this machine that are wrong.

use super::*;

#[test]
fn a_date_ahead_of_gitlabs_own_clock_causes_no_stream_of_rotations() {
    keeps_every_promise(DAY, &[(NOW, DateAhead(90_000)), (NOW, Reboot), (After(60), Wait)]);
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
