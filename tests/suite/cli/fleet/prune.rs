//! `fleet prune`: deletes stale runners, except those that this machine serves.

use std::time::Duration;

use fake_gitlab::{Endpoint, NewRunner};

use super::{Site, ids, rows};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Adds a runner that has contacted the server.
fn seen(site: &Site, name: &str) -> u64 {
    let (id, token) = site.gitlab().add_runner(NewRunner::instance().description(name));
    let before = site.sandbox.config();
    site.sandbox.write_config("");
    site.sandbox.add_entry(name, None, &token);
    site.sandbox.run(&["verify", "--name", name]).exits(0);
    site.sandbox.write_config(&before);
    std::fs::remove_dir_all(site.sandbox.path("state")).unwrap();
    id
}

#[test]
fn stale_runners_are_deleted() {
    let site = Site::new();
    let old = seen(&site, "old");
    let never = site.gitlab().add_runner(NewRunner::instance().description("never")).0;
    site.gitlab().advance(20 * DAY);
    let recent = seen(&site, "recent");
    let young = site.gitlab().add_runner(NewRunner::instance().description("young")).0;
    site.gitlab().advance(11 * DAY);
    let online = seen(&site, "online");
    site.gitlab().clear_requests();

    let prune = ["prune", "--all", "--stale", "30d"];
    let dry = site.fleet(&[&prune[..], &["--dry-run", "--output", "json"]].concat());
    dry.exits(0).says("reading the last contact of 4 runners, one request each");
    assert_eq!(ids(&rows(&dry, "runners")), [old, never]);
    assert_eq!(site.gitlab().requests_to(Endpoint::ShowRunner).len(), 4);

    site.fleet(&prune).exits(2).says("This will delete these 2 runners").says("--yes");
    assert_eq!(site.gitlab().runners().len(), 5);
    site.fleet(&[&prune[..], &["--yes"]].concat()).exits(0);
    let left: Vec<u64> = site.gitlab().runners().iter().map(|runner| runner.id).collect();
    assert_eq!(left, [recent, young, online]);
    site.fleet(&[&prune[..], &["--yes"]].concat()).exits(0).says("no runner is stale for 30d");
}

#[test]
fn runners_of_this_machine_are_never_deleted() {
    let site = Site::new();
    let (id, token) = site.gitlab().add_runner(NewRunner::instance());
    site.sandbox.add_entry("mine", Some(id), &token);
    site.gitlab().advance(40 * DAY);
    let done = site.fleet(&["prune", "--all", "--stale", "30d", "--yes"]);
    done.exits(0).says(&format!("kept, because this machine serves them: {id}"));
    assert_eq!(site.gitlab().runners().len(), 1);
}

#[test]
fn entry_without_an_id_stops_the_prune() {
    let site = Site::new();
    let (_, token) = site.gitlab().add_runner(NewRunner::instance());
    site.sandbox.add_entry("mine", None, &token);
    site.gitlab().advance(40 * DAY);
    site.gitlab().clear_requests();
    let done = site.fleet(&["prune", "--all", "--stale", "30d", "--yes"]);
    done.exits(4).says("the entry `mine` in config.toml has no known id").says("run `verify` first");
    assert_eq!(site.gitlab().requests().len(), 0);
}

#[test]
fn never_seen_runners_of_unknown_age_are_kept() {
    let site = Site::of_version("17.0");
    site.gitlab().add_runner(NewRunner::instance());
    site.gitlab().advance(400 * DAY);
    let done = site.fleet(&["prune", "--all", "--stale", "30d", "--yes"]);
    done.exits(0).says("1 runners that were never in contact");
    assert_eq!(site.gitlab().runners().len(), 1);
}

#[test]
fn runners_of_this_machine_at_another_address_are_never_deleted() {
    for has_record_only in [false, true] {
        let site = Site::new();
        let (id, token) = site.gitlab().add_runner(NewRunner::instance());
        let stale = site.gitlab().add_runner(NewRunner::instance()).0;
        let alias = site.gitlab().url().replace("127.0.0.1", "localhost");
        let entry = format!("[[runners]]\nname = \"mine\"\nurl = \"{alias}\"\nid = {id}\ntoken = \"{token}\"\n");
        site.sandbox.write_config(&entry);
        if has_record_only {
            site.sandbox.run(&["verify"]).exits(0);
            site.sandbox.write_config("");
        }
        site.gitlab().advance(40 * DAY);
        let done = site.fleet(&["prune", "--all", "--stale", "30d", "--yes"]);
        done.exits(0).says("at an address that may belong to this GitLab too").says(&format!("{id} ({alias})"));
        assert!(site.gitlab().runner(id).is_some() && site.gitlab().runner(stale).is_none());
    }
}

#[test]
fn runners_of_records_without_an_entry_are_never_deleted() {
    let site = Site::new();
    let (id, token) = site.gitlab().add_runner(NewRunner::instance());
    site.sandbox.add_entry("mine", Some(id), &token);
    site.sandbox.run(&["verify"]).exits(0);
    site.sandbox.write_config("");
    site.gitlab().advance(40 * DAY);
    site.fleet(&["prune", "--all", "--stale", "30d", "--yes"]).exits(0).says("kept, because this machine serves them");
    assert!(site.gitlab().runner(id).is_some());
}
