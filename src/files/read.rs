//! Opening and reading regular files.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::Path;

use rustix::fs::{FsWord, Mode, OFlags, fstatfs, openat};
use rustix::io::Errno;

use super::Place;

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

impl Opened {
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
}

/// Checks that an open file is a regular one.
///
/// # Errors
/// One that says what it is.
pub fn open_regular(file: File) -> io::Result<Opened> {
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

/// Reads a regular file, behind links that are followed.
///
/// # Errors
/// As [`Place::find`], [`Place::open`] and [`Opened::read`].
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    Place::find(path)?.open(Access::Read)?.read(limit)
}

/// As [`read`], for text.
///
/// # Errors
/// As [`read`], and `InvalidData` for what is no UTF-8.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    let invalid = |_| io::Error::new(io::ErrorKind::InvalidData, "it is no UTF-8 text");
    String::from_utf8(read(path, limit)?).map_err(invalid)
}

fn not_regular() -> io::Error {
    io::Error::other("it is not a regular file")
}
