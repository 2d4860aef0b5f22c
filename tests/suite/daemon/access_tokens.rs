//! The daemon keeps the access token of a server.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use fake_gitlab::{Endpoint, Fault, Gitlab, NewAccessToken, NewRunner, Order, Scope};
use rustix::process::Signal;
use test_support::{Output, Process, Sandbox};

use super::sandbox;

const DAY: Duration = Duration::from_secs(24 * 3600);
const MINUTE: Duration = Duration::from_secs(60);

/// A sandbox whose agent.toml rotates the access token in the file `access-token`, which lives 90 days.
fn kept() -> (Sandbox, String) {
    kept_with("rotate = true", "")
}

fn kept_with(keys: &str, settings: &str) -> (Sandbox, String) {
    let sandbox = sandbox(Gitlab::builder());
    let new = NewAccessToken::personal().scopes([Scope::Api]).expires_on(sandbox.gitlab.day_in(90));
    let token = sandbox.gitlab.create_access_token(new);
    sandbox.write_with_mode("access-token", &format!("{token}\n"), 0o600);
    let keys = if keys.is_empty() { String::new() } else { format!(", {keys}") };
    let server = format!(
        "{settings}\n[[server]]\nurl = \"{}\"\naccess_token = {{ file = \"access-token\"{keys} }}\n",
        sandbox.gitlab.url()
    );
    sandbox.write("agent.toml", &server);
    (sandbox, token)
}

fn in_file(sandbox: &Sandbox) -> String {
    sandbox.read("access-token").trim().to_owned()
}

/// Waits for an access token in the file that the server accepts, and that is not this one.
fn wait_for_another(sandbox: &Sandbox, old: &str) -> String {
    sandbox.wait("another access token in the file", |sandbox| {
        let token = in_file(sandbox);
        token != old && sandbox.gitlab.accepts_access_token(&token)
    });
    in_file(sandbox)
}

/// No rotation was sent twice with one token.
fn assert_no_reuse(sandbox: &Sandbox, context: &str) {
    for token in sandbox.gitlab.access_tokens().values() {
        assert!(token.rotate_requests <= 1, "{context}: {} requests with token {}", token.rotate_requests, token.id);
    }
}

fn status(sandbox: &Sandbox) -> Output {
    sandbox.run(&["status"])
}

/// Makes the daemon look again, and waits until it has asked.
fn look_again(sandbox: &Sandbox, daemon: &Process) {
    let asked = sandbox.gitlab.requests_to(Endpoint::ShowAccessToken).len();
    daemon.signal(Signal::HUP);
    sandbox.wait_for_requests(Endpoint::ShowAccessToken, asked + 1);
}

/// Makes the daemon look again, and waits until the record holds the answer. A jump of the server's clock during a pass
/// would make the question of that pass an old use.
fn look_again_to_the_end(sandbox: &Sandbox, daemon: &Process) {
    // The record has whole seconds.
    sandbox.gitlab.advance(Duration::from_secs(2));
    let asked_after = sandbox.gitlab.now();
    daemon.signal(Signal::HUP);
    sandbox.wait("an answer", |sandbox| {
        let records = access_records(sandbox);
        let asked_at = |record: &serde_json::Value| record["asked_at"].as_str()?.parse::<jiff::Timestamp>().ok();
        let is_new = |at: jiff::Timestamp| at.as_second() >= asked_after.as_second();
        !records.is_empty() && records.iter().all(|record| asked_at(record).is_some_and(is_new))
    });
}

/// The directory of what is kept about access tokens, once there is one.
fn access_directory(sandbox: &Sandbox) -> Option<PathBuf> {
    let found = fs::read_dir(sandbox.path("state")).ok()?.map(|entry| entry.unwrap().path().join("access"));
    found.into_iter().find(|path| path.is_dir())
}

fn access_records(sandbox: &Sandbox) -> Vec<serde_json::Value> {
    let directory = access_directory(sandbox).and_then(|directory| fs::read_dir(directory).ok());
    let files = directory.into_iter().flatten().map(|entry| entry.unwrap().path());
    let records = files.filter(|path| path.extension().is_some_and(|it| it == "json"));
    records.filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok()).collect()
}

