//! Locks between processes: one daemon per config.toml, wherever its state directory is, one operation at a time on one runner, one replace
//! of config.toml at a time. And no state directory is moved while a process uses it.
//!
//! All are `flock`s. On a file system without them no other process is excluded, and a warning says so once.
//!
//! A lock on a removed file is void: the files are never removed, and only a state directory that no
//! process uses is renamed, with the files in it.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use super::error::Error;
use super::files::{OwnFile, make_directory, own, parent};
use super::lock_holder::holder_of;
use crate::files::{Access, Opened, Place, is_trusted};

/// How long the disk thread waits for the lock of config.toml or of all state; a replace or a move takes milliseconds.
pub(super) const FILE_WAIT: Duration = Duration::from_secs(5);

/// The pause between attempts to lock config.toml.
const FILE_RETRY: Duration = Duration::from_millis(5);

/// The pause between attempts to lock a runner.
pub(super) const RETRY: Duration = Duration::from_millis(50);

/// Maximum length of a process id with its line break, in bytes.
const MAX_HOLDER_BYTES: u64 = 32;

/// The lock of a daemon on its config.toml; released on drop.
#[derive(Debug)]
#[must_use = "the lock is released on drop"]
pub struct InstanceLock {
    _files: Vec<File>,
}

/// The lock of one operation on one runner; released on drop.
#[derive(Debug)]
#[must_use = "the lock is released on drop"]
pub struct RunnerLock {
    pub(super) _file: Option<File>,
}

/// The result of an attempt to lock.
pub(super) enum LockAttempt {
    Locked(File),
    /// Held by another process, with its id if known.
    HeldBy(Option<u32>),
}

/// Locks a config.toml for one daemon: in its state directory, and beside config.toml, where daemons with other state
/// directories look too. Without the right to write there, the state directory alone is locked.
///
/// # Errors
/// [`Error::InstanceLocked`] if another daemon holds either lock, [`Error::Io`].
pub(super) fn lock_instance(state: Option<&Path>, config_path: &Path) -> Result<InstanceLock, Error> {
    let mut files = Vec::new();
    if let Some(state) = state {
        files.push(lock_for_instance(&own("open the lock file", &state.join("lock"))?)?);
    }
    let beside = || {
        make_directory(parent(config_path))?;
        let config = Place::find(config_path).map_err(Error::io("read", config_path))?;
        lock_for_instance(&config.beside("daemon"))
    };
    match beside() {
        Ok(file) => files.push(file),
        Err(error) if is_unwritable(&error) => {
            tracing::warn!(
                error = %with_cause(&error),
                "cannot lock beside config.toml: a daemon with another state directory would not be noticed"
            );
        }
        Err(error) => return Err(error),
    }
    Ok(InstanceLock { _files: files })
}

fn lock_for_instance(place: &Place) -> Result<File, Error> {
    let mut file = open(place)?;
    match lock_open(&mut file, place.path())? {
        None => Ok(file),
        Some(written) => {
            // What is written there may be another user's.
            let holder = holder_of(&file).or(written);
            Err(Error::InstanceLocked { path: place.path().to_owned(), holder })
        }
    }
}

/// Whether a file cannot be made or opened for lack of rights or space.
fn is_unwritable(error: &Error) -> bool {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let kinds = [PermissionDenied, ReadOnlyFilesystem, StorageFull, QuotaExceeded];
    matches!(error, Error::Io { source, .. } if kinds.contains(&source.kind()))
}

fn with_cause(error: &Error) -> String {
    match error {
        Error::Io { source, .. } => format!("{error}: {source}"),
        error => error.to_string(),
    }
}

/// Tries to lock one of the agent's files, and writes this process's id into it if the disk has space.
pub(super) fn try_lock(file: &dyn OwnFile) -> Result<LockAttempt, Error> {
    let place = file.place("open the lock file")?;
    let mut file = open_own(&place).map_err(Error::io("open the lock file", place.path()))?;
    Ok(match lock_open(&mut file, place.path())? {
        None => LockAttempt::Locked(file),
        Some(holder) => LockAttempt::HeldBy(holder),
    })
}

/// Locks an open file without waiting; returns the holder, if known, if another process has locked it.
fn lock_open(file: &mut File, path: &Path) -> Result<Option<Option<u32>>, Error> {
    match file.try_lock() {
        Ok(()) => {
            // The lock works without the id, which only serves messages.
            if let Err(error) = write_holder(file) {
                tracing::debug!(path = %path.display(), %error, "cannot write the process id into the lock file");
            }
            Ok(None)
        }
        Err(TryLockError::WouldBlock) => Ok(Some(read_holder(file))),
        Err(TryLockError::Error(error)) if is_unsupported(&error) => {
            go_on_unlocked(file, path, &error);
            Ok(None)
        }
        Err(TryLockError::Error(error)) => Err(Error::io("lock", path)(error)),
    }
}

/// Locks a directory of the agent's own, and waits for others. Without locks, its file system excludes none.
pub(super) fn lock_own_directory(path: &Path) -> Result<File, Error> {
    let file = own("open", path)?.open_directory().map_err(Error::io("open", path))?;
    wait_if_supported(&file, path, FILE_WAIT)?;
    Ok(file)
}

