//! The files that the settings come from: watched, and read again when they change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::{Reload, Watch, Watched, Watcher};
use crate::engine::Config;
use crate::files::spawn_file_task;
use crate::secret::Source;
use crate::settings::{self, Environment, Overrides, Paths, Settings};
use crate::sharing;
use crate::status::StatusServerConfig;

/// How long a reload waits until the files that it names are watched.
const WATCHED_WITHIN: Duration = Duration::from_secs(1);

pub(super) struct SettingsFiles {
    pub(super) overrides: Overrides,
    pub(super) environment: Environment,
    /// The addresses of the status server, which last until the daemon's end.
    pub(super) status_server: StatusServerConfig,
}

impl SettingsFiles {
    /// Watches config.toml, agent.toml, and the files that it names; without a watch, HUP still works.
    pub(super) fn watch(&self, config: &Config, templates: Vec<PathBuf>) -> Option<Watch> {
        Watch::new(&self.watched(config, templates)).inspect_err(warn_unwatched).ok()
    }

    /// Reads the settings again on another thread, and watches the files that they name then.
    pub(super) fn reload(self, watcher: Option<Watcher>) -> Reload {
        let files = Arc::new(self);
        Box::new(move || {
            let (files, watcher) = (Arc::clone(&files), watcher.clone());
            // It notes each file itself.
            let reading = spawn_file_task(Path::new("agent.toml"), move || files.read());
            Box::pin(async move {
                // It may have panicked, which has been logged.
                let (config, watched) = reading.await.ok().flatten()?;
                if let Some(watcher) = watcher {
                    let watching = spawn_file_task(Path::new("agent.toml"), move || {
                        watcher.watch(&watched.settings).unwrap_or_else(|error| warn_unwatched(&error));
                    });
                    // A token file that does not answer holds up no reload.
                    let _unanswered = timeout(WATCHED_WITHIN, watching).await;
                }
                Some(config)
            })
        })
    }

    fn read(&self) -> Option<(Config, Watched)> {
        match settings::load(&self.overrides, &self.environment) {
            Ok(Settings { engine: config, status_server, templates, .. }) => {
                if status_server != self.status_server {
                    tracing::warn!("the addresses in [http] take effect when the daemon is restarted");
                }
                let watched = self.watched(&config, templates);
                Some((config, watched))
            }
            Err(errors) => {
                tracing::error!("invalid settings; keeping the previous ones: {errors}");
                None
            }
        }
    }

    fn watched(&self, config: &Config, templates: Vec<PathBuf>) -> Watched {
        let Paths { agent_config, config: path, .. } = settings::paths(&self.overrides, &self.environment);
        let sources = config.enrollments.iter().map(|enrollment| enrollment.source.secret());
        let sources = sources.chain(config.servers.iter().map(|server| &server.access_token));
        let sources = sources.chain(config.sharing.iter().flat_map(sharing::Settings::secrets));
        Watched {
            config: vec![path],
            settings: std::iter::once(agent_config).chain(sources.filter_map(token_file)).chain(templates).collect(),
        }
    }
}

fn warn_unwatched(error: &io::Error) {
    tracing::warn!(%error, "cannot watch files for changes: send HUP after changing them");
}

fn token_file(source: &Source) -> Option<PathBuf> {
    match source {
        Source::File(path) => Some(path.clone()),
        Source::Credential { path, .. } => path.clone(),
        Source::Value { .. } => None,
    }
}
