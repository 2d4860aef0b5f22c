//! A runner: its record and how its server is reached.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::lifecycle::{Fraction, State, Timing, Validity, is_untimed, precedes_issue, reset_from};
use crate::model::{
    Belief, Candidate, CandidateSource, Claim, Conclusion, Credential, Evidence, Expiry, Finding, Held, Origin,
    Rejection, RunnerId, RunnerKey, Site, Stamp, StateName, SystemId, Timestamp, Trouble,
};
use crate::secret::{Digest, Fingerprint, Token, TokenPurpose, sha256_hex};
use crate::store::{Entry, EntrySelector, EntryText, EntryToken, Record, Snapshot};

use super::Error;
use super::sharing::StoreMemory;
use super::sole_copies::SoleCopy;

/// A managed runner.
#[derive(Clone, Debug)]
pub struct Runner {
    /// The authoritative data about it.
    pub record: Record,
    /// The server and its TLS files.
    pub site: Site,
    /// The executor of its entry, for reports.
    pub executor: Option<Arc<str>>,
    /// Whether its entry disables automatic rotation.
    pub rotation_disabled: bool,
    /// The environment variable that its entry takes the token from. Such a token is never written.
    pub variable: Option<String>,
    /// An earlier runner with the same token, at another address (see `engine::ManagedRunner`), or at the same one until
    /// the next inventory makes one runner of both.
    pub twin_of: Option<RunnerKey>,
    /// Its entry's text from before a rotation without a state directory.
    pub(super) kept_text: Option<EntryText>,
    /// What a person has selected with it, for a command that unregisters it.
    pub(super) selected: Option<Box<Selection>>,
    /// Whether it is being unregistered.
    pub(super) is_leaving: bool,
    /// Digests of unknown tokens in its entry that are proven dead.
    pub(super) removable: Vec<Digest>,
    /// Set while its token is in memory alone.
    pub(super) sole_copy: Option<Rc<SoleCopy>>,
    /// Tokens that a lasting dispute was logged about.
    pub(super) disputed: Vec<Digest>,
    /// Tokens in other entries of its name that the server refuses. They are looked at without a state directory alone.
    refused_namesakes: Vec<(Digest, Finding)>,
    /// Which clock shows its server's time; `None` until the server has issued or accepted a token.
    pub(super) belief: Option<Belief>,
    /// Its candidates, and the evidence about its token.
    pub held: Held,
    /// Whether `held` differs from the disk.
    pub(super) is_held_changed: bool,
    /// What is known of the store, if it is shared.
    pub(super) store: Option<Box<StoreMemory>>,
    /// Set while the disk may hold candidates that `held` lacks: they were left there, or could not be read. Lists the
    /// former tokens among them that the record does not.
    pub(super) left: Option<Box<[Digest]>>,
    /// When this process has lost the answer to its registration.
    pub(super) lost_at: Option<Instant>,
    /// Whether another process has replaced its token, and no outcome has told of the new one yet: the step that found it
    /// may have failed.
    pub is_replaced: bool,
    /// Whether its token has changed since its record was last written.
    pub(super) is_unsaved: bool,
    /// Whether its record was on the disk when it was last read or written.
    pub(super) is_recorded: bool,
}

/// What a person has selected, by what the files said then.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    /// The names of the entries.
    names: Vec<Option<String>>,
    id: Option<RunnerId>,
    token: Option<Digest>,
    last_reset_at: Option<Timestamp>,
}

impl Runner {
    /// A runner that is not registered yet.
    #[must_use]
    pub fn blank(key: RunnerKey, origin: Origin, site: Site) -> Self {
        let record = Record {
            key,
            origin,
            enrollment: None,
            seed: None,
            seed_digest: None,
            url: site.url.clone(),
            id: None,
            confirmed_id: None,
            given_to: None,
            name: None,
            credential: None,
            former_tokens: Vec::new(),
            former_digests: Vec::new(),
            machine: None,
            entry_text: None,
            first_seen_at: None,
            last_verify: None,
            last_reset_at: None,
            token_life_secs: None,
            belief: None,
            recovered: None,
            is_copy: false,
            state: None,
            since: None,
            moved_from: None,
            registered_with: None,
            shared: None,
        };
        Self { is_recorded: false, ..Self::recorded(record, site) }
    }

