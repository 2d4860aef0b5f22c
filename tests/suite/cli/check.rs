//! `check`, alias `validate`.

use std::fs;
use std::path::{Path, PathBuf};

use fake_gitlab::Gitlab;
use rustix::process::Signal;
use serde_json::{Value, json};
use test_support::{Output, Sandbox};

/// A sandbox whose files are in order.
fn sandbox() -> Sandbox {
    let sandbox = super::sandbox();
    sandbox.add_created("found");
    sandbox.write("token", &sandbox.gitlab.instance_registration_token());
    sandbox.write("agent.toml", &sandbox.enrollment("build-1", "registration_token = { file = \"token\" }"));
    sandbox
}

/// The findings of one severity: file name, line and message.
fn findings(done: &Output, severity: &str) -> Vec<(String, Option<u64>, String)> {
    let rows = done.rows("findings").into_iter().filter(|row| row["severity"] == severity);
    let name = |row: &Value| row["file"].as_str().map_or("", |file| file.rsplit('/').next().unwrap()).to_owned();
    rows.map(|row| (name(&row), row["line"].as_u64(), row["message"].as_str().unwrap().to_owned())).collect()
}

#[test]
fn check_of_good_files_finds_nothing_and_changes_nothing() {
    let sandbox = sandbox();
    let config = sandbox.config();
    for command in ["check", "validate"] {
        let done = sandbox.run(&[command]);
        assert!(done.exits(0).stdout.ends_with("\nno errors, no warnings\n"), "{done:?}");
    }
    let done = sandbox.run(&["check", "-o", "json"]);
    assert_eq!((findings(&done, "error"), findings(&done, "warning")), (vec![], vec![]));
    assert_eq!(sandbox.config(), config);
    assert!(!sandbox.path("state").exists() && !sandbox.path("run").exists(), "nothing is made");
    assert!(sandbox.gitlab.requests().is_empty(), "no server is asked");
}

#[test]
fn check_reports_each_mistake_with_file_line_severity_and_remedy() {
    let sandbox = sandbox();
    let (_, token) = sandbox.add_created("loose");
    let url = sandbox.gitlab.url();
    sandbox.write_config(&format!(
        "{}[[runners]]\nname = \"no token\"\nurl = \"{url}\"\ntoken = \"\"\n[[runners]]\nname = \"no url\"\ntoken = \"x\"\n",
        sandbox.config()
    ));
    sandbox.write_with_mode("token", "glpat-0123456789abcdefghij", 0o644);
    let done = sandbox.run(&["check"]);
    done.exits(4).hides(&[&token, "glpat-0123456789abcdefghij"]);
    let text = done.stdout.replace(sandbox.root().to_str().unwrap(), "ROOT").replace(&url, "URL");
    insta::assert_snapshot!("check-files", text);
    assert!(sandbox.gitlab.requests().is_empty());
}

#[test]
fn check_suggests_the_key_that_a_typing_error_means() {
    let sandbox = sandbox();
    sandbox.write("agent.toml", "[verify]\nintervall = \"1h\"\n\n[rotate]\nat = \"2\"\n");
    sandbox.write_config("[[runners]\nname = \"a\"\n");
    let done = sandbox.run(&["check"]);
    let text = done.exits(4).stdout.replace(sandbox.root().to_str().unwrap(), "ROOT");
    insta::assert_snapshot!("check-settings", text);
    let rows = sandbox.run(&["check", "--output", "json"]).rows("findings");
    assert_eq!(rows[0]["remedy"], "did you mean `interval`?");
    assert_eq!((&rows[0]["line"], &rows[0]["stops_start"]), (&json!(2), &json!(true)));
    let lines = sandbox.run(&["check", "--output", "jsonl"]).exits(4).stdout.clone();
    assert_eq!(lines.lines().count(), rows.len());
}

#[test]
fn run_reports_what_check_finds_at_once_and_sends_nothing() {
    let sandbox = sandbox();
    sandbox.write("agent.toml", "[verify]\nintervall = \"1h\"\n");
    sandbox.write_config("[[runners]\nname = \"a\"\n");
    let done = sandbox.run(&["run"]);
    done.exits(4).says("agent.toml:2: unknown key `intervall`").says("did you mean `interval`?");
    done.says("config.toml:1: cannot understand");
    assert!(sandbox.gitlab.requests().is_empty());
    assert!(!sandbox.path("run").exists(), "no socket is made");
    // A token of the wrong class is wrong usage.
    sandbox.write_config("");
    sandbox.write("agent.toml", "");
    let url = sandbox.gitlab.url();
    let variables = [("CI_SERVER_URL", url.as_str()), ("CI_SERVER_TOKEN", "glpat-0123456789abcdefghij")];
    sandbox.run_with(&["run"], &variables).exits(2);
}

