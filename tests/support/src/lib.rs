//! Runs the agent's binary in a clean environment beside a fake GitLab.
//!
//! - [`Sandbox`]: a temporary directory, a [`fake_gitlab::Gitlab`] and the environment that every process gets.
//! - [`Process`]: a running process and its output; killed on drop.
//! - [`Output`]: what a finished process returned and wrote.
//! - [`Chance`]: random numbers from a seed.
//! - [`config_of`]: a config.toml of many entries.
//! - [`faketime`]: a wall clock of its own for a process.
//! - [`http`]: an HTTP client that shows the bytes on the wire.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "this crate only serves tests, which write files freely, watch real processes and stop at the first error"
)]

mod chance;
mod config;
pub mod faketime;
pub mod http;
mod output;
mod process;
mod sandbox;
mod scrub;

use std::time::Duration;

pub use chance::Chance;
pub use config::config_of;
pub use output::Output;
pub use process::{Capture, Process};
pub use sandbox::Sandbox;

/// The longest wait for one event on a busy machine; ten token lifetimes alone take 40 s.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// How often a waiting test looks again.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
