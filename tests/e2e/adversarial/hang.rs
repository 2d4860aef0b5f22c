//! A disk, or a network share, that does not answer.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use fake_gitlab::{Endpoint, Gitlab, NewRunner, Request, Tls};
use rustix::process::Signal;
use test_support::{PATIENCE, Process};

use crate::scene::Scene;

/// Delays the second removal in a directory by twenty seconds.
const HANGING: &str = "PATH=/usr/sbin:/usr/bin:/sbin:/bin; at=$1; shift; exec strace -D -f -o /dev/null --trace=unlinkat --inject=unlinkat:delay_enter=20000000:when=2 -P \"$at\" \"$0\" \"$@\"";

/// The daemon is alive and answers, and says which file it waits for.
pub(crate) fn disk_that_hangs() -> Result<(), String> {
    let scene = Scene::new();
    // Makes the state directory.
    let verified = scene.run(&["verify"]);
    let directory = std::fs::read_dir(scene.path("state")).unwrap().next().unwrap().unwrap().path().join("runners");
    if verified.code != Some(0) || !directory.is_dir() {
        return Err(format!("no state directory: {}", verified.text()));
    }
    // The first one is at the start, which waits for the disk.
    let daemon = Process::start(scene.shell(HANGING, &[directory.to_str().unwrap(), "run"]));
    let probe: PathBuf = directory.join(".probe");
    scene.wait("the daemon to say what it waits for", |_| daemon.log().contains("takes long"));
    let ready = scene.run(&["health", "--ready"]);
    if ready.code == Some(0) || !ready.text().contains(&format!("the work on `{}`", probe.display())) {
        return Err(format!("it is ready, or does not say why: {}", ready.text()));
    }
    if scene.run(&["health"]).code != Some(0) {
        return Err("a slow disk ends the daemon".to_owned());
    }
    scene.wait("the daemon to go on", |_| daemon.log().contains("that took long has ended"));
    scene.wait("the daemon to be ready", |scene| scene.run(&["health", "--ready"]).code == Some(0));
    match daemon.stop(Signal::TERM).code {
        Some(0) => Ok(()),
        code => Err(format!("the daemon ended with {code:?}")),
    }
}

/// Delays each look at a directory on a share, and at what is in it, by a minute.
const LOOKS: &str = "openat,openat2,readlink,readlinkat,inotify_add_watch,newfstatat,statx";

/// A share that does not answer, as the daemon sees it, until it is dropped.
struct Hanging(Child);

impl Hanging {
    fn under(daemon: &Process, share: &Path) -> Self {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", &format!("--trace={LOOKS}")]);
        strace.arg(format!("--inject={LOOKS}:delay_enter=60000000"));
        strace.arg("-P").arg(share).arg("-p").arg(daemon.pid().as_raw_nonzero().to_string());
        let hanging = Self(strace.stderr(Stdio::null()).spawn().unwrap());
        let is_traced = |_: &Process| {
            let status = fs::read_to_string(daemon.proc("status")).unwrap_or_default();
            status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() != "0"))
        };
        assert!(daemon.wait_for(PATIENCE, is_traced), "the daemon is not traced");
        hanging
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

/// Whether a process has ended, but for threads that strace keeps.
fn has_ended(daemon: &Process) -> bool {
    let status = fs::read_to_string(daemon.proc("status")).unwrap_or_default();
    !daemon.is_running() || status.lines().any(|line| line.starts_with("State:") && line.contains('Z'))
}

/// agent.toml, or a token file that it names, is on a share that stops to answer. The other runners are served, the daemon
/// says which file it waits for, and ends if it is told to.
pub(crate) fn share_that_hangs() -> Result<(), String> {
    for file in ["agent.toml", "token"] {
        settings_on_share(file).map_err(|how| format!("{file}: {how}"))?;
    }
    reload_with_token_on_share().map_err(|how| format!("reload: {how}"))?;
    tls_file_on_share().map_err(|how| format!("TLS file: {how}"))?;
    start_on_share()
}

