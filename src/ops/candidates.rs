//! Candidates: tokens beside the current one that the server may accept, and when each of them is followed.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{Disk, EntryStatus, Error, Ops, Runner, Server};
use crate::error_chain::chain;
use crate::gitlab::{Answer, Verified};
use crate::lifecycle::{Outcome, Timing, proves_dead};
use crate::model::{
    Candidate, CandidateSource, Claim, Credential, Expiry, Finding, Held, Origin, RunnerId, Stamp, Timestamp,
};
use crate::secret::{Digest, Token};
use crate::store::{self, Record, RecordQuery, Snapshot};

/// What a verification starts from.
#[derive(Clone, Copy, Debug)]
pub struct Inquiry<'a> {
    /// The present, by the server's time.
    pub now: Stamp,
    /// The present by this machine's clock, for a server whose time is distrusted.
    pub local: Timestamp,
    /// The delays that evidence is measured by.
    pub timing: &'a Timing,
    /// Whether the runner's token is proven dead, so that a former one may be followed.
    pub is_dead: bool,
    /// When the present was read; the step may take a while.
    pub begun: Instant,
    /// What verifications of the runner's token have said since its last acceptance.
    pub asked: Option<Finding>,
    /// Whether a candidate that was neither accepted nor refused is asked about again before anything else is done.
    pub is_patient: bool,
    /// Whether a rotation is not put off any further, not even for an unknown token in config.toml.
    pub is_pressing: bool,
}

/// The number of candidates from config.toml that are kept. Those that the server gave are all kept.
const MAX_FOUND: usize = 8;

/// How long a candidate is kept after its expiry, by the server's time.
const KEPT_AFTER_EXPIRY: Duration = Duration::from_secs(30 * 86_400);

/// The same in lives of the token. A token of minutes is not worth a month, and there would be thousands.
const KEPT_LIVES: u32 = 30;

/// Whose token a candidate is.
enum Owner {
    /// The runner's own.
    Same,
    /// Another runner's, by its id if the server names it.
    Other(Option<RunnerId>),
}

/// What came of asking about candidates.
pub(super) enum Asked {
    /// One of them is the runner's token now.
    Adopted(Answer<Verified>),
    /// None is.
    Not(Unadopted),
}

/// What the server has said about candidates that were not adopted.
#[derive(Default)]
pub(super) struct Unadopted {
    /// Accepted tokens of other runners, each with the id if the server names it; newest first.
    pub(super) foreign: Vec<(Token, Option<RunnerId>)>,
    /// Whether a candidate was neither accepted nor refused.
    pub(super) is_unanswered: bool,
    /// Server time of the last refusal.
    pub(super) date: Option<Timestamp>,
}

/// What came of asking about one candidate.
enum Verdict {
    Adopted(Answer<Verified>),
    /// With the server's time.
    Refused(Option<Timestamp>),
    Unanswered,
    Foreign(Option<RunnerId>),
}

impl Runner {
    /// Adds a candidate, or a newer sighting of it. The current token is none, once the record holds it: until then it can
    /// be in no other place than beside the record, where another process has noted it.
    pub(super) fn note_candidate(&mut self, candidate: Candidate) {
        if !self.may_hold(&candidate) {
            return;
        }
        let candidates = &mut self.held.candidates;
        if candidates.iter().any(|known| known.token == candidate.token) {
            return;
        }
        candidates.push(candidate);
        self.evict_found();
        self.is_held_changed = true;
    }

    /// A candidate that is known in another way is asked about first.
    pub(super) fn prefer_candidate(&mut self, token: &Token) {
        if let Some(candidate) = self.held.candidates.iter_mut().find(|candidate| candidate.token == *token) {
            let is_changed = candidate.source == CandidateSource::Former || candidate.source == CandidateSource::Found;
            if is_changed {
                candidate.source = CandidateSource::Shared;
            }
            self.is_held_changed |= is_changed;
        }
    }