    /// A runner that only exists as an entry in config.toml. Its origin is guessed from the form of its token.
    ///
    /// # Errors
    /// [`Error::Entry`] if the entry is unusable for requests.
    pub fn found(entry: &Entry) -> Result<Self, Error> {
        let (site, token) = entry.access().map_err(|problem| Error::Entry { runner: label(entry), problem })?;
        let key = RunnerKey::found(&site.url, entry.id, token.digest());
        let origin = if token.looks_created() { Origin::Given } else { Origin::Registered };
        let mut runner = Self::blank(key, origin, site);
        runner.record.id = entry.id;
        runner.record.name.clone_from(&entry.name);
        runner.record.credential = Some(Credential { token, obtained_at: entry.obtained_at, expiry: entry.expiry });
        runner.take_from(entry);
        Ok(runner)
    }

    /// As [`Runner::found`], beside the records of other runners: the id in an entry is a claim, and the record that has
    /// its key can be the one of a runner that the server has named differently since. The entry gets a key of its own
    /// then, by its token.
    ///
    /// # Errors
    /// As [`Runner::found`].
    pub fn found_beside(entry: &Entry, is_taken: impl Fn(&RunnerKey) -> bool) -> Result<Self, Error> {
        let mut runner = Self::found(entry)?;
        if is_taken(&runner.record.key)
            && let Some(digest) = runner.digest()
        {
            runner.record.key = RunnerKey::found(&runner.record.url, None, digest);
        }
        Ok(runner)
    }

    /// A runner with a record.
    #[must_use]
    pub fn recorded(record: Record, site: Site) -> Self {
        Self {
            record,
            site,
            executor: None,
            rotation_disabled: false,
            variable: None,
            twin_of: None,
            kept_text: None,
            selected: None,
            is_leaving: false,
            removable: Vec::new(),
            sole_copy: None,
            disputed: Vec::new(),
            refused_namesakes: Vec::new(),
            belief: None,
            held: Held::default(),
            is_held_changed: false,
            left: None,
            store: None,
            lost_at: None,
            is_replaced: false,
            is_unsaved: false,
            is_recorded: true,
        }
    }

    /// Notes that a person has selected the runner as it is now, by entries of these names. An unregistration concerns
    /// neither an entry of another name nor another runner that the record goes over to meanwhile.
    pub fn select(&mut self, names: Vec<Option<String>>) {
        let Record { id, last_reset_at, .. } = self.record;
        self.selected = Some(Box::new(Selection { names, id, token: self.digest(), last_reset_at }));
        self.is_leaving = true;
    }

    /// Whether an entry has become the runner's since a person has selected it.
    pub(super) fn has_unselected_entry(&self, snapshot: &Snapshot) -> bool {
        let Some(selected) = &self.selected else { return false };
        let target = self.target();
        snapshot.entries.iter().any(|entry| is_own(&target, entry) && !selected.names.contains(&entry.name))
    }

    /// Whether another process has given the record a token since a person has selected it that may be another runner's:
    /// the server has named another one for it, or none, and no reset has brought it.
    pub(super) fn may_be_unselected(&self) -> bool {
        let Some(selected) = &self.selected else { return false };
        let is_same = match self.record.named_id().zip(selected.id) {
            Some((named, selected)) => named == selected,
            None => self.record.last_reset_at > selected.last_reset_at,
        };
        selected.token != self.digest() && !is_same
    }

    /// Selects the entries that belong to it.
    #[must_use]
    pub fn target(&self) -> EntrySelector {
        let current = self.record.credential.iter().map(|credential| credential.token.digest());
        EntrySelector {
            url: self.record.url.clone(),
            id: self.record.id,
            digests: current.chain(self.former_digests()).collect(),
            name: None,
        }
    }

    /// Digests of its former tokens: those that the record lists, which are the latest ones, and those of the candidates.
    pub(super) fn former_digests(&self) -> impl Iterator<Item = Digest> {
        let left = self.left.iter().flatten().copied();
        self.record.former_digests.iter().copied().chain(self.former_candidates()).chain(left)
    }

