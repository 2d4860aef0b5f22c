//! Register: make the runner that an enrollment asks for, and write its entry.

use super::{Dated, Disk, Enrollment, EntryStatus, Error, Failure, Ops, RegistrationSource, Runner, Server};
use crate::error_chain::chain;
use crate::gitlab::{Answer, RegisterParameters, Registered};
use crate::lifecycle::{Outcome, Validity};
use crate::model::{Credential, StateName, Timestamp};
use crate::secret::{Fingerprint, Token};
use crate::store::{self, EntryText, Intent, JournalAnswer, JournalOperation};

/// What became of a registration that did not fail.
#[derive(Debug)]
pub enum Registration {
    /// The runner was made, or its given token accepted.
    Registered {
        /// The token's times.
        validity: Validity,
        /// Why config.toml does not hold it yet; it is safe in the state directory.
        unsaved: Option<store::Error>,
    },
    /// Another process had registered it meanwhile.
    Already(Validity),
}

impl Registration {
    /// What this means for the runner's state.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Registered { validity, .. } => Outcome::Registered(*validity),
            Self::Already(validity) => Outcome::Adopted(*validity),
        }
    }

    /// Why config.toml does not hold the new token yet.
    #[must_use]
    pub fn unsaved(self) -> Option<store::Error> {
        match self {
            Self::Registered { unsaved, .. } => unsaved,
            Self::Already(_) => None,
        }
    }
}

impl<S: Server, D: Disk> Ops<S, D> {
    /// Makes the runner of an enrollment, unless its record already has one.
    ///
    /// # Errors
    /// [`Error::Secret`], [`Error::Compose`] or [`Error::Disk`] before anything is sent;
    /// [`Error::Changing`] when the request failed. If the server may have acted all the same, the log
    /// names the runner that may have been left behind.
    pub async fn register(
        &self,
        enrollment: &Enrollment,
        runner: &mut Runner,
        now: Timestamp,
    ) -> Result<Dated<Registration>, Error> {
        let entered = self.enter(runner).await?;
        if let Some(validity) = runner.validity(now) {
            if runner.is_unwritten() {
                self.project(runner).await?;
            }
            return Ok(Dated::unasked(Registration::Already(validity)));
        }
        if !entered.snapshot.takes_entries {
            return Err(Error::NoRoom);
        }
        let seed = enrollment.source.read()?;
        self.disk.probe().await?;
        self.prepare(enrollment, runner, seed.fingerprint())?;
        self.make(enrollment, runner, seed, now).await
    }

    /// Makes the runner anew whatever its record holds, and puts number and token into the entry that it
    /// has, whose other settings stay; a missing entry is made from the enrollment. Until the server has
    /// answered, record and entry keep the old token; what it belongs to stays on the server.
    ///
    /// # Errors
    /// As [`Ops::register`], and [`Error::VariableToken`] for an entry that cannot be given a token.
    pub async fn register_again(
        &self,
        enrollment: &Enrollment,
        runner: &mut Runner,
        now: Timestamp,
    ) -> Result<Dated<Registration>, Error> {
        let entered = self.enter(runner).await?;
        let is_missing = match EntryStatus::of(runner, &entered.snapshot) {
            EntryStatus::Variable(variable) => {
                return Err(Error::VariableToken { runner: runner.label().to_owned(), variable });
            }
            EntryStatus::Missing if !entered.snapshot.takes_entries => return Err(Error::NoRoom),
            EntryStatus::Missing => true,
            EntryStatus::Ours | EntryStatus::Stale | EntryStatus::Foreign { .. } | EntryStatus::Broken => false,
        };
        let seed = enrollment.source.read()?;
        self.disk.probe().await?;
        self.check_settled(runner).await?;
        let text = runner.record.entry_text.take();
        if is_missing {
            runner.record.entry_text = Some(text.map_or_else(|| EntryText::compose(&enrollment.entry), Ok)?);
        }
        self.make(enrollment, runner, seed, now).await
    }

    async fn make(
        &self,
        enrollment: &Enrollment,
        runner: &mut Runner,
        seed: Token,
        now: Timestamp,
    ) -> Result<Dated<Registration>, Error> {
        match enrollment.source {
            RegistrationSource::Registration(_) | RegistrationSource::V1(_) | RegistrationSource::Created(_) => {
                self.register_anew(enrollment, runner, &seed, now).await
            }
            RegistrationSource::Given(_) => self.take_given(enrollment, runner, seed, now).await,
        }
    }

    /// Fills the record with everything that writing the entry takes, before the token is spent.
    fn prepare(&self, enrollment: &Enrollment, runner: &mut Runner, seed: Fingerprint) -> Result<(), Error> {
        let record = &mut runner.record;
        // Only the text of an entry that was taken out is worth more than what the enrollment says now.
        if record.entry_text.is_none() || record.state != Some(StateName::Retired) {
            record.entry_text = Some(EntryText::compose(&enrollment.entry)?);
        }
        runner.executor.clone_from(&enrollment.entry.executor);
        self.note_origin(enrollment, runner, seed);
        Ok(())
    }

