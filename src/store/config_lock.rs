//! The locks of config.toml for one replace.
//!
//! Every process takes the lock beside config.toml, or that of the file itself if it is a mount point: other users and
//! containers see no other one. The owner of the directory can hold it for ever, and would stop every rotation of a process
//! of root. So where that is another user, root's processes exclude each other by a second lock, in a directory of root's
//! alone. A process that holds this one goes on without the first after a bounded wait.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use super::error::Error;
use super::files::{make_directory, own};
use super::locks::{self, FILE_WAIT};
use super::test_hooks::TestHooks;
use crate::files::{Access, Place, is_trusted};
use crate::secret::sha256_hex;

/// How long the first lock is waited for by a process that holds the second one. A replace takes milliseconds; a command's
/// rehearsal and its edit, with one such wait, end within ten seconds.
const OUTWAIT: Duration = Duration::from_secs(3);

/// The same once it was waited for in vain: the disk thread has other work.
const OUTWAIT_AGAIN: Duration = Duration::from_millis(100);

/// Whether an operation can wait until another process releases config.toml.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// It is tried again later.
    CanWait,
    /// The token would expire, or its successor is already in force.
    Pressing,
}

/// The locks of one config.toml.
pub(super) struct ConfigLocks {
    /// The directory of the second locks; `None` unless this process is root.
    root_locks: Option<PathBuf>,
    /// Whose lock was last waited for in vain; `None` once it was had.
    outwaited: RefCell<Option<Obstacle>>,
    hooks: TestHooks,
}

/// Locked until it is dropped.
#[must_use = "the lock is released on drop"]
pub(super) struct ConfigLock {
    /// The one that root's processes take first.
    _among_root: Option<File>,
    /// The one that all processes take.
    _common: Option<File>,
}

/// Why the first lock cannot be had.
#[derive(Debug, PartialEq, Eq)]
enum Obstacle {
    /// A process holds it, whose id may be unknown.
    Holder(Option<u32>),
    /// There is no lock file, but something else.
    NoLockFile,
}

/// The config.toml to lock.
pub(super) struct Lockable<'a> {
    pub(super) place: &'a Place,
    /// It is one file in all containers, but its directory is not: the file itself is locked.
    pub(super) is_mount_point: bool,
}

impl ConfigLocks {
    pub(super) fn new(root_locks: Option<PathBuf>, hooks: TestHooks) -> Self {
        Self { root_locks, outwaited: RefCell::new(None), hooks }
    }

    /// Locks config.toml. A mount point is written in place, so its lock is done without only if the operation is pressing.
    ///
    /// # Errors
    /// [`Error::FileLocked`] if another process does not release a lock, [`Error::Io`].
    pub(super) fn lock(&self, lockable: &Lockable<'_>, urgency: Urgency) -> Result<ConfigLock, Error> {
        let among_root = self.lock_among_root(lockable)?;
        let is_needed = among_root.is_none() || lockable.is_mount_point && urgency == Urgency::CanWait;
        let patience = match &*self.outwaited.borrow() {
            _ if among_root.is_none() => FILE_WAIT,
            Some(_) => OUTWAIT_AGAIN,
            None => OUTWAIT,
        };
        let common = match lockable.lock_common(self.hooks.patience(patience)) {
            Ok(file) => {
                self.outwaited.replace(None);
                Some(file)
            }
            Err(Error::FileLocked { holder, .. }) if !is_needed => self.go_on(lockable, Obstacle::Holder(holder)),
            Err(error) if !is_needed && is_no_lock_file(&error) => self.go_on(lockable, Obstacle::NoLockFile),
            Err(error) => return Err(error),
        };
        Ok(ConfigLock { _among_root: among_root, _common: common })
    }

