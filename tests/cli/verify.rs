//! `verify`.

use test_gitlab::{Endpoint, Fault, Gitlab};

use crate::bench::{Bench, SOON};

#[test]
fn every_runner_is_asked_about_once_with_one_system_id() {
    let bench = Bench::new();
    bench.add_created("a");
    bench.add_created("b");
    let config = bench.config();
    let done = bench.run(&["verify"]);
    done.exits(0);
    insta::assert_snapshot!("verify-stdout", bench.scrub(&done.stdout));
    assert_eq!(done.stderr, "");
    assert_eq!(bench.config(), config);
    let requests = bench.gitlab.requests();
    assert_eq!(requests.len(), 2);
    for request in requests {
        assert_eq!(request.endpoint, Endpoint::Verify);
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.parameter("system_id"), Some("s_0123456789ab"));
        assert!(!request.path.contains("glrt-"));
    }
}

#[test]
fn an_empty_file_has_nobody_to_verify() {
    let done = Bench::new().run(&["verify"]);
    assert!(done.exits(0).stdout.starts_with("no runners in "));
}

#[test]
fn refused_unreachable_and_mixed_have_exit_codes_of_their_own() {
    let bench = Bench::new();
    let (_, good) = bench.add_created("good");
    bench.add_entry("dead", Some(99), "glrt-dead");
    let mixed = bench.run(&["verify"]);
    mixed.exits(6).says("error: runner `dead` (id 99): cannot verify").says("hint: ");
    assert!(mixed.stdout.contains("runner `dead` (id 99): refused"));
    bench.run(&["verify", "--name", "dead"]).exits(3);
    bench.run(&["verify", "--token", &good]).exits(0);
    let json = bench.run(&["verify", "--output", "json"]);
    assert_eq!(json.exits(6).stderr, "");
    let actions: Vec<_> = json.runners().iter().map(|runner| runner["action"].clone()).collect();
    assert_eq!(actions, ["verified", "refused"]);
    bench.gitlab.refuse_connections();
    bench.run(&["verify"]).exits(5);
}

#[test]
fn what_is_no_gitlab_answer_is_neither_valid_nor_refused_and_drops_nothing() {
    let bench = Bench::new();
    bench.add_created("a");
    let config = bench.config();
    for fault in
        [Fault::html(200), Fault::html(403), Fault::redirect(302, "https://sso.example.com/"), Fault::status(500)]
    {
        bench.gitlab.order(Endpoint::Verify, fault);
        bench.run(&["verify", "--delete"]).exits(5);
        assert_eq!(bench.config(), config);
    }
    bench.gitlab.refuse_connections();
    bench.run(&["verify", "--delete"]).exits(5);
    assert_eq!(bench.config(), config);
}

#[test]
fn an_entry_is_dropped_after_two_refusals_and_kept_in_the_state_directory() {
    let bench = Bench::new();
    bench.add_created("good");
    bench.add_entry("dead", Some(99), "glrt-dead");
    let done = bench.run(&["verify", "--delete"]);
    done.exits(0);
    let stdout = bench.scrub(&done.stdout);
    assert!(stdout.contains("runner `dead` (id 99): refused twice and dropped"), "{stdout}");
    assert_eq!(bench.gitlab.requests_to(Endpoint::Verify).len(), 3);
    assert!(bench.config().contains("\"good\"") && !bench.config().contains("\"dead\""));
    let kept = done.stdout.split("a copy of the entry is in ").nth(1).unwrap().trim();
    let kept = std::fs::read_to_string(kept).unwrap();
    assert!(kept.contains("name = \"dead\"") && kept.contains("executor = \"shell\"") && !kept.contains("glrt-dead"));
}

#[test]
fn a_single_refusal_drops_nothing() {
    let bench = Bench::new();
    bench.add_created("a");
    let config = bench.config();
    bench.gitlab.order(Endpoint::Verify, Fault::status(403));
    bench.run(&["verify", "--delete"]).exits(0);
    assert_eq!(bench.gitlab.requests().len(), 2);
    assert_eq!(bench.config(), config);
    bench.gitlab.order(Endpoint::Verify, Fault::status(403));
    bench.gitlab.order(Endpoint::Verify, Fault::html(403));
    bench.run(&["verify", "--delete"]).exits(5);
    assert_eq!(bench.config(), config);
}

#[test]
fn entries_with_a_problem_are_told_and_the_others_go_on() {
    let bench = Bench::new();
    bench.add_created("good");
    bench.add_entry("variable", None, "$TOKEN_OF_RUNNER");
    bench.write_config(&(bench.config() + "[[runners]]\nname = \"bare\"\n"));
    let done = bench.run(&["verify"]);
    done.exits(6).says("TOKEN_OF_RUNNER").says("it has no url");
    assert!(done.stdout.contains("`good`"));
    bench.run(&["verify", "--name", "bare"]).exits(4).says("it has no url");
    bench.run(&["unregister", "--name", "bare"]).exits(4);
    // A variable that is set is used, and stays a variable.
    let (_, token) = bench.gitlab.add_runner(test_gitlab::NewRunner::instance());
    bench.run_with(&["verify", "--name", "variable"], &[("TOKEN_OF_RUNNER", &token)]).exits(0);
    assert!(bench.config().contains("$TOKEN_OF_RUNNER"));
}