#[test]
fn a_token_with_a_third_of_its_life_left_is_rotated_and_its_runners_are_created_with_the_new_one() {
    let (sandbox, old) = kept();
    sandbox.gitlab.advance(61 * DAY);
    let daemon = sandbox.start_serving();
    let new = wait_for_another(&sandbox, &old);
    let ends = format!("ends on {} ", sandbox.gitlab.day_in(90));
    sandbox.wait("the end in status", |sandbox| status(sandbox).stdout.contains(&ends));
    let shown = status(&sandbox).stdout;
    assert!(
        shown.contains(&format!("access token for {}: active, named `runner-agent`", sandbox.gitlab.url())),
        "{shown}"
    );
    assert!(shown.contains("scopes api, ends on ") && shown.contains("rotates on "), "{shown}");
    let enrollment = format!(
        "[[enroll]]\nname = \"later\"\nurl = \"{}\"\ncreate = {{ runner_type = \"instance_type\" }}\n",
        sandbox.gitlab.url()
    );
    sandbox.write("agent.toml", &(sandbox.read("agent.toml") + &enrollment));
    daemon.signal(Signal::HUP);
    sandbox.wait_for_registration();
    let metrics = sandbox.run(&["status", "--output", "json"]);
    assert!(
        metrics.stdout.contains("\"rotations\": 1") || metrics.stdout.contains("\"rotations\":1"),
        "{}",
        metrics.stdout
    );
    let Output { stderr: log, .. } = daemon.stop(Signal::QUIT);
    assert!(log.contains("the access token was rotated, and the file has the new one"), "{log}");
    assert!(![&old, &new].iter().any(|token| log.contains(token.as_str())), "a token is in the log");
    assert_no_reuse(&sandbox, &log);
    let mode = fs::metadata(sandbox.path("access-token")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(in_file(&sandbox), new);
}

#[test]
fn runners_that_were_created_with_the_old_token_are_left_alone_by_a_rotation() {
    let (sandbox, old) = kept();
    let enrollment = format!(
        "[[enroll]]\nname = \"made\"\nurl = \"{}\"\ncreate = {{ runner_type = \"instance_type\" }}\n",
        sandbox.gitlab.url()
    );
    sandbox.write("agent.toml", &(sandbox.read("agent.toml") + &enrollment));
    let daemon = sandbox.start_serving();
    sandbox.wait_for_registration();
    sandbox.gitlab.advance(61 * DAY);
    daemon.signal(Signal::HUP);
    wait_for_another(&sandbox, &old);
    look_again(&sandbox, &daemon);
    daemon.stop(Signal::QUIT);
    let daemon = sandbox.start_serving();
    look_again(&sandbox, &daemon);
    let log = daemon.stop(Signal::QUIT).stderr;
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::CreateRunner).len(), 1, "{log}");
    assert_eq!(sandbox.gitlab.runners().len(), 1, "{log}");
    assert_no_reuse(&sandbox, &log);
}

#[test]
fn a_lost_answer_is_never_repeated_and_a_new_token_of_a_person_is_taken_at_once() {
    let (sandbox, old) = kept();
    let (_, runner) = sandbox.add_created("works");
    sandbox.gitlab.order(Endpoint::RotateAccessToken, Fault::cut().after_acting());
    sandbox.gitlab.advance(61 * DAY);
    let daemon = sandbox.start_serving();
    sandbox.wait("the rotation", |sandbox| !sandbox.gitlab.accepts_access_token(&old));
    for _ in 0..4 {
        sandbox.gitlab.advance(2 * MINUTE);
        look_again(&sandbox, &daemon);
    }
    sandbox.wait("the loss in status", |sandbox| status(sandbox).stdout.contains(": lost"));
    let shown = status(&sandbox).stdout;
    assert!(shown.contains("make a new one in GitLab and put it into the file"), "{shown}");
    assert!(sandbox.config().contains(&runner) && shown.contains("active"), "{shown}");
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::RotateAccessToken).len(), 1);
    let new = NewAccessToken::personal().scopes([Scope::Api]).expires_on(sandbox.gitlab.day_in(80));
    let new = sandbox.gitlab.create_access_token(new);
    sandbox.write_with_mode("access-token", &new, 0o600);
    let ends = format!("ends on {} ", sandbox.gitlab.day_in(80));
    sandbox.wait("the new token in status", |sandbox| status(sandbox).stdout.contains(&ends));
    let log = daemon.stop(Signal::QUIT).stderr;
    assert!(log.contains("the new access token is lost with the answer"), "{log}");
    assert_no_reuse(&sandbox, &log);
}

