//! What every command starts from.

use std::path::Path;

use super::Error;
use super::report::Reporter;
use crate::clock::{Clock as _, SystemClock};
use crate::error_chain::chain;
use crate::files::{is_there, read_within_limit};
use crate::model::{RunnerKey, Timestamp};
use crate::settings::{self, Environment, Overrides, Settings};
use crate::store::{self, Store};

/// The world around a command, as main found it.
pub(super) struct Context<'a> {
    /// What was given as flags.
    pub(super) overrides: Overrides,
    /// What was given otherwise.
    pub(super) environment: Environment,
    /// Where answers go.
    pub(super) reporter: &'a Reporter,
}

impl<'a> Context<'a> {
    /// Puts it together.
    pub(super) fn new(overrides: Overrides, environment: Environment, reporter: &'a Reporter) -> Self {
        Self { overrides, environment, reporter }
    }

    /// The settings of a one-shot command.
    pub(super) fn command_settings(&self) -> Result<Settings, Error> {
        let (overrides, environment) = (self.overrides.clone(), self.environment.clone());
        let load = move || settings::load_for_command(&overrides, &environment);
        Ok(until_signal(Path::new("agent.toml"), load)??)
    }

    /// The settings of the daemon, whose enrollments keep the names that their runners have.
    pub(super) fn daemon_settings(&self, names: Vec<(RunnerKey, String)>) -> Result<Settings, Error> {
        let (overrides, environment) = (self.overrides.clone(), self.environment.clone().remembering(names));
        let load = move || settings::load(&overrides, &environment);
        Ok(until_signal(Path::new("agent.toml"), load)??)
    }

    /// The disk for a one-shot command: without a usable state directory it works too, with less safety.
    pub(super) fn open_store(&self, config: store::Config) -> Result<Store, Error> {
        // A directory that is there or was asked for holds what this command has to know; going on without
        // it would be going on blind.
        let is_wanted = self.overrides.state_dir.is_some()
            || self.environment.text("STATE_DIRECTORY").is_some()
            || config.state_root.as_ref().is_some_and(|root| is_there(root));
        let open = |config: store::Config| {
            let path = config.config_path.clone();
            until_signal(&path, move || Store::open(config))
        };
        match open(config.clone())? {
            Ok(store) => Ok(store),
            Err(error) if is_wanted => Err(error.into()),
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "working without a state directory: a crash can lose a new token, and nothing is known of runners made before"
                );
                Ok(open(store::Config { state_root: None, ..config })??)
            }
        }
    }

    /// This machine's wall clock.
    pub(super) fn now(&self) -> Timestamp {
        SystemClock.read().wall
    }
}

/// Waits for files that another thread reads: a signal ends the command if a disk or network share does not answer.
pub(super) fn until_signal<T: Clone + Send + 'static, E: Send + 'static>(
    path: &Path,
    read: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<Result<T, E>, Error> {
    let unanswered = |error| Error::Interrupted(format!("stopped while reading `{}`: {error}", path.display()));
    read_within_limit(path, read).map_err(unanswered)
}
