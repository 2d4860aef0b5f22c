//! A disk, or a network share, that does not answer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use fake_gitlab::{Endpoint, NewRunner, Request};
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
    start_on_share()
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
    scene.wait_for_requests(Endpoint::Verify, 2);
    scene.wait("the daemon to serve", |_| daemon.log().contains("serving"));
    let share = Hanging::under(&daemon, &scene.path("share"));
    if file == "agent.toml" {
        daemon.signal(Signal::HUP);
    }
    // An inventory needs the tokens of enrollments.
    let (id, token) = scene.gitlab.add_runner(NewRunner::instance());
    scene.add_entry("new", Some(id), &token);
    scene.give("config/config.toml");
    let is_verified = |_: &Process| {
        let of_new = |request: &Request| request.parameter("token") == Some(token.as_str());
        scene.gitlab.requests_to(Endpoint::Verify).iter().any(of_new)
    };
    if !daemon.wait_for(Duration::from_secs(45), is_verified) {
        return Err(format!("another runner waits for the share: {}", daemon.log()));
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
    daemon.signal(Signal::TERM);
    if !daemon.wait_for(Duration::from_secs(30), has_ended) {
        return Err(format!("it does not end: {}", daemon.log()));
    }
    Ok(())
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
    Ok(())
}
