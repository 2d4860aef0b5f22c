//! The endpoints that users call with an access token.

#![allow(clippy::unwrap_used, reason = "a test")]

use fake_gitlab::{Endpoint, Fault, Gitlab, NewRunner, Role, RunnerType, Scope};
use serde_json::{Value, json};
use test_support::http::{Reply, exchange, send, send_as};

fn gitlab(version: &str) -> (Gitlab, String) {
    let gitlab = Gitlab::builder().version(version).start();
    let access_token = gitlab.add_access_token([Scope::Api]);
    (gitlab, access_token)
}

fn get(gitlab: &Gitlab, access_token: &str, path: &str) -> Reply {
    send_as(gitlab, access_token, "GET", path, Value::Null)
}

fn ids(reply: &Reply) -> Vec<u64> {
    assert_eq!(reply.status, 200);
    reply.json().as_array().unwrap().iter().map(|runner| runner["id"].as_u64().unwrap()).collect()
}

#[test]
fn reset_by_id_replaces_an_expired_token() {
    let (gitlab, access_token) = gitlab("18");
    let (id, token) = gitlab.add_runner(NewRunner::instance());
    gitlab.expire(id);
    let path = format!("/runners/{id}/reset_authentication_token");
    let reply = send_as(&gitlab, &access_token, "POST", &path, Value::Null);
    let runner = gitlab.runner(id).unwrap();
    assert_eq!((reply.status, reply.json()), (201, json!({ "token": runner.token, "token_expires_at": null })));
    assert_ne!(runner.token, token);
    assert_eq!(send(&gitlab, "POST", "/runners/verify", json!({ "token": runner.token })).status, 200);
    gitlab.set_rotation_deadline(id, Some(gitlab.now()));
    let reply = send_as(&gitlab, &access_token, "POST", &path, Value::Null);
    assert_eq!((reply.status, reply.json()), (403, json!({ "error": "Token rotation deadline has passed" })));
}

#[test]
fn reset_by_id_is_missing_in_14_3() {
    let (gitlab, access_token) = gitlab("14.3");
    let (id, _) = gitlab.add_runner(NewRunner::instance());
    let path = format!("/runners/{id}/reset_authentication_token");
    let reply = send_as(&gitlab, &access_token, "POST", &path, Value::Null);
    assert_eq!((reply.status, reply.json()), (404, json!({ "error": "404 Not Found" })));
}

#[test]
fn access_token_refusals_match_gitlab() {
    let (gitlab, live) = gitlab("18");
    let (id, _) = gitlab.add_runner(NewRunner::instance());
    let path = format!("/runners/{id}");
    let reply = send(&gitlab, "DELETE", &path, json!({}));
    assert_eq!((reply.status, reply.json()), (401, json!({ "message": "401 Unauthorized" })));
    assert_eq!(send_as(&gitlab, "unknown", "DELETE", &path, json!({})).status, 401);
    let reader = gitlab.add_access_token([Scope::ReadApi]);
    assert_eq!(get(&gitlab, &reader, &path).status, 200);
    let reply = send_as(&gitlab, &reader, "DELETE", &path, json!({}));
    assert_eq!((reply.status, &reply.json()["error"]), (403, &json!("insufficient_scope")));
    assert_eq!(reply.json()["scope"], "api manage_runner");
    for (invalidate, text) in [
        (Gitlab::expire_access_token as fn(&Gitlab, &str), "Token is expired"),
        (Gitlab::revoke_access_token, "Token was revoked"),
    ] {
        invalidate(&gitlab, &live);
        let reply = send_as(&gitlab, &live, "DELETE", &path, json!({}));
        assert_eq!((reply.status, &reply.json()["error"]), (401, &json!("invalid_token")));
        assert!(reply.json()["error_description"].as_str().unwrap().starts_with(text));
    }
}

