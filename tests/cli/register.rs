//! `register`.

use test_gitlab::{Endpoint, Fault, Gitlab, Tls};

use crate::bench::{Bench, SOON};

#[test]
fn a_runner_is_made_and_its_entry_written() {
    let bench = Bench::with(Gitlab::builder().token_life("1h").start());
    bench.write_config("# ours\nconcurrent = 4\n");
    let done = bench.register(&["--name", "build-1", "--executor", "shell", "--tag-list", "a, b", "--set", "limit=3"]);
    done.exits(0);
    let stdout = done.stdout.split(" (in ").map(|part| part.split_once(')').map_or(part, |(_, rest)| rest));
    insta::assert_snapshot!("register-stdout", bench.scrub(&stdout.collect::<String>()));
    assert_eq!(done.stderr, "");
    insta::assert_snapshot!("register-config", bench.scrub(&bench.config()));
    let runners = bench.gitlab.runners();
    assert_eq!(runners.len(), 1);
    assert!(bench.config().contains(&runners[0].token));
    assert_eq!(runners[0].tags, ["a", "b"]);
    let requests = bench.gitlab.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].header("content-type"), Some("application/json"));
    assert!(!requests[0].path.contains(&bench.gitlab.instance_registration_token()));
}

#[test]
fn registering_twice_makes_one_runner() {
    let bench = Bench::new();
    assert_eq!(bench.register(&["--name", "a", "--output", "json"]).exits(0).runner()["action"], "registered");
    let config = bench.config();
    let again = bench.register(&["--name", "a", "--output", "json"]);
    assert_eq!(again.exits(0).runner()["action"], "unchanged");
    assert_eq!(bench.config(), config);
    assert_eq!(bench.gitlab.requests().len(), 1);
    // Another name is another runner.
    bench.register(&["--name", "b"]).exits(0);
    assert_eq!(bench.gitlab.runners().len(), 2);
}

#[test]
fn a_name_that_came_of_another_token_is_taken() {
    let bench = Bench::new();
    bench.register(&["--name", "a"]).exits(0);
    let config = bench.config();
    let project = bench.gitlab.add_project("group/project");
    let words = ["register", "-n", "--name", "a", "-u", &bench.gitlab.url(), "-r", &project.registration_token];
    bench.run(&words).exits(2).says("use --name or --force");
    assert_eq!(bench.config(), config);
    assert_eq!(bench.gitlab.requests().len(), 1);
    // Forced, it takes the same entry.
    let forced = bench.run(&[&words[..], &["--force", "--output=json"]].concat());
    assert_eq!(forced.exits(0).runner()["action"], "registered");
    let id = forced.runner()["id"].as_u64().unwrap();
    let token = bench.gitlab.runner(id).unwrap().token;
    assert_eq!(bench.config().matches("[[runners]]").count(), 1);
    assert!(bench.config().contains(&token) && bench.config().contains(&format!("id = {id}")));
    bench.run(&words).exits(0);
}

#[test]
fn without_state_an_entry_of_that_name_is_verified() {
    let bench = Bench::new();
    bench.register(&["--name", "a"]).exits(0);
    let config = bench.config();
    std::fs::remove_dir_all(bench.path("state")).unwrap();
    let named = bench.register(&["--name", "a"]);
    named.exits(0).says("warning: config.toml has runner `a` (id ");
    assert_eq!((bench.config(), bench.gitlab.runners().len()), (config.clone(), 1));
    // A name that nobody chose is no reason to believe that this one is meant.
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    bench.write_config(&config.replace("\"a\"", &format!("{hostname:?}")));
    std::fs::remove_dir_all(bench.path("state")).unwrap();
    bench.register(&[]).exits(2).says("use --name or --force");
    assert_eq!(bench.gitlab.requests_to(Endpoint::Register).len(), 1);
}

