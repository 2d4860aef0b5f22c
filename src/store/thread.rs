//! The one thread that touches the disk.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Config;
use super::blocking::BlockingStore;
use super::edit::{Edit, Edited};
use super::error::Error;
use super::test_hooks::TestHooks;

/// A task for the disk thread.
pub(super) enum DiskTask {
    /// Any task but a change of config.toml; it sends its own result.
    Work(Box<dyn FnOnce(&mut BlockingStore) + Send>),
    /// A change of config.toml, made together with others.
    Edit(Box<Edit>, oneshot::Sender<Result<Edited, Error>>),
    /// Makes the changes that wait, and says so.
    Flush(oneshot::Sender<()>),
}

/// A change and where its result goes.
type WaitingEdit = (Edit, oneshot::Sender<Result<Edited, Error>>);

/// The most changes that wait for each other.
const MOST_TOGETHER: usize = 100;

/// The pause between two replaces of config.toml, in times of what the first one has taken. One that comes later than that
/// waits for nothing.
const PAUSE_FACTOR: u32 = 20;

/// The longest pause. Meanwhile the journals hold the new tokens, and config.toml the old ones.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// The handle of the started thread.
pub(super) struct DiskThread {
    pub(super) jobs: Sender<DiskTask>,
    pub(super) config_path: PathBuf,
    pub(super) has_state: bool,
}

/// Starts the thread and waits until it is open; it stops when the last sender is dropped.
pub(super) fn start(config: Config, hooks: TestHooks) -> Result<DiskThread, Error> {
    let (jobs, receiver) = channel();
    let (opened, is_open) = channel();
    let cannot_start = Error::io("start the thread for", &config.config_path);
    let work = move || match open(config, hooks) {
        Ok((disk, config_path)) => {
            let _ = opened.send(Ok((config_path, disk.state().is_some())));
            run(disk, &receiver);
        }
        Err(error) => {
            let _ = opened.send(Err(error));
        }
    };
    std::thread::Builder::new().name("store".to_owned()).spawn(work).map_err(cannot_start)?;
    let (config_path, has_state) = is_open.recv().map_err(|_| Error::Stopped)??;
    Ok(DiskThread { jobs, config_path, has_state })
}

fn open(config: Config, hooks: TestHooks) -> Result<(BlockingStore, PathBuf), Error> {
    let disk = BlockingStore::open(config, hooks)?;
    let config_path = disk.path()?;
    Ok((disk, config_path))
}

fn run(mut disk: BlockingStore, receiver: &Receiver<DiskTask>) {
    let (mut edits, mut not_before) = (Vec::new(), Instant::now());
    loop {
        let received = if edits.is_empty() {
            receiver.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            receiver.recv_timeout(not_before.saturating_duration_since(Instant::now()))
        };
        match received {
            Ok(DiskTask::Work(work)) => isolated(|| work(&mut disk)),
            Ok(DiskTask::Edit(edit, answer)) => edits.push((*edit, answer)),
            Ok(DiskTask::Flush(done)) => {
                edit_together(&mut disk, &mut edits, &mut not_before);
                // A dropped receiver means that the caller was cancelled.
                let _ = done.send(());
            }
            Err(RecvTimeoutError::Timeout) => edit_together(&mut disk, &mut edits, &mut not_before),
            Err(RecvTimeoutError::Disconnected) => {
                edit_together(&mut disk, &mut edits, &mut not_before);
                return;
            }
        }
        if edits.len() >= MOST_TOGETHER {
            edit_together(&mut disk, &mut edits, &mut not_before);
        }
    }
}

/// A panic, which has been logged, ends one task and not the thread: its caller learns that by the dropped channel, and
/// every task reads what it needs from the disk.
fn isolated(task: impl FnOnce()) {
    let _panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(task));
}

/// Makes the changes that wait. The next ones wait for a multiple of the time that these have taken: a replace costs the
/// more, the larger the file is, and is shared by the more changes.
fn edit_together(disk: &mut BlockingStore, waiting: &mut Vec<WaitingEdit>, not_before: &mut Instant) {
    if waiting.is_empty() {
        return;
    }
    let began = Instant::now();
    let (edits, answers): (Vec<_>, Vec<_>) = std::mem::take(waiting).into_iter().unzip();
    isolated(|| {
        for (result, answer) in disk.edit(&edits).into_iter().zip(answers) {
            // A dropped receiver means that the caller was cancelled.
            let _ = answer.send(result);
        }
    });
    let ended = Instant::now();
    *not_before = ended + (ended.duration_since(began) * PAUSE_FACTOR).min(LONGEST_PAUSE);
}