#[test]
fn narrow_scopes_allow_only_their_endpoints() {
    let (gitlab, _) = gitlab("18");
    let (id, _) = gitlab.add_runner(NewRunner::instance());
    let manager = gitlab.add_access_token([Scope::ManageRunner]);
    let creator = gitlab.add_access_token([Scope::CreateRunner]);
    let create = json!({ "runner_type": "instance_type" });
    assert_eq!(send_as(&gitlab, &manager, "POST", "/user/runners", create.clone()).status, 403);
    assert_eq!(send_as(&gitlab, &creator, "POST", "/user/runners", create.clone()).status, 201);
    assert_eq!(get(&gitlab, &manager, "/runners").status, 403);
    assert_eq!(get(&gitlab, &manager, &format!("/runners/{id}")).status, 200);
    gitlab.upgrade_to("16.1");
    assert_eq!(get(&gitlab, &manager, &format!("/runners/{id}")).status, 403);
    assert_eq!(send_as(&gitlab, &creator, "POST", "/user/runners", create).status, 403);
}

#[test]
fn bearer_tokens_are_accepted() {
    let (gitlab, access_token) = gitlab("18");
    let bearer = format!("Bearer {access_token}");
    let reply = exchange(gitlab.address(), "GET", "/api/v4/runners/all", &[("Authorization", &bearer)], b"");
    assert_eq!(reply.unwrap().status, 200);
    let reply = get(&gitlab, &access_token, "/version");
    assert_eq!(reply.json()["version"], "18.11.0-ee");
}

#[test]
fn details_omit_the_token_and_its_expiry() {
    let gitlab = Gitlab::builder().version("18").token_life("1h").start();
    let access_token = gitlab.add_access_token([Scope::Api]);
    let project = gitlab.add_project("a/b");
    let (id, token) = gitlab.add_runner(NewRunner::project(project.id).description("one").tags(["x"]));
    let body = json!({ "token": token, "system_id": "s_1", "info": { "version": "1.0", "platform": "linux" } });
    send(&gitlab, "POST", "/runners/verify", body);
    let details = get(&gitlab, &access_token, &format!("/runners/{id}")).json();
    assert!(details.get("token").is_none() && details.get("token_expires_at").is_none());
    for (name, value) in [
        ("description", json!("one")),
        ("tag_list", json!(["x"])),
        ("status", json!("online")),
        ("online", json!(true)),
        ("paused", json!(false)),
        ("active", json!(true)),
        ("ip_address", json!(null)),
        ("runner_type", json!("project_type")),
        ("version", json!("1.0")),
        ("access_level", json!("not_protected")),
        ("job_execution_status", json!("idle")),
    ] {
        assert_eq!(details[name], value, "{name}");
    }
    assert_eq!(details["projects"][0]["path_with_namespace"], "a/b");
    let details = get(&gitlab, &access_token, &format!("/runners/{id}?include_projects=false")).json();
    assert!(details.get("projects").is_none());
}

#[test]
fn unknown_and_invalid_ids_have_different_errors() {
    let (gitlab, access_token) = gitlab("18");
    let reply = get(&gitlab, &access_token, "/runners/99");
    assert_eq!((reply.status, reply.json()), (404, json!({ "message": "404 Runner Not Found" })));
    let reply = get(&gitlab, &access_token, "/runners/x");
    assert_eq!((reply.status, reply.json()), (400, json!({ "error": "id is invalid" })));
    gitlab.upgrade_to("18.9");
    assert_eq!(get(&gitlab, &access_token, "/runners/99").json(), json!({ "message": "404 Not found" }));
}

#[test]
fn users_manage_only_their_own_runners() {
    let (gitlab, _) = gitlab("18");
    let project = gitlab.add_project("a/b");
    let (instance, _) = gitlab.add_runner(NewRunner::instance());
    let (own, _) = gitlab.add_runner(NewRunner::project(project.id));
    let owner = gitlab.add_access_token_of(Role::Owner, [Scope::Api]);
    let guest = gitlab.add_access_token_of(Role::Guest, [Scope::Api]);
    let outsider = gitlab.add_access_token_of(Role::Outsider, [Scope::Api]);
    assert_eq!(get(&gitlab, &outsider, &format!("/runners/{instance}")).status, 200);
    assert_eq!(get(&gitlab, &guest, &format!("/runners/{own}")).status, 403);
    assert_eq!(get(&gitlab, &guest, "/runners/all").status, 403);
    let list = format!("/projects/{}/runners", project.id);
    assert_eq!(get(&gitlab, &outsider, &list).json(), json!({ "message": "404 Project Not Found" }));
    assert_eq!(get(&gitlab, &guest, &list).status, 403);
    assert_eq!(ids(&get(&gitlab, &owner, &list)), [instance, own]);
    assert_eq!(ids(&get(&gitlab, &owner, "/runners")), [own]);
    let reply = send_as(&gitlab, &owner, "DELETE", &format!("/runners/{instance}"), json!({}));
    assert_eq!((reply.status, reply.json()), (403, json!({ "message": "403 Forbidden - No access granted" })));
    assert_eq!(send_as(&gitlab, &owner, "DELETE", &format!("/runners/{own}"), json!({})).status, 204);
    assert_eq!(send_as(&gitlab, &owner, "DELETE", &format!("/runners/{own}"), json!({})).status, 404);
}

