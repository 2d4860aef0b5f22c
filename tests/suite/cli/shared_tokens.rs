//! Several entries with one token.

use super::sandbox_with;
use fake_gitlab::{Endpoint, Gitlab};
use rustix::process::Signal;
use test_support::Sandbox;

/// Two entries of one created runner, `docker` before `shell`.
fn with_two_entries(sandbox: &Sandbox) -> (u64, String) {
    let (id, token) = sandbox.add_created("docker");
    sandbox.add_entry("shell", Some(id), &token);
    (id, token)
}

#[test]
fn unregister_by_name_removes_one_entry_while_another_uses_the_token() {
    let sandbox = super::sandbox();
    let (id, token) = with_two_entries(&sandbox);
    sandbox.run(&["verify"]).exits(0);
    let done = sandbox.run(&["unregister", "--name", "shell"]);
    assert!(done.exits(0).stdout.starts_with(&format!("runner `shell` (id {id}): its entry is removed")), "{done:?}");
    assert!(done.stdout.contains("because the entry `docker` at "), "{done:?}");
    assert!(sandbox.config().contains("name = \"docker\"") && !sandbox.config().contains("name = \"shell\""));
    // Neither the runner nor this machine's manager has gone.
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::DeleteManager).len(), 0);
    assert_eq!(sandbox.gitlab.runner(id).unwrap().managers.len(), 1);
    let kept = done.stdout.split("kept in ").nth(1).unwrap().split(';').next().unwrap();
    let kept = std::fs::read_to_string(kept).unwrap();
    assert!(kept.contains("name = \"shell\"") && !kept.contains(&token));
    // The last entry takes the manager with it.
    sandbox.run(&["unregister", "--name", "docker"]).exits(0);
    assert!(sandbox.gitlab.runner(id).unwrap().managers.is_empty());
    assert!(!sandbox.config().contains("[[runners]]"));
}

#[test]
fn unregister_removes_the_entry_whose_name_the_record_has() {
    let sandbox = super::sandbox();
    with_two_entries(&sandbox);
    sandbox.run(&["verify"]).exits(0);
    let done = sandbox.run(&["unregister", "--name", "docker", "--output", "json"]);
    assert_eq!((&done.exits(0).runner()["name"], &done.runner()["action"]), (&"docker".into(), &"dropped".into()));
    assert!(!sandbox.config().contains("name = \"docker\"") && sandbox.config().contains("name = \"shell\""));
    assert_eq!(sandbox.run(&["verify", "--output", "json"]).exits(0).runner()["name"], "shell");
}

#[test]
fn unregister_by_id_removes_all_entries_of_the_runner() {
    let sandbox = super::sandbox();
    let (id, _) = with_two_entries(&sandbox);
    sandbox.run(&["unregister", "--id", &id.to_string()]).exits(0);
    assert!(!sandbox.config().contains("[[runners]]"));
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::DeleteManager).len(), 1);
}

#[test]
fn commands_report_the_selected_entry_and_name_the_others() {
    let sandbox = sandbox_with(Gitlab::builder().token_life("1h"));
    let (id, _) = with_two_entries(&sandbox);
    let done = sandbox.run(&["verify", "--name", "shell"]);
    assert!(done.exits(0).stdout.starts_with(&format!("runner `shell` (id {id}): accepted")), "{done:?}");
    assert!(done.stdout.contains("; the entry `docker` at ") && done.stdout.contains("has the same token"), "{done:?}");
    assert_eq!(sandbox.run(&["verify", "--name", "shell", "--output=json"]).exits(0).runner()["name"], "shell");
    let done = sandbox.run(&["rotate", "--name", "shell"]);
    assert!(done.exits(0).stdout.starts_with("runner `shell`"), "{done:?}");
    assert!(done.stdout.contains("has the new token too"), "{done:?}");
    assert_eq!(sandbox.config().matches(&sandbox.gitlab.runner(id).unwrap().token).count(), 2);
}

/// Adds an entry for the same token under another address of the server.
fn add_alias(sandbox: &Sandbox, name: &str, host: &str, token: &str) -> String {
    let alias = sandbox.gitlab.url().replace("127.0.0.1", host);
    let entry = format!("[[runners]]\nname = \"{name}\"\nurl = \"{alias}\"\ntoken = \"{token}\"\n");
    sandbox.write_config(&(sandbox.config() + &entry));
    alias
}

