//! `status` and `health`, which query the daemon.

use super::enrolled;
use test_support::{Output, Process, Sandbox};

use fake_gitlab::{Endpoint, Fault, Gitlab, NewRunner};
use rustix::process::Signal;

fn texts(output: Output) -> (Option<i32>, String, String) {
    (output.code, output.stdout, output.stderr)
}

#[test]
fn status_prints_a_table_and_json() {
    let sandbox = enrolled(Gitlab::builder(), "");
    let _daemon = sandbox.start_serving();
    let waited = sandbox.run(&["status", "--wait", "ready", "--output", "json"]);
    let (code, stdout, stderr) = texts(waited);
    assert_eq!(code, Some(0), "{stderr}");
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["runners"][0]["state"], "active");
    // `status` does not read the settings.
    sandbox.write("agent.toml", "broken [");
    let (code, stdout, stderr) = texts(sandbox.run(&["status"]));
    assert_eq!(code, Some(0), "{stderr}");
    let lines: Vec<_> = stdout.lines().collect();
    assert!(lines[0].starts_with("NAME") && lines[0].ends_with("NEXT"), "{stdout}");
    assert!(lines[1].starts_with("build-1") && lines[1].contains("verify "), "{stdout}");
}

#[test]
fn status_prints_the_problem_and_the_timeout() {
    // The same answer counts after three times within ten times `confirm_after`.
    let sandbox = enrolled(Gitlab::builder(), "[timing]\nconfirm_after = \"100ms\"\nfloor = \"100ms\"\n");
    let refusal = serde_json::json!({ "message": "410 Gone - runner registration disallowed" });
    sandbox.gitlab.order(Endpoint::Register, Fault::json(410, refusal)).always();
    let _daemon = sandbox.start_serving();
    let (code, _, stderr) = texts(sandbox.run(&["status", "--wait", "ready", "--timeout", "1s"]));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("not ready after 1s") && stderr.contains("runner `build-1`: "), "{stderr}");
    sandbox.wait("the problem with its remedy", |sandbox| {
        let (code, stdout, _) = texts(sandbox.run(&["status"]));
        assert_eq!(code, Some(0), "status itself succeeds");
        stdout.contains("\nrunner `build-1`: ") && stdout.contains("create the runner in GitLab's UI")
    });
    let (code, stdout, _) = texts(sandbox.run(&["health", "--ready"]));
    assert_eq!((code, stdout.lines().count()), (Some(1), 1));
    assert!(stdout.starts_with("not ready: runner `build-1`: "), "{stdout}");
}

#[test]
fn status_that_waits_says_once_for_what() {
    let sandbox = enrolled(Gitlab::builder(), "");
    sandbox.write("token", "");
    let _daemon = sandbox.start_serving();
    let waiting = Process::start(sandbox.command(&["status", "--wait", "ready", "--timeout", "10m"]));
    let why = "waiting: not ready yet\n  runner `build-1`: it is not registered yet; ";
    sandbox.wait("its word", |_| waiting.log().contains(why));
    assert!(waiting.log().contains("; it is tried again as soon as its file changes"), "{}", waiting.log());
    sandbox.write("token", &sandbox.gitlab.instance_registration_token());
    let output = waiting.end();
    assert_eq!(output.exits(0).stderr.matches("waiting: ").count(), 1);
}

#[test]
fn refused_token_file_is_named_and_its_change_is_noticed() {
    for key in ["registration_token", "token"] {
        let sandbox = enrolled(Gitlab::builder(), "");
        sandbox.write("agent.toml", &sandbox.enrollment("build-1", &format!("{key} = {{ file = \"token\" }}")));
        sandbox.write("token", "a-wrong-token");
        let _daemon = sandbox.start_serving();
        let expected = format!("a change of the file `{}` is noticed at once", sandbox.path("token").display());
        sandbox.wait("the status to name the file", |sandbox| texts(sandbox.run(&["status"])).1.contains(&expected));
        let (_, created) = sandbox.gitlab.add_runner(NewRunner::instance());
        let token = if key == "token" { created } else { sandbox.gitlab.instance_registration_token() };
        sandbox.write("token", &token);
        assert_eq!(sandbox.run(&["status", "--wait", "ready"]).code, Some(0));
        assert!(!texts(sandbox.run(&["status"])).1.contains("noticed"));
    }
}