#[test]
fn managers_are_not_paginated() {
    let (gitlab, access_token) = gitlab("18");
    let (id, token) = gitlab.add_runner(NewRunner::instance());
    for number in 0..25 {
        let body = json!({ "token": token, "system_id": format!("s_{number}"), "info": { "version": "1.0" } });
        send(&gitlab, "POST", "/runners/verify", body);
    }
    let path = format!("/runners/{id}/managers");
    let reply = get(&gitlab, &access_token, &path);
    let managers = reply.json();
    assert_eq!(managers.as_array().unwrap().len(), 25);
    assert_eq!((&managers[3]["system_id"], &managers[3]["status"]), (&json!("s_3"), &json!("online")));
    assert_eq!(reply.header("x-total"), None);
    gitlab.upgrade_to("16");
    assert_eq!(get(&gitlab, &access_token, &path).status, 404);
}

#[test]
fn lists_are_paginated() {
    let (gitlab, access_token) = gitlab("18");
    let all: Vec<u64> = (0..45).map(|_| gitlab.add_runner(NewRunner::instance()).0).collect();
    let first = get(&gitlab, &access_token, "/runners/all");
    assert_eq!(ids(&first), all[..20]);
    for (name, value) in [
        ("x-page", "1"),
        ("x-per-page", "20"),
        ("x-next-page", "2"),
        ("x-prev-page", ""),
        ("x-total", "45"),
        ("x-total-pages", "3"),
    ] {
        assert_eq!(first.header(name), Some(value), "{name}");
    }
    let link = first.header("link").unwrap();
    assert!(link.contains("page=2&per_page=20>; rel=\"next\"") && link.contains("rel=\"last\""), "{link}");
    let last = get(&gitlab, &access_token, "/runners/all?page=3&paused=false");
    assert_eq!((ids(&last).len(), last.header("x-next-page")), (5, Some("")));
    assert!(last.header("link").unwrap().contains("paused=false&page=2&per_page=20>; rel=\"prev\""));
    assert!(ids(&get(&gitlab, &access_token, "/runners/all?page=9")).is_empty());
    assert_eq!(get(&gitlab, &access_token, "/runners/all?per_page=500").header("x-per-page"), Some("100"));
    assert_eq!(get(&gitlab, &access_token, "/runners/all?per_page=0").status, 400);
    let none = get(&gitlab, &access_token, "/runners");
    assert_eq!((none.header("x-total"), none.header("x-total-pages")), (Some("0"), Some("1")));
}

#[test]
fn lists_are_filtered() {
    let (gitlab, access_token) = gitlab("18");
    let project = gitlab.add_project("a/b");
    let (plain, token) = gitlab.add_runner(NewRunner::instance());
    let (paused, _) = gitlab.add_runner(NewRunner::instance().paused());
    let (tagged, _) = gitlab.add_runner(NewRunner::project(project.id).tags(["x", "y"]));
    send(&gitlab, "POST", "/runners/verify", json!({ "token": token, "info": { "version": "17.1" } }));
    for (query, expected) in [
        ("type=project_type", vec![tagged]),
        ("paused=true", vec![paused]),
        ("status=paused", vec![paused]),
        ("status=online", vec![plain]),
        ("status=never_contacted", vec![paused, tagged]),
        ("tag_list=x,y", vec![tagged]),
        ("tag_list=x,z", vec![]),
        ("version_prefix=17.", vec![plain]),
        ("scope=specific", vec![tagged]),
    ] {
        assert_eq!(ids(&get(&gitlab, &access_token, &format!("/runners/all?{query}"))), expected, "{query}");
    }
    for query in ["type=x", "status=x", "paused=x", "version_prefix=x", "scope=x"] {
        assert_eq!(get(&gitlab, &access_token, &format!("/runners/all?{query}")).status, 400, "{query}");
    }
    gitlab.advance(std::time::Duration::from_secs(3 * 3600));
    assert_eq!(ids(&get(&gitlab, &access_token, "/runners/all?status=offline")), [plain]);
    gitlab.advance(std::time::Duration::from_secs(8 * 86400));
    assert_eq!(ids(&get(&gitlab, &access_token, "/runners/all?status=stale")), [plain, paused, tagged]);
}

