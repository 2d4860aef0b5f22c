//! `access-token`: access tokens are shown and rotated by commands.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use fake_gitlab::{Endpoint, Fault, NewAccessToken, Scope};
use rustix::process::Signal;
use serde_json::Value;
use test_support::{Output, Sandbox};

const DAY: Duration = Duration::from_secs(24 * 3600);
const MINUTE: Duration = Duration::from_secs(60);

/// An access token of this server in the file `access-token`, which lives 90 days.
fn add_token(sandbox: &Sandbox, new: NewAccessToken) -> String {
    let token = sandbox.gitlab.create_access_token(new.expires_on(sandbox.gitlab.day_in(90)));
    sandbox.write_with_mode("access-token", &format!("{token}\n"), 0o600);
    token
}

/// A sandbox whose agent.toml names the token in the file `access-token`, with these keys.
fn of_settings(keys: &str) -> (Sandbox, String) {
    let sandbox = super::sandbox();
    let token = add_token(&sandbox, NewAccessToken::personal().scopes([Scope::Api]));
    write_settings(&sandbox, keys);
    (sandbox, token)
}

fn write_settings(sandbox: &Sandbox, keys: &str) {
    let keys = if keys.is_empty() { String::new() } else { format!(", {keys}") };
    sandbox.write_fast_settings(&format!(
        "[[server]]\nurl = \"{}\"\naccess_token = {{ file = \"access-token\"{keys} }}\n",
        sandbox.gitlab.url()
    ));
}

/// A sandbox with a token that agent.toml does not name.
fn alone() -> (Sandbox, String) {
    let sandbox = super::sandbox();
    let token = add_token(&sandbox, NewAccessToken::personal().scopes([Scope::Api]));
    (sandbox, token)
}

fn in_file(sandbox: &Sandbox, name: &str) -> String {
    sandbox.read(name).trim().to_owned()
}

fn mode_of(sandbox: &Sandbox, name: &str) -> u32 {
    fs::metadata(sandbox.path(name)).unwrap().permissions().mode() & 0o7777
}

fn rotate(sandbox: &Sandbox, arguments: &[&str]) -> Output {
    sandbox.run(&[&["access-token", "rotate"], arguments].concat())
}

fn show(sandbox: &Sandbox, arguments: &[&str]) -> Output {
    sandbox.run(&[&["access-token", "show"], arguments].concat())
}

/// The only row of a JSON document.
fn row(output: &Output) -> Value {
    let rows = output.rows("access_tokens");
    let [row] = &rows[..] else { panic!("{output:?}") };
    row.clone()
}

/// The file holds another token, which works; and no request was sent twice with one token.
#[track_caller]
fn assert_rotated(sandbox: &Sandbox, old: &str) {
    let new = in_file(sandbox, "access-token");
    assert!(new != old && sandbox.gitlab.accepts_access_token(&new), "the file has no good new token");
    assert!(!sandbox.gitlab.accepts_access_token(old));
    assert_never_twice(sandbox);
}

#[track_caller]
fn assert_never_twice(sandbox: &Sandbox) {
    let requests = sandbox.gitlab.access_tokens().into_values().map(|token| token.rotate_requests);
    assert!(requests.max() <= Some(1), "a rotation was sent twice with one token");
}

