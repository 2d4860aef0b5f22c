//! Files that change while the daemon runs.

use super::{enrolled, enrollment};
use fake_gitlab::{Endpoint, Fault, Gitlab, NewRunner};
use rustix::process::Signal;
use test_support::{Output, Process, Sandbox};

const SHORT: &str = "[timing]\nbetween_resets_floor = \"1s\"\nfloor = \"200ms\"\n";

/// Everything that a re-serialising editor would change: a BOM, CRLF, comments, dotted and inline tables, odd
/// spacing, foreign keys, no final newline.
fn intricate(url: &str, id: u64, token: &str) -> String {
    let text = format!(
        "\u{feff}# ours\nconcurrent   =  4\nsession_server.listen_address = \"[::]:8093\"\n\n\
         [[runners]] # the builder\n  name = 'b\u{fc}ilder'\n  url = \"{url}\"\n  id = {id}\n\
         \ttoken = \"{token}\"   # do not touch\n  token_obtained_at = 2020-01-01T00:00:00Z\n\
         \x20 token_expires_at = 2020-01-02T00:00:00Z # nor this\n  executor = \"docker\"\n\
         \x20 environment = [ \"A=1\",\n    \"B=2\", ]\n  feature_flags = {{ FF_X = true }}\n\
         \x20 docker.image = \"alpine\" # dotted\n  docker.volumes = [\"/cache\"]\n  [runners.cache]\n    Type = \"s3\"\n\n\
         [foreign]\nx = 0x1F"
    );
    text.replace('\n', "\r\n")
}

#[test]
fn rotation_changes_only_the_three_token_lines() {
    let sandbox = super::sandbox(Gitlab::builder().token_life("1h"));
    let (id, token) = sandbox.gitlab.add_runner(NewRunner::instance());
    let before = intricate(&sandbox.gitlab.url(), id, &token);
    sandbox.write_config(&before);
    let Output { code, stderr: log, .. } = sandbox.start(&["run", "--once"]).end();
    assert!(code == Some(0), "{log}");
    let after = sandbox.config();
    let runner = sandbox.gitlab.runner(id).unwrap();
    assert_eq!(runner.rotations, 1, "{log}");
    let (before, after): (Vec<_>, Vec<_>) = (before.split("\r\n").collect(), after.split("\r\n").collect());
    assert_eq!(before.len(), after.len());
    let changed: Vec<_> = before.iter().zip(&after).filter(|(old, new)| old != new).map(|(_, new)| *new).collect();
    assert_eq!(changed.len(), 3, "{changed:?}");
    assert_eq!(changed[0], format!("\ttoken = \"{}\"   # do not touch", runner.token));
    assert!(changed[1].starts_with("  token_obtained_at = 20") && changed[1].ends_with('Z'));
    assert!(changed[2].starts_with("  token_expires_at = 20") && changed[2].ends_with("Z # nor this"));
}

#[test]
fn overwritten_token_is_restored_without_a_reset() {
    let sandbox = enrolled(Gitlab::builder().token_life("6s"), SHORT);
    let daemon = sandbox.start(&["run"]);
    sandbox.wait_for_registration();
    let old = sandbox.config();
    sandbox.wait("a rotation", |sandbox| sandbox.gitlab.runners()[0].rotations == 1 && sandbox.is_in_step());
    // New tokens live for an hour, so nothing is due during the checks below.
    sandbox.gitlab.set_token_life("1h");
    sandbox.wait("a second rotation", |sandbox| sandbox.gitlab.runners()[0].rotations == 2 && sandbox.is_in_step());
    sandbox.gitlab.clear_requests();
    sandbox.write_config(&old);
    sandbox.wait("the current token to be back", Sandbox::is_in_step);
    assert!(sandbox.gitlab.requests_to(Endpoint::Reset).is_empty(), "{:?}", sandbox.gitlab.requests());
    assert!(daemon.log().contains("writing the current one"));
}

#[test]
fn added_enrollment_is_registered_without_a_restart() {
    let sandbox = enrolled(Gitlab::builder(), "");
    let daemon = sandbox.start(&["run"]);
    sandbox.wait_for_registration();
    sandbox.write("agent.toml", "nonsense = 1");
    sandbox.wait("the error", |_| daemon.log().contains("keeping the previous ones"));
    sandbox.write("agent.toml", &format!("{}{}", enrollment(&sandbox, "build-1"), enrollment(&sandbox, "build-2")));
    sandbox.wait("the second runner", |sandbox| sandbox.gitlab.runners().len() == 2 && sandbox.is_in_step());
    assert!(daemon.is_running());
}