    /// Digests of the former tokens among its candidates.
    fn former_candidates(&self) -> impl Iterator<Item = Digest> {
        let is_former =
            |candidate: &&Candidate| candidate.source == CandidateSource::Former && !self.is_current(&candidate.token);
        self.held.candidates.iter().filter(is_former).map(|candidate| candidate.token.digest())
    }

    /// Whether a token was the runner's.
    pub(super) fn was_current(&self, token: &Token) -> bool {
        let digest = token.digest();
        self.former_digests().any(|former| former == digest)
    }

    /// Whether a token is the runner's, or was.
    pub(super) fn has_had(&self, token: &Token) -> bool {
        self.is_current(token) || self.was_current(token)
    }

    /// Whether a given token is the one that the runner was made of. If it was found in config.toml, no record says so, and
    /// one that it has had before is none that was given since: a replica that lags still accepts it.
    pub(super) fn is_made_of(&self, token: &Token) -> bool {
        self.record.has_seed(token) || self.record.seed.is_none() && self.was_current(token)
    }

    /// Selects the entries that an unregistration removes: those with its own tokens, or with one that is proven dead.
    pub(super) fn removal_target(&self) -> EntrySelector {
        let mut target = self.target();
        target.digests.extend(self.removable.iter().copied());
        target
    }

    /// Reads from its entry what the record lacks: TLS files, executor, and a token from a variable.
    pub fn look_up(&mut self, snapshot: &Snapshot) {
        let target = self.target();
        if let Some(entry) = snapshot.of(&target).next() {
            self.take_from(entry);
        }
    }

    /// As [`Runner::look_up`], from an entry that is known to be the runner's.
    pub fn take_from(&mut self, entry: &Entry) {
        self.site.tls.clone_from(&entry.tls);
        self.executor.clone_from(&entry.executor);
        self.rotation_disabled = entry.rotation_disabled;
        let EntryToken::Variable { name, token } = &entry.token else {
            self.variable = None;
            return;
        };
        self.variable = Some(name.clone());
        if let Some(token) = token
            && self.record.credential.as_ref().is_none_or(|credential| credential.token != *token)
        {
            self.record.credential =
                Some(Credential { token: token.clone(), obtained_at: entry.obtained_at, expiry: entry.expiry });
        }
    }

    /// Whether its token is in memory alone: it is lost if the process ends now.
    #[must_use]
    pub fn is_unstored(&self) -> bool {
        self.sole_copy.is_some()
    }

    /// When this process has lost the answer to its registration, before anything says so.
    #[must_use]
    pub fn lost_at(&self) -> Option<Instant> {
        self.lost_at
    }

