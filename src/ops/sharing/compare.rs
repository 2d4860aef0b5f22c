//! Store and machine are compared, before a verification and after it.

use super::join::enter_member;
use super::{CONTESTED_WRITES, rules};
use crate::lifecycle::Outcome;
use crate::lifecycle::sharing::{Journal, SharedStep, Shown, View};
use crate::model::{Candidate, CandidateSource, Credential, Lineage, ShareName, SharedToken};
use crate::ops::{Completed, Disk, Error, Inquiry, Ops, Runner, Server};
use crate::secret::Digest;

impl<S: Server, D: Disk> Ops<S, D> {
    pub(super) fn next_shared(&self, runner: &Runner, is_begun: bool, inquiry: &Inquiry<'_>) -> SharedStep {
        self.viewed(runner, is_begun, inquiry, |view| view.next_step()).unwrap_or(SharedStep::Wait)
    }

    /// Decides by what is known of store and machine; `None` before the store was read.
    pub(super) fn viewed<T>(
        &self,
        runner: &Runner,
        is_begun: bool,
        inquiry: &Inquiry<'_>,
        decide: impl FnOnce(View<'_, &dyn Fn(Digest) -> Shown>) -> T,
    ) -> Option<T> {
        let memory = runner.store.as_deref()?;
        let now = inquiry.now.at;
        let left = runner.validity(now).and_then(|validity| validity.left(now));
        let stored_left = memory.token().and_then(|token| token.credential.expiry.at()).map(|at| at.since(now));
        // A fresh token in the store is not given up for one that has little time.
        let confirm_after =
            rules::confirm_after(inquiry.timing, left).max(rules::confirm_after(inquiry.timing, stored_left));
        let pending = memory.pending.as_ref();
        let stored = rules::Stored {
            lineage: memory.token().map(|token| token.lineage.clone()),
            pending: pending.map(|(pending, _)| pending.clone()),
            is_pending_overdue: pending.is_some_and(|(_, since)| since.elapsed() >= self.pending_wait(left)),
            is_foreign: memory.runner().is_some_and(|stored| runner.is_of_another_share(stored)),
        };
        let held: Vec<_> = runner.own_candidates().rev().map(|candidate| candidate.token.digest()).collect();
        let shared = runner.record.shared.as_ref();
        let journal = match is_begun {
            true => Journal::Begun,
            false if shared.is_some_and(|shared| shared.is_untold) => Journal::Answered,
            false => Journal::Empty,
        };
        let own = self.sender();
        // The state keeps the conclusion alone.
        let concluded = || rules::concluded(inquiry.now, confirm_after);
        let refused = inquiry.asked.or_else(|| inquiry.is_dead.then(concluded));
        let view = View {
            own: &own,
            ours: shared.and_then(|shared| shared.lineage.as_ref()),
            held: &held,
            journal,
            has_left: shared.is_some_and(|shared| shared.has_left),
            stored: &stored,
            shown: &(|token| runner.shown(token, refused)) as &dyn Fn(Digest) -> Shown,
            now: inquiry.answered(),
            confirm_after,
            look_again: rules::LOOK_AGAIN,
        };
        Some(decide(view))
    }

    /// Writes our token with this lineage over what was read.
    pub(super) async fn write_shared(
        &self,
        name: &ShareName,
        runner: &mut Runner,
        lineage: Lineage,
        is_fork: bool,
        inquiry: &Inquiry<'_>,
    ) -> Result<bool, Error> {
        let Some(credential) = runner.record.credential.clone() else { return Ok(false) };
        if is_fork {
            tracing::error!(
                runner = runner.label(),
                share = %name,
                "two tokens of the shared runner were in use that did not grow from each other: writing the one that GitLab accepts; look for a second store, or for a machine that resets the token by itself"
            );
        }
        let (id, own, member) = (runner.record.named_id(), self.sender(), self.member(inquiry));
        let token = SharedToken { credential, lineage: lineage.clone() };
        let is_done = self
            .swap_shared(name, runner, |next| {
                next.token = Some(token);
                next.id = id.or(next.id);
                enter_member(next, member);
                // A deletion with the former token is refused from now on.
                next.leaving = None;
                // The change of another machine goes on: its answer is a token, too.
                next.pending = next.pending.take().filter(|pending| pending.sender != own);
            })
            .await?;
        if is_done {
            let shared = runner.share(name);
            (shared.lineage, shared.is_untold) = (Some(lineage), false);
            self.save_record(runner).await?;
        }
        Ok(is_done)
    }

    /// Reads the store before a verification, which then asks about the token in it. A store that cannot be used is
    /// reported, and the verification goes on without it.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn prepare_shared(
        &self,
        name: &ShareName,
        runner: &mut Runner,
        inquiry: &Inquiry<'_>,
    ) -> Result<(), Error> {
        if self.look_if_old(name, runner).await.is_err() {
            return Ok(());
        }
        let mut entered = self.enter(runner).await?;
        entered.locked.give_place_back();
        if runner.note_lineage(name) && runner.is_recorded {
            self.save_record(runner).await?;
        }
        let is_begun = entered.pending.is_some();
        // The last machine could delete the runner otherwise, before this one is a member again.
        if !is_begun && runner.is_current_in_store() && self.join(name, runner, inquiry).await.is_err() {
            return Ok(());
        }
        for _ in 0..CONTESTED_WRITES {
            match self.next_shared(runner, is_begun, inquiry) {
                SharedStep::Write { lineage, is_fork } if Some(lineage.token()) == runner.digest() => {
                    match self.write_shared(name, runner, lineage, is_fork, inquiry).await {
                        Ok(_) => {}
                        Err(error @ Error::Disk(_)) => return Err(error),
                        Err(_) => return Ok(()),
                    }
                }
                _ => break,
            }
        }
        self.keep_shared(runner, inquiry).await
    }

