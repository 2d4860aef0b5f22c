//! How the daemon stops, and when it refuses to start.

use super::enrolled;
use std::fs;
use test_support::{Output, Process, Sandbox};

use fake_gitlab::{Endpoint, Fault, Gitlab, NewRunner, Order};
use rustix::process::Signal;

#[test]
fn sigquit_keeps_the_registration_and_sigterm_ends_it() {
    let sandbox = enrolled(Gitlab::builder(), "");
    let daemon = sandbox.start(&["run"]);
    sandbox.wait_for_registration();
    let Output { code, stderr: log, .. } = daemon.stop(Signal::QUIT);
    assert!(code == Some(0), "{log}");
    assert!(sandbox.is_in_step() && sandbox.gitlab.runners().len() == 1);
    let daemon = sandbox.start_serving();
    sandbox.wait("a verification", |sandbox| !sandbox.gitlab.requests_to(Endpoint::Verify).is_empty());
    let Output { code, stderr: log, .. } = daemon.stop(Signal::TERM);
    assert!(code == Some(0), "{log}");
    assert!(sandbox.gitlab.runners().is_empty());
    assert!(!sandbox.config().contains("[[runners]]"));
}

#[test]
fn second_signal_ends_a_hanging_shutdown() {
    let sandbox = enrolled(Gitlab::builder(), "[shutdown]\ngrace = \"1h\"\n");
    let daemon = sandbox.start(&["run"]);
    sandbox.wait_for_registration();
    sandbox.gitlab.order(Endpoint::Delete, Fault::hold());
    daemon.signal(Signal::TERM);
    sandbox.wait("the deletion request", |sandbox| !sandbox.gitlab.requests_to(Endpoint::Delete).is_empty());
    let Output { code, stderr: log, .. } = daemon.stop(Signal::TERM);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("second stop signal"), "{log}");
}

#[test]
fn grace_time_ends_a_hanging_shutdown() {
    let sandbox = enrolled(Gitlab::builder(), "[shutdown]\ngrace = \"500ms\"\n");
    let daemon = sandbox.start(&["run"]);
    sandbox.wait_for_registration();
    sandbox.gitlab.order(Endpoint::Delete, Fault::hold());
    let log = daemon.stop(Signal::TERM).stderr;
    assert!(log.contains("the grace time is over"), "{log}");
}

/// A daemon whose first rotation is done by the server and not answered yet.
fn rotating(settings: &str) -> (Sandbox, Process, Order) {
    let sandbox = enrolled(Gitlab::builder().token_life("6s"), &format!("{SHORT}{settings}"));
    let held = sandbox.gitlab.order(Endpoint::Reset, Fault::hold().after_acting());
    let daemon = sandbox.start(&["run"]);
    sandbox.wait("the reset", |sandbox| sandbox.gitlab.runners().iter().any(|runner| runner.rotations == 1));
    sandbox.gitlab.set_token_life("1h");
    (sandbox, daemon, held)
}

const SHORT: &str = "[timing]\nbetween_resets_floor = \"1s\"\nfloor = \"200ms\"\n";
const ONLY_COPY: &str = "waiting for answers that are the only copies of new tokens";

#[test]
fn stop_waits_for_the_answer_to_a_reset_beyond_the_grace_time() {
    for signal in [Signal::QUIT, Signal::TERM, Signal::INT] {
        let (sandbox, daemon, held) = rotating("[shutdown]\ngrace = \"10ms\"\nunregister = \"never\"\n");
        daemon.signal(signal);
        sandbox.wait("the end of the grace time", |_| daemon.log().contains(ONLY_COPY));
        held.release();
        let Output { code, stderr: log, .. } = daemon.end();
        assert!(code == Some(0), "{log}");
        assert!(sandbox.is_in_step(), "config.toml has the new token");
        assert_eq!(sandbox.gitlab.requests_to(Endpoint::Reset).len(), 1);
    }
}

#[test]
fn second_signal_keeps_waiting_for_a_new_token() {
    let (sandbox, daemon, held) = rotating("[shutdown]\ngrace = \"1h\"\n");
    daemon.signal(Signal::TERM);
    sandbox.wait("the stop", |_| daemon.log().contains("stopping"));
    daemon.signal(Signal::TERM);
    sandbox.wait("the second signal to be noticed", |_| daemon.log().contains(ONLY_COPY));
    held.release();
    let Output { code, stderr: log, .. } = daemon.end();
    assert_eq!(code, Some(1), "{log}");
    assert!(sandbox.is_in_step(), "config.toml has the new token");
}

