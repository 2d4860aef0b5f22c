//! `unregister`.

use std::fs::File;

use super::sandbox_with;
use fake_gitlab::{Endpoint, Fault, Gitlab, NewRunner};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use test_support::{Output, Process, Sandbox};

#[test]
fn registered_runner_is_deleted_and_its_entry_saved() {
    let sandbox = super::sandbox();
    sandbox.write_config("# ours\n");
    sandbox.register(&["--name", "a", "--executor", "shell"]).exits(0);
    sandbox.gitlab.clear_requests();
    let token = sandbox.gitlab.runners()[0].token.clone();
    let done = sandbox.run(&["unregister", "--name", "a"]);
    done.exits(0);
    assert_eq!(sandbox.gitlab.runners().len(), 0);
    assert_eq!(sandbox.config().trim(), "# ours");
    let kept = done.stdout.split("kept in ").nth(1).unwrap().trim();
    assert!(std::fs::read_to_string(kept).unwrap().contains("executor = \"shell\""));
    assert!(!sandbox.state().contains(&token));
    let requests = sandbox.gitlab.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(
        (requests[0].endpoint, requests[0].header("content-type")),
        (Endpoint::Delete, Some("application/json"))
    );
    assert!(!requests[0].path.contains(&token));
}

#[test]
fn created_runner_loses_only_the_local_manager() {
    let sandbox = super::sandbox();
    let (id, _) = sandbox.add_created("a");
    sandbox.run(&["verify"]).exits(0);
    let done = sandbox.run(&["unregister", "--name", "a", "--output", "json"]);
    assert_eq!(done.exits(0).runner()["action"], "unregistered");
    assert!(sandbox.gitlab.runner(id).unwrap().managers.is_empty());
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::DeleteManager).len(), 1);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::DeleteManager)[0].parameter("system_id"), Some("s_0123456789ab"));
    assert!(!sandbox.config().contains("[[runners]]"));
}

#[test]
fn missing_runner_counts_as_unregistered() {
    let sandbox = super::sandbox();
    sandbox.register(&["--name", "a"]).exits(0);
    sandbox.gitlab.delete(sandbox.gitlab.runners()[0].id);
    let done = sandbox.run(&["unregister", "--all-runners"]);
    assert!(done.exits(0).stdout.contains("was already gone"), "{done:?}");
    assert!(!sandbox.config().contains("[[runners]]"));
    assert!(sandbox.run(&["unregister", "--all"]).exits(0).stdout.starts_with("no runners in "));
}

#[test]
fn expired_token_reports_that_the_runner_may_remain() {
    let sandbox = sandbox_with(fake_gitlab::Gitlab::builder().token_life("1h"));
    sandbox.register(&["--name", "a"]).exits(0);
    sandbox.gitlab.advance(std::time::Duration::from_secs(7200));
    let done = sandbox.run(&["unregister", "--name", "a", "--output=json"]);
    assert_eq!(done.exits(0).runner()["action"], "may_remain");
    assert_eq!(sandbox.gitlab.runners().len(), 1);
}

#[test]
fn unreachable_server_keeps_the_entry() {
    let sandbox = super::sandbox();
    sandbox.add_created("a");
    let config = sandbox.config();
    for fault in [Fault::html(403), Fault::status(503), Fault::cut()] {
        sandbox.gitlab.order(Endpoint::DeleteManager, fault).always();
        sandbox.run(&["unregister", "--name", "a"]).exits(5);
        assert_eq!(sandbox.config(), config);
        sandbox.gitlab.clear_faults();
    }
    sandbox.gitlab.refuse_connections();
    sandbox.run(&["unregister", "--name", "a"]).exits(5);
    sandbox.gitlab.accept_connections();
    sandbox.run(&["unregister", "--name", "a"]).exits(0);
}

#[test]
fn partial_failure_exits_6() {
    let sandbox = super::sandbox();
    sandbox.add_created("a");
    let (id, _) = sandbox.add_created("b");
    sandbox.gitlab.order(Endpoint::DeleteManager, Fault::html(502)).for_runner(id).always();
    sandbox.run(&["unregister", "--all-runners"]).exits(6);
    assert!(sandbox.config().contains("\"b\"") && !sandbox.config().contains("\"a\""));
}

