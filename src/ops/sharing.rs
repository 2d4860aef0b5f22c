//! A runner that many machines share: the store is read before a token is asked about, and told of each new one.
//!
//! Every machine runs the same operations. What is done about a difference between store and machine is decided in
//! `lifecycle::sharing`; here it is done, under the runner's lock. A token in the store is a candidate like any other one:
//! a verification follows it once GitLab accepts it. In detail:
//!
//! - **before a verification**: read the store · write what GitLab has given us and the store lacks · keep the store's token.
//! - **after it**: write our token if the store's is dead · clear a pending change that has no effect any more · join.
//! - **rotate**: swap the pending change in · the reset, as for any other runner · swap the new token in.
//! - **register**: the same, unless the store has a token: then that one is taken, as one that a person has given.
//!
//! A store that cannot be reached stops no verification. It stops resets, registrations and recoveries.

mod heal;
mod join;
mod report;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use join::enter_member;

use super::{Completed, Disk, Enrollment, Error, Inquiry, Ops, Runner, Server, random_bits};
use crate::error_chain::chain;
use crate::lifecycle::Outcome;
use crate::lifecycle::sharing::{self as rules, Journal, SharedStep, Shown, View};
use crate::model::{
    Candidate, CandidateSource, Claim, Credential, Lineage, Link, Origin, RecordedShare, RunnerId, Sender, ServerUrl,
    ShareName, SharedChange, SharedPending, SharedRunner, SharedToken, Stamp, Timestamp,
};
use crate::secret::Digest;
use crate::sharing::{self, AnyEngine, Shares, Stored, Swapped};

/// How often a write is tried that other machines get before.
const CONTESTED_WRITES: u32 = 5;

/// How often the store is told of a new token before a later verification goes on with that, and the pause in between.
const TELLINGS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// What this process knows of the store's value of a runner.
#[derive(Clone, Debug, Default)]
pub(super) struct StoreMemory {
    /// The name in the store.
    name: Option<ShareName>,
    /// The value as it was last read or written; `None` inside for none.
    seen: Option<Option<Box<Stored>>>,
    /// The pending change in it, and since when it is the same.
    pending: Option<(SharedPending, Instant)>,
    /// The last member, which is about to delete the runner, and since when it says so.
    leaving: Option<(Sender, Instant)>,
    /// The last acceptances of the tokens that are compared.
    accepted: BTreeMap<Digest, Stamp>,
    /// Whether GitLab has accepted the store's token as that of another runner.
    is_anothers: bool,
    /// Why the store cannot be used at present.
    problem: Option<String>,
    /// Whether a person has to end that.
    is_lasting: bool,
    /// When it refused this machine first, without an answer since.
    refused: Option<Instant>,
    /// Whether that concerns writes alone.
    is_about_writes: bool,
    /// When it was last read or written.
    contact: Option<Instant>,
}

/// Whether a change can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// The store says that this machine sends it.
    Done,
    /// Store and machine are to be compared first, or another machine changes the runner.
    NotNow,
}

/// How a machine comes to a shared runner.
#[derive(Debug)]
pub enum SharedStart {
    /// The store has it: it is taken like a given one.
    Take {
        /// The enrollment with the store's token.
        enrollment: Box<Enrollment>,
        /// Whether the token is rotated before it is used: the machine that was the last one may be deleting the runner.
        must_rotate: bool,
    },
    /// This machine makes it.
    Register,
    /// Another machine makes it.
    Wait,
}

impl StoreMemory {
    fn stored(&self) -> Option<&Stored> {
        self.seen.as_ref()?.as_deref()
    }

    fn runner(&self) -> Option<&SharedRunner> {
        self.stored().map(|stored| &stored.runner)
    }

    fn token(&self) -> Option<&SharedToken> {
        self.runner()?.token.as_ref()
    }

    /// What concerns a machine with a token, or one that has none yet and may wait for the sender of a pending change.
    fn essence(&self, has_token: bool) -> Option<Essence> {
        let SharedRunner { url, id, token, pending, leaving, .. } = self.runner()?;
        let pending = pending.clone().filter(|_| !has_token);
        Some((url.clone(), *id, token.as_ref().map(|token| token.lineage.newest()), pending, leaving.clone()))
    }
}

type Essence = (ServerUrl, Option<RunnerId>, Option<Link>, Option<SharedPending>, Option<Sender>);

