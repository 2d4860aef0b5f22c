//! Tokens in the wrong place.

use fake_gitlab::{Endpoint, Gitlab, NewRunner};
use test_support::{Output, Sandbox};

/// The end of every token here, which no output may show.
const SECRET: &str = "0123456789abcdefghij";

fn is_refused(sandbox: &Sandbox, done: &Output, class: &str, purpose: &str) {
    done.exits(2).says(class).says(&format!("but {purpose}"));
    done.hides(&[SECRET]);
    assert_eq!(sandbox.gitlab.requests().len(), 0);
}

#[test]
fn token_of_another_class_is_refused_before_a_request() {
    let sandbox = super::sandbox();
    let url = sandbox.gitlab.url();
    let register = ["register", "-n", "--name", "a", "--url", url.as_str()];
    let (registration, runner, access) =
        ("a registration token, or a created runner's token", "a runner authentication token", "an access token");
    for prefix in ["", "acme-"] {
        for (form, class, places) in [
            ("glpat-", "access token (glpat-)", &["registration-token", "token"][..]),
            ("gldt-", "a deploy token", &["registration-token", "token", "pat"]),
            ("glcbt-", "a CI job token", &["registration-token", "token", "pat"]),
            ("glptt-", "a pipeline trigger token", &["registration-token", "token", "pat"]),
            ("glrt-", "a runner authentication token (glrt-)", &["pat"]),
            ("glrtr-", "a runner authentication token (glrtr-)", &["registration-token", "pat"]),
            ("GR1348941", "a registration token (GR1348941)", &["token", "pat"]),
        ] {
            let token = format!("{prefix}{form}{SECRET}");
            sandbox.write("secret", &token);
            // An entry that holds the token does not make it one.
            sandbox.write_config(&sandbox.entry("a", 1, &token));
            for place in places {
                let (args, purpose) = match *place {
                    "registration-token" => (&register[..], registration),
                    "token" => (&register[..], runner),
                    _ => (&["rotate", "--all-runners"][..], access),
                };
                for (flag, value) in [(format!("--{place}"), token.as_str()), (format!("--{place}-file"), "secret")] {
                    let path = sandbox.path(value).display().to_string();
                    let value = if flag.ends_with("-file") { &path } else { value };
                    is_refused(&sandbox, &sandbox.run(&[args, &[&flag, value]].concat()), class, purpose);
                }
            }
        }
    }
}

#[test]
fn token_of_another_class_in_a_variable_is_refused() {
    let sandbox = super::sandbox();
    let url = sandbox.gitlab.url();
    let access = format!("glpat-{SECRET}");
    for (variable, purpose) in
        [("REGISTRATION_TOKEN", "a registration token"), ("CI_SERVER_TOKEN", "a runner authentication token")]
    {
        for command in [&["register", "-n"][..], &["run"]] {
            let done = sandbox.run_with(command, &[("CI_SERVER_URL", &url), (variable, &access)]);
            is_refused(&sandbox, &done, "access token (glpat-)", purpose);
            done.says(variable).says("--access-token-file").says("an [[enroll]] with `create`");
        }
    }
    let variables = [("CI_SERVER_URL", url.as_str()), ("GITLAB_TOKEN", &format!("glrt-{SECRET}"))];
    let done = sandbox.run_with(&["fleet", "list"], &variables);
    is_refused(&sandbox, &done, "a runner authentication token (glrt-)", "an access token (glpat-)");
    done.says("the variable GITLAB_TOKEN");
    let done = sandbox.run(&["verify", "--token", &access]);
    is_refused(&sandbox, &done, "access token (glpat-)", "a runner authentication token");
}

#[test]
fn entry_with_a_token_of_another_class_needs_a_person_and_its_token_is_never_sent() {
    for (prefix, class, destination) in [
        ("glpat-", "access token (glpat-)", "--pat-file"),
        ("gldt-", "a deploy token (gldt-)", "of no use"),
        ("glcbt-", "a CI job token (glcbt-)", "of no use"),
        ("glptt-", "a pipeline trigger token (glptt-)", "of no use"),
        ("GR1348941", "a registration token (GR1348941)", "--registration-token"),
        ("acme-glpat-", "access token (glpat-)", "--pat-file"),
    ] {
        let sandbox = super::sandbox();
        sandbox.write_config(&sandbox.entry("a", 7, &format!("{prefix}{SECRET}")));
        let url = sandbox.gitlab.url();
        sandbox.write_with_mode("runner", &format!("glrt-{SECRET}"), 0o600);
        let token = sandbox.path("runner").display().to_string();
        let register = ["register", "-n", "--name", "a", "--url", &url, "--token-file", &token];
        for (args, code) in
            [(&["verify"][..], 2), (&["run", "--once"], 2), (&register, 2), (&["rotate", "--name", "a"], 2)]
        {
            let done = sandbox.run(args);
            let text = format!("{}{}", done.stdout, done.stderr);
            assert_eq!(done.code, Some(code), "{args:?}: {done:?}");
            for words in [class, "a runner authentication token (glrt- or glrtr-) is needed here", destination] {
                assert!(text.contains(words), "{args:?} {words}: {text}");
            }
            done.hides(&[SECRET]);
        }
        for command in ["list", "plan"] {
            let runner = sandbox.run(&[command, "--output", "json"]).runners()[0].clone();
            assert_eq!(runner["state"], "failed", "{command}: {runner}");
        }
        let sent = sandbox.gitlab.requests().into_iter().filter(|request| request.body.contains(SECRET));
        assert_eq!(sent.count(), 0, "{prefix}");
    }
}

