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

/// File descriptors of a process beside those of its operations.
const OTHER_DESCRIPTORS: u64 = 24;

/// File descriptors of an operation: its lock, its journal, a connection, and a file that is written.
const DESCRIPTORS_EACH: u64 = 4;

/// The most operations at once. More would wait for the same disk.
const MOST_OPERATIONS: u64 = 128;

/// How many operations there may be at once by the file descriptors that this process may open; at least four.
#[must_use]
pub fn operations_at_once() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let affordable = limit.saturating_sub(OTHER_DESCRIPTORS) / DESCRIPTORS_EACH;
    usize::try_from(affordable.clamp(4, MOST_OPERATIONS)).unwrap_or(4)
}
