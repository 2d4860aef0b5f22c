//! SIGKILL at any moment, followed by a restart.

use super::enrolled;
use std::thread;
use std::time::Duration;

use fake_gitlab::{Endpoint, Fault, Gitlab};
use rustix::process::Signal;

/// What the log says about a registration without an answer.
const LOST: &str = "the answer to a registration was lost";

#[test]
fn kill_at_any_moment_leaves_one_entry() {
    let mut rounds = 0;
    for delay in (0..40).map(|step| Duration::from_millis(step * 2)) {
        let sandbox = enrolled(Gitlab::builder().token_life("1h"), "");
        let daemon = sandbox.start(&["run"]);
        thread::sleep(delay);
        daemon.kill();
        let daemon = sandbox.start_serving();
        if daemon.log().contains(LOST) {
            // A registration that may have been executed is repeated only if a person says so.
            daemon.signal(Signal::HUP);
        }
        sandbox.wait("a registered runner", |sandbox| {
            sandbox.gitlab.runners().iter().any(|runner| sandbox.config().contains(&runner.token))
        });
        let log = daemon.stop(Signal::QUIT).stderr;
        assert_eq!(sandbox.config().matches("[[runners]]").count(), 1, "killed after {delay:?}");
        let names_an_orphan = log.contains(LOST);
        let registrations = sandbox.gitlab.requests_to(Endpoint::Register).len();
        assert!(registrations == 1 || (registrations == 2 && names_an_orphan), "killed after {delay:?}: {log}");
        rounds += 1;
    }
    assert_eq!(rounds, 40);
}

#[test]
fn kill_during_registration_reports_a_possible_orphan() {
    let sandbox = enrolled(Gitlab::builder().token_life("1h"), "");
    let held = sandbox.gitlab.order(Endpoint::Register, Fault::hold().after_acting());
    let daemon = sandbox.start(&["run"]);
    sandbox.wait("the runner to be created", |sandbox| sandbox.gitlab.runners().len() == 1);
    daemon.kill();
    held.release();
    let daemon = sandbox.start_serving();
    sandbox.wait("a lost registration", |sandbox| sandbox.state().contains("registration_lost"));
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), 1, "it is not repeated by itself");
    daemon.signal(Signal::HUP);
    sandbox.wait("a second runner", |sandbox| {
        sandbox.gitlab.runners().iter().any(|runner| sandbox.config().contains(&runner.token))
    });
    let log = daemon.log();
    assert!(log.contains(LOST) && log.contains("description=\"build-1\""), "{log}");
}

#[test]
fn kill_during_a_reset_is_settled_with_the_old_token() {
    let settings = "[timing]\nsettle_after = \"300ms\"\nfloor = \"100ms\"\nbetween_resets_floor = \"1s\"\n";
    let sandbox = enrolled(Gitlab::builder().token_life("8s"), settings);
    // The server never resets the token, so the old one stays valid.
    sandbox.gitlab.order(Endpoint::Reset, Fault::hold());
    let daemon = sandbox.start(&["run"]);
    sandbox.wait("a reset that is outstanding", |sandbox| sandbox.gitlab.requests_to(Endpoint::Reset).len() == 1);
    daemon.kill();
    let daemon = sandbox.start_serving();
    sandbox.wait("the rotation to be repeated", |sandbox| {
        sandbox.gitlab.runners()[0].rotations >= 1 && sandbox.is_in_step()
    });
    assert!(daemon.log().contains("the answer to a rotation was lost"), "{}", daemon.log());
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), 1);
}

#[test]
fn lost_unregistration_is_finished_at_the_next_start() {
    let settings = "[timing]\nconfirm_after = \"100ms\"\nfloor = \"100ms\"\n[shutdown]\ngrace = \"1s\"\n";
    let sandbox = enrolled(Gitlab::builder().token_life("1h"), settings);
    let daemon = sandbox.start(&["run"]);
    sandbox.wait_for_registration();
    sandbox.gitlab.order(Endpoint::Delete, Fault::cut().after_acting());
    sandbox.gitlab.order(Endpoint::Verify, Fault::html(502)).always();
    let log = daemon.stop(Signal::TERM).stderr;
    assert!(log.contains("cannot unregister"), "{log}");
    assert!(sandbox.gitlab.runners().is_empty());
    sandbox.gitlab.clear_faults();
    let daemon = sandbox.start(&["run"]);
    sandbox.wait_for_registration();
    assert!(daemon.log().contains("finished an unregistration"), "{}", daemon.log());
}
