//! What the disk thread is at, for those who watch over it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::files::CurrentFile;

/// A task that the disk thread is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskWork {
    /// Distinguishes it from the tasks before and after.
    pub number: u64,
    /// For how long it has been under way.
    ///
    /// Time base: monotonic.
    pub age: Duration,
    /// The file that it has begun to work on last.
    pub file: PathBuf,
}

/// The task under way. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Activity {
    task: Arc<Mutex<Task>>,
    file: CurrentFile,
}

#[derive(Debug, Default)]
struct Task {
    number: u64,
    began: Option<Instant>,
}

impl Activity {
    /// From now on it is that of the calling thread.
    pub(super) fn follow_this_thread(&self) {
        self.file.follow_this_thread();
    }

    /// Does a task.
    pub(super) fn during<T>(&self, task: impl FnOnce() -> T) -> T {
        let mut started = self.task();
        started.number += 1;
        started.began = Some(Instant::now());
        drop(started);
        let _ended = Ended(self);
        task()
    }

    pub(super) fn work(&self) -> Option<DiskWork> {
        let task = self.task();
        let began = task.began?;
        Some(DiskWork { number: task.number, age: began.elapsed(), file: self.file.path() })
    }

    fn task(&self) -> MutexGuard<'_, Task> {
        // No panic under the lock can leave a partial update.
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a task, after a panic too.
struct Ended<'a>(&'a Activity);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.task().began = None;
    }
}
