//! What must hold after a rotation that hooks are run for.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use fake_gitlab::NewRunner;
use runner_agent::secret::sha256_hex;
use rustix::process::Signal;
use test_support::{PATIENCE, Process};

use super::oracle::{self, Goal};
use super::sandbox::FaultSandbox;

/// The file that a hook writes the token into, beside config.toml.
pub(crate) const WRITTEN: &str = "config/written";

/// Most of the life of a token.
const UNTIL_DUE: Duration = Duration::from_secs(50 * 60);

/// The settings: an enrolled runner of GitLab, a hook that notes event, id and the digest of the token, and one that writes
/// the token into a file.
pub(crate) fn settings(sandbox: &test_support::Sandbox) -> String {
    let (_, token) = sandbox.gitlab.add_runner(NewRunner::instance());
    sandbox.write("token", &token);
    let note = format!(
        "echo $RUNNER_AGENT_EVENT $RUNNER_AGENT_EVENT_ID $(head -c -1 | sha256sum) >> {}",
        sandbox.path("seen").display()
    );
    format!(
        "{}[[hook]]\nname = \"note\"\nretries = 0\ntoken = \"stdin\"\ncommand = [\"/bin/sh\", \"-c\", '{note}']\n\
         [[hook]]\nname = \"file\"\nrunner = \"build-1\"\nwrite_token = {{ path = \"{WRITTEN}\", mode = \"0640\" }}\n",
        sandbox.enrollment("build-1", "token = { file = \"token\" }")
    )
}

/// Has the runner known to the hooks, and its token due.
///
/// # Errors
/// What went wrong.
pub(crate) fn prepare(sandbox: &FaultSandbox) -> Result<(), String> {
    sandbox.start(&["run", "--once"], &[]).try_end()?;
    check(sandbox, "registered")?;
    sandbox.gitlab.advance(UNTIL_DUE);
    Ok(())
}

/// Starts the daemon without a fault, and lets it settle what the pass has left.
///
/// # Errors
/// What was lost.
pub(crate) fn recover(sandbox: &FaultSandbox) -> Result<(), String> {
    let daemon = start(sandbox)?;
    let checked = || oracle::check(sandbox, Goal::One).and_then(|()| check(sandbox, "rotated"));
    let is_settled = daemon.wait_for(PATIENCE, |daemon| daemon.log().contains("serving") && checked().is_ok());
    daemon.signal(Signal::QUIT);
    let is_success = daemon.try_end()?.is_success();
    checked()?;
    if is_settled && is_success { Ok(()) } else { Err("the daemon exits with an error".to_owned()) }
}

/// Starts the daemon once the killed one's lock is free: a command that it was starting has it until strace lets it execute
/// its program.
fn start(sandbox: &FaultSandbox) -> Result<Process, String> {
    let began = Instant::now();
    loop {
        let daemon = sandbox.start(&["run"], &[]);
        let has_begun = |log: &str| log.contains("serving");
        daemon.wait_for(PATIENCE, |daemon| has_begun(&daemon.log()) || daemon.log().contains("is locked"));
        if has_begun(&daemon.log()) || began.elapsed() > PATIENCE {
            return Ok(daemon);
        }
        daemon.try_end()?;
    }
}

/// The last event was noted with the present token, repeated events have one id, and the file has the token.
fn check(sandbox: &FaultSandbox, kind: &str) -> Result<(), String> {
    let present = sandbox.gitlab.runners()[0].token.clone();
    let digest = sha256_hex(present.as_bytes());
    let seen = fs::read_to_string(sandbox.path("seen")).unwrap_or_default();
    let mut ids: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for line in seen.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let [event, id, token, ..] = words[..] else { return Err(format!("a hook has noted `{line}`")) };
        if *ids.entry((event, token)).or_insert(id) != id {
            return Err(format!("one event has two ids: {seen}"));
        }
    }
    let last = seen.lines().last().unwrap_or_default();
    let is_last = [kind, "recovered"].iter().any(|kind| last.starts_with(kind)) && last.contains(&digest);
    if !is_last {
        return Err(format!("the last event of the hook is not `{kind}` with the present token: {seen}"));
    }
    let written = sandbox.path(WRITTEN);
    let (content, mode) = (fs::read_to_string(&written), fs::metadata(&written).map(|file| file.permissions().mode()));
    if !content.is_ok_and(|content| content.trim() == present) || !mode.is_ok_and(|mode| mode & 0o7777 == 0o640) {
        return Err("the file of a hook does not have the present token with its mode".to_owned());
    }
    Ok(())
}
