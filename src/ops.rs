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
//! clears it once a verification of the old token has shown what happened. A lost registration cannot be asked about: it
//! is noted, and holds up every other one of its name until a person goes on.
//!
//! [`Server`] and [`Disk`] are the two ports: GitLab and the store in the product, memory in tests. Operations wait
//! for locks and places only, and send no request again: `lifecycle` decides when to try again.

mod access;
mod candidates;
mod enrollment;
mod entries;
mod error;
mod genuine;
mod issued;
mod lost_registration;
mod managers;
mod move_record;
mod namesakes;
mod places;
mod ports;
mod projection;
mod register;
mod registration_site;
mod relocate;
mod replay;
mod rotate;
mod runner;
mod sharing;
mod sole_copies;
mod twins;
mod unregister;
mod verify;

#[cfg(test)]
pub(crate) mod memory;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::gitlab::{Answer, Info, Verified};
use crate::lifecycle::{Clocks, Ground, Life, Outcome, believe, measured_life};
use crate::model::{Evidence, Expiry, RunnerKey, SystemId, Timestamp, TlsFiles, Witness, format_span};
use crate::secret::{Digest, Fingerprint};
use crate::sharing::{AnyEngine, Shares};
use crate::store::{self, OnDisk, Pending, Record, Snapshot};

use access::AccessUse;
use genuine::Wording;
use places::Places;
use unregister::fate_for;

pub use access::{
    AccessDisk, AccessError, AccessEvent, AccessKeeper, AccessMoment, AccessPass, AccessUses, AccessWish,
    StoredAccessToken,
};
pub use candidates::Inquiry;
pub use enrollment::{
    AccessToken, Creation, Enrollment, RegistrationSource, ServerAccess, given_tokens, server_of_given,
};
pub use error::{Error, Failure, OTHER_SHARE_REMEDY};
pub use move_record::{Moved, RecordMove, is_locked, knows_token_of};
pub use places::{LOCK_WAIT, Locked};
pub use ports::{AccessServer, Disk, Server};
pub use projection::{EntryStatus, Reconciled};
pub use register::registered_with;
pub use relocate::Relocation;
pub use replay::{Replayed, Unfinished};
pub use runner::{Runner, is_own};
pub use sharing::{Announced, SharedStart, Written};
pub use sole_copies::SoleCopies;
pub use unregister::{Deletion, EntryFate, UnregisterRequest, UnregisterResult, Unregistration};

/// The operations on the runners of one config.toml, on any number of servers.
#[derive(Debug)]
pub struct Ops<S, D> {
    server: S,
    disk: D,
    identity: Identity,
    places: RefCell<BTreeMap<String, Places>>,
    /// What each host was asked about its words.
    wordings: RefCell<BTreeMap<String, Wording>>,
    /// Hosts whose `Date` is not believed.
    distrusted: RefCell<BTreeSet<String>>,
    /// When this process has lost the answer to a registration, by the key that the loss is noted under.
    losses: RefCell<BTreeMap<RunnerKey, Instant>>,
    /// Tokens whose reset got an answer that is not GitLab's, with the record that has sent it and the server time of that:
    /// another record with the token sends none before the server has judged it.
    unclear_resets: RefCell<BTreeMap<Digest, (RunnerKey, Timestamp)>>,
    /// The TLS files of entries that were warned about, and who could have named them.
    unused_tls: RefCell<Vec<(TlsFiles, String)>>,
    sole_copies: SoleCopies,
    access_uses: AccessUses,
    /// The store of runners that other machines share.
    sharing: RefCell<Option<Rc<Shares<AnyEngine>>>>,
    /// Drawn at the start of this process, which other machines know as the sender of its changes.
    boot: u64,
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
    /// Whether config.toml holds an unknown token that is not proven dead.
    pub is_disputed: bool,
    /// Whether the acceptance may come from a replica that does not know of a new token yet.
    pub is_doubtful: bool,
}

impl Completed {
    fn new(outcome: Outcome, date: Option<Timestamp>) -> Self {
        Self { outcome, date, unsaved: None, is_disputed: false, is_doubtful: false }
    }
}

/// How this agent identifies itself to GitLab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The id of this machine's runner manager.
    pub system_id: SystemId,
    /// This machine's name, for people.
    pub host: String,
    /// A hash of the machine id, written into records to detect a copied disk.
    pub machine: Option<Fingerprint>,
    /// Version and platform, sent for enrolled runners.
    pub info: Info,
}

