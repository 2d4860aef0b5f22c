//! `doctor`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use fake_gitlab::{Endpoint, Fault, Gitlab, NewAccessToken, NewRunner, Scope, Tls};
use rustix::process::Signal;
use serde_json::Value;
use test_support::{Output, Sandbox};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A sandbox with one accepted runner.
fn sandbox() -> Sandbox {
    sandbox_with(Gitlab::builder().token_life("1d"))
}

fn sandbox_with(gitlab: fake_gitlab::Builder) -> Sandbox {
    let sandbox = super::sandbox_with(gitlab);
    sandbox.add_created("found");
    sandbox
}

/// The row of a check of a subject that begins so.
#[track_caller]
fn row(done: &Output, subject: &str, check: &str) -> Value {
    let rows = done.rows("checks");
    let is_it = |row: &&Value| row["check"] == check && row["subject"].as_str().unwrap().starts_with(subject);
    rows.iter().find(is_it).unwrap_or_else(|| panic!("{subject} {check}: {done:#?}")).clone()
}

/// The result and the message of a row.
#[track_caller]
fn found(done: &Output, subject: &str, check: &str) -> (String, String) {
    let row = row(done, subject, check);
    (row["result"].as_str().unwrap().to_owned(), row["message"].as_str().unwrap().to_owned())
}

#[test]
fn doctor_of_a_well_machine_says_so_line_by_line_and_changes_nothing() {
    let sandbox = super::sandbox();
    sandbox.add_created("found");
    let config = sandbox.config();
    let done = sandbox.run_with(&["doctor"], &[("LANG", "C.UTF-8")]);
    let address = sandbox.gitlab.address();
    let text = done.exits(0).stdout.replace(sandbox.root().to_str().unwrap(), "ROOT");
    let text = text.replace(&address.to_string(), "ADDRESS").replace(&address.ip().to_string(), "IP");
    insta::assert_snapshot!("doctor", text);
    assert_eq!(sandbox.config(), config);
    assert!(!sandbox.path("state").exists());
    assert!(sandbox.run(&["doctor"]).exits(0).stdout.is_ascii());
}

#[test]
fn servers_that_many_entries_share_are_asked_once_and_each_token_is_verified_once() {
    let sandbox = sandbox();
    sandbox.add_created("second");
    sandbox.add_created("third");
    sandbox.run(&["doctor"]).exits(0);
    let without_token = |request: &&fake_gitlab::Request| !request.body.contains("token");
    let requests = sandbox.gitlab.requests_to(Endpoint::Verify);
    assert_eq!((requests.iter().filter(without_token).count(), requests.len()), (1, 4));
    assert_eq!(sandbox.gitlab.requests().len(), 4, "nothing else is sent");
}

#[test]
fn doctor_tells_accepted_tokens_from_refused_ones_and_says_when_they_rotate() {
    let sandbox = sandbox();
    let (refused, _) = sandbox.add_created("refused");
    sandbox.gitlab.revoke(refused);
    let done = sandbox.run(&["doctor", "-o", "json"]);
    let (result, message) = found(done.exits(6), "runner `found`", "token");
    assert!(result == "ok" && message.contains("(glrt-): accepted, expires "), "{message}");
    assert_eq!(found(&done, "runner `refused`", "token").0, "error");
    assert_eq!(found(&done, "runner `found`", "rotation").0, "ok");
    // Without another runner the refusal alone decides.
    let config = sandbox.config();
    sandbox.write_config(&config[config.rfind("[[runners]]").unwrap()..]);
    sandbox.run(&["doctor"]).exits(3);
}

#[test]
fn a_runner_that_was_unregistered_here_is_not_verified() {
    let sandbox = sandbox();
    sandbox.write("token", &sandbox.gitlab.instance_registration_token());
    sandbox.write_fast_settings(&sandbox.enrollment("build-1", "registration_token = { file = \"token\" }"));
    sandbox.run(&["run", "--once"]).exits(0);
    sandbox.run(&["unregister", "--name", "build-1"]).exits(0);
    let before = sandbox.gitlab.requests_to(Endpoint::Verify).len();
    let done = sandbox.run(&["doctor", "-o", "json"]);
    let (result, message) = found(done.exits(0), "runner `build-1`", "token");
    assert!(result == "note" && message.contains("was unregistered here"), "{result}: {message}");
    // The probe, and the other runner.
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::Verify).len(), before + 2);
}

