//! The real binary, as users and scripts meet it.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests write files freely and stop at the first surprise"
)]

mod bench;
mod beside_daemon;
mod first_api;
mod fleet;
mod help;
mod list;
mod register;
mod rotate;
mod unregister;
mod verify;
