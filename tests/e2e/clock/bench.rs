//! A GitLab whose tokens live for less than a minute, and the real binary under a clock that is wrong.

use std::cell::{Cell, RefCell};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::process::Signal;
use test_gitlab::{Endpoint, Gitlab, Request, Runner};

use super::process::{PATIENCE, Process};

/// How long a token lives. Half of it is left when it is replaced: what a busy machine may take.
pub(crate) const LIFE: Duration = Duration::from_secs(60);

/// How often the token is checked.
pub(crate) const INTERVAL: Duration = Duration::from_secs(20);

/// What the daemon says of a jump.
pub(crate) const NOTICED: &str = "the clock has jumped";

const SETTINGS: &str = "[rotate]\nat = \"50%\"\n[verify]\ninterval = \"20s\"\n[timing]\nlongest_nap = \"1s\"\n\
    [shutdown]\ngrace = \"5s\"\n";

pub(crate) struct Bench {
    pub(crate) gitlab: Gitlab,
    directory: tempfile::TempDir,
    library: PathBuf,
    began: Instant,
    logs: RefCell<Vec<PathBuf>>,
    /// How many times it was started, or its clock was put while it ran.
    pub(crate) surprises: Cell<usize>,
}

impl Bench {
    pub(crate) fn new(library: &Path) -> Self {
        let gitlab = Gitlab::builder().token_life(LIFE).start();
        let directory = tempfile::tempdir().unwrap();
        let bench = Self {
            gitlab,
            directory,
            library: library.to_owned(),
            began: Instant::now(),
            logs: RefCell::default(),
            surprises: Cell::new(0),
        };
        fs::create_dir(bench.path("config")).unwrap();
        fs::write(bench.path("token"), bench.gitlab.instance_registration_token()).unwrap();
        fs::set_permissions(bench.path("token"), Permissions::from_mode(0o600)).unwrap();
        let url = bench.gitlab.url();
        let enrollment =
            format!("[[enroll]]\nname = \"build-1\"\nurl = \"{url}\"\nregistration_token = {{ file = \"token\" }}\n");
        fs::write(bench.path("agent.toml"), format!("{SETTINGS}{enrollment}")).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts the wall clock of every process that is started here so many seconds ahead, or back.
    pub(crate) fn put_clock(&self, seconds: i64) {
        fs::write(self.path("offset.new"), format!("{seconds:+}\n")).unwrap();
        fs::rename(self.path("offset.new"), self.path("offset")).unwrap();
        if !self.logs.borrow().is_empty() {
            self.surprises.set(self.surprises.get() + 1);
        }
    }

    pub(crate) fn start(&self) -> Process {
        let log = self.path(&format!("log-{}", self.logs.borrow().len()));
        self.logs.borrow_mut().push(log.clone());
        let mut command = Command::new(env!("CARGO_BIN_EXE_runner-agent"));
        command
            .arg("run")
            .env_clear()
            .env("HOME", self.directory.path())
            .env("CONFIG_FILE", self.path("config/config.toml"))
            .env("RUNNER_AGENT_CONFIG", self.path("agent.toml"))
            .env("RUNTIME_DIRECTORY", self.path("run"))
            .env("STATE_DIRECTORY", self.path("state"))
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", self.path("offset"))
            .env("FAKETIME_NO_CACHE", "1")
            .env("DONT_FAKE_MONOTONIC", "1");
        self.surprises.set(self.surprises.get() + 1);
        Process::start(command, log)
    }

    /// Waits for something that comes within the life of a token, while that one never dies.
    pub(crate) fn wait_for(
        &self,
        daemon: &mut Process,
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
            None if daemon.has_ended() => Err(format!("while waiting for {what}: the daemon has ended")),
            None => Err(format!("{what} did not come")),
        }
    }

    fn is_expired(&self) -> bool {
        let now = self.gitlab.now();
        self.gitlab.runners().iter().any(|runner| runner.token_expires_at.is_none_or(|at| at <= now))
    }

    pub(crate) fn rotations(&self) -> usize {
        self.gitlab.runners().iter().map(|runner| runner.rotations).sum()
    }

    pub(crate) fn stop(&self, mut daemon: Process, signal: Signal) -> Result<(), String> {
        daemon.signal(signal);
        let status = daemon.end()?;
        if status.success() { Ok(()) } else { Err(format!("the daemon does not end well: {status}")) }
    }

    /// The one runner there is.
    pub(crate) fn runner(&self) -> Result<Runner, String> {
        let [runner] = <[Runner; 1]>::try_from(self.gitlab.runners())
            .map_err(|runners| format!("the server has {} runners", runners.len()))?;
        Ok(runner)
    }

    /// What config.toml holds of it.
    pub(crate) fn entry(&self) -> Result<toml::Table, String> {
        let text = fs::read_to_string(self.path("config/config.toml")).map_err(|error| error.to_string())?;
        let config: toml::Table = text.parse().map_err(|error| format!("config.toml does not parse: {error}"))?;
        let entry = config.get("runners").and_then(|runners| runners.get(0)).and_then(toml::Value::as_table);
        entry.cloned().ok_or_else(|| "config.toml has no entry".to_owned())
    }

    pub(crate) fn logs(&self) -> String {
        self.logs.borrow().iter().map(|log| fs::read_to_string(log).unwrap_or_default()).collect()
    }

    pub(crate) fn requests_to(&self, endpoint: Endpoint) -> Vec<Request> {
        self.gitlab.requests_to(endpoint)
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

/// The time at the start of a log's first line.
pub(crate) fn first_time(log: &str) -> Option<Timestamp> {
    log.split_whitespace().next()?.parse().ok()
}
