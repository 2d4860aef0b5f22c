//! A GitLab to test runners against: the Runners API with state, versions and faults.
//!
//! [`Gitlab::builder`] starts a real HTTP/1.1 server on its own thread, so it serves plain tests, tests on a
//! paused clock and other processes alike. It stops when the [`Gitlab`] is dropped.
//!
//! ```
//! use fake_gitlab::{Endpoint, Fault, Gitlab, NewRunner};
//!
//! let gitlab = Gitlab::builder().version("18").token_life("1h").start();
//! let (id, token) = gitlab.add_runner(NewRunner::instance());
//! gitlab.order(Endpoint::Reset, Fault::cut().after_acting()).times(2);
//! // … a client of gitlab.url() rotates the token and loses the answer …
//! assert_eq!(gitlab.runner(id).unwrap().token, token);
//! assert_eq!(gitlab.requests_to(Endpoint::Reset).len(), 0);
//! ```
//!
//! Rooms:
//! - [`Gitlab`] and [`Builder`]: the handle of a test.
//! - `state`: runners, managers, projects, groups, jobs and tokens; knows no HTTP.
//! - `api`: one file per family of endpoints; a request and the state in, an [`Answer`] out.
//! - `http`: sockets, TLS, parameters and the faults' delivery.
//! - [`Fault`], [`Order`], [`Outage`]: faults that a test can inject.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "this crate only serves tests, where a broken invariant has to stop the test"
)]

mod answer;
mod api;
mod builder;
mod endpoint;
mod fault;
mod gitlab;
mod http;
mod order;
mod outage;
mod request;
mod shared;
mod span;
mod state;
mod version;

pub use answer::Answer;
pub use builder::Builder;
pub use endpoint::Endpoint;
pub use fault::Fault;
pub use gitlab::Gitlab;
pub use http::tls::{Identity, Tls};
pub use order::Order;
pub use outage::Outage;
pub use request::Request;
pub use span::{IntoLife, ParseSpanError, parse_span};
pub use state::Backup;
pub use state::access::{AccessToken, AccessTokenOwner, NewAccessToken, Role, Scope};
pub use state::job::Job;
pub use state::manager::Manager;
pub use state::owner::{Group, Project};
pub use state::replica::Lag;
pub use state::runner::{AccessLevel, NewRunner, Origin, Runner, RunnerType};
pub use version::{ParseVersionError, Version};
