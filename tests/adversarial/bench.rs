//! A place to run the binary in, with 64 MiB of memory and not more.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use test_gitlab::{Gitlab, NewRunner};

/// What the binary may ever hold, in bytes.
const MEMORY_BYTES: u64 = 64 * 1024 * 1024;

/// A GitLab, and files of its own.
pub(crate) struct Bench {
    pub(crate) gitlab: Gitlab,
    directory: tempfile::TempDir,
}

/// What the binary did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// The most memory that it was seen to hold, in KiB.
    peak_kib: u64,
}

/// The binary at work; killed when dropped.
pub(crate) struct Working {
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

/// Waits that tests shall not sleep for, and a patience that slow answers soon exhaust.
const SETTINGS: &str = "\
[timing]
confirm_after = \"10ms\"
settle_after = \"10ms\"
floor = \"10ms\"
";

pub(crate) const IMPATIENT: &str = "[gitlab]\nrequest_timeout = \"400ms\"\n";

impl Bench {
    pub(crate) fn new() -> Self {
        let bench =
            Self { gitlab: Gitlab::builder().token_life("1h").start(), directory: tempfile::tempdir().unwrap() };
        bench.write(".runner_system_id", "s_0123456789ab\n");
        bench.write("agent.toml", SETTINGS);
        bench
    }

    pub(crate) fn set(&self, settings: &str) {
        self.write("agent.toml", &format!("{SETTINGS}{settings}"));
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// config.toml as it is; empty if there is none.
    pub(crate) fn config(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("config.toml")).unwrap_or_default()
    }

    /// A created runner in config.toml.
    pub(crate) fn add_created(&self) -> (u64, String) {
        let (id, token) = self.gitlab.add_runner(NewRunner::instance());
        self.write_entry(&self.gitlab.url(), id, &token);
        (id, token)
    }

    pub(crate) fn write_entry(&self, url: &str, id: u64, token: &str) {
        let entry =
            format!("# ours\n[[runners]]\n  name = \"a\"\n  url = \"{url}\"\n  id = {id}\n  token = \"{token}\"\n");
        self.write("config.toml", &entry);
    }

    pub(crate) fn start(&self, words: &[&str]) -> Working {
        let file = |name: &str| self.directory.path().join(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_runner-agent"));
        command
            .env_clear()
            .current_dir(self.directory.path())
            .env("HOME", file("home"))
            .env("CONFIG_FILE", file("config.toml"))
            .env("RUNNER_AGENT_CONFIG", file("agent.toml"))
            .env("RUNTIME_DIRECTORY", file("run"))
            .env("STATE_DIRECTORY", file("state"))
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // The kernel sees to it that no more memory is had, however briefly.
        let limit = Rlimit { current: Some(MEMORY_BYTES), maximum: Some(MEMORY_BYTES) };
        prlimit(Some(Pid::from_child(&child)), Resource::Data, limit).unwrap();
        let (stdout, stderr) = (reading(child.stdout.take().unwrap()), reading(child.stderr.take().unwrap()));
        Working { child, stdout: Some(stdout), stderr: Some(stderr) }
    }

    pub(crate) fn run(&self, words: &[&str]) -> Done {
        self.start(words).end()
    }

    pub(crate) fn register(&self, url: &str, words: &[&str]) -> Done {
        let token = self.gitlab.instance_registration_token();
        let done = self.run(&[&["register", "-n", "--name", "new", "-u", url, "-r", &token], words].concat());
        assert!(!done.shown().contains(&token), "{done:#?}");
        done
    }

    /// Asserts that config.toml can be understood, and returns its entries.
    #[track_caller]
    pub(crate) fn entries(&self) -> Vec<toml::Table> {
        let config: toml::Table = self.config().parse().unwrap();
        let entries = config.get("runners").and_then(toml::Value::as_array).cloned().unwrap_or_default();
        entries.into_iter().map(|entry| entry.as_table().unwrap().clone()).collect()
    }
}

impl Working {
    /// The most memory that it held so far, in KiB; none once it has ended.
    pub(crate) fn peak_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok())
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end, and asserts what holds of every end: little memory, and words that are plain.
    #[track_caller]
    pub(crate) fn end(mut self) -> Done {
        let mut peak_kib = 0;
        let status = loop {
            peak_kib = peak_kib.max(self.peak_kib().unwrap_or_default());
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            thread::sleep(Duration::from_millis(5));
        };
        let text = |reader: &mut Option<JoinHandle<String>>| reader.take().unwrap().join().unwrap();
        let (stdout, stderr) = (text(&mut self.stdout), text(&mut self.stderr));
        let done = Done { code: status.code(), stdout, stderr, peak_kib };
        assert!(done.peak_kib < MEMORY_BYTES / 1024, "{done:#?}");
        assert!(!done.shown().contains("panicked"), "{done:#?}");
        let is_plain = |character: char| {
            !character.is_control() && !matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        };
        assert!(done.shown().chars().all(|character| character == '\n' || is_plain(character)), "{done:#?}");
        done
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

impl Done {
    /// Asserts the exit code.
    #[track_caller]
    pub(crate) fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Asserts that stderr holds this text.
    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> &Self {
        assert!(self.stderr.contains(text), "{text}: {self:#?}");
        self
    }

    /// Everything that a user sees.
    pub(crate) fn shown(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }
}

fn reading(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        from.read_to_end(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    })
}
