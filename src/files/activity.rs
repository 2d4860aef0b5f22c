//! What a thread is at with files, for those who watch over it.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::CurrentFile;

/// A task that a thread is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileTask {
    /// Distinguishes it from all others of the process.
    pub number: u64,
    /// For how long it has been under way.
    ///
    /// Time base: monotonic.
    pub age: Duration,
    /// The file that it has begun to work on last.
    pub file: PathBuf,
}

/// The task under way of one thread. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Activity {
    task: Arc<Mutex<Option<Task>>>,
    file: CurrentFile,
    observer: Observer,
}

/// The callback, once it is set.
#[derive(Clone, Default)]
struct Observer(Arc<OnceLock<Callback>>);

/// Receives how long each finished task has taken.
type Callback = Box<dyn Fn(Duration) + Send + Sync>;

impl fmt::Debug for Observer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Observer")
    }
}

#[derive(Clone, Copy, Debug)]
struct Task {
    number: u64,
    began: Instant,
}

/// How many tasks were begun.
static TASKS: AtomicU64 = AtomicU64::new(0);

impl Activity {
    /// The activity of a thread whose file is noted there.
    pub(super) fn on(file: CurrentFile) -> Self {
        Self { task: Arc::default(), file, observer: Observer::default() }
    }

    /// From now on it is that of the calling thread.
    pub fn follow_this_thread(&self) {
        self.file.follow_this_thread();
    }

    /// From now on, `observe` is called on the thread after each task with the time that it has taken. It must not block.
    /// Only the first call has an effect.
    pub fn observe(&self, observe: impl Fn(Duration) + Send + Sync + 'static) {
        let _first_wins = self.observer.0.set(Box::new(observe));
    }

    /// Does a task.
    pub fn during<T>(&self, task: impl FnOnce() -> T) -> T {
        *self.task() = Some(Task { number: TASKS.fetch_add(1, Ordering::Relaxed), began: Instant::now() });
        let _ended = Ended(self);
        task()
    }

    /// The task under way; `None` if the thread rests.
    #[must_use]
    pub fn current(&self) -> Option<FileTask> {
        let Task { number, began } = (*self.task())?;
        Some(FileTask { number, age: began.elapsed(), file: self.file.path() })
    }

    fn task(&self) -> MutexGuard<'_, Option<Task>> {
        // No panic under the lock can leave a partial update.
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a task, after a panic too.
struct Ended<'a>(&'a Activity);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let ended = self.0.task().take();
        if let (Some(task), Some(observe)) = (ended, self.0.observer.0.get()) {
            observe(task.began.elapsed());
        }
    }
}
