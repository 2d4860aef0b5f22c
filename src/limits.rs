//! The resource limits of this process.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one.
///
/// Each runner at work needs a socket, its lock and its files; the usual soft limit of 1024 is for programs that use
/// `select`, as this one does not. A request must not be sent whose answer then finds no descriptor to be kept with.
///
/// # Errors
/// The system refuses; the limit stays.
pub fn raise_open_files() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}
