//! A GitLab, a directory of its own, and real processes that are looked at.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use test_gitlab::{Builder, Endpoint, Gitlab};

/// How long a test waits for something that surely comes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits that tests shall not sleep for.
const TIMING: &str =
    "[shutdown]\ngrace = \"100ms\"\n[timing]\nconfirm_after = \"10ms\"\nsettle_after = \"10ms\"\nfloor = \"10ms\"\n";

pub(crate) struct Bench {
    pub(crate) gitlab: Gitlab,
    directory: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(Gitlab::builder())
    }

    pub(crate) fn with(gitlab: Builder) -> Self {
        let bench = Self { gitlab: gitlab.start(), directory: tempfile::tempdir().unwrap() };
        bench.write_settings("");
        bench
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        self.write_with(name, text, 0o600)
    }

    pub(crate) fn write_with(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    pub(crate) fn write_settings(&self, text: &str) {
        self.write("agent.toml", &format!("{TIMING}{text}"));
    }

    pub(crate) fn enrollment(&self, name: &str, secret: &str) -> String {
        format!("[[enroll]]\nname = \"{name}\"\nurl = \"{}\"\n{secret}\n", self.gitlab.url())
    }

    pub(crate) fn entry(&self, name: &str, id: u64, token: &str) -> String {
        format!("[[runners]]\nname = \"{name}\"\nurl = \"{}\"\nid = {id}\ntoken = \"{token}\"\n", self.gitlab.url())
    }

    /// The binary with this command line, in an environment of its own.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        self.prepared(Command::new(env!("CARGO_BIN_EXE_runner-agent")), words)
    }

    /// The same through a shell, for what only a shell can do.
    pub(crate) fn shell(&self, script: &str, words: &[&str]) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, env!("CARGO_BIN_EXE_runner-agent")]);
        self.prepared(command, words)
    }

    fn prepared(&self, mut command: Command, words: &[&str]) -> Command {
        command
            .env_clear()
            .current_dir(self.directory.path())
            .env("HOME", self.directory.path())
            .env("CONFIG_FILE", self.path("config.toml"))
            .env("RUNNER_AGENT_CONFIG", self.path("agent.toml"))
            .env("RUNTIME_DIRECTORY", self.path("run"))
            .env("STATE_DIRECTORY", self.path("state"))
            .args(words)
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn start(&self, command: Command) -> Process {
        Process::start(command)
    }

    pub(crate) fn run(&self, words: &[&str]) -> Done {
        self.start(self.command(words)).end()
    }

    /// Waits until a request has come, whose process lives on as long as its answer is held.
    pub(crate) fn wait_for(&self, endpoint: Endpoint, count: usize) {
        assert!(self.gitlab.wait_for_requests(endpoint, count, PATIENCE), "waited in vain for {endpoint:?}");
    }

    pub(crate) fn wait(&self, what: &str, is_there: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_there() {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The names of all files below the directory that hold a text.
    pub(crate) fn files_with(&self, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        collect(self.directory(), &mut |path| {
            let content = fs::read(path).unwrap_or_default();
            if holds(&content, text) {
                found.push(path.strip_prefix(self.directory()).unwrap().display().to_string());
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

pub(crate) fn holds(content: &[u8], text: &str) -> bool {
    content.windows(text.len()).any(|window| window == text.as_bytes())
}

/// A process, killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

/// What a process did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Process {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Self { child, stdout: Some(reader(stdout)), stderr: Some(reader(stderr)) }
    }

    pub(crate) fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.child.id()))
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn stop(self) -> Done {
        self.signal(Signal::QUIT);
        self.end()
    }

    pub(crate) fn end(mut self) -> Done {
        let deadline = Instant::now() + PATIENCE;
        while self.is_running() {
            assert!(Instant::now() < deadline, "waited in vain for the end");
            thread::sleep(Duration::from_millis(2));
        }
        let code = self.child.wait().unwrap().code();
        let [stdout, stderr] = [self.stdout.take(), self.stderr.take()].map(|text| text.unwrap().join().unwrap());
        Done { code, stdout, stderr }
    }

    /// Asserts that what the process was started with, as the system shows it now, does not hold a token.
    #[track_caller]
    pub(crate) fn shows_nothing_of(&self, token: &str) {
        let words = fs::read(self.proc("cmdline")).unwrap();
        assert!(!words.is_empty() && !holds(&words, token), "{}", String::from_utf8_lossy(&words));
        // Only root can read it: to everybody else it is closed, as are core dumps.
        if let Ok(variables) = fs::read(self.proc("environ")) {
            assert!(!holds(&variables, token), "{}", String::from_utf8_lossy(&variables));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn reader(mut stream: impl std::io::Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    })
}

impl Done {
    #[track_caller]
    pub(crate) fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> &Self {
        assert!(self.stderr.contains(text), "{text}: {self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn tells_nothing_of(&self, tokens: &[&str]) -> &Self {
        for token in tokens {
            assert!(!self.stdout.contains(token) && !self.stderr.contains(token), "{token}: {self:#?}");
        }
        self
    }
}