    /// The store's tokens before this one are followed only once ours is dead: a replica that lags accepts them.
    pub(super) fn demote_shared_candidates(&mut self, present: &Token) {
        for candidate in &mut self.held.candidates {
            if candidate.source == CandidateSource::Shared && candidate.token != *present {
                candidate.source = CandidateSource::Former;
                self.is_held_changed = true;
            }
        }
    }

    fn may_hold(&self, candidate: &Candidate) -> bool {
        (self.is_unsaved || !self.is_current(&candidate.token)) && self.variable.is_none()
    }

    /// Takes as little memory as it can while nothing is done with the runner: a daemon has thousands. Its candidates are on
    /// the disk alone until [`Ops::recall_candidates`].
    pub fn rest(&mut self) {
        self.record.former_digests.shrink_to_fit();
        self.record.former_tokens.shrink_to_fit();
        let is_written = self.is_recorded && !self.is_held_changed && !self.is_unsaved && self.variable.is_none();
        if is_written && !self.held.candidates.is_empty() {
            let is_listed = |digest: &Digest| self.record.former_digests.contains(digest);
            self.left = Some(self.former_digests().filter(|digest| !is_listed(digest)).collect());
            self.held.candidates = Vec::new();
        }
    }

    /// Takes the candidates and the evidence from the disk.
    pub(super) fn take_held(&mut self, held: Result<Held, store::Error>) {
        let stored = match held {
            Ok(stored) => stored,
            Err(error) => {
                tracing::error!(runner = self.label(), %error, "cannot read the runner's further tokens");
                // A damaged file is set aside before it is written anew. Any other one is still to be read.
                if !matches!(error, store::Error::Held { .. }) {
                    self.left.get_or_insert_default();
                    return;
                }
                Held::default()
            }
        };
        if self.is_held_changed {
            self.take_candidates(stored.candidates);
        } else {
            (self.held, self.left) = (stored, None);
        }
    }

    /// Puts candidates from the disk before those in memory, which are newer. What this process could not write yet does
    /// not replace the tokens of another one.
    fn take_candidates(&mut self, stored: Vec<Candidate>) {
        let stored = stored.into_iter().filter(|candidate| self.may_hold(candidate)).collect();
        for candidate in std::mem::replace(&mut self.held.candidates, stored) {
            match self.held.candidates.iter_mut().find(|known| known.token == candidate.token) {
                Some(known) => *known = candidate,
                None => self.held.candidates.push(candidate),
            }
        }
        self.left = None;
        self.evict_found();
    }

    /// Whether another record is the same runner's: the server has named one id for the tokens of both.
    #[must_use]
    pub fn is_same_as(&self, record: &Record) -> bool {
        let own = self.record.named_id();
        record.key != self.record.key && record.url == self.record.url && own.is_some() && record.confirmed_id == own
    }

    /// Keeps at most [`MAX_FOUND`] candidates from config.toml: refused ones go first, then the oldest.
    fn evict_found(&mut self) {
        let current = self.record.credential.as_ref().map(|credential| &credential.token);
        let candidates = &mut self.held.candidates;
        let is_found = |candidate: &Candidate| candidate.source.was_found() && current != Some(&candidate.token);
        while candidates.iter().filter(|candidate| is_found(candidate)).count() > MAX_FOUND {
            let refused = candidates.iter().position(|candidate| is_found(candidate) && candidate.refused.is_some());
            let Some(victim) = refused.or_else(|| candidates.iter().position(is_found)) else { return };
            candidates.remove(victim);
        }
    }

    /// Forgets candidates whose time is over, by the time of an answer that has accepted the current token. A time at
    /// which that token has expired contradicts the answer, and so does this machine's clock, unless it is behind the
    /// time at which the candidate was noted. That clock alone ends no candidate, and neither does the `Date` if no
    /// expiry bounds it: the candidate may have been noted by one that was ahead.
    pub(super) fn outlive_candidates(&mut self, accepted_at: Timestamp, local: Timestamp) {
        let expires_at = self.record.credential.as_ref().and_then(|credential| credential.expiry.at());
        if expires_at.is_some_and(|expires_at| expires_at <= accepted_at) {
            return;
        }
        let before = self.held.candidates.len();
        self.held.candidates.retain(|candidate| {
            let is_behind = local < candidate.noted_at && expires_at.is_some();
            let seen_at = if is_behind { accepted_at } else { accepted_at.min(local) };
            kept_until(candidate) >= seen_at
        });
        self.is_held_changed |= self.held.candidates.len() != before;
    }

