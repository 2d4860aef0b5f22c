//! Containers that are replaced under new host names with the same volume.

use super::{enrolled, enrollment};
use fake_gitlab::{Endpoint, Gitlab, NewRunner};
use rustix::process::Signal;
use test_support::{Output, Process, Sandbox};

const WARNING: &str = "mount a volume";

#[test]
fn unnamed_enrollment_keeps_its_registered_name() {
    let sandbox = enrolled(Gitlab::builder(), "");
    let named = enrollment(&sandbox, "the-first").replace("[[enroll]]", "[[enroll]]\nkey = \"default\"");
    sandbox.write("agent.toml", &named);
    let daemon = sandbox.start_serving();
    sandbox.wait_for_registration();
    daemon.kill();

    let unnamed = enrollment(&sandbox, "any").replace("name = \"any\"\n", "");
    sandbox.write("agent.toml", &unnamed);
    let daemon = sandbox.start_serving();
    sandbox.wait("a verification", |sandbox| !sandbox.gitlab.requests_to(Endpoint::Verify).is_empty());
    daemon.stop(Signal::TERM);
    assert!(sandbox.gitlab.runners().is_empty());
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), 1);

    let daemon = sandbox.start_serving();
    sandbox.wait_for_registration();
    assert_eq!(sandbox.gitlab.runners()[0].description, "the-first");
    assert!(sandbox.config().contains("name = \"the-first\""), "{}", sandbox.config());
    sandbox.gitlab.clear_requests();
    daemon.signal(Signal::HUP);
    sandbox.wait("a verification", |sandbox| !sandbox.gitlab.requests_to(Endpoint::Verify).is_empty());
    daemon.stop(Signal::TERM);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), 0);
}

#[test]
fn volatile_state_directory_is_warned_about() {
    let in_memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let log_of = |seed: &str, settings: &str| {
        let sandbox = super::sandbox(Gitlab::builder());
        sandbox.write("agent.toml", settings);
        let (_, created) = sandbox.gitlab.add_runner(NewRunner::instance());
        let token = if seed == "CI_SERVER_TOKEN" { created } else { sandbox.gitlab.instance_registration_token() };
        let mut command = sandbox.command(&["run"]);
        command.env("CI_SERVER_URL", sandbox.gitlab.url()).env(seed, token).env("STATE_DIRECTORY", in_memory.path());
        command.env("container", "podman");
        let daemon = Process::start(command);
        sandbox.wait("the daemon to serve", |_| daemon.log().contains("serving"));
        daemon.stop(Signal::QUIT).stderr
    };
    assert!(log_of("CI_SERVER_TOKEN", "").contains(WARNING));
    for log in [log_of("REGISTRATION_TOKEN", ""), log_of("CI_SERVER_TOKEN", "[rotate]\nat = \"off\"\n")] {
        assert!(!log.contains(WARNING), "{log}");
    }
}

/// Runs the daemon without an agent.toml, with these variables.
fn without_settings(sandbox: &Sandbox, variables: &[(&str, &str)], args: &[&str]) -> Process {
    let mut command = sandbox.command(&[&["run"], args].concat());
    command.env_remove("RUNNER_AGENT_CONFIG").env("XDG_CONFIG_HOME", sandbox.path("home"));
    command.envs(variables.iter().copied());
    Process::start(command)
}

#[test]
fn nothing_to_serve_exits_with_2_and_says_what_is_missing() {
    let sandbox = super::sandbox(Gitlab::builder());
    std::fs::remove_file(sandbox.path("agent.toml")).unwrap();
    let url = sandbox.gitlab.url();
    for (variables, expected) in [
        (&[][..], "set CI_SERVER_URL and one of REGISTRATION_TOKEN_FILE"),
        (&[("container", "podman")], "hint: set CI_SERVER_URL and one of REGISTRATION_TOKEN_FILE"),
        (&[("CI_SERVER_URL", url.as_str())], "hint: CI_SERVER_URL is set: add one of REGISTRATION_TOKEN_FILE"),
    ] {
        for args in [&[][..], &["--once"]] {
            let Output { code, stderr, .. } = without_settings(&sandbox, variables, args).end();
            assert_eq!(code, Some(2), "{stderr}");
            assert!(stderr.contains("nothing to serve") && stderr.contains(expected), "{stderr}");
            assert!(stderr.contains("--wait-for-config"), "{stderr}");
        }
    }
    // An agent.toml that enrolls nothing does not make up for the missing token.
    sandbox.write("agent.toml", "");
    sandbox.run_with(&["run"], &[("CI_SERVER_URL", &url)]).exits(2);
}

#[test]
fn sidecar_waits_for_the_config_toml_of_another_process() {
    for (variables, args) in [(&[][..], &["--wait-for-config"][..]), (&[("WAIT_FOR_CONFIG", "true")], &[])] {
        let sandbox = super::sandbox(Gitlab::builder());
        let daemon = without_settings(&sandbox, variables, args);
        sandbox.wait("the daemon to serve", |_| daemon.log().contains("serving"));
        assert!(daemon.log().contains("waiting for another process"), "{}", daemon.log());
        let (id, token) = sandbox.gitlab.add_runner(NewRunner::instance());
        sandbox.write_config(&sandbox.entry("theirs", id, &token));
        sandbox.wait("a verification", |sandbox| !sandbox.gitlab.requests_to(Endpoint::Verify).is_empty());
        daemon.stop(Signal::QUIT).exits(0);
    }
}

#[test]
fn entries_of_config_toml_are_served_without_an_agent_toml() {
    let sandbox = super::sandbox(Gitlab::builder());
    sandbox.add_created("found");
    let daemon = without_settings(&sandbox, &[], &[]);
    sandbox.wait("a verification", |sandbox| !sandbox.gitlab.requests_to(Endpoint::Verify).is_empty());
    daemon.stop(Signal::QUIT).exits(0);
}
