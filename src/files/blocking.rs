//! File tasks on blocking threads: a disk or network share that does not answer does not block the event loop.

use std::any::Any;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SendError, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

use super::activity::{Activity, FileTask};
use super::{CurrentFile, note};

/// How long a read holds up a thread that serves, and any thread after a signal that asks for an end.
const LIMIT: Duration = Duration::from_secs(1);

/// The same before the thread serves: nothing waits for it but the start. Less than a heartbeat may take.
const LIMIT_AT_START: Duration = Duration::from_secs(10);

/// The same while another file does not answer: they may be on one share. Also after a signal: however many files of a share
/// do not answer, the end waits for one.
const LIMIT_IN_TROUBLE: Duration = Duration::from_millis(20);

/// The pause between two looks for a signal.
const PAUSE: Duration = Duration::from_millis(50);

/// How many files may be read at a time, which are those that do not answer but for one.
const MAX_READS: usize = 64;

/// How long an answer that came too late counts, unless it is [forgotten](forget_late_reads).
const LATE_VALID: Duration = Duration::from_secs(600);

thread_local! {
    static LIMITED: Cell<Option<Limited>> = const { Cell::new(None) };
}

/// How a thread is limited.
#[derive(Clone, Copy)]
struct Limited {
    limit: ReadLimit,
    is_end_asked: fn() -> bool,
}

/// How long [`read_within_limit`] waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadLimit {
    /// Until a signal asks for an end.
    Signal,
    /// As long as a start may, or until a signal asks for an end.
    Start,
    /// For a moment: other runners wait for this thread.
    Serving,
}

/// The file tasks of blocking threads.
static UNDER_WAY: Mutex<UnderWay> = Mutex::new(UnderWay::NONE);

/// Notified when an answer came too late.
static LATE: Notify = Notify::const_new();

struct UnderWay {
    activities: BTreeMap<u64, Activity>,
    begun: u64,
    /// The files that [`read_within_limit`] reads.
    reads: BTreeSet<PathBuf>,
    /// Answers that came too late, for the next read.
    late: BTreeMap<PathBuf, (Instant, Box<dyn Any + Send>)>,
    /// How often they were forgotten.
    forgotten: u64,
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

/// The read of a file by [`read_within_limit`].
struct Read(PathBuf);

impl Drop for Read {
    fn drop(&mut self) {
        under_way().reads.remove(&self.0);
    }
}

impl UnderWay {
    const NONE: Self =
        Self { activities: BTreeMap::new(), begun: 0, reads: BTreeSet::new(), late: BTreeMap::new(), forgotten: 0 };

    fn oldest(&self) -> Option<FileTask> {
        self.activities.values().filter_map(Activity::current).max_by_key(|task| task.age)
    }

    fn late<T: Clone + 'static>(&mut self, path: &Path) -> Option<T> {
        self.late.retain(|_, (arrived, _)| arrived.elapsed() < LATE_VALID);
        self.late.get(path)?.1.downcast_ref().cloned()
    }

