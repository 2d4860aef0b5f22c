//! Filters are checked again on every row: a server that ignores them must not have other runners changed.

use std::time::Duration;

use fake_gitlab::{Endpoint, Fault, NewRunner};
use serde_json::{Value, json};

use super::{Site, ids, rows};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The runners of a site whose server ignores every filter.
struct Fleet {
    site: Site,
    /// An instance runner that was never seen, with the tag `a`.
    shared: u64,
    /// A paused group runner that was never seen.
    paused: u64,
    /// A project runner that was seen a month ago, with version 16.1.0 and the tags `a` and `b`.
    stale: u64,
    /// The same, but paused.
    paused_stale: u64,
    /// An instance runner with version 17.0.0 that is online.
    online: u64,
    /// The same, but paused.
    paused_online: u64,
}

impl Fleet {
    fn new() -> Self {
        let site = Site::new();
        let gitlab = site.gitlab();
        let (project, group) = (gitlab.add_project("a/b").id, gitlab.add_group("a").id);
        let add = |new: NewRunner| gitlab.add_runner(new);
        let contact = |token: &str, version: &str| {
            let body = json!({ "token": token, "system_id": "s_0123456789ab", "info": { "version": version } });
            assert_eq!(test_support::http::send(gitlab, "POST", "/runners/verify", body).status, 200);
        };
        let (stale, stale_token) = add(NewRunner::project(project).tags(["a", "b"]));
        let (paused_stale, paused_stale_token) = add(NewRunner::project(project).tags(["a", "b"]));
        contact(&stale_token, "16.1.0");
        contact(&paused_stale_token, "16.1.0");
        gitlab.advance(30 * DAY);
        let (shared, _) = add(NewRunner::instance().tags(["a"]));
        let (paused, _) = add(NewRunner::group(group));
        let (online, online_token) = add(NewRunner::instance());
        let (paused_online, paused_online_token) = add(NewRunner::instance());
        contact(&online_token, "17.0.0");
        contact(&paused_online_token, "17.0.0");
        for id in [paused, paused_stale, paused_online] {
            gitlab.set_paused(id, true);
        }
        gitlab.ignore_filters(true);
        Self { site, shared, paused, stale, paused_stale, online, paused_online }
    }

    fn all(&self) -> Vec<u64> {
        self.site.gitlab().runners().iter().map(|runner| runner.id).collect()
    }
}

#[test]
fn bulk_change_survives_a_server_that_ignores_filters() {
    let fleet = Fleet::new();
    let Fleet { shared, paused, stale, paused_stale, online, paused_online, .. } = fleet;
    for (filters, expected) in [
        (&["--type", "project_type"][..], vec![stale, paused_stale]),
        (&["--type", "group_type"], vec![paused]),
        (&["--status", "online"], vec![online, paused_online]),
        (&["--status", "offline"], vec![]),
        (&["--status", "stale"], vec![stale, paused_stale]),
        (&["--status", "never_contacted"], vec![shared, paused]),
        (&["--status", "paused"], vec![paused, paused_stale, paused_online]),
        (&["--status", "active"], vec![shared, stale, online]),
        (&["--paused"], vec![paused, paused_stale, paused_online]),
        (&["--paused=false"], vec![shared, stale, online]),
        (&["--tag", "a"], vec![shared, stale, paused_stale]),
        (&["--tag", "a,b"], vec![stale, paused_stale]),
        (&["--tag", "nowhere"], vec![]),
        (&["--version-prefix", "16."], vec![stale, paused_stale]),
        (&["--version-prefix", "9"], vec![]),
        (&["--scope", "shared"], vec![shared, online, paused_online]),
        (&["--scope", "specific"], vec![paused, stale, paused_stale]),
        (&["--scope", "paused"], vec![paused, paused_stale, paused_online]),
        (&["--scope", "active"], vec![shared, stale, online]),
        (&["--scope", "online"], vec![online, paused_online]),
        (&["--status", "stale", "--tag", "a", "--paused"], vec![paused_stale]),
    ] {
        let long_gone = expected.iter().copied().filter(|id| [stale, paused_stale].contains(id)).collect();
        for (command, expected) in [
            (&["delete"][..], &expected),
            (&["pause"], &expected),
            (&["resume"], &expected),
            (&["update", "--description", "other"], &expected),
            (&["assign", "--to", "a/b"], &expected),
            (&["unassign", "--from", "a/b"], &expected),
            (&["prune", "--stale", "20d"], &long_gone),
        ] {
            let args = [command, &["--all", "--dry-run", "--output", "json"], filters].concat();
            let mut changed = ids(&rows(fleet.site.fleet(&args).exits(0), "runners"));
            changed.sort_unstable();
            let mut expected: Vec<u64> = expected.clone();
            expected.sort_unstable();
            assert_eq!(changed, expected, "{command:?} {filters:?}");
        }
    }
    fleet.site.fleet(&["delete", "--all", "--status", "stale", "--yes"]).exits(0);
    let mut left = vec![shared, paused, online, paused_online];
    left.sort_unstable();
    assert_eq!(fleet.all(), left);
}

#[test]
fn list_drops_rows_that_do_not_match() {
    let fleet = Fleet::new();
    let listed = |args: &[&str]| {
        ids(&rows(fleet.site.fleet(&[&["list", "--all", "--output", "json"], args].concat()).exits(0), "runners"))
    };
    assert_eq!(listed(&["--type", "group_type"]), [fleet.paused]);
    assert_eq!(listed(&["--paused=false", "--limit", "2"]), [fleet.stale, fleet.shared]);
    assert_eq!(listed(&["--tag", "b", "--details"]), [fleet.stale, fleet.paused_stale]);
    assert_eq!(listed(&["--status", "stale", "--details", "--limit", "5"]), [fleet.stale, fleet.paused_stale]);
}

