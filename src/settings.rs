//! Reads flags, environment and agent.toml into the configurations of the other rooms.
//!
//! Three steps: `file` reads agent.toml and keeps the line of each value, `variables` adds the enrollment of
//! the environment, and `enrollment` validates both. All errors are reported at once. Precedence: flag,
//! environment, agent.toml, default.
//!
//! This room fills the `Config` of `store`, `gitlab` and `engine`; none of them imports it. `toml`,
//! `directories` and `strsim` are used only here, and only `sources` reads the environment of the process.

mod access;
mod diagnostics;
mod differences;
mod draft;
mod enrollment;
mod entry;
mod entry_keys;
mod file;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod hooks;
mod http;
mod new_file;
mod paths;
mod redacted;
mod secret_source;
mod secrets;
mod server;
mod sharing;
mod similar;
mod sources;
mod table;
mod variables;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use access::{access_token, credential};
pub use diagnostics::{Diagnostic, Errors, Place, Placed};
pub use differences::differing_keys;
pub use draft::{Draft, DraftCreation, DraftFlags};
pub use enrollment::{ENVIRONMENT_KEY, enrollment, this_program};
pub use entry_keys::{EXECUTORS, EntryKey, Kind, unknown_executor};
pub use http::PORT;
pub use new_file::{NewDuty, NewEnrollment, NewFile, NewSource, ServedRunner, check_text, sets_nothing};
pub use paths::{Paths, ROOT_CONFIG, instance_id, paths};
pub use redacted::{redacted_config, redacted_settings};
pub use secrets::{secret_files, secret_variables};
pub use server::is_access_token_life;
pub use sharing::check_share;
pub use sources::{Environment, Start, UserDirectories, variable};
pub use table::split_list;
pub use variables::{has_server_variable, parse_boolean, parse_seconds};

use enrollment::Findings;

use crate::model::RunnerKey;
use crate::secret::Source;
use crate::status::StatusServerConfig;
use crate::{engine, gitlab, store};

/// Values of global flags; they win over everything else.
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
    /// `--listen-address`, comma-separated.
    pub listen_address: Option<String>,
    /// `--allow-remote`.
    pub allow_remote: Option<bool>,
    /// `--wait-for-config`.
    pub wait_for_config: bool,
}

/// The validated settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Configuration of the store.
    pub store: store::Config,
    /// Configuration of the GitLab client.
    pub gitlab: gitlab::Config,
    /// Configuration of the daemon.
    pub engine: engine::Config,
    /// Configuration of the status server.
    pub status_server: StatusServerConfig,
    /// Whether there is an agent.toml.
    pub has_file: bool,
    /// Whether the daemon waits for entries that another process is to write into config.toml.
    pub waits_for_config: bool,
    /// Where the engine of the store of shared runners is set.
    pub sharing_place: Option<Place>,
    /// The template files of the enrollments, whose text is in `engine`.
    pub templates: Vec<PathBuf>,
    /// The line of each `[[enroll]]` in agent.toml.
    pub enrollment_lines: Vec<(RunnerKey, usize)>,
    /// Valid but probably unintended settings, one sentence each.
    pub warnings: Vec<String>,
}

impl Settings {
    /// Logs the warnings, and those about token files, which are looked at here: a reload waits for none of them.
    pub fn log_warnings(&self) {
        for warning in self.secret_warnings().chain(self.warnings.iter().cloned()) {
            tracing::warn!("{warning}");
        }
    }

    /// The line of an `[[enroll]]` in agent.toml; `None` for one from the environment.
    #[must_use]
    pub fn line_of(&self, key: &str) -> Option<usize> {
        self.enrollment_lines.iter().find(|(other, _)| other.as_str() == key).map(|(_, line)| *line)
    }

    /// Warnings about token files that can be used, one sentence each. Looks at the files.
    pub fn secret_warnings(&self) -> impl Iterator<Item = String> {
        let of_servers = self.engine.servers.iter().map(|server| &server.access_token);
        let of_store = self.engine.sharing.iter().flat_map(crate::sharing::Settings::secrets);
        let of_hooks = self.engine.hooks.iter().filter_map(crate::hooks::Hook::secret);
        let sources = self.engine.enrollments.iter().map(|enrollment| enrollment.source.secret());
        let sources = sources.chain(of_store).chain(of_hooks);
        of_servers.chain(sources).filter_map(Source::warning)
    }
}

/// Reads agent.toml and the environment for the daemon, at its start and at every reload.
///
/// Templates are read here. Secrets are read when they are used, because a token file can change later.
///
/// # Errors
/// [`Errors`] with all errors in the settings.
pub fn load(overrides: &Overrides, environment: &Environment) -> Result<Settings, Errors> {
    read(overrides, environment, Scope::Daemon)
}

/// Reads agent.toml for a one-shot command, which ignores the enrollment of the environment.
///
/// # Errors
/// [`Errors`] with all errors in the settings.
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
    let mut http = http::HttpSection::default();
    let mut sharing = sharing::SharingSection::default();
    let has_file = text.is_some();
    let mut waits_for_config = overrides.wait_for_config;
    if let Some(text) = text {
        let target = file::FileTargets {
            engine: &mut engine,
            gitlab: &mut gitlab,
            drafts: &mut drafts,
            http: &mut http,
            sharing: &mut sharing,
        };
        file::read(paths, &text, environment, target, &mut findings.diagnostics);
    }
    match scope {
        Scope::Daemon => {
            drafts.extend(variables::enrolled(environment));
            waits_for_config |= variables::waits_for_config(environment, &mut findings.diagnostics);
            http = http.with_overrides(overrides, environment, &mut findings.diagnostics);
        }
        Scope::Command => {}
    }
    let sharing = sharing.with_variables(environment, &mut findings.diagnostics);
    let rules = sharing::SharingRules { is_given: sharing.is_given(), policies: &engine.policies };
    engine.enrollments = enrollment::enrollments(drafts, environment, &engine.servers, &rules, &mut findings);
    findings.warnings.extend(sharing.recovery_warnings(&engine));
    findings.warnings.extend(server::copies_warnings(&engine));
    let sharing_place = sharing.engine_place().cloned();
    engine.sharing = sharing.validate(&mut findings.diagnostics);
    let status_server = http.status_server(paths, &mut findings.diagnostics);
    let Findings { diagnostics, warnings, templates, lines: enrollment_lines } = findings;
    let store = paths.store();
    diagnostics.into_result(Settings {
        store,
        gitlab,
        engine,
        status_server,
        has_file,
        waits_for_config,
        sharing_place,
        templates,
        enrollment_lines,
        warnings,
    })
}
