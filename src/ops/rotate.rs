//! Rotate: replace the token without losing the new one to a crash or a full disk.

use super::verify::refuse_first_api;
use super::{Completed, Disk, EntryStatus, Error, Failure, Ops, Runner, Server};
use crate::error_chain::chain;
use crate::gitlab::{Answer, Reset};
use crate::lifecycle::{Outcome, Validity};
use crate::model::{Credential, RunnerId, Timestamp};
use crate::secret::Token;
use crate::store::{self, Intent, JournalAnswer, JournalOperation};

impl<S: Server, D: Disk> Ops<S, D> {
    /// Replaces the token, authenticated by the token itself or by an access token. The access token also works if
    /// the runner's token has expired.
    ///
    /// Not cancellation safe once the request is sent: the answer is the only place that ever shows the new token.
    ///
    /// # Errors
    /// [`Error::Disk`] before a request is sent; [`Error::Changing`] if the request failed. If the server may have
    /// executed it nevertheless, the journal stays until [`Ops::settle`].
    pub async fn rotate(
        &self,
        runner: &mut Runner,
        access_token: Option<&Token>,
        now: Timestamp,
    ) -> Result<Completed, Error> {
        let entered = self.enter(runner).await?;
        refuse_first_api(runner)?;
        if entered.is_replaced
            && let Some(validity) = runner.validity(now)
        {
            return Ok(Completed { outcome: Outcome::Adopted(validity), date: None, unsaved: None });
        }
        match EntryStatus::of(runner, &entered.snapshot) {
            EntryStatus::Variable(variable) => {
                return Err(Error::VariableToken { runner: runner.label().to_owned(), variable });
            }
            EntryStatus::Foreign { credential, id } => {
                if let Some(adopted) = self.adopt(runner, credential, id, now).await? {
                    return Ok(adopted);
                }
            }
            EntryStatus::Ours | EntryStatus::Stale | EntryStatus::Broken | EntryStatus::Missing => {}
        }
        self.check_settled(runner).await?;
        self.disk.probe().await?;
        let old = runner.token()?;
        let (url, id) = (runner.record.url.clone(), runner.record.id);
        let operation = JournalOperation::Rotate { url, id, old: old.fingerprint() };
        self.disk.begin(&runner.record.key, self.intent(operation, now)).await?;
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
            return Ok(Completed { outcome: Outcome::NotRotated, date: answer.date, unsaved: None });
        }
        Ok(self.keep_rotated(runner, answer, access_token.is_some(), now).await)
    }

    /// Clears the journal of a lost reset, once a verification has shown what happened.
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

    /// Stores a new token. If one place cannot be written, the others are still tried; the token stays in memory for
    /// the next attempt.
    async fn keep_rotated(
        &self,
        runner: &mut Runner,
        answer: Answer<Reset>,
        is_recovery: bool,
        now: Timestamp,
    ) -> Completed {
        let obtained_at = answer.date.unwrap_or(now).whole_seconds();
        let Reset { token, expiry, .. } = answer.value;
        let fingerprint = token.fingerprint();
        let credential = Credential { token, obtained_at: Some(obtained_at), expiry };
        self.journal_token(runner, None, &credential).await;
        runner.record.recovered = is_recovery.then_some(fingerprint);
        runner.record.last_reset_at = Some(obtained_at);
        runner.take(credential);
        let unsaved = self.project_and_clear(runner).await.err();
        Completed { outcome: Outcome::Rotated(Validity { obtained_at, expiry }), date: answer.date, unsaved }
    }

    /// Adds a new token to the journal. A failure is only logged: the record and config.toml come next.
    pub(super) async fn journal_token(&self, runner: &Runner, id: Option<RunnerId>, credential: &Credential) {
        let Credential { token, obtained_at, expiry } = credential.clone();
        let answer = JournalAnswer { id, token: Some(token), expiry, obtained_at, is_documented: true };
        if let Err(error) = self.disk.answered(&runner.record.key, answer).await {
            tracing::error!(
                runner = runner.label(),
                error = chain(&error),
                "cannot write the new token to the journal"
            );
        }
    }

    /// Writes config.toml and the record, then clears the journal. If config.toml cannot be written, the record is
    /// still tried, because reading it does not take a replay.
    pub(super) async fn project_and_clear(&self, runner: &mut Runner) -> Result<(), store::Error> {
        match self.project(runner).await {
            Ok(()) => self.disk.clear(&runner.record.key).await,
            Err(error) => {
                if let Err(error) = self.save_record(runner).await {
                    tracing::error!(
                        runner = runner.label(),
                        error = chain(&error),
                        "cannot write the new token to the record"
                    );
                }
                Err(error)
            }
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

    pub(super) fn intent(&self, operation: JournalOperation, at: Timestamp) -> Intent {
        Intent { operation, at, system_id: Some(self.identity.system_id.clone()), asked_by: None, token: None }
    }
}
