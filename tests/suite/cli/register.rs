//! `register`.

use super::sandbox_with;
use fake_gitlab::{Endpoint, Fault, Gitlab, Scope, Tls};
use rustix::process::Signal;
use test_support::PATIENCE;

#[test]
fn register_creates_a_runner_and_its_entry() {
    let sandbox = sandbox_with(Gitlab::builder().token_life("1h"));
    sandbox.write_config("# ours\nconcurrent = 4\n");
    let done =
        sandbox.register(&["--name", "build-1", "--executor", "shell", "--tag-list", "a, b", "--set", "limit=3"]);
    done.exits(0);
    let stdout = done.stdout.split(" (in ").map(|part| part.split_once(')').map_or(part, |(_, rest)| rest));
    insta::assert_snapshot!("register-stdout", sandbox.scrub(&stdout.collect::<String>()));
    assert_eq!(done.stderr, "");
    insta::assert_snapshot!("register-config", sandbox.scrub(&sandbox.config()));
    let runners = sandbox.gitlab.runners();
    assert_eq!(runners.len(), 1);
    assert!(sandbox.config().contains(&runners[0].token));
    assert_eq!(runners[0].tags, ["a", "b"]);
    let requests = sandbox.gitlab.requests();
    let endpoints: Vec<_> = requests.iter().map(|request| request.endpoint).collect();
    assert_eq!(endpoints, [Endpoint::Verify, Endpoint::Register], "a probe without a token comes first");
    for request in requests {
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert!(!request.path.contains(&sandbox.gitlab.instance_registration_token()));
    }
}

#[test]
fn registering_twice_creates_one_runner() {
    let sandbox = super::sandbox();
    assert_eq!(sandbox.register(&["--name", "a", "--output", "json"]).exits(0).runner()["action"], "registered");
    let config = sandbox.config();
    let again = sandbox.register(&["--name", "a", "--output", "json"]);
    assert_eq!(again.exits(0).runner()["action"], "unchanged");
    assert_eq!(sandbox.config(), config);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), 1);
    // Another name registers another runner.
    sandbox.register(&["--name", "b"]).exits(0);
    assert_eq!(sandbox.gitlab.runners().len(), 2);
}

#[test]
fn runner_is_shared_only_through_a_store() {
    let sandbox = super::sandbox();
    sandbox
        .register(&["--name", "a", "--share-as", "docker-fleet"])
        .exits(2)
        .says("--share-as: a shared runner needs a store: add [sharing] to agent.toml, or set SHARING_ENGINE");
    sandbox.register(&["--name", "a", "--share-as", "Docker"]).exits(2).says("--share-as: invalid name `Docker`");
    assert_eq!(sandbox.gitlab.requests().len(), 0);
}

#[test]
fn name_registered_with_another_token_is_taken() {
    let sandbox = super::sandbox();
    sandbox.register(&["--name", "a"]).exits(0);
    let config = sandbox.config();
    let project = sandbox.gitlab.add_project("group/project");
    let args = ["register", "-n", "--name", "a", "-u", &sandbox.gitlab.url(), "-r", &project.registration_token];
    sandbox.run(&args).exits(2).says("use --name or --force");
    assert_eq!(sandbox.config(), config);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), 1);
    // With --force it replaces the entry.
    let forced = sandbox.run(&[&args[..], &["--force", "--output=json"]].concat());
    assert_eq!(forced.exits(0).runner()["action"], "registered");
    let id = forced.runner()["id"].as_u64().unwrap();
    let token = sandbox.gitlab.runner(id).unwrap().token;
    assert_eq!(sandbox.config().matches("[[runners]]").count(), 1);
    assert!(sandbox.config().contains(&token) && sandbox.config().contains(&format!("id = {id}")));
    sandbox.run(&args).exits(0);
}

#[test]
fn entry_without_state_is_verified_by_its_name() {
    let sandbox = super::sandbox();
    sandbox.register(&["--name", "a"]).exits(0);
    let config = sandbox.config();
    std::fs::remove_dir_all(sandbox.path("state")).unwrap();
    let named = sandbox.register(&["--name", "a"]);
    named.exits(0).says("warning: config.toml has runner `a` (id ");
    assert_eq!((sandbox.config(), sandbox.gitlab.runners().len()), (config.clone(), 1));
    // An entry that has only the default name is not assumed to be the same runner.
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    sandbox.write_config(&config.replace("\"a\"", &format!("{hostname:?}")));
    std::fs::remove_dir_all(sandbox.path("state")).unwrap();
    sandbox.register(&[]).exits(2).says("use --name or --force");
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), 1);
}

#[test]
fn refused_entry_without_state_needs_force() {
    let sandbox = super::sandbox();
    sandbox.write_config(&format!(
        "[[runners]]\n  name = \"a\" # mine\n  url = \"{}\"\n  id = 7\n  token = \"glrtr-dead\"\n  executor = \"docker\"\n  [runners.docker]\n    image = \"alpine\"\n",
        sandbox.gitlab.url()
    ));
    let config = sandbox.config();
    sandbox.register(&["--name", "a"]).exits(3).says("hint: register anew into the same entry with --force");
    assert_eq!(sandbox.config(), config);
    sandbox.register(&["--name", "a", "--force"]).exits(0).says("the entry belonged to runner 7 before");
    let runner = sandbox.gitlab.runners().remove(0);
    assert!(sandbox.config().contains(&runner.token));
    assert_eq!(sandbox.config().matches("[[runners]]").count(), 1);
    assert!(sandbox.config().contains("# mine") && sandbox.config().contains("image = \"alpine\""));
    assert!(sandbox.config().contains(&format!("id = {}", runner.id)));
    sandbox.register(&["--name", "a"]).exits(0);
    assert_eq!(sandbox.gitlab.runners().len(), 1);
}