    fn register(&mut self, current: &CurrentFile) -> Registered {
        let (number, activity) = (self.begun, Activity::on(current.clone()));
        self.begun += 1;
        self.activities.insert(number, activity.clone());
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
    let (about, registered) = (about.to_owned(), under_way().register(current));
    spawn_blocking(move || registered.work(&about, work))
}

/// The oldest file task of a blocking thread; `None` if there is none. Never waits.
#[must_use]
pub fn oldest_file_task() -> Option<FileTask> {
    under_way().oldest()
}

/// From now on, [`read_within_limit`] is limited on this thread.
pub fn limit_reads(limit: ReadLimit, is_end_asked: fn() -> bool) {
    LIMITED.set(Some(Limited { limit, is_end_asked }));
}

/// This thread begins to serve: if its reads are limited, they are [`ReadLimit::Serving`] from now on.
pub fn limit_reads_while_serving() {
    LIMITED.set(LIMITED.get().map(|limited| Limited { limit: ReadLimit::Serving, ..limited }));
}

/// Waits for an answer that came too late: the next read of its file is answered at once. Cancel safe. For ever on a thread
/// whose reads are not limited.
pub async fn late_read() {
    match LIMITED.get() {
        Some(_) => LATE.notified().await,
        None => std::future::pending().await,
    }
}

/// Forgets the answers that came too late, also those of reads under way: a file has changed.
pub fn forget_late_reads() {
    if LIMITED.get().is_none() {
        return;
    }
    let mut under_way = under_way();
    under_way.late.clear();
    under_way.forgotten += 1;
}

/// Reads a file. After [`limit_reads`] a blocking thread reads it: a file that does not answer is an error after a while,
/// and at once while that read is under way. If the file answers later, the next reads have that answer.
///
/// # Errors
/// `TimedOut` for a file that does not answer.
pub fn read_within_limit<T: Clone + Send + 'static, E: Send + 'static>(
    path: &Path,
    read: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> io::Result<Result<T, E>> {
    let runtime = Handle::try_current().ok().zip(LIMITED.get());
    let Some((runtime, limited)) = runtime else { return Ok(read()) };
    let (registered, forgotten, is_in_trouble) = {
        let mut under_way = under_way();
        if let Some(late) = under_way.late(path) {
            return Ok(Ok(late));
        }
        if under_way.reads.len() >= MAX_READS || !under_way.reads.insert(path.to_owned()) {
            return Err(no_answer());
        }
        let is_in_trouble = under_way.oldest().is_some_and(|task| task.age >= LIMIT);
        (under_way.register(&CurrentFile::default()), under_way.forgotten, is_in_trouble)
    };
    let (mut reading, (answer, answered)) = (Read(path.to_owned()), sync_channel(1));
    runtime.spawn_blocking(move || {
        let read = registered.work(&reading.0, read);
        let path = std::mem::take(&mut reading.0);
        // The lock makes it either timely or late. The reader of a timely one may read the file again.
        let mut under_way = under_way();
        under_way.reads.remove(&path);
        // A failure is not kept: to read again because of it would fail again, for as long as the share does.
        if let Err(SendError(Ok(late))) = answer.send(read) {
            if under_way.forgotten == forgotten {
                under_way.late.insert(path, (Instant::now(), Box::new(late)));
            }
            LATE.notify_one();
        }
    });
    let answer = limited.wait(&answered, is_in_trouble).or_else(|error| {
        let _lock = under_way();
        let answer = answered.try_recv().map_err(|_| error);
        drop(answered);
        answer
    });
    answer.map_err(|error| match error {
        RecvTimeoutError::Timeout => no_answer(),
        RecvTimeoutError::Disconnected => io::Error::other("the thread that reads it has panicked"),
    })
}

impl Limited {
    fn wait<T>(self, answered: &Receiver<T>, is_in_trouble: bool) -> Result<T, RecvTimeoutError> {
        let mut waited = Duration::ZERO;
        loop {
            let left = self.limit.longest(is_in_trouble, (self.is_end_asked)()).saturating_sub(waited);
            if left.is_zero() {
                return Err(RecvTimeoutError::Timeout);
            }
            let pause = PAUSE.min(left);
            match answered.recv_timeout(pause) {
                Err(RecvTimeoutError::Timeout) => waited += pause,
                ended => return ended,
            }
        }
    }
}

impl ReadLimit {
    /// How long a read may take, while another file does not answer or all do, and after a signal or before.
    fn longest(self, is_in_trouble: bool, is_end_asked: bool) -> Duration {
        match self {
            Self::Serving if is_in_trouble => LIMIT_IN_TROUBLE,
            Self::Serving => LIMIT,
            Self::Start | Self::Signal if is_end_asked => Self::Serving.longest(is_in_trouble, false),
            Self::Start if is_in_trouble => LIMIT,
            Self::Start => LIMIT_AT_START,
            Self::Signal => Duration::MAX,
        }
    }
}

fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "its disk or network share does not answer")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    /// One test at a time: the table is that of the process.
    static TABLE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    /// How often a test reads a file that answers, while those of other tests do not.
    const PATIENT: usize = 1000;

