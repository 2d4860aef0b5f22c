//! Unregister: delete a runner, or only this machine's manager of it.

use std::path::PathBuf;

use super::candidates::Asked;
use super::{Disk, EntryStatus, Error, Failure, Inquiry, LOCK_WAIT, Ops, Runner, Server};
use crate::gitlab::Disposition;
use crate::lifecycle::{Outcome, Settling};
use crate::model::{Candidate, Expiry, Held, Origin, StateName, Timestamp};
use crate::secret::{Digest, Token};
use crate::store::{
    self, AskedBy, Edit, Intent, JournalAnswer, JournalOperation, Pending, Record, StoredFate, Urgency,
};

/// What an unregistration deletes on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// The runner, for all machines.
    Runner,
    /// The same for a runner that was taken from the store, by the last machine that shares it.
    SharedRunner,
    /// Only this machine's manager of it.
    Manager,
}

/// What an unregistration does with the `[[runners]]` entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryFate {
    /// Keeps it with its token, which cannot be recreated.
    Keep,
    /// Removes it and keeps its text in the record, for the next registration.
    KeepText,
    /// Removes it and keeps its text in the file [`UnregisterResult::dropped_to`]. The record is removed too; that of an
    /// enrollment stays as retired, which keeps a running daemon from restoring the entry.
    Drop,
}

impl EntryFate {
    /// What an unregistration by the daemon does with the entry: a deleted runner of an enrollment can be registered
    /// again with its kept text; the token of a runner that remains is needed again.
    #[must_use]
    pub fn at_shutdown(record: &Record, deletion: Deletion) -> Self {
        match (deletion, &record.enrollment) {
            (Deletion::Manager, _) => Self::Keep,
            (Deletion::Runner | Deletion::SharedRunner, Some(_)) => Self::KeepText,
            (Deletion::Runner | Deletion::SharedRunner, None) => Self::Drop,
        }
    }
}

impl From<EntryFate> for StoredFate {
    fn from(fate: EntryFate) -> Self {
        match fate {
            EntryFate::Keep => Self::Keep,
            EntryFate::KeepText => Self::KeepText,
            EntryFate::Drop => Self::Drop,
        }
    }
}

impl From<StoredFate> for EntryFate {
    fn from(fate: StoredFate) -> Self {
        match fate {
            StoredFate::Keep => Self::Keep,
            StoredFate::KeepText => Self::KeepText,
            StoredFate::Drop => Self::Drop,
        }
    }
}

/// An unregistration that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnregisterRequest {
    /// What it deletes.
    pub deletion: Deletion,
    /// What happens to the entry.
    pub fate: EntryFate,
    /// Who asks.
    pub asked_by: AskedBy,
    /// Whether the deletion was sent already: once the token is proven dead, it is concluded without another request.
    pub is_sent: bool,
}

/// What an unregistration achieved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnregisterResult {
    /// The server's answer.
    pub found: Unregistration,
    /// The file that keeps the text of the dropped entry.
    pub dropped_to: Option<PathBuf>,
    /// The `Date` of the server's answer; `None` if no request was needed.
    pub date: Option<Timestamp>,
}

/// The server's answer to an unregistration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unregistration {
    /// The runner or manager was deleted.
    Deleted,
    /// The server no longer had it.
    AlreadyGone,
    /// The token has expired, so a refusal proves nothing: the runner may still exist.
    MayRemain,
}

