//! `run --once` and signals during the pass.

use super::enrolled;
use fake_gitlab::{Endpoint, Fault, Gitlab, Order};
use rustix::process::Signal;
use test_support::{Output, Process, Sandbox};

const FINISHING: &str = "interrupted: finishing operations in progress";
const ONLY_COPY: &str = "waiting for answers that are the only copies of new tokens";

/// The time after which a request is given up, and no answer is waited for.
const IMPATIENT: &str = "[gitlab]\nrequest_timeout = \"2s\"\n";

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
    let sandbox = super::sandbox(Gitlab::builder());
    sandbox.add_created("found");
    sandbox.write("agent.toml", "[shutdown]\ngrace = \"200ms\"\n");
    let _held = sandbox.gitlab.order(Endpoint::Verify, Fault::hold());
    let pass = sandbox.start(&["run", "--once"]);
    sandbox.wait_for_requests(Endpoint::Verify, 1);
    let Output { code, stderr: log, .. } = pass.stop(Signal::TERM);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("the grace time is over"), "{log}");
}

#[test]
fn interrupted_pass_waits_for_a_new_token_beyond_the_grace_time() {
    let sandbox = enrolled(Gitlab::builder(), "[shutdown]\ngrace = \"10ms\"\n");
    let (pass, held) = interrupted(&sandbox);
    sandbox.wait("the end of the grace time", |_| pass.log().contains(ONLY_COPY));
    held.release();
    let Output { code, stderr: log, .. } = pass.end();
    assert!(matches!(code, Some(0 | 1)), "{log}");
    assert!(sandbox.is_in_step());
}

#[test]
fn interrupted_pass_waits_no_longer_than_a_request_takes() {
    let sandbox = enrolled(Gitlab::builder(), &format!("[shutdown]\ngrace = \"10ms\"\n{IMPATIENT}"));
    let (pass, _held) = interrupted(&sandbox);
    let Output { code, stderr: log, .. } = pass.end();
    assert!(log.contains(ONLY_COPY), "{log}");
    assert_ne!(code, Some(0), "{log}");
}

#[test]
fn third_signal_ends_a_pass_immediately() {
    let sandbox = enrolled(Gitlab::builder(), "[shutdown]\ngrace = \"1h\"\n[gitlab]\nrequest_timeout = \"1h\"\n");
    let (pass, _held) = interrupted(&sandbox);
    pass.signal(Signal::INT);
    sandbox.wait("the second signal to be noticed", |_| pass.log().contains(ONLY_COPY));
    let Output { code, stderr: log, .. } = pass.stop(Signal::INT);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("another signal came"), "{log}");
}
