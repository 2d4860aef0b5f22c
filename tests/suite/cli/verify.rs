//! `verify`.

use super::sandbox_with;
use std::fs::File;

use fake_gitlab::{Endpoint, Fault, Gitlab};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Action, tcflow};
use test_support::Process;

#[test]
fn each_runner_is_verified_once_with_one_system_id() {
    let sandbox = super::sandbox();
    sandbox.add_created("a");
    sandbox.add_created("b");
    let config = sandbox.config();
    let done = sandbox.run(&["verify"]);
    done.exits(0);
    insta::assert_snapshot!("verify-stdout", sandbox.scrub(&done.stdout));
    assert_eq!(done.stderr, "");
    assert_eq!(sandbox.config(), config);
    let requests = sandbox.gitlab.requests();
    assert_eq!(requests.len(), 2);
    for request in requests {
        assert_eq!(request.endpoint, Endpoint::Verify);
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.parameter("system_id"), Some("s_0123456789ab"));
        assert!(!request.path.contains("glrt-"));
    }
}

#[test]
fn a_stopped_terminal_does_not_stop_the_work() {
    let sandbox = super::sandbox();
    for name in ["a", "b", "c"] {
        sandbox.add_created(name);
    }
    let own = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&own).unwrap();
    unlockpt(&own).unwrap();
    let name = ptsname(&own, Vec::new()).unwrap().into_string().unwrap();
    let terminal = File::options().read(true).write(true).open(name).unwrap();
    // As Ctrl-S does.
    tcflow(&terminal, Action::OOff).unwrap();
    let mut command = sandbox.command(&["verify"]);
    command.env("TERM", "xterm");
    let verified = Process::start_logging_to(command, terminal).end();
    assert_eq!(verified.exits(0).stdout.lines().count(), 3);
}

#[test]
fn empty_config_has_no_runner_to_verify() {
    let done = super::sandbox().run(&["verify"]);
    assert!(done.exits(0).stdout.starts_with("no runners in "));
}

#[test]
fn refused_unreachable_and_mixed_exit_codes_differ() {
    let sandbox = super::sandbox();
    let (_, good) = sandbox.add_created("good");
    sandbox.add_entry("dead", Some(99), "glrt-dead");
    let mixed = sandbox.run(&["verify"]);
    mixed.exits(6).says("error: runner `dead` (id 99): cannot verify").says("hint: ");
    assert!(mixed.stdout.contains("runner `dead` (id 99): refused"));
    sandbox.run(&["verify", "--name", "dead"]).exits(3);
    sandbox.run(&["verify", "--token", &good]).exits(0);
    let json = sandbox.run(&["verify", "--output", "json"]);
    assert_eq!(json.exits(6).stderr, "");
    let actions: Vec<_> = json.runners().iter().map(|runner| runner["action"].clone()).collect();
    assert_eq!(actions, ["verified", "refused"]);
    sandbox.gitlab.refuse_connections();
    sandbox.run(&["verify"]).exits(5);
}

#[test]
fn verify_ignores_foreign_responses() {
    let sandbox = super::sandbox();
    sandbox.add_created("a");
    let config = sandbox.config();
    for fault in
        [Fault::html(200), Fault::html(403), Fault::redirect(302, "https://sso.example.com/"), Fault::status(500)]
    {
        sandbox.gitlab.order(Endpoint::Verify, fault);
        sandbox.run(&["verify", "--delete"]).exits(5);
        assert_eq!(sandbox.config(), config);
    }
    sandbox.gitlab.refuse_connections();
    sandbox.run(&["verify", "--delete"]).exits(5);
    assert_eq!(sandbox.config(), config);
}

#[test]
fn second_refusal_drops_the_entry_and_saves_a_copy() {
    let sandbox = super::sandbox();
    sandbox.add_created("good");
    sandbox.add_entry("dead", Some(99), "glrt-dead");
    let done = sandbox.run(&["verify", "--delete"]);
    done.exits(0);
    let stdout = sandbox.scrub(&done.stdout);
    assert!(stdout.contains("runner `dead` (id 99): refused twice and dropped"), "{stdout}");
    // One of the good token, two of the dead one, and another of every token that the dead runner has had.
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Verify).len(), 4);
    assert!(sandbox.config().contains("\"good\"") && !sandbox.config().contains("\"dead\""));
    let kept = done.stdout.split("a copy of the entry is in ").nth(1).unwrap().trim();
    let kept = std::fs::read_to_string(kept).unwrap();
    assert!(kept.contains("name = \"dead\"") && kept.contains("executor = \"shell\"") && !kept.contains("glrt-dead"));
}

