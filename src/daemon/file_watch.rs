//! Notices changed files: inotify on their directories, since files are replaced by rename.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt as _;
use inotify::{EventMask, EventStream, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::time::{Instant, timeout_at};

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
    places: Rc<RefCell<Places>>,
    collected: Option<Collected>,
}

/// Says which files a [`Watch`] is about.
#[derive(Clone)]
pub struct Watcher {
    watches: Watches,
    places: Rc<RefCell<Places>>,
}

/// What the system watches, and which files are meant by it.
#[derive(Default)]
struct Places {
    paths: BTreeMap<WatchDescriptor, PathBuf>,
    watched: Watched,
}

/// Events of one change that are not told yet.
#[derive(Clone, Copy)]
struct Collected {
    changed: Changed,
    first_at: Instant,
    last_at: Instant,
}

/// Room for a few dozen events; what overflows is told by the kernel as one event of its own.
const BUFFER_BYTES: usize = 4096;

/// Events that belong to one change (write, chmod, rename) arrive within this time of each other.
const QUIET: Duration = Duration::from_millis(100);

/// Even under a stream of events a change is told this long after its first one.
const LONGEST: Duration = Duration::from_secs(2);

impl Watch {
    /// Watches files by name; they need not exist, but their directories must.
    ///
    /// # Errors
    /// What the system says; directories that do not exist are left out.
    pub fn new(watched: Watched) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let mut watcher = Watcher { watches: inotify.watches(), places: Rc::default() };
        watcher.watch(watched)?;
        let events = inotify.into_event_stream([0; BUFFER_BYTES])?;
        Ok(Self { events, places: watcher.places, collected: None })
    }

    /// What changes the files that this is about.
    #[must_use]
    pub fn watcher(&self) -> Watcher {
        Watcher { watches: self.events.watches(), places: Rc::clone(&self.places) }
    }

    /// Waits for a change of one of the files, and until it is over. Cancellation safe: what has been
    /// noticed and not told is told by the next call.
    pub async fn changed(&mut self) -> Changed {
        loop {
            let Some(Collected { changed, first_at, last_at }) = self.collected else {
                self.collect().await;
                continue;
            };
            let over_at = (last_at + QUIET).min(first_at + LONGEST);
            if Instant::now() >= over_at || timeout_at(over_at, self.collect()).await.is_err() {
                self.collected = None;
                return changed;
            }
        }
    }

    /// Takes the next event, and keeps what it was about.
    async fn collect(&mut self) {
        let event = match self.events.next().await {
            Some(Ok(event)) if !event.mask.contains(EventMask::Q_OVERFLOW) => self.places.borrow_mut().changed(&event),
            // What was lost or cannot be read may have been about any of them.
            Some(_) => Changed { config: true, settings: true },
            None => std::future::pending().await,
        };
        if event == Changed::default() {
            return;
        }
        let now = Instant::now();
        let collected = self.collected.get_or_insert(Collected { changed: event, first_at: now, last_at: now });
        collected.changed.config |= event.config;
        collected.changed.settings |= event.settings;
        collected.last_at = now;
    }
}

impl Watcher {
    /// Watches these files in place of the former ones, and follows symbolic links as they are now.
    ///
    /// # Errors
    /// What the system says, in which case some of the files may be watched; directories that do not exist
    /// are left out.
    pub fn watch(&mut self, mut watched: Watched) -> io::Result<()> {
        let places = &mut *self.places.borrow_mut();
        for files in [&mut watched.config, &mut watched.settings] {
            let targets: Vec<_> = files.iter().filter_map(|file| file.canonicalize().ok()).collect();
            files.extend(targets);
        }
        places.watched = watched;
        for file in places.watched.config.iter().chain(&places.watched.settings) {
            let Some(directory) = file.parent() else { continue };
            for (path, mask) in [(directory, DIRECTORY_EVENTS), (file, WatchMask::CLOSE_WRITE)] {
                places.paths.extend(add(&mut self.watches, path, mask)?.map(|watch| (watch, path.to_owned())));
            }
        }
        Ok(())
    }
}

impl Places {
    /// Says which files an event was about.
    fn changed(&mut self, event: &inotify::EventOwned) -> Changed {
        if event.mask.contains(EventMask::IGNORED) {
            self.paths.remove(&event.wd);
            return Changed::default();
        }
        let Some(place) = self.paths.get(&event.wd) else { return Changed::default() };
        let path = event.name.as_ref().map_or_else(|| place.clone(), |name| place.join(name));
        Changed { config: self.watched.config.contains(&path), settings: self.watched.settings.contains(&path) }
    }
}

