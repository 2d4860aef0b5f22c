//! A GitLab, a directory of its own, and real daemons in it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use test_gitlab::{Builder, Gitlab};

/// The longest that anything awaited may take on a busy machine: ten lives of a token take 40 s alone.
pub const PATIENCE: Duration = Duration::from_secs(180);

pub struct Bench {
    pub gitlab: Gitlab,
    directory: tempfile::TempDir,
}

impl Bench {
    pub fn new(gitlab: Builder) -> Self {
        Self { gitlab: gitlab.start(), directory: tempfile::tempdir().unwrap() }
    }

    /// A bench whose agent.toml enrolls one runner named `build-1`, after the given settings.
    pub fn enrolling(gitlab: Builder, settings: &str) -> Self {
        let bench = Self::new(gitlab);
        bench.write("token", &bench.gitlab.instance_registration_token());
        bench.write("agent.toml", &format!("{settings}\n{}", bench.enrollment("build-1")));
        bench
    }

    pub fn enrollment(&self, name: &str) -> String {
        let url = self.gitlab.url();
        format!("[[enroll]]\nname = \"{name}\"\nurl = \"{url}\"\nregistration_token = {{ file = \"token\" }}\n")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Writes a file as an editor or a configuration manager would: beside it, then renamed.
    pub fn write(&self, name: &str, content: &str) {
        let beside = self.path(&format!("{name}.new"));
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside).unwrap();
        file.write_all(content.as_bytes()).unwrap();
        fs::rename(beside, self.path(name)).unwrap();
    }

    pub fn config(&self) -> String {
        self.read("config.toml")
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runner-agent"));
        command
            .args(words)
            .env_clear()
            .env("HOME", self.directory.path())
            .env("CONFIG_FILE", self.path("config.toml"))
            .env("RUNNER_AGENT_CONFIG", self.path("agent.toml"))
            .env("RUNTIME_DIRECTORY", self.path("run"))
            .env("STATE_DIRECTORY", self.path("state"));
        if !self.path("agent.toml").exists() {
            self.write("agent.toml", "");
        }
        command
    }

    pub fn start(&self) -> Daemon {
        self.start_with(&[])
    }

    pub fn start_with(&self, flags: &[&str]) -> Daemon {
        Daemon::spawn(self.command(&[&["run"], flags].concat()))
    }

    /// Starts the daemon and waits until it serves.
    pub fn serving(&self) -> Daemon {
        let daemon = self.start();
        self.wait("the daemon to serve", |_| daemon.log().contains("serving"));
        daemon
    }

    pub fn wait(&self, what: &str, mut is_there: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_there(self) {
            assert!(Instant::now() < deadline, "waited in vain for {what}; config.toml:\n{}", self.config());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether config.toml holds exactly the tokens that the server knows.
    pub fn is_in_step(&self) -> bool {
        let config = self.config();
        let runners = self.gitlab.runners();
        config.matches("[[runners]]").count() == runners.len()
            && runners.iter().all(|runner| config.contains(&format!("\"{}\"", runner.token)))
    }

    pub fn wait_for_registration(&self) {
        self.wait("one registered runner", |bench| bench.gitlab.runners().len() == 1 && bench.is_in_step());
    }

    /// Every file below the directory that holds a text.
    pub fn files_with(&self, text: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        collect(self.directory.path(), &mut |path| {
            let content = fs::read(path).unwrap_or_default();
            if content.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(path.strip_prefix(self.directory.path()).unwrap().to_owned());
            }
        });
        found
    }
}

fn collect(directory: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(directory).unwrap().map_while(Result::ok) {
        let path = entry.path();
        if path.is_dir() { collect(&path, visit) } else { visit(&path) }
    }
}

/// A daemon as a child process; killed with -9 when it is dropped.
pub struct Daemon {
    child: Child,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Daemon {
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&log);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count) = stderr.read(&mut buffer) {
                if count == 0 {
                    return;
                }
                sink.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Self { child, log, reader: Some(reader) }
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the end; its whole log comes along.
    pub fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        (status, self.log())
    }

    pub fn stop(self, signal: Signal) -> (ExitStatus, String) {
        self.signal(signal);
        self.end()
    }

    /// Ends it with -9 and returns its log.
    pub fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        self.log()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
