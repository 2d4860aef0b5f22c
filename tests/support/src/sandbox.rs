use std::collections::HashSet;
use std::env;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use fake_gitlab::{Builder, Endpoint, Gitlab, NewRunner};

use crate::{Output, PATIENCE, POLL_INTERVAL, Process, scrub};

/// Settings that shorten every delay.
const FAST_TIMING: &str = "[timing]\nconfirm_after = \"10ms\"\nsettle_after = \"10ms\"\nfloor = \"10ms\"\n";

/// A fake GitLab and a temporary directory with the files of one agent.
///
/// The agent's files are `config/config.toml`, `agent.toml`, `state/` and `run/`.
pub struct Sandbox {
    /// The server.
    pub gitlab: Gitlab,
    directory: tempfile::TempDir,
    root: PathBuf,
    binary: PathBuf,
}

impl Sandbox {
    /// Starts a GitLab and creates an empty directory for `binary`.
    pub fn new(binary: impl Into<PathBuf>, gitlab: Builder) -> Self {
        Self::new_in(&env::temp_dir(), binary, gitlab)
    }

    /// The same with its directory in another one.
    pub fn new_in(parent: &Path, binary: impl Into<PathBuf>, gitlab: Builder) -> Self {
        let directory = tempfile::tempdir_in(parent).unwrap();
        let root = directory.path().canonicalize().unwrap();
        let sandbox = Self { gitlab: gitlab.start(), directory, root, binary: binary.into() };
        fs::create_dir(sandbox.path("config")).unwrap();
        sandbox.write("agent.toml", "");
        sandbox
    }

    /// The temporary directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path below the temporary directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Keeps the directory after the test.
    pub fn keep(&mut self) {
        self.directory.disable_cleanup(true);
    }

