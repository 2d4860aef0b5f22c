//! The daemon's notifications to the service manager.

use super::enrolled;
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::{Duration, Instant};
use test_support::{Output, PATIENCE, Process, Sandbox};

use fake_gitlab::Gitlab;
use rustix::process::Signal;

#[test]
fn service_manager_is_notified_of_start_reload_and_stop() {
    let sandbox = enrolled(Gitlab::builder(), "");
    let (manager, daemon) = serviced(&sandbox);
    manager.wait_for("READY=1");
    manager.wait_for_status("1 runner ready");
    manager.wait_for("WATCHDOG=1");
    daemon.signal(Signal::HUP);
    let reloading = manager.wait_for("RELOADING=1");
    let stamp = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    assert!(stamp.is_some_and(|stamp| stamp.parse::<u64>().is_ok()), "{reloading}");
    manager.wait_for("READY=1");
    let Output { code, stderr: log, .. } = daemon.stop(Signal::TERM);
    assert!(code == Some(0), "{log}");
    manager.wait_for("STOPPING=1");
    manager.wait_for("EXTEND_TIMEOUT_USEC=10000000");
}

#[test]
fn service_becomes_ready_without_a_server() {
    let sandbox = enrolled(Gitlab::builder(), "");
    sandbox.gitlab.refuse_connections();
    let (manager, _daemon) = serviced(&sandbox);
    manager.wait_for("READY=1");
}

#[test]
fn a_log_and_notifications_that_are_not_read_stop_nothing() {
    let sandbox = enrolled(Gitlab::builder().token_life(Duration::from_secs(3600)), "");
    let socket = sandbox.path("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"STATUS=full", &socket).is_ok() {}
    let (unread, log) = crate::full_pipe();
    let mut command = sandbox.command(&["run", "--log-level", "debug"]);
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    let daemon = Process::start_logging_to(command, log);
    sandbox.wait_for_registration();
    sandbox.wait("the daemon to answer", |sandbox| sandbox.run(&["health"]).code == Some(0));
    // Its stop is logged and notified, too.
    let Output { code, .. } = daemon.stop(Signal::TERM);
    assert_eq!(code, Some(0));
    sandbox.wait("the runner to be gone", |sandbox| sandbox.gitlab.runners().is_empty());
    drop((unread, manager));
}

#[test]
fn the_exit_code_of_a_service_is_said_in_words() {
    let sandbox = enrolled(Gitlab::builder(), "");
    sandbox.write("agent.toml", "not TOML");
    let (manager, daemon) = serviced(&sandbox);
    let done = daemon.end();
    done.exits(4).says("systemd shows this code as NOPERMISSION, which is not meant");
    let status = "ended, a local file or setting cannot be used, or is locked (exit code 4, not NOPERMISSION): ";
    manager.wait_for_status(status);
    let last = done.stderr.lines().last().unwrap_or_default();
    assert!(last.contains("ending: a local file or setting cannot be used") && last.contains("code=4"), "{last}");
    // A command is no service, and its reader knows the code.
    sandbox.run(&["run"]).exits(4);
    assert!(!sandbox.run(&["run"]).stderr.contains("NOPERMISSION"));
}

#[test]
fn release_profile_unwinds() {
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
    assert!(manifest.contains("panic = \"unwind\"") && !manifest.contains("panic = \"abort\""));
}

/// The watchdog timeout of the service manager.
const WATCHDOG: Duration = Duration::from_secs(1);

/// A service manager that only receives notifications.
pub(super) struct Manager(UnixDatagram);

/// Starts the daemon as a service.
pub(super) fn serviced(sandbox: &Sandbox) -> (Manager, Process) {
    let socket = sandbox.path("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_nonblocking(true).unwrap();
    let mut command = sandbox.command(&["run"]);
    command.env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    (Manager(manager), Process::start(command))
}

impl Manager {
    /// Waits for a message with this line and discards all earlier ones.
    pub(super) fn wait_for(&self, line: &str) -> String {
        self.wait_until(line, |candidate| candidate == line)
    }

    /// Waits for a status that begins so, and discards all earlier messages.
    pub(super) fn wait_for_status(&self, beginning: &str) -> String {
        self.wait_until(beginning, |line| {
            line.strip_prefix("STATUS=").is_some_and(|status| status.starts_with(beginning))
        })
    }

    fn wait_until(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "timed out waiting for {what}");
            match self.next() {
                Some(message) if message.lines().any(&is_it) => return message,
                Some(_) => {}
                None => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn next(&self) -> Option<String> {
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }
}