impl Runner {
    fn memory(&mut self) -> &mut StoreMemory {
        self.store.get_or_insert_default()
    }

    /// Takes a value that the store has reported. Returns whether that calls for a verification, or for another attempt to
    /// register: members come and go without either.
    pub fn take_report(&mut self, stored: Option<&Stored>) -> bool {
        let has_token = self.record.credential.is_some();
        let known = self.store.as_ref().filter(|memory| memory.seen.is_some()).map(|memory| memory.essence(has_token));
        let has_recovered = self.see(stored.cloned().map(Box::new));
        let is_untold = self.record.shared.as_ref().is_some_and(|shared| shared.is_untold);
        has_recovered || is_untold || known != self.store.as_ref().map(|memory| memory.essence(has_token))
    }

    /// Returns whether the store could not be used before.
    fn see(&mut self, stored: Option<Box<Stored>>) -> bool {
        let pending = stored.as_ref().and_then(|stored| stored.runner.pending.clone());
        let memory = self.memory();
        if memory.pending.as_ref().map(|(known, _)| known) != pending.as_ref() {
            memory.pending = pending.map(|pending| (pending, Instant::now()));
        }
        let leaving = stored.as_ref().and_then(|stored| stored.runner.leaving.clone());
        if memory.leaving.as_ref().map(|(known, _)| known) != leaving.as_ref() {
            memory.leaving = leaving.map(|leaving| (leaving, Instant::now()));
        }
        let token = stored.as_ref().and_then(|stored| stored.runner.token.as_ref()).map(|it| it.lineage.token());
        memory.is_anothers &= token == memory.token().map(|known| known.lineage.token());
        (memory.seen, memory.contact) = (Some(stored), Some(Instant::now()));
        self.note_store_answer()
    }

    fn is_current_in_store(&self) -> bool {
        let stored = self.store.as_ref().and_then(|memory| memory.token()).map(|token| token.lineage.token());
        stored.is_some() && stored == self.digest()
    }

    /// Whether the store's value is of another runner or server.
    fn is_of_another_share(&self, stored: &SharedRunner) -> bool {
        let is_other_id = stored.id.zip(self.record.named_id()).is_some_and(|(theirs, ours)| theirs != ours);
        stored.url != self.record.url || is_other_id
    }

    /// The lineage of our token. One that was found in another place than the store comes after those that we know.
    fn lineage(&self) -> Option<Lineage> {
        let current = self.digest()?;
        let recorded = self.record.shared.as_ref().and_then(|shared| shared.lineage.as_ref());
        let stored = self.store.as_ref().and_then(|memory| memory.token()).map(|token| &token.lineage);
        let is_stored = stored.is_some_and(|stored| stored.token() == current);
        Some(match (recorded, stored) {
            (Some(ours), _) if ours.token() == current => ours.clone(),
            // GitLab accepts a token that it had replaced: it was restored, or the store was.
            (Some(ours), Some(stored)) if is_stored && stored.generation() <= ours.generation() => {
                ours.over(stored, current)
            }
            (_, Some(stored)) if is_stored => stored.clone(),
            (Some(ours), _) => ours.with_next(current),
            (None, _) => Lineage::first(current),
        })
    }

    /// Says in the record under which name the runner is shared that is about to be registered.
    pub(super) fn note_share(&mut self) {
        if let Some(name) = self.store.as_ref().and_then(|memory| memory.name.clone()) {
            self.share(&name);
        }
    }

    /// A reset has replaced the token of a shared runner, or a registration has brought the first one.
    pub(super) fn extend_lineage(&mut self) {
        let Some(current) = self.digest() else { return };
        let Some(shared) = &mut self.record.shared else { return };
        let is_known = shared.lineage.as_ref().is_some_and(|lineage| lineage.token() == current);
        if !is_known {
            let lineage = shared.lineage.as_ref();
            shared.lineage = Some(lineage.map_or_else(|| Lineage::first(current), |ours| ours.with_next(current)));
            shared.is_untold = true;
        }
    }

    /// Enters the lineage of the present token into the record; returns whether that changed it.
    fn note_lineage(&mut self, name: &ShareName) -> bool {
        let lineage = self.lineage();
        let stored = self.store.as_ref().and_then(|memory| memory.token()).map(|token| token.lineage.newest());
        let before = self.record.shared.clone();
        let shared = self.share(name);
        // A token that no answer to a reset has brought is compared with the store's first.
        if shared.lineage != lineage {
            (shared.lineage, shared.is_untold) = (lineage, false);
        }
        // The answer to the write was lost.
        shared.is_untold &= shared.lineage.as_ref().map(Lineage::newest) != stored;
        self.record.shared != before
    }