#[test]
fn a_runner_that_a_stop_has_deleted_is_registered_anew_and_not_taken_up() {
    let sandbox = super::sandbox();
    sandbox.write("token", &sandbox.gitlab.instance_registration_token());
    sandbox.write_fast_settings(&sandbox.enrollment("build-1", "registration_token = { file = \"token\" }"));
    let daemon = sandbox.start_serving();
    sandbox.wait("the registration", |sandbox| sandbox.config().contains("build-1"));
    daemon.stop(Signal::TERM).exits(0);
    let done = sandbox.run(&["doctor", "-o", "json"]);
    let row = row(done.exits(0), "runner `build-1`", "token");
    assert_eq!(row["remedy"], "the next start of the daemon registers it anew", "{row}");
    assert!(!row["message"].as_str().unwrap().contains("manager"), "{row}");
}

#[test]
fn an_enrollment_that_the_daemon_cannot_register_is_told_with_its_failure() {
    let sandbox = super::sandbox();
    sandbox.write("token", "glrt-0123456789abcdefghij");
    sandbox.write_fast_settings(&sandbox.enrollment("build-1", "token = { file = \"token\" }"));
    let daemon = sandbox.start_serving();
    sandbox.wait("the refusal", |sandbox| {
        let status = sandbox.run(&["status", "-o", "json"]);
        status.code == Some(0) && !status.runners()[0]["error"].is_null()
    });
    let done = sandbox.run(&["doctor", "-o", "json"]);
    let (result, message) = found(done.exits(3), "runner `build-1`", "token");
    assert!(result == "error" && message.contains("the daemon cannot register it: "), "{message}");
    assert!(!done.stdout.contains("start the daemon"), "{done:?}");
    daemon.stop(Signal::QUIT).exits(0);
}

#[test]
fn tokens_are_judged_by_the_servers_time_whatever_this_machines_clock_says() {
    // The server's clock is two years behind this machine's, as a machine sees it that is two years ahead.
    let sandbox = super::sandbox_with(Gitlab::builder().token_life("30d"));
    sandbox.gitlab.set_clock_skew(jiff::SignedDuration::from_hours(-730 * 24));
    sandbox.add_created("found");
    sandbox.run(&["verify"]).exits(0);
    let done = sandbox.run(&["doctor", "-o", "json"]);
    let (result, message) = found(done.exits(0), "runner `found`", "token");
    assert!(result == "ok" && message.contains("expires"), "{message}");
    let (result, message) = found(&done, "runner `found`", "rotation");
    assert!(result == "ok" && message.starts_with("due "), "{result}: {message}");
}

#[test]
fn a_date_after_the_expiry_of_an_accepted_token_is_told_with_the_difference() {
    let sandbox = sandbox();
    let ahead = sandbox.gitlab.now() + Duration::from_secs(40 * 86_400);
    let date = ahead.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    sandbox.gitlab.order(Endpoint::Any, Fault::header("date", &date)).always();
    let done = sandbox.run(&["doctor", "-o", "json"]);
    let (result, message) = found(done.exits(0), "runner `found`", "rotation");
    assert!(result == "warning" && message.contains("by the server's clock expired 3"), "{message}");
}

#[test]
fn a_wrong_kind_of_token_is_named_and_not_sent() {
    let sandbox = super::sandbox();
    let token = "glpat-0123456789abcdefghij";
    sandbox.write_config(&sandbox.entry("wrong", 7, token));
    let done = sandbox.run(&["doctor", "-o", "json"]);
    let (result, message) = found(done.exits(4).hides(&[token]), "runner `wrong`", "token");
    assert!(result == "error" && message.contains("access token (glpat-)"), "{message}");
    assert_eq!(sandbox.gitlab.requests().len(), 1, "the probe alone");
}

