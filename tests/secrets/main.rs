//! Tokens are planted wherever they can come from, and looked for wherever they must not be.
//!
//! Time is real here; no test asserts how long something took.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "these tests watch real processes in real time and write files freely"
)]

mod bench;
mod files;
mod output;
mod process;
mod signals;
