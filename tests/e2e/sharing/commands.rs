//! `shared` by the real binary, over a real store.

use fake_gitlab::{Builder, Gitlab, Scope};
use serde_json::Value as Json;
use test_support::Sandbox;

/// A store for the commands.
pub(crate) trait CommandStore {
    /// `[sharing]`.
    fn section(&self) -> String;
    /// `[sharing]` with credentials that the store does not know.
    fn section_of_unknown(&self) -> String;
    /// Changes the value of a shared runner behind the agents' backs.
    fn edit(&self, share: &str, change: &dyn Fn(&mut Json));
    /// Lets it answer nothing from now on.
    fn stop(&self);
}

const BINARY: &str = env!("CARGO_BIN_EXE_runner-agent");
const SHARE: &str = "docker-fleet";

/// A machine that shares a runner over the store.
fn machine(store: &dyn CommandStore, number: u32, gitlab: Builder) -> Sandbox {
    let sandbox = Sandbox::new(BINARY, gitlab);
    sandbox.write("config/.runner_system_id", &format!("s_{number:012}\n"));
    let secret = sandbox.write("registration-token", &sandbox.gitlab.instance_registration_token());
    let enrollment =
        sandbox.enrollment("docker", &format!("registration_token = {{ file = {secret:?} }}\nshare_as = \"{SHARE}\""));
    sandbox.write_fast_settings(&(store.section() + &enrollment));
    sandbox
}

pub(crate) fn show_heal_and_forget(store: &dyn CommandStore) {
    let sandbox = machine(store, 1, Gitlab::builder());
    let list = |sandbox: &Sandbox| sandbox.run(&["shared", "list", "--output", "json"]).rows("shared");
    assert_eq!(list(&sandbox)[0]["generation"], serde_json::Value::Null);
    sandbox.run(&["shared", "show", SHARE]).exits(1).says("the store has no shared runner");
    sandbox.run(&["shared", "heal", SHARE]).exits(4).says("has no token of the shared runner `docker-fleet` yet");

    sandbox.run(&["run", "--once"]).exits(0);
    let runner = sandbox.gitlab.runners().remove(0);
    let row = list(&sandbox).remove(0);
    assert_eq!((&row["share"], &row["id"]), (&SHARE.into(), &runner.id.into()), "{row}");
    assert_eq!((&row["generation"], &row["members"]), (&1.into(), &1.into()), "{row}");
    let shown = sandbox.run(&["shared", "show", SHARE]);
    shown.exits(0).hides(&[&runner.token]);
    assert!(shown.stdout.contains("s_000000000001 on "), "{shown:?}");
    assert!(shown.stdout.contains("the same as in the store"), "{shown:?}");
    let listed = sandbox.run(&["list", "--output", "json"]).runner();
    assert_eq!((&listed["sharing"]["share"], &listed["sharing"]["generation"]), (&SHARE.into(), &1.into()));

    // An accepted token is written back, and not replaced.
    sandbox.run(&["shared", "forget", SHARE]).exits(2).says("confirm with --yes").says("runner");
    sandbox.run(&["shared", "forget", SHARE, "--yes"]).exits(0);
    assert_eq!(list(&sandbox)[0]["generation"], serde_json::Value::Null);
    let healed = sandbox.run(&["shared", "heal", SHARE]);
    assert!(healed.exits(0).stdout.contains("stands in the store as generation 1"), "{healed:?}");
    assert_eq!(sandbox.gitlab.runners()[0].token, runner.token);

    // A dead one is, by the runner's id.
    let unknown = sandbox.gitlab.revoke(runner.id);
    sandbox.run(&["shared", "heal", SHARE]).exits(3).says("--access-token-file");
    let access = sandbox.write("access-token", &sandbox.gitlab.add_access_token([Scope::Api]));
    let healed = sandbox.run(&["shared", "heal", SHARE, "--access-token-file", access.to_str().unwrap()]);
    assert!(healed.exits(0).stdout.contains("has a new token"), "{healed:?}");
    let current = sandbox.gitlab.runners().remove(0).token;
    assert!(current != unknown && current != runner.token && sandbox.config().contains(&current));
    healed.hides(&[&current, &unknown, &runner.token]);
    let row = list(&sandbox).remove(0);
    assert_eq!((&row["generation"], &row["pending"]), (&2.into(), &serde_json::Value::Null), "{row}");

    forgets_a_member(store, &sandbox);
    damaged_value(store, &sandbox);
    wrong_store(store, &sandbox);
}

fn forgets_a_member(store: &dyn CommandStore, sandbox: &Sandbox) {
    store.edit(SHARE, &|value| {
        let mut gone = value["members"][0].clone();
        gone["machine"] = "s_000000000009".into();
        value["members"].as_array_mut().unwrap().push(gone);
    });
    let forget = ["shared", "forget", SHARE, "--member", "s_000000000009", "--yes"];
    assert!(sandbox.run(&forget).exits(0).stdout.contains("is no member any more; 1 left"));
    assert!(sandbox.run(&forget).exits(0).stdout.contains("s_000000000009 is no member"));
}

fn damaged_value(store: &dyn CommandStore, sandbox: &Sandbox) {
    let id = sandbox.gitlab.runners()[0].id;
    store.edit(SHARE, &|value| value["id"] = 4711.into());
    for command in [&["shared", "heal", SHARE][..], &["run", "--once"], &["verify"]] {
        sandbox.run(command).exits(4).says("the store has the runner 4711").says("shared forget");
    }
    let shown = sandbox.run(&["shared", "show", SHARE]);
    assert!(shown.exits(0).says("shared forget").stdout.contains("of another runner or server"), "{shown:?}");
    store.edit(SHARE, &|value| value["id"] = id.into());
    store.edit(SHARE, &|value| value["schema"] = 99.into());
    for command in [
        &["shared", "list"][..],
        &["shared", "show", SHARE],
        &["shared", "heal", SHARE],
        &["run", "--once"],
        &["verify"],
    ] {
        sandbox.run(command).exits(4).says("does not hold a shared runner").says("shared forget");
    }
    let doctor = sandbox.run(&["doctor"]);
    assert!(doctor.exits(4).stdout.contains("value: "), "{doctor:?}");
    sandbox.run(&["shared", "forget", SHARE, "--yes"]).exits(0);
    assert!(sandbox.run(&["shared", "forget", SHARE]).exits(0).stdout.contains("already gone"));
    sandbox.run(&["shared", "heal", SHARE]).exits(0);
}

fn wrong_store(store: &dyn CommandStore, sandbox: &Sandbox) {
    let commands: [&[&str]; 4] = [
        &["shared", "list"],
        &["shared", "show", SHARE],
        &["shared", "heal", SHARE],
        &["shared", "forget", SHARE, "--yes"],
    ];
    let settings = sandbox.read("agent.toml");
    sandbox.write("agent.toml", &settings.replace(&store.section(), &store.section_of_unknown()));
    for command in commands.into_iter().chain([&["run", "--once"][..], &["verify"]]) {
        sandbox.run(command).exits(4).says("does not accept the credentials");
    }
    let doctor = sandbox.run(&["doctor"]);
    assert!(doctor.exits(4).stdout.contains("credentials: "), "{doctor:?}");
    sandbox.write("agent.toml", &settings);
    store.stop();
    for command in commands {
        sandbox.run(command).exits(5);
    }
}