    fn share(&mut self, name: &ShareName) -> &mut RecordedShare {
        let none = || Box::new(RecordedShare { name: name.clone(), lineage: None, is_untold: false });
        let shared = self.record.shared.get_or_insert_with(none);
        if shared.name != *name {
            **shared = *none();
        }
        shared
    }

    /// GitLab accepts the store's token as that of another runner.
    pub(super) fn note_anothers(&mut self) {
        self.memory().is_anothers = true;
    }

    fn note_accepted(&mut self, token: Digest, now: Stamp) {
        let current = self.digest();
        let memory = self.memory();
        let stored = memory.token().map(|token| token.lineage.token());
        memory.accepted.retain(|known, _| Some(*known) == current || Some(*known) == stored);
        memory.accepted.insert(token, now);
    }

    fn shown(&self, token: Digest, inquiry: &Inquiry<'_>) -> Shown {
        let memory = self.store.as_deref();
        let accepted = memory.and_then(|memory| memory.accepted.get(&token)).copied();
        let refused = if self.digest() == Some(token) {
            inquiry.asked.filter(|asked| asked.claim == Claim::Refused)
        } else {
            self.held.candidates.iter().find(|known| known.token.digest() == token).and_then(|known| known.refused)
        };
        let is_stored = memory.and_then(StoreMemory::token).is_some_and(|stored| stored.lineage.token() == token);
        Shown::of(refused, accepted, is_stored && memory.is_some_and(|memory| memory.is_anothers))
    }
}

impl<S: Server, D: Disk> Ops<S, D> {
    /// Sets the store of shared runners.
    pub fn share_in(&self, shares: Option<Shares<AnyEngine>>) {
        *self.sharing.borrow_mut() = shares.map(Rc::new);
    }

    /// The store of shared runners, if there is one.
    #[must_use]
    pub fn shares(&self) -> Option<Rc<Shares<AnyEngine>>> {
        self.sharing.borrow().clone()
    }

    fn store_of(&self, runner: &Runner) -> Result<Rc<Shares<AnyEngine>>, Error> {
        self.shares().ok_or_else(|| Error::NoStore(runner.label().to_owned()))
    }

    fn sender(&self) -> Sender {
        Sender { machine: self.identity.system_id.clone(), boot: self.boot }
    }

    /// Reads the store.
    async fn look(&self, name: &ShareName, runner: &mut Runner) -> Result<(), Error> {
        let shares = self.store_of(runner)?;
        runner.memory().name = Some(name.clone());
        match shares.read(name).await {
            Ok(stored) => {
                runner.see(stored.map(Box::new));
                self.check_share(name, runner)
            }
            Err(error) => Err(self.trouble(runner, error)),
        }
    }

    /// A value that is of another runner or server is neither used nor overwritten.
    fn check_share(&self, name: &ShareName, runner: &mut Runner) -> Result<(), Error> {
        let Some(stored) = runner.store.as_ref().and_then(|memory| memory.runner()) else { return Ok(()) };
        if !runner.is_of_another_share(stored) {
            return Ok(());
        }
        let (url, id) = (stored.url.clone(), stored.id);
        let error = Error::OtherShare { runner: runner.label().to_owned(), name: name.clone(), url, id };
        let text = error.to_string();
        runner.memory().is_lasting = true;
        if runner.memory().problem.replace(text.clone()).as_ref() != Some(&text) {
            tracing::error!(runner = runner.label(), share = %name, "{text}");
        }
        Err(error)
    }

    fn trouble(&self, runner: &mut Runner, error: sharing::Error) -> Error {
        runner.note_store_failure(&error);
        Error::Sharing { runner: runner.label().to_owned(), error }
    }

    fn next_shared(&self, runner: &Runner, is_begun: bool, inquiry: &Inquiry<'_>) -> SharedStep {
        self.viewed(runner, is_begun, inquiry, |view| view.next_step()).unwrap_or(SharedStep::Wait)
    }