    /// Keeps the store's token. One that is newer than ours is asked about first, any other one once ours is refused.
    async fn keep_shared(&self, runner: &mut Runner, inquiry: &Inquiry<'_>) -> Result<(), Error> {
        let Some(memory) = runner.store.as_deref() else { return Ok(()) };
        let Some((stored, id)) = memory.token().map(|token| (token.clone(), memory.runner().and_then(|it| it.id)))
        else {
            return Ok(());
        };
        let ours = runner.record.shared.as_ref().and_then(|shared| shared.lineage.as_ref());
        let is_newer = ours.is_none_or(|ours| ours.generation() < stored.lineage.generation());
        let source = if is_newer { CandidateSource::Shared } else { CandidateSource::Former };
        let SharedToken { credential: Credential { token, obtained_at, expiry }, .. } = stored;
        if runner.is_current(&token) {
            return Ok(());
        }
        let (noted_at, origin, refused) = (inquiry.now.at, None, None);
        runner.note_candidate(Candidate {
            token: token.clone(),
            source,
            noted_at,
            obtained_at,
            expiry,
            id,
            origin,
            refused,
        });
        if is_newer {
            runner.prefer_candidate(&token);
        }
        runner.demote_shared_candidates(&token);
        Ok(self.save_held(runner).await?)
    }

