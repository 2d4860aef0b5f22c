//! Operations on server and disk, in an order that survives a crash.
//!
//! The state directory is authoritative; config.toml is a projection of it. Every operation that spends or creates a
//! token is journaled, so at each point in time a durable place holds the token that the server accepts:
//!
//! - **rotate**: lock the runner · re-read record and entry (if another process rotated, adopt its token and return) ·
//!   probe the disk · journal the intent · POST reset, once · journal the answer · replace config.toml · record · clear.
//! - **register**: the same with POST /runners. The record gets the entry's text before the request, for a replay
//!   that has to write the entry; it gets the token before config.toml does, so the daemon recognizes the new entry.
//! - **register again**, into the existing entry: the same, but record and entry keep the old token until the answer.
//!   The old token then locates the entry, which still has the old id.
//! - **unregister**: journal · delete · remove or keep the entry · keep a dropped entry's text · record (an
//!   enrollment's stays, as retired) · clear. Only the step that removes the entry needs a readable config.toml.
//! - **replay** at start: finishes every journal that has an answer; reports the others as unfinished.
//!
//! A request that may have been executed although its answer was lost leaves its journal in place. [`Ops::settle`]
//! clears it once a verification of the old token has shown what happened.
//!
//! [`Server`] and [`Disk`] are the two ports: GitLab and the store in the product, memory in tests. Operations never
//! wait, retry or read a clock: `lifecycle` decides when to try again.

mod enrollment;
mod entries;
mod error;
mod move_record;
mod ports;
mod projection;
mod register;
mod replay;
mod rotate;
mod runner;
mod sharing;
mod unregister;
mod verify;

#[cfg(test)]
pub(crate) mod memory;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::gitlab::Info;
use crate::lifecycle::Outcome;
use crate::model::{SystemId, Timestamp};
use crate::secret::Fingerprint;
use crate::store::{self, Intent, JournalOperation, Pending, Record, Snapshot};

pub use enrollment::{Creation, Enrollment, RegistrationSource, ServerAccess};
pub use error::{Error, Failure};
pub use move_record::{Moved, RecordMove, is_locked, knows_token_of};
pub use ports::{Disk, Server};
pub use projection::{EntryStatus, Reconciled};
pub use replay::{Replayed, Unfinished};
pub use runner::{Runner, is_own};
pub use unregister::{EntryFate, UnregisterResult, Unregistration};

/// How long an operation waits for the lock of a runner that another process works on.
pub const LOCK_WAIT: Duration = Duration::from_secs(10);

/// The operations on the runners of one config.toml, on any number of servers.
#[derive(Debug)]
pub struct Ops<S, D> {
    server: S,
    disk: D,
    identity: Identity,
}

/// What an operation achieved.
#[derive(Debug)]
pub struct Completed {
    /// The effect on the runner's state.
    pub outcome: Outcome,
    /// The `Date` of the last genuine answer; `None` if no request was needed.
    pub date: Option<Timestamp>,
    /// Why config.toml does not hold the new token yet; the state directory does.
    pub unsaved: Option<store::Error>,
}

/// How this agent identifies itself to GitLab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The id of this machine's runner manager.
    pub system_id: SystemId,
    /// A hash of the machine id, written into records to detect a copied disk.
    pub machine: Option<Fingerprint>,
    /// Version and platform, sent for enrolled runners.
    pub info: Info,
}

impl<S: Server, D: Disk> Ops<S, D> {
    /// Operations by these ports.
    pub fn new(server: S, disk: D, identity: Identity) -> Self {
        Self { server, disk, identity }
    }

    /// The disk, for reading.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// Reloads certificates at their next use.
    pub fn forget_tls(&self) {
        self.server.forget_tls();
    }

    /// The system id of this machine.
    pub fn system_id(&self) -> &SystemId {
        &self.identity.system_id
    }

    /// Locks a runner, finishes a journaled answer of another process, and re-reads record and config.toml.
    async fn enter(&self, runner: &mut Runner) -> Result<Entered<D::RunnerLock>, Error> {
        let known = runner.record.credential.clone();
        let lock = self.lock(runner).await?;
        self.take_pending(runner).await?;
        let snapshot = self.disk.read().await?;
        runner.look_up(&snapshot);
        let is_replaced = runner.record.credential != known;
        Ok(Entered { lock, snapshot, is_replaced })
    }

    /// Moves a journaled answer of an interrupted operation into the record; the caller holds the runner's lock.
    async fn take_pending(&self, runner: &mut Runner) -> Result<(), Error> {
        match self.disk.pending_of(&runner.record.key).await? {
            Some(Pending { intent, answer: Some(answer), .. }) => self.finish(runner, &intent.operation, answer).await,
            Some(_) | None => Ok(()),
        }
    }

    /// Locks a runner and re-reads its record, unless the one in memory is newer because saving it failed.
    async fn lock(&self, runner: &mut Runner) -> Result<D::RunnerLock, Error> {
        let lock = self.disk.lock_runner(&runner.record.key, LOCK_WAIT).await?;
        let Some(record) = self.disk.record(&runner.record.key).await? else { return Ok(lock) };
        if record.url != runner.site.url {
            return Err(Error::OtherServer { runner: runner.label().to_owned(), recorded: record.url });
        }
        if !runner.is_newer_than(&record) {
            runner.record = record;
        }
        Ok(lock)
    }

    /// Writes the record. A token from an environment variable is never written, so such a runner gets no record.
    async fn save_record(&self, runner: &Runner) -> Result<(), store::Error> {
        if runner.variable.is_some() {
            return Ok(());
        }
        let machine = runner.record.machine.clone().or_else(|| self.identity.machine.clone());
        self.disk.save_record(Record { machine, ..runner.record.clone() }).await
    }

    /// Whether a reset of this runner was sent and its answer was lost.
    pub async fn is_unsettled(&self, runner: &Runner) -> bool {
        self.check_settled(runner).await.is_err()
    }

    /// Fails while a reset of this runner was sent and its answer was lost.
    async fn check_settled(&self, runner: &Runner) -> Result<(), Error> {
        match self.disk.pending_of(&runner.record.key).await? {
            Some(Pending {
                intent: Intent { operation: JournalOperation::Rotate { .. }, .. }, answer: None, ..
            }) => Err(store::Error::Unsettled { key: runner.record.key.clone() }.into()),
            Some(_) | None => Ok(()),
        }
    }
}

/// A locked runner and the config.toml that its operation starts from.
struct Entered<L> {
    #[expect(dead_code, reason = "held until the operation ends")]
    lock: L,
    snapshot: Snapshot,
    /// Whether another process has replaced the credential.
    is_replaced: bool,
}
