//! Tokens in output, logs and records.

use super::write_settings;
use fake_gitlab::{Answer, Endpoint, Fault, Gitlab, NewRunner};
use test_support::Process;

/// Headers whose values a message could repeat.
const HEADERS: [&str; 6] = ["X-Request-Id", "Retry-After", "Location", "Date", "RateLimit-Name", "X-Echo"];

#[test]
fn echoed_tokens_appear_in_no_output() {
    for status in [201, 302, 400, 401, 403, 404, 409, 410, 422, 429, 500, 503] {
        for output in [&["--output", "text", "--log-format", "text"], &["--output", "json", "--log-format", "json"]] {
            for (args, sent, endpoint) in [
                (&["register", "-n", "--name", "b", "--token-file", "token"][..], 0, Endpoint::Any),
                (
                    &["register", "-n", "--name", "b", "--registration-token-file", "registration"],
                    1,
                    Endpoint::Register,
                ),
                (&["verify", "--name", "a"], 0, Endpoint::Any),
                (&["rotate", "--name", "a"], 0, Endpoint::Any),
                (&["rotate", "--name", "a", "--pat-file", "access", "--force"], 2, Endpoint::ResetById),
                (&["unregister", "--name", "a"], 0, Endpoint::Any),
            ] {
                let sandbox = super::sandbox();
                let (id, token) = sandbox.gitlab.add_runner(NewRunner::instance());
                let secrets = [token.as_str(), "GR1348941planted", "glpat-planted"];
                for (name, secret) in ["token", "registration", "access"].into_iter().zip(secrets) {
                    sandbox.write(name, secret);
                }
                sandbox.write_config(&sandbox.entry("a", id, &token));
                sandbox.gitlab.order(endpoint, Fault::answer(echo(status, secrets[sent]))).always();
                let url = sandbox.gitlab.url();
                let at = if args[0] == "register" { &["--url", &url][..] } else { &[] };
                let trace = ["--log-level", "trace"];
                let done = sandbox.run(&[args, at, output, &trace].concat());
                done.hides(&secrets);
                assert!(!sandbox.gitlab.requests().is_empty(), "{args:?}");
            }
        }
    }
}

fn echo(status: u16, secrets: &str) -> Answer {
    let body = serde_json::json!({ "message": { "base": [secrets] }, "error": secrets, "token": 1, "id": secrets });
    HEADERS.into_iter().fold(Answer::json(status, body), |answer, name| answer.with_header(name, secrets))
}

#[test]
fn tokens_are_stored_only_in_their_record_and_entry() {
    let sandbox = super::sandbox_with(Gitlab::builder().token_life("1h"));
    let (given_id, given) = sandbox.gitlab.add_runner(NewRunner::instance());
    let (found_id, found) = sandbox.gitlab.add_runner(NewRunner::instance());
    let (_, variable) = sandbox.gitlab.add_runner(NewRunner::instance());
    let registration = sandbox.gitlab.instance_registration_token();
    sandbox.write("registration", &registration);
    sandbox.write("credentials/given", &given);
    let sources = ["registration_token = { file = \"registration\" }", "token = { credential = \"given\" }"];
    let [registered, credential] = sources;
    write_settings(
        &sandbox,
        &(sandbox.enrollment("registered", registered) + &sandbox.enrollment("given", credential)),
    );
    sandbox.write_config(&(sandbox.entry("found", found_id, &found) + &sandbox.entry("variable", 99, "$MY_OWN")));
    let environment = [
        ("CREDENTIALS_DIRECTORY", sandbox.path("credentials").into_os_string()),
        ("REGISTRATION_TOKEN", registration.clone().into()),
        ("CI_SERVER_URL", sandbox.gitlab.url().into()),
        ("RUNNER_NAME", "by-environment".into()),
        ("MY_OWN", variable.clone().into()),
    ];
    let once = |args: &[&str]| {
        let mut command = sandbox.command(args);
        command.envs(environment.iter().cloned());
        Process::start(command).end()
    };
    let mut tokens = vec![registration.clone(), given, found, variable];
    let mut outputs = Vec::new();
    for args in [
        &["run", "--once", "--log-level", "trace", "--output", "json", "--log-format", "json"][..],
        &["rotate", "--id", &given_id.to_string(), "--log-level", "trace"],
        &["rotate", "--id", &found_id.to_string(), "--log-level", "trace", "--output", "json"],
        &["verify", "--log-level", "trace"],
        &["list", "--output", "json", "--log-level", "trace"],
    ] {
        outputs.push(once(args));
        tokens.extend(sandbox.gitlab.runners().into_iter().map(|runner| runner.token));
    }
    let tokens: Vec<_> = tokens.iter().map(String::as_str).collect();
    assert!(outputs[0].stderr.contains("TRACE") || outputs[0].stderr.contains("DEBUG"), "the log is not empty");
    for done in &outputs {
        done.hides(&tokens);
    }
    assert_eq!(sandbox.files_with(&registration), ["registration"]);
    let runners = sandbox.gitlab.runners();
    assert_eq!(runners.len(), 5, "{}", outputs[0].stderr);
    for runner in runners.iter().filter(|runner| runner.token != tokens[3]) {
        let files = sandbox.files_with(&runner.token);
        let records = files.iter().filter(|file| file.starts_with("state/")).count();
        assert_eq!((records, files.contains(&"config/config.toml".to_owned())), (1, true), "{files:?}");
        assert!(files.iter().all(|file| file != "token"), "{files:?}");
    }
    assert_eq!(sandbox.files_with(tokens[3]), Vec::<String>::new(), "the value of a variable is never stored");
}
