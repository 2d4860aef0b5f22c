//! A registration whose answer was lost: GitLab may have made a runner whose token nothing holds. Another registration
//! of the same name would make a second one, so it waits for a person, whatever its key and whichever process it is.
//!
//! The loss of an enrollment is kept as the evidence beside its own record. Any other one is kept beside a record without
//! a token, under the key that all registrations of the name share.

use tokio::time::Instant;

use super::namesakes::is_of_daemon;
use super::{Disk, Enrollment, Error, LOCK_WAIT, Ops, RegistrationSource, Runner, Server};
use crate::model::{
    Conclusion, Evidence, Held, Origin, Rungs, RunnerKey, ServerUrl, Site, Timestamp, TlsFiles, Trouble,
};
use crate::store::{self, Intent, JournalOperation, Pending, Record, RecordQuery};

impl<S: Server, D: Disk> Ops<S, D> {
    /// Notes that the answer to a registration was lost, and then ends its journal.
    pub(super) async fn lose_registration(&self, runner: &mut Runner, intent: &Intent) -> Result<(), Error> {
        runner.lost_at = Some(Instant::now());
        let record = &runner.record;
        if record.enrollment.is_some() && record.credential.is_none() {
            runner.held.evidence = Some(Box::new(evidence_of_loss(intent.at)));
            runner.is_held_changed = true;
            self.save_held(runner).await?;
        } else {
            let name = runner.label().to_owned();
            let key = RunnerKey::registration(&record.url, &name);
            let key = common_key(intent).unwrap_or(key);
            self.losses.borrow_mut().insert(key.clone(), Instant::now());
            self.note_lost_registration(&key, intent, Some(name)).await?;
        }
        self.clear_registration(runner).await
    }

    /// Notes the loss under the key that all registrations of its name share, or under this one without a token if the
    /// journal is of version 0.1.
    pub(super) async fn note_lost_registration(
        &self,
        key: &RunnerKey,
        intent: &Intent,
        name: Option<String>,
    ) -> Result<(), store::Error> {
        let JournalOperation::Register { url, description, common, .. } = &intent.operation else { return Ok(()) };
        let key = common.as_ref().unwrap_or(key);
        // Any other description is no name.
        let is_name = common.as_ref().is_none_or(|common| *common == RunnerKey::registration(url, description));
        let described = Some(description).filter(|_| is_name);
        self.note_loss(key, url, name.or_else(|| described.cloned()), intent.at).await
    }

    async fn note_loss(
        &self,
        key: &RunnerKey,
        url: &ServerUrl,
        name: Option<String>,
        at: Timestamp,
    ) -> Result<(), store::Error> {
        let site = Site { url: url.clone(), tls: TlsFiles::default() };
        let mut note = Runner::blank(key.clone(), Origin::Registered, site);
        note.record.name = name;
        note.held = Held { evidence: Some(Box::new(evidence_of_loss(at))), ..self.disk.held(key).await? };
        note.is_held_changed = true;
        self.save_record(&mut note).await
    }

    /// An enrollment takes over a runner under this key. What it had lost before is noted under the key that all
    /// registrations of the name share: the evidence here will be about the runner's token.
    pub(super) async fn keep_loss(&self, to: &RunnerKey, taken: &Record) -> Result<(), store::Error> {
        let Some(held) = self.readable_held(to).await? else { return Ok(()) };
        let (Some(at), Some(name), Some(rest)) = (loss_in(&held), &taken.name, without_loss(&held)) else {
            return Ok(());
        };
        self.note_loss(&RunnerKey::registration(&taken.url, name), &taken.url, Some(name.clone()), at).await?;
        self.disk.save_held(to, rest).await
    }

