//! Register: create the runner of an enrollment and write its entry.

use super::{Completed, Disk, Enrollment, EntryStatus, Error, Failure, Ops, RegistrationSource, Runner, Server};
use crate::error_chain::chain;
use crate::gitlab::RegisterParameters;
use crate::lifecycle::{Outcome, Validity};
use crate::model::{Credential, StateName, Timestamp};
use crate::secret::{Fingerprint, Token};
use crate::store::{EntryText, Intent, JournalOperation};

impl<S: Server, D: Disk> Ops<S, D> {
    /// Registers the runner of an enrollment, unless its record already holds a token.
    ///
    /// # Errors
    /// [`Error::Secret`], [`Error::Compose`] or [`Error::Disk`] before a request is sent; [`Error::Registering`] if
    /// the request failed. If the server may have executed it nevertheless, the log describes the possible orphan.
    pub async fn register(
        &self,
        enrollment: &Enrollment,
        runner: &mut Runner,
        now: Timestamp,
    ) -> Result<Completed, Error> {
        let entered = self.enter(runner).await?;
        if let Some(validity) = runner.validity(now) {
            if runner.is_unwritten() {
                self.project(runner).await?;
            }
            return Ok(Completed { outcome: Outcome::Adopted(validity), date: None, unsaved: None });
        }
        if !entered.snapshot.takes_entries {
            return Err(Error::NoRoom);
        }
        let token = enrollment.source.secret().read()?;
        self.disk.probe().await?;
        // The kept text of an unregistered runner has the user's edits; it takes precedence over the enrollment.
        if runner.record.entry_text.is_none() || runner.record.state != Some(StateName::Retired) {
            runner.record.entry_text = Some(EntryText::compose(&enrollment.entry)?);
        }
        runner.executor.clone_from(&enrollment.entry.executor);
        self.set_origin(enrollment, runner, token.fingerprint());
        self.register_by_source(enrollment, runner, token, now).await
    }

    /// Registers the runner although its record holds a token, and puts the new id and token into its existing
    /// entry; the other settings of the entry stay. A missing entry is composed from the enrollment.
    ///
    /// Record and entry keep the old token until the server has answered. The old runner stays on the server.
    ///
    /// # Errors
    /// As [`Ops::register`], and [`Error::VariableToken`] if the entry takes its token from a variable.
    pub async fn register_again(
        &self,
        enrollment: &Enrollment,
        runner: &mut Runner,
        now: Timestamp,
    ) -> Result<Completed, Error> {
        let entered = self.enter(runner).await?;
        let is_missing = match EntryStatus::of(runner, &entered.snapshot) {
            EntryStatus::Variable(variable) => {
                return Err(Error::VariableToken { runner: runner.label().to_owned(), variable });
            }
            EntryStatus::Missing if !entered.snapshot.takes_entries => return Err(Error::NoRoom),
            EntryStatus::Missing => true,
            EntryStatus::Ours | EntryStatus::Stale | EntryStatus::Foreign { .. } | EntryStatus::Broken => false,
        };
        let token = enrollment.source.secret().read()?;
        self.disk.probe().await?;
        self.check_settled(runner).await?;
        let text = runner.record.entry_text.take();
        if is_missing {
            runner.record.entry_text = Some(text.map_or_else(|| EntryText::compose(&enrollment.entry), Ok)?);
        }
        self.register_by_source(enrollment, runner, token, now).await
    }

    fn set_origin(&self, enrollment: &Enrollment, runner: &mut Runner, source: Fingerprint) {
        let record = &mut runner.record;
        record.origin = enrollment.source.origin();
        record.seed = Some(source);
        record.is_copy = false;
        record.machine.clone_from(&self.identity.machine);
        record.name = Some(enrollment.entry.name.clone());
    }