    /// Decides by what is known of store and machine; `None` before the store was read.
    fn viewed<T>(
        &self,
        runner: &Runner,
        is_begun: bool,
        inquiry: &Inquiry<'_>,
        decide: impl FnOnce(View<'_, &dyn Fn(Digest) -> Shown>) -> T,
    ) -> Option<T> {
        let memory = runner.store.as_deref()?;
        let now = inquiry.now.at;
        let left = runner.validity(now).and_then(|validity| validity.left(now));
        let stored_left = memory.token().and_then(|token| token.credential.expiry.at()).map(|at| at.since(now));
        // A fresh token in the store is not given up for one that has little time.
        let confirm_after =
            rules::confirm_after(inquiry.timing, left).max(rules::confirm_after(inquiry.timing, stored_left));
        let pending = memory.pending.as_ref();
        let stored = rules::Stored {
            lineage: memory.token().map(|token| token.lineage.clone()),
            pending: pending.map(|(pending, _)| pending.clone()),
            is_pending_overdue: pending.is_some_and(|(_, since)| since.elapsed() >= rules::pending_wait(left)),
            is_foreign: memory.runner().is_some_and(|stored| runner.is_of_another_share(stored)),
        };
        let held: Vec<_> = runner.held.candidates.iter().rev().map(|candidate| candidate.token.digest()).collect();
        let shared = runner.record.shared.as_ref();
        let journal = match is_begun {
            true => Journal::Begun,
            false if shared.is_some_and(|shared| shared.is_untold) => Journal::Answered,
            false => Journal::Empty,
        };
        let own = self.sender();
        let view = View {
            own: &own,
            ours: shared.and_then(|shared| shared.lineage.as_ref()),
            held: &held,
            journal,
            stored: &stored,
            shown: &(|token| runner.shown(token, inquiry)) as &dyn Fn(Digest) -> Shown,
            now: inquiry.now,
            confirm_after,
            look_again: rules::LOOK_AGAIN,
        };
        Some(decide(view))
    }

    /// Puts a changed value into the store. Returns whether it is there; the store is read again otherwise.
    async fn swap_shared(
        &self,
        name: &ShareName,
        runner: &mut Runner,
        change: impl FnOnce(&mut SharedRunner),
    ) -> Result<bool, Error> {
        let shares = self.store_of(runner)?;
        let expected = runner.store.as_ref().and_then(|memory| memory.stored()).cloned();
        // Only the machine that registers it knows that it was made for the store.
        let none = || SharedRunner::new(runner.record.url.clone(), Origin::Given);
        let mut next = expected.as_ref().map_or_else(none, |stored| stored.runner.clone());
        change(&mut next);
        match shares.swap(name, expected.as_ref(), next).await {
            Ok(Swapped::Done(stored)) => {
                runner.memory().is_about_writes = false;
                runner.see(Some(stored));
                Ok(true)
            }
            Ok(Swapped::Lost) => {
                self.look(name, runner).await?;
                Ok(false)
            }
            Err(error) => {
                let is_about_writes = !error.is_passing();
                let error = self.trouble(runner, error);
                runner.memory().is_about_writes = is_about_writes;
                Err(error)
            }
        }
    }

    /// Writes our token with this lineage over what was read.
    async fn write_shared(
        &self,
        name: &ShareName,
        runner: &mut Runner,
        lineage: Lineage,
        is_fork: bool,
        inquiry: &Inquiry<'_>,
    ) -> Result<bool, Error> {
        let Some(credential) = runner.record.credential.clone() else { return Ok(false) };
        if is_fork {
            tracing::error!(
                runner = runner.label(),
                share = %name,
                "two tokens of the shared runner were in use that did not grow from each other: writing the one that GitLab accepts; look for a second store, or for a machine that resets the token by itself"
            );
        }
        let (id, own, member) = (runner.record.named_id(), self.sender(), self.member(inquiry));
        let token = SharedToken { credential, lineage: lineage.clone() };
        let is_done = self
            .swap_shared(name, runner, |next| {
                next.token = Some(token);
                next.id = id.or(next.id);
                enter_member(next, member);
                // A deletion with the former token is refused from now on.
                next.leaving = None;
                // The change of another machine goes on: its answer is a token, too.
                next.pending = next.pending.take().filter(|pending| pending.sender != own);
            })
            .await?;
        if is_done {
            let shared = runner.share(name);
            (shared.lineage, shared.is_untold) = (Some(lineage), false);
            self.save_record(runner).await?;
        }
        Ok(is_done)
    }

    /// Reads the store before a verification, which then asks about the token in it. A store that cannot be used is
    /// reported, and the verification goes on without it.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn prepare_shared(
        &self,
        name: &ShareName,
        runner: &mut Runner,
        inquiry: &Inquiry<'_>,
    ) -> Result<(), Error> {
        if self.look(name, runner).await.is_err() {
            return Ok(());
        }
        let mut entered = self.enter(runner).await?;
        entered.locked.give_place_back();
        if runner.note_lineage(name) && runner.is_recorded {
            self.save_record(runner).await?;
        }
        let is_begun = entered.pending.is_some();
        // The last machine could delete the runner otherwise, before this one is a member again.
        if !is_begun && runner.is_current_in_store() && self.join(name, runner, inquiry).await.is_err() {
            return Ok(());
        }
        for _ in 0..CONTESTED_WRITES {
            match self.next_shared(runner, is_begun, inquiry) {
                SharedStep::Write { lineage, is_fork } if Some(lineage.token()) == runner.digest() => {
                    match self.write_shared(name, runner, lineage, is_fork, inquiry).await {
                        Ok(_) => {}
                        Err(error @ Error::Disk(_)) => return Err(error),
                        Err(_) => return Ok(()),
                    }
                }
                _ => break,
            }
        }
        self.keep_shared(runner, inquiry).await
    }

