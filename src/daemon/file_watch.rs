//! File watching: inotify on every directory on the way to a file, because files, links and directories are replaced
//! by rename.

mod routes;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt as _;
use inotify::{EventMask, EventStream, Inotify};
use tokio::time::{Instant, timeout_at};

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
    /// Any file may have changed.
    const ALL: Self = Self { config: true, settings: true };

    fn or(self, other: Self) -> Self {
        Self { config: self.config || other.config, settings: self.settings || other.settings }
    }
}

/// Waits for file changes.
pub struct Watch {
    source: ChangeSource,
    routes: Rc<RefCell<Routes>>,
    collected: Option<Collected>,
}

/// Where a [`Watch`] learns of changes.
enum ChangeSource {
    Inotify(Box<EventStream<[u8; BUFFER_BYTES]>>),
    /// A test, whose files are in memory.
    #[cfg(test)]
    Test(tokio::sync::mpsc::UnboundedReceiver<Changed>),
}

/// Changes which files a [`Watch`] watches.
#[derive(Clone)]
pub struct Watcher {
    routes: Rc<RefCell<Routes>>,
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
    /// Watches files by name. Neither they nor their directories need to exist: each missing part of a path is waited
    /// for in the last directory that exists.
    ///
    /// # Errors
    /// The error of the inotify call.
    pub fn new(watched: &Watched) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let routes = Rc::new(RefCell::new(Routes::new(inotify.watches())));
        let events = inotify.into_event_stream([0; BUFFER_BYTES])?;
        routes.borrow_mut().watch(watched)?;
        Ok(Self { source: ChangeSource::Inotify(Box::new(events)), routes, collected: None })
    }

    /// Reports what a test sends.
    #[cfg(test)]
    pub(crate) fn of_test(changes: tokio::sync::mpsc::UnboundedReceiver<Changed>) -> Self {
        let watches = Inotify::init().unwrap().watches();
        let routes = Rc::new(RefCell::new(Routes::new(watches)));
        Self { source: ChangeSource::Test(changes), routes, collected: None }
    }

    /// A handle that changes the watched files.
    #[must_use]
    pub fn watcher(&self) -> Watcher {
        Watcher { routes: Rc::clone(&self.routes) }
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
        #[cfg_attr(not(test), expect(clippy::infallible_destructuring_match, reason = "tests have another source"))]
        let events = match &mut self.source {
            ChangeSource::Inotify(events) => events,
            #[cfg(test)]
            ChangeSource::Test(changes) => match changes.recv().await {
                Some(changed) => return changed,
                None => std::future::pending().await,
            },
        };
        match events.next().await {
            Some(Ok(event)) if !event.mask.contains(EventMask::Q_OVERFLOW) => self.routes.borrow_mut().take(&event),
            // Lost or unreadable events may concern any of the files, and any directory on the way to them.
            Some(_) => {
                self.routes.borrow_mut().follow_all();
                Changed::ALL
            }
            None => std::future::pending().await,
        }
    }
}

impl Watcher {
    /// Watches these files instead of the previous ones.
    ///
    /// # Errors
    /// The error of the inotify call; some of the files may be watched then.
    pub fn watch(&self, watched: &Watched) -> io::Result<()> {
        self.routes.borrow_mut().watch(watched)
    }
}