#[test]
fn token_without_an_entry_can_unregister() {
    let sandbox = super::sandbox();
    let (id, token) = sandbox.gitlab.add_runner(NewRunner::instance().registered());
    let url = sandbox.gitlab.url();
    sandbox.run_reading(&["unregister", "--url", &url, "--token-file=-"], &token).exits(0);
    assert!(sandbox.gitlab.runner(id).is_none());
    let gone = sandbox.run(&["unregister", "--url", &url, "--token", &token]);
    assert!(gone.exits(0).stdout.contains("was already gone"));
    let (id, token) = sandbox.gitlab.add_runner(NewRunner::instance());
    sandbox.run(&["unregister", "--url", &url, "--token", &token]).exits(0);
    assert!(sandbox.gitlab.runner(id).is_some(), "a created runner is kept, because it cannot be registered again");
    assert_eq!(sandbox.config(), "");
}

#[test]
fn broken_config_unregisters_nothing() {
    let sandbox = super::sandbox();
    sandbox.register(&["--name", "a"]).exits(0);
    let config = sandbox.config() + "x = = 1\n";
    sandbox.write_config(&config);
    sandbox.run(&["unregister", "--all"]).exits(4);
    assert_eq!((sandbox.config(), sandbox.gitlab.runners().len()), (config, 1));
}

#[test]
fn record_of_an_enrollment_is_kept_as_retired() {
    let sandbox = super::sandbox();
    let token = sandbox.write("token", &sandbox.gitlab.instance_registration_token());
    let agent = format!(
        "[[enroll]]\nname = \"build-1\"\nurl = \"{}\"\nregistration_token = {{ file = {:?} }}\n",
        sandbox.gitlab.url(),
        token.to_str().unwrap()
    );
    sandbox.write("agent.toml", &agent);
    sandbox.run(&["run", "--once"]).exits(0);
    assert_eq!(sandbox.gitlab.runners().len(), 1);
    sandbox.run(&["unregister", "--name", "build-1"]).exits(0).says("agent.toml enrolls it");
    assert_eq!(sandbox.gitlab.runners().len(), 0);
    assert!(sandbox.state().contains("\"retired\""));
    sandbox.run(&["run", "--once"]).exits(0);
    assert_eq!(sandbox.config().matches("[[runners]]").count(), 1);
}

#[test]
fn lost_deletion_of_a_manager_is_repeated_once() {
    let sandbox = super::sandbox();
    sandbox.add_created("a");
    sandbox.run(&["verify"]).exits(0);
    sandbox.gitlab.order(Endpoint::DeleteManager, Fault::cut().after_acting());
    sandbox.run(&["unregister", "--name", "a"]).exits(0);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::DeleteManager).len(), 2);
    assert!(!sandbox.config().contains("[[runners]]"));
}

#[test]
fn lost_deletion_of_a_runner_is_settled_by_verify() {
    let sandbox = super::sandbox();
    sandbox.register(&["--name", "a"]).exits(0);
    sandbox.gitlab.order(Endpoint::Delete, Fault::cut().after_acting());
    let done = sandbox.run(&["unregister", "--name", "a"]);
    assert!(done.exits(0).stdout.contains("was already gone"), "{done:?}");
    let endpoints: Vec<_> = sandbox.gitlab.requests().iter().map(|request| request.endpoint).collect();
    // Two refusals, and then every token that the runner has had is asked once more.
    let settled = [Endpoint::Delete, Endpoint::Verify, Endpoint::Verify, Endpoint::Verify];
    assert!(endpoints.ends_with(&settled), "{endpoints:?}");
    assert!(!sandbox.config().contains("[[runners]]"));
}

