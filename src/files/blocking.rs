//! File tasks on blocking threads: a disk or network share that does not answer does not block the event loop.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::{JoinHandle, spawn_blocking};

use super::activity::{Activity, FileTask};
use super::{CurrentFile, note};

/// How long a thread with limited reads waits for a file.
const LIMIT: Duration = Duration::from_secs(1);

/// The same while another file does not answer: they may be on one share.
const LIMIT_IN_TROUBLE: Duration = Duration::from_millis(20);

thread_local! {
    static IS_LIMITED: Cell<bool> = const { Cell::new(false) };
}

/// The file tasks of blocking threads.
static UNDER_WAY: Mutex<UnderWay> = Mutex::new(UnderWay { activities: BTreeMap::new(), begun: 0 });

struct UnderWay {
    /// Each with the file that it is about.
    activities: BTreeMap<u64, (PathBuf, Activity)>,
    begun: u64,
}

/// A task in the table, until it has ended.
struct Registered {
    number: u64,
    activity: Activity,
}

impl Registered {
    /// Does the work on this thread.
    fn work<T>(self, about: &Path, work: impl FnOnce() -> T) -> T {
        self.activity.follow_this_thread();
        let _followed = Followed;
        note(about);
        self.activity.during(work)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        under_way().activities.remove(&self.number);
    }
}

/// While the activity of a thread is followed: it serves others next.
struct Followed;

impl Drop for Followed {
    fn drop(&mut self) {
        CurrentFile::follow_nothing();
    }
}

impl UnderWay {
    fn oldest(&self) -> Option<FileTask> {
        self.activities.values().filter_map(|(_, activity)| activity.current()).max_by_key(|task| task.age)
    }

    fn register(&mut self, about: &Path, current: &CurrentFile) -> Registered {
        let (number, activity) = (self.begun, Activity::on(current.clone()));
        self.begun += 1;
        self.activities.insert(number, (about.to_owned(), activity.clone()));
        Registered { number, activity }
    }
}

fn under_way() -> MutexGuard<'static, UnderWay> {
    // No panic under the lock can leave a partial update.
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a task that starts with this file on a blocking thread of the runtime. Dropping the handle does not cancel it.
pub fn spawn_file_task<T: Send + 'static>(about: &Path, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    spawn_file_task_in(&CurrentFile::default(), about, work)
}

/// Like [`spawn_file_task`], and shows which file it has come to.
pub fn spawn_file_task_in<T: Send + 'static>(
    current: &CurrentFile,
    about: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let (about, registered) = (about.to_owned(), under_way().register(about, current));
    spawn_blocking(move || registered.work(&about, work))
}

/// The oldest file task of a blocking thread; `None` if there is none. Never waits.
#[must_use]
pub fn oldest_file_task() -> Option<FileTask> {
    under_way().oldest()
}

/// From now on, [`read_within_limit`] is limited on this thread.
pub fn limit_reads() {
    IS_LIMITED.set(true);
}

/// Reads a file. After [`limit_reads`] a blocking thread reads it: a file that does not answer is an error after a moment,
/// and at once while that read is under way.
///
/// # Errors
/// `TimedOut` for a file that does not answer.
pub fn read_within_limit<T: Send + 'static>(path: &Path, read: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let runtime = Handle::try_current().ok().filter(|_| IS_LIMITED.get());
    let Some(runtime) = runtime else { return Ok(read()) };
    let (registered, limit) = {
        let mut under_way = under_way();
        if under_way.activities.values().any(|(about, _)| about == path) {
            return Err(no_answer());
        }
        let is_in_trouble = under_way.oldest().is_some_and(|task| task.age >= LIMIT);
        (under_way.register(path, &CurrentFile::default()), if is_in_trouble { LIMIT_IN_TROUBLE } else { LIMIT })
    };
    let (about, (answer, answered)) = (path.to_owned(), sync_channel(1));
    runtime.spawn_blocking(move || {
        // Without a receiver it came too late.
        let _late = answer.send(registered.work(&about, read));
    });
    answered.recv_timeout(limit).map_err(|error| match error {
        RecvTimeoutError::Timeout => no_answer(),
        RecvTimeoutError::Disconnected => io::Error::other("the thread that reads it has panicked"),
    })
}

fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "its disk or network share does not answer")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn a_file_that_does_not_answer_is_an_error_and_is_named() {
        let (path, other) = (Path::new("/hanging/token"), Path::new("/other/token"));
        assert_eq!(read_within_limit(path, || 1).unwrap(), 1, "this thread may wait");
        limit_reads();
        assert_eq!(read_within_limit(path, || 2).unwrap(), 2);
        let (answer, hanging) = channel::<()>();
        let hangs = read_within_limit(path, move || hanging.recv());
        assert_eq!(hangs.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(read_within_limit(path, || 3).unwrap_err().kind(), io::ErrorKind::TimedOut, "it is read already");
        while read_within_limit(other, || 4).is_err() {}
        let is_named = || under_way().activities.values().any(|(about, _)| about == path);
        assert!(is_named() && oldest_file_task().is_some());
        drop(answer);
        while is_named() {
            tokio::task::yield_now().await;
        }
        assert_eq!(read_within_limit(path, || 5).unwrap(), 5);
    }

    #[tokio::test]
    async fn work_that_panics_is_an_error_and_is_over() {
        let path = Path::new("/panicking/token");
        limit_reads();
        assert_eq!(
            read_within_limit(path, || panic!("as the test wants it")).unwrap_err().kind(),
            io::ErrorKind::Other
        );
        let work = spawn_file_task(path, || panic!("as the test wants it"));
        assert!(work.await.unwrap_err().is_panic());
        assert!(under_way().activities.values().all(|(about, _)| about != path));
    }
}
