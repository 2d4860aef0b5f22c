//! Another address of the same GitLab: the record of a runner goes over to it.

use super::move_record::knows_token_of;
use super::verify::{apply_answer, note_acceptance};
use super::{Disk, Error, LOCK_WAIT, Ops, Runner, Server};
use crate::gitlab::{Answer, Verified};
use crate::model::{Candidate, CandidateSource, Credential, RunnerId, Timestamp};
use crate::store::{JournalOperation, Pending, Record};

/// What became of a record whose server has another address.
#[derive(Debug)]
pub enum Relocation {
    /// The server at the new address has accepted the token, and the record names that address.
    Done(Box<Runner>),
    /// The token is another runner's there: of this id, if the server names one.
    Other(Option<RunnerId>),
    /// Another process has changed one of the records meanwhile.
    Changed,
    /// A registration or unregistration of the runner is not finished.
    Unfinished,
}

impl<S: Server, D: Disk> Ops<S, D> {
    /// Lets a record follow its runner to another address. `there` is the runner of the entry at that address, as the
    /// inventory lists it. It may have a record of its own by now; the two become one.
    ///
    /// Asks the server at the new address about the newer one of their tokens first, and changes nothing unless it
    /// accepts that. What is kept of the two: how the runner was made and its enrollment, its id, and every token that it
    /// had. What the former address has said about the token is dropped. After a crash between the files the records are
    /// both there, both at the new address, and the next inventory treats them as one runner.
    ///
    /// # Errors
    /// [`Error::Asking`] if the token is refused or the server does not answer; [`Error::Disk`], with
    /// [`store::Error::RunnerLocked`](crate::store::Error::RunnerLocked) if another process works on the runner.
    pub async fn relocate(&self, record: &Record, there: &Runner, now: Timestamp) -> Result<Relocation, Error> {
        let (from, to) = (&record.key, &there.record.key);
        let _first = self.disk.lock_runner(from.min(to), LOCK_WAIT).await?;
        let _second = if from == to { None } else { Some(self.disk.lock_runner(from.max(to), LOCK_WAIT).await?) };
        let beside = if from == to { None } else { self.disk.record(to).await? };
        let is_same =
            |known: &Record, stored: &Record| (&known.url, &known.credential) == (&stored.url, &stored.credential);
        let Some(source) = self.disk.record(from).await?.filter(|stored| is_same(record, stored)) else {
            return Ok(Relocation::Changed);
        };
        if beside.as_ref().map_or(there.is_recorded() && from != to, |stored| !is_same(&there.record, stored)) {
            return Ok(Relocation::Changed);
        }
        for key in [from, to] {
            if self.disk.pending_of(key).await?.is_some_and(|pending| !is_reset(&pending)) {
                return Ok(Relocation::Unfinished);
            }
        }
        let (current, other) = newer_first(&source, &there.record);
        let Some(current) = current else { return Ok(Relocation::Changed) };
        let verified = self.send_verify(there, &current.token).await?;
        if is_another(&source, &there.record, &verified) {
            return Ok(Relocation::Other(verified.value.id));
        }
        let record = joined(source.clone(), beside.unwrap_or_else(|| there.record.clone()), current, other.as_ref());
        let mut runner = Runner::recorded(record, there.site.clone());
        apply_answer(&mut runner, &verified, now);
        note_acceptance(&mut runner, verified.date.unwrap_or(now));
        self.store_joined(&source, there, &runner, other, now).await?;
        Ok(Relocation::Done(Box::new(runner)))
    }

    /// Writes the record and what is kept beside it under its key, and removes what the other key has.
    async fn store_joined(
        &self,
        source: &Record,
        there: &Runner,
        runner: &Runner,
        other: Option<Credential>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let kept = &runner.record.key;
        let gone = if *kept == source.key { &there.record.key } else { &source.key };
        if gone != kept {
            self.move_held(gone, kept).await?;
        }
        let mut held = self.disk.held(kept).await?;
        if let Some(Credential { token, obtained_at, expiry }) = other
            && held.candidates.iter().all(|known| known.token != token)
        {
            held.candidates.push(Candidate {
                token,
                source: CandidateSource::Former,
                noted_at: runner.record.last_verify.as_ref().map_or(now, |last| last.at),
                obtained_at,
                expiry,
                id: runner.record.id,
                origin: Some(runner.record.origin),
                refused: None,
            });
        }
        let current = runner.record.credential.as_ref().map(|credential| &credential.token);
        held.candidates.retain(|candidate| Some(&candidate.token) != current);
        // It is about the answers of the former address.
        held.evidence = None;
        self.disk.save_held(kept, held).await?;
        self.disk.save_record(runner.record.clone()).await?;
        if gone != kept {
            self.move_journal(gone, kept).await?;
            self.disk.remove_record(gone).await?;
        }
        Ok(())
    }
}

/// Whether a journal is that of a reset, which the token's acceptance at either address settles alike.
fn is_reset(pending: &Pending) -> bool {
    matches!(pending.intent.operation, JournalOperation::Rotate { .. })
}

/// The newer one of two credentials, and the older one if its token is another. The one whose token the other record had
/// before is the older one. Without a sign config.toml is right, which names the new address.
fn newer_first(source: &Record, there: &Record) -> (Option<Credential>, Option<Credential>) {
    let (own, other) = (source.credential.clone(), there.credential.clone());
    if own.is_none() || other.is_none() || knows_token_of(source, there) {
        let is_other = |other: &Credential| own.as_ref().is_some_and(|own| own.token != other.token);
        let older = other.filter(is_other);
        return (own, older);
    }
    (other, own)
}

/// Whether the token that the server has accepted is another runner's than the record's.
fn is_another(source: &Record, there: &Record, verified: &Answer<Verified>) -> bool {
    match (verified.value.id, source.named_id()) {
        (Some(named), Some(known)) => named != known,
        // Without an id, the two are one runner if one of them has the other's token.
        (Some(_) | None, _) => !knows_token_of(there, source) && !knows_token_of(source, there),
    }
}

/// The record of both: how the runner was made is the older record's to say. An enrollment that has taken the runner over
/// at the new address keeps it.
fn joined(source: Record, there: Record, current: Credential, other: Option<&Credential>) -> Record {
    let is_own = source.credential.as_ref().is_some_and(|own| own.token == current.token);
    let (key, enrollment) = match there.enrollment {
        Some(_) => (there.key, there.enrollment),
        None => (source.key, source.enrollment),
    };
    let mut record = Record {
        key,
        enrollment,
        url: there.url,
        id: source.id.or(there.id),
        confirmed_id: source.confirmed_id.or(there.confirmed_id),
        name: there.name.or(source.name),
        first_seen_at: if is_own { source.first_seen_at } else { there.first_seen_at },
        last_reset_at: source.last_reset_at.max(there.last_reset_at),
        token_life_secs: there.token_life_secs.or(source.token_life_secs),
        recovered: source.recovered.or(there.recovered),
        // Which clock is right at the new address is for that server's answers to show.
        belief: there.belief,
        entry_text: None,
        ..source
    };
    for digest in there.former_digests.into_iter().chain(other.map(|other| other.token.digest())) {
        record.add_former_token(digest);
    }
    record.remove_former_token(current.token.digest());
    record.credential = Some(current);
    record
}
