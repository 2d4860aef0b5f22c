//! Moving a record: the same runner under another key, with everything that is stored beside the record.

use super::{Disk, Error, LOCK_WAIT, Ops, Server, Unfinished};
use crate::model::{Held, Origin, RunnerKey};
use crate::store::{self, JournalOperation, Pending, Record};

/// A record that gets another key or another enrollment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordMove {
    /// The key that it is stored under.
    pub from: RunnerKey,
    /// The record with its new key and enrollment, and perhaps as one that was given. What is stored under the old key
    /// decides everything else.
    pub record: Record,
    /// Whether there was a record under the old key. One that is gone by now was unregistered, and stays so.
    pub is_recorded: bool,
    /// Whether its token may be written; a token from an environment variable may not.
    pub is_stored: bool,
}

/// A record that was moved.
#[derive(Debug)]
pub struct Moved {
    /// The record as it is stored now.
    pub record: Record,
    /// What the moved journal says.
    pub unfinished: Option<Unfinished>,
}

impl<S: Server, D: Disk> Ops<S, D> {
    /// Moves a record with its candidates, its evidence and its journal, under the locks of both keys.
    ///
    /// Each part is written under the new key before it is removed under the old one. A crash may leave parts under
    /// both keys; the next inventory moves the rest. Returns `None` if another process has changed the records since
    /// the inventory; nothing is moved then.
    ///
    /// # Errors
    /// [`Error::Disk`]; with [`store::Error::RunnerLocked`] if another process works on the runner.
    pub async fn move_record(&self, change: &RecordMove) -> Result<Option<Moved>, Error> {
        self.move_and_leave(change, None).await
    }

    /// As [`Ops::move_record`], and leaves another record under the old key.
    pub(super) async fn move_and_leave(
        &self,
        change: &RecordMove,
        left: Option<Record>,
    ) -> Result<Option<Moved>, Error> {
        let (from, to) = (&change.from, &change.record.key);
        // Two processes that lock both keys take them in the same order.
        let _first = self.disk.lock_runner(from.min(to), LOCK_WAIT).await?;
        let _second = if from == to { None } else { Some(self.disk.lock_runner(from.max(to), LOCK_WAIT).await?) };
        let stored = self.disk.record(from).await?;
        let source = match stored {
            Some(record) if record.url != change.record.url => return Ok(None),
            Some(record) if record.credential.is_none() && from != to => return Ok(None),
            Some(record) => record,
            None if change.is_recorded && self.disk.has_state() => return Ok(None),
            None => change.record.clone(),
        };
        let origin = if change.record.origin == Origin::Given { Origin::Given } else { source.origin };
        let record = Record { key: to.clone(), enrollment: change.record.enrollment.clone(), origin, ..source };
        if from == to {
            self.disk.save_record(record.clone()).await?;
            return Ok(Some(Moved { record, unfinished: None }));
        }
        let record = match self.disk.record(to).await? {
            Some(there) if there.credential.is_some() && knows_token_of(&there, &record) => there,
            Some(there) if there.credential.is_some() => return Ok(None),
            Some(_) | None => {
                if change.is_stored {
                    self.disk.save_record(record.clone()).await?;
                }
                record
            }
        };
        self.keep_loss(to, &record).await?;
        self.move_held(from, to).await?;
        let unfinished = self.move_journal(from, to).await?;
        match left {
            Some(left) => self.disk.save_record(left).await?,
            None => self.disk.remove_record(from).await?,
        }
        Ok(Some(Moved { record, unfinished }))
    }

    /// Removes a record without a token, which an enrollment left behind at its former server.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn remove_blank_record(&self, key: &RunnerKey) -> Result<(), Error> {
        let _lock = self.disk.lock_runner(key, LOCK_WAIT).await?;
        match self.disk.record(key).await? {
            Some(record) if record.credential.is_none() => Ok(self.disk.remove_record(key).await?),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) async fn move_held(&self, from: &RunnerKey, to: &RunnerKey) -> Result<(), Error> {
        let held = self.disk.held(from).await?;
        if held.is_empty() {
            return Ok(());
        }
        let there = self.disk.held(to).await?;
        self.disk.save_held(to, merged(there, held)).await?;
        Ok(self.disk.save_held(from, Held::default()).await?)
    }

    pub(super) async fn move_journal(&self, from: &RunnerKey, to: &RunnerKey) -> Result<Option<Unfinished>, Error> {
        let Some(Pending { intent, answer, .. }) = self.disk.pending_of(from).await? else {
            return Ok(self.disk.pending_of(to).await?.and_then(|pending| unfinished(&pending)));
        };
        let there = self.disk.pending_of(to).await?;
        if there.as_ref().is_none_or(|there| there.answer.is_none() && answer.is_some()) {
            self.disk.begin(to, intent).await?;
            if let Some(answer) = answer {
                self.disk.answered(to, answer).await?;
            }
        }
        self.disk.clear(from).await?;
        Ok(self.disk.pending_of(to).await?.and_then(|pending| unfinished(&pending)))
    }
}

/// Whether a record has the other's token, as its current or as a former one: it is a later copy of the same runner.
pub fn knows_token_of(record: &Record, other: &Record) -> bool {
    let Some(other) = &other.credential else { return false };
    let is_current = record.credential.as_ref().is_some_and(|credential| credential.token == other.token);
    is_current || record.former_digests.contains(&other.token.digest())
}

fn merged(there: Held, mut held: Held) -> Held {
    held.candidates.retain(|candidate| there.candidates.iter().all(|known| known.token != candidate.token));
    let candidates = [held.candidates, there.candidates].concat();
    Held { candidates, evidence: there.evidence.or(held.evidence) }
}

/// What a journal says before any replay.
fn unfinished(pending: &Pending) -> Option<Unfinished> {
    match (&pending.intent.operation, &pending.answer) {
        (JournalOperation::Rotate { .. }, None) => Some(Unfinished::LostReset),
        (JournalOperation::Rotate { .. } | JournalOperation::Register { .. }, Some(_)) => Some(Unfinished::Unsaved),
        (JournalOperation::Unregister { .. }, _) => Some(Unfinished::Unregistration),
        (JournalOperation::Register { .. }, None) => None,
    }
}

/// Whether another process holds the lock that a move needs.
#[must_use]
pub fn is_locked(error: &Error) -> bool {
    matches!(error, Error::Disk(store::Error::RunnerLocked { .. }))
}