#[test]
fn removed_entry_is_restored() {
    let sandbox = super::sandbox();
    sandbox.register(&["--name", "a", "--executor", "shell"]).exits(0);
    let config = sandbox.config();
    sandbox.write_config("");
    let done = sandbox.register(&["--name", "a", "--executor", "shell", "--output=json"]);
    assert_eq!(done.exits(0).runner()["action"], "restored");
    assert_eq!(sandbox.config(), config);
    assert_eq!(sandbox.gitlab.runners().len(), 1);
    sandbox.write_config("");
    sandbox.gitlab.delete(sandbox.gitlab.runners()[0].id);
    sandbox.register(&["--name", "a"]).exits(3).says("--force");
    sandbox.register(&["--name", "a", "--force"]).exits(0);
    assert_eq!(sandbox.config().matches("[[runners]]").count(), 1);
}

#[test]
fn created_runner_is_verified_and_written() {
    let sandbox = super::sandbox();
    let (id, token) = sandbox.gitlab.add_runner(fake_gitlab::NewRunner::instance());
    let url = sandbox.gitlab.url();
    let args = ["register", "-n", "--url", &url, "--token", &token, "--description", "docker-runner", "--output=json"];
    let done = sandbox.run(&args);
    assert_eq!(done.exits(0).runner()["action"], "registered");
    assert_eq!((&done.runner()["name"], &done.runner()["id"]), (&"docker-runner".into(), &id.into()));
    assert_eq!(sandbox.run(&args).exits(0).runner()["action"], "unchanged");
    assert_eq!(sandbox.gitlab.requests().len(), 1);
    assert_eq!(sandbox.gitlab.requests()[0].parameter("system_id"), Some("s_0123456789ab"));
    // The same runner under another name is not written twice.
    let args = ["register", "-n", "--url", &url, "--token", &token, "--name", "other", "--output=json"];
    assert_eq!(sandbox.run(&args).exits(0).runner()["name"], "docker-runner");
    assert_eq!(sandbox.config().matches("[[runners]]").count(), 1);
}

#[test]
fn registration_flags_are_invalid_for_a_created_runner() {
    let sandbox = super::sandbox();
    let (_, token) = sandbox.gitlab.add_runner(fake_gitlab::NewRunner::instance());
    let url = sandbox.gitlab.url();
    let args = ["register", "-n", "--url", &url, "--token", &token, "--tag-list", "a", "--locked"];
    sandbox.run(&args).exits(2).says("--tag-list: ").says("--locked: ");
    // As a registration token it causes only a warning, as in gitlab-runner.
    let args = ["register", "-n", "--url", &url, "--registration-token", &token, "--tag-list", "a", "--locked"];
    sandbox.run(&args).exits(0).says("warning: --registration-token: ");
}

#[test]
fn secrets_can_come_from_files_stdin_and_environment() {
    let sandbox = super::sandbox();
    let (url, token) = (sandbox.gitlab.url(), sandbox.gitlab.instance_registration_token());
    let file = sandbox.write("token", &format!("{token}\n"));
    let file = file.to_str().unwrap();
    let args = |name: &'static str| vec!["register", "-n", "--url", &url, "--name", name];
    sandbox.run(&[args("a"), vec!["--registration-token-file", file]].concat()).exits(0);
    sandbox.run_reading(&[args("b"), vec!["--registration-token-file", "-"]].concat(), &token).exits(0);
    sandbox.run_with(&args("c"), &[("REGISTRATION_TOKEN", &token)]).exits(0);
    sandbox.run_with(&args("d"), &[("REGISTRATION_TOKEN_FILE", file)]).exits(0);
    let (_, created) = sandbox.gitlab.add_runner(fake_gitlab::NewRunner::instance());
    sandbox.run_reading(&[args("e"), vec!["--token-file=-"]].concat(), &created).exits(0);
    assert_eq!(sandbox.gitlab.runners().len(), 5);
    sandbox.run(&[args("f"), vec!["--token-file", "/nowhere"]].concat()).exits(4).says("/nowhere");
    sandbox.run_reading(&[args("f"), vec!["--token-file=-"]].concat(), "").exits(4).says("stdin");
}

#[test]
fn official_variables_apply_and_flags_override_them() {
    let sandbox = super::sandbox();
    let (url, token) = (sandbox.gitlab.url(), sandbox.gitlab.instance_registration_token());
    let variables = [
        ("CI_SERVER_URL", url.as_str()),
        ("REGISTRATION_TOKEN", &token),
        ("REGISTER_NON_INTERACTIVE", "true"),
        ("RUNNER_NAME", "named"),
        ("RUNNER_TAG_LIST", "x,y"),
        ("REGISTER_RUN_UNTAGGED", "true"),
        ("REGISTER_LOCKED", "false"),
        ("REGISTER_ACCESS_LEVEL", "ref_protected"),
        ("REGISTER_MAXIMUM_TIMEOUT", "1200"),
        ("REGISTER_PAUSED", "true"),
        ("REGISTER_MAINTENANCE_NOTE", "a note"),
        ("RUNNER_EXECUTOR", "docker"),
        ("DOCKER_IMAGE", "alpine"),
        ("RUNNER_SHELL", "bash"),
        ("RUNNER_LIMIT", "2"),
        ("RUNNER_REQUEST_CONCURRENCY", "3"),
        ("RUNNER_OUTPUT_LIMIT", "4096"),
        ("RUNNER_STRICT_CHECK_INTERVAL", "true"),
        ("RUNNER_UNHEALTHY_REQUESTS_LIMIT", "5"),
    ];
    sandbox.run_with(&["register", "--unhealthy-interval=2m", "--limit", "7"], &variables).exits(0);
    insta::assert_snapshot!("register-environment-config", sandbox.scrub(&sandbox.config()));
    let request = sandbox.gitlab.requests_to(Endpoint::Register).remove(0);
    let mut body: serde_json::Value = serde_json::from_str(&request.body).unwrap();
    body["token"] = "TOKEN".into();
    body["info"] = "INFO".into();
    insta::assert_snapshot!("register-environment-request", serde_json::to_string_pretty(&body).unwrap());
    sandbox
        .run_with(&["register"], &[("REGISTER_NON_INTERACTIVE", "perhaps")])
        .exits(4)
        .says("REGISTER_NON_INTERACTIVE");
}