    async fn register_by_source(
        &self,
        enrollment: &Enrollment,
        runner: &mut Runner,
        token: Token,
        now: Timestamp,
    ) -> Result<Completed, Error> {
        let parameters = RegisterParameters { info: Some(self.identity.info.clone()), ..enrollment.parameters.clone() };
        if let RegistrationSource::Given(_) = enrollment.source {
            return self.take_given(enrollment, runner, token, now).await;
        }
        self.save_record(runner).await?;
        let operation = JournalOperation::Register {
            url: runner.record.url.clone(),
            description: parameters.description.clone().unwrap_or_default(),
            seed: token.fingerprint(),
        };
        let intent = self.intent(operation, now);
        self.disk.begin(&runner.record.key, intent.clone()).await?;
        let answer = match &enrollment.source {
            RegistrationSource::Created(creation) => {
                self.server.create(&runner.site, &token, &creation.request(&parameters)).await
            }
            RegistrationSource::V1(_) => self.server.register_v1(&runner.site, &token, &parameters).await,
            RegistrationSource::Registration(_) | RegistrationSource::Given(_) => {
                self.server.register(&runner.site, &token, &parameters).await
            }
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => return Err(self.undo_registration(runner, &intent, failure).await?),
        };
        self.set_origin(enrollment, runner, token.fingerprint());
        let obtained_at = answer.date.unwrap_or(now).whole_seconds();
        let credential =
            Credential { token: answer.value.token, obtained_at: Some(obtained_at), expiry: answer.value.expiry };
        self.journal_token(runner, answer.value.id, &credential).await;
        runner.record.id = answer.value.id;
        Ok(self.keep_registered(runner, credential, obtained_at, answer.date).await)
    }

    async fn undo_registration(&self, runner: &Runner, intent: &Intent, failure: Failure) -> Result<Error, Error> {
        let error = Error::Registering(failure);
        if matches!(error.outcome(), Outcome::Lost { .. }) {
            warn_of_orphan(intent);
        }
        self.clear_registration(runner).await?;
        Ok(error)
    }

    /// Clears the journal of a registration that brought no token, and removes a record that was only written for it.
    pub(super) async fn clear_registration(&self, runner: &Runner) -> Result<(), Error> {
        self.disk.clear(&runner.record.key).await?;
        if runner.record.enrollment.is_none() && runner.record.credential.is_none() {
            self.disk.remove_record(&runner.record.key).await?;
        }
        Ok(())
    }

    /// Takes a given token without a journal: the user still has the token if this is interrupted.
    async fn take_given(
        &self,
        enrollment: &Enrollment,
        runner: &mut Runner,
        token: Token,
        now: Timestamp,
    ) -> Result<Completed, Error> {
        let verified = self.send_verify(runner, &token).await?;
        self.set_origin(enrollment, runner, token.fingerprint());
        let first_seen_at = verified.date.unwrap_or(now).whole_seconds();
        runner.record.id = verified.value.id;
        let credential = Credential { token, obtained_at: Some(first_seen_at), expiry: verified.value.expiry };
        Ok(self.keep_registered(runner, credential, first_seen_at, verified.date).await)
    }

    /// Writes the record before the entry: a daemon that saw an entry without a record would manage it under another
    /// key.
    async fn keep_registered(
        &self,
        runner: &mut Runner,
        credential: Credential,
        obtained_at: Timestamp,
        date: Option<Timestamp>,
    ) -> Completed {
        let validity = Validity { obtained_at, expiry: credential.expiry };
        runner.take(credential);
        if let Err(error) = self.save_record(runner).await {
            tracing::error!(runner = runner.label(), error = chain(&error), "cannot write the new token to the record");
        }
        let unsaved = self.project_and_clear(runner).await.err();
        Completed { outcome: Outcome::Registered(validity), date, unsaved }
    }
}

/// Logs which runner a lost registration may have left behind, for the user to find and delete it.
pub(super) fn warn_of_orphan(intent: &Intent) {
    if let JournalOperation::Register { url, description, .. } = &intent.operation {
        tracing::warn!(
            %url, description, at = %intent.at,
            "the answer to a registration was lost: GitLab may have created a runner with this description at this time; delete it there if it is listed as never contacted"
        );
    }
}
