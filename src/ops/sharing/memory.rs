//! What this process knows of a runner's store, and the lineage of the runner's token.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::Written;
use crate::lifecycle::sharing::Shown;
use crate::model::{
    Candidate, Claim, Finding, Lineage, Link, Member, RecordedShare, RunnerId, Sender, ServerUrl, ShareName,
    SharedPending, SharedRunner, SharedToken, Stamp,
};
use crate::ops::Runner;
use crate::secret::Digest;
use crate::sharing::{self, Stored};

/// What this process knows of the store's value of a runner.
#[derive(Clone, Debug, Default)]
pub(in crate::ops) struct StoreMemory {
    /// The name in the store.
    pub(super) name: Option<ShareName>,
    /// The value as it was last read or written; `None` inside for none.
    pub(super) seen: Option<Option<Box<Stored>>>,
    /// When the store was asked for it, or its watch has reported it.
    pub(super) as_of: Option<Instant>,
    /// The pending change in it, and since when it is the same.
    pub(super) pending: Option<(SharedPending, Instant)>,
    /// The last member, which is about to delete the runner, and since when it says so.
    pub(super) leaving: Option<(Sender, Instant)>,
    /// The last acceptances of the tokens that are compared.
    pub(super) accepted: BTreeMap<Digest, Stamp>,
    /// Whether GitLab has accepted the store's token as that of another runner.
    pub(super) is_anothers: bool,
    /// The refusals of a token whose runner the last machine was about to delete.
    pub(super) deleted: Option<(Digest, Finding)>,
    /// Why the store cannot be used at present.
    pub(super) problem: Option<String>,
    /// What the store has said, if the same does not succeed later by itself.
    pub(super) refusal: Option<sharing::Error>,
    /// Whether a person has to end that.
    pub(super) is_lasting: bool,
    /// When it refused this machine first, without an answer since.
    pub(super) refused: Option<Instant>,
    /// Whether that concerns writes alone.
    pub(super) is_about_writes: bool,
    /// When it was last read or written.
    pub(super) contact: Option<Instant>,
    /// The last token that this machine has put there, until that is reported.
    pub(super) written: Option<Written>,
}

impl StoreMemory {
    pub(super) fn stored(&self) -> Option<&Stored> {
        self.seen.as_ref()?.as_deref()
    }

    pub(super) fn runner(&self) -> Option<&SharedRunner> {
        self.stored().map(|stored| &stored.runner)
    }

    pub(super) fn token(&self) -> Option<&SharedToken> {
        self.runner()?.token.as_ref()
    }

    /// What concerns a machine with a token, or one that has none yet and may wait for the sender of a pending change.
    fn essence(&self, has_token: bool) -> Option<Essence> {
        let SharedRunner { url, id, token, pending, leaving, .. } = self.runner()?;
        let pending = pending.clone().filter(|_| !has_token);
        Some((url.clone(), *id, token.as_ref().map(|token| token.lineage.newest()), pending, leaving.clone()))
    }
}

type Essence = (ServerUrl, Option<RunnerId>, Option<Link>, Option<SharedPending>, Option<Sender>);

impl Runner {
    /// The store's value, as this process has last read or written it.
    pub(super) fn stored(&self) -> Option<&Stored> {
        self.store.as_deref()?.stored()
    }

    /// The runner in it.
    pub(super) fn stored_runner(&self) -> Option<&SharedRunner> {
        self.store.as_deref()?.runner()
    }

    /// Its members.
    pub(in crate::ops) fn shared_members(&self) -> Option<&[Member]> {
        self.stored_runner().map(|runner| runner.members.as_slice())
    }

    /// Its token.
    pub(super) fn stored_token(&self) -> Option<&SharedToken> {
        self.store.as_deref()?.token()
    }

    /// The digest of its token.
    pub(super) fn stored_digest(&self) -> Option<Digest> {
        self.stored_token().map(|token| token.lineage.token())
    }