#[test]
fn template_adds_its_settings_and_comments() {
    let sandbox = super::sandbox();
    sandbox.write(
        "template.toml",
        "[[runners]]\n  # a comment\n  executor = \"docker\"\n  [runners.docker]\n    image = \"alpine\"\n",
    );
    sandbox
        .register(&["--name", "a", "--template-config", "template.toml", "--set", "docker.privileged=false"])
        .exits(0);
    insta::assert_snapshot!("register-template-config", sandbox.scrub(&sandbox.config()));
    sandbox.register(&["--name", "b", "--template-config", "nowhere.toml"]).exits(2).says("nowhere.toml");
    sandbox.register(&["--name", "b", "--set", "docker.image=alpine"]).exits(2).says("docker.image");
}

#[test]
fn refusal_prints_the_server_message_and_writes_nothing() {
    let sandbox = super::sandbox();
    let url = sandbox.gitlab.url();
    let wrong = sandbox.run(&["register", "-n", "--name", "a", "--url", &url, "--registration-token", "wrong-one"]);
    wrong.exits(3);
    insta::assert_snapshot!("register-wrong-token", sandbox.scrub(&wrong.stderr));
    sandbox.gitlab.disallow_registration();
    let gone = sandbox.register(&["--name", "a"]);
    gone.exits(3);
    insta::assert_snapshot!("register-410", sandbox.scrub(&gone.stderr));
    let invalid = serde_json::json!({ "error": "maximum_timeout is invalid" });
    sandbox.gitlab.order(Endpoint::Register, Fault::json(400, invalid));
    let parameters = sandbox.register(&["--name", "a", "--output", "json"]);
    parameters.exits(3);
    assert_eq!(parameters.runner()["action"], "refused");
    assert_eq!(parameters.stderr, "");
    sandbox.run(&["register", "-n", "--name", "a", "--url", &url, "--token", "glrt-wrong"]).exits(3);
    assert_eq!(sandbox.config(), "");
    assert_eq!(sandbox.run(&["list"]).stdout.lines().count(), 1);
}

#[test]
fn register_ignores_foreign_responses() {
    let sandbox = super::sandbox();
    for fault in [Fault::redirect(302, "https://sso.example.com/"), Fault::html(403)] {
        sandbox.gitlab.order(Endpoint::Register, fault);
        sandbox.register(&["--name", "a"]).exits(5);
        assert_eq!(sandbox.config(), "");
    }
    sandbox.gitlab.order(Endpoint::Register, Fault::html(200));
    sandbox.register(&["--name", "a"]).exits(5).says("not a GitLab API answer");
    assert_eq!(sandbox.gitlab.runners().len(), 0);
}

#[test]
fn a_foreign_answer_before_the_registration_says_what_it_is_and_what_helps() {
    let sandbox = super::sandbox();
    for (fault, what) in [
        (Fault::redirect(302, "https://sso.example.com/"), "a redirect instead of an answer, to sso.example.com"),
        (Fault::html(403), "not a GitLab API answer"),
        (Fault::html(200), "not a GitLab API answer"),
    ] {
        sandbox.gitlab.order(Endpoint::Any, fault);
        let done = sandbox.register(&["--name", "a"]);
        done.exits(5).says(what).says("no registration was sent").says("hint: ");
    }
    assert_eq!((sandbox.config(), sandbox.gitlab.requests().len()), (String::new(), 3));
    sandbox.register(&["--name", "a"]).exits(0);
}

#[test]
fn lost_response_is_not_retried() {
    let sandbox = super::sandbox();
    sandbox.gitlab.order(Endpoint::Register, Fault::cut().after_acting());
    let done = sandbox.register(&["--name", "a", "--wait", "5m"]);
    done.exits(5).says("was never contacted").says("description `a`");
    // Nor is it by a boot unit that tries again and again.
    for _ in 0..2 {
        let again = sandbox.register(&["--name", "a", "--wait", "5m"]);
        again.exits(5).says("the answer to a registration of `a` was lost").says("go on with --force");
    }
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), 1);
    assert_eq!(sandbox.config(), "");
    sandbox.register(&["--name", "a", "--force"]).exits(0);
    sandbox.register(&["--name", "a"]).exits(0);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), 2);
}

#[test]
fn lost_registration_of_the_daemon_holds_up_the_command() {
    let sandbox = super::sandbox();
    sandbox.write("token", &sandbox.gitlab.instance_registration_token());
    let url = sandbox.gitlab.url();
    sandbox.write_fast_settings(&format!(
        "[[enroll]]\nname = \"a\"\nurl = \"{url}\"\nregistration_token = {{ file = \"token\" }}\n"
    ));
    sandbox.gitlab.order(Endpoint::Register, Fault::cut().after_acting());
    let daemon = sandbox.start_serving();
    sandbox.wait("the question", |_| daemon.log().contains("then reload the agent: it registers then"));
    sandbox.register(&["--name", "a"]).exits(5).says("no other one is registered");
    assert_eq!(sandbox.gitlab.runners().len(), 1);
    // A person has looked, and the daemon serves the runner of the command.
    sandbox.register(&["--name", "a", "--force"]).exits(0);
    sandbox.wait("the daemon to serve it", |_| daemon.log().contains("takes it over"));
    daemon.signal(Signal::HUP);
    sandbox.wait("the reload", |_| daemon.log().contains("reloaded"));
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), 2);
}