#[test]
fn rotating_all_runners_resets_one_of_two_entries_with_one_token() {
    for is_verified in [true, false] {
        let sandbox = sandbox_with(Gitlab::builder().token_life("1d"));
        let (id, token) = sandbox.add_created("a");
        add_alias(&sandbox, "b", "localhost", &token);
        add_alias(&sandbox, "c", "[::ffff:127.0.0.1]", &token);
        if is_verified {
            sandbox.run(&["verify"]).exits(0);
        }
        let done = sandbox.run(&["rotate", "--all-runners"]);
        assert!(
            done.exits(0).stdout.contains("runner `b`") && done.stdout.contains("has the new token of"),
            "{done:?}"
        );
        assert_eq!(sandbox.gitlab.requests_to(Endpoint::Reset).len(), 1);
        assert_eq!(sandbox.config().matches(&sandbox.gitlab.runner(id).unwrap().token).count(), 3);
        sandbox.run(&["verify"]).exits(0);
    }
}

#[test]
fn rotating_all_runners_by_id_resets_one_of_two_entries_with_one_token() {
    let sandbox = sandbox_with(Gitlab::builder().token_life("1d"));
    let (id, token) = sandbox.add_created("a");
    add_alias(&sandbox, "b", "localhost", &token);
    sandbox.run(&["verify"]).exits(0);
    let access = sandbox.gitlab.add_access_token([fake_gitlab::Scope::Api]);
    sandbox.run(&["rotate", "--all-runners", "--pat", &access]).exits(0);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::ResetById).len(), 1);
    assert_eq!(sandbox.config().matches(&sandbox.gitlab.runner(id).unwrap().token).count(), 2);
}

#[test]
fn unregister_keeps_a_runner_that_an_entry_with_another_address_uses() {
    let sandbox = super::sandbox();
    let (id, token) = sandbox.add_created("a");
    let alias = sandbox.gitlab.url().replace("127.0.0.1", "localhost");
    let entry = format!("[[runners]]\nname = \"b\"\nurl = \"{alias}\"\ntoken = \"{token}\"\n");
    sandbox.write_config(&(sandbox.config() + &entry));
    sandbox.run(&["verify"]).exits(0);
    let done = sandbox.run(&["unregister", "--name", "a"]);
    assert!(
        done.exits(0).stdout.contains(&format!("because the entry `b` at {alias} uses the same token")),
        "{done:?}"
    );
    assert!(sandbox.config().contains("\"b\"") && !sandbox.config().contains("\"a\""));
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::DeleteManager).len(), 0);
    sandbox.run(&["unregister", "--name", "b"]).exits(0);
    assert!(sandbox.gitlab.runner(id).unwrap().managers.is_empty());
}

#[test]
fn unregister_refuses_while_another_entry_may_be_the_same_runner() {
    for (selected, other) in [("a", "b"), ("b", "a")] {
        let sandbox = sandbox_with(Gitlab::builder().token_life("1d"));
        let (id, token) = sandbox.add_created("a");
        let alias = add_alias(&sandbox, "b", "localhost", &token);
        sandbox.run(&["verify"]).exits(0);
        sandbox.run(&["rotate", "--name", selected]).exits(0);
        let config = sandbox.config();
        let url = if other == "b" { alias } else { sandbox.gitlab.url() };
        let refused = sandbox.run(&["unregister", "--name", selected]);
        refused.exits(2).says(&format!("the entry `{other}` at {url} had the same token before a rotation"));
        refused.says(&format!("hint: run `runner-agent verify --name {other}`"));
        assert_eq!(sandbox.config(), config);
        assert_eq!(sandbox.gitlab.requests_to(Endpoint::DeleteManager).len(), 0);
        // The remedy: the other entry has the new token then, and goes on using the runner.
        sandbox.run(&["verify", "--name", other]).exits(0);
        assert!(sandbox.run(&["unregister", "--name", selected]).exits(0).stdout.contains("uses the same token"));
        assert_eq!(sandbox.gitlab.requests_to(Endpoint::DeleteManager).len(), 0);
        sandbox.run(&["verify", "--name", other]).exits(0);
        assert_eq!(sandbox.gitlab.runner(id).unwrap().managers.len(), 1);
    }
}

#[test]
fn unregister_of_all_runners_takes_those_with_a_former_token_too() {
    let sandbox = sandbox_with(Gitlab::builder().token_life("1d"));
    let (id, token) = sandbox.add_created("a");
    add_alias(&sandbox, "b", "localhost", &token);
    sandbox.run(&["verify"]).exits(0);
    sandbox.run(&["rotate", "--name", "a"]).exits(0);
    sandbox.run(&["unregister", "--all-runners"]).exits(0);
    assert!(sandbox.gitlab.runner(id).unwrap().managers.is_empty());
    assert!(!sandbox.config().contains("[[runners]]"));
}

