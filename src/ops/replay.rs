//! Replay: finish what a crash interrupted, before anything is sent.

use std::time::Duration;

use super::register::warn_of_orphan;
use super::{Disk, EntryFate, Error, Ops, Runner, Server};
use crate::error_chain::chain;
use crate::model::{Credential, Origin, RunnerKey, Site, Timestamp, TlsFiles};
use crate::store::{self, JournalAnswer, JournalOperation, Pending};

/// What a replay could not finish by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// A reset was sent and its answer never came to the disk: either token may be the valid one.
    LostReset,
    /// An unregistration was begun and perhaps executed.
    Unregistration,
    /// The credential is safe, but config.toml does not hold it yet.
    Unsaved,
}

/// What a replay found.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Runners with something left to do.
    pub unfinished: Vec<(RunnerKey, Unfinished)>,
    /// How many journals were finished.
    pub finished: usize,
}

impl<S: Server, D: Disk> Ops<S, D> {
    /// Finishes every journal as far as the disk alone allows.
    ///
    /// # Errors
    /// [`Error::Disk`] if the state directory cannot be read. A config.toml that cannot be written makes
    /// its runner unfinished instead.
    pub async fn replay(&self, now: Timestamp) -> Result<Replayed, Error> {
        let mut replayed = Replayed::default();
        for pending in self.disk.pending().await? {
            let (key, operation) = (pending.key.clone(), pending.intent.operation.clone());
            match self.replay_one(pending, now).await {
                Ok(Some(unfinished)) => replayed.unfinished.push((key, unfinished)),
                Ok(None) => replayed.finished += 1,
                Err(error) => {
                    tracing::error!(runner = %key, error = chain(&error), "cannot finish what was interrupted: trying again later");
                    replayed.unfinished.push((key, unfinished(&operation)));
                }
            }
        }
        Ok(replayed)
    }