#[test]
fn unregistered_enrollment_is_not_ready_until_a_reload() {
    let sandbox = enrolled(Gitlab::builder(), "");
    let daemon = sandbox.start_serving();
    assert_eq!(sandbox.run(&["status", "--wait", "ready"]).code, Some(0));
    assert_eq!(sandbox.run(&["unregister", "--name", "build-1"]).code, Some(0));
    sandbox.wait("the daemon to miss its runner", |sandbox| {
        let (code, stdout, _) = texts(sandbox.run(&["health", "--ready"]));
        code == Some(1) && stdout.contains("it is not served")
    });
    daemon.signal(Signal::HUP);
    sandbox.wait_for_registration();
    assert_eq!(sandbox.run(&["status", "--wait", "ready"]).code, Some(0));
}

#[test]
fn status_says_that_an_entry_was_given_to_another_runner() {
    for is_enrolled in [true, false] {
        let sandbox = if is_enrolled {
            enrolled(Gitlab::builder(), "")
        } else {
            let sandbox = super::sandbox(Gitlab::builder());
            sandbox.add_created("build-1");
            sandbox
        };
        let mut daemon = sandbox.start_serving();
        assert_eq!(sandbox.run(&["status", "--wait", "ready"]).code, Some(0));
        let (config, ours) = (sandbox.config(), sandbox.gitlab.runners()[0].clone());
        let (other, token) = sandbox.gitlab.add_runner(NewRunner::instance());
        sandbox.write_config(&config.replace(&ours.token, &token));
        let given = format!("runner `build-1` (id {}): its entry in config.toml was given to runner {other}", ours.id);
        let says_so = |sandbox: &Sandbox| texts(sandbox.run(&["status"])).1.contains(&given);
        sandbox.wait("the status to say so", |sandbox| says_so(sandbox));
        assert!(texts(sandbox.run(&["health", "--ready"])).1.contains("was given to runner"));
        // So does the next daemon.
        daemon.stop(Signal::QUIT);
        daemon = sandbox.start_serving();
        sandbox.wait("the status to say so again", |sandbox| says_so(sandbox));
        // Its token is put back.
        sandbox.write_config(&config);
        assert_eq!(sandbox.run(&["status", "--wait", "ready"]).code, Some(0));
        sandbox.wait("the status to be clean", |sandbox| !says_so(sandbox));
        daemon.stop(Signal::QUIT);
    }
}

#[test]
fn runner_whose_entry_was_given_away_can_be_unregistered() {
    let sandbox = super::sandbox(Gitlab::builder());
    let (id, ours) = sandbox.add_created("a");
    let (other, token) = sandbox.gitlab.add_runner(NewRunner::instance());
    sandbox.run(&["verify"]).exits(0);
    sandbox.write_config(&sandbox.config().replace(&ours, &token));
    sandbox.run(&["verify"]).exits(0);
    sandbox.run(&["unregister", "--name", "a"]).exits(2).says(&format!("--id {id}")).says(&format!("--id {other}"));
    sandbox.run(&["unregister", "--id", &id.to_string()]).exits(0);
    assert!(sandbox.gitlab.runner(id).unwrap().managers.is_empty());
    assert_eq!(sandbox.gitlab.runner(other).unwrap().managers.len(), 1);
    assert!(sandbox.config().contains(&token) && !sandbox.state().contains(&ours));
}

#[test]
fn status_waits_for_the_daemon_to_start() {
    let sandbox = enrolled(Gitlab::builder(), "");
    let command = sandbox.command(&["status", "--wait", "ready", "--timeout", "10m"]);
    let waiting = Process::start(command);
    let _daemon = sandbox.start_serving();
    let (code, stdout, stderr) = texts(waiting.end());
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("build-1") && stdout.contains("active"), "{stdout}");
}

