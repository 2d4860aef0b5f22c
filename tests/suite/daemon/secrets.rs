//! Tokens in the log and in files.

use super::enrolled;
use fake_gitlab::{Endpoint, Fault, Gitlab};
use rustix::process::Signal;

#[test]
fn trace_log_contains_no_token() {
    let settings = "[verify]\ninterval = \"1s\"\n[timing]\nbetween_resets_floor = \"1s\"\nfloor = \"100ms\"\nsettle_after = \"200ms\"\n";
    let sandbox = enrolled(Gitlab::builder().token_life("4s"), settings);
    let mut tokens = vec![sandbox.gitlab.instance_registration_token()];
    let daemon = sandbox.start(&["run", "--log-level", "trace"]);
    sandbox.wait_for_registration();
    tokens.push(sandbox.gitlab.runners()[0].token.clone());
    // Responses that repeat the secret.
    let echo = serde_json::json!({ "message": format!("500 {}", tokens[1]) });
    sandbox.gitlab.order(Endpoint::Verify, Fault::json(500, echo));
    sandbox.gitlab.order(Endpoint::Reset, Fault::cut());
    sandbox.wait("a rotation", |sandbox| sandbox.gitlab.runners()[0].rotations >= 1 && sandbox.is_in_step());
    tokens.push(sandbox.gitlab.runners()[0].token.clone());
    let log = daemon.stop(Signal::QUIT).stderr;
    tokens.push(sandbox.gitlab.runners()[0].token.clone());
    assert!(log.len() > 1000, "the log is not empty");
    for token in &tokens {
        assert!(!log.contains(token.as_str()), "a token is in the log");
    }
    let registration_token = sandbox.files_with(&tokens[0]);
    assert_eq!(registration_token, [std::path::PathBuf::from("token")]);
    for path in sandbox.files_with(tokens.last().unwrap()) {
        assert!(path.starts_with("state") || path.ends_with("config.toml"), "{path:?}");
    }
}
