//! Unregister: delete a runner, or only this machine's manager of it.

use std::path::PathBuf;

use super::{Disk, EntryStatus, Error, Ops, Runner, Server};
use crate::gitlab::Disposition;
use crate::model::{Expiry, Origin, StateName, Timestamp};
use crate::store::{self, Edit, JournalAnswer, JournalOperation, Record};

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
    /// What an unregistration by the daemon does with the entry: a registered runner of an enrollment can be registered
    /// again with its kept text; a given one cannot be registered again.
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
    /// Deletes a registered runner, or this machine's manager of a given one, and handles the entry by `fate`.
    ///
    /// # Errors
    /// [`Error::Changing`] if the server did not confirm the deletion; the entry stays. [`Error::Disk`] if the journal
    /// cannot be written before the request, or the entry cannot be changed after it; in the latter case the record's
    /// state is `retired` and the next start finishes from the journal.
    pub async fn unregister(
        &self,
        runner: &mut Runner,
        fate: EntryFate,
        now: Timestamp,
    ) -> Result<UnregisterResult, Error> {
        let _lock = self.lock(runner).await?;
        self.take_pending(runner).await?;
        if self.is_gone_already(runner).await? {
            let dropped_to = self.retire(runner, fate, now).await?;
            return Ok(UnregisterResult { found: Unregistration::AlreadyGone, dropped_to, date: None });
        }
        self.check_settled(runner).await?;
        if fate != EntryFate::Keep && !runner.is_unwritten() {
            self.disk.probe().await?;
        }
        self.adopt_before_deletion(runner, now).await?;
        let token = runner.token()?;
        let manager_only = runner.record.origin == Origin::Given || runner.record.is_copy;
        let operation = JournalOperation::Unregister {
            url: runner.record.url.clone(),
            id: runner.record.id,
            fingerprint: token.fingerprint(),
            manager_only,
            fate: None,
        };
        self.disk.begin(&runner.record.key, self.intent(operation, now)).await?;
        let answer = match runner.record.origin {
            _ if manager_only => self.server.delete_manager(&runner.site, &token, &self.identity.system_id).await,
            Origin::V1 => self.server.delete_v1(&runner.site, &token).await,
            Origin::Registered | Origin::Given => self.server.delete_runner(&runner.site, &token).await,
        };
        let date = answer.as_ref().map_or_else(|failure| failure.date, |answer| answer.date);
        let found = match answer {
            Ok(_) => Unregistration::Deleted,
            Err(failure) => match failure.disposition {
                Disposition::Refused | Disposition::Gone => already_gone(runner, date.unwrap_or(now)),
                // A server without this call has no managers.
                Disposition::Unsupported if manager_only => Unregistration::AlreadyGone,
                // It may have been executed: the journal stays, and the next attempt asks again.
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
        let done =
            JournalAnswer { id: None, token: None, expiry: Expiry::Unknown, obtained_at: date, is_documented: true };
        self.disk.answered(&runner.record.key, done).await?;
        let dropped_to = self.retire(runner, fate, now).await?;
        Ok(UnregisterResult { found, dropped_to, date })
    }

    /// Whether the server has confirmed the deletion to a process that could not change the entry.
    async fn is_gone_already(&self, runner: &Runner) -> Result<bool, Error> {
        let Some(pending) = self.disk.pending_of(&runner.record.key).await? else { return Ok(false) };
        Ok(match (&pending.intent.operation, &pending.answer) {
            (JournalOperation::Unregister { fingerprint, .. }, Some(_)) => !runner.has_other_token_than(fingerprint),
            _ => false,
        })
    }

    /// Retires the record and handles the entry after the server's answer. Returns the file of a dropped entry.
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
                }
            }
        }
        self.disk.clear(&runner.record.key).await?;
        Ok(dropped_to)
    }

    /// Keeps the first entry's text in the record and those of duplicates in files, before the entries are removed.
    async fn keep_texts(&self, runner: &mut Runner, now: Timestamp) -> Result<(), Error> {
        let mut texts = self.disk.texts(runner.target()).await?.into_iter();
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
        for text in self.disk.texts(runner.target()).await? {
            dropped_to = self.disk.keep_dropped(runner.label(), &text, now).await?;
            if runner.record.enrollment.is_some() {
                runner.record.entry_text = Some(text);
            }
        }
        Ok(dropped_to)
    }

    /// Adopts an unknown token from config.toml, because ours may no longer work. An unreadable config.toml does not
    /// prevent the deletion.
    async fn adopt_before_deletion(&self, runner: &mut Runner, now: Timestamp) -> Result<(), Error> {
        let Ok(snapshot) = self.disk.read().await else { return Ok(()) };
        if let EntryStatus::Foreign { credential, id } = EntryStatus::of(runner, &snapshot) {
            self.adopt(runner, credential, id, now).await?;
        }
        Ok(())
    }

    /// Drops the entry of a runner with a refused token, without a request. Returns the file that keeps the entry.
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

fn already_gone(runner: &Runner, now: Timestamp) -> Unregistration {
    match runner.validity(now) {
        Some(validity) if validity.is_expired(now) => Unregistration::MayRemain,
        _ => Unregistration::AlreadyGone,
    }
}
