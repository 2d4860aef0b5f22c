//! The binary with 64 MiB of memory.

use std::ops::Deref;
use std::thread;
use std::time::Duration;

use fake_gitlab::{Gitlab, NewRunner};
use rustix::process::{Resource, Rlimit, Signal, prlimit};
use test_support::{Output, Process, Sandbox};

use crate::BINARY;

/// The memory limit of the binary, in bytes.
const MEMORY_BYTES: u64 = 64 * 1024 * 1024;

/// Settings with a short request timeout.
pub(crate) const IMPATIENT: &str = "[gitlab]\nrequest_timeout = \"400ms\"\n";

/// A sandbox whose processes run under the memory limit.
pub(crate) struct LimitedSandbox(Sandbox);

/// A process under the memory limit.
pub(crate) struct LimitedProcess(Process);

impl LimitedSandbox {
    pub(crate) fn new() -> Self {
        let sandbox = Sandbox::new(BINARY, Gitlab::builder().token_life("1h"));
        sandbox.write("config/.runner_system_id", "s_0123456789ab\n");
        sandbox.write_fast_settings("");
        Self(sandbox)
    }

    /// Creates a runner whose entry has a comment and indentation.
    pub(crate) fn add_created(&self) -> (u64, String) {
        let (id, token) = self.gitlab.add_runner(NewRunner::instance());
        self.write_entry(&self.gitlab.url(), id, &token);
        (id, token)
    }

    pub(crate) fn write_entry(&self, url: &str, id: u64, token: &str) {
        let entry =
            format!("# ours\n[[runners]]\n  name = \"a\"\n  url = \"{url}\"\n  id = {id}\n  token = \"{token}\"\n");
        self.write_config(&entry);
    }

    pub(crate) fn start(&self, args: &[&str]) -> LimitedProcess {
        let process = self.0.start(args);
        // The kernel enforces the limit, so no short peak is missed.
        let limit = Rlimit { current: Some(MEMORY_BYTES), maximum: Some(MEMORY_BYTES) };
        prlimit(Some(process.pid()), Resource::Data, limit).unwrap();
        LimitedProcess(process)
    }

    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.start(args).end()
    }

    #[track_caller]
    pub(crate) fn register(&self, url: &str, args: &[&str]) -> Output {
        let token = self.gitlab.instance_registration_token();
        let output = self.run(&[&["register", "-n", "--name", "new", "-u", url, "-r", &token], args].concat());
        output.hides(&[&token]);
        output
    }

    /// Asserts that config.toml parses, and returns its entries.
    #[track_caller]
    pub(crate) fn entries(&self) -> Vec<toml::Table> {
        let config: toml::Table = self.config().parse().unwrap();
        let entries = config.get("runners").and_then(toml::Value::as_array).cloned().unwrap_or_default();
        entries.into_iter().map(|entry| entry.as_table().unwrap().clone()).collect()
    }
}

impl Deref for LimitedSandbox {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.0
    }
}

impl LimitedProcess {
    /// The peak memory of the process, in KiB; `None` after its end.
    pub(crate) fn peak_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(self.0.proc("status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok())
    }

    pub(crate) fn is_running(&self) -> bool {
        self.0.is_running()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.0.signal(signal);
    }

    /// Waits for the end and checks every run: the memory limit, no panic, no control characters.
    #[track_caller]
    pub(crate) fn end(self) -> Output {
        let mut peak_kib = 0;
        while self.0.is_running() {
            peak_kib = peak_kib.max(self.peak_kib().unwrap_or_default());
            thread::sleep(Duration::from_millis(5));
        }
        let output = self.0.end();
        let text = output.text();
        assert!(peak_kib < MEMORY_BYTES / 1024, "{peak_kib} KiB: {output:#?}");
        assert!(!text.contains("panicked"), "{output:#?}");
        let is_plain = |character: char| {
            !character.is_control() && !matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        };
        assert!(text.chars().all(|character| character == '\n' || is_plain(character)), "{output:#?}");
        output
    }
}
