//! config.toml, the state directory, and locks.
//!
//! config.toml belongs to its user and to gitlab-runner too, so it is edited by splicing the original
//! bytes and replaced atomically. The state directory is ours: `STATE/<hash of the config path>/` holds the
//! daemon's `lock`, `runners/<key>.json` (the record), `<key>.held` (candidates and evidence), `<key>.lock` and `<key>.pending` (the journal),
//! `dropped/`, `access/` with the records and journals of access tokens, `hooks/` with what hooks are to be run for, and `config.copy` while a mount point is being overwritten.
//!
//! One thread does all of this work in order of request; queued changes of config.toml share one replace.
//! Dropping a future does not undo its work. Imports only `model` and `secret`; times are passed in.

mod access;
mod attributes;
mod blocking;
mod compose;
mod config_file;
mod config_lock;
mod draft;
mod dropped;
mod edit;
mod entry;
mod entry_text;
mod error;
mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod held;
mod hook_files;
mod journal;
mod layout;
mod lock_holder;
mod locks;
mod patch;
mod record;
mod replace;
mod sections;
mod snapshot;
mod splice;
mod state_directory;
mod state_index;
mod system_id;
mod test_hooks;
#[cfg(test)]
mod tests;
mod thread;
mod token_variables;
mod tree;
mod volume;
mod wire;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::sync::oneshot;

pub use access::{AccessFile, AccessLock, AccessMark, AccessNote};
pub use compose::NewEntry;
pub use config_lock::Urgency;
pub use edit::{Edit, Edited, EntrySelector};
pub use entry::{Entry, EntryProblem, EntryToken};
pub use entry_text::{ComposeError, EntryText};
pub use error::{Error, ErrorKind};
pub use files::MAX_FILE_BYTES;
pub use hook_files::{HookFiles, HookFilesRead};
pub use journal::{AskedBy, Intent, JournalAnswer, JournalOperation, MAX_DESCRIPTION_CHARS, Pending, StoredFate};
pub use locks::{InstanceLock, RunnerLock};
pub use record::{MAX_FORMER_TOKENS, Record, Records};
pub use snapshot::{Difference, Snapshot};
pub use state_index::RecordQuery;
pub use token_variables::token_variables;

use blocking::BlockingStore;
use locks::LockAttempt;
use test_hooks::TestHooks;
use thread::DiskTask;

use crate::files::{Activity, FileTask, OwnDirectory};
use crate::model::{Held, RunnerKey, SystemId, Timestamp};
use crate::secret::{Digest, Fingerprint};

/// Which files to work on.
#[derive(Clone, Debug)]
pub struct Config {
    /// config.toml; need not exist, may be a symbolic link.
    pub config_path: PathBuf,
    /// The directory for all state; without one there are no records, no journal and no locks.
    pub state_root: Option<PathBuf>,
    /// Normally `/etc/machine-id`.
    pub machine_id_path: PathBuf,
    /// A directory of root's, the same for all processes of root: there they lock a config.toml that another user could
    /// keep locked. `None` for other users.
    pub root_locks: Option<PathBuf>,
    /// Looks an environment variable up, to expand `token = "$NAME"`.
    pub variables: fn(&str) -> Option<String>,
}

/// A runner's files and config.toml, each as [`Store::record`], [`Store::held`], [`Store::pending_of`] and
/// [`Store::read`] return it.
#[derive(Debug)]
pub struct OnDisk {
    /// Its record.
    pub record: Result<Option<Record>, Error>,
    /// What is kept beside the record.
    pub held: Result<Held, Error>,
    /// Its operation that was begun and not cleared.
    pub pending: Result<Option<Pending>, Error>,
    /// config.toml.
    pub snapshot: Result<Arc<Snapshot>, Error>,
}

/// A handle to the disk thread; clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    sender: Sender<DiskTask>,
    config_path: Arc<Path>,
    has_state: bool,
    observer: Option<WriteObserver>,
    activity: Activity,
}

/// A callback that receives whether a change of config.toml was written; it must not block.
#[derive(Clone)]
struct WriteObserver(Arc<dyn Fn(bool) + Send + Sync>);

impl fmt::Debug for WriteObserver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("WriteObserver")
    }
}

impl Store {
    /// Starts the disk thread, makes the state directories and finishes an interrupted write in place.
    ///
    /// # Errors
    /// [`Error::Io`] if the state directory cannot be made or written.
    pub fn open(config: Config) -> Result<Self, Error> {
        Self::open_with(config, TestHooks::default())
    }

    /// Calls `observe` after every [`Store::edit`] of this handle and its clones, with whether it succeeded.
    #[must_use]
    pub fn observed(self, observe: impl Fn(bool) + Send + Sync + 'static) -> Self {
        Self { observer: Some(WriteObserver(Arc::new(observe))), ..self }
    }

