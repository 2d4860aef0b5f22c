//! Rotate: replace the token without losing the new one to a crash or a full disk.

use std::rc::Rc;

use super::verify::{check_kind, refuse_first_api};
use super::{AccessToken, Completed, Disk, EntryStatus, Error, Failure, Inquiry, Ops, Runner, Server};
use crate::error_chain::chain;
use crate::gitlab::{Answer, Reset, Shape};
use crate::lifecycle::{Outcome, Validity};
use crate::model::{Candidate, CandidateSource, Credential, Expiry, Origin, RunnerId, Timestamp};
use crate::secret::{Digest, Token};
use crate::store::{self, Intent, JournalAnswer, JournalOperation, Pending, Urgency};

impl<S: Server, D: Disk> Ops<S, D> {
    /// Replaces the token, authenticated by the token itself or by an access token. The access token also works if
    /// the runner's token has expired, or if a former reset was lost.
    ///
    /// Not cancellation safe once the request is sent: the answer is the only place that ever shows the new token.
    ///
    /// # Errors
    /// [`Error::Disk`] or [`Error::Stopping`] before a request is sent; [`Error::Changing`] if the request failed, and [`Error::Unproven`] if
    /// its answer is odd. If the server may have executed it nevertheless, the journal stays until [`Ops::settle`].
    pub async fn rotate(
        &self,
        runner: &mut Runner,
        access_token: Option<&AccessToken>,
        inquiry: &Inquiry<'_>,
    ) -> Result<Completed, Error> {
        let now = inquiry.now.at;
        let mut entered = self.enter_unless_stopping(runner).await?;
        entered.check_unfinished(runner)?;
        refuse_first_api(runner)?;
        if runner.is_replaced
            && let Some(validity) = runner.validity(now)
        {
            return Ok(Completed::new(Outcome::Adopted(validity), None));
        }
        if let EntryStatus::Variable(variable) = EntryStatus::of(runner, &entered.snapshot) {
            return Err(Error::VariableToken { runner: runner.label().to_owned(), variable });
        }
        // An access token rotates it by the runner's id.
        if access_token.is_none() {
            check_kind(runner, &runner.token()?)?;
        }
        let unknown = self.note_unknown(runner, &entered.snapshot, now).await?;
        let over = runner.overwritable(inquiry);
        let is_contested = unknown.iter().any(|token| !over.contains(&token.digest()));
        // Its entry keeps the unknown token then, and the state directory holds the new one.
        if is_contested && !(inquiry.is_pressing && self.disk.has_state()) {
            return Ok(Completed::new(Outcome::Contested, None));
        }
        let lost_before = entered.pending.take().filter(Pending::is_lost_reset);
        let (mut locked, _) = entered.asking();
        if access_token.is_none() && lost_before.is_some() {
            return Err(store::Error::Unsettled { key: runner.record.key.clone() }.into());
        }
        self.check_settled_elsewhere(runner, inquiry).await?;
        let urgency = if inquiry.is_pressing { Urgency::Pressing } else { Urgency::CanWait };
        self.disk.probe(urgency).await?;
        if !self.disk.has_state() {
            // The entry is the only place for the new token, even if it is removed meanwhile.
            let mut target = runner.target();
            target.digests.extend(over.iter().copied());
            runner.kept_text = self.disk.texts(target).await?.into_iter().next();
            if runner.kept_text.is_none() {
                return Err(Error::NoEntry(runner.label().to_owned()));
            }
        }
        let old = runner.token()?;
        let until_stored = Rc::new(self.sole_copies.begin().ok_or(Error::Stopping)?);
        // A reset by an access token goes before an earlier one is settled.
        let lost_before = lost_before.map(|pending| pending.intent);
        let intent = self.rotation_intent(runner, &old, access_token.is_some(), now);
        self.disk.begin(&runner.record.key, intent.clone()).await?;
        until_stored.sends();
        let answer = match self.reset(runner, &old, access_token).await {
            Ok(answer) => answer,
            Err(failure) => {
                if !failure.is_understood {
                    self.unclear_resets.borrow_mut().insert(old.digest(), (runner.record.key.clone(), now));
                }
                let error = Error::Changing(failure);
                if !matches!(error.outcome(), Outcome::Lost { .. }) {
                    self.call_off(runner, lost_before).await?;
                }
                return Err(error);
            }
        };
        if answer.value.token == old {
            self.call_off(runner, lost_before).await?;
            return Ok(Completed::new(Outcome::NotRotated, self.trusted(runner, answer.date)));
        }
        let date = self.judged(runner, answer.date, answer.value.expiry, inquiry);
        let obtained_at = self.issued_at(runner, date, inquiry);
        let Reset { token, expiry, shape } = answer.value;
        let credential = Credential { token, obtained_at: Some(obtained_at), expiry };
        if self.journal_token(runner, None, &credential, shape).await {
            until_stored.is_safe();
        } else {
            runner.sole_copy = Some(Rc::clone(&until_stored));
        }
        if let Shape::Odd(oddity) = shape {
            return self.keep_odd_reset(runner, credential, oddity, intent, access_token.is_some(), inquiry).await;
        }
        // Others may ask the server while this one waits for the disk: changes that wait together are made together.
        locked.give_place_back();
        Ok(self.keep_rotated(runner, credential, date, access_token.is_some(), now, over).await)
    }

