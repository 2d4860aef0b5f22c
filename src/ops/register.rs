//! Register: create the runner of an enrollment and write its entry.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::candidates::Asked;
use super::rotate::{known_expiry, received};
use super::{
    AccessToken, Completed, Disk, Enrollment, EntryStatus, Error, Failure, Inquiry, LOCK_WAIT, Ops, RegistrationSource,
    Runner, Server, is_own,
};
use crate::error_chain::chain;
use crate::gitlab::{RegisterParameters, Registered, Shape};
use crate::lifecycle::{Outcome, Validity};
use crate::model::{
    Candidate, CandidateSource, Credential, Origin, RunnerId, RunnerKey, Site, StateName, Timestamp, TlsFiles,
};
use crate::secret::Token;
use crate::store::{
    self, Entry, EntrySelector, EntryText, Intent, JournalOperation, Record, RecordQuery, Snapshot, Urgency,
};

/// How long a command waits for another process that registers the same: longer than a probe and a request may take.
const REGISTRATION_WAIT: Duration = Duration::from_secs(90);

/// What a registration sends.
struct Sending<'a> {
    enrollment: &'a Enrollment,
    /// What the runner is made from.
    token: Token,
    site: Site,
}

/// What a registration has given.
struct Issued {
    credential: Credential,
    id: Option<RunnerId>,
    /// The id that the server has named for the token.
    confirmed_id: Option<RunnerId>,
    origin: Origin,
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
        let token = enrollment.source.secret().read()?;
        let sending = Sending { enrollment, token, site: site_of(enrollment, runner, &entered.snapshot) };
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
        let token = enrollment.source.secret().read()?;
        let sending = Sending { enrollment, token, site: site_of(enrollment, runner, &entered.snapshot) };
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

    /// Excludes every other registration of this name at this server. The runner's own lock does not: an enrollment of
    /// the daemon and a command that registers the same have different keys. A command waits for the answer to the
    /// other registration; the daemon comes back.
    async fn lock_registration(&self, enrollment: &Enrollment, runner: &Runner) -> Result<D::RunnerLock, Error> {
        let key = RunnerKey::registration(&enrollment.site.url, &enrollment.entry.name);
        match self.disk.lock_runner(&key, Duration::ZERO).await {
            Err(store::Error::RunnerLocked { holder, .. }) => {
                tracing::info!(
                    runner = enrollment.entry.name,
                    process = holder,
                    "another process is registering a runner of this name: waiting for it"
                );
                let wait = if is_of_daemon(runner) { LOCK_WAIT } else { REGISTRATION_WAIT };
                Ok(self.disk.lock_runner(&key, wait).await?)
            }
            locked => Ok(locked?),
        }
    }