#[test]
fn added_entry_is_served_despite_broken_ones() {
    let sandbox = super::sandbox(Gitlab::builder().token_life("1h"));
    let daemon = sandbox.start_serving();
    let (id, token) = sandbox.gitlab.add_runner(NewRunner::instance());
    let url = sandbox.gitlab.url();
    let config = format!(
        "[[runners]]\nname = \"no token\"\nurl = \"{url}\"\n[[runners]]\nname = \"variable\"\nurl = \"{url}\"\ntoken = \"$NOT_SET\"\n\
         [[runners]]\nname = \"good\"\nurl = \"{url}\"\nid = {id}\ntoken = \"{token}\"\n"
    );
    sandbox.write_config(&config);
    sandbox.wait("a verification", |sandbox| sandbox.gitlab.requests_to(Endpoint::Verify).len() == 1);
    assert_eq!(sandbox.config(), config);
    sandbox.write_config("[[runners]\n");
    sandbox.wait("the error", |_| daemon.log().contains("line 1, column"));
    assert_eq!(sandbox.config(), "[[runners]\n");
    sandbox.write_config(&config);
}

#[test]
fn sighup_triggers_a_verification() {
    let sandbox = enrolled(Gitlab::builder(), "");
    let daemon = sandbox.start(&["run"]);
    sandbox.wait_for_registration();
    // A probe may have preceded the registration.
    sandbox.gitlab.clear_requests();
    daemon.signal(Signal::HUP);
    sandbox.wait("a verification", |sandbox| sandbox.gitlab.requests_to(Endpoint::Verify).len() == 1);
}

#[test]
fn token_file_of_an_added_enrollment_is_watched() {
    let sandbox = super::sandbox(Gitlab::builder());
    let daemon = sandbox.start_serving();
    std::fs::create_dir(sandbox.path("secrets")).unwrap();
    sandbox.write("secrets/token", "GR1348941not-the-right-one");
    let enrollment = enrollment(&sandbox, "build-1").replace("\"token\"", "\"secrets/token\"");
    sandbox.write("agent.toml", &enrollment);
    sandbox.wait("the error", |_| daemon.log().contains("failed, trying again"));
    sandbox.write("secrets/token", &sandbox.gitlab.instance_registration_token());
    sandbox.wait_for_registration();
}

/// An enrollment by the token of a created runner, whose file is `secrets/token`; the daemon serves it.
fn serving_a_given_token(sandbox: &Sandbox) -> (Process, u64) {
    let (id, token) = sandbox.gitlab.add_runner(NewRunner::instance());
    sandbox.write("volume/1/token", &token);
    std::os::unix::fs::symlink("1", sandbox.path("volume/data")).unwrap();
    std::os::unix::fs::symlink("volume/data", sandbox.path("secrets")).unwrap();
    sandbox.write("agent.toml", &sandbox.enrollment("given", "token = { file = \"secrets/token\" }"));
    let daemon = sandbox.start(&["run"]);
    sandbox.wait("the entry", Sandbox::is_in_step);
    (daemon, id)
}

#[test]
fn replaced_file_of_a_given_token_is_noticed_while_the_runner_is_active() {
    let sandbox = super::sandbox(Gitlab::builder().token_life("30d"));
    let (_daemon, id) = serving_a_given_token(&sandbox);
    // A person resets the token in GitLab each time; nothing else is due for an hour.
    let put: [&dyn Fn(&str); 3] = [
        &|token| std::fs::write(sandbox.path("volume/1/token"), token).unwrap(),
        &|token| drop(sandbox.write("volume/1/token", token)),
        &|token| {
            sandbox.write("volume/2/token", token);
            std::os::unix::fs::symlink("2", sandbox.path("volume/new")).unwrap();
            std::fs::rename(sandbox.path("volume/new"), sandbox.path("volume/data")).unwrap();
        },
    ];
    for put in put {
        let token = sandbox.gitlab.revoke(id);
        put(&token);
        sandbox.wait("the token that was put there", Sandbox::is_in_step);
    }
}

#[test]
fn unreadable_file_of_a_given_token_is_reported_and_the_runner_stays_as_it_is() {
    let sandbox = super::sandbox(Gitlab::builder().token_life("30d"));
    let (daemon, id) = serving_a_given_token(&sandbox);
    let config = sandbox.config();
    let breaks: [&dyn Fn(); 3] = [
        &|| std::fs::remove_file(sandbox.path("volume/1/token")).unwrap(),
        &|| drop(sandbox.write("volume/1/token", "not a token")),
        &|| drop(sandbox.write_with_mode("volume/1/token", &sandbox.gitlab.runner(id).unwrap().token, 0o622)),
    ];
    for (number, breaks) in breaks.into_iter().enumerate() {
        breaks();
        let verified = sandbox.gitlab.requests_to(Endpoint::Verify).len();
        daemon.signal(Signal::HUP);
        sandbox.wait_for_requests(Endpoint::Verify, verified + 1);
        sandbox.wait("the report", |_| daemon.log().matches("cannot read the given token").count() == number + 1);
        assert_eq!(sandbox.config(), config);
    }
    let states = sandbox.run(&["status", "--output", "json"]);
    assert_eq!(states.exits(0).runner()["state"], "active");
    // A new token in its place is adopted.
    let token = sandbox.gitlab.revoke(id);
    sandbox.write("volume/1/token", &token);
    sandbox.wait("the token that was put there", Sandbox::is_in_step);
}