#[test]
fn every_access_token_of_the_settings_is_shown() {
    let (sandbox, token) = of_settings("rotate = true");
    let other = sandbox.write_with_mode("other-token", "glpat-0123456789abcdefghij\n", 0o600);
    let shown = show(&sandbox, &[]);
    let line = format!(
        "access token for {}: active, named `runner-agent`, scopes api, ends on {} ",
        sandbox.gitlab.url(),
        sandbox.gitlab.day_in(90)
    );
    assert!(shown.exits(0).stdout.starts_with(&line) && shown.stdout.contains("rotates on "), "{shown:?}");
    assert_eq!(shown.stderr, "");
    let named = sandbox.gitlab.url().replace("127.0.0.1", "localhost");
    let second = format!(
        "[[server]]\nurl = \"{named}\"\naccess_token = {{ file = \"{}\" }}\n",
        other.file_name().unwrap().to_str().unwrap()
    );
    sandbox.write("agent.toml", &(sandbox.read("agent.toml") + &second));
    let shown = show(&sandbox, &[]);
    shown.exits(6).says(&format!("error: access token for {named}: the server refuses it")).hides(&[&token]);
    assert!(shown.stdout.contains(&line) && shown.stdout.contains(&format!("for {named}: refused")), "{shown:?}");
    show(&sandbox, &[&named]).exits(3);
    show(&sandbox, &["--url", &sandbox.gitlab.url()]).exits(0);
    show(&sandbox, &["https://gitlab.example.com"])
        .exits(2)
        .says(&format!("(it has: {}, {named})", sandbox.gitlab.url()));
    rotate(&sandbox, &[]).exits(2).says(&format!("name one of {}, {named}", sandbox.gitlab.url()));
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::RotateAccessToken).len(), 0);
}

#[test]
fn the_rows_for_scripts_have_the_report_and_what_was_done() {
    let (sandbox, old) = of_settings("");
    let shown = row(show(&sandbox, &["-o", "json"]).exits(0));
    assert_eq!((&shown["state"], &shown["rotates"], &shown["action"]), (&"active".into(), &false.into(), &Value::Null));
    assert_eq!((&shown["error"], &shown["last_error"]), (&Value::Null, &Value::Null), "{shown}");
    let rotated = rotate(&sandbox, &["-o", "json"]);
    let rotated_row = row(rotated.exits(0));
    assert_eq!((&rotated_row["action"], &rotated_row["rotations"]), (&"rotated".into(), &1.into()));
    assert_ne!(rotated_row["token_fingerprint"], shown["token_fingerprint"]);
    rotated.hides(&[&old, &in_file(&sandbox, "access-token")]);
    // Before that, a replica might not know it.
    sandbox.gitlab.advance(11 * MINUTE);
    sandbox.gitlab.revoke_access_token(&in_file(&sandbox, "access-token"));
    let refused = rotate(&sandbox, &["-o", "json"]);
    let refused = row(refused.exits(3));
    assert_eq!((&refused["action"], &refused["state"]), (&"refused".into(), &"refused".into()));
    assert!(refused["error"].as_str().unwrap().contains("the server refuses it"), "{refused}");
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::RotateAccessToken).len(), 1);
}

#[test]
fn a_token_whose_settings_do_not_rotate_it_is_rotated_by_the_command() {
    let (sandbox, old) = of_settings("");
    let done = rotate(&sandbox, &[]);
    let source = sandbox.path("access-token");
    let line = format!(
        "access token for {}: rotated, {} has the new one: active, named `runner-agent`, scopes api, ends on {} ",
        sandbox.gitlab.url(),
        source.display(),
        sandbox.gitlab.day_in(90)
    );
    assert!(done.exits(0).stdout.starts_with(&line), "{done:?}");
    assert_eq!(done.stderr, "");
    assert_rotated(&sandbox, &old);
    assert_eq!(mode_of(&sandbox, "access-token"), 0o600);
    let once = in_file(&sandbox, "access-token");
    rotate(&sandbox, &["--life", "30d"]).exits(0);
    assert_rotated(&sandbox, &once);
    let new = sandbox.gitlab.access_token(&in_file(&sandbox, "access-token")).unwrap();
    assert_eq!(new.expires_on, Some(sandbox.gitlab.day_in(30)));
    rotate(&sandbox, &["--life", "500d"]).exits(2).says("--life");
}