    /// From now on, calls `observe` on the disk thread after each of its jobs, with the time that the job has taken. It
    /// must not block. Only the first call has an effect.
    pub fn observe_jobs(&self, observe: impl Fn(Duration) + Send + Sync + 'static) {
        self.activity.observe(observe);
    }

    /// What the disk thread is at; `None` if it waits for work. Never waits.
    #[must_use]
    pub fn work_under_way(&self) -> Option<FileTask> {
        self.activity.current()
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

    /// Whether the state is lost with this container: no state directory, or one in memory or without a mount.
    /// Meaningless outside a container. Returns false if it cannot be determined.
    pub async fn is_gone_with_container(&self) -> bool {
        let answer = self.work(|disk| {
            let Some(state) = disk.state() else { return Ok(true) };
            volume::is_gone_with_container(state).map_err(Error::io("examine", state))
        });
        answer.await.unwrap_or(false)
    }

    /// Locks this config.toml for one daemon, in the state directory and beside config.toml: two daemons with different
    /// state directories exclude each other too. If nothing can be written beside config.toml, this is logged, and only
    /// the state directory is locked.
    ///
    /// # Errors
    /// [`Error::InstanceLocked`] if another daemon holds a lock, [`Error::Io`].
    pub async fn lock_instance(&self) -> Result<InstanceLock, Error> {
        self.work(|disk| locks::lock_instance(disk.state(), &disk.path()?)).await
    }

    /// Locks one runner against other processes. Without a state directory nothing is locked.
    ///
    /// # Errors
    /// [`Error::RunnerLocked`] if it is still locked after `wait`.
    pub async fn lock_runner(&self, key: &RunnerKey, wait: Duration) -> Result<RunnerLock, Error> {
        let mut left = wait;
        loop {
            let tried = key.clone();
            match self.work(move |disk| disk.try_lock_runner(&tried)).await? {
                None => return Ok(RunnerLock { _file: None }),
                Some(LockAttempt::Locked(file)) => return Ok(RunnerLock { _file: Some(file) }),
                Some(LockAttempt::HeldBy(holder)) if left.is_zero() => {
                    return Err(Error::RunnerLocked { key: key.clone(), holder });
                }
                Some(LockAttempt::HeldBy(_)) => {}
            }
            let pause = locks::RETRY.min(left);
            tokio::time::sleep(pause).await;
            left -= pause;
        }
    }

    /// Returns this machine's system_id from `.runner_system_id` beside config.toml. A missing file is created, an
    /// empty one is filled; any other is replaced only if the state directory was copied from another machine.
    ///
    /// # Errors
    /// [`Error::SystemId`] for an invalid file, [`Error::SystemIdLink`] for a link to nowhere, [`Error::Io`] if it cannot
    /// be read or created.
    pub async fn system_id(&self) -> Result<SystemId, Error> {
        self.work(BlockingStore::system_id).await
    }

    /// The system_id that this machine has or is to have, without creating its file; `None` if it is still to be chosen by
    /// chance.
    ///
    /// # Errors
    /// As [`Store::system_id`].
    pub async fn expected_system_id(&self) -> Result<Option<SystemId>, Error> {
        self.work(BlockingStore::expected_system_id).await
    }

    /// A hash of the machine-id that reveals a copied disk; `None` without a machine-id.
    pub async fn machine(&self) -> Option<Fingerprint> {
        self.work(|disk| Ok(disk.machine())).await.ok().flatten()
    }

    /// Reads config.toml; a missing file has no entries. An unchanged file gives the same snapshot.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NotText`], [`Error::Syntax`] or [`Error::RunnersShape`].
    pub async fn read(&self) -> Result<Arc<Snapshot>, Error> {
        self.work(|disk| disk.read()).await
    }

    /// Changes config.toml durably.
    ///
    /// # Errors
    /// Those of [`Store::read`], those of replacing the file, and [`Error::NoSuchEntry`],
    /// [`Error::VariableToken`], [`Error::InlineRunners`], [`Error::EditMismatch`] for this change alone.
    pub async fn edit(&self, edit: Edit) -> Result<Edited, Error> {
        let (answer, answered) = oneshot::channel();
        self.sender.send(DiskTask::Edit(Box::new(edit), answer)).map_err(|_| Error::Stopped)?;
        let edited = answered.await.map_err(|_| Error::Stopped)?;
        if let Some(WriteObserver(observe)) = &self.observer {
            observe(edited.is_ok());
        }
        edited
    }

    /// Returns the entries that [`Edit::Remove`] would remove, in the order of the file, to keep them first.
    ///
    /// # Errors
    /// Those of [`Store::read`].
    pub async fn texts(&self, target: EntrySelector) -> Result<Vec<EntryText>, Error> {
        self.work(move |disk| disk.texts(&target)).await
    }

    /// Rehearses a replace of config.toml up to the rename, and cleans up. This finds an unusable disk before a
    /// token is requested. A mount point that another process keeps locked is usable only if it is pressing.
    ///
    /// # Errors
    /// Those of [`Store::read`], and what a later [`Store::edit`], [`Store::begin`] or [`Store::save_record`]
    /// would fail with. [`Snapshot::takes_entries`] says whether an entry can be added.
    pub async fn probe(&self, urgency: Urgency) -> Result<(), Error> {
        self.work(move |disk| disk.probe(urgency)).await
    }

    /// Reads all records; a damaged one does not hide the others.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory cannot be read.
    pub async fn records(&self) -> Result<Records, Error> {
        self.in_runners(record::read_all).await
    }

    /// Reads the records that may answer a question, by key, and perhaps some more. A damaged record is left out.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory or a record cannot be read.
    pub async fn records_with(&self, query: RecordQuery) -> Result<Vec<Record>, Error> {
        self.work(move |disk| disk.records_with(&query)).await
    }

    /// Reads one record; `None` for an unknown runner.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Record`] if it is damaged.
    pub async fn record(&self, key: &RunnerKey) -> Result<Option<Record>, Error> {
        let key = key.clone();
        self.in_runners(move |runners| record::read(runners, &key)).await
    }

    /// Reads what an operation on a runner starts from, in one step.
    ///
    /// # Errors
    /// [`Error::Stopped`]. What is read has errors of its own.
    pub async fn on_disk(&self, key: &RunnerKey) -> Result<OnDisk, Error> {
        let key = key.clone();
        self.work(move |disk| Ok(disk.on_disk(&key))).await
    }

    /// Locks one runner against other processes without waiting, and reads as [`Store::on_disk`], in one step.
    ///
    /// # Errors
    /// [`Error::RunnerLocked`], [`Error::Stopped`]. What is read has errors of its own.
    pub async fn lock_and_read(&self, key: &RunnerKey) -> Result<(RunnerLock, OnDisk), Error> {
        let key = key.clone();
        self.work(move |disk| {
            let file = match disk.try_lock_runner(&key)? {
                Some(LockAttempt::HeldBy(holder)) => return Err(Error::RunnerLocked { key, holder }),
                Some(LockAttempt::Locked(file)) => Some(file),
                None => None,
            };
            Ok((RunnerLock { _file: file }, disk.on_disk(&key)))
        })
        .await
    }

    /// Writes a record durably.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn save_record(&self, record: Record) -> Result<(), Error> {
        self.work(move |disk| disk.save_record(&record)).await
    }

