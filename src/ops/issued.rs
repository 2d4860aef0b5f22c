//! What a registration has given: the token of a new runner, or one that a person gave.

use super::rotate::{known_expiry, received};
use super::{Completed, Disk, Enrollment, Error, Inquiry, Ops, Runner, Server};
use crate::error_chain::chain;
use crate::lifecycle::{Outcome, Validity};
use crate::model::{Credential, Origin, RunnerId, Timestamp};
use crate::secret::Token;

/// What a registration has given.
pub(super) struct Issued {
    pub(super) credential: Credential,
    pub(super) id: Option<RunnerId>,
    /// The id that the server has named for the token.
    pub(super) confirmed_id: Option<RunnerId>,
    pub(super) origin: Origin,
}

impl<S: Server, D: Disk> Ops<S, D> {
    /// An odd answer to a registration: its token is kept as a candidate and counts once the server accepts it.
    pub(super) async fn keep_odd_registration(
        &self,
        runner: &mut Runner,
        issued: Issued,
        oddity: &'static str,
        inquiry: &Inquiry<'_>,
    ) -> Result<Completed, Error> {
        let now = inquiry.now.at;
        let Issued { credential, id, origin, .. } = issued;
        tracing::warn!(runner = runner.label(), token = %credential.token.fingerprint(), oddity,
            "the answer to a registration is odd: verifying the token in it");
        self.keep_received(runner, received(credential.clone(), now, id, Some(origin))).await;
        match self.send_verify(runner, &credential.token).await {
            Ok(verified) => {
                let (id, confirmed_id) = (verified.value.id.or(id), verified.value.id);
                let expiry = known_expiry(credential.expiry, verified.value.expiry);
                let date = self.judged(runner, verified.date, expiry, inquiry);
                let obtained_at = self.issued_at(runner, date, inquiry);
                let credential = Credential { expiry, obtained_at: Some(obtained_at), ..credential };
                Ok(self.keep_registered(runner, Issued { credential, id, confirmed_id, origin }, date, now).await)
            }
            Err(error) => {
                if !runner.is_held_changed {
                    self.disk.clear(&runner.record.key).await?;
                }
                // A refusal comes from GitLab itself, and what is measured from then on is measured by its time.
                Err(Error::Unproven { runner: runner.label().to_owned(), oddity, date: error.date() })
            }
        }
    }

    /// Takes a given token without a journal: the user still has the token if this is interrupted.
    pub(super) async fn take_given(
        &self,
        enrollment: &Enrollment,
        runner: &mut Runner,
        token: Token,
        inquiry: &Inquiry<'_>,
    ) -> Result<Completed, Error> {
        // The journal of an unregistration that could not be cleared would be finished over the new entry.
        if self.disk.pending_of(&runner.record.key).await?.is_some() {
            self.disk.clear(&runner.record.key).await?;
        }
        let verified = self.send_verify(runner, &token).await?;
        self.check_stored_id(runner, verified.value.id)?;
        self.set_source(enrollment, runner, &token);
        let date = self.accepted_at(runner, &verified, None, inquiry);
        let first_seen_at = self.issued_at(runner, date, inquiry);
        let (id, origin) = (verified.value.id, enrollment.source.origin());
        let credential = Credential { token, obtained_at: Some(first_seen_at), expiry: verified.value.expiry };
        let issued = Issued { credential, id, confirmed_id: id, origin };
        Ok(self.keep_registered(runner, issued, date, inquiry.now.at).await)
    }

    /// Takes over the token of a new runner. Writes the record before the entry: a daemon that saw an entry without a record
    /// would manage it under another key.
    pub(super) async fn keep_registered(
        &self,
        runner: &mut Runner,
        issued: Issued,
        date: Option<Timestamp>,
        now: Timestamp,
    ) -> Completed {
        let Issued { credential, id, confirmed_id, origin } = issued;
        let over = std::mem::take(&mut runner.removable);
        let obtained_at = credential.obtained_at.unwrap_or(now);
        let validity = Validity { obtained_at, expiry: credential.expiry };
        runner.record.given_to = None;
        // The former token is kept with the former id and origin.
        runner.take(credential, now);
        (runner.record.id, runner.record.confirmed_id, runner.record.origin) = (id, confirmed_id, origin);
        if origin != Origin::Given {
            runner.extend_lineage();
        }
        if let Err(error) = self.save_record(runner).await {
            tracing::error!(runner = runner.label(), error = chain(&error), "cannot write the new token to the record");
        }
        let unsaved = self.project_and_clear(runner, over).await.err();
        Completed { unsaved, ..Completed::new(Outcome::Registered(validity), date) }
    }
}