#[test]
fn wait_flag_waits_for_the_server() {
    let sandbox = super::sandbox();
    sandbox.gitlab.refuse_connections();
    sandbox.register(&["--name", "a"]).exits(5).says("cannot connect");
    sandbox.gitlab.accept_connections();
    sandbox.gitlab.order(Endpoint::Register, Fault::throttled(0));
    let done = sandbox.register(&["--name", "a", "--wait", "5m"]);
    done.exits(0).says("waiting up to ");
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), 2);
}

#[test]
fn wait_flag_waits_until_a_gitlab_answers() {
    for fault in [
        Fault::html(502),
        Fault::html(503),
        Fault::html(200),
        Fault::html(404),
        Fault::json(503, serde_json::json!({ "message": "Service Unavailable" })),
        Fault::json(404, serde_json::json!({ "message": "no Route matched with those values" })),
        Fault::json(200, serde_json::json!({ "token": "glrt-no-answer-to-this" })),
    ] {
        let sandbox = super::sandbox();
        // As long as GitLab starts, the proxy in front of it answers every request so.
        sandbox.gitlab.order(Endpoint::Verify, fault.clone()).times(2);
        let done = sandbox.register(&["--name", "a", "--wait", "5m"]);
        assert!(!done.exits(0).stderr.contains("may have created"), "{done:?}");
        assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), 1);
        assert_eq!(sandbox.gitlab.requests_to(Endpoint::Verify).len(), 3, "{fault:?}");
        assert!(sandbox.is_in_step());
        // The probe has no token.
        let probe = sandbox.gitlab.requests_to(Endpoint::Verify).remove(0);
        assert_eq!((probe.parameter("token"), probe.parameter("system_id")), (None, None));
    }
}

#[test]
fn a_registration_that_meets_a_starting_gitlabs_502_can_simply_be_repeated() {
    for fault in [Fault::html(502), Fault::html(503), Fault::html(500), Fault::cut(), Fault::html(200)] {
        for args in [&[][..], &["--force"]] {
            let sandbox = super::sandbox();
            sandbox.gitlab.order(Endpoint::Any, fault.clone()).always();
            let args = [&["--name", "a"], args].concat();
            // A provisioning loop repeats it.
            for _ in 0..3 {
                let done = sandbox.register(&args);
                done.exits(5).says("no registration was sent");
                for text in ["answer to a registration", "may have created", "--force"] {
                    assert!(!done.stderr.contains(text), "{fault:?}: {done:?}");
                }
            }
            assert!(sandbox.gitlab.requests_to(Endpoint::Register).is_empty(), "{fault:?}");
            assert_eq!(sandbox.config(), "");
            assert_eq!(sandbox.run(&["list"]).stdout.lines().count(), 1, "nothing is noted");
            sandbox.gitlab.clear_faults();
            sandbox.register(&["--name", "a"]).exits(0);
            assert_eq!(sandbox.gitlab.runners().len(), 1);
            assert!(sandbox.is_in_step());
        }
    }
}

#[test]
fn wait_flag_ends_with_the_last_answer_and_nothing_sent() {
    let sandbox = super::sandbox();
    sandbox.gitlab.order(Endpoint::Verify, Fault::html(502)).always();
    let done = sandbox.register(&["--name", "a", "--wait", "1s"]);
    assert!(
        !done.exits(5).says("502").says("no registration was sent").stderr.contains("may have created"),
        "{done:?}"
    );
    assert!(sandbox.gitlab.requests_to(Endpoint::Register).is_empty());
}

#[test]
fn wait_flag_stops_after_an_answer_that_may_be_lost() {
    for status in [408, 500, 502, 503, 504] {
        let sandbox = super::sandbox();
        sandbox.gitlab.order(Endpoint::Register, Fault::html(status));
        sandbox.register(&["--name", "a", "--wait", "5m"]).exits(5).says("was never contacted");
        assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), 1, "{status}");
    }
}

#[test]
fn answer_of_something_else_than_gitlab_makes_no_orphan() {
    let json = |status, text: &str| Fault::json(status, serde_json::json!({ "message": text }));
    let faults =
        [400, 401, 404, 405].map(|status| [Fault::html(status), json(status, "no Route matched with those values")]);
    for fault in faults.into_iter().flatten() {
        let sandbox = super::sandbox();
        sandbox.gitlab.order(Endpoint::Register, fault.clone());
        let done = sandbox.register(&["--name", "a"]);
        for text in ["may have created", "never contacted"] {
            assert!(!done.exits(5).stderr.contains(text), "{fault:?}: {done:?}");
        }
    }
}

#[test]
fn values_over_a_limit_are_rejected_before_any_request() {
    let sandbox = super::sandbox();
    let long = "x".repeat(2000);
    sandbox.register(&["--name", "a", "--description", &long]).exits(2).says("--description");
    let tags: Vec<_> = (0..60).map(|number| format!("tag-{number}")).collect();
    sandbox.register(&["--name", "a", "--tag-list", &tags.join(",")]).exits(2).says("--tag-list");
    sandbox.register(&["--name", "a", "--maximum-timeout", "5"]).exits(2).says("--maximum-timeout");
    assert_eq!(sandbox.gitlab.requests().len(), 0);
}

#[test]
fn unwritable_directory_sends_no_request() {
    let sandbox = super::sandbox();
    // Not even root can create a file there.
    sandbox.register(&["--name", "a", "--config", "/proc/config.toml"]).exits(4).says("/proc/");
    assert_eq!(sandbox.gitlab.requests().len(), 0);
}

#[test]
fn inline_runners_array_is_an_error_and_sends_no_request() {
    let sandbox = super::sandbox();
    sandbox.write_config("runners = []\n");
    sandbox.register(&["--name", "a"]).exits(4).says("[[runners]]");
    assert_eq!(sandbox.gitlab.requests().len(), 0);
}

