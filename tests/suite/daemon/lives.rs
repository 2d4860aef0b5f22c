//! Token lifetimes: each token is rotated in time, even if other runners fail.

use super::{enrolled, enrollment};
use std::fs;
use std::time::Duration;
use test_support::{Output, Process, Sandbox};

use fake_gitlab::{Endpoint, Fault, Gitlab, NewRunner, Outage, Request};
use rustix::process::Signal;

/// Timing for tokens that live four seconds.
const SHORT: &str = "[timing]\nbetween_resets_floor = \"1s\"\nfloor = \"200ms\"\n";

const LIFE: Duration = Duration::from_secs(4);

fn entry(name: &str, url: &str, id: u64, token: &str) -> String {
    format!("[[runners]]\n  name = \"{name}\"\n  url = \"{url}\"\n  id = {id}\n  token = \"{token}\"\n\n")
}

#[test]
fn daemon_may_open_as_many_files_as_the_hard_limit_allows() {
    let sandbox = enrolled(Gitlab::builder(), "");
    let daemon = Process::start(sandbox.shell("ulimit -Sn 40; ulimit -Hn 512; exec \"$0\" \"$@\"", &["run"]));
    sandbox.wait_for_registration();
    let limits = fs::read_to_string(daemon.proc("limits")).unwrap();
    let open_files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(open_files.split_whitespace().collect::<Vec<_>>()[3..5], ["512", "512"], "{limits}");
}

#[test]
fn many_runners_are_rotated_with_few_file_descriptors() {
    let sandbox = super::sandbox(Gitlab::builder().token_life("30s"));
    let add = |number| {
        let (id, token) = sandbox.gitlab.add_runner(NewRunner::instance());
        sandbox.entry(&format!("runner-{number}"), id, &token)
    };
    sandbox.write_config(&(0..80).map(add).collect::<String>());
    sandbox.write("agent.toml", &format!("{SHORT}[rotate]\nat = \"10%\"\nfound = \"always\"\n"));
    // Fewer than there are runners, for the hard limit as well.
    let daemon = Process::start(sandbox.shell("ulimit -n 48; exec \"$0\" \"$@\"", &["run"]));
    sandbox.wait("every runner to be rotated", |sandbox| {
        sandbox.gitlab.runners().iter().all(|runner| runner.rotations > 0)
    });
    let Output { code, stderr: log, .. } = daemon.stop(Signal::QUIT);
    assert_eq!(code, Some(0), "{log}");
    assert!(sandbox.is_in_step() && !log.contains("Too many open files"), "{log}");
}

#[test]
fn rotation_that_an_overloaded_gateway_has_hidden_is_not_repeated_with_the_dead_token() {
    let sandbox = enrolled(Gitlab::builder().token_life("30s"), &format!("{SHORT}[rotate]\nat = \"10%\"\n"));
    let unavailable = Fault::json(503, serde_json::json!({ "message": "Service Unavailable" }));
    sandbox.gitlab.order(Endpoint::Reset, unavailable.after_acting());
    let daemon = sandbox.start_serving();
    sandbox.wait_for_requests(Endpoint::Reset, 1);
    let dead = sandbox.gitlab.requests_to(Endpoint::Reset)[0].parameter("token").unwrap().to_owned();
    let is_asked = |sandbox: &Sandbox| {
        let asked = sandbox.gitlab.requests_to(Endpoint::Verify);
        asked.iter().filter(|request| request.parameter("token") == Some(&dead) && request.status == Some(403)).count()
    };
    sandbox.wait("two refusals", |sandbox| is_asked(sandbox) >= 2);
    sandbox.wait("another registration", |sandbox| sandbox.gitlab.requests_to(Endpoint::Register).len() == 2);
    let log = daemon.stop(Signal::QUIT).stderr;
    let with_dead = |request: &&Request| request.parameter("token") == Some(&dead);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Reset).iter().filter(with_dead).count(), 1, "{log}");
    let registered = sandbox.gitlab.runners().pop().unwrap();
    assert!(sandbox.config().contains(&registered.token), "{log}");
}