#[test]
fn without_state_a_refused_entry_is_registered_anew_by_force_only() {
    let bench = Bench::new();
    bench.write_config(&format!(
        "[[runners]]\n  name = \"a\" # mine\n  url = \"{}\"\n  id = 7\n  token = \"glrtr-dead\"\n  executor = \"docker\"\n  [runners.docker]\n    image = \"alpine\"\n",
        bench.gitlab.url()
    ));
    let config = bench.config();
    bench.register(&["--name", "a"]).exits(3).says("hint: register anew into the same entry with --force");
    assert_eq!(bench.config(), config);
    bench.register(&["--name", "a", "--force"]).exits(0).says("the entry was that of runner 7 before");
    let runner = bench.gitlab.runners().remove(0);
    assert!(bench.config().contains(&runner.token));
    assert_eq!(bench.config().matches("[[runners]]").count(), 1);
    assert!(bench.config().contains("# mine") && bench.config().contains("image = \"alpine\""));
    assert!(bench.config().contains(&format!("id = {}", runner.id)));
    bench.register(&["--name", "a"]).exits(0);
    assert_eq!(bench.gitlab.runners().len(), 1);
}

#[test]
fn an_entry_that_was_taken_away_is_put_back() {
    let bench = Bench::new();
    bench.register(&["--name", "a", "--executor", "shell"]).exits(0);
    let config = bench.config();
    bench.write_config("");
    let done = bench.register(&["--name", "a", "--executor", "shell", "--output=json"]);
    assert_eq!(done.exits(0).runner()["action"], "restored");
    assert_eq!(bench.config(), config);
    assert_eq!(bench.gitlab.runners().len(), 1);
    bench.write_config("");
    bench.gitlab.delete(bench.gitlab.runners()[0].id);
    bench.register(&["--name", "a"]).exits(3).says("--force");
    bench.register(&["--name", "a", "--force"]).exits(0);
    assert_eq!(bench.config().matches("[[runners]]").count(), 1);
}

#[test]
fn a_created_runners_token_is_verified_and_written() {
    let bench = Bench::new();
    let (id, token) = bench.gitlab.add_runner(test_gitlab::NewRunner::instance());
    let url = bench.gitlab.url();
    let words = ["register", "-n", "--url", &url, "--token", &token, "--description", "docker-runner", "--output=json"];
    let done = bench.run(&words);
    assert_eq!(done.exits(0).runner()["action"], "registered");
    assert_eq!((&done.runner()["name"], &done.runner()["id"]), (&"docker-runner".into(), &id.into()));
    assert_eq!(bench.run(&words).exits(0).runner()["action"], "unchanged");
    assert_eq!(bench.gitlab.requests().len(), 1);
    assert_eq!(bench.gitlab.requests()[0].parameter("system_id"), Some("s_0123456789ab"));
    // The same runner under another name is not written twice.
    let words = ["register", "-n", "--url", &url, "--token", &token, "--name", "other", "--output=json"];
    assert_eq!(bench.run(&words).exits(0).runner()["name"], "docker-runner");
    assert_eq!(bench.config().matches("[[runners]]").count(), 1);
}

#[test]
fn what_belongs_to_a_registration_token_is_refused_with_a_created_runner() {
    let bench = Bench::new();
    let (_, token) = bench.gitlab.add_runner(test_gitlab::NewRunner::instance());
    let url = bench.gitlab.url();
    let words = ["register", "-n", "--url", &url, "--token", &token, "--tag-list", "a", "--locked"];
    bench.run(&words).exits(2).says("--tag-list: ").says("--locked: ");
    // In the place of a registration token it is only told, as gitlab-runner does.
    let words = ["register", "-n", "--url", &url, "--registration-token", &token, "--tag-list", "a", "--locked"];
    bench.run(&words).exits(0).says("warning: --registration-token: ");
}