impl<S: Server, D: Disk> Ops<S, D> {
    /// Deletes a registered runner, or this machine's manager of a given one, and handles the entry as requested.
    ///
    /// A refusal proves that the runner is gone only if its token is proven dead.
    ///
    /// # Errors
    /// [`Error::OtherRunner`] and [`Error::Asking`] before the deletion is sent; [`Error::Deleting`] if the server did not confirm the deletion, with the way to find out; [`Error::Changing`] if
    /// it surely did not delete anything; the entry stays. [`Error::Disk`] if the journal cannot be written before the
    /// request, or the entry cannot be changed after it; in the latter case the record's state is `retired` and the
    /// next start finishes from the journal.
    pub async fn unregister(
        &self,
        runner: &mut Runner,
        request: UnregisterRequest,
        inquiry: &Inquiry<'_>,
    ) -> Result<UnregisterResult, Error> {
        let now = inquiry.now.at;
        runner.is_leaving = true;
        let mut locked = self.lock(runner).await?;
        self.take_pending(runner).await?;
        if runner.may_be_unselected() {
            return Err(Error::Replaced(runner.label().to_owned()));
        }
        if self.finished_fate(runner).await?.is_some() {
            let dropped_to = self.retire(runner, request.fate, now).await?;
            return Ok(UnregisterResult { found: Unregistration::AlreadyGone, dropped_to, date: None });
        }
        self.check_settled(runner).await?;
        if request.fate != EntryFate::Keep && !runner.is_unwritten() {
            self.disk.probe(Urgency::CanWait).await?;
        }
        let fate = self.fate_of_entry(runner, request.fate, inquiry).await?;
        if request.is_sent && inquiry.is_dead {
            self.check_no_other_token(runner, inquiry).await?;
            self.journal_deletion(runner, None).await?;
            let dropped_to = self.retire(runner, fate, now).await?;
            return Ok(UnregisterResult { found: already_gone(runner, now), dropped_to, date: None });
        }
        self.check_claimed_id(runner).await?;
        let token = runner.token()?;
        // A runner that cannot be registered again is never deleted, whatever was asked for.
        let manager_only = match request.deletion {
            Deletion::Runner => runner.record.origin == Origin::Given,
            Deletion::SharedRunner => false,
            Deletion::Manager => true,
        };
        let intent = self.unregistration_intent(runner, &token, manager_only, fate, request.asked_by, now);
        self.disk.begin(&runner.record.key, intent).await?;
        let answer = match runner.record.origin {
            _ if manager_only => self.server.delete_manager(&runner.site, &token, &self.identity.system_id).await,
            Origin::V1 => self.server.delete_v1(&runner.site, &token).await,
            Origin::Registered | Origin::Given => self.server.delete_runner(&runner.site, &token).await,
        };
        let date = self.trusted(runner, answer.as_ref().map_or_else(|failure| failure.date, |answer| answer.date));
        let found = match answer {
            Ok(_) => Unregistration::Deleted,
            // A former token may be good again: the runner is not gone then.
            Err(failure)
                if failure.disposition == Disposition::Refused
                    && inquiry.is_dead
                    && self.check_no_other_token(runner, inquiry).await.is_err() =>
            {
                return Err(self.undeleted(runner, failure, Disposition::Refused, manager_only, request).await?);
            }
            Err(failure) => match failure.disposition {
                // The API of 2016 has no verification to ask.
                Disposition::Refused if inquiry.is_dead || runner.record.origin == Origin::V1 => {
                    already_gone(runner, date.unwrap_or(now))
                }
                Disposition::Gone if manager_only => Unregistration::AlreadyGone,
                // A server without this call has no managers. One answer does not prove that it lacks the call.
                Disposition::Unsupported if manager_only && request.is_sent => Unregistration::AlreadyGone,
                disposition => return Err(self.undeleted(runner, failure, disposition, manager_only, request).await?),
            },
        };
        self.journal_deletion(runner, date).await?;
        // Its entry waits for a replace that it shares with others.
        locked.give_place_back();
        let dropped_to = self.retire(runner, fate, now).await?;
        Ok(UnregisterResult { found, dropped_to, date })
    }

    /// Journals that the runner is gone, so that a start finishes what a kill interrupts from here on, without asking. There
    /// is no journal if its deletion was surely not executed, and asking has shown that it is gone.
    async fn journal_deletion(&self, runner: &Runner, date: Option<Timestamp>) -> Result<(), store::Error> {
        let key = &runner.record.key;
        match self.disk.pending_of(key).await? {
            Some(Pending { intent: Intent { operation: JournalOperation::Unregister { .. }, .. }, .. }) => {}
            Some(_) | None => return Ok(()),
        }
        let (token, expiry) = (None, Expiry::Unknown);
        let done = JournalAnswer { id: None, token, expiry, obtained_at: date, is_documented: true };
        self.disk.answered(key, done).await
    }

