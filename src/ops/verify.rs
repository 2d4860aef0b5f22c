//! Verify: ask the server whether it accepts the token, and update the record from the answer.

use super::{Completed, Disk, Enrollment, EntryStatus, Error, LOCK_WAIT, Ops, RegistrationSource, Runner, Server};
use crate::gitlab::{Answer, Verified};
use crate::lifecycle::Outcome;
use crate::model::{Credential, Expiry, LastVerify, Origin, RunnerId, RunnerKey, StateName, Timestamp, VerifyOutcome};
use crate::secret::Token;
use crate::store::Record;

/// Rejects runners of the API v1, which supports neither verification nor rotation, before a request is sent.
pub(super) fn refuse_first_api(runner: &Runner) -> Result<(), Error> {
    match runner.record.origin {
        Origin::V1 => Err(Error::FirstApi(runner.label().to_owned())),
        Origin::Registered | Origin::Given => Ok(()),
    }
}

impl<S: Server, D: Disk> Ops<S, D> {
    /// Asks the server whether it accepts the runner's token. Creates or refreshes this machine's manager there.
    ///
    /// # Errors
    /// [`Error::Asking`] if the token is refused or the server does not answer, [`Error::Disk`] if config.toml or the
    /// record cannot be read or written, [`Error::FirstApi`] for a runner of the API v1.
    pub async fn verify(&self, runner: &mut Runner, now: Timestamp) -> Result<Completed, Error> {
        let entered = self.enter(runner).await?;
        refuse_first_api(runner)?;
        let entry_status = EntryStatus::of(runner, &entered.snapshot);
        if let EntryStatus::Foreign { credential, id } = &entry_status
            && let Some(adopted) = self.adopt(runner, credential.clone(), *id, now).await?
        {
            if EntryStatus::of(runner, &entered.snapshot) != EntryStatus::Ours {
                self.project(runner).await?;
            }
            return Ok(adopted);
        }
        let verified = self.verify_own(runner, entered.is_replaced, now).await?;
        match entry_status {
            // A single refusal of the unknown token may come from a lagging replica; ours was just accepted.
            EntryStatus::Stale | EntryStatus::Foreign { .. } => self.project(runner).await?,
            EntryStatus::Missing if runner.is_unwritten() => self.project(runner).await?,
            EntryStatus::Ours | EntryStatus::Variable(_) | EntryStatus::Broken | EntryStatus::Missing => {}
        }
        Ok(verified)
    }

    async fn verify_own(&self, runner: &mut Runner, is_replaced: bool, now: Timestamp) -> Result<Completed, Error> {
        let token = runner.token()?;
        let answer = self.send_verify(runner, &token).await;
        note_verification(runner, &answer, now);
        if let Ok(verified) = &answer {
            apply_answer(runner, verified, now);
        }
        self.save_record(runner).await?;
        let date = answer?.date;
        let validity = runner.validity(date.unwrap_or(now)).ok_or_else(|| Error::NoToken(runner.label().to_owned()))?;
        let outcome = if is_replaced { Outcome::Adopted(validity) } else { Outcome::Accepted(validity) };
        Ok(Completed { outcome, date, unsaved: None })
    }

