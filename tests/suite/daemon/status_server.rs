//! The daemon's HTTP server on its socket and over TCP.

use super::enrolled;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use test_support::{Output, PATIENCE, Process, Sandbox};

use fake_gitlab::{Endpoint, Fault, Gitlab, NewRunner, Outage};
use rustix::process::Signal;

/// Sends one request and returns status, headers and body.
pub(super) fn exchange(mut stream: impl Read + Write, request: &str) -> (u16, String, String) {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (headers, body) = answer.split_once("\r\n\r\n").expect(&answer);
    (headers[9..12].parse().unwrap(), headers.to_owned(), body.to_owned())
}

fn get(socket: &Path, path: &str) -> (u16, String) {
    let (status, _, body) = exchange(UnixStream::connect(socket).unwrap(), &request("GET", path));
    (status, body)
}

pub(super) fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// The value of a series; `None` if the series is missing.
pub(super) fn value(socket: &Path, series: &str) -> Option<f64> {
    let (_, text) = get(socket, "/metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(series))?.trim().to_owned();
    Some(line.parse().unwrap())
}

/// The TCP port that the daemon has chosen.
pub(super) fn port(sandbox: &Sandbox, daemon: &Process) -> u16 {
    let mut port = None;
    sandbox.wait("the daemon to listen", |_| {
        let log = daemon.log();
        port = log.split_once("addresses=\"127.0.0.1:").and_then(|(_, rest)| rest.split_once('"')?.0.parse().ok());
        port.is_some()
    });
    port.unwrap()
}

#[test]
fn socket_serves_every_path_to_its_owner_only() {
    let sandbox = enrolled(Gitlab::builder().token_life(Duration::from_secs(3600)), "");
    let daemon = sandbox.start_serving();
    sandbox.wait_for_registration();
    let socket = sandbox.path("run/agent.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(get(&socket, "/healthz"), (200, "ok\n".to_owned()));
    sandbox.wait("readiness", |_| get(&socket, "/readyz").0 == 200);
    let (status, body) = get(&socket, "/status");
    let report: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &report["schema"]), (200, &1.into()));
    let runner = &report["runners"][0];
    assert_eq!((&runner["name"], &runner["state"]), (&"build-1".into(), &"active".into()), "{body}");
    assert!(runner["next"]["at"].is_string() && runner["token_expires_at"].is_string(), "{body}");
    assert_eq!(get(&socket, "/metrics").0, 200);
    let (status, headers, body) = exchange(UnixStream::connect(&socket).unwrap(), &request("GET", "/"));
    assert!(status == 200 && headers.contains("content-security-policy: default-src 'none'"), "{headers}");
    assert!(
        body.contains("build-1") && body.contains("1 runner ready") && body.contains("registered as runner"),
        "{body}"
    );
    assert_eq!(get(&socket, "/favicon.ico").0, 404);
    let ask = |method: &str| exchange(UnixStream::connect(&socket).unwrap(), &request(method, "/status"));
    let (status, headers, body) = ask("HEAD");
    assert!(status == 200 && body.is_empty() && headers.contains("content-length"), "{headers}");
    assert_eq!(ask("POST").0, 405);
    let Output { code, stderr: log, .. } = daemon.stop(Signal::TERM);
    assert!(code == Some(0), "{log}");
    assert!(!socket.exists());
}

#[test]
fn readiness_follows_the_last_server_response() {
    let sandbox = enrolled(Gitlab::builder(), "[timing]\nfloor = \"200ms\"\nconfirm_after = \"200ms\"\n");
    let order = sandbox.gitlab.order(Endpoint::Verify, Fault::json(503, serde_json::json!({ "message": "not now" })));
    order.always();
    let daemon = sandbox.start_serving();
    let socket = sandbox.path("run/agent.sock");
    sandbox.wait("the reason", |_| get(&socket, "/readyz").1.contains("not now"));
    let (status, body) = get(&socket, "/readyz");
    let readiness: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &readiness["waiting_for"][0]["name"]), (503, &"build-1".into()), "{body}");
    order.cancel();
    // A registration that may have been executed is repeated only for a person who has looked for the runner.
    daemon.signal(Signal::HUP);
    sandbox.wait("readiness", |_| get(&socket, "/readyz").0 == 200);
    sandbox.gitlab.outage(Some(Outage::Unavailable));
    daemon.signal(Signal::HUP);
    sandbox.wait("a failing verification", |_| get(&socket, "/status").1.contains("unanswered"));
    assert_eq!(get(&socket, "/readyz").0, 200, "a missing response keeps the runner ready");
    sandbox.gitlab.outage(None);
    let runner = sandbox.gitlab.runners()[0].id;
    sandbox.gitlab.delete(runner);
    daemon.signal(Signal::HUP);
    sandbox.wait("the refusal", |_| get(&socket, "/readyz").0 == 503);
    assert_eq!(get(&socket, "/healthz").0, 200, "the daemon itself is healthy");
    sandbox.wait("the state", |_| {
        value(
            &socket,
            &format!(
                "runner_agent_state{{host=\"{}\",id=\"{runner}\",name=\"build-1\",state=\"rejected\"}}",
                host(&sandbox)
            ),
        ) == Some(1.0)
    });
}

