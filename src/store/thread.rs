//! The one thread that touches the disk.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};

use tokio::sync::oneshot;

use super::disk::Disk;
use super::edit::{Edit, Edited};
use super::error::Error;

/// Something to do on the disk thread.
pub(super) enum Job {
    /// Anything but a change of config.toml; it answers by itself.
    Work(Box<dyn FnOnce(&mut Disk) + Send>),
    /// A change of config.toml, made together with the others that wait.
    Edit(Edit, oneshot::Sender<Result<Edited, Error>>),
}

/// Starts the thread; it ends when the last sender is dropped.
pub(super) fn start(disk: Disk) -> Result<Sender<Job>, Error> {
    let (sender, receiver) = channel();
    let thread = std::thread::Builder::new().name("store".to_owned());
    let started = thread.spawn(move || run(disk, &receiver));
    started.map_err(Error::disk("start the thread for", std::path::Path::new("config.toml")))?;
    Ok(sender)
}

fn run(mut disk: Disk, receiver: &Receiver<Job>) {
    let mut waiting = VecDeque::new();
    while let Some(job) = waiting.pop_front().or_else(|| receiver.recv().ok()) {
        waiting.extend(receiver.try_iter());
        match job {
            Job::Work(work) => work(&mut disk),
            Job::Edit(edit, answer) => edit_together(&disk, (edit, answer), &mut waiting),
        }
    }
}

/// Makes a change and all others that wait, wherever they stand in the queue: who waits for one change asks
/// for nothing else meanwhile.
fn edit_together(disk: &Disk, first: (Edit, oneshot::Sender<Result<Edited, Error>>), waiting: &mut VecDeque<Job>) {
    let (mut edits, mut answers) = (vec![first.0], vec![first.1]);
    for job in std::mem::take(waiting) {
        match job {
            Job::Edit(edit, answer) => {
                edits.push(edit);
                answers.push(answer);
            }
            Job::Work(work) => waiting.push_back(Job::Work(work)),
        }
    }
    for (result, answer) in disk.edit(&edits).into_iter().zip(answers) {
        // Who does not wait any more does not need to know.
        let _ = answer.send(result);
    }
}
