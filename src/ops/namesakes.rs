//! What else has the name of an enrollment: other registrations of it, and the runners that have the name already.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Completed, Disk, Enrollment, Error, Inquiry, LOCK_WAIT, Ops, Runner, Server, is_own};
use crate::lifecycle::Outcome;
use crate::model::{Candidate, CandidateSource, Credential, RunnerKey, Site, TlsFiles};
use crate::secret::Token;
use crate::store::{self, Entry, EntrySelector, Record, RecordQuery, Snapshot};

/// How long a command waits for another process that registers the same: longer than a probe and a request may take.
const REGISTRATION_WAIT: Duration = Duration::from_secs(90);

impl<S: Server, D: Disk> Ops<S, D> {
    /// Excludes every other registration of this name at this server. The runner's own lock does not: an enrollment of
    /// the daemon and a command that registers the same have different keys. A command waits for the answer to the
    /// other registration; the daemon comes back.
    pub(super) async fn lock_registration(
        &self,
        enrollment: &Enrollment,
        runner: &Runner,
    ) -> Result<D::RunnerLock, Error> {
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
    pub(super) async fn is_registered_elsewhere(
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
    pub(super) async fn has_accepted_namesake(
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
                Err(error) if error.outcome() == Outcome::Refused || matches!(error, Error::WrongToken { .. }) => {
                    let refused = runner.note_refused_namesake(token.digest(), inquiry.answered());
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
    pub(super) async fn take_received_elsewhere(
        &self,
        enrollment: &Enrollment,
        runner: &mut Runner,
    ) -> Result<(), Error> {
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
    pub(super) async fn note_same_runner(
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
}

/// Nothing is sent: another process has registered the runner. A command looks for it again; the daemon's next inventory
/// gives it to the enrollment.
pub(super) fn left_to_another(runner: &Runner) -> Completed {
    tracing::info!(runner = runner.label(), "another process has registered a runner of this name: not registering it");
    let outcome = if is_of_daemon(runner) { Outcome::RegisteredElsewhere } else { Outcome::Released };
    Completed::new(outcome, None)
}

/// Whether an entry of the enrollment's name holds one of these tokens.
pub(super) fn has_one_of(tokens: &[Token], enrollment: &Enrollment, snapshot: &Snapshot) -> bool {
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