#[test]
fn groups_list_own_and_inherited_runners() {
    let (gitlab, access_token) = gitlab("18");
    let (above, below) = (gitlab.add_group("a"), gitlab.add_group("a/b"));
    let (instance, _) = gitlab.add_runner(NewRunner::instance());
    let (inherited, _) = gitlab.add_runner(NewRunner::group(above.id));
    let (own, _) = gitlab.add_runner(NewRunner::group(below.id));
    let listed = get(&gitlab, &access_token, &format!("/groups/{}/runners", below.id));
    assert_eq!(ids(&listed), [instance, inherited, own]);
    assert_eq!(ids(&get(&gitlab, &access_token, "/groups/a/runners")), [instance, inherited]);
    assert_eq!(get(&gitlab, &access_token, "/groups/99/runners").json(), json!({ "message": "404 Group Not Found" }));
}

#[test]
fn update_changes_only_the_sent_fields() {
    let (gitlab, access_token) = gitlab("18");
    let (id, _) = gitlab.add_runner(NewRunner::instance().tags(["x"]).description("old"));
    let path = format!("/runners/{id}");
    let update = |body: Value| send_as(&gitlab, &access_token, "PUT", &path, body);
    let reply = update(json!({ "paused": true, "description": "new" }));
    assert_eq!((reply.status, &reply.json()["status"]), (200, &json!("paused")));
    let runner = gitlab.runner(id).unwrap();
    assert_eq!((runner.paused, runner.description.as_str(), runner.tags.len()), (true, "new", 1));
    assert_eq!(update(json!({ "active": true })).json()["paused"], false);
    assert_eq!(update(json!({})).status, 400);
    let reply = update(json!({ "tag_list": "", "run_untagged": false }));
    assert_eq!((reply.status, reply.json()["message"]["tags_list"].is_array()), (400, true));
}

#[test]
fn runners_are_assigned_and_unassigned() {
    let (gitlab, access_token) = gitlab("18");
    let (one, two) = (gitlab.add_project("a/one"), gitlab.add_project("a/two"));
    let (id, _) = gitlab.add_runner(NewRunner::project(one.id));
    let (locked, _) = gitlab.add_runner(NewRunner::project(one.id).locked());
    let assign = |id: u64| {
        let path = "/projects/a%2Ftwo/runners";
        send_as(&gitlab, &access_token, "POST", path, json!({ "runner_id": id })).status
    };
    let unassign = |project: u64| {
        send_as(&gitlab, &access_token, "DELETE", &format!("/projects/{project}/runners/{id}"), json!({})).status
    };
    assert_eq!((assign(id), assign(id), assign(locked), assign(99)), (201, 400, 403, 404));
    assert_eq!(get(&gitlab, &access_token, &format!("/runners/{id}/projects")).json().as_array().unwrap().len(), 2);
    assert_eq!((unassign(one.id), unassign(two.id), unassign(two.id)), (403, 204, 404));
}

#[test]
fn jobs_are_listed_newest_first() {
    let (gitlab, access_token) = gitlab("18");
    let project = gitlab.add_project("a/b");
    let (id, _) = gitlab.add_runner(NewRunner::project(project.id));
    let done = gitlab.add_job(id, project.id, Some("s_1"), "success");
    let running = gitlab.add_job(id, project.id, Some("s_2"), "running");
    let jobs = |query: &str| get(&gitlab, &access_token, &format!("/runners/{id}/jobs{query}"));
    assert_eq!(ids(&jobs("")), [running, done]);
    assert_eq!(ids(&jobs("?sort=asc&order_by=id")), [done, running]);
    assert_eq!(ids(&jobs("?status=running")), [running]);
    let of_machine = jobs("?system_id=s_1");
    assert_eq!((ids(&of_machine), of_machine.header("x-total")), (vec![done], None));
    assert_eq!(jobs("?status=x").status, 400);
    assert_eq!(get(&gitlab, &access_token, &format!("/runners/{id}")).json()["job_execution_status"], "active");
}

