//! The API v1.

#![allow(clippy::unwrap_used, reason = "a test")]

use fake_gitlab::Gitlab;
use serde_json::json;
use test_support::http::{Reply, exchange};

fn send(gitlab: &Gitlab, method: &str, path: &str, form: &str) -> Reply {
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    exchange(gitlab.address(), method, &format!("/ci/api/v1{path}"), &headers, form.as_bytes()).unwrap()
}

#[test]
fn runners_can_register_probe_and_delete() {
    let gitlab = Gitlab::builder().version("8.17").start();
    let form = format!("token={}&tag_list=a,b", gitlab.instance_registration_token());
    let reply = send(&gitlab, "POST", "/runners/register.json", &form);
    let runner = gitlab.runners().remove(0);
    assert_eq!((reply.status, reply.json()), (201, json!({ "id": runner.id, "token": runner.token })));
    assert_eq!((runner.tags.len(), runner.token.len()), (2, 30));
    let form = format!("token={}", runner.token);
    assert_eq!(send(&gitlab, "PUT", "/builds/-1", &form).status, 404);
    assert_eq!(send(&gitlab, "DELETE", "/runners/delete", &form).status, 200);
    assert_eq!(send(&gitlab, "PUT", "/builds/-1", &form).status, 403);
    assert_eq!(send(&gitlab, "DELETE", "/runners/delete", &form).status, 403);
}

#[test]
fn refusals_have_the_v1_format() {
    let gitlab = Gitlab::builder().with_v1().start();
    let reply = send(&gitlab, "POST", "/runners/register", "");
    assert_eq!((reply.status, reply.json()), (400, json!({ "message": "400 (Bad request) \"token\" not given" })));
    assert_eq!(send(&gitlab, "POST", "/runners/register", "token=x").status, 403);
    let untagged = format!("token={}&run_untagged=false", gitlab.instance_registration_token());
    let reply = send(&gitlab, "POST", "/runners/register", &untagged);
    assert_eq!((reply.status, reply.json()), (404, json!({ "message": "404 Not Found" })));
}

#[test]
fn v1_and_v4_exist_only_in_their_releases() {
    let gitlab = Gitlab::builder().version("10.0").start();
    assert_eq!(send(&gitlab, "POST", "/runners/register", "token=x").status, 404);
    let gitlab = Gitlab::builder().version("8.17").start();
    let reply = exchange(gitlab.address(), "POST", "/api/v4/runners", &[], b"").unwrap();
    assert_eq!(reply.status, 404);
}
