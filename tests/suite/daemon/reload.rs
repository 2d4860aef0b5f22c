//! `reload`, and what says that the files on the disk are not in force.

use super::enrolled;
use super::service::serviced;
use super::status_server::value;
use test_support::Sandbox;

use fake_gitlab::{Endpoint, Gitlab};
use rustix::process::Signal;

const NOT_IN_FORCE: &str = "the settings on the disk are invalid, and the previous ones are in force";

fn typo(sandbox: &Sandbox) {
    let settings = sandbox.read("agent.toml");
    sandbox.write("agent.toml", &format!("[verify]\nintervall = \"1h\"\n{settings}"));
}

fn daemon_of(sandbox: &Sandbox) -> serde_json::Value {
    let done = sandbox.run(&["status", "--output", "json"]);
    serde_json::from_str::<serde_json::Value>(&done.exits(0).stdout).unwrap()["daemon"].clone()
}

#[test]
fn reload_verifies_and_ends_when_the_settings_are_in_force() {
    let sandbox = enrolled(Gitlab::builder(), "");
    let daemon = sandbox.start_serving();
    sandbox.run(&["status", "--wait", "ready"]).exits(0);
    let settings = sandbox.read("agent.toml");
    sandbox.write("agent.toml", &format!("[shutdown]\nunregister = \"never\"\n{settings}"));
    let done = sandbox.run(&["reload"]);
    assert_eq!(done.exits(0).stdout, "reloaded: agent.toml and config.toml are in force\n");
    let report = daemon_of(&sandbox);
    assert_eq!((&report["reloads_begun"], &report["reloads_done"]), (&1.into(), &1.into()));
    sandbox.wait("the verification", |sandbox| !sandbox.gitlab.requests_to(Endpoint::Verify).is_empty());
    daemon.stop(Signal::TERM).exits(0);
    assert_eq!(sandbox.gitlab.runners().len(), 1, "the new settings keep it");
}

#[test]
fn reload_of_invalid_settings_fails_and_says_which_and_what_goes_on() {
    let sandbox = enrolled(Gitlab::builder(), "");
    let daemon = sandbox.start_serving();
    typo(&sandbox);
    let done = sandbox.run(&["reload"]);
    done.exits(4).says("agent.toml:2: unknown key `intervall`").says("did you mean `interval`?");
    done.says("the daemon goes on with the previous content");
    assert!(!daemon.log().contains("reloaded"), "{}", daemon.log());
    sandbox.wait("the end of the reload", |_| daemon.log().contains("what was read before stays in force"));
    let done = sandbox.run(&["reload", "-o", "json"]);
    assert!(done.exits(4).rows("daemon")[0]["settings_error"].as_str().unwrap().contains("intervall"));
    // config.toml too.
    let config = sandbox.config();
    sandbox.write("agent.toml", "");
    sandbox.write_config("[[runners]\n");
    sandbox.run(&["reload"]).exits(4).says("cannot understand");
    sandbox.write_config(&config);
    sandbox.run(&["reload"]).exits(0);
    daemon.stop(Signal::QUIT).exits(0);
}

#[test]
fn reload_without_a_daemon_exits_5() {
    let sandbox = enrolled(Gitlab::builder(), "");
    sandbox.run(&["reload"]).exits(5).says("no daemon answers");
}

#[test]
fn a_typing_error_under_a_running_daemon_is_said_everywhere_until_it_is_corrected() {
    let sandbox = enrolled(Gitlab::builder(), "");
    let (manager, daemon) = serviced(&sandbox);
    manager.wait_for_status("1 runner ready");
    let settings = sandbox.read("agent.toml");
    // No reload is asked for: the file is watched.
    typo(&sandbox);
    manager.wait_for_status(&format!("1 runner ready; {NOT_IN_FORCE}: "));
    let done = sandbox.run(&["health", "--ready"]);
    assert!(done.exits(1).stdout.contains(NOT_IN_FORCE), "{done:?}");
    sandbox.run(&["health"]).exits(0);
    let done = sandbox.run(&["status"]);
    assert!(done.exits(0).stdout.contains(&format!("\n{NOT_IN_FORCE}:\n")), "{done:?}");
    assert!(daemon_of(&sandbox)["settings_error"].as_str().unwrap().contains("intervall"));
    let metric = || value(&sandbox.path("run/agent.sock"), "runner_agent_settings_in_force");
    assert_eq!(metric(), Some(0.0));
    sandbox.write("agent.toml", &settings);
    manager.wait_for("STATUS=1 runner ready");
    sandbox.run(&["health", "--ready"]).exits(0);
    assert!(daemon_of(&sandbox)["settings_error"].is_null());
    assert_eq!(metric(), Some(1.0));
    daemon.stop(Signal::TERM).exits(0);
}
