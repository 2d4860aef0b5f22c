//! The real binary against servers that mean harm: whatever they answer, the error is clear, memory and
//! time are bounded, and config.toml stays whole.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests write files freely and stop at the first surprise"
)]

mod bench;
mod contents;
mod daemon;
mod server;
mod wire;
mod words;