#[test]
fn jobs_support_keyset_pagination_since_16() {
    let (gitlab, access_token) = gitlab("18");
    let project = gitlab.add_project("a/b");
    let (id, _) = gitlab.add_runner(NewRunner::project(project.id));
    let jobs: Vec<u64> = (0..5).map(|_| gitlab.add_job(id, project.id, None, "success")).collect();
    let get = |query: &str| get(&gitlab, &access_token, &format!("/runners/{id}/jobs?per_page=2&{query}"));
    let first = get("pagination=keyset&order_by=id&sort=desc");
    assert_eq!((ids(&first), first.header("x-next-page")), (vec![jobs[4], jobs[3]], None));
    let cursor = first.header("x-next-cursor").unwrap();
    assert!(first.header("link").unwrap().contains(&format!("cursor={cursor}")));
    let second = get(&format!("pagination=keyset&order_by=id&sort=desc&cursor={cursor}"));
    assert_eq!(ids(&second), [jobs[2], jobs[1]]);
    let cursor = second.header("x-next-cursor").unwrap();
    let last = get(&format!("pagination=keyset&order_by=id&sort=desc&cursor={cursor}"));
    assert_eq!((ids(&last), last.header("x-next-cursor"), last.header("link")), (vec![jobs[0]], None, None));
    assert_eq!((get("pagination=keyset").status, get("pagination=keyset&order_by=id&cursor=x").status), (405, 400));
    gitlab.upgrade_to("15.0");
    assert_eq!(get("pagination=keyset&order_by=id").header("x-next-page"), Some("2"));
}

#[test]
fn releases_before_14_8_have_no_paused_parameter() {
    let (gitlab, access_token) = gitlab("14.7");
    let (id, _) = gitlab.add_runner(NewRunner::instance());
    let update = |body: Value| send_as(&gitlab, &access_token, "PUT", &format!("/runners/{id}"), body);
    let reply = update(json!({ "paused": true }));
    assert_eq!(reply.status, 400);
    assert!(reply.json()["error"].as_str().unwrap().ends_with("at least one parameter must be provided"));
    let reply = update(json!({ "active": false }));
    assert_eq!((reply.status, &reply.json()["active"], reply.json().get("paused")), (200, &json!(false), None));
}

#[test]
fn projects_and_groups_are_found_by_id_and_path() {
    let (gitlab, access_token) = gitlab("18");
    let (project, group) = (gitlab.add_project("a/b"), gitlab.add_group("a"));
    let id = |path: &str| get(&gitlab, &access_token, path).json()["id"].clone();
    assert_eq!(
        (id("/projects/a%2Fb"), id(&format!("/projects/{}", project.id))),
        (json!(project.id), json!(project.id))
    );
    assert_eq!((id("/groups/a"), id(&format!("/groups/{}", group.id))), (json!(group.id), json!(group.id)));
    assert_eq!(get(&gitlab, &access_token, "/projects/x").json(), json!({ "message": "404 Project Not Found" }));
    assert_eq!(get(&gitlab, &access_token, "/groups/x").json(), json!({ "message": "404 Group Not Found" }));
}

#[test]
fn registration_tokens_can_be_reset_at_each_level() {
    let (gitlab, access_token) = gitlab("16");
    let (project, group) = (gitlab.add_project("a/b"), gitlab.add_group("a"));
    let reset = |path: &str| send_as(&gitlab, &access_token, "POST", path, json!({}));
    let old = gitlab.instance_registration_token();
    let reply = reset("/runners/reset_registration_token");
    assert_eq!((reply.status, reply.json()), (201, json!({ "token": gitlab.instance_registration_token() })));
    assert_ne!(old, gitlab.instance_registration_token());
    let reply = reset(&format!("/projects/{}/runners/reset_registration_token", project.id));
    assert_eq!(reply.json()["token"], gitlab.project(project.id).unwrap().registration_token);
    assert_ne!(project.registration_token, gitlab.project(project.id).unwrap().registration_token);
    let reply = reset(&format!("/groups/{}/runners/reset_registration_token", group.id));
    assert_eq!(reply.json()["token"], gitlab.group(group.id).unwrap().registration_token);
    gitlab.disallow_registration();
    assert_eq!(reset("/runners/reset_registration_token").status, 403);
}

