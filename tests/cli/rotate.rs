//! `rotate` and `reset-token`.

use test_gitlab::{Endpoint, Fault, Gitlab, Scope};

use crate::bench::{Bench, SOON};

fn bench() -> Bench {
    Bench::with(Gitlab::builder().token_life("1h").start())
}

#[test]
fn a_new_token_replaces_three_lines_and_nothing_else() {
    let bench = bench();
    let (id, old) = bench.gitlab.add_runner(test_gitlab::NewRunner::instance());
    let url = bench.gitlab.url();
    let before = format!(
        "# ours\r\n[[runners]]\r\n  name = 'a' # mine\r\n  url = \"{url}/\"\r\n  id = {id}\r\n  token = \"{old}\"\r\n  token_obtained_at = 2020-01-01T00:00:00Z\r\n  token_expires_at = 2020-01-02T00:00:00Z\r\n  custom.key = [1,  2]\r\n"
    );
    bench.write_config(&before);
    let done = bench.run(&["rotate", "--name", "a", "--output", "json"]);
    assert_eq!(done.exits(0).runner()["action"], "rotated");
    let new = bench.gitlab.runner(id).unwrap().token;
    assert_ne!(new, old);
    let after = bench.config();
    let differing: Vec<_> = before.lines().zip(after.lines()).filter(|(one, other)| one != other).collect();
    assert_eq!(differing.len(), 3, "{after}");
    assert_eq!(before.lines().count(), after.lines().count());
    assert!(after.contains(&format!("token = \"{new}\"")));
    let requests = bench.gitlab.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].endpoint, Endpoint::Reset);
    assert_eq!(requests[0].header("content-type"), Some("application/json"));
    assert_eq!(requests[0].parameter("system_id"), Some("s_0123456789ab"));
    assert!(!requests[0].path.contains(&old));
}

#[test]
fn all_runners_rotate_under_the_official_name_too() {
    let bench = bench();
    bench.add_created("a");
    bench.add_created("b");
    bench.add_entry("variable", None, "$SOME_TOKEN");
    let done = bench.run_with(&["reset-token", "--all-runners"], &[("SOME_TOKEN", "glrt-some")]);
    done.exits(6).says("the variable `SOME_TOKEN`, which a rotation cannot update");
    insta::assert_snapshot!("rotate-stdout", bench.scrub(&cut_spans(&done.stdout)));
    for runner in bench.gitlab.runners() {
        assert!(bench.config().contains(&runner.token));
    }
    assert_eq!(bench.gitlab.requests().len(), 2);
}

#[test]
fn a_refused_token_is_rotated_by_id_with_an_access_token() {
    let bench = bench();
    let (id, _) = bench.add_created("a");
    bench.gitlab.expire(id);
    bench.run(&["rotate", "--name", "a"]).exits(3);
    let access = bench.gitlab.add_access_token([Scope::Api]);
    let file = bench.write("pat", &access);
    let done = bench.run(&["rotate", "--name", "a", "--pat-file", file.to_str().unwrap(), "--log-level=trace"]);
    done.exits(0);
    assert!(!(done.stdout + &done.stderr).contains(&access));
    assert!(bench.config().contains(&bench.gitlab.runner(id).unwrap().token));
    assert_eq!(bench.gitlab.requests_to(Endpoint::ResetById).len(), 1);
    bench.run(&["rotate", "--name", "a", "--pat", "wrong"]).exits(3);
    // The one in agent.toml helps where the runner's own token does not.
    bench.gitlab.expire(id);
    let agent = format!("[[server]]\nurl = \"{}\"\naccess_token = {{ file = \"pat\" }}\n", bench.gitlab.url());
    bench.write("agent.toml", &agent.replace("\"pat\"", &format!("{:?}", file.to_str().unwrap())));
    bench.run(&["rotate", "--name", "a"]).exits(0);
    assert!(bench.config().contains(&bench.gitlab.runner(id).unwrap().token));
}

#[test]
fn a_lost_answer_to_a_reset_that_did_not_happen_is_settled_with_the_old_token() {
    let bench = bench();
    let (id, old) = bench.add_created("a");
    let config = bench.config();
    bench.gitlab.order(Endpoint::Reset, Fault::cut());
    bench.run(&["rotate", "--name", "a"]).exits(5).says("it did not happen");
    assert_eq!(bench.gitlab.runner(id).unwrap().token, old);
    assert_eq!(bench.gitlab.requests_to(Endpoint::Reset).len(), 1);
    assert_eq!(bench.gitlab.requests_to(Endpoint::Verify).len(), 2);
    assert_eq!(bench.config(), config);
    bench.run(&["rotate", "--name", "a"]).exits(0);
}

