//! Replay: finish what a crash interrupted, before any request is sent.

use std::time::Duration;

use super::register::warn_of_orphan;
use super::rotate::received;
use super::unregister::fate_for;
use super::{Disk, Error, Ops, Runner, Server};
use crate::error_chain::chain;
use crate::model::{Credential, Origin, RunnerKey, Site, Timestamp, TlsFiles};
use crate::store::{self, Intent, JournalAnswer, JournalOperation, Pending};

/// An operation that a replay could not finish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// A reset was sent and its answer was not written: either token may be valid.
    LostReset,
    /// An unregistration was sent and may have been executed.
    Unregistration,
    /// The state directory holds the credential, but config.toml does not.
    Unsaved,
}

/// The result of a replay.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Runners with an unfinished operation.
    pub unfinished: Vec<(RunnerKey, Unfinished)>,
    /// Number of finished journals.
    pub finished: usize,
}

impl<S: Server, D: Disk> Ops<S, D> {
    /// Finishes every journal that needs no request.
    ///
    /// # Errors
    /// [`Error::Disk`] if the state directory cannot be read. If config.toml cannot be written, the runner is reported
    /// as unfinished instead.
    pub async fn replay(&self, now: Timestamp) -> Result<Replayed, Error> {
        let mut replayed = Replayed::default();
        for pending in self.disk.pending().await? {
            let key = pending.key.clone();
            let unfinished = match pending.intent.operation {
                JournalOperation::Register { .. } | JournalOperation::Rotate { .. } => Unfinished::Unsaved,
                JournalOperation::Unregister { .. } => Unfinished::Unregistration,
            };
            match self.replay_one(pending, now).await {
                Ok(Some(unfinished)) => replayed.unfinished.push((key, unfinished)),
                Ok(None) => replayed.finished += 1,
                Err(error) => {
                    tracing::error!(runner = %key, error = chain(&error), "cannot finish an interrupted operation: retrying later");
                    replayed.unfinished.push((key, unfinished));
                }
            }
        }
        Ok(replayed)
    }