    /// Settles the journals that killed processes have left of registrations of this name; the caller holds their common
    /// lock, so that none of them is under way.
    pub(super) async fn replay_registrations(
        &self,
        enrollment: &Enrollment,
        runner: &Runner,
        now: Timestamp,
    ) -> Result<(), Error> {
        let keys = self.keys_of_name(enrollment, runner).await?;
        for pending in self.disk.pending().await? {
            let key = pending.key.clone();
            // The operation itself takes an answer from the journal of its own runner.
            if key == runner.record.key && pending.answer.is_some() || !is_registration(&pending, enrollment, &keys) {
                continue;
            }
            // Without a record, the name is all that says whose it is.
            if !keys.contains(&key) && self.disk.record(&key).await?.is_some() {
                continue;
            }
            // Another process that has begun to replay it may not have noted the loss yet.
            let lock = self.unless_stopping(self.disk.lock_runner(&key, LOCK_WAIT)).await??;
            self.replay_locked(pending, now, lock).await?;
        }
        Ok(())
    }

    /// Fails if the answer to a registration of this name was lost, and no person has gone on since.
    pub(super) async fn check_no_lost_registration(
        &self,
        enrollment: &Enrollment,
        runner: &Runner,
    ) -> Result<(), Error> {
        match self.lost_registration(enrollment, runner).await? {
            Some(at) => Err(Error::RegistrationLost { runner: enrollment.entry.name.clone(), at }),
            None => Ok(()),
        }
    }

