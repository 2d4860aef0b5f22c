//! File watching: inotify on the directories, because files are replaced by rename.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt as _;
use inotify::{EventMask, EventStream, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::time::{Instant, timeout_at};

/// The files to watch.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// config.toml, under each of its names.
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

/// Waits for file changes.
pub struct Watch {
    source: ChangeSource,
    paths: Rc<RefCell<WatchedPaths>>,
    collected: Option<Collected>,
}

/// Where a [`Watch`] learns of changes.
enum ChangeSource {
    Inotify(EventStream<[u8; BUFFER_BYTES]>),
    /// A test, whose files are in memory.
    #[cfg(test)]
    Test(tokio::sync::mpsc::UnboundedReceiver<Changed>),
}

/// Changes which files a [`Watch`] watches.
#[derive(Clone)]
pub struct Watcher {
    watches: Watches,
    paths: Rc<RefCell<WatchedPaths>>,
}

/// The watched paths by inotify descriptor, and the files they are watched for.
#[derive(Default)]
struct WatchedPaths {
    by_descriptor: BTreeMap<WatchDescriptor, PathBuf>,
    watched: Watched,
}

/// Events of one change that are not yet reported.
#[derive(Clone, Copy)]
struct Collected {
    changed: Changed,
    first_at: Instant,
    last_at: Instant,
}

/// Room for a few dozen events. The kernel reports an overflow as an event.
const BUFFER_BYTES: usize = 4096;

/// Events of one change (write, chmod, rename) arrive within this time of each other.
const QUIET_PERIOD: Duration = Duration::from_millis(100);

/// Under a stream of events, a change is reported this long after the first one.
const MAX_DELAY: Duration = Duration::from_secs(2);

impl Watch {
    /// Watches files by name. They need not exist; missing directories are skipped.
    ///
    /// # Errors
    /// The error of the inotify call.
    pub fn new(watched: Watched) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let mut watcher = Watcher { watches: inotify.watches(), paths: Rc::default() };
        watcher.watch(watched)?;
        let events = inotify.into_event_stream([0; BUFFER_BYTES])?;
        Ok(Self { source: ChangeSource::Inotify(events), paths: watcher.paths, collected: None })
    }

    /// Reports what a test sends.
    #[cfg(test)]
    pub(crate) fn of_test(changes: tokio::sync::mpsc::UnboundedReceiver<Changed>) -> Self {
        Self { source: ChangeSource::Test(changes), paths: Rc::default(), collected: None }
    }

    /// A handle that changes the watched files.
    #[must_use]
    pub fn watcher(&self) -> Watcher {
        let watches = match &self.source {
            ChangeSource::Inotify(events) => events.watches(),
            #[cfg(test)]
            ChangeSource::Test(_) => unreachable!("a test watches no files"),
        };
        Watcher { watches, paths: Rc::clone(&self.paths) }
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
        collected.changed.config |= event.config;
        collected.changed.settings |= event.settings;
        collected.last_at = now;
    }

    /// Which files the next event concerns.
    async fn next_event(&mut self) -> Changed {
        let events = match &mut self.source {
            ChangeSource::Inotify(events) => events,
            #[cfg(test)]
            ChangeSource::Test(changes) => match changes.recv().await {
                Some(changed) => return changed,
                None => std::future::pending().await,
            },
        };
        match events.next().await {
            Some(Ok(event)) if !event.mask.contains(EventMask::Q_OVERFLOW) => self.paths.borrow_mut().changed(&event),
            // Lost or unreadable events may concern any of the files.
            Some(_) => Changed { config: true, settings: true },
            None => std::future::pending().await,
        }
    }
}

impl Watcher {
    /// Watches these files instead of the previous ones, and follows symbolic links as they are now. Missing
    /// directories are skipped.
    ///
    /// # Errors
    /// The error of the inotify call; some of the files may be watched then.
    pub fn watch(&mut self, mut watched: Watched) -> io::Result<()> {
        let paths = &mut *self.paths.borrow_mut();
        for files in [&mut watched.config, &mut watched.settings] {
            let targets: Vec<_> = files.iter().filter_map(|file| file.canonicalize().ok()).collect();
            files.extend(targets);
        }
        paths.watched = watched;
        for file in paths.watched.config.iter().chain(&paths.watched.settings) {
            let Some(directory) = file.parent() else { continue };
            for (path, mask) in [(directory, DIRECTORY_EVENTS), (file, WatchMask::CLOSE_WRITE)] {
                let descriptor = add(&mut self.watches, path, mask)?;
                paths.by_descriptor.extend(descriptor.map(|descriptor| (descriptor, path.to_owned())));
            }
        }
        Ok(())
    }
}

impl WatchedPaths {
    /// Returns which files an event concerns.
    fn changed(&mut self, event: &inotify::EventOwned) -> Changed {
        if event.mask.contains(EventMask::IGNORED) {
            self.by_descriptor.remove(&event.wd);
            return Changed::default();
        }
        let Some(path) = self.by_descriptor.get(&event.wd) else { return Changed::default() };
        let path = event.name.as_ref().map_or_else(|| path.clone(), |name| path.join(name));
        Changed { config: self.watched.config.contains(&path), settings: self.watched.settings.contains(&path) }
    }
}

/// The events of a directory in which a file is written, replaced or removed.
const DIRECTORY_EVENTS: WatchMask =
    WatchMask::CREATE.union(WatchMask::MOVED_TO).union(WatchMask::CLOSE_WRITE).union(WatchMask::DELETE);