#[test]
fn a_lost_answer_to_a_reset_that_happened_says_that_the_new_token_is_lost() {
    let bench = bench();
    let (id, _) = bench.add_created("a");
    bench.gitlab.order(Endpoint::Reset, Fault::cut().after_acting());
    bench.run(&["rotate", "--name", "a"]).exits(3).says("the new one is lost").says("hint: rotate it by its id");
    assert_eq!(bench.gitlab.requests_to(Endpoint::Reset).len(), 1);
    let access = bench.gitlab.add_access_token([Scope::Api]);
    bench.run(&["rotate", "--name", "a", "--pat", &access]).exits(0);
    assert!(bench.config().contains(&bench.gitlab.runner(id).unwrap().token));
}

#[test]
fn what_cannot_be_found_out_now_is_found_out_by_the_next_rotation() {
    let bench = bench();
    let (id, _) = bench.add_created("a");
    bench.gitlab.order(Endpoint::Reset, Fault::cut());
    bench.gitlab.order(Endpoint::Verify, Fault::html(502)).times(4);
    bench.run(&["rotate", "--name", "a"]).exits(5).says("it is not known whether it happened");
    bench.run(&["rotate", "--name", "a"]).exits(0);
    assert_eq!(bench.gitlab.requests_to(Endpoint::Verify).len(), 6);
    assert!(bench.config().contains(&bench.gitlab.runner(id).unwrap().token));
}

#[test]
fn a_token_that_config_toml_does_not_take_is_safe_and_written_later() {
    let bench = bench();
    let (id, _) = bench.add_created("a");
    let config = bench.config();
    let hold = bench.gitlab.order(Endpoint::Reset, Fault::hold().after_acting());
    let child = bench.start(bench.command(&["rotate", "--name", "a"]));
    assert!(bench.gitlab.wait_for_requests(Endpoint::Reset, 1, SOON));
    bench.write_config("broken = = \n");
    hold.release();
    bench.finish(child).exits(4).says("safe in the state directory");
    let new = bench.gitlab.runner(id).unwrap().token;
    assert!(bench.state().contains(&new));
    bench.write_config(&config);
    bench.run(&["verify"]).exits(0);
    assert!(bench.config().contains(&new));
}

#[test]
fn an_interrupt_does_not_cancel_a_reset_in_flight() {
    let bench = bench();
    let (id, _) = bench.add_created("a");
    let hold = bench.gitlab.order(Endpoint::Reset, Fault::hold().after_acting());
    let child = bench.start(bench.command(&["rotate", "--name", "a"]));
    assert!(bench.gitlab.wait_for_requests(Endpoint::Reset, 1, SOON));
    bench.signal(&child, "INT");
    bench.signal(&child, "TERM");
    hold.release();
    bench.finish(child).exits(0);
    assert!(bench.config().contains(&bench.gitlab.runner(id).unwrap().token));
}

#[test]
fn a_kill_while_the_answer_is_outstanding_is_settled_by_the_next_rotation() {
    let bench = bench();
    let (_, old) = bench.add_created("a");
    bench.gitlab.order(Endpoint::Reset, Fault::hold());
    let mut child = bench.start(bench.command(&["rotate", "--name", "a"]));
    assert!(bench.gitlab.wait_for_requests(Endpoint::Reset, 1, SOON));
    child.kill().unwrap();
    child.wait().unwrap();
    bench.run(&["rotate", "--name", "a"]).exits(0);
    assert_eq!(bench.gitlab.requests_to(Endpoint::Verify).len(), 2);
    assert!(!bench.config().contains(&old));
}

#[test]
fn a_passed_rotation_deadline_is_told_with_what_to_do() {
    let bench = bench();
    let (id, _) = bench.add_created("a");
    bench.gitlab.set_rotation_deadline(id, Some("2020-01-01T00:00:00Z".parse().unwrap()));
    bench.run(&["rotate", "--id", &id.to_string()]).exits(3).says("deadline").says("hint: create a new runner");
    bench.run(&["verify"]).exits(0);
}

/// Takes `(in 59m 59s)` out.
fn cut_spans(text: &str) -> String {
    let mut parts = text.split(" (in ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once(')').map_or(part, |(_, rest)| rest))
}
