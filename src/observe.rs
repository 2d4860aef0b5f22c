//! What the outside is told while the process runs: the log, the service manager, and whoever asks the daemon.
//!
//! The daemon puts what it knows on a [`Board`] and counts in a [`Tally`]; the [`Face`] reads both. [`ask`] is
//! the other side, for the commands that ask a daemon.
//!
//! `tracing-subscriber`, `hyper` with `hyper-util` and `http-body-util`, and `prometheus` are used here and
//! nowhere else; every room logs through `tracing`.

mod answers;
mod board;
mod face;
mod journal;
mod log;
mod metrics;
mod question;
pub mod service_manager;
mod socket;
mod tally;
#[cfg(test)]
mod tests;

use std::error::Error;

pub use answers::Sources;
pub use board::{Board, Phase, Posting, Readiness, Unready};
pub use face::{Config as FaceConfig, Error as FaceError, Face};
pub use log::{LogConfig, LogFormat, LogLevel, LogWordError, is_journal, start_log};
pub use metrics::metrics;
pub use question::{ANSWER_TIME, Addressee, QuestionError, Reply, ask};
pub use tally::{Deed, Ending, Tally};

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
