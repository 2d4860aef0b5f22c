//! Lives of tokens: rotated in time, whoever else is in trouble.

use std::time::Duration;

use rustix::process::Signal;
use test_gitlab::{Endpoint, Fault, Gitlab, NewRunner, Outage};

use super::bench::Bench;

/// Timing for tokens that live four seconds.
const SHORT: &str = "[timing]\nbetween_resets_floor = \"1s\"\nfloor = \"200ms\"\n";

const LIFE: Duration = Duration::from_secs(4);

fn entry(name: &str, url: &str, id: u64, token: &str) -> String {
    format!("[[runners]]\n  name = \"{name}\"\n  url = \"{url}\"\n  id = {id}\n  token = \"{token}\"\n\n")
}

#[test]
fn a_healthy_runner_rotates_on_time_for_ten_lives_beside_a_refused_one() {
    let bench = Bench::new(Gitlab::builder().token_life(LIFE));
    let url = bench.gitlab.url();
    let (id, token) = bench.gitlab.add_runner(NewRunner::instance());
    let dead = "glrt-refusedforever00000";
    bench.write("config.toml", &format!("{}{}", entry("dead", &url, 999, dead), entry("healthy", &url, id, &token)));
    bench.write("agent.toml", SHORT);
    let daemon = bench.serving();
    let rotations = |bench: &Bench| bench.gitlab.runner(id).unwrap().rotations;
    bench.wait("ten lives", |bench| rotations(bench) >= 15);
    let (status, _) = daemon.stop(Signal::QUIT);
    assert!(status.success());
    // Every reset was accepted, so every one came before the token's expiry.
    let resets = bench.gitlab.requests_to(Endpoint::Reset);
    assert!(resets.iter().all(|request| request.status == Some(201)), "a rotation came too late");
    let of_dead = bench.gitlab.requests().iter().filter(|request| request.parameter("token") == Some(dead)).count();
    assert!((1..12).contains(&of_dead), "{of_dead} requests for the refused runner");
    assert!(bench.config().contains(dead), "the refused entry stays for its owner to look at");
}

#[test]
fn a_server_that_is_down_for_a_while_loses_nothing() {
    let bench = Bench::enrolling(Gitlab::builder().token_life(Duration::from_secs(3600)), SHORT);
    let maintenance = serde_json::json!({ "message": "under maintenance" });
    let order = bench.gitlab.order(Endpoint::Any, Fault::json(503, maintenance));
    order.always();
    let mut daemon = bench.serving();
    bench.wait("a few tries", |bench| bench.gitlab.requests().len() >= 3);
    assert!(daemon.is_running());
    assert_eq!(daemon.log().matches("WARN").count(), 1, "told once: {}", daemon.log());
    order.cancel();
    bench.wait_for_registration();
    bench.gitlab.outage(Some(Outage::Unavailable));
    let before = bench.config();
    bench.gitlab.clear_requests();
    daemon.signal(Signal::HUP);
    bench.wait("a failing verification", |bench| bench.gitlab.requests_to(Endpoint::Verify).len() >= 2);
    assert_eq!(bench.config(), before);
    bench.gitlab.outage(None);
    bench.wait("the daemon to catch up", |_| daemon.log().matches("works again").count() >= 2);
    assert_eq!(bench.gitlab.requests_to(Endpoint::Register).len(), 0);
    assert!(daemon.is_running());
}

#[test]
fn every_step_is_one_request_with_a_json_body_and_one_system_id() {
    let settings = format!("{SHORT}[verify]\ninterval = \"1s\"\n");
    let bench = Bench::enrolling(Gitlab::builder().token_life(LIFE), &settings);
    let daemon = bench.serving();
    bench.wait("two rotations", |bench| bench.gitlab.requests_to(Endpoint::Reset).len() >= 2);
    let (_, log) = daemon.stop(Signal::TERM);
    let system_id = bench.read(".runner_system_id");
    for request in bench.gitlab.requests() {
        assert_eq!(request.header("content-type"), Some("application/json"), "{request:?}");
        assert!(request.header("x-request-id").is_some() && request.header("user-agent").is_some());
        assert_eq!(request.path, request.bare_path(), "nothing is in the query");
        assert!(request.status.is_some_and(|status| status < 300), "{request:?}\n{log}");
        if matches!(request.endpoint, Endpoint::Verify | Endpoint::Reset) {
            assert_eq!(request.parameter("system_id"), Some(system_id.trim()));
        }
    }
    assert_eq!(bench.gitlab.requests_to(Endpoint::Register).len(), 1);
    assert_eq!(bench.gitlab.requests_to(Endpoint::Delete).len(), 1);
}

#[test]
fn a_given_runner_is_kept_alive_and_only_its_manager_goes() {
    let bench = Bench::new(Gitlab::builder().token_life(LIFE));
    let (id, token) = bench.gitlab.add_runner(NewRunner::instance());
    bench.write("token", &token);
    let enrollment = bench.enrollment("given").replace("registration_token", "token");
    bench.write("agent.toml", &format!("{SHORT}{enrollment}"));
    let daemon = bench.serving();
    bench.wait("a rotation", |bench| bench.gitlab.runner(id).unwrap().rotations >= 1 && bench.is_in_step());
    assert_eq!(bench.gitlab.runner(id).unwrap().managers.len(), 1);
    let (status, log) = daemon.stop(Signal::TERM);
    assert!(status.success(), "{log}");
    assert!(bench.gitlab.runner(id).unwrap().managers.is_empty());
    assert!(bench.is_in_step(), "entry and token stay");
    // The token file now holds a retired token, which must not be mistaken for a new one.
    let daemon = bench.serving();
    bench.wait("a verification", |bench| bench.gitlab.runner(id).unwrap().managers.len() == 1);
    assert!(bench.is_in_step(), "{}", daemon.log());
}