#[test]
fn secrets_come_from_files_stdin_and_the_environment() {
    let bench = Bench::new();
    let (url, token) = (bench.gitlab.url(), bench.gitlab.instance_registration_token());
    let file = bench.write("token", &format!("{token}\n"));
    let file = file.to_str().unwrap();
    let words = |name: &'static str| vec!["register", "-n", "--url", &url, "--name", name];
    bench.run(&[words("a"), vec!["--registration-token-file", file]].concat()).exits(0);
    bench.run_reading(&[words("b"), vec!["--registration-token-file", "-"]].concat(), &token).exits(0);
    bench.run_with(&words("c"), &[("REGISTRATION_TOKEN", &token)]).exits(0);
    bench.run_with(&words("d"), &[("REGISTRATION_TOKEN_FILE", file)]).exits(0);
    let (_, created) = bench.gitlab.add_runner(test_gitlab::NewRunner::instance());
    bench.run_reading(&[words("e"), vec!["--token-file=-"]].concat(), &created).exits(0);
    assert_eq!(bench.gitlab.runners().len(), 5);
    bench.run(&[words("f"), vec!["--token-file", "/nowhere"]].concat()).exits(4).says("/nowhere");
    bench.run_reading(&[words("f"), vec!["--token-file=-"]].concat(), "").exits(4).says("stdin");
}

#[test]
fn the_official_variables_say_everything_and_flags_win() {
    let bench = Bench::new();
    let (url, token) = (bench.gitlab.url(), bench.gitlab.instance_registration_token());
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
        ("RUNNER_SHELL", "bash"),
        ("RUNNER_LIMIT", "2"),
        ("RUNNER_REQUEST_CONCURRENCY", "3"),
        ("RUNNER_OUTPUT_LIMIT", "4096"),
        ("RUNNER_STRICT_CHECK_INTERVAL", "true"),
        ("RUNNER_UNHEALTHY_REQUESTS_LIMIT", "5"),
    ];
    bench.run_with(&["register", "--unhealthy-interval=2m", "--limit", "7"], &variables).exits(0);
    insta::assert_snapshot!("register-environment-config", bench.scrub(&bench.config()));
    let request = bench.gitlab.requests().remove(0);
    let mut body: serde_json::Value = serde_json::from_str(&request.body).unwrap();
    body["token"] = "TOKEN".into();
    body["info"] = "INFO".into();
    insta::assert_snapshot!("register-environment-request", serde_json::to_string_pretty(&body).unwrap());
    bench.run_with(&["register"], &[("REGISTER_NON_INTERACTIVE", "perhaps")]).exits(4).says("REGISTER_NON_INTERACTIVE");
}

#[test]
fn a_template_brings_its_settings_and_comments() {
    let bench = Bench::new();
    bench.write(
        "template.toml",
        "[[runners]]\n  # a comment\n  executor = \"docker\"\n  [runners.docker]\n    image = \"alpine\"\n",
    );
    bench.register(&["--name", "a", "--template-config", "template.toml", "--set", "docker.privileged=false"]).exits(0);
    insta::assert_snapshot!("register-template-config", bench.scrub(&bench.config()));
    bench.register(&["--name", "b", "--template-config", "nowhere.toml"]).exits(2).says("nowhere.toml");
    bench.register(&["--name", "b", "--set", "docker.image=alpine"]).exits(2).says("docker.image");
}

#[test]
fn refusals_tell_the_servers_words_and_write_nothing() {
    let bench = Bench::new();
    let url = bench.gitlab.url();
    let wrong = bench.run(&["register", "-n", "--name", "a", "--url", &url, "--registration-token", "wrong-one"]);
    wrong.exits(3);
    insta::assert_snapshot!("register-wrong-token", bench.scrub(&wrong.stderr));
    bench.gitlab.disallow_registration();
    let gone = bench.register(&["--name", "a"]);
    gone.exits(3);
    insta::assert_snapshot!("register-410", bench.scrub(&gone.stderr));
    bench.gitlab.order(Endpoint::Register, Fault::status(400));
    let parameters = bench.register(&["--name", "a", "--output", "json"]);
    parameters.exits(3);
    assert_eq!(parameters.runner()["action"], "refused");
    assert_eq!(parameters.stderr, "");
    bench.run(&["register", "-n", "--name", "a", "--url", &url, "--token", "glrt-wrong"]).exits(3);
    assert_eq!(bench.config(), "");
    assert_eq!(bench.run(&["list"]).stdout.lines().count(), 1);
}

