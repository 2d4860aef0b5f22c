//! What is done to server and disk, in the order that survives a crash.
//!
//! State is the truth, config.toml its projection. Every operation that spends or makes a token goes
//! through the journal, so that at each point in time at least one durable place holds the token that
//! the server accepts:
//!
//! - **rotate**: lock the runner · read record and entry again (somebody rotated? adopt, and be done) · probe the disk ·
//!   journal the intent · POST reset, once · journal the answer · replace config.toml · record · clear.
//! - **register**: the same with POST /runners; the record takes the entry's text before the request, so
//!   that whoever replays the journal can write the entry, and the token before config.toml does, so that a
//!   daemon which sees the new entry finds whose it is.
//! - **register again**, into the entry that there is: the same, but record and entry keep the old token until
//!   the answer; the entry is found by that token, since its number is the old one.
//! - **unregister**: journal · delete · remove or keep the entry · keep a dropped one's
//!   text · record (an enrollment's stays, as retired) · clear. Needs no readable config.toml up to the entry.
//! - **replay** at start: every journal is finished from its answer, or handed on as unfinished.
//!
//! A request that may have been executed without its answer reaching us leaves its journal in place;
//! [`Ops::settle`] clears it once the old token has told what happened.
//!
//! [`Server`] and [`Disk`] are the two seams: GitLab and the store in the product, memory in tests.
//! Nothing here waits, repeats or reads a clock: `lifecycle` or a command decides when to come again.

mod enrollment;
mod error;
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
use crate::model::{SystemId, Timestamp};
use crate::secret::Fingerprint;
use crate::store::{self, Intent, JournalOperation, Pending, Record, Snapshot};

pub use enrollment::{Creation, Enrollment, RegistrationSource, ServerAccess};
pub use error::{Error, Failure};
pub use ports::{Disk, Server};
pub use projection::{EntryStatus, Reconciled};
pub use register::Registration;
pub use replay::{Replayed, Unfinished};
pub use rotate::Rotation;
pub use runner::{Runner, is_own};
pub use unregister::{EntryFate, Unregistered, Unregistration};
pub use verify::Verification;

/// How long an operation waits for another process that works on the same runner.
pub const LOCK_WAIT: Duration = Duration::from_secs(10);

/// The operations on one config.toml, towards any number of servers.
#[derive(Debug)]
pub struct Ops<S, D> {
    server: S,
    disk: D,
    identity: Identity,
}

/// What an operation found, with the server's time if the server was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dated<T> {
    /// What it found.
    pub value: T,
    /// The `Date` of the last genuine answer.
    pub date: Option<Timestamp>,
}

impl<T> Dated<T> {
    /// Found without asking the server.
    fn unasked(value: T) -> Self {
        Self { value, date: None }
    }

    /// The same circumstances with another finding.
    fn map<U>(self, finding: impl FnOnce(T) -> U) -> Dated<U> {
        Dated { value: finding(self.value), date: self.date }
    }
}

/// Who we are towards GitLab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// This machine's runner manager.
    pub system_id: SystemId,
    /// A hash of this machine, written into records to notice a copied disk.
    pub machine: Option<Fingerprint>,
    /// What enrolled runners tell about themselves.
    pub info: Info,
}

impl<S: Server, D: Disk> Ops<S, D> {
    /// Puts the parts together.
    pub fn new(server: S, disk: D, identity: Identity) -> Self {
        Self { server, disk, identity }
    }

    /// The disk, for reading what there is.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// Lets certificates be read again at their next use.
    pub fn forget_tls(&self) {
        self.server.forget_tls();
    }

    /// This machine's name towards GitLab.
    pub fn system_id(&self) -> &SystemId {
        &self.identity.system_id
    }

    /// Locks a runner, then reads its record and config.toml again, since what was known may be old, and
    /// brings in an answer that another process had to leave in the journal.
    async fn enter(&self, runner: &mut Runner) -> Result<Entered<D::RunnerLock>, Error> {
        let known = runner.record.credential.clone();
        let lock = self.lock(runner).await?;
        self.bring_in(runner).await?;
        let snapshot = self.disk.read().await?;
        runner.look_up(&snapshot);
        let is_replaced = runner.record.credential != known;
        Ok(Entered { lock, snapshot, is_replaced })
    }

    /// Takes an answer out of the journal that did not get any further; the caller holds the runner's lock.
    async fn bring_in(&self, runner: &mut Runner) -> Result<(), Error> {
        match self.disk.pending_of(&runner.record.key).await? {
            Some(Pending { intent, answer: Some(answer), .. }) => self.finish(runner, &intent.operation, answer).await,
            Some(_) | None => Ok(()),
        }
    }

    /// Locks a runner and takes its record from the disk, unless the one in memory is newer because the
    /// disk did not take it.
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

    /// Writes the record, save that of a runner whose token is a variable: what is expanded is never written.
    async fn remember(&self, runner: &Runner) -> Result<(), store::Error> {
        if runner.variable.is_some() {
            return Ok(());
        }
        let machine = runner.record.machine.clone().or_else(|| self.identity.machine.clone());
        self.disk.save_record(Record { machine, ..runner.record.clone() }).await
    }

    /// Whether a reset of this runner was sent whose answer nobody knows.
    pub async fn is_unsettled(&self, runner: &Runner) -> bool {
        self.check_settled(runner).await.is_err()
    }

    /// Refuses to go on while a reset of this runner was sent whose answer nobody knows.
    async fn check_settled(&self, runner: &Runner) -> Result<(), Error> {
        match self.disk.pending_of(&runner.record.key).await? {
            Some(Pending {
                intent: Intent { operation: JournalOperation::Rotate { .. }, .. }, answer: None, ..
            }) => Err(store::Error::Unsettled { key: runner.record.key.clone() }.into()),
            Some(_) | None => Ok(()),
        }
    }
}

/// What an operation starts from.
struct Entered<L> {
    #[expect(dead_code, reason = "held until the operation ends")]
    lock: L,
    snapshot: Snapshot,
    /// Whether another process has replaced the credential meanwhile.
    is_replaced: bool,
}
