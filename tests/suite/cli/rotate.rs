//! `rotate` and `reset-token`.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;

use super::sandbox_with;
use fake_gitlab::{Endpoint, Fault, Gitlab, NewRunner, Scope, Tls};
use rustix::process::Signal;
use test_support::{Process, Sandbox};

fn expiring() -> Sandbox {
    sandbox_with(Gitlab::builder().token_life("1h"))
}

#[test]
fn rotate_replaces_only_the_three_token_lines() {
    let sandbox = expiring();
    let (id, old) = sandbox.gitlab.add_runner(fake_gitlab::NewRunner::instance());
    let url = sandbox.gitlab.url();
    let before = format!(
        "# ours\r\n[[runners]]\r\n  name = 'a' # mine\r\n  url = \"{url}/\"\r\n  id = {id}\r\n  token = \"{old}\"\r\n  token_obtained_at = 2020-01-01T00:00:00Z\r\n  token_expires_at = 2020-01-02T00:00:00Z\r\n  custom.key = [1,  2]\r\n"
    );
    sandbox.write_config(&before);
    let done = sandbox.run(&["rotate", "--name", "a", "--output", "json"]);
    assert_eq!(done.exits(0).runner()["action"], "rotated");
    let new = sandbox.gitlab.runner(id).unwrap().token;
    assert_ne!(new, old);
    let after = sandbox.config();
    let differing: Vec<_> = before.lines().zip(after.lines()).filter(|(one, other)| one != other).collect();
    assert_eq!(differing.len(), 3, "{after}");
    assert_eq!(before.lines().count(), after.lines().count());
    assert!(after.contains(&format!("token = \"{new}\"")));
    let requests = sandbox.gitlab.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].endpoint, Endpoint::Reset);
    assert_eq!(requests[0].header("content-type"), Some("application/json"));
    assert_eq!(requests[0].parameter("system_id"), Some("s_0123456789ab"));
    assert!(!requests[0].path.contains(&old));
}

#[test]
fn reset_token_alias_rotates_all_runners() {
    let sandbox = expiring();
    sandbox.add_created("a");
    sandbox.add_created("b");
    sandbox.add_entry("variable", None, "$SOME_TOKEN");
    let done = sandbox.run_with(&["reset-token", "--all-runners"], &[("SOME_TOKEN", "glrt-some")]);
    done.exits(6).says("the variable `SOME_TOKEN`, which a rotation cannot update");
    insta::assert_snapshot!("rotate-stdout", sandbox.scrub(&cut_spans(&done.stdout)));
    for runner in sandbox.gitlab.runners() {
        assert!(sandbox.config().contains(&runner.token));
    }
    assert_eq!(sandbox.gitlab.requests().len(), 2);
}

#[test]
fn access_token_rotates_a_refused_token_by_id() {
    let sandbox = expiring();
    let (id, _) = sandbox.add_created("a");
    sandbox.run(&["verify"]).exits(0);
    sandbox.gitlab.expire(id);
    sandbox.run(&["rotate", "--name", "a"]).exits(3);
    let access = sandbox.gitlab.add_access_token([Scope::Api]);
    let file = sandbox.write("pat", &access);
    let done = sandbox.run(&["rotate", "--name", "a", "--pat-file", file.to_str().unwrap(), "--log-level=trace"]);
    done.exits(0);
    assert!(!(done.stdout + &done.stderr).contains(&access));
    assert!(sandbox.config().contains(&sandbox.gitlab.runner(id).unwrap().token));
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::ResetById).len(), 1);
    sandbox.run(&["rotate", "--name", "a", "--pat", "wrong"]).exits(3);
    // The access token of agent.toml is used if the runner's own token is refused.
    sandbox.gitlab.expire(id);
    let agent = format!("[[server]]\nurl = \"{}\"\naccess_token = {{ file = \"pat\" }}\n", sandbox.gitlab.url());
    sandbox.write("agent.toml", &agent.replace("\"pat\"", &format!("{:?}", file.to_str().unwrap())));
    sandbox.run(&["rotate", "--name", "a"]).exits(0);
    assert!(sandbox.config().contains(&sandbox.gitlab.runner(id).unwrap().token));
}

