//! The one thread that touches the disk.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};

use tokio::sync::oneshot;

use super::Config;
use super::blocking::BlockingStore;
use super::edit::{Edit, Edited};
use super::error::Error;
use super::test_hooks::TestHooks;

/// A task for the disk thread.
pub(super) enum DiskTask {
    /// Any task but a change of config.toml; it sends its own result.
    Work(Box<dyn FnOnce(&mut BlockingStore) + Send>),
    /// A change of config.toml, made together with other queued changes.
    Edit(Box<Edit>, oneshot::Sender<Result<Edited, Error>>),
}

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
    let mut waiting = VecDeque::new();
    while let Some(job) = waiting.pop_front().or_else(|| receiver.recv().ok()) {
        waiting.extend(receiver.try_iter());
        match job {
            DiskTask::Work(work) => isolated(|| work(&mut disk)),
            DiskTask::Edit(edit, answer) => isolated(|| edit_together(&mut disk, (*edit, answer), &mut waiting)),
        }
    }
}

/// A panic, which has been logged, ends one task and not the thread: its caller learns that by the dropped channel, and
/// every task reads what it needs from the disk.
fn isolated(task: impl FnOnce()) {
    let _panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(task));
}

/// Makes a change and all other queued ones, at any position in the queue: a caller has one request at a time.
fn edit_together(
    disk: &mut BlockingStore,
    first: (Edit, oneshot::Sender<Result<Edited, Error>>),
    waiting: &mut VecDeque<DiskTask>,
) {
    let (mut edits, mut answers) = (vec![first.0], vec![first.1]);
    for job in std::mem::take(waiting) {
        match job {
            DiskTask::Edit(edit, answer) => {
                edits.push(*edit);
                answers.push(answer);
            }
            DiskTask::Work(work) => waiting.push_back(DiskTask::Work(work)),
        }
    }
    for (result, answer) in disk.edit(&edits).into_iter().zip(answers) {
        // A dropped receiver means that the caller was cancelled.
        let _ = answer.send(result);
    }
}
