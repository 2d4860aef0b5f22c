//! Notices changed files: inotify on their directories, since files are replaced by rename.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use inotify::{EventMask, Inotify, WatchMask};
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// The files that are watched.
pub struct Watch {
    inotify: AsyncFd<Inotify>,
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
        Ok(Self { inotify: AsyncFd::register(inotify).map_err(std::io::Error::from)?, names })
    }

    /// Waits for a change of one of the files, and until it is over. Cancellation safe.
    pub async fn changed(&mut self) {
        while !self.next_are_ours().await {}
        for _ in 0..MAX_COLLECTED {
            if timeout(QUIET, self.next_are_ours()).await.is_err() {
                return;
            }
        }
    }

    /// Reads the events that have arrived, and says whether one was about a file of ours.
    async fn next_are_ours(&mut self) -> bool {
        let mut buffer = [0; BUFFER_BYTES];
        loop {
            let Ok(mut ready) = self.inotify.readable_mut().await else { return std::future::pending().await };
            match ready.try_io(|inotify| inotify.get_mut().read_events(&mut buffer)) {
                Ok(Ok(mut events)) => {
                    return events.any(|event| {
                        event.mask.contains(EventMask::Q_OVERFLOW)
                            || event.name.is_none_or(|name| self.names.contains(name))
                    });
                }
                // What cannot be read may have been ours.
                Ok(Err(_)) => return true,
                Err(_not_ready) => {}
            }
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