    async fn replay_one(&self, pending: Pending, now: Timestamp) -> Result<Option<Unfinished>, Error> {
        let _lock = match self.disk.lock_runner(&pending.key, Duration::ZERO).await {
            Ok(lock) => lock,
            // Another process is at it right now and will finish it.
            Err(store::Error::RunnerLocked { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // It may have finished since the journals were listed.
        let Some(pending) = self.disk.pending_of(&pending.key).await? else {
            return Ok(None);
        };
        let Some(record) = self.disk.record(&pending.key).await? else {
            return self.replay_without_record(&pending).await;
        };
        let site = Site { url: record.url.clone(), tls: TlsFiles::default() };
        let mut runner = Runner::recorded(record, site);
        match (pending.intent.operation.clone(), pending.answer) {
            // The record got the new token although the journal did not.
            (JournalOperation::Rotate { old, .. }, None) if runner.record.former_tokens.contains(&old) => {
                Ok(self.replay_token(&mut runner).await)
            }
            (JournalOperation::Rotate { .. }, None) => Ok(Some(Unfinished::LostReset)),
            (JournalOperation::Unregister { .. }, None) => Ok(Some(Unfinished::Unregistration)),
            (JournalOperation::Register { .. }, None) => {
                warn_of_orphan(&pending.intent);
                self.disk.clear(&pending.key).await?;
                if runner.record.enrollment.is_none() && runner.record.credential.is_none() {
                    self.disk.remove_record(&pending.key).await?;
                }
                Ok(None)
            }
            (JournalOperation::Unregister { fingerprint, .. }, Some(_)) if !runner.holds_another_than(&fingerprint) => {
                let fate = EntryFate::at_shutdown(&runner.record);
                self.retire(&mut runner, fate, now).await?;
                Ok(None)
            }
            // Somebody has put another token into the entry since.
            (JournalOperation::Unregister { .. }, Some(_)) => {
                self.disk.clear(&pending.key).await?;
                Ok(None)
            }
            (operation @ (JournalOperation::Register { .. } | JournalOperation::Rotate { .. }), Some(answer)) => {
                take_answer(&mut runner, &operation, answer);
                Ok(self.replay_token(&mut runner).await)
            }
        }
    }

    /// Brings a token into the record whose process did not come that far; the caller holds the runner's
    /// lock, and compares record and entry next.
    ///
    /// # Errors
    /// [`Error::Disk`]; the journal stays then.
    pub(super) async fn finish(
        &self,
        runner: &mut Runner,
        operation: &JournalOperation,
        answer: JournalAnswer,
    ) -> Result<(), Error> {
        match operation {
            JournalOperation::Register { .. } | JournalOperation::Rotate { .. } => {
                take_answer(runner, operation, answer);
                self.remember(runner).await?;
                Ok(self.disk.clear(&runner.record.key).await?)
            }
            // It stays for whoever unregisters: the entry has yet to go, if nobody puts another token there.
            JournalOperation::Unregister { .. } => Ok(()),
        }
    }

    async fn replay_token(&self, runner: &mut Runner) -> Option<Unfinished> {
        let fingerprint = runner.record.credential.as_ref().map(|credential| credential.token.fingerprint());
        match self.project_and_clear(runner).await {
            Ok(()) => {
                tracing::info!(runner = runner.label(), token = ?fingerprint, "brought a token from the journal to config.toml");
                None
            }
            Err(error) => {
                tracing::error!(runner = runner.label(), token = ?fingerprint, error = chain(&error), "config.toml does not take the token from the journal");
                Some(Unfinished::Unsaved)
            }
        }
    }

    /// The record is written before a registration and after everything else, so only a rotation of a
    /// runner that was never recorded, or a hand that removed the record, leads here.
    async fn replay_without_record(&self, pending: &Pending) -> Result<Option<Unfinished>, Error> {
        let (url, id, old) = match &pending.intent.operation {
            JournalOperation::Rotate { url, id, old } => (url, *id, Some(old.clone())),
            JournalOperation::Unregister { url, id, fingerprint, .. } => (url, *id, Some(fingerprint.clone())),
            JournalOperation::Register { url, .. } => (url, None, None),
        };
        let token = pending.answer.as_ref().and_then(|answer| answer.token.clone());
        let Some(token) = token else {
            warn_of_orphan(&pending.intent);
            if matches!(pending.intent.operation, JournalOperation::Rotate { .. }) && pending.answer.is_none() {
                return Ok(Some(Unfinished::LostReset));
            }
            self.disk.clear(&pending.key).await?;
            return Ok(None);
        };
        let answer = pending.answer.clone();
        let site = Site { url: url.clone(), tls: TlsFiles::default() };
        let origin = if token.looks_created() { Origin::Given } else { Origin::Registered };
        let mut runner = Runner::blank(pending.key.clone(), origin, site);
        runner.record.id = answer.as_ref().and_then(|answer| answer.id).or(id);
        runner.record.former_tokens.extend(old);
        let obtained_at = answer.as_ref().and_then(|answer| answer.obtained_at);
        let expiry = answer.map(|answer| answer.expiry).unwrap_or_default();
        runner.take(Credential { token, obtained_at, expiry });
        Ok(self.replay_token(&mut runner).await)
    }
}

/// What is left of an operation that could not be finished now.
fn unfinished(operation: &JournalOperation) -> Unfinished {
    match operation {
        JournalOperation::Register { .. } | JournalOperation::Rotate { .. } => Unfinished::Unsaved,
        JournalOperation::Unregister { .. } => Unfinished::Unregistration,
    }
}

fn take_answer(runner: &mut Runner, operation: &JournalOperation, answer: JournalAnswer) {
    runner.record.id = answer.id.or(runner.record.id);
    match operation {
        JournalOperation::Register { seed, .. } => {
            // The record was written before the request, and says so where it went to the API of 2016.
            if runner.record.origin != Origin::V1 {
                runner.record.origin = Origin::Registered;
            }
            runner.record.seed = Some(seed.clone());
        }
        JournalOperation::Rotate { .. } => runner.record.last_reset_at = answer.obtained_at,
        JournalOperation::Unregister { .. } => {}
    }
    if let Some(token) = answer.token {
        runner.take(Credential { token, obtained_at: answer.obtained_at, expiry: answer.expiry });
    }
}