#[test]
fn a_script_keeps_a_token_that_agent_toml_does_not_name() {
    let (sandbox, old) = alone();
    sandbox.gitlab.clear_requests();
    let url = sandbox.gitlab.url();
    let token = ["--url", &url, "--access-token-file", "access-token"];
    let shown = show(&sandbox, &token);
    assert!(shown.exits(0).stdout.contains(": active, named `runner-agent`, scopes api, ends on "), "{shown:?}");
    let due = [&token[..], &["--if-due"]].concat();
    let done = rotate(&sandbox, &due);
    assert!(done.exits(0).stdout.contains(": its rotation is not due: active"), "{done:?}");
    assert_eq!(in_file(&sandbox, "access-token"), old);
    sandbox.gitlab.advance(61 * DAY);
    rotate(&sandbox, &due).exits(0);
    assert_rotated(&sandbox, &old);
    let ends_on = sandbox.gitlab.access_token(&in_file(&sandbox, "access-token")).unwrap().expires_on;
    assert_eq!(ends_on, Some(sandbox.gitlab.day_in(90)));
    rotate(&sandbox, &due).exits(0);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::RotateAccessToken).len(), 1);
    rotate(&sandbox, &["--access-token-file", "access-token"]).exits(2).says("no server given");
    let environment = [("CI_SERVER_URL", url.as_str())];
    let words = ["access-token", "show", "--access-token-file", "access-token"];
    sandbox.run_with(&words, &environment).exits(0);
}

#[test]
fn a_token_from_a_pipe_is_shown_and_not_kept_and_not_rotated() {
    let (sandbox, token) = alone();
    let url = sandbox.gitlab.url();
    let words = |command| ["access-token", command, &url, "--access-token-file", "-"].map(str::to_owned);
    let run = |command| {
        let words = words(command);
        sandbox.run_reading(&words.each_ref().map(String::as_str), &token)
    };
    assert!(run("show").exits(0).stdout.contains("active"));
    assert!(!sandbox.path("state").exists() || !sandbox.state().contains(&token));
    run("rotate").exits(4).says("cannot be written");
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::RotateAccessToken).len(), 0);
}

#[test]
fn a_token_that_the_settings_do_not_name_is_kept_apart_from_theirs() {
    let (sandbox, of_server) = of_settings("rotate = true");
    let url = sandbox.gitlab.url();
    let new = NewAccessToken::personal().scopes([Scope::SelfRotate]).expires_on(sandbox.gitlab.day_in(90));
    let apart = sandbox.gitlab.create_access_token(new);
    sandbox.write_with_mode("apart", &apart, 0o600);
    let apart_file = ["--url", &url, "--access-token-file", "apart"];
    show(&sandbox, &[]).exits(0);
    rotate(&sandbox, &apart_file).exits(0);
    // Its missing scopes concern the settings only.
    let shown = show(&sandbox, &apart_file);
    assert_eq!(shown.exits(0).stderr, "");
    assert!(shown.stdout.contains("scopes self_rotate"), "{shown:?}");
    let shown = row(show(&sandbox, &["-o", "json"]).exits(0));
    assert_eq!((&shown["rotations"], &shown["scopes"][0]), (&0.into(), &"api".into()));
    assert_eq!(in_file(&sandbox, "access-token"), of_server);
    // The file of the settings is theirs by whatever name.
    std::os::unix::fs::symlink("access-token", sandbox.path("link")).unwrap();
    let shown = row(show(&sandbox, &["--url", &url, "--access-token-file", "link", "-o", "json"]).exits(0));
    assert_eq!(shown["rotates"], true);
    assert_never_twice(&sandbox);
}

#[test]
fn a_copy_of_the_new_token_is_written_for_another_program() {
    let (sandbox, old) = of_settings("");
    let done = rotate(&sandbox, &["--write", "copy"]);
    let copy = sandbox.path("copy");
    assert!(done.exits(0).stdout.contains(&format!("it was written into {} too", copy.display())), "{done:?}");
    assert_rotated(&sandbox, &old);
    assert_eq!(in_file(&sandbox, "copy"), in_file(&sandbox, "access-token"));
    assert_eq!(mode_of(&sandbox, "copy"), 0o600);
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o640)).unwrap();
    let done = rotate(&sandbox, &["--write", "copy", "-o", "json"]);
    assert_eq!(row(done.exits(0))["written_to"], copy.display().to_string());
    assert_eq!(in_file(&sandbox, "copy"), in_file(&sandbox, "access-token"));
    assert_eq!(mode_of(&sandbox, "copy"), 0o640);
    let done = rotate(&sandbox, &["--write", "access-token", "-o", "json"]);
    assert_eq!(row(done.exits(0))["written_to"], Value::Null);
    // A copy that was missed is made up for, without a rotation.
    fs::remove_file(&copy).unwrap();
    rotate(&sandbox, &["--if-due", "--write", "copy"]).exits(0);
    assert_eq!(in_file(&sandbox, "copy"), in_file(&sandbox, "access-token"));
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::RotateAccessToken).len(), 3);
    assert_never_twice(&sandbox);
}