#[test]
fn healthy_runner_rotates_on_time_beside_a_refused_one() {
    let sandbox = super::sandbox(Gitlab::builder().token_life(LIFE));
    let url = sandbox.gitlab.url();
    let (id, token) = sandbox.gitlab.add_runner(NewRunner::instance());
    let dead = "glrt-refusedforever00000";
    sandbox.write_config(&format!("{}{}", entry("dead", &url, 999, dead), entry("healthy", &url, id, &token)));
    sandbox.write("agent.toml", &format!("{SHORT}[rotate]\nfound = \"always\"\n"));
    let daemon = sandbox.start_serving();
    let rotations = |sandbox: &Sandbox| sandbox.gitlab.runner(id).unwrap().rotations;
    sandbox.wait("ten lives", |sandbox| rotations(sandbox) >= 15);
    let Output { code, .. } = daemon.stop(Signal::QUIT);
    assert!(code == Some(0));
    // Every reset was accepted, so every one came before the token's expiry.
    let resets = sandbox.gitlab.requests_to(Endpoint::Reset);
    assert!(resets.iter().all(|request| request.status == Some(201)), "a rotation was too late");
    let of_dead = sandbox.gitlab.requests().iter().filter(|request| request.parameter("token") == Some(dead)).count();
    assert!((1..12).contains(&of_dead), "{of_dead} requests for the refused runner");
    assert!(sandbox.config().contains(dead), "the refused entry is kept");
}

#[test]
fn refused_token_is_logged_as_an_error_and_its_entry_stays() {
    let sandbox = super::sandbox(Gitlab::builder());
    let dead = "glrt-refusedforever00000";
    sandbox.write_config(&entry("dead", &sandbox.gitlab.url(), 999, dead));
    sandbox.write("agent.toml", "[timing]\nconfirm_after = \"10ms\"\nfloor = \"10ms\"\n");
    let daemon = sandbox.start_serving();
    let is_said = |line: &str| line.contains("ERROR") && line.contains("the server refuses the token");
    sandbox.wait("the error", |_| daemon.log().lines().any(|line| is_said(line) && line.contains("\"dead\"")));
    let Output { code, .. } = daemon.stop(Signal::QUIT);
    assert_eq!(code, Some(0));
    assert!(sandbox.config().contains(dead), "the refused entry is kept");
}

#[test]
fn temporary_outage_loses_nothing() {
    let sandbox = enrolled(Gitlab::builder().token_life(Duration::from_secs(3600)), SHORT);
    let maintenance = serde_json::json!({ "message": "GitLab is undergoing maintenance" });
    let order = sandbox.gitlab.order(Endpoint::Any, Fault::json(503, maintenance).retry_after(1));
    order.always();
    let daemon = sandbox.start_serving();
    sandbox.wait("a few attempts", |sandbox| sandbox.gitlab.requests().len() >= 3);
    assert!(daemon.is_running());
    assert_eq!(daemon.log().matches("WARN").count(), 1, "one warning: {}", daemon.log());
    order.cancel();
    sandbox.wait_for_registration();
    sandbox.gitlab.outage(Some(Outage::Unavailable));
    let before = sandbox.config();
    sandbox.gitlab.clear_requests();
    daemon.signal(Signal::HUP);
    sandbox.wait("a failing verification", |sandbox| sandbox.gitlab.requests_to(Endpoint::Verify).len() >= 2);
    assert_eq!(sandbox.config(), before);
    sandbox.gitlab.outage(None);
    sandbox.wait("the daemon to catch up", |_| daemon.log().matches("works again").count() >= 2);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), 0);
    assert!(daemon.is_running());
}

#[test]
fn each_operation_sends_one_json_request() {
    let settings = format!("{SHORT}[verify]\ninterval = \"1s\"\n");
    let sandbox = enrolled(Gitlab::builder().token_life(LIFE), &settings);
    let daemon = sandbox.start_serving();
    sandbox.wait("two rotations", |sandbox| sandbox.gitlab.requests_to(Endpoint::Reset).len() >= 2);
    let log = daemon.stop(Signal::TERM).stderr;
    let system_id = sandbox.read("config/.runner_system_id");
    // The probe before the registration asks without a token.
    let probes = |request: &Request| request.endpoint == Endpoint::Verify && request.body == "{}";
    for request in sandbox.gitlab.requests().into_iter().filter(|request| !probes(request)) {
        assert_eq!(request.header("content-type"), Some("application/json"), "{request:?}");
        assert!(request.header("x-request-id").is_some() && request.header("user-agent").is_some());
        assert_eq!(request.path, request.bare_path(), "the query is empty");
        assert!(request.status.is_some_and(|status| status < 300), "{request:?}\n{log}");
        if matches!(request.endpoint, Endpoint::Verify | Endpoint::Reset) {
            assert_eq!(request.parameter("system_id"), Some(system_id.trim()));
        }
    }
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), 1);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Delete).len(), 1);
}

