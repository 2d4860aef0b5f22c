//! Which token of a shared runner counts, and what a machine does next about it.
//!
//! Many machines use one runner, and a store holds its token for them. Each machine has a lineage of its own beside the
//! token in its record; the store has one, too. Machines crash and sleep, and both the store and GitLab can be restored
//! from a backup. Where store and machine disagree, GitLab decides:
//!
//! | the store's link, seen from ours | then |
//! |---|---|
//! | the same, accepted | nothing |
//! | the same, dead | a token that we held is accepted: GitLab was restored, that token is written as the next generation. Else the sender of a pending change is waited for, then comes the recovery |
//! | newer | accepted: it is projected here, unless ours has just come from GitLab and is in no store: then ours has to be dead first. Dead, and ours accepted: ours is written as its next generation |
//! | older | ours accepted, the store's dead: the store was restored, and ours is written. Ours dead, the store's accepted: that one is written as our next generation |
//! | neither grew from the other | the accepted one is written as the next generation of both, and it is said |
//! | any difference, neither accepted | the store's link is taken over, and our token kept: then as the same, dead |
//! | none | ours is accepted: it is written, as it is. Dead: the recovery; a machine that has left the runner comes to it like a new one, since the last machine may have deleted it. A machine without any registers the runner |
//! | of another runner or server | it is neither projected nor overwritten |
//!
//! *Dead* is two refusals far enough apart. Of two tokens one is written over the other only if it was still accepted after
//! the other was proven dead: a replica of GitLab's that lags accepts a dead token, but not for that long. One acceptance is
//! enough to project a token, because that loses none: every machine keeps the tokens that it held.
//!
//! What makes rotations safe is GitLab: it resets a runner for its present token alone, so a reset fences itself, however
//! long its sender was paused. A reset by id has no such fence.

#[cfg(test)]
mod explorer;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::schedule::certainty_wait;
use super::{Fraction, Timing};
use crate::model::{Claim, Finding, Lineage, Sender, SharedPending, Stamp};
use crate::secret::Digest;

/// After this time a refused token is asked about again: GitLab can be restored at any time.
pub const LOOK_AGAIN: Duration = Duration::from_secs(6 * 3600);

/// How long the sender of a pending change may need to come back after the answer to its request was due.
const COMING_BACK: Duration = Duration::from_secs(60);

/// A value that is not older than this is not read again before a verification.
pub const FRESH: Duration = Duration::from_secs(2);

/// How far two refusals by the store are apart that count. An API server that has just started serves already while it reads
/// its roles.
const CONFIRM_STORE_REFUSAL: Duration = Duration::from_secs(5);

const SHORTEST_LOOK: Duration = Duration::from_secs(1);
const LONGEST_LOOK: Duration = Duration::from_secs(30);

/// How long the last machine waits for another one that enters itself, before it deletes the runner.
pub const OBJECTION_WAIT: Duration = Duration::from_secs(2);

/// The longest pause before a write that another machine got before is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long the sender of a pending change is waited for, by the watcher's monotonic clock: for the answer to its request,
/// and until it may be back, but at most an eighth of the life that the present token has left.
#[must_use]
pub fn pending_wait(request_timeout: Duration, left: Option<Duration>) -> Duration {
    let longest = request_timeout.saturating_add(COMING_BACK);
    left.filter(|left| !left.is_zero()).map_or(longest, |left| longest.min(left / 8))
}

/// How far two refusals of a token are apart that count, with this life left.
#[must_use]
pub fn confirm_after(timing: &Timing, left: Option<Duration>) -> Duration {
    certainty_wait(timing, timing.confirm_after, left.filter(|left| !left.is_zero()))
}

/// Whether the store refuses this machine for good, so that a person has to act. Takes the time since the first refusal that
/// no answer came after; one refusal alone proves nothing. That holds at any time: the store can have been restarted between
/// two looks.
#[must_use]
pub fn is_store_refusal_proven(since_first: Duration) -> bool {
    since_first >= CONFIRM_STORE_REFUSAL
}

/// How often the store is read although it is watched: often enough to hear of a new token long before it is old. Takes the life of the present one; `None` before there is one.
#[must_use]
pub fn look_interval(life: Option<Duration>) -> Duration {
    life.map_or(SHORTEST_LOOK, |life| (life / 40).clamp(SHORTEST_LOOK, LONGEST_LOOK))
}

