//! `run --once` and signals during the pass.

use super::enrolled;
use fake_gitlab::{Endpoint, Fault, Gitlab, NewRunner, Order, Scope};
use rustix::process::Signal;
use test_support::{Output, Process, Sandbox};

const FINISHING: &str = "interrupted: finishing operations in progress";
const ONLY_COPY: &str = "waiting for answers that are the only copies of new tokens";

/// The time after which a request is given up, and no answer is waited for.
const IMPATIENT: &str = "[gitlab]\nrequest_timeout = \"2s\"\n";

/// Starts a pass whose registration the server holds, and sends it a signal.
fn interrupted(sandbox: &Sandbox) -> (Process, Order) {
    let held = sandbox.gitlab.order(Endpoint::Register, Fault::hold().after_acting());
    let pass = sandbox.start(&["run", "--once"]);
    sandbox.wait("the runner to be created", |sandbox| sandbox.gitlab.runners().len() == 1);
    pass.signal(Signal::TERM);
    sandbox.wait("the signal to be noticed", |_| pass.log().contains(FINISHING));
    (pass, held)
}

#[test]
fn interrupted_pass_finishes_operations_in_progress() {
    let sandbox = enrolled(Gitlab::builder(), "[shutdown]\ngrace = \"1h\"\n");
    let (pass, held) = interrupted(&sandbox);
    held.release();
    let Output { code, stderr: log, .. } = pass.end();
    assert!(code == Some(0), "{log}");
    assert!(sandbox.is_in_step());
}

#[test]
fn interrupted_pass_ends_after_the_grace_time() {
    let sandbox = super::sandbox(Gitlab::builder());
    sandbox.add_created("found");
    sandbox.write("agent.toml", "[shutdown]\ngrace = \"200ms\"\n");
    let _held = sandbox.gitlab.order(Endpoint::Verify, Fault::hold());
    let pass = sandbox.start(&["run", "--once"]);
    sandbox.wait_for_requests(Endpoint::Verify, 1);
    let Output { code, stderr: log, .. } = pass.stop(Signal::TERM);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("the grace time is over"), "{log}");
}

#[test]
fn interrupted_pass_waits_for_a_new_token_beyond_the_grace_time() {
    let sandbox = enrolled(Gitlab::builder(), "[shutdown]\ngrace = \"10ms\"\n");
    let (pass, held) = interrupted(&sandbox);
    sandbox.wait("the end of the grace time", |_| pass.log().contains(ONLY_COPY));
    held.release();
    let Output { code, stderr: log, .. } = pass.end();
    assert!(matches!(code, Some(0 | 1)), "{log}");
    assert!(sandbox.is_in_step());
}

#[test]
fn interrupted_pass_waits_no_longer_than_a_request_takes() {
    let sandbox = enrolled(Gitlab::builder(), &format!("[shutdown]\ngrace = \"10ms\"\n{IMPATIENT}"));
    let (pass, _held) = interrupted(&sandbox);
    let Output { code, stderr: log, .. } = pass.end();
    assert!(log.contains(ONLY_COPY), "{log}");
    assert_ne!(code, Some(0), "{log}");
}

#[test]
fn third_signal_ends_a_pass_immediately() {
    let sandbox = enrolled(Gitlab::builder(), "[shutdown]\ngrace = \"1h\"\n[gitlab]\nrequest_timeout = \"1h\"\n");
    let (pass, _held) = interrupted(&sandbox);
    pass.signal(Signal::INT);
    sandbox.wait("the second signal to be noticed", |_| pass.log().contains(ONLY_COPY));
    let Output { code, stderr: log, .. } = pass.stop(Signal::INT);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("another signal came"), "{log}");
}

/// A sandbox with an entry whose token is due for rotation.
fn due() -> (Sandbox, u64) {
    let sandbox = super::sandbox(Gitlab::builder().token_life("1h"));
    let (id, token) = sandbox.gitlab.add_runner(NewRunner::instance());
    let times = "token_obtained_at = 2020-01-01T00:00:00Z\ntoken_expires_at = 2020-01-02T00:00:00Z\n";
    sandbox.write_config(&(sandbox.entry("due", id, &token) + times));
    (sandbox, id)
}

fn pass(sandbox: &Sandbox) -> Output {
    sandbox.run(&["run", "--once"])
}

