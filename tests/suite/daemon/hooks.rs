//! Hooks: events reach them in order and at least once, and nothing waits for them.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use fake_gitlab::{Endpoint, Gitlab};
use runner_agent::secret::hmac_sha256_hex;
use rustix::process::Signal;
use test_support::{Process, Sandbox};

use super::enrolled;

/// Tokens that are rotated every three seconds.
const ROTATING: &str = "[timing]\nbetween_resets_floor = \"1s\"\nfloor = \"200ms\"\n[rotate]\nat = \"10%\"\n";

/// A sandbox with one enrolled runner and a hook that runs this script. `$D` is the sandbox's directory.
fn with_hook(settings: &str, keys: &str, script: &str) -> Sandbox {
    let sandbox = enrolled(Gitlab::builder().token_life("30s"), settings);
    let former = sandbox.read("agent.toml");
    sandbox.write("agent.toml", &format!("{former}{}", hook(&sandbox, "log", keys, script)));
    sandbox
}

fn hook(sandbox: &Sandbox, name: &str, keys: &str, script: &str) -> String {
    let script = format!("D='{}'; {script}", sandbox.root().display());
    format!("[[hook]]\nname = \"{name}\"\n{keys}\ncommand = [\"/bin/sh\", \"-c\", '''{script}''']\n")
}