#[test]
fn a_server_that_does_not_answer_ends_the_way_to_it() {
    let sandbox = sandbox();
    sandbox.gitlab.refuse_connections();
    let done = sandbox.run(&["doctor", "-o", "json"]);
    let (result, message) = found(done.exits(5), "http://", "connection");
    assert!(result == "error" && message.contains("refused"), "{message}");
    assert_eq!(found(&done, "runner `found`", "token").0, "error");
    let url = sandbox.gitlab.url();
    let unknown = format!("http://{}.example.com", "a".repeat(64));
    sandbox.write_config(&sandbox.config().replace(&url, &unknown));
    let done = sandbox.run(&["doctor", "-o", "json"]);
    assert_eq!(found(done.exits(5), &unknown, "name").0, "error");
}

#[test]
fn the_missing_authority_of_a_certificate_is_named() {
    let sandbox = sandbox_with(Gitlab::builder().tls(Tls::self_signed(["127.0.0.1"])));
    let done = sandbox.run(&["doctor", "-o", "json"]);
    let (result, message) = found(done.exits(5), "https://", "certificate");
    assert!(result == "error" && message.contains("unknown issuer"), "{message}");
    assert!(message.contains(" issued by `") && message.contains("the certificate of `"), "{message}");
    let remedy = row(&done, "https://", "certificate")["remedy"].clone();
    assert!(remedy.as_str().unwrap().contains("tls-ca-file"), "{remedy}");
    let ca = sandbox.write("ca.pem", &sandbox.gitlab.ca_pem());
    sandbox.write_config(&format!("{}tls-ca-file = \"{}\"\n", sandbox.config(), ca.display()));
    let done = sandbox.run(&["doctor", "-o", "json"]);
    let (result, message) = found(done.exits(0), "https://", "certificate");
    assert!(result == "ok" && message.starts_with("trusted; it presents `"), "{message}");
}

#[test]
fn a_clock_that_differs_from_the_servers_is_said() {
    let sandbox = sandbox();
    sandbox.gitlab.advance(std::time::Duration::from_secs(7200));
    let done = sandbox.run(&["doctor", "-o", "json"]);
    let (result, message) = found(done.exits(0), "http://", "clock");
    assert!(
        result == "warning" && message.starts_with("this machine's clock is ") && message.contains("behind"),
        "{message}"
    );
}

#[test]
fn the_decision_about_the_proxy_is_said_with_its_reason() {
    let sandbox = sandbox();
    let done = sandbox.run_with(&["doctor", "-o", "json"], &[("HTTP_PROXY", "http://me:password@127.0.0.1:1")]);
    let (result, message) = found(done.exits(0).hides(&["password"]), "http://", "proxy");
    assert!(result == "ok" && message == "none: the server is on this machine", "{message}");
    let url = sandbox.gitlab.url();
    sandbox.write_config(&sandbox.config().replace(&url, "http://gitlab.invalid"));
    let done = sandbox.run_with(&["doctor", "-o", "json"], &[("HTTP_PROXY", "http://me:password@127.0.0.1:1")]);
    let (_, message) = found(done.exits(5).hides(&["password"]), "http://", "proxy");
    assert_eq!(message, "by way of http://127.0.0.1:1 of HTTP_PROXY");
}

#[test]
fn doctor_says_whether_the_daemon_runs_and_whether_its_files_are_in_force() {
    let sandbox = sandbox();
    assert_eq!(found(&sandbox.run(&["doctor", "-o", "json"]), "daemon", "running").0, "warning");
    let daemon = sandbox.start_serving();
    let done = sandbox.run(&["doctor", "-o", "json"]);
    assert_eq!(found(&done, "daemon", "running").0, "ok");
    assert_eq!(found(&done, "daemon", "files").0, "ok");
    sandbox.write("agent.toml", "wrong = 1\n");
    sandbox.run(&["reload"]).exits(4);
    let done = sandbox.run(&["doctor", "-o", "json"]);
    assert_eq!(found(done.exits(4), "daemon", "files").0, "error");
    daemon.stop(Signal::QUIT).exits(0);
}

