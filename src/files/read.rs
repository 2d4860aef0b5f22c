//! Opening and reading regular files.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{FsWord, Mode, OFlags, StatVfsMountFlags, fstatfs, fstatvfs, openat};
use rustix::io::Errno;

use super::current::note;
use super::{Place, is_trusted, refused};

/// File systems of the kernel, whose files may block or have no end although they look regular: proc and sysfs.
///
/// Source: `linux/magic.h`.
const OF_THE_KERNEL: [FsWord; 2] = [0x9fa0, 0x6265_6572];

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read it.
    Read,
    /// To write over it.
    Write,
    /// To read it, and write over it.
    Both,
}

/// An open regular file.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub file: File,
    /// What it was when it was opened.
    pub metadata: Metadata,
}

/// How another user could have written a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// Its mode lets others than its owner write.
    Writable {
        /// The permission bits.
        mode: u32,
    },
    /// It belongs to another user, and this process is root.
    Foreign {
        /// That user.
        user: u32,
    },
}

impl Exposure {
    /// Whether no more than a group of the owner's choice could have written it.
    #[must_use]
    pub fn is_to_group(self) -> bool {
        matches!(self, Self::Writable { mode } if mode & 0o002 == 0)
    }

    /// Who could have written it, without a remedy.
    #[must_use]
    pub fn cause(self) -> String {
        match self {
            Self::Writable { mode } => format!("it can be written by others (mode {mode:04o})"),
            Self::Foreign { user } => format!("it belongs to user {user}"),
        }
    }
}

impl fmt::Display for Exposure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Writable { mode } => {
                write!(formatter, "it can be written by others (mode {mode:04o}) and is not trusted: run `chmod go-w`")
            }
            Self::Foreign { user } => {
                write!(
                    formatter,
                    "it belongs to user {user}, who can change it, and root does not trust it: run `chown root`"
                )
            }
        }
    }
}

impl Opened {
    /// Whether a user who is not trusted could have written it. What is mounted read-only is the choice of those who
    /// mounted it.
    #[must_use]
    pub fn exposure(&self) -> Option<Exposure> {
        let is_read_only = fstatvfs(&self.file).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY));
        let (mode, user) = (self.metadata.mode() & 0o7777, self.metadata.uid());
        let is_root = rustix::process::geteuid().is_root();
        exposure(is_read_only, mode, is_root && !is_trusted(user), user)
    }

    /// As [`Opened::exposure`]; a group may be allowed to write the file of a trusted user.
    #[must_use]
    pub fn exposure_unless_of_group(&self, may_be_writable: bool) -> Option<Exposure> {
        let is_ours = is_trusted(self.metadata.uid());
        self.exposure().filter(|exposure| !(may_be_writable && is_ours && exposure.is_to_group()))
    }

    /// Reads it to the end.
    ///
    /// # Errors
    /// `FileTooLarge` above this many bytes, and those of the system calls.
    pub fn read(&mut self, limit: u64) -> io::Result<Vec<u8>> {
        let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {limit} bytes"));
        if self.metadata.len() > limit {
            return Err(too_large());
        }
        let mut content = Vec::new();
        content.try_reserve(usize::try_from(self.metadata.len()).unwrap_or(usize::MAX).saturating_add(1))?;
        // It may grow meanwhile.
        (&self.file).take(limit + 1).read_to_end(&mut content)?;
        if content.len() as u64 > limit { Err(too_large()) } else { Ok(content) }
    }
}

impl Place {
    /// Opens a regular file. Nothing else is waited for, neither a pipe nor a device.
    ///
    /// # Errors
    /// `NotFound`; an error that says so for a link, another kind of file, and a file of the kernel.
    pub fn open(&self, access: Access) -> io::Result<Opened> {
        note(self.path());
        let access = match access {
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::WRONLY,
            Access::Both => OFlags::RDWR,
        };
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match openat(self.directory(), self.name(), flags, Mode::empty()) {
            Ok(file) => open_regular(File::from(file)),
            Err(Errno::LOOP) => Err(io::Error::other("a symbolic link has taken its place")),
            // A pipe without a reader.
            Err(Errno::NXIO) => Err(not_regular()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Opens a regular file of the agent's own for reading and writing, or creates it with mode 0600. No other user can
    /// put anything into such a directory between two steps.
    ///
    /// # Errors
    /// An error that says so for a link and another kind of file.
    pub fn open_or_create(&self) -> io::Result<Opened> {
        note(self.path());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(self.directory(), self.name(), flags, Mode::RUSR | Mode::WUSR)?);
        let metadata = file.metadata()?;
        if metadata.is_file() { Ok(Opened { file, metadata }) } else { Err(not_regular()) }
    }
}

/// Checks that an open file is a regular one.
fn open_regular(file: File) -> io::Result<Opened> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(not_regular());
    }
    // One that cannot say is on a disk, or a network.
    if fstatfs(&file).is_ok_and(|found| OF_THE_KERNEL.contains(&found.f_type)) {
        return Err(io::Error::other("it is a file of the kernel"));
    }
    Ok(Opened { file, metadata })
}

fn exposure(is_read_only: bool, mode: u32, is_foreign: bool, user: u32) -> Option<Exposure> {
    if is_read_only {
        None
    } else if mode & 0o022 != 0 {
        Some(Exposure::Writable { mode })
    } else {
        is_foreign.then_some(Exposure::Foreign { user })
    }
}

/// Reads a regular file, behind links that are followed.
///
/// # Errors
/// As [`Place::find`], [`Place::open`] and [`Opened::read`].
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    Place::find(path)?.open(Access::Read)?.read(limit)
}

/// As [`read`], for a file that this process acts on: no other user may have written it.
///
/// # Errors
/// As [`read`], and `PermissionDenied` for a file that another user could have written.
pub fn read_trusted(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut opened = Place::find(path)?.open(Access::Read)?;
    match opened.exposure() {
        None => opened.read(limit),
        Some(exposure) => Err(refused(exposure.to_string())),
    }
}

/// As [`read`], for a file that this process acts on and that a group may write. A process of root refuses one of another
/// user.
///
/// # Errors
/// As [`read`], and `PermissionDenied` for a file of another user.
pub fn read_unless_foreign(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut opened = Place::find(path)?.open(Access::Read)?;
    match opened.exposure_unless_of_group(true) {
        None => opened.read(limit),
        Some(exposure) => Err(refused(exposure.to_string())),
    }
}

/// As [`read_trusted`], for text.
///
/// # Errors
/// As [`read_trusted`], and `InvalidData` for what is no UTF-8.
pub fn read_trusted_text(path: &Path, limit: u64) -> io::Result<String> {
    let invalid = |_| io::Error::new(io::ErrorKind::InvalidData, "it is no UTF-8 text");
    String::from_utf8(read_trusted(path, limit)?).map_err(invalid)
}

fn not_regular() -> io::Error {
    io::Error::other("it is not a regular file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_another_user_could_have_written_is_exposed_unless_it_is_mounted_read_only() {
        let writable = |mode| Some(Exposure::Writable { mode });
        for (is_read_only, mode, is_foreign, expected) in [
            (false, 0o644, false, None),
            (false, 0o664, false, writable(0o664)),
            (false, 0o602, true, writable(0o602)),
            (false, 0o600, true, Some(Exposure::Foreign { user: 1500 })),
            (true, 0o666, true, None),
        ] {
            assert_eq!(exposure(is_read_only, mode, is_foreign, 1500), expected, "{mode:o}");
        }
    }
}
