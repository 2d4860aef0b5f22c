//! Notices changed files: inotify on their directories, since files are replaced by rename.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use inotify::{EventMask, EventStream, Inotify, WatchDescriptor, WatchMask};
use tokio::time::timeout;

/// The files that are watched.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// config.toml, by each of its names.
    pub config: Vec<PathBuf>,
    /// agent.toml and whatever else the settings are made of.
    pub settings: Vec<PathBuf>,
}

/// What has changed; both may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// config.toml.
    pub config: bool,
    /// What the settings are made of.
    pub settings: bool,
}

/// Waits for changes of files.
pub struct Watch {
    events: EventStream<[u8; BUFFER_BYTES]>,
    directories: BTreeMap<WatchDescriptor, PathBuf>,
    watched: Watched,
}

/// Room for a few dozen events; what overflows is told by the kernel as one event of its own.
const BUFFER_BYTES: usize = 4096;

/// Events that belong to one change (write, chmod, rename) arrive within this time of each other.
const QUIET: Duration = Duration::from_millis(100);

/// Even under a stream of events a change is told after this many quiet times.
const MAX_COLLECTED: u32 = 20;

impl Watch {
    /// Watches files by name; they need not exist, but their directories must.
    ///
    /// # Errors
    /// What the system says; directories that do not exist are left out.
    pub fn new(mut watched: Watched) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let mut directories = BTreeMap::new();
        for files in [&mut watched.config, &mut watched.settings] {
            let targets: Vec<_> = files.iter().filter_map(|file| file.canonicalize().ok()).collect();
            files.extend(targets);
            for file in files.iter() {
                let Some(directory) = file.parent() else { continue };
                for (path, mask) in [(directory, DIRECTORY_EVENTS), (file, WatchMask::CLOSE_WRITE)] {
                    directories.extend(add(&inotify, path, mask)?.map(|watch| (watch, path.to_owned())));
                }
            }
        }
        Ok(Self { events: inotify.into_event_stream([0; BUFFER_BYTES])?, directories, watched })
    }

    /// Waits for a change of one of the files, and until it is over. Cancellation safe up to its first
    /// event; what comes after that is told again by the next one.
    pub async fn changed(&mut self) -> Changed {
        let mut changed = Changed::default();
        while changed == Changed::default() {
            changed = self.next().await;
        }
        for _ in 0..MAX_COLLECTED {
            let Ok(more) = timeout(QUIET, self.next()).await else { break };
            changed.config |= more.config;
            changed.settings |= more.settings;
        }
        changed
    }

    /// Takes the next event, and says which files it was about.
    async fn next(&mut self) -> Changed {
        let everything = Changed { config: true, settings: true };
        match self.events.next().await {
            Some(Ok(event)) if !event.mask.contains(EventMask::Q_OVERFLOW) => {
                let Some(place) = self.directories.get(&event.wd) else { return Changed::default() };
                let path = event.name.map_or_else(|| place.clone(), |name| place.join(name));
                Changed { config: self.watched.config.contains(&path), settings: self.watched.settings.contains(&path) }
            }
            // What was lost or cannot be read may have been about any of them.
            Some(_) => everything,
            None => std::future::pending().await,
        }
    }
}

/// What happens to a directory when one of its files is written, replaced or removed.
const DIRECTORY_EVENTS: WatchMask =
    WatchMask::CREATE.union(WatchMask::MOVED_TO).union(WatchMask::CLOSE_WRITE).union(WatchMask::DELETE);

/// Watches a path; a file that is bind-mounted alone changes without its directory noticing, so files are
/// watched too.
fn add(inotify: &Inotify, path: &Path, mask: WatchMask) -> io::Result<Option<WatchDescriptor>> {
    match inotify.watches().add(path, mask) {
        Ok(watch) => Ok(Some(watch)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
