//! The files and the GitLab of one case.

use std::fs::{self, File};
use std::io::Write as _;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use fake_gitlab::{Gitlab, NewAccessToken, Scope};
use test_support::{Capture, Process, Sandbox};

use super::hooks;
use super::work::Work;
use crate::BINARY;

/// The file of the access token that is kept, beside config.toml.
pub(crate) const ACCESS_TOKEN: &str = "config/access-token";

/// The foreign part of config.toml, which must not change.
pub(crate) const FOREIGN: &str = "# by hand\nconcurrent   =  4\n\n[session_server] # odd\n  session_timeout = 0x708\n\n\
    [[runners]]\n  name = 'neighbour' # not ours\n  url = \"https://elsewhere.example.com\"\n  token = \"$NOT_SET_ANYWHERE\"\n  \
    executor = \"shell\"\n";

const TIMING: &str = "[timing]\nconfirm_after = \"100ms\"\nsettle_after = \"100ms\"\nfloor = \"50ms\"\n\
    between_resets = \"100ms\"\nbetween_resets_floor = \"100ms\"\nbackoff_first = \"50ms\"\nbackoff_cap = \"200ms\"\n\
    [shutdown]\ngrace = \"3s\"\n";

/// A sandbox whose processes can run under strace and whose directories can be a small disk.
pub(crate) struct FaultSandbox {
    sandbox: Sandbox,
    logs: Mutex<Vec<Capture>>,
    mounted: Option<PathBuf>,
    access_token: &'static str,
}

impl FaultSandbox {
    /// Writes a config.toml with foreign entries only, and mounts a small disk at `mounted` (`config` or `state`).
    pub(crate) fn new(work: Work, mounted: Option<&str>) -> Self {
        let sandbox = Sandbox::new(BINARY, Gitlab::builder().token_life("1h"));
        fs::create_dir(sandbox.path("state")).unwrap();
        let mounted = mounted.map(|name| sandbox.path(name));
        if let Some(path) = &mounted {
            let mount = ["-t", "tmpfs", "-o", "size=256k,nr_inodes=64,mode=700", "tmpfs"];
            assert!(Command::new("mount").args(mount).arg(path).status().unwrap().success());
        }
        sandbox.write_config(FOREIGN);
        sandbox.write("token", &sandbox.gitlab.instance_registration_token());
        let url = sandbox.gitlab.url();
        let access_token = if work == Work::AccessToken { ACCESS_TOKEN } else { "pat" };
        let file = if work == Work::AccessToken {
            let new = NewAccessToken::personal().scopes([Scope::Api]).expires_on(sandbox.gitlab.day_in(90));
            sandbox.write_with_mode(ACCESS_TOKEN, &sandbox.gitlab.create_access_token(new), 0o600);
            format!("\"{ACCESS_TOKEN}\", rotate = true")
        } else {
            sandbox.write("pat", &sandbox.gitlab.add_access_token([Scope::Api]));
            "\"pat\"".to_owned()
        };
        let server = format!("[[server]]\nurl = \"{url}\"\naccess_token = {{ file = {file} }}\n");
        let enrollment = sandbox.enrollment("build-1", "registration_token = { file = \"token\" }");
        let enrollment = match work {
            Work::Hooks => hooks::settings(&sandbox),
            _ if work.is_enrolling() => enrollment,
            _ => String::new(),
        };
        sandbox.write("agent.toml", &format!("{TIMING}{server}{enrollment}"));
        Self { sandbox, logs: Mutex::default(), mounted, access_token }
    }

    /// The file of the access token.
    pub(crate) fn access_token(&self) -> PathBuf {
        self.path(self.access_token)
    }

    /// Starts the binary, under strace if there are arguments for it.
    pub(crate) fn start(&self, args: &[&str], strace: &[String]) -> Process {
        let mut command = if strace.is_empty() {
            self.command(args)
        } else {
            // With -D the binary keeps the id of this shell, so signals reach it.
            let quoted: Vec<String> = strace.iter().map(|argument| format!("\"{argument}\"")).collect();
            self.shell(&format!("exec strace -D -f -q {} -- \"$0\" \"$@\"", quoted.join(" ")), args)
        };
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let process = Process::start(command);
        self.logs.lock().unwrap().push(process.log_capture());
        process
    }

    /// The logs of all processes.
    pub(crate) fn logs(&self) -> String {
        self.logs.lock().unwrap().iter().map(Capture::text).collect()
    }

    /// Fills the small disk: all inodes or all bytes.
    pub(crate) fn fill(&self, takes_names: bool) {
        let Some(directory) = &self.mounted else { return };
        if takes_names {
            let mut numbers = 0..1000;
            while numbers.next().is_some_and(|n| File::create(directory.join(format!("filler-{n}"))).is_ok()) {}
        } else {
            let mut file = File::create(directory.join("filler-0")).unwrap();
            while file.write_all(&[0; 4096]).is_ok() {}
        }
    }

    /// Frees the small disk again.
    pub(crate) fn make_room(&self) {
        let Some(directory) = &self.mounted else { return };
        for entry in fs::read_dir(directory).unwrap().map_while(Result::ok) {
            if entry.file_name().to_string_lossy().starts_with("filler-") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }

    /// Keeps the directory after the case.
    pub(crate) fn keep(&mut self) {
        self.sandbox.keep();
    }
}

impl Deref for FaultSandbox {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl Drop for FaultSandbox {
    fn drop(&mut self) {
        if let Some(path) = &self.mounted {
            // If this fails, the mount ends with the mount namespace of this program.
            let _unmounted = Command::new("umount").arg("-l").arg(path).status();
        }
    }
}
