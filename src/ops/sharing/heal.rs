//! A new token for a dead shared runner, because a person asks for it.

use super::Announced;
use crate::model::{ShareName, SharedChange};
use crate::ops::{Disk, Error, Inquiry, Ops, Runner, Server};

impl<S: Server, D: Disk> Ops<S, D> {
    /// As [`Ops::announce`] of a reset by the runner's id. The store needs no reason for it, and former recoveries do not
    /// count against it. GitLab is asked about every token that is known: one that it accepts is not replaced.
    ///
    /// # Errors
    /// As [`Ops::announce`], and [`Error::Unjudged`] if GitLab does not answer about one of the tokens.
    pub async fn announce_healing(
        &self,
        name: &ShareName,
        runner: &mut Runner,
        inquiry: &Inquiry<'_>,
    ) -> Result<Announced, Error> {
        self.look(name, runner).await?;
        let mut entered = self.enter_unless_stopping(runner).await?;
        entered.locked.give_place_back();
        if runner.note_lineage(name) {
            self.save_record(runner).await?;
        }
        let own = runner.digest();
        let held: Vec<_> = runner.own_candidates().map(|candidate| candidate.token.digest()).collect();
        for token in held.into_iter().filter(|token| Some(*token) != own) {
            if !self.ask_shared(runner, token, inquiry).await? {
                return Err(Error::Unjudged(runner.label().to_owned()));
            }
            if self.is_accepted(runner, token) {
                return Ok(Announced::NotNow);
            }
        }
        let is_begun = entered.pending.is_some();
        if !self.viewed(runner, is_begun, inquiry, |view| view.may_heal()).unwrap_or(false) {
            let step = self.next_shared(runner, is_begun, inquiry);
            tracing::debug!(runner = runner.label(), share = %name, step = step.as_str(), "not healing the shared runner now");
            return Ok(Announced::NotNow);
        }
        self.begin_change(name, runner, SharedChange::ResetById, inquiry).await
    }

    fn is_accepted(&self, runner: &Runner, token: crate::secret::Digest) -> bool {
        let held = runner.held.candidates.iter().find(|candidate| candidate.token.digest() == token);
        held.is_some_and(|candidate| candidate.refused.is_none())
            && runner.store.as_ref().is_some_and(|memory| memory.accepted.contains_key(&token))
    }
}