/// A token file does not answer, agent.toml changes, and a reload is asked for: it is done, and the others are served.
fn reload_with_token_on_share() -> Result<(), String> {
    let scene = Scene::new();
    let (_, token) = scene.gitlab.add_runner(NewRunner::instance());
    let token = scene.write("share/token", &token);
    let enrollment = scene.enrollment("enrolled", &format!("token = {{ file = {token:?} }}"));
    scene.write_fast_settings(&enrollment);
    let daemon = scene.start(&["run"]);
    serves_enrolled(&scene, &daemon);
    let _share = Hanging::under(&daemon, &scene.path("share"));
    scene.write_fast_settings(&format!("{enrollment}\n[shutdown]\ngrace = \"7s\"\n"));
    daemon.signal(Signal::HUP);
    if !daemon.wait_for(Duration::from_secs(45), |daemon| daemon.log().contains("reloaded")) {
        return Err(format!("the token file holds it up: {}", daemon.log()));
    }
    let (id, token) = scene.gitlab.add_runner(NewRunner::instance());
    scene.add_entry("new", Some(id), &token);
    scene.give("config/config.toml");
    if !daemon.wait_for(Duration::from_secs(45), |_| is_verified(&scene.gitlab, &token)) {
        return Err(format!("another runner waits for the share: {}\n{}", daemon.log(), scene.config()));
    }
    ends(&daemon)
}

/// Waits until both runners are served and the entry of the enrolled one is written: what the test adds to config.toml at
/// that moment could be lost, as with any writer that does not take the lock.
fn serves_enrolled(scene: &Scene, daemon: &Process) {
    scene.wait_for_requests(Endpoint::Verify, 2);
    scene.wait("the daemon to serve", |_| daemon.log().contains("serving"));
    scene.wait("the entry of the enrolled runner", |scene| scene.is_in_step());
}

/// Whether a token was verified.
fn is_verified(gitlab: &Gitlab, token: &str) -> bool {
    let is_its = |request: &Request| request.parameter("token") == Some(token);
    gitlab.requests_to(Endpoint::Verify).iter().any(is_its)
}

fn ends(daemon: &Process) -> Result<(), String> {
    daemon.signal(Signal::TERM);
    if daemon.wait_for(Duration::from_secs(30), has_ended) {
        Ok(())
    } else {
        Err(format!("it does not end: {}", daemon.log()))
    }
}

/// The CA file of many entries does not answer. Entries of other encrypted servers go on.
fn tls_file_on_share() -> Result<(), String> {
    let scene = Scene::new();
    let [hung, first, second] = [(); 3].map(|()| Gitlab::builder().tls(Tls::self_signed(["127.0.0.1"])).start());
    let config = scene.path("config/config.toml");
    let add = |gitlab: &Gitlab, name: &str, ca_file: &Path| {
        let (id, token) = gitlab.add_runner(NewRunner::instance());
        let mut text = fs::read_to_string(&config).unwrap_or_default();
        let (url, ca_file) = (gitlab.url(), ca_file.display());
        writeln!(text, "[[runners]]\nname = \"{name}\"\nurl = \"{url}\"\nid = {id}\ntoken = \"{token}\"\ntls-ca-file = \"{ca_file}\"")
            .unwrap();
        fs::write(&config, text).unwrap();
        scene.give("config/config.toml");
        token
    };
    let on_share = scene.write("share/ca.crt", &hung.ca_pem());
    let others =
        [("first.crt", &first), ("second.crt", &second)].map(|(name, gitlab)| scene.write(name, &gitlab.ca_pem()));
    scene.write_fast_settings("");
    let known = add(&hung, "known", &on_share);
    let daemon = scene.start(&["run"]);
    scene.wait("the daemon to verify", |_| is_verified(&hung, &known));
    let _share = Hanging::under(&daemon, &scene.path("share"));
    let unanswered: Vec<_> = (0..24).map(|number| add(&hung, &format!("hung-{number}"), &on_share)).collect();
    if !daemon.wait_for(Duration::from_secs(45), |daemon| daemon.log().contains("ca.crt` does not answer")) {
        return Err(format!("it does not say which file: {}", daemon.log()));
    }
    for (gitlab, ca_file) in [&first, &second].into_iter().zip(&others) {
        let token = add(gitlab, "other", ca_file);
        if !daemon.wait_for(Duration::from_secs(45), |_| is_verified(gitlab, &token)) {
            return Err(format!("another server waits for the share: {}", daemon.log()));
        }
    }
    if unanswered.iter().any(|token| is_verified(&hung, token)) {
        return Err("the share answers: nothing is shown".to_owned());
    }
    ends(&daemon)
}