    fn read<T: Clone + Send + 'static>(path: &Path, read: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let read = read_within_limit(path, move || Ok::<_, io::Error>(read()));
        read.and_then(|read| read)
    }

    fn is_read(path: &Path) -> bool {
        under_way().reads.contains(path)
    }

    async fn ended(path: &Path) {
        while is_read(path) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_file_that_does_not_answer_is_an_error_and_is_named() {
        let _table = TABLE.lock().await;
        let (path, other) = (Path::new("/hanging/token"), Path::new("/other/token"));
        assert_eq!(read(path, || 1).unwrap(), 1, "this thread may wait");
        limit_reads(ReadLimit::Serving, || false);
        assert_eq!(read(path, || 2).unwrap(), 2);
        let (answer, hanging) = channel::<()>();
        let hangs = read(path, move || hanging.recv());
        assert_eq!(hangs.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(read(path, || 3).unwrap_err().kind(), io::ErrorKind::TimedOut, "it is read already");
        ended(other).await;
        while read(other, || 4).is_err() {}
        assert!(is_read(path) && oldest_file_task().is_some());
        drop(answer);
        ended(path).await;
        forget_late_reads();
        assert_eq!(read(path, || 5).unwrap(), 5);
    }

    #[tokio::test]
    async fn a_file_that_answers_late_is_known_to_the_next_read_unless_it_has_changed() {
        let _table = TABLE.lock().await;
        let path = Path::new("/slow/token");
        limit_reads(ReadLimit::Serving, || false);
        for is_changed in [false, true] {
            let (answer, slow) = channel();
            read(path, move || slow.recv().unwrap()).unwrap_err();
            if is_changed {
                forget_late_reads();
            }
            answer.send(1).unwrap();
            ended(path).await;
            late_read().await;
            let read = (0..PATIENT).find_map(|_| read(path, || 2).ok());
            assert_eq!(read, Some(if is_changed { 2 } else { 1 }));
            forget_late_reads();
        }
    }

    #[tokio::test]
    async fn a_file_is_read_again_and_again() {
        let _table = TABLE.lock().await;
        limit_reads(ReadLimit::Signal, || false);
        for number in 0..1000 {
            assert_eq!(read(Path::new("/again/token"), move || number).unwrap(), number);
        }
    }

    #[tokio::test]
    async fn a_command_waits_for_a_slow_file_until_a_signal_asks_for_its_end() {
        let _table = TABLE.lock().await;
        static IS_ASKED: AtomicBool = AtomicBool::new(false);
        let path = Path::new("/command/token");
        limit_reads(ReadLimit::Signal, || IS_ASKED.load(Ordering::Relaxed));
        let slow = || std::thread::sleep(LIMIT * 2);
        read(path, slow).unwrap();
        IS_ASKED.store(true, Ordering::Relaxed);
        assert_eq!(read(path, || 1).unwrap(), 1, "a file that answers is read after a signal too");
        let (answer, hanging) = channel::<()>();
        assert_eq!(read(path, move || hanging.recv()).unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(answer);
    }

    #[test]
    fn after_a_signal_one_file_of_a_share_that_does_not_answer_is_waited_for() {
        for limit in [ReadLimit::Start, ReadLimit::Signal] {
            assert_eq!(limit.longest(false, true), LIMIT);
            assert_eq!(limit.longest(true, true), LIMIT_IN_TROUBLE);
            assert!(limit.longest(true, false) >= LIMIT);
        }
    }

    #[tokio::test]
    async fn a_start_waits_longer_for_a_file() {
        let _table = TABLE.lock().await;
        limit_reads(ReadLimit::Start, || false);
        read(Path::new("/start/token"), || std::thread::sleep(LIMIT + PAUSE * 4)).unwrap();
        limit_reads_while_serving();
        assert_eq!(LIMITED.get().unwrap().limit, ReadLimit::Serving);
    }

    #[tokio::test]
    async fn work_that_panics_is_an_error_and_is_over() {
        let _table = TABLE.lock().await;
        let path = Path::new("/panicking/token");
        limit_reads(ReadLimit::Serving, || false);
        let panics = read(path, || -> () { panic!("as the test wants it") });
        assert_eq!(panics.unwrap_err().kind(), io::ErrorKind::Other);
        let work = spawn_file_task(path, || panic!("as the test wants it"));
        assert!(work.await.unwrap_err().is_panic());
        ended(path).await;
    }
}