/// A sandbox whose server has an authority that only the entry of `a` names, whose token is refused.
fn with_entrys_authority() -> Sandbox {
    let sandbox = sandbox_with(Gitlab::builder().tls(Tls::self_signed(["127.0.0.1"])));
    let ca = sandbox.write("ca.pem", &sandbox.gitlab.ca_pem());
    fs::set_permissions(&ca, fs::Permissions::from_mode(0o644)).unwrap();
    let (id, token) = sandbox.gitlab.add_runner(NewRunner::instance());
    let entry = sandbox.entry("a", id, &token);
    sandbox.write_config(&format!("{entry}  tls-ca-file = {:?}\n", ca.to_str().unwrap()));
    sandbox.run(&["verify"]).exits(0);
    sandbox.write("pat", &sandbox.gitlab.add_access_token([Scope::Api]));
    sandbox.gitlab.expire(id);
    sandbox.gitlab.clear_requests();
    sandbox
}

fn has_sent_access_token(sandbox: &Sandbox) -> bool {
    sandbox.gitlab.requests().iter().any(|request| request.header("private-token").is_some())
}

#[test]
fn access_token_is_not_sent_to_a_server_that_only_an_entry_trusts() {
    let sandbox = with_entrys_authority();
    let (pat, ca) = (sandbox.path("pat"), sandbox.path("ca.pem"));
    let (pat, ca) = (pat.to_str().unwrap(), ca.to_str().unwrap());
    sandbox
        .run(&["rotate", "--name", "a", "--pat-file", pat])
        .exits(5)
        .says("hint: set `tls_ca_file` in the [[server]]");
    let url = sandbox.gitlab.url();
    let server = format!("[[server]]\nurl = \"{url}\"\naccess_token = {{ file = {pat:?} }}\n");
    sandbox.write("agent.toml", &server);
    sandbox.run(&["rotate", "--name", "a"]).exits(5);
    sandbox.run(&["run", "--once"]);
    sandbox.run(&["fleet", "list"]).exits(5);
    assert!(!has_sent_access_token(&sandbox));

    sandbox.run(&["rotate", "--name", "a", "--pat-file", pat, "--tls-ca-file", ca]).exits(0);
    assert!(has_sent_access_token(&sandbox));
}

#[test]
fn access_token_is_sent_to_a_server_that_agent_toml_trusts() {
    let sandbox = with_entrys_authority();
    let (url, pat) = (sandbox.gitlab.url(), sandbox.path("pat"));
    let server =
        format!("[[server]]\nurl = \"{url}\"\naccess_token = {{ file = {pat:?} }}\ntls_ca_file = \"ca.pem\"\n");
    sandbox.write("agent.toml", &server);
    sandbox.run(&["fleet", "list"]).exits(0);
    sandbox.run(&["rotate", "--name", "a"]).exits(0);
    sandbox.run(&["rotate", "--name", "a", "--pat-file", pat.to_str().unwrap()]).exits(0);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::ResetById).len(), 2);
}

#[test]
fn unconfirmed_id_is_rotated_only_by_force() {
    let sandbox = expiring();
    let (id, _) = sandbox.add_created("a");
    sandbox.gitlab.expire(id);
    let access = sandbox.gitlab.add_access_token([Scope::Api]);
    let args = ["rotate", "--name", "a", "--pat", &access];
    sandbox.run(&args).exits(4).says("has not confirmed the id").says("hint: check the `id`");
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::ResetById).len(), 0);
    sandbox.run(&[&args[..], &["--force"]].concat()).exits(0);
    assert!(sandbox.config().contains(&sandbox.gitlab.runner(id).unwrap().token));
}

#[test]
fn lost_reset_that_did_not_happen_keeps_the_old_token() {
    let sandbox = expiring();
    let (id, old) = sandbox.add_created("a");
    let config = sandbox.config();
    sandbox.gitlab.order(Endpoint::Reset, Fault::cut());
    sandbox.run(&["rotate", "--name", "a"]).exits(5).says("it did not happen");
    assert_eq!(sandbox.gitlab.runner(id).unwrap().token, old);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Reset).len(), 1);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Verify).len(), 2);
    assert_eq!(sandbox.config(), config);
    sandbox.run(&["rotate", "--name", "a"]).exits(0);
}

#[test]
fn lost_reset_that_happened_reports_the_lost_token() {
    let sandbox = expiring();
    let (id, _) = sandbox.add_created("a");
    sandbox.run(&["verify"]).exits(0);
    sandbox.gitlab.order(Endpoint::Reset, Fault::cut().after_acting());
    sandbox.run(&["rotate", "--name", "a"]).exits(3).says("the new one is lost").says("hint: rotate it by its id");
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Reset).len(), 1);
    let access = sandbox.gitlab.add_access_token([Scope::Api]);
    sandbox.run(&["rotate", "--name", "a", "--pat", &access]).exits(0);
    assert!(sandbox.config().contains(&sandbox.gitlab.runner(id).unwrap().token));
}