    /// Fails while another record of this runner has sent a reset of the same token whose answer is missing or unclear: a
    /// verification comes first. The worker of that record may be gone, so a pressing token does not wait for it for long.
    async fn check_settled_elsewhere(&self, runner: &Runner, inquiry: &Inquiry<'_>) -> Result<(), Error> {
        let Some(token) = runner.digest() else { return Ok(()) };
        let waits = |sent_at: Timestamp| {
            let now = inquiry.now.at;
            let is_waiting = |validity: Validity| validity.waits_for_other_reset(sent_at, now);
            !inquiry.is_pressing || runner.validity(now).is_some_and(is_waiting)
        };
        let unclear = self.unclear_resets.borrow().get(&token).cloned();
        if unclear.is_some_and(|(key, sent_at)| key != runner.record.key && waits(sent_at)) {
            return Err(Error::UnclearElsewhere(runner.label().to_owned()));
        }
        for key in self.disk.lost_resets_of(token).await? {
            if key == runner.record.key {
                continue;
            }
            let pending = self.disk.pending_of(&key).await.ok().flatten();
            if pending.map_or(!inquiry.is_pressing, |pending| waits(pending.intent.at)) {
                return Err(store::Error::Unsettled { key }.into());
            }
        }
        Ok(())
    }

    /// Ends the journal of a reset without effect. An earlier one that was lost stays to be settled.
    async fn call_off(&self, runner: &Runner, lost_before: Option<Intent>) -> Result<(), store::Error> {
        match lost_before {
            Some(intent) => self.disk.take_back_to(&runner.record.key, intent).await,
            None => self.disk.clear(&runner.record.key).await,
        }
    }

    /// An odd answer to a reset: its token is kept as a candidate and counts once the server accepts it.
    async fn keep_odd_reset(
        &self,
        runner: &mut Runner,
        credential: Credential,
        oddity: &'static str,
        intent: Intent,
        is_recovery: bool,
        inquiry: &Inquiry<'_>,
    ) -> Result<Completed, Error> {
        let now = inquiry.now.at;
        tracing::warn!(runner = runner.label(), token = %credential.token.fingerprint(), oddity,
            "the answer to a rotation is odd: verifying the token in it");
        self.keep_received(runner, received(credential.clone(), now, None, None)).await;
        match self.send_verify(runner, &credential.token).await {
            Ok(verified) => {
                let expiry = known_expiry(credential.expiry, verified.value.expiry);
                let date = self.judged(runner, verified.date, expiry, inquiry);
                let obtained_at = Some(self.issued_at(runner, date, inquiry));
                let credential = Credential { expiry, obtained_at, ..credential };
                Ok(self.keep_rotated(runner, credential, date, is_recovery, now, Vec::new()).await)
            }
            Err(error) => {
                // The candidate is safe; the journal goes on to say that a reset is not settled.
                if !runner.is_held_changed {
                    self.disk.take_back_to(&runner.record.key, intent).await?;
                }
                // A refusal comes from GitLab itself, and what is measured from then on is measured by its time.
                Err(Error::Unproven { runner: runner.label().to_owned(), oddity, date: error.date() })
            }
        }
    }

