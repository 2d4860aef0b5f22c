//! The daemon survives such servers, retries rarely, and recovers once the server does.

use super::limited::{IMPATIENT, LimitedProcess, LimitedSandbox};
use std::thread;
use std::time::{Duration, Instant};
use test_support::PATIENCE;

use fake_gitlab::{Endpoint, Fault};
use rustix::process::Signal;
use serde_json::json;

#[track_caller]
fn wait(what: &str, daemon: &LimitedProcess, is_there: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_there() {
        assert!(daemon.is_running(), "the daemon ended while the test waited for {what}");
        assert!(Instant::now() < deadline, "timed out waiting for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Injects a fault until the daemon has retried a few times, then clears it: the daemon recovers by itself.
fn assert_survives(endpoint: Endpoint, fault: Fault) {
    assert_recovers(endpoint, fault, 3, false);
}

/// Injects a fault into answers of which one may be a lost registration: the daemon does not repeat that one by itself.
fn assert_survives_until_hup(endpoint: Endpoint, fault: Fault) {
    assert_recovers(endpoint, fault, 1, true);
}

fn assert_recovers(endpoint: Endpoint, fault: Fault, faults: usize, is_registration_lost: bool) {
    let sandbox = LimitedSandbox::new();
    let url = sandbox.gitlab.url();
    sandbox.write("token", &sandbox.gitlab.instance_registration_token());
    sandbox.write_fast_settings(&format!(
        "{IMPATIENT}[[enroll]]\nname = \"b\"\nurl = \"{url}\"\nregistration_token = {{ file = \"token\" }}\n"
    ));
    let (_, token) = sandbox.add_created();
    let before = sandbox.entries();
    let order = sandbox.gitlab.order(endpoint, fault);
    order.always();
    let daemon = sandbox.start(&["run", "--log-level", "trace"]);
    wait("the faults", &daemon, || order.injected() >= faults);
    if is_registration_lost {
        wait("a lost registration", &daemon, || sandbox.state().contains("registration_lost"));
    }
    assert_eq!(sandbox.entries()[0], before[0], "the user's entry is unchanged");
    assert!(daemon.peak_kib().unwrap() < 64 * 1024, "{:?} KiB", daemon.peak_kib());
    sandbox.gitlab.clear_faults();
    if is_registration_lost {
        daemon.signal(Signal::HUP);
    }
    let gitlab = &sandbox.gitlab;
    wait("both runners", &daemon, || {
        let tokens: Vec<_> = gitlab.runners().into_iter().map(|runner| runner.token).collect();
        let entries = sandbox.entries();
        entries.len() == 2
            && entries.iter().all(|entry| tokens.iter().any(|token| entry["token"].as_str() == Some(token)))
    });
    daemon.signal(Signal::QUIT);
    let done = daemon.end();
    done.exits(0);
    assert!(!done.text().contains(&token), "{done:#?}");
}

#[test]
fn daemon_survives_a_huge_body() {
    assert_survives(Endpoint::Verify, Fault::huge(1 << 30));
    assert_survives_until_hup(Endpoint::Register, Fault::huge(1 << 30));
}

#[test]
fn daemon_survives_endless_headers() {
    assert_survives(Endpoint::Any, Fault::endless_headers());
}

#[test]
fn daemon_survives_a_slow_body() {
    assert_survives(Endpoint::Verify, Fault::drip(Duration::from_millis(50)));
}

#[test]
fn daemon_survives_deeply_nested_arrays() {
    assert_survives(Endpoint::Any, Fault::text(200, "application/json", "[".repeat(100_000)));
}

#[test]
fn daemon_survives_truncated_responses() {
    assert_survives(Endpoint::Any, Fault::truncated());
    assert_survives(Endpoint::Any, Fault::broken_json());
}

#[test]
fn daemon_rejects_tokens_with_toml_syntax() {
    assert_survives_until_hup(
        Endpoint::Any,
        Fault::amended(|answer| answer["token"] = json!("a\"\n[[runners]]\ntoken = \"b")),
    );
}

#[test]
fn daemon_rejects_ids_out_of_range() {
    assert_survives(Endpoint::Any, Fault::amended(|answer| answer["id"] = json!(1_u64 << 63)));
}

#[test]
fn daemon_log_has_no_escape_sequences() {
    assert_survives(Endpoint::Any, Fault::json(503, json!({ "message": "\u{1b}[2J\u{1b}]0;owned\u{7}\r\n\u{202e}" })));
}
