//! Lists: filters, output formats, and partial results.

use rustix::process::Signal;
use std::io::{BufRead as _, BufReader};
use test_support::{Output, Process};

use fake_gitlab::{Endpoint, Fault, NewRunner};
use serde_json::{Value, json};

use super::{Site, ids, rows};

#[test]
fn list_reads_every_page_up_to_the_limit() {
    let site = Site::new();
    let all = site.add_runners(250);
    let done = site.fleet(&["list", "--all", "--output", "json"]);
    assert_eq!(ids(&rows(done.exits(0), "runners")), all);
    assert_eq!(site.gitlab().requests_to(Endpoint::ListAllRunners).len(), 3);
    let document: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&document["complete"], &document["error"]), (&json!(true), &Value::Null));

    site.gitlab().clear_requests();
    let lines = site.fleet(&["list", "--all", "--output", "jsonl", "--limit", "120"]);
    let read: Vec<Value> = lines.exits(0).stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(ids(&read), all[..120]);
    assert_eq!(read[0]["runner_type"], "instance_type");
    assert_eq!(site.gitlab().requests_to(Endpoint::ListAllRunners).len(), 2);

    site.gitlab().clear_requests();
    assert_eq!(site.fleet(&["list", "--all", "--limit", "3"]).exits(0).stdout.lines().count(), 4);
    assert_eq!(site.gitlab().requests()[0].parameters["per_page"], "3");
}

#[test]
fn empty_list_prints_no_runners() {
    let site = Site::new();
    assert_eq!(site.fleet(&["list"]).exits(0).stdout, "no runners\n");
    assert_eq!(rows(site.fleet(&["list", "--output", "json"]).exits(0), "runners"), Vec::<Value>::new());
    assert_eq!(site.fleet(&["list", "--output", "jsonl"]).exits(0).stdout, "");
}

