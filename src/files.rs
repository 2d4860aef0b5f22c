//! Files that other users may have put there, or may change while they are used.
//!
//! The agent often runs as root, over a config.toml in a directory of another user. That user can put a symbolic link, a
//! pipe or another file in the place of each file of the directory, at any moment. So a path is resolved once, and
//! everything after that is relative to the open directory ([`Place`]); a file is judged after it was opened, by its
//! descriptor; and a symbolic link is followed only if that gains its owner nothing ([`Place::find`]).
//!
//! Every file whose path a user gave is opened here.

mod activity;
mod blocking;
mod current;
mod look;
mod own_directory;
mod place;
mod program;
mod read;
mod remedy;
#[cfg(test)]
mod tests;

pub use activity::{Activity, FileTask};
pub use blocking::{
    ReadLimit, forget_late_reads, late_read, limit_reads, limit_reads_while_serving, oldest_file_task,
    read_within_limit, spawn_file_task, spawn_file_task_in,
};
pub use current::{CurrentFile, note};
pub use look::{is_there, link_target, look};
pub use own_directory::OwnDirectory;
pub use place::{Place, check_directory, make_directories, resolve};
pub use program::trusted_program;
pub use read::{Access, Exposure, Opened, read, read_trusted, read_trusted_text, read_unless_foreign};
pub use remedy::{FileUse, explain, how_to_hide};

use std::io;

/// Whether a user can be trusted with the files of this process: root, or the process's own user.
#[must_use]
pub fn is_trusted(user: u32) -> bool {
    user == 0 || user == rustix::process::geteuid().as_raw()
}

/// The error for what another user could gain by.
#[must_use]
pub fn refused(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, message)
}
