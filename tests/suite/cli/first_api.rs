//! `--api v1`: a GitLab before 9.0.

use super::sandbox_with;
use fake_gitlab::{Endpoint, Gitlab};
use test_support::Sandbox;

fn old_gitlab() -> Sandbox {
    sandbox_with(Gitlab::builder().version("8.17"))
}

#[test]
fn api_v1_registers_and_unregisters_a_runner() {
    let sandbox = old_gitlab();
    sandbox.register(&["--api", "v1", "--name", "old", "--tag-list", "a,b", "--executor", "shell"]).exits(0);
    let runner = &sandbox.gitlab.runners()[0];
    assert_eq!((runner.description.as_str(), runner.tags.len(), runner.run_untagged), ("old", 2, false));
    assert!(sandbox.config().contains(&runner.token) && !sandbox.config().contains("token_expires_at"));
    let again = sandbox.register(&["--api", "v1", "--name", "old", "--tag-list", "a,b", "--executor", "shell"]);
    assert!(again.exits(0).stdout.contains("registered already, nothing was changed"), "{again:?}");
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::LegacyRegister).len(), 1);

    sandbox.run(&["unregister", "--name", "old"]).exits(0);
    assert!(sandbox.gitlab.runners().is_empty());
    assert!(!sandbox.config().contains("[[runners]]"));
    assert_eq!((sandbox.gitlab.requests().len(), sandbox.gitlab.requests_to(Endpoint::LegacyDelete).len()), (2, 1));
}

#[test]
fn api_v1_rejects_verification_and_rotation() {
    let sandbox = old_gitlab();
    sandbox.register(&["--api", "v1", "--name", "old", "--executor", "shell"]).exits(0);
    sandbox.gitlab.clear_requests();
    for args in [&["verify", "--name", "old"][..], &["rotate", "--name", "old"]] {
        sandbox
            .run(args)
            .exits(2)
            .says("registered through the API v1, which supports neither verification nor rotation");
    }
    assert_eq!(sandbox.gitlab.requests().len(), 0);
}

#[test]
fn api_v1_is_never_chosen_automatically() {
    let sandbox = old_gitlab();
    let done = sandbox.register(&["--name", "old", "--executor", "shell"]);
    assert_ne!(done.code, Some(0));
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::LegacyRegister).len(), 0);
    assert!(sandbox.gitlab.runners().is_empty());
}

#[test]
fn newer_gitlab_rejects_api_v1() {
    let sandbox = super::sandbox();
    sandbox
        .register(&["--api", "v1", "--name", "new", "--executor", "shell"])
        .exits(3)
        .says("this GitLab version does not support the call");
    assert!(sandbox.gitlab.runners().is_empty());
}

#[test]
fn api_v1_rejects_unsupported_flags_before_any_request() {
    let sandbox = old_gitlab();
    sandbox
        .register(&["--api", "v1", "--paused", "--maximum-timeout", "1h", "--access-level", "ref_protected"])
        .exits(2)
        .says("API v1 has no `paused`")
        .says("API v1 has no `maximum_timeout`")
        .says("API v1 has no `access_level`");
    let url = sandbox.gitlab.url();
    sandbox
        .run(&["register", "-n", "--api", "v1", "--url", &url, "--token", "glrt-x"])
        .exits(2)
        .says("API v1 has no created runners");
    assert_eq!(sandbox.gitlab.requests().len(), 0);
}

#[test]
fn api_v1_deletes_a_runner_by_its_token() {
    let sandbox = old_gitlab();
    let (_, token) = sandbox.gitlab.add_runner(fake_gitlab::NewRunner::instance());
    let url = sandbox.gitlab.url();
    sandbox.run(&["unregister", "--api", "v1", "--url", &url, "--token", &token]).exits(0);
    assert!(sandbox.gitlab.runners().is_empty());
    sandbox.run(&["unregister", "--api", "v1", "--url", &url, "--token", &token]).exits(0);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::LegacyDelete).len(), 2);
}

#[test]
fn api_v1_rejects_invalid_attributes_before_any_request() {
    let sandbox = old_gitlab();
    sandbox.register(&["--api", "v1", "--name", "old", "--run-untagged=false", "--tag-list", ""]).exits(2);
    let long = "x".repeat(1100);
    sandbox.register(&["--api", "v1", "--description", &long]).exits(2);
    assert_eq!(sandbox.gitlab.requests().len(), 0);
}