#[test]
fn what_is_no_gitlab_answer_changes_nothing() {
    let bench = Bench::new();
    for fault in [Fault::html(200), Fault::redirect(302, "https://sso.example.com/"), Fault::html(403)] {
        bench.gitlab.order(Endpoint::Register, fault);
        bench.register(&["--name", "a"]).exits(5);
        assert_eq!(bench.config(), "");
    }
    bench.gitlab.order(Endpoint::Register, Fault::html(200));
    bench.register(&["--name", "a"]).exits(5).says("not a GitLab API answer");
    assert_eq!(bench.gitlab.runners().len(), 0);
}

#[test]
fn a_lost_answer_is_not_asked_for_again() {
    let bench = Bench::new();
    bench.gitlab.order(Endpoint::Register, Fault::cut().after_acting());
    let done = bench.register(&["--name", "a", "--wait", "5m"]);
    done.exits(5).says("was never contacted").says("description `a`");
    assert_eq!(bench.gitlab.requests().len(), 1);
    assert_eq!(bench.config(), "");
}

#[test]
fn an_unreachable_server_is_waited_for() {
    let bench = Bench::new();
    bench.gitlab.refuse_connections();
    bench.register(&["--name", "a"]).exits(5).says("cannot connect");
    bench.gitlab.accept_connections();
    bench.gitlab.order(Endpoint::Register, Fault::throttled(0));
    let done = bench.register(&["--name", "a", "--wait", "5m"]);
    done.exits(0).says("waiting up to ");
    assert_eq!(bench.gitlab.requests().len(), 2);
}

#[test]
fn limits_are_told_before_anything_is_sent() {
    let bench = Bench::new();
    let long = "x".repeat(2000);
    bench.register(&["--name", "a", "--description", &long]).exits(2).says("--description");
    let tags: Vec<_> = (0..60).map(|number| format!("tag-{number}")).collect();
    bench.register(&["--name", "a", "--tag-list", &tags.join(",")]).exits(2).says("--tag-list");
    bench.register(&["--name", "a", "--maximum-timeout", "5"]).exits(2).says("--maximum-timeout");
    assert_eq!(bench.gitlab.requests().len(), 0);
}

#[test]
fn a_disk_that_takes_nothing_costs_no_token() {
    let bench = Bench::new();
    // Nobody, not even root, can create a file there.
    bench.register(&["--name", "a", "--config", "/proc/config.toml"]).exits(4).says("/proc/");
    assert_eq!(bench.gitlab.requests().len(), 0);
}

#[test]
fn an_array_of_runners_takes_no_entry_and_costs_no_token() {
    let bench = Bench::new();
    bench.write_config("runners = []\n");
    bench.register(&["--name", "a"]).exits(4).says("[[runners]]");
    assert_eq!(bench.gitlab.requests().len(), 0);
}

#[test]
fn an_entry_that_cannot_be_written_undoes_the_registration() {
    let bench = Bench::new();
    let hold = bench.gitlab.order(Endpoint::Register, Fault::hold().after_acting());
    let (url, token) = (bench.gitlab.url(), bench.gitlab.instance_registration_token());
    let words = ["register", "-n", "--name", "a", "--url", &url, "--registration-token", &token];
    let child = bench.start(bench.command(&words));
    assert!(bench.gitlab.wait_for_requests(Endpoint::Register, 1, SOON));
    bench.write_config("broken = = \n");
    hold.release();
    bench.finish(child).exits(4).says("is unregistered again").says("line 1, column 10");
    assert_eq!(bench.gitlab.runners().len(), 0);
    assert_eq!(bench.config(), "broken = = \n");

    let hold = bench.gitlab.order(Endpoint::Register, Fault::hold().after_acting());
    bench.write_config("");
    let child = bench.start(bench.command(&[&words[..], &["--leave-runner"]].concat()));
    assert!(bench.gitlab.wait_for_requests(Endpoint::Register, 2, SOON));
    bench.write_config("broken = = \n");
    hold.release();
    bench.finish(child).exits(4).says("stays registered").says("safe in the state directory");
    assert_eq!(bench.gitlab.runners().len(), 1);
    // Once the file is put right, the next command writes the entry, and no second runner is made.
    bench.write_config("");
    bench.run(&words).exits(0);
    assert_eq!(bench.gitlab.runners().len(), 1);
    assert!(bench.config().contains(&bench.gitlab.runners()[0].token));
}

