//! config.toml as a projection of the records: comparing an entry with its record, and correcting it.

use std::collections::BTreeSet;

use super::candidates::Asked;
use super::namesakes::target_of;
use super::{Completed, Disk, Enrollment, Error, Inquiry, Ops, RegistrationSource, Runner, Server};
use crate::model::{Candidate, CandidateSource, Credential, Expiry, RunnerId, Timestamp};
use crate::secret::{Digest, Token};
use crate::store::{self, Edit, Edited, Entry, EntrySelector, EntryText, EntryToken, Record, Snapshot};

/// How the entry in config.toml compares with the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryStatus {
    /// It holds the record's token.
    Ours,
    /// It holds a retired token: an old copy of the file was restored.
    Stale,
    /// It holds the record's token with white space around it.
    Padded,
    /// It holds an unknown token: another process or the user rotated or replaced it.
    Foreign {
        /// Its credential.
        credential: Credential,
        /// The runner id in the entry.
        id: Option<RunnerId>,
    },
    /// Its token is an environment variable.
    Variable(String),
    /// Its token is missing, or a placeholder.
    Blank,
    /// Its token is no token. What a person meant by it is unknown, so it is never overwritten.
    Broken,
    /// There is no entry.
    Missing,
}

impl EntryStatus {
    /// Looks a runner up in config.toml. Of several entries, the most urgent one decides.
    #[must_use]
    pub fn of(runner: &Runner, snapshot: &Snapshot) -> Self {
        let target = runner.target();
        let own = snapshot.of(&target);
        own.map(|entry| of_entry(runner, entry)).max_by_key(Self::urgency).unwrap_or(Self::Missing)
    }

    /// The unknown tokens in the runner's entries, each with the id in its entry, in the order of the file. A runner
    /// without a current token, or with one from a variable, has none.
    pub(super) fn unknown_in(runner: &Runner, snapshot: &Snapshot) -> Vec<(Credential, Option<RunnerId>)> {
        if runner.record.credential.is_none() || runner.variable.is_some() {
            return Vec::new();
        }
        let target = runner.target();
        let own = snapshot.of(&target);
        let statuses = own.map(|entry| of_entry(runner, entry));
        statuses
            .filter_map(|status| match status {
                Self::Foreign { credential, id } => Some((credential, id)),
                Self::Ours
                | Self::Stale
                | Self::Padded
                | Self::Variable(_)
                | Self::Blank
                | Self::Broken
                | Self::Missing => None,
            })
            .collect()
    }

    /// Whether the runner's entries hold its token, or an unknown one that is in none of `over`: there is nothing to write.
    pub(super) fn is_written(runner: &Runner, snapshot: &Snapshot, over: &[Digest]) -> bool {
        let target = runner.target();
        let mut own = snapshot.of(&target);
        own.all(|entry| match of_entry(runner, entry) {
            Self::Ours => true,
            Self::Foreign { credential, .. } => !over.contains(&credential.token.digest()),
            Self::Stale | Self::Padded | Self::Variable(_) | Self::Blank | Self::Broken | Self::Missing => false,
        })
    }

    /// Whether an entry holds the runner's token with another expiry than the record: that of a token that was there before.
    /// An entry that names no expiry is left as it is.
    pub(super) fn is_mistimed(runner: &Runner, snapshot: &Snapshot) -> bool {
        let Some(own) = &runner.record.credential else { return false };
        let differs = |written: Expiry| match (written, own.expiry) {
            (Expiry::Unknown, _) | (_, Expiry::Unknown) | (Expiry::Never, Expiry::Never) => false,
            (Expiry::Never, Expiry::At(_)) | (Expiry::At(_), Expiry::Never) => true,
            // config.toml has whole seconds.
            (Expiry::At(written), Expiry::At(own)) => written.whole_seconds() != own.whole_seconds(),
        };
        let target = runner.target();
        let mut entries = snapshot.of(&target);
        entries.any(|entry| entry.token == EntryToken::Literal(own.token.clone()) && differs(entry.expiry))
    }

    /// An unknown token may be the only copy and must be verified before it is overwritten, so it comes first.
    fn urgency(&self) -> u8 {
        match self {
            Self::Missing => 0,
            Self::Ours => 1,
            Self::Blank => 2,
            Self::Broken => 3,
            Self::Variable(_) => 4,
            Self::Padded => 5,
            Self::Stale => 6,
            Self::Foreign { .. } => 7,
        }
    }
}

/// The result of [`Ops::reconcile`].
#[derive(Debug)]
pub struct Reconciled {
    /// How the entry compared with the record.
    pub entry_status: EntryStatus,
    /// Whether another process has replaced the credential.
    pub is_replaced: bool,
    /// Why an old copy could not be corrected.
    pub unsaved: Option<Error>,
}