#[test]
fn deletion_of_a_runner_that_the_server_then_accepts_ends_with_5_and_the_remedy() {
    let json = |status, text: &str| Fault::json(status, serde_json::json!({ "message": text }));
    for fault in [
        Fault::status(403),
        Fault::status(502),
        Fault::status(500),
        Fault::html(503),
        Fault::cut(),
        json(503, "Service Unavailable"),
        json(404, "no Route matched with those values"),
        json(404, "Not Found"),
        Fault::html(404),
    ] {
        let sandbox = super::sandbox();
        sandbox.register(&["--name", "a"]).exits(0);
        let config = sandbox.config();
        sandbox.gitlab.clear_requests();
        sandbox.gitlab.order(Endpoint::Delete, fault.clone());
        let done = sandbox.run(&["unregister", "--name", "a"]);
        // A gateway's 404 proves that nothing was sent on; after any other answer the server is asked.
        let is_asked = !sandbox.gitlab.requests_to(Endpoint::Verify).is_empty();
        let remedy = if is_asked { "run it again" } else { "whether a proxy or portal is in between" };
        done.exits(5).says(remedy);
        assert!(!done.text().contains("interrupted"), "{fault:?}: {done:#?}");
        assert_eq!((sandbox.config(), sandbox.gitlab.runners().len()), (config, 1), "{fault:?}");
        assert_eq!(sandbox.gitlab.requests_to(Endpoint::Delete).len(), 1, "{fault:?}");
        // Nothing acts later, and the remedy works.
        sandbox.run(&["verify"]).exits(0);
        assert_eq!(sandbox.gitlab.requests_to(Endpoint::Delete).len(), 1, "{fault:?}");
        sandbox.run(&["unregister", "--name", "a"]).exits(0);
        assert_eq!((sandbox.config(), sandbox.gitlab.runners().len()), (String::new(), 0), "{fault:?}");
    }
}

#[test]
fn unregistration_that_stays_unknown_is_finished_by_the_next_command() {
    let sandbox = super::sandbox();
    sandbox.register(&["--name", "a"]).exits(0);
    sandbox.gitlab.order(Endpoint::Delete, Fault::cut().after_acting());
    sandbox.gitlab.order(Endpoint::Verify, Fault::html(502)).always();
    sandbox.run(&["unregister", "--name", "a"]).exits(5);
    assert!(sandbox.config().contains("[[runners]]"));
    sandbox.gitlab.clear_faults();
    sandbox.run(&["unregister", "--name", "a"]).exits(0);
    assert!(!sandbox.config().contains("[[runners]]"));
}

#[test]
fn interrupt_lets_the_deletion_finish() {
    let sandbox = super::sandbox();
    sandbox.register(&["--name", "a"]).exits(0);
    let hold = sandbox.gitlab.order(Endpoint::Delete, Fault::hold());
    let child = sandbox.start(&["unregister", "--name", "a"]);
    sandbox.wait_for_requests(Endpoint::Delete, 1);
    child.signal(Signal::TERM);
    hold.release();
    child.end().exits(0);
    assert_eq!(sandbox.gitlab.runners().len(), 0);
}

#[test]
fn unregister_by_name_never_deletes_another_runner_whose_token_is_in_the_entry() {
    let sandbox = super::sandbox();
    sandbox.register(&["--name", "a"]).exits(0);
    let mine = sandbox.gitlab.runners()[0].clone();
    let (other, token) = sandbox.gitlab.add_runner(NewRunner::instance().registered());
    sandbox.write_config(&sandbox.config().replace(&mine.token, &token));
    sandbox.run(&["unregister", "--name", "a"]).exits(0);
    assert_eq!(sandbox.gitlab.runners().iter().map(|runner| runner.id).collect::<Vec<_>>(), [other]);
    assert!(sandbox.config().contains(&token), "its only copy stays");
    assert_eq!(sandbox.run(&["verify", "--output", "json"]).exits(0).runner()["id"], other);
}

#[test]
fn unregister_by_name_keeps_another_runner_while_its_own_is_gone() {
    for kind in [NewRunner::instance(), NewRunner::instance().registered()] {
        let sandbox = super::sandbox();
        sandbox.register(&["--name", "a"]).exits(0);
        let mine = sandbox.gitlab.runners()[0].clone();
        let (other, token) = sandbox.gitlab.add_runner(kind);
        sandbox.gitlab.delete(mine.id);
        sandbox.write_config(&sandbox.config().replace(&mine.token, &token));
        let done = sandbox.run(&["unregister", "--name", "a"]);
        done.exits(0).says("its entry holds the token of another runner: the entry stays, for that runner");
        assert!(done.stdout.contains(&format!("runner `a` (id {}): was already gone", mine.id)), "{done:?}");
        assert!(sandbox.gitlab.runner(other).is_some());
        assert!(sandbox.config().contains(&token), "its only copy stays");
        assert!(!sandbox.state().contains(&mine.token));
        // The entry is the other runner's from now on.
        assert_eq!(sandbox.run(&["verify", "--output", "json"]).exits(0).runner()["id"], other);
        let deletions =
            [Endpoint::Delete, Endpoint::DeleteManager].map(|endpoint| sandbox.gitlab.requests_to(endpoint));
        assert!(deletions.iter().flatten().all(|request| request.parameter("token") != Some(&token)));
    }
}