#[test]
fn third_signal_ends_the_wait_for_a_new_token() {
    let (sandbox, daemon, _held) = rotating("[shutdown]\ngrace = \"1h\"\n[gitlab]\nrequest_timeout = \"1h\"\n");
    daemon.signal(Signal::TERM);
    sandbox.wait("the stop", |_| daemon.log().contains("stopping"));
    daemon.signal(Signal::QUIT);
    sandbox.wait("the second signal to be noticed", |_| daemon.log().contains(ONLY_COPY));
    let Output { code, stderr: log, .. } = daemon.stop(Signal::QUIT);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("ending without the new tokens"), "{log}");
}

/// As many runners as this on one server, whose first resets the server holds; one more than it gets at a time.
const CROWD: usize = 7;

/// Runners whose rotation is due, and the held resets of the first four of them.
fn crowded(settings: &str) -> (Sandbox, Order) {
    let sandbox = super::sandbox(Gitlab::builder().token_life("1h"));
    sandbox.write("agent.toml", settings);
    let times = "token_obtained_at = 2020-01-01T00:00:00Z\ntoken_expires_at = 2020-01-02T00:00:00Z\n";
    let entries = (0..CROWD).map(|number| {
        let (id, token) = sandbox.gitlab.add_runner(NewRunner::instance());
        sandbox.entry(&format!("due-{number}"), id, &token) + times
    });
    sandbox.write_config(&entries.collect::<String>());
    let held = sandbox.gitlab.order(Endpoint::Reset, Fault::hold().after_acting());
    held.always();
    (sandbox, held)
}

fn are_all_in_config(sandbox: &Sandbox) -> bool {
    let config = sandbox.config();
    sandbox.gitlab.runners().iter().all(|runner| config.contains(&runner.token))
}

#[test]
fn stop_sends_no_reset_that_waits_for_its_turn() {
    let (sandbox, held) = crowded("[shutdown]\ngrace = \"300ms\"\n");
    let daemon = sandbox.start_serving();
    sandbox.wait_for_requests(Endpoint::Reset, 4);
    daemon.signal(Signal::TERM);
    sandbox.wait("the end of the grace time", |_| daemon.log().contains(ONLY_COPY));
    held.release();
    let Output { code, stderr: log, .. } = daemon.end();
    assert_eq!(code, Some(0), "{log}");
    for wrong in ["operations in progress", "lost", "failed, trying again", "requests=7"] {
        assert!(!log.contains(wrong), "{wrong}: {log}");
    }
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Reset).len(), 4);
    assert!(are_all_in_config(&sandbox));
}

#[test]
fn interrupted_command_sends_no_reset_that_waits_for_its_turn() {
    let (sandbox, held) = crowded("");
    let rotation = sandbox.start(&["rotate", "--all-runners", "--parallel", "4"]);
    sandbox.wait_for_requests(Endpoint::Reset, 4);
    rotation.signal(Signal::TERM);
    sandbox.wait("the signal to be noticed", |_| rotation.log().contains("interrupted"));
    held.release();
    let output = rotation.end();
    output.exits(6).says("interrupted: not begun");
    assert!(!output.stderr.contains("lost"), "{output:?}");
    assert_eq!(output.stdout.matches("has a new token").count(), 4, "{output:?}");
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Reset).len(), 4);
    assert!(are_all_in_config(&sandbox));
}

#[test]
fn second_daemon_fails_with_the_pid_of_the_first() {
    let sandbox = enrolled(Gitlab::builder(), "");
    let first = sandbox.start_serving();
    let Output { code, stderr: log, .. } = sandbox.start(&["run"]).end();
    assert_eq!(code, Some(4));
    assert!(log.contains(&format!("process {}", first.pid())), "{log}");
}

#[test]
fn second_daemon_with_another_state_directory_fails_with_the_pid_of_the_first() {
    let sandbox = enrolled(Gitlab::builder(), "");
    let first = sandbox.start_serving();
    sandbox.wait_for_registration();
    let elsewhere = sandbox.path("elsewhere");
    let Output { code, stderr: log, .. } = sandbox.run(&["run", "--state-dir", elsewhere.to_str().unwrap()]);
    assert_eq!(code, Some(4), "{log}");
    assert!(log.contains(&format!("another runner-agent (process {}) serves this config.toml", first.pid())), "{log}");
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), 1);
    assert!(first.is_running());
}