    /// Keeps a token that the server sent in an odd answer.
    pub(super) async fn keep_received(&self, runner: &mut Runner, candidate: Candidate) {
        runner.note_candidate(candidate);
        match self.save_held(runner).await {
            Ok(()) if self.disk.has_state() => runner.sole_copy = None,
            Ok(()) => {}
            Err(error) => {
                let place = if runner.is_unstored() { "it is in memory alone" } else { "it stays in the journal" };
                tracing::error!(
                    runner = runner.label(),
                    error = chain(&error),
                    place,
                    "cannot write a token that the server sent"
                );
            }
        }
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
        credential: Credential,
        date: Option<Timestamp>,
        is_recovery: bool,
        now: Timestamp,
        over: Vec<Digest>,
    ) -> Completed {
        let obtained_at = credential.obtained_at.unwrap_or(now);
        let expiry = credential.expiry;
        runner.record.recovered = is_recovery.then(|| credential.token.fingerprint());
        runner.record.last_reset_at = Some(obtained_at);
        runner.take(credential, now);
        runner.extend_lineage();
        let unsaved = self.project_and_clear(runner, over).await.err();
        Completed { unsaved, ..Completed::new(Outcome::Rotated(Validity { obtained_at, expiry }), date) }
    }

    /// Adds a new token to the journal; returns whether it is stored there. A failure is only logged: the record and
    /// config.toml come next.
    pub(super) async fn journal_token(
        &self,
        runner: &Runner,
        id: Option<RunnerId>,
        credential: &Credential,
        shape: Shape,
    ) -> bool {
        let Credential { token, obtained_at, expiry } = credential.clone();
        let is_documented = shape == Shape::Documented;
        let answer = JournalAnswer { id, token: Some(token), expiry, obtained_at, is_documented };
        if let Err(error) = self.disk.answered(&runner.record.key, answer).await {
            tracing::error!(
                runner = runner.label(),
                error = chain(&error),
                "cannot write the new token to the journal"
            );
            return false;
        }
        self.disk.has_state()
    }

    /// Writes config.toml and the record, then clears the journal. If config.toml cannot be written, the record is
    /// still tried, because reading it does not take a replay.
    pub(super) async fn project_and_clear(&self, runner: &mut Runner, over: Vec<Digest>) -> Result<(), store::Error> {
        match self.project_over(runner, over).await {
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
        access_token: Option<&AccessToken>,
    ) -> Result<Answer<Reset>, Failure> {
        match (access_token, runner.record.id) {
            (Some(access), Some(id)) => {
                let access = self.with_access(runner, access).await;
                self.server.reset_by_id(&runner.site.url, id, &access).await
            }
            _ => self.server.reset(&runner.site, old, &self.identity.system_id).await,
        }
    }

    fn rotation_intent(&self, runner: &Runner, old: &Token, by_id: bool, at: Timestamp) -> Intent {
        let (url, id) = (runner.record.url.clone(), runner.record.id);
        let operation = JournalOperation::Rotate { url, id, old: old.fingerprint(), by_id };
        Intent { token: Some(old.digest()), ..self.intent(operation, at) }
    }

    pub(super) fn intent(&self, operation: JournalOperation, at: Timestamp) -> Intent {
        let system_id = Some(self.identity.system_id.clone());
        Intent { operation, at, system_id, asked_by: None, token: None }
    }
}

/// A token that came in an odd answer, with the id in it. A registration makes its runner in this way.
pub(super) fn received(
    credential: Credential,
    noted_at: Timestamp,
    id: Option<RunnerId>,
    origin: Option<Origin>,
) -> Candidate {
    let Credential { token, obtained_at, expiry } = credential;
    Candidate { token, source: CandidateSource::Received, noted_at, obtained_at, expiry, id, origin, refused: None }
}

/// The expiry of an odd answer, or else the one that a verification reports.
pub(super) fn known_expiry(sent: Expiry, verified: Expiry) -> Expiry {
    if verified == Expiry::Unknown { sent } else { verified }
}