#[test]
fn unregister_refuses_an_entry_whose_id_is_not_that_of_its_token() {
    for kind in [NewRunner::instance(), NewRunner::instance().registered()] {
        let sandbox = super::sandbox();
        let (mine, _) = sandbox.gitlab.add_runner(NewRunner::instance());
        let (other, token) = sandbox.gitlab.add_runner(kind);
        sandbox.add_entry("a", Some(mine), &token);
        let config = sandbox.config();
        let refused = sandbox.run(&["unregister", "--name", "a"]);
        refused.exits(4).says(&format!("has the id {mine}, but its token is that of runner {other}")).says("hint: ");
        assert_eq!((sandbox.config(), sandbox.gitlab.runners().len()), (config.clone(), 2));
        for endpoint in [Endpoint::Delete, Endpoint::DeleteManager] {
            assert!(sandbox.gitlab.requests_to(endpoint).is_empty());
        }
        sandbox.write_config(&config.replace(&format!("id = {mine}"), &format!("id = {other}")));
        sandbox.run(&["unregister", "--name", "a"]).exits(0);
    }
}

#[test]
fn unregistration_after_a_kill_during_a_reset_settles_it_first() {
    for is_executed in [false, true] {
        let sandbox = sandbox_with(fake_gitlab::Gitlab::builder().token_life("1d"));
        sandbox.register(&["--name", "a"]).exits(0);
        let fault = if is_executed { Fault::hold().after_acting() } else { Fault::hold() };
        sandbox.gitlab.order(Endpoint::Reset, fault);
        let rotation = sandbox.start(&["rotate", "--name", "a"]);
        sandbox.wait_for_requests(Endpoint::Reset, 1);
        rotation.kill();
        let done = sandbox.run(&["unregister", "--name", "a", "--output", "json"]);
        let expected = if is_executed { "may_remain" } else { "unregistered" };
        assert_eq!(done.exits(0).runner()["action"], expected, "{done:#?}");
        assert!(!sandbox.config().contains("[[runners]]"));
        assert_eq!(sandbox.gitlab.runners().len(), usize::from(is_executed));
    }
}

#[test]
fn unregistration_after_a_kill_during_a_reset_waits_for_the_server_and_succeeds_then() {
    let sandbox = sandbox_with(fake_gitlab::Gitlab::builder().token_life("1d"));
    sandbox.register(&["--name", "a"]).exits(0);
    sandbox.gitlab.order(Endpoint::Reset, Fault::hold());
    let rotation = sandbox.start(&["rotate", "--name", "a"]);
    sandbox.wait_for_requests(Endpoint::Reset, 1);
    rotation.kill();
    let unavailable = sandbox.gitlab.order(Endpoint::Verify, Fault::html(502));
    unavailable.always();
    sandbox.run(&["unregister", "--name", "a"]).exits(5).says("cannot verify the runner");
    assert!(sandbox.is_in_step());
    unavailable.cancel();
    sandbox.run(&["unregister", "--name", "a"]).exits(0);
    assert!(sandbox.gitlab.runners().is_empty());
}

#[test]
fn unregistration_that_failed_deletes_nothing_when_the_daemon_starts() {
    for (is_created, endpoint) in [(false, Endpoint::Delete), (true, Endpoint::DeleteManager)] {
        failed_unregistration_deletes_nothing(is_created, endpoint);
    }
}

#[track_caller]
fn failed_unregistration_deletes_nothing(is_created: bool, endpoint: Endpoint) {
    let sandbox = super::sandbox();
    if is_created {
        sandbox.add_created("a");
        sandbox.run(&["verify"]).exits(0);
    } else {
        sandbox.register(&["--name", "a"]).exits(0);
    }
    sandbox.gitlab.order(endpoint, Fault::status(502)).times(if is_created { 2 } else { 1 });
    sandbox.gitlab.order(Endpoint::Verify, Fault::html(502)).always();
    assert!(sandbox.run(&["unregister", "--name", "a"]).exits(5).stdout.contains("not unregistered"));
    sandbox.gitlab.clear_faults();
    // A person has put another token there meanwhile.
    let token = sandbox.gitlab.revoke(sandbox.gitlab.runners()[0].id);
    let former = sandbox.config();
    let old = former.lines().find(|line| line.contains("token = ")).unwrap();
    sandbox.write_config(&former.replace(old, &format!("  token = \"{token}\"")));
    for settings in ["[shutdown]\nunregister = \"never\"\n", "[shutdown]\nunregister = \"enrolled\"\n"] {
        sandbox.write_fast_settings(settings);
        let asked = sandbox.gitlab.requests_to(Endpoint::Verify).len();
        let daemon = sandbox.start_serving();
        sandbox.wait_for_requests(Endpoint::Verify, asked + 1);
        daemon.stop(Signal::TERM).exits(0);
        let deletions = if is_created { 2 } else { 1 };
        assert_eq!(sandbox.gitlab.requests_to(endpoint).len(), deletions, "{settings}");
        assert!(sandbox.is_in_step() && sandbox.gitlab.runners().len() == 1, "{settings}");
    }
}