#[test]
fn a_rotation_whose_answer_was_lost_and_that_was_not_executed_is_made_after_ten_minutes() {
    let (sandbox, old) = kept();
    sandbox.gitlab.order(Endpoint::RotateAccessToken, Fault::cut());
    sandbox.gitlab.advance(61 * DAY);
    let daemon = sandbox.start_serving();
    sandbox.wait_for_requests(Endpoint::RotateAccessToken, 1);
    sandbox.gitlab.advance(5 * MINUTE);
    look_again(&sandbox, &daemon);
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::RotateAccessToken).len(), 1, "a replica may be behind");
    sandbox.gitlab.advance(6 * MINUTE);
    daemon.signal(Signal::HUP);
    wait_for_another(&sandbox, &old);
    let log = daemon.stop(Signal::QUIT).stderr;
    assert!(log.contains("whose answer was lost was not executed"), "{log}");
}

#[test]
fn kill_at_any_moment_of_a_rotation_leaves_a_good_token_unless_its_answer_was_not_read() {
    let (mut rotated, mut lost) = (0, 0);
    for delay in (0..30).map(|step| Duration::from_millis(10 + step * 3)) {
        let (sandbox, old) = kept();
        sandbox.gitlab.advance(61 * DAY);
        let daemon = sandbox.start(&["run"]);
        thread::sleep(delay);
        daemon.kill();
        let daemon = sandbox.start_serving();
        let log = || daemon.log();
        sandbox.wait("a good token, or the news that it is lost", |sandbox| {
            if log().contains("the new access token is lost") {
                return true;
            }
            let token = in_file(sandbox);
            let is_rotated = token != old && sandbox.gitlab.accepts_access_token(&token);
            if !is_rotated {
                // Nothing is settled before that.
                sandbox.gitlab.advance(11 * MINUTE);
                daemon.signal(Signal::HUP);
                thread::sleep(Duration::from_millis(20));
            }
            is_rotated
        });
        let log = log();
        if log.contains("the new access token is lost") {
            lost += 1
        } else {
            rotated += 1
        }
        assert_no_reuse(&sandbox, &format!("killed after {delay:?}: {log}"));
    }
    assert!(rotated > lost, "{rotated} rotated, {lost} lost");
}

#[test]
fn a_stop_waits_for_the_answer_that_is_the_only_copy_of_an_access_token() {
    let (sandbox, old) = kept();
    sandbox.gitlab.advance(61 * DAY);
    let held = sandbox.gitlab.order(Endpoint::RotateAccessToken, Fault::hold().after_acting());
    let daemon = sandbox.start_serving();
    sandbox.wait("the rotation", |sandbox| !sandbox.gitlab.accepts_access_token(&old));
    daemon.signal(Signal::TERM);
    sandbox.wait("the stop", |_| daemon.log().contains("waiting for answers that are the only copies of new tokens"));
    held.release();
    let Output { code, stderr: log, .. } = daemon.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(sandbox.gitlab.accepts_access_token(&in_file(&sandbox)), "{log}");
}

#[test]
fn a_token_that_is_not_rotated_is_warned_about_and_its_scopes_are_compared() {
    let (sandbox, _) = kept_with("", "");
    let weak = NewAccessToken::personal().scopes([Scope::CreateRunner]).expires_on(sandbox.gitlab.day_in(90));
    let weak = sandbox.gitlab.create_access_token(weak);
    sandbox.write_with_mode("access-token", &weak, 0o600);
    let daemon = sandbox.start_serving();
    sandbox.wait("the scopes", |_| daemon.log().contains("it lacks the scope `manage_runner`"));
    let strong = NewAccessToken::personal().scopes([Scope::Api]).expires_on(sandbox.gitlab.day_in(40));
    let strong = sandbox.gitlab.create_access_token(strong);
    sandbox.write_with_mode("access-token", &strong, 0o600);
    sandbox.wait("a good one", |_| daemon.log().contains("the access token is well again"));
    sandbox.gitlab.advance(30 * DAY);
    look_again(&sandbox, &daemon);
    sandbox.wait("the first warning", |_| daemon.log().contains("the access token ends soon: it ends in "));
    sandbox.gitlab.advance(7 * DAY);
    look_again(&sandbox, &daemon);
    sandbox.wait("the second one", |_| daemon.log().contains("the access token ends very soon"));
    sandbox.gitlab.advance(4 * DAY);
    look_again(&sandbox, &daemon);
    sandbox.wait("the end", |sandbox| status(sandbox).stdout.contains("refused"));
    let shown = status(&sandbox).stdout;
    assert!(shown.contains("it has expired on ") && shown.contains("make a new one in GitLab"), "{shown}");
}