#[test]
fn created_runner_loses_only_its_manager_at_shutdown() {
    let sandbox = super::sandbox(Gitlab::builder().token_life(LIFE));
    let (id, token) = sandbox.gitlab.add_runner(NewRunner::instance());
    sandbox.write("token", &token);
    let enrollment = enrollment(&sandbox, "given").replace("registration_token", "token");
    sandbox.write("agent.toml", &format!("{SHORT}{enrollment}"));
    let daemon = sandbox.start_serving();
    sandbox.wait("a rotation", |sandbox| sandbox.gitlab.runner(id).unwrap().rotations >= 1 && sandbox.is_in_step());
    assert_eq!(sandbox.gitlab.runner(id).unwrap().managers.len(), 1);
    let Output { code, stderr: log, .. } = daemon.stop(Signal::TERM);
    assert!(code == Some(0), "{log}");
    assert!(sandbox.gitlab.runner(id).unwrap().managers.is_empty());
    assert!(sandbox.is_in_step(), "entry and token are kept");
    // The token file now holds a retired token, which must not be mistaken for a new one.
    let daemon = sandbox.start_serving();
    sandbox.wait("a verification", |sandbox| sandbox.gitlab.runner(id).unwrap().managers.len() == 1);
    assert!(sandbox.is_in_step(), "{}", daemon.log());
}

#[test]
fn answers_of_something_else_than_gitlab_make_no_orphans() {
    let sandbox = enrolled(Gitlab::builder(), "[timing]\nfloor = \"10ms\"\nbackoff_first = \"10ms\"\n");
    let json = |status, text: &str| Fault::json(status, serde_json::json!({ "message": text }));
    let route = "no Route matched with those values";
    for status in [400, 401, 404, 405] {
        sandbox.gitlab.order(Endpoint::Register, Fault::html(status));
        sandbox.gitlab.order(Endpoint::Register, json(status, route));
    }
    let daemon = sandbox.start(&["run"]);
    sandbox.wait_for_registration();
    let log = daemon.stop(Signal::QUIT).stderr;
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), 9, "{log}");
    for text in ["may have created", "was lost", "never contacted"] {
        assert!(!log.contains(text), "{text}: {log}");
    }
}

#[test]
fn log_says_that_the_servers_time_does_not_count() {
    // A third of the life of its tokens behind, or not at all.
    for hours in [-240, 0] {
        let sandbox = enrolled(Gitlab::builder().token_life("30d"), "");
        sandbox.gitlab.set_clock_skew(jiff::SignedDuration::from_hours(hours));
        let daemon = sandbox.start_serving();
        sandbox.wait_for_registration();
        let Output { code, stderr: log, .. } = daemon.stop(Signal::QUIT);
        assert_eq!(code, Some(0), "{log}");
        let is_said = log.contains(", a large part of a token's life: going by this machine's clock");
        assert_eq!(is_said, hours != 0, "{log}");
    }
}

#[test]
fn log_says_that_a_date_after_the_expiry_of_a_new_token_does_not_count() {
    let sandbox = enrolled(Gitlab::builder().token_life("30d"), "");
    let ahead = sandbox.gitlab.now() + Duration::from_secs(40 * 86_400);
    let date = ahead.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    sandbox.gitlab.order(Endpoint::Any, Fault::header("date", &date)).always();
    let daemon = sandbox.start_serving();
    sandbox.wait_for_registration();
    let Output { code, stderr: log, .. } = daemon.stop(Signal::QUIT);
    assert_eq!(code, Some(0), "{log}");
    let lines: Vec<_> = log.lines().filter(|line| line.contains("later than the expiry of a token")).collect();
    assert!(matches!(lines[..], [line] if line.contains(" WARN ")), "{log}");
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Reset).len(), 0, "{log}");
}
