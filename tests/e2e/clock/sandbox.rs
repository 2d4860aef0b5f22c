//! A GitLab whose tokens live for a minute, and the real binary under a wrong clock.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fake_gitlab::{Gitlab, Runner};
use jiff::Timestamp;
use rustix::process::Signal;
use test_support::{Capture, PATIENCE, Process, Sandbox, faketime};

use crate::BINARY;

/// The lifetime of a token. A token is replaced at half of it, which leaves time for a busy machine.
pub(crate) const LIFE: Duration = Duration::from_secs(60);

/// The interval of verifications.
pub(crate) const INTERVAL: Duration = Duration::from_secs(20);

/// The daemon's log message about a jump.
pub(crate) const NOTICED: &str = "the clock has jumped";

const SETTINGS: &str = "[rotate]\nat = \"50%\"\n[verify]\ninterval = \"20s\"\n[timing]\nlongest_nap = \"1s\"\n\
    [shutdown]\ngrace = \"5s\"\n";

/// A sandbox whose processes run under a clock that the test sets.
pub(crate) struct ClockSandbox {
    sandbox: Sandbox,
    library: PathBuf,
    began: Instant,
    logs: RefCell<Vec<Capture>>,
    /// How many times the daemon was started or its clock set while it ran.
    pub(crate) surprises: Cell<usize>,
}

impl ClockSandbox {
    pub(crate) fn new(library: &Path) -> Self {
        let sandbox = Sandbox::new(BINARY, Gitlab::builder().token_life(LIFE));
        sandbox.write("token", &sandbox.gitlab.instance_registration_token());
        let enrollment = sandbox.enrollment("build-1", "registration_token = { file = \"token\" }");
        sandbox.write("agent.toml", &format!("{SETTINGS}{enrollment}"));
        Self {
            sandbox,
            library: library.to_owned(),
            began: Instant::now(),
            logs: RefCell::default(),
            surprises: Cell::new(0),
        }
    }

    /// Sets the wall clock of every process of this sandbox this many seconds ahead of the server's.
    pub(crate) fn set_clock(&self, seconds: i64) {
        faketime::set_offset(&self.path("offset"), seconds);
        if !self.logs.borrow().is_empty() {
            self.surprises.set(self.surprises.get() + 1);
        }
    }

    /// Starts the daemon.
    pub(crate) fn start(&self) -> Process {
        let mut command = self.command(&["run"]);
        command.envs(faketime::environment(&self.library, &self.path("offset")));
        self.surprises.set(self.surprises.get() + 1);
        let process = Process::start(command);
        self.logs.borrow_mut().push(process.log_capture());
        process
    }

    /// Waits for a condition.
    ///
    /// # Errors
    /// The token expires, the daemon ends, or the condition does not hold within the lifetime of a token.
    pub(crate) fn wait_for(
        &self,
        daemon: &Process,
        what: &str,
        is_there: impl Fn(&Self, &Process) -> bool,
    ) -> Result<(), String> {
        let mut late = None;
        let has_come = daemon.wait_for(LIFE + PATIENCE, |daemon| {
            late = late.take().or_else(|| self.is_expired().then(|| "the token has expired".to_owned()));
            late.is_some() || is_there(self, daemon)
        });
        match late {
            Some(late) => Err(format!("while waiting for {what}: {late}")),
            None if has_come => Ok(()),
            None if !daemon.is_running() => Err(format!("while waiting for {what}: the daemon has ended")),
            None => Err(format!("timed out waiting for {what}")),
        }
    }

    fn is_expired(&self) -> bool {
        let now = self.gitlab.now();
        self.gitlab.runners().iter().any(|runner| runner.token_expires_at.is_none_or(|at| at <= now))
    }

    pub(crate) fn rotations(&self) -> usize {
        self.gitlab.runners().iter().map(|runner| runner.rotations).sum()
    }

    pub(crate) fn stop(&self, daemon: Process, signal: Signal) -> Result<(), String> {
        daemon.signal(signal);
        let output = daemon.try_end()?;
        if output.is_success() { Ok(()) } else { Err(format!("the daemon exited with {:?}", output.code)) }
    }

    /// The only runner on the server.
    pub(crate) fn runner(&self) -> Result<Runner, String> {
        let [runner] = <[Runner; 1]>::try_from(self.gitlab.runners())
            .map_err(|runners| format!("the server has {} runners", runners.len()))?;
        Ok(runner)
    }

    /// Its entry in config.toml.
    pub(crate) fn entry(&self) -> Result<toml::Table, String> {
        let config: toml::Table =
            self.config().parse().map_err(|error| format!("config.toml does not parse: {error}"))?;
        let entry = config.get("runners").and_then(|runners| runners.get(0)).and_then(toml::Value::as_table);
        entry.cloned().ok_or_else(|| "config.toml has no entry".to_owned())
    }

    pub(crate) fn logs(&self) -> String {
        self.logs.borrow().iter().map(Capture::text).collect()
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Deref for ClockSandbox {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

/// The time at the start of a log's first line.
pub(crate) fn first_time(log: &str) -> Option<Timestamp> {
    log.split_whitespace().next()?.parse().ok()
}