#[test]
fn unknown_reset_outcome_is_settled_by_the_next_rotation() {
    let sandbox = expiring();
    let (id, _) = sandbox.add_created("a");
    sandbox.gitlab.order(Endpoint::Reset, Fault::cut());
    sandbox.gitlab.order(Endpoint::Verify, Fault::html(502)).times(4);
    sandbox.run(&["rotate", "--name", "a"]).exits(5).says("it is not known whether it happened");
    sandbox.run(&["rotate", "--name", "a"]).exits(0);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Verify).len(), 6);
    assert!(sandbox.config().contains(&sandbox.gitlab.runner(id).unwrap().token));
}

#[test]
fn token_is_kept_in_the_state_if_the_write_fails() {
    let sandbox = expiring();
    let (id, _) = sandbox.add_created("a");
    let config = sandbox.config();
    let hold = sandbox.gitlab.order(Endpoint::Reset, Fault::hold().after_acting());
    let child = sandbox.start(&["rotate", "--name", "a"]);
    sandbox.wait_for_requests(Endpoint::Reset, 1);
    sandbox.write_config("broken = = \n");
    hold.release();
    child.end().exits(4).says("safe in the state directory");
    let new = sandbox.gitlab.runner(id).unwrap().token;
    assert!(sandbox.state().contains(&new));
    sandbox.write_config(&config);
    sandbox.run(&["verify"]).exits(0);
    assert!(sandbox.config().contains(&new));
}

/// A user without a home, and so without a state directory.
const HOMELESS: u32 = 65534;

/// Writes a file as that user could have done: in one step, also for a process that reads it meanwhile.
fn write_as_homeless(sandbox: &Sandbox, name: &str, text: &str) {
    let file = sandbox.write("written", text);
    if rustix::process::geteuid().is_root() {
        chown(&file, Some(HOMELESS), Some(HOMELESS)).unwrap();
    }
    fs::rename(file, sandbox.path(name)).unwrap();
}

/// Starts `rotate` without a state directory.
fn rotate_without_state(sandbox: &Sandbox) -> Process {
    let mut command = sandbox.command(&["rotate", "--name", "a"]);
    command.env_remove("STATE_DIRECTORY").env("HOME", "/dev/null");
    if rustix::process::geteuid().is_root() {
        for name in ["", "config", "agent.toml", "config/config.toml", "config/.runner_system_id"] {
            chown(sandbox.path(name), Some(HOMELESS), Some(HOMELESS)).unwrap();
        }
        // Root's state directory would be the machine's own.
        command.uid(HOMELESS).gid(HOMELESS);
    }
    Process::start(command)
}

#[test]
fn without_a_state_directory_success_means_that_config_toml_has_the_new_token() {
    // The entry vanishes during the reset, or the file cannot be read until somewhat later.
    for damaged in [None, Some("broken = = \n")] {
        let sandbox = expiring();
        sandbox.write_fast_settings("");
        let (id, _) = sandbox.add_created("a");
        let hold = sandbox.gitlab.order(Endpoint::Reset, Fault::hold().after_acting());
        let rotation = rotate_without_state(&sandbox);
        sandbox.wait_for_requests(Endpoint::Reset, 1);
        write_as_homeless(&sandbox, "config/config.toml", damaged.unwrap_or_default());
        hold.release();
        if damaged.is_some() {
            sandbox.wait("the report", |_| rotation.log().contains("exists only in memory"));
            assert!(rotation.is_running());
            write_as_homeless(&sandbox, "config/config.toml", "");
        }
        let done = rotation.end();
        done.exits(0).says("working without a state directory");
        assert!(done.stdout.contains("has a new token"), "{done:?}");
        assert!(sandbox.config().contains(&sandbox.gitlab.runner(id).unwrap().token), "{}", sandbox.config());
        assert!(!sandbox.path("state").exists());
    }
}

#[test]
fn interrupt_does_not_cancel_a_reset_in_flight() {
    let sandbox = expiring();
    let (id, _) = sandbox.add_created("a");
    let hold = sandbox.gitlab.order(Endpoint::Reset, Fault::hold().after_acting());
    let child = sandbox.start(&["rotate", "--name", "a"]);
    sandbox.wait_for_requests(Endpoint::Reset, 1);
    child.signal(Signal::INT);
    child.signal(Signal::TERM);
    hold.release();
    child.end().exits(0);
    assert!(sandbox.config().contains(&sandbox.gitlab.runner(id).unwrap().token));
}

