//! New tokens: written to the requested file, never printed.

use std::os::unix::fs::PermissionsExt as _;

use fake_gitlab::{Endpoint, Fault, NewRunner, RunnerType};
use serde_json::json;

use super::{Site, rows};

fn written(site: &Site, name: &str) -> String {
    let path = site.sandbox.path(name);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

#[test]
fn create_supports_every_runner_type() {
    let site = Site::new();
    let (project, group) = (site.gitlab().add_project("a/b"), site.gitlab().add_group("a"));
    for (owner, kind) in [
        (&["--instance"][..], RunnerType::Instance),
        (&["--project", "a/b"], RunnerType::Project),
        (&["--group", "a"], RunnerType::Group),
        (&["--project", &project.id.to_string()], RunnerType::Project),
        (&["--group", &group.id.to_string()], RunnerType::Group),
    ] {
        std::fs::remove_file(site.sandbox.path("token")).ok();
        let args = ["--write-token", "token", "--description", "new", "--tag-list", "x,y", "--paused", "--locked"];
        let done = site.fleet(&[&["create"], owner, &args[..]].concat());
        let token = written(&site, "token");
        let runner = site.gitlab().runner_by_token(&token).unwrap();
        assert_eq!((runner.runner_type, runner.paused, runner.tags.len()), (kind, true, 2));
        assert!(done.exits(0).stdout.starts_with(&format!("runner {}: created, its token does not expire", runner.id)));
        assert!(!done.stdout.contains(&token) && !done.stderr.contains(&token));
    }
    site.fleet(&["create", "--write-token", "t"]).exits(2);
    site.fleet(&["create", "--instance"]).exits(2).says("--write-token");
}

#[test]
fn unwritable_token_file_creates_no_runner() {
    let site = Site::new();
    site.sandbox.write("there", "precious");
    for path in ["there", "no/such/directory"] {
        site.fleet(&["create", "--instance", "--write-token", path]).exits(4).says("cannot write the token to");
    }
    assert_eq!(site.gitlab().requests().len(), 0);
    assert_eq!(std::fs::read_to_string(site.sandbox.path("there")).unwrap(), "precious");
}

#[test]
fn failed_creation_reports_a_possible_orphan() {
    let site = Site::new();
    let create = ["create", "--instance", "--write-token", "token", "--description", "twin"];
    let refused = site.fleet(&[&create[..], &["--run-untagged=false"]].concat());
    refused.exits(2).says("needs at least one tag");
    site.gitlab().order(Endpoint::CreateRunner, Fault::cut().after_acting());
    let lost = site.fleet(&[&create[..], &["--wait", "5s"]].concat());
    lost.exits(5).says("GitLab may have created the runner anyway").says("`twin`");
    assert_eq!(site.gitlab().requests_to(Endpoint::CreateRunner).len(), 1);
    assert!(!site.sandbox.path("token").exists());
}

#[test]
fn expiry_and_deadline_can_be_requested() {
    let site = Site::new();
    let at = |secs: i64| (site.gitlab().now() + jiff::SignedDuration::from_secs(secs)).to_string();
    let (end, deadline) = (at(3600), at(1800));
    let create = ["create", "--instance", "--write-token", "token", "--output", "json"];
    let done =
        site.fleet(&[&create[..], &["--token-expires-at", &end, "--token-rotation-deadline", &deadline]].concat());
    let row = &rows(done.exits(0), "runners")[0];
    let runner = site.gitlab().runner_by_token(&written(&site, "token")).unwrap();
    assert!(runner.rotation_deadline.is_some() && runner.token_expires_at.is_some());
    assert_eq!((&row["id"], &row["action"]), (&json!(runner.id), &json!("created")));
    assert!(row["token_expires_at"].is_string() && row.get("token").is_none());
    assert_eq!(done.stdout.lines().count(), 1, "{}", done.stdout);
    site.fleet(&[&create[..], &["--token-rotation-deadline", &deadline]].concat()).exits(2);
}

#[test]
fn reset_token_resets_a_token_by_id() {
    let site = Site::new();
    let (id, old) = site.gitlab().add_runner(NewRunner::instance());
    site.gitlab().expire(id);
    let done = site.fleet(&["reset-token", &id.to_string(), "--write-token", "token"]);
    let token = written(&site, "token");
    assert!(token != old && site.gitlab().runner(id).unwrap().token == token);
    assert!(done.exits(0).stdout.contains("reset, the new token") && !done.stdout.contains(&token));
    site.gitlab().order(Endpoint::ResetById, Fault::cut().after_acting());
    let lost = site.fleet(&["reset-token", &id.to_string(), "--write-token", "again"]);
    lost.exits(5).says("the new one is lost: reset it again");
}

#[test]
fn registration_tokens_are_reset_at_each_level() {
    let site = Site::of_version("16");
    let (project, group) = (site.gitlab().add_project("a/b"), site.gitlab().add_group("a"));
    let reset = |whose: &[&str], name: &str| {
        let done = site.fleet(&[&["reset-registration-token", "--write-token", name], whose].concat());
        done.exits(0);
        let token = written(&site, name);
        assert!(!done.stdout.contains(&token));
        token
    };
    assert_eq!(reset(&["--instance"], "1"), site.gitlab().instance_registration_token());
    assert_eq!(reset(&["--project", "a/b"], "2"), site.gitlab().project(project.id).unwrap().registration_token);
    assert_eq!(reset(&["--group", "a"], "3"), site.gitlab().group(group.id).unwrap().registration_token);
    site.gitlab().disallow_registration();
    let done = site.fleet(&["reset-registration-token", "--instance", "--write-token", "4"]);
    done.exits(3).says("an instance that allows registration tokens");
    site.fleet(&["reset-registration-token", "--write-token", "5"]).exits(2);
}