    fn note_origin(&self, enrollment: &Enrollment, runner: &mut Runner, seed: Fingerprint) {
        let record = &mut runner.record;
        record.origin = enrollment.source.origin();
        record.seed = Some(seed);
        record.is_copy = false;
        record.machine.clone_from(&self.identity.machine);
        record.name = Some(enrollment.entry.name.clone());
    }

    async fn register_anew(
        &self,
        enrollment: &Enrollment,
        runner: &mut Runner,
        seed: &Token,
        now: Timestamp,
    ) -> Result<Dated<Registration>, Error> {
        let parameters = RegisterParameters { info: Some(self.identity.info.clone()), ..enrollment.parameters.clone() };
        let description = parameters.description.clone().unwrap_or_default();
        self.remember(runner).await?;
        let operation =
            JournalOperation::Register { url: runner.record.url.clone(), description, seed: seed.fingerprint() };
        let intent = Intent { operation, at: now, system_id: Some(self.identity.system_id.clone()) };
        self.disk.begin(&runner.record.key, intent.clone()).await?;
        let answer = match &enrollment.source {
            RegistrationSource::Created(creation) => {
                self.server.create(&runner.site, seed, &creation.request(&parameters)).await
            }
            RegistrationSource::V1(_) => self.server.register_v1(&runner.site, seed, &parameters).await,
            RegistrationSource::Registration(_) | RegistrationSource::Given(_) => {
                self.server.register(&runner.site, seed, &parameters).await
            }
        };
        match answer {
            Ok(answer) => {
                self.note_origin(enrollment, runner, seed.fingerprint());
                let date = answer.date;
                Ok(Dated { value: self.keep_registered(runner, answer, now).await, date })
            }
            Err(failure) => Err(self.not_registered(runner, &intent, failure).await?),
        }
    }

    async fn keep_registered(&self, runner: &mut Runner, answer: Answer<Registered>, now: Timestamp) -> Registration {
        let obtained_at = answer.date.unwrap_or(now).whole_seconds();
        let Registered { id, token, expiry } = answer.value;
        let journaled =
            JournalAnswer { id: Some(id), token: Some(token.clone()), expiry, obtained_at: Some(obtained_at) };
        if let Err(error) = self.disk.answered(&runner.record.key, journaled).await {
            tracing::error!(
                runner = runner.label(),
                error = chain(&error),
                "the journal did not take the new runner's token"
            );
        }
        runner.record.id = Some(id);
        runner.take(Credential { token, obtained_at: Some(obtained_at), expiry });
        self.claim(runner).await;
        let unsaved = self.project_and_clear(runner).await.err();
        Registration::Registered { validity: Validity::new(Some(obtained_at), expiry, obtained_at), unsaved }
    }

    async fn not_registered(&self, runner: &mut Runner, intent: &Intent, failure: Failure) -> Result<Error, Error> {
        let error = Error::Registering(failure);
        if matches!(error.outcome(), Outcome::Lost { .. }) {
            warn_of_orphan(intent);
        }
        self.disk.clear(&runner.record.key).await?;
        // A record without an enrollment and a token was only made for this registration.
        if runner.record.enrollment.is_none() && runner.record.credential.is_none() {
            self.disk.remove_record(&runner.record.key).await?;
        }
        Ok(error)
    }

    /// A given token needs no journal: whoever gave it can give it again.
    async fn take_given(
        &self,
        enrollment: &Enrollment,
        runner: &mut Runner,
        token: Token,
        now: Timestamp,
    ) -> Result<Dated<Registration>, Error> {
        let verified = self.ask(runner, &token).await?;
        self.note_origin(enrollment, runner, token.fingerprint());
        let first_seen_at = verified.date.unwrap_or(now).whole_seconds();
        runner.record.id = verified.value.id;
        let expiry = verified.value.expiry;
        runner.take(Credential { token, obtained_at: Some(first_seen_at), expiry });
        self.claim(runner).await;
        let unsaved = self.project_and_clear(runner).await.err();
        let validity = Validity::new(Some(first_seen_at), expiry, first_seen_at);
        Ok(Dated { value: Registration::Registered { validity, unsaved }, date: verified.date })
    }

    /// Writes the record before the entry: a daemon that sees a new entry has to find whose it is, or it
    /// would serve it under another key.
    async fn claim(&self, runner: &Runner) {
        if let Err(error) = self.remember(runner).await {
            tracing::error!(
                runner = runner.label(),
                error = chain(&error),
                "the record did not take the new runner's token"
            );
        }
    }
}

/// Says what a lost registration may have left behind, so that a person can find and delete it.
pub(super) fn warn_of_orphan(intent: &Intent) {
    if let JournalOperation::Register { url, description, .. } = &intent.operation {
        tracing::warn!(
            %url, description, at = %intent.at,
            "the answer to a registration was lost: GitLab may have made a runner with this description at this time that nobody holds the token of; delete it there if it is listed as never contacted"
        );
    }
}
