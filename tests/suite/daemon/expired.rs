//! A given token that expires while no daemon runs.

use fake_gitlab::{Gitlab, NewRunner};
use jiff::SignedDuration;
use rustix::process::Signal;
use test_support::Sandbox;

/// What the server's answer to a refused token may mean, if nothing else is known.
const GUESS: &str = "or its token expired or was rotated elsewhere";

/// A sandbox with a runner that is registered from the token in the file `token`, which has expired since. Returns its id.
fn expired() -> (Sandbox, u64) {
    let sandbox = super::sandbox(Gitlab::builder().token_life("4s"));
    let (id, token) = sandbox.gitlab.add_runner(NewRunner::instance());
    sandbox.write("token", &token);
    sandbox.write("agent.toml", &sandbox.enrollment("build-1", "token = { file = \"token\" }"));
    let daemon = sandbox.start_serving();
    sandbox.wait("the registration", |sandbox| sandbox.config().contains("build-1"));
    daemon.stop(Signal::QUIT).exits(0);
    // The time in the header of an answer has no fractions of a second.
    let has_expired = |sandbox: &Sandbox| {
        let expires_at = sandbox.gitlab.runner(id).unwrap().token_expires_at.unwrap();
        expires_at + SignedDuration::from_secs(1) < sandbox.gitlab.now()
    };
    sandbox.wait("the expiry", has_expired);
    (sandbox, id)
}

/// Waits until two refusals have proven that the token is dead.
fn wait_for_the_conclusion(sandbox: &Sandbox) {
    sandbox.wait("the conclusion", |sandbox| sandbox.state().contains(r#""state": "rejected""#));
}

#[test]
fn a_token_that_expired_is_expired_everywhere_and_promised_no_rotation() {
    let (sandbox, _) = expired();
    let states = |command: &str| {
        let runner = sandbox.run(&[command, "--output", "json"]).runners()[0].clone();
        assert!(runner["rotation"].is_null(), "{command}: {runner}");
        runner["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(["list", "plan"].map(states), ["expired"; 2]);
    let daemon = sandbox.start_serving();
    wait_for_the_conclusion(&sandbox);
    assert_eq!(["list", "status", "plan"].map(states), ["expired"; 3]);
    for command in ["list", "status"] {
        let listed = sandbox.run(&[command, "--state", "expired"]);
        assert!(listed.exits(0).stdout.contains("build-1"), "{listed:?}");
    }
    daemon.stop(Signal::QUIT).exits(0);
}

#[test]
fn a_token_that_expired_is_called_expired_and_the_file_for_a_new_one_named() {
    let (sandbox, _) = expired();
    let remedy = format!("or a new token of this one, to the file `{}`", sandbox.path("token").display());
    let of_command = "or a new token of this one, to where the [[enroll]] `build-1` of agent.toml reads it";
    let (verify, rotate) = (&["verify"][..], &["rotate", "--all-runners"][..]);
    for (args, remedy) in [(verify, of_command), (rotate, of_command), (&["doctor"], &remedy)] {
        let output = sandbox.run(args);
        let text = format!("{}{}", output.stdout, output.stderr);
        assert!(text.contains("the token expired 20") && text.contains(remedy), "{text}");
        assert!(!output.stderr.contains(GUESS) && !output.stdout.contains(GUESS), "{output:?}");
    }
    let daemon = sandbox.start_serving();
    wait_for_the_conclusion(&sandbox);
    let shown = sandbox.run(&["status"]).stdout.clone();
    assert!(shown.contains("the token expired 20") && shown.contains(&remedy), "{shown}");
    assert_eq!(shown.matches("the token expired").count(), 1, "the reason is given once: {shown}");
    let output = daemon.stop(Signal::QUIT).exits(0).stderr.clone();
    assert!(output.lines().any(|line| line.contains("ERROR the token expired 20")), "{output}");
    assert!(!output.contains(GUESS), "{output}");
}

#[test]
fn a_new_token_in_the_file_replaces_the_expired_one_at_once() {
    let (sandbox, id) = expired();
    let daemon = sandbox.start_serving();
    wait_for_the_conclusion(&sandbox);
    sandbox.gitlab.set_token_life("1d");
    sandbox.write("token", &sandbox.gitlab.revoke(id));
    sandbox.wait("the new token", |sandbox| sandbox.config().contains(&sandbox.gitlab.runner(id).unwrap().token));
    daemon.stop(Signal::QUIT).exits(0);
}
