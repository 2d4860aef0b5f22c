//! Work on files by threads that may wait for a disk or network share, while the thread that serves all runners goes on.

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

/// How long a thread that must go on waits for a file that answers late.
const PATIENCE: Duration = Duration::from_secs(1);

/// The same while another file does not answer: many files may be on one share.
const PATIENCE_IN_TROUBLE: Duration = Duration::from_millis(20);

thread_local! {
    static MUST_GO_ON: Cell<bool> = const { Cell::new(false) };
}

/// What other threads are at.
static UNDER_WAY: Mutex<UnderWay> = Mutex::new(UnderWay { activities: BTreeMap::new(), begun: 0 });

struct UnderWay {
    /// Each with the file that it is about.
    activities: BTreeMap<u64, (PathBuf, Activity)>,
    begun: u64,
}

/// Entered while its work is under way.
struct Entered {
    number: u64,
    activity: Activity,
}

impl Entered {
    /// Does the work on this thread.
    fn work<T>(self, about: &Path, work: impl FnOnce() -> T) -> T {
        self.activity.follow_this_thread();
        let _followed = Followed;
        note(about);
        self.activity.during(work)
    }
}

impl Drop for Entered {
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

    fn enter(&mut self, about: &Path) -> Entered {
        let (number, activity) = (self.begun, Activity::default());
        self.begun += 1;
        self.activities.insert(number, (about.to_owned(), activity.clone()));
        Entered { number, activity }
    }
}

fn under_way() -> MutexGuard<'static, UnderWay> {
    // No panic under the lock can leave a partial update.
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does work that starts with this file on another thread of the runtime. If the result is no longer awaited, the work goes
/// on.
pub fn elsewhere<T: Send + 'static>(about: &Path, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let (about, entered) = (about.to_owned(), under_way().enter(about));
    spawn_blocking(move || entered.work(&about, work))
}

/// The oldest work that other threads are at; `None` if there is none. Never waits.
#[must_use]
pub fn oldest_elsewhere() -> Option<FileTask> {
    under_way().oldest()
}

/// From now on, [`promptly`] does not wait on this thread: all runners are served by it.
pub fn must_go_on() {
    MUST_GO_ON.set(true);
}

/// Reads a file. On a thread that [`must_go_on`] another thread reads it: a file that does not answer is an error after a
/// moment, and at once as long as that one waits.
///
/// # Errors
/// `TimedOut` for a file that does not answer.
pub fn promptly<T: Send + 'static>(path: &Path, read: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let runtime = Handle::try_current().ok().filter(|_| MUST_GO_ON.get());
    let Some(runtime) = runtime else { return Ok(read()) };
    let (entered, patience) = {
        let mut under_way = under_way();
        if under_way.activities.values().any(|(about, _)| about == path) {
            return Err(no_answer());
        }
        let is_in_trouble = under_way.oldest().is_some_and(|task| task.age >= PATIENCE);
        (under_way.enter(path), if is_in_trouble { PATIENCE_IN_TROUBLE } else { PATIENCE })
    };
    let (about, (answer, answered)) = (path.to_owned(), sync_channel(1));
    runtime.spawn_blocking(move || {
        // Without a receiver it came too late.
        let _late = answer.send(entered.work(&about, read));
    });
    answered.recv_timeout(patience).map_err(|error| match error {
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
        assert_eq!(promptly(path, || 1).unwrap(), 1, "this thread may wait");
        must_go_on();
        assert_eq!(promptly(path, || 2).unwrap(), 2);
        let (go_on, hanging) = channel::<()>();
        let hangs = promptly(path, move || hanging.recv());
        assert_eq!(hangs.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(promptly(path, || 3).unwrap_err().kind(), io::ErrorKind::TimedOut, "it is read already");
        while promptly(other, || 4).is_err() {}
        let is_named = || under_way().activities.values().any(|(about, _)| about == path);
        assert!(is_named() && oldest_elsewhere().is_some());
        drop(go_on);
        while is_named() {
            tokio::task::yield_now().await;
        }
        assert_eq!(promptly(path, || 5).unwrap(), 5);
    }

    #[tokio::test]
    async fn work_that_panics_is_an_error_and_is_over() {
        let path = Path::new("/panicking/token");
        must_go_on();
        assert_eq!(promptly(path, || panic!("as the test wants it")).unwrap_err().kind(), io::ErrorKind::Other);
        let work = elsewhere(path, || panic!("as the test wants it"));
        assert!(work.await.unwrap_err().is_panic());
        assert!(under_way().activities.values().all(|(about, _)| about != path));
    }
}
