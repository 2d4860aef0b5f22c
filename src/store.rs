//! The disk: config.toml, the state directory, locks.
//!
//! config.toml belongs to its user and to gitlab-runner too, so it is edited by splicing the original
//! bytes and replaced atomically. The state directory is ours: `STATE/<hash of the config path>/` holds the
//! daemon's `lock`, `runners/<key>.json` (the record), `<key>.lock` and `<key>.pending` (the journal),
//! `dropped/`, and `config.copy` while a mount point is being overwritten.
//!
//! One thread does all disk work in the order it was asked for, save that changes of config.toml which
//! wait together share one replace. A future that is dropped does not undo its work.
//!
//! Imports `model` and `secret` only. Times are passed in.

mod compose;
mod config_file;
mod disk;
mod dropped;
mod edit;
mod entry;
mod error;
mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod hooks;
mod journal;
mod locks;
mod record;
mod replace;
mod sections;
mod splice;
mod system_id;
#[cfg(test)]
mod tests;
mod thread;
mod tree;
mod volume;
mod wire;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::sync::oneshot;

pub use compose::{ComposeError, EntryText, NewEntry};
pub use edit::{Edit, Edited, Target};
pub use entry::{Entry, EntryProblem, EntryToken, Snapshot};
pub use error::{Error, ErrorKind};
pub use journal::{Intent, JournalAnswer, JournalOperation, MAX_DESCRIPTION_CHARS, Pending};
pub use locks::{InstanceLock, RunnerLock};
pub use record::{MAX_RETIRED, Record, Records};

use disk::BlockingStore;
use hooks::Hooks;
use locks::Tried;
use thread::Job;

use crate::model::{RunnerKey, SystemId, Timestamp};
use crate::secret::Fingerprint;

/// Which files to work on.
#[derive(Clone, Debug)]
pub struct Config {
    /// config.toml; need not exist, may be a symbolic link.
    pub config_path: PathBuf,
    /// The directory for all state; without one there are no records, no journal and no locks.
    pub state_root: Option<PathBuf>,
    /// Normally `/etc/machine-id`.
    pub machine_id_path: PathBuf,
    /// Looks an environment variable up, to expand `token = "$NAME"`.
    pub variables: fn(&str) -> Option<String>,
}

/// A handle to the disk; clones share one thread.
#[derive(Clone, Debug)]
pub struct Store {
    sender: Sender<Job>,
    config_path: Arc<Path>,
    has_state: bool,
    observer: Option<WriteObserver>,
}

/// Somebody who is told whether a change of config.toml is on the disk; must not wait.
#[derive(Clone)]
struct WriteObserver(Arc<dyn Fn(bool) + Send + Sync>);

impl fmt::Debug for WriteObserver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Observer")
    }
}

impl Store {
    /// Starts the disk thread, makes the state directories and finishes an interrupted write in place.
    ///
    /// # Errors
    /// [`Error::Disk`] if the state directory cannot be made or written.
    pub fn open(config: Config) -> Result<Self, Error> {
        Self::open_with(config, Hooks::default())
    }

    /// Has every [`Store::edit`] of this handle, and of clones made from it, told to a function: whether the
    /// change is on the disk.
    #[must_use]
    pub fn observed(self, observe: impl Fn(bool) + Send + Sync + 'static) -> Self {
        Self { observer: Some(WriteObserver(Arc::new(observe))), ..self }
    }

    /// config.toml, with symbolic links resolved.
    #[must_use]
    pub fn config_path(&self) -> &Path {
        &self.config_path
    }

    /// Whether there is a state directory.
    #[must_use]
    pub fn has_state(&self) -> bool {
        self.has_state
    }

    /// Whether the state is gone with the container that this process runs in: there is none, it is in memory,
    /// or nothing is mounted for it. On a machine it means nothing. No where it cannot be found out.
    pub async fn is_gone_with_container(&self) -> bool {
        let answer = self.work(|disk| {
            let Some(state) = disk.state() else { return Ok(true) };
            volume::is_gone_with_container(state).map_err(Error::disk("examine", state))
        });
        answer.await.unwrap_or(false)
    }

