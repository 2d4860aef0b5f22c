//! What an access token can do to itself.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use fake_gitlab::{Endpoint, Fault, Gitlab, Lag, NewAccessToken, Scope};
use jiff::ToSpan;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use test_support::http::{Reply, send_as};

const SELF: &str = "/personal_access_tokens/self";
const ROTATE: &str = "/personal_access_tokens/self/rotate";

fn today(gitlab: &Gitlab) -> Date {
    gitlab.now().to_zoned(TimeZone::UTC).date()
}

fn in_days(gitlab: &Gitlab, days: i64) -> Date {
    today(gitlab).checked_add(days.days()).unwrap()
}

fn show(gitlab: &Gitlab, token: &str) -> Reply {
    send_as(gitlab, token, "GET", SELF, Value::Null)
}

fn rotate(gitlab: &Gitlab, token: &str, expires_at: Date) -> Reply {
    send_as(gitlab, token, "POST", ROTATE, json!({ "expires_at": expires_at.to_string() }))
}

#[test]
fn any_live_token_sees_itself() {
    let gitlab = Gitlab::start();
    let day = in_days(&gitlab, 30);
    let new = NewAccessToken::personal().name("fleet").scopes([Scope::CreateRunner]).expires_on(day);
    let token = gitlab.create_access_token(new);
    let reply = show(&gitlab, &token);
    let body = reply.json();
    assert_eq!((reply.status, &body["name"], &body["scopes"]), (200, &json!("fleet"), &json!(["create_runner"])));
    assert_eq!((&body["expires_at"], &body["active"]), (&json!(day.to_string()), &json!(true)));
    gitlab.advance(Duration::from_secs(30 * 86_400));
    let reply = show(&gitlab, &token);
    assert_eq!((reply.status, &reply.json()["error"]), (401, &json!("invalid_token")));
}

#[test]
fn a_rotation_kills_the_old_token_and_reuse_kills_the_new_one() {
    let gitlab = Gitlab::start();
    let old = gitlab.add_access_token([Scope::CreateRunner, Scope::SelfRotate]);
    let reply = rotate(&gitlab, &old, in_days(&gitlab, 90));
    assert_eq!(reply.status, 200);
    let new = reply.json()["token"].as_str().unwrap().to_owned();
    assert!(gitlab.accepts_access_token(&new) && !gitlab.accepts_access_token(&old));
    assert_eq!(show(&gitlab, &old).status, 401);
    assert!(gitlab.accepts_access_token(&new), "a look is no reuse");
    assert_eq!(rotate(&gitlab, &old, in_days(&gitlab, 90)).status, 401);
    assert!(!gitlab.accepts_access_token(&new));
    assert_eq!(gitlab.access_token(&old).unwrap().rotate_requests, 2);
    assert_eq!(gitlab.access_token(&new).unwrap().scopes, [Scope::CreateRunner, Scope::SelfRotate]);
}

#[test]
fn a_day_beyond_the_limit_is_refused_with_the_limit() {
    let gitlab = Gitlab::start();
    gitlab.limit_access_token_days(Some(30));
    let token = gitlab.add_access_token([Scope::Api]);
    let reply = rotate(&gitlab, &token, in_days(&gitlab, 31));
    let text = format!("400 Bad request - Expires at must be before {}", in_days(&gitlab, 30));
    assert_eq!((reply.status, reply.json()), (400, json!({ "message": text })));
    assert!(gitlab.accepts_access_token(&token));
    assert_eq!(rotate(&gitlab, &token, in_days(&gitlab, 30)).status, 200);
}

#[test]
fn a_rotation_needs_its_scope_and_a_release_that_has_it() {
    let gitlab = Gitlab::start();
    let token = gitlab.add_access_token([Scope::CreateRunner]);
    let reply = rotate(&gitlab, &token, in_days(&gitlab, 9));
    assert_eq!((reply.status, &reply.json()["scope"]), (403, &json!("api self_rotate")));
    gitlab.upgrade_to("16.0");
    let token = gitlab.add_access_token([Scope::Api]);
    assert_eq!(rotate(&gitlab, &token, in_days(&gitlab, 9)).status, 404);
    gitlab.upgrade_to("15.4");
    assert_eq!(show(&gitlab, &token).status, 404);
}

#[test]
fn tokens_of_groups_and_projects_rotate_at_their_owner() {
    let gitlab = Gitlab::start();
    let (group, project) = (gitlab.add_group("a").id, gitlab.add_project("a/b").id);
    let of_group = gitlab.create_access_token(NewAccessToken::group(group).scopes([Scope::Api]));
    let of_project = gitlab.create_access_token(NewAccessToken::project(project).scopes([Scope::Api]));
    let post = |token: &str, path: &str| send_as(&gitlab, token, "POST", path, json!({}));
    assert_eq!(post(&of_project, "/groups/a/access_tokens/self/rotate").status, 401);
    let reply = post(&of_group, "/groups/a/access_tokens/self/rotate");
    assert_eq!((reply.status, &reply.json()["resource_type"]), (200, &json!("group")));
    assert_eq!(post(&of_project, &format!("/projects/{project}/access_tokens/self/rotate")).status, 200);
    let personal = gitlab.add_access_token([Scope::Api]);
    let reply = post(&personal, "/groups/a/access_tokens/self/rotate");
    assert_eq!((reply.status, reply.json()), (405, json!({ "message": "405 Method Not Allowed" })));
}

#[test]
fn a_lagging_replica_knows_only_the_old_token() {
    let gitlab = Gitlab::start();
    let old = gitlab.add_access_token([Scope::Api]);
    gitlab.set_replica_lag(Some(Lag::OneChange));
    let new = gitlab.rotate_access_token(&old, None);
    assert_eq!((show(&gitlab, &old).status, show(&gitlab, &new).status), (200, 401));
    gitlab.set_replica_lag(None);
    assert_eq!((show(&gitlab, &old).status, show(&gitlab, &new).status), (401, 200));
}

#[test]
fn faults_reach_these_calls_too() {
    let gitlab = Gitlab::start();
    let token = gitlab.add_access_token([Scope::Api]);
    gitlab.order(Endpoint::RotateAccessToken, Fault::status(502).after_acting());
    assert_eq!(rotate(&gitlab, &token, in_days(&gitlab, 9)).status, 502);
    assert!(!gitlab.accepts_access_token(&token));
    assert_eq!(gitlab.access_tokens().values().filter(|token| !token.revoked).count(), 1);
}
