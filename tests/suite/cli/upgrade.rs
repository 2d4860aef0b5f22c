//! An updated agent reads the state directory of version 0.1, and that version reads it again after a downgrade. The files
//! in `state-0.1` were written by that release and have placeholders for the values that a test sets.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::sandbox_with;
use fake_gitlab::{Endpoint, Fault, Gitlab, NewRunner};
use runner_agent::clock::{Clock as _, SystemClock};
use runner_agent::secret::sha256_hex;
use test_support::{Output, Process, Sandbox};

const KEY: &str = "register-db82660d9ff3";

/// A runner that version 0.1 has registered and rotated.
struct Updated {
    sandbox: Sandbox,
    id: u64,
    token: String,
}

impl Updated {
    fn new() -> Self {
        let sandbox = sandbox_with(Gitlab::builder().token_life("1h"));
        let (id, token) = sandbox.gitlab.add_runner(NewRunner::instance());
        // Creates the state directory.
        sandbox.run(&["verify"]).exits(0);
        let updated = Self { sandbox, id, token };
        updated.sandbox.write_config(&updated.sandbox.entry("one", id, &updated.token));
        fs::write(updated.runners().join(format!("{KEY}.json")), updated.fill(include_str!("state-0.1/record.json")))
            .unwrap();
        updated
    }

    /// The directory of records and journals.
    fn runners(&self) -> PathBuf {
        let state = fs::read_dir(self.sandbox.path("state")).unwrap().find_map(Result::ok).unwrap();
        state.path().join("runners")
    }

    fn fill(&self, text: &str) -> String {
        let now = SystemClock.read().wall;
        let fingerprint = &sha256_hex(self.token.as_bytes())[..8];
        text.replace("{url}", &self.sandbox.gitlab.url())
            .replace("{id}", &self.id.to_string())
            .replace("{token}", &self.token)
            .replace("{fingerprint}", fingerprint)
            .replace("{obtained_at}", &now.whole_seconds().to_string())
            .replace("{expires_at}", &now.plus(Duration::from_secs(3600)).to_string())
    }
}

#[test]
fn runner_of_version_0_1_is_not_registered_again() {
    let Updated { sandbox, id, token } = &Updated::new();
    sandbox.register(&["--name", "one"]).exits(2).says("made from another token");
    sandbox.run(&["run", "--once"]).exits(0);
    let listed = sandbox.run(&["list", "--output", "json"]).runner();
    assert_eq!((listed["id"].as_u64(), &listed["state"]), (Some(*id), &"active".into()));
    assert_eq!(&sandbox.gitlab.runner(*id).unwrap().token, token);
    sandbox.run(&["rotate", "--name", "one"]).exits(0);
    assert!(sandbox.is_in_step() && sandbox.gitlab.requests_to(Endpoint::Register).is_empty());
}

#[test]
fn token_replaced_by_version_0_1_is_not_reused() {
    let updated = Updated::new();
    let record = fs::read_to_string(updated.runners().join(format!("{KEY}.json"))).unwrap();
    let former = "glrt-former";
    let former_digest = &sha256_hex(former.as_bytes())[..8];
    fs::write(updated.runners().join(format!("{KEY}.json")), record.replace("96ee8ee1", former_digest)).unwrap();
    updated.sandbox.write_config(&updated.sandbox.entry("one", updated.id, former));
    // Eight hex digits prove nothing: the server is asked until it has refused the token twice.
    for _ in 0..3 {
        let _asked = updated.sandbox.run(&["verify"]);
    }
    assert!(updated.sandbox.is_in_step(), "{}", updated.sandbox.config());
    assert!(updated.sandbox.gitlab.requests_to(Endpoint::Reset).is_empty());
}

#[test]
fn reset_lost_by_version_0_1_is_settled() {
    let updated = Updated::new();
    let intent = updated.fill(include_str!("state-0.1/intent.json").trim_end());
    let journal = format!("{:<4096}", format!("{}\n{intent}\n", sha256_hex(intent.as_bytes())));
    fs::write(updated.runners().join(format!("{KEY}.pending")), journal).unwrap();
    updated.sandbox.run(&["rotate", "--name", "one"]).exits(0);
    let endpoints: Vec<_> = updated.sandbox.gitlab.requests().iter().map(|request| request.endpoint).collect();
    assert_eq!(endpoints, [Endpoint::Verify, Endpoint::Verify, Endpoint::Reset]);
    assert!(updated.sandbox.is_in_step());
}

/// Runs the released version 0.1.
#[track_caller]
fn run_released(sandbox: &Sandbox, released: &str, args: &[&str]) -> Output {
    Process::start(sandbox.shell(&format!("exec {released} \"$@\""), args)).end()
}

#[test]
#[ignore = "needs the binary of version 0.1, in RUNNER_AGENT_0_1: see `.ci/run downgrade`"]
fn version_0_1_rotates_once_in_between() {
    let released = std::env::var("RUNNER_AGENT_0_1").unwrap();
    let sandbox = sandbox_with(Gitlab::builder().token_life("1h"));
    sandbox.register(&["--name", "one"]).exits(0);
    sandbox.run(&["rotate", "--name", "one"]).exits(0);
    let held = sandbox.state().matches("\"candidates\"").count();
    for round in 0..2 {
        run_released(&sandbox, &released, &["verify"]).exits(0);
        run_released(&sandbox, &released, &["rotate", "--name", "one"]).exits(0);
        assert!(sandbox.is_in_step(), "after version 0.1 in round {round}");
        sandbox.run(&["verify"]).exits(0);
        sandbox.run(&["rotate", "--name", "one"]).exits(0);
        assert!(sandbox.is_in_step(), "after this version in round {round}");
        assert!(sandbox.state().matches("\"candidates\"").count() >= held);
    }
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), 1);
    assert_eq!(sandbox.gitlab.runners()[0].rotations, 5);
}

#[test]
#[ignore = "needs the binary of version 0.1, in RUNNER_AGENT_0_1: see `.ci/run downgrade`"]
fn version_0_1_settles_an_interrupted_reset() {
    let released = std::env::var("RUNNER_AGENT_0_1").unwrap();
    let sandbox = sandbox_with(Gitlab::builder().token_life("1h"));
    sandbox.register(&["--name", "one"]).exits(0);
    // The server never resets the token, so the old one stays valid.
    sandbox.gitlab.order(Endpoint::Reset, Fault::hold());
    let rotation = sandbox.start(&["rotate", "--name", "one"]);
    sandbox.wait_for_requests(Endpoint::Reset, 1);
    rotation.kill();
    run_released(&sandbox, &released, &["rotate", "--name", "one"]).exits(0);
    assert!(sandbox.is_in_step());
    sandbox.run(&["rotate", "--name", "one"]).exits(0);
    assert!(sandbox.is_in_step());
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), 1);
}
