//! `status` and `health`, which ask the daemon.

use std::process::{Output, Stdio};

use rustix::process::Signal;
use test_gitlab::{Endpoint, Fault, Gitlab};

use super::bench::Bench;

impl Bench {
    /// Runs a command to its end.
    fn ask(&self, words: &[&str]) -> Output {
        self.command(words).stdin(Stdio::null()).output().unwrap()
    }
}

fn texts(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn status_tells_people_and_scripts_how_the_runners_stand() {
    let bench = Bench::enrolling(Gitlab::builder(), "");
    let _daemon = bench.serving();
    let waited = bench.ask(&["status", "--wait", "ready", "--output", "json"]);
    let (code, stdout, stderr) = texts(&waited);
    assert_eq!(code, Some(0), "{stderr}");
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["runners"][0]["state"], "active");
    // What the settings say is none of its business.
    bench.write("agent.toml", "broken [");
    let (code, stdout, stderr) = texts(&bench.ask(&["status"]));
    assert_eq!(code, Some(0), "{stderr}");
    let lines: Vec<_> = stdout.lines().collect();
    assert!(lines[0].starts_with("NAME") && lines[0].ends_with("NEXT"), "{stdout}");
    assert!(lines[1].starts_with("build-1") && lines[1].contains("verify "), "{stdout}");
}

#[test]
fn status_tells_what_is_wrong_and_how_long_it_waited_for_it() {
    let bench = Bench::enrolling(Gitlab::builder(), "");
    let refusal = serde_json::json!({ "message": "410 Gone - runner registration disallowed" });
    bench.gitlab.order(Endpoint::Register, Fault::json(410, refusal)).always();
    let _daemon = bench.serving();
    let (code, _, stderr) = texts(&bench.ask(&["status", "--wait", "ready", "--timeout", "1s"]));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("not ready after 1s") && stderr.contains("runner `build-1`: "), "{stderr}");
    bench.wait("the sentence with the remedy", |bench| {
        let (code, stdout, _) = texts(&bench.ask(&["status"]));
        assert_eq!(code, Some(0), "asking has worked");
        stdout.contains("\nrunner `build-1`: ") && stdout.contains("create the runner in GitLab's UI")
    });
    let (code, stdout, _) = texts(&bench.ask(&["health", "--ready"]));
    assert_eq!((code, stdout.lines().count()), (Some(1), 1));
    assert!(stdout.starts_with("not ready: runner `build-1`: "), "{stdout}");
}

#[test]
fn an_enrollment_whose_runner_was_unregistered_is_not_ready_until_a_reload() {
    let bench = Bench::enrolling(Gitlab::builder(), "");
    let daemon = bench.serving();
    assert_eq!(bench.ask(&["status", "--wait", "ready"]).status.code(), Some(0));
    assert_eq!(bench.ask(&["unregister", "--name", "build-1"]).status.code(), Some(0));
    bench.wait("the daemon to miss its runner", |bench| {
        let (code, stdout, _) = texts(&bench.ask(&["health", "--ready"]));
        code == Some(1) && stdout.contains("it is not served")
    });
    daemon.signal(Signal::HUP);
    bench.wait_for_registration();
    assert_eq!(bench.ask(&["status", "--wait", "ready"]).status.code(), Some(0));
}

#[test]
fn status_waits_for_a_daemon_that_is_not_there_yet() {
    let bench = Bench::enrolling(Gitlab::builder(), "");
    let mut command = bench.command(&["status", "--wait", "ready", "--timeout", "10m"]);
    let waiting = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _daemon = bench.serving();
    let (code, stdout, stderr) = texts(&waiting.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("build-1") && stdout.contains("active"), "{stdout}");
}

