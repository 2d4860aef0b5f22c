//! Register: create the runner of an enrollment and write its entry.

use std::rc::Rc;

use super::candidates::Asked;
use super::issued::Issued;
use super::namesakes::{has_one_of, left_to_another};
use super::{
    AccessToken, Completed, Disk, Enrollment, EntryStatus, Error, Failure, Inquiry, Ops, RegistrationSource, Runner,
    Server,
};
use crate::gitlab::{RegisterParameters, Registered, Shape};
use crate::lifecycle::Outcome;
use crate::model::{Credential, RegisteredWith, RunnerKey, Site, StateName};
use crate::secret::Token;
use crate::store::{EntryText, Intent, JournalOperation, Urgency};

/// What a registration sends.
struct Sending<'a> {
    enrollment: &'a Enrollment,
    /// What the runner is made from.
    token: Token,
    site: Site,
}

impl<S: Server, D: Disk> Ops<S, D> {
    /// Registers the runner of an enrollment, unless its record already holds a token.
    ///
    /// # Errors
    /// [`Error::Secret`], [`Error::Compose`], [`Error::Disk`], [`Error::RegistrationLost`] or [`Error::Stopping`] before a
    /// request is sent; [`Error::Probing`] if no GitLab answers, and nothing is registered or noted then;
    /// [`Error::Registering`] if the registration failed. If the server may have executed it nevertheless, the log
    /// describes the possible orphan.
    pub async fn register(
        &self,
        enrollment: &Enrollment,
        runner: &mut Runner,
        inquiry: &Inquiry<'_>,
    ) -> Result<Completed, Error> {
        let now = inquiry.now.at;
        let _registration = self.unless_stopping(self.lock_registration(enrollment, runner)).await??;
        self.replay_registrations(enrollment, runner, now).await?;
        let entered = self.enter_unless_stopping(runner).await?;
        if let Some(validity) = runner.validity(now) {
            if runner.is_unwritten() {
                self.project(runner).await?;
            }
            return Ok(Completed::new(Outcome::Adopted(validity), None));
        }
        self.take_received_elsewhere(enrollment, runner).await?;
        if let Some(adopted) = self.ask_received(runner, &[], inquiry).await? {
            return Ok(adopted);
        }
        if self.is_registered_elsewhere(enrollment, runner, &entered.snapshot).await? {
            return Ok(left_to_another(runner));
        }
        self.check_no_lost_registration(enrollment, runner).await?;
        if !entered.snapshot.takes_entries {
            return Err(Error::NoRoom);
        }
        let token = enrollment.source.read()?;
        let sending = Sending { enrollment, token, site: self.site_of(enrollment, runner, &entered.snapshot) };
        self.disk.probe(Urgency::CanWait).await?;
        // The kept text of an unregistered runner has the user's edits; it takes precedence over the enrollment.
        if runner.record.entry_text.is_none() || runner.record.state != Some(StateName::Retired) {
            runner.record.entry_text = Some(EntryText::compose(&enrollment.entry)?);
        }
        runner.executor = enrollment.entry.executor.as_deref().map(Into::into);
        runner.record.origin = enrollment.source.origin();
        self.set_source(enrollment, runner, &sending.token);
        self.probe_server(&sending).await?;
        self.register_by_source(sending, runner, inquiry).await
    }

