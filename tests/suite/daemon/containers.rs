//! Containers that are replaced under new host names with the same volume.

use super::{enrolled, enrollment};
use fake_gitlab::{Endpoint, Gitlab, NewRunner};
use rustix::process::Signal;
use test_support::Process;

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