#[test]
fn a_gitlab_without_the_call_is_said_once_and_without_alarm() {
    let (sandbox, _) = kept();
    sandbox.gitlab.upgrade_to("15.4");
    let daemon = sandbox.start_serving();
    sandbox.wait("the note", |_| daemon.log().contains("does not say when an access token ends"));
    look_again(&sandbox, &daemon);
    let log = daemon.stop(Signal::QUIT).stderr;
    assert_eq!(log.matches("does not say when an access token ends").count(), 1, "{log}");
    assert!(!log.contains("ERROR"), "{log}");
}

/// What is done wrong, how, and what is said of it.
type Mistake = (&'static str, fn(&Sandbox), &'static str);

#[test]
fn each_mistake_says_what_and_where_and_stops_no_runner() {
    let cases: [Mistake; 5] = [
        ("a runner's token", |sandbox| write(sandbox, "glrt-0123456789abcdefghij"), "runner authentication token"),
        (
            "a token of another server",
            |sandbox| write(sandbox, "glpat-0123456789abcdefghij"),
            "put a valid access token into the file",
        ),
        ("no file", |sandbox| fs::remove_file(sandbox.path("access-token")).unwrap(), "cannot read the token file"),
        ("an expired one", |sandbox| sandbox.gitlab.advance(40 * DAY), "put a valid access token into the file"),
        ("beyond the limit", |sandbox| sandbox.gitlab.limit_access_token_days(Some(30)), "must be before"),
    ];
    for (case, spoil, expected) in cases {
        let (sandbox, _) = kept_with("rotate = true, life = \"90d\"", "");
        let (id, token) = sandbox.gitlab.add_runner(NewRunner::instance());
        sandbox.add_entry("works", Some(id), &token);
        sandbox.gitlab.advance(61 * DAY);
        spoil(&sandbox);
        let daemon = sandbox.start_serving();
        let patience = std::time::Duration::from_secs(20);
        assert!(daemon.wait_for(patience, |daemon| daemon.log().contains(expected)), "{case}: {}", daemon.log());
        let shown = status(&sandbox).stdout;
        assert!(shown.contains(expected) && shown.contains("works") && shown.contains("active"), "{case}: {shown}");
        let log = daemon.stop(Signal::QUIT).stderr;
        assert!(log.contains("put") || log.contains("life"), "{case}: {log}");
        assert_no_reuse(&sandbox, case);
    }
}

fn write(sandbox: &Sandbox, token: &str) {
    sandbox.write_with_mode("access-token", token, 0o600);
}

#[test]
fn a_symbolic_link_stays_and_its_target_is_replaced() {
    let (sandbox, old) = kept();
    fs::rename(sandbox.path("access-token"), sandbox.path("managed-token")).unwrap();
    std::os::unix::fs::symlink("managed-token", sandbox.path("access-token")).unwrap();
    sandbox.gitlab.advance(61 * DAY);
    let daemon = sandbox.start_serving();
    wait_for_another(&sandbox, &old);
    daemon.stop(Signal::QUIT);
    assert_eq!(fs::read_link(sandbox.path("access-token")).unwrap(), Path::new("managed-token"));
    assert!(sandbox.gitlab.accepts_access_token(sandbox.read("managed-token").trim()));
}

