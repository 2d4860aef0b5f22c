//! The work on files of an attempt, within its time limit.
//!
//! A system call on a disk or network share that does not answer cannot be cancelled. After the time limit the attempt gives
//! the work up, and it stays under way. Until it has ended, no other work on its file begins: threads do not pile up, and a
//! late write cannot put an older token over a newer one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use super::HookError;
use super::limit::TimeLimit;
use crate::files::spawn_file_task;

/// How much work that was given up may be under way. Each has a thread, of which the daemon has a limited number.
const MAX_GIVEN_UP: usize = 64;

/// How long [`in_background`] waits for a disk that answers.
const MOMENT: Duration = Duration::from_millis(200);

static UNDER_WAY: Mutex<UnderWay> = Mutex::new(UnderWay { begun: 0, works: BTreeMap::new() });

struct UnderWay {
    begun: u64,
    works: BTreeMap<u64, Work>,
}

struct Work {
    path: PathBuf,
    /// No attempt waits for it any more.
    is_given_up: bool,
}

impl UnderWay {
    fn given_up(&self) -> impl Iterator<Item = &Work> {
        self.works.values().filter(|work| work.is_given_up)
    }

    /// Whether work on a file may begin.
    fn check(&self, path: &Path) -> Result<(), HookError> {
        if self.given_up().any(|work| work.path == path) {
            return Err(no_answer(path, "does not answer: a former attempt still waits for it"));
        }
        if self.given_up().count() >= MAX_GIVEN_UP {
            let message = format!("the disks or network shares of {MAX_GIVEN_UP} other files do not answer");
            return Err(HookError::Passing(message));
        }
        Ok(())
    }
}

/// Work in the table, until it has ended.
struct Registered(u64);

impl Registered {
    fn new(path: &Path, is_given_up: bool) -> Self {
        let mut under_way = under_way();
        let number = under_way.begun;
        under_way.begun += 1;
        under_way.works.insert(number, Work { path: path.to_owned(), is_given_up });
        Self(number)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        under_way().works.remove(&self.0);
    }
}

/// Waits for work; without it, the work is given up.
struct Waiting(u64);

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(work) = under_way().works.get_mut(&self.0) {
            work.is_given_up = true;
        }
    }
}

fn under_way() -> MutexGuard<'static, UnderWay> {
    // No panic under the lock can leave a partial update.
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does work on a file on a blocking thread, and waits for it no longer than until the time limit.
///
/// Cancelling gives the work up. What it returns later is dropped.
///
/// # Errors
/// [`HookError::Passing`] after the time limit, and at once if former work on the file was given up and has not ended.
pub(super) async fn file_work<T: Send + 'static>(
    limit: TimeLimit,
    path: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, HookError> {
    under_way().check(path)?;
    clean_up(limit, path, work).await
}

/// As [`file_work`], also while other files do not answer.
pub(super) async fn clean_up<T: Send + 'static>(
    limit: TimeLimit,
    path: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, HookError> {
    let registered = Registered::new(path, false);
    let _waiting = Waiting(registered.0);
    // The work has ended once what it returns was dropped, which may be work on the file too.
    let task = spawn_file_task(path, move || (work(), registered));
    match limit.bound(task).await {
        Some(Ok((result, _registered))) => Ok(result),
        Some(Err(error)) => Err(HookError::Passing(error.to_string())),
        None => Err(no_answer(path, &format!("has not answered within {} s", limit.seconds()))),
    }
}

/// Does work on a file that no attempt waits for. It holds up this thread for a moment at most.
pub(super) fn in_background(path: &Path, work: impl FnOnce() + Send + 'static) {
    if Handle::try_current().is_err() {
        return work();
    }
    let is_in_trouble = under_way().given_up().next().is_some();
    let registered = Registered::new(path, true);
    let (ended, end) = sync_channel::<()>(1);
    let _task = spawn_file_task(path, move || {
        work();
        drop(registered);
        drop(ended);
    });
    if !is_in_trouble {
        let _ended = end.recv_timeout(MOMENT);
    }
}

fn no_answer(path: &Path, what: &str) -> HookError {
    HookError::Passing(format!("`{}`: its disk or network share {what}", path.display()))
}

/// Has work on a file hang, as on a disk that does not answer, until what it returns is dropped.
#[cfg(test)]
pub(super) async fn hang(path: &Path) -> std::sync::mpsc::Sender<()> {
    let (end, hanging) = std::sync::mpsc::channel();
    let limit = TimeLimit::begin(Duration::from_millis(1));
    let hung = file_work(limit, path, move || hanging.recv().is_err()).await;
    assert!(hung.unwrap_err().to_string().contains("has not answered within 0.001 s"));
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    async fn work(path: &Path) -> Result<u8, HookError> {
        file_work(TimeLimit::begin(LONG), path, || 1).await
    }

    async fn until_ended(path: &Path) {
        while under_way().works.values().any(|work| work.path == path) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn nothing_is_done_with_a_file_while_former_work_on_it_hangs() {
        let (path, other) = (Path::new("/frozen/token"), Path::new("/other/token"));
        let end = hang(path).await;
        let error = work(path).await.unwrap_err().to_string();
        let expected =
            "`/frozen/token`: its disk or network share does not answer: a former attempt still waits for it";
        assert_eq!(error, expected);
        assert_eq!(work(other).await, Ok(1), "other files answer");
        drop(end);
        until_ended(path).await;
        assert_eq!(work(path).await, Ok(1));
    }

    #[test]
    fn threads_that_hang_are_bounded() {
        let mut table = UnderWay { begun: 0, works: BTreeMap::new() };
        for number in 0..64 {
            assert_eq!(table.check(Path::new("/a")), Ok(()));
            table.works.insert(number, Work { path: format!("/{number}").into(), is_given_up: true });
        }
        assert!(table.check(Path::new("/a")).is_err());
        table.works.remove(&7);
        assert_eq!(table.check(Path::new("/a")), Ok(()));
    }

    #[tokio::test]
    async fn two_attempts_work_on_one_file_at_a_time_if_it_answers() {
        let path = Path::new("/shared/program");
        let (end, slow) = std::sync::mpsc::channel::<()>();
        let first = file_work(TimeLimit::begin(LONG), path, move || slow.recv().is_err());
        let second = async {
            let second = work(path).await;
            drop(end);
            second
        };
        assert_eq!(tokio::join!(first, second), (Ok(true), Ok(1)));
    }

    #[tokio::test]
    async fn work_that_was_cancelled_is_given_up() {
        let path = Path::new("/cancelled/token");
        let (end, hanging) = std::sync::mpsc::channel::<()>();
        let cancelled = file_work(TimeLimit::begin(LONG), path, move || hanging.recv().is_err());
        tokio::select! {
            biased;
            _ended = cancelled => panic!("it hangs"),
            () = tokio::task::yield_now() => {}
        }
        work(path).await.unwrap_err();
        drop(end);
        until_ended(path).await;
    }

    #[tokio::test]
    async fn background_work_that_hangs_holds_up_nothing_but_its_file() {
        let path = Path::new("/removed/token");
        let (end, hanging) = std::sync::mpsc::channel::<()>();
        in_background(path, move || {
            let _ended = hanging.recv();
        });
        work(path).await.unwrap_err();
        drop(end);
        until_ended(path).await;
    }
}
