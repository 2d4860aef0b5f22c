//! Unregister: end a runner, or this machine's part in it.

use std::path::PathBuf;

use super::{Dated, Disk, EntryStatus, Error, Ops, Runner, Server};
use crate::gitlab::Disposition;
use crate::model::{Expiry, Origin, StateName, Timestamp};
use crate::store::{self, Edit, Intent, JournalAnswer, JournalOperation, Record};

/// What becomes of the `[[runners]]` entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryFate {
    /// It stays with its token: what cannot be made again is not destroyed.
    Keep,
    /// It goes; its text is kept in the record, to be used when the runner is enrolled again.
    KeepText,
    /// It goes; its text is kept among the dropped ones, as [`Unregistered::dropped_to`] says. The
    /// runner is forgotten, save that an enrollment's record stays as retired, so that a running daemon does
    /// not bring the entry back.
    Drop,
}

impl EntryFate {
    /// What an unregistration by the daemon does to the entry: a registered runner of an enrollment can be
    /// made again from its kept text, a given one cannot be made again at all.
    #[must_use]
    pub fn at_shutdown(record: &Record) -> Self {
        match (record.origin, &record.enrollment) {
            _ if record.is_copy => Self::Keep,
            (Origin::Given, _) => Self::Keep,
            (Origin::Registered | Origin::V1, Some(_)) => Self::KeepText,
            (Origin::Registered | Origin::V1, None) => Self::Drop,
        }
    }
}

/// What an unregistration did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unregistered {
    /// What the server said.
    pub found: Unregistration,
    /// Where the text of the entry is kept that was dropped from config.toml.
    pub dropped_to: Option<PathBuf>,
}

/// What the server said to an unregistration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unregistration {
    /// The server deleted it.
    Deleted,
    /// The server no longer knew it.
    AlreadyGone,
    /// The token is past its expiry, so the server's refusal does not tell: the runner may remain there.
    MayRemain,
}

impl<S: Server, D: Disk> Ops<S, D> {
    /// Deletes a registered runner, or this machine's manager of a given one, and does to the entry what
    /// `fate` says.
    ///
    /// # Errors
    /// [`Error::Changing`] if the server did not say that it did it; the entry stays then. [`Error::Disk`] if
    /// the journal cannot be written before, or the entry not be changed after; the record's state is
    /// `retired` then, and the journal lets the next start finish.
    pub async fn unregister(
        &self,
        runner: &mut Runner,
        fate: EntryFate,
        now: Timestamp,
    ) -> Result<Dated<Unregistered>, Error> {
        let _lock = self.lock(runner).await?;
        self.bring_in(runner).await?;
        if self.is_gone_already(runner).await? {
            let dropped_to = self.retire(runner, fate, now).await?;
            return Ok(Dated::unasked(Unregistered { found: Unregistration::AlreadyGone, dropped_to }));
        }
        self.check_settled(runner).await?;
        if fate != EntryFate::Keep && !runner.is_unwritten() {
            self.disk.probe().await?;
        }
        self.adopt_before_the_end(runner, now).await?;
        let token = runner.token()?;
        let manager_only = runner.record.origin == Origin::Given || runner.record.is_copy;
        let intent = Intent {
            operation: JournalOperation::Unregister {
                url: runner.record.url.clone(),
                id: runner.record.id,
                fingerprint: token.fingerprint(),
                manager_only,
            },
            at: now,
            system_id: Some(self.identity.system_id.clone()),
        };
        self.disk.begin(&runner.record.key, intent).await?;
        let answer = match runner.record.origin {
            _ if manager_only => self.server.delete_manager(&runner.site, &token, &self.identity.system_id).await,
            Origin::V1 => self.server.delete_v1(&runner.site, &token).await,
            Origin::Registered | Origin::Given => self.server.delete_runner(&runner.site, &token).await,
        };
        let date = answer.as_ref().map_or_else(|failure| failure.date, |answer| answer.date);
        let found = match answer {
            Ok(_) => Unregistration::Deleted,
            Err(failure) => match failure.disposition {
                Disposition::Refused | Disposition::Gone => gone(runner, date.unwrap_or(now)),
                // A server that does not know the call has no managers either.
                Disposition::Unsupported if manager_only => Unregistration::AlreadyGone,
                // It may have happened: the journal stays, and whoever finishes it asks again.
                Disposition::Unknown { .. } => return Err(Error::Changing(failure)),
                Disposition::NotExecuted { .. }
                | Disposition::RotationClosed
                | Disposition::Unsupported
                | Disposition::MustAct(_) => {
                    self.disk.clear(&runner.record.key).await?;
                    return Err(Error::Changing(failure));
                }
            },
        };
        let done = JournalAnswer { id: None, token: None, expiry: Expiry::Unknown, obtained_at: date };
        self.disk.answered(&runner.record.key, done).await?;
        let dropped_to = self.retire(runner, fate, now).await?;
        Ok(Dated { value: Unregistered { found, dropped_to }, date })
    }

