//! How the daemon ends, and when it does not begin.

use super::enrolled;
use std::fs;
use test_support::{Output, Process};

use fake_gitlab::{Endpoint, Fault, Gitlab};
use rustix::process::Signal;

#[test]
fn quit_keeps_the_registration_and_term_ends_it() {
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
fn a_second_signal_ends_a_shutdown_that_hangs() {
    let sandbox = enrolled(Gitlab::builder(), "[shutdown]\ngrace = \"1h\"\n");
    let daemon = sandbox.start(&["run"]);
    sandbox.wait_for_registration();
    sandbox.gitlab.order(Endpoint::Delete, Fault::hold());
    daemon.signal(Signal::TERM);
    sandbox.wait("the deletion to be asked for", |sandbox| !sandbox.gitlab.requests_to(Endpoint::Delete).is_empty());
    let Output { code, stderr: log, .. } = daemon.stop(Signal::TERM);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("second stop signal"), "{log}");
}

#[test]
fn the_grace_time_bounds_a_shutdown_that_hangs() {
    let sandbox = enrolled(Gitlab::builder(), "[shutdown]\ngrace = \"500ms\"\n");
    let daemon = sandbox.start(&["run"]);
    sandbox.wait_for_registration();
    sandbox.gitlab.order(Endpoint::Delete, Fault::hold());
    let log = daemon.stop(Signal::TERM).stderr;
    assert!(log.contains("the grace time is over"), "{log}");
}

#[test]
fn a_second_daemon_is_refused_and_told_who_is_first() {
    let sandbox = enrolled(Gitlab::builder(), "");
    let first = sandbox.start_serving();
    let Output { code, stderr: log, .. } = sandbox.start(&["run"]).end();
    assert_eq!(code, Some(4));
    assert!(log.contains(&format!("process {}", first.pid())), "{log}");
}

#[test]
fn an_unusable_file_stops_the_start_with_its_place_and_stays_untouched() {
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
        assert!(log.contains(line), "all mistakes at once: {log}");
    }

    let sandbox = super::sandbox(Gitlab::builder());
    sandbox.write("config/.runner_system_id", "something else");
    let Output { code, stderr: log, .. } = sandbox.start(&["run"]).end();
    assert_eq!(code, Some(4));
    assert!(log.contains(".runner_system_id"), "{log}");
    assert_eq!(sandbox.read("config/.runner_system_id"), "something else");
}

#[test]
fn no_token_is_spent_where_it_could_not_be_kept() {
    let sandbox = enrolled(Gitlab::builder(), "");
    // A directory where config.toml should be can be neither read nor replaced, not even by root.
    fs::create_dir(sandbox.path("config/config.toml")).unwrap();
    let Output { code, stderr: log, .. } = sandbox.start(&["run"]).end();
    assert_eq!(code, Some(4), "{log}");
    assert!(sandbox.gitlab.requests().is_empty());
}

#[test]
fn the_environment_alone_makes_a_runner() {
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
