//! File watching: inotify on every directory on the way to a file, because files, links and directories are replaced
//! by rename.

mod notifier;
mod routes;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use notifier::{Notifier, locked};
use routes::Routes;

/// The files to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// config.toml.
    pub config: Vec<PathBuf>,
    /// agent.toml and the other files of the settings.
    pub settings: Vec<PathBuf>,
}

/// Which kinds of files have changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// config.toml.
    pub config: bool,
    /// Files of the settings.
    pub settings: bool,
}

impl Changed {
    fn or(self, other: Self) -> Self {
        Self { config: self.config || other.config, settings: self.settings || other.settings }
    }
}

/// Waits for file changes.
pub struct Watch {
    source: ChangeSource,
    collected: Option<Collected>,
}

/// Where a [`Watch`] learns of changes.
enum ChangeSource {
    Inotify {
        /// config.toml.
        config: Notifier,
        /// The other files. They have a notifier of their own: what does not answer on their way holds up no news of
        /// config.toml.
        settings: Notifier,
    },
    /// A test, whose files are in memory.
    #[cfg(test)]
    Test(tokio::sync::mpsc::UnboundedReceiver<Changed>),
}

/// Changes which files of the settings a [`Watch`] watches.
#[derive(Clone)]
pub struct Watcher {
    settings: Arc<Mutex<Routes>>,
}

/// Events of one change that are not yet reported.
#[derive(Clone, Copy)]
struct Collected {
    changed: Changed,
    first_at: Instant,
    last_at: Instant,
}

/// Events of one change (write, chmod, rename) arrive within this time of each other.
const QUIET_PERIOD: Duration = Duration::from_millis(100);

/// Under a stream of events, a change is reported this long after the first one.
const MAX_DELAY: Duration = Duration::from_secs(2);

impl Watch {
    /// Watches files by name. Neither they nor their directories need to exist: each missing part of a path is waited
    /// for in the last directory that exists. Waits for the disk or network share of each file.
    ///
    /// # Errors
    /// The error of the inotify call.
    pub fn new(watched: &Watched) -> io::Result<Self> {
        let config = Notifier::new(Changed { config: true, settings: false }, &watched.config)?;
        let settings = Notifier::new(Changed { config: false, settings: true }, &watched.settings)?;
        Ok(Self { source: ChangeSource::Inotify { config, settings }, collected: None })
    }

    /// Reports what a test sends.
    #[cfg(test)]
    pub(crate) fn of_test(changes: tokio::sync::mpsc::UnboundedReceiver<Changed>) -> Self {
        Self { source: ChangeSource::Test(changes), collected: None }
    }

    /// A handle that changes the watched files; `None` in tests whose files are in memory.
    #[must_use]
    pub fn watcher(&self) -> Option<Watcher> {
        match &self.source {
            ChangeSource::Inotify { settings, .. } => Some(Watcher { settings: Arc::clone(&settings.routes) }),
            #[cfg(test)]
            ChangeSource::Test(_) => None,
        }
    }

    /// Waits until one of the files has changed and the change is complete. Cancellation safe: the next call reports
    /// events that were received but not reported.
    pub async fn changed(&mut self) -> Changed {
        loop {
            let Some(Collected { changed, first_at, last_at }) = self.collected else {
                self.collect().await;
                continue;
            };
            let complete_at = (last_at + QUIET_PERIOD).min(first_at + MAX_DELAY);
            if Instant::now() >= complete_at || timeout_at(complete_at, self.collect()).await.is_err() {
                self.collected = None;
                return changed;
            }
        }
    }

    /// Receives the next event and adds it to the collected ones.
    async fn collect(&mut self) {
        let event = self.next_event().await;
        if event == Changed::default() {
            return;
        }
        let now = Instant::now();
        let collected = self.collected.get_or_insert(Collected { changed: event, first_at: now, last_at: now });
        collected.changed = collected.changed.or(event);
        collected.last_at = now;
    }

    /// Which files the next event concerns.
    async fn next_event(&mut self) -> Changed {
        match &mut self.source {
            ChangeSource::Inotify { config, settings } => tokio::select! {
                changed = config.next() => changed,
                changed = settings.next() => changed,
            },
            #[cfg(test)]
            ChangeSource::Test(changes) => match changes.recv().await {
                Some(changed) => changed,
                None => std::future::pending().await,
            },
        }
    }
}

impl Watcher {
    /// Watches these files of the settings instead of the previous ones. Waits for the disk or network share of each.
    ///
    /// # Errors
    /// The error of the inotify call; some of the files may be watched then.
    pub fn watch(&self, settings: &[PathBuf]) -> io::Result<()> {
        locked(&self.settings).watch(settings)
    }
}