#[test]
fn interrupt_ends_a_command_whose_token_file_does_not_answer() {
    let sandbox = expiring();
    sandbox.add_created("a");
    let pipe = sandbox.path("pipe");
    // This process has it open for writing too, and writes nothing.
    let script = "PATH=/usr/bin:/bin; mkfifo \"$1\"; exec \"$0\" rotate --id 1 --pat-file /dev/fd/9 9<>\"$1\"";
    let child = Process::start(sandbox.shell(script, &[pipe.to_str().unwrap()]));
    sandbox.wait("the command to read", |_| {
        let is_started = std::fs::read_to_string(child.proc("comm")).is_ok_and(|name| name.starts_with("runner-agent"));
        is_started && std::fs::read_dir(child.proc("task")).is_ok_and(|threads| threads.count() > 1)
    });
    child.signal(Signal::INT);
    child.end().exits(4).says("does not answer");
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Reset).len(), 0);
}

#[test]
fn killed_rotation_is_settled_by_the_next_one() {
    let sandbox = expiring();
    let (_, old) = sandbox.add_created("a");
    sandbox.gitlab.order(Endpoint::Reset, Fault::hold());
    let child = sandbox.start(&["rotate", "--name", "a"]);
    sandbox.wait_for_requests(Endpoint::Reset, 1);
    child.kill();
    sandbox.run(&["rotate", "--name", "a"]).exits(0);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Verify).len(), 2);
    assert!(!sandbox.config().contains(&old));
}

#[test]
fn verify_leaves_a_lost_reset_to_the_next_rotation() {
    let sandbox = expiring();
    sandbox.add_created("a");
    sandbox.gitlab.order(Endpoint::Reset, Fault::hold().after_acting());
    let process = sandbox.start(&["rotate", "--name", "a"]);
    sandbox.wait_for_requests(Endpoint::Reset, 1);
    process.kill();
    sandbox.run(&["verify", "--name", "a"]).exits(3).says("refuses the runner's token");
    sandbox.run(&["rotate", "--name", "a"]).exits(3).says("the new one is lost");
}

#[test]
fn missed_rotation_deadline_fails_with_a_hint() {
    let sandbox = expiring();
    let (id, _) = sandbox.add_created("a");
    sandbox.gitlab.set_rotation_deadline(id, Some("2020-01-01T00:00:00Z".parse().unwrap()));
    sandbox.run(&["rotate", "--id", &id.to_string()]).exits(3).says("deadline").says("hint: create a new runner");
    sandbox.run(&["verify"]).exits(0);
}

/// Removes `(in 59m 59s)`.
fn cut_spans(text: &str) -> String {
    let mut parts = text.split(" (in ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once(')').map_or(part, |(_, rest)| rest))
}

#[test]
fn many_runners_are_verified_and_rotated_with_few_file_descriptors() {
    let sandbox = sandbox_with(Gitlab::builder().token_life("30d"));
    let add = |number| {
        let (id, token) = sandbox.gitlab.add_runner(fake_gitlab::NewRunner::instance());
        sandbox.entry(&format!("runner-{number}"), id, &token)
    };
    sandbox.write_config(&(0..80).map(add).collect::<String>());
    for command in [&["verify"][..], &["rotate", "--all-runners"], &["verify"]] {
        // Fewer than there are runners, for the hard limit as well.
        Process::start(sandbox.shell("ulimit -n 40; exec \"$0\" \"$@\"", command)).end().exits(0);
        assert!(sandbox.is_in_step(), "{command:?}");
    }
    assert!(sandbox.gitlab.runners().iter().all(|runner| runner.rotations == 1));
}

#[test]
fn size_limit_of_files_is_an_error_and_spends_no_token() {
    let sandbox = expiring();
    let (id, _) = sandbox.add_created("a");
    let command = &["rotate", "--name", "a"];
    Process::start(sandbox.shell("ulimit -f 0; exec \"$0\" \"$@\"", command)).end().exits(4);
    assert_eq!(sandbox.gitlab.runner(id).unwrap().rotations, 0);
}

#[test]
fn rotation_goes_before_a_daemon_whose_verification_of_the_runner_queues() {
    let sandbox = expiring();
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let ids: Vec<_> = names.iter().map(|name| sandbox.add_created(name).0).collect();
    // The places towards the host are all taken, so the others wait for one.
    let hold = sandbox.gitlab.order(Endpoint::Verify, Fault::hold());
    hold.always();
    let daemon = sandbox.start_serving();
    sandbox.wait_for_requests(Endpoint::Verify, 4);
    let asked: Vec<_> = sandbox.gitlab.requests_to(Endpoint::Verify);
    let is_asked = |id: u64| {
        let token = sandbox.gitlab.runner(id).unwrap().token;
        asked.iter().any(|request| request.parameter("token") == Some(&token))
    };
    let queued = ids.iter().position(|id| !is_asked(*id)).unwrap();
    sandbox.run(&["rotate", "--name", names[queued]]).exits(0);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Verify).len(), 4, "they are still held");
    sandbox.gitlab.clear_faults();
    sandbox.wait("every runner to be verified", |sandbox| sandbox.gitlab.requests_to(Endpoint::Verify).len() >= 8);
    daemon.stop(Signal::QUIT).exits(0);
    assert!(sandbox.is_in_step());
}