#[test]
fn an_ambiguous_name_lists_the_ids_to_choose_from() {
    let bench = Bench::new();
    let (first, _) = bench.add_created("same");
    let (second, _) = bench.add_created("same");
    for words in [&["verify"][..], &["rotate"], &["unregister"]] {
        let done = bench.run(&[words, &["--name", "same"]].concat());
        done.exits(2).says(&format!("--id {first} --url ")).says(&format!("--id {second} --url "));
    }
    assert_eq!(bench.gitlab.requests().len(), 0);
    bench.run(&["verify", "--name", "same", "--id", &first.to_string()]).exits(0);
    bench.run(&["verify", "--name", "none"]).exits(2).says("no runner in config.toml has the name `none`");
    bench.run(&["verify", "--url", &bench.gitlab.url()]).exits(0);
    assert_eq!(bench.gitlab.requests().len(), 3);
}

#[test]
fn the_environment_selects_nobody() {
    let bench = Bench::new();
    bench.add_created("a");
    bench.add_created("b");
    let variables =
        [("CI_SERVER_TOKEN", "glrt-other"), ("CI_SERVER_URL", "https://other.example.com"), ("RUNNER_NAME", "a")];
    assert_eq!(bench.run_with(&["verify", "--output=json"], &variables).exits(0).runners().len(), 2);
}

#[test]
fn an_interrupt_ends_it_at_once() {
    let bench = Bench::new();
    bench.add_created("a");
    bench.gitlab.order(Endpoint::Verify, Fault::hold());
    let child = bench.start(bench.command(&["verify"]));
    assert!(bench.gitlab.wait_for_requests(Endpoint::Verify, 1, SOON));
    bench.signal(&child, "INT");
    bench.finish(child).exits(1).says("interrupted");
}

#[test]
fn a_wrong_system_id_file_is_an_error_and_not_replaced() {
    let bench = Bench::new();
    bench.add_created("a");
    bench.write("config/.runner_system_id", "mine");
    bench.run(&["verify"]).exits(4).says(".runner_system_id");
    assert_eq!(std::fs::read_to_string(bench.path("config/.runner_system_id")).unwrap(), "mine");
}

#[test]
fn mistakes_of_agent_toml_are_all_told() {
    let bench = Bench::new();
    bench.add_created("a");
    bench.write("agent.toml", "colour = 1\n[verify]\ninterval = \"soon\"\n");
    bench.run(&["verify"]).exits(4).says("agent.toml:1").says("agent.toml:3");
}

#[test]
fn a_daemon_that_is_busy_with_the_runner_is_named() {
    let bench = Bench::with(Gitlab::start());
    bench.add_created("a");
    bench.run(&["verify"]).exits(0);
    let hold = bench.gitlab.order(Endpoint::Verify, Fault::hold());
    let first = bench.start(bench.command(&["verify"]));
    assert!(bench.gitlab.wait_for_requests(Endpoint::Verify, 2, SOON));
    let second = bench.start(bench.command(&["verify"]));
    // The second waits for the first, and then does its own.
    hold.release();
    bench.finish(first).exits(0);
    bench.finish(second).exits(0);
    assert_eq!(bench.gitlab.requests_to(Endpoint::Verify).len(), 3);
}

#[test]
fn nothing_that_any_command_tells_holds_a_token() {
    let bench = Bench::with(Gitlab::builder().token_life("1h").start());
    bench.register(&["--name", "a"]).exits(0);
    bench.add_entry("dead", Some(99), "glrt-dead-and-gone");
    bench.add_entry("variable", None, "$SOME_TOKEN");
    let mut secrets = vec!["glrt-dead-and-gone".to_owned(), "glrt-in-a-variable".to_owned()];
    let mut told = String::new();
    for command in [&["list"][..], &["verify"], &["rotate", "--all"], &["verify", "--delete"], &["unregister", "--all"]]
    {
        secrets.push(bench.gitlab.runners()[0].token.clone());
        for output in ["text", "json"] {
            if command[0] == "unregister" && output == "json" {
                continue;
            }
            let words = [command, &["--log-level", "trace", "--output", output]].concat();
            let done = bench.run_with(&words, &[("SOME_TOKEN", "glrt-in-a-variable")]);
            told.push_str(&(done.stdout + &done.stderr));
            secrets.extend(bench.gitlab.runners().into_iter().map(|runner| runner.token));
        }
    }
    assert!(told.lines().count() > 50, "{told}");
    for secret in secrets {
        assert!(!told.contains(&secret), "{secret}");
    }
    for request in bench.gitlab.requests() {
        assert!(!request.path.contains('?'), "{}", request.path);
    }
}

#[test]
fn many_runners_are_asked_about_at_the_same_time() {
    let bench = Bench::new();
    for number in 0..12 {
        bench.add_created(&format!("runner-{number}"));
    }
    let hold = bench.gitlab.order(Endpoint::Verify, Fault::hold());
    let child = bench.start(bench.command(&["verify", "--output", "json"]));
    // One that gets no answer does not keep the others.
    assert!(bench.gitlab.wait_for_requests(Endpoint::Verify, 12, SOON));
    hold.release();
    let done = bench.finish(child);
    let names: Vec<_> =
        done.exits(0).runners().iter().map(|runner| runner["name"].as_str().unwrap().to_owned()).collect();
    let expected: Vec<_> = (0..12).map(|number| format!("runner-{number}")).collect();
    assert_eq!(names, expected, "in the order of the file");
}
