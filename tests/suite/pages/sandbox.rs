//! A sandbox for the commands of README.md and the pages: a GitLab, and the files that they use.

use std::fs;
use std::path::Path;
use std::process::Command;

use fake_gitlab::{Gitlab, NewAccessToken, NewRunner, Scope};
use rustix::process::{Pid, Signal, kill_process};
use test_support::{PATIENCE, Process, Sandbox};

use crate::BINARY;

/// The instance in the pages.
const EXAMPLE: &str = "https://gitlab.example.com";

/// The directory of settings and tokens.
const ETC: &str = "/etc/runner-agent";

/// The state directory in the pages.
const STATE: &str = "/var/lib/runner-agent";

/// The life of a token in the outputs of the pages.
const TOKEN_LIFE: &str = "30d";

/// What needs root in the pages: the sandbox has its own user, and a daemon without systemd.
const AS_ROOT: &str = "sudo() { \"$@\"; }; systemctl() { :; }";

/// Runs the commands of pages.
pub(crate) struct PagesSandbox(Sandbox);

impl PagesSandbox {
    /// Starts a GitLab, and writes the token files that the pages use.
    pub(crate) fn new() -> Self {
        let sandbox = Self(Sandbox::new(BINARY, Gitlab::builder().token_life(TOKEN_LIFE)));
        let (_, created) = sandbox.0.gitlab.add_runner(NewRunner::instance());
        sandbox.write(&format!("{ETC}/registration-token"), &sandbox.0.gitlab.instance_registration_token());
        sandbox.write(&format!("{ETC}/runner-token"), &created);
        let access = NewAccessToken::personal().scopes([Scope::Api]).expires_on(sandbox.0.gitlab.day_in(90));
        sandbox.write(&format!("{ETC}/access-token"), &sandbox.0.gitlab.create_access_token(access));
        sandbox.write(&format!("{ETC}/agent.toml"), "");
        sandbox
    }

    /// Writes a file at a path of a page.
    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.real(path);
        let name = Path::new(&path).strip_prefix(self.0.root()).unwrap_or_else(|_| panic!("a page writes to {path}"));
        self.0.write(name.to_str().unwrap(), &self.real(content));
    }

    /// Runs commands that must succeed, and returns their stdout with the addresses of the pages.
    #[track_caller]
    pub(crate) fn run(&self, commands: &str) -> String {
        let output = Process::start(self.shell(&self.real(commands))).end();
        assert!(output.is_success(), "{commands}{output:#?}");
        output.stdout.replace(&self.0.gitlab.url(), EXAMPLE).replace(&self.0.path("state").display().to_string(), STATE)
    }

    /// Runs the daemon until it has registered a runner, and stops it with TERM, which unregisters that runner.
    pub(crate) fn run_until_stopped(&self, command: &str) {
        let before = self.0.gitlab.runners().len();
        let daemon = Daemon::start(self, command);
        let has_registered = self.0.gitlab.wait_until(PATIENCE, |gitlab| gitlab.runners().len() > before);
        assert!(has_registered, "{command}did not register its runner:\n{}", daemon.log());
        daemon.stop();
        assert_eq!(self.0.gitlab.runners().len(), before, "TERM did not unregister the runner");
    }

    /// Runs `work` while a daemon serves, then stops the daemon.
    pub(crate) fn run_beside_daemon(&self, work: impl FnOnce()) {
        let daemon = Daemon::start(self, "runner-agent run");
        self.run("runner-agent status --wait ready");
        work();
        daemon.stop();
    }

    fn shell(&self, script: &str) -> Command {
        let mut shell = self.0.shell(&format!("set -eu\n{AS_ROOT}\n{script}"), &[]);
        shell.env("PATH", format!("{}:/usr/bin:/bin", Path::new(BINARY).parent().unwrap().display()));
        shell.env("RUNNER_AGENT_CONFIG", self.0.path("etc/agent.toml"));
        shell
    }

    /// A page's text with the addresses of this sandbox.
    fn real(&self, text: &str) -> String {
        text.replace(EXAMPLE, &self.0.gitlab.url()).replace(ETC, &self.0.path("etc").display().to_string())
    }
}

/// A daemon in the background of a shell; killed on drop.
struct Daemon<'a> {
    sandbox: &'a Sandbox,
    shell: Option<Process>,
}

impl<'a> Daemon<'a> {
    fn start(pages: &'a PagesSandbox, command: &str) -> Self {
        let command = pages.real(command.trim_end());
        let shell = Process::start(pages.shell(&format!("{command} &\necho $! > daemon.pid\nwait $!")));
        Self { sandbox: &pages.0, shell: Some(shell) }
    }

    fn log(&self) -> String {
        self.shell.as_ref().map(Process::log).unwrap_or_default()
    }

    #[track_caller]
    fn stop(mut self) {
        self.signal(Signal::TERM);
        self.shell.take().unwrap().end().exits(0);
    }

    fn signal(&self, signal: Signal) {
        let mut pid = None;
        self.sandbox.wait("the daemon's process id", |sandbox| {
            pid = sandbox.read("daemon.pid").trim().parse().ok().and_then(Pid::from_raw);
            pid.is_some()
        });
        // Fails if the daemon has already ended, which the exit code shows.
        let _sent = kill_process(pid.unwrap(), signal);
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if self.shell.as_ref().is_some_and(Process::is_running) {
            self.signal(Signal::KILL);
        }
        let _removed = fs::remove_file(self.sandbox.path("daemon.pid"));
    }
}