/// The pause before a store is watched anew after this many watches in a row that failed or ended early: machines whose watch
/// has ended together come back one after the other. Takes the life of the present token; `None` before there is one.
#[must_use]
pub fn watch_pause(failures: u32, life: Option<Duration>, chance: Fraction) -> Duration {
    let longest = life.map_or(LONGEST_LOOK, |life| look_interval(Some(life)));
    let pause = SHORTEST_LOOK.saturating_mul(2_u32.saturating_pow(failures)).min(longest);
    pause / 2 + chance.of(pause / 2)
}

/// The pause before a contested write is tried again: machines that start together take turns by chance.
#[must_use]
pub fn contested_pause(attempt: u32, chance: Fraction) -> Duration {
    let longest = Duration::from_millis(100).saturating_mul(2_u32.saturating_pow(attempt)).min(LONGEST_PAUSE);
    chance.of(longest)
}

/// What GitLab's answers have shown about a token so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The refusals since the last acceptance.
    refused: Option<Finding>,
    /// The last acceptance.
    accepted: Option<Stamp>,
    /// The last answer of the two kinds.
    asked: Option<Stamp>,
    /// Whether the last acceptance named another runner.
    is_anothers: bool,
}

impl Shown {
    /// What is shown by the refusals since the last acceptance, as far as they are known, and by that acceptance.
    #[must_use]
    pub fn of(refused: Option<Finding>, accepted: Option<Stamp>, is_anothers: bool) -> Self {
        let refused_at = |finding: &Finding| finding.last.unwrap_or(finding.first);
        // An acceptance ends what was claimed before.
        let is_over = |finding: &Finding| accepted.is_some_and(|at| is_at_or_after(&at, &refused_at(finding)));
        let refused = refused.filter(|finding| !is_over(finding));
        let asked = refused.as_ref().map(refused_at).or(accepted);
        Self { refused, accepted, asked, is_anothers }
    }

    /// After a refusal.
    #[must_use]
    pub fn with_refusal(self, now: Stamp) -> Self {
        Self { refused: Some(Finding::added(self.refused, Claim::Refused, now)), asked: Some(now), ..self }
    }

    /// After an acceptance, or an answer that has issued the token.
    #[must_use]
    pub fn with_acceptance(self, now: Stamp, is_anothers: bool) -> Self {
        Self { refused: None, accepted: Some(now), asked: Some(now), is_anothers }
    }

    fn is_accepted(&self) -> bool {
        self.refused.is_none() && self.accepted.is_some() && !self.is_anothers
    }

    /// From when on no replica accepts it any more, if it is proven dead.
    fn dead_from(&self, confirm_after: Duration) -> Option<Stamp> {
        let refused = self.refused?;
        let last = refused.last.unwrap_or(refused.first);
        refused.proves(2, confirm_after, &last).then(|| refused.first.plus(confirm_after))
    }

    fn was_asked_since(&self, since: &Stamp) -> bool {
        self.asked.is_some_and(|asked| is_at_or_after(&asked, since))
    }

    fn is_accepted_since(&self, since: &Stamp) -> bool {
        self.is_accepted() && self.accepted.is_some_and(|accepted| is_at_or_after(&accepted, since))
    }
}

/// The refusals of a token that the state of the runner has proven dead: it keeps the conclusion alone.
#[must_use]
pub fn concluded(now: Stamp, confirm_after: Duration) -> Finding {
    let millis = u64::try_from(confirm_after.as_millis()).unwrap_or(u64::MAX);
    let since_boot_ms = now.since_boot_ms.saturating_sub(millis);
    let first = Stamp { at: now.at.minus(confirm_after), since_boot_ms, ..now };
    Finding { claim: Claim::Refused, count: 2, first, last: Some(now) }
}

fn is_at_or_after(later: &Stamp, earlier: &Stamp) -> bool {
    if later.boot == earlier.boot { later.since_boot_ms >= earlier.since_boot_ms } else { later.at >= earlier.at }
}

/// The store's value, as this machine has last read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The lineage of its token; `None` before the runner is registered.
    pub lineage: Option<Lineage>,
    /// A change whose result is not there yet.
    pub pending: Option<SharedPending>,
    /// Whether that has not changed for longer than a request and a lease may take, by this machine's monotonic clock.
    pub is_pending_overdue: bool,
    /// Whether it is of another runner or server.
    pub is_foreign: bool,
}

/// What this machine's journal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Journal {
    /// No change is under way.
    Empty,
    /// A change was begun, and may have been sent.
    Begun,
    /// The answer to it has brought the token of our lineage, and no write to the store has told of that yet.
    Answered,
}