#[test]
fn list_prints_a_table() {
    let site = Site::of_version("17.0");
    let (project, group) = (site.gitlab().add_project("a/b"), site.gitlab().add_group("a"));
    site.gitlab().add_runner(NewRunner::project(project.id).description("läufer 1"));
    let (paused, _) = site.gitlab().add_runner(NewRunner::group(group.id).description("b\u{1b}[2J"));
    site.gitlab().set_paused(paused, true);
    insta::assert_snapshot!(site.fleet(&["list"]).exits(0).stdout, @r"
    ID  STATE            TYPE     DESCRIPTION  CREATED
    3   never contacted  project  läufer 1     -
    4   paused           group    b?[2J        -
    ");
    insta::assert_snapshot!(site.fleet(&["list", "--details"]).exits(0).stdout, @r"
    ID  STATE            TYPE     DESCRIPTION  TAGS  VERSION  SEEN
    3   never contacted  project  läufer 1     -     -        never
    4   paused           group    b?[2J        -     -        never
    ");
}

#[test]
fn list_sends_its_filters_to_the_server() {
    let site = Site::new();
    let (project, group) = (site.gitlab().add_project("top group/pro%ject"), site.gitlab().add_group("top group"));
    let (own, _) = site.gitlab().add_runner(NewRunner::project(project.id).tags(["a", "b c"]));
    let (of_group, _) = site.gitlab().add_runner(NewRunner::group(group.id));
    let (shared, _) = site.gitlab().add_runner(NewRunner::instance());
    site.gitlab().set_paused(of_group, true);
    for (args, expected) in [
        (&["--project", "top group/pro%ject"][..], vec![own, of_group, shared]),
        (&["--project", &project.id.to_string()], vec![own, of_group, shared]),
        (&["--group", "top group"], vec![of_group, shared]),
        (&[], vec![own, of_group]),
        (&["--all"], vec![own, of_group, shared]),
        (&["--all", "--type", "group_type"], vec![of_group]),
        (&["--all", "--paused"], vec![of_group]),
        (&["--all", "--paused=false"], vec![own, shared]),
        (&["--all", "--tag", "a", "--tag", "b c"], vec![own]),
        (&["--all", "--tag", "a,x"], vec![]),
        (&["--all", "--status", "online"], vec![]),
        (&["--all", "--version-prefix", "17"], vec![]),
        (&["--all", "--scope", "shared"], vec![shared]),
    ] {
        let done = site.fleet(&[&["list", "--output", "json"], args].concat());
        assert_eq!(ids(&rows(done.exits(0), "runners")), expected, "{args:?}");
    }
    for args in [&["--type", "shared"][..], &["--status", "on"], &["--all", "--group", "x"], &["--project", ".."]] {
        site.gitlab().clear_requests();
        site.fleet(&[&["list"], args].concat()).exits(2);
        assert_eq!(site.gitlab().requests().len(), 0, "{args:?}");
    }
}

#[test]
fn failed_list_prints_partial_results_and_exits_5() {
    for output in ["text", "json", "jsonl"] {
        let site = Site::new();
        site.add_runners(150);
        site.gitlab().order(Endpoint::ListAllRunners, Fault::status(502)).after(1);
        let done = site.fleet(&["list", "--all", "--output", output]);
        done.exits(5).says("the server failed (502");
        match output {
            "text" => {
                assert_eq!(done.stdout.lines().count(), 101);
                done.says("the list ends early, after 100 runners");
            }
            "json" => {
                assert_eq!(rows(&done, "runners").len(), 100);
                let document: Value = serde_json::from_str(&done.stdout).unwrap();
                assert_eq!(document["complete"], false);
                assert!(document["error"].as_str().unwrap().contains("502"));
            }
            _ => assert_eq!(done.stdout.lines().count(), 100),
        }
    }
}

#[test]
fn list_details_print_partial_results_on_failure() {
    let site = Site::new();
    let all = site.add_runners(5);
    let gone = || Fault::json(404, json!({ "message": "404 Not found" }));
    site.gitlab().order(Endpoint::ShowRunner, gone()).after(1);
    let done = site.fleet(&["list", "--all", "--details", "--output", "json"]);
    assert_eq!(ids(&rows(done.exits(0), "runners")), [all[0], all[2], all[3], all[4]]);

    site.gitlab().order(Endpoint::ShowRunner, Fault::status(502)).after(3);
    let broken = site.fleet(&["list", "--all", "--details", "--output", "json"]);
    assert_eq!(ids(&rows(broken.exits(5), "runners")), all[..3]);

    let tagged = [1, 2].map(|_| site.gitlab().add_runner(NewRunner::instance().tags(["x"])).0);
    site.gitlab().order(Endpoint::ShowRunner, gone());
    let done = site.fleet(&["pause", "--all", "--tag", "x", "--yes", "--output", "json"]);
    assert_eq!(ids(&rows(done.exits(0), "runners")), tagged[1..]);
}

/// Runs the binary with stdout on a full disk.
fn run_full(site: &Site, args: &[&str]) -> Output {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = site.sandbox.command(args);
    command.env("GITLAB_TOKEN", &site.access_token);
    Process::start_writing_to(command, full).end()
}

#[test]
fn failed_write_to_stdout_exits_1() {
    let site = Site::new();
    let project = site.gitlab().add_project("a/b");
    let id = site.gitlab().add_runner(NewRunner::project(project.id)).0.to_string();
    let url = site.gitlab().url();
    for output in ["text", "json", "jsonl"] {
        for args in [&["list", "--all"][..], &["show", &id], &["projects", &id]] {
            let args = [&["fleet", "--url", &url], args, &["--output", output]].concat();
            run_full(&site, &args).exits(1).says("error: cannot write to stdout: No space");
        }
    }
    for args in [&["list"][..], &["list", "--output", "json"], &["completions", "bash"], &["health"]] {
        run_full(&site, args).exits(1).says("cannot write to stdout");
    }
    run_full(&site, &["--help"]).exits(1);
}

#[test]
fn second_signal_ends_a_request_immediately() {
    let site = Site::new();
    let (id, _) = site.gitlab().add_runner(NewRunner::instance());
    let url = site.gitlab().url();
    site.gitlab().order(Endpoint::ResetById, Fault::hold());
    let id = id.to_string();
    let args = ["fleet", "--url", &url, "reset-token", &id, "--write-token", "token"];
    // Longer than any test runs.
    site.sandbox.write("agent.toml", "[gitlab]\nrequest_timeout = \"1h\"\n");
    let mut command = site.sandbox.command(&args);
    command.env("GITLAB_TOKEN", &site.access_token);
    let child = Process::start(command);
    site.sandbox.wait_for_requests(Endpoint::ResetById, 1);
    child.signal(Signal::INT);
    child.signal(Signal::TERM);
    let done = child.end();
    done.exits(1).says("interrupted: a change in progress may have been made");
}

#[test]
fn wait_flag_retries_a_busy_server() {
    let site = Site::new();
    site.add_runners(1);
    let busy = || Fault::answer(fake_gitlab::Answer::text(429, "text/plain", "Retry later").retry_after(1));
    site.gitlab().order(Endpoint::ListAllRunners, busy());
    site.fleet(&["list", "--all"]).exits(5).says("too many requests");
    site.gitlab().order(Endpoint::ListAllRunners, busy());
    let done = site.fleet(&["list", "--all", "--wait", "30s", "--output", "json"]);
    assert_eq!(rows(done.exits(0).says("retrying in"), "runners").len(), 1);
}

#[test]
fn list_stops_when_stdout_is_closed() {
    let site = Site::new();
    site.add_runners(1500);
    let url = site.gitlab().url();
    let mut command = site.sandbox.command(&["fleet", "--url", &url, "list", "--all", "--output", "jsonl"]);
    command.env("GITLAB_TOKEN", &site.access_token);
    let (reader, writer) = std::io::pipe().unwrap();
    let child = Process::start_writing_to(command, writer);
    let mut stdout = BufReader::new(reader);
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    drop(stdout);
    child.end().exits(0);
    assert!(line.starts_with("{\"id\":1,"), "{line}");
    assert!(site.gitlab().requests().len() < 15);
}

/// The peak memory of a list after this many pages, in KiB.
fn peak_memory(site: &Site, pages: usize) -> u64 {
    let held = site.gitlab().order(Endpoint::ListAllRunners, Fault::hold());
    held.after(pages - 1);
    site.gitlab().clear_requests();
    let url = site.gitlab().url();
    let mut command = site.sandbox.command(&["fleet", "--url", &url, "list", "--all", "--output", "jsonl"]);
    command.env("GITLAB_TOKEN", &site.access_token);
    let child = Process::start_writing_to(command, std::fs::File::create("/dev/null").unwrap());
    site.sandbox.wait_for_requests(Endpoint::ListAllRunners, pages);
    let status = std::fs::read_to_string(child.proc("status")).unwrap();
    site.gitlab().clear_faults();
    child.end().exits(0);
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim_end_matches("kB").trim().parse().unwrap()
}

#[test]
fn memory_does_not_grow_with_the_list() {
    let site = Site::new();
    site.add_runners(8000);
    let (short, long) = (peak_memory(&site, 8), peak_memory(&site, 80));
    // The list keeps the ids of the rows to skip duplicates, but not the rows.
    assert!(long < short + 2048, "{short} KiB for 800 rows, {long} KiB for 8000");
}

#[test]
fn show_prints_all_details() {
    let site = Site::of_version("18.5");
    let project = site.gitlab().add_project("a/b");
    let (id, _) = site.gitlab().add_runner(NewRunner::project(project.id).tags(["x", "y"]).description("one"));
    let done = site.fleet(&["show", &id.to_string()]);
    insta::assert_snapshot!(site.sandbox.scrub(&done.exits(0).stdout).replace("now", "0s ago").split("created:").next().unwrap(), @r"
    id:               2
    description:      one
    type:             project_type
    status:           never_contacted
    paused:           no
    tags:             x, y
    run untagged:     yes
    locked:           no
    access level:     not_protected
    ");
    assert!(done.stdout.contains("projects:         a/b"));
    let json = site.fleet(&["show", &id.to_string(), "99", "--output", "json"]);
    json.exits(6).says("runner 99: cannot show the runner at");
    let row = &rows(&json, "runners")[0];
    assert_eq!((&row["tag_list"], &row["projects"][0]["id"]), (&json!(["x", "y"]), &json!(project.id)));
    let bare = site.fleet(&["show", &id.to_string(), "--no-projects", "--output", "jsonl"]);
    assert!(
        bare.exits(0).stdout.contains("\"tag_list\"")
            && site.gitlab().requests().last().unwrap().parameters["include_projects"] == "false"
    );
    site.fleet(&["show", "99"]).exits(3).says("the server has no such runner");
    site.fleet(&["show", "x"]).exits(2).says("a runner id is a number");
}

#[test]
fn jobs_managers_and_projects_are_listed() {
    let site = Site::new();
    let project = site.gitlab().add_project("a/b");
    let (id, token) = site.gitlab().add_runner(NewRunner::project(project.id));
    let jobs: Vec<u64> =
        (0..130).map(|_| site.gitlab().add_job(id, project.id, Some("s_0123456789ab"), "success")).collect();
    let running = site.gitlab().add_job(id, project.id, Some("s_ffffffffffff"), "running");
    let id = id.to_string();
    let listed =
        |args: &[&str]| ids(&rows(site.fleet(&[&["jobs", &id, "--output", "json"], args].concat()).exits(0), "jobs"));
    assert_eq!(listed(&["--limit", "2"]), [running, jobs[129]]);
    assert_eq!((listed(&[]).len(), listed(&["--all"]).len()), (20, 131));
    assert_eq!(listed(&["--status", "running"]), [running]);
    assert_eq!(listed(&["--system-id", "s_ffffffffffff"]), [running]);
    assert_eq!(listed(&["--sort", "asc", "--limit", "1"]), [jobs[0]]);
    insta::assert_snapshot!(site.sandbox.scrub(&site.fleet(&["jobs", &id, "--limit", "1"]).exits(0).stdout).lines().next().unwrap(), @"ID   STATUS   PROJECT  NAME  REF   CREATED  TOOK");

    site.sandbox.add_entry("one", None, &token);
    site.sandbox.run(&["verify", "--name", "one"]).exits(0);
    let managers = rows(site.fleet(&["managers", &id, "--output", "json"]).exits(0), "managers");
    assert_eq!((managers.len(), &managers[0]["system_id"]), (1, &json!("s_0123456789ab")));
    let projects = rows(site.fleet(&["projects", &id, "--output", "json"]).exits(0), "projects");
    assert_eq!(projects[0]["path_with_namespace"], "a/b");
    assert_eq!(site.fleet(&["projects", &id]).exits(0).stdout, format!("ID  PATH\n{}   a/b\n", project.id));
}
