//! Life in containers, which come and go under new names around one volume.

use rustix::process::Signal;
use test_gitlab::{Endpoint, Gitlab, NewRunner};

use super::bench::{Bench, Daemon};

const WARNING: &str = "mount a volume";

#[test]
fn a_runner_without_a_name_keeps_the_one_it_has_under_every_name_of_the_machine() {
    let bench = Bench::enrolling(Gitlab::builder(), "");
    let named = bench.enrollment("the-first").replace("[[enroll]]", "[[enroll]]\nkey = \"default\"");
    bench.write("agent.toml", &named);
    let daemon = bench.serving();
    bench.wait_for_registration();
    daemon.kill();

    let unnamed = bench.enrollment("any").replace("name = \"any\"\n", "");
    bench.write("agent.toml", &unnamed);
    let daemon = bench.serving();
    bench.wait("a verification", |bench| !bench.gitlab.requests_to(Endpoint::Verify).is_empty());
    daemon.stop(Signal::TERM);
    assert!(bench.gitlab.runners().is_empty());
    assert_eq!(bench.gitlab.requests_to(Endpoint::Register).len(), 1);

    let daemon = bench.serving();
    bench.wait_for_registration();
    assert_eq!(bench.gitlab.runners()[0].description, "the-first");
    assert!(bench.config().contains("name = \"the-first\""), "{}", bench.config());
    bench.gitlab.clear_requests();
    daemon.signal(Signal::HUP);
    bench.wait("a verification", |bench| !bench.gitlab.requests_to(Endpoint::Verify).is_empty());
    daemon.stop(Signal::TERM);
    assert_eq!(bench.gitlab.requests_to(Endpoint::Register).len(), 0);
}

#[test]
fn a_given_token_whose_state_is_gone_with_its_container_is_warned_of() {
    let in_memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let log_of = |seed: &str, settings: &str| {
        let bench = Bench::new(Gitlab::builder());
        bench.write("agent.toml", settings);
        let (_, created) = bench.gitlab.add_runner(NewRunner::instance());
        let token = if seed == "CI_SERVER_TOKEN" { created } else { bench.gitlab.instance_registration_token() };
        let mut command = bench.command(&["run"]);
        command.env("CI_SERVER_URL", bench.gitlab.url()).env(seed, token).env("STATE_DIRECTORY", in_memory.path());
        command.env("container", "podman");
        let daemon = Daemon::spawn(command);
        bench.wait("the daemon to serve", |_| daemon.log().contains("serving"));
        daemon.stop(Signal::QUIT).1
    };
    assert!(log_of("CI_SERVER_TOKEN", "").contains(WARNING));
    for log in [log_of("REGISTRATION_TOKEN", ""), log_of("CI_SERVER_TOKEN", "[rotate]\nat = \"off\"\n")] {
        assert!(!log.contains(WARNING), "{log}");
    }
}
