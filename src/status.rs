//! What the daemon reports while it runs, and the client that asks for it.
//!
//! The daemon updates a [`StatusRegistry`] and counts in [`Counters`]; the [`StatusServer`] serves both as health,
//! readiness, status and metrics. [`StatusClient`] is the other side, for the commands that ask a daemon.
//!
//! `hyper` with `hyper-util` and `http-body-util`, and `prometheus` are used here and nowhere else.

mod client;
mod counters;
mod metrics;
mod registry;
mod routes;
mod server;
mod socket;
#[cfg(test)]
mod tests;

pub use client::{StatusClient, StatusClientError, StatusResponse};
pub use counters::{Counters, Operation, OperationOutcome};
pub use metrics::metrics;
pub use registry::{NotReadyReason, Phase, Readiness, RunnerStatus, StatusRegistry};
pub use routes::Sources;
pub use server::{Config as StatusServerConfig, Error as StatusServerError, StatusServer};