#[test]
fn nobody_to_ask_is_said_with_the_remedy() {
    let bench = Bench::new(Gitlab::builder());
    let (code, stdout, stderr) = texts(&bench.ask(&["status"]));
    assert_eq!((code, stdout.as_str()), (Some(5), ""));
    assert!(stderr.contains("run/agent.sock") && stderr.contains("hint: start it with `runner-agent run`"), "{stderr}");
    let (code, _, stderr) = texts(&bench.ask(&["status", "--wait", "ready", "--timeout", "1s"]));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("no daemon answers"), "{stderr}");
    let (code, stdout, _) = texts(&bench.ask(&["health"]));
    assert_eq!((code, stdout.lines().count()), (Some(1), 1));
    let socket = bench.path("elsewhere.sock");
    let (_, _, stderr) = texts(&bench.ask(&["status", "--socket", socket.to_str().unwrap()]));
    assert!(stderr.contains("elsewhere.sock") && !stderr.contains("run/agent.sock"), "{stderr}");
}

#[test]
fn a_daemon_that_hangs_is_not_healthy() {
    let bench = Bench::new(Gitlab::builder());
    let daemon = bench.serving();
    assert_eq!(texts(&bench.ask(&["health"])), (Some(0), "healthy\n".to_owned(), String::new()));
    daemon.signal(Signal::STOP);
    let (code, stdout, _) = texts(&bench.ask(&["health"]));
    assert_eq!(code, Some(1));
    assert!(stdout.contains("has not answered within 3 s"), "{stdout}");
    assert_eq!(texts(&bench.ask(&["status"])).0, Some(5));
    daemon.signal(Signal::CONT);
    bench.wait("its recovery", |bench| texts(&bench.ask(&["health"])).0 == Some(0));
}

#[test]
fn waiting_for_a_daemon_that_hangs_ends_in_time() {
    let bench = Bench::new(Gitlab::builder());
    let daemon = bench.serving();
    daemon.signal(Signal::STOP);
    let (code, stdout, stderr) = texts(&bench.ask(&["status", "--wait", "ready", "--timeout", "1s"]));
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    // Sooner than any answer is given up.
    assert!(stderr.contains("not ready after 1s") && !stderr.contains("within 3 s"), "{stderr}");
    daemon.signal(Signal::CONT);
}

#[test]
fn a_wait_without_end_begins() {
    let bench = Bench::new(Gitlab::builder());
    let _daemon = bench.serving();
    let (code, _, stderr) = texts(&bench.ask(&["status", "--wait", "ready", "--timeout", "36500d"]));
    assert_eq!(code, Some(0), "{stderr}");
}

#[test]
fn nobody_is_told_of_another_daemon() {
    let bench = Bench::enrolling(Gitlab::builder(), "");
    let first = bench.serving();
    bench.wait_for_registration();
    std::fs::create_dir(bench.path("second")).unwrap();
    bench.write("second.toml", "");
    let own = |words: &[&str]| {
        let mut command = bench.command(words);
        command.env("CONFIG_FILE", bench.path("second/config.toml")).env("STATE_DIRECTORY", bench.path("second/state"));
        command.env("RUNNER_AGENT_CONFIG", bench.path("second.toml")).stdin(Stdio::null());
        command
    };
    let asked = texts(&own(&["status"]).output().unwrap());
    assert_eq!((asked.0, asked.1.as_str()), (Some(5), ""));
    assert!(asked.2.contains("serves a different config.toml") && asked.2.contains("hint: name "), "{}", asked.2);
    let second = super::bench::Daemon::spawn(own(&["run"]));
    bench.wait("the second daemon", |_| texts(&own(&["health"]).output().unwrap()).0 == Some(0));
    let told = texts(&own(&["status"]).output().unwrap());
    assert_eq!(told, (Some(0), "the daemon serves no runners\n".to_owned(), String::new()));
    assert!(texts(&bench.ask(&["status"])).1.contains("build-1"));
    drop(first);
    assert_eq!(texts(&bench.ask(&["status"])).0, Some(5), "the second one is not taken for the first");
    drop(second);
}