fn of_entry(runner: &Runner, entry: &Entry) -> EntryStatus {
    match &entry.token {
        EntryToken::Variable { name, .. } => EntryStatus::Variable(name.clone()),
        EntryToken::Absent | EntryToken::Placeholder => EntryStatus::Blank,
        EntryToken::Unusable(_) => EntryStatus::Broken,
        EntryToken::Padded(token) if runner.is_current(token) => EntryStatus::Padded,
        EntryToken::Literal(token) | EntryToken::Padded(token) => {
            if runner.is_current(token) {
                EntryStatus::Ours
            } else if runner.was_current(token) {
                EntryStatus::Stale
            } else {
                let credential =
                    Credential { token: token.clone(), obtained_at: entry.obtained_at, expiry: entry.expiry };
                EntryStatus::Foreign { credential, id: entry.id }
            }
        }
    }
}

impl<S: Server, D: Disk> Ops<S, D> {
    /// Writes the record's credential into config.toml, writes the record and clears the journal, after an operation
    /// that could not. A missing entry is restored from the kept text; an unknown token is left to a verification.
    ///
    /// # Errors
    /// [`Error::Disk`]; the credential stays in the state directory, and the caller may retry without limit.
    pub async fn save(&self, runner: &mut Runner) -> Result<EntryStatus, Error> {
        let entered = self.enter(runner).await?;
        let entry_status = EntryStatus::of(runner, &entered.snapshot);
        match entry_status {
            // Without a state directory config.toml is the only place for the token.
            EntryStatus::Foreign { .. } | EntryStatus::Broken if !self.disk.has_state() => self.project(runner).await?,
            EntryStatus::Foreign { .. } | EntryStatus::Broken | EntryStatus::Variable(_) => {
                self.save_record(runner).await?
            }
            EntryStatus::Ours
            | EntryStatus::Stale
            | EntryStatus::Padded
            | EntryStatus::Blank
            | EntryStatus::Missing => self.project(runner).await?,
        }
        self.disk.clear(&runner.record.key).await?;
        Ok(entry_status)
    }

    /// Writes a token that came in an odd answer, and that neither the journal nor the candidates hold yet. A lost reset
    /// stays unsettled. Without a state directory config.toml is the only place for it, so the server is asked about it
    /// once; returns the adoption then.
    ///
    /// # Errors
    /// [`Error::Disk`], after which the caller may retry without limit; [`Error::Unstored`] if there is no place for it.
    pub async fn save_received(&self, runner: &mut Runner, inquiry: &Inquiry<'_>) -> Result<Option<Completed>, Error> {
        let _locked = self.lock(runner).await?;
        self.save_held(runner).await?;
        if self.disk.has_state() {
            runner.sole_copy = None;
            return Ok(None);
        }
        if let Asked::Adopted(answer) = self.ask_newer(runner, &[], inquiry).await? {
            return Ok(Some(self.adopted(runner, &answer, inquiry).await?));
        }
        let received = runner.held.candidates.iter().rev().find(|it| it.source == CandidateSource::Received);
        match received.map(|candidate| candidate.token.fingerprint()) {
            Some(token) => Err(Error::Unstored { runner: runner.label().to_owned(), token }),
            None => Ok(None),
        }
    }

    /// Compares the entry with the record after config.toml has changed. What the entry holds is corrected by the next
    /// verification, once the server has accepted the runner's own token.
    ///
    /// # Errors
    /// [`Error::Disk`] if config.toml cannot be read.
    pub async fn reconcile(&self, runner: &mut Runner) -> Result<Reconciled, Error> {
        let entered = self.enter(runner).await?;
        let entry_status = EntryStatus::of(runner, &entered.snapshot);
        self.take_back(runner, &entry_status).await?;
        let mut unsaved = None;
        if entry_status == EntryStatus::Missing && runner.is_unwritten() {
            unsaved = self.project(runner).await.err().map(Error::from);
        }
        Ok(Reconciled { entry_status, is_replaced: runner.is_replaced, unsaved })
    }

    /// Whether another runner has the entry that a person has given to it: a second one of its name would be wrong.
    ///
    /// # Errors
    /// [`Error::Disk`] if config.toml cannot be read.
    pub async fn is_entry_given(&self, runner: &Runner) -> Result<bool, Error> {
        let Some(other) = runner.record.given_to else { return Ok(false) };
        let has_token = |entry: &Entry| !matches!(entry.token, EntryToken::Absent | EntryToken::Placeholder);
        Ok(self.disk.read().await?.with_id(&runner.record.url, other).any(has_token))
    }