fn host(sandbox: &Sandbox) -> String {
    sandbox.gitlab.url().trim_start_matches("http://").to_owned()
}

#[test]
fn metrics_count_operations_and_contain_no_token() {
    let settings = "[timing]\nbetween_resets_floor = \"1s\"\nfloor = \"200ms\"\n";
    let sandbox = enrolled(Gitlab::builder().token_life(Duration::from_secs(4)), settings);
    let daemon = sandbox.start_serving();
    sandbox.wait_for_registration();
    let socket = sandbox.path("run/agent.sock");
    let first = sandbox.gitlab.runners()[0].clone();
    let expiry = format!(
        "runner_agent_token_expiry_timestamp_seconds{{host=\"{}\",id=\"{}\",name=\"build-1\"}}",
        host(&sandbox),
        first.id
    );
    sandbox.wait("the series of the new runner", |_| value(&socket, &expiry).is_some());
    let before = value(&socket, &expiry).unwrap();
    sandbox.wait("two rotations", |_| value(&socket, "runner_agent_rotations_total{outcome=\"done\"}") >= Some(2.0));
    assert!(value(&socket, &expiry).unwrap() > before, "the same labels across rotations");
    let at_least_one = [
        "runner_agent_registrations_total{outcome=\"done\"}",
        "runner_agent_config_writes_total{outcome=\"done\"}",
        "runner_agent_api_requests_total{endpoint=\"register\",outcome=\"ok\"}",
        "runner_agent_api_requests_total{endpoint=\"reset\",outcome=\"ok\"}",
        "runner_agent_api_request_duration_seconds_count{endpoint=\"reset\"}",
    ];
    for series in at_least_one {
        assert!(value(&socket, series) >= Some(1.0), "{series}");
    }
    let bodies = ["/metrics", "/status", "/readyz", "/"].map(|path| get(&socket, path).1).concat();
    let sent: Vec<_> =
        sandbox.gitlab.requests().iter().filter_map(|request| request.parameter("token").map(str::to_owned)).collect();
    assert!(sent.len() >= 3);
    for token in sent.iter().chain([&first.token]) {
        assert!(!bodies.contains(token.as_str()), "{bodies}");
    }
    drop(daemon);
}

#[test]
fn series_of_a_removed_runner_disappear() {
    let sandbox = super::sandbox(Gitlab::builder());
    let entry = |name: &str| {
        let (id, token) = sandbox.gitlab.add_runner(NewRunner::instance());
        format!("[[runners]]\nname = \"{name}\"\nurl = \"{}\"\nid = {id}\ntoken = \"{token}\"\n", sandbox.gitlab.url())
    };
    let (stays, goes) = (entry("stays"), entry("goes"));
    sandbox.write_config(&format!("{stays}{goes}"));
    let _daemon = sandbox.start_serving();
    let socket = sandbox.path("run/agent.sock");
    let has = |name: &str| get(&socket, "/metrics").1.contains(&format!("name=\"{name}\""));
    assert!(has("stays") && has("goes"), "both series exist as soon as the daemon serves");
    sandbox.write_config(&stays);
    sandbox.wait("its series to go", |_| !has("goes"));
    assert!(has("stays"));
}

