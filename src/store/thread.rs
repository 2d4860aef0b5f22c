//! The one thread that touches the disk.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Config;
use super::blocking::BlockingStore;
use super::edit::{Edit, Edited};
use super::error::Error;
use super::test_hooks::TestHooks;
use crate::files::Activity;

/// A task for the disk thread.
pub(super) enum DiskTask {
    /// Any task but a change of config.toml. What it returns sends its result.
    Work(Box<dyn FnOnce(&mut BlockingStore) -> Answer + Send>),
    /// A change of config.toml, made together with others.
    Edit(Box<Edit>, oneshot::Sender<Result<Edited, Error>>),
    /// Makes the changes that wait, and says so.
    Flush(oneshot::Sender<()>),
    /// From now on, changes wait only for the one that is being made.
    Hurry,
}

/// Sends the result of a task.
pub(super) type Answer = Box<dyn FnOnce() + Send>;

/// Results of tasks that are done while others wait. They are sent together: each sending can wake the other thread.
#[derive(Default)]
struct Answers {
    waiting: Vec<Answer>,
    since: Option<Instant>,
}

impl Answers {
    fn push(&mut self, answer: Answer) {
        self.waiting.push(answer);
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= LONGEST_HELD {
            self.send();
        }
    }

    fn send(&mut self) {
        self.since = None;
        self.waiting.drain(..).for_each(|answer| answer());
    }
}

/// The longest time for which a result is kept back.
const LONGEST_HELD: Duration = Duration::from_millis(1);

/// The most changes that wait for each other.
const MOST_TOGETHER: usize = 100;

/// The pause between two replaces of config.toml, in times of what the first one has taken. One that comes later than that
/// waits for nothing.
const PAUSE_FACTOR: u32 = 20;

/// The same once the process is about to end.
const HURRIED_FACTOR: u32 = 1;

/// The longest pause. Meanwhile the journals hold the new tokens, and config.toml the old ones.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// The handle of the started thread.
pub(super) struct DiskThread {
    pub(super) jobs: Sender<DiskTask>,
    pub(super) config_path: PathBuf,
    pub(super) has_state: bool,
    pub(super) activity: Activity,
}

/// Starts the thread and waits until it is open; it stops when the last sender is dropped.
pub(super) fn start(config: Config, hooks: TestHooks) -> Result<DiskThread, Error> {
    let (jobs, receiver) = channel();
    let (opened, is_open) = channel();
    let activity = Activity::default();
    let followed = activity.clone();
    let cannot_start = Error::io("start the thread for", &config.config_path);
    let work = move || {
        followed.follow_this_thread();
        match open(config, hooks) {
            Ok((disk, config_path)) => {
                let _ = opened.send(Ok((config_path, disk.state().is_some())));
                run(disk, &receiver, &followed);
            }
            Err(error) => {
                let _ = opened.send(Err(error));
            }
        }
    };
    std::thread::Builder::new().name("store".to_owned()).spawn(work).map_err(cannot_start)?;
    let (config_path, has_state) = is_open.recv().map_err(|_| Error::Stopped)??;
    Ok(DiskThread { jobs, config_path, has_state, activity })
}

fn open(config: Config, hooks: TestHooks) -> Result<(BlockingStore, PathBuf), Error> {
    let disk = BlockingStore::open(config, hooks)?;
    let config_path = disk.path()?;
    Ok((disk, config_path))
}

fn run(mut disk: BlockingStore, receiver: &Receiver<DiskTask>, activity: &Activity) {
    let (mut edits, mut answers) = (Edits::new(activity), Answers::default());
    loop {
        let waiting = receiver.try_recv();
        if !matches!(waiting, Ok(DiskTask::Work(_))) {
            answers.send();
        }
        let received = match waiting {
            Ok(task) => Ok(task),
            Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
            Err(TryRecvError::Empty) if edits.waiting.is_empty() => {
                receiver.recv().map_err(|_| RecvTimeoutError::Disconnected)
            }
            Err(TryRecvError::Empty) => receiver.recv_timeout(edits.not_before.duration_since(Instant::now())),
        };
        match received {
            Ok(DiskTask::Work(work)) => {
                if let Some(answer) = isolated(|| activity.during(|| work(&mut disk))) {
                    answers.push(answer);
                }
                // Such tasks may come without a pause.
                edits.make_if_due(&mut disk);
            }
            Ok(DiskTask::Edit(edit, answer)) => {
                edits.waiting.push((*edit, answer));
                if edits.waiting.len() >= MOST_TOGETHER {
                    edits.make(&mut disk);
                }
            }
            Ok(DiskTask::Flush(done)) => {
                edits.make(&mut disk);
                // A dropped receiver means that the caller was cancelled.
                let _ = done.send(());
            }
            Ok(DiskTask::Hurry) => {
                edits.pause_factor = HURRIED_FACTOR;
                edits.make(&mut disk);
            }
            Err(RecvTimeoutError::Timeout) => edits.make_if_due(&mut disk),
            Err(RecvTimeoutError::Disconnected) => {
                edits.make(&mut disk);
                return;
            }
        }
    }
}

/// A panic, which has been logged, ends one task and not the thread: its caller learns that by the dropped channel, and
/// every task reads what it needs from the disk.
fn isolated<T>(task: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(task)).ok()
}

/// Changes of config.toml that wait for each other.
struct Edits<'a> {
    /// Each with where its result goes.
    waiting: Vec<(Edit, oneshot::Sender<Result<Edited, Error>>)>,
    not_before: Instant,
    pause_factor: u32,
    activity: &'a Activity,
}

impl<'a> Edits<'a> {
    fn new(activity: &'a Activity) -> Self {
        Self { waiting: Vec::new(), not_before: Instant::now(), pause_factor: PAUSE_FACTOR, activity }
    }

    fn make_if_due(&mut self, disk: &mut BlockingStore) {
        if !self.waiting.is_empty() && self.not_before <= Instant::now() {
            self.make(disk);
        }
    }

    /// Makes the changes that wait. The next ones wait for a multiple of the time that these have taken: a replace costs
    /// the more, the larger the file is, and is shared by the more changes.
    fn make(&mut self, disk: &mut BlockingStore) {
        if self.waiting.is_empty() {
            return;
        }
        let began = Instant::now();
        let (edits, answers): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting).into_iter().unzip();
        let _panicked = isolated(|| {
            let results = self.activity.during(|| disk.edit(&edits));
            for (result, answer) in results.into_iter().zip(answers) {
                // A dropped receiver means that the caller was cancelled.
                let _ = answer.send(result);
            }
        });
        let ended = Instant::now();
        self.not_before = ended + (ended.duration_since(began) * self.pause_factor).min(LONGEST_PAUSE);
    }
}
