//! `list`.

use test_support::Process;

#[test]
fn empty_or_missing_config_lists_no_runners() {
    let sandbox = super::sandbox();
    assert_eq!(
        sandbox.scrub(&sandbox.run(&["list"]).exits(0).stdout),
        "no runners in /DIR/config/config.toml, which does not exist\n"
    );
    sandbox.write_config("concurrent = 1\n");
    assert_eq!(sandbox.scrub(&sandbox.run(&["list"]).exits(0).stdout), "no runners in /DIR/config/config.toml\n");
    assert!(sandbox.run(&["list", "--output", "json"]).runners().is_empty());
    assert!(!sandbox.path("state").exists(), "reading creates no directories");
}

#[test]
fn list_prints_no_tokens_and_sends_no_request() {
    let sandbox = super::sandbox();
    sandbox.write_config(
        "\
[[runners]]
name = \"a\"
url = \"https://gitlab.example.com/\"
id = 42
token = \"glrt-secret-a\"
token_expires_at = 2000-01-01T00:00:00Z
executor = \"docker\"

[[runners]]
name = \"same\"
url = \"https://gitlab.example.com\"
token = \"glrt-secret-b\"
token_expires_at = 0001-01-01T00:00:00Z

[[runners]]
name = \"same\"
url = \"https://gitlab.example.com\"
token = \"$NOWHERE\"

[[runners]]
token = \"glrt-secret-c\"
",
    );
    let done = sandbox.run(&["list"]);
    done.exits(0);
    let stdout: Vec<_> = done.stdout.lines().map(|line| line.split(" (").next().unwrap()).collect();
    insta::assert_snapshot!("list-stdout", stdout.join("\n"));
    insta::assert_snapshot!("list-stderr", sandbox.scrub(&done.stderr));
    let json = sandbox.run(&["list", "--output=json"]);
    json.exits(0);
    assert!(json.stderr.is_empty());
    let runners = json.runners();
    assert_eq!(runners.len(), 4);
    assert_eq!(runners[0]["id"], 42);
    assert_eq!(runners[0]["token_expires_at"], "2000-01-01T00:00:00Z");
    assert_eq!(runners[1]["token_expires_at"], serde_json::Value::Null);
    assert!(runners[2]["error"].as_str().unwrap().contains("NOWHERE"));
    assert_eq!(runners[3]["state"], "unusable");
    assert!(!(done.stdout + &done.stderr + &json.stdout).contains("secret"));
}

#[test]
fn broken_config_is_reported_with_its_position_and_kept() {
    let sandbox = super::sandbox();
    let broken = "[[runners]]\nname = \"a\"\nurl = = \n";
    sandbox.write_config(broken);
    for args in [&["list"][..], &["verify"], &["rotate", "--all"], &["unregister", "--all"]] {
        sandbox.run(args).exits(4).says("config.toml` at line 3, column 7");
    }
    sandbox.register(&["--name", "a"]).exits(4).says("line 3, column 7");
    assert_eq!(sandbox.config(), broken);
    assert_eq!(sandbox.gitlab.requests().len(), 0);
}

#[test]
fn list_takes_the_state_from_the_record() {
    let sandbox = super::sandbox();
    sandbox.register(&["--name", "a"]).exits(0);
    assert_eq!(sandbox.run(&["list", "--output=json"]).runner()["state"], "active");
}

#[test]
fn closed_stdout_is_not_an_error() {
    let sandbox = super::sandbox();
    sandbox.add_created("a");
    let (reader, writer) = std::io::pipe().unwrap();
    let child = Process::start_writing_to(sandbox.command(&["list"]), writer);
    drop(reader);
    child.end().exits(0);
}

#[test]
fn missing_file_that_was_named_is_an_error_and_another_has_no_runners() {
    let sandbox = super::sandbox();
    let wrong = sandbox.path("nowhere/config.toml");
    let wrong = wrong.to_str().unwrap();
    sandbox
        .run(&["list", "-c", wrong])
        .exits(4)
        .says("nowhere/config.toml does not exist")
        .says("hint: name an existing file with --config");
    sandbox.run(&["list", "-c", wrong, "--output", "json"]).exits(4);
    let none = sandbox.run(&["list"]);
    assert!(none.exits(0).stdout.ends_with("config.toml, which does not exist\n"), "{none:?}");
    sandbox.write_config("concurrent = 1\n");
    let empty = sandbox.run(&["list"]);
    assert!(empty.exits(0).stdout.ends_with("config.toml\n"), "{empty:?}");
}

#[test]
fn expired_token_has_a_state_of_its_own() {
    let sandbox = super::sandbox();
    let url = sandbox.gitlab.url();
    sandbox.write_config(&format!(
        "[[runners]]\nname = \"a\"\nurl = \"{url}\"\nid = 7\ntoken = \"glrt-a\"\ntoken_obtained_at = 2020-01-01T00:00:00Z\ntoken_expires_at = 2020-02-01T00:00:00Z\n"
    ));
    let listed = sandbox.run(&["list"]);
    assert!(listed.exits(0).stdout.contains("  expired  expired 2020-02-01T00:00:00Z"), "{listed:?}");
    assert_eq!(sandbox.run(&["list", "--output", "json"]).runner()["state"], "expired");
}
