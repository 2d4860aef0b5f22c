//! Where README's commands are run: a GitLab, a home, and the files that README speaks of.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use test_gitlab::{Gitlab, NewRunner, Scope};

/// The instance that README speaks of.
const EXAMPLE: &str = "https://gitlab.example.com";

/// The directory that README keeps settings and tokens in.
const ETC: &str = "/etc/runner-agent";

/// The directory that it finds state in.
const STATE: &str = "/var/lib/runner-agent";

/// The life of a token, which README's answers show.
const TOKEN_LIFE: &str = "30d";

/// How long the daemon may take for what it does at once.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Stage {
    gitlab: Gitlab,
    directory: tempfile::TempDir,
}

impl Stage {
    /// A GitLab with a registration token and a created runner, both in the files that README names.
    pub(crate) fn set() -> Self {
        let gitlab = Gitlab::builder().token_life(TOKEN_LIFE).start();
        let stage = Self { gitlab, directory: tempfile::tempdir().unwrap() };
        fs::create_dir(stage.path("etc")).unwrap();
        let (_, created) = stage.gitlab.add_runner(NewRunner::instance());
        stage.write(&format!("{ETC}/registration-token"), &stage.gitlab.instance_registration_token());
        stage.write(&format!("{ETC}/runner-token"), &created);
        stage.write(&format!("{ETC}/access-token"), &stage.gitlab.add_access_token([Scope::Api]));
        stage.write(&format!("{ETC}/agent.toml"), "");
        stage
    }

    /// Writes a file that README names.
    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = PathBuf::from(self.real(path));
        assert!(path.starts_with(self.directory.path()), "README writes to {}", path.display());
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
        file.write_all(self.real(content).as_bytes()).unwrap();
    }

    /// Runs commands and gives their stdout, in README's words; they have to succeed.
    pub(crate) fn run(&self, commands: &str) -> String {
        let output = self.shell(&self.real(commands)).output().unwrap();
        let Output { status, stdout, stderr } = output;
        let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8_lossy(&stderr).into_owned());
        assert!(status.success(), "{commands}ended with {status}\nstdout: {stdout}\nstderr: {stderr}");
        stdout.replace(&self.gitlab.url(), EXAMPLE).replace(&self.path("state").display().to_string(), STATE)
    }

    /// Runs the daemon until it has registered one more runner, and ends it with TERM, which unregisters that
    /// runner.
    pub(crate) fn run_until_stopped(&self, command: &str) {
        let before = self.gitlab.runners().len();
        let daemon = Daemon::start(self, command);
        let has_registered = self.gitlab.wait_until(PATIENCE, |gitlab| gitlab.runners().len() > before);
        assert!(has_registered, "{command}did not register its runner:\n{}", daemon.log());
        daemon.stop();
        assert_eq!(self.gitlab.runners().len(), before, "TERM did not unregister the runner");
    }

    /// Does something while a daemon serves, which is then stopped.
    pub(crate) fn run_beside_daemon(&self, work: impl FnOnce()) {
        let daemon = Daemon::start(self, "runner-agent run");
        self.run("runner-agent status --wait ready");
        work();
        daemon.stop();
    }

    fn shell(&self, script: &str) -> Command {
        let binary = Path::new(env!("CARGO_BIN_EXE_runner-agent")).parent().unwrap();
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-euc", script])
            .current_dir(self.directory.path())
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", binary.display()))
            .env("HOME", self.directory.path())
            .env("CONFIG_FILE", self.path("config.toml"))
            .env("RUNNER_AGENT_CONFIG", self.path("etc/agent.toml"))
            .env("RUNTIME_DIRECTORY", self.path("run"))
            .env("STATE_DIRECTORY", self.path("state"))
            .stdin(Stdio::null());
        shell
    }

    /// README's words with the addresses of this stage.
    fn real(&self, text: &str) -> String {
        text.replace(EXAMPLE, &self.gitlab.url()).replace(ETC, &self.path("etc").display().to_string())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// A daemon in the background of a shell; killed if it is not stopped.
struct Daemon<'a> {
    stage: &'a Stage,
    shell: Child,
}

impl<'a> Daemon<'a> {
    fn start(stage: &'a Stage, command: &str) -> Self {
        let command = stage.real(command.trim_end());
        // stderr goes to a file, so that nobody has to read it while the daemon runs.
        let shell = stage.shell(&format!("{command} 2> daemon.log &\necho $! > daemon.pid\nwait $!")).spawn().unwrap();
        Self { stage, shell }
    }

    fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.shell.wait().unwrap();
        assert!(status.success(), "the daemon ended with {status}:\n{}", self.log());
    }

    fn signal(&self, signal: Signal) {
        let pid = loop {
            let text = fs::read_to_string(self.stage.path("daemon.pid")).unwrap_or_default();
            match text.trim().parse().ok().and_then(Pid::from_raw) {
                Some(pid) => break pid,
                None => thread::sleep(Duration::from_millis(10)),
            }
        };
        // It may have ended by itself, which its exit code will tell.
        let _gone = kill_process(pid, signal);
    }

    fn log(&self) -> String {
        fs::read_to_string(self.stage.path("daemon.log")).unwrap_or_default()
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if self.shell.try_wait().is_ok_and(|status| status.is_none()) {
            self.signal(Signal::KILL);
            let _gone = self.shell.wait();
        }
        let _gone = fs::remove_file(self.stage.path("daemon.pid"));
    }
}
