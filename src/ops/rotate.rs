//! Rotate: replace the token, so that no crash and no full disk loses the new one.

use super::verify::refuse_first_api;
use super::{Dated, Disk, EntryStatus, Error, Failure, Ops, Runner, Server};
use crate::error_chain::chain;
use crate::gitlab::{Answer, Reset};
use crate::lifecycle::{Outcome, Validity};
use crate::model::{Credential, Timestamp};
use crate::secret::Token;
use crate::store::{self, Intent, JournalAnswer, JournalOperation};

/// What became of a rotation that did not fail.
#[derive(Debug)]
pub enum Rotation {
    /// The token was replaced.
    Rotated {
        /// The new token's times.
        validity: Validity,
        /// Why config.toml does not hold it yet; it is safe in the state directory.
        unsaved: Option<store::Error>,
    },
    /// Somebody else had rotated already; their token is ours from now on.
    Adopted(Validity),
    /// The server answered with the token we had.
    Unchanged,
}

impl Rotation {
    /// What this means for the runner's state.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Rotated { validity, .. } => Outcome::Rotated(*validity),
            Self::Adopted(validity) => Outcome::Adopted(*validity),
            Self::Unchanged => Outcome::NotRotated,
        }
    }

    /// Why config.toml does not hold the new token yet.
    #[must_use]
    pub fn unsaved(self) -> Option<store::Error> {
        match self {
            Self::Rotated { unsaved, .. } => unsaved,
            Self::Adopted(_) | Self::Unchanged => None,
        }
    }
}

impl<S: Server, D: Disk> Ops<S, D> {
    /// Replaces the token, authenticated by itself or by an access token (which also works when it has
    /// expired).
    ///
    /// Not to be cancelled once the request is out: the answer is the only place where the new token is
    /// ever shown.
    ///
    /// # Errors
    /// [`Error::Disk`] before anything is sent; [`Error::Changing`] when the request failed, in which case
    /// the journal stays until [`Ops::settle`] if the server may have acted.
    pub async fn rotate(
        &self,
        runner: &mut Runner,
        access_token: Option<&Token>,
        now: Timestamp,
    ) -> Result<Dated<Rotation>, Error> {
        let entered = self.enter(runner).await?;
        refuse_first_api(runner)?;
        if entered.is_replaced
            && let Some(validity) = runner.validity(now)
        {
            return Ok(Dated::unasked(Rotation::Adopted(validity)));
        }
        match EntryStatus::of(runner, &entered.snapshot) {
            EntryStatus::Variable(variable) => {
                return Err(Error::VariableToken { runner: runner.label().to_owned(), variable });
            }
            EntryStatus::Foreign { credential, id } => {
                if let Some(adopted) = self.adopt(runner, credential, id, now).await? {
                    return Ok(adopted.map(Rotation::Adopted));
                }
            }
            EntryStatus::Ours | EntryStatus::Stale | EntryStatus::Broken | EntryStatus::Missing => {}
        }
        self.check_settled(runner).await?;
        self.disk.probe().await?;
        let old = runner.token()?;
        self.disk.begin(&runner.record.key, self.rotation_intent(runner, &old, now)).await?;
        let answer = match self.reset(runner, &old, access_token).await {
            Ok(answer) => answer,
            Err(failure) => {
                let error = Error::Changing(failure);
                if !matches!(error.outcome(), Outcome::Lost { .. }) {
                    self.disk.clear(&runner.record.key).await?;
                }
                return Err(error);
            }
        };
        if answer.value.token == old {
            self.disk.clear(&runner.record.key).await?;
            return Ok(Dated { value: Rotation::Unchanged, date: answer.date });
        }
        let (is_recovery, date) = (access_token.is_some(), answer.date);
        Ok(Dated { value: self.keep(runner, answer, is_recovery, now).await, date })
    }

    /// Clears the journal of a reset whose answer was lost, once it is known what happened.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn settle(&self, runner: &mut Runner) -> Result<(), Error> {
        let _lock = self.lock(runner).await?;
        match self.check_settled(runner).await {
            Ok(()) => Ok(()),
            Err(Error::Disk(store::Error::Unsettled { key })) => Ok(self.disk.clear(&key).await?),
            Err(error) => Err(error),
        }
    }

    /// Brings a new token to the disk. From here on nothing may lose it: whatever fails, the other places
    /// are still tried, and it stays in memory for the next try.
    async fn keep(&self, runner: &mut Runner, answer: Answer<Reset>, is_recovery: bool, now: Timestamp) -> Rotation {
        let obtained_at = answer.date.unwrap_or(now).whole_seconds();
        let Reset { token, expiry } = answer.value;
        let journaled = JournalAnswer { id: None, token: Some(token.clone()), expiry, obtained_at: Some(obtained_at) };
        if let Err(error) = self.disk.answered(&runner.record.key, journaled).await {
            tracing::error!(runner = runner.label(), error = chain(&error), "the journal did not take the new token");
        }
        runner.record.recovered = is_recovery.then(|| token.fingerprint());
        runner.record.last_reset_at = Some(obtained_at);
        runner.take(Credential { token, obtained_at: Some(obtained_at), expiry });
        let validity = Validity::new(Some(obtained_at), expiry, obtained_at);
        let unsaved = self.project_and_clear(runner).await.err();
        Rotation::Rotated { validity, unsaved }
    }

    pub(super) async fn project_and_clear(&self, runner: &mut Runner) -> Result<(), store::Error> {
        match self.project(runner).await {
            Ok(()) => self.disk.clear(&runner.record.key).await,
            Err(Error::Disk(error)) => {
                // The record is the better place to wait in: it can be read without knowing the journal.
                match self.remember(runner).await {
                    Ok(()) => {}
                    Err(also) => {
                        tracing::error!(
                            runner = runner.label(),
                            error = chain(&also),
                            "the record did not take the new token"
                        )
                    }
                }
                Err(error)
            }
            Err(_) => Ok(()),
        }
    }

    async fn reset(
        &self,
        runner: &Runner,
        old: &Token,
        access_token: Option<&Token>,
    ) -> Result<Answer<Reset>, Failure> {
        match (access_token, runner.record.id) {
            (Some(access_token), Some(id)) => self.server.reset_by_id(&runner.site, id, access_token).await,
            _ => self.server.reset(&runner.site, old, &self.identity.system_id).await,
        }
    }

    fn rotation_intent(&self, runner: &Runner, old: &Token, now: Timestamp) -> Intent {
        Intent {
            operation: JournalOperation::Rotate {
                url: runner.record.url.clone(),
                id: runner.record.id,
                old: old.fingerprint(),
            },
            at: now,
            system_id: Some(self.identity.system_id.clone()),
        }
    }
}