#[test]
fn rotation_under_one_address_does_not_kill_the_entry_with_another() {
    for (rotated, other) in [("a", "b"), ("b", "a")] {
        let sandbox = sandbox_with(Gitlab::builder().token_life("1d"));
        let (id, token) = sandbox.add_created("a");
        let alias = sandbox.gitlab.url().replace("127.0.0.1", "localhost");
        let entry = format!("[[runners]]\nname = \"b\"\nurl = \"{alias}\"\nid = {id}\ntoken = \"{token}\"\n");
        sandbox.write_config(&(sandbox.config() + &entry));
        sandbox.run(&["verify"]).exits(0);
        let done = sandbox.run(&["rotate", "--name", rotated]);
        done.exits(0).says(&format!("`verify --name {other}`"));
        sandbox.run(&["verify", "--name", other]).exits(0);
        assert_eq!(sandbox.gitlab.requests_to(Endpoint::Reset).len(), 1);
        assert_eq!(sandbox.config().matches(&sandbox.gitlab.runner(id).unwrap().token).count(), 2);
    }
}

#[test]
fn daemon_rotates_one_of_two_entries_with_one_token() {
    let sandbox = sandbox_with(Gitlab::builder().token_life("10m"));
    sandbox.write_fast_settings("[verify]\nfound_interval = \"100ms\"\n");
    let (id, token) = sandbox.add_created("a");
    let alias = sandbox.gitlab.url().replace("127.0.0.1", "localhost");
    let entry = format!("[[runners]]\nname = \"b\"\nurl = \"{alias}\"\nid = {id}\ntoken = \"{token}\"\n");
    sandbox.write_config(&(sandbox.config() + &entry));
    let daemon = sandbox.start_serving();
    sandbox.wait_for_requests(Endpoint::Verify, 2);
    sandbox.gitlab.advance(std::time::Duration::from_secs(450));
    sandbox.wait("both entries to have the new token", |sandbox| {
        let current = sandbox.gitlab.runner(id).unwrap().token;
        current != token && sandbox.config().matches(&current).count() == 2
    });
    daemon.stop(Signal::QUIT).exits(0);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Reset).len(), 1);
}

/// Two entries of one created runner at two addresses of its server, `a` before `b`.
fn with_two_addresses(sandbox: &Sandbox) -> u64 {
    let (id, token) = sandbox.add_created("a");
    let alias = sandbox.gitlab.url().replace("127.0.0.1", "localhost");
    let entry = format!("[[runners]]\nname = \"b\"\nurl = \"{alias}\"\nid = {id}\ntoken = \"{token}\"\n");
    sandbox.write_config(&(sandbox.config() + &entry));
    id
}

/// Waits until both entries have the token that the server accepts, after this many rotations.
fn wait_for_both(sandbox: &Sandbox, id: u64, rotations: usize) {
    sandbox.wait("both entries to have the new token", |sandbox| {
        let runner = sandbox.gitlab.runner(id).unwrap();
        runner.rotations == rotations && sandbox.config().matches(&runner.token).count() == 2
    });
}

#[test]
fn rotation_by_the_daemon_is_followed_at_once_by_the_entry_with_another_address() {
    let sandbox = sandbox_with(Gitlab::builder().token_life("6s"));
    // Nothing but the rotation is due within a day.
    sandbox.write("agent.toml", "[timing]\nfloor = \"200ms\"\nbetween_resets_floor = \"1s\"\n");
    let id = with_two_addresses(&sandbox);
    let daemon = sandbox.start_serving();
    sandbox.wait_for_requests(Endpoint::Verify, 2);
    sandbox.gitlab.set_token_life("1d");
    wait_for_both(&sandbox, id, 1);
    daemon.stop(Signal::QUIT).exits(0);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Reset).len(), 1);
}

#[test]
fn rotation_by_a_command_is_followed_at_once_by_the_daemons_entry_with_another_address() {
    let sandbox = sandbox_with(Gitlab::builder().token_life("30d"));
    let id = with_two_addresses(&sandbox);
    let daemon = sandbox.start_serving();
    sandbox.wait_for_requests(Endpoint::Verify, 2);
    for (rotations, rotated) in [(1, "a"), (2, "b"), (3, "b"), (4, "a")] {
        sandbox.run(&["rotate", "--name", rotated]).exits(0);
        wait_for_both(&sandbox, id, rotations);
    }
    daemon.stop(Signal::QUIT).exits(0);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Reset).len(), 4);
}