#[test]
fn overloaded_gateway_does_not_cause_a_second_reset_with_a_dead_token() {
    let unavailable = || Fault::json(503, serde_json::json!({ "message": "Service Unavailable" }));
    for (fault, code, text) in [
        (unavailable().after_acting(), 3, "the new one is lost"),
        (unavailable(), 5, "it did not happen"),
        (unavailable().retry_after(1).after_acting(), 3, "the new one is lost"),
    ] {
        let sandbox = expiring();
        sandbox.register(&["--name", "a"]).exits(0);
        sandbox.gitlab.order(Endpoint::Reset, fault);
        sandbox.run(&["rotate", "--name", "a"]).exits(code).says(text);
        assert_eq!(sandbox.gitlab.requests_to(Endpoint::Reset).len(), 1);
    }
}

#[test]
fn access_token_rotates_a_runner_at_once_after_a_kill_during_its_reset() {
    let sandbox = expiring();
    let (id, _) = sandbox.add_created("a");
    sandbox.run(&["verify"]).exits(0);
    sandbox.gitlab.order(Endpoint::Reset, Fault::hold().after_acting());
    let rotation = sandbox.start(&["rotate", "--name", "a"]);
    sandbox.wait_for_requests(Endpoint::Reset, 1);
    rotation.kill();
    let file = sandbox.write("pat", &sandbox.gitlab.add_access_token([Scope::Api]));
    sandbox.run(&["rotate", "--name", "a", "--pat-file", file.to_str().unwrap()]).exits(0);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::ResetById).len(), 1);
    assert!(sandbox.config().contains(&sandbox.gitlab.runner(id).unwrap().token));
}

#[test]
fn token_is_stored_although_the_remarks_about_it_are_not_read() {
    let sandbox = expiring();
    let (id, old) = sandbox.add_created("a");
    let hold = sandbox.gitlab.order(Endpoint::Reset, Fault::hold().after_acting());
    let (_unread, log) = crate::full_pipe();
    let process = Process::start_logging_to(sandbox.command(&["rotate", "--name", "a", "--log-level", "debug"]), log);
    sandbox.wait_for_requests(Endpoint::Reset, 1);
    // Says that it goes on.
    process.signal(Signal::TERM);
    hold.release();
    process.end().exits(0);
    let new = sandbox.gitlab.runner(id).unwrap().token;
    assert!(new != old && sandbox.config().contains(&new));
}

#[test]
fn copied_state_directory_is_logged_once_and_the_command_rotates_its_runner_nevertheless() {
    let sandbox = super::sandbox();
    sandbox.register(&["--name", "a"]).exits(0);
    let [record] = &sandbox.files_with("\"machine\": \"")[..] else { panic!("{}", sandbox.state()) };
    let text = sandbox.read(record);
    let (before, rest) = text.split_once("\"machine\": \"").unwrap();
    let (_, after) = rest.split_once('"').unwrap();
    sandbox.write_with_mode(record, &format!("{before}\"machine\": \"00000000\"{after}"), 0o600);
    let logs = [(); 2].map(|()| sandbox.start_serving().stop(rustix::process::Signal::QUIT).stderr);
    let times = logs.each_ref().map(|log| log.matches("was copied from another machine").count());
    assert_eq!(times, [1, 0], "{logs:?}");
    assert!(sandbox.read(record).contains("\"is_copy\": true"), "{}", sandbox.read(record));
    sandbox.run(&["rotate", "--name", "a"]).exits(0);
    let runner = sandbox.gitlab.runners().remove(0);
    assert!(runner.rotations == 1 && sandbox.config().contains(&runner.token), "{}", sandbox.config());
}
