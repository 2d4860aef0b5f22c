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
use crate::host::Process;

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
            let holder = holder_of(&file).map(Process::find).or(written.map(Process::written));
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
    match asked(file, FILE_WAIT) {
        Ok(()) => {
            // The lock works without the id, which only serves messages.
            if let Err(error) = write_holder(file) {
                tracing::debug!(path = %path.display(), %error, "cannot write the process id into the lock file");
            }
            Ok(None)
        }
        Err(TryLockError::WouldBlock) => Ok(Some(read_holder(file))),
        Err(TryLockError::Error(error)) if is_unsupported(file, &error) => {
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
        Err(Error::Io { source, .. }) if is_unsupported(file, &source) => {
            go_on_unlocked(file, path, &source);
            Ok(())
        }
        waited => waited,
    }
}

/// Whether a file system has no locks, such as NFS without a lock daemon.
fn is_unsupported(file: &File, error: &io::Error) -> bool {
    match Errno::from_io_error(error) {
        Some(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS) => true,
        Some(Errno::BADF) => is_directory(file),
        _ => false,
    }
}

/// NFS has a write lock for each `flock`, so it locks no directory: none can be opened to be written. A file can be, and the
/// same error says then that it was not.
fn is_directory(file: &File) -> bool {
    file.metadata().is_ok_and(|found| found.is_dir())
}

/// The file systems without locks that were warned about.
static WARNED: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

/// The file systems whose locks did not come back in time. Each is waited for once.
static WITHOUT_LOCKS: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

fn go_on_unlocked(file: &File, path: &Path, error: &io::Error) {
    if Errno::from_io_error(error) == Some(Errno::BADF) {
        // The files in the directory have locks, or are warned about.
        tracing::debug!(path = %path.display(), %error, "cannot lock a directory");
        return;
    }
    if WARNED.lock().unwrap_or_else(PoisonError::into_inner).insert(device_of(file)) {
        tracing::warn!(
            path = %path.display(), %error,
            "a file cannot be locked: other processes of the agent are not excluded; run no command while the daemon runs, and no second daemon"
        );
    }
}

fn device_of(file: &File) -> u64 {
    file.metadata().map(|found| found.dev()).unwrap_or_default()
}

/// Asks for a lock once. A server that has no locks for the moment, as NFS without a lock daemon has none at all, is asked
/// again for a while.
fn asked(file: &File, wait: Duration) -> Result<(), TryLockError> {
    asked_by(|| file.try_lock(), device_of(file), wait)
}

fn asked_by(
    mut ask: impl FnMut() -> Result<(), TryLockError>,
    device: u64,
    wait: Duration,
) -> Result<(), TryLockError> {
    let without_locks = || WITHOUT_LOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut left = wait;
    loop {
        match ask() {
            Err(TryLockError::Error(error)) if Errno::from_io_error(&error) == Some(Errno::NOLCK) => {
                if left.is_zero() {
                    without_locks().insert(device);
                }
                if without_locks().contains(&device) {
                    return Err(TryLockError::Error(error));
                }
                std::thread::sleep(RETRY.min(left));
                left = left.saturating_sub(RETRY);
            }
            // The server has answered. Another error, such as that of a file that was not opened to be written, is none of its.
            answer @ (Ok(()) | Err(TryLockError::WouldBlock)) => {
                without_locks().remove(&device);
                return answer;
            }
            Err(TryLockError::Error(error)) => return Err(TryLockError::Error(error)),
        }
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
        match asked(file, wait) {
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn answers(errnos: &[Errno]) -> impl FnMut() -> Result<(), TryLockError> {
        let mut errnos: VecDeque<_> = errnos.iter().copied().collect();
        move || errnos.pop_front().map_or(Ok(()), |errno| Err(TryLockError::Error(errno.into())))
    }

    #[test]
    fn a_server_that_has_no_locks_for_the_moment_is_asked_again_and_one_that_has_none_is_waited_for_once() {
        const DEVICE: u64 = u64::MAX;
        asked_by(answers(&[Errno::NOLCK; 3]), DEVICE, 3 * RETRY).unwrap();
        let mut none = answers(&[Errno::NOLCK; 4]);
        asked_by(&mut none, DEVICE, 2 * RETRY).unwrap_err();
        asked_by(&mut none, DEVICE, FILE_WAIT).unwrap_err();
        // A directory of NFS cannot be locked, with locks or without.
        asked_by(answers(&[Errno::BADF]), DEVICE, FILE_WAIT).unwrap_err();
        let mut asks = 0;
        let counted = || {
            asks += 1;
            answers(&[Errno::NOLCK])()
        };
        asked_by(counted, DEVICE, 3 * RETRY).unwrap_err();
        assert_eq!(asks, 1, "it is waited for again");
        // Once it has them, it is waited for again.
        asked_by(&mut none, DEVICE, FILE_WAIT).unwrap();
        asked_by(answers(&[Errno::NOLCK]), DEVICE, RETRY).unwrap();
    }

    #[test]
    fn a_file_that_was_not_opened_to_be_written_is_no_sign_that_there_are_no_locks() {
        let directory = tempfile::tempdir().unwrap();
        let (file, directory) = (tempfile::tempfile().unwrap(), open_directory(directory.path()).unwrap());
        for (errno, of_file, of_directory) in [
            (Errno::BADF, false, true),
            (Errno::NOLCK, true, true),
            (Errno::NOSYS, true, true),
            (Errno::OPNOTSUPP, true, true),
            (Errno::IO, false, false),
        ] {
            let error = io::Error::from(errno);
            assert_eq!(is_unsupported(&file, &error), of_file, "{errno}");
            assert_eq!(is_unsupported(&directory, &error), of_directory, "{errno}");
        }
    }
}