    /// Writes a file with mode 0600 as editors do: a new file beside it, then a rename.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        self.write_with_mode(name, text, 0o600)
    }

    /// Writes a file with any mode.
    pub fn write_with_mode(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        let directory = path.parent().unwrap();
        fs::create_dir_all(directory).unwrap();
        let mut file = tempfile::NamedTempFile::new_in(directory).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.as_file().set_permissions(Permissions::from_mode(mode)).unwrap();
        file.persist(&path).unwrap();
        path
    }

    /// Reads a file; empty if it is missing.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The text of config.toml; empty if it is missing.
    pub fn config(&self) -> String {
        self.read("config/config.toml")
    }

    /// Replaces config.toml.
    pub fn write_config(&self, text: &str) {
        self.write("config/config.toml", text);
    }

    /// Replaces agent.toml by short delays plus these settings.
    pub fn write_fast_settings(&self, settings: &str) {
        self.write("agent.toml", &format!("{FAST_TIMING}{settings}"));
    }

    /// An `[[enroll]]` table with this line for its secret.
    pub fn enrollment(&self, name: &str, secret: &str) -> String {
        format!("[[enroll]]\nname = \"{name}\"\nurl = \"{}\"\n{secret}\n", self.gitlab.url())
    }

    /// A `[[runners]]` entry.
    pub fn entry(&self, name: &str, id: u64, token: &str) -> String {
        format!("[[runners]]\nname = \"{name}\"\nurl = \"{}\"\nid = {id}\ntoken = \"{token}\"\n", self.gitlab.url())
    }

    /// Appends an entry to config.toml.
    pub fn add_entry(&self, name: &str, id: Option<u64>, token: &str) {
        let id = id.map(|id| format!("id = {id}\n")).unwrap_or_default();
        let url = self.gitlab.url();
        let entry =
            format!("[[runners]]\nname = \"{name}\"\nurl = \"{url}\"\n{id}token = \"{token}\"\nexecutor = \"shell\"\n");
        self.write_config(&(self.config() + &entry));
    }

    /// Creates a runner on the server and appends its entry to config.toml.
    pub fn add_created(&self, name: &str) -> (u64, String) {
        let (id, token) = self.gitlab.add_runner(NewRunner::instance());
        self.add_entry(name, Some(id), &token);
        (id, token)
    }

    /// The binary with these arguments in a clean environment.
    pub fn command(&self, args: &[&str]) -> Command {
        self.isolate(Command::new(&self.binary), args)
    }

    /// A shell script that gets the binary as `$0` and these arguments, in the same environment.
    pub fn shell(&self, script: &str, args: &[&str]) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).arg(&self.binary);
        self.isolate(command, args)
    }

    fn isolate(&self, mut command: Command, args: &[&str]) -> Command {
        command
            .env_clear()
            .current_dir(&self.root)
            .env("HOME", self.path("home"))
            .env("CONFIG_FILE", self.path("config/config.toml"))
            .env("RUNNER_AGENT_CONFIG", self.path("agent.toml"))
            .env("RUNTIME_DIRECTORY", self.path("run"))
            .env("STATE_DIRECTORY", self.path("state"))
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// Starts the binary with these arguments.
    pub fn start(&self, args: &[&str]) -> Process {
        Process::start(self.command(args))
    }

    /// Starts the daemon and waits until it serves.
    #[track_caller]
    pub fn start_serving(&self) -> Process {
        let daemon = self.start(&["run"]);
        self.wait("the daemon to serve", |_| daemon.log().contains("serving"));
        daemon
    }

    /// Runs the binary with these arguments to its end.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Output {
        self.start(args).end()
    }

    /// Runs the binary with more environment variables.
    #[track_caller]
    pub fn run_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = self.command(args);
        command.envs(variables.iter().copied());
        Process::start(command).end()
    }

    /// Runs the binary with a text on stdin.
    #[track_caller]
    pub fn run_reading(&self, args: &[&str], stdin: &str) -> Output {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let mut command = self.command(args);
        command.stdin(reader);
        let process = Process::start(command);
        writer.write_all(stdin.as_bytes()).unwrap();
        drop(writer);
        process.end()
    }

    /// Registers a runner non-interactively.
    #[track_caller]
    pub fn register(&self, args: &[&str]) -> Output {
        let (url, token) = (self.gitlab.url(), self.gitlab.instance_registration_token());
        self.run(&[&["register", "-n", "--url", &url, "--registration-token", &token], args].concat())
    }

    /// Waits until a condition holds; panics after [`PATIENCE`].
    #[track_caller]
    pub fn wait(&self, what: &str, mut is_met: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_met(self) {
            assert!(Instant::now() < deadline, "timed out waiting for {what}; config.toml:\n{}", self.config());
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Waits until the server has received this many requests.
    #[track_caller]
    pub fn wait_for_requests(&self, endpoint: Endpoint, count: usize) {
        assert!(self.gitlab.wait_for_requests(endpoint, count, PATIENCE), "timed out waiting for {endpoint:?}");
    }

    /// Waits until one runner is registered and in config.toml.
    #[track_caller]
    pub fn wait_for_registration(&self) {
        self.wait("one registered runner", |it| it.gitlab.runners().len() == 1 && it.is_in_step());
    }

    /// Whether config.toml holds exactly the tokens that the server knows.
    pub fn is_in_step(&self) -> bool {
        let (config, runners) = (self.config(), self.gitlab.runners());
        let quoted: HashSet<&str> = config.split('"').collect();
        config.matches("[[runners]]").count() == runners.len()
            && runners.iter().all(|runner| quoted.contains(runner.token.as_str()))
    }

    /// The names of all files below the directory that contain a text.
    pub fn files_with(&self, text: &str) -> Vec<String> {
        let has_text = |(_, content): &(String, Vec<u8>)| content.windows(text.len()).any(|it| it == text.as_bytes());
        files_below(&self.root).into_iter().filter(has_text).map(|(name, _)| name).collect()
    }

    /// The content of every file in the state directory, as one text.
    pub fn state(&self) -> String {
        files_below(&self.path("state")).iter().map(|(_, content)| String::from_utf8_lossy(content)).collect()
    }

    /// Replaces the parts of a text that differ between runs: addresses, directories, times, tokens, request ids.
    pub fn scrub(&self, text: &str) -> String {
        let mut text = text
            .replace(&self.gitlab.url(), "https://GITLAB")
            .replace(&self.gitlab.address().to_string(), "GITLAB")
            .replace(self.root.to_str().unwrap(), "/DIR");
        for runner in self.gitlab.runners() {
            text = text.replace(&runner.token, "TOKEN");
        }
        scrub::scrub(&text)
    }
}

/// The files below a directory, by their names relative to it. Skips a file that disappears meanwhile.
fn files_below(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().map_while(Result::ok) {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            files.extend(files_below(&entry.path()).into_iter().map(|(path, it)| (format!("{name}/{path}"), it)));
        } else if let Ok(content) = fs::read(entry.path()) {
            files.push((name, content));
        }
    }
    files
}
