//! The life of a GitLab runner's credential, from registration to unregistration.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests write files and read clocks freely"))]

pub mod agent;
pub mod cli;
pub mod clock;
pub mod gitlab;
pub mod lifecycle;
pub mod model;
pub mod observe;
pub mod ops;
pub mod retry;
pub mod secret;
pub mod settings;
pub mod signals;
pub mod store;