    /// The candidates that may be tokens of this runner, oldest first: entries can have held those of other runners.
    pub(super) fn own_candidates(&self) -> impl DoubleEndedIterator<Item = &Candidate> {
        let id = self.record.named_id();
        let may_be_ours = move |it: &&Candidate| it.id.zip(id).is_none_or(|(theirs, ours)| theirs == ours);
        self.held.candidates.iter().filter(may_be_ours)
    }

    /// Whether the store was not told yet of the token that this machine has: it may be the only one that is good.
    #[must_use]
    pub fn is_untold(&self) -> bool {
        self.record.shared.as_ref().is_some_and(|shared| shared.is_untold)
    }

    pub(super) fn memory(&mut self) -> &mut StoreMemory {
        self.store.get_or_insert_default()
    }

    /// Takes a value that the store has reported. Returns whether that calls for a verification, or for another attempt to
    /// register: members come and go without either.
    ///
    /// `read_at` is when the store was asked; `None` is a report of its watch. A report can be older than what a step of the
    /// runner has read: it had to wait behind the step, or the watch is late. A watch is not believed that the store has a
    /// token that was replaced: if it was restored, a read says so.
    pub fn take_report(&mut self, stored: Option<&Stored>, read_at: Option<Instant>) -> bool {
        if self.is_outdated_report(read_at) || read_at.is_none() && self.is_former(stored) {
            return false;
        }
        let has_token = self.record.credential.is_some();
        let known = self.store.as_ref().filter(|memory| memory.seen.is_some()).map(|memory| memory.essence(has_token));
        let has_recovered = self.see(stored.cloned().map(Box::new), read_at.unwrap_or_else(Instant::now));
        has_recovered || self.is_untold() || known != self.store.as_ref().map(|memory| memory.essence(has_token))
    }

    /// Whether the store has answered a later question since.
    #[must_use]
    pub fn is_outdated_report(&self, read_at: Option<Instant>) -> bool {
        read_at.zip(self.store.as_ref().and_then(|memory| memory.as_of)).is_some_and(|(at, as_of)| at < as_of)
    }

    /// Whether the token of this value was replaced by that of the value which was seen.
    fn is_former(&self, stored: Option<&Stored>) -> bool {
        let reported = stored.and_then(|stored| stored.runner.token.as_ref()).map(|token| token.lineage.newest());
        let seen = self.stored_token().map(|token| &token.lineage);
        reported.zip(seen).is_some_and(|(reported, seen)| reported != seen.newest() && seen.has(reported))
    }

    /// Takes what the store had at this time or later, unless its watch is late. Returns whether it could not be used before.
    pub(super) fn see(&mut self, stored: Option<Box<Stored>>, at: Instant) -> bool {
        let pending = stored.as_ref().and_then(|stored| stored.runner.pending.clone());
        let memory = self.memory();
        if memory.pending.as_ref().map(|(known, _)| known) != pending.as_ref() {
            memory.pending = pending.map(|pending| (pending, Instant::now()));
        }
        let leaving = stored.as_ref().and_then(|stored| stored.runner.leaving.clone());
        if memory.leaving.as_ref().map(|(known, _)| known) != leaving.as_ref() {
            memory.leaving = leaving.map(|leaving| (leaving, Instant::now()));
        }
        let token = stored.as_ref().and_then(|stored| stored.runner.token.as_ref()).map(|it| it.lineage.token());
        memory.is_anothers &= token == memory.token().map(|known| known.lineage.token());
        (memory.seen, memory.as_of, memory.contact) = (Some(stored), Some(at), Some(Instant::now()));
        self.note_store_answer()
    }

    pub(super) fn is_current_in_store(&self) -> bool {
        let stored = self.stored_digest();
        stored.is_some() && stored == self.digest()
    }

    /// Whether the store's value is of another runner or server.
    pub(super) fn is_of_another_share(&self, stored: &SharedRunner) -> bool {
        stored.is_other_than(&self.record.url, self.record.named_id())
    }