#[test]
fn single_refusal_drops_nothing() {
    let sandbox = super::sandbox();
    sandbox.add_created("a");
    let config = sandbox.config();
    sandbox.gitlab.order(Endpoint::Verify, Fault::status(403));
    sandbox.run(&["verify", "--delete"]).exits(0);
    assert_eq!(sandbox.gitlab.requests().len(), 2);
    assert_eq!(sandbox.config(), config);
    sandbox.gitlab.order(Endpoint::Verify, Fault::status(403));
    sandbox.gitlab.order(Endpoint::Verify, Fault::html(403));
    sandbox.run(&["verify", "--delete"]).exits(5);
    assert_eq!(sandbox.config(), config);
}

#[test]
fn invalid_entries_are_reported_and_others_verified() {
    let sandbox = super::sandbox();
    sandbox.add_created("good");
    sandbox.add_entry("variable", None, "$TOKEN_OF_RUNNER");
    sandbox.write_config(&(sandbox.config() + "[[runners]]\nname = \"bare\"\n"));
    let done = sandbox.run(&["verify"]);
    done.exits(6).says("TOKEN_OF_RUNNER").says("it has no url");
    assert!(done.stdout.contains("`good`"));
    sandbox.run(&["verify", "--name", "bare"]).exits(4).says("it has no url");
    sandbox.run(&["unregister", "--name", "bare"]).exits(4);
    // A variable that is set is used and stays in config.toml.
    let (_, token) = sandbox.gitlab.add_runner(fake_gitlab::NewRunner::instance());
    sandbox.run_with(&["verify", "--name", "variable"], &[("TOKEN_OF_RUNNER", &token)]).exits(0);
    assert!(sandbox.config().contains("$TOKEN_OF_RUNNER"));
}

#[test]
fn ambiguous_name_fails_with_the_candidate_ids() {
    let sandbox = super::sandbox();
    let (first, _) = sandbox.add_created("same");
    let (second, _) = sandbox.add_created("same");
    for args in [&["verify"][..], &["rotate"], &["unregister"]] {
        let done = sandbox.run(&[args, &["--name", "same"]].concat());
        done.exits(2).says(&format!("--id {first} --url ")).says(&format!("--id {second} --url "));
    }
    assert_eq!(sandbox.gitlab.requests().len(), 0);
    sandbox.run(&["verify", "--name", "same", "--id", &first.to_string()]).exits(0);
    sandbox.run(&["verify", "--name", "none"]).exits(2).says("no runner in config.toml has the name `none`");
    sandbox.run(&["verify", "--url", &sandbox.gitlab.url()]).exits(0);
    assert_eq!(sandbox.gitlab.requests().len(), 3);
}

#[test]
fn environment_selects_no_runner() {
    let sandbox = super::sandbox();
    sandbox.add_created("a");
    sandbox.add_created("b");
    let variables =
        [("CI_SERVER_TOKEN", "glrt-other"), ("CI_SERVER_URL", "https://other.example.com"), ("RUNNER_NAME", "a")];
    assert_eq!(sandbox.run_with(&["verify", "--output=json"], &variables).exits(0).runners().len(), 2);
}

#[test]
fn interrupt_ends_verify_immediately() {
    let sandbox = super::sandbox();
    sandbox.add_created("a");
    sandbox.gitlab.order(Endpoint::Verify, Fault::hold());
    let child = sandbox.start(&["verify"]);
    sandbox.wait_for_requests(Endpoint::Verify, 1);
    child.signal(Signal::INT);
    child.end().exits(1).says("interrupted");
}