#[test]
fn failed_write_undoes_the_registration() {
    let sandbox = super::sandbox();
    let hold = sandbox.gitlab.order(Endpoint::Register, Fault::hold().after_acting());
    let (url, token) = (sandbox.gitlab.url(), sandbox.gitlab.instance_registration_token());
    let args = ["register", "-n", "--name", "a", "--url", &url, "--registration-token", &token];
    let child = sandbox.start(&args);
    sandbox.wait_for_requests(Endpoint::Register, 1);
    sandbox.write_config("broken = = \n");
    hold.release();
    child.end().exits(4).says("is unregistered again").says("line 1, column 10");
    assert_eq!(sandbox.gitlab.runners().len(), 0);
    assert_eq!(sandbox.config(), "broken = = \n");

    let hold = sandbox.gitlab.order(Endpoint::Register, Fault::hold().after_acting());
    sandbox.write_config("");
    let child = sandbox.start(&[&args[..], &["--leave-runner"]].concat());
    sandbox.wait_for_requests(Endpoint::Register, 2);
    sandbox.write_config("broken = = \n");
    hold.release();
    child.end().exits(4).says("stays registered").says("safe in the state directory");
    assert_eq!(sandbox.gitlab.runners().len(), 1);
    // Once the file is valid, the next command writes the entry and registers no second runner.
    sandbox.write_config("");
    sandbox.run(&args).exits(0);
    assert_eq!(sandbox.gitlab.runners().len(), 1);
    assert!(sandbox.config().contains(&sandbox.gitlab.runners()[0].token));
}

#[test]
fn registration_that_cannot_be_undone_says_where_its_token_is() {
    let sandbox = super::sandbox();
    let hold = sandbox.gitlab.order(Endpoint::Register, Fault::hold().after_acting());
    let (url, token) = (sandbox.gitlab.url(), sandbox.gitlab.instance_registration_token());
    let args = ["register", "-n", "--name", "a", "--url", &url, "--registration-token", &token];
    let child = sandbox.start(&args);
    sandbox.wait_for_requests(Endpoint::Register, 1);
    // Neither the entry nor the record can be written, as on a full disk.
    sandbox.write_config("broken = = \n");
    let directory = std::fs::read_dir(sandbox.path("state")).unwrap().next().unwrap().unwrap().path().join("runners");
    let mut files = std::fs::read_dir(&directory).unwrap().map(|file| file.unwrap().path());
    let record = files.find(|path| path.extension().is_some_and(|extension| extension == "json")).unwrap();
    let aside = sandbox.path("record");
    std::fs::rename(&record, &aside).unwrap();
    std::fs::create_dir(&record).unwrap();
    hold.release();
    let done = child.end();
    done.exits(4).says("could not be unregistered again").says("its token is in the state directory");
    done.says("the same command once more takes it");
    assert!(!done.stderr.contains("delete it"), "{done:?}");
    assert_eq!(sandbox.gitlab.runners().len(), 1);
    std::fs::remove_dir(&record).unwrap();
    std::fs::rename(&aside, &record).unwrap();
    sandbox.write_config("");
    sandbox.run(&args).exits(0);
    assert_eq!(sandbox.gitlab.runners().len(), 1);
    assert!(sandbox.is_in_step());
}

#[test]
fn interrupted_registration_is_undone() {
    for signal in [Signal::TERM, Signal::INT] {
        let sandbox = super::sandbox();
        let hold = sandbox.gitlab.order(Endpoint::Register, Fault::hold().after_acting());
        let (url, token) = (sandbox.gitlab.url(), sandbox.gitlab.instance_registration_token());
        let args = ["register", "-n", "--name", "a", "--url", &url, "--registration-token", &token];
        let child = sandbox.start(&args);
        sandbox.wait_for_requests(Endpoint::Register, 1);
        child.signal(signal);
        hold.release();
        let done = child.end();
        done.exits(1).says("is unregistered again");
        assert_eq!(sandbox.gitlab.runners().len(), 0);
        assert!(!sandbox.config().contains("[[runners]]"));
        assert_eq!(sandbox.run(&["list"]).stdout.lines().count(), 1);
    }
}

#[test]
fn two_interrupts_leave_the_runner_with_its_entry_and_say_how_to_remove_both() {
    let sandbox = super::sandbox();
    let hold = sandbox.gitlab.order(Endpoint::Register, Fault::hold().after_acting());
    let (url, token) = (sandbox.gitlab.url(), sandbox.gitlab.instance_registration_token());
    let args = ["register", "-n", "--name", "a", "--url", &url, "--registration-token", &token];
    let child = sandbox.start(&args);
    sandbox.wait_for_requests(Endpoint::Register, 1);
    child.signal(Signal::TERM);
    sandbox.wait("the first signal", |_| child.log().contains("interrupted"));
    child.signal(Signal::INT);
    // Whether the second one has been counted cannot be seen from outside.
    hold.release();
    let done = child.end();
    done.exits(1);
    if sandbox.gitlab.runners().is_empty() {
        done.says("is unregistered again");
        return;
    }
    let id = sandbox.gitlab.runners()[0].id;
    done.says(&format!("runner {id} may stay registered, and its entry with its token is in"));
    done.says("`runner-agent unregister --name a` removes both");
    assert!(!done.stderr.contains("delete it there"), "{done:?}");
    sandbox.run(&["unregister", "--name", "a"]).exits(0);
    assert!(sandbox.gitlab.runners().is_empty() && !sandbox.config().contains("[[runners]]"));
}

#[test]
fn interrupt_ends_the_wait_for_the_server() {
    let sandbox = super::sandbox();
    sandbox.gitlab.order(Endpoint::Register, Fault::throttled(60)).always();
    let (url, token) = (sandbox.gitlab.url(), sandbox.gitlab.instance_registration_token());
    let args = ["register", "-n", "--url", &url, "--registration-token", &token, "--wait", "1h"];
    let child = sandbox.start(&args);
    assert!(
        sandbox.gitlab.wait_until(PATIENCE, |gitlab| gitlab.requests().iter().any(|request| request.status.is_some()))
    );
    child.signal(Signal::TERM);
    child.end().exits(1).says("nothing was registered");
}

