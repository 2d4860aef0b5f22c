//! Locks between processes: one daemon per config.toml, one operation at a time on one runner, one replace
//! of config.toml at a time.
//!
//! All are `flock`s on files that are never renamed or removed, since a lock on a removed file is void.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::Path;
use std::time::Duration;

use super::error::Error;

/// How long the disk thread waits for another process that replaces config.toml, which takes milliseconds.
const FILE_WAIT: Duration = Duration::from_secs(5);

/// The pause between two tries to lock config.toml.
const FILE_RETRY: Duration = Duration::from_millis(5);

/// The pause between two tries to lock a runner.
pub(super) const RETRY: Duration = Duration::from_millis(50);

/// The longest process id, in digits with its line break.
const MAX_HOLDER_BYTES: u64 = 32;

/// Validity by the daemon that serves a config.toml; dropping it lets the next one in.
#[derive(Debug)]
#[must_use = "the lock ends when it is dropped"]
pub struct InstanceLock {
    pub(super) _file: Option<File>,
}

/// Validity during one operation on one runner; dropping it lets the next one in.
#[derive(Debug)]
#[must_use = "the lock ends when it is dropped"]
pub struct RunnerLock {
    pub(super) _file: Option<File>,
}

/// What came of a try to lock.
pub(super) enum LockAttempt {
    Locked(File),
    /// By the process that wrote its id there.
    HeldBy(Option<u32>),
}

/// Tries to lock a file of ours and leaves this process's id in it, if the disk has room for that.
pub(super) fn try_lock(path: &Path) -> Result<LockAttempt, Error> {
    let mut file = open(path)?;
    match file.try_lock() {
        Ok(()) => {
            // The lock holds without it: the id only tells others whom they wait for.
            if let Err(error) = write_holder(&mut file) {
                tracing::debug!(path = %path.display(), %error, "the lock file does not name this process");
            }
            Ok(LockAttempt::Locked(file))
        }
        Err(TryLockError::WouldBlock) => Ok(LockAttempt::HeldBy(read_holder(&mut file))),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", path)(error)),
    }
}

/// Locks the sidecar of config.toml for one replace.
pub(super) fn lock_sidecar(path: &Path) -> Result<File, Error> {
    let is_new = !path.exists();
    let file = open(path)?;
    if is_new {
        own_like_directory(&file, path);
    }
    wait_for(&file, path)?;
    Ok(file)
}

/// Locks a file itself, for one that is overwritten in place.
pub(super) fn lock_itself(path: &Path) -> Result<File, Error> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    wait_for(&file, path)?;
    Ok(file)
}

fn wait_for(file: &File, path: &Path) -> Result<(), Error> {
    let mut left = FILE_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", path)(error)),
            Err(TryLockError::WouldBlock) if left.is_zero() => {
                return Err(Error::FileLocked { path: path.to_owned() });
            }
            Err(TryLockError::WouldBlock) => {
                std::thread::sleep(FILE_RETRY);
                left = left.saturating_sub(FILE_RETRY);
            }
        }
    }
}

fn open(path: &Path) -> Result<File, Error> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
    options.open(path).map_err(Error::io("open the lock file", path))
}

/// Lets the owner of the directory lock too what root created there.
fn own_like_directory(file: &File, path: &Path) {
    let owner = super::files::parent(path).metadata();
    let owned = owner.and_then(|owner| fchown(file, Some(owner.uid()), Some(owner.gid())));
    if let Err(error) = owned {
        tracing::debug!(path = %path.display(), %error, "the lock file keeps its owner");
    }
}

fn write_holder(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn read_holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(MAX_HOLDER_BYTES).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_keeps_nobody_from_locking() {
        assert!(matches!(try_lock(Path::new("/dev/full")), Ok(LockAttempt::Locked(_))));
    }
}
