//! One pass, and signals that come in the middle of it.

use super::enrolled;
use fake_gitlab::{Endpoint, Fault, Gitlab, Order};
use rustix::process::Signal;
use test_support::{Output, Process, Sandbox};

const FINISHING: &str = "interrupted: finishing operations in progress";

/// A pass whose registration is held by the server, and which got a signal to stop.
fn interrupted(sandbox: &Sandbox) -> (Process, Order) {
    let held = sandbox.gitlab.order(Endpoint::Register, Fault::hold().after_acting());
    let pass = sandbox.start(&["run", "--once"]);
    sandbox.wait("the runner to be made", |sandbox| sandbox.gitlab.runners().len() == 1);
    pass.signal(Signal::TERM);
    sandbox.wait("the signal to be noticed", |_| pass.log().contains(FINISHING));
    (pass, held)
}

#[test]
fn a_pass_that_is_told_to_stop_finishes_what_is_under_way() {
    let sandbox = enrolled(Gitlab::builder(), "[shutdown]\ngrace = \"1h\"\n");
    let (pass, held) = interrupted(&sandbox);
    held.release();
    let Output { code, stderr: log, .. } = pass.end();
    assert!(code == Some(0), "{log}");
    assert!(sandbox.is_in_step());
}

#[test]
fn a_pass_that_is_told_to_stop_ends_with_the_grace_time() {
    let sandbox = enrolled(Gitlab::builder(), "[shutdown]\ngrace = \"200ms\"\n");
    let (pass, _held) = interrupted(&sandbox);
    let Output { code, stderr: log, .. } = pass.end();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("the grace time is over"), "{log}");
}

#[test]
fn a_pass_that_is_told_to_stop_twice_ends_at_once() {
    let sandbox = enrolled(Gitlab::builder(), "[shutdown]\ngrace = \"1h\"\n");
    let (pass, _held) = interrupted(&sandbox);
    let Output { code, stderr: log, .. } = pass.stop(Signal::INT);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("a second signal came"), "{log}");
}