#[test]
fn check_finds_missing_tls_files_and_wrong_proxies() {
    let sandbox = sandbox();
    sandbox.write_config(
        "[[runners]]\nname = \"a\"\nurl = \"https://gitlab.example.com\"\nid = 7\ntoken = \"glrt-a\"\ntls-ca-file = \"/missing.pem\"\n",
    );
    let done = sandbox.run(&["check", "-o", "json"]);
    let errors = findings(done.exits(4), "error");
    let [(file, line, message)] = &errors[..] else { panic!("{errors:?}") };
    assert_eq!((file.as_str(), *line), ("config.toml", Some(1)));
    assert!(message.contains("/missing.pem"), "{message}");
    let mut command = sandbox.command(&["check", "-o", "json"]);
    command.env("HTTP_PROXY", "htp://proxy").env("HTTPS_PROXY", "htp://me:password@proxy");
    let done = test_support::Process::start(command).end();
    let errors = findings(done.exits(4).hides(&["password"]), "error");
    assert!(errors.iter().any(|(_, _, message)| message.contains("the proxy in HTTPS_PROXY")), "{errors:?}");
}

#[test]
fn check_finds_directories_that_cannot_be_written() {
    let sandbox = sandbox();
    // Also root cannot write below a file.
    let file = sandbox.write("file", "");
    let below = file.join("state");
    let done = sandbox.run_with(&["check", "-o", "json"], &[("STATE_DIRECTORY", below.to_str().unwrap())]);
    let errors = findings(done.exits(4), "error");
    assert!(
        errors.iter().any(|(file, _, message)| file == "state" && message.contains("cannot be made")),
        "{errors:?}"
    );
}