#[test]
fn killed_registration_reports_the_orphan_and_is_not_repeated() {
    let sandbox = super::sandbox();
    let hold = sandbox.gitlab.order(Endpoint::Register, Fault::hold().after_acting());
    let (url, token) = (sandbox.gitlab.url(), sandbox.gitlab.instance_registration_token());
    let args = ["register", "-n", "--name", "orphan-1", "--url", &url, "--registration-token", &token];
    let child = sandbox.start(&args);
    sandbox.wait_for_requests(Endpoint::Register, 1);
    child.kill();
    hold.release();
    let done = sandbox.run(&args);
    done.exits(5).says("orphan-1").says("delete it there");
    sandbox.run(&[&args[..], &["--wait", "5s"]].concat()).exits(5).says("go on with --force");
    assert_eq!(sandbox.gitlab.runners().len(), 1);
    sandbox.run(&[&args[..], &["--force"]].concat()).exits(0);
    assert_eq!(sandbox.config().matches("[[runners]]").count(), 1);
    sandbox.run(&args).exits(0);
    assert_eq!(sandbox.gitlab.runners().len(), 2);
}

#[test]
fn register_prints_no_token() {
    let sandbox = super::sandbox();
    let done = sandbox.register(&["--name", "a", "--log-level", "trace"]);
    done.exits(0);
    assert!(!done.stderr.is_empty());
    let output = done.stdout + &done.stderr;
    for secret in [sandbox.gitlab.instance_registration_token(), sandbox.gitlab.runners()[0].token.clone()] {
        assert!(!output.contains(&secret));
        assert!(!output.contains(&secret[secret.len() / 2..]));
    }
}

#[test]
fn unusable_state_directory_sends_no_request() {
    let sandbox = super::sandbox();
    sandbox.write("file", "");
    sandbox.register(&["--name", "a", "--state-dir", "file"]).exits(4).says("file`");
    assert!(sandbox.gitlab.requests().is_empty());
}

#[test]
fn pipe_instead_of_a_file_is_refused() {
    let sandbox = super::sandbox();
    let fifo = sandbox.path("fifo");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let url = sandbox.gitlab.url();
    let args = ["register", "-n", "--name", "a", "--url", &url];
    let in_token_file = ["--registration-token-file", "fifo"];
    sandbox.run(&[&args[..], &in_token_file].concat()).exits(4).says("not a regular file");
    sandbox.register(&["--name", "a", "--template-config", "fifo"]).says("not a regular file");
    sandbox.register(&["--name", "a", "--agent-config", "fifo"]).exits(4).says("not a regular file");
    assert!(sandbox.gitlab.requests().is_empty());
}

#[test]
fn token_with_variable_syntax_is_rejected() {
    let sandbox = super::sandbox();
    let answer = serde_json::json!({ "id": 1, "token": "$HOME", "token_expires_at": null });
    sandbox.gitlab.order(Endpoint::Register, Fault::json(201, answer));
    sandbox.register(&["--name", "a"]).exits(5);
    assert!(!sandbox.config().contains("$HOME"));
}

#[test]
fn missing_directory_is_created_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let sandbox = super::sandbox();
    sandbox.register(&["--name", "a", "--config", "new/place/config.toml"]).exits(0);
    let mode = |path: &str| std::fs::metadata(sandbox.path(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("new/place/config.toml"), mode("new/place")), (0o600, 0o700));
}

#[test]
fn closed_stdin_fails_with_the_missing_flags() {
    let sandbox = super::sandbox();
    let done = sandbox.run(&["register", "--url", &sandbox.gitlab.url()]);
    done.exits(2).says("set --registration-token or --token");
}

#[test]
fn force_among_two_runners_of_one_name_says_what_helps() {
    let sandbox = super::sandbox();
    sandbox.add_created("a");
    sandbox.add_created("a");
    let done = sandbox.register(&["--name", "a", "--force"]);
    done.exits(2).says("config.toml has 2 runners of the name `a`").says("give each a name of its own");
}

#[test]
fn refused_force_changes_nothing() {
    let sandbox = super::sandbox();
    sandbox.register(&["--name", "a"]).exits(0);
    let config = sandbox.config();
    let args = ["register", "-n", "--name", "a", "--url", &sandbox.gitlab.url(), "-r", "wrong-one", "--force"];
    sandbox.run(&args).exits(3);
    assert_eq!(sandbox.config(), config);
    sandbox.run(&["verify"]).exits(0);
    assert_eq!(sandbox.register(&["--name", "a", "--output=json"]).exits(0).runner()["action"], "unchanged");
}

#[test]
fn interrupted_force_keeps_the_entry_and_needs_force_again() {
    let sandbox = super::sandbox();
    sandbox.register(&["--name", "a"]).exits(0);
    let hold = sandbox.gitlab.order(Endpoint::Register, Fault::hold().after_acting());
    let (url, token) = (sandbox.gitlab.url(), sandbox.gitlab.instance_registration_token());
    let args = ["register", "-n", "--name", "a", "--url", &url, "-r", &token];
    let child = sandbox.start(&[&args[..], &["--force"]].concat());
    sandbox.wait_for_requests(Endpoint::Register, 2);
    child.signal(Signal::INT);
    hold.release();
    child.end().exits(1).says("is unregistered again");
    assert_eq!(sandbox.config().matches("[[runners]]").count(), 1);
    sandbox.run(&args).exits(3).says("--force");
}