#[test]
fn a_bundle_has_what_a_bug_report_needs_and_no_secret() {
    let canary = |number: u32| format!("CANARY{number}x0123456789");
    let canaries: Vec<_> = (0..12).map(canary).collect();
    let [registration, access, job, s3, environment, header, proxy, variable, comment, url, inline, former] =
        <[String; 12]>::try_from(canaries.clone()).unwrap();
    let sandbox = sandbox_with(Gitlab::builder().registration_token(&registration));
    let runner = sandbox.gitlab.runners()[0].token.clone();
    let (id, unknown) = sandbox.gitlab.add_runner(NewRunner::instance());
    sandbox.gitlab.revoke(id);
    sandbox.write("token", &registration);
    sandbox.write("access", &access);
    sandbox.write(
        "agent.toml",
        &format!(
            "# {comment}\n{}[[server]]\nurl = \"{}\"\naccess_token = {{ file = \"access\" }}\n",
            sandbox.enrollment("build-1", "registration_token = { file = \"token\" }"),
            sandbox.gitlab.url()
        ),
    );
    sandbox.write_config(&format!(
        "# {comment}\n{}environment = [\"A={environment}\"]\npre_build_script = \"{job}\"\n\
         [runners.cache.s3]\nSecretKey = \"{s3}\"\n[runners.docker]\nimage = \"alpine\"\nservices = [\"{header}\"]\n{}\
         [[runners]]\nname = \"{registration}\"\nurl = \"https://me:{url}@127.0.0.1:1\"\ntoken = \"{inline}\"\n",
        sandbox.config(),
        sandbox.entry("dead", id, &unknown),
    ));
    sandbox.run(&["run", "--once"]);
    let record = sandbox.gitlab.runners().iter().map(|runner| runner.token.clone()).collect::<Vec<_>>();
    let proxy = format!("http://me:{proxy}@127.0.0.1:1");
    let good = [("HTTPS_PROXY", proxy.as_str()), ("GITLAB_TOKEN", &variable)];
    // A registration token without a server is a mistake: the sources of the settings are unknown then.
    let bad = [good[0], good[1], ("REGISTRATION_TOKEN", &former)];
    for (name, variables) in [("bad.json", &bad[..]), ("bundle.json", &good)] {
        let done = sandbox.run_with(&["doctor", "--bundle", name], variables);
        let bundle = sandbox.read(name);
        for secret in canaries.iter().chain(&record).chain([&runner, &unknown]) {
            assert!(!bundle.contains(secret.as_str()), "{secret}: {bundle}");
        }
        // The name of an entry is shown, whatever a person has written there.
        let hidden = canaries.iter().chain(&record).filter(|secret| **secret != registration);
        done.hides(&hidden.map(String::as_str).collect::<Vec<_>>());
    }
    let bundle = sandbox.read("bundle.json");
    let parsed: Value = serde_json::from_str(&bundle).unwrap();
    for (pointer, expected) in [
        ("/schema", Value::from(1)),
        ("/config_toml/runners/0/name", "found".into()),
        ("/config_toml/runners/0/docker/image", "alpine".into()),
        ("/agent_toml/enroll/0/registration_token/file", "token".into()),
    ] {
        assert_eq!(parsed.pointer(pointer), Some(&expected), "{pointer}: {bundle}");
    }
    assert!(parsed["checks"].as_array().unwrap().len() > 5 && !parsed["runners"].as_array().unwrap().is_empty());
    assert_eq!(fs::metadata(sandbox.path("bundle.json")).unwrap().permissions().mode() & 0o777, 0o600);
    // A file that exists is not overwritten.
    sandbox.run(&["doctor", "--bundle", "bundle.json"]).exits(4).says("cannot write the bundle");
    assert_eq!(sandbox.read("bundle.json"), bundle);
}

/// A sandbox with an access token of 90 days and these scopes, which agent.toml keeps by these keys.
fn with_access_token<const N: usize>(scopes: [Scope; N], keys: &str) -> (Sandbox, String) {
    let sandbox = super::sandbox();
    let new = NewAccessToken::personal().scopes(scopes).expires_on(sandbox.gitlab.day_in(90));
    let token = sandbox.gitlab.create_access_token(new);
    sandbox.write_with_mode("access-token", &token, 0o600);
    sandbox.write_fast_settings(&format!(
        "[[server]]\nurl = \"{}\"\naccess_token = {{ file = \"access-token\"{keys} }}\n",
        sandbox.gitlab.url()
    ));
    (sandbox, token)
}

fn access_token_row(sandbox: &Sandbox, code: i32) -> (String, String, String) {
    let done = sandbox.run(&["doctor", "-o", "json"]);
    let row = row(done.exits(code), &sandbox.gitlab.url(), "access token");
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    (text("result"), text("message"), text("remedy"))
}

