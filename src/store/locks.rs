//! Locks between processes: one daemon per config.toml, one operation at a time on one runner.

use std::fs::File;

/// Held by the daemon that serves a config.toml; dropping it lets the next one in.
#[derive(Debug)]
#[must_use = "the lock ends when it is dropped"]
pub struct InstanceLock {
    _file: Option<File>,
}

/// Held during one operation on one runner; dropping it lets the next one in.
#[derive(Debug)]
#[must_use = "the lock ends when it is dropped"]
pub struct RunnerLock {
    _file: Option<File>,
}