impl<S: Server, D: Disk> Ops<S, D> {
    /// Operations by these ports.
    pub fn new(server: S, disk: D, identity: Identity) -> Self {
        let (sole_copies, places, wordings, distrusted) = Default::default();
        let (losses, unclear_resets, unused_tls) = Default::default();
        Self {
            server,
            disk,
            identity,
            sole_copies,
            access_uses: AccessUses::default(),
            places,
            wordings,
            distrusted,
            losses,
            unclear_resets,
            unused_tls,
            sharing: RefCell::default(),
            boot: random_bits(),
        }
    }

    /// The registrations and resets that are under way.
    pub fn sole_copies(&self) -> &SoleCopies {
        &self.sole_copies
    }

    /// The calls with access tokens that are under way.
    pub fn access_uses(&self) -> &AccessUses {
        &self.access_uses
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

    /// Its host name.
    pub fn host(&self) -> &str {
        &self.identity.host
    }

    /// Begins a call with an access token at a runner's server.
    async fn with_access(&self, runner: &Runner, access: &AccessToken) -> AccessUse {
        self.access_uses.begin(&runner.site.url, access).await
    }

    /// Queues for the host, locks a runner, finishes a journaled answer of another process, and re-reads record and
    /// config.toml.
    async fn enter(&self, runner: &mut Runner) -> Result<Entered<D::RunnerLock>, Error> {
        let (locked, found) = self.queue(runner).await?;
        self.entered(runner, locked, found).await
    }

    /// As [`Ops::enter`], for a request whose answer is the only copy of a token: a stop ends its wait.
    async fn enter_unless_stopping(&self, runner: &mut Runner) -> Result<Entered<D::RunnerLock>, Error> {
        let (locked, found) = self.unless_stopping(self.queue(runner)).await??;
        self.entered(runner, locked, found).await
    }

    /// Ends what precedes such a request once the process stops: it would not be sent any more.
    ///
    /// # Errors
    /// [`Error::Stopping`].
    pub async fn unless_stopping<T>(&self, preceding: impl Future<Output = T>) -> Result<T, Error> {
        tokio::select! {
            biased;
            () = self.sole_copies.closed() => Err(Error::Stopping),
            done = preceding => Ok(done),
        }
    }

    async fn entered(
        &self,
        runner: &mut Runner,
        locked: Locked<D::RunnerLock>,
        found: OnDisk,
    ) -> Result<Entered<D::RunnerLock>, Error> {
        let known = runner.digest();
        let OnDisk { record, held, pending, snapshot } = found;
        if self.take_record(runner, record?)? {
            runner.take_held(held);
        }
        let mut is_unfinished = false;
        let (pending, snapshot) = match pending? {
            Some(pending @ Pending { answer: Some(_), .. }) => {
                is_unfinished = fate_for(runner, &pending.intent).is_some();
                self.finish(runner, pending).await?;
                (self.disk.pending_of(&runner.record.key).await?, self.disk.read().await?)
            }
            pending => (pending, snapshot?),
        };
        runner.look_up(&snapshot);
        runner.is_replaced |= runner.digest() != known;
        Ok(Entered { locked, snapshot, pending, is_unfinished })
    }

    /// This version of config.toml, or the newest one if another has replaced it.
    async fn in_force(&self, version: &Weak<Snapshot>) -> Result<Arc<Snapshot>, Error> {
        match version.upgrade() {
            Some(snapshot) => Ok(snapshot),
            None => Ok(self.disk.read().await?),
        }
    }

    /// Moves a journaled answer of an interrupted operation into the record; the caller holds the runner's lock.
    async fn take_pending(&self, runner: &mut Runner) -> Result<(), Error> {
        match self.disk.pending_of(&runner.record.key).await? {
            Some(pending @ Pending { answer: Some(_), .. }) => self.finish(runner, pending).await,
            Some(_) | None => Ok(()),
        }
    }

    /// Locks a runner and re-reads its record, unless the one in memory is newer because saving it failed.
    async fn lock(&self, runner: &mut Runner) -> Result<Locked<D::RunnerLock>, Error> {
        let (locked, OnDisk { record, held, .. }) = self.queue(runner).await?;
        if self.take_record(runner, record?)? {
            runner.take_held(held);
        }
        Ok(locked)
    }

    /// Takes the record from the disk, unless the one in memory is newer because saving it failed. Returns whether it did.
    fn take_record(&self, runner: &mut Runner, record: Option<Record>) -> Result<bool, Error> {
        let Some(record) = record else {
            // It was removed after it was read: nothing of it may be written again.
            if runner.is_recorded && self.disk.has_state() {
                return Err(Error::UnregisteredElsewhere(runner.label().to_owned()));
            }
            return Ok(false);
        };
        if record.url != runner.site.url {
            return Err(Error::OtherServer { runner: runner.label().to_owned(), recorded: record.url });
        }
        runner.is_recorded = true;
        let is_newer = runner.is_newer_than(&record);
        if !is_newer {
            // Its times may be news alone: another process has verified it meanwhile.
            let known = runner.digest();
            runner.record = Record { url: runner.site.url.clone(), ..record };
            runner.is_replaced |= runner.digest() != known;
        }
        Ok(!is_newer)
    }

    /// Writes the record, and before it what is kept beside it: at each moment one of the two holds a token that moves
    /// between them. A token from an environment variable is never written, so such a runner gets no record.
    async fn save_record(&self, runner: &mut Runner) -> Result<(), store::Error> {
        if runner.variable.is_some() {
            return Ok(());
        }
        if runner.is_unsaved && !runner.held.candidates.is_empty() {
            // Between two attempts another process, for which the former token was still the current one, may have forgotten
            // it here, and may have noted the new one, which it has found in config.toml.
            runner.is_held_changed = true;
            self.load_held(runner).await;
        }
        self.save_held(runner).await?;
        let machine = runner.record.machine.or(self.identity.machine);
        self.disk.save_record(Record { machine, ..runner.record.clone() }).await?;
        runner.is_recorded = self.disk.has_state();
        if runner.is_recorded {
            (runner.sole_copy, runner.is_unsaved) = (None, false);
        }
        runner.forget_current_candidate();
        self.save_held(runner).await
    }

    /// The `Date` of an answer, unless the host's time is distrusted.
    pub fn trusted(&self, runner: &Runner, date: Option<Timestamp>) -> Option<Timestamp> {
        date.filter(|date| !self.distrusts(runner) && !runner.was_issued_after(*date))
    }

    /// Whether the time of a runner's host is distrusted.
    pub fn distrusts(&self, runner: &Runner) -> bool {
        // After a restart, the record says what was believed, until the first acceptance.
        match runner.belief.or(runner.record.belief) {
            Some(belief) => belief.witness == Witness::Local,
            None => self.distrusted.borrow().contains(&runner.site.url.authority()),
        }
    }

    /// The `Date` of an answer with a new token, if it is believed.
    fn judged(
        &self,
        runner: &mut Runner,
        date: Option<Timestamp>,
        expiry: Expiry,
        inquiry: &Inquiry<'_>,
    ) -> Option<Timestamp> {
        let life = Life::Fresh { measured: runner.record.token_life_secs.map(Duration::from_secs) };
        if let (Some(date), Some(expires_at)) = (date, expiry.at())
            && let Some(life) = measured_life(Clocks { date, local: inquiry.local }, expires_at)
        {
            runner.record.token_life_secs = Some(life.as_secs());
        }
        self.believed(runner, date, expiry, life, inquiry)
    }

    /// The `Date` of an answer that accepts a runner's token, if it is believed.
    fn accepted_at(
        &self,
        runner: &mut Runner,
        answer: &Answer<Verified>,
        credential: Option<(Option<Timestamp>, Expiry)>,
        inquiry: &Inquiry<'_>,
    ) -> Option<Timestamp> {
        let (obtained_at, known) = credential.unwrap_or((None, Expiry::Unknown));
        let expiry = if answer.value.expiry == Expiry::Unknown { known } else { answer.value.expiry };
        let life = obtained_at.zip(expiry.at()).map(|(obtained_at, expires_at)| expires_at.since(obtained_at));
        self.believed(runner, answer.date, expiry, Life::Known(life), inquiry)
    }

    /// The `Date` of an answer that issues or accepts a token, unless this machine's clock is believed. A host whose time
    /// is distrusted is warned about once.
    fn believed(
        &self,
        runner: &mut Runner,
        date: Option<Timestamp>,
        expiry: Expiry,
        life: Life,
        inquiry: &Inquiry<'_>,
    ) -> Option<Timestamp> {
        let (Some(date), Some(expires_at)) = (date, expiry.at()) else { return self.trusted(runner, date) };
        // Clocks that agreed for the life of one token may differ for that of the next one.
        let former = runner.record.belief;
        let (belief, ground) = believe(Clocks { date, local: inquiry.local }, expires_at, life, former);
        runner.belief = Some(belief);
        runner.record.belief = Some(belief).filter(|_| ground != Ground::Agreement);
        let host = runner.site.url.authority();
        if belief.witness == Witness::Date {
            self.distrusted.borrow_mut().remove(&host);
            return Some(date);
        }
        let is_new = former.is_none_or(|former| former.witness == Witness::Date);
        if self.distrusted.borrow_mut().insert(host.clone()) && is_new {
            let (runner, local) = (runner.label(), inquiry.local);
            if ground == Ground::Refutation {
                let later = format_span(date.since(expires_at));
                tracing::warn!(
                    runner, host, %date, %expires_at, now = %local,
                    "the server's `Date` is {later} later than the expiry of a token that it has just issued or accepted: going by this machine's clock, correct the clock of the server or of the proxy in front of it"
                );
            } else {
                let difference = format_span(if date > local { date.since(local) } else { local.since(date) });
                tracing::warn!(
                    runner, host, %date, %expires_at, now = %local,
                    "the server's `Date` and this machine's clock differ by {difference}, a large part of a token's life: going by this machine's clock, so that no token expires unnoticed; correct the clock that is wrong"
                );
            }
        }
        None
    }

    /// When a new token was issued: by the `Date` of its answer; by this machine's clock if the host's time is
    /// distrusted, by which the present was estimated until then.
    fn issued_at(&self, runner: &Runner, date: Option<Timestamp>, inquiry: &Inquiry<'_>) -> Timestamp {
        date.unwrap_or(self.present(runner, inquiry)).whole_seconds()
    }

    /// The present by the clock that is believed.
    fn present(&self, runner: &Runner, inquiry: &Inquiry<'_>) -> Timestamp {
        if self.distrusts(runner) { inquiry.local } else { inquiry.now.at }
    }

    /// Writes the evidence about a runner's token, for the next process.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn note_evidence(&self, runner: &mut Runner, evidence: Evidence) -> Result<(), Error> {
        let evidence = Evidence { token: runner.digest(), ..evidence };
        let evidence = Some(Box::new(evidence)).filter(|evidence| evidence.says_something());
        // Nothing is kept about a registration of a command that has left no record.
        let is_nothing = !runner.is_recorded && runner.record.credential.is_none();
        if runner.held.evidence == evidence || is_nothing {
            return Ok(());
        }
        let locked = self.lock(runner).await?;
        if !lost_registration::is_over_loss(&runner.held, evidence.as_deref()) {
            runner.held.evidence = evidence;
            runner.is_held_changed = true;
            self.save_held(runner).await?;
        }
        drop(locked);
        Ok(())
    }