#[test]
fn directory_of_config_toml_may_be_made_or_replaced_while_serving() {
    let sandbox = super::sandbox(Gitlab::builder().token_life("30d"));
    std::fs::remove_dir(sandbox.path("config")).unwrap();
    let daemon = sandbox.start_serving();
    let (first, token) = sandbox.gitlab.add_runner(NewRunner::instance());
    sandbox.write_config(&sandbox.entry("first", first, &token));
    sandbox.wait_for_requests(Endpoint::Verify, 1);
    let (second, token) = sandbox.gitlab.add_runner(NewRunner::instance());
    sandbox.write("new/config.toml", &(sandbox.config() + &sandbox.entry("second", second, &token)));
    std::fs::rename(sandbox.path("config"), sandbox.path("old")).unwrap();
    std::fs::rename(sandbox.path("new"), sandbox.path("config")).unwrap();
    sandbox.wait_for_requests(Endpoint::Verify, 2);
    let (third, token) = sandbox.gitlab.add_runner(NewRunner::instance());
    sandbox.write_config(&(sandbox.config() + &sandbox.entry("third", third, &token)));
    sandbox.wait_for_requests(Endpoint::Verify, 3);
    assert!(daemon.is_running());
}

#[test]
fn two_reloads_do_not_confirm_a_refusal() {
    let settings = "[timing]\nconfirm_after = \"1h\"\n[recover]\nregister = \"always\"\n";
    let sandbox = enrolled(Gitlab::builder(), settings);
    let daemon = sandbox.start(&["run"]);
    sandbox.wait_for_registration();
    let entry = sandbox.config();
    sandbox.gitlab.order(Endpoint::Verify, Fault::status(403));
    sandbox.gitlab.order(Endpoint::Verify, Fault::status(403));
    for requests in [1, 2] {
        daemon.signal(Signal::HUP);
        sandbox.wait_for_requests(Endpoint::Verify, requests);
        sandbox.wait("the end of the reload", |_| daemon.log().matches("reloaded").count() == requests);
    }
    // The third one is accepted, so that what the second refusal has caused would have happened by then.
    daemon.signal(Signal::HUP);
    sandbox.wait_for_requests(Endpoint::Verify, 3);
    let Output { code, stderr: log, .. } = daemon.stop(Signal::QUIT);
    assert!(code == Some(0), "{log}");
    assert_eq!((sandbox.gitlab.requests_to(Endpoint::Register).len(), sandbox.gitlab.runners().len()), (1, 1), "{log}");
    assert_eq!(sandbox.config(), entry);
}

#[test]
fn replaced_access_token_is_tried_before_a_new_registration() {
    for is_file_replaced in [true, false] {
        let quick = "confirm_after = \"10ms\"\nsettle_after = \"10ms\"\nfloor = \"10ms\"\nbackoff_first = \"10ms\"\n";
        let sandbox = enrolled(Gitlab::builder(), "");
        sandbox.write("access", "glpat-wrong");
        let server =
            format!("[[server]]\nurl = \"{}\"\naccess_token = {{ file = \"access\" }}\n", sandbox.gitlab.url());
        let settings = format!("[timing]\n{quick}[recover]\nregister = \"always\"\n{server}");
        let enrollment = enrollment(&sandbox, "build-1");
        sandbox.write("agent.toml", &format!("{settings}{enrollment}"));
        let daemon = sandbox.start_serving();
        sandbox.wait_for_registration();
        let refused = serde_json::json!({ "message": "403 Forbidden - invalid token supplied" });
        sandbox.gitlab.order(Endpoint::Register, Fault::json(403, refused)).always();
        let id = sandbox.gitlab.runners()[0].id;
        sandbox.gitlab.revoke(id);
        daemon.signal(Signal::HUP);
        sandbox.wait("both rungs to be given up", |sandbox| {
            let status = sandbox.run(&["status"]).stdout;
            status.contains("(in 5h") || status.contains("(in 6h")
        });
        sandbox.gitlab.clear_requests();
        let access = sandbox.gitlab.add_access_token([fake_gitlab::Scope::Api]);
        if is_file_replaced {
            sandbox.write("access", &access);
        } else {
            sandbox.write("other", &access);
            sandbox.write("agent.toml", &format!("{}{enrollment}", settings.replace("\"access\"", "\"other\"")));
        }
        sandbox.wait("the recovery", |sandbox| sandbox.gitlab.runners()[0].rotations == 2 && sandbox.is_in_step());
        assert!(sandbox.gitlab.requests_to(Endpoint::Register).is_empty());
        assert_eq!(sandbox.gitlab.runners().len(), 1);
        daemon.stop(Signal::QUIT);
    }
}