    pub(super) fn is_current(&self, token: &Token) -> bool {
        self.record.credential.as_ref().is_some_and(|credential| credential.token == *token)
    }

    /// The candidates whose refusals prove that they are dead.
    fn dead_candidates<'a>(&'a self, inquiry: &'a Inquiry<'_>) -> impl Iterator<Item = &'a Candidate> {
        let is_dead = |candidate: &&Candidate| {
            candidate.refused.is_some_and(|refused| inquiry.is_proof(&refused, candidate.expiry))
        };
        self.held.candidates.iter().filter(is_dead)
    }

    /// Digests of the tokens that may be overwritten in config.toml although they are not the runner's.
    pub(super) fn overwritable(&self, inquiry: &Inquiry<'_>) -> Vec<Digest> {
        self.dead_candidates(inquiry).map(|candidate| candidate.token.digest()).collect()
    }

    /// Whether a token that the server sent in an odd answer is neither accepted nor proven dead.
    pub(super) fn awaits_received(&self, inquiry: &Inquiry<'_>) -> bool {
        self.held.candidates.iter().any(|candidate| {
            candidate.source == CandidateSource::Received
                && !self.is_current(&candidate.token)
                && candidate.refused.is_none_or(|refused| !inquiry.is_proof(&refused, candidate.expiry))
        })
    }

    pub(super) fn note_refusal(&mut self, token: &Token, now: Stamp) {
        if let Some(candidate) = self.held.candidates.iter_mut().find(|candidate| candidate.token == *token) {
            candidate.refused = Some(Finding::added(candidate.refused, Claim::Refused, now));
            self.is_held_changed = true;
        }
    }

    pub(super) fn note_acceptance(&mut self, token: &Token) {
        if let Some(candidate) = self.held.candidates.iter_mut().find(|candidate| candidate.token == *token) {
            self.is_held_changed |= candidate.refused.is_some();
            candidate.refused = None;
        }
    }

    /// Notes which runner the server has named for a candidate, and when it expires: what came with it was only a claim.
    fn note_owner(&mut self, token: &Token, id: Option<RunnerId>, expiry: Expiry) {
        let Some(candidate) = self.held.candidates.iter_mut().find(|candidate| candidate.token == *token) else {
            return;
        };
        let id = id.or(candidate.id);
        let expiry = if expiry == Expiry::Unknown { candidate.expiry } else { expiry };
        self.is_held_changed |= (candidate.id, candidate.expiry) != (id, expiry);
        (candidate.id, candidate.expiry) = (id, expiry);
    }

    /// Whether an accepted candidate belongs to another runner than the one that the record has. A server that names no id
    /// leaves the one that came with the candidate.
    fn is_of_another(&self, candidate: &Candidate, named: Option<RunnerId>) -> bool {
        named.or(candidate.id).zip(self.record.id).is_some_and(|(actual, ours)| actual != ours)
    }

    /// The origin of the record's runner once it follows an accepted candidate. A former token brings back the runner that
    /// it belonged to, with that one's origin. A runner of which nothing says that we made it is never deleted as a whole.
    fn origin_with(&self, candidate: &Candidate, named: Option<RunnerId>) -> Origin {
        let is_ours = named.is_some_and(|actual| self.record.id.is_none_or(|claimed| claimed == actual));
        match (candidate.source, candidate.origin) {
            (CandidateSource::Found, _) if !is_ours || candidate.token.looks_created() => Origin::Given,
            (CandidateSource::Former | CandidateSource::Received, Some(origin)) => origin,
            (CandidateSource::Former | CandidateSource::Received, None) if self.is_of_another(candidate, named) => {
                Origin::Given
            }
            (
                CandidateSource::Found | CandidateSource::Shared | CandidateSource::Former | CandidateSource::Received,
                _,
            ) => self.record.origin,
        }
    }

    /// Whose token was accepted. A server that names no id leaves it open, and an id in config.toml is only a claim. What
    /// may be another runner's is not unregistered.
    fn owner_of(&self, candidate: &Candidate, verified: &Verified, inquiry: &Inquiry<'_>) -> Owner {
        let is_without_token = self.record.credential.is_none();
        match (verified.id, self.record.named_id()) {
            (Some(id), Some(ours)) if candidate.source == CandidateSource::Shared && id != ours => {
                Owner::Other(Some(id))
            }
            _ if candidate.source != CandidateSource::Found || is_without_token => Owner::Same,
            (Some(id), Some(ours)) if id != ours => Owner::Other(Some(id)),
            (Some(id), None) if self.is_leaving && self.record.id.is_some_and(|claimed| claimed != id) => {
                Owner::Other(Some(id))
            }
            (Some(_), _) => Owner::Same,
            (None, _) if inquiry.is_dead && !self.is_leaving => Owner::Same,
            (None, _) => Owner::Other(None),
        }
    }
}

