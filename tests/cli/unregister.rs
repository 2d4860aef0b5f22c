//! `unregister`.

use test_gitlab::{Endpoint, Fault, NewRunner};

use crate::bench::{Bench, SOON};

#[test]
fn a_registered_runner_is_deleted_and_its_entry_kept_aside() {
    let bench = Bench::new();
    bench.write_config("# ours\n");
    bench.register(&["--name", "a", "--executor", "shell"]).exits(0);
    bench.gitlab.clear_requests();
    let token = bench.gitlab.runners()[0].token.clone();
    let done = bench.run(&["unregister", "--name", "a"]);
    done.exits(0);
    assert_eq!(bench.gitlab.runners().len(), 0);
    assert_eq!(bench.config().trim(), "# ours");
    let kept = done.stdout.split("kept in ").nth(1).unwrap().trim();
    assert!(std::fs::read_to_string(kept).unwrap().contains("executor = \"shell\""));
    assert!(!bench.state().contains(&token));
    let requests = bench.gitlab.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(
        (requests[0].endpoint, requests[0].header("content-type")),
        (Endpoint::Delete, Some("application/json"))
    );
    assert!(!requests[0].path.contains(&token));
}

#[test]
fn of_a_created_runner_only_this_machines_manager_goes() {
    let bench = Bench::new();
    let (id, _) = bench.add_created("a");
    bench.run(&["verify"]).exits(0);
    let done = bench.run(&["unregister", "--name", "a", "--output", "json"]);
    assert_eq!(done.exits(0).runner()["action"], "unregistered");
    assert!(bench.gitlab.runner(id).unwrap().managers.is_empty());
    assert_eq!(bench.gitlab.requests_to(Endpoint::DeleteManager).len(), 1);
    assert_eq!(bench.gitlab.requests_to(Endpoint::DeleteManager)[0].parameter("system_id"), Some("s_0123456789ab"));
    assert!(!bench.config().contains("[[runners]]"));
}

#[test]
fn already_gone_is_done() {
    let bench = Bench::new();
    bench.register(&["--name", "a"]).exits(0);
    bench.gitlab.delete(bench.gitlab.runners()[0].id);
    let done = bench.run(&["unregister", "--all-runners"]);
    assert!(done.exits(0).stdout.contains("was already gone"), "{done:?}");
    assert!(!bench.config().contains("[[runners]]"));
    assert!(bench.run(&["unregister", "--all"]).exits(0).stdout.starts_with("no runners in "));
}

#[test]
fn an_expired_token_says_that_the_runner_may_remain() {
    let bench = Bench::with(test_gitlab::Gitlab::builder().token_life("1h").start());
    bench.register(&["--name", "a"]).exits(0);
    bench.gitlab.advance(std::time::Duration::from_secs(7200));
    let done = bench.run(&["unregister", "--name", "a", "--output=json"]);
    assert_eq!(done.exits(0).runner()["action"], "may_remain");
    assert_eq!(bench.gitlab.runners().len(), 1);
}

#[test]
fn an_unreachable_server_keeps_the_entry() {
    let bench = Bench::new();
    bench.add_created("a");
    let config = bench.config();
    for fault in [Fault::html(403), Fault::status(503), Fault::cut()] {
        bench.gitlab.order(Endpoint::DeleteManager, fault);
        bench.run(&["unregister", "--name", "a"]).exits(5);
        assert_eq!(bench.config(), config);
    }
    bench.gitlab.refuse_connections();
    bench.run(&["unregister", "--name", "a"]).exits(5);
    bench.gitlab.accept_connections();
    bench.run(&["unregister", "--name", "a"]).exits(0);
}

#[test]
fn some_done_and_some_not_is_exit_6() {
    let bench = Bench::new();
    bench.add_created("a");
    let (id, _) = bench.add_created("b");
    bench.gitlab.order(Endpoint::DeleteManager, Fault::html(502)).for_runner(id);
    bench.run(&["unregister", "--all-runners"]).exits(6);
    assert!(bench.config().contains("\"b\"") && !bench.config().contains("\"a\""));
}

#[test]
fn a_token_without_an_entry_is_enough() {
    let bench = Bench::new();
    let (id, token) = bench.gitlab.add_runner(NewRunner::instance().registered());
    let url = bench.gitlab.url();
    bench.run_reading(&["unregister", "--url", &url, "--token-file=-"], &token).exits(0);
    assert!(bench.gitlab.runner(id).is_none());
    let gone = bench.run(&["unregister", "--url", &url, "--token", &token]);
    assert!(gone.exits(0).stdout.contains("was already gone"));
    let (id, token) = bench.gitlab.add_runner(NewRunner::instance());
    bench.run(&["unregister", "--url", &url, "--token", &token]).exits(0);
    assert!(bench.gitlab.runner(id).is_some(), "a created runner cannot be made again from here");
    assert_eq!(bench.config(), "");
}

#[test]
fn a_broken_file_leaves_everybody_registered() {
    let bench = Bench::new();
    bench.register(&["--name", "a"]).exits(0);
    let config = bench.config() + "x = = 1\n";
    bench.write_config(&config);
    bench.run(&["unregister", "--all"]).exits(4);
    assert_eq!((bench.config(), bench.gitlab.runners().len()), (config, 1));
}

#[test]
fn the_record_of_an_enrollment_stays_as_retired() {
    let bench = Bench::new();
    let token = bench.write("token", &bench.gitlab.instance_registration_token());
    let agent = format!(
        "[[enroll]]\nname = \"build-1\"\nurl = \"{}\"\nregistration_token = {{ file = {:?} }}\n",
        bench.gitlab.url(),
        token.to_str().unwrap()
    );
    bench.write("agent.toml", &agent);
    bench.run(&["run", "--once"]).exits(0);
    assert_eq!(bench.gitlab.runners().len(), 1);
    bench.run(&["unregister", "--name", "build-1"]).exits(0).says("agent.toml enrolls it");
    assert_eq!(bench.gitlab.runners().len(), 0);
    assert!(bench.state().contains("\"retired\""));
    bench.run(&["run", "--once"]).exits(0);
    assert_eq!(bench.config().matches("[[runners]]").count(), 1);
}

#[test]
fn a_lost_answer_is_finished_by_the_same_command_again() {
    let bench = Bench::new();
    bench.register(&["--name", "a"]).exits(0);
    bench.gitlab.order(Endpoint::Delete, Fault::cut().after_acting());
    bench.run(&["unregister", "--name", "a"]).exits(5);
    assert!(bench.config().contains("[[runners]]"));
    bench.run(&["unregister", "--name", "a"]).exits(0);
    assert!(!bench.config().contains("[[runners]]"));
}

#[test]
fn an_interrupt_lets_what_is_under_way_finish() {
    let bench = Bench::new();
    bench.register(&["--name", "a"]).exits(0);
    let hold = bench.gitlab.order(Endpoint::Delete, Fault::hold());
    let child = bench.start(bench.command(&["unregister", "--name", "a"]));
    assert!(bench.gitlab.wait_for_requests(Endpoint::Delete, 1, SOON));
    bench.signal(&child, "TERM");
    hold.release();
    bench.finish(child).exits(0);
    assert_eq!(bench.gitlab.runners().len(), 0);
}