#[test]
fn a_year_of_90_day_tokens_creates_and_recovers_runners_all_along() {
    let timing =
        "[timing]\nconfirm_after = \"10ms\"\nsettle_after = \"10ms\"\nfloor = \"10ms\"\nbackoff_first = \"10ms\"\n";
    let (sandbox, _) = kept_with("rotate = true, life = \"90d\"", timing);
    let daemon = sandbox.start_serving();
    for month in 1..=12 {
        for _ in 0..30 {
            sandbox.gitlab.advance(DAY);
            look_again_to_the_end(&sandbox, &daemon);
        }
        let enrollment = format!(
            "[[enroll]]\nname = \"month-{month}\"\nurl = \"{}\"\ncreate = {{ runner_type = \"instance_type\" }}\n",
            sandbox.gitlab.url()
        );
        sandbox.write("agent.toml", &(sandbox.read("agent.toml") + &enrollment));
        sandbox.wait("another runner", |sandbox| sandbox.gitlab.runners().len() == month && sandbox.is_in_step());
        let newest = sandbox.gitlab.runners().last().unwrap().id;
        sandbox.gitlab.revoke(newest);
        daemon.signal(Signal::HUP);
        let is_recovered = |_: &Process| sandbox.is_in_step();
        assert!(daemon.wait_for(Duration::from_secs(20), is_recovered), "month {month}: {}", daemon.log());
        assert_eq!(sandbox.gitlab.runners().len(), month, "recovered by its id, month {month}");
    }
    let log = daemon.stop(Signal::QUIT).stderr;
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::ResetById).len(), 12, "{log}");
    assert_no_reuse(&sandbox, &log);
    let tokens = sandbox.gitlab.access_tokens();
    let mut line: Vec<_> = tokens.values().collect();
    line.sort_by_key(|token| token.id);
    // Sixty days each, so a year of 360 days has five or six.
    assert!((6..=7).contains(&line.len()), "{} tokens", line.len());
    for (old, new) in line.iter().zip(&line[1..]) {
        let days = old.days_left_at(new.created_at).unwrap();
        // The next day may have begun here before the daemon has rotated.
        assert!(days >= 27, "rotated {days} days before its end");
    }
}

#[test]
fn a_use_from_elsewhere_is_reported_and_own_calls_of_a_former_process_are_none() {
    let (sandbox, old) = kept();
    let enrollment = |name: &str| {
        format!(
            "[[enroll]]\nname = \"{name}\"\nurl = \"{}\"\ncreate = {{ runner_type = \"instance_type\" }}\n",
            sandbox.gitlab.url()
        )
    };
    // Each process uses the token an hour after its first question, and the next one asks on the next day.
    for name in ["one", "two", "three"] {
        let daemon = sandbox.start_serving();
        look_again_to_the_end(&sandbox, &daemon);
        sandbox.gitlab.advance(60 * MINUTE);
        look_again_to_the_end(&sandbox, &daemon);
        let count = sandbox.gitlab.runners().len();
        sandbox.write("agent.toml", &(sandbox.read("agent.toml") + &enrollment(name)));
        sandbox.wait("another runner", |sandbox| sandbox.gitlab.runners().len() == count + 1 && sandbox.is_in_step());
        daemon.stop(Signal::QUIT);
        sandbox.gitlab.advance(DAY);
    }
    let daemon = sandbox.start_serving();
    look_again_to_the_end(&sandbox, &daemon);
    assert!(!status(&sandbox).stdout.contains("used from elsewhere"), "{}", status(&sandbox).stdout);
    for part in [2, 3] {
        sandbox.gitlab.advance(DAY);
        sandbox.gitlab.use_access_token(&old);
        // GitLab notes uses a minute apart: a later question would hide this one.
        sandbox.gitlab.advance(MINUTE / part);
        look_again_to_the_end(&sandbox, &daemon);
    }
    sandbox.wait("the report", |sandbox| status(sandbox).stdout.contains("it is used from elsewhere too"));
    sandbox.gitlab.advance(70 * DAY);
    look_again_to_the_end(&sandbox, &daemon);
    assert!(sandbox.gitlab.requests_to(Endpoint::RotateAccessToken).is_empty());
    sandbox.write(
        "agent.toml",
        &sandbox.read("agent.toml").replace("rotate = true", "rotate = true, used_elsewhere = \"rotate\""),
    );
    wait_for_another(&sandbox, &old);
}

