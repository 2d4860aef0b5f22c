//! Verify: ask the server whether it accepts the token, and update the record from the answer.

use std::time::Duration;

use super::candidates::{Asked, Unadopted};
use super::enrollment::{given_tokens, has_given, server_of_given};
use super::{
    Completed, Disk, Enrollment, EntryStatus, Error, Inquiry, LOCK_WAIT, Locked, Ops, RegistrationSource, Runner,
    Server,
};
use crate::error_chain::chain;
use crate::gitlab::{Answer, Verified};
use crate::lifecycle::Outcome;
use crate::model::{
    Candidate, Claim, Credential, Expiry, Finding, LastVerify, Origin, RunnerId, RunnerKey, StateName, Timestamp,
    VerifyOutcome,
};
use crate::secret::{Token, TokenPurpose};
use crate::store::{self, Edit, Entry, EntrySelector, Record, Snapshot};

/// Stands for a name in the key that all adoptions of given tokens at a server lock.
const GIVEN_TOKENS: &str = "given tokens";

/// Rejects runners of the API v1, which supports neither verification nor rotation, before a request is sent.
pub(super) fn refuse_first_api(runner: &Runner) -> Result<(), Error> {
    match runner.record.origin {
        Origin::V1 => Err(Error::FirstApi(runner.label().to_owned())),
        Origin::Registered | Origin::Given => Ok(()),
    }
}

/// Rejects a token that is not a runner's, as a person may have put into the entry: it may open more than a runner.
pub(super) fn check_kind(runner: &Runner, token: &Token) -> Result<(), Error> {
    TokenPurpose::Runner.check(token).map_err(|wrong| Error::WrongToken {
        runner: runner.label().to_owned(),
        token: token.fingerprint(),
        wrong,
    })
}