    /// Finishes one journal, unless another process works on its runner.
    async fn replay_one(&self, pending: Pending, now: Timestamp) -> Result<Option<Unfinished>, Error> {
        match self.disk.lock_runner(&pending.key, Duration::ZERO).await {
            Ok(lock) => self.replay_locked(pending, now, lock).await,
            // Another process is working on this runner and will finish it.
            Err(store::Error::RunnerLocked { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// As [`Ops::replay_one`], under the runner's lock.
    pub(super) async fn replay_locked(
        &self,
        pending: Pending,
        now: Timestamp,
        _lock: D::RunnerLock,
    ) -> Result<Option<Unfinished>, Error> {
        // Another process may have finished it since the journals were listed.
        let Some(pending) = self.disk.pending_of(&pending.key).await? else { return Ok(None) };
        let Some(record) = self.disk.record(&pending.key).await? else {
            return self.replay_without_record(pending).await;
        };
        let site = Site { url: record.url.clone(), tls: TlsFiles::default() };
        let mut runner = Runner::recorded(record, site);
        self.load_held(&mut runner).await;
        let intent = &pending.intent;
        match (&intent.operation, &pending.answer) {
            // The new token is in the record but not in the journal.
            (JournalOperation::Rotate { old, .. }, None) if runner.record.former_tokens.contains(old) => {
                Ok(self.replay_token(&mut runner).await)
            }
            (JournalOperation::Rotate { .. }, None) => Ok(Some(Unfinished::LostReset)),
            (JournalOperation::Unregister { .. }, None) => Ok(Some(Unfinished::Unregistration)),
            (JournalOperation::Register { .. }, None) => {
                warn_of_orphan(intent);
                self.lose_registration(&mut runner, intent).await?;
                Ok(None)
            }
            (JournalOperation::Unregister { .. }, Some(_)) => {
                match fate_for(&runner, intent) {
                    Some(fate) => drop(self.retire(&mut runner, fate, now).await?),
                    // The runner has got another token since.
                    None => self.disk.clear(&pending.key).await?,
                }
                Ok(None)
            }
            (JournalOperation::Register { .. } | JournalOperation::Rotate { .. }, Some(answer)) => {
                if !answer.is_documented {
                    self.finish(&mut runner, pending.clone()).await?;
                    let is_reset = matches!(intent.operation, JournalOperation::Rotate { .. });
                    return Ok(is_reset.then_some(Unfinished::LostReset));
                }
                take_answer(&mut runner, intent, answer.clone());
                Ok(self.replay_token(&mut runner).await)
            }
        }
    }

    /// Moves a journaled token into the record; the caller holds the runner's lock. A token from an odd answer becomes a
    /// candidate.
    ///
    /// # Errors
    /// [`Error::Disk`]; the journal stays.
    pub(super) async fn finish(&self, runner: &mut Runner, pending: Pending) -> Result<(), Error> {
        let Pending { key, intent, answer } = pending;
        let Some(answer) = answer else { return Ok(()) };
        match (&intent.operation, &answer.token) {
            // The next unregistration finishes it, unless the entry gets another token.
            (JournalOperation::Unregister { .. }, _) | (_, None) => Ok(()),
            (_, Some(token)) if !answer.is_documented => {
                let (expiry, obtained_at) = (answer.expiry, answer.obtained_at);
                let credential = Credential { token: token.clone(), obtained_at, expiry };
                let origin = made_origin(runner, &intent);
                self.keep_received(runner, received(credential, intent.at, answer.id, origin)).await;
                self.save_held(runner).await?;
                if matches!(intent.operation, JournalOperation::Rotate { .. }) {
                    self.disk.take_back_to(&key, intent).await?;
                } else {
                    self.disk.clear(&key).await?;
                }
                Ok(())
            }
            (_, Some(_)) => {
                take_answer(runner, &intent, answer);
                self.save_record(runner).await?;
                Ok(self.disk.clear(&key).await?)
            }
        }
    }

    async fn replay_token(&self, runner: &mut Runner) -> Option<Unfinished> {
        let fingerprint =
            runner.record.credential.as_ref().map(|credential| credential.token.fingerprint().to_string());
        match self.project_and_clear(runner, Vec::new()).await {
            Ok(()) => {
                tracing::info!(
                    runner = runner.label(),
                    token = fingerprint,
                    "wrote a token from the journal to config.toml"
                );
                None
            }
            Err(error) => {
                tracing::error!(
                    runner = runner.label(),
                    token = fingerprint,
                    error = chain(&error),
                    "cannot write the token from the journal to config.toml"
                );
                Some(Unfinished::Unsaved)
            }
        }
    }

    /// Finishes a rotation of a runner without a record, or any operation if the user removed the record.
    async fn replay_without_record(&self, pending: Pending) -> Result<Option<Unfinished>, Error> {
        let Some(JournalAnswer { id: new_id, token: Some(token), expiry, obtained_at, .. }) = pending.answer else {
            warn_of_orphan(&pending.intent);
            match &pending.intent.operation {
                JournalOperation::Rotate { .. } if pending.answer.is_none() => return Ok(Some(Unfinished::LostReset)),
                JournalOperation::Register { .. } if pending.answer.is_none() => {
                    self.note_lost_registration(&pending.key, &pending.intent, None).await?;
                }
                JournalOperation::Register { .. }
                | JournalOperation::Rotate { .. }
                | JournalOperation::Unregister { .. } => {}
            }
            self.disk.clear(&pending.key).await?;
            return Ok(None);
        };
        let (url, id, old) = match pending.intent.operation {
            JournalOperation::Rotate { url, id, .. } => (url, id, pending.intent.token),
            JournalOperation::Unregister { url, id, .. } => (url, id, pending.intent.token),
            JournalOperation::Register { url, .. } => (url, None, None),
        };
        let origin = if token.looks_created() { Origin::Given } else { Origin::Registered };
        let mut runner = Runner::blank(pending.key, origin, Site { url, tls: TlsFiles::default() });
        runner.record.id = new_id.or(id);
        if let Some(old) = old {
            runner.record.add_former_token(old);
        }
        runner.take(Credential { token, obtained_at, expiry }, pending.intent.at);
        Ok(self.replay_token(&mut runner).await)
    }
}

fn take_answer(runner: &mut Runner, intent: &Intent, answer: JournalAnswer) {
    let now = intent.at;
    let origin = made_origin(runner, intent);
    match &intent.operation {
        JournalOperation::Register { seed, .. } => {
            runner.record.seed = Some(*seed);
            runner.record.seed_digest = intent.token;
            runner.record.given_to = None;
        }
        JournalOperation::Rotate { by_id, .. } => {
            runner.record.last_reset_at = answer.obtained_at;
            runner.record.recovered = answer.token.as_ref().filter(|_| *by_id).map(|token| token.fingerprint());
        }
        JournalOperation::Unregister { .. } => {}
    }
    if let Some(token) = answer.token {
        // The former token is kept with the former id and origin.
        runner.take(Credential { token, obtained_at: answer.obtained_at, expiry: answer.expiry }, now);
        runner.extend_lineage();
    }
    runner.record.origin = origin.unwrap_or(runner.record.origin);
    runner.record.id = answer.id.or(runner.record.id);
    runner.record.confirmed_id = answer.id.or(runner.record.confirmed_id);
}

/// How the runner of a journaled registration was made. The record was written before the request and already has the
/// origin `V1`.
fn made_origin(runner: &Runner, intent: &Intent) -> Option<Origin> {
    match &intent.operation {
        JournalOperation::Register { .. } if runner.record.origin == Origin::V1 => Some(Origin::V1),
        JournalOperation::Register { .. } => Some(Origin::Registered),
        JournalOperation::Rotate { .. } | JournalOperation::Unregister { .. } => None,
    }
}