#[test]
fn invalid_system_id_file_is_an_error_that_names_the_remedy_and_kept() {
    let sandbox = super::sandbox();
    sandbox.add_created("a");
    sandbox.write("config/.runner_system_id", "mine");
    let done = sandbox.run(&["verify"]);
    done.exits(4).says(".runner_system_id").says("restore it, or remove it to become a new runner manager");
    assert_eq!(std::fs::read_to_string(sandbox.path("config/.runner_system_id")).unwrap(), "mine");
}

#[test]
fn empty_system_id_file_is_filled_once() {
    let sandbox = super::sandbox();
    sandbox.add_created("a");
    sandbox.write("config/.runner_system_id", "");
    sandbox.run(&["verify"]).exits(0);
    let system_id = sandbox.read("config/.runner_system_id");
    assert_eq!(system_id.len(), "s_0123456789ab".len());
    sandbox.run(&["verify"]).exits(0);
    assert_eq!(sandbox.read("config/.runner_system_id"), system_id);
    let managers = &sandbox.gitlab.runners()[0].managers;
    assert_eq!(managers.iter().map(|manager| &manager.system_id).collect::<Vec<_>>(), [&system_id]);
}

#[test]
fn linked_system_id_file_is_created_behind_the_link() {
    let sandbox = super::sandbox();
    sandbox.add_created("a");
    std::fs::remove_file(sandbox.path("config/.runner_system_id")).unwrap();
    std::os::unix::fs::symlink("../system_id", sandbox.path("config/.runner_system_id")).unwrap();
    for _ in 0..2 {
        sandbox.run(&["verify"]).exits(0);
    }
    let managers = &sandbox.gitlab.runners()[0].managers;
    assert_eq!(
        managers.iter().map(|manager| manager.system_id.clone()).collect::<Vec<_>>(),
        [sandbox.read("system_id")]
    );
}

#[test]
fn all_settings_errors_are_reported() {
    let sandbox = super::sandbox();
    sandbox.add_created("a");
    sandbox.write("agent.toml", "colour = 1\n[verify]\ninterval = \"soon\"\n");
    sandbox.run(&["verify"]).exits(4).says("agent.toml:1").says("agent.toml:3");
}

#[test]
fn concurrent_verify_waits_for_the_runner_lock() {
    let sandbox = super::sandbox();
    sandbox.add_created("a");
    sandbox.run(&["verify"]).exits(0);
    let hold = sandbox.gitlab.order(Endpoint::Verify, Fault::hold());
    let first = sandbox.start(&["verify"]);
    sandbox.wait_for_requests(Endpoint::Verify, 2);
    let second = sandbox.start(&["verify"]);
    // The second command waits for the first and then sends its own request.
    hold.release();
    first.end().exits(0);
    second.end().exits(0);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Verify).len(), 3);
}

#[test]
fn no_command_output_contains_a_token() {
    let sandbox = sandbox_with(Gitlab::builder().token_life("1h"));
    sandbox.register(&["--name", "a"]).exits(0);
    sandbox.add_entry("dead", Some(99), "glrt-dead-and-gone");
    sandbox.add_entry("variable", None, "$SOME_TOKEN");
    let mut secrets = vec!["glrt-dead-and-gone".to_owned(), "glrt-in-a-variable".to_owned()];
    let mut printed = String::new();
    for command in [&["list"][..], &["verify"], &["rotate", "--all"], &["verify", "--delete"], &["unregister", "--all"]]
    {
        secrets.push(sandbox.gitlab.runners()[0].token.clone());
        for output in ["text", "json"] {
            if command[0] == "unregister" && output == "json" {
                continue;
            }
            let args = [command, &["--log-level", "trace", "--output", output]].concat();
            let done = sandbox.run_with(&args, &[("SOME_TOKEN", "glrt-in-a-variable")]);
            printed.push_str(&(done.stdout + &done.stderr));
            secrets.extend(sandbox.gitlab.runners().into_iter().map(|runner| runner.token));
        }
    }
    assert!(printed.lines().count() > 50, "{printed}");
    for secret in secrets {
        assert!(!printed.contains(&secret), "{secret}");
    }
    for request in sandbox.gitlab.requests() {
        assert!(!request.path.contains('?'), "{}", request.path);
    }
}