    /// Whether an entry of this name may be the runner's, without its id and with an unknown token: one beside it would be
    /// wrong before the server has said whose token that is.
    ///
    /// # Errors
    /// [`Error::Disk`] if config.toml or the records cannot be read.
    pub async fn has_unnamed_entry(&self, runner: &Runner, name: &str) -> Result<bool, Error> {
        let snapshot = self.disk.read().await?;
        Ok(!self.unnamed_entries(runner, name, &snapshot).await?.is_empty())
    }

    /// The entries of this name that may be the runner's, without its id and with an unknown token.
    async fn unnamed_entries<'s>(
        &self,
        runner: &Runner,
        name: &str,
        snapshot: &'s Snapshot,
    ) -> Result<Vec<&'s Entry>, store::Error> {
        let is_unnamed = |entry: &&Entry| entry.id.is_none() && entry.token.token().is_some();
        let mut unnamed: Vec<_> = snapshot.named(&runner.record.url, name).filter(is_unnamed).collect();
        if unnamed.is_empty() {
            return Ok(unnamed);
        }
        // Another enrollment can have the same name.
        let records = self.disk.records().await?.records;
        let enrolled = records.iter().filter(|record| record.enrollment.is_some() && record.key != runner.record.key);
        let of_others: BTreeSet<_> = enrolled.flat_map(|record| snapshot.positions_of(&target_of(record))).collect();
        unnamed.retain(|entry| !of_others.contains(&entry.position));
        Ok(unnamed)
    }

    /// The unknown tokens in such entries, if the runner of an enrollment has no other entry. They are kept as candidates
    /// first.
    pub(super) async fn note_unnamed(
        &self,
        runner: &mut Runner,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<Vec<Token>, store::Error> {
        let is_without_entry = EntryStatus::of(runner, snapshot) == EntryStatus::Missing && !runner.is_unwritten();
        let is_served = runner.record.credential.is_some() && !runner.is_leaving && self.disk.has_state();
        let name = runner.record.name.clone().filter(|_| runner.record.enrollment.is_some());
        let Some(name) = name.filter(|_| is_without_entry && is_served) else { return Ok(Vec::new()) };
        let mut tokens = Vec::new();
        for entry in self.unnamed_entries(runner, &name, snapshot).await? {
            let Some(token) = entry.token.token().cloned() else { continue };
            let (source, obtained_at, expiry) = (CandidateSource::Found, entry.obtained_at, entry.expiry);
            tokens.push(token.clone());
            let (id, origin, refused) = (None, None, None);
            runner.note_candidate(Candidate { token, source, noted_at: now, obtained_at, expiry, id, origin, refused });
        }
        self.save_held(runner).await?;
        Ok(tokens)
    }

    /// Gives the runner such an entry, whose token is proven dead.
    pub(super) async fn take_unnamed(&self, runner: &mut Runner, dead: Vec<Digest>) -> Result<(), store::Error> {
        let Some(credential) = runner.record.credential.clone() else { return Ok(()) };
        tracing::warn!(
            runner = runner.label(),
            "the entry of its name in config.toml has neither its id nor a token that the server accepts: writing the current one"
        );
        let Record { url, name, id, .. } = &runner.record;
        let target = EntrySelector { url: url.clone(), id: None, digests: dead, name: name.clone() };
        let edit = Edit::Renew { target, id: *id, credential, over: Vec::new() };
        match self.disk.edit(edit).await {
            Ok(_) | Err(store::Error::NoSuchEntry { .. } | store::Error::UnknownToken { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether an entry of another runner goes before those of this one, as after a command has registered the name anew.
    /// Without a state directory, the first usable entry of its name is all that says which runner an enrollment has, and
    /// the next start goes by it. Before this runner's own entries hold its token, it is not left.
    ///
    /// # Errors
    /// [`Error::Disk`] if config.toml cannot be read.
    pub async fn is_superseded(&self, runner: &Runner, enrollment: &Enrollment) -> Result<bool, Error> {
        if self.disk.has_state() || matches!(enrollment.source, RegistrationSource::Given(_)) {
            return Ok(false);
        }
        let snapshot = self.disk.read().await?;
        let mut meant = snapshot.named(&enrollment.site.url, &enrollment.entry.name);
        let first = meant.find(|entry| entry.access().is_ok());
        let own = snapshot.positions_of(&runner.target());
        let is_before = first.is_some_and(|first| !own.contains(&first.position));
        Ok(is_before && EntryStatus::of(runner, &snapshot) == EntryStatus::Ours)
    }

    /// Restores the missing entry of an enrollment.
    ///
    /// # Errors
    /// [`Error::Compose`] or [`Error::Disk`].
    pub async fn restore(&self, runner: &mut Runner, enrollment: &Enrollment) -> Result<(), Error> {
        let entered = self.enter(runner).await?;
        if EntryStatus::of(runner, &entered.snapshot) != EntryStatus::Missing || runner.record.credential.is_none() {
            return Ok(());
        }
        // The other runner that its entry was given to has left it.
        runner.record.given_to = None;
        if runner.record.entry_text.is_none() {
            runner.record.entry_text = Some(EntryText::compose(&enrollment.entry)?);
            // Its name may have been that of another entry, and policies go by it.
            runner.record.name = Some(enrollment.entry.name.clone());
        }
        Ok(self.project(runner).await?)
    }

    /// Writes entry and record; the caller holds the runner's lock. An unknown token stays in its entry.
    pub(super) async fn project(&self, runner: &mut Runner) -> Result<(), store::Error> {
        self.project_over(runner, Vec::new()).await
    }

    /// As [`Ops::project`], and writes over unknown tokens with these digests.
    pub(super) async fn project_over(&self, runner: &mut Runner, over: Vec<Digest>) -> Result<(), store::Error> {
        let Some(credential) = runner.dated_credential() else {
            return self.save_record(runner).await;
        };
        let id = runner.record.id;
        let renewed = match &runner.record.entry_text {
            Some(text) => self.disk.edit(Edit::Insert { text: text.clone(), id, credential }).await,
            None => self.renew(runner, credential, over).await,
        };
        match renewed {
            Ok(_) => (runner.record.entry_text, runner.kept_text, runner.sole_copy) = (None, None, None),
            // An entry that the user removed stays removed; the record is written all the same.
            Err(store::Error::NoSuchEntry { .. }) if self.disk.has_state() => {}
            Err(error @ (store::Error::NoSuchEntry { .. } | store::Error::UnknownToken { .. })) => {
                self.put_back(runner, error).await?;
            }
            Err(error) => return Err(error),
        }
        self.save_record(runner).await
    }

    /// Without a state directory there is no other place for the new token than config.toml: an entry that was removed
    /// meanwhile comes back, and one that has got an unknown token meanwhile gets a second one beside it.
    async fn put_back(&self, runner: &mut Runner, error: store::Error) -> Result<(), store::Error> {
        let (Some(text), Some(credential), false) =
            (runner.kept_text.clone(), runner.record.credential.clone(), self.disk.has_state())
        else {
            return Err(error);
        };
        let is_removed = matches!(error, store::Error::NoSuchEntry { .. });
        tracing::warn!(
            runner = runner.label(),
            is_removed,
            "its entry in config.toml was changed during the rotation: adding one with the new token, for which there is no other place"
        );
        // An entry with this id would be renewed instead, and it holds the unknown token.
        let id = runner.record.id.filter(|_| is_removed);
        self.disk.edit(Edit::Insert { text, id, credential }).await?;
        (runner.kept_text, runner.sole_copy) = (None, None);
        Ok(())
    }

    /// Renews the credential of the entries. An entry with one of the runner's tokens but another id is from before a
    /// new registration and gets the new id too.
    async fn renew(&self, runner: &Runner, credential: Credential, over: Vec<Digest>) -> Result<Edited, store::Error> {
        let target = runner.target();
        let renewal = Edit::Renew { target, id: None, credential: credential.clone(), over: over.clone() };
        let renewed = self.disk.edit(renewal).await;
        match &renewed {
            Err(store::Error::NoSuchEntry { .. }) if runner.record.id.is_some() => {}
            Ok(_) if self.has_entry_of_former_id(runner).await? => {}
            _ => return renewed,
        }
        let mut target = EntrySelector { id: None, ..runner.target() };
        target.digests.extend(over.iter().copied());
        self.disk.edit(Edit::Renew { target, id: runner.record.id, credential, over }).await
    }

    /// Whether one of several entries of a runner that was registered anew still has the id from before.
    async fn has_entry_of_former_id(&self, runner: &Runner) -> Result<bool, store::Error> {
        let id = runner.record.id;
        let has_former_id = runner.held.candidates.iter().any(|candidate| {
            candidate.source == CandidateSource::Former && candidate.id.is_some() && candidate.id != id
        });
        if !has_former_id || id.is_none() {
            return Ok(false);
        }
        let target = EntrySelector { id: None, ..runner.target() };
        let is_former = |entry: &Entry| entry.id.is_some() && entry.id != id && target.matches(entry);
        Ok(self.disk.read().await?.entries.iter().any(is_former))
    }
}
