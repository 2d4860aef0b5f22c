//! A place to run the binary in: its own files, and no environment but what a test gives.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use test_gitlab::Gitlab;

/// How long a test waits for something that surely comes.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Files of its own, and a GitLab.
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
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(Gitlab::start())
    }

    /// With a GitLab whose tokens end.
    pub(crate) fn with(gitlab: Gitlab) -> Self {
        let bench = Self { gitlab, directory: tempfile::tempdir().unwrap() };
        std::fs::create_dir(bench.path("config")).unwrap();
        bench.write("config/.runner_system_id", "s_0123456789ab\n");
        bench.write("agent.toml", TIMING);
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    pub(crate) fn write_config(&self, text: &str) {
        self.write("config/config.toml", text);
    }

    /// config.toml as it is; empty if there is none.
    pub(crate) fn config(&self) -> String {
        std::fs::read_to_string(self.path("config/config.toml")).unwrap_or_default()
    }

    /// The binary with this command line, in an environment of its own.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runner-agent"));
        command
            .env_clear()
            .current_dir(self.directory.path())
            .env("HOME", self.path("home"))
            .env("CONFIG_FILE", self.path("config/config.toml"))
            .env("RUNNER_AGENT_CONFIG", self.path("agent.toml"))
            .env("RUNTIME_DIRECTORY", self.path("run"))
            .env("STATE_DIRECTORY", self.path("state"))
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Done {
        self.finish(self.start(self.command(words)))
    }

    /// The same with further variables.
    pub(crate) fn run_with(&self, words: &[&str], variables: &[(&str, &str)]) -> Done {
        let mut command = self.command(words);
        command.envs(variables.iter().copied());
        self.finish(self.start(command))
    }

    /// The same with something on stdin.
    pub(crate) fn run_reading(&self, words: &[&str], stdin: &str) -> Done {
        let mut command = self.command(words);
        command.stdin(Stdio::piped());
        let mut child = self.start(command);
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        self.finish(child)
    }

    pub(crate) fn start(&self, mut command: Command) -> Child {
        command.spawn().unwrap()
    }

    pub(crate) fn finish(&self, child: Child) -> Done {
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Done { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    pub(crate) fn signal(&self, child: &Child, signal: &str) {
        let sent = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Registers a runner without being asked anything.
    pub(crate) fn register(&self, words: &[&str]) -> Done {
        let (url, token) = (self.gitlab.url(), self.gitlab.instance_registration_token());
        let all = [&["register", "-n", "--url", &url, "--registration-token", &token], words].concat();
        self.run(&all)
    }

    /// A created runner in config.toml.
    pub(crate) fn add_created(&self, name: &str) -> (u64, String) {
        let (id, token) = self.gitlab.add_runner(test_gitlab::NewRunner::instance());
        self.add_entry(name, Some(id), &token);
        (id, token)
    }

    pub(crate) fn add_entry(&self, name: &str, id: Option<u64>, token: &str) {
        let id = id.map(|id| format!("id = {id}\n")).unwrap_or_default();
        let url = self.gitlab.url();
        let entry =
            format!("[[runners]]\nname = \"{name}\"\nurl = \"{url}\"\n{id}token = \"{token}\"\nexecutor = \"shell\"\n");
        self.write_config(&(self.config() + &entry));
    }

    /// A text without what differs between runs: addresses, directories, times, tokens, request numbers.
    pub(crate) fn scrub(&self, text: &str) -> String {
        let directory = self.directory.path().canonicalize().unwrap();
        let mut text = text
            .replace(&self.gitlab.url(), "https://GITLAB")
            .replace(&self.gitlab.address().to_string(), "GITLAB")
            .replace(directory.to_str().unwrap(), "/DIR");
        for runner in self.gitlab.runners() {
            text = text.replace(&runner.token, "TOKEN");
        }
        scrub_words(&text)
    }

    /// Every file below the state directory, as one text.
    pub(crate) fn state(&self) -> String {
        let mut text = String::new();
        collect(&self.path("state"), &mut text);
        text
    }
}

impl Done {
    /// The one runner of a JSON answer.
    pub(crate) fn runner(&self) -> serde_json::Value {
        let runners = self.runners();
        assert_eq!(runners.len(), 1, "{self:?}");
        runners[0].clone()
    }

    pub(crate) fn runners(&self) -> Vec<serde_json::Value> {
        let answer: serde_json::Value = serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("{self:?}"));
        assert_eq!(answer["schema"], 1);
        answer["runners"].as_array().unwrap().clone()
    }

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
}

/// Waits that tests shall not sleep for.
const TIMING: &str = "\
[timing]
confirm_after = \"10ms\"
settle_after = \"10ms\"
floor = \"10ms\"
";

fn collect(path: &Path, text: &mut String) {
    let Ok(files) = std::fs::read_dir(path) else { return };
    for file in files {
        let path = file.unwrap().path();
        if path.is_dir() {
            collect(&path, text);
        } else {
            let mut bytes = Vec::new();
            std::fs::File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
}

/// Replaces times, spans, fingerprints and request numbers.
fn scrub_words(text: &str) -> String {
    let mut scrubbed = String::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '_');
        let end = rest.find(|c: char| !is_plain(c)).unwrap_or(rest.len());
        let word = &rest[..end];
        if word.is_empty() {
            scrubbed.push(character);
            rest = &rest[character.len_utf8()..];
            continue;
        }
        scrubbed.push_str(scrub_word(word));
        rest = &rest[end..];
    }
    scrubbed
}

fn scrub_word(word: &str) -> &str {
    let is_hex = |word: &str| word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    if word.len() == 20 && word.ends_with('Z') && digits == 14 {
        "TIME"
    } else if word.len() == 32 && is_hex(word) {
        "REQUEST"
    } else if word.len() == 8 && is_hex(word) && digits > 0 {
        "FINGERP8"
    } else {
        word
    }
}