    /// Whether its record was on the disk when it was last read or written.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.is_recorded
    }

    /// Whether its record says that it was unregistered; another process does that while this one serves it.
    #[must_use]
    pub fn is_unregistered(&self) -> bool {
        self.record.credential.is_none() && self.record.state == Some(StateName::Retired)
    }

    /// The name for messages: the local name, else the key.
    #[must_use]
    pub fn label(&self) -> &str {
        self.record.label()
    }

    /// The validity of its credential.
    #[must_use]
    pub fn validity(&self, now: Timestamp) -> Option<Validity> {
        let credential = self.record.credential.as_ref()?;
        // A stored time ahead of the present counts as now.
        let first_seen_at = self.record.first_seen_at.map_or(now, |at| at.min(now));
        Some(Validity::new(credential.obtained_at, credential.expiry, first_seen_at))
    }

    /// The credential as its entry gets it. One that was issued at an unknown time is as old as it is known here, or the
    /// entry would keep the times of the token before.
    pub(super) fn dated_credential(&self) -> Option<Credential> {
        let credential = self.record.credential.clone()?;
        Some(Credential { obtained_at: credential.obtained_at.or(self.record.first_seen_at), ..credential })
    }

    /// Whether a time lies before the issue of its token. A clock that was believed since is not judged by that.
    pub(super) fn was_issued_after(&self, date: Timestamp) -> bool {
        let Some(credential) = self.record.credential.as_ref().filter(|_| self.belief.is_none()) else { return false };
        let times = credential.obtained_at.zip(credential.expiry.at());
        times.is_some_and(|(obtained_at, expires_at)| precedes_issue(date, obtained_at, expires_at))
    }

    /// Whether it is known when its token was issued.
    #[must_use]
    pub fn is_issue_known(&self) -> bool {
        self.record.credential.as_ref().is_some_and(|credential| credential.obtained_at.is_some())
    }

    /// Whether no clock shows how long its token lives.
    #[must_use]
    pub fn is_untimed(&self) -> bool {
        let times = self.record.credential.as_ref().and_then(|it| it.obtained_at.zip(it.expiry.at()));
        let life = times.map(|(obtained_at, expires_at)| expires_at.since(obtained_at));
        let measured = self.record.token_life_secs.map(Duration::from_secs);
        self.belief.zip(life).is_some_and(|(belief, life)| is_untimed(belief, life, measured))
    }

    /// Whether a dispute about this token was not logged before.
    pub(super) fn is_news(&mut self, token: &Token) -> bool {
        let digest = token.digest();
        let is_news = !self.disputed.contains(&digest);
        if is_news {
            self.disputed.push(digest);
        }
        is_news
    }

    /// Notes that the server has refused the token in another entry of its name, and returns all that is known of that.
    pub(super) fn note_refused_namesake(&mut self, token: Digest, now: Stamp) -> Finding {
        let known = self.refused_namesakes.iter().position(|(other, _)| *other == token);
        let known = known.map(|at| self.refused_namesakes.swap_remove(at).1);
        let refused = Finding::added(known, Claim::Refused, now);
        self.refused_namesakes.push((token, refused));
        refused
    }

    /// When its token was issued or first seen, and when it expires.
    pub(super) fn times(&self) -> Option<(Option<Timestamp>, Expiry)> {
        let issued_at = |credential: &Credential| credential.obtained_at.or(self.record.first_seen_at);
        self.record.credential.as_ref().map(|credential| (issued_at(credential), credential.expiry))
    }

    /// The state after it was read from disk, with the evidence about its present token.
    #[must_use]
    pub fn initial_state(&self, timing: &Timing, now: Timestamp) -> State {
        let validity = self.validity(now);
        let reset_from = self.reset_from(timing, now).unwrap_or(Timestamp::EARLIEST);
        let evidence = self.held.evidence.as_deref().filter(|evidence| evidence.token == self.digest());
        let mut evidence = evidence.cloned().unwrap_or_default();
        // Known without a request, and before the first one.
        if self.has_wrong_token() && evidence.conclusion.is_none() {
            evidence.conclusion = Some(Conclusion::Failed { trouble: Trouble::LocalFile, since: now });
        }
        State::restored(validity, reset_from, &evidence, now)
    }

    /// Whether its token is not a runner's: a person has to act.
    #[must_use]
    pub fn has_wrong_token(&self) -> bool {
        let token = self.record.credential.as_ref().map(|credential| &credential.token);
        token.is_some_and(|token| TokenPurpose::Runner.check(token).is_err())
    }

    /// The earliest time of its next reset after the last one; `None` without a token.
    #[must_use]
    pub fn reset_from(&self, timing: &Timing, now: Timestamp) -> Option<Timestamp> {
        let validity = self.validity(now)?;
        Some(reset_from(timing, &validity, self.record.last_reset_at, now))
    }

    /// Whether the evidence on the disk says that the answer to a reset of its present token was lost.
    #[must_use]
    pub fn was_lost_elsewhere(&self) -> bool {
        self.held.evidence.as_ref().is_some_and(|evidence| {
            evidence.token == self.digest()
                && matches!(evidence.conclusion, Some(Conclusion::Rejected { rejection: Rejection::Lost, .. }))
        })
    }

    /// Corrects the reason of a conclusion that was drawn without the journal of a lost reset.
    pub fn blame_lost_reset(&mut self) {
        if let Some(Evidence { conclusion: Some(Conclusion::Rejected { rejection, .. }), .. }) =
            self.held.evidence.as_deref_mut()
        {
            *rejection = Rejection::Lost;
        }
    }

    /// Whether a token beside the record is that of a runner with this id, which was registered.
    pub(super) fn had_registered(&self, id: RunnerId) -> bool {
        let is_of_it = |candidate: &Candidate| candidate.id == Some(id) && candidate.origin == Some(Origin::Registered);
        self.record.id != Some(id) && self.held.candidates.iter().any(is_of_it)
    }

    /// The whole digest of its token.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.record.credential.as_ref().map(|credential| credential.token.digest())
    }

    /// Its fixed position in every spread, derived from this machine and the runner.
    #[must_use]
    pub fn phase(&self, system_id: &SystemId) -> Fraction {
        let identity = match self.record.id {
            Some(id) => format!("{system_id} {} {id}", self.record.url),
            None => format!("{system_id} {} {}", self.record.url, self.record.key),
        };
        let bits = u32::from_str_radix(&sha256_hex(identity.as_bytes())[..8], 16).unwrap_or(0);
        Fraction::from_bits(bits)
    }

    /// Whether its entry is still to be inserted.
    pub(super) fn is_unwritten(&self) -> bool {
        self.record.credential.is_some() && self.record.entry_text.is_some()
    }

    /// Whether its token has replaced the one in this copy of the record, and could not be saved. A record that another
    /// process has written since can hold a former token again: GitLab was restored from a backup.
    pub(super) fn is_newer_than(&self, record: &Record) -> bool {
        self.is_unsaved
            && record
                .credential
                .as_ref()
                .is_some_and(|other| self.record.former_digests.contains(&other.token.digest()))
    }

    /// Whether it has a token other than the one that an operation was begun with.
    pub(super) fn has_other_token_than(&self, fingerprint: &Fingerprint, digest: Option<Digest>) -> bool {
        self.record.credential.as_ref().is_some_and(|credential| {
            credential.token.fingerprint() != *fingerprint
                || digest.is_some_and(|digest| credential.token.digest() != digest)
        })
    }

    pub(super) fn token(&self) -> Result<Token, Error> {
        let credential = self.record.credential.as_ref().ok_or_else(|| Error::NoToken(self.label().to_owned()))?;
        Ok(credential.token.clone())
    }

    /// Sets a new credential. The old token is retired, and kept as a candidate of the runner that the record has now.
    pub(super) fn take(&mut self, credential: Credential, now: Timestamp) {
        let old = self.record.credential.take();
        let is_new = old.as_ref().is_none_or(|old| old.token != credential.token);
        if is_new {
            self.record.first_seen_at = credential.obtained_at;
            self.is_unsaved = true;
        }
        // One that is being unregistered follows its own tokens alone.
        if let Some(selected) = &mut self.selected {
            selected.token = Some(credential.token.digest());
        }
        self.record.remove_former_token(credential.token.digest());
        // A candidate stays one until the record holds it; see `save_record`.
        self.record.credential = Some(credential);
        if let Some(Credential { token, obtained_at, expiry }) = old.filter(|_| is_new) {
            self.record.add_former_token(token.digest());
            let (source, id, origin) = (CandidateSource::Former, self.record.id, Some(self.record.origin));
            self.note_candidate(Candidate {
                token,
                source,
                noted_at: now,
                obtained_at,
                expiry,
                id,
                origin,
                refused: None,
            });
        }
    }

    /// Forgets the candidate that is the current token, which the record holds by now.
    pub(super) fn forget_current_candidate(&mut self) {
        let current = self.record.credential.as_ref().map(|credential| credential.token.clone());
        let candidates = &mut self.held.candidates;
        let before = candidates.len();
        candidates.retain(|candidate| current.as_ref() != Some(&candidate.token));
        self.is_held_changed |= candidates.len() != before;
    }

    /// Retires the credential and forgets the id; the entry's text stays.
    pub(super) fn give_up(&mut self) {
        if let Some(old) = self.record.credential.take() {
            self.record.add_former_token(old.token.digest());
        }
        self.record.id = None;
        self.record.confirmed_id = None;
        if let Some(shared) = &mut self.record.shared {
            (shared.lineage, shared.is_untold) = (None, false);
        }
        // The runner is gone, and its tokens with it.
        self.is_held_changed |= !self.held.is_empty();
        self.held = Held::default();
    }
}

/// Whether an entry belongs to a runner: by its id, or by one of the runner's tokens regardless of the id.
#[must_use]
pub fn is_own(target: &EntrySelector, entry: &Entry) -> bool {
    target.matches(entry) || EntrySelector { id: None, ..target.clone() }.matches(entry)
}

/// The name of an entry for messages: its own, else its line in the file.
fn label(entry: &Entry) -> String {
    entry.name.clone().unwrap_or_else(|| format!("in line {}", entry.line))
}
