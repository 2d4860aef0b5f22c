//! What the outside is told while the process runs: the log, and the service manager.
//!
//! `tracing-subscriber` is used here and nowhere else; every room logs through `tracing`.

mod journal;
mod log;
pub mod service_manager;

use std::error::Error;

pub use log::{LogConfig, LogFormat, LogLevel, LogWordError, is_journal, start_log};

/// An error with its causes in one line, as logs and messages show it.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
