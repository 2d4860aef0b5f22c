//! `run --once` and signals during the pass.

use super::enrolled;
use fake_gitlab::{Endpoint, Fault, Gitlab, Order};
use rustix::process::Signal;
use test_support::{Output, Process, Sandbox};

const FINISHING: &str = "interrupted: finishing operations in progress";

/// Starts a pass whose registration the server holds, and sends it a signal.
fn interrupted(sandbox: &Sandbox) -> (Process, Order) {
    let held = sandbox.gitlab.order(Endpoint::Register, Fault::hold().after_acting());
    let pass = sandbox.start(&["run", "--once"]);
    sandbox.wait("the runner to be created", |sandbox| sandbox.gitlab.runners().len() == 1);
    pass.signal(Signal::TERM);
    sandbox.wait("the signal to be noticed", |_| pass.log().contains(FINISHING));
    (pass, held)
}

#[test]
fn interrupted_pass_finishes_operations_in_progress() {
    let sandbox = enrolled(Gitlab::builder(), "[shutdown]\ngrace = \"1h\"\n");
    let (pass, held) = interrupted(&sandbox);
    held.release();
    let Output { code, stderr: log, .. } = pass.end();
    assert!(code == Some(0), "{log}");
    assert!(sandbox.is_in_step());
}

#[test]
fn interrupted_pass_ends_after_the_grace_time() {
    let sandbox = enrolled(Gitlab::builder(), "[shutdown]\ngrace = \"200ms\"\n");
    let (pass, _held) = interrupted(&sandbox);
    let Output { code, stderr: log, .. } = pass.end();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("the grace time is over"), "{log}");
}

#[test]
fn second_signal_ends_a_pass_immediately() {
    let sandbox = enrolled(Gitlab::builder(), "[shutdown]\ngrace = \"1h\"\n");
    let (pass, _held) = interrupted(&sandbox);
    let Output { code, stderr: log, .. } = pass.stop(Signal::INT);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("a second signal came"), "{log}");
}