    /// Whether another process has registered a runner of this name at this server since the inventory was taken: there
    /// is an entry of this name, or a record of this name without an entry or whose entry has lost its token. A runner of
    /// another enrollment does not count for the daemon, which knows about it.
    async fn is_registered_elsewhere(
        &self,
        enrollment: &Enrollment,
        runner: &Runner,
        snapshot: &Snapshot,
    ) -> Result<bool, Error> {
        let (own, name) = (runner.target(), &enrollment.entry.name);
        let is_of_this = |record: &&Record| {
            record.key != runner.record.key && record.url == enrollment.site.url && record.credential.is_some()
        };
        let is_enrolled = |record: &&Record| is_of_daemon(runner) && record.enrollment.is_some();
        let named = self.disk.records_with(RecordQuery::Name(name.clone())).await?;
        let is_named = |record: &&Record| record.name.as_ref() == Some(name);
        let mut others = named.iter().filter(is_of_this).filter(is_named).filter(|record| !is_enrolled(record));
        let has_entry = |record: &Record| {
            let target = target_of(record);
            snapshot.of(&target).any(|entry| !entry.is_incomplete())
        };
        if others.any(|record| !has_entry(record) && !enrollment.was_displaced_by(record, Some(&runner.record))) {
            return Ok(true);
        }
        let entries = snapshot.named(&enrollment.site.url, name);
        for entry in entries.filter(|entry| !entry.is_incomplete() && !is_own(&own, entry)) {
            let token = entry.token.token().map(|token| RecordQuery::Token(token.digest()));
            let mut is_of_another = false;
            for query in token.into_iter().chain(entry.id.map(RecordQuery::Id)) {
                let records = self.disk.records_with(query).await?;
                let mut enrolled = records.iter().filter(is_of_this).filter(is_enrolled);
                is_of_another |= enrolled.any(|record| is_own(&target_of(record), entry));
            }
            if !is_of_another {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the server accepts the token in another entry of the enrollment's name. Without a state directory the name is
    /// all that says which runner the enrollment has, and an old config.toml can have come back before the present one. With
    /// one, the runner counts that was registered for the enrollment, which went on with another one whose token a person
    /// had put into its entry.
    ///
    /// # Errors
    /// [`Error::EntryDisputed`] until such a token is proven dead.
    async fn has_accepted_namesake(
        &self,
        enrollment: &Enrollment,
        runner: &mut Runner,
        snapshot: &Snapshot,
        inquiry: &Inquiry<'_>,
    ) -> Result<bool, Error> {
        if !is_of_daemon(runner) {
            return Ok(false);
        }
        let own = runner.target();
        let named = snapshot.named(&enrollment.site.url, &enrollment.entry.name);
        let is_left = |entry: &Entry| entry.id.is_some_and(|id| runner.had_registered(id));
        let counts = |entry: &&Entry| !is_own(&own, entry) && (!self.disk.has_state() || is_left(entry));
        let others: Vec<_> = named.filter(counts).collect();
        for entry in others {
            let Ok((_, token)) = entry.access() else { continue };
            match self.send_verify(runner, &token).await {
                Ok(_) => {
                    if runner.is_news(&token) {
                        tracing::warn!(
                            runner = runner.label(),
                            line = entry.line,
                            "its token is refused, and another entry of its name has one that the server accepts: not registering it again; remove the entry that does not work"
                        );
                    }
                    return Ok(true);
                }
                Err(error) if error.outcome() == Outcome::Refused => {
                    let refused = runner.note_refused_namesake(token.digest(), inquiry.now);
                    if !inquiry.is_proof(&refused, entry.expiry) {
                        return Err(Error::EntryDisputed(runner.label().to_owned()));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Another process may have registered this runner under a key of its own, with an odd answer: the token in it is
    /// asked about before another runner is registered.
    async fn take_received_elsewhere(&self, enrollment: &Enrollment, runner: &mut Runner) -> Result<(), Error> {
        let is_of_this = |record: &Record| {
            let is_named = record.name.as_ref() == Some(&enrollment.entry.name);
            let is_free = record.credential.is_none() && record.enrollment.is_none();
            is_named && is_free && record.key != runner.record.key && record.url == enrollment.site.url
        };
        let records = self.disk.records_with(RecordQuery::Name(enrollment.entry.name.clone())).await?;
        for record in records.into_iter().filter(is_of_this).collect::<Vec<_>>() {
            let held = self.disk.held(&record.key).await?;
            let mut received =
                held.candidates.into_iter().filter(|it| it.source == CandidateSource::Received).peekable();
            if received.peek().is_none() {
                continue;
            }
            received.for_each(|candidate| runner.note_candidate(candidate));
            let mine = &mut runner.record;
            mine.name = mine.name.take().or(record.name);
            (mine.seed, mine.seed_digest) = (record.seed, record.seed_digest);
            mine.entry_text = mine.entry_text.take().or(record.entry_text);
        }
        Ok(self.save_held(runner).await?)
    }

    /// Keeps the tokens of this runner that are recorded under another key, and returns them: an entry that has lost its id
    /// and got a new token is served as another runner until the server names it.
    async fn note_same_runner(
        &self,
        enrollment: &Enrollment,
        runner: &mut Runner,
        snapshot: &Snapshot,
        inquiry: &Inquiry<'_>,
    ) -> Result<Vec<Token>, Error> {
        let now = inquiry.now.at;
        let own = runner.target();
        // Beside an entry of ours such a runner is another one, which may be served. Without one, a person has given our
        // entry a new token.
        let has_entry = snapshot.of(&own).next().is_some();
        let is_beside_ours =
            |record: &Record| has_entry && snapshot.of(&target_of(record)).any(|entry| !is_own(&own, entry));
        // A server before 15.9 names none: then it is the one of its name that nothing says to be another's.
        let is_unnamed = |record: &Record| {
            let is_free = record.id.is_none() && record.enrollment.is_none();
            let is_named = record.name.as_ref() == Some(&enrollment.entry.name);
            inquiry.is_dead && is_free && is_named && !is_beside_ours(record)
        };
        let is_other = |record: &Record| record.key != runner.record.key && record.url == runner.record.url;
        let is_same = |record: &Record| runner.is_same_as(record) || is_other(record) && is_unnamed(record);
        let mut same = BTreeMap::new();
        let id = runner.record.named_id().map(RecordQuery::Id);
        for query in id.into_iter().chain([RecordQuery::Name(enrollment.entry.name.clone())]) {
            let records = self.disk.records_with(query).await?.into_iter().filter(is_same);
            same.extend(records.map(|record| (record.key.clone(), record)));
        }
        let mut tokens = Vec::new();
        for Credential { token, obtained_at, expiry } in same.into_values().filter_map(|record| record.credential) {
            if runner.is_current(&token) {
                continue;
            }
            tokens.push(token.clone());
            let (source, id) = (CandidateSource::Found, runner.record.named_id());
            let (origin, refused) = (None, None);
            runner.note_candidate(Candidate { token, source, noted_at: now, obtained_at, expiry, id, origin, refused });
        }
        self.save_held(runner).await?;
        Ok(tokens)
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
    fn set_source(&self, enrollment: &Enrollment, runner: &mut Runner, source: &Token) {
        let record = &mut runner.record;
        record.set_seed(source);
        record.is_copy = false;
        record.machine.clone_from(&self.identity.machine);
        record.name = Some(enrollment.entry.name.clone());
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

    /// An odd answer to a registration: its token is kept as a candidate and counts once the server accepts it.
    async fn keep_odd_registration(
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

    /// Takes a given token without a journal: the user still has the token if this is interrupted.
    async fn take_given(
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
    async fn keep_registered(
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
        if let Err(error) = self.save_record(runner).await {
            tracing::error!(runner = runner.label(), error = chain(&error), "cannot write the new token to the record");
        }
        let unsaved = self.project_and_clear(runner, over).await.err();
        Completed { unsaved, ..Completed::new(Outcome::Registered(validity), date) }
    }
}

/// The server of a registration. Its TLS files are those of the entry, if it names some and no other user could have written
/// it: that user must not choose which server receives what the runner is made from.
fn site_of(enrollment: &Enrollment, runner: &Runner, snapshot: &Snapshot) -> Site {
    let of_entry = Some(&runner.site.tls).filter(|tls| **tls != TlsFiles::default() && snapshot.is_ours);
    let of_entry = of_entry.filter(|tls| snapshot.entries.iter().any(|entry| entry.tls == **tls));
    let tls = of_entry.unwrap_or(&enrollment.site.tls);
    Site { url: runner.site.url.clone(), tls: tls.clone() }
}

/// Nothing is sent: another process has registered the runner. A command looks for it again; the daemon's next inventory
/// gives it to the enrollment.
fn left_to_another(runner: &Runner) -> Completed {
    tracing::info!(runner = runner.label(), "another process has registered a runner of this name: not registering it");
    let outcome = if is_of_daemon(runner) { Outcome::RegisteredElsewhere } else { Outcome::Released };
    Completed::new(outcome, None)
}

/// Whether an entry of the enrollment's name holds one of these tokens.
fn has_one_of(tokens: &[Token], enrollment: &Enrollment, snapshot: &Snapshot) -> bool {
    let mut named = snapshot.named(&enrollment.site.url, &enrollment.entry.name);
    named.any(|entry| entry.token.token().is_some_and(|token| tokens.contains(token)))
}

/// Whether the daemon registers the runner, for an enrollment.
pub(super) fn is_of_daemon(runner: &Runner) -> bool {
    runner.record.enrollment.is_some()
}

pub(super) fn target_of(record: &Record) -> EntrySelector {
    Runner::recorded(record.clone(), Site { url: record.url.clone(), tls: TlsFiles::default() }).target()
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