    /// Compares store and machine after a verification. Returns whether they are to be compared again before a reset.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn settle_shared(
        &self,
        name: &ShareName,
        runner: &mut Runner,
        verified: &Result<Completed, Error>,
        inquiry: &Inquiry<'_>,
    ) -> Result<bool, Error> {
        let is_accepted = match verified {
            Ok(completed) => matches!(
                completed.outcome,
                Outcome::Accepted(_) | Outcome::Adopted(_) | Outcome::Registered(_) | Outcome::Rotated(_)
            ),
            Err(_) => false,
        };
        let is_read = runner.store.as_ref().is_some_and(|memory| memory.seen.is_some() && memory.problem.is_none());
        let Some(current) = runner.digest().filter(|_| is_accepted) else { return Ok(false) };
        runner.note_accepted(current, inquiry.now);
        if !is_read {
            return Ok(runner.is_untold());
        }
        let mut entered = self.enter(runner).await?;
        entered.locked.give_place_back();
        let had_left = std::mem::replace(&mut runner.share(name).has_left, false);
        if runner.note_lineage(name) || had_left {
            self.save_record(runner).await?;
        }
        let inquiry = &Inquiry { asked: None, is_dead: false, ..*inquiry };
        let is_begun = entered.pending.is_some();
        let mut asked = Vec::new();
        for _ in 0..2 * CONTESTED_WRITES {
            let step = self.next_shared(runner, is_begun, inquiry);
            tracing::debug!(runner = runner.label(), share = %name, step = step.as_str(), "store and machine compared");
            let written = match step {
                SharedStep::Rest => self.join(name, runner, inquiry).await,
                SharedStep::Write { lineage, is_fork } if Some(lineage.token()) == runner.digest() => {
                    self.write_shared(name, runner, lineage, is_fork, inquiry).await
                }
                SharedStep::ClearPending => self.swap_shared(name, runner, |next| next.pending = None).await,
                SharedStep::Project if runner.is_current_in_store() => {
                    self.take_lineage(name, runner).await?;
                    Ok(true)
                }
                SharedStep::Ask(token) if Some(token) != runner.digest() && !asked.contains(&token) => {
                    asked.push(token);
                    if !self.ask_shared(runner, token, inquiry).await? {
                        return Ok(true);
                    }
                    continue;
                }
                // A sender is waited for, or another runner's token stands there.
                SharedStep::Wait | SharedStep::Refuse => return Ok(false),
                _ => return Ok(true),
            };
            match written {
                Ok(true)
                    if self.next_shared(runner, is_begun, inquiry) == SharedStep::Rest
                        && runner.has_joined(self.system_id(), inquiry.now.at) =>
                {
                    return Ok(false);
                }
                Ok(_) => {}
                Err(error @ Error::Disk(_)) => return Err(error),
                // It is said already.
                Err(_) => return Ok(runner.is_untold()),
            }
        }
        Ok(true)
    }

    /// The same token stands in the store with a higher generation.
    async fn take_lineage(&self, name: &ShareName, runner: &mut Runner) -> Result<(), Error> {
        let lineage = runner.stored_token().map(|token| token.lineage.clone());
        let shared = runner.share(name);
        (shared.lineage, shared.is_untold) = (lineage, false);
        Ok(self.save_record(runner).await?)
    }

    /// Asks GitLab about a token that is not followed. Returns whether it has answered.
    pub(super) async fn ask_shared(
        &self,
        runner: &mut Runner,
        digest: Digest,
        inquiry: &Inquiry<'_>,
    ) -> Result<bool, Error> {
        let held = runner.held.candidates.iter().find(|candidate| candidate.token.digest() == digest);
        let Some(token) = held.map(|candidate| candidate.token.clone()) else { return Ok(false) };
        match self.send_verify(runner, &token).await {
            Ok(answer) => {
                let is_anothers =
                    answer.value.id.zip(runner.record.named_id()).is_some_and(|(theirs, ours)| theirs != ours);
                let memory = runner.memory();
                let is_stored = memory.token().is_some_and(|stored| stored.lineage.token() == digest);
                memory.is_anothers |= is_anothers && is_stored;
                runner.note_acceptance(&token);
                runner.note_accepted(digest, inquiry.now);
            }
            Err(error) if error.outcome() == Outcome::Refused => runner.note_refusal(&token, inquiry.answered()),
            Err(_) => return Ok(false),
        }
        self.save_held(runner).await?;
        Ok(true)
    }
}
