//! One way to drive a runner, for the daemon and the commands.
//!
//! [`take_inventory`] says which runners exist, [`rules()`] what governs each, and a [`Driver`] takes one of them
//! from step to step. The caller only waits in between: the daemon until it stops, a command until its
//! [`Goal`](crate::lifecycle::Goal) is reached.

mod config;
mod drive;
mod driver;
#[cfg(test)]
mod explorer;
mod inventory;
mod pace;
mod policy;
mod report;
#[cfg(test)]
mod tests;

use crate::clock::{Clock, SystemClock};
use crate::gitlab::{Client, Info};
use crate::lifecycle::Fraction;
use crate::model::Timestamp;
use crate::ops::{Identity, Ops};
use crate::secret::random_bits;
use crate::store::{self, Store};

pub use config::{
    Config, GRACE, OnReboot, Policy, PolicySelector, RotateFound, RotatePolicy, Shutdown, Unregister, UnregisterShared,
    VERIFY_ENROLLED, VERIFY_FOUND,
};
pub use drive::{Budget, Caller, Drive};
pub use driver::{Asker, Driver, IdTrust, StepFailure, StepReport};
pub use inventory::{
    Enrolled, Inventory, ManagedRunner, Related, Relation, inventory, relate, retake_inventory, take_inventory,
    taken_keys,
};
pub use policy::{AtStop, at_stop, command_rules, deletion_at_stop, found_policy, rules};
pub use report::{planned_report, record_report};

/// What all drivers of a process share.
pub struct Engine<S, D, C> {
    /// Server and disk.
    pub ops: Ops<S, D>,
    /// Source of the time.
    pub clock: C,
    /// Source of chance: a fresh draw with every call.
    pub chance: fn() -> Fraction,
}

impl Engine<Client, Store, SystemClock> {
    /// The engine of a process on this machine.
    ///
    /// # Errors
    /// A `.runner_system_id` that cannot be read or made.
    pub async fn open(store: Store, client: Client, info: Info) -> Result<Self, store::Error> {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let identity = Identity { system_id: store.system_id().await?, host, machine: store.machine().await, info };
        let ops = Ops::new(client, store, identity);
        Ok(Self { ops, clock: SystemClock, chance: || Fraction::from_bits(random_bits()) })
    }
}

impl<S, D, C: Clock> Engine<S, D, C> {
    /// Local wall time, for what has no server's time yet.
    pub fn now(&self) -> Timestamp {
        self.clock.read().wall
    }
}
