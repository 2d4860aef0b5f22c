//! The status of a running daemon: health, readiness, runners and metrics over a unix socket and HTTP.
//!
//! The daemon updates a [`StatusRegistry`] and [`Counters`], the [`StatusServer`] serves both, and commands query it
//! with a [`StatusClient`]. Everything runs in one thread, so what has a part for each runner is made and sent in pages
//! (`pages.rs`), between which every other task gets its turn.
//!
//! `hyper` with `hyper-util` and `http-body-util`, and `prometheus` are used here and nowhere else.

mod body;
mod client;
mod counters;
mod event_stream;
mod events;
mod kept;
mod metrics;
mod opening;
mod page;
mod pages;
mod registry;
mod routes;
mod server;
mod session;
mod socket;
mod summary;
#[cfg(test)]
mod tests;

pub use client::{StatusClient, StatusClientError, StatusResponse};
pub use counters::{Counters, HookOutcome, Operation, OperationOutcome};
pub use events::MAX_EVENTS;
pub use metrics::metrics;
pub use opening::{OpenedPage, PageAccess};
pub use registry::{FileWork, NotReadyReason, Phase, Readiness, RunnerStatus, StatusRegistry};
pub use routes::Sources;
pub use server::{Config as StatusServerConfig, Error as StatusServerError, StatusServer};