    /// When the answer to a registration of this name was lost, if no person has gone on since.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn lost_registration(
        &self,
        enrollment: &Enrollment,
        runner: &Runner,
    ) -> Result<Option<Timestamp>, Error> {
        if let RegistrationSource::Given(_) = enrollment.source {
            return Ok(None);
        }
        for key in self.keys_of_name(enrollment, runner).await? {
            let is_own = key == runner.record.key;
            let loss = self.loss_at(&key).await?.filter(|_| !is_own || runner.record.credential.is_none());
            if loss.is_some() {
                return Ok(loss);
            }
        }
        Ok(None)
    }

    /// A person goes on after a lost registration: it holds up no other one of this name any more, wherever it was noted.
    /// One who asked at this time did not know of what this process has lost since, for another enrollment of the name.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn forget_lost_registrations(
        &self,
        enrollment: &Enrollment,
        runner: &mut Runner,
        asked_at: Option<Instant>,
    ) -> Result<(), Error> {
        for key in self.keys_of_name(enrollment, runner).await? {
            let is_own = key == runner.record.key;
            if is_own || self.has_lost_since(&key, asked_at) || self.held_without_loss(&key).await?.is_none() {
                continue;
            }
            let _lock = self.disk.lock_runner(&key, LOCK_WAIT).await?;
            let Some(held) = self.held_without_loss(&key).await? else { continue };
            let is_all = held.is_empty();
            self.disk.save_held(&key, held).await?;
            let record = self.disk.record(&key).await?;
            if is_all && record.is_some_and(|record| record.credential.is_none() && record.enrollment.is_none()) {
                self.disk.remove_record(&key).await?;
            }
        }
        let _lock = self.lock(runner).await?;
        if let Some(held) = without_loss(&runner.held) {
            runner.held = held;
            runner.is_held_changed = true;
            self.save_held(runner).await?;
        }
        Ok(())
    }

    fn has_lost_since(&self, key: &RunnerKey, asked_at: Option<Instant>) -> bool {
        let lost_at = self.losses.borrow().get(key).copied();
        lost_at.zip(asked_at).is_some_and(|(lost_at, asked_at)| asked_at <= lost_at)
    }

    /// What is kept under this key, without the loss that is noted there; `None` if none is.
    async fn held_without_loss(&self, key: &RunnerKey) -> Result<Option<Held>, store::Error> {
        Ok(self.readable_held(key).await?.as_ref().and_then(without_loss))
    }

    /// When the answer to a registration was lost that is noted under this key.
    async fn loss_at(&self, key: &RunnerKey) -> Result<Option<Timestamp>, store::Error> {
        Ok(self.readable_held(key).await?.as_ref().and_then(loss_in))
    }

    /// What is kept under this key. A damaged file is reported where it is loaded.
    async fn readable_held(&self, key: &RunnerKey) -> Result<Option<Held>, store::Error> {
        match self.disk.held(key).await {
            Ok(held) => Ok(Some(held)),
            Err(store::Error::Held { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The keys that a registration of this name at this server may have been noted under, and the runner's own. The
    /// daemon leaves those of its other enrollments alone, which may share the name.
    async fn keys_of_name(&self, enrollment: &Enrollment, runner: &Runner) -> Result<Vec<RunnerKey>, store::Error> {
        let is_of_name =
            |record: &Record| record.url == enrollment.site.url && record.name.as_ref() == Some(&enrollment.entry.name);
        let is_of_other = |record: &Record| is_of_daemon(runner) && record.enrollment.is_some();
        let records = self.disk.records_with(RecordQuery::Name(enrollment.entry.name.clone())).await?;
        let (own, common) =
            (runner.record.key.clone(), RunnerKey::registration(&enrollment.site.url, &enrollment.entry.name));
        let others = records.into_iter().filter(|record| is_of_name(record) && !is_of_other(record));
        let others = others.map(|record| record.key).filter(|key| ![&own, &common].contains(&key));
        Ok([own.clone(), common.clone()].into_iter().chain(others).collect())
    }
}

/// Whether a journal is of a registration of this name: it has one of the keys, or names what they share.
fn is_registration(pending: &Pending, enrollment: &Enrollment, keys: &[RunnerKey]) -> bool {
    match &pending.intent.operation {
        JournalOperation::Register { url, description, common, .. } => {
            let key = RunnerKey::registration(&enrollment.site.url, &enrollment.entry.name);
            keys.contains(&pending.key)
                || match common {
                    Some(common) => *common == key,
                    None => RunnerKey::registration(url, description) == key,
                }
        }
        JournalOperation::Rotate { .. } | JournalOperation::Unregister { .. } => false,
    }
}

/// The key that all registrations of the name share; `None` in a journal of version 0.1.
fn common_key(intent: &Intent) -> Option<RunnerKey> {
    match &intent.operation {
        JournalOperation::Register { common, .. } => common.clone(),
        JournalOperation::Rotate { .. } | JournalOperation::Unregister { .. } => None,
    }
}

fn evidence_of_loss(at: Timestamp) -> Evidence {
    let conclusion = Some(Conclusion::Failed { trouble: Trouble::RegistrationLost, since: at });
    Evidence { conclusion, ..Evidence::default() }
}

/// When the answer to a registration was lost, by the evidence about a key without a token.
fn loss_in(held: &Held) -> Option<Timestamp> {
    held.evidence.as_deref().and_then(loss_of)
}

fn loss_of(evidence: &Evidence) -> Option<Timestamp> {
    match evidence {
        Evidence {
            token: None,
            conclusion: Some(Conclusion::Failed { trouble: Trouble::RegistrationLost, since }),
            ..
        } => Some(*since),
        _ => None,
    }
}

/// Whether evidence about a key without a token would be written over the loss of a registration, which another process
/// has noted: that holds until a person goes on.
pub(super) fn is_over_loss(held: &Held, evidence: Option<&Evidence>) -> bool {
    let is_about_none = evidence.is_none_or(|evidence| evidence.token.is_none());
    is_about_none && loss_in(held).is_some() && evidence.and_then(loss_of).is_none()
}

/// The same without the loss of a registration, or of one that was to recover the runner; `None` if it has none.
fn without_loss(held: &Held) -> Option<Held> {
    let evidence = match held.evidence.as_deref() {
        Some(evidence @ Evidence { conclusion: Some(Conclusion::Rejected { rejection, rungs, since }), .. })
            if rungs.register_lost =>
        {
            let rungs = Rungs { register_lost: false, ..*rungs };
            let conclusion = Some(Conclusion::Rejected { rejection: *rejection, rungs, since: *since });
            Some(Box::new(Evidence { conclusion, ..evidence.clone() }))
        }
        _ if loss_in(held).is_some() => None,
        _ => return None,
    };
    Some(Held { evidence, ..held.clone() })
}
