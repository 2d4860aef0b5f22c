//! What the daemon reports while it runs, and the client that asks for it.
//!
//! The daemon updates a [`StatusRegistry`] and counts in [`Counters`]; the [`StatusServer`] serves both as health,
//! readiness, status and metrics. [`StatusClient`] is the other side, for the commands that ask a daemon.
//!
//! `hyper` with `hyper-util` and `http-body-util`, and `prometheus` are used here and nowhere else.

mod answers;
mod client;
mod counters;
mod metrics;
mod registry;
mod server;
mod socket;
#[cfg(test)]
mod tests;

pub use answers::Sources;
pub use client::{ANSWER_TIME, StatusClient, StatusClientError, StatusReply, ask};
pub use counters::{Counters, Operation, OperationOutcome};
pub use metrics::metrics;
pub use registry::{Phase, Readiness, RunnerStatus, StatusRegistry, Unready};
pub use server::{Config as StatusServerConfig, Error as StatusServerError, StatusServer};