#[test]
fn daemon_says_which_kind_of_token_an_entry_holds_and_takes_the_runners_own_at_once() {
    let sandbox = super::sandbox();
    let wrong = format!("gldt-{SECRET}");
    let (id, good) = sandbox.gitlab.add_runner(NewRunner::instance());
    sandbox.write_config(&sandbox.entry("a", id, &wrong));
    let daemon = sandbox.start_serving();
    sandbox.wait("the finding", |sandbox| {
        let status = sandbox.run(&["status", "-o", "json"]);
        status.code == Some(0) && status.runners().first().is_some_and(|runner| !runner["error"].is_null())
    });
    let runner = sandbox.run(&["status", "-o", "json"]).runners()[0].clone();
    assert!(runner["state"] == "failed" && runner["error"].as_str().unwrap().contains("a deploy token"), "{runner}");
    sandbox.write_config(&sandbox.config().replace(&wrong, &good));
    sandbox.wait("the acceptance", |sandbox| sandbox.run(&["status", "-o", "json"]).runners()[0]["state"] == "active");
    let done = daemon.stop(rustix::process::Signal::QUIT);
    done.exits(0).says("a deploy token (gldt-)").hides(&[SECRET]);
}

#[test]
fn token_of_another_class_over_a_good_one_is_replaced_by_the_good_one() {
    let sandbox = super::sandbox();
    let (_, good) = sandbox.add_created("a");
    sandbox.write_fast_settings("");
    let daemon = sandbox.start_serving();
    sandbox.wait("the verification", |sandbox| !sandbox.gitlab.requests_to(Endpoint::Verify).is_empty());
    let wrong = format!("glpat-{SECRET}");
    sandbox.write_config(&sandbox.config().replace(&good, &wrong));
    sandbox.wait("the good token", |sandbox| sandbox.config().contains(&good));
    let done = daemon.stop(rustix::process::Signal::QUIT);
    done.exits(0).says("access token (glpat-)").hides(&[SECRET]);
    let sent = sandbox.gitlab.requests().into_iter().filter(|request| request.body.contains(SECRET));
    assert_eq!(sent.count(), 0);
}

#[test]
fn daemon_serves_the_other_runners_beside_a_token_of_another_class() {
    let sandbox = super::sandbox();
    sandbox.register(&["--name", "b"]).exits(0);
    sandbox.write("secret", &format!("gldt-{SECRET}"));
    sandbox.write_fast_settings(&sandbox.enrollment("a", "registration_token = { file = \"secret\" }"));
    let registered = sandbox.gitlab.requests_to(Endpoint::Register).len();
    let done = sandbox.run(&["run", "--once"]);
    done.exits(6).says("a deploy token (gldt-)").says("but a registration token");
    done.hides(&[SECRET]);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), registered);
    assert!(sandbox.config().contains("\"b\""));
}

#[test]
fn created_runners_token_is_taken_as_a_registration_token() {
    let sandbox = super::sandbox();
    let (_, runner) = sandbox.gitlab.add_runner(NewRunner::instance());
    let args = ["register", "-n", "--name", "a", "--url", &sandbox.gitlab.url(), "-r", &runner];
    sandbox.run(&args).exits(0);
    let again = sandbox.run(&args);
    assert!(again.exits(0).stdout.contains("registered already"), "{again:?}");
}

#[test]
fn registration_token_given_as_a_runners_token_is_not_the_runner_that_it_registered() {
    let sandbox = super::sandbox_with(Gitlab::builder().registration_token("a-registration-token-of-ones-own"));
    sandbox.write("secret", "a-registration-token-of-ones-own");
    let secret = sandbox.path("secret").display().to_string();
    let url = sandbox.gitlab.url();
    sandbox.run(&["register", "-n", "--name", "a", "--url", &url, "--registration-token-file", &secret]).exits(0);
    let done = sandbox.run(&["register", "-n", "--name", "b", "--url", &url, "--token-file", &secret]);
    done.exits(3).says("runner `b`");
    assert!(!done.stdout.contains("registered already"), "{done:?}");
    assert!(!sandbox.config().contains("\"b\""));
}

#[test]
fn an_access_token_as_that_of_a_runner_is_told_of_create() {
    let sandbox = super::sandbox();
    sandbox.write("token", &format!("glpat-{SECRET}"));
    sandbox.write("agent.toml", &sandbox.enrollment("build-1", "token = { file = \"token\" }"));
    sandbox.run(&["run", "--once"]).exits(4).says("with which an [[enroll]] with `create` makes its runner");
}

#[test]
fn a_registration_token_without_prefix_as_that_of_a_runner_is_told_where_it_goes() {
    let sandbox = super::sandbox_with(Gitlab::builder().registration_token("abcdefghij0123456789"));
    sandbox.write("token", &sandbox.gitlab.instance_registration_token());
    sandbox.write("agent.toml", &sandbox.enrollment("build-1", "token = { file = \"token\" }"));
    let done = sandbox.run(&["run", "--once"]);
    done.exits(3)
        .says("a registration token belongs in `registration_token`")
        .says("GitLab answers the same to all of these");
    let (url, token) = (sandbox.gitlab.url(), sandbox.path("token").display().to_string());
    let done = sandbox.run(&["register", "-n", "--name", "a", "--url", url.as_str(), "--token-file", &token]);
    done.exits(3).says("or is given by --registration-token");
}