#[test]
fn tls_ca_file_of_the_entry_is_trusted() {
    let sandbox = sandbox_with(Gitlab::builder().tls(Tls::self_signed(["127.0.0.1"])));
    sandbox.register(&["--name", "a"]).exits(5).says("certificate").says("hint: ");
    sandbox.register(&["--name", "a", "--tls-ca-file", "nowhere.pem", "--wait", "5m"]).exits(4).says("nowhere.pem");
    assert_eq!(sandbox.config(), "");
    sandbox.write("ca.pem", &sandbox.gitlab.ca_pem());
    sandbox.register(&["--name", "a", "--tls-ca-file", "ca.pem"]).exits(0);
    assert!(sandbox.scrub(&sandbox.config()).contains("tls-ca-file = \"/DIR/ca.pem\""));
    sandbox.run(&["verify"]).exits(0);
    sandbox.run(&["rotate", "--all"]).exits(0);
    sandbox.run(&["unregister", "--all"]).exits(0);
    assert_eq!(sandbox.gitlab.runners().len(), 0);
}

#[test]
fn tls_files_given_as_flags_go_before_those_of_the_entry() {
    let sandbox = sandbox_with(Gitlab::builder().tls(Tls::self_signed(["127.0.0.1"])));
    let (url, other) = (sandbox.gitlab.url(), Gitlab::builder().tls(Tls::self_signed(["127.0.0.1"])).start());
    let of_other = sandbox.write("other.pem", &other.ca_pem());
    let of_entry = format!("  tls-ca-file = {of_other:?}\n");
    sandbox.write_config(&(prepared(&url, "").replace("  executor", &format!("{of_entry}  executor"))));
    sandbox.register(&["--name", "a"]).exits(5).says("certificate");
    sandbox.write("ca.pem", &sandbox.gitlab.ca_pem());
    sandbox.register(&["--name", "a", "--tls-ca-file", "ca.pem"]).exits(0);
    sandbox.register(&["--name", "a", "--tls-ca-file", "ca.pem", "--force"]).exits(0);
    assert_eq!(sandbox.gitlab.runners().len(), 2);
}

/// An entry as configuration management prepares it, with this line for its token.
fn prepared(url: &str, token: &str) -> String {
    format!(
        "concurrent = 4\n\n[[runners]]\n  name = \"a\" # prepared\n  url = \"{url}\"\n{token}  executor = \"docker\"\n  [runners.docker]\n    image = \"alpine\"\n"
    )
}

const PREPARED_TOKENS: [&str; 4] =
    ["", "  token = \"\"\n", "  token = \"<replaced by registration>\"\n", "  token = \"to be registered\"\n"];

#[test]
fn prepared_entry_is_completed_with_its_other_keys() {
    for token in PREPARED_TOKENS {
        for args in [&[][..], &["--force"]] {
            let sandbox = super::sandbox();
            let config = prepared(&sandbox.gitlab.url(), token);
            sandbox.write_config(&config);
            let args = [&["--name", "a", "--executor", "shell", "--output=json"], args].concat();
            assert_eq!(sandbox.register(&args).exits(0).runner()["action"], "registered");
            assert_completed(&sandbox, &config, token);
            assert_eq!(sandbox.register(&["--name", "a", "--output=json"]).exits(0).runner()["action"], "unchanged");
        }
    }
}

#[test]
fn prepared_entry_is_completed_with_a_given_token() {
    for token in PREPARED_TOKENS {
        for is_enrolled in [false, true] {
            let sandbox = super::sandbox();
            let url = sandbox.gitlab.url();
            let config = prepared(&url, token);
            sandbox.write_config(&config);
            let (_, given) = sandbox.gitlab.add_runner(fake_gitlab::NewRunner::instance());
            if is_enrolled {
                sandbox.write("token", &given);
                sandbox.write_fast_settings(&sandbox.enrollment("a", "token = { file = \"token\" }"));
                sandbox.run(&["run", "--once"]).exits(0);
            } else {
                sandbox.run(&["register", "-n", "--url", &url, "--token", &given, "--name", "a"]).exits(0);
            }
            assert_completed(&sandbox, &config, token);
        }
    }
}

#[test]
fn enrollment_completes_a_prepared_entry() {
    for token in PREPARED_TOKENS {
        let sandbox = super::sandbox();
        let config = prepared(&sandbox.gitlab.url(), token);
        sandbox.write_config(&config);
        let secret = sandbox.write("token", &sandbox.gitlab.instance_registration_token());
        let secret = format!("registration_token = {{ file = {:?} }}", secret.to_str().unwrap());
        sandbox.write_fast_settings(&sandbox.enrollment("a", &secret));
        sandbox.run(&["run", "--once"]).exits(0);
        assert_completed(&sandbox, &config, token);
    }
}

#[track_caller]
fn assert_completed(sandbox: &test_support::Sandbox, before: &str, token: &str) {
    let after = sandbox.config();
    assert!(sandbox.is_in_step(), "{after}");
    for line in before.lines().filter(|line| !token.contains(line)) {
        assert!(after.lines().any(|written| written == line), "{line}: {after}");
    }
    assert!(after.contains(&format!("id = {}", sandbox.gitlab.runners()[0].id)), "{after}");
}

#[test]
fn entry_with_an_unset_variable_is_not_registered_beside() {
    let sandbox = super::sandbox();
    sandbox.add_entry("a", None, "$TOKEN_OF_RUNNER");
    let config = sandbox.config();
    sandbox.register(&["--name", "a"]).exits(4).says("in line 1").says("TOKEN_OF_RUNNER");
    let secret = sandbox.write("token", &sandbox.gitlab.instance_registration_token());
    let secret = format!("registration_token = {{ file = {:?} }}", secret.to_str().unwrap());
    sandbox.write_fast_settings(&sandbox.enrollment("a", &secret));
    sandbox.run(&["run", "--once"]).says("enrollment `a` is not registered");
    assert_eq!((sandbox.config(), sandbox.gitlab.requests_to(Endpoint::Register).len()), (config, 0));
}