impl Inquiry<'_> {
    /// The present once an answer has come: a token is refused from then on, not from the beginning of the step.
    pub(super) fn answered(&self) -> Stamp {
        self.now.plus(self.begun.elapsed())
    }

    pub(super) fn is_proof(&self, refused: &Finding, expiry: Expiry) -> bool {
        let left = expiry.at().map(|at| at.since(self.now.at));
        proves_dead(refused, self.timing, left, &self.now)
    }
}

/// The current token of a record, as a candidate of another one.
fn current_of(record: Record) -> Option<Candidate> {
    let noted_at = record.last_verify.as_ref().map(|verified| verified.at).or(record.first_seen_at);
    let Credential { token, obtained_at, expiry } = record.credential?;
    let (source, noted_at) = (CandidateSource::Found, noted_at.unwrap_or(Timestamp::EARLIEST));
    let (id, origin) = (record.confirmed_id, None);
    Some(Candidate { token, source, noted_at, obtained_at, expiry, id, origin, refused: None })
}

/// Until when a candidate is kept, by the server's time.
fn kept_until(candidate: &Candidate) -> Timestamp {
    let issued_at = candidate.obtained_at.unwrap_or(candidate.noted_at);
    match candidate.expiry.at() {
        // An expiry that contradicts its own answer's time says nothing.
        Some(expires_at) if expires_at > issued_at => {
            let life = expires_at.since(issued_at);
            expires_at.plus(KEPT_AFTER_EXPIRY.min(life.saturating_mul(KEPT_LIVES)))
        }
        Some(_) | None => candidate.noted_at.plus(KEPT_AFTER_EXPIRY),
    }
}

