//! The events of one inotify instance, and the routes that they may change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt as _;
use inotify::{EventMask, EventStream, Inotify};
use tokio::task::JoinHandle;

use super::Changed;
use super::routes::Routes;
use crate::files::spawn_file_task;

/// Room for a few dozen events. The kernel reports an overflow as an event.
const BUFFER_BYTES: usize = 4096;

/// Reports changes of files. Their routes are walked by another thread, because a directory on the way may be on a network
/// share that does not answer.
pub(super) struct Notifier {
    events: Box<EventStream<[u8; BUFFER_BYTES]>>,
    pub(super) routes: Arc<Mutex<Routes>>,
    /// The event whose routes are walked; it is reported then. The events after it wait.
    walking: Option<JoinHandle<bool>>,
    /// What it reports.
    changed: Changed,
}

impl Notifier {
    /// Watches these files.
    ///
    /// # Errors
    /// The error of the inotify call.
    pub(super) fn new(changed: Changed, files: &[PathBuf]) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let mut routes = Routes::new(inotify.watches());
        let events = inotify.into_event_stream([0; BUFFER_BYTES])?;
        routes.watch(files)?;
        Ok(Self { events: Box::new(events), routes: Arc::new(Mutex::new(routes)), walking: None, changed })
    }

    /// Whether the next event concerns one of the files. Cancellation safe.
    pub(super) async fn next(&mut self) -> Changed {
        loop {
            if let Some(walking) = &mut self.walking {
                let walked = walking.await;
                self.walking = None;
                // A walk that has panicked may have been about any file.
                return self.report(walked.unwrap_or(true));
            }
            match self.events.next().await {
                Some(Ok(event)) if !event.mask.contains(EventMask::Q_OVERFLOW) => {
                    // Most events are about other names of a directory.
                    if self.routes.try_lock().is_ok_and(|routes| !routes.concerns(&event)) {
                        return Changed::default();
                    }
                    self.walk(move |routes| routes.take(&event));
                }
                // Lost or unreadable events may concern any of the files, and any directory on the way to them.
                Some(_) => self.walk(|routes| {
                    routes.follow_all();
                    true
                }),
                None => std::future::pending().await,
            }
        }
    }

    fn report(&self, is_concerned: bool) -> Changed {
        if is_concerned { self.changed } else { Changed::default() }
    }

    fn walk(&mut self, take: impl FnOnce(&mut Routes) -> bool + Send + 'static) {
        let routes = Arc::clone(&self.routes);
        // Each file is noted when its route is walked.
        self.walking = Some(spawn_file_task(Path::new("/"), move || take(&mut locked(&routes))));
    }
}

/// The routes, which are as good after a panic as before.
pub(super) fn locked(routes: &Mutex<Routes>) -> MutexGuard<'_, Routes> {
    routes.lock().unwrap_or_else(PoisonError::into_inner)
}
