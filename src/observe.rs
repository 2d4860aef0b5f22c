//! What the outside is told while the process runs: for now, the log.
//!
//! `tracing-subscriber` is used here and nowhere else; every room logs through `tracing`.

mod log;

pub use log::{LogConfig, LogFormat, LogLevel, LogWordError, start_log};