    /// Becomes the one daemon for this config.toml. Without a state directory nothing is locked.
    ///
    /// # Errors
    /// [`Error::InstanceLocked`] if there is one already.
    pub async fn lock_instance(&self) -> Result<InstanceLock, Error> {
        let tried = self.work(|disk| {
            let Some(path) = disk.state().map(|state| state.join("lock")) else { return Ok(None) };
            locks::try_lock(&path).map(|tried| Some((tried, path)))
        });
        match tried.await? {
            None => Ok(InstanceLock { _file: None }),
            Some((Tried::Locked(file), _)) => Ok(InstanceLock { _file: Some(file) }),
            Some((Tried::HeldBy(holder), path)) => Err(Error::InstanceLocked { path, holder }),
        }
    }

    /// Keeps other processes from working on one runner. Without a state directory nothing is locked.
    ///
    /// # Errors
    /// [`Error::RunnerLocked`] if it is still locked after `wait`.
    pub async fn lock_runner(&self, key: &RunnerKey, wait: Duration) -> Result<RunnerLock, Error> {
        let mut left = wait;
        loop {
            let name = format!("{key}.lock");
            let tried =
                self.work(move |disk| disk.runners().map(|runners| locks::try_lock(&runners.join(name))).transpose());
            match tried.await? {
                None => return Ok(RunnerLock { _file: None }),
                Some(Tried::Locked(file)) => return Ok(RunnerLock { _file: Some(file) }),
                Some(Tried::HeldBy(holder)) if left.is_zero() => {
                    return Err(Error::RunnerLocked { key: key.clone(), holder });
                }
                Some(Tried::HeldBy(_)) => {}
            }
            let pause = locks::RETRY.min(left);
            tokio::time::sleep(pause).await;
            left -= pause;
        }
    }

    /// This machine's name towards GitLab, from `.runner_system_id` beside config.toml, which is created if
    /// it is missing and never replaced.
    ///
    /// # Errors
    /// [`Error::SystemId`] for a file that holds something else, [`Error::Disk`] for one that cannot be read
    /// or created.
    pub async fn system_id(&self) -> Result<SystemId, Error> {
        self.work(BlockingStore::system_id).await
    }

    /// A hash that differs between machines, to notice a copied disk; absent without a machine-id.
    pub async fn machine(&self) -> Option<Fingerprint> {
        self.work(|disk| Ok(disk.machine())).await.ok().flatten()
    }

    /// Reads config.toml; a missing file has no entries.
    ///
    /// # Errors
    /// [`Error::Disk`], [`Error::NotText`], [`Error::Syntax`] or [`Error::RunnersShape`].
    pub async fn read(&self) -> Result<Snapshot, Error> {
        self.work(|disk| disk.read()).await
    }

    /// Changes config.toml durably.
    ///
    /// # Errors
    /// Those of [`Store::read`], those of replacing the file, and [`Error::NoSuchEntry`],
    /// [`Error::VariableToken`], [`Error::InlineRunners`], [`Error::EditMismatch`] for this change alone.
    pub async fn edit(&self, edit: Edit) -> Result<Edited, Error> {
        let (answer, answered) = oneshot::channel();
        self.sender.send(Job::Edit(edit, answer)).map_err(|_| Error::Stopped)?;
        let edited = answered.await.map_err(|_| Error::Stopped)?;
        if let Some(WriteObserver(observe)) = &self.observer {
            observe(edited.is_ok());
        }
        edited
    }

    /// The texts of a runner's entries as [`Edit::Remove`] would take them out, in the order of the file, so
    /// that they can be kept before that.
    ///
    /// # Errors
    /// Those of [`Store::read`].
    pub async fn texts(&self, target: Target) -> Result<Vec<EntryText>, Error> {
        self.work(move |disk| disk.texts(&target)).await
    }

    /// Does everything a replace of config.toml needs but the rename, and leaves nothing behind, so that no
    /// token is spent on a disk that cannot keep it.
    ///
    /// # Errors
    /// Those of [`Store::read`], and what a later [`Store::edit`], [`Store::begin`] or [`Store::save_record`]
    /// would fail with. Whether a new entry can be added is told by [`Snapshot::takes_entries`].
    pub async fn probe(&self) -> Result<(), Error> {
        self.work(|disk| disk.probe()).await
    }