/// Everything that a decision rests on.
pub struct View<'v, S> {
    /// This machine, in this boot of its agent.
    pub own: &'v Sender,
    /// The lineage of the token in our record.
    pub ours: Option<&'v Lineage>,
    /// The tokens that we have held or read from the store, newest first.
    pub held: &'v [Digest],
    /// Our journal.
    pub journal: Journal,
    /// Whether this machine has left the runner, and its token was not accepted since.
    pub has_left: bool,
    /// The store.
    pub stored: &'v Stored,
    /// What answers have shown about a token.
    pub shown: S,
    /// Now.
    pub now: Stamp,
    /// How far two refusals are apart that count: longer than a replica of GitLab's lags.
    pub confirm_after: Duration,
    /// After this time a refused token is asked about again: GitLab can be restored at any time.
    pub look_again: Duration,
}

/// What a machine does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SharedStep {
    /// Everything agrees.
    Rest,
    /// It settles its own journal, before anything else.
    Settle,
    /// It asks GitLab about a token.
    Ask(Digest),
    /// It takes over the store's token and lineage, which GitLab has accepted.
    Project,
    /// As [`Project`](Self::Project), although the token is dead: ours is dead, too, and is kept beside it.
    TakeOver,
    /// It writes a token over what it has read from the store, and goes on with it.
    Write {
        /// The lineage of that token.
        lineage: Lineage,
        /// Whether two tokens were in use that did not grow from each other.
        is_fork: bool,
    },
    /// It takes a pending change out of the store that has no effect any more.
    ClearPending,
    /// It waits for the sender of the pending change.
    Wait,
    /// No token that is known is accepted.
    Recover,
    /// It registers the runner.
    Register,
    /// The store's value is not touched, and neither is our token.
    Refuse,
}

impl SharedStep {
    /// Its name in the log.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Settle => "settle the journal",
            Self::Ask(_) => "ask the server about a token",
            Self::Project => "use the store's token",
            Self::TakeOver => "take over the store's token",
            Self::Write { .. } => "write the token to the store",
            Self::ClearPending => "clear the pending change",
            Self::Wait => "wait for the pending change",
            Self::Recover => "recover",
            Self::Register => "register",
            Self::Refuse => "leave the store's value",
        }
    }
}

