//! Machines: agents of the real binary, each with its own files, system_id and ways to GitLab and to the store.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fmt::Write as _};

use fake_gitlab::Gitlab;
use runner_agent::secret::{Digest, Token};
use rustix::process::Signal;
use tempfile::TempDir;
use test_support::{Process, faketime};

use crate::proxy::{Passage, Proxies, Proxy, UnderWay};

/// The name of GitLab for all machines. Each finds it, as the store, by a file of hosts of its own.
const GITLAB: &str = "gitlab.test";

/// Where the store is, and what `[sharing]` says about it.
pub(crate) struct StoreAddress {
    /// The names and addresses of its servers.
    pub(crate) servers: Vec<(String, SocketAddr)>,
    /// The section, which uses these names.
    pub(crate) section: String,
}

/// How machines reach the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ways {
    /// Each by proxies of its own.
    Own,
    /// Directly.
    Direct,
}

/// Machines that share a runner.
pub(crate) struct Agents {
    directory: TempDir,
    pub(crate) agents: Vec<Agent>,
}

/// One machine.
pub(crate) struct Agent {
    directory: PathBuf,
    binary: PathBuf,
    process: Option<Process>,
    is_paused: bool,
    gitlab: Option<Proxy>,
    gitlab_address: SocketAddr,
    store: Vec<Proxy>,
    /// The library that gives it a clock of its own.
    clock: Option<PathBuf>,
    /// Its system_id.
    pub(crate) machine: String,
}

impl Agents {
    /// Prepares machines whose agents are not started yet. `settings` is added to each agent.toml.
    pub(crate) fn new(count: usize, gitlab: &Gitlab, store: &StoreAddress, ways: Ways, settings: &str) -> Self {
        let mut directory = tempfile::tempdir_in(parent()).unwrap();
        if env::var_os("SHARING_KEEP").is_some() {
            directory.disable_cleanup(true);
            println!("  see {}", directory.path().display());
        }
        let proxies = Proxies::new();
        let url = format!("http://{GITLAB}:{}", gitlab.address().port());
        let settings = format!(
            "{settings}\n[sharing]\nrecover = true\n{}\n[[enroll]]\nname = \"docker\"\nurl = \"{url}\"\nregistration_token = {{ file = \
             \"registration\" }}\nexecutor = \"docker\"\nshare_as = \"{}\"\n\n[[server]]\nurl = \
             \"{url}\"\naccess_token = {{ file = \"access\" }}\n",
            store.section,
            crate::conformance::name(),
        );
        let access = gitlab.add_access_token([fake_gitlab::Scope::Api]);
        let registration = gitlab.instance_registration_token();
        let agents = (0..count)
            .map(|number| {
                let own = directory.path().join(format!("agent-{number}"));
                fs::create_dir_all(own.join("config")).unwrap();
                fs::write(own.join("agent.toml"), &settings).unwrap();
                fs::write(own.join("registration"), &registration).unwrap();
                fs::write(own.join("access"), &access).unwrap();
                let machine = format!("s_{number:012x}");
                fs::write(own.join("config/.runner_system_id"), &machine).unwrap();
                let mut agent = Agent {
                    directory: own,
                    binary: binary(),
                    process: None,
                    is_paused: false,
                    gitlab: None,
                    gitlab_address: gitlab.address(),
                    store: Vec::new(),
                    clock: None,
                    machine,
                };
                agent.connect(number, gitlab.address(), store, (ways == Ways::Own).then_some(&proxies));
                agent
            })
            .collect();
        for name in ["agent.toml", "registration", "access"] {
            for number in 0..count {
                private(&directory.path().join(format!("agent-{number}/{name}")));
            }
        }
        Self { directory, agents }
    }

    /// Keeps all files and logs for a person; returns where they are.
    pub(crate) fn keep(&mut self) -> PathBuf {
        self.directory.disable_cleanup(true);
        self.directory.path().to_owned()
    }

    /// Gives every second machine a wall clock of its own, before it is started.
    ///
    /// # Panics
    /// libfaketime is not installed.
    pub(crate) fn give_clocks(&mut self) {
        let library = faketime::library().expect("libfaketime is not installed");
        for agent in self.agents.iter_mut().step_by(2) {
            agent.clock = Some(library.clone());
            agent.set_clock(0);
        }
    }

    pub(crate) fn start_all(&mut self) {
        self.agents.iter_mut().for_each(Agent::start);
    }
}

/// The binary to test: that of `SHARING_BINARY`, else the one of this build.
pub(crate) fn binary() -> PathBuf {
    env::var("SHARING_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_runner-agent").to_owned()).into()
}

/// A directory whose files are in memory: twenty machines have twenty disks.
fn parent() -> PathBuf {
    let in_memory = Path::new("/dev/shm");
    if env::var_os("TMPDIR").is_none() && in_memory.is_dir() { in_memory.to_owned() } else { env::temp_dir() }
}

fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