#[test]
fn entry_with_the_token_of_another_runner_takes_nothing_from_either() {
    let sandbox = super::sandbox();
    sandbox.register(&["--name", "mine"]).exits(0);
    let ours = sandbox.gitlab.runners()[0].clone();
    let (other, token) = sandbox.gitlab.add_runner(NewRunner::instance().registered());
    sandbox.write_config(&sandbox.config().replace(&ours.token, &token));
    sandbox.run(&["verify", "--name", "mine", "--log-level", "warn"]).says("was given to another runner");
    assert!(sandbox.config().contains(&token) && sandbox.state().contains(&ours.token));
    sandbox.run(&["unregister", "--name", "mine"]);
    assert!(sandbox.gitlab.runner(other).is_some(), "it was never ours to delete");
    // The other one is served as found, and ours is still in the state directory.
    assert_eq!(sandbox.gitlab.runner(ours.id).unwrap().token, ours.token);
    assert!(sandbox.state().contains(&ours.token));
}

/// Runs the command with this line on its terminal.
fn on_terminal(sandbox: &Sandbox, args: &[&str], line: &str) -> Output {
    let own = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&own).unwrap();
    unlockpt(&own).unwrap();
    let name = ptsname(&own, Vec::new()).unwrap().into_string().unwrap();
    let terminal = File::options().read(true).write(true).open(name).unwrap();
    rustix::io::write(&own, line.as_bytes()).unwrap();
    let mut command = sandbox.command(args);
    command.stdin(terminal);
    Process::start(command).end()
}

#[test]
fn all_runners_are_unregistered_on_a_terminal_only_after_a_yes() {
    let sandbox = super::sandbox();
    for name in ["a", "b"] {
        sandbox.add_created(name);
        sandbox.run(&["verify", "--name", name]).exits(0);
    }
    let entries = sandbox.config();
    let declined = on_terminal(&sandbox, &["unregister", "--all-runners"], "n\n");
    declined.exits(1);
    assert!(declined.stderr.contains("(2): a, b") && declined.stderr.contains("nothing was changed"), "{declined:?}");
    assert_eq!(sandbox.config(), entries);
    assert!(sandbox.gitlab.requests_to(Endpoint::DeleteManager).is_empty());
    // A selection is no accident.
    on_terminal(&sandbox, &["unregister", "--name", "a"], "n\n").exits(0);
    on_terminal(&sandbox, &["unregister", "--all-runners"], "y\n").exits(0);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::DeleteManager).len(), 2);
}

#[test]
fn yes_answers_the_question_about_all_runners() {
    let sandbox = super::sandbox();
    sandbox.add_created("a");
    sandbox.run(&["verify"]).exits(0);
    on_terminal(&sandbox, &["unregister", "--all-runners", "--yes"], "n\n").exits(0);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::DeleteManager).len(), 1);
}

#[test]
fn an_enrollment_whose_given_token_a_rotation_has_replaced_says_that_it_needs_a_new_one() {
    for is_rotated in [false, true] {
        let sandbox = sandbox_with(Gitlab::builder().token_life("1h"));
        let (_, token) = sandbox.gitlab.add_runner(NewRunner::instance());
        sandbox.write("runner-token", &token);
        sandbox.write_fast_settings(&sandbox.enrollment("a", "token = { file = \"runner-token\" }"));
        sandbox.run(&["run", "--once"]).exits(0);
        if is_rotated {
            sandbox.run(&["rotate", "a"]).exits(0);
        }
        let done = sandbox.run(&["unregister", "a"]);
        let hint =
            if is_rotated { "reset the token in GitLab and write it into that file" } else { "registers it again" };
        done.exits(0).says(hint);
    }
}
