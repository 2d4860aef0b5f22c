//! Verify: ask whether the token is accepted, and learn what the answer tells.

use super::{Dated, Disk, Enrollment, EntryStatus, Error, LOCK_WAIT, Ops, RegistrationSource, Runner, Server};
use crate::gitlab::{Answer, Info, Verified};
use crate::lifecycle::{Outcome, Validity};
use crate::model::{Credential, Expiry, LastVerify, Origin, RunnerId, RunnerKey, StateName, Timestamp, VerifyOutcome};
use crate::secret::Token;
use crate::store::Record;

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verification {
    /// Our token is accepted, and these are its times.
    Accepted(Validity),
    /// config.toml held a token that we did not know; it is accepted, and ours from now on.
    Adopted(Validity),
}

impl Verification {
    /// What this means for the runner's state.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Accepted(validity) => Outcome::Accepted(*validity),
            Self::Adopted(validity) => Outcome::Adopted(*validity),
        }
    }
}

/// Refuses what the API of 2016 does not have, before anything is sent.
pub(super) fn refuse_first_api(runner: &Runner) -> Result<(), Error> {
    match runner.record.origin {
        Origin::V1 => Err(Error::FirstApi(runner.label().to_owned())),
        Origin::Registered | Origin::Given => Ok(()),
    }
}

impl<S: Server, D: Disk> Ops<S, D> {
    /// Asks the server about the runner's token; makes or refreshes this machine's manager there.
    ///
    /// # Errors
    /// [`Error::Asking`] if the answer is no or none, [`Error::Disk`] if config.toml or the record cannot
    /// be read or written, [`Error::FirstApi`] where the server has no such call.
    pub async fn verify(&self, runner: &mut Runner, now: Timestamp) -> Result<Dated<Verification>, Error> {
        let entered = self.enter(runner).await?;
        refuse_first_api(runner)?;
        let entry_status = EntryStatus::of(runner, &entered.snapshot);
        if let EntryStatus::Foreign { credential, id } = &entry_status
            && let Some(adopted) = self.adopt(runner, credential.clone(), *id, now).await?
        {
            if EntryStatus::of(runner, &entered.snapshot) != EntryStatus::Ours {
                self.project(runner).await?;
            }
            return Ok(adopted.map(Verification::Adopted));
        }
        let verified = self.verify_own(runner, now).await?;
        match entry_status {
            // A token that was refused once may only be new to a replica; ours is known to be good.
            EntryStatus::Stale | EntryStatus::Foreign { .. } => self.project(runner).await?,
            EntryStatus::Missing if runner.is_unwritten() => self.project(runner).await?,
            EntryStatus::Ours | EntryStatus::Variable(_) | EntryStatus::Broken | EntryStatus::Missing => {}
        }
        Ok(verified.map(if entered.is_replaced { Verification::Adopted } else { Verification::Accepted }))
    }

    async fn verify_own(&self, runner: &mut Runner, now: Timestamp) -> Result<Dated<Validity>, Error> {
        let token = runner.token()?;
        let answer = self.ask(runner, &token).await;
        note_verification(runner, &answer, now);
        if let Ok(verified) = &answer {
            learn(runner, verified, now);
        }
        self.remember(runner).await?;
        let date = answer?.date;
        let validity = runner.validity(date.unwrap_or(now)).ok_or_else(|| Error::NoToken(runner.label().to_owned()))?;
        Ok(Dated { value: validity, date })
    }

    /// Takes a token that somebody else wrote into config.toml, if the server accepts it; `None` if it
    /// refuses it.
    pub(super) async fn adopt(
        &self,
        runner: &mut Runner,
        credential: Credential,
        id: Option<RunnerId>,
        now: Timestamp,
    ) -> Result<Option<Dated<Validity>>, Error> {
        let verified = match self.ask(runner, &credential.token).await {
            Ok(verified) => verified,
            Err(error) if error.outcome() == Outcome::Refused && runner.record.credential.is_some() => {
                tracing::warn!(
                    runner = runner.label(),
                    "the server refuses the new token that was found: keeping ours"
                );
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        tracing::info!(runner = runner.label(), token = %credential.token.fingerprint(), "took over a new token that somebody else has put there");
        runner.take(credential);
        runner.record.id = verified.value.id.or(id).or(runner.record.id);
        runner.record.first_seen_at = Some(verified.date.unwrap_or(now));
        learn(runner, &verified, now);
        self.remember(runner).await?;
        Ok(runner.validity(now).map(|value| Dated { value, date: verified.date }))
    }

    /// Takes the token that a given enrollment now holds, if it is another than the record came of: its
    /// giver has replaced it. `None` if it is the same or cannot be read.
    ///
    /// # Errors
    /// As [`Ops::verify`].
    pub async fn adopt_given_token(
        &self,
        enrollment: &Enrollment,
        runner: &mut Runner,
        now: Timestamp,
    ) -> Result<Option<Dated<Validity>>, Error> {
        let RegistrationSource::Given(source) = &enrollment.source else { return Ok(None) };
        let Ok(token) = source.read() else { return Ok(None) };
        let _entered = self.enter(runner).await?;
        let seed = Some(token.fingerprint());
        if runner.record.seed == seed {
            return Ok(None);
        }
        let credential = Credential { token, obtained_at: None, expiry: Expiry::Unknown };
        let Some(adopted) = self.adopt(runner, credential, None, now).await? else { return Ok(None) };
        runner.record.seed = seed;
        self.project(runner).await?;
        Ok(Some(adopted))
    }

    /// Sends one verify for a token.
    pub(super) async fn ask(&self, runner: &Runner, token: &Token) -> Result<Answer<Verified>, Error> {
        let info: Option<&Info> = runner.record.enrollment.is_some().then_some(&self.identity.info);
        let answer = self.server.verify(&runner.site, token, &self.identity.system_id, info).await;
        answer.map_err(Error::Asking)
    }

    /// Writes down which enrollment a runner belongs to from now on, or that it belongs to none.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn note_enrollment(&self, runner: &mut Runner, enrollment: Option<&Enrollment>) -> Result<(), Error> {
        let _lock = self.lock(runner).await?;
        runner.record.enrollment = enrollment.map(|enrollment| enrollment.key.as_str().to_owned());
        Ok(self.remember(runner).await?)
    }

    /// Writes down a record that belongs to another enrollment or to none from now on, under its new key.
    ///
    /// # Errors
    /// [`Error::Disk`]; a crash in between leaves both, of which the old one is moved again.
    pub async fn rename_record(&self, old: &RunnerKey, record: Record) -> Result<(), Error> {
        let _lock = self.disk.lock_runner(old, LOCK_WAIT).await?;
        let key = record.key.clone();
        self.disk.save_record(record).await?;
        if *old == key {
            return Ok(());
        }
        Ok(self.disk.remove_record(old).await?)
    }

    /// Writes the lifecycle state into the record, so that `list` can tell it without the daemon.
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
        Ok(self.remember(runner).await?)
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

/// Takes from the answer what the record did not know: the number, and the token's end.
fn learn(runner: &mut Runner, verified: &Answer<Verified>, now: Timestamp) {
    runner.record.id = verified.value.id.or(runner.record.id);
    runner.record.first_seen_at = runner.record.first_seen_at.or(Some(verified.date.unwrap_or(now)));
    if let Some(credential) = &mut runner.record.credential
        && verified.value.expiry != Expiry::Unknown
    {
        credential.expiry = verified.value.expiry;
    }
}