impl Agent {
    fn connect(&mut self, number: usize, gitlab: SocketAddr, store: &StoreAddress, proxies: Option<&Proxies>) {
        let (high, low) = (u8::try_from(number / 250).unwrap(), u8::try_from(number % 250).unwrap());
        let mut hosts = String::from("127.0.0.1 localhost\n");
        let mut way = |name: &str, last: u8, to: SocketAddr, under_way: UnderWay| {
            let ip = proxies.map_or(Ipv4Addr::LOCALHOST, |_| Ipv4Addr::new(127, 10 + high, low, last));
            writeln!(hosts, "{ip} {name}").unwrap();
            let from = SocketAddr::from((ip, to.port()));
            (from, proxies.map(|proxies| proxies.forward(from, to, under_way)))
        };
        (self.gitlab_address, self.gitlab) = way(GITLAB, 1, gitlab, UnderWay::Answered);
        let servers = store.servers.iter().zip(2..);
        self.store = servers.filter_map(|((name, to), last)| way(name, last, *to, UnderWay::Lost).1).collect();
        fs::write(self.directory.join("hosts"), hosts).unwrap();
    }

    /// Starts the agent.
    pub(crate) fn start(&mut self) {
        let command = self.command(&["run"]);
        let log = OpenOptions::new().create(true).append(true).open(self.directory.join("log")).unwrap();
        self.process = Some(Process::start_logging_to(command, log));
        self.is_paused = false;
    }

    /// Runs a command of the agent to its end.
    pub(crate) fn run(&self, args: &[&str]) -> test_support::Output {
        Process::start(self.command(args)).end()
    }

    /// The agent in a mount namespace of its own, with its own hosts.
    fn command(&self, args: &[&str]) -> Command {
        let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(self.directory.join("hosts"));
        command
            .args(self.clock_environment())
            .arg(&self.binary)
            .args(args)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.current_dir(&self.directory).env("HOME", self.directory.join("home"));
        command.env("CONFIG_FILE", self.config()).env("RUNNER_AGENT_CONFIG", self.directory.join("agent.toml"));
        command.env("RUNTIME_DIRECTORY", self.directory.join("run"));
        command.env("STATE_DIRECTORY", self.directory.join("state"));
        command.env("LOG_LEVEL", env::var("SHARING_LOG").unwrap_or_else(|_| "info".to_owned())).stdin(Stdio::null());
        command
    }

    /// `env` with the variables for the clock, which are the agent's alone.
    fn clock_environment(&self) -> Vec<OsString> {
        let variables = self.clock.iter().flat_map(|library| faketime::environment(library, &self.offset()));
        let words = variables.map(|(name, value)| {
            let mut word = OsString::from(name);
            word.push("=");
            word.push(value);
            word
        });
        std::iter::once("env".into()).chain(words).collect()
    }

    fn offset(&self) -> PathBuf {
        self.directory.join("offset")
    }

    /// Whether its wall clock can be set.
    pub(crate) fn has_clock(&self) -> bool {
        self.clock.is_some()
    }

    /// Sets its wall clock this many seconds ahead of the machine's.
    pub(crate) fn set_clock(&self, seconds: i64) {
        faketime::set_offset(&self.offset(), seconds);
    }

    /// Where it finds GitLab.
    pub(crate) fn gitlab_address(&self) -> SocketAddr {
        self.gitlab_address
    }

    /// The times at which its log has lines, by its own clock.
    pub(crate) fn log_times(&self) -> Vec<jiff::Timestamp> {
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        log.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
    }

    /// Kills the agent.
    pub(crate) fn kill(&mut self) {
        drop(self.process.take().map(Process::kill));
    }

    pub(crate) fn set_paused(&mut self, is_paused: bool) {
        if let Some(process) = &self.process {
            process.signal(if is_paused { Signal::STOP } else { Signal::CONT });
            self.is_paused = is_paused;
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        !self.is_paused && self.process.as_ref().is_some_and(Process::is_running)
    }

    /// Whether the agent has ended by itself.
    pub(crate) fn has_ended(&self) -> bool {
        self.process.as_ref().is_some_and(|process| !process.is_running())
    }

    pub(crate) fn set_gitlab(&self, passage: Passage) {
        self.gitlab.iter().for_each(|proxy| proxy.set(passage));
    }

    /// Sets the ways to all servers of the store, or to one.
    pub(crate) fn set_store(&self, server: Option<usize>, passage: Passage) {
        let is_meant = |number: usize| server.is_none_or(|server| server == number);
        self.store.iter().enumerate().filter(|(number, _)| is_meant(*number)).for_each(|(_, proxy)| proxy.set(passage));
    }

    /// Whether it runs, and no way is cut.
    pub(crate) fn is_undisturbed(&self) -> bool {
        self.is_running() && self.gitlab.iter().chain(&self.store).all(Proxy::is_open)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.directory.join("config/config.toml")
    }

    /// The token in config.toml.
    pub(crate) fn token(&self) -> Option<Digest> {
        Some(token_in(&self.config())?.digest())
    }
}

/// The token in a config.toml.
pub(crate) fn token_in(config: &Path) -> Option<Token> {
    let text = fs::read_to_string(config).ok()?;
    let value = text.lines().find_map(|line| line.trim().strip_prefix("token = \""))?;
    Some(Token::parse(value.trim_end_matches('"')).unwrap())
}