    /// The lineage of our token. One that was found in another place than the store comes after those that we know.
    fn lineage(&self) -> Option<Lineage> {
        let current = self.digest()?;
        let recorded = self.record.shared.as_ref().and_then(|shared| shared.lineage.as_ref());
        let stored = self.stored_token().map(|token| &token.lineage);
        let is_stored = stored.is_some_and(|stored| stored.token() == current);
        Some(match (recorded, stored) {
            (Some(ours), _) if ours.token() == current => ours.clone(),
            // GitLab accepts a token that it had replaced: it was restored, or the store was.
            (Some(ours), Some(stored)) if is_stored && stored.generation() <= ours.generation() => {
                ours.over(stored, current)
            }
            (_, Some(stored)) if is_stored => stored.clone(),
            (Some(ours), _) => ours.with_next(current),
            (None, _) => Lineage::first(current),
        })
    }

    /// Says in the record under which name the runner is shared that is about to be registered.
    pub(in crate::ops) fn note_share(&mut self) {
        if let Some(name) = self.store.as_ref().and_then(|memory| memory.name.clone()) {
            self.share(&name);
        }
    }

    /// A reset has replaced the token of a shared runner, or a registration has brought the first one.
    pub(in crate::ops) fn extend_lineage(&mut self) {
        let Some(current) = self.digest() else { return };
        let Some(shared) = &mut self.record.shared else { return };
        let is_known = shared.lineage.as_ref().is_some_and(|lineage| lineage.token() == current);
        if !is_known {
            let lineage = shared.lineage.as_ref();
            shared.lineage = Some(lineage.map_or_else(|| Lineage::first(current), |ours| ours.with_next(current)));
            shared.is_untold = true;
        }
    }

    /// Enters the lineage of the present token into the record; returns whether that changed it.
    pub(super) fn note_lineage(&mut self, name: &ShareName) -> bool {
        let lineage = self.lineage();
        let stored = self.stored_token().map(|token| token.lineage.newest());
        let origin = self.stored_runner().filter(|stored| stored.token.is_some()).map(|stored| stored.origin);
        let before = self.record.shared.clone();
        let shared = self.share(name);
        shared.origin = origin.or(shared.origin);
        // A token that no answer to a reset has brought is compared with the store's first.
        if shared.lineage != lineage {
            (shared.lineage, shared.is_untold) = (lineage, false);
        }
        // The answer to the write was lost.
        shared.is_untold &= shared.lineage.as_ref().map(Lineage::newest) != stored;
        self.record.shared != before
    }

    pub(super) fn share(&mut self, name: &ShareName) -> &mut RecordedShare {
        let none = || {
            Box::new(RecordedShare {
                name: name.clone(),
                lineage: None,
                is_untold: false,
                origin: None,
                has_left: false,
            })
        };
        let shared = self.record.shared.get_or_insert_with(none);
        if shared.name != *name {
            **shared = *none();
        }
        shared
    }

    /// GitLab accepts the store's token as that of another runner.
    pub(in crate::ops) fn note_anothers(&mut self) {
        self.memory().is_anothers = true;
    }

    pub(super) fn note_accepted(&mut self, token: Digest, now: Stamp) {
        let current = self.digest();
        let memory = self.memory();
        let stored = memory.token().map(|token| token.lineage.token());
        memory.accepted.retain(|known, _| Some(*known) == current || Some(*known) == stored);
        memory.accepted.insert(token, now);
    }

    /// What answers have shown about a token; `asked` are the refusals of our own one.
    pub(super) fn shown(&self, token: Digest, asked: Option<Finding>) -> Shown {
        let memory = self.store.as_deref();
        let accepted = memory.and_then(|memory| memory.accepted.get(&token)).copied();
        let refused = if self.digest() == Some(token) {
            asked.filter(|asked| asked.claim == Claim::Refused)
        } else {
            self.held.candidates.iter().find(|known| known.token.digest() == token).and_then(|known| known.refused)
        };
        let is_stored = memory.and_then(StoreMemory::token).is_some_and(|stored| stored.lineage.token() == token);
        Shown::of(refused, accepted, is_stored && memory.is_some_and(|memory| memory.is_anothers))
    }
}