impl<S: Server, D: Disk> Ops<S, D> {
    /// Asks the server whether it accepts the runner's token. Creates or refreshes this machine's manager there.
    ///
    /// Tokens that the server sent and unknown ones in config.toml are asked about first, the other candidates once the
    /// runner's own token is refused. An unknown token in config.toml is overwritten only once its refusals prove it
    /// dead and ours has been accepted since; until then the result is `disputed`.
    ///
    /// # Errors
    /// [`Error::Asking`] if the token is refused or the server does not answer, [`Error::Disk`] if config.toml or the
    /// record cannot be read or written, [`Error::FirstApi`] for a runner of the API v1, [`Error::WrongToken`] for a token
    /// of another kind.
    pub async fn verify(&self, runner: &mut Runner, inquiry: &Inquiry<'_>) -> Result<Completed, Error> {
        let entered = self.enter(runner).await?;
        entered.check_unfinished(runner)?;
        refuse_first_api(runner)?;
        let mut unknown = self.note_unknown(runner, &entered.snapshot, inquiry.now.at).await?;
        let unnamed = self.note_unnamed(runner, &entered.snapshot, inquiry.now.at).await?;
        let (mut locked, version) = entered.asking();
        unknown.extend(unnamed.iter().cloned());
        let newer = match self.ask_newer(runner, &unknown, inquiry).await? {
            Asked::Adopted(answer) => {
                self.note_same(runner).await?;
                return self.adopted(runner, &answer, inquiry).await;
            }
            Asked::Not(newer) => newer,
        };
        if runner.record.credential.is_none() {
            return Ok(Completed::new(Outcome::Lost { retry_after: None }, newer.date));
        }
        match self.verify_own(runner, &mut locked, inquiry).await {
            Ok(verified) if unnamed.is_empty() => {
                let snapshot = self.in_force(&version).await?;
                self.correct_entry(runner, &snapshot, &newer, verified, inquiry).await
            }
            Ok(verified) => self.correct_unnamed(runner, &unnamed, &newer, verified, inquiry).await,
            Err(error) if error.outcome() == Outcome::Refused => {
                // With this refusal it may be proven dead.
                let before = inquiry.asked.filter(|_| !runner.is_replaced);
                let asked = Finding::added(before, Claim::Refused, inquiry.now);
                let expiry = runner.times().map_or(Expiry::Unknown, |(_, expiry)| expiry);
                let inquiry = &Inquiry { is_dead: inquiry.is_dead || inquiry.is_proof(&asked, expiry), ..*inquiry };
                if inquiry.is_dead && !runner.is_leaving {
                    let snapshot = self.in_force(&version).await?;
                    let is_copy = |token: &Token| is_in_copy_alone(runner, &snapshot, token);
                    if let Some((token, id)) = newer.foreign.iter().find(|(token, _)| !is_copy(token)) {
                        return self.take_over(runner, token, *id, inquiry).await;
                    }
                    self.hand_copies_over(runner, &snapshot, &newer).await?;
                }
                let twin = match self.ask_twin(runner, inquiry).await? {
                    Asked::Adopted(answer) => return self.adopted(runner, &answer, inquiry).await,
                    Asked::Not(twin) => twin,
                };
                if inquiry.is_dead {
                    self.note_kept_elsewhere(runner).await?;
                }
                match self.ask_older(runner, &unknown, inquiry).await? {
                    Asked::Adopted(answer) => {
                        self.note_same(runner).await?;
                        self.adopted(runner, &answer, inquiry).await
                    }
                    Asked::Not(older)
                        if inquiry.is_patient && (newer.is_unanswered || twin.is_unanswered || older.is_unanswered) =>
                    {
                        Err(Error::Unjudged(runner.label().to_owned()))
                    }
                    Asked::Not(_) => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// An acceptance is the last answer that it needs: others may ask the server while this one waits for the disk.
    async fn verify_own(
        &self,
        runner: &mut Runner,
        locked: &mut Locked<D::RunnerLock>,
        inquiry: &Inquiry<'_>,
    ) -> Result<Completed, Error> {
        let token = runner.token()?;
        let mut answer = self.send_verify(runner, &token).await;
        if let Ok(verified) = &mut answer {
            verified.date = self.accepted_at(runner, verified, runner.times(), inquiry);
        }
        let now = self.present(runner, inquiry);
        note_verification(runner, &answer, now);
        let mut is_doubtful = false;
        if let Ok(verified) = &answer {
            locked.give_place_back();
            let was_named = runner.record.named_id().is_some();
            apply_answer(runner, verified, now);
            if !was_named && runner.record.named_id().is_some() {
                self.note_records_of_same(runner).await?;
            }
            // The state follows from it: a second write for that alone is spared.
            if runner.record.state.is_none() {
                (runner.record.state, runner.record.since) =
                    (Some(StateName::Active), Some(verified.date.unwrap_or(now)));
            }
            is_doubtful = self.part_from_twin(runner, verified.date.unwrap_or(now)).await?;
            if let Some(accepted_at) = verified.date {
                runner.outlive_candidates(accepted_at, inquiry.local);
            }
        }
        self.save_record(runner).await?;
        let date = answer?.date;
        let validity = runner.validity(date.unwrap_or(now)).ok_or_else(|| Error::NoToken(runner.label().to_owned()))?;
        let outcome = if runner.is_replaced { Outcome::Adopted(validity) } else { Outcome::Accepted(validity) };
        Ok(Completed { is_doubtful, ..Completed::new(outcome, date) })
    }

    /// The runner's own token was accepted: puts it over old copies of itself and over unknown tokens that are proven
    /// dead. An entry with the token of another runner is given to that one.
    async fn correct_entry(
        &self,
        runner: &mut Runner,
        snapshot: &Snapshot,
        newer: &Unadopted,
        verified: Completed,
        inquiry: &Inquiry<'_>,
    ) -> Result<Completed, Error> {
        let entry_status = EntryStatus::of(runner, snapshot);
        self.take_back(runner, &entry_status).await?;
        match entry_status {
            EntryStatus::Foreign { .. } => {
                let (mut is_unknown, mut is_given) = (false, true);
                for (credential, _) in EntryStatus::unknown_in(runner, snapshot) {
                    match newer.foreign.iter().find(|(token, _)| *token == credential.token) {
                        Some((token, Some(id))) if is_in_copy_alone(runner, snapshot, token) => {
                            is_given &= self.hand_copy_over(runner, credential, *id).await?;
                        }
                        Some((_, Some(id))) => is_given &= self.give_away(runner, credential, *id).await?,
                        Some((_, None)) if !runner.is_news(&credential.token) => {}
                        Some((_, None)) => {
                            tracing::warn!(runner = runner.label(), token = %credential.token.fingerprint(),
                            "config.toml holds another token that the server accepts, and ours is accepted too: leaving the entry alone, since this GitLab does not say whose token it is")
                        }
                        None => is_unknown = true,
                    }
                }
                if !is_unknown {
                    return Ok(Completed { is_disputed: !is_given, ..verified });
                }
                let over = runner.overwritable(inquiry);
                // Another record of the runner may have written the same: the two would write the file in turn.
                if EntryStatus::is_written(runner, snapshot, &over) {
                    return Ok(Completed { is_disputed: true, ..verified });
                }
                return match self.project_over(runner, over).await {
                    Ok(()) if EntryStatus::unknown_in(runner, &*self.disk.read().await?).is_empty() => Ok(verified),
                    Ok(()) | Err(store::Error::UnknownToken { .. }) => Ok(Completed { is_disputed: true, ..verified }),
                    Err(error) => Err(error.into()),
                };
            }
            EntryStatus::Stale => tracing::warn!(
                runner = runner.label(),
                "config.toml holds a replaced token: writing the current one, which the server accepts"
            ),
            EntryStatus::Padded => tracing::warn!(
                runner = runner.label(),
                "config.toml holds the token with white space around it: writing it without, as gitlab-runner needs it"
            ),
            EntryStatus::Ours if EntryStatus::is_mistimed(runner, snapshot) => tracing::warn!(
                runner = runner.label(),
                "config.toml names another expiry of the token than the server: writing the server's, which gitlab-runner goes by"
            ),
            EntryStatus::Missing if runner.is_unwritten() => {}
            // Its token was blanked: an enrollment wants it back.
            EntryStatus::Blank if runner.record.enrollment.is_some() => {}
            EntryStatus::Ours
            | EntryStatus::Variable(_)
            | EntryStatus::Blank
            | EntryStatus::Broken
            | EntryStatus::Missing => return Ok(verified),
        }
        self.project(runner).await?;
        Ok(verified)
    }

    /// The runner's own token was accepted, and these are in entries of its name without an id: puts it over one that is
    /// proven dead.
    async fn correct_unnamed(
        &self,
        runner: &mut Runner,
        unnamed: &[Token],
        newer: &Unadopted,
        verified: Completed,
        inquiry: &Inquiry<'_>,
    ) -> Result<Completed, Error> {
        let over = runner.overwritable(inquiry);
        let is_refused = |token: &&Token| newer.foreign.iter().all(|(accepted, _)| accepted != *token);
        let refused = unnamed.iter().filter(is_refused).map(Token::digest);
        let (dead, unjudged): (Vec<_>, Vec<_>) = refused.partition(|token| over.contains(token));
        if !dead.is_empty() {
            self.take_unnamed(runner, dead).await?;
        }
        Ok(Completed { is_disputed: !unjudged.is_empty(), ..verified })
    }

    /// A candidate has become the runner's token: entries that hold another one of its tokens get it too.
    pub(super) async fn adopted(
        &self,
        runner: &mut Runner,
        answer: &Answer<Verified>,
        inquiry: &Inquiry<'_>,
    ) -> Result<Completed, Error> {
        let snapshot = self.disk.read().await?;
        if EntryStatus::of(runner, &snapshot) != EntryStatus::Ours || EntryStatus::is_mistimed(runner, &snapshot) {
            let over = runner.overwritable(inquiry);
            match self.project_over(runner, over).await {
                // The next verification asks about what was written meanwhile.
                Ok(()) | Err(store::Error::UnknownToken { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let now = answer.date.unwrap_or(self.present(runner, inquiry));
        let validity = runner.validity(now).ok_or_else(|| Error::NoToken(runner.label().to_owned()))?;
        Ok(Completed::new(Outcome::Adopted(validity), answer.date))
    }

    /// The entry holds an accepted token of another runner, and ours is good: the entry belongs to that runner from now
    /// on. Ours stays in the state directory. Returns whether it was given.
    async fn give_away(&self, runner: &mut Runner, credential: Credential, id: RunnerId) -> Result<bool, Error> {
        tracing::warn!(
            runner = runner.label(),
            id = runner.record.id.map(RunnerId::number),
            other = id.number(),
            "its entry in config.toml was given to another runner: serving that one as found, and keeping this runner in the state directory; put this runner's token back, or unregister it"
        );
        self.hand_entry_over(runner, credential, id).await
    }

    /// The entry is the other runner's from now on, which is recorded as given. Returns whether it is: not while another
    /// operation works on that runner.
    pub(super) async fn hand_entry_over(
        &self,
        runner: &mut Runner,
        credential: Credential,
        id: RunnerId,
    ) -> Result<bool, Error> {
        runner.record.given_to = Some(id);
        self.save_record(runner).await?;
        self.hand_copy_over(runner, credential, id).await
    }

    /// As [`Ops::hand_entry_over`], for one of several entries: the runner still has its own.
    async fn hand_copy_over(&self, runner: &Runner, credential: Credential, id: RunnerId) -> Result<bool, Error> {
        // The expiry in the entry can be that of the token that was there before.
        let noted = runner.held.candidates.iter().find(|candidate| candidate.token == credential.token);
        let expiry = noted.map_or(credential.expiry, |candidate| candidate.expiry);
        let credential = Credential { expiry, ..credential };
        if !self.record_given(runner, id, &credential).await? {
            return Ok(false);
        }
        let digests = vec![credential.token.digest()];
        let url = runner.record.url.clone();
        let target = EntrySelector { url, id: None, digests, name: None };
        // Only the id and the expiry change: they were claims, and these are the server's.
        let edit = Edit::Renew { target, id: Some(id), credential, over: Vec::new() };
        match self.disk.edit(edit).await {
            Ok(_) | Err(store::Error::NoSuchEntry { .. }) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// The runner's token is dead, and copies of its entry hold accepted tokens of other runners.
    async fn hand_copies_over(&self, runner: &Runner, snapshot: &Snapshot, newer: &Unadopted) -> Result<(), Error> {
        for (credential, _) in EntryStatus::unknown_in(runner, snapshot) {
            let owner = newer.foreign.iter().find(|(token, _)| *token == credential.token);
            if let Some(id) = owner.and_then(|(_, id)| *id) {
                tracing::warn!(
                    runner = runner.label(),
                    other = id.number(),
                    "a copy of its entry in config.toml was given to another runner: serving that one as found"
                );
                // One that is not handed over yet is with the next verification.
                let _is_given = self.hand_copy_over(runner, credential, id).await?;
            }
        }
        Ok(())
    }

    /// The entry that was given to another runner holds this runner's token again.
    pub(super) async fn take_back(&self, runner: &mut Runner, entry_status: &EntryStatus) -> Result<(), Error> {
        if *entry_status == EntryStatus::Ours && runner.record.given_to.take().is_some() {
            self.save_record(runner).await?;
        }
        Ok(())
    }

    /// Records the other runner as given, so that a stop deletes at most this machine's manager of it. If it has a record,
    /// the token is kept beside that one: it is in config.toml alone, and may be the good one of the two. Returns whether
    /// it is kept: not while another operation works on that runner, which may be giving an entry to this one.
    async fn record_given(&self, runner: &Runner, id: RunnerId, credential: &Credential) -> Result<bool, Error> {
        let key = RunnerKey::found(&runner.record.url, Some(id), credential.token.digest());
        // Its own key can be made of an id that was not its own.
        if key == runner.record.key {
            return Ok(true);
        }
        let _lock = match self.disk.lock_runner(&key, Duration::ZERO).await {
            Err(store::Error::RunnerLocked { .. }) => return Ok(false),
            locked => locked?,
        };
        if let Some(record) = self.disk.record(&key).await? {
            let mut other = Runner::recorded(record, runner.site.clone());
            self.load_held(&mut other).await;
            let found = runner.held.candidates.iter().find(|candidate| candidate.token == credential.token);
            let found = found.filter(|_| other.record.named_id().is_none_or(|named| named == id)).cloned();
            found.into_iter().for_each(|found| other.note_candidate(Candidate { id: Some(id), ..found }));
            self.save_held(&mut other).await?;
            return Ok(true);
        }
        let mut other = Runner::blank(key, Origin::Given, runner.site.clone());
        other.record.id = Some(id);
        other.record.confirmed_id = Some(id);
        other.record.name.clone_from(&runner.record.name);
        other.record.credential = Some(credential.clone());
        self.save_record(&mut other).await?;
        Ok(true)
    }

    /// The runner's own token is dead, and its entry holds an accepted token of another runner: the enrollment goes on
    /// with that one, and never deletes it. A runner that is being unregistered does not become another one.
    async fn take_over(
        &self,
        runner: &mut Runner,
        token: &Token,
        id: Option<RunnerId>,
        inquiry: &Inquiry<'_>,
    ) -> Result<Completed, Error> {
        let mut answer = self.send_verify(runner, token).await?;
        tracing::warn!(
            runner = runner.label(),
            id = runner.record.id.map(RunnerId::number),
            other = id.map(RunnerId::number),
            "its token is refused, and its entry was given to another runner: going on with that one, which is never deleted at a stop"
        );
        let held = runner.held.candidates.iter().find(|candidate| candidate.token == *token);
        let (obtained_at, expiry) =
            held.map_or((None, Expiry::Unknown), |candidate| (candidate.obtained_at, candidate.expiry));
        runner.take(Credential { token: token.clone(), obtained_at, expiry }, inquiry.now.at);
        answer.date = self.accepted_at(runner, &answer, runner.times(), inquiry);
        // A server that names no ids leaves the entry's own, which goes on saying whose entry it is.
        runner.record.id = id.or(runner.record.id);
        (runner.record.origin, runner.record.confirmed_id) = (Origin::Given, id);
        apply_answer(runner, &answer, self.present(runner, inquiry));
        self.save_record(runner).await?;
        self.note_same(runner).await?;
        self.adopted(runner, &answer, inquiry).await
    }

    /// Adopts the token of an enrollment with a given token, if the user has replaced it; `None` if it is unchanged or
    /// unreadable, if the server refuses it, or if another one of the `enrollments` serves its runner.
    ///
    /// # Errors
    /// As [`Ops::verify`].
    pub async fn adopt_given_token(
        &self,
        enrollments: &[Enrollment],
        enrollment: &Enrollment,
        runner: &mut Runner,
        inquiry: &Inquiry<'_>,
    ) -> Result<Option<Completed>, Error> {
        let RegistrationSource::Given(_) = &enrollment.source else { return Ok(None) };
        let token = match enrollment.source.read() {
            Ok(token) => token,
            Err(error) => {
                tracing::warn!(
                    runner = runner.label(),
                    error = chain(&error),
                    "cannot read the given token: keeping the previous one"
                );
                return Ok(None);
            }
        };
        if runner.is_made_of(&token) || runner.is_current(&token) {
            return Ok(None);
        }
        let entered = self.enter(runner).await?;
        if runner.is_made_of(&token) {
            return Ok(None);
        }
        if self.is_of_another(enrollments, runner, &token).await? {
            return Ok(None);
        }
        // What the entry holds is not overwritten unseen.
        self.note_unknown(runner, &entered.snapshot, inquiry.now.at).await?;
        let mut verified = match self.send_verify(runner, &token).await {
            Ok(verified) => verified,
            // Our own token is verified next.
            Err(error) if runner.record.credential.is_some() => {
                let (runner, error) = (runner.label(), chain(&error));
                tracing::warn!(runner, token = %token.fingerprint(), error, "the server does not accept the given token: keeping the previous one");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        // Another enrollment may have been given the same token meanwhile: one of the two adopts it.
        let key = RunnerKey::registration(&runner.record.url, GIVEN_TOKENS);
        let adoption = self.disk.lock_runner(&key, LOCK_WAIT).await?;
        if self.is_of_another(enrollments, runner, &token).await? {
            return Ok(None);
        }
        tracing::info!(runner = runner.label(), token = %token.fingerprint(), "adopted the given token, which was replaced");
        runner.record.set_seed(&token);
        runner.take(Credential { token, obtained_at: None, expiry: Expiry::Unknown }, inquiry.now.at);
        verified.date = self.accepted_at(runner, &verified, None, inquiry);
        let now = self.present(runner, inquiry);
        let issued_at = self.issued_at(runner, verified.date, inquiry);
        if let Some(credential) = &mut runner.record.credential {
            credential.obtained_at = Some(issued_at);
        }
        // The user has named the runner by its token. The one that the enrollment had before may have been registered.
        (runner.record.origin, runner.record.confirmed_id) = (Origin::Given, None);
        runner.record.first_seen_at = Some(issued_at);
        apply_answer(runner, &verified, now);
        self.save_record(runner).await?;
        drop(adoption);
        let unknown = EntryStatus::unknown_in(runner, &entered.snapshot);
        // They are candidates now. Without a state directory they would be in no other place.
        let kept = unknown.iter().filter(|_| self.disk.has_state());
        let over = kept.map(|(credential, _)| credential.token.digest()).collect();
        self.project_over(runner, over).await?;
        let validity = runner.validity(now).ok_or_else(|| Error::NoToken(runner.label().to_owned()))?;
        Ok(Some(Completed::new(Outcome::Adopted(validity), verified.date)))
    }

    /// Whether another enrollment serves the runner of this given token, which is logged once.
    async fn is_of_another(
        &self,
        enrollments: &[Enrollment],
        runner: &mut Runner,
        token: &Token,
    ) -> Result<bool, Error> {
        let Some(other) = self.other_enrollment_with(enrollments, runner, token).await? else { return Ok(false) };
        if runner.is_news(token) {
            tracing::error!(runner = runner.label(), token = %token.fingerprint(), enrollment = other,
                "the given token was replaced by that of another enrollment, which serves the runner: keeping the previous one, remove one of the enrollments");
        }
        Ok(true)
    }

    /// The key of another enrollment that is given this token, or whose runner has it or was made of it. One that is
    /// given another token by now leaves it.
    async fn other_enrollment_with(
        &self,
        enrollments: &[Enrollment],
        runner: &Runner,
        token: &Token,
    ) -> Result<Option<String>, Error> {
        let records = self.disk.records().await?.records;
        let given = given_tokens(enrollments);
        let (url, own) = (&runner.record.url, &runner.record.key);
        if let Some(server) = server_of_given(&given, &records, url, token).filter(|server| server.key != *own) {
            return Ok(Some(server.key.as_str().to_owned()));
        }
        let is_given_now =
            |key: &str| given.iter().any(|(other, _)| other.key.as_str() == key && other.site.url == *url);
        let has_it = |record: &Record| record.key != *own && record.url == *url && has_given(record, token);
        let others = records.into_iter().filter(has_it).filter_map(|record| record.enrollment);
        Ok(others.into_iter().find(|key| !is_given_now(key)))
    }

    /// Sends one verify request for a token. A verdict in unknown words is proven before it counts.
    ///
    /// # Errors
    /// [`Error::Asking`]; [`Error::WrongToken`] for a token of another kind, which is not sent.
    pub(super) async fn send_verify(&self, runner: &Runner, token: &Token) -> Result<Answer<Verified>, Error> {
        check_kind(runner, token)?;
        let info = runner.record.enrollment.is_some().then_some(&self.identity.info);
        let answer = self.server.verify(&runner.site, token, &self.identity.system_id, info).await;
        let verified = match answer {
            Ok(answer) => Ok(answer),
            Err(failure) => Err(Error::Asking(self.proven(runner, failure).await)),
        };
        if verified.as_ref().map_or_else(|error| error.outcome() == Outcome::Refused, |_| true) {
            self.unclear_resets.borrow_mut().remove(&token.digest());
        }
        verified
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

/// Whether an unknown token is only in copies of the runner's entry, which have other names than the entry itself.
fn is_in_copy_alone(runner: &Runner, snapshot: &Snapshot, token: &Token) -> bool {
    let is_named = |entry: &&Entry| entry.name == runner.record.name;
    let (named, copies): (Vec<_>, Vec<_>) = snapshot.of(&runner.target()).partition(is_named);
    let has_token = |entry: &&Entry| entry.token.token() == Some(token);
    !named.is_empty() && copies.iter().any(has_token) && !named.iter().any(has_token)
}

fn note_verification(runner: &mut Runner, answer: &Result<Answer<Verified>, Error>, now: Timestamp) {
    let outcome = match answer {
        Ok(_) => VerifyOutcome::Accepted,
        Err(error) => match error.outcome() {
            Outcome::Refused => VerifyOutcome::Refused,
            Outcome::Claimed(trouble) => VerifyOutcome::Trouble(trouble),
            _ => VerifyOutcome::Unanswered,
        },
    };
    let date = answer.as_ref().map_or_else(Error::date, |answer| answer.date);
    runner.record.last_verify = Some(LastVerify { at: date.unwrap_or(now), outcome });
}

/// Notes that the server has accepted the token at this address, whatever was concluded before.
pub(super) fn note_acceptance(runner: &mut Runner, at: Timestamp) {
    runner.record.last_verify = Some(LastVerify { at, outcome: VerifyOutcome::Accepted });
    (runner.record.state, runner.record.since) = (Some(StateName::Active), Some(at));
}

/// Updates the record from the answer: the runner's id, which is confirmed by that, and the token's expiry.
pub(super) fn apply_answer(runner: &mut Runner, verified: &Answer<Verified>, now: Timestamp) {
    let seen_at = verified.date.unwrap_or(now);
    runner.record.id = verified.value.id.or(runner.record.id);
    runner.record.confirmed_id = verified.value.id.or(runner.record.confirmed_id);
    // A time ahead of the present counts as now.
    runner.record.first_seen_at = Some(runner.record.first_seen_at.map_or(seen_at, |at| at.min(seen_at)));
    if runner.record.given_to == verified.value.id {
        runner.record.given_to = None;
    }
    if let Some(credential) = &mut runner.record.credential
        && verified.value.expiry != Expiry::Unknown
    {
        credential.expiry = verified.value.expiry;
    }
}