    /// Whether a reset of this runner was sent and its answer was lost, also if another process has concluded that
    /// already, and has cleared the journal.
    pub async fn is_unsettled(&self, runner: &Runner) -> bool {
        runner.was_lost_elsewhere() || self.check_settled(runner).await.is_err()
    }

    /// Fails while a reset of this runner was sent and its answer was lost.
    async fn check_settled(&self, runner: &Runner) -> Result<(), Error> {
        match self.disk.pending_of(&runner.record.key).await? {
            Some(pending) if pending.is_lost_reset() => {
                Err(store::Error::Unsettled { key: runner.record.key.clone() }.into())
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// 64 random bits: the keys of a hash map are random.
fn random_bits() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A locked runner and the config.toml that its operation starts from.
struct Entered<L> {
    /// Held until the operation ends.
    locked: Locked<L>,
    snapshot: Arc<Snapshot>,
    /// Its journal, if one is open.
    pending: Option<Pending>,
    /// Whether another process has unregistered the runner, and has left its entry.
    is_unfinished: bool,
}

impl<L> Entered<L> {
    /// Fails if the runner is unregistered already: a request with its token would bring its manager back. An entry that
    /// has got another token since is asked about.
    fn check_unfinished(&self, runner: &Runner) -> Result<(), Error> {
        if self.is_unfinished && EntryStatus::unknown_in(runner, &self.snapshot).is_empty() {
            return Err(Error::Unfinished(runner.label().to_owned()));
        }
        Ok(())
    }

    /// What an operation keeps while it asks the server: each version of config.toml that is kept costs as much as the file,
    /// and a slow server holds many operations up.
    fn asking(self) -> (Locked<L>, Weak<Snapshot>) {
        (self.locked, Arc::downgrade(&self.snapshot))
    }
}