    /// Reads all records; a damaged one does not hide the others.
    ///
    /// # Errors
    /// [`Error::Disk`] if the directory cannot be read.
    pub async fn records(&self) -> Result<Records, Error> {
        self.in_runners(record::read_all).await
    }

    /// Reads one record; `None` for a runner that is not known.
    ///
    /// # Errors
    /// [`Error::Disk`] if it cannot be read, [`Error::Record`] if it is damaged.
    pub async fn record(&self, key: &RunnerKey) -> Result<Option<Record>, Error> {
        let key = key.clone();
        self.in_runners(move |runners| record::read(runners, &key)).await
    }

    /// Writes a record durably.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn save_record(&self, record: Record) -> Result<(), Error> {
        self.in_runners(move |runners| record::save(runners, &record)).await
    }

    /// Forgets a runner; one that is not known is fine.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn remove_record(&self, key: &RunnerKey) -> Result<(), Error> {
        let key = key.clone();
        self.in_runners(move |runners| record::remove(runners, &key)).await
    }

    /// Writes down what is about to be asked, durably and with room for the answer, before it is asked.
    ///
    /// # Errors
    /// [`Error::Unsettled`] if the last operation's answer is still there, [`Error::Disk`].
    pub async fn begin(&self, key: &RunnerKey, intent: Intent) -> Result<(), Error> {
        let key = key.clone();
        self.in_runners(move |runners| journal::begin(runners, &key, &intent)).await
    }

    /// Adds the answer in place, durably; needs no free space.
    ///
    /// # Errors
    /// [`Error::NotBegun`], [`Error::Disk`].
    pub async fn answered(&self, key: &RunnerKey, answer: JournalAnswer) -> Result<(), Error> {
        let key = key.clone();
        self.in_runners(move |runners| journal::answered(runners, &key, &answer)).await
    }

    /// Ends an operation; one that was never begun is fine.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn clear(&self, key: &RunnerKey) -> Result<(), Error> {
        let key = key.clone();
        self.in_runners(move |runners| journal::clear(runners, &key)).await
    }

    /// The operations that were begun and not cleared, by key. One whose intent never came to the disk
    /// whole was never sent and is cleared; one that another version wrote is left alone, with an error in the
    /// log, and keeps its runner from [`Store::begin`].
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn pending(&self) -> Result<Vec<Pending>, Error> {
        self.in_runners(journal::pending).await
    }

    /// One runner's operation, if it was begun and not cleared.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn pending_of(&self, key: &RunnerKey) -> Result<Option<Pending>, Error> {
        let key = key.clone();
        self.in_runners(move |runners| journal::pending_of(runners, &key)).await
    }

    /// Keeps an entry that was dropped from config.toml under `dropped/`, and says where; without a state
    /// directory nothing is kept.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn keep_dropped(&self, label: &str, text: &EntryText, at: Timestamp) -> Result<Option<PathBuf>, Error> {
        let (label, text) = (label.to_owned(), text.clone());
        self.work(move |disk| disk.keep_dropped(&label, &text, at)).await
    }

    /// Waits until everything asked for so far is on the disk, also what nobody waits for any more: the
    /// process must not end before. Cancelling it cancels nothing else.
    pub async fn drain(&self) {
        // A thread that is gone has nothing left to do.
        let _stopped = self.work(|_| Ok(())).await;
    }

    fn open_with(config: Config, hooks: Hooks) -> Result<Self, Error> {
        let started = thread::start(config, hooks)?;
        Ok(Self {
            sender: started.jobs,
            config_path: started.config_path.into(),
            has_state: started.has_state,
            observer: None,
        })
    }

    /// Has the disk thread do something and waits for what comes of it.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut BlockingStore) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let job = Job::Work(Box::new(move |disk| {
            // Who does not wait any more does not need to know.
            let _ = answer.send(work(disk));
        }));
        self.sender.send(job).map_err(|_| Error::Stopped)?;
        answered.await.map_err(|_| Error::Stopped)?
    }

    /// The same in the directory of records and journals; nothing is done where there is none.
    async fn in_runners<T: Default + Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.work(|disk| disk.runners().map_or_else(|| Ok(T::default()), |runners| work(&runners))).await
    }
}
