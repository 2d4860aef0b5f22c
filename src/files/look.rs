//! Looks at a path as it is at this moment, behind any link. Nothing is opened, and nothing may follow from it but what is
//! judged again once the file is open: another user can change it at once.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use super::current::note;

/// What a path leads to: to compare it with a file that is or was open.
///
/// # Errors
/// `NotFound`, and those of the system call.
#[expect(clippy::disallowed_methods, reason = "it only looks")]
pub fn look(path: &Path) -> io::Result<Metadata> {
    note(path);
    fs::metadata(path)
}

/// Whether a path leads to anything.
#[must_use]
pub fn is_there(path: &Path) -> bool {
    look(path).is_ok()
}

/// What a symbolic link holds: to watch where it leads, and for messages.
///
/// # Errors
/// `InvalidInput` for what is no link, `NotFound`, and those of the system call.
#[expect(clippy::disallowed_methods, reason = "it only looks")]
pub fn link_target(path: &Path) -> io::Result<PathBuf> {
    note(path);
    fs::read_link(path)
}