/// The lines that hooks have written, as words.
fn lines(sandbox: &Sandbox) -> Vec<Vec<String>> {
    let text = fs::read_to_string(sandbox.path("seen")).unwrap_or_default();
    text.lines().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

const NOTE: &str = "echo $RUNNER_AGENT_EVENT $RUNNER_AGENT_EVENT_ID >> $D/seen";

#[test]
fn hooks_run_in_order_once_the_token_is_in_config_toml() {
    let script =
        format!("grep -qF \"$(cat)\" $D/config/config.toml || [ $RUNNER_AGENT_EVENT = unregistered ] && {NOTE}");
    let sandbox = with_hook(ROTATING, "token = \"stdin\"", &script);
    let daemon = sandbox.start(&["run"]);
    sandbox.wait("a registration and two rotations", |sandbox| lines(sandbox).len() >= 3);
    let log = daemon.stop(Signal::QUIT).stderr;
    let events: Vec<_> = lines(&sandbox).into_iter().map(|line| line[0].clone()).collect();
    assert_eq!(events[..3], ["registered", "rotated", "rotated"], "{log}");
    assert!(!log.contains("a hook has failed"), "{log}");
}

#[test]
fn an_unregistration_at_a_stop_is_announced_before_the_end() {
    let sandbox = with_hook("", "", NOTE);
    let daemon = sandbox.start(&["run"]);
    sandbox.wait("the registration", |sandbox| lines(sandbox).len() == 1);
    let log = daemon.stop(Signal::TERM).stderr;
    let events: Vec<_> = lines(&sandbox).into_iter().map(|line| line[0].clone()).collect();
    assert_eq!(events, ["registered", "unregistered"], "{log}");
}

#[test]
fn a_pass_waits_for_a_hook_and_a_stop_says_which_one_it_ends() {
    let sandbox = with_hook("", "", &format!("sleep 6; {NOTE}"));
    sandbox.run(&["run", "--once"]).exits(0);
    assert_eq!(lines(&sandbox)[0][0], "registered");
    let sandbox = with_hook("", "", &format!("{NOTE}; sleep 60"));
    let daemon = sandbox.start(&["run"]);
    sandbox.wait("the hook", |sandbox| lines(sandbox).len() == 1);
    let log = daemon.stop(Signal::QUIT).stderr;
    assert!(log.contains("the end of the agent ends a hook: the next start runs it again"), "{log}");
}

#[test]
fn an_event_that_a_kill_has_cut_off_comes_again_with_its_id() {
    let hangs_once = format!("{NOTE}; mkdir $D/hung && sleep 60; true");
    let sandbox = with_hook("", "", &hangs_once);
    let daemon = sandbox.start(&["run"]);
    sandbox.wait("the hook", |sandbox| lines(sandbox).len() == 1);
    daemon.kill();
    let daemon = sandbox.start(&["run"]);
    sandbox.wait("the hook again", |sandbox| lines(sandbox).len() == 2);
    let log = daemon.stop(Signal::QUIT).stderr;
    let seen = lines(&sandbox);
    assert_eq!((seen[0][0].as_str(), &seen[0]), ("registered", &seen[1]), "{log}");
    sandbox.start_serving().stop(Signal::QUIT);
    assert_eq!(lines(&sandbox).len(), 2, "what is done is not done again");
}

#[test]
fn a_rotation_while_no_daemon_runs_is_announced_at_its_start() {
    let sandbox = with_hook("", "", NOTE);
    let daemon = sandbox.start(&["run"]);
    sandbox.wait("the registration", |sandbox| lines(sandbox).len() == 1);
    daemon.stop(Signal::QUIT);
    sandbox.run(&["rotate", "--name", "build-1", "--force"]).exits(0);
    let daemon = sandbox.start(&["run"]);
    sandbox.wait("the rotation", |sandbox| lines(sandbox).len() == 2);
    daemon.stop(Signal::QUIT);
    assert_eq!(lines(&sandbox)[1][0], "rotated");
}

#[test]
fn runners_that_are_there_when_hooks_begin_make_no_event() {
    let sandbox = enrolled(Gitlab::builder().token_life("1h"), "");
    let daemon = sandbox.start(&["run"]);
    sandbox.wait_for_registration();
    daemon.stop(Signal::QUIT);
    let former = sandbox.read("agent.toml");
    sandbox.write("agent.toml", &format!("{former}{}", hook(&sandbox, "log", "", NOTE)));
    let daemon = sandbox.start_serving();
    sandbox.wait("its base line", |sandbox| sandbox.state().contains("\"announced\""));
    sandbox.run(&["rotate", "--name", "build-1", "--force"]).exits(0);
    sandbox.wait("the rotation", |sandbox| !lines(sandbox).is_empty());
    daemon.stop(Signal::QUIT);
    assert_eq!(lines(&sandbox)[0][0], "rotated");
}

#[test]
fn a_runner_that_a_command_registers_is_announced_beside_the_daemon_and_without_it() {
    let sandbox = super::sandbox(Gitlab::builder().token_life("1h"));
    sandbox.write("agent.toml", &hook(&sandbox, "log", "", "echo $RUNNER_AGENT_EVENT $RUNNER_AGENT_RUNNER >> $D/seen"));
    sandbox.add_created("there");
    let daemon = sandbox.start_serving();
    let has_begun = |sandbox: &Sandbox| {
        let states = fs::read_dir(sandbox.path("state")).into_iter().flatten().flatten();
        states.map(|state| state.path().join("hooks/begun")).any(|begun| begun.exists())
    };
    sandbox.wait("the begin", has_begun);
    sandbox.add_created("beside");
    sandbox.wait("the event", |sandbox| lines(sandbox).len() == 1);
    daemon.stop(Signal::QUIT);
    sandbox.add_created("without");
    let daemon = sandbox.start_serving();
    sandbox.wait("the next event", |sandbox| lines(sandbox).len() == 2);
    daemon.stop(Signal::QUIT);
    assert_eq!(lines(&sandbox), [["registered", "beside"], ["registered", "without"]]);
}

#[test]
fn a_hook_that_hangs_delays_no_rotation_and_no_other_hook() {
    let sandbox = with_hook(ROTATING, "", "sleep 60");
    let former = sandbox.read("agent.toml");
    sandbox.write("agent.toml", &format!("{former}{}", hook(&sandbox, "other", "", NOTE)));
    let daemon = sandbox.start(&["run"]);
    sandbox.wait("two rotations", |sandbox| sandbox.gitlab.requests_to(Endpoint::Reset).len() >= 2);
    sandbox.wait("the other hook", |sandbox| lines(sandbox).len() >= 3);
    assert_eq!(daemon.stop(Signal::QUIT).code, Some(0));
}

#[test]
fn a_hook_that_fails_is_tried_again_and_then_dropped() {
    let sandbox = with_hook("", "retries = 1", &format!("{NOTE}; echo sorry; exit 3"));
    let daemon = sandbox.start(&["run"]);
    sandbox.wait("the error", |_| daemon.log().contains("a hook has failed for good"));
    let log = daemon.stop(Signal::QUIT).stderr;
    assert_eq!(lines(&sandbox).len(), 2, "{log}");
    assert!(log.contains("exit status: 3): sorry") && log.contains("hook=\"log\""), "{log}");
    sandbox.start_serving().stop(Signal::QUIT);
    assert_eq!(lines(&sandbox).len(), 2, "what was dropped stays so");
}

#[test]
fn no_token_is_in_the_command_line_environment_or_log_of_a_hook() {
    let script = "cat; cat $RUNNER_AGENT_TOKEN_FILE >&2; echo $$ > $D/pid; sleep 60";
    let keys = "token = \"file\"\ntimeout = \"3s\"\nretries = 0";
    let sandbox = with_hook("", keys, script);
    let variables = [("MY_SECRET", "glpat-planted-for-this-test")];
    let mut command = sandbox.command(&["run"]);
    command.envs(variables);
    let daemon = Process::start(command);
    let pid = |sandbox: &Sandbox| fs::read_to_string(sandbox.path("pid")).unwrap_or_default().trim().to_owned();
    sandbox.wait("the hook", |sandbox| !pid(sandbox).is_empty());
    let token = sandbox.gitlab.runners()[0].token.clone();
    for name in ["environ", "cmdline"] {
        let shown = fs::read(format!("/proc/{}/{name}", pid(&sandbox))).unwrap();
        let shown = String::from_utf8_lossy(&shown).into_owned();
        assert!(!shown.is_empty() && !shown.contains(&token) && !shown.contains("planted"), "{shown}");
    }
    sandbox.wait("its end", |_| daemon.log().contains("a hook has failed for good"));
    daemon.stop(Signal::QUIT).hides(&[&token, "planted"]);
    let hooks = sandbox.files_with(&token).into_iter().filter(|name| name.contains("/hooks/")).collect::<Vec<_>>();
    assert_eq!(hooks, [""; 0]);
}

#[test]
fn a_program_in_a_directory_that_others_can_write_is_refused() {
    let sandbox = with_hook("", "", NOTE);
    let program = sandbox.write_with_mode("bin/program", "#!/bin/sh\n", 0o755);
    fs::set_permissions(program.parent().unwrap(), Permissions::from_mode(0o777)).unwrap();
    let former = sandbox.read("agent.toml");
    let other = format!("[[hook]]\nname = \"other\"\nretries = 0\ncommand = [\"{}\"]\n", program.display());
    sandbox.write("agent.toml", &format!("{former}{other}"));
    let daemon = sandbox.start(&["run"]);
    sandbox.wait("the refusal", |_| daemon.log().contains("a hook has failed for good"));
    let log = daemon.stop(Signal::QUIT).stderr;
    assert!(log.contains("is refused: it can be written by others (mode 0777)"), "{log}");
}

#[test]
fn invalid_settings_are_announced_once_with_the_hooks_before_them() {
    let sandbox = with_hook("", "on = [\"settings_rejected\"]", NOTE);
    let daemon = sandbox.start_serving();
    let former = sandbox.read("agent.toml");
    sandbox.write("agent.toml", "[nonsense]\n");
    sandbox.wait("the event", |sandbox| lines(sandbox).len() == 1);
    daemon.signal(Signal::HUP);
    sandbox.write("agent.toml", &former);
    sandbox.wait("the settings", |_| daemon.log().matches("settings").count() > 0);
    daemon.stop(Signal::QUIT);
    assert_eq!(lines(&sandbox).len(), 1);
}

/// One request that a webhook has got: its head in lower case, and its body.
fn answer_one(listener: &TcpListener, status: &str) -> (String, String) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    let head = head.to_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
    (head, String::from_utf8(body).unwrap())
}