#[test]
fn users_create_runners() {
    let gitlab = Gitlab::builder().version("18").token_life("1h").start();
    let access_token = gitlab.add_access_token_of(Role::Owner, [Scope::Api]);
    let group = gitlab.add_group("a");
    let create = |body: Value| send_as(&gitlab, &access_token, "POST", "/user/runners", body);
    let reply = create(json!({ "runner_type": "group_type", "group_id": group.id, "tag_list": ["x"] }));
    assert_eq!(reply.status, 201);
    let runner = gitlab.runner(reply.json()["id"].as_u64().unwrap()).unwrap();
    assert_eq!((runner.runner_type, runner.groups.clone()), (RunnerType::Group, vec![group.id]));
    assert!(runner.token.starts_with("glrt-") && reply.json()["token"] == runner.token);
    assert!(reply.json()["token_expires_at"].is_string());
    let missing = "runner_type is missing, runner_type does not have a valid value";
    assert_eq!(create(json!({})).json(), json!({ "error": missing }));
    assert_eq!(create(json!({ "runner_type": "group_type" })).json(), json!({ "error": "group_id is missing" }));
    let reply = create(json!({ "runner_type": "group_type", "group_id": 99 }));
    assert_eq!((reply.status, reply.json()), (400, json!({ "message": "400 Bad request - Missing/invalid group" })));
    let reply = create(json!({ "runner_type": "instance_type" }));
    assert_eq!(reply.json(), json!({ "message": "403 Forbidden - Insufficient permissions" }));
    let reply = create(json!({ "runner_type": "group_type", "group_id": group.id, "run_untagged": false }));
    let text = "400 Bad request - Tags list can not be empty when runner is not allowed to pick untagged jobs";
    assert_eq!((reply.status, reply.json()), (400, json!({ "message": text })));
    gitlab.upgrade_to("15.9");
    assert_eq!(create(json!({ "runner_type": "instance_type" })).status, 404);
}

#[test]
fn create_accepts_expiry_and_deadline_since_18_10() {
    let (gitlab, access_token) = gitlab("18");
    let at = |secs: i64| (gitlab.now() + jiff::SignedDuration::from_secs(secs)).to_string();
    let create = |expires_in: i64, deadline_in: i64| {
        let body = json!({
            "runner_type": "instance_type", "token_expires_at": at(expires_in), "token_rotation_deadline": at(deadline_in),
        });
        send_as(&gitlab, &access_token, "POST", "/user/runners", body)
    };
    let reply = create(3600, 1800);
    let runner = gitlab.runner(reply.json()["id"].as_u64().unwrap()).unwrap();
    assert!(runner.rotation_deadline.is_some() && runner.token_expires_at > runner.rotation_deadline);
    assert_eq!((create(60, 30).status, create(3600, 7200).status, create(3600, -60).status), (400, 400, 400));
    gitlab.upgrade_to("18.9");
    assert!(create(60, 30).json()["token_expires_at"].is_null());
}

#[test]
fn router_discovery_is_missing() {
    let (gitlab, _) = gitlab("18");
    assert_eq!(send(&gitlab, "GET", "/runners/router/discovery", Value::Null).status, 501);
}

#[test]
fn faults_match_runners_by_id() {
    let (gitlab, access_token) = gitlab("18");
    let (one, _) = gitlab.add_runner(NewRunner::instance());
    let (two, _) = gitlab.add_runner(NewRunner::instance());
    gitlab.order(Endpoint::ShowRunner, Fault::status(500)).for_runner(two);
    assert_eq!(get(&gitlab, &access_token, &format!("/runners/{one}")).status, 200);
    assert_eq!(get(&gitlab, &access_token, &format!("/runners/{two}")).status, 500);
}
