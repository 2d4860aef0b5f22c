//! The files that the settings come from: watched, and read again when they change.

use std::io;
use std::path::PathBuf;

use super::{Watch, Watched, Watcher};
use crate::engine::Config;
use crate::ops::Enrollment;
use crate::secret::Source;
use crate::settings::{self, Environment, Overrides, Paths, Settings};
use crate::status::StatusServerConfig;

pub(super) struct SettingsFiles {
    pub(super) overrides: Overrides,
    pub(super) environment: Environment,
    /// config.toml, with symbolic links resolved.
    pub(super) config_path: PathBuf,
    /// The addresses of the status server, which last until the daemon's end.
    pub(super) status_server: StatusServerConfig,
}

impl SettingsFiles {
    /// Watches config.toml, agent.toml and the token files; without a watch, HUP still works.
    pub(super) fn watch(&self, config: &Config) -> Option<Watch> {
        Watch::new(self.watched(config)).inspect_err(warn_unwatched).ok()
    }

    /// Reads the settings again, and watches the token files that they name then.
    pub(super) fn reload(self, mut watcher: Option<Watcher>) -> Box<dyn FnMut() -> Option<Config>> {
        Box::new(move || match settings::load(&self.overrides, &self.environment) {
            Ok(Settings { engine: config, status_server, .. }) => {
                if status_server != self.status_server {
                    tracing::warn!("the addresses in [http] take effect when the daemon is restarted");
                }
                if let Some(watcher) = &mut watcher {
                    watcher.watch(self.watched(&config)).unwrap_or_else(|error| warn_unwatched(&error));
                }
                Some(config)
            }
            Err(errors) => {
                tracing::error!("invalid settings; keeping the previous ones: {errors}");
                None
            }
        })
    }

    fn watched(&self, config: &Config) -> Watched {
        let Paths { agent_config, config: path, .. } = settings::paths(&self.overrides, &self.environment);
        let token_files = config.enrollments.iter().filter_map(token_file);
        Watched {
            config: vec![path, self.config_path.clone()],
            settings: std::iter::once(agent_config).chain(token_files).collect(),
        }
    }
}

fn warn_unwatched(error: &io::Error) {
    tracing::warn!(%error, "cannot watch files for changes: send HUP after changing them");
}

fn token_file(enrollment: &Enrollment) -> Option<PathBuf> {
    match enrollment.source.secret() {
        Source::File(path) => Some(path.clone()),
        Source::Credential { .. } | Source::Value { .. } => None,
    }
}