#[test]
fn a_copy_that_cannot_be_written_stops_the_rotation_before_it_is_sent() {
    let (sandbox, old) = of_settings("");
    sandbox.write_with_mode("runner-token", "glrt-0123456789abcdefghij", 0o600);
    for (file, text) in [
        ("nowhere/copy", "nowhere"),
        ("agent.toml", "does not hold a token"),
        ("runner-token", "runner authentication token"),
    ] {
        rotate(&sandbox, &["--write", file]).exits(4).says(text);
    }
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::RotateAccessToken).len(), 0);
    assert_eq!(in_file(&sandbox, "access-token"), old);
}

#[test]
fn a_copy_that_fails_after_the_rotation_leaves_it_done_and_says_so() {
    let (sandbox, old) = of_settings("");
    let held = sandbox.gitlab.order(Endpoint::RotateAccessToken, Fault::hold().after_acting());
    let command = sandbox.start(&["access-token", "rotate", "--write", "copy"]);
    sandbox.wait("the rotation", |sandbox| !sandbox.gitlab.accepts_access_token(&old));
    sandbox.write_with_mode("copy", "glpat-of-another-process", 0o600);
    held.release();
    let done = command.end();
    done.exits(4).says("another process has changed it meanwhile").says("access-token has the token");
    assert!(done.stdout.contains("rotated, "), "{done:?}");
    assert_eq!(in_file(&sandbox, "copy"), "glpat-of-another-process");
    assert_rotated(&sandbox, &old);
}

#[test]
fn a_lost_answer_is_settled_by_later_commands_and_never_sent_again() {
    let (sandbox, old) = of_settings("");
    sandbox.gitlab.order(Endpoint::RotateAccessToken, Fault::cut().after_acting());
    rotate(&sandbox, &[]).exits(5);
    rotate(&sandbox, &[]).exits(5).says("a rotation of the access token was sent and its answer was lost");
    sandbox.gitlab.advance(2 * MINUTE);
    show(&sandbox, &[]).exits(3).says("make a new one in GitLab and put it into the file");
    sandbox.gitlab.advance(20 * MINUTE);
    let done = rotate(&sandbox, &["-o", "json"]);
    assert_eq!(row(done.exits(3))["state"], "lost");
    assert_eq!(sandbox.gitlab.access_token(&old).unwrap().rotate_requests, 1);
    let new = add_token(&sandbox, NewAccessToken::personal().scopes([Scope::Api]));
    rotate(&sandbox, &[]).exits(0);
    assert_rotated(&sandbox, &new);
}

#[test]
fn a_rotation_whose_answer_was_lost_and_that_did_not_happen_is_sent_again_after_ten_minutes() {
    let (sandbox, old) = of_settings("");
    sandbox.gitlab.order(Endpoint::RotateAccessToken, Fault::cut());
    rotate(&sandbox, &[]).exits(5);
    sandbox.gitlab.advance(5 * MINUTE);
    rotate(&sandbox, &[]).exits(5);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::RotateAccessToken).len(), 1);
    sandbox.gitlab.advance(6 * MINUTE);
    rotate(&sandbox, &[]).exits(0);
    let new = in_file(&sandbox, "access-token");
    assert!(new != old && sandbox.gitlab.accepts_access_token(&new));
}

