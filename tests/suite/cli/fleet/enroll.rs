//! `fleet create --enroll`, and `create` in an `[[enroll]]`: runners whose token no user handles.

use fake_gitlab::{Endpoint, Fault, RunnerType};

use super::Site;

const CREATE: [&str; 8] =
    ["create", "--enroll", "--name", "build-1", "--executor", "shell", "--tag-list", "linux,docker"];

#[test]
fn enroll_creates_a_runner_and_its_entry() {
    let site = Site::new();
    let group = site.gitlab().add_group("top/sub");
    let done = site.fleet(&[&CREATE[..], &["--group", "top/sub", "--set", "limit=3"]].concat());
    let runner = site.gitlab().runners()[0].clone();
    assert_eq!((runner.runner_type, runner.groups.clone()), (RunnerType::Group, vec![group.id]));
    assert_eq!((runner.description.as_str(), runner.tags.len(), runner.run_untagged), ("build-1", 2, false));
    assert!(done.exits(0).stdout.contains("registered, its token does not expire and is in"), "{done:?}");
    assert!(!done.stdout.contains(&runner.token) && !done.stderr.contains(&runner.token));
    let config = site.sandbox.config();
    for line in [format!("token = \"{}\"", runner.token), format!("id = {}", runner.id), "limit = 3".to_owned()] {
        assert!(config.contains(&line), "{line}: {config}");
    }
    assert!(!site.sandbox.state().contains(&site.access_token));
    site.sandbox.run(&["verify", "--name", "build-1"]).exits(0);
}

#[test]
fn enroll_reads_the_official_variables() {
    let site = Site::new();
    let variables = [
        ("GITLAB_TOKEN", site.access_token.as_str()),
        ("RUNNER_NAME", "by-variable"),
        ("RUNNER_TAG_LIST", "a,b"),
        ("RUNNER_EXECUTOR", "docker"),
        ("DOCKER_IMAGE", "alpine"),
    ];
    site.fleet_with(&["create", "--enroll", "--instance", "--tag-list", "c"], &variables).exits(0);
    let runner = &site.gitlab().runners()[0];
    assert_eq!((runner.description.as_str(), runner.tags.clone()), ("by-variable", vec!["c".to_owned()]));
    assert!(site.sandbox.config().contains("executor = \"docker\""));
}

#[test]
fn enrolling_twice_creates_one_runner_unless_forced() {
    let site = Site::new();
    let create = [&CREATE[..], &["--instance"]].concat();
    site.fleet(&create).exits(0);
    let again = site.fleet(&create);
    assert!(again.exits(0).stdout.contains("registered already, nothing was changed"), "{again:?}");
    assert_eq!(site.gitlab().requests_to(Endpoint::CreateRunner).len(), 1);
    site.fleet(&[&create[..], &["--force"]].concat()).exits(0);
    assert_eq!(site.gitlab().runners().len(), 2);
    assert_eq!(site.sandbox.config().matches("[[runners]]").count(), 1);
}

#[test]
fn a_creation_that_meets_a_starting_gitlabs_502_can_simply_be_repeated() {
    let site = Site::new();
    let create = [&CREATE[..], &["--instance"]].concat();
    site.gitlab().order(Endpoint::Any, Fault::html(502)).always();
    for _ in 0..3 {
        let done = site.fleet(&create);
        done.exits(5).says("no registration was sent");
        assert!(!done.stderr.contains("--force"), "{done:?}");
    }
    assert!(site.gitlab().requests_to(Endpoint::CreateRunner).is_empty());
    site.gitlab().clear_faults();
    site.fleet(&create).exits(0);
    assert_eq!(site.gitlab().runners().len(), 1);
}

#[test]
fn unregister_deletes_an_enrolled_runner() {
    let site = Site::new();
    site.fleet(&[&CREATE[..], &["--instance"]].concat()).exits(0);
    site.sandbox.run(&["unregister", "--name", "build-1"]).exits(0);
    assert!(site.gitlab().runners().is_empty());
    assert!(!site.sandbox.config().contains("[[runners]]"));
}

#[test]
fn lost_creation_is_reported_and_not_repeated() {
    let site = Site::new();
    site.gitlab().order(Endpoint::CreateRunner, Fault::cut().after_acting());
    let lost = site.fleet(&[&CREATE[..], &["--instance", "--wait", "5s"]].concat());
    lost.exits(5).says("GitLab may have created the runner anyway").says("`build-1`");
    let again = site.fleet(&[&CREATE[..], &["--instance"]].concat());
    again.exits(5).says("no other one is registered").says("go on with --force");
    assert_eq!(site.gitlab().requests_to(Endpoint::CreateRunner).len(), 1);
    site.fleet(&[&CREATE[..], &["--instance", "--force"]].concat()).exits(0);
}

#[test]
fn unwritable_entry_creates_no_runner() {
    let site = Site::new();
    site.sandbox.write_config("runners = []\n");
    site.fleet(&[&CREATE[..], &["--instance"]].concat()).exits(4);
    site.fleet(&["create", "--instance", "--write-token", "t", "--name", "x"]).exits(2).says("need --enroll");
    site.fleet(&["create", "--instance", "--enroll", "--write-token", "t"]).exits(2);
    assert_eq!(site.gitlab().requests().len(), 0);
}

#[test]
fn daemon_creates_runners_of_agent_toml() {
    let site = Site::new();
    let project = site.gitlab().add_project("a/b");
    site.sandbox.write("access", &site.access_token);
    let url = site.gitlab().url();
    let agent = |create: &str| {
        format!(
            "[[server]]\nurl = \"{url}\"\naccess_token = {{ file = \"access\" }}\n[[enroll]]\nname = \"build-1\"\nurl = \"{url}\"\n\
             create = {create}\ntag_list = [\"linux\"]\nexecutor = \"shell\"\n"
        )
    };
    site.sandbox
        .write("agent.toml", &agent(&format!("{{ runner_type = \"project_type\", project_id = {} }}", project.id)));
    site.sandbox.run(&["run", "--once"]).exits(0);
    site.sandbox.run(&["run", "--once"]).exits(0);
    let runners = site.gitlab().runners();
    assert_eq!(
        (runners.len(), runners[0].projects.clone(), runners[0].tags.clone()),
        (1, vec![project.id], vec!["linux".to_owned()])
    );
    assert!(site.sandbox.config().contains(&runners[0].token));
    site.sandbox.run(&["unregister", "--name", "build-1"]).exits(0);
    assert!(site.gitlab().runners().is_empty());
    site.sandbox.run(&["run", "--once"]).exits(0);
    assert_eq!(site.gitlab().runners().len(), 1);

    for (create, mistake) in [
        ("{ runner_type = \"group_type\" }", "plus `group_id` only for group_type"),
        ("{ runner_type = \"instance_type\", group_id = 1 }", "plus `group_id` only for group_type"),
        ("{ runner_type = \"shared\" }", "runner_type"),
        ("\"group\"", "create"),
    ] {
        site.sandbox.write("agent.toml", &agent(create));
        site.sandbox.run(&["run", "--once"]).exits(4).says(mistake);
    }
}