/// As [`wait_for`]; a file system without locks excludes no other process.
pub(super) fn wait_if_supported(file: &File, path: &Path, wait: Duration) -> Result<(), Error> {
    match wait_for(file, path, wait) {
        Err(Error::Io { source, .. }) if is_unsupported(&source) => {
            go_on_unlocked(file, path, &source);
            Ok(())
        }
        waited => waited,
    }
}

/// Whether a file system has no locks, such as NFS without a lock daemon. NFS locks no directory, and no file that is open to
/// be read only.
fn is_unsupported(error: &io::Error) -> bool {
    let errnos = [Errno::NOLCK, Errno::OPNOTSUPP, Errno::NOSYS, Errno::BADF];
    Errno::from_io_error(error).is_some_and(|errno| errnos.contains(&errno))
}

/// The file systems without locks that were warned about.
static WARNED: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

fn go_on_unlocked(file: &File, path: &Path, error: &io::Error) {
    let device = file.metadata().map(|found| found.dev()).unwrap_or_default();
    if WARNED.lock().unwrap_or_else(PoisonError::into_inner).insert(device) {
        tracing::warn!(
            path = %path.display(), %error,
            "a file cannot be locked: other processes of the agent are not excluded; run no command while the daemon runs, and no second daemon"
        );
    }
}

/// Locks a directory against all others, and waits for them; `None` if it cannot be locked, as on NFS.
pub(super) fn lock_directory(path: &Path) -> Result<Option<File>, Error> {
    let Ok(file) = open_directory(path) else { return Ok(None) };
    match wait_for(&file, path, FILE_WAIT) {
        Err(Error::Io { source, .. }) => {
            tracing::debug!(path = %path.display(), error = %source, "cannot lock a directory");
            Ok(None)
        }
        waited => waited.map(|()| Some(file)),
    }
}

/// Locks a directory against all others; `None` if another process has locked it.
pub(super) fn try_lock_directory(path: &Path) -> Result<Option<File>, Error> {
    let file = open_directory(path).map_err(Error::io("open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", path)(error)),
    }
}

/// Locks a directory together with others that use it; `None` if it cannot be locked.
pub(super) fn share_directory(path: &Path) -> Option<File> {
    let file = open_directory(path).ok()?;
    file.try_lock_shared().ok().map(|()| file)
}

fn open_directory(path: &Path) -> io::Result<File> {
    Place::find(path)?.open_directory()
}

/// Locks an open file, and waits for the process that has locked it.
pub(super) fn wait_for(file: &File, path: &Path, wait: Duration) -> Result<(), Error> {
    let mut left = wait;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", path)(error)),
            Err(TryLockError::WouldBlock) if left.is_zero() => {
                return Err(Error::FileLocked { path: path.to_owned(), holder: holder_of(file) });
            }
            Err(TryLockError::WouldBlock) => {
                std::thread::sleep(FILE_RETRY);
                left = left.saturating_sub(FILE_RETRY);
            }
        }
    }
}

/// Opens a lock file or creates it. One that was just created belongs to the owner of its directory.
pub(super) fn open(place: &Place) -> Result<File, Error> {
    let in_act = Error::io("open the lock file", place.path());
    // Creating and opening are two steps: only a file that was just created may be given to another user.
    let opened = match open_present(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match place.create() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => open_present(place),
            created => created.inspect(|file| own_like_directory(file, place)),
        },
        opened => opened,
    };
    opened.map_err(in_act)
}

/// As [`open`], for one of the agent's own.
fn open_own(place: &Place) -> io::Result<File> {
    let opened = place.open_or_create()?;
    if is_lock(&opened) && is_trusted(opened.metadata.uid()) { Ok(opened.file) } else { Err(no_lock()) }
}

/// Opens a lock file that is there. The process id is written into it, so it has to be one: another user could have put a
/// link to another file, or a file that only root can read, in its place.
fn open_present(place: &Place) -> io::Result<File> {
    let opened = place.open(Access::Both)?;
    let owner = opened.metadata.uid();
    let is_expected = is_trusted(owner) || place.owner_of_directory()?.0 == owner;
    if is_expected && is_lock(&opened) { Ok(opened.file) } else { Err(no_lock()) }
}

fn is_lock(opened: &Opened) -> bool {
    opened.metadata.len() <= MAX_HOLDER_BYTES && opened.metadata.nlink() == 1
}

fn no_lock() -> io::Error {
    io::Error::other("it is no lock file: remove it")
}

/// Gives a lock file that root created to the directory's owner.
fn own_like_directory(file: &File, place: &Place) {
    let owned = place.owner_of_directory().and_then(|(user, group)| fchown(file, Some(user), Some(group)));
    if let Err(error) = owned {
        tracing::debug!(path = %place.path().display(), %error, "cannot change the lock file's owner");
    }
}

/// One write over all that a former holder has written: a process id has at most ten digits.
fn write_holder(file: &mut File) -> std::io::Result<()> {
    file.write_all(format!("{:<10}\n", std::process::id()).as_bytes())
}

fn read_holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(MAX_HOLDER_BYTES).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
