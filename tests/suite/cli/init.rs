//! `init`.

use std::os::unix::fs::PermissionsExt as _;

use test_support::Sandbox;

/// A sandbox without an agent.toml.
fn sandbox() -> Sandbox {
    let sandbox = super::sandbox();
    std::fs::remove_file(sandbox.path("agent.toml")).unwrap();
    sandbox
}

fn settings(sandbox: &Sandbox) -> String {
    sandbox.scrub(&sandbox.read("agent.toml"))
}

#[test]
fn file_that_creates_a_runner_enrolls_it() {
    let sandbox = sandbox();
    let url = sandbox.gitlab.url();
    let done = sandbox.run(&[
        "init",
        "--url",
        &url,
        "--access-token-file",
        "access-token",
        "--group",
        "7",
        "--name",
        "build-1",
        "--tag-list",
        "linux, docker",
        "--executor",
        "shell",
    ]);
    insta::assert_snapshot!("init-create-stdout", sandbox.scrub(&done.exits(0).stdout));
    insta::assert_snapshot!("init-create", settings(&sandbox));
    let mode = std::fs::metadata(sandbox.path("agent.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(sandbox.gitlab.requests().is_empty());
    let names = std::fs::read_dir(sandbox.root()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.map(|name| name.into_string().unwrap()).all(|name| !name.ends_with(".new")));
}

#[test]
fn file_for_a_created_runner_is_served() {
    let sandbox = sandbox();
    let (_, token) = sandbox.gitlab.add_runner(fake_gitlab::NewRunner::instance());
    let url = sandbox.gitlab.url();
    sandbox.write_with_mode("runner-token", &token, 0o600);
    let done = sandbox.run(&["init", "--url", &url, "--token-file", "runner-token", "--name", "a"]);
    assert!(done.exits(0).stdout.contains("runner-agent check"), "{done:?}");
    insta::assert_snapshot!("init-created", settings(&sandbox));
    sandbox.run(&["run", "--once"]).exits(0);
    assert!(sandbox.config().contains(&token));
}

#[test]
fn registration_token_is_the_last_way() {
    let sandbox = sandbox();
    let url = sandbox.gitlab.url();
    sandbox.write_with_mode("token", &sandbox.gitlab.instance_registration_token(), 0o600);
    sandbox.run(&["init", "--url", &url, "--registration-token-file", "token", "--name", "a"]).exits(0);
    assert!(settings(&sandbox).contains("GitLab is to remove them"));
    sandbox.run(&["run", "--once"]).exits(0);
    assert_eq!(sandbox.gitlab.runners().len(), 1);
}

#[test]
fn file_from_existing_entries_names_them_and_no_token() {
    let sandbox = sandbox();
    let (_, token) = sandbox.add_created("a");
    sandbox.add_created("b");
    let done = sandbox.run(&["init", "--from-config"]);
    done.exits(0).hides(&[&token]);
    insta::assert_snapshot!("init-from-config-stdout", sandbox.scrub(&done.stdout));
    insta::assert_snapshot!("init-from-config", settings(&sandbox));
    sandbox.run(&["run", "--once"]).exits(0);
    sandbox.write_config("");
    sandbox.run(&["init", "--from-config", "--force"]).exits(4).says("no runners in ");
}

#[test]
fn token_in_place_of_a_files_name_is_refused_and_written_nowhere() {
    let sandbox = sandbox();
    let url = sandbox.gitlab.url();
    for prefix in ["glrt-", "glpat-", "glrtr-", "gldt-", "glcbt-", "glptt-", "GR1348941", "acme-glrt-"] {
        let token = format!("{prefix}0123456789abcdefghij");
        for flag in ["--token-file", "--registration-token-file", "--access-token-file"] {
            let done = sandbox.run(&["init", "--url", &url, flag, &token, "--name", "a"]);
            done.exits(2).says(flag).says("the name of a file is wanted").hides(&["0123456789abcdefghij"]);
            assert!(!sandbox.path("agent.toml").exists());
        }
    }
    // With its directory it is the name of a file.
    sandbox.run(&["init", "--url", &url, "--token-file", "./glrt-token", "--name", "a"]).exits(0);
}

#[test]
fn existing_file_is_replaced_only_by_force() {
    let sandbox = super::sandbox();
    let before = sandbox.read("agent.toml");
    let url = sandbox.gitlab.url();
    let args = ["init", "--url", &url, "--token-file", "t", "--name", "a"];
    sandbox.run(&args).exits(4).says("agent.toml exists already").says("hint: add --force to replace it");
    assert_eq!(sandbox.read("agent.toml"), before);
    sandbox.write("agent.toml", "# only comments\n");
    sandbox.run(&args).exits(4).says("hint: it sets nothing yet: add --force to replace it");
    sandbox.write_with_mode("agent.toml", &before, 0o644);
    sandbox.run(&[&args[..], &["--force"]].concat()).exits(0);
    assert!(sandbox.read("agent.toml").contains("[[enroll]]"));
    let mode = std::fs::metadata(sandbox.path("agent.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn incomplete_flags_without_a_terminal_name_what_is_missing() {
    let sandbox = sandbox();
    let url = sandbox.gitlab.url();
    sandbox.run(&["init", "--url", &url]).exits(2).says("not a terminal: give --url, and one of --access-token-file");
    sandbox.run(&["init", "--url", &url, "--access-token-file", "t"]).exits(2).says("Add --instance, --group ID");
    sandbox.run(&["init", "--url", &url, "--group", "7"]).exits(2).says("need --access-token-file");
    sandbox
        .run(&["init", "--url", &url, "--token-file", "t", "--executor", "dcoker"])
        .exits(2)
        .says("--executor: unknown executor `dcoker`: did you mean `docker`?");
    sandbox
        .run(&["init", "--url", &url, "--token-file", "t", "--tag-list", "a"])
        .exits(2)
        .says("--tag-list: the tags of a runner that was created in GitLab are set there");
    sandbox
        .run(&["init", "--url", &url, "--token-file", "t", "--template", "missing.toml"])
        .exits(4)
        .says("cannot read the template");
    assert!(!sandbox.path("agent.toml").exists());
}

#[test]
fn next_commands_repeat_the_files_that_flags_name() {
    let sandbox = sandbox();
    let url = sandbox.gitlab.url();
    let path = sandbox.path("its own/agent.toml");
    let done = sandbox.run(&[
        "init",
        "--agent-config",
        path.to_str().unwrap(),
        "--url",
        &url,
        "--token-file",
        "t",
        "--name",
        "a",
    ]);
    let expected = format!("runner-agent run --agent-config '{}'\n", path.display());
    assert!(done.exits(0).stdout.ends_with(&expected), "{done:?}");
    assert!(path.exists());
}
