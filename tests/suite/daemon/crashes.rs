//! SIGKILL at any moment, followed by a restart.

use super::enrolled;
use std::thread;
use std::time::Duration;

use fake_gitlab::{Answer, Endpoint, Fault, Gitlab};
use rustix::process::Signal;
use test_support::Output;

/// What a daemon logs that does not repeat a registration by itself.
const REGISTRATION_LOST: &str = "then reload the agent: it registers then";

#[test]
fn kill_at_any_moment_leaves_one_entry() {
    let mut rounds = 0;
    for delay in (0..40).map(|step| Duration::from_millis(step * 2)) {
        let sandbox = enrolled(Gitlab::builder().token_life("1h"), "");
        let daemon = sandbox.start(&["run"]);
        thread::sleep(delay);
        daemon.kill();
        let daemon = sandbox.start_serving();
        let mut is_asked = false;
        sandbox.wait("a registered runner", |sandbox| {
            // A person looks for the orphan first.
            if !is_asked && daemon.log().contains(REGISTRATION_LOST) {
                daemon.signal(Signal::HUP);
                is_asked = true;
            }
            sandbox.gitlab.runners().iter().any(|runner| sandbox.config().contains(&runner.token))
        });
        let log = daemon.stop(Signal::QUIT).stderr;
        assert_eq!(sandbox.config().matches("[[runners]]").count(), 1, "killed after {delay:?}");
        let names_an_orphan = log.contains("the answer to a registration was lost");
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
    sandbox.wait("the question", |_| daemon.log().contains(REGISTRATION_LOST));
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), 1, "it is not repeated by itself");
    daemon.signal(Signal::HUP);
    sandbox.wait("a second runner", |sandbox| {
        sandbox.gitlab.runners().iter().any(|runner| sandbox.config().contains(&runner.token))
    });
    let log = daemon.log();
    assert!(log.contains("the answer to a registration was lost") && log.contains("description=\"build-1\""), "{log}");
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

const FAST: &str = "[timing]\nconfirm_after = \"10ms\"\nfloor = \"10ms\"\n";

#[test]
fn lost_unregistration_is_settled_by_asking_before_the_end() {
    let sandbox = enrolled(Gitlab::builder().token_life("1h"), FAST);
    let daemon = sandbox.start(&["run"]);
    sandbox.wait_for_registration();
    sandbox.gitlab.order(Endpoint::Delete, Fault::cut().after_acting());
    let Output { code, stderr: log, .. } = daemon.stop(Signal::TERM);
    assert_eq!(code, Some(0), "{log}");
    assert!(sandbox.is_in_step() && sandbox.gitlab.runners().is_empty(), "{log}");
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Delete).len(), 1, "{log}");
}

#[test]
fn lost_unregistration_is_settled_by_asking_at_the_next_start() {
    let sandbox = enrolled(Gitlab::builder().token_life("1h"), &format!("{FAST}[shutdown]\ngrace = \"1s\"\n"));
    let daemon = sandbox.start(&["run"]);
    sandbox.wait_for_registration();
    sandbox.gitlab.order(Endpoint::Delete, Fault::cut().after_acting());
    sandbox.gitlab.order(Endpoint::Verify, Fault::cut()).always();
    let log = daemon.stop(Signal::TERM).stderr;
    assert!(log.contains("cannot unregister"), "{log}");
    assert!(sandbox.gitlab.runners().is_empty());
    sandbox.gitlab.clear_faults();
    let daemon = sandbox.start(&["run"]);
    sandbox.wait_for_registration();
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Delete).len(), 1, "{}", daemon.log());
}

#[test]
fn refused_deletion_of_a_stop_does_not_count_as_done() {
    let sandbox = enrolled(Gitlab::builder().token_life("1h"), FAST);
    let daemon = sandbox.start(&["run"]);
    sandbox.wait_for_registration();
    sandbox.gitlab.order(Endpoint::Delete, Fault::answer(Answer::message(403, "403 Forbidden")).with_meta());
    let Output { stderr: log, .. } = daemon.stop(Signal::TERM);
    assert!(log.contains("not unregistered: the server still accepts its token"), "{log}");
    assert!(sandbox.is_in_step() && sandbox.gitlab.runners().len() == 1, "{log}");
    assert!(sandbox.config().contains("[[runners]]"), "{log}");
}

#[test]
fn gateways_404_to_the_deletion_of_a_stop_leaves_entry_and_runner() {
    let json = |text: &str| Fault::json(404, serde_json::json!({ "message": text }));
    for fault in [Fault::html(404), json("no Route matched with those values"), json("Not Found")] {
        let sandbox = enrolled(Gitlab::builder().token_life("1h"), FAST);
        let daemon = sandbox.start(&["run"]);
        sandbox.wait_for_registration();
        let config = sandbox.config();
        sandbox.gitlab.order(Endpoint::Delete, fault.clone());
        let Output { stderr: log, .. } = daemon.stop(Signal::TERM);
        assert!(log.contains("cannot unregister"), "{fault:?}: {log}");
        assert_eq!((sandbox.config(), sandbox.gitlab.runners().len()), (config, 1), "{fault:?}: {log}");
        assert_eq!(sandbox.gitlab.requests_to(Endpoint::Delete).len(), 1, "{fault:?}: {log}");
    }
}