impl<S: Fn(Digest) -> Shown> View<'_, S> {
    /// Returns the next step.
    #[must_use]
    pub fn next_step(&self) -> SharedStep {
        if self.journal == Journal::Begun {
            return SharedStep::Settle;
        }
        if self.stored.is_foreign {
            return SharedStep::Refuse;
        }
        // The token of a registration goes in together with the end of its change: another machine would register in between.
        if let (Some(ours), None) = (self.ours, &self.stored.lineage) {
            let shown = self.shown(ours.token());
            if self.journal == Journal::Answered || shown.is_accepted() {
                return SharedStep::Write { lineage: ours.clone(), is_fork: false };
            }
            if shown.dead_from(self.confirm_after).is_none() {
                return SharedStep::Ask(ours.token());
            }
        }
        // Its journal is settled: it was never sent, or is of no effect.
        if self.stored.pending.as_ref().is_some_and(|pending| pending.sender == *self.own)
            && self.journal == Journal::Empty
        {
            return SharedStep::ClearPending;
        }
        match (self.ours, &self.stored.lineage) {
            (None, None) if self.is_sender_awaited() => SharedStep::Wait,
            (None, None) => SharedStep::Register,
            (Some(ours), None) => self.without_stored(ours),
            (None, Some(stored)) => self.without_ours(stored),
            (Some(ours), Some(stored)) if ours.newest() == stored.newest() => self.same(ours, stored),
            (Some(ours), Some(stored)) if ours.token() == stored.token() => {
                if stored.generation() < ours.generation() {
                    SharedStep::Write { lineage: ours.clone(), is_fork: false }
                } else {
                    SharedStep::Project
                }
            }
            (Some(ours), Some(stored)) if stored.generation() > ours.generation() => self.newer(ours, stored),
            (Some(ours), Some(stored)) => self.older(ours, stored),
        }
    }

    /// Whether our token, which is proven dead, may be replaced by the runner's id, once the store's is dead, too. That has
    /// no fence: a second store for one runner would reset in turn with this one. So there must be a reason in this one: the
    /// token's expiry, or a change whose result never came.
    #[must_use]
    pub fn may_recover(&self, is_expired: bool) -> bool {
        let is_dead = self.stored.lineage.as_ref().map_or(self.ours.is_some(), |stored| {
            let is_ours = self.ours.is_some_and(|ours| ours.token() == stored.token());
            is_ours || self.dead_from(stored.token()).is_some()
        });
        // What this machine has announced and never sent is none.
        let is_reason = |pending: &SharedPending| pending.sender != *self.own || self.journal == Journal::Begun;
        let has_reason = is_expired || self.stored.pending.as_ref().is_some_and(is_reason);
        is_dead && has_reason && !self.stored.is_foreign && !self.is_sender_awaited()
    }

    /// Whether a person may have the token replaced by the runner's id. That needs no reason in the store: it is enough that
    /// no token is accepted that is known, and that no other machine can still bring one.
    #[must_use]
    pub fn may_heal(&self) -> bool {
        matches!(self.next_step(), SharedStep::Recover | SharedStep::TakeOver) && !self.is_sender_awaited()
    }

    /// Whether this machine comes to the runner like a new one: it has left it, its token is dead, no other one is accepted that
    /// it held, and the store has none, or another runner of the same server (`is_other_runner`). The last machine may have
    /// deleted ours.
    #[must_use]
    pub fn joins_anew(&self, is_other_runner: bool) -> bool {
        let is_gone = self.stored.lineage.is_none() || is_other_runner;
        let is_dead = self.ours.is_some_and(|ours| {
            let mut others = self.held.iter().filter(|token| **token != ours.token());
            self.dead_from(ours.token()).is_some() && others.all(|token| self.shown(*token).refused.is_some())
        });
        self.has_left && is_gone && is_dead && self.journal == Journal::Empty
    }

    /// Another machine's change may still bring a token.
    fn is_sender_awaited(&self) -> bool {
        self.stored.pending.as_ref().is_some_and(|pending| pending.sender != *self.own)
            && !self.stored.is_pending_overdue
    }

    fn is_outdated(&self, shown: &Shown) -> bool {
        shown.asked.is_none_or(|asked| self.now.since(&asked) > self.look_again)
    }

    fn shown(&self, token: Digest) -> Shown {
        (self.shown)(token)
    }

    fn dead_from(&self, token: Digest) -> Option<Stamp> {
        self.shown(token).dead_from(self.confirm_after)
    }

    fn without_ours(&self, stored: &Lineage) -> SharedStep {
        let shown = self.shown(stored.token());
        match shown.dead_from(self.confirm_after) {
            _ if shown.is_anothers => SharedStep::Refuse,
            _ if shown.is_accepted() => SharedStep::Project,
            Some(_) => SharedStep::TakeOver,
            None => SharedStep::Ask(stored.token()),
        }
    }

    fn same(&self, ours: &Lineage, stored: &Lineage) -> SharedStep {
        let shown = self.shown(ours.token());
        if shown.is_anothers {
            return SharedStep::Refuse;
        }
        if shown.is_accepted() {
            let is_left = self.stored.pending.is_some() && self.stored.is_pending_overdue;
            return if is_left { SharedStep::ClearPending } else { SharedStep::Rest };
        }
        let Some(dead) = shown.dead_from(self.confirm_after) else { return SharedStep::Ask(ours.token()) };
        if let Some(step) = self.unless_all_are_dead(ours, stored, &dead) {
            return step;
        }
        if self.is_sender_awaited() { SharedStep::Wait } else { SharedStep::Recover }
    }

    /// The store has no token. Ours was not accepted yet.
    fn without_stored(&self, ours: &Lineage) -> SharedStep {
        let shown = self.shown(ours.token());
        let Some(dead) = shown.dead_from(self.confirm_after) else { return SharedStep::Ask(ours.token()) };
        if let Some(step) = self.unless_all_are_dead(ours, ours, &dead) {
            return step;
        }
        if self.is_sender_awaited() { SharedStep::Wait } else { SharedStep::Recover }
    }

    /// Our token is dead, and so is the store's: what is done about another one that we held.
    fn unless_all_are_dead(&self, ours: &Lineage, stored: &Lineage, dead: &Stamp) -> Option<SharedStep> {
        for token in self.held.iter().copied().filter(|token| *token != ours.token()) {
            let former = self.shown(token);
            if former.is_accepted_since(dead) {
                return Some(SharedStep::Write { lineage: stored.over(ours, token), is_fork: false });
            }
            if !former.was_asked_since(dead) || self.is_outdated(&former) {
                return Some(SharedStep::Ask(token));
            }
        }
        self.is_outdated(&self.shown(ours.token())).then(|| SharedStep::Ask(ours.token()))
    }

    fn newer(&self, ours: &Lineage, stored: &Lineage) -> SharedStep {
        let shown = self.shown(stored.token());
        if shown.is_anothers {
            return SharedStep::Refuse;
        }
        if shown.is_accepted() {
            return self.project_unless_ours_is_news(ours, stored);
        }
        let Some(dead) = shown.dead_from(self.confirm_after) else { return SharedStep::Ask(stored.token()) };
        self.unless_ours_is_good(ours, stored, &dead)
    }

    /// The store's token is accepted. While ours has just come from GitLab and no store has it, a replica that lags may have
    /// said that: this machine has the only copy of ours, and goes back only once ours is proven dead.
    fn project_unless_ours_is_news(&self, ours: &Lineage, stored: &Lineage) -> SharedStep {
        if self.journal != Journal::Answered || self.dead_from(ours.token()).is_some() {
            SharedStep::Project
        } else if self.is_asked_later(stored.token(), ours.token()) {
            SharedStep::Ask(ours.token())
        } else {
            SharedStep::Ask(stored.token())
        }
    }

    /// The store's token is dead.
    fn unless_ours_is_good(&self, ours: &Lineage, stored: &Lineage, dead: &Stamp) -> SharedStep {
        let shown = self.shown(ours.token());
        if shown.is_accepted_since(dead) {
            return SharedStep::Write { lineage: continued(ours, stored), is_fork: is_fork(ours, stored) };
        }
        match shown.dead_from(self.confirm_after) {
            Some(_) => SharedStep::TakeOver,
            None => SharedStep::Ask(ours.token()),
        }
    }

    fn is_asked_later(&self, token: Digest, other: Digest) -> bool {
        self.shown(other).asked.is_none_or(|asked| self.shown(token).was_asked_since(&asked))
    }

    fn older(&self, ours: &Lineage, stored: &Lineage) -> SharedStep {
        // GitLab has replaced the store's token by ours just now.
        if self.journal == Journal::Answered && ours.has(stored.newest()) {
            return SharedStep::Write { lineage: ours.clone(), is_fork: false };
        }
        let shown = self.shown(stored.token());
        if shown.is_anothers {
            return SharedStep::Refuse;
        }
        if let Some(dead) = shown.dead_from(self.confirm_after) {
            return self.unless_ours_is_good(ours, stored, &dead);
        }
        match self.dead_from(ours.token()) {
            Some(dead) if shown.is_accepted_since(&dead) => {
                let lineage = ours.over(stored, stored.token());
                SharedStep::Write { lineage, is_fork: is_fork(ours, stored) }
            }
            Some(_) => SharedStep::Ask(stored.token()),
            // Both cannot be good for long: the one is asked about next whose last answer is older.
            None if shown.is_accepted() && self.is_asked_later(stored.token(), ours.token()) => {
                SharedStep::Ask(ours.token())
            }
            None => SharedStep::Ask(stored.token()),
        }
    }
}

