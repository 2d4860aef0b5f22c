//! The daemon.

mod config;

pub use config::{
    Config, GRACE, Policy, PolicySelector, RotatePolicy, Shutdown, Unregister, VERIFY_ENROLLED, VERIFY_FOUND,
};
