//! `plan` and `run --dry-run`.

use fake_gitlab::{Endpoint, Gitlab, NewRunner};
use rustix::process::Signal;
use test_support::Sandbox;

/// A sandbox with an enrollment that is not registered yet, and an entry that was only found.
fn sandbox() -> Sandbox {
    let sandbox = super::sandbox_with(Gitlab::builder().token_life("1d"));
    let (id, token) = sandbox.gitlab.add_runner(NewRunner::instance());
    sandbox.write_config(&sandbox.entry("found", id, &token));
    sandbox.write("token", &sandbox.gitlab.instance_registration_token());
    sandbox.write("agent.toml", &sandbox.enrollment("build-1", "registration_token = { file = \"token\" }"));
    sandbox
}

#[test]
fn plan_says_what_is_next_and_what_a_stop_deletes_without_a_request() {
    let sandbox = sandbox();
    let config = sandbox.config();
    for args in [&["plan"][..], &["run", "--dry-run"]] {
        let text = sandbox.run(args).exits(0).stdout.clone();
        let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        assert!(line("build-1").contains("register ") && line("build-1").contains("not registered"), "{text}");
        assert!(line("build-1").ends_with("delete runner"), "{text}");
        assert!(line("found").contains("verify ") && line("found").contains("(last resort)"), "{text}");
        assert!(line("found").ends_with("keep"), "{text}");
    }
    let runners = sandbox.run(&["plan", "--output", "json"]).runners();
    let found = runners.iter().find(|runner| runner["name"] == "found").unwrap();
    assert_eq!(found["rotation"]["rule"], "last_resort");
    assert_eq!(found["at_stop"], "keep");
    assert_eq!(found["next"]["step"], "verify");
    assert!(sandbox.gitlab.requests().is_empty(), "no server is asked");
    assert_eq!(sandbox.config(), config);
    assert!(!sandbox.path("state").exists(), "nothing is written");
}

#[test]
fn plan_says_that_a_token_file_cannot_be_used() {
    let sandbox = sandbox();
    assert!(!sandbox.run(&["plan"]).exits(0).stderr.contains("warning"));
    sandbox.write("token", "glpat-0123456789abcdefghij");
    let planned = sandbox.run(&["plan"]);
    planned.exits(0).says("warning: runner `build-1`: it cannot be registered: the file").says("access token (glpat-)");
    planned.hides(&["0123456789abcdefghij"]);
    std::fs::remove_file(sandbox.path("token")).unwrap();
    sandbox.run(&["plan"]).exits(0).says("it cannot be registered: cannot read the token file");
    assert!(sandbox.gitlab.requests().is_empty());
}

#[test]
fn plan_follows_the_settings_beside_a_running_daemon() {
    let sandbox = sandbox();
    let daemon = sandbox.start_serving();
    sandbox.wait("the registration", |sandbox| sandbox.config().contains("build-1"));
    let at_stop = |name: &str| {
        let runners = sandbox.run(&["plan", "--output", "json"]).runners();
        runners.iter().find(|runner| runner["name"] == name).unwrap()["at_stop"].clone()
    };
    assert_eq!((at_stop("build-1"), at_stop("found")), ("delete_runner".into(), "keep".into()));
    let enrollment = sandbox.read("agent.toml");
    sandbox
        .write("agent.toml", &format!("[shutdown]\nunregister = \"never\"\n[rotate]\nfound = \"never\"\n{enrollment}"));
    assert_eq!(at_stop("build-1"), "keep");
    let text = sandbox.run(&["plan"]).exits(0).stdout.clone();
    assert!(text.lines().any(|line| line.starts_with("found") && line.contains("  never  ")), "{text}");
    daemon.stop(Signal::QUIT).exits(0);
}

#[test]
fn plan_says_that_a_start_revives_a_retired_runner() {
    let sandbox = super::sandbox();
    let (_, token) = sandbox.gitlab.add_runner(NewRunner::instance());
    sandbox.write("token", &token);
    sandbox.write("agent.toml", &sandbox.enrollment("build-1", "token = { file = \"token\" }"));
    let planned = |args: &[&str]| {
        let runner = sandbox.run(args).exits(0).runners()[0].clone();
        [&runner["state"], &runner["next"]["step"], &runner["next"]["why"], &runner["at_stop"]]
            .map(|value| value.as_str().unwrap().to_owned())
    };
    let before = planned(&["plan", "--output", "json"]);
    assert_eq!(before, ["unregistered", "register", "not_registered", "delete_manager"]);
    let is_ready = |sandbox: &Sandbox| sandbox.config().contains("build-1");
    let daemon = sandbox.start_serving();
    sandbox.wait("the registration", is_ready);
    daemon.stop(Signal::TERM).exits(0);
    let asked = sandbox.gitlab.requests_to(Endpoint::Verify).len();
    for args in [&["plan", "--output", "json"][..], &["plan", "--verify", "--output", "json"]] {
        assert_eq!(planned(args), ["retired", "verify", "revive", "delete_manager"]);
    }
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Verify).len(), asked, "a plan makes no manager");
    let daemon = sandbox.start_serving();
    sandbox.wait("the verification", |sandbox| sandbox.gitlab.requests_to(Endpoint::Verify).len() > asked);
    daemon.stop(Signal::TERM).exits(0).says("which was unregistered from the runner, is its manager again");
}

#[test]
fn plan_says_that_a_start_registers_an_unregistered_runner_again() {
    let sandbox = sandbox();
    let daemon = sandbox.start_serving();
    sandbox.wait("the registration", |sandbox| sandbox.config().contains("build-1"));
    daemon.stop(Signal::TERM).exits(0);
    let text = sandbox.run(&["plan"]).exits(0).stdout.clone();
    let line = text.lines().find(|line| line.starts_with("build-1")).unwrap();
    assert!(line.contains("retired") && line.contains("register ") && line.ends_with("delete runner"), "{text}");
}

#[test]
fn plan_with_verify_asks_about_each_token_and_exits_like_verify() {
    let sandbox = sandbox();
    let text = sandbox.run(&["plan", "--verify"]).exits(0).stdout.clone();
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Verify).len(), 1);
    assert_eq!(sandbox.gitlab.runners().len(), 1, "nothing is registered: {text}");
    assert!(text.lines().any(|line| line.starts_with("found") && line.contains("(in 21h")), "{text}");
    sandbox.gitlab.revoke(sandbox.gitlab.runners()[0].id);
    // Only the runner that is to be registered is well.
    sandbox.run(&["plan", "--verify"]).exits(6);
}

#[test]
fn plan_without_runners_says_so() {
    let sandbox = super::sandbox();
    let text = sandbox.run(&["plan"]).exits(0).stdout.clone();
    assert!(text.starts_with("nothing to do"), "{text}");
    assert!(sandbox.run(&["plan", "--output", "json"]).runners().is_empty());
}
