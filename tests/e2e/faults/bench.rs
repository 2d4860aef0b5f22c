//! Files and a GitLab of its own for each case, and the real binary in them.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use test_gitlab::{Gitlab, Scope};

use super::process::Process;

/// What else is in config.toml: none of it may change.
pub(crate) const FOREIGN: &str = "# by hand\nconcurrent   =  4\n\n[session_server] # odd\n  session_timeout = 0x708\n\n\
    [[runners]]\n  name = 'neighbour' # not ours\n  url = \"https://elsewhere.example.com\"\n  token = \"$NOT_SET_ANYWHERE\"\n  \
    executor = \"shell\"\n";

const TIMING: &str = "[timing]\nconfirm_after = \"100ms\"\nsettle_after = \"100ms\"\nfloor = \"50ms\"\n\
    between_resets = \"100ms\"\nbetween_resets_floor = \"100ms\"\nbackoff_first = \"50ms\"\nbackoff_cap = \"200ms\"\n\
    [shutdown]\ngrace = \"3s\"\n";

pub(crate) struct Bench {
    pub(crate) gitlab: Gitlab,
    directory: tempfile::TempDir,
    root: PathBuf,
    processes: AtomicUsize,
    mounted: Option<PathBuf>,
}

impl Bench {
    /// With a config.toml that has nothing of ours yet; `mounted` of its directories is a small disk.
    pub(crate) fn new(is_enrolling: bool, mounted: Option<&str>) -> Self {
        let gitlab = Gitlab::builder().token_life("1h").start();
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let mut bench = Self { gitlab, directory, root, processes: AtomicUsize::new(0), mounted: None };
        for name in ["config", "state"] {
            fs::create_dir(bench.path(name)).unwrap();
        }
        if let Some(name) = mounted {
            let path = bench.path(name);
            let mount = ["-t", "tmpfs", "-o", "size=256k,nr_inodes=64,mode=700", "tmpfs"];
            assert!(Command::new("mount").args(mount).arg(&path).status().unwrap().success());
            bench.mounted = Some(path);
        }
        bench.write("config/config.toml", FOREIGN);
        bench.write("token", &bench.gitlab.instance_registration_token());
        bench.write("pat", &bench.gitlab.add_access_token([Scope::Api]));
        let url = bench.gitlab.url();
        let server = format!("[[server]]\nurl = \"{url}\"\naccess_token = {{ file = \"pat\" }}\n");
        let enrollment =
            format!("[[enroll]]\nname = \"build-1\"\nurl = \"{url}\"\nregistration_token = {{ file = \"token\" }}\n");
        let enrollment = if is_enrolling { enrollment } else { String::new() };
        bench.write("agent.toml", &format!("{TIMING}{server}{enrollment}"));
        bench
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn config(&self) -> String {
        fs::read_to_string(self.path("config/config.toml")).unwrap_or_default()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Starts the binary, under strace if there are words for it.
    pub(crate) fn start(&self, words: &[&str], strace: &[String]) -> Process {
        let number = self.processes.fetch_add(1, Ordering::Relaxed);
        let log = self.path(&format!("log-{number}"));
        let binary = env!("CARGO_BIN_EXE_runner-agent");
        let mut command = if strace.is_empty() {
            Command::new(binary)
        } else {
            // With -D the binary keeps the id of this shell, so that signals reach it.
            let mut command = Command::new("sh");
            let quoted: Vec<String> = strace.iter().map(|word| format!("\"{word}\"")).collect();
            let script = format!("exec strace -D -f -q {} -- {binary} \"$@\"", quoted.join(" "));
            command.args(["-c", &script, "sh"]);
            command
        };
        command
            .args(words)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", &self.root)
            .env("CONFIG_FILE", self.path("config/config.toml"))
            .env("RUNNER_AGENT_CONFIG", self.path("agent.toml"))
            .env("RUNTIME_DIRECTORY", self.path("run"))
            .env("STATE_DIRECTORY", self.path("state"));
        Process::start(command, log)
    }

    /// All that any process has logged so far.
    pub(crate) fn logs(&self) -> String {
        let count = self.processes.load(Ordering::Relaxed);
        (0..count).map(|number| fs::read_to_string(self.path(&format!("log-{number}"))).unwrap_or_default()).collect()
    }

    /// Takes all the space, or all the names, of the small disk.
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

    pub(crate) fn make_room(&self) {
        let Some(directory) = &self.mounted else { return };
        for entry in fs::read_dir(directory).unwrap().map_while(Result::ok) {
            if entry.file_name().to_string_lossy().starts_with("filler-") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }

    /// Keeps the directory for somebody who looks at a failure.
    pub(crate) fn keep(&mut self) {
        self.directory.disable_cleanup(true);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(path) = &self.mounted {
            // What stays mounted ends with this program's own mounts.
            let _ended = Command::new("umount").arg("-l").arg(path).status();
        }
    }
}