    /// Asks whether a GitLab answers before a request is sent that must not be repeated: the gateway of a GitLab that only
    /// starts answers every request as one whose answer is lost.
    async fn probe_server(&self, sending: &Sending<'_>) -> Result<(), Error> {
        match &sending.enrollment.source {
            // The API of 2016 has no verification, and a given token is verified anyway.
            RegistrationSource::V1(_) | RegistrationSource::Given(_) => Ok(()),
            RegistrationSource::Registration(_) | RegistrationSource::Created(_) => {
                let probed = self.unless_stopping(self.server.probe(&sending.site)).await?;
                probed.map(drop).map_err(Error::Probing)
            }
        }
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
        inquiry: &Inquiry<'_>,
    ) -> Result<Completed, Error> {
        let now = inquiry.now.at;
        let _registration = self.unless_stopping(self.lock_registration(enrollment, runner)).await??;
        self.replay_registrations(enrollment, runner, now).await?;
        let entered = self.enter_unless_stopping(runner).await?;
        let mut unknown = self.note_unknown(runner, &entered.snapshot, now).await?;
        unknown.extend(self.note_same_runner(enrollment, runner, &entered.snapshot, inquiry).await?);
        let entry_status = EntryStatus::of(runner, &entered.snapshot);
        let is_blank = entry_status == EntryStatus::Blank;
        let mut is_missing = match entry_status {
            EntryStatus::Variable(variable) => {
                return Err(Error::VariableToken { runner: runner.label().to_owned(), variable });
            }
            EntryStatus::Missing if !entered.snapshot.takes_entries => return Err(Error::NoRoom),
            EntryStatus::Missing => true,
            EntryStatus::Ours
            | EntryStatus::Stale
            | EntryStatus::Padded
            | EntryStatus::Foreign { .. }
            | EntryStatus::Blank
            | EntryStatus::Broken => false,
        };
        if let Some(adopted) = self.ask_received(runner, &unknown, inquiry).await? {
            return Ok(adopted);
        }
        // The new token is written over unknown ones that are proven dead, or it would have no entry.
        let dead = runner.overwritable(inquiry);
        runner.removable = unknown.iter().map(Token::digest).collect();
        if runner.removable.iter().any(|unknown| !dead.contains(unknown)) {
            return Err(Error::EntryDisputed(runner.label().to_owned()));
        }
        is_missing &= !has_one_of(&unknown, enrollment, &entered.snapshot);
        if is_missing && self.is_registered_elsewhere(enrollment, runner, &entered.snapshot).await? {
            return Ok(left_to_another(runner));
        }
        if self.has_accepted_namesake(enrollment, runner, &entered.snapshot, inquiry).await? {
            return Ok(Completed::new(Outcome::Deferred { retry_after: None }, None));
        }
        self.check_no_lost_registration(enrollment, runner).await?;
        let token = enrollment.source.read()?;
        let sending = Sending { enrollment, token, site: self.site_of(enrollment, runner, &entered.snapshot) };
        self.disk.probe(Urgency::CanWait).await?;
        self.check_settled(runner).await?;
        self.probe_server(&sending).await?;
        let text = runner.record.entry_text.take();
        // An entry without a token is found again by its name alone: the new runner has another id.
        if is_missing || is_blank {
            runner.record.entry_text = Some(text.map_or_else(|| EntryText::compose(&enrollment.entry), Ok)?);
        }
        self.register_by_source(sending, runner, inquiry).await
    }

    /// While a token from an odd answer may be good, no other runner is registered. Unknown tokens of its entry are asked
    /// about, too.
    async fn ask_received(
        &self,
        runner: &mut Runner,
        unknown: &[Token],
        inquiry: &Inquiry<'_>,
    ) -> Result<Option<Completed>, Error> {
        let date = match self.ask_newer(runner, unknown, inquiry).await? {
            Asked::Adopted(answer) => return Ok(Some(self.adopted(runner, &answer, inquiry).await?)),
            Asked::Not(newer) => newer.date,
        };
        if runner.awaits_received(inquiry) {
            return Err(Error::AwaitsToken { runner: runner.label().to_owned(), date });
        }
        Ok(None)
    }

    /// What the runner is made from; its origin comes with its token.
    pub(super) fn set_source(&self, enrollment: &Enrollment, runner: &mut Runner, source: &Token) {
        let record = &mut runner.record;
        record.set_seed(source);
        record.is_copy = false;
        record.machine.clone_from(&self.identity.machine);
        record.name = Some(enrollment.entry.name.clone());
        record.registered_with = registered_with(enrollment).map(Box::new);
    }