#[test]
fn empty_filter_is_a_usage_error() {
    let site = Site::new();
    site.add_runners(2);
    for filter in ["--version-prefix", "--tag", "--status", "--type", "--scope", "--project", "--group", "--paused"] {
        for value in ["", " ", ",", " ,a"] {
            if value.contains(',') && filter != "--tag" {
                continue;
            }
            for command in
                [&["delete", "--yes"][..], &["pause", "--yes"], &["prune", "--stale", "1d", "--yes"], &["list"]]
            {
                let filter = format!("{filter}={value}");
                let args = [command, &[filter.as_str()]].concat();
                let done = site.fleet(&args);
                assert_eq!(done.code, Some(2), "{args:?}: {done:?}");
            }
        }
    }
    assert_eq!((site.gitlab().requests().len(), site.gitlab().runners().len()), (0, 2));
    site.fleet(&["delete", "--all", "--version-prefix", "", "--yes"])
        .exits(2)
        .says("an empty filter would match every runner");
}

/// Removes fields of every runner in an answer, whether it is a list or one runner.
fn without(fields: &'static [&'static str]) -> Fault {
    Fault::amended(move |answer| {
        let strip = |row: &mut Value| fields.iter().for_each(|field| drop(row.as_object_mut().unwrap().remove(*field)));
        match answer {
            Value::Array(rows) => rows.iter_mut().for_each(strip),
            row => strip(row),
        }
    })
}

#[test]
fn runner_that_the_server_does_not_describe_is_not_changed() {
    let fleet = Fleet::new();
    let before = fleet.all();
    for (fields, filters, field) in [
        (&["runner_type", "is_shared"][..], ["--type", "group_type"], "its type"),
        (&["tag_list"], ["--tag", "a"], "its tags"),
        (&["paused", "active"], ["--status", "paused"], "whether it is paused"),
        (&["status", "contacted_at"], ["--status", "online"], "its last contact"),
    ] {
        for endpoint in [Endpoint::ListAllRunners, Endpoint::ShowRunner] {
            fleet.site.gitlab().order(endpoint, without(fields)).always();
        }
        let done = fleet.site.fleet(&[&["delete", "--all", "--yes", "--output", "json"], &filters[..]].concat());
        assert!(matches!(done.code, Some(1 | 6)), "{done:?}");
        let rows = rows(&done, "runners");
        assert!(!rows.is_empty() && rows.iter().all(|row| row["action"] == "failed"), "{field}: {done:?}");
        assert!(rows[0]["error"].as_str().unwrap().contains(&format!("does not report {field}")), "{done:?}");
        assert_eq!(fleet.all(), before, "{field}");
        fleet.site.gitlab().clear_faults();
    }
}

#[test]
fn gateways_404_does_not_count_as_deleted() {
    let site = Site::new();
    let id = site.gitlab().add_runner(NewRunner::instance().tags(["a"])).0.to_string();
    for body in [
        json!({ "message": "no Route matched with those values" }),
        json!({ "message": "Not Found" }),
        json!({ "error": "404 page not found" }),
        json!({}),
    ] {
        site.gitlab().order(Endpoint::DeleteById, Fault::json(404, body));
        let done = site.fleet(&["delete", &id, "--yes"]);
        assert_eq!(done.exits(5).stdout, "");
        done.says("not a GitLab API answer");
    }
    site.gitlab().order(Endpoint::DeleteById, Fault::html(404));
    site.fleet(&["delete", &id, "--yes"]).exits(5);
    // The details of a runner that a gateway hides are no proof of its absence either.
    site.gitlab().order(Endpoint::ShowRunner, Fault::json(404, json!({ "message": "Not Found" })));
    site.fleet(&["delete", "--all", "--tag", "a", "--yes"]).exits(5);
    assert_eq!(site.gitlab().runners().len(), 1);
    assert!(site.fleet(&["delete", &id, "--yes"]).exits(0).stdout.contains("deleted"));
    assert!(site.fleet(&["delete", &id, "--yes"]).exits(0).stdout.contains("was already gone"));
}

#[test]
fn prune_ignores_an_unreadable_contact() {
    let fleet = Fleet::new();
    let before = fleet.all();
    fleet.site.gitlab().order(Endpoint::ShowRunner, Fault::field("contacted_at", json!("a month ago"))).always();
    fleet.site.gitlab().advance(40 * DAY);
    let done = fleet.site.fleet(&["prune", "--all", "--type", "project_type", "--stale", "30d", "--yes"]);
    done.exits(0).says("kept, because the server does not report their age: 2 runners");
    assert_eq!(fleet.all(), before);
}

#[test]
fn prune_keeps_a_runner_served_under_another_address() {
    let site = Site::new();
    let (id, token) = site.gitlab().add_runner(NewRunner::instance());
    let other = site.gitlab().add_runner(NewRunner::instance()).0;
    let alias = site.gitlab().url().replace("127.0.0.1", "localhost");
    site.sandbox.write_config(&format!(
        "[[runners]]\nname = \"mine\"\nurl = \"{alias}\"\nid = {id}\ntoken = \"{token}\"\nexecutor = \"shell\"\n"
    ));
    site.gitlab().advance(40 * DAY);
    let done = site.fleet(&["prune", "--all", "--stale", "30d", "--yes"]);
    done.exits(0).says("kept, because this machine serves").says(&format!(": {id}"));
    assert_eq!(site.gitlab().runners().iter().map(|runner| runner.id).collect::<Vec<_>>(), [id]);
    assert!(done.stdout.contains(&other.to_string()));
}