fn settings_on_share(file: &str) -> Result<(), String> {
    let scene = Scene::new();
    let (_, token) = scene.gitlab.add_runner(NewRunner::instance());
    let token = scene.write("share/token", &token);
    let enrollment = scene.enrollment("enrolled", &format!("token = {{ file = {token:?} }}"));
    scene.write_fast_settings(&enrollment);
    let settings = scene.path("share/agent.toml");
    fs::copy(scene.path("agent.toml"), &settings).unwrap();
    let args = if file == "token" { &["run"][..] } else { &["run", "--agent-config", settings.to_str().unwrap()] };
    let daemon = scene.start(args);
    serves_enrolled(&scene, &daemon);
    let share = Hanging::under(&daemon, &scene.path("share"));
    if file == "agent.toml" {
        daemon.signal(Signal::HUP);
    }
    // An inventory needs the tokens of enrollments.
    let (id, token) = scene.gitlab.add_runner(NewRunner::instance());
    scene.add_entry("new", Some(id), &token);
    scene.give("config/config.toml");
    if !daemon.wait_for(Duration::from_secs(45), |_| is_verified(&scene.gitlab, &token)) {
        return Err(format!("another runner waits for the share: {}\n{}", daemon.log(), scene.config()));
    }
    let named = format!("the work on `{}`", scene.path("share").join(file).display());
    let says_why = |_: &Process| scene.run(&["health", "--ready"]).text().contains(&named);
    if !daemon.wait_for(Duration::from_secs(20), says_why) {
        return Err(format!("it does not say what it waits for: {}", scene.run(&["health", "--ready"]).text()));
    }
    let health = scene.run(&["health"]);
    if health.code != Some(0) {
        return Err(format!("it is not healthy: {}", health.text()));
    }
    if file == "token" {
        // Once the share answers, everything is as before.
        drop(share);
        let is_ready = |_: &Process| scene.run(&["health", "--ready"]).code == Some(0);
        if !daemon.wait_for(PATIENCE, is_ready) {
            return Err(format!("it is not ready later: {}", scene.run(&["health", "--ready"]).text()));
        }
    }
    ends(&daemon)
}

/// The share does not answer at the start: the process waits, but not if it is told to end.
fn start_on_share() -> Result<(), String> {
    let scene = Scene::new();
    let settings = scene.write("share/agent.toml", "");
    let script = format!(
        "exec strace -D -f -qq -o /dev/null --trace={LOOKS} --inject={LOOKS}:delay_enter=60000000 -P \"$1\" \"$0\" run --agent-config \"$2\""
    );
    let script = format!("PATH=/usr/sbin:/usr/bin:/sbin:/bin; {script}");
    let args = [scene.path("share").display().to_string(), settings.display().to_string()];
    let daemon = Process::start(scene.shell(&script, &[&args[0], &args[1]]));
    scene.wait("the process to start", |_| {
        fs::read_to_string(daemon.proc("comm")).is_ok_and(|name| name.starts_with("runner-agent"))
    });
    thread::sleep(Duration::from_secs(2));
    if daemon.log().contains("serving") {
        return Err("the share answers: nothing is shown".to_owned());
    }
    daemon.signal(Signal::TERM);
    if !daemon.wait_for(Duration::from_secs(30), has_ended) {
        return Err("a start does not end".to_owned());
    }
    let log = daemon.log();
    if !log.contains("stopped before the start was complete") || log.contains("error:") {
        return Err(format!("a stop of a start is a failure: {log}"));
    }
    Ok(())
}