    async fn register_by_source(
        &self,
        sending: Sending<'_>,
        runner: &mut Runner,
        inquiry: &Inquiry<'_>,
    ) -> Result<Completed, Error> {
        let now = inquiry.now.at;
        let Sending { enrollment, token, site } = sending;
        let parameters = RegisterParameters { info: Some(self.identity.info.clone()), ..enrollment.parameters.clone() };
        if let RegistrationSource::Given(_) = enrollment.source {
            return self.take_given(enrollment, runner, token, inquiry).await;
        }
        let until_stored = Rc::new(self.sole_copies.begin().ok_or(Error::Stopping)?);
        runner.note_share();
        self.save_record(runner).await?;
        let operation = JournalOperation::Register {
            url: runner.record.url.clone(),
            description: parameters.description.clone().unwrap_or_default(),
            seed: token.fingerprint(),
            common: Some(RunnerKey::registration(&enrollment.site.url, &enrollment.entry.name)),
        };
        let intent = Intent { token: Some(token.digest()), ..self.intent(operation, now) };
        self.disk.begin(&runner.record.key, intent.clone()).await?;
        until_stored.sends();
        let answer = match &enrollment.source {
            RegistrationSource::Created(creation) => {
                let access = AccessToken { token: token.clone(), tls: creation.tls.clone() };
                let access = self.with_access(runner, &access).await;
                self.server.create(&runner.site.url, &access, &creation.request(&parameters)).await
            }
            RegistrationSource::V1(_) => self.server.register_v1(&site, &token, &parameters).await,
            RegistrationSource::Registration(_) | RegistrationSource::Given(_) => {
                self.server.register(&site, &token, &parameters).await
            }
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => return Err(self.undo_registration(runner, &intent, failure).await?),
        };
        self.set_source(enrollment, runner, &token);
        let date = self.judged(runner, answer.date, answer.value.expiry, inquiry);
        let obtained_at = self.issued_at(runner, date, inquiry);
        let Registered { id, token, expiry, shape } = answer.value;
        let credential = Credential { token, obtained_at: Some(obtained_at), expiry };
        if self.journal_token(runner, id, &credential, shape).await {
            until_stored.is_safe();
        } else {
            runner.sole_copy = Some(Rc::clone(&until_stored));
        }
        let issued = Issued { credential, id, confirmed_id: id, origin: enrollment.source.origin() };
        if let Shape::Odd(oddity) = shape {
            return self.keep_odd_registration(runner, issued, oddity, inquiry).await;
        }
        Ok(self.keep_registered(runner, issued, date, now).await)
    }

    async fn undo_registration(&self, runner: &mut Runner, intent: &Intent, failure: Failure) -> Result<Error, Error> {
        let may_have_reached = failure.may_have_reached;
        let error = Error::Registering(failure);
        if may_have_reached && matches!(error.outcome(), Outcome::Lost { .. }) {
            warn_of_orphan(intent);
            self.lose_registration(runner, intent).await?;
        } else {
            self.clear_registration(runner).await?;
        }
        Ok(error)
    }

    /// Clears the journal of a registration that brought no token, and removes a record that was only written for it.
    pub(super) async fn clear_registration(&self, runner: &mut Runner) -> Result<(), Error> {
        self.disk.clear(&runner.record.key).await?;
        let is_empty = runner.record.credential.is_none() && runner.held.candidates.is_empty();
        if runner.record.enrollment.is_none() && is_empty {
            self.disk.remove_record(&runner.record.key).await?;
            runner.is_recorded = false;
        }
        Ok(())
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

/// The settings in GitLab that a registration of this enrollment asks for; `None` for a given token.
#[must_use]
pub fn registered_with(enrollment: &Enrollment) -> Option<RegisteredWith> {
    match &enrollment.source {
        RegistrationSource::Given(_) => return None,
        RegistrationSource::Registration(_) | RegistrationSource::V1(_) | RegistrationSource::Created(_) => {}
    }
    let RegisterParameters {
        description,
        maintenance_note,
        mut tag_list,
        run_untagged,
        locked,
        paused,
        access_level,
        maximum_timeout,
        info: _,
    } = enrollment.parameters.clone();
    tag_list.sort();
    Some(RegisteredWith {
        description,
        tag_list,
        run_untagged,
        locked,
        paused,
        access_level: access_level.map(|level| level.as_str().to_owned()),
        maximum_timeout_secs: maximum_timeout.map(|timeout| timeout.as_secs()),
        maintenance_note,
    })
}
