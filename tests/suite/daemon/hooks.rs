//! Hooks: events reach them in order and at least once, and nothing waits for them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use fake_gitlab::{Endpoint, Gitlab};
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
fn an_event_that_a_kill_has_cut_off_comes_again_with_its_id() {
    let hangs_once = format!("{NOTE}; mkdir $D/hung && sleep 1000; true");
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
fn a_hook_that_hangs_delays_no_rotation_and_no_other_hook() {
    let sandbox = with_hook(ROTATING, "", "sleep 1000");
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
    let script = "cat; cat $RUNNER_AGENT_TOKEN_FILE >&2; echo $$ > $D/pid; sleep 1000";
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