#[test]
fn check_finds_a_damaged_record() {
    let sandbox = sandbox();
    sandbox.run(&["verify"]).exits(0);
    let [state] = &entries(&sandbox.path("state"))[..] else { panic!("one state directory") };
    let records = entries(&state.join("runners"));
    let record = records.iter().find(|path| path.extension().is_some_and(|extension| extension == "json")).unwrap();
    fs::write(record, "{").unwrap();
    let errors = findings(sandbox.run(&["check", "-o", "json"]).exits(4), "error");
    assert!(errors.iter().any(|(_, _, message)| message.contains("is not a record of this agent")), "{errors:?}");
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn findings_about_an_enrollment_have_its_line_and_name_the_file_once() {
    let sandbox = super::sandbox();
    sandbox.write_with_mode("token", &sandbox.gitlab.instance_registration_token(), 0o600);
    let enrollment = |name: &str, token: &str, rest: &str| {
        sandbox.enrollment(name, &format!("registration_token = {{ file = \"{token}\" }}\n{rest}"))
    };
    let text = format!(
        "# A comment.\n{}{}{}",
        enrollment("a", "token", "executor = \"dcoker\"\n"),
        enrollment("b", "token", "tls_ca_file = \"missing.pem\"\n").replace("http://", "https://"),
        enrollment("c", "missing", ""),
    );
    sandbox.write("agent.toml", &text);
    let line = |words: &str| text[..text.find(words).unwrap()].lines().count();
    // The line of a table is that of its header.
    let header =
        |words: &str| text[..text.find(words).unwrap()].rfind("[[enroll]]").map(|at| text[..at].lines().count() + 1);
    let done = sandbox.run(&["check"]);
    let file = sandbox.path("agent.toml").display().to_string();
    let found: Vec<_> = done.exits(4).stdout.lines().filter(|line| line.starts_with(&file)).collect();
    let at = |line: usize, words: &str| {
        let is_it = |found: &&&str| found.starts_with(&format!("{file}:{line}: ")) && found.contains(words);
        let found = found.iter().find(is_it).unwrap_or_else(|| panic!("{line} {words}: {done:#?}"));
        assert_eq!(found.matches(&file).count(), 1, "{found}");
    };
    at(line("dcoker"), "warning: unknown executor `dcoker`");
    at(header("missing.pem").unwrap(), "missing.pem");
    at(header("\"missing\"").unwrap(), "the runner `c` cannot be registered");
}

#[test]
fn a_named_agent_toml_that_is_missing_has_a_remedy() {
    let sandbox = super::sandbox();
    std::fs::remove_file(sandbox.path("agent.toml")).unwrap();
    let done = sandbox.run(&["check"]);
    done.exits(4);
    assert!(done.stdout.contains("runner-agent init") && done.stdout.contains("RUNNER_AGENT_CONFIG"), "{done:?}");
    sandbox.run(&["run"]).exits(4).says("runner-agent init");
}

#[test]
fn a_missing_token_file_is_an_error_only_before_the_registration() {
    let sandbox = super::sandbox_with(Gitlab::builder());
    sandbox.write("token", &sandbox.gitlab.instance_registration_token());
    sandbox.write_fast_settings(&sandbox.enrollment("build-1", "registration_token = { file = \"token\" }"));
    sandbox.run(&["run", "--once"]).exits(0);
    fs::remove_file(sandbox.path("token")).unwrap();
    let done = sandbox.run(&["check", "-o", "json"]);
    let warnings = findings(done.exits(0), "warning");
    assert!(warnings[0].2.contains("the runner `build-1` could not be registered again"), "{warnings:?}");
    sandbox.write_config("");
    fs::remove_dir_all(sandbox.path("state")).unwrap();
    let errors = findings(sandbox.run(&["check", "-o", "json"]).exits(4), "error");
    assert!(errors[0].2.contains("the runner `build-1` cannot be registered"), "{errors:?}");
}

#[test]
fn check_beside_a_daemon_names_it_and_leaves_its_address_alone() {
    let sandbox = sandbox();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    sandbox.write_fast_settings(&format!("[http]\nlisten = [\"{address}\"]\n"));
    let done = sandbox.run(&["check", "-o", "json"]);
    let errors = findings(done.exits(4), "error");
    assert!(errors[0].2.contains(&format!("cannot listen on {address}")), "{errors:?}");
    drop(listener);
    let daemon = sandbox.start_serving();
    let done = sandbox.run(&["check", "-o", "json"]);
    let notes = findings(done.exits(0), "note");
    assert!(
        notes.iter().any(|(file, _, message)| file == "agent.sock" && message.contains("a daemon serves")),
        "{notes:?}"
    );
    daemon.stop(Signal::QUIT).exits(0);
}

#[test]
fn check_names_what_stands_in_the_way_of_a_hook() {
    let sandbox = sandbox();
    sandbox.write_with_mode("bin/open", "#!/bin/sh\n", 0o777);
    fs::create_dir(sandbox.path("out")).unwrap();
    let root = sandbox.root().display().to_string();
    let hooks = format!(
        "[[hook]]\nname = \"open\"\ncommand = [\"{root}/bin/open\"]\n\
         [[hook]]\nname = \"absent\"\ncommand = [\"{root}/bin/absent\"]\n\
         [[hook]]\nname = \"chat\"\nwebhook = \"https://hooks.example.com\"\nsecret = {{ file = \"no-key\" }}\n\
         [[hook]]\nname = \"file\"\nrunner = \"bulid-1\"\nwrite_token = {{ path = \"out/token\", owner = \"no-such-user\" }}\n\
         [[hook]]\nname = \"early\"\nrunner = \"build-1\"\nwrite_token = {{ path = \"run-later/token\" }}\n\
         [[hook]]\nname = \"pid\"\nsignal = {{ pid_file = \"no.pid\" }}\n\
         [[hook]]\nname = \"good\"\nrunner = [\"build-1\", \"found\"]\ncommand = [\"/bin/true\"]\n"
    );
    sandbox.write("agent.toml", &format!("{}{hooks}", sandbox.read("agent.toml")));
    let done = sandbox.run(&["check", "-o", "json"]);
    done.exits(4);
    let of_hooks = |severity: &str| -> Vec<String> {
        let all = findings(&done, severity).into_iter().map(|(file, _, message)| format!("{file}: {message}"));
        all.filter(|text| text.contains("the hook")).map(|text| text.replace(&root, "ROOT")).collect()
    };
    insta::assert_snapshot!("check-hooks-errors", of_hooks("error").join("\n"));
    insta::assert_snapshot!("check-hooks-warnings", of_hooks("warning").join("\n"));
    assert!(sandbox.gitlab.requests().is_empty());
}
