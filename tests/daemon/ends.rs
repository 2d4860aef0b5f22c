//! How the daemon ends, and when it does not begin.

use std::fs;

use rustix::process::Signal;
use test_gitlab::{Endpoint, Fault, Gitlab};

use super::bench::{Bench, Daemon};

#[test]
fn quit_keeps_the_registration_and_term_ends_it() {
    let bench = Bench::enrolling(Gitlab::builder(), "");
    let daemon = bench.start();
    bench.wait_for_registration();
    let (status, log) = daemon.stop(Signal::QUIT);
    assert!(status.success(), "{log}");
    assert!(bench.is_in_step() && bench.gitlab.runners().len() == 1);
    let daemon = bench.serving();
    bench.wait("a verification", |bench| !bench.gitlab.requests_to(Endpoint::Verify).is_empty());
    let (status, log) = daemon.stop(Signal::TERM);
    assert!(status.success(), "{log}");
    assert!(bench.gitlab.runners().is_empty());
    assert!(!bench.config().contains("[[runners]]"));
}

#[test]
fn a_second_signal_ends_a_shutdown_that_hangs() {
    let bench = Bench::enrolling(Gitlab::builder(), "[shutdown]\ngrace = \"1h\"\n");
    let daemon = bench.start();
    bench.wait_for_registration();
    bench.gitlab.order(Endpoint::Delete, Fault::hold());
    daemon.signal(Signal::TERM);
    bench.wait("the deletion to be asked for", |bench| !bench.gitlab.requests_to(Endpoint::Delete).is_empty());
    let (status, log) = daemon.stop(Signal::TERM);
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("a second time"), "{log}");
}

#[test]
fn the_grace_time_bounds_a_shutdown_that_hangs() {
    let bench = Bench::enrolling(Gitlab::builder(), "[shutdown]\ngrace = \"500ms\"\n");
    let daemon = bench.start();
    bench.wait_for_registration();
    bench.gitlab.order(Endpoint::Delete, Fault::hold());
    let (_, log) = daemon.stop(Signal::TERM);
    assert!(log.contains("the grace time is over"), "{log}");
}

#[test]
fn a_second_daemon_is_refused_and_told_who_is_first() {
    let bench = Bench::enrolling(Gitlab::builder(), "");
    let first = bench.serving();
    let (status, log) = bench.start().end();
    assert_eq!(status.code(), Some(4));
    assert!(log.contains(&format!("process {}", first.pid())), "{log}");
}

#[test]
fn an_unusable_file_stops_the_start_with_its_place_and_stays_untouched() {
    let bench = Bench::new(Gitlab::builder());
    bench.write("config.toml", "concurrent = 1\n[[runners]\n");
    let (status, log) = bench.start().end();
    assert_eq!(status.code(), Some(4));
    assert!(log.contains("line 2, column"), "{log}");
    assert_eq!(bench.config(), "concurrent = 1\n[[runners]\n");

    let bench = Bench::new(Gitlab::builder());
    bench.write("agent.toml", "[verify]\ninterval = \"soon\"\nintervall = 1\n[[enroll]]\nname = \"a\"\n");
    let (status, log) = bench.start().end();
    assert_eq!(status.code(), Some(4));
    for line in ["2:", "3:", "4:"] {
        assert!(log.contains(line), "all mistakes at once: {log}");
    }

    let bench = Bench::new(Gitlab::builder());
    bench.write(".runner_system_id", "something else");
    let (status, log) = bench.start().end();
    assert_eq!(status.code(), Some(4));
    assert!(log.contains(".runner_system_id"), "{log}");
    assert_eq!(bench.read(".runner_system_id"), "something else");
}

#[test]
fn no_token_is_spent_where_it_could_not_be_kept() {
    let bench = Bench::enrolling(Gitlab::builder(), "");
    // A directory where config.toml should be can be neither read nor replaced, not even by root.
    fs::create_dir(bench.path("config.toml")).unwrap();
    let (status, log) = bench.start().end();
    assert_eq!(status.code(), Some(4), "{log}");
    assert!(bench.gitlab.requests().is_empty());
}

#[test]
fn the_environment_alone_makes_a_runner() {
    let bench = Bench::new(Gitlab::builder());
    let mut command = bench.command(&["run"]);
    command.env("CI_SERVER_URL", bench.gitlab.url());
    command.env("REGISTRATION_TOKEN", bench.gitlab.instance_registration_token());
    command.env("RUNNER_NAME", "from-env").env("RUNNER_TAG_LIST", "a,b");
    let daemon = Daemon::spawn(command);
    bench.wait_for_registration();
    assert_eq!(bench.gitlab.runners()[0].description, "from-env");
    let (status, _) = daemon.stop(Signal::TERM);
    assert!(status.success());
    assert!(bench.gitlab.runners().is_empty());
}
