//! Changes: single, in bulk, with confirmation and reports.

use fake_gitlab::{Endpoint, Fault, NewRunner};
use serde_json::{Value, json};

use super::{Site, ids, rows};

fn arguments<'a>(first: &'a str, ids: &'a [String], rest: &[&'a str]) -> Vec<&'a str> {
    [first].into_iter().chain(ids.iter().map(String::as_str)).chain(rest.iter().copied()).collect()
}

fn texts(ids: &[u64]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

#[test]
fn single_runner_is_paused_without_confirmation() {
    let site = Site::new();
    let id = site.add_runners(1)[0];
    let text = id.to_string();
    assert_eq!(site.fleet(&["pause", &text]).exits(0).stdout, format!("runner {id}: paused\n"));
    assert!(site.gitlab().runner(id).unwrap().paused);
    let done = site.fleet(&["resume", &text, "--output", "json"]);
    let row = &rows(done.exits(0), "runners")[0];
    assert_eq!((&row["action"], &row["paused"], &row["error"]), (&json!("resumed"), &json!(false), &Value::Null));
    assert!(!site.gitlab().runner(id).unwrap().paused);
}

#[test]
fn old_servers_get_the_active_parameter() {
    let site = Site::of_version("14.7");
    let id = site.add_runners(1)[0];
    site.fleet(&["pause", &id.to_string()]).exits(0);
    assert!(site.gitlab().runner(id).unwrap().paused);
    assert_eq!(site.gitlab().requests_to(Endpoint::UpdateRunner).len(), 2);
}

#[test]
fn update_sets_and_clears_attributes() {
    let site = Site::new();
    let id = site.add_runners(1)[0];
    let text = id.to_string();
    let set = ["--description", "new", "--tag-list", "a, b", "--run-untagged=false", "--locked", "--access-level"];
    let more = ["ref_protected", "--maximum-timeout", "2h", "--maintenance-note", "n"];
    site.fleet(&[&["update", &text], &set[..], &more[..]].concat()).exits(0);
    let runner = site.gitlab().runner(id).unwrap();
    assert_eq!((runner.description.as_str(), runner.tags.clone()), ("new", vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!((runner.run_untagged, runner.locked, runner.maximum_timeout), (false, true, Some(7200)));
    assert_eq!(runner.maintenance_note.as_deref(), Some("n"));
    site.fleet(&["update", &text, "--tag-list", "", "--run-untagged", "--maximum-timeout", "0"]).exits(0);
    let runner = site.gitlab().runner(id).unwrap();
    assert_eq!((runner.tags.len(), runner.maximum_timeout, runner.description.as_str()), (0, None, "new"));

    site.gitlab().clear_requests();
    site.fleet(&["update", &text]).exits(2).says("specify changes");
    site.fleet(&["update", &text, "--maximum-timeout", "5m"]).exits(2).says("at least 600 s");
    site.fleet(&["update", &text, "--access-level", "open"]).exits(2).says("unknown access level");
    site.fleet(&["update", "--description", "x"]).exits(2).says("specify runners");
    site.fleet(&["update", &text, "--all", "--description", "x"]).exits(2).says("not both");
    assert_eq!(site.gitlab().requests().len(), 0);
    let refused = site.fleet(&["update", &text, "--run-untagged=false"]);
    refused.exits(3).says("tags_list: can not be empty when runner is not allowed to pick untagged jobs");
}

#[test]
fn bulk_changes_need_confirmation() {
    let site = Site::new();
    let ids = site.add_runners(3);
    let texts = texts(&ids);
    let asked = site.fleet(&arguments("pause", &texts, &[]));
    asked.exits(2).says("This will pause these 3 runners at").says("confirm with --yes");
    assert!(site.gitlab().runners().iter().all(|runner| !runner.paused));

    let dry = site.fleet(&arguments("pause", &texts, &["--dry-run"]));
    assert_eq!(dry.exits(0).stdout.matches("would be paused").count(), 3);
    assert!(site.gitlab().runners().iter().all(|runner| !runner.paused));
    assert_eq!(site.gitlab().requests_to(Endpoint::UpdateRunner).len(), 0);

    site.fleet(&arguments("pause", &texts, &["--yes"])).exits(0);
    assert!(site.gitlab().runners().iter().all(|runner| runner.paused));
}

#[test]
fn runners_are_selected_by_filters() {
    let site = Site::new();
    let group = site.gitlab().add_group("g");
    let (wanted, _) = site.gitlab().add_runner(NewRunner::group(group.id).tags(["docker"]).description("wanted"));
    let (other, _) = site.gitlab().add_runner(NewRunner::group(group.id).tags(["shell"]));
    site.gitlab().add_runner(NewRunner::instance().tags(["docker"]));
    let select = ["pause", "--status", "never_contacted", "--tag", "docker", "--type", "group_type"];
    let dry = site.fleet(&[&select[..], &["--dry-run", "--output", "json"]].concat());
    let row = rows(dry.exits(0), "runners");
    assert_eq!((ids(&row), &row[0]["action"]), (vec![wanted], &json!("would_be_paused")));
    let done = site.fleet(&select);
    assert_eq!(done.exits(0).stdout, format!("runner {wanted} (`wanted`): paused\n"));
    assert!(!site.gitlab().runner(other).unwrap().paused);
    assert_eq!(site.fleet(&["pause", "--tag", "nowhere"]).exits(0).stdout, "no runners\n");
}

#[test]
fn every_deletion_needs_confirmation() {
    let site = Site::new();
    let ids = site.add_runners(2);
    let first = ids[0].to_string();
    let asked = site.fleet(&["delete", &first]);
    asked.exits(2).says("This will delete this runner at").says("r0").says("--yes");
    assert_eq!(site.gitlab().runners().len(), 2);
    assert!(site.fleet(&["delete", &first, "--yes"]).exits(0).stdout.contains("deleted"));
    assert!(site.fleet(&["delete", &first, "--yes"]).exits(0).stdout.contains("was already gone"));
    assert_eq!(site.gitlab().runners().len(), 1);
    site.fleet(&["delete", "--all", "--yes"]).exits(0);
    assert!(site.gitlab().runners().is_empty());
}

#[test]
fn delete_accepts_the_runners_own_token() {
    let site = Site::new();
    let (_, token) = site.gitlab().add_runner(NewRunner::instance());
    let path = site.sandbox.write("runner-token", &token);
    let delete = ["delete", "--runner-token-file", path.to_str().unwrap()];
    site.fleet_with(&delete, &[]).exits(2).says("confirm with --yes");
    let done = site.fleet_with(&[&delete[..], &["--yes"]].concat(), &[]);
    assert!(done.exits(0).stdout.ends_with(": deleted\n") && !done.stdout.contains(&token));
    assert!(site.gitlab().runners().is_empty());
    site.fleet_with(&[&delete[..], &["--yes"]].concat(), &[]).exits(3).says("the server refuses the runner's token");
}

#[test]
fn bulk_failures_are_listed_and_exit_6() {
    let site = Site::new();
    let ids = site.add_runners(30);
    for id in [ids[3], ids[7]] {
        site.gitlab().order(Endpoint::UpdateRunner, Fault::status(500)).for_runner(id);
    }
    let done = site.fleet(&["pause", "--all", "--yes", "--output", "json"]);
    let row = rows(done.exits(6), "runners");
    let failed: Vec<_> = row.iter().filter(|row| row["action"] == "failed").cloned().collect();
    let mut numbers = super::ids(&failed);
    numbers.sort_unstable();
    assert_eq!((row.len(), numbers), (30, vec![ids[3], ids[7]]));
    assert!(failed[0]["error"].as_str().unwrap().contains("the server failed (500"));
    assert_eq!(site.gitlab().runners().iter().filter(|runner| runner.paused).count(), 28);

    let text = site.fleet(&["resume", &ids[0].to_string(), "99", "--yes"]);
    text.exits(6).says("error: runner 99: cannot change the runner at");
    site.fleet(&["resume", "98", "99", "--yes"]).exits(3);
}

#[test]
fn change_with_a_lost_response_is_not_repeated() {
    let site = Site::new();
    let id = site.add_runners(1)[0];
    site.gitlab().order(Endpoint::DeleteById, Fault::status(502).after_acting());
    site.fleet(&["delete", &id.to_string(), "--yes", "--wait", "5s"]).exits(5);
    assert_eq!(site.gitlab().requests_to(Endpoint::DeleteById).len(), 1);
}

#[test]
fn runners_are_assigned_to_projects_and_unassigned() {
    let site = Site::new();
    let (one, two) = (site.gitlab().add_project("a/one"), site.gitlab().add_project("a/two"));
    let (id, _) = site.gitlab().add_runner(NewRunner::project(one.id));
    let (locked, _) = site.gitlab().add_runner(NewRunner::project(one.id).locked());
    let text = id.to_string();
    let done = site.fleet(&["assign", &text, "--to", "a/two"]);
    assert_eq!(done.exits(0).stdout, format!("runner {id}: assigned to a/two\n"));
    assert_eq!(site.gitlab().runner(id).unwrap().projects, [one.id, two.id]);
    site.fleet(&["assign", &text, "--to", "a/two"]).exits(3).says("Runner is already assigned to this project");
    let locked = site.fleet(&["assign", &locked.to_string(), "--to", "a/two"]);
    locked.exits(3).says("the server does not allow this for the runner (403 Forbidden - Runner is locked");
    site.fleet(&["unassign", &text, "--from", "a/one"]).exits(3).says("owner project");
    site.fleet(&["unassign", &text, "--from", &two.id.to_string()]).exits(0);
    assert_eq!(site.gitlab().runner(id).unwrap().projects, [one.id]);
}