#[test]
fn a_server_that_is_back_within_the_wait_is_asked_again() {
    let (sandbox, old) = of_settings("");
    sandbox.gitlab.order(Endpoint::ShowAccessToken, Fault::status(502));
    rotate(&sandbox, &[]).exits(5);
    sandbox.gitlab.order(Endpoint::ShowAccessToken, Fault::status(502));
    rotate(&sandbox, &["--wait", "30s"]).exits(0).says("asking again in ");
    assert_rotated(&sandbox, &old);
}

#[test]
fn a_token_that_was_rotated_elsewhere_before_is_replaced_by_the_newest_one_and_not_sent() {
    let (sandbox, old) = of_settings("");
    rotate(&sandbox, &[]).exits(0);
    let new = in_file(&sandbox, "access-token");
    // A configuration manager writes the old one back.
    sandbox.write_with_mode("access-token", &old, 0o600);
    show(&sandbox, &[]).exits(0);
    assert_eq!(in_file(&sandbox, "access-token"), new);
    sandbox.write_with_mode("access-token", &old, 0o600);
    rotate(&sandbox, &[]).exits(0);
    assert_rotated(&sandbox, &new);
}

#[test]
fn a_life_beyond_the_limit_is_one_clear_error() {
    let (sandbox, old) = of_settings("");
    sandbox.gitlab.limit_access_token_days(Some(30));
    rotate(&sandbox, &[]).exits(3).says("must be before");
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::RotateAccessToken).len(), 1);
    assert_eq!(in_file(&sandbox, "access-token"), old);
    rotate(&sandbox, &["--life", "20d"]).exits(0);
    let new = in_file(&sandbox, "access-token");
    assert!(new != old && sandbox.gitlab.accepts_access_token(&new));
}

#[test]
fn a_token_without_the_scope_says_what_it_needs_before_anything_is_sent() {
    let sandbox = super::sandbox();
    let old = add_token(&sandbox, NewAccessToken::personal().scopes([Scope::ManageRunner]));
    write_settings(&sandbox, "");
    let shown = show(&sandbox, &[]);
    assert!(shown.exits(0).stdout.contains("  it cannot be rotated: it has neither the scope `self_rotate` nor `api`"));
    rotate(&sandbox, &[]).exits(3).says("it has neither the scope `self_rotate` nor `api`");
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::RotateAccessToken).len(), 0);
    assert!(sandbox.gitlab.accepts_access_token(&old));
}

#[test]
fn tokens_of_groups_and_projects_are_rotated_by_their_own_calls() {
    for (kind, endpoint) in
        [("group", Endpoint::RotateGroupAccessToken), ("project", Endpoint::RotateProjectAccessToken)]
    {
        let sandbox = super::sandbox();
        let (id, new) = if kind == "group" {
            let id = sandbox.gitlab.add_group("builders").id;
            (id, NewAccessToken::group(id))
        } else {
            let id = sandbox.gitlab.add_project("builders/images").id;
            (id, NewAccessToken::project(id))
        };
        let old = add_token(&sandbox, new.scopes([Scope::Api]));
        let (url, id) = (sandbox.gitlab.url(), id.to_string());
        let flag = format!("--{kind}");
        rotate(&sandbox, &["--url", &url, "--access-token-file", "access-token", &flag, &id]).exits(0);
        assert_rotated(&sandbox, &old);
        let once = in_file(&sandbox, "access-token");
        write_settings(&sandbox, &format!("{kind} = {id}"));
        rotate(&sandbox, &[]).exits(0);
        assert_rotated(&sandbox, &once);
        assert_eq!(sandbox.gitlab.requests_to(endpoint).len(), 2, "{kind}");
    }
}

#[test]
fn an_old_gitlab_says_that_the_token_has_to_be_rotated_by_hand() {
    let (sandbox, old) = of_settings("");
    sandbox.gitlab.upgrade_to("15.4");
    let shown = show(&sandbox, &[]);
    assert!(shown.exits(0).stdout.contains(": not known"), "{shown:?}");
    rotate(&sandbox, &[]).exits(3).says("this GitLab does not say what an access token is");
    sandbox.gitlab.upgrade_to("16.9");
    rotate(&sandbox, &[]).exits(3).says("16.10");
    assert!(sandbox.gitlab.accepts_access_token(&old) && in_file(&sandbox, "access-token") == old);
}

