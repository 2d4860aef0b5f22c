//! One-shot commands while the daemon runs.

use super::sandbox_with;
use rustix::process::Signal;
use test_support::{PATIENCE, Process, Sandbox};

use fake_gitlab::{Endpoint, Gitlab};

/// A running daemon whose log is read in order.
struct Daemon {
    process: Process,
    read_bytes: usize,
}

impl Daemon {
    fn start(sandbox: &Sandbox) -> Self {
        Self { process: sandbox.start(&["run", "--log-format", "json"]), read_bytes: 0 }
    }

    /// Reads the log up to the end of the next line that contains this text.
    #[track_caller]
    fn wait_for(&mut self, text: &str) {
        let position = |process: &Process| process.log()[self.read_bytes..].find(text);
        let has_come = self.process.wait_for(PATIENCE, |process| position(process).is_some());
        let log = self.process.log();
        assert!(has_come, "no `{text}` in the log: {log}");
        let found = self.read_bytes + position(&self.process).unwrap();
        self.read_bytes = log[found..].find('\n').map_or(log.len(), |end| found + end + 1);
    }

    #[track_caller]
    fn quit(self) {
        self.process.stop(Signal::QUIT).exits(0);
    }
}

#[test]
fn daemon_does_not_restore_an_unregistered_runner() {
    let sandbox = super::sandbox();
    let token = sandbox.write("token", &sandbox.gitlab.instance_registration_token());
    let agent = format!(
        "[[enroll]]\nname = \"build-1\"\nurl = \"{}\"\nregistration_token = {{ file = {:?} }}\n",
        sandbox.gitlab.url(),
        token.to_str().unwrap()
    );
    sandbox.write("agent.toml", &agent);
    let mut daemon = Daemon::start(&sandbox);
    daemon.wait_for("registered");
    sandbox.run(&["unregister", "--name", "build-1"]).exits(0).says("agent.toml enrolls it");
    daemon.wait_for("another process has unregistered it");
    daemon.quit();
    assert_eq!(sandbox.gitlab.runners().len(), 0);
    assert!(!sandbox.config().contains("[[runners]]"));
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), 1);
}

#[test]
fn daemon_adopts_manual_rotations_and_registrations() {
    let sandbox = sandbox_with(Gitlab::builder().token_life("1d"));
    let (id, _) = sandbox.add_created("a");
    let mut daemon = Daemon::start(&sandbox);
    sandbox.wait_for_requests(Endpoint::Verify, 1);
    sandbox.run(&["rotate", "--name", "a"]).exits(0);
    daemon.wait_for("another process has replaced the token");
    sandbox.register(&["--name", "b"]).exits(0);
    daemon.wait_for("serving a new runner");
    // The daemon uses the key of the registration, so a repeated registration finds the runner.
    assert_eq!(sandbox.register(&["--name", "b", "--output=json"]).exits(0).runner()["action"], "unchanged");
    daemon.quit();
    assert!(sandbox.config().contains(&sandbox.gitlab.runner(id).unwrap().token));
    assert_eq!(sandbox.config().matches("[[runners]]").count(), 2);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Reset).len(), 1);
}

#[test]
fn second_daemon_prints_the_pid_of_the_first() {
    let sandbox = super::sandbox();
    sandbox.add_created("a");
    let mut daemon = Daemon::start(&sandbox);
    daemon.wait_for("serving");
    let pid = daemon.process.pid();
    sandbox.run(&["run"]).exits(4).says(&format!("process {pid}"));
    daemon.quit();
}