#[test]
fn only_a_stale_socket_is_replaced() {
    let sandbox = super::sandbox(Gitlab::builder());
    let socket = sandbox.path("run/agent.sock");
    let daemon = sandbox.start_serving();
    daemon.kill();
    assert!(socket.exists(), "a killed daemon leaves its socket");
    let _daemon = sandbox.start_serving();
    assert_eq!(get(&socket, "/healthz").0, 200);

    let other = super::sandbox(Gitlab::builder());
    let mut command = other.command(&["run"]);
    command.env("RUNTIME_DIRECTORY", sandbox.path("run"));
    let second = Process::start(command);
    other.wait("the second daemon to serve", |_| second.log().contains("serving"));
    assert!(second.log().contains("another daemon listens on it"), "{}", second.log());
    assert_eq!(get(&other.path("state/agent.sock"), "/healthz").0, 200, "the socket is in the state directory");
    second.stop(Signal::TERM);
    assert_eq!(get(&socket, "/healthz").0, 200);

    let named = other.start(&["run", "--socket", socket.to_str().unwrap()]);
    let Output { code, stderr: log, .. } = named.end();
    assert_eq!(code, Some(4), "{log}");
    assert!(log.contains("--socket") && socket.exists(), "{log}");
}

#[test]
fn unusable_runtime_directory_falls_back_to_the_state() {
    let sandbox = super::sandbox(Gitlab::builder());
    sandbox.write("run", "not a directory, not even for root");
    let daemon = sandbox.start_serving();
    assert!(daemon.log().contains("cannot create the socket"), "{}", daemon.log());
    assert_eq!(get(&sandbox.path("state/agent.sock"), "/healthz").0, 200);
}

#[test]
fn taken_or_remote_address_fails_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let sandbox = enrolled(Gitlab::builder(), &format!("[http]\nlisten = [\"{address}\"]\n"));
    let Output { code, stderr: log, .. } = sandbox.start(&["run"]).end();
    assert_eq!(code, Some(4), "{log}");
    assert!(log.contains(&address) && log.contains("hint: choose another address"), "{log}");
    assert!(sandbox.gitlab.requests().is_empty(), "no request is sent without the status server");

    let sandbox = enrolled(Gitlab::builder(), "[http]\nlisten = [\"0.0.0.0:0\"]\n");
    let Output { code, stderr: log, .. } = sandbox.start(&["run"]).end();
    assert_eq!(code, Some(4), "{log}");
    assert!(log.contains("agent.toml:2: ") && log.contains("allow_remote"), "{log}");
    let Output { code, .. } = sandbox.start(&["run", "--listen-address", "0.0.0.0:0"]).end();
    assert_eq!(code, Some(2));
}

#[test]
fn tcp_limits_slow_and_oversized_requests() {
    let sandbox = super::sandbox(Gitlab::builder());
    let daemon = sandbox.start(&["run", "--listen-address", "127.0.0.1:0"]);
    let port = port(&sandbox, &daemon);
    let connect = || {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let mut idle = connect();
    let mut slow = connect();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost:").unwrap();
    assert_eq!(exchange(connect(), &request("GET", "/healthz")).0, 200);
    assert!(exchange(connect(), &request("GET", "/metrics")).1.contains("version=0.0.4"));
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(100_000));
    let mut oversized = connect();
    // The server may close the connection before it has read everything.
    let _cut = oversized.write_all(long.as_bytes());
    let mut answer = Vec::new();
    let _cut = oversized.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
    for stream in [&mut idle, &mut slow] {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(!rest.starts_with(b"HTTP/1.1 2"));
    }
}

#[test]
fn status_keeps_the_file_order_across_restarts() {
    let sandbox = super::sandbox(Gitlab::builder());
    let names = ["f", "a", "e", "b", "d", "c"];
    let mut added: Vec<_> = names.map(|_| sandbox.gitlab.add_runner(NewRunner::instance())).into();
    added.reverse();
    let entries = names.iter().zip(added).map(|(name, (id, token))| {
        format!("[[runners]]\nname = \"{name}\"\nurl = \"{}\"\nid = {id}\ntoken = \"{token}\"\n", sandbox.gitlab.url())
    });
    sandbox.write_config(&entries.collect::<String>());
    let socket = sandbox.path("run/agent.sock");
    for _ in 0..2 {
        let daemon = sandbox.start_serving();
        sandbox.wait("every verification", |_| get(&socket, "/readyz").0 == 200);
        let report: serde_json::Value = serde_json::from_str(&get(&socket, "/status").1).unwrap();
        let listed: Vec<_> =
            report["runners"].as_array().unwrap().iter().map(|runner| runner["name"].clone()).collect();
        assert_eq!(listed, names);
        daemon.stop(Signal::QUIT);
    }
}
