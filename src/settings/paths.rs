//! Which files are meant.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::{Environment, Overrides, variable};
use crate::secret::sha256_hex;
use crate::status::StatusClient;
use crate::store;

/// The files that a command works on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// config.toml.
    pub config: PathBuf,
    /// agent.toml.
    pub agent_config: PathBuf,
    /// Whether agent.toml was named by the user, so that it has to exist.
    pub agent_config_is_named: bool,
    /// The state directory; absent for a user without a home.
    pub state_root: Option<PathBuf>,
    /// Where a daemon's socket can be, the likeliest place first.
    pub sockets: Vec<PathBuf>,
    /// Whether that place was named by the user, and is the only one.
    pub socket_is_named: bool,
}

const ROOT_CONFIG: &str = "/etc/gitlab-runner/config.toml";
const ROOT_AGENT_CONFIG: &str = "/etc/runner-agent/agent.toml";
const ROOT_STATE: &str = "/var/lib/runner-agent";
const ROOT_RUNTIME: &str = "/run/runner-agent";
const SOCKET: &str = "agent.sock";
const MACHINE_ID: &str = "/etc/machine-id";

/// Finds the files by flag, environment and default, without opening any of them.
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
        sockets: socket.map_or_else(|| sockets(environment, state_root.as_deref()), |socket| vec![socket]),
        state_root,
    }
}

impl Paths {
    /// What the disk room needs to know.
    #[must_use]
    pub fn store(&self) -> store::Config {
        store::Config {
            config_path: self.config.clone(),
            state_root: self.state_root.clone(),
            machine_id_path: PathBuf::from(MACHINE_ID),
            variables: variable,
        }
    }

    /// The daemon that works on these files; whoever listens at the socket if the user has named one.
    #[must_use]
    pub fn addressee(&self) -> StatusClient {
        let instance_id = (!self.socket_is_named).then(|| instance_id(&self.config));
        StatusClient { sockets: self.sockets.clone(), instance_id }
    }

    /// Where certificates are looked for that no entry names.
    pub(super) fn certs_dir(&self) -> PathBuf {
        self.config.parent().unwrap_or(Path::new("")).join("certs")
    }
}

/// What tells the daemon of one config.toml from that of another, without telling where it is: the beginning of the
/// SHA-256 of its path, with symbolic links resolved as far as there is something.
#[must_use]
pub fn instance_id(config: &Path) -> String {
    let beside = || Some(config.parent()?.canonicalize().ok()?.join(config.file_name()?));
    let resolved = config.canonicalize().ok().or_else(beside);
    let path = resolved.as_deref().unwrap_or(config).as_os_str().as_encoded_bytes();
    sha256_hex(path).chars().take(MARK_DIGITS).collect()
}

/// Enough to tell apart all files of a machine.
const MARK_DIGITS: usize = 16;

/// The longest agent.toml or template read, in bytes: far more than any person writes.
const MAX_TEXT_BYTES: u64 = 4 * 1024 * 1024;

/// Reads a file of the user's. Only a regular one: reading a pipe could wait for ever, a device never ends.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    let length = File::open(path)?.take(MAX_TEXT_BYTES + 1).read_to_string(&mut text)?;
    if length as u64 > MAX_TEXT_BYTES {
        return Err(io::Error::other(format!("it is longer than {MAX_TEXT_BYTES} bytes")));
    }
    Ok(text)
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

/// The runtime directory, and the state directory for whom that one is not writable.
fn sockets(environment: &Environment, state_root: Option<&Path>) -> Vec<PathBuf> {
    let runtime = first_directory("RUNTIME_DIRECTORY", environment).or_else(|| {
        if environment.is_root {
            return Some(PathBuf::from(ROOT_RUNTIME));
        }
        environment.path("XDG_RUNTIME_DIR").map(|directory| directory.join("runner-agent"))
    });
    runtime.iter().map(PathBuf::as_path).chain(state_root).map(|directory| directory.join(SOCKET)).collect()
}

/// The service manager lists several directories with colons between them; the first is ours.
fn first_directory(variable: &str, environment: &Environment) -> Option<PathBuf> {
    let directories = environment.text(variable)?;
    directories
        .split(':')
        .find(|directory| !directory.is_empty())
        .map(|directory| environment.absolute(Path::new(directory)))
}
