//! One-shot commands while the daemon runs.

use super::sandbox_with;
use rustix::process::Signal;
use test_support::{PATIENCE, Process, Sandbox};

use fake_gitlab::{Endpoint, Fault, Gitlab};

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

/// The `[[enroll]]` table of `build-1` by registration token.
fn enrollment(sandbox: &Sandbox) -> String {
    let token = sandbox.write("token", &sandbox.gitlab.instance_registration_token());
    sandbox.enrollment("build-1", &format!("registration_token = {{ file = {:?} }}", token.to_str().unwrap()))
}

/// The names of the record files, without their extension.
fn records(sandbox: &Sandbox) -> Vec<String> {
    let directory = std::fs::read_dir(sandbox.path("state")).unwrap().next().unwrap().unwrap().path();
    let files = std::fs::read_dir(directory.join("runners")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).collect()
}

#[track_caller]
fn assert_one_runner(sandbox: &Sandbox) {
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), 1);
    assert_eq!(sandbox.gitlab.runners().len(), 1);
    assert!(sandbox.is_in_step(), "{}", sandbox.config());
}

#[test]
fn command_waits_for_the_registration_of_the_daemon() {
    let sandbox = super::sandbox();
    sandbox.write_fast_settings(&enrollment(&sandbox));
    let hold = sandbox.gitlab.order(Endpoint::Register, Fault::hold());
    let mut daemon = Daemon::start(&sandbox);
    sandbox.wait_for_requests(Endpoint::Register, 1);
    let (url, token) = (sandbox.gitlab.url(), sandbox.gitlab.instance_registration_token());
    let args = ["register", "-n", "--name", "build-1", "--url", &url, "-r", &token, "--output", "json"];
    let command = sandbox.start(&[&args[..], &["--log-level", "info"]].concat());
    sandbox.wait("the command to wait for the daemon", |sandbox| {
        command.log().contains("another process is registering a runner of this name")
            || sandbox.gitlab.requests_to(Endpoint::Register).len() > 1
    });
    hold.release();
    assert_eq!(command.end().exits(0).runner()["action"], "unchanged");
    daemon.wait_for("registered");
    daemon.quit();
    assert_one_runner(&sandbox);
}

#[test]
fn daemon_takes_over_what_a_command_is_registering() {
    let sandbox = super::sandbox();
    let hold = sandbox.gitlab.order(Endpoint::Register, Fault::hold());
    let (url, token) = (sandbox.gitlab.url(), sandbox.gitlab.instance_registration_token());
    let command = sandbox.start(&["register", "-n", "--name", "build-1", "--url", &url, "-r", &token]);
    sandbox.wait_for_requests(Endpoint::Register, 1);
    sandbox.write_fast_settings(&enrollment(&sandbox));
    let mut daemon = Daemon::start(&sandbox);
    daemon.wait_for("another process is registering a runner of this name");
    hold.release();
    command.end().exits(0);
    daemon.wait_for("enrollment `build-1` takes it over");
    daemon.quit();
    assert_one_runner(&sandbox);
    assert_eq!(records(&sandbox), ["build-1"]);
}

#[test]
fn enrollment_added_to_a_running_daemon_takes_its_runner_over() {
    for is_registered in [true, false] {
        let sandbox = super::sandbox();
        if is_registered {
            sandbox.register(&["--name", "build-1"]).exits(0);
        } else {
            sandbox.add_created("build-1");
        }
        let registrations = sandbox.gitlab.requests_to(Endpoint::Register).len();
        let mut daemon = Daemon::start(&sandbox);
        sandbox.wait_for_requests(Endpoint::Verify, 1);
        let config = sandbox.config();
        sandbox.write_fast_settings(&enrollment(&sandbox));
        daemon.wait_for("enrollment `build-1` takes it over");
        sandbox.wait_for_requests(Endpoint::Verify, 2);
        // Commands and the daemon lock the same runner by the same key.
        sandbox.run(&["rotate", "--name", "build-1"]).exits(0);
        daemon.wait_for("another process has replaced the token");
        let log = daemon.process.log();
        daemon.quit();
        assert_eq!(log.matches("takes it over").count(), 1);
        assert_eq!(records(&sandbox), ["build-1"]);
        assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), registrations);
        assert!(sandbox.is_in_step());
        assert_eq!(sandbox.config().lines().count(), config.lines().count() + usize::from(!is_registered) * 2);
    }
}

#[test]
fn enrollment_takes_over_a_runner_whatever_its_history() {
    let histories: [fn(&Sandbox); 4] = [
        |sandbox| {
            sandbox.register(&["--name", "build-1"]).exits(0);
        },
        |sandbox| {
            sandbox.add_created("build-1");
        },
        |sandbox| {
            sandbox.add_created("build-1");
            sandbox.run(&["verify"]).exits(0);
        },
        |sandbox| {
            sandbox.add_created("build-1");
            sandbox.run(&["run", "--once"]).exits(0);
        },
    ];
    for history in histories {
        let sandbox = super::sandbox();
        history(&sandbox);
        let registrations = sandbox.gitlab.requests_to(Endpoint::Register).len();
        sandbox.write_fast_settings(&enrollment(&sandbox));
        sandbox.run(&["run", "--once"]).exits(0).says("enrollment `build-1` takes it over");
        let again = sandbox.run(&["run", "--once"]);
        assert!(!again.exits(0).stderr.contains("takes it over"));
        assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), registrations);
        assert_eq!((sandbox.gitlab.runners().len(), records(&sandbox)), (1, vec!["build-1".to_owned()]));
        assert!(sandbox.is_in_step());
    }
}

#[test]
fn second_enrollment_of_a_name_takes_nothing_from_the_first() {
    let sandbox = super::sandbox();
    let first = enrollment(&sandbox);
    sandbox.write_fast_settings(&first);
    let mut daemon = Daemon::start(&sandbox);
    daemon.wait_for("registered");
    sandbox.wait_for_registration();
    let (config, runner) = (sandbox.config(), sandbox.gitlab.runners()[0].clone());
    sandbox.write_fast_settings(&(first.clone() + &first.replace("name =", "key = \"second\"\nname =")));
    daemon.wait_for("both would serve the same entry");
    daemon.quit();
    sandbox.run(&["run", "--once"]).exits(4).says("has the name `build-1`").says("set another `name`");
    assert_eq!(sandbox.config(), config);
    assert_one_runner(&sandbox);
    assert_eq!(sandbox.gitlab.runner(runner.id).unwrap().token, runner.token);
    // Under a name of its own it gets a runner of its own.
    let second = first.replace("name = \"build-1\"", "key = \"second\"\nname = \"build-2\"");
    sandbox.write_fast_settings(&(first + &second));
    sandbox.run(&["run", "--once"]).exits(0);
    assert!(sandbox.is_in_step() && sandbox.config().starts_with(config.trim_end()), "{}", sandbox.config());
    let mut records = records(&sandbox);
    records.sort();
    assert_eq!(records, ["build-1", "second"]);
}