    /// Moves a runner's record and what is held for it to another key, as they are on the disk now, and sets the key of
    /// its enrollment. Returns the record as written; `None` if there is none. The caller holds the locks of both keys.
    ///
    /// If a crash has left both records, the next call keeps the one under the new key, which may be newer.
    ///
    /// # Errors
    /// [`Error::Unsettled`] while a journal of either key is pending, [`Error::KeyTaken`] if the new key has the record of
    /// another runner, [`Error::Record`] if a record is damaged, [`Error::Io`].
    pub async fn rename_record(
        &self,
        old: &RunnerKey,
        new: &RunnerKey,
        enrollment: Option<String>,
    ) -> Result<Option<Record>, Error> {
        let (old, new) = (old.clone(), new.clone());
        self.in_runners(move |runners| record::rename(runners, &old, &new, enrollment)).await
    }

    /// Removes what is held for a runner, then its record; missing ones are no error. A damaged file of what is held is
    /// kept under another name.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn forget_runner(&self, key: &RunnerKey) -> Result<(), Error> {
        let key = key.clone();
        let forget =
            move |runners: &OwnDirectory| held::remove(runners, &key).and_then(|()| record::remove(runners, &key));
        self.in_runners(forget).await
    }

    /// Removes a record; a missing one is not an error. What is held for the runner stays.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn remove_record(&self, key: &RunnerKey) -> Result<(), Error> {
        let key = key.clone();
        self.in_runners(move |runners| record::remove(runners, &key)).await
    }

    /// Reads what is kept beside a runner's record; empty if there is nothing, and without a state directory.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Held`] if it is damaged; the file stays.
    pub async fn held(&self, key: &RunnerKey) -> Result<Held, Error> {
        let key = key.clone();
        self.in_runners(move |runners| held::read(runners, &key)).await
    }

    /// The same for each of these runners, in one step.
    ///
    /// # Errors
    /// [`Error::Stopped`]. What is read has errors of its own.
    pub async fn held_of(&self, keys: Vec<RunnerKey>) -> Result<Vec<Result<Held, Error>>, Error> {
        self.in_runners(move |runners| Ok(held::read_each(runners, &keys))).await
    }

    /// Writes what is kept beside a runner's record durably; removes the file if there is nothing to keep. A damaged
    /// file is kept under another name first, since it may hold the only copy of a token.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn save_held(&self, key: &RunnerKey, held: Held) -> Result<(), Error> {
        let key = key.clone();
        self.in_runners(move |runners| held::save(runners, &key, held)).await
    }

    /// Journals a request before it is sent, durably and with space for the answer. Keeps the journal open until
    /// [`Store::clear`]. A failure leaves the journal as it was.
    ///
    /// # Errors
    /// [`Error::Unsettled`] if the previous answer is not settled, [`Error::Io`].
    pub async fn begin(&self, key: &RunnerKey, intent: Intent) -> Result<(), Error> {
        let key = key.clone();
        self.work(move |disk| disk.begin(&key, &intent)).await
    }

    /// Writes the answer in place, durably; needs no free space and, after [`Store::begin`], no free file descriptor.
    ///
    /// # Errors
    /// [`Error::NotBegun`], [`Error::Io`].
    pub async fn answered(&self, key: &RunnerKey, answer: JournalAnswer) -> Result<(), Error> {
        let key = key.clone();
        self.work(move |disk| disk.answered(&key, &answer)).await
    }

    /// Takes a runner's journal back to this intent, durably and in one step: a request after it had no effect, or its
    /// answer is kept elsewhere.
    ///
    /// # Errors
    /// [`Error::Io`]; the journal stays as it was.
    pub async fn take_back_to(&self, key: &RunnerKey, intent: Intent) -> Result<(), Error> {
        let key = key.clone();
        self.work(move |disk| disk.take_back_to(&key, &intent)).await
    }

    /// Removes a runner's journal; a missing one is not an error.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn clear(&self, key: &RunnerKey) -> Result<(), Error> {
        let key = key.clone();
        self.work(move |disk| disk.clear(&key)).await
    }

    /// Returns the operations that were begun and not cleared, by key. An incomplete intent was never sent and is
    /// cleared. A journal of another version is kept and logged as an error; it blocks [`Store::begin`].
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn pending(&self) -> Result<Vec<Pending>, Error> {
        self.in_runners(journal::pending).await
    }

    /// Returns one runner's operation, if it was begun and not cleared.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn pending_of(&self, key: &RunnerKey) -> Result<Option<Pending>, Error> {
        let key = key.clone();
        self.in_runners(move |runners| journal::pending_of(runners, &key)).await
    }

    /// Returns the runners with a reset of this token whose answer was not written. A journal that cannot be read counts
    /// as none.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory cannot be read.
    pub async fn lost_resets_of(&self, token: Digest) -> Result<Vec<RunnerKey>, Error> {
        self.work(move |disk| disk.lost_resets_of(token)).await
    }

    /// Keeps an entry that was removed from config.toml under `dropped/` and returns its path. Without a state
    /// directory nothing is kept.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn keep_dropped(&self, label: &str, text: &EntryText, at: Timestamp) -> Result<Option<PathBuf>, Error> {
        let (label, text) = (label.to_owned(), text.clone());
        self.work(move |disk| disk.keep_dropped(&label, &text, at)).await
    }

    /// From now on, changes of config.toml wait less for others to share a replace with: the process is about to end.
    pub fn hurry(&self) {
        let _stopped = self.sender.send(DiskTask::Hurry);
    }

    /// Waits for all queued disk work, including cancelled calls. Await it before the process exits. Cancelling it
    /// cancels nothing else.
    pub async fn drain(&self) {
        let (done, is_done) = oneshot::channel();
        // A stopped thread has no work left.
        if self.sender.send(DiskTask::Flush(done)).is_ok() {
            let _stopped = is_done.await;
        }
    }

    fn open_with(config: Config, hooks: TestHooks) -> Result<Self, Error> {
        let started = thread::start(config, hooks)?;
        Ok(Self {
            sender: started.jobs,
            config_path: started.config_path.into(),
            has_state: started.has_state,
            observer: None,
            activity: started.activity,
        })
    }

    /// Runs `work` on the disk thread and returns its result.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut BlockingStore) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let job = DiskTask::Work(Box::new(move |disk| {
            let result = work(disk);
            Box::new(move || {
                // A dropped receiver means that the caller was cancelled.
                let _ = answer.send(result);
            })
        }));
        self.sender.send(job).map_err(|_| Error::Stopped)?;
        answered.await.map_err(|_| Error::Stopped)?
    }

    /// Runs `work` in the directory of records and journals; returns the default without one.
    async fn in_runners<T: Default + Send + 'static>(
        &self,
        work: impl FnOnce(&OwnDirectory) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.work(|disk| disk.runners().map_or_else(|| Ok(T::default()), |runners| work(&runners))).await
    }
}