    /// Adopts an unknown token from config.toml if the server accepts it; `None` if the server refuses it.
    pub(super) async fn adopt(
        &self,
        runner: &mut Runner,
        credential: Credential,
        id: Option<RunnerId>,
        now: Timestamp,
    ) -> Result<Option<Completed>, Error> {
        let verified = match self.send_verify(runner, &credential.token).await {
            Ok(verified) => verified,
            Err(error) if error.outcome() == Outcome::Refused && runner.record.credential.is_some() => {
                tracing::warn!(
                    runner = runner.label(),
                    "the server refuses the unknown token: keeping the previous one"
                );
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        tracing::info!(runner = runner.label(), token = %credential.token.fingerprint(), "adopted a token that another process or the user has written");
        runner.take(credential);
        runner.record.id = verified.value.id.or(id).or(runner.record.id);
        runner.record.first_seen_at = Some(verified.date.unwrap_or(now));
        apply_answer(runner, &verified, now);
        self.save_record(runner).await?;
        let validity = runner.validity(now);
        Ok(validity.map(|it| Completed { outcome: Outcome::Adopted(it), date: verified.date, unsaved: None }))
    }

    /// Adopts the token of an enrollment with a given token, if the user has replaced it; `None` if it is unchanged or
    /// unreadable.
    ///
    /// # Errors
    /// As [`Ops::verify`].
    pub async fn adopt_given_token(
        &self,
        enrollment: &Enrollment,
        runner: &mut Runner,
        now: Timestamp,
    ) -> Result<Option<Completed>, Error> {
        let RegistrationSource::Given(source) = &enrollment.source else { return Ok(None) };
        let Ok(token) = source.read() else { return Ok(None) };
        let _entered = self.enter(runner).await?;
        let fingerprint = Some(token.fingerprint());
        if runner.record.seed == fingerprint {
            return Ok(None);
        }
        let credential = Credential { token, obtained_at: None, expiry: Expiry::Unknown };
        let Some(adopted) = self.adopt(runner, credential, None, now).await? else { return Ok(None) };
        runner.record.seed = fingerprint;
        self.project(runner).await?;
        Ok(Some(adopted))
    }

    /// Sends one verify request for a token.
    pub(super) async fn send_verify(&self, runner: &Runner, token: &Token) -> Result<Answer<Verified>, Error> {
        let info = runner.record.enrollment.is_some().then_some(&self.identity.info);
        let answer = self.server.verify(&runner.site, token, &self.identity.system_id, info).await;
        answer.map_err(Error::Asking)
    }

    /// Records which enrollment a runner belongs to, or that it no longer belongs to one.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn note_enrollment(&self, runner: &mut Runner, enrollment: Option<&Enrollment>) -> Result<(), Error> {
        let _lock = self.lock(runner).await?;
        runner.record.enrollment = enrollment.map(|enrollment| enrollment.key.as_str().to_owned());
        Ok(self.save_record(runner).await?)
    }

    /// Moves a record to its new key, because it now belongs to another enrollment or to none.
    ///
    /// # Errors
    /// [`Error::Disk`]. A crash may leave both records; the next start moves the old one again.
    pub async fn rename_record(&self, old: &RunnerKey, record: Record) -> Result<(), Error> {
        let _lock = self.disk.lock_runner(old, LOCK_WAIT).await?;
        let is_moved = record.key != *old;
        self.disk.save_record(record).await?;
        if is_moved {
            self.disk.remove_record(old).await?;
        }
        Ok(())
    }

    /// Writes the lifecycle state into the record, for `list` without a daemon.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn note_state(&self, runner: &mut Runner, state: StateName, since: Timestamp) -> Result<(), Error> {
        if runner.record.state == Some(state) && runner.record.since.is_some() {
            return Ok(());
        }
        let _lock = self.lock(runner).await?;
        runner.record.state = Some(state);
        runner.record.since = Some(since);
        Ok(self.save_record(runner).await?)
    }
}

fn note_verification(runner: &mut Runner, answer: &Result<Answer<Verified>, Error>, now: Timestamp) {
    let outcome = match answer {
        Ok(_) => VerifyOutcome::Accepted,
        Err(error) => match error.outcome() {
            Outcome::Refused => VerifyOutcome::Refused,
            Outcome::MustAct(trouble) => VerifyOutcome::Trouble(trouble),
            _ => VerifyOutcome::Unanswered,
        },
    };
    let date = answer.as_ref().map_or_else(Error::date, |answer| answer.date);
    runner.record.last_verify = Some(LastVerify { at: date.unwrap_or(now), outcome });
}

/// Updates the record from the answer: the runner's id and the token's expiry.
fn apply_answer(runner: &mut Runner, verified: &Answer<Verified>, now: Timestamp) {
    runner.record.id = verified.value.id.or(runner.record.id);
    runner.record.first_seen_at = runner.record.first_seen_at.or(Some(verified.date.unwrap_or(now)));
    if let Some(credential) = &mut runner.record.credential
        && verified.value.expiry != Expiry::Unknown
    {
        credential.expiry = verified.value.expiry;
    }
}
