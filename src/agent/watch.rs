//! Notices changed files: inotify on their directories, since files are replaced by rename.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use inotify::{EventMask, EventStream, Inotify, WatchMask};
use tokio::time::timeout;

/// The files that are watched.
pub struct Watch {
    events: EventStream<[u8; BUFFER_BYTES]>,
    names: BTreeSet<OsString>,
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
    pub fn new(files: &[PathBuf]) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let mut names = BTreeSet::new();
        for file in files.iter().flat_map(|file| [Some(file.clone()), file.canonicalize().ok()]).flatten() {
            let (Some(directory), Some(name)) = (file.parent(), file.file_name()) else { continue };
            names.insert(name.to_owned());
            add(
                &inotify,
                directory,
                WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::CLOSE_WRITE | WatchMask::DELETE,
            )?;
            // A file that is bind-mounted alone changes without its directory noticing.
            add(&inotify, &file, WatchMask::CLOSE_WRITE)?;
        }
        Ok(Self { events: inotify.into_event_stream([0; BUFFER_BYTES])?, names })
    }

    /// Waits for a change of one of the files, and until it is over. Cancellation safe.
    pub async fn changed(&mut self) {
        while !self.next_is_ours().await {}
        for _ in 0..MAX_COLLECTED {
            if timeout(QUIET, self.next_is_ours()).await.is_err() {
                return;
            }
        }
    }

    /// Takes the next event, and says whether it was about a file of ours.
    async fn next_is_ours(&mut self) -> bool {
        match self.events.next().await {
            Some(Ok(event)) => {
                event.mask.contains(EventMask::Q_OVERFLOW) || event.name.is_none_or(|name| self.names.contains(&name))
            }
            // What cannot be read may have been ours.
            Some(Err(_)) => true,
            None => std::future::pending().await,
        }
    }
}

fn add(inotify: &Inotify, path: &Path, mask: WatchMask) -> io::Result<()> {
    match inotify.watches().add(path, mask) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