    /// An id that only config.toml claims says which runner is meant, and the token must be that runner's. A refused
    /// token deletes nothing.
    async fn check_claimed_id(&self, runner: &mut Runner) -> Result<(), Error> {
        let record = &runner.record;
        let is_known = record.confirmed_id.is_some() || record.seed.is_some() || record.origin == Origin::V1;
        let Some(claimed) = record.id.filter(|_| !is_known) else { return Ok(()) };
        let token = runner.token()?;
        match self.send_verify(runner, &token).await {
            Ok(answer) => match answer.value.id {
                Some(actual) if actual != claimed => {
                    Err(Error::OtherRunner { runner: runner.label().to_owned(), claimed, actual })
                }
                confirmed_id => {
                    runner.record.confirmed_id = confirmed_id;
                    Ok(())
                }
            },
            Err(error) if error.outcome() == Outcome::Refused || matches!(error, Error::WrongToken { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A deletion without a confirmation. The daemon's journal stays if the deletion may have happened: the next
    /// verification settles it. That of a command stays for as long as it asks what happened, so that the next start
    /// asks if it is killed meanwhile; see [`Ops::call_off_unregistration`].
    async fn undeleted(
        &self,
        runner: &Runner,
        failure: Failure,
        disposition: Disposition,
        manager_only: bool,
        request: UnregisterRequest,
    ) -> Result<Error, Error> {
        let may_be_done = matches!(disposition, Disposition::Unknown { .. });
        let error = match (disposition, manager_only) {
            (Disposition::Unknown { .. }, true) => Error::Deleting { failure, settling: Settling::Repeat },
            (Disposition::Refused | Disposition::Unsupported, true) => {
                Error::Deleting { failure, settling: Settling::AskThenRepeat }
            }
            (Disposition::Unknown { .. } | Disposition::Refused | Disposition::Gone, false) => {
                Error::Deleting { failure, settling: Settling::Ask }
            }
            _ => Error::Changing(failure),
        };
        let is_open = match request.asked_by {
            AskedBy::Daemon => may_be_done,
            AskedBy::Command => matches!(error, Error::Deleting { .. }),
        };
        if !is_open {
            self.disk.clear(&runner.record.key).await?;
        }
        Ok(error)
    }

    /// Ends the intent of a command that ends with "not unregistered": it leaves nothing that acts later.
    ///
    /// # Errors
    /// [`Error::Disk`]; the next start settles the intent by asking, then.
    pub async fn call_off_unregistration(&self, runner: &mut Runner) -> Result<(), Error> {
        // What only the disk has kept from its end is finished by the next start.
        if self.finished_fate(runner).await?.is_some() {
            return Ok(());
        }
        self.clear_unregistration(runner).await
    }

    fn unregistration_intent(
        &self,
        runner: &Runner,
        token: &Token,
        manager_only: bool,
        fate: EntryFate,
        asked_by: AskedBy,
        now: Timestamp,
    ) -> Intent {
        let operation = JournalOperation::Unregister {
            url: runner.record.url.clone(),
            id: runner.record.id,
            fingerprint: token.fingerprint(),
            manager_only,
            fate: Some(fate.into()),
        };
        Intent { asked_by: Some(asked_by), token: Some(token.digest()), ..self.intent(operation, now) }
    }

    /// What may happen to the entry: an unknown token in it may be newer than ours, or another runner's. An unreadable
    /// config.toml does not prevent the deletion.
    async fn fate_of_entry(
        &self,
        runner: &mut Runner,
        wanted: EntryFate,
        inquiry: &Inquiry<'_>,
    ) -> Result<EntryFate, Error> {
        let Ok(snapshot) = self.disk.read().await else { return Ok(wanted) };
        if runner.has_unselected_entry(&snapshot) {
            return Err(Error::Replaced(runner.label().to_owned()));
        }
        let unknown = self.note_unknown(runner, &snapshot, inquiry.now.at).await?;
        if unknown.is_empty() {
            return Ok(wanted);
        }
        let own = |runner: &Runner| {
            let target = runner.target();
            snapshot.positions_of(&target)
        };
        let before = own(runner);
        let foreign = match self.ask_newer(runner, &unknown, inquiry).await? {
            // Another entry may have its new token too: who asks has to see that first.
            Asked::Adopted(_) if own(runner) != before => return Err(Error::Replaced(runner.label().to_owned())),
            Asked::Adopted(_) => return Ok(wanted),
            Asked::Not(newer) => newer.foreign,
        };
        let over = runner.overwritable(inquiry);
        let is_settled =
            |token: &Token| over.contains(&token.digest()) || foreign.iter().any(|(accepted, _)| accepted == token);
        if !unknown.iter().all(is_settled) {
            tracing::warn!(
                runner = runner.label(),
                "its entry holds an unknown token, which may be good: the entry stays"
            );
            return Ok(EntryFate::Keep);
        }
        let goes_over = foreign.iter().all(|(_, id)| id.is_some()) && wanted == EntryFate::Drop;
        if !(foreign.is_empty() || goes_over) {
            tracing::warn!(runner = runner.label(), "its entry holds the token of another runner: the entry stays");
            return Ok(EntryFate::Keep);
        }
        for (credential, _) in EntryStatus::unknown_in(runner, &snapshot) {
            let owner = foreign.iter().find(|(token, _)| *token == credential.token);
            let Some(id) = owner.and_then(|(_, id)| *id) else { continue };
            tracing::warn!(
                runner = runner.label(),
                other = id.number(),
                "its entry holds the token of another runner: the entry stays, for that runner"
            );
            if !self.hand_entry_over(runner, credential, id).await? {
                return Ok(EntryFate::Keep);
            }
        }
        runner.removable = over;
        Ok(wanted)
    }

    /// A runner whose token is dead lives on if the server accepts another one of its tokens, or has not judged it yet.
    async fn check_no_other_token(&self, runner: &mut Runner, inquiry: &Inquiry<'_>) -> Result<(), Error> {
        match self.ask_older(runner, &[], inquiry).await? {
            Asked::Adopted(_) => Err(Error::Replaced(runner.label().to_owned())),
            Asked::Not(older) if older.is_unanswered => Err(Error::Unjudged(runner.label().to_owned())),
            Asked::Not(_) => Ok(()),
        }
    }

    /// The fate of the entry if the server has confirmed the deletion to a process that could not change the entry.
    async fn finished_fate(&self, runner: &Runner) -> Result<Option<EntryFate>, Error> {
        let Some(pending) = self.disk.pending_of(&runner.record.key).await? else { return Ok(None) };
        Ok(pending.answer.as_ref().and_then(|_| fate_for(runner, &pending.intent)))
    }

    /// Finishes an unregistration that the server has confirmed to a process that could not change the entry, before the
    /// runner is verified, which would bring its manager back. Sends nothing; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn finish_unregistration(
        &self,
        runner: &mut Runner,
        now: Timestamp,
    ) -> Result<Option<(EntryFate, UnregisterResult)>, Error> {
        if self.finished_fate(runner).await?.is_none() {
            return Ok(None);
        }
        // The process that has begun it may be about to finish it.
        let _locked = self.lock(runner).await?;
        let Some(fate) = self.finished_fate(runner).await? else { return Ok(None) };
        let dropped_to = self.retire(runner, fate, now).await?;
        let found = Unregistration::AlreadyGone;
        Ok(Some((fate, UnregisterResult { found, dropped_to, date: None })))
    }

    /// Finishes an unregistration that was cut off, once the runner is proven gone: it is retired as it was asked for, and
    /// unknown tokens in its entries that are proven dead go with it. `None` if there is none to finish.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn conclude_unregistration(
        &self,
        runner: &mut Runner,
        inquiry: &Inquiry<'_>,
    ) -> Result<Option<UnregisterResult>, Error> {
        let _locked = self.lock(runner).await?;
        let Some(pending) = self.disk.pending_of(&runner.record.key).await? else { return Ok(None) };
        let Some(fate) = fate_for(runner, &pending.intent) else {
            self.clear_if_unregistration(&pending).await?;
            return Ok(None);
        };
        self.journal_deletion(runner, None).await?;
        let now = inquiry.now.at;
        runner.removable = runner.overwritable(inquiry);
        let dropped_to = self.retire(runner, fate, now).await?;
        runner.removable.clear();
        Ok(Some(UnregisterResult { found: already_gone(runner, now), dropped_to, date: None }))
    }

    /// Forgets an unregistration that was cut off: the runner is served on.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn clear_unregistration(&self, runner: &mut Runner) -> Result<(), Error> {
        let _locked = self.lock(runner).await?;
        let Some(pending) = self.disk.pending_of(&runner.record.key).await? else { return Ok(()) };
        Ok(self.clear_if_unregistration(&pending).await?)
    }

    async fn clear_if_unregistration(&self, pending: &Pending) -> Result<(), store::Error> {
        match &pending.intent.operation {
            JournalOperation::Unregister { .. } => self.disk.clear(&pending.key).await,
            JournalOperation::Register { .. } | JournalOperation::Rotate { .. } => Ok(()),
        }
    }

    /// Retires the record and handles the entry after the server's answer. Returns the file of a dropped entry.
    pub(super) async fn retire(
        &self,
        runner: &mut Runner,
        fate: EntryFate,
        now: Timestamp,
    ) -> Result<Option<PathBuf>, Error> {
        if fate != EntryFate::Keep {
            self.leave_tokens_of_others(runner).await?;
        }
        runner.record.state = Some(StateName::Retired);
        runner.record.since = Some(now);
        let mut dropped_to = None;
        match fate {
            EntryFate::Keep => self.save_record(runner).await?,
            EntryFate::KeepText => {
                self.keep_texts(runner, now).await?;
                self.remove_entries(runner).await?;
                runner.give_up();
                self.save_record(runner).await?;
            }
            EntryFate::Drop => {
                dropped_to = self.drop_texts(runner, now).await?;
                self.remove_entries(runner).await?;
                if runner.record.enrollment.is_some() {
                    runner.give_up();
                    self.save_record(runner).await?;
                } else {
                    self.disk.remove_record(&runner.record.key).await?;
                    self.disk.save_held(&runner.record.key, Held::default()).await?;
                    (runner.is_recorded, runner.is_held_changed) = (false, false);
                }
            }
        }
        self.disk.clear(&runner.record.key).await?;
        Ok(dropped_to)
    }

    /// Its candidates go with it. A token of another runner that was found in its entries is kept beside that one's record:
    /// it may be in no other place by now, and may be the good one.
    async fn leave_tokens_of_others(&self, runner: &Runner) -> Result<(), Error> {
        let is_of_other = |candidate: &&Candidate| candidate.id.is_some() && candidate.id != runner.record.id;
        let found: Vec<_> = runner.held.candidates.iter().filter(is_of_other).collect();
        if found.is_empty() || !self.disk.has_state() {
            return Ok(());
        }
        let is_other = |record: &Record| record.key != runner.record.key && record.url == runner.record.url;
        for record in self.disk.records().await?.records.into_iter().filter(is_other).collect::<Vec<_>>() {
            let own = record.named_id().filter(|_| record.credential.is_some());
            let tokens: Vec<_> = found.iter().filter(|candidate| candidate.id == own).collect();
            if tokens.is_empty() {
                continue;
            }
            let _lock = self.disk.lock_runner(&record.key, LOCK_WAIT).await?;
            let mut other = Runner::recorded(record, runner.site.clone());
            self.load_held(&mut other).await;
            tokens.into_iter().for_each(|found| other.note_candidate(Candidate { refused: None, ..(*found).clone() }));
            self.save_held(&mut other).await?;
        }
        Ok(())
    }

    /// Keeps the first entry's text in the record and those of duplicates in files, before the entries are removed.
    async fn keep_texts(&self, runner: &mut Runner, now: Timestamp) -> Result<(), Error> {
        let mut texts = self.disk.texts(runner.removal_target()).await?.into_iter();
        if let Some(text) = texts.next() {
            runner.record.entry_text = Some(text);
            self.save_record(runner).await?;
        }
        for text in texts {
            self.disk.keep_dropped(runner.label(), &text, now).await?;
        }
        Ok(())
    }

    async fn drop_texts(&self, runner: &mut Runner, now: Timestamp) -> Result<Option<PathBuf>, Error> {
        let mut dropped_to = None;
        for text in self.disk.texts(runner.removal_target()).await? {
            dropped_to = self.disk.keep_dropped(runner.label(), &text, now).await?;
            if runner.record.enrollment.is_some() {
                runner.record.entry_text = Some(text);
            }
        }
        Ok(dropped_to)
    }

    /// Drops the entry of a runner whose token is proven dead, without a request, if entry and record still hold that
    /// token. Returns the file that keeps the entry.
    ///
    /// # Errors
    /// [`Error::Disk`], [`Error::Replaced`].
    pub async fn drop_entry(
        &self,
        runner: &mut Runner,
        dead: Digest,
        now: Timestamp,
    ) -> Result<Option<PathBuf>, Error> {
        let entered = self.enter(runner).await?;
        let is_unknown = !EntryStatus::unknown_in(runner, &entered.snapshot).is_empty();
        if is_unknown || runner.digest() != Some(dead) {
            return Err(Error::Replaced(runner.label().to_owned()));
        }
        self.retire(runner, EntryFate::Drop, now).await
    }

    async fn remove_entries(&self, runner: &Runner) -> Result<(), Error> {
        match self.disk.edit(Edit::Remove { target: runner.removal_target() }).await {
            Ok(_) | Err(store::Error::NoSuchEntry { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The fate that was journaled for the entry; `None` if the journal is about something else, or if the runner has got
/// another token since.
pub(super) fn fate_for(runner: &Runner, intent: &Intent) -> Option<EntryFate> {
    match &intent.operation {
        JournalOperation::Unregister { fingerprint, fate, manager_only, .. }
            if !runner.has_other_token_than(fingerprint, intent.token) =>
        {
            let deletion = if *manager_only { Deletion::Manager } else { Deletion::Runner };
            Some(fate.map_or_else(|| EntryFate::at_shutdown(&runner.record, deletion), EntryFate::from))
        }
        _ => None,
    }
}

fn already_gone(runner: &Runner, now: Timestamp) -> Unregistration {
    match runner.validity(now) {
        Some(validity) if validity.is_expired(now) => Unregistration::MayRemain,
        _ => Unregistration::AlreadyGone,
    }
}
