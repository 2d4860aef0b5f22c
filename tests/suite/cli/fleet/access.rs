//! The choice of server and access token, and the errors of invalid tokens.

use std::process::Stdio;
use test_support::Process;

use fake_gitlab::{Endpoint, Fault, NewRunner, Role, Scope};

use super::Site;

#[test]
fn access_token_can_come_from_every_source() {
    let site = Site::new();
    let token = site.access_token.clone();
    let path = site.sandbox.write("access", &format!("{token}\n"));
    let path = path.to_str().unwrap();
    let directory = site.sandbox.path("");
    let url = site.gitlab().url();
    for (args, variables) in [
        (&["--access-token-file", path][..], &[][..]),
        (&["--access-token-credential", "access"], &[("CREDENTIALS_DIRECTORY", directory.to_str().unwrap())]),
        (&[], &[("GITLAB_TOKEN", token.as_str())]),
        (&[], &[("PRIVATE_TOKEN", token.as_str())]),
        (&[], &[("GITLAB_TOKEN_FILE", path)]),
        (&[], &[("PRIVATE_TOKEN_FILE", path)]),
        (&["--access-token-file", path], &[("GITLAB_TOKEN", "wrong")]),
        (&[], &[("GITLAB_TOKEN", token.as_str()), ("PRIVATE_TOKEN", "wrong")]),
    ] {
        let done = site.fleet_with(&[&["list"], args].concat(), variables);
        assert_eq!(done.exits(0).stdout, "no runners\n", "{args:?} {variables:?}");
    }
    let done = site.sandbox.run_reading(&["fleet", "list", "--url", &url, "--access-token-file", "-"], &token);
    done.exits(0);

    site.sandbox
        .write("agent.toml", &format!("[[server]]\nurl = \"{url}/\"\naccess_token = {{ file = \"access\" }}\n"));
    site.sandbox.run(&["fleet", "list"]).exits(0);
    site.sandbox.run_with(&["fleet", "list"], &[("GITLAB_TOKEN", "wrong")]).exits(3);
}

#[test]
fn access_token_can_come_from_a_file_descriptor() {
    let site = Site::new();
    let path = site.sandbox.write("access", &site.access_token);
    let url = site.gitlab().url();
    let command = site.sandbox.command(&["fleet", "list", "--url", &url, "--access-token-file", "fd:3"]);
    let mut shell = std::process::Command::new("sh");
    shell.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.current_dir(site.sandbox.path("")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    shell
        .args(["-c", "exec 3<\"$0\"; shift 0; exec \"$@\""])
        .arg(&path)
        .arg(command.get_program())
        .args(command.get_args());
    Process::start(shell).end().exits(0);
}

#[test]
fn missing_access_token_is_a_usage_error_with_hints() {
    let site = Site::new();
    let done = site.fleet_with(&["list"], &[]);
    done.exits(2).says("no access token for");
    for way in ["--access-token-file", "--access-token-credential", "GITLAB_TOKEN", "PRIVATE_TOKEN", "[[server]]"] {
        done.says(way);
    }
    site.sandbox.run_with(&["fleet", "list"], &[("GITLAB_TOKEN", "x")]).exits(2).says("no server given");
    assert_eq!(site.gitlab().requests().len(), 0);
}

#[test]
fn refused_access_token_is_named_by_its_fingerprint() {
    let site = Site::new();
    let done = site.fleet_with(&["list"], &[("GITLAB_TOKEN", "glpat-nonsense")]);
    done.exits(3).says("401 Unauthorized").says("from the variable GITLAB_TOKEN, with the fingerprint");
    assert!(!done.stderr.contains("nonsense"));

    site.gitlab().expire_access_token(&site.access_token);
    site.fleet(&["list"]).exits(3).says("Token is expired.");
    site.gitlab().revoke_access_token(&site.access_token);
    site.fleet(&["list"]).exits(3).says("Token was revoked.");
}

#[test]
fn missing_scope_or_role_is_named() {
    let site = Site::new();
    let (id, _) = site.gitlab().add_runner(NewRunner::instance());
    let narrow = site.gitlab().add_access_token([Scope::ReadUser]);
    let guest = site.gitlab().add_access_token_of(Role::Guest, [Scope::Api]);
    let owner = site.gitlab().add_access_token_of(Role::Owner, [Scope::Api]);
    site.fleet_with(&["list"], &[("GITLAB_TOKEN", &narrow)])
        .exits(3)
        .says("one of: api read_api")
        .says("`read_api` or `api`");
    site.fleet_with(&["list", "--all"], &[("GITLAB_TOKEN", &owner)])
        .exits(3)
        .says("an administrator's or auditor's access token");
    site.fleet_with(&["pause", &id.to_string()], &[("GITLAB_TOKEN", &guest)])
        .exits(3)
        .says("its user must be allowed to change the runner");
    let done = site.fleet_with(&["create", "--instance", "--write-token", "t"], &[("GITLAB_TOKEN", &owner)]);
    done.exits(3).says("for an instance runner an administrator");
    assert!(!site.sandbox.path("t").exists());
}

#[test]
fn missing_project_may_be_hidden() {
    let site = Site::new();
    site.gitlab().add_project("a/b");
    let outsider = site.gitlab().add_access_token_of(Role::Outsider, [Scope::Api]);
    for (project, token) in [("a/b", &outsider), ("a/c", &site.access_token)] {
        let done = site.fleet_with(&["list", "--project", project], &[("GITLAB_TOKEN", token)]);
        done.exits(3).says("no such project, or the access token's user cannot see it");
    }
    site.fleet(&["list", "--group", "x y"]).exits(3).says("no such group, or the access token's user cannot see it");
}

#[test]
fn foreign_or_unreachable_server_exits_5() {
    let site = Site::new();
    site.gitlab().order(Endpoint::ListRunners, Fault::answer(fake_gitlab::Answer::html(200)));
    site.fleet(&["list"]).exits(5).says("not a GitLab API answer");
    site.gitlab().refuse_connections();
    site.fleet(&["list"]).exits(5).says("cannot connect");
}

#[test]
fn access_token_is_in_no_url_and_no_log() {
    let site = Site::new();
    let (id, _) = site.gitlab().add_runner(NewRunner::instance());
    let done = site.fleet(&["pause", &id.to_string(), "--log-level", "trace"]);
    done.exits(0);
    assert!(!done.stderr.contains(&site.access_token) && !done.stdout.contains(&site.access_token));
    for request in site.gitlab().requests() {
        assert!(!format!("{} {:?}", request.path, request.parameters).contains(&site.access_token));
    }
}

#[test]
fn address_of_the_api_is_taken_for_the_servers_with_a_warning() {
    let site = Site::new();
    let (url, token) = (site.gitlab().url(), [("GITLAB_TOKEN", site.access_token.as_str())]);
    let of_api = format!("{url}/api/v4/");
    let warning = format!("`/api/v4` is not part of the server URL; {url} is used");
    let done = site.sandbox.run_with(&["fleet", "list", "--url", &of_api], &token);
    done.exits(0).says(&format!("--url: {warning}"));
    let done = site.sandbox.run_with(&["fleet", "list"], &[token[0], ("CI_SERVER_URL", &of_api)]);
    done.exits(0).says(&format!("CI_SERVER_URL: {warning}"));
}
