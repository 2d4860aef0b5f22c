//! The files that the settings come from: watched, and read again when they change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::task::JoinHandle;
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

/// Why the settings are unknown after a panic.
const PANICKED: &str = "an internal error, see the log, has ended the reading of agent.toml";

pub(super) struct SettingsFiles {
    pub(super) overrides: Overrides,
    pub(super) environment: Environment,
    /// The addresses of the status server, which last until the daemon's end.
    pub(super) status_server: StatusServerConfig,
    /// The warnings about the settings in force, which were logged.
    pub(super) warnings: Mutex<Vec<String>>,
}

impl SettingsFiles {
    /// Watches config.toml, agent.toml, and the files that it names; without a watch, HUP still works.
    pub(super) fn watch(&self, config: &Config, templates: Vec<PathBuf>) -> Option<Watch> {
        Watch::new(&self.watched(config, templates)).inspect_err(warn_unwatched).ok()
    }

    /// Reads the settings again on another thread, and watches the files that they name then.
    pub(super) fn reload(self, watcher: Option<Watcher>) -> Reload {
        let files = Arc::new(self);
        let watch = |watcher: Watcher| {
            Watching::by(move |files| watcher.watch(files).unwrap_or_else(|error| warn_unwatched(&error)))
        };
        let watching = watcher.map(watch);
        Box::new(move || {
            let (files, watching) = (Arc::clone(&files), watching.clone());
            // It notes each file itself.
            let reading = spawn_file_task(Path::new("agent.toml"), move || files.read());
            Box::pin(async move {
                // It may have panicked, which has been logged.
                let read = reading.await.unwrap_or_else(|_| Err(PANICKED.to_owned()));
                let (config, watched) = read?;
                if let Some(walk) = watching.and_then(|watching| watching.begin(watched.settings)) {
                    // A token file that does not answer holds up no reload.
                    let _unanswered = timeout(WATCHED_WITHIN, walk).await;
                }
                Ok(config)
            })
        })
    }

    fn read(&self) -> Result<(Config, Watched), String> {
        match settings::load(&self.overrides, &self.environment) {
            Ok(Settings { engine: config, status_server, templates, warnings, .. }) => {
                self.log_new(warnings);
                if status_server != self.status_server {
                    tracing::warn!("the addresses in [http] take effect when the daemon is restarted");
                }
                let watched = self.watched(&config, templates);
                Ok((config, watched))
            }
            Err(errors) => {
                tracing::error!("invalid settings; keeping the previous ones: {errors}");
                Err(errors.to_string())
            }
        }
    }

    /// Logs the warnings that the former settings did not cause.
    fn log_new(&self, warnings: Vec<String>) {
        let mut logged = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        for warning in warnings.iter().filter(|warning| !logged.contains(warning)) {
            tracing::warn!("{warning}");
        }
        *logged = warnings;
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

/// Watches files on another thread, on one at a time: each walk to a file that does not answer would hold one more. Clones
/// share it.
#[derive(Clone)]
struct Watching {
    watch: Arc<WatchFiles>,
    wanted: Arc<Mutex<Wanted>>,
}

/// Watches files instead of the previous ones.
type WatchFiles = dyn Fn(&[PathBuf]) + Send + Sync;

#[derive(Default)]
struct Wanted {
    /// The files that are to be watched next.
    files: Option<Vec<PathBuf>>,
    /// Held by the thread that watches them.
    at_work: Weak<()>,
}

impl Watching {
    fn by(watch: impl Fn(&[PathBuf]) + Send + Sync + 'static) -> Self {
        Self { watch: Arc::new(watch), wanted: Arc::default() }
    }

    /// Watches these files instead of the previous ones; `None` if a thread is at work already, which does so as soon as it
    /// can.
    fn begin(&self, files: Vec<PathBuf>) -> Option<JoinHandle<()>> {
        let mut wanted = self.wanted();
        wanted.files = Some(files);
        if wanted.at_work.upgrade().is_some() {
            return None;
        }
        let (watching, at_work) = (self.clone(), Arc::new(()));
        wanted.at_work = Arc::downgrade(&at_work);
        Some(spawn_file_task(Path::new("agent.toml"), move || {
            let _at_work = at_work;
            while let Some(files) = watching.next() {
                (watching.watch)(&files);
            }
        }))
    }

    /// The files that the thread is to watch; it has ended if there are none.
    fn next(&self) -> Option<Vec<PathBuf>> {
        let mut wanted = self.wanted();
        let next = wanted.files.take();
        if next.is_none() {
            wanted.at_work = Weak::new();
        }
        next
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn files_that_do_not_answer_hold_one_thread_however_often_they_are_to_be_watched() {
        let ((begun, begins), (answer, answers)) = (channel(), channel::<()>());
        let answers = Mutex::new(answers);
        let watching = Watching::by(move |files| {
            begun.send(files.to_vec()).unwrap();
            answers.lock().unwrap().recv().unwrap();
        });
        let files = |name: &str| vec![PathBuf::from(name)];
        let walk = watching.begin(files("first")).unwrap();
        assert_eq!(begins.recv().unwrap(), files("first"));
        for name in ["second", "third"] {
            assert!(watching.begin(files(name)).is_none());
        }
        answer.send(()).unwrap();
        assert_eq!(begins.recv().unwrap(), files("third"));
        answer.send(()).unwrap();
        walk.await.unwrap();
        let walk = watching.begin(files("fourth")).unwrap();
        // A panic ends a walk like any other end.
        drop(answer);
        walk.await.unwrap_err();
        assert!(watching.begin(files("fifth")).is_some());
    }
}