/// Watches a directory or a file. Files are watched too, because a change of a bind-mounted single file is no event of
/// its directory. Returns `None` if the path is missing.
fn add(watches: &mut Watches, path: &Path, mask: WatchMask) -> io::Result<Option<WatchDescriptor>> {
    match watches.add(path, mask) {
        Ok(watch) => Ok(Some(watch)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tokio::time::timeout;

    use super::*;

    const CONFIG: Changed = Changed { config: true, settings: false };
    const SETTINGS: Changed = Changed { config: false, settings: true };

    /// Far longer than the report of a change takes.
    const TIMEOUT: Duration = Duration::from_secs(20);

    /// Long enough for a change to be reported.
    const LONG_ENOUGH: Duration = Duration::from_millis(300);

    struct ConfigDirectory(tempfile::TempDir);

    impl ConfigDirectory {
        fn new() -> Self {
            let directory = Self(tempfile::tempdir().unwrap());
            directory.write("config.toml");
            directory.write("agent.toml");
            directory
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        #[expect(clippy::disallowed_methods, reason = "writes like another program")]
        fn write(&self, name: &str) {
            fs::write(self.path(name), "# changed\n").unwrap();
        }

        fn replace(&self, name: &str) {
            self.write("beside");
            fs::rename(self.path("beside"), self.path(name)).unwrap();
        }

        fn watched(&self) -> Watched {
            Watched { config: vec![self.path("config.toml")], settings: vec![self.path("agent.toml")] }
        }

        fn watch(&self) -> Watch {
            Watch::new(self.watched()).unwrap()
        }
    }

    async fn next_change(watch: &mut Watch) -> Changed {
        timeout(TIMEOUT, watch.changed()).await.unwrap()
    }

    async fn is_quiet(watch: &mut Watch) -> bool {
        timeout(LONG_ENOUGH, watch.changed()).await.is_err()
    }

    #[tokio::test]
    async fn a_cancelled_wait_loses_no_change() {
        let directory = ConfigDirectory::new();
        let mut watch = directory.watch();
        // A quarter of the quiet period: enough to receive the event, too short to report it.
        while watch.collected.is_none() {
            directory.replace("config.toml");
            let _timed_out = timeout(QUIET_PERIOD / 4, watch.changed()).await;
        }
        assert_eq!(next_change(&mut watch).await, CONFIG);
        assert!(is_quiet(&mut watch).await, "reported once");
    }

    #[tokio::test]
    async fn only_changes_of_watched_files_are_reported() {
        let directory = ConfigDirectory::new();
        let mut watch = directory.watch();
        for _ in 0..2 {
            directory.replace("config.toml");
            assert_eq!(next_change(&mut watch).await, CONFIG);
            directory.replace("agent.toml");
            assert_eq!(next_change(&mut watch).await, SETTINGS);
            directory.write("config.toml");
            assert_eq!(next_change(&mut watch).await, CONFIG);
            directory.write("agent.toml");
            assert_eq!(next_change(&mut watch).await, SETTINGS);
            directory.replace("other.toml");
            assert!(is_quiet(&mut watch).await);
        }
        fs::remove_file(directory.path("config.toml")).unwrap();
        assert_eq!(next_change(&mut watch).await, CONFIG);
        directory.write("config.toml");
        assert_eq!(next_change(&mut watch).await, CONFIG);
    }

    #[tokio::test]
    async fn the_target_of_a_symbolic_link_is_watched() {
        let directory = ConfigDirectory::new();
        fs::create_dir(directory.path("elsewhere")).unwrap();
        directory.write("elsewhere/real.toml");
        fs::remove_file(directory.path("config.toml")).unwrap();
        symlink("elsewhere/real.toml", directory.path("config.toml")).unwrap();
        let mut watch = directory.watch();
        directory.replace("elsewhere/real.toml");
        assert_eq!(next_change(&mut watch).await, CONFIG);
        directory.write("elsewhere/real.toml");
        assert_eq!(next_change(&mut watch).await, CONFIG);
        directory.replace("elsewhere/other.toml");
        assert!(is_quiet(&mut watch).await);
    }

    #[tokio::test]
    async fn a_file_that_is_written_in_place_is_reported() {
        let directory = ConfigDirectory::new();
        let mut watch = directory.watch();
        // Like a bind mount, whose changes are no event of the directory.
        fs::hard_link(directory.path("config.toml"), directory.path("other-name")).unwrap();
        directory.write("other-name");
        assert_eq!(next_change(&mut watch).await, CONFIG);
    }

    #[tokio::test]
    async fn a_stream_of_changes_is_reported_before_it_ends() {
        let directory = ConfigDirectory::new();
        let mut watch = directory.watch();
        let changes = async {
            loop {
                directory.write("config.toml");
                tokio::time::sleep(QUIET_PERIOD / 10).await;
            }
        };
        tokio::select! {
            changed = next_change(&mut watch) => assert_eq!(changed, CONFIG),
            () = changes => {}
        }
    }

    #[tokio::test]
    async fn newly_watched_files_replace_the_previous_ones() {
        let directory = ConfigDirectory::new();
        fs::create_dir(directory.path("secrets")).unwrap();
        let mut watch = directory.watch();
        directory.write("secrets/token");
        assert!(is_quiet(&mut watch).await);
        let mut watcher = watch.watcher();
        let settings = vec![directory.path("secrets/token")];
        watcher.watch(Watched { settings, ..directory.watched() }).unwrap();
        directory.replace("secrets/token");
        assert_eq!(next_change(&mut watch).await, SETTINGS);
        directory.replace("agent.toml");
        assert!(is_quiet(&mut watch).await);
        directory.replace("config.toml");
        assert_eq!(next_change(&mut watch).await, CONFIG);
    }
}