#[test]
fn force_settles_a_reset_that_was_cut_off() {
    for is_executed in [true, false] {
        let sandbox = sandbox_with(Gitlab::builder().token_life("1d"));
        sandbox.register(&["--name", "a"]).exits(0);
        let fault = if is_executed { Fault::hold().after_acting() } else { Fault::hold() };
        let hold = sandbox.gitlab.order(Endpoint::Reset, fault);
        let rotation = sandbox.start(&["rotate", "--name", "a"]);
        sandbox.wait_for_requests(Endpoint::Reset, 1);
        rotation.kill();
        if is_executed {
            hold.release();
        }
        sandbox.register(&["--name", "a", "--force"]).exits(0).says("verifying the old token first");
        let made = sandbox.gitlab.runners().pop().unwrap();
        assert!(sandbox.config().contains(&made.token) && sandbox.config().matches("[[runners]]").count() == 1);
        sandbox.run(&["verify"]).exits(0);
    }
}

#[test]
fn force_names_the_next_command_if_a_reset_cannot_be_settled() {
    let sandbox = sandbox_with(Gitlab::builder().token_life("1d"));
    sandbox.register(&["--name", "a"]).exits(0);
    sandbox.gitlab.order(Endpoint::Reset, Fault::hold());
    let rotation = sandbox.start(&["rotate", "--name", "a"]);
    sandbox.wait_for_requests(Endpoint::Reset, 1);
    rotation.kill();
    sandbox.gitlab.order(Endpoint::Verify, Fault::html(502)).always();
    let registrations = sandbox.gitlab.requests_to(Endpoint::Register).len();
    let done = sandbox.register(&["--name", "a", "--force"]);
    done.exits(5).says("what became of the last reset").says("hint: run the same command again");
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), registrations);
}

#[test]
fn failed_write_leaves_a_prepared_entry_without_its_runner() {
    let sandbox = super::sandbox();
    sandbox.write_config(&prepared(&sandbox.gitlab.url(), ""));
    let hold = sandbox.gitlab.order(Endpoint::Register, Fault::hold().after_acting());
    let (url, token) = (sandbox.gitlab.url(), sandbox.gitlab.instance_registration_token());
    let child = sandbox.start(&["register", "-n", "--name", "a", "--url", &url, "-r", &token]);
    sandbox.wait_for_requests(Endpoint::Register, 1);
    child.signal(Signal::TERM);
    hold.release();
    child.end().exits(1).says("is unregistered again");
    assert_eq!(sandbox.gitlab.runners().len(), 0);
    assert!(sandbox.config().contains("image = \"alpine\""));
}

#[test]
fn repeated_registration_names_what_differs_and_how_to_change_it() {
    let sandbox = super::sandbox();
    let first = ["--name", "a", "--executor", "shell", "--tag-list", "x,y", "--limit", "2"];
    sandbox.register(&first).exits(0);
    let config = sandbox.config();
    let same = sandbox.register(&first);
    same.exits(0);
    assert_eq!(same.stderr, "");
    let id = sandbox.gitlab.runners()[0].id;
    let reordered = ["--name", "a", "--executor", "shell", "--tag-list", "y,x", "--limit", "2"];
    assert_eq!(sandbox.register(&reordered).exits(0).stderr, "");
    let other = ["--name", "a", "--executor", "shell", "--tag-list", "x", "--locked=false", "--limit", "5"];
    let done = sandbox.register(&other);
    done.exits(0)
        .says("the runner was registered with another --tag-list and --locked: change it with")
        .says(&format!("`runner-agent fleet update {id} --url "))
        .says(", or register anew with --force")
        .says("its entry differs in limit: edit ");
    assert!(done.stdout.contains("registered already, nothing was changed"), "{done:?}");
    assert_eq!((sandbox.config(), sandbox.gitlab.runners().len()), (config, 1));
    // What a forced registration asked for is what counts then.
    sandbox.register(&[&other[..], &["--force"]].concat()).exits(0);
    let again = sandbox.register(&other);
    assert!(!again.exits(0).stderr.contains("--tag-list") && again.stderr.contains("limit"), "{again:?}");
}

#[test]
fn the_command_that_changes_a_runners_tags_works_as_it_is_printed() {
    let sandbox = super::sandbox();
    sandbox.register(&["--name", "a", "--tag-list", "x,y", "--maximum-timeout", "1h"]).exits(0);
    let other = ["--name", "a", "--tag-list", "x, it's", "--run-untagged", "--paused", "--description", "the b"];
    let done = sandbox.register(&other);
    sandbox.write_with_mode("access-token", &sandbox.gitlab.add_access_token([Scope::Api]), 0o600);
    let commands: Vec<_> = done.stderr.split('`').filter(|text| text.starts_with("runner-agent ")).collect();
    assert_eq!(commands.len(), 2, "{done:?}");
    for command in commands {
        // As a shell reads it.
        let words =
            std::process::Command::new("sh").args(["-c", &format!("printf '%s\\n' {command}")]).output().unwrap();
        let words = String::from_utf8(words.stdout).unwrap();
        let words: Vec<_> = words.lines().skip(1).collect();
        sandbox.run(&words).exits(0);
    }
    let runner = &sandbox.gitlab.runners()[0];
    let mut tags = runner.tags.clone();
    tags.sort();
    assert_eq!(tags, ["it's", "x"]);
    assert!(runner.run_untagged && runner.paused && runner.description == "the b", "{runner:?}");
    assert_eq!(runner.maximum_timeout, None);
}

#[test]
fn entry_that_was_edited_since_is_compared_by_value_and_without_its_values() {
    let sandbox = super::sandbox();
    let args = ["--name", "a", "--set", "docker.image='a'", "--set", "cache.s3.SecretKey='hidden-secret-of-cache'"];
    sandbox.register(&args).exits(0);
    sandbox.write_config(&sandbox.config().replace("'a'", "\"a\"").replace("hidden-secret", "other-secret"));
    let done = sandbox.register(&args);
    done.exits(0).says("its entry differs in cache.s3.SecretKey: edit ").hides(&["hidden-secret", "other-secret"]);
    assert!(!done.stderr.contains("docker.image"), "{done:?}");
}