#[test]
fn invalid_files_fail_the_start_and_are_kept() {
    let sandbox = super::sandbox(Gitlab::builder());
    sandbox.write_config("concurrent = 1\n[[runners]\n");
    let Output { code, stderr: log, .. } = sandbox.start(&["run"]).end();
    assert_eq!(code, Some(4));
    assert!(log.contains("line 2, column"), "{log}");
    assert_eq!(sandbox.config(), "concurrent = 1\n[[runners]\n");

    let sandbox = super::sandbox(Gitlab::builder());
    sandbox.write("agent.toml", "[verify]\ninterval = \"soon\"\nintervall = 1\n[[enroll]]\nname = \"a\"\n");
    let Output { code, stderr: log, .. } = sandbox.start(&["run"]).end();
    assert_eq!(code, Some(4));
    for line in ["2:", "3:", "4:"] {
        assert!(log.contains(line), "every error is reported: {log}");
    }

    let sandbox = super::sandbox(Gitlab::builder());
    sandbox.write("config/.runner_system_id", "something else");
    let Output { code, stderr: log, .. } = sandbox.start(&["run"]).end();
    assert_eq!(code, Some(4));
    assert!(log.contains(".runner_system_id"), "{log}");
    assert_eq!(sandbox.read("config/.runner_system_id"), "something else");
}

#[test]
fn unusable_config_path_sends_no_request() {
    let sandbox = enrolled(Gitlab::builder(), "");
    // Not even root can read or replace a directory in place of config.toml.
    fs::create_dir(sandbox.path("config/config.toml")).unwrap();
    let Output { code, stderr: log, .. } = sandbox.start(&["run"]).end();
    assert_eq!(code, Some(4), "{log}");
    assert!(sandbox.gitlab.requests().is_empty());
}

#[test]
fn environment_alone_registers_a_runner() {
    let sandbox = super::sandbox(Gitlab::builder());
    let mut command = sandbox.command(&["run"]);
    command.env("CI_SERVER_URL", sandbox.gitlab.url());
    command.env("REGISTRATION_TOKEN", sandbox.gitlab.instance_registration_token());
    command.env("RUNNER_NAME", "from-env").env("RUNNER_TAG_LIST", "a,b");
    let daemon = Process::start(command);
    sandbox.wait_for_registration();
    assert_eq!(sandbox.gitlab.runners()[0].description, "from-env");
    let Output { code, .. } = daemon.stop(Signal::TERM);
    assert!(code == Some(0));
    assert!(sandbox.gitlab.runners().is_empty());
}

#[test]
fn stop_never_deletes_a_runner_that_is_declared_shared() {
    for unregister in ["enrolled", "all"] {
        let settings =
            format!("[shutdown]\nunregister = \"{unregister}\"\n[[runner]]\nname = \"build-1\"\nshared = true\n");
        let sandbox = enrolled(Gitlab::builder(), &settings);
        let daemon = sandbox.start(&["run"]);
        sandbox.wait_for_registration();
        let Output { code, stderr: log, .. } = daemon.stop(Signal::TERM);
        assert_eq!(code, Some(0), "{log}");
        assert!(sandbox.gitlab.requests_to(Endpoint::Delete).is_empty(), "{log}");
        assert_eq!(sandbox.gitlab.runners().len(), 1, "{log}");
    }
}

#[test]
fn runner_whose_entry_a_person_has_removed_is_not_unregistered_by_a_stop() {
    let sandbox = super::sandbox(Gitlab::builder());
    sandbox.write("agent.toml", "[shutdown]\nunregister = \"all\"\n");
    sandbox.register(&["--name", "goes"]).exits(0);
    sandbox.register(&["--name", "stays"]).exits(0);
    let config = sandbox.config();
    let second = config.rfind("[[runners]]").unwrap();
    let first = config.find("[[runners]]").unwrap();
    let daemon = sandbox.start_serving();
    sandbox.write_config(&format!("{}{}", &config[..first], &config[second..]));
    sandbox.wait("the runner to be released", |_| daemon.log().contains("and not unregistering it"));
    let Output { code, stderr: log, .. } = daemon.stop(Signal::TERM);
    assert_eq!(code, Some(0), "{log}");
    let remaining: Vec<_> = sandbox.gitlab.runners().into_iter().map(|runner| runner.description).collect();
    assert_eq!(remaining, ["goes"], "{log}");
}
