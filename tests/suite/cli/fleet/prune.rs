//! `fleet prune`: runners that have been offline for long are deleted, what this machine serves stays.

use std::time::Duration;

use fake_gitlab::{Endpoint, NewRunner};

use super::{Site, ids, rows};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A runner that a machine uses: one that was seen.
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
fn runners_that_nobody_has_seen_are_deleted() {
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
    dry.exits(0).says("asking when 4 runners were seen, one request each");
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
fn what_this_machine_serves_is_never_deleted() {
    let site = Site::new();
    let (id, token) = site.gitlab().add_runner(NewRunner::instance());
    site.sandbox.add_entry("mine", Some(id), &token);
    site.gitlab().advance(40 * DAY);
    let done = site.fleet(&["prune", "--all", "--stale", "30d", "--yes"]);
    done.exits(0).says(&format!("kept, because this machine serves them: {id}"));
    assert_eq!(site.gitlab().runners().len(), 1);
}

#[test]
fn an_entry_that_could_be_any_runner_ends_it() {
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
fn a_server_that_does_not_tell_the_age_keeps_what_was_never_seen() {
    let site = Site::of_version("17.0");
    site.gitlab().add_runner(NewRunner::instance());
    site.gitlab().advance(400 * DAY);
    let done = site.fleet(&["prune", "--all", "--stale", "30d", "--yes"]);
    done.exits(0).says("1 runners that were never in contact");
    assert_eq!(site.gitlab().runners().len(), 1);
}
