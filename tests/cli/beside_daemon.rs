//! One-shot commands while the daemon runs.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStderr};

use test_gitlab::{Endpoint, Gitlab};

use crate::bench::{Bench, SOON};

/// A running daemon whose log is read.
struct Daemon {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Daemon {
    fn start(bench: &Bench) -> Self {
        let mut child = bench.start(bench.command(&["run", "--log-format", "json"]));
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log }
    }

    /// Reads the log up to a line that holds this text.
    #[track_caller]
    fn wait_for(&mut self, text: &str) {
        let mut seen = String::new();
        loop {
            let begin = seen.len();
            assert_ne!(self.log.read_line(&mut seen).unwrap(), 0, "the daemon has ended without `{text}`: {seen}");
            if seen[begin..].contains(text) {
                return;
            }
        }
    }

    fn quit(mut self, bench: &Bench) {
        bench.signal(&self.child, "QUIT");
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}

#[test]
fn what_is_unregistered_by_hand_is_not_brought_back() {
    let bench = Bench::new();
    let token = bench.write("token", &bench.gitlab.instance_registration_token());
    let agent = format!(
        "[[enroll]]\nname = \"build-1\"\nurl = \"{}\"\nregistration_token = {{ file = {:?} }}\n",
        bench.gitlab.url(),
        token.to_str().unwrap()
    );
    bench.write("agent.toml", &agent);
    let mut daemon = Daemon::start(&bench);
    daemon.wait_for("registered");
    bench.run(&["unregister", "--name", "build-1"]).exits(0).says("agent.toml enrolls it");
    daemon.wait_for("another process has unregistered it");
    daemon.quit(&bench);
    assert_eq!(bench.gitlab.runners().len(), 0);
    assert!(!bench.config().contains("[[runners]]"));
    assert_eq!(bench.gitlab.requests_to(Endpoint::Register).len(), 1);
}

#[test]
fn what_is_rotated_or_registered_by_hand_is_taken_over() {
    let bench = Bench::with(Gitlab::builder().token_life("1d").start());
    let (id, _) = bench.add_created("a");
    let mut daemon = Daemon::start(&bench);
    assert!(bench.gitlab.wait_for_requests(Endpoint::Verify, 1, SOON));
    bench.run(&["rotate", "--name", "a"]).exits(0);
    daemon.wait_for("another process has replaced the token");
    bench.register(&["--name", "b"]).exits(0);
    daemon.wait_for("serving a new runner");
    // Under the key of the registration, so that a repeated one finds it.
    assert_eq!(bench.register(&["--name", "b", "--output=json"]).exits(0).runner()["action"], "unchanged");
    daemon.quit(&bench);
    assert!(bench.config().contains(&bench.gitlab.runner(id).unwrap().token));
    assert_eq!(bench.config().matches("[[runners]]").count(), 2);
    assert_eq!(bench.gitlab.requests_to(Endpoint::Reset).len(), 1);
}

#[test]
fn a_second_daemon_names_the_first() {
    let bench = Bench::new();
    bench.add_created("a");
    let mut daemon = Daemon::start(&bench);
    daemon.wait_for("serving");
    let pid = daemon.child.id();
    bench.run(&["run"]).exits(4).says(&format!("process {pid}"));
    daemon.quit(&bench);
}
