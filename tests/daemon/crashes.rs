//! Killed with -9 at any moment, and started again.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use test_gitlab::{Endpoint, Fault, Gitlab};

use super::bench::Bench;

#[test]
fn killed_at_any_moment_there_is_one_runner_in_the_end() {
    let mut rounds = 0;
    for delay in (0..40).map(|step| Duration::from_millis(step * 2)) {
        let bench = Bench::enrolling(Gitlab::builder().token_life("1h"), "");
        let daemon = bench.start();
        thread::sleep(delay);
        daemon.kill();
        let daemon = bench.serving();
        bench.wait("a registered runner", |bench| {
            bench.gitlab.runners().iter().any(|runner| bench.config().contains(&runner.token))
        });
        let (_, log) = daemon.stop(Signal::QUIT);
        assert_eq!(bench.config().matches("[[runners]]").count(), 1, "killed after {delay:?}");
        let names_an_orphan = log.contains("the answer to a registration was lost");
        let registrations = bench.gitlab.requests_to(Endpoint::Register).len();
        assert!(registrations == 1 || (registrations == 2 && names_an_orphan), "killed after {delay:?}: {log}");
        rounds += 1;
    }
    assert_eq!(rounds, 40);
}

#[test]
fn a_kill_while_the_registration_is_outstanding_names_the_possible_orphan() {
    let bench = Bench::enrolling(Gitlab::builder().token_life("1h"), "");
    let held = bench.gitlab.order(Endpoint::Register, Fault::hold().after_acting());
    let daemon = bench.start();
    bench.wait("the runner to be made", |bench| bench.gitlab.runners().len() == 1);
    daemon.kill();
    held.release();
    let daemon = bench.serving();
    bench.wait("a second runner", |bench| {
        bench.gitlab.runners().iter().any(|runner| bench.config().contains(&runner.token))
    });
    let log = daemon.log();
    assert!(log.contains("the answer to a registration was lost") && log.contains("description=\"build-1\""), "{log}");
}

#[test]
fn a_kill_while_the_reset_is_outstanding_is_settled_by_the_old_token() {
    let settings = "[timing]\nsettle_after = \"300ms\"\nfloor = \"100ms\"\nbetween_resets_floor = \"1s\"\n";
    let bench = Bench::enrolling(Gitlab::builder().token_life("8s"), settings);
    // The reset never acts: the old token stays the valid one.
    bench.gitlab.order(Endpoint::Reset, Fault::hold());
    let daemon = bench.start();
    bench.wait("a reset that is outstanding", |bench| bench.gitlab.requests_to(Endpoint::Reset).len() == 1);
    daemon.kill();
    let daemon = bench.serving();
    bench.wait("the rotation to be repeated", |bench| bench.gitlab.runners()[0].rotations >= 1 && bench.is_in_step());
    assert!(daemon.log().contains("the answer to a rotation was lost"), "{}", daemon.log());
    assert_eq!(bench.gitlab.requests_to(Endpoint::Register).len(), 1);
}

#[test]
fn a_shutdown_whose_answer_was_lost_is_finished_by_the_next_start() {
    let bench = Bench::enrolling(Gitlab::builder().token_life("1h"), "");
    let daemon = bench.start();
    bench.wait_for_registration();
    bench.gitlab.order(Endpoint::Delete, Fault::cut().after_acting());
    let (_, log) = daemon.stop(Signal::TERM);
    assert!(log.contains("cannot unregister"), "{log}");
    assert!(bench.gitlab.runners().is_empty());
    let daemon = bench.start();
    bench.wait_for_registration();
    assert!(daemon.log().contains("finished an unregistration"), "{}", daemon.log());
}
