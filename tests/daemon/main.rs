//! The real daemon, as a process of its own, against a real server.
//!
//! Time is real here, so tokens live seconds; no test asserts how long something took, only in which order
//! and how often things happened.

#![allow(missing_docs, unreachable_pub, reason = "tests")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "these tests watch real processes in real time")]

mod asking;
mod bench;
mod changes;
mod containers;
mod crashes;
mod ends;
mod face;
mod lives;
mod once;
mod secrets;
mod service;