    /// Takes the lock that only root's processes see; `None` if there is no need for it, or no place.
    fn lock_among_root(&self, lockable: &Lockable<'_>) -> Result<Option<File>, Error> {
        let Some(directory) = &self.root_locks else { return Ok(None) };
        let lock = || {
            let name = self.name_among_root(lockable).map_err(Error::io("read", lockable.place.path()))?;
            let Some(name) = name else { return Ok(None) };
            make_directory(directory)?;
            let place = own("open the lock file", &directory.join(name))?;
            let file = locks::open(&place)?;
            locks::wait_for(&file, place.path(), self.hooks.patience(FILE_WAIT)).map(|()| Some(file))
        };
        match lock() {
            Err(error @ Error::FileLocked { .. }) => Err(error),
            Err(error) => {
                tracing::debug!(%error, "cannot lock config.toml among root's processes");
                Ok(None)
            }
            locked => locked,
        }
    }

    /// The name of root's lock of this config.toml, however its path is written; `None` if no other user owns it. The
    /// directory is open, so no other one has its inode meanwhile.
    fn name_among_root(&self, lockable: &Lockable<'_>) -> io::Result<Option<String>> {
        let Lockable { place, is_mount_point } = lockable;
        let (owner, (device, inode)) = if *is_mount_point {
            let found = place.metadata()?;
            (found.uid(), (found.dev(), found.ino()))
        } else {
            (place.owner_of_directory()?.0, place.id_of_directory()?)
        };
        if is_trusted(owner) && !self.hooks.pretends_another_owner() {
            return Ok(None);
        }
        let mut name = sha256_hex(place.name().as_bytes());
        name.truncate(NAME_DIGITS);
        Ok(Some(format!("config-{device:x}-{inode:x}-{name}.lock")))
    }

    /// Logs once what is gone on without.
    fn go_on(&self, lockable: &Lockable<'_>, obstacle: Obstacle) -> Option<File> {
        let lock = lockable.lock_path();
        if self.outwaited.borrow().as_ref() != Some(&obstacle) {
            match &obstacle {
                Obstacle::Holder(holder) => tracing::warn!(
                    lock = %lock.display(), pid = holder,
                    "another process does not release the lock of config.toml: going on without it, since its owner is another user; end that process, which `fuser -v` finds"
                ),
                Obstacle::NoLockFile => tracing::warn!(
                    lock = %lock.display(),
                    "the lock of config.toml is no lock file: going on without it, since its owner is another user; remove it"
                ),
            }
        }
        self.outwaited.replace(Some(obstacle));
        None
    }
}

impl Lockable<'_> {
    pub(super) fn lock_common(&self, patience: Duration) -> Result<File, Error> {
        let file = if self.is_mount_point {
            // NFS locks no file that is open to be read only.
            self.place.open(Access::Both).map_err(Error::io("open", self.place.path()))?.file
        } else {
            locks::open(&self.sidecar())?
        };
        locks::wait_if_supported(&file, &self.lock_path(), patience)?;
        Ok(file)
    }

    fn sidecar(&self) -> Place {
        self.place.beside("lock")
    }

    fn lock_path(&self) -> PathBuf {
        if self.is_mount_point { self.place.path().to_owned() } else { self.sidecar().path().to_owned() }
    }
}

/// Length of the hash of config.toml's name in the name of its lock, in hex digits.
const NAME_DIGITS: usize = 12;

/// Whether something else has the place of the lock file: its owner can put it there.
fn is_no_lock_file(error: &Error) -> bool {
    let kinds = [io::ErrorKind::Other, io::ErrorKind::IsADirectory];
    matches!(error, Error::Io { source, .. } if kinds.contains(&source.kind()))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{OFlags, fcntl_getfl};

    use super::*;

    #[test]
    fn each_lock_is_taken_on_a_file_that_is_open_to_be_written() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::find(&directory.path().join("config.toml")).unwrap();
        place.create().unwrap();
        for (is_mount_point, expected) in [(true, "config.toml"), (false, ".config.toml.lock")] {
            let lock = Lockable { place: &place, is_mount_point }.lock_common(Duration::ZERO).unwrap();
            let (locked, named) = (lock.metadata().unwrap().ino(), place.sibling(expected).metadata().unwrap().ino());
            assert_eq!(locked, named, "{expected}");
            let access = fcntl_getfl(&lock).unwrap() & OFlags::RWMODE;
            assert_eq!(access, OFlags::RDWR, "{expected}");
        }
    }
}