impl<S: Server, D: Disk> Ops<S, D> {
    /// Keeps unknown tokens of the runner's entries as candidates before anything is done about them, and returns them.
    /// Only a runner with a current token has unknown ones.
    pub(super) async fn note_unknown(
        &self,
        runner: &mut Runner,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<Vec<Token>, store::Error> {
        let unknown = EntryStatus::unknown_in(runner, snapshot);
        let tokens = unknown.iter().map(|(credential, _)| credential.token.clone()).collect();
        for (Credential { token, obtained_at, expiry }, id) in unknown {
            let (source, origin, refused) = (CandidateSource::Found, None, None);
            runner.note_candidate(Candidate { token, source, noted_at: now, obtained_at, expiry, id, origin, refused });
        }
        self.save_held(runner).await?;
        Ok(tokens)
    }

    /// Asks about candidates that may be followed although the runner's own token may be good: those that the server
    /// gave, and the unknown ones in config.toml. Newest first.
    pub(super) async fn ask_newer(
        &self,
        runner: &mut Runner,
        unknown: &[Token],
        inquiry: &Inquiry<'_>,
    ) -> Result<Asked, Error> {
        let is_newer = |candidate: &Candidate| match candidate.source {
            CandidateSource::Received | CandidateSource::Shared => {
                candidate.refused.is_none_or(|refused| !inquiry.is_proof(&refused, candidate.expiry))
            }
            CandidateSource::Found => unknown.contains(&candidate.token),
            CandidateSource::Former => false,
        };
        self.ask_candidates(runner, inquiry, is_newer).await
    }

    /// Asks about all other candidates, once the runner's own token is refused. Newest first.
    pub(super) async fn ask_older(
        &self,
        runner: &mut Runner,
        unknown: &[Token],
        inquiry: &Inquiry<'_>,
    ) -> Result<Asked, Error> {
        let is_older = |candidate: &Candidate| match candidate.source {
            CandidateSource::Received | CandidateSource::Shared => {
                candidate.refused.is_some_and(|refused| inquiry.is_proof(&refused, candidate.expiry))
            }
            CandidateSource::Found => !unknown.contains(&candidate.token),
            // A lagging replica still accepts them: they are followed once ours is proven dead.
            CandidateSource::Former => inquiry.is_dead,
        };
        self.ask_candidates(runner, inquiry, is_older).await
    }

    async fn ask_candidates(
        &self,
        runner: &mut Runner,
        inquiry: &Inquiry<'_>,
        is_asked: impl Fn(&Candidate) -> bool,
    ) -> Result<Asked, Error> {
        let mut unadopted = Unadopted::default();
        let is_wanted = |candidate: &&Candidate| is_asked(candidate) && !runner.is_current(&candidate.token);
        let candidates: Vec<_> = runner.held.candidates.iter().rev().filter(is_wanted).cloned().collect();
        for candidate in candidates {
            let token = candidate.token.clone();
            match self.ask_candidate(runner, candidate, inquiry).await? {
                Verdict::Adopted(answer) => return Ok(Asked::Adopted(answer)),
                Verdict::Refused(date) => unadopted.date = date.or(unadopted.date),
                Verdict::Unanswered => unadopted.is_unanswered = true,
                Verdict::Foreign(id) => unadopted.foreign.push((token, id)),
            }
        }
        self.save_held(runner).await?;
        Ok(Asked::Not(unadopted))
    }

    async fn ask_candidate(
        &self,
        runner: &mut Runner,
        candidate: Candidate,
        inquiry: &Inquiry<'_>,
    ) -> Result<Verdict, Error> {
        let mut answer = match self.send_verify(runner, &candidate.token).await {
            Ok(answer) => answer,
            Err(error) if error.outcome() == Outcome::Refused => {
                if candidate.refused.is_none() {
                    tracing::warn!(runner = runner.label(), token = %candidate.token.fingerprint(), source = candidate.source.as_str(),
                        "the server refuses a token that is not the current one: keeping both");
                }
                runner.note_refusal(&candidate.token, inquiry.answered());
                return Ok(Verdict::Refused(error.date()));
            }
            // As if the server had refused it, which it would: it does not keep the runner's own one out of its entry.
            Err(error @ Error::WrongToken { .. }) => {
                if candidate.refused.is_none() {
                    tracing::warn!(runner = runner.label(), error = chain(&error), "keeping the previous token");
                }
                runner.note_refusal(&candidate.token, inquiry.answered());
                return Ok(Verdict::Refused(None));
            }
            // It is asked again with the next verification of the runner.
            Err(error) if runner.record.credential.is_some() => {
                tracing::debug!(runner = runner.label(), %error, "a candidate is not answered");
                return Ok(Verdict::Unanswered);
            }
            Err(error) => return Err(error),
        };
        runner.note_acceptance(&candidate.token);
        match runner.owner_of(&candidate, &answer.value, inquiry) {
            Owner::Same => {
                let times = Some((candidate.obtained_at.or(Some(candidate.noted_at)), candidate.expiry));
                answer.date = self.accepted_at(runner, &answer, times, inquiry);
                self.follow(runner, candidate, &answer, self.present(runner, inquiry)).await?;
                Ok(Verdict::Adopted(answer))
            }
            // What the store says of another runner is not its business: the entry stays this one's.
            Owner::Other(_) if candidate.source == CandidateSource::Shared => {
                runner.note_anothers();
                Ok(Verdict::Unanswered)
            }
            Owner::Other(id) => {
                runner.note_owner(&candidate.token, id, answer.value.expiry);
                Ok(Verdict::Foreign(id))
            }
        }
    }

    /// Makes an accepted candidate the current token; the former one becomes a candidate.
    async fn follow(
        &self,
        runner: &mut Runner,
        candidate: Candidate,
        answer: &Answer<Verified>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let (label, token, source) = (runner.label(), candidate.token.fingerprint(), candidate.source.as_str());
        let text = "following a token that the server accepts";
        if candidate.source == CandidateSource::Shared {
            // The daemon's line about it also names the machine that has brought it.
            tracing::debug!(runner = label, %token, source, "{text}");
        } else {
            tracing::info!(runner = label, %token, source, "{text}");
        }
        let origin = runner.origin_with(&candidate, answer.value.id);
        let is_of_another = runner.is_of_another(&candidate, answer.value.id);
        let selected = runner.selected.clone();
        let Candidate { token, obtained_at, expiry, id, .. } = candidate;
        runner.take(Credential { token, obtained_at, expiry }, now);
        runner.record.origin = origin;
        if is_of_another {
            // The person who has it unregistered has not selected that one.
            runner.selected = selected;
        }
        // An id that came with the candidate is only a claim.
        runner.record.confirmed_id = runner.record.named_id();
        runner.record.id = answer.value.id.or(id).or(runner.record.id);
        runner.record.first_seen_at = Some(answer.date.unwrap_or(now));
        super::verify::apply_answer(runner, answer, now);
        Ok(self.save_record(runner).await?)
    }

    /// Writes candidates and evidence if they have changed. A token from an environment variable is never written.
    pub(super) async fn save_held(&self, runner: &mut Runner) -> Result<(), store::Error> {
        if runner.is_held_changed && runner.variable.is_none() {
            if runner.left.is_some() {
                match self.disk.held(&runner.record.key).await {
                    Err(error) if !matches!(error, store::Error::Held { .. }) => return Err(error),
                    held => runner.take_held(held),
                }
            }
            self.disk.save_held(&runner.record.key, runner.held.clone()).await?;
            runner.is_held_changed = false;
        }
        Ok(())
    }

    /// The server has named the runner for the first time, as after an entry had lost its id and got a new token: what other
    /// records hold that it was named for is kept before it is needed.
    pub(super) async fn note_records_of_same(&self, runner: &mut Runner) -> Result<(), store::Error> {
        let Some(own) = runner.record.named_id() else { return Ok(()) };
        let records = self.disk.records_with(RecordQuery::Id(own)).await?;
        for record in records.into_iter().filter(|record| runner.is_same_as(record)).collect::<Vec<_>>() {
            self.note_record(runner, record).await;
        }
        Ok(())
    }

    /// Keeps the tokens of another record of this runner as candidates: one of them may be the good one. That record can
    /// have tokens of another runner beside it, which it had before: to ask about one would bring its manager back.
    pub async fn note_record(&self, runner: &mut Runner, record: Record) {
        let own = runner.record.named_id();
        let is_ours =
            |candidate: &Candidate| candidate.id.zip(own).is_none_or(|(candidate_id, own)| candidate_id == own);
        let mut other = Runner::recorded(record, runner.site.clone());
        self.load_held(&mut other).await;
        other.held.candidates.into_iter().filter(is_ours).for_each(|candidate| runner.note_candidate(candidate));
        current_of(other.record).into_iter().for_each(|candidate| runner.note_candidate(candidate));
    }

    /// Keeps the tokens of another record of this runner, which has one of its own if another process has taken the runner
    /// over, and those that are kept beside the records of other runners: a person had put them into an entry of such a
    /// one, and they may be in no other place by now.
    pub(super) async fn note_kept_elsewhere(&self, runner: &mut Runner) -> Result<(), Error> {
        let Some(own) = runner.record.named_id().filter(|_| self.disk.has_state()) else { return Ok(()) };
        let records = self.disk.records_with(RecordQuery::CandidateOf(own)).await?;
        let is_other = |record: &Record| record.key != runner.record.key && record.url == runner.record.url;
        for record in records.into_iter().filter(is_other).collect::<Vec<_>>() {
            let is_same = runner.is_same_as(&record);
            let mut other = Runner::recorded(record, runner.site.clone());
            self.load_held(&mut other).await;
            // A record that has gone over to this runner has the tokens of its former one beside it.
            let is_ours = |candidate: &Candidate| {
                (is_same || candidate.source == CandidateSource::Found) && candidate.id == Some(own)
            };
            let current = current_of(other.record).filter(|_| is_same);
            let ours = other.held.candidates.into_iter().filter(is_ours).chain(current);
            ours.for_each(|candidate| runner.note_candidate(Candidate { refused: None, ..candidate }));
        }
        self.note_former_runners(runner).await?;
        Ok(self.save_held(runner).await?)
    }

    /// Keeps the tokens that were found for a runner which the record had before, and which has no record by now: they bring
    /// it back as its former tokens do.
    async fn note_former_runners(&self, runner: &mut Runner) -> Result<(), store::Error> {
        let (own, former) = (runner.record.named_id(), CandidateSource::Former);
        let before = runner.held.candidates.iter().filter(|candidate| candidate.source == former);
        let before: BTreeMap<_, _> =
            before.filter_map(|it| Some((it.id.filter(|id| Some(*id) != own)?, it.origin))).collect();
        for (id, origin) in before {
            let is_its = |record: &Record| record.url == runner.record.url && record.named_id() == Some(id);
            if self.disk.records_with(RecordQuery::Id(id)).await?.iter().any(is_its) {
                continue;
            }
            let records = self.disk.records_with(RecordQuery::CandidateOf(id)).await?;
            let is_other = |record: &Record| record.key != runner.record.key && record.url == runner.record.url;
            for record in records.into_iter().filter(is_other).collect::<Vec<_>>() {
                let mut other = Runner::recorded(record, runner.site.clone());
                self.load_held(&mut other).await;
                let found =
                    |candidate: &Candidate| candidate.source == CandidateSource::Found && candidate.id == Some(id);
                let found = other.held.candidates.into_iter().filter(found);
                let as_former = |found| Candidate { source: former, origin, refused: None, ..found };
                found.map(as_former).for_each(|candidate| runner.note_candidate(candidate));
            }
        }
        Ok(())
    }

    /// Reads the candidates that a runner has left on the disk.
    pub async fn recall_candidates(&self, runner: &mut Runner) {
        // One that cannot be read now is read, and reported, with the next step.
        if runner.left.is_some()
            && let Ok(held) = self.disk.held(&runner.record.key).await
        {
            runner.take_candidates(held.candidates);
        }
    }

    /// As [`Ops::load_held`], for several runners in one step.
    ///
    /// # Errors
    /// [`Error::Disk`] if the disk thread has ended.
    pub async fn load_held_of<'r>(&self, runners: impl Iterator<Item = &'r mut Runner>) -> Result<(), Error> {
        let runners: Vec<_> = runners.collect();
        let keys = runners.iter().map(|runner| runner.record.key.clone()).collect();
        for (runner, held) in runners.into_iter().zip(self.disk.held_of(keys).await?) {
            runner.take_held(held);
        }
        Ok(())
    }

    /// Reads candidates and evidence. A damaged file is reported, stays, and is set aside before it is written anew.
    pub async fn load_held(&self, runner: &mut Runner) {
        let held = self.disk.held(&runner.record.key).await;
        runner.take_held(held);
    }
}