#[test]
fn a_webhook_is_signed_and_comes_again_until_the_server_takes_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let sandbox = enrolled(Gitlab::builder().token_life("1h"), "");
    sandbox.write("key", "a-key-of-this-test\n");
    let (former, address) = (sandbox.read("agent.toml"), listener.local_addr().unwrap());
    let hook = format!(
        "[[hook]]\nname = \"chat\"\non = [\"registered\"]\nwebhook = \"http://{address}/in?key=planted\"\nsecret = {{ file = \"key\" }}\n"
    );
    sandbox.write("agent.toml", &format!("{former}{hook}"));
    let daemon = sandbox.start(&["run"]);
    let (first, body) = answer_one(&listener, "503 Service Unavailable");
    let (second, repeated) = answer_one(&listener, "204 No Content");
    assert_eq!(body, repeated);
    let signature = hmac_sha256_hex(b"a-key-of-this-test", body.as_bytes());
    for head in [first, second] {
        assert!(head.starts_with("post /in?key=planted http/1.1"), "{head}");
        assert!(head.contains(&format!("x-runner-agent-signature: sha256={signature}\r\n")), "{head}");
        assert!(head.contains("x-runner-agent-event: registered\r\n"), "{head}");
    }
    let event: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((event["hook"].as_str(), event["runner"].as_str()), (Some("chat"), Some("build-1")));
    assert!(!body.contains(&sandbox.gitlab.runners()[0].token));
    sandbox.wait("its end", |_| daemon.log().contains("the server has taken it (status 204)"));
    daemon.stop(Signal::QUIT).hides(&["planted", "a-key-of-this-test"]);
}

#[test]
fn a_webhook_takes_the_proxy_of_the_environment_and_blames_it() {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let sandbox = enrolled(Gitlab::builder().token_life("1h"), "");
    let former = sandbox.read("agent.toml");
    let hook = "[[hook]]\nname = \"chat\"\nretries = 0\nwebhook = \"https://hooks.example.com/in\"\n";
    sandbox.write("agent.toml", &format!("{former}{hook}"));
    let mut command = sandbox.command(&["run"]);
    command.env("HTTPS_PROXY", format!("http://me:planted@{}", proxy.local_addr().unwrap()));
    let daemon = Process::start(command);
    let (mut stream, _) = proxy.accept().unwrap();
    let mut request = [0; 512];
    let count = stream.read(&mut request).unwrap();
    let request = String::from_utf8_lossy(&request[..count]).into_owned();
    assert!(request.starts_with("CONNECT hooks.example.com:443 HTTP/1.1\r\n"), "{request}");
    write!(stream, "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").unwrap();
    sandbox.wait("the error", |_| daemon.log().contains("a hook has failed for good"));
    let end = daemon.stop(Signal::QUIT);
    assert!(end.stderr.contains("the request went to the proxy in HTTPS_PROXY"), "{}", end.stderr);
    end.hides(&["planted"]);
}

