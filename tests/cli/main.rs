//! The real binary, as users and scripts meet it.

mod bench;
mod help;
mod list;
mod register;
mod rotate;
mod unregister;
mod verify;
