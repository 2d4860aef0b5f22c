//! One way to drive a runner, for the daemon and the commands.
//!
//! [`take_inventory`] says which runners exist, [`rules()`] what governs each, and a [`Driver`] takes one of them
//! from step to step. The caller only waits in between: the daemon until it stops, a command until its
//! [`Goal`](crate::lifecycle::Goal) is reached.

mod access_report;
mod access_scopes;
mod config;
mod drive;
mod driver;
#[cfg(test)]
mod explorer;
mod inventory;
mod pace;
mod policy;
mod refusal;
mod report;
#[cfg(test)]
mod tests;

use std::cell::RefCell;

use crate::clock::{Clock, SkewNews, SkewWatch, SystemClock};
use crate::gitlab::{Client, Info};
use crate::lifecycle::Fraction;
use crate::model::Timestamp;
use crate::ops::{Identity, Ops};
use crate::secret::random_bits;
use crate::store::{self, Store};

pub use access_report::access_report;
pub use access_scopes::NeededScope;
pub use config::{
    Config, GRACE, OnReboot, Policy, PolicySelector, RotateFound, RotatePolicy, Shutdown, Unregister, UnregisterShared,
    VERIFY_ENROLLED, VERIFY_FOUND,
};
pub use drive::{Budget, Caller, Drive};
pub use driver::{Asker, Driver, IdTrust, StepFailure, StepReport};
pub use inventory::{
    Addresses, Enrolled, Inventory, ManagedRunner, Related, Relation, inventory, relate, retake_inventory, runner_of,
    take_inventory, taken_keys,
};
pub use policy::{AtStop, at_stop, at_stop_once_registered, command_rules, deletion_at_stop, found_policy, rules};
pub use refusal::{expired_text, refusal_remedy, unprefixed_text};
pub use report::{planned_report, record_report};

/// What all drivers of a process share.
pub struct Engine<S, D, C> {
    /// Server and disk.
    pub ops: Ops<S, D>,
    /// Source of the time.
    pub clock: C,
    /// Source of chance: a fresh draw with every call.
    pub chance: fn() -> Fraction,
    /// What the log has said of the servers' clocks.
    pub skews: RefCell<SkewWatch>,
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
        Ok(Self { ops, clock: SystemClock, chance: || Fraction::from_bits(random_bits()), skews: RefCell::default() })
    }
}

impl<S, D, C: Clock> Engine<S, D, C> {
    /// Logs that a server's clock differs from this machine's, once for all of its runners.
    fn note_skew(&self, host: &str, millis: i64) {
        match self.skews.borrow_mut().notice(host, millis) {
            None => {}
            Some(SkewNews::Agrees) => tracing::info!(host, "this machine's clock agrees with the server's again"),
            Some(SkewNews::Differs(skew)) => tracing::warn!(
                host,
                local_time = %self.now(),
                "{skew}: correct the wrong one, on this machine by `timedatectl` or its host's clock; certificates are judged by the local one"
            ),
        }
    }

    /// Local wall time, for what has no server's time yet.
    pub fn now(&self) -> Timestamp {
        self.clock.read().wall
    }
}