    /// Keeps the store's token. One that is newer than ours is asked about first, any other one once ours is refused.
    async fn keep_shared(&self, runner: &mut Runner, inquiry: &Inquiry<'_>) -> Result<(), Error> {
        let Some(memory) = runner.store.as_deref() else { return Ok(()) };
        let Some((stored, id)) = memory.token().map(|token| (token.clone(), memory.runner().and_then(|it| it.id)))
        else {
            return Ok(());
        };
        let ours = runner.record.shared.as_ref().and_then(|shared| shared.lineage.as_ref());
        let is_newer = ours.is_none_or(|ours| ours.generation() < stored.lineage.generation());
        let source = if is_newer { CandidateSource::Shared } else { CandidateSource::Former };
        let SharedToken { credential: Credential { token, obtained_at, expiry }, .. } = stored;
        if runner.is_current(&token) {
            return Ok(());
        }
        let (noted_at, origin, refused) = (inquiry.now.at, None, None);
        runner.note_candidate(Candidate {
            token: token.clone(),
            source,
            noted_at,
            obtained_at,
            expiry,
            id,
            origin,
            refused,
        });
        if is_newer {
            runner.prefer_candidate(&token);
        }
        runner.demote_shared_candidates(&token);
        Ok(self.save_held(runner).await?)
    }

