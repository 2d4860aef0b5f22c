//! config.toml as the projection of the records: how an entry stands to its record, and putting it right.

use super::{Disk, Enrollment, Error, Ops, Runner, Server, is_own};
use crate::model::{Credential, RunnerId};
use crate::store::{self, Edit, Edited, Entry, EntrySelector, EntryText, EntryToken, Snapshot};

/// How the entry in config.toml stands to the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryStatus {
    /// It holds our token.
    Ours,
    /// It holds a token that was retired: an old copy of the file came back.
    Stale,
    /// It holds a token that we do not know: somebody else rotated, or replaced it.
    Foreign {
        /// What it holds.
        credential: Credential,
        /// The number it carries.
        id: Option<RunnerId>,
    },
    /// Its token is an environment variable.
    Variable(String),
    /// It cannot be used, or its token is missing.
    Broken,
    /// There is none.
    Missing,
}

impl EntryStatus {
    /// Looks a runner up in config.toml. Of several entries the one decides that most has to be done about.
    #[must_use]
    pub fn of(runner: &Runner, snapshot: &Snapshot) -> Self {
        let target = runner.target();
        let own = snapshot.entries.iter().filter(|entry| is_own(&target, entry));
        own.map(|entry| of_entry(runner, entry)).max_by_key(Self::urgency).unwrap_or(Self::Missing)
    }

    /// A token that nobody else has may not be overwritten unasked, so it outranks one that may.
    fn urgency(&self) -> u8 {
        match self {
            Self::Missing => 0,
            Self::Ours => 1,
            Self::Broken => 2,
            Self::Variable(_) => 3,
            Self::Stale => 4,
            Self::Foreign { .. } => 5,
        }
    }
}

/// What a comparison of entry and record found, and did.
#[derive(Debug)]
pub struct Reconciled {
    /// How the entry stood.
    pub entry_status: EntryStatus,
    /// Whether another process has replaced the credential meanwhile.
    pub is_replaced: bool,
    /// Why an old copy could not be put right.
    pub unsaved: Option<Error>,
}

fn of_entry(runner: &Runner, entry: &Entry) -> EntryStatus {
    match &entry.token {
        EntryToken::Variable { name, .. } => EntryStatus::Variable(name.clone()),
        EntryToken::Absent | EntryToken::Unusable(_) => EntryStatus::Broken,
        EntryToken::Literal(token) => {
            let is_ours = runner.record.credential.as_ref().is_some_and(|credential| credential.token == *token);
            if is_ours {
                EntryStatus::Ours
            } else if runner.record.former_tokens.contains(&token.fingerprint()) {
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
    /// Writes the record's credential into config.toml, then the record, then ends the journal: what is
    /// left to do when any of these failed before. An entry that is missing is made from the kept text; one
    /// that holds a token we do not know is left for a verification to decide about.
    ///
    /// # Errors
    /// [`Error::Disk`]; the credential stays where it is safe, and this can be tried again for ever.
    pub async fn save(&self, runner: &mut Runner) -> Result<EntryStatus, Error> {
        let entered = self.enter(runner).await?;
        let entry_status = EntryStatus::of(runner, &entered.snapshot);
        match entry_status {
            EntryStatus::Foreign { .. } | EntryStatus::Variable(_) => self.remember(runner).await?,
            EntryStatus::Ours | EntryStatus::Stale | EntryStatus::Broken | EntryStatus::Missing => {
                self.project(runner).await?
            }
        }
        self.disk.clear(&runner.record.key).await?;
        Ok(entry_status)
    }

    /// Looks at the entry again after config.toml has changed, and puts an old copy of it right without
    /// asking the server.
    ///
    /// # Errors
    /// [`Error::Disk`] if config.toml cannot be read.
    pub async fn reconcile(&self, runner: &mut Runner) -> Result<Reconciled, Error> {
        let entered = self.enter(runner).await?;
        let entry_status = EntryStatus::of(runner, &entered.snapshot);
        let mut unsaved = None;
        if entry_status == EntryStatus::Stale {
            tracing::warn!(
                runner = runner.label(),
                "config.toml holds a token that was replaced: putting the current one back"
            );
        }
        if entry_status == EntryStatus::Stale || (entry_status == EntryStatus::Missing && runner.is_unwritten()) {
            unsaved = self.project(runner).await.err();
        }
        Ok(Reconciled { entry_status, is_replaced: entered.is_replaced, unsaved })
    }

    /// Writes an entry anew that an enrollment wants and config.toml has lost.
    ///
    /// # Errors
    /// [`Error::Compose`] or [`Error::Disk`].
    pub async fn restore(&self, runner: &mut Runner, enrollment: &Enrollment) -> Result<(), Error> {
        let entered = self.enter(runner).await?;
        if EntryStatus::of(runner, &entered.snapshot) != EntryStatus::Missing || runner.record.credential.is_none() {
            return Ok(());
        }
        if runner.record.entry_text.is_none() {
            runner.record.entry_text = Some(EntryText::compose(&enrollment.entry)?);
        }
        self.project(runner).await
    }

    /// The part of [`Ops::save`] that an operation does under its own lock.
    pub(super) async fn project(&self, runner: &mut Runner) -> Result<(), Error> {
        let Some(credential) = runner.record.credential.clone() else {
            return Ok(self.remember(runner).await?);
        };
        let id = runner.record.id;
        let renewed = match &runner.record.entry_text {
            Some(text) => self.disk.edit(Edit::Insert { text: text.clone(), id, credential }).await,
            None => self.renew(runner, credential).await,
        };
        match renewed {
            Ok(_) => runner.record.entry_text = None,
            // An entry that a person removed is not brought back here, but the record stays right.
            Err(store::Error::NoSuchEntry { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.remember(runner).await?)
    }

    /// An entry that carries another number but one of the runner's own tokens is from before it was
    /// registered anew, and gets the new number too.
    async fn renew(&self, runner: &Runner, credential: Credential) -> Result<Edited, store::Error> {
        let renewal = Edit::Renew { target: runner.target(), id: None, credential: credential.clone() };
        match self.disk.edit(renewal).await {
            Err(store::Error::NoSuchEntry { .. }) if runner.record.id.is_some() => {
                let target = EntrySelector { id: None, ..runner.target() };
                self.disk.edit(Edit::Renew { target, id: runner.record.id, credential }).await
            }
            result => result,
        }
    }
}