/// What happens to a directory when one of its files is written, replaced or removed.
const DIRECTORY_EVENTS: WatchMask =
    WatchMask::CREATE.union(WatchMask::MOVED_TO).union(WatchMask::CLOSE_WRITE).union(WatchMask::DELETE);

/// Watches a path; a file that is bind-mounted alone changes without its directory noticing, so files are
/// watched too.
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

    /// Far longer than a change takes to be told.
    const SOON: Duration = Duration::from_secs(20);

    /// Long enough for what would be told to be told.
    const WHILE: Duration = Duration::from_millis(300);

    struct Home(tempfile::TempDir);

    impl Home {
        fn new() -> Self {
            let home = Self(tempfile::tempdir().unwrap());
            home.write("config.toml");
            home.write("agent.toml");
            home
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        #[expect(clippy::disallowed_methods, reason = "a test writes as anybody would")]
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

    async fn told(watch: &mut Watch) -> Changed {
        timeout(SOON, watch.changed()).await.unwrap()
    }

    async fn is_quiet(watch: &mut Watch) -> bool {
        timeout(WHILE, watch.changed()).await.is_err()
    }

    #[tokio::test]
    async fn a_change_is_told_although_the_first_wait_for_it_was_dropped() {
        let home = Home::new();
        let mut watch = home.watch();
        // A quarter is long enough to take the event, and too short to know that it was the last.
        while watch.collected.is_none() {
            home.replace("config.toml");
            let _told_late = timeout(QUIET / 4, watch.changed()).await;
        }
        assert_eq!(told(&mut watch).await, CONFIG);
        assert!(is_quiet(&mut watch).await, "told once");
    }

    #[tokio::test]
    async fn a_replaced_or_written_file_is_told_for_what_it_is_and_others_are_not() {
        let home = Home::new();
        let mut watch = home.watch();
        for _ in 0..2 {
            home.replace("config.toml");
            assert_eq!(told(&mut watch).await, CONFIG);
            home.replace("agent.toml");
            assert_eq!(told(&mut watch).await, SETTINGS);
            home.write("config.toml");
            assert_eq!(told(&mut watch).await, CONFIG);
            home.write("agent.toml");
            assert_eq!(told(&mut watch).await, SETTINGS);
            home.replace("other.toml");
            assert!(is_quiet(&mut watch).await);
        }
        fs::remove_file(home.path("config.toml")).unwrap();
        assert_eq!(told(&mut watch).await, CONFIG);
        home.write("config.toml");
        assert_eq!(told(&mut watch).await, CONFIG);
    }

    #[tokio::test]
    async fn what_a_symbolic_link_means_is_watched() {
        let home = Home::new();
        fs::create_dir(home.path("elsewhere")).unwrap();
        home.write("elsewhere/real.toml");
        fs::remove_file(home.path("config.toml")).unwrap();
        symlink("elsewhere/real.toml", home.path("config.toml")).unwrap();
        let mut watch = home.watch();
        home.replace("elsewhere/real.toml");
        assert_eq!(told(&mut watch).await, CONFIG);
        home.write("elsewhere/real.toml");
        assert_eq!(told(&mut watch).await, CONFIG);
        home.replace("elsewhere/other.toml");
        assert!(is_quiet(&mut watch).await);
    }

    #[tokio::test]
    async fn a_file_that_is_watched_by_itself_is_told_when_it_is_written_in_place() {
        let home = Home::new();
        let mut watch = home.watch();
        // As behind a bind mount, where the directory notices nothing.
        fs::hard_link(home.path("config.toml"), home.path("other-name")).unwrap();
        home.write("other-name");
        assert_eq!(told(&mut watch).await, CONFIG);
    }

    #[tokio::test]
    async fn a_stream_of_changes_is_told_before_it_ends() {
        let home = Home::new();
        let mut watch = home.watch();
        let changes = async {
            loop {
                home.write("config.toml");
                tokio::time::sleep(QUIET / 10).await;
            }
        };
        tokio::select! {
            changed = told(&mut watch) => assert_eq!(changed, CONFIG),
            () = changes => {}
        }
    }

    #[tokio::test]
    async fn files_that_are_watched_later_take_the_place_of_the_former_ones() {
        let home = Home::new();
        fs::create_dir(home.path("secrets")).unwrap();
        let mut watch = home.watch();
        home.write("secrets/token");
        assert!(is_quiet(&mut watch).await);
        let mut watcher = watch.watcher();
        let settings = vec![home.path("secrets/token")];
        watcher.watch(Watched { settings, ..home.watched() }).unwrap();
        home.replace("secrets/token");
        assert_eq!(told(&mut watch).await, SETTINGS);
        home.replace("agent.toml");
        assert!(is_quiet(&mut watch).await);
        home.replace("config.toml");
        assert_eq!(told(&mut watch).await, CONFIG);
    }
}