    /// Whether the server has said so to a process that did not come to change the entry.
    async fn is_gone_already(&self, runner: &Runner) -> Result<bool, Error> {
        let Some(pending) = self.disk.pending_of(&runner.record.key).await? else { return Ok(false) };
        Ok(match (&pending.intent.operation, &pending.answer) {
            (JournalOperation::Unregister { fingerprint, .. }, Some(_)) => !runner.holds_another_than(fingerprint),
            _ => false,
        })
    }

    /// The part after the server's answer, which a replay finishes too. Returns where a dropped entry is kept.
    pub(super) async fn retire(
        &self,
        runner: &mut Runner,
        fate: EntryFate,
        now: Timestamp,
    ) -> Result<Option<PathBuf>, Error> {
        runner.record.state = Some(StateName::Retired);
        runner.record.since = Some(now);
        let mut dropped_to = None;
        match fate {
            EntryFate::Keep => self.remember(runner).await?,
            EntryFate::KeepText => {
                self.keep_texts(runner, now).await?;
                self.remove_entries(runner).await?;
                runner.give_up();
                self.remember(runner).await?;
            }
            EntryFate::Drop => {
                dropped_to = self.drop_texts(runner, now).await?;
                self.remove_entries(runner).await?;
                if runner.record.enrollment.is_some() {
                    runner.give_up();
                    self.remember(runner).await?;
                } else {
                    self.disk.remove_record(&runner.record.key).await?;
                }
            }
        }
        self.disk.clear(&runner.record.key).await?;
        Ok(dropped_to)
    }

    /// Writes the first entry's text into the record, and those of its duplicates aside, before any of them
    /// is taken out of config.toml.
    async fn keep_texts(&self, runner: &mut Runner, now: Timestamp) -> Result<(), Error> {
        let mut texts = self.disk.texts(runner.target()).await?.into_iter();
        if let Some(text) = texts.next() {
            runner.record.entry_text = Some(text);
            self.remember(runner).await?;
        }
        for text in texts {
            self.disk.keep_dropped(runner.label(), &text, now).await?;
        }
        Ok(())
    }

    async fn drop_texts(&self, runner: &mut Runner, now: Timestamp) -> Result<Option<PathBuf>, Error> {
        let mut dropped_to = None;
        for text in self.disk.texts(runner.target()).await? {
            dropped_to = self.disk.keep_dropped(runner.label(), &text, now).await?;
            if runner.record.enrollment.is_some() {
                runner.record.entry_text = Some(text);
            }
        }
        Ok(dropped_to)
    }

    /// A token that somebody else has put into config.toml is the runner's by now, and ours is dead. A
    /// config.toml that cannot be read is no reason to leave a runner behind.
    async fn adopt_before_the_end(&self, runner: &mut Runner, now: Timestamp) -> Result<(), Error> {
        let Ok(snapshot) = self.disk.read().await else { return Ok(()) };
        if let EntryStatus::Foreign { credential, id } = EntryStatus::of(runner, &snapshot) {
            self.adopt(runner, credential, id, now).await?;
        }
        Ok(())
    }

    /// Drops a runner's entry without asking the server, because its token was refused for good. Returns where the
    /// entry is kept.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn drop_entry(&self, runner: &mut Runner, now: Timestamp) -> Result<Option<PathBuf>, Error> {
        let _lock = self.lock(runner).await?;
        self.retire(runner, EntryFate::Drop, now).await
    }

    async fn remove_entries(&self, runner: &Runner) -> Result<(), Error> {
        match self.disk.edit(Edit::Remove { target: runner.target() }).await {
            Ok(_) | Err(store::Error::NoSuchEntry { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn gone(runner: &Runner, now: Timestamp) -> Unregistration {
    match runner.validity(now) {
        Some(validity) if validity.is_expired(now) => Unregistration::MayRemain,
        _ => Unregistration::AlreadyGone,
    }
}
