//! What the user wants, from flags, environment and agent.toml, as the configurations of the other rooms.
//!
//! Three steps: agent.toml is read into its raw shape with the line of everything in it (`file`), the
//! environment adds the enrollment it describes (`variables`), and both are validated (`enrollment`).
//! Every mistake is collected and all are reported at once. Precedence: flag, environment, agent.toml,
//! default.
//!
//! This room fills the `Config` of `store`, `gitlab` and `agent`; none of them imports it. `toml` and
//! `directories` are used here and nowhere else, and only `sources` reads the process's environment.

mod access;
mod diagnostics;
mod enrollment;
mod file;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod http;
mod paths;
mod secrets;
mod sources;
mod table;
mod variables;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use access::{access_token, credential};
pub use diagnostics::{Errors, Mistake, Place, Placed};
pub use enrollment::{Draft, DraftCreation, ENVIRONMENT_KEY, enrollment, this_program};
pub use http::PORT;
pub use paths::{Paths, instance_id, paths};
pub use secrets::secret_variables;
pub use sources::{Environment, Start, UserDirectories, variable};
pub use variables::{parse_boolean, parse_seconds};

use enrollment::Findings;

use crate::status::StatusServerConfig;
use crate::{engine, gitlab, store};

/// What was given on the command line; wins over everything else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--agent-config`.
    pub agent_config: Option<PathBuf>,
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
    /// `--socket`.
    pub socket: Option<PathBuf>,
    /// `--listen-address`; several are separated by commas.
    pub listen_address: Option<String>,
    /// `--allow-remote`.
    pub allow_remote: Option<bool>,
}

/// Everything that was asked for, validated.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For the disk.
    pub store: store::Config,
    /// For the client.
    pub gitlab: gitlab::Config,
    /// For the daemon.
    pub engine: engine::Config,
    /// For what the daemon answers.
    pub status_server: StatusServerConfig,
    /// What is not wrong but surely not meant, one sentence each.
    pub warnings: Vec<String>,
}

/// Reads agent.toml and the environment for the daemon; called again with the same arguments at every
/// reload.
///
/// Templates are read here. Secrets stay where they are: a token file may change or vanish once it was used.
///
/// # Errors
/// [`Errors`] with every mistake that was found.
pub fn load(overrides: &Overrides, environment: &Environment) -> Result<Settings, Errors> {
    read(overrides, environment, Scope::Daemon)
}

/// Reads agent.toml for a one-shot command, to which the environment's enrollment means nothing.
///
/// # Errors
/// [`Errors`] with every mistake that was found.
pub fn load_for_command(overrides: &Overrides, environment: &Environment) -> Result<Settings, Errors> {
    read(overrides, environment, Scope::Command)
}

#[derive(Clone, Copy)]
enum Scope {
    Daemon,
    Command,
}

fn read(overrides: &Overrides, environment: &Environment, scope: Scope) -> Result<Settings, Errors> {
    let paths = paths(overrides, environment);
    let text = file::text(&paths)?;
    assemble(&paths, text, overrides, environment, scope)
}

fn assemble(
    paths: &Paths,
    text: Option<String>,
    overrides: &Overrides,
    environment: &Environment,
    scope: Scope,
) -> Result<Settings, Errors> {
    let mut engine = engine::Config::default();
    let mut gitlab = gitlab::Config {
        certs_dir: Some(paths.certs_dir()),
        proxies: variables::proxies(environment),
        ..gitlab::Config::default()
    };
    let mut findings = Findings::default();
    let mut drafts = Vec::new();
    let mut http = http::Http::default();
    if let Some(text) = text {
        let target = file::Target { engine: &mut engine, gitlab: &mut gitlab, drafts: &mut drafts, http: &mut http };
        file::read(&paths.agent_config, &text, environment, target, &mut findings.diagnostics);
    }
    match scope {
        Scope::Daemon => {
            drafts.extend(variables::enrolled(environment));
            http = http.outweighed(overrides, environment, &mut findings.diagnostics);
        }
        Scope::Command => {}
    }
    findings.warnings.extend(engine.servers.iter().filter_map(|server| server.access_token.remark()));
    engine.enrollments = enrollment::enrollments(drafts, environment, &engine.servers, &mut findings);
    let status_server = http.status_server(paths, &mut findings.diagnostics);
    let Findings { diagnostics, warnings } = findings;
    diagnostics.into_result(Settings { store: paths.store(), gitlab, engine, status_server, warnings })
}