#[test]
fn an_interrupt_in_the_middle_unregisters_what_was_made() {
    for signal in ["TERM", "INT"] {
        let bench = Bench::new();
        let hold = bench.gitlab.order(Endpoint::Register, Fault::hold().after_acting());
        let (url, token) = (bench.gitlab.url(), bench.gitlab.instance_registration_token());
        let words = ["register", "-n", "--name", "a", "--url", &url, "--registration-token", &token];
        let child = bench.start(bench.command(&words));
        assert!(bench.gitlab.wait_for_requests(Endpoint::Register, 1, SOON));
        bench.signal(&child, signal);
        hold.release();
        let done = bench.finish(child);
        done.exits(1).says("is unregistered again");
        assert_eq!(bench.gitlab.runners().len(), 0);
        assert!(!bench.config().contains("[[runners]]"));
        assert_eq!(bench.run(&["list"]).stdout.lines().count(), 1);
    }
}

#[test]
fn an_interrupt_while_waiting_ends_it() {
    let bench = Bench::new();
    bench.gitlab.order(Endpoint::Register, Fault::throttled(60)).always();
    let (url, token) = (bench.gitlab.url(), bench.gitlab.instance_registration_token());
    let words = ["register", "-n", "--url", &url, "--registration-token", &token, "--wait", "1h"];
    let child = bench.start(bench.command(&words));
    assert!(bench.gitlab.wait_until(SOON, |gitlab| gitlab.requests().iter().any(|request| request.status.is_some())));
    bench.signal(&child, "TERM");
    bench.finish(child).exits(1).says("nothing was registered");
}

#[test]
fn a_kill_while_the_answer_is_outstanding_names_the_orphan() {
    let bench = Bench::new();
    let hold = bench.gitlab.order(Endpoint::Register, Fault::hold().after_acting());
    let (url, token) = (bench.gitlab.url(), bench.gitlab.instance_registration_token());
    let words = ["register", "-n", "--name", "orphan-1", "--url", &url, "--registration-token", &token];
    let mut child = bench.start(bench.command(&words));
    assert!(bench.gitlab.wait_for_requests(Endpoint::Register, 1, SOON));
    child.kill().unwrap();
    child.wait().unwrap();
    hold.release();
    let done = bench.run(&words);
    done.exits(0).says("orphan-1").says("delete it there");
    assert_eq!(bench.config().matches("[[runners]]").count(), 1);
}

#[test]
fn nothing_that_is_told_holds_a_token() {
    let bench = Bench::new();
    let done = bench.register(&["--name", "a", "--log-level", "trace"]);
    done.exits(0);
    assert!(!done.stderr.is_empty());
    let told = done.stdout + &done.stderr;
    for secret in [bench.gitlab.instance_registration_token(), bench.gitlab.runners()[0].token.clone()] {
        assert!(!told.contains(&secret));
        assert!(!told.contains(&secret[secret.len() / 2..]));
    }
}

#[test]
fn a_state_directory_that_was_asked_for_and_cannot_be_used_costs_no_token() {
    let bench = Bench::new();
    bench.write("file", "");
    bench.register(&["--name", "a", "--state-dir", "file"]).exits(4).says("file`");
    assert!(bench.gitlab.requests().is_empty());
}