#[test]
fn a_webhook_that_the_server_refuses_is_dropped_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let sandbox = enrolled(Gitlab::builder().token_life("1h"), "");
    let (former, address) = (sandbox.read("agent.toml"), listener.local_addr().unwrap());
    sandbox.write("agent.toml", &format!("{former}[[hook]]\nname = \"chat\"\nwebhook = \"http://{address}/\"\n"));
    let daemon = sandbox.start(&["run"]);
    answer_one(&listener, "404 Not Found");
    sandbox.wait("the error", |_| daemon.log().contains("the server has refused it (status 404)"));
    assert!(daemon.stop(Signal::QUIT).stderr.contains("a hook has failed for good"));
}

#[test]
fn a_process_gets_a_signal_after_a_rotation_and_its_successor_gets_none() {
    let sandbox = enrolled(Gitlab::builder().token_life("30s"), ROTATING);
    let victim = Process::start(sandbox.shell("trap 'echo signalled >&2' HUP; while :; do sleep 0.1; done", &[]));
    let (pid, former) = (victim.pid().as_raw_nonzero(), sandbox.read("agent.toml"));
    let old = sandbox.write("old.pid", &format!("{pid}\n"));
    let an_hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    fs::File::options().write(true).open(&old).unwrap().set_modified(an_hour_ago).unwrap();
    let new = sandbox.write("new.pid", &format!("{pid}\n"));
    let hook = |name: &str, path: &Path| {
        let path = path.display();
        format!("[[hook]]\nname = \"{name}\"\non = [\"rotated\"]\nretries = 0\nsignal = {{ pid_file = \"{path}\" }}\n")
    };
    sandbox.write("agent.toml", &format!("{former}{}", hook("old", &old)));
    let daemon = sandbox.start(&["run"]);
    sandbox.wait("the refusal", |_| daemon.log().contains("has begun after the file was written"));
    assert!(!victim.log().contains("signalled"));
    sandbox.write("agent.toml", &format!("{former}{}", hook("new", &new)));
    sandbox.wait("the signal", |_| victim.log().contains("signalled"));
    assert_eq!(daemon.stop(Signal::QUIT).code, Some(0));
    victim.kill();
}

#[test]
fn a_file_holds_the_present_token_also_after_it_was_lost() {
    let sandbox = enrolled(Gitlab::builder().token_life("30s"), ROTATING);
    let former = sandbox.read("agent.toml");
    let hook =
        "[[hook]]\nname = \"file\"\nrunner = \"build-1\"\nwrite_token = { path = \"out/token\", mode = \"0640\" }\n";
    sandbox.write("out/other", "");
    sandbox.write("agent.toml", &format!("{former}{hook}"));
    let token = |sandbox: &Sandbox| fs::read_to_string(sandbox.path("out/token")).unwrap_or_default();
    let is_present = |sandbox: &Sandbox| sandbox.gitlab.runners()[0].token == token(sandbox).trim();
    let daemon = sandbox.start(&["run"]);
    sandbox
        .wait("a rotated token", |it| it.gitlab.runners().first().is_some_and(|it| it.rotations > 0) && is_present(it));
    assert_eq!(fs::metadata(sandbox.path("out/token")).unwrap().permissions().mode() & 0o7777, 0o640);
    daemon.stop(Signal::QUIT);
    fs::remove_file(sandbox.path("out/token")).unwrap();
    let daemon = sandbox.start(&["run"]);
    sandbox.wait("the file", is_present);
    daemon.stop(Signal::QUIT);
}

#[test]
fn no_file_gets_the_token_of_a_runner_of_another_program() {
    let sandbox = super::sandbox(Gitlab::builder().token_life("30s"));
    sandbox.add_created("other");
    let hook = "[[hook]]\nname = \"file\"\nrunner = \"other\"\nwrite_token = { path = \"out/token\" }\n";
    sandbox.write("out/other", "");
    sandbox.write("agent.toml", &format!("{ROTATING}found = \"always\"\n{hook}"));
    let daemon = sandbox.start(&["run"]);
    sandbox.wait("the refusal", |_| daemon.log().contains("the runner is only found in config.toml"));
    daemon.stop(Signal::QUIT);
    assert!(!sandbox.path("out/token").exists());
}
