//! Twins: runners with one token at different addresses of what may be one server; see `engine::ManagedRunner`. Two
//! records of one runner are twins too, until the next inventory.

use std::time::Duration;

use super::candidates::{Asked, Unadopted};
use super::namesakes::target_of;
use super::verify::apply_answer;
use super::{Disk, Error, Inquiry, Locked, Ops, Runner, Server};
use crate::lifecycle::{Outcome, outlives_twin};
use crate::model::{Credential, Expiry, RunnerKey, Timestamp};
use crate::store::{Record, RecordQuery, Snapshot};

impl<S: Server, D: Disk> Ops<S, D> {
    /// Locks the runner that this one is a twin of: at most one of the two is reset at a time. Twins have a queue of
    /// their own, because each waits for a place towards the host while it holds this lock.
    ///
    /// # Errors
    /// [`Error::Disk`] if another operation holds the lock for too long, [`Error::Stopping`].
    pub async fn lock_twin(&self, runner: &Runner) -> Result<Option<Locked<D::RunnerLock>>, Error> {
        let Some(twin) = &runner.twin_of else { return Ok(None) };
        let host = format!("twins at {}", runner.site.url.authority());
        let lock = async || self.disk.lock_runner(twin, Duration::ZERO).await;
        let locked = self.unless_stopping(self.queue_at(self.turns_at(host), lock)).await??;
        Ok(Some(Locked::without_request(locked)))
    }

    /// Whether the same runner at another address has another token by now, which this one is to be verified for.
    pub async fn has_twin_moved(&self, runner: &Runner) -> bool {
        self.moved_twin(runner).await.ok().flatten().is_some()
    }

    /// Whether the runner that this one is a twin of is another record at the same address, with the same token still.
    pub async fn has_twin_here(&self, runner: &Runner) -> bool {
        let Some(twin) = &runner.twin_of else { return false };
        let record = self.disk.record(twin).await.ok().flatten();
        record
            .filter(|record| record.url == runner.record.url)
            .is_some_and(|record| record.credential.is_some_and(|credential| runner.is_current(&credential.token)))
    }

    /// Whether another record at the same address has replaced this runner's token, and has an entry. Its runner takes every
    /// entry with that token for its own.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn is_replaced_here(&self, runner: &Runner) -> Result<bool, Error> {
        let Some(digest) = runner.digest() else { return Ok(false) };
        let snapshot = self.disk.read().await?;
        let has_replaced = |record: Record| {
            record.key != runner.record.key
                && record.url == runner.record.url
                && record.former_digests.contains(&digest)
                && snapshot.of(&target_of(&record)).next().is_some()
        };
        Ok(self.disk.records_with(RecordQuery::Token(digest)).await?.into_iter().any(has_replaced))
    }

    /// A token that is accepted although the runner at the other address has another one belongs to a runner of its own,
    /// as on a GitLab that was restored from a copy of the other. Returns whether it is too early to tell.
    pub(super) async fn part_from_twin(&self, runner: &mut Runner, accepted_at: Timestamp) -> Result<bool, Error> {
        let Some((twin, _)) = self.moved_twin(runner).await? else { return Ok(false) };
        let expiry = runner.record.credential.as_ref().map_or(Expiry::Unknown, |credential| credential.expiry);
        let is_own = outlives_twin(accepted_at, twin.replaced_at(), expiry);
        if is_own {
            tracing::info!(
                runner = runner.label(),
                twin = runner.twin_of.as_ref().map(ToString::to_string),
                "not the same runner as at another address: rotating its token here"
            );
            runner.twin_of = None;
        }
        Ok(!is_own)
    }

    /// The same runner at another address may have got a new token: if this address accepts it too, it is ours.
    pub(super) async fn ask_twin(&self, runner: &mut Runner, inquiry: &Inquiry<'_>) -> Result<Asked, Error> {
        let Some((twin, credential)) = self.moved_twin(runner).await? else {
            return Ok(Asked::Not(Unadopted::default()));
        };
        let mut answer = match self.send_verify(runner, &credential.token).await {
            Ok(answer) => answer,
            Err(error) => {
                let is_unanswered = error.outcome() != Outcome::Refused;
                return Ok(Asked::Not(Unadopted { is_unanswered, ..Unadopted::default() }));
            }
        };
        // A person has put the token of a third runner into the twin's entry.
        if answer.value.id.zip(runner.record.named_id()).is_some_and(|(actual, ours)| actual != ours) {
            return Ok(Asked::Not(Unadopted::default()));
        }
        tracing::info!(runner = runner.label(), twin = %twin.key, token = %credential.token.fingerprint(),
            "following the token of the same runner at another address or under another record");
        runner.take(credential, inquiry.now.at);
        answer.date = self.accepted_at(runner, &answer, runner.times(), inquiry);
        apply_answer(runner, &answer, self.present(runner, inquiry));
        self.save_record(runner).await?;
        Ok(Asked::Adopted(answer))
    }

    /// A token that was found in the runner's entry can be that of a runner with another record: until the next inventory
    /// both records are of one runner, and one of them counts as its twin.
    pub(super) async fn note_same(&self, runner: &mut Runner) -> Result<(), Error> {
        if runner.twin_of.is_some() {
            return Ok(());
        }
        let is_same = |record: &Record| {
            record.key != runner.record.key
                && record.url == runner.record.url
                && record.credential.as_ref().is_some_and(|credential| runner.is_current(&credential.token))
        };
        let Some(digest) = runner.digest() else { return Ok(()) };
        let mut others = if self.disk.has_state() {
            self.disk.records_with(RecordQuery::Token(digest)).await?
        } else {
            let snapshot = self.disk.read().await?;
            let found = snapshot.with_token(&runner.record.url, digest).filter_map(|entry| Runner::found(entry).ok());
            found.map(|found| found.record).collect()
        };
        others.retain(is_same);
        runner.twin_of = others.into_iter().next().map(|record| record.key);
        Ok(())
    }

    /// The record of a twin that has another token by now: of the one that the inventory named, else of any that has
    /// replaced this runner's token.
    async fn moved_twin(&self, runner: &Runner) -> Result<Option<(Record, Credential)>, Error> {
        let Some(twin) = &runner.twin_of else { return Ok(None) };
        let named = self.disk.record(twin).await?.and_then(|record| moved(runner, record));
        if named.is_some() {
            return Ok(named);
        }
        if !self.disk.has_state() {
            return Ok(moved_entry(runner, twin, &*self.disk.read().await?));
        }
        let Some(digest) = runner.digest() else { return Ok(None) };
        let has_replaced = |record: &Record| record.url != runner.record.url && record.former_digests.contains(&digest);
        let others = self.disk.records_with(RecordQuery::Token(digest)).await?.into_iter().filter(has_replaced);
        Ok(others.filter_map(|record| moved(runner, record)).next())
    }
}

/// Without a state directory the twin's entry shows this, if it has the id that its key is made of.
fn moved_entry(runner: &Runner, twin: &RunnerKey, snapshot: &Snapshot) -> Option<(Record, Credential)> {
    let found = snapshot.entries.iter().filter_map(|entry| Runner::found(entry).ok());
    let twin = found.map(|found| found.record).find(|record| record.key == *twin)?;
    moved(runner, twin)
}

fn moved(runner: &Runner, record: Record) -> Option<(Record, Credential)> {
    let credential = record.credential.clone().filter(|credential| !runner.is_current(&credential.token))?;
    Some((record, credential))
}