#[test]
fn a_pipe_where_a_file_should_be_is_refused_at_once() {
    let bench = Bench::new();
    let fifo = bench.path("fifo");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let url = bench.gitlab.url();
    let words = ["register", "-n", "--name", "a", "--url", &url];
    let in_token_file = ["--registration-token-file", "fifo"];
    bench.run(&[&words[..], &in_token_file].concat()).exits(4).says("not a regular file");
    bench.register(&["--name", "a", "--template-config", "fifo"]).says("not a regular file");
    bench.register(&["--name", "a", "--agent-config", "fifo"]).exits(4).says("not a regular file");
    assert!(bench.gitlab.requests().is_empty());
}

#[test]
fn a_token_that_would_name_a_variable_is_no_token() {
    let bench = Bench::new();
    let answer = serde_json::json!({ "id": 1, "token": "$HOME", "token_expires_at": null });
    bench.gitlab.order(Endpoint::Register, Fault::json(201, answer));
    bench.register(&["--name", "a"]).exits(5);
    assert!(!bench.config().contains("$HOME"));
}

#[test]
fn a_missing_directory_is_made_for_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new();
    bench.register(&["--name", "a", "--config", "new/place/config.toml"]).exits(0);
    let mode = |path: &str| std::fs::metadata(bench.path(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("new/place/config.toml"), mode("new/place")), (0o600, 0o700));
}

#[test]
fn the_end_of_stdin_does_not_ask_and_names_what_is_missing() {
    let bench = Bench::new();
    let done = bench.run(&["register", "--url", &bench.gitlab.url()]);
    done.exits(2).says("set --registration-token or --token");
}

#[test]
fn forcing_what_is_refused_changes_nothing() {
    let bench = Bench::new();
    bench.register(&["--name", "a"]).exits(0);
    let config = bench.config();
    let words = ["register", "-n", "--name", "a", "--url", &bench.gitlab.url(), "-r", "wrong-one", "--force"];
    bench.run(&words).exits(3);
    assert_eq!(bench.config(), config);
    bench.run(&["verify"]).exits(0);
    assert_eq!(bench.register(&["--name", "a", "--output=json"]).exits(0).runner()["action"], "unchanged");
}

#[test]
fn an_interrupted_force_leaves_the_entry_and_is_not_taken_for_done() {
    let bench = Bench::new();
    bench.register(&["--name", "a"]).exits(0);
    let hold = bench.gitlab.order(Endpoint::Register, Fault::hold().after_acting());
    let (url, token) = (bench.gitlab.url(), bench.gitlab.instance_registration_token());
    let words = ["register", "-n", "--name", "a", "--url", &url, "-r", &token];
    let child = bench.start(bench.command(&[&words[..], &["--force"]].concat()));
    assert!(bench.gitlab.wait_for_requests(Endpoint::Register, 2, SOON));
    bench.signal(&child, "INT");
    hold.release();
    bench.finish(child).exits(1).says("is unregistered again");
    assert_eq!(bench.config().matches("[[runners]]").count(), 1);
    bench.run(&words).exits(3).says("--force");
}

#[test]
fn a_servers_certificate_is_trusted_by_the_file_that_the_entry_names() {
    let bench = Bench::with(Gitlab::builder().tls(Tls::self_signed(["127.0.0.1"])).start());
    bench.register(&["--name", "a"]).exits(5).says("certificate").says("hint: ");
    bench.register(&["--name", "a", "--tls-ca-file", "nowhere.pem", "--wait", "5m"]).exits(4).says("nowhere.pem");
    assert_eq!(bench.config(), "");
    bench.write("ca.pem", &bench.gitlab.ca_pem());
    bench.register(&["--name", "a", "--tls-ca-file", "ca.pem"]).exits(0);
    assert!(bench.scrub(&bench.config()).contains("tls-ca-file = \"/DIR/ca.pem\""));
    bench.run(&["verify"]).exits(0);
    bench.run(&["rotate", "--all"]).exits(0);
    bench.run(&["unregister", "--all"]).exits(0);
    assert_eq!(bench.gitlab.runners().len(), 0);
}