#[test]
fn runners_are_verified_concurrently() {
    let sandbox = super::sandbox();
    for number in 0..12 {
        sandbox.add_created(&format!("runner-{number}"));
    }
    let hold = sandbox.gitlab.order(Endpoint::Verify, Fault::hold());
    let child = sandbox.start(&["verify", "--output", "json"]);
    // A runner without a response does not delay the others.
    sandbox.wait_for_requests(Endpoint::Verify, 12);
    hold.release();
    let done = child.end();
    let names: Vec<_> =
        done.exits(0).runners().iter().map(|runner| runner["name"].as_str().unwrap().to_owned()).collect();
    let expected: Vec<_> = (0..12).map(|number| format!("runner-{number}")).collect();
    assert_eq!(names, expected, "in the order of the file");
}

#[test]
fn token_that_a_person_has_written_survives_a_lagging_replica() {
    for is_daemon in [false, true] {
        let sandbox = sandbox_with(Gitlab::builder().token_life("30d"));
        sandbox.write("agent.toml", "[timing]\nconfirm_after = \"1h\"\nfloor = \"10ms\"\n");
        sandbox.register(&["--name", "a"]).exits(0);
        let runner = sandbox.gitlab.runners()[0].clone();
        let token = sandbox.gitlab.revoke(runner.id);
        sandbox.write_config(&sandbox.config().replace(&runner.token, &token));
        let config = sandbox.config();
        // The replica refuses the new token once, and our own is dead.
        sandbox.gitlab.order(Endpoint::Verify, Fault::status(403));
        if is_daemon {
            let daemon = sandbox.start_serving();
            sandbox.wait("the refusal", |_| daemon.log().contains("keeping both"));
            assert!(sandbox.config() == config && sandbox.state().contains(&token));
            daemon.signal(Signal::HUP);
            sandbox.wait("the token to be followed", |_| daemon.log().contains("following a token"));
            daemon.stop(Signal::QUIT).exits(0);
        } else {
            sandbox.run(&["verify"]).exits(3);
            assert!(sandbox.config() == config && sandbox.state().contains(&token));
            sandbox.run(&["verify"]).exits(0);
        }
        assert!(sandbox.is_in_step(), "{}", sandbox.config());
    }
}

#[test]
fn token_of_a_restored_gitlab_stays_where_a_person_has_put_it() {
    let sandbox = sandbox_with(Gitlab::builder().token_life("30d"));
    sandbox.register(&["--name", "a"]).exits(0);
    let former = sandbox.config();
    let backup = sandbox.gitlab.backup();
    sandbox.run(&["rotate", "--name", "a"]).exits(0);
    sandbox.gitlab.restore(&backup);
    sandbox.write_config(&former);
    for code in [3, 0, 0] {
        sandbox.run(&["verify"]).exits(code);
        assert!(sandbox.is_in_step(), "{}", sandbox.config());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn runner_is_selected_by_its_name_alone() {
    let sandbox = super::sandbox();
    sandbox.add_created("a");
    sandbox.add_created("b");
    let done = sandbox.run(&["verify", "a", "--output", "json"]);
    assert_eq!(done.exits(0).runner()["name"], "a");
    sandbox.run(&["verify", "c"]).exits(2).says("no runner in config.toml has the name `c`");
    sandbox.run(&["verify", "a", "--name", "b"]).exits(2).says("cannot be used with");
    sandbox.run(&["unregister", "a", "--all-runners"]).exits(2).says("cannot be used with");
    sandbox.run(&["rotate", "b"]).exits(0);
    sandbox.run(&["unregister", "a"]).exits(0);
    assert!(!sandbox.config().contains("\"a\"") && sandbox.config().contains("\"b\""));
}

#[test]
fn token_in_the_place_of_a_name_is_not_repeated() {
    let sandbox = super::sandbox();
    let (_, token) = sandbox.add_created("a");
    for command in ["verify", "rotate", "unregister"] {
        let done = sandbox.run(&[command, &token, "--log-level", "debug"]);
        done.exits(2).says("not a name: select by token with --token-file").hides(&[&token]);
    }
    assert!(sandbox.gitlab.requests().is_empty());
}