/// What the store's token is, seen from ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The same.
    Same,
    /// Newer.
    Newer,
    /// Older.
    Older,
    /// Neither grew from the other, as far as the links reach.
    Fork,
}

impl Relation {
    /// The relation of two links.
    #[must_use]
    pub fn of(ours: &Lineage, stored: &Lineage) -> Self {
        if ours.newest() == stored.newest() {
            Self::Same
        } else if ours.token() != stored.token() && is_fork(ours, stored) {
            Self::Fork
        } else if stored.generation() > ours.generation() {
            Self::Newer
        } else {
            Self::Older
        }
    }

    /// The word for scripts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Newer => "newer",
            Self::Older => "older",
            Self::Fork => "fork",
        }
    }
}

/// Our lineage, if it goes on from the store's; else our token as the next generation of both.
fn continued(ours: &Lineage, stored: &Lineage) -> Lineage {
    if stored.generation() < ours.generation() && ours.has(stored.newest()) {
        ours.clone()
    } else {
        ours.over(stored, ours.token())
    }
}

/// Whether neither grew from the other, as far as the links reach.
fn is_fork(ours: &Lineage, stored: &Lineage) -> bool {
    let is_known =
        |lineage: &Lineage, other: &Lineage| lineage.has(other.newest()) || !lineage.reaches(other.generation());
    !is_known(ours, stored) && !is_known(stored, ours)
}
