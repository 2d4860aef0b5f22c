//! The endpoints that runners call with their own token.

#![allow(clippy::unwrap_used, reason = "a test")]

use fake_gitlab::{Endpoint, Gitlab, NewRunner, Outage, RunnerType, Scope};
use serde_json::{Value, json};
use test_support::http::{exchange, send, send_as};

fn gitlab(version: &str) -> Gitlab {
    Gitlab::builder().version(version).start()
}

fn forbidden() -> Value {
    json!({ "message": "403 Forbidden" })
}

#[test]
fn registered_runner_has_the_sent_attributes() {
    let gitlab = Gitlab::builder().version("18").token_life("1h").start();
    let body = json!({
        "token": gitlab.instance_registration_token(), "description": "one", "tag_list": "a, b", "locked": true,
        "run_untagged": false, "maximum_timeout": 600, "access_level": "ref_protected", "paused": true,
        "maintenance_note": "note", "info": { "name": "agent" },
    });
    let reply = send(&gitlab, "POST", "/runners", body);
    assert_eq!(reply.status, 201);
    let runner = gitlab.runner(reply.json()["id"].as_u64().unwrap()).unwrap();
    assert_eq!(reply.json()["token"], runner.token);
    assert!(reply.json()["token_expires_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!((runner.description.as_str(), runner.tags.clone()), ("one", vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!((runner.locked, runner.run_untagged, runner.paused), (true, false, true));
    assert_eq!(runner.maximum_timeout, Some(600));
    assert_eq!(runner.runner_type, RunnerType::Instance);
    assert!(runner.managers.is_empty() && runner.token.starts_with("glrtr-"));
}

#[test]
fn registration_token_determines_the_runner_type() {
    let gitlab = gitlab("16");
    let (project, group) = (gitlab.add_project("a/b"), gitlab.add_group("a"));
    assert!(project.registration_token.starts_with("GR1348941"));
    for (token, runner_type) in
        [(project.registration_token, RunnerType::Project), (group.registration_token, RunnerType::Group)]
    {
        let reply = send(&gitlab, "POST", "/runners", json!({ "token": token }));
        let runner = gitlab.runner(reply.json()["id"].as_u64().unwrap()).unwrap();
        assert_eq!(runner.runner_type, runner_type);
        assert_eq!(runner.token.len(), 20);
    }
}

#[test]
fn registration_refusal_depends_on_the_release() {
    for (version, disallowed, status, message) in [
        ("15.1", false, 403, "403 Forbidden"),
        ("15.1", true, 403, "403 Forbidden"),
        ("16", false, 403, "403 Forbidden - invalid token supplied"),
        ("16", true, 410, "410 Gone - runner registration disallowed"),
    ] {
        let gitlab = gitlab(version);
        if disallowed {
            gitlab.disallow_registration();
        }
        let reply = send(&gitlab, "POST", "/runners", json!({ "token": "wrong" }));
        assert_eq!((reply.status, reply.json()), (status, json!({ "message": message })), "{version}");
    }
}

#[test]
fn empty_token_is_403_even_if_registration_is_disabled() {
    let gitlab = gitlab("18");
    gitlab.disallow_registration();
    assert_eq!(send(&gitlab, "POST", "/runners", json!({ "token": "" })).status, 403);
}

#[test]
fn project_can_disallow_registration() {
    let gitlab = gitlab("18");
    let project = gitlab.add_project("a/b");
    gitlab.disallow_registration_in_project(project.id);
    assert_eq!(send(&gitlab, "POST", "/runners", json!({ "token": project.registration_token })).status, 410);
    let instance = gitlab.instance_registration_token();
    assert_eq!(send(&gitlab, "POST", "/runners", json!({ "token": instance })).status, 201);
    gitlab.refuse_to_register(RunnerType::Instance);
    assert_eq!(send(&gitlab, "POST", "/runners", json!({ "token": instance })).status, 403);
}

#[test]
fn invalid_parameters_are_named() {
    let gitlab = gitlab("18");
    let token = gitlab.instance_registration_token();
    for (body, error) in [
        (json!({}), "token is missing"),
        (json!({ "token": token, "access_level": "x" }), "access_level does not have a valid value"),
        (json!({ "token": token, "maximum_timeout": "x" }), "maximum_timeout is invalid"),
        (json!({ "token": token, "paused": true, "active": true }), "paused, active are mutually exclusive"),
    ] {
        let reply = send(&gitlab, "POST", "/runners", body);
        assert_eq!((reply.status, reply.json()), (400, json!({ "error": error })));
    }
    let reply =
        send(&gitlab, "POST", "/runners", json!({ "token": token, "run_untagged": false, "maximum_timeout": 1 }));
    let tags = json!(["can not be empty when runner is not allowed to pick untagged jobs"]);
    let expected = json!({ "message": { "tags_list": tags, "maximum_timeout": ["needs to be at least 10 minutes"] } });
    assert_eq!((reply.status, reply.json()), (400, expected));
}

#[test]
fn verify_returns_the_expiry_since_15_9() {
    let gitlab = Gitlab::builder().version("18").token_life("1h").start();
    let (id, token) = gitlab.add_runner(NewRunner::instance());
    let reply = send(&gitlab, "POST", "/runners/verify", json!({ "token": token, "system_id": "s_1" }));
    assert_eq!(reply.status, 200);
    assert_eq!((&reply.json()["id"], &reply.json()["token"]), (&json!(id), &json!(token)));
    let expires_at: jiff::Timestamp = reply.json()["token_expires_at"].as_str().unwrap().parse().unwrap();
    assert_eq!(Some(expires_at), gitlab.runner(id).unwrap().token_expires_at);
}

#[test]
fn verify_has_no_body_before_15_9() {
    let gitlab = gitlab("15.1");
    let (_, token) = gitlab.add_runner(NewRunner::instance());
    let reply = send(&gitlab, "POST", "/runners/verify", json!({ "token": token }));
    assert_eq!((reply.status, reply.text().as_str(), reply.header("content-type")), (200, "200", Some("text/plain")));
    let gitlab = Gitlab::builder().version("15.1").verify_answers_a_json_string().start();
    let (_, token) = gitlab.add_runner(NewRunner::instance());
    assert_eq!(send(&gitlab, "POST", "/runners/verify", json!({ "token": token })).json(), json!("200"));
}

#[test]
fn verify_updates_the_manager_contact() {
    let gitlab = gitlab("18");
    let (id, token) = gitlab.add_runner(NewRunner::instance());
    send(&gitlab, "POST", "/runners/verify", json!({ "token": token }));
    let info = json!({ "version": "1.0", "platform": "linux" });
    send(&gitlab, "POST", "/runners/verify", json!({ "token": token, "system_id": "s_1", "info": info }));
    send(&gitlab, "POST", "/runners/verify", json!({ "token": token, "system_id": "s_1" }));
    let runner = gitlab.runner(id).unwrap();
    assert_eq!(runner.managers.len(), 2);
    assert!(runner.manager("<legacy>").is_some());
    assert_eq!(runner.manager("s_1").unwrap().info("version"), Some("1.0"));
}

#[test]
fn invalid_system_id_is_a_server_error() {
    let gitlab = gitlab("18");
    let (_, token) = gitlab.add_runner(NewRunner::instance());
    for system_id in [" ".to_owned(), "x".repeat(65)] {
        let body = json!({ "token": token, "system_id": system_id });
        assert_eq!(send(&gitlab, "POST", "/runners/verify", body).status, 500);
    }
}

#[test]
fn unknown_expired_and_rotated_tokens_answer_alike() {
    let gitlab = gitlab("18");
    let (expired, expired_token) = gitlab.add_runner(NewRunner::instance());
    let (rotated, rotated_token) = gitlab.add_runner(NewRunner::instance());
    let (deleted, deleted_token) = gitlab.add_runner(NewRunner::instance());
    gitlab.expire(expired);
    gitlab.revoke(rotated);
    gitlab.delete(deleted);
    for token in [&expired_token, &rotated_token, &deleted_token, "", "unknown"] {
        for (method, path) in
            [("POST", "/runners/verify"), ("POST", "/runners/reset_authentication_token"), ("DELETE", "/runners")]
        {
            let reply = send(&gitlab, method, path, json!({ "token": token }));
            assert_eq!((reply.status, reply.json()), (403, forbidden()));
        }
    }
}

#[test]
fn expired_tokens_stay_valid_before_15_5() {
    let gitlab = gitlab("15.1");
    let (id, token) = gitlab.add_runner(NewRunner::instance());
    gitlab.expire(id);
    assert_eq!(send(&gitlab, "POST", "/runners/verify", json!({ "token": token })).status, 200);
    gitlab.upgrade_to("15.5");
    assert_eq!(send(&gitlab, "POST", "/runners/verify", json!({ "token": token })).status, 403);
}

#[test]
fn token_expires_after_its_lifetime() {
    let gitlab = Gitlab::builder().token_life("1h").start();
    let (_, token) = gitlab.add_runner(NewRunner::instance());
    gitlab.advance(std::time::Duration::from_secs(3500));
    assert_eq!(send(&gitlab, "POST", "/runners/verify", json!({ "token": token })).status, 200);
    gitlab.advance(std::time::Duration::from_secs(200));
    assert_eq!(send(&gitlab, "POST", "/runners/verify", json!({ "token": token })).status, 403);
}

#[test]
fn reset_invalidates_the_old_token() {
    let gitlab = Gitlab::builder().version("18").token_life("1h").start();
    let (id, token) = gitlab.add_runner(NewRunner::project(gitlab.add_project("a/b").id).registered().token("old"));
    gitlab.set_token_life("never");
    let reply = send(&gitlab, "POST", "/runners/reset_authentication_token", json!({ "token": token }));
    let runner = gitlab.runner(id).unwrap();
    assert_eq!((reply.status, reply.json()), (201, json!({ "token": runner.token, "token_expires_at": null })));
    assert!(runner.token.starts_with("glrtr-") && runner.rotations == 1);
    assert!(runner.manager("<legacy>").is_some());
    assert_eq!(send(&gitlab, "POST", "/runners/verify", json!({ "token": "old" })).status, 403);
    assert_eq!(send(&gitlab, "POST", "/runners/verify", json!({ "token": runner.token })).status, 200);
}

#[test]
fn token_stays_valid_after_its_rotation_deadline() {
    let gitlab = gitlab("18");
    let (id, token) = gitlab.add_runner(NewRunner::instance());
    gitlab.set_rotation_deadline(id, Some(gitlab.now()));
    let reply = send(&gitlab, "POST", "/runners/reset_authentication_token", json!({ "token": token }));
    assert_eq!((reply.status, reply.json()), (403, json!({ "error": "Token rotation deadline has passed" })));
    assert_eq!(send(&gitlab, "POST", "/runners/verify", json!({ "token": token })).status, 200);
    gitlab.upgrade_to("18.9");
    let reply = send(&gitlab, "POST", "/runners/reset_authentication_token", json!({ "token": token }));
    assert_eq!(reply.status, 201);
}

#[test]
fn orphaned_runner_refusal_depends_on_the_release() {
    for (version, verify, reset) in [("16", 200, 500), ("17", 403, 500), ("18.9", 422, 500), ("18", 422, 422)] {
        let gitlab = gitlab(version);
        let (id, token) = gitlab.add_runner(NewRunner::project(gitlab.add_project("a/b").id));
        gitlab.orphan(id);
        assert_eq!(send(&gitlab, "POST", "/runners/verify", json!({ "token": token })).status, verify, "{version}");
        let reply = send(&gitlab, "POST", "/runners/reset_authentication_token", json!({ "token": token }));
        assert_eq!(reply.status, reset, "{version}");
    }
}

#[test]
fn old_releases_have_no_reset_by_token() {
    let gitlab = gitlab("14.8");
    let (_, token) = gitlab.add_runner(NewRunner::instance());
    let reply = send(&gitlab, "POST", "/runners/reset_authentication_token", json!({ "token": token }));
    assert_eq!((reply.status, reply.json()), (405, json!({ "error": "405 Not Allowed" })));
}

#[test]
fn version_13_returns_no_expiry() {
    let gitlab = Gitlab::builder().version("13").token_life("1h").start();
    let reply = send(&gitlab, "POST", "/runners", json!({ "token": gitlab.instance_registration_token() }));
    assert!(reply.json().get("token_expires_at").is_none());
}

#[test]
fn deleting_a_runner_twice_is_forbidden() {
    let gitlab = gitlab("18");
    let (id, token) = gitlab.add_runner(NewRunner::instance());
    let reply = send(&gitlab, "DELETE", "/runners", json!({ "token": token }));
    assert_eq!((reply.status, reply.body.len()), (204, 0));
    assert!(gitlab.runner(id).is_none());
    assert_eq!(send(&gitlab, "DELETE", "/runners", json!({ "token": token })).status, 403);
}

#[test]
fn changed_runner_is_not_deleted() {
    let gitlab = gitlab("18");
    let (_, token) = gitlab.add_runner(NewRunner::instance());
    let body = json!({ "token": token }).to_string();
    for (date, status) in [("Thu, 01 Jan 2015 00:00:00 GMT", 412), ("nonsense", 204)] {
        let headers = [("Content-Type", "application/json"), ("If-Unmodified-Since", date)];
        let reply = exchange(gitlab.address(), "DELETE", "/api/v4/runners", &headers, body.as_bytes()).unwrap();
        assert_eq!(reply.status, status);
    }
}

#[test]
fn deleting_a_manager_keeps_the_runner() {
    let gitlab = gitlab("18");
    let (id, token) = gitlab.add_runner(NewRunner::instance());
    send(&gitlab, "POST", "/runners/verify", json!({ "token": token, "system_id": "s_1" }));
    let body = json!({ "token": token, "system_id": "s_1" });
    assert_eq!(send(&gitlab, "DELETE", "/runners/managers", body.clone()).status, 204);
    assert!(gitlab.runner(id).unwrap().managers.is_empty());
    let reply = send(&gitlab, "DELETE", "/runners/managers", body);
    assert_eq!((reply.status, reply.json()), (404, json!({ "message": "404 Runner manager not found Not Found" })));
    let reply = send(&gitlab, "DELETE", "/runners/managers", json!({}));
    assert_eq!(reply.json(), json!({ "error": "token is missing, system_id is missing" }));
}

#[test]
fn jobs_are_requested_by_the_current_token_only() {
    let gitlab = gitlab("18");
    let (id, old) = gitlab.add_runner(NewRunner::instance());
    let request =
        |token: &str| send(&gitlab, "POST", "/jobs/request", json!({ "token": token, "system_id": "s_1" })).status;
    assert_eq!(request(&old), 204);
    assert_eq!(gitlab.runner(id).unwrap().managers.len(), 1);
    gitlab.revoke(id);
    assert_eq!(request(&old), 403);
    assert_eq!(request(&gitlab.runner(id).unwrap().token), 204);
    assert_eq!(gitlab.requests_to(Endpoint::RequestJob).len(), 3);
}

#[test]
fn releases_before_16_parse_managers_as_an_id() {
    let gitlab = gitlab("15.1");
    let access_token = gitlab.add_access_token([Scope::Api]);
    let reply = send(&gitlab, "DELETE", "/runners/managers", json!({ "token": "x", "system_id": "s_1" }));
    assert_eq!((reply.status, reply.json()), (401, json!({ "message": "401 Unauthorized" })));
    assert_eq!(send_as(&gitlab, &access_token, "DELETE", "/runners/managers", json!({})).status, 400);
}

#[test]
fn parameters_are_accepted_in_any_encoding() {
    let gitlab = gitlab("18");
    let (_, token) = gitlab.add_runner(NewRunner::instance());
    let form = format!("token={token}&system_id=s_1&info[version]=1.0");
    let multipart = format!(
        "--x\r\nContent-Disposition: form-data; name=\"token\"\r\n\r\n{token}\r\n--x\r\nContent-Disposition: form-data; name=\"system_id\"\r\n\r\ns_1\r\n--x\r\nContent-Disposition: form-data; name=\"info[version]\"\r\n\r\n1.0\r\n--x--\r\n"
    );
    let path = "/api/v4/runners/verify";
    let with_query = format!("{path}?{form}");
    for (path, content_type, body) in [
        (path, "application/x-www-form-urlencoded", form.as_str()),
        (path, "multipart/form-data; boundary=x", multipart.as_str()),
        (with_query.as_str(), "application/json", ""),
    ] {
        gitlab.clear_requests();
        let reply = exchange(gitlab.address(), "POST", path, &[("Content-Type", content_type)], body.as_bytes());
        assert_eq!(reply.unwrap().status, 200, "{content_type}");
        let request = &gitlab.requests_to(Endpoint::Verify)[0];
        assert_eq!(request.parameter("system_id"), Some("s_1"));
        assert_eq!(request.parameters["info"]["version"], "1.0");
    }
    let headers = [("Content-Type", "multipart/form-data; boundary=x")];
    let reply = exchange(gitlab.address(), "DELETE", "/api/v4/runners", &headers, multipart.as_bytes());
    assert_eq!(reply.unwrap().status, 204);
}

#[test]
fn responses_have_a_date_and_a_request_id() {
    let gitlab = gitlab("18");
    gitlab.set_clock_skew(jiff::SignedDuration::from_hours(24 * 365 * 10));
    let reply = exchange(gitlab.address(), "GET", "/api/v4/nothing", &[("X-Request-Id", "abc123")], b"").unwrap();
    assert_eq!((reply.status, reply.json()), (404, json!({ "error": "404 Not Found" })));
    assert_eq!(reply.header("x-request-id"), Some("abc123"));
    let date = reply.header("date").unwrap();
    let year: u16 = date.split(' ').nth(3).unwrap().parse().unwrap();
    assert!(year >= 2034 && date.ends_with("GMT"), "{date}");
}

#[test]
fn outage_changes_no_state() {
    for (outage, version, status, retry_after) in [
        (Outage::Maintenance, "18", 503, Some("900")),
        (Outage::Maintenance, "18.1", 403, None),
        (Outage::ReadOnly, "18", 403, None),
        (Outage::Migrations, "18", 429, Some("60")),
        (Outage::Unavailable, "18", 503, None),
    ] {
        let gitlab = gitlab(version);
        let (id, token) = gitlab.add_runner(NewRunner::instance());
        gitlab.outage(Some(outage));
        let reply = send(&gitlab, "DELETE", "/runners", json!({ "token": token }));
        assert_eq!((reply.status, reply.header("retry-after")), (status, retry_after), "{outage:?}");
        assert!(gitlab.runner(id).is_some());
        gitlab.outage(None);
        assert_eq!(send(&gitlab, "DELETE", "/runners", json!({ "token": token })).status, 204);
    }
}

#[test]
fn read_only_server_redirects_forms() {
    let gitlab = gitlab("18");
    gitlab.outage(Some(Outage::ReadOnly));
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    let reply = exchange(gitlab.address(), "POST", "/api/v4/runners/verify", &headers, b"token=x").unwrap();
    assert_eq!((reply.status, reply.header("location")), (301, Some("/")));
}

#[test]
fn api_is_below_the_base_path() {
    let gitlab = Gitlab::builder().base_path("/gitlab/").start();
    let (_, token) = gitlab.add_runner(NewRunner::instance());
    assert!(gitlab.url().ends_with("/gitlab"));
    let verify = |path: &str| {
        let body = json!({ "token": token }).to_string();
        exchange(gitlab.address(), "POST", path, &[("Content-Type", "application/json")], body.as_bytes()).unwrap()
    };
    assert_eq!(verify("/gitlab/api/v4/runners/verify").status, 200);
    assert_eq!(verify("/api/v4/runners/verify").status, 404);
}

#[test]
fn v3_is_gone_and_other_paths_return_a_page() {
    let gitlab = gitlab("18");
    let reply = exchange(gitlab.address(), "GET", "/api/v3/runners", &[], b"").unwrap();
    assert_eq!(reply.status, 410);
    let reply = exchange(gitlab.address(), "GET", "/users/sign_in", &[], b"").unwrap();
    assert!(reply.text().starts_with("<!DOCTYPE html>"));
}

#[test]
fn server_can_listen_on_ipv6() {
    let gitlab = Gitlab::builder().ip(std::net::Ipv6Addr::LOCALHOST).start();
    assert!(gitlab.url().starts_with("http://[::1]:"));
    assert_eq!(send(&gitlab, "POST", "/runners/verify", json!({ "token": "x" })).status, 403);
}