    /// Compares store and machine after a verification. Returns whether they are to be compared again before a reset.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn settle_shared(
        &self,
        name: &ShareName,
        runner: &mut Runner,
        verified: &Result<Completed, Error>,
        inquiry: &Inquiry<'_>,
    ) -> Result<bool, Error> {
        let is_accepted = match verified {
            Ok(completed) => matches!(
                completed.outcome,
                Outcome::Accepted(_) | Outcome::Adopted(_) | Outcome::Registered(_) | Outcome::Rotated(_)
            ),
            Err(_) => false,
        };
        let is_read = runner.store.as_ref().is_some_and(|memory| memory.seen.is_some() && memory.problem.is_none());
        let Some(current) = runner.digest().filter(|_| is_accepted) else { return Ok(false) };
        runner.note_accepted(current, inquiry.now);
        let is_untold = |runner: &Runner| runner.record.shared.as_ref().is_some_and(|shared| shared.is_untold);
        if !is_read {
            return Ok(is_untold(runner));
        }
        let mut entered = self.enter(runner).await?;
        entered.locked.give_place_back();
        if runner.note_lineage(name) {
            self.save_record(runner).await?;
        }
        let inquiry = &Inquiry { asked: None, ..*inquiry };
        let is_begun = entered.pending.is_some();
        let mut asked = Vec::new();
        for _ in 0..2 * CONTESTED_WRITES {
            let step = self.next_shared(runner, is_begun, inquiry);
            tracing::debug!(runner = runner.label(), share = %name, ?step, "store and machine compared");
            let written = match step {
                SharedStep::Rest => self.join(name, runner, inquiry).await,
                SharedStep::Write { lineage, is_fork } if Some(lineage.token()) == runner.digest() => {
                    self.write_shared(name, runner, lineage, is_fork, inquiry).await
                }
                SharedStep::ClearPending => self.swap_shared(name, runner, |next| next.pending = None).await,
                SharedStep::Project
                    if runner.store.as_ref().and_then(|it| it.token()).map(|it| it.lineage.token())
                        == runner.digest() =>
                {
                    self.take_lineage(name, runner).await?;
                    Ok(true)
                }
                SharedStep::Ask(token) if Some(token) != runner.digest() && !asked.contains(&token) => {
                    asked.push(token);
                    if !self.ask_shared(runner, token, inquiry).await? {
                        return Ok(true);
                    }
                    continue;
                }
                // A sender is waited for, or another runner's token stands there.
                SharedStep::Wait | SharedStep::Refuse => return Ok(false),
                _ => return Ok(true),
            };
            match written {
                Ok(true)
                    if self.next_shared(runner, is_begun, inquiry) == SharedStep::Rest
                        && runner.is_member(self.system_id()) =>
                {
                    return Ok(false);
                }
                Ok(_) => {}
                Err(error @ Error::Disk(_)) => return Err(error),
                // It is said already.
                Err(_) => return Ok(is_untold(runner)),
            }
        }
        Ok(true)
    }

    /// The same token stands in the store with a higher generation.
    async fn take_lineage(&self, name: &ShareName, runner: &mut Runner) -> Result<(), Error> {
        let lineage = runner.store.as_ref().and_then(|memory| memory.token()).map(|token| token.lineage.clone());
        let shared = runner.share(name);
        (shared.lineage, shared.is_untold) = (lineage, false);
        Ok(self.save_record(runner).await?)
    }

    /// Asks GitLab about a token that is not followed. Returns whether it has answered.
    async fn ask_shared(&self, runner: &mut Runner, digest: Digest, inquiry: &Inquiry<'_>) -> Result<bool, Error> {
        let held = runner.held.candidates.iter().find(|candidate| candidate.token.digest() == digest);
        let Some(token) = held.map(|candidate| candidate.token.clone()) else { return Ok(false) };
        match self.send_verify(runner, &token).await {
            Ok(answer) => {
                let is_anothers =
                    answer.value.id.zip(runner.record.named_id()).is_some_and(|(theirs, ours)| theirs != ours);
                let memory = runner.memory();
                let is_stored = memory.token().is_some_and(|stored| stored.lineage.token() == digest);
                memory.is_anothers |= is_anothers && is_stored;
                runner.note_acceptance(&token);
                runner.note_accepted(digest, inquiry.now);
            }
            Err(error) if error.outcome() == Outcome::Refused => runner.note_refusal(&token, inquiry.now),
            Err(_) => return Ok(false),
        }
        self.save_held(runner).await?;
        Ok(true)
    }

    /// Says in the store that this machine is about to change the runner, unless store and machine differ or another
    /// machine does so. The swap shows that the write is allowed which the new token will need.
    ///
    /// # Errors
    /// [`Error::Sharing`] and [`Error::NoStore`] if the store cannot be used, [`Error::OtherShare`], [`Error::Disk`].
    pub async fn announce(
        &self,
        name: &ShareName,
        runner: &mut Runner,
        change: SharedChange,
        inquiry: &Inquiry<'_>,
    ) -> Result<Announced, Error> {
        self.look(name, runner).await?;
        let mut entered = self.enter_unless_stopping(runner).await?;
        entered.locked.give_place_back();
        let is_changed = runner.note_lineage(name);
        let is_begun = entered.pending.is_some();
        let own = self.sender();
        let mut step = self.next_shared(runner, is_begun, inquiry);
        if step == SharedStep::ClearPending && self.swap_shared(name, runner, |next| next.pending = None).await? {
            step = self.next_shared(runner, is_begun, inquiry);
        }
        let is_expected = match change {
            SharedChange::Reset => step == SharedStep::Rest,
            SharedChange::ResetById => {
                let is_expired =
                    runner.validity(inquiry.now.at).is_some_and(|validity| validity.is_expired(inquiry.now.at));
                self.viewed(runner, is_begun, inquiry, |view| view.may_recover(is_expired)).unwrap_or(false)
            }
            SharedChange::Register => false,
        };
        let others = runner.store.as_ref().and_then(|memory| memory.pending.as_ref());
        let is_awaited = others.is_some_and(|(pending, _)| pending.sender != own) && step == SharedStep::Rest;
        if !is_expected || is_awaited {
            tracing::debug!(runner = runner.label(), share = %name, ?step, is_awaited, "not changing the shared runner now");
            return Ok(Announced::NotNow);
        }
        if change == SharedChange::ResetById && !self.may_recover(runner, inquiry) {
            return Err(Error::RecoveredOften(runner.label().to_owned()));
        }
        if is_changed {
            self.save_record(runner).await?;
        }
        let (token, member) = (runner.digest(), self.member(inquiry));
        let now = inquiry.now.at;
        let announced = self
            .swap_shared(name, runner, |next| {
                next.pending = Some(SharedPending { change, sender: own, token, number: random_bits() });
                enter_member(next, member);
                if change == SharedChange::ResetById {
                    next.recoveries.retain(|at| now.since(*at) < RECOVERY_WINDOW);
                    next.recoveries.push(now);
                }
            })
            .await?;
        Ok(if announced { Announced::Done } else { Announced::NotNow })
    }

    /// A token is recovered by the runner's id at most twice a day, by all machines together.
    fn may_recover(&self, runner: &Runner, inquiry: &Inquiry<'_>) -> bool {
        let recoveries = runner.store.as_ref().and_then(|memory| memory.runner()).map(|runner| &runner.recoveries);
        let recent = |at: &&Timestamp| inquiry.now.at.since(**at) < RECOVERY_WINDOW;
        recoveries.is_none_or(|recoveries| recoveries.iter().filter(recent).count() < RECOVERIES)
    }

    /// Takes back what [`Ops::announce`] has said: nothing was sent, or it had no effect.
    pub async fn withdraw(&self, name: &ShareName, runner: &mut Runner) {
        let own = self.sender();
        for _ in 0..CONTESTED_WRITES {
            let pending = runner.store.as_ref().and_then(|memory| memory.runner()).and_then(|it| it.pending.as_ref());
            if pending.is_none_or(|pending| pending.sender != own) {
                return;
            }
            // Any machine clears it after a while.
            match self.swap_shared(name, runner, |next| next.pending = None).await {
                Ok(true) | Err(_) => return,
                Ok(false) => {}
            }
        }
    }

    /// Tells the store of the token that an answer has brought. Returns whether it has it; else the next verification
    /// tells it.
    pub async fn tell(&self, name: &ShareName, runner: &mut Runner, inquiry: &Inquiry<'_>) -> bool {
        let Some(current) = runner.digest() else { return false };
        runner.note_accepted(current, inquiry.now);
        let inquiry = &Inquiry { asked: None, ..*inquiry };
        for attempt in 0..TELLINGS {
            if attempt > 0 {
                sleep(PAUSE).await;
            }
            let told = match self.tell_once(name, runner, inquiry).await {
                Ok(is_told) => is_told,
                Err(error) => {
                    tracing::debug!(
                        runner = runner.label(),
                        error = chain(&error),
                        "the store is not told of the new token yet"
                    );
                    false
                }
            };
            if told {
                return true;
            }
            // A failure is reported, and the next attempt fails, too.
            let _looked = self.look(name, runner).await;
        }
        tracing::warn!(
            runner = runner.label(),
            share = %name,
            "this machine alone has the new token of the shared runner: the store is told of it as soon as it can be written"
        );
        false
    }

    async fn tell_once(&self, name: &ShareName, runner: &mut Runner, inquiry: &Inquiry<'_>) -> Result<bool, Error> {
        let mut entered = self.enter(runner).await?;
        entered.locked.give_place_back();
        if runner.note_lineage(name) {
            self.save_record(runner).await?;
        }
        let is_begun = entered.pending.is_some();
        match self.next_shared(runner, is_begun, inquiry) {
            SharedStep::Write { lineage, is_fork } if Some(lineage.token()) == runner.digest() => {
                self.write_shared(name, runner, lineage, is_fork, inquiry).await
            }
            SharedStep::Rest => Ok(true),
            step => {
                tracing::debug!(runner = runner.label(), ?step, "the store is not told of the new token now");
                Ok(false)
            }
        }
    }
}

/// How many recoveries by id there are in one [`RECOVERY_WINDOW`].
const RECOVERIES: usize = 2;
const RECOVERY_WINDOW: Duration = Duration::from_secs(24 * 3600);