#[test]
fn status_without_a_daemon_fails_with_a_hint() {
    let sandbox = super::sandbox(Gitlab::builder());
    let (code, stdout, stderr) = texts(sandbox.run(&["status"]));
    assert_eq!((code, stdout.as_str()), (Some(5), ""));
    assert!(stderr.contains("run/agent.sock") && stderr.contains("hint: start it with `runner-agent run`"), "{stderr}");
    let (code, _, stderr) = texts(sandbox.run(&["status", "--wait", "ready", "--timeout", "1s"]));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("no daemon answers"), "{stderr}");
    let (code, stdout, _) = texts(sandbox.run(&["health"]));
    assert_eq!((code, stdout.lines().count()), (Some(1), 1));
    let socket = sandbox.path("elsewhere.sock");
    let (_, _, stderr) = texts(sandbox.run(&["status", "--socket", socket.to_str().unwrap()]));
    assert!(stderr.contains("elsewhere.sock") && !stderr.contains("run/agent.sock"), "{stderr}");
}

#[test]
fn hanging_daemon_is_unhealthy() {
    let sandbox = super::sandbox(Gitlab::builder());
    let daemon = sandbox.start_serving();
    assert_eq!(texts(sandbox.run(&["health"])), (Some(0), "healthy\n".to_owned(), String::new()));
    daemon.signal(Signal::STOP);
    let (code, stdout, _) = texts(sandbox.run(&["health"]));
    assert_eq!(code, Some(1));
    assert!(stdout.contains("has not answered within 3 s"), "{stdout}");
    assert_eq!(texts(sandbox.run(&["status"])).0, Some(5));
    daemon.signal(Signal::CONT);
    sandbox.wait("its recovery", |sandbox| texts(sandbox.run(&["health"])).0 == Some(0));
}

#[test]
fn wait_for_a_hanging_daemon_times_out() {
    let sandbox = super::sandbox(Gitlab::builder());
    let daemon = sandbox.start_serving();
    daemon.signal(Signal::STOP);
    let (code, stdout, stderr) = texts(sandbox.run(&["status", "--wait", "ready", "--timeout", "1s"]));
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    // The timeout is shorter than that of a request.
    assert!(stderr.contains("not ready after 1s") && !stderr.contains("within 3 s"), "{stderr}");
    daemon.signal(Signal::CONT);
}

#[test]
fn very_long_timeout_is_accepted() {
    let sandbox = super::sandbox(Gitlab::builder());
    let _daemon = sandbox.start_serving();
    let (code, _, stderr) = texts(sandbox.run(&["status", "--wait", "ready", "--timeout", "36500d"]));
    assert_eq!(code, Some(0), "{stderr}");
}

#[test]
fn status_rejects_a_daemon_of_another_config() {
    let sandbox = enrolled(Gitlab::builder(), "");
    let first = sandbox.start_serving();
    sandbox.wait_for_registration();
    std::fs::create_dir(sandbox.path("second")).unwrap();
    sandbox.write("second.toml", "");
    let own = |args: &[&str]| {
        let mut command = sandbox.command(args);
        command
            .env("CONFIG_FILE", sandbox.path("second/config.toml"))
            .env("STATE_DIRECTORY", sandbox.path("second/state"));
        command.env("RUNNER_AGENT_CONFIG", sandbox.path("second.toml"));
        command
    };
    let asked = texts(Process::start(own(&["status"])).end());
    assert_eq!((asked.0, asked.1.as_str()), (Some(5), ""));
    assert!(asked.2.contains("serves a different config.toml") && asked.2.contains("hint: name "), "{}", asked.2);
    let second = Process::start(own(&["run"]));
    sandbox.wait("the second daemon", |_| texts(Process::start(own(&["health"])).end()).0 == Some(0));
    let asked = texts(Process::start(own(&["status"])).end());
    assert_eq!(asked, (Some(0), "the daemon serves no runners\n".to_owned(), String::new()));
    assert!(texts(sandbox.run(&["status"])).1.contains("build-1"));
    drop(first);
    assert_eq!(texts(sandbox.run(&["status"])).0, Some(5), "the second daemon does not count as the first");
    drop(second);
}