#[test]
fn doctor_asks_about_access_tokens_and_rotates_none() {
    let (sandbox, token) = with_access_token([Scope::Api], ", rotate = true");
    let (result, message, remedy) = access_token_row(&sandbox, 0);
    assert!(result == "ok" && remedy.is_empty(), "{message} {remedy}");
    assert!(message.starts_with("active, named `runner-agent`, scopes api, ends on "), "{message}");
    sandbox.gitlab.advance(61 * DAY);
    let (_, message, _) = access_token_row(&sandbox, 0);
    assert!(message.ends_with("its rotation is due"), "{message}");
    assert_eq!(sandbox.gitlab.requests_to(Endpoint::RotateAccessToken).len(), 0);
    sandbox.gitlab.revoke_access_token(&token);
    let (result, message, remedy) = access_token_row(&sandbox, 3);
    assert_eq!(result, "error");
    assert!(message.starts_with("refused") && remedy.contains("put a valid access token into the file"), "{remedy}");
    sandbox.write_with_mode("access-token", "glrt-0123456789abcdefghij", 0o600);
    let done = sandbox.run(&["doctor"]);
    assert!(!done.exits(4).stdout.contains("access token: "), "`check` has said it: {done:?}");
}

#[test]
fn doctor_warns_of_an_access_token_that_ends_or_lacks_scopes() {
    let (sandbox, _) = with_access_token([Scope::CreateRunner], "");
    let (result, _, remedy) = access_token_row(&sandbox, 0);
    assert!(result == "warning" && remedy.contains("it lacks the scope `manage_runner`"), "{remedy}");
    let (sandbox, _) = with_access_token([Scope::Api], "");
    sandbox.gitlab.advance(85 * DAY);
    let (result, message, remedy) = access_token_row(&sandbox, 0);
    assert!(result == "warning" && message.starts_with("ends soon"), "{message}");
    assert!(remedy.contains("set `rotate = true`"), "{remedy}");
    sandbox.gitlab.upgrade_to("15.4");
    let (result, message, _) = access_token_row(&sandbox, 0);
    assert!(result == "note" && message.contains("before 15.5"), "{message}");
}

#[test]
fn what_doctor_asks_is_no_use_from_elsewhere_to_the_daemon() {
    let (sandbox, _) = with_access_token([Scope::Api], ", rotate = true");
    sandbox.run(&["access-token", "show"]).exits(0);
    for _ in 0..3 {
        sandbox.gitlab.advance(DAY);
        sandbox.run(&["doctor"]).exits(0);
        // GitLab notes a use at most once a minute, so that it shows that of doctor.
        sandbox.gitlab.advance(Duration::from_secs(30));
        let shown = sandbox.run(&["access-token", "show"]);
        assert_eq!(shown.exits(0).stderr, "");
    }
    let (result, _, remedy) = access_token_row(&sandbox, 0);
    assert_eq!((result.as_str(), remedy.as_str()), ("ok", ""));
}

#[test]
fn doctor_says_that_the_answer_to_a_rotation_is_being_found_out() {
    let (sandbox, _) = with_access_token([Scope::Api], "");
    sandbox.gitlab.order(Endpoint::RotateAccessToken, Fault::cut());
    sandbox.run(&["access-token", "rotate"]).exits(5);
    let (result, message, remedy) = access_token_row(&sandbox, 0);
    assert_eq!(result, "warning");
    assert!(message.starts_with("a rotation has no answer yet"), "{message}");
    assert!(remedy.contains("leave the token where it is"), "{remedy}");
}

#[test]
fn the_token_of_a_runner_that_is_not_registered_yet_is_called_untested() {
    let sandbox = super::sandbox();
    sandbox.write("token", "glrt-of_no_runner");
    sandbox.write("agent.toml", &sandbox.enrollment("build-1", "token = { file = \"token\" }"));
    let text = sandbox.run(&["doctor"]).exits(0).stdout.clone();
    let mut lines =
        text.lines().skip_while(|line| !line.starts_with("  - token: not tested: it is not registered yet"));
    assert!(lines.next().is_some(), "{text}");
    assert!(lines.next().unwrap().contains("`runner-agent status --wait ready`"), "{text}");
}
