//! One way to drive a runner, for the daemon and the commands.

mod config;
pub mod inventory;
mod policy;
mod report;
mod stock;

pub use config::{
    Config, GRACE, OnReboot, Policy, PolicySelector, RotatePolicy, Shutdown, Unregister, VERIFY_ENROLLED, VERIFY_FOUND,
};
pub use inventory::{Inventory, ManagedRunner, inventory};
pub use policy::rules;
pub use report::report;
pub use stock::{Count, count_again, take_stock};

use crate::clock::Clock;
use crate::lifecycle::Fraction;
use crate::model::Timestamp;
use crate::ops::Ops;

/// What all drivers of a process share.
pub struct Engine<S, D, C> {
    /// Server and disk.
    pub ops: Ops<S, D>,
    /// Source of the time.
    pub clock: C,
    /// Source of chance: a fresh draw with every call.
    pub chance: fn() -> Fraction,
}

impl<S, D, C: Clock> Engine<S, D, C> {
    /// Local wall time, for what has no server's time yet.
    pub fn now(&self) -> Timestamp {
        self.clock.read().wall
    }
}