#[test]
fn each_local_mistake_says_what_and_where() {
    let (sandbox, _) = of_settings("");
    sandbox.write_with_mode("access-token", "glrt-0123456789abcdefghij", 0o600);
    show(&sandbox, &[]).exits(2).says("runner authentication token");
    fs::remove_file(sandbox.path("access-token")).unwrap();
    show(&sandbox, &[]).exits(4).says("cannot read the token file");
    let empty = super::sandbox();
    show(&empty, &[]).exits(2).says("agent.toml has no [[server]] with an access token");
    sandbox.gitlab.refuse_connections();
    add_token(&sandbox, NewAccessToken::personal().scopes([Scope::Api]));
    show(&sandbox, &[]).exits(5);
}

#[test]
fn a_running_daemon_takes_the_new_token_up_and_its_passes_exclude_the_command() {
    let (sandbox, old) = of_settings("");
    let daemon = sandbox.start_serving();
    sandbox.wait_for_requests(Endpoint::ShowAccessToken, 1);
    rotate(&sandbox, &[]).exits(0);
    assert_rotated(&sandbox, &old);
    let fingerprint = row(&show(&sandbox, &["-o", "json"]))["token_fingerprint"].clone();
    sandbox.wait("the new token in status", |sandbox| {
        let status: Value = serde_json::from_str(&sandbox.run(&["status", "-o", "json"]).stdout).unwrap();
        status["daemon"]["access_tokens"][0]["token_fingerprint"] == fingerprint
    });
    // Its request is held, and so is the lock.
    let held = sandbox.gitlab.order(Endpoint::ShowAccessToken, Fault::hold());
    let asked = sandbox.gitlab.requests_to(Endpoint::ShowAccessToken).len();
    daemon.signal(Signal::HUP);
    sandbox.wait_for_requests(Endpoint::ShowAccessToken, asked + 1);
    let command = sandbox.start(&["access-token", "show"]);
    held.release();
    command.end().exits(0);
    let log = daemon.stop(Signal::QUIT).stderr;
    assert!(!log.contains("ERROR"), "{log}");
    assert_never_twice(&sandbox);
}

#[test]
fn a_lock_that_another_process_keeps_is_waited_for_and_its_holder_is_named() {
    let (sandbox, old) = of_settings("");
    let held = sandbox.gitlab.order(Endpoint::ShowAccessToken, Fault::hold());
    let first = sandbox.start(&["access-token", "show"]);
    sandbox.wait_for_requests(Endpoint::ShowAccessToken, 1);
    let second = rotate(&sandbox, &[]);
    second.exits(4).says("another process").says(&first.pid().as_raw_nonzero().to_string());
    held.release();
    first.end().exits(0);
    assert!(sandbox.gitlab.accepts_access_token(&old));
}

#[test]
fn an_interrupt_lets_a_rotation_that_was_sent_end_and_begins_none() {
    let (sandbox, old) = of_settings("");
    let held = sandbox.gitlab.order(Endpoint::RotateAccessToken, Fault::hold().after_acting());
    let command = sandbox.start(&["access-token", "rotate"]);
    sandbox.wait("the rotation", |sandbox| !sandbox.gitlab.accepts_access_token(&old));
    command.signal(Signal::TERM);
    sandbox.wait("the interrupt", |_| command.log().contains("interrupted: "));
    command.signal(Signal::TERM);
    held.release();
    command.end().exits(0);
    assert_rotated(&sandbox, &old);
    let held = sandbox.gitlab.order(Endpoint::ShowAccessToken, Fault::hold());
    let asked = sandbox.gitlab.requests_to(Endpoint::ShowAccessToken).len();
    let command = sandbox.start(&["access-token", "rotate"]);
    sandbox.wait_for_requests(Endpoint::ShowAccessToken, asked + 1);
    command.signal(Signal::TERM);
    command.end().exits(1).says("interrupted: no rotation was sent");
    held.release();
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::RotateAccessToken).len(), 1);
}
