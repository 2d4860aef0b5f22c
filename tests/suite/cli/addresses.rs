//! Addresses that are not the instance's own.

use fake_gitlab::{Endpoint, Gitlab, NewRunner};

#[test]
fn api_path_is_left_out_of_the_address_with_a_warning() {
    for root in ["", "/gitlab"] {
        let sandbox = super::sandbox_with(Gitlab::builder().base_path(root));
        let url = sandbox.gitlab.url();
        let token = sandbox.gitlab.instance_registration_token();
        for (name, path) in [("a", "/api/v4"), ("b", "/api/v4/")] {
            let given = format!("{url}{path}");
            let done = sandbox.run(&["register", "-n", "--name", name, "--url", &given, "-r", &token]);
            done.exits(0).says(&format!("--url: `/api/v4` is not part of the server URL; {url} is used"));
        }
        assert!(!sandbox.config().contains("/api/v4") && sandbox.config().contains(&format!("\"{url}\"")));
    }
}

#[test]
fn wrong_path_is_answered_with_the_address_of_gitlab() {
    for root in ["", "/gitlab"] {
        let sandbox = super::sandbox_with(Gitlab::builder().base_path(root));
        let url = sandbox.gitlab.url();
        let (_, runner) = sandbox.gitlab.add_runner(NewRunner::instance());
        let registration = sandbox.gitlab.instance_registration_token();
        for path in ["/group/project", "/group/sub/project/-/settings/ci_cd", "/git"] {
            let given = format!("{url}{path}");
            let args = ["register", "-n", "--name", "a", "--url", &given];
            for token in [["-r", &registration], ["--token", &runner]] {
                let done = sandbox.run(&[&args[..], &token].concat());
                done.exits(5).says(&format!("GitLab answers at {url}, not at {given}: set `url` to {url}"));
                done.says("changed nothing");
                assert!(!done.stderr.contains("does not support"), "{}", done.stderr);
            }
            let done = sandbox.run_with(&["fleet", "list", "--url", &given], &[("GITLAB_TOKEN", "glpat-any")]);
            done.exits(5).says(&format!("GitLab answers at {url}, not at {given}: set `url` to {url}"));
        }
        assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), 0);
        // What asks at other addresses has no token.
        let is_asked_above = |request: &&fake_gitlab::Request| !request.path.starts_with(&format!("{root}/g"));
        for request in sandbox.gitlab.requests().iter().filter(is_asked_above) {
            assert_eq!((request.parameter("token"), request.header("private-token")), (None, None), "{request:?}");
        }
    }
}

#[test]
fn address_that_no_gitlab_answers_above_is_refused_as_before() {
    let sandbox = super::sandbox_with(Gitlab::builder().base_path("/elsewhere"));
    let given = sandbox.gitlab.url().replace("/elsewhere", "/group");
    let token = sandbox.gitlab.instance_registration_token();
    let done = sandbox.run(&["register", "-n", "--name", "a", "--url", &given, "-r", &token]);
    done.exits(5).says("not a GitLab API answer");
    assert!(!done.stderr.contains("GitLab answers at"), "{}", done.stderr);
}