/// Whether the state directory says that a runner's token is proven dead.
fn is_rejected(sandbox: &Sandbox) -> bool {
    sandbox.state().contains(r#""state": "rejected""#)
}

#[test]
fn pass_over_a_refused_token_exits_with_3() {
    let sandbox = super::sandbox(Gitlab::builder());
    let (id, _) = sandbox.add_created("refused");
    sandbox.gitlab.revoke(id);
    for _ in 0..3 {
        pass(&sandbox).exits(3);
        assert!(!is_rejected(&sandbox), "they came within a minute");
    }
}

#[test]
fn passes_that_are_far_enough_apart_confirm_a_refusal() {
    let sandbox = super::sandbox(Gitlab::builder());
    sandbox.write_fast_settings("");
    let (id, _) = sandbox.add_created("refused");
    pass(&sandbox).exits(0);
    sandbox.gitlab.revoke(id);
    sandbox.gitlab.clear_requests();
    pass(&sandbox).exits(3);
    pass(&sandbox).exits(3);
    assert!(is_rejected(&sandbox), "{}", sandbox.state());
}

#[test]
fn pass_whose_due_rotation_fails_exits_with_the_code_of_the_failure() {
    let (sandbox, id) = due();
    sandbox.gitlab.order(Endpoint::Reset, Fault::status(503));
    pass(&sandbox).exits(5);
    let (sandbox, id_of_other) = due();
    // Not even root can replace a directory by a file.
    std::fs::create_dir(sandbox.path("config/.config.toml.runner-agent.tmp")).unwrap();
    pass(&sandbox).exits(4);
    assert_eq!((sandbox.gitlab.runner(id_of_other).unwrap().rotations, id), (0, id_of_other));
}

#[test]
fn pass_over_a_runner_that_another_process_has_locked_exits_with_4() {
    let sandbox = super::sandbox(Gitlab::builder());
    sandbox.add_created("locked");
    pass(&sandbox).exits(0);
    sandbox.gitlab.clear_requests();
    let directory = std::fs::read_dir(sandbox.path("state")).unwrap().next().unwrap().unwrap().path().join("runners");
    let locks = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let lock = locks.into_iter().find(|path| path.extension().is_some_and(|it| it == "lock")).unwrap();
    let file = std::fs::File::options().write(true).open(lock).unwrap();
    file.lock().unwrap();
    pass(&sandbox).exits(4);
    assert!(sandbox.gitlab.requests().is_empty());
}

#[test]
fn pass_over_an_unusable_entry_exits_with_4() {
    let sandbox = super::sandbox(Gitlab::builder());
    let unusable = format!("[[runners]]\nname = \"unusable\"\nurl = \"{}\"\n", sandbox.gitlab.url());
    sandbox.write_config(&unusable);
    let output = pass(&sandbox);
    output.exits(4).says("unusable");
    sandbox.add_created("usable");
    pass(&sandbox).exits(6);
}

#[test]
fn pass_without_the_token_file_of_an_enrollment_exits_with_4() {
    let sandbox = enrolled(Gitlab::builder(), "");
    std::fs::remove_file(sandbox.path("token")).unwrap();
    pass(&sandbox).exits(4);
    assert!(sandbox.gitlab.requests().is_empty());
}

#[test]
fn pass_beside_two_enrollments_with_one_token_exits_with_6() {
    let sandbox = super::sandbox(Gitlab::builder());
    let (_, token) = sandbox.gitlab.add_runner(NewRunner::instance());
    sandbox.write("one", &token);
    sandbox.write("other", &token);
    let [first, second] =
        ["one", "other"].map(|file| sandbox.enrollment(file, &format!("token = {{ file = \"{file}\" }}")));
    sandbox.write("agent.toml", &format!("{first}{second}"));
    for _ in 0..2 {
        pass(&sandbox).exits(6).says("has the same token as enrollment `one`");
    }
}

#[test]
fn enrollment_stays_the_same_runner_when_config_toml_leads_elsewhere() {
    let sandbox = enrolled(Gitlab::builder(), "");
    let link = sandbox.path("config.toml");
    for release in ["1", "2", "1"] {
        std::fs::create_dir_all(sandbox.path(release)).unwrap();
        let _absent = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(sandbox.write(&format!("{release}/config.toml"), ""), &link).unwrap();
        pass(&sandbox).exits(0);
        assert_eq!(sandbox.gitlab.runners().len(), 1);
        assert!(sandbox.is_in_step(), "{}", sandbox.config());
    }
}

#[test]
fn pass_that_recovers_a_runner_exits_with_0() {
    let quick = "confirm_after = \"10ms\"\nsettle_after = \"10ms\"\nfloor = \"10ms\"\n";
    for by_id in [false, true] {
        let sandbox = enrolled(Gitlab::builder(), "");
        let access = sandbox.gitlab.add_access_token([Scope::Api]);
        sandbox.write("access", &access);
        let server =
            format!("[[server]]\nurl = \"{}\"\naccess_token = {{ file = \"access\" }}\n", sandbox.gitlab.url());
        let server = if by_id { server } else { String::new() };
        let settings = format!("[timing]\n{quick}[recover]\nregister = \"always\"\n{server}");
        sandbox.write("agent.toml", &format!("{settings}{}", super::enrollment(&sandbox, "build-1")));
        pass(&sandbox).exits(0);
        let id = sandbox.gitlab.runners()[0].id;
        if by_id {
            drop(sandbox.gitlab.revoke(id))
        } else {
            sandbox.gitlab.delete(id)
        }
        let is_recovered = |sandbox: &Sandbox| sandbox.gitlab.runners().len() == 1 && sandbox.is_in_step();
        sandbox.wait("a pass that recovers the runner", |sandbox| {
            let output = pass(sandbox);
            output.exits(if is_recovered(sandbox) { 0 } else { 3 });
            is_recovered(sandbox)
        });
        pass(&sandbox).exits(0);
    }
}