/// A daemon whose rotation is held after the server has executed it, and the directory of its records, which is away.
fn rotating_without_records() -> (Sandbox, Process, Order, PathBuf) {
    let (sandbox, _) = kept();
    sandbox.gitlab.advance(61 * DAY);
    let held = sandbox.gitlab.order(Endpoint::RotateAccessToken, Fault::hold().after_acting());
    let daemon = sandbox.start_serving();
    sandbox.wait_for_requests(Endpoint::RotateAccessToken, 1);
    let records = access_directory(&sandbox).unwrap();
    fs::rename(&records, records.with_extension("away")).unwrap();
    fs::write(&records, "no directory").unwrap();
    (sandbox, daemon, held, records)
}

fn bring_back(records: &Path) {
    fs::remove_file(records).unwrap();
    fs::rename(records.with_extension("away"), records).unwrap();
}

#[test]
fn a_new_token_is_in_its_file_although_the_state_directory_cannot_be_written() {
    let (sandbox, daemon, held, records) = rotating_without_records();
    let old = in_file(&sandbox);
    held.release();
    let new = wait_for_another(&sandbox, &old);
    assert!(
        daemon.wait_for(Duration::from_secs(60), |daemon| daemon.log().contains("was rotated")),
        "{}",
        daemon.log()
    );
    // Nothing is left that a stop would lose or wait for.
    let log = daemon.stop(Signal::QUIT).stderr;
    assert!(!log.contains("it is lost") && !log.contains("waiting for answers"), "{log}");
    bring_back(&records);
    let daemon = sandbox.start_serving();
    sandbox.wait("the new token in status", |sandbox| status(sandbox).stdout.contains(": active, "));
    daemon.stop(Signal::QUIT);
    assert_eq!(in_file(&sandbox), new);
    assert_no_reuse(&sandbox, &log);
}

#[test]
fn a_new_token_in_memory_alone_is_stored_although_its_server_left_the_settings() {
    let (sandbox, daemon, held, records) = rotating_without_records();
    let old = in_file(&sandbox);
    fs::remove_file(sandbox.path("access-token")).unwrap();
    fs::create_dir(sandbox.path("access-token")).unwrap();
    held.release();
    let is_said = |sandbox: &Sandbox| status(sandbox).stdout.contains("the new one is in memory alone");
    sandbox.wait("the warning in status", is_said);
    let settings = sandbox.read("agent.toml");
    sandbox.write("agent.toml", settings.split("[[server]]").next().unwrap());
    daemon.signal(Signal::HUP);
    sandbox.wait("the reload", |sandbox| {
        sandbox.run(&["status", "--output", "json"]).stdout.contains("\"reloads_done\": 1")
    });
    assert!(is_said(&sandbox), "{}", status(&sandbox).stdout);
    fs::remove_dir(sandbox.path("access-token")).unwrap();
    sandbox.write_with_mode("access-token", &old, 0o600);
    wait_for_another(&sandbox, &old);
    bring_back(&records);
    sandbox.wait("the end of its report", |sandbox| !status(sandbox).stdout.contains("access token for"));
    daemon.stop(Signal::QUIT);
    assert_no_reuse(&sandbox, "");
}

#[test]
fn a_single_pass_ends_once_a_new_access_token_is_stored() {
    let (sandbox, _) = kept();
    sandbox.gitlab.advance(61 * DAY);
    let old = in_file(&sandbox);
    let held = sandbox.gitlab.order(Endpoint::RotateAccessToken, Fault::hold().after_acting());
    let pass = sandbox.start(&["run", "--once"]);
    sandbox.wait_for_requests(Endpoint::RotateAccessToken, 1);
    let records = access_directory(&sandbox).unwrap();
    fs::rename(&records, records.with_extension("away")).unwrap();
    fs::write(&records, "no directory").unwrap();
    fs::remove_file(sandbox.path("access-token")).unwrap();
    fs::create_dir(sandbox.path("access-token")).unwrap();
    held.release();
    assert!(pass.wait_for(Duration::from_secs(60), |pass| pass.log().contains("in memory alone")), "{}", pass.log());
    assert!(pass.is_running());
    bring_back(&records);
    fs::remove_dir(sandbox.path("access-token")).unwrap();
    sandbox.write_with_mode("access-token", &old, 0o600);
    pass.end();
    wait_for_another(&sandbox, &old);
    assert_no_reuse(&sandbox, "");
}
