//! Finds the files and sockets by flag, environment and default.

use std::io;
use std::path::{Path, PathBuf};

use super::{Environment, Overrides, variable};
use crate::files::{FileUse, explain, read_trusted_text, resolve};
use crate::secret::sha256_hex;
use crate::status::StatusClient;
use crate::store;

/// The files and sockets of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Path of config.toml.
    pub config: PathBuf,
    /// Path of agent.toml.
    pub agent_config: PathBuf,
    /// Whether the user named agent.toml, so it must exist.
    pub agent_config_is_named: bool,
    /// The state directory; `None` for a user without a home.
    pub state_root: Option<PathBuf>,
    /// Candidate paths of the daemon's socket, most likely first.
    pub sockets: Vec<PathBuf>,
    /// Whether the user named the socket; then it is the only candidate.
    pub socket_is_named: bool,
    /// Whether this process is root.
    pub is_root: bool,
}

/// config.toml of root.
pub const ROOT_CONFIG: &str = "/etc/gitlab-runner/config.toml";
const ROOT_AGENT_CONFIG: &str = "/etc/runner-agent/agent.toml";
const ROOT_STATE: &str = "/var/lib/runner-agent";
const ROOT_RUNTIME: &str = "/run/runner-agent";
const SOCKET: &str = "agent.sock";
const MACHINE_ID: &str = "/etc/machine-id";

/// Finds the files without opening any of them.
#[must_use]
pub fn paths(overrides: &Overrides, environment: &Environment) -> Paths {
    let flag = |path: &Option<PathBuf>| path.as_deref().map(|path| environment.absolute(path));
    let config = flag(&overrides.config).or_else(|| environment.path("CONFIG_FILE"));
    let agent_config = flag(&overrides.agent_config).or_else(|| environment.path("RUNNER_AGENT_CONFIG"));
    let state_root = flag(&overrides.state_dir).or_else(|| first_directory("STATE_DIRECTORY", environment));
    let state_root = state_root.or_else(|| default_state(environment));
    let socket = flag(&overrides.socket);
    Paths {
        config: config.unwrap_or_else(|| default_config(environment)),
        agent_config_is_named: agent_config.is_some(),
        agent_config: agent_config.unwrap_or_else(|| default_agent_config(environment)),
        socket_is_named: socket.is_some(),
        is_root: environment.is_root,
        sockets: socket.map_or_else(|| sockets(environment, state_root.as_deref()), |socket| vec![socket]),
        state_root,
    }
}

impl Paths {
    /// The configuration of the store.
    #[must_use]
    pub fn store(&self) -> store::Config {
        store::Config {
            config_path: self.config.clone(),
            state_root: self.state_root.clone(),
            machine_id_path: PathBuf::from(MACHINE_ID),
            // No variable changes it: root's commands and services have to find each other's locks.
            root_locks: self.is_root.then(|| PathBuf::from(ROOT_RUNTIME)),
            variables: variable,
        }
    }

    /// A client for the daemon of this config.toml, or for any daemon at the socket that the user named.
    #[must_use]
    pub fn status_client(&self) -> StatusClient {
        let instance_id = (!self.socket_is_named).then(|| instance_id(&self.config));
        StatusClient { sockets: self.sockets.clone(), instance_id }
    }

    /// The directory for certificates that no entry names.
    pub(super) fn certs_dir(&self) -> PathBuf {
        self.config.parent().unwrap_or(Path::new("")).join("certs")
    }
}

/// Identifies the daemon of a config.toml without revealing its path: the first digits of the path's SHA-256, with
/// symbolic links resolved as far as the path exists.
#[must_use]
pub fn instance_id(config: &Path) -> String {
    let resolved = resolve(config).unwrap_or_else(|_| config.to_owned());
    sha256_hex(resolved.as_os_str().as_encoded_bytes()).chars().take(INSTANCE_ID_DIGITS).collect()
}

/// Hex digits of an instance id; enough to be unique on a machine.
const INSTANCE_ID_DIGITS: usize = 16;

/// Maximum size of agent.toml or a template, in bytes.
const MAX_TEXT_BYTES: u64 = 4 * 1024 * 1024;

/// Reads agent.toml or a template, which no other user may have written.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    read_trusted_text(path, MAX_TEXT_BYTES).map_err(|error| explain(path, FileUse::Read, error))
}

fn default_config(environment: &Environment) -> PathBuf {
    match &environment.user {
        Some(user) if !environment.is_root => user.home.join(".gitlab-runner/config.toml"),
        None if !environment.is_root => environment.current_dir.join("config.toml"),
        Some(_) | None => PathBuf::from(ROOT_CONFIG),
    }
}

fn default_agent_config(environment: &Environment) -> PathBuf {
    match &environment.user {
        Some(user) if !environment.is_root => user.config.join("agent.toml"),
        Some(_) | None => PathBuf::from(ROOT_AGENT_CONFIG),
    }
}

fn default_state(environment: &Environment) -> Option<PathBuf> {
    if environment.is_root {
        return Some(PathBuf::from(ROOT_STATE));
    }
    environment.user.as_ref().map(|user| user.state.clone())
}

/// The runtime directory, then the state directory for daemons that cannot write to the runtime directory.
fn sockets(environment: &Environment, state_root: Option<&Path>) -> Vec<PathBuf> {
    let runtime = first_directory("RUNTIME_DIRECTORY", environment).or_else(|| {
        if environment.is_root {
            return Some(PathBuf::from(ROOT_RUNTIME));
        }
        environment.path("XDG_RUNTIME_DIR").map(|directory| directory.join("runner-agent"))
    });
    runtime.iter().map(PathBuf::as_path).chain(state_root).map(|directory| directory.join(SOCKET)).collect()
}

/// The first directory of a variable in which systemd lists directories, separated by colons.
fn first_directory(variable: &str, environment: &Environment) -> Option<PathBuf> {
    let directories = environment.text(variable)?;
    directories
        .split(':')
        .find(|directory| !directory.is_empty())
        .map(|directory| environment.absolute(Path::new(directory)))
}
