//! Tests that run the real binary, and tests of the documents around it.
//!
//! - [`cli`]: commands as users and scripts run them.
//! - [`cut_answers`]: the rotation of an access token, cut at every byte.
//! - [`daemon`]: the daemon as a process.
//! - [`secrets`]: no token leaks into output, files or the process.
//! - [`adversarial`]: servers with broken and malicious responses.
//! - [`pages`]: README.md and the pages of packaging/docs agree with the code.
//! - [`documents`]: GitLab's documents of the Runners API.
//! - [`units`]: the units of systemd.
//!
//! Time is real here; no test asserts a duration.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "tests write files freely, watch real processes and stop at the first error"
)]

mod adversarial;
mod cli;
mod cut_answers;
mod daemon;
mod documents;
mod pages;
mod secrets;
mod units;

use std::io::{PipeReader, PipeWriter, Write as _};

/// The binary under test.
const BINARY: &str = env!("CARGO_BIN_EXE_runner-agent");

/// The two ends of a pipe into which nothing more fits.
pub(crate) fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(&[b'#'; 1024]).is_ok() {}
    while writer.write(b"#").is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (reader, writer)
}
