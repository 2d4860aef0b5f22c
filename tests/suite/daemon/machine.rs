//! What is wrong with the machine: another process in the way of a start, and its clock.

use std::net::TcpListener;

use fake_gitlab::Gitlab;
use jiff::SignedDuration;
use rustix::process::Signal;

#[test]
fn a_second_daemon_names_the_first_and_how_to_manage_it() {
    let sandbox = super::sandbox(Gitlab::builder());
    let first = sandbox.start_serving();
    let process = format!("process {}", first.pid());
    sandbox.run(&["run"]).exits(4).says(&process).says("`runner-agent status` shows what it does");
    // Another config.toml with the same socket.
    let config = sandbox.write("other/config.toml", "").display().to_string();
    let socket = sandbox.path("run/agent.sock").display().to_string();
    let done = sandbox.run(&["run", "--wait-for-config", "--config", &config, "--socket", &socket]);
    done.exits(4).says(&format!("another daemon listens on it, or hangs: {process}"));
}

#[test]
fn a_port_in_use_names_the_process_that_listens() {
    let sandbox = super::sandbox(Gitlab::builder());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let done = sandbox.run(&["run", "--listen-address", &address]);
    done.exits(4).says(&format!("cannot listen on {address}, which process {}", std::process::id())).says("`ss -ltnp`");
}

#[test]
fn a_wrong_clock_is_said_once_for_all_runners_of_a_server() {
    let sandbox = super::sandbox(Gitlab::builder());
    sandbox.gitlab.set_clock_skew(SignedDuration::from_hours(730 * 24));
    sandbox.write_fast_settings("");
    let ids = [sandbox.add_created("a").0, sandbox.add_created("b").0];
    let daemon = sandbox.start_serving();
    sandbox.wait("both verifications", |sandbox| {
        ids.iter().all(|id| !sandbox.gitlab.runner(*id).unwrap().managers.is_empty())
    });
    let skew = "this machine's clock is 730d behind the server's";
    sandbox.wait("the skew", |_| daemon.log().contains(skew));
    let shown = format!("server 127.0.0.1: {skew}");
    sandbox.wait("the status", |sandbox| sandbox.run(&["status"]).stdout.contains(&shown));
    let rows = sandbox.run(&["status", "--output", "json"]).runners();
    assert!(
        rows.iter().any(|row| row["clock_skew_seconds"].as_i64().is_some_and(|seconds| seconds > 62_000_000)),
        "{rows:?}"
    );
    sandbox.gitlab.set_clock_skew(SignedDuration::ZERO);
    daemon.signal(Signal::HUP);
    sandbox.wait("the end of the skew", |_| daemon.log().contains("clock agrees with the server's again"));
    assert_eq!(daemon.log().matches(skew).count(), 1, "{}", daemon.log());
}
