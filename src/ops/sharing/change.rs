//! Changes of a shared runner that are announced, sent and told.

use std::time::Duration;

use tokio::time::sleep;

use super::join::enter_member;
use super::{Announced, CONTESTED_WRITES};
use crate::error_chain::chain;
use crate::lifecycle::sharing::SharedStep;
use crate::model::{ShareName, SharedChange, SharedPending, Timestamp};
use crate::ops::{Disk, Error, Inquiry, Ops, Runner, Server, random_bits};

/// How often the store is told of a new token before a later verification goes on with that, and the pause in between.
const TELLINGS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// How many recoveries by id there are in one [`RECOVERY_WINDOW`].
const RECOVERIES: usize = 2;
const RECOVERY_WINDOW: Duration = Duration::from_secs(24 * 3600);

impl<S: Server, D: Disk> Ops<S, D> {
    /// Says in the store that this machine is about to change the runner, unless store and machine differ or another
    /// machine does so. The swap shows that the write is allowed which the new token will need.
    ///
    /// # Errors
    /// [`Error::Sharing`] and [`Error::NoStore`] if the store cannot be used, [`Error::OtherShare`], [`Error::Disk`].
    pub async fn announce(
        &self,
        name: &ShareName,
        runner: &mut Runner,
        change: SharedChange,
        inquiry: &Inquiry<'_>,
    ) -> Result<Announced, Error> {
        self.look(name, runner).await?;
        let mut entered = self.enter_unless_stopping(runner).await?;
        entered.locked.give_place_back();
        let is_changed = runner.note_lineage(name);
        let is_begun = entered.pending.is_some();
        let own = self.sender();
        let mut step = self.next_shared(runner, is_begun, inquiry);
        if step == SharedStep::ClearPending && self.swap_shared(name, runner, |next| next.pending = None).await? {
            step = self.next_shared(runner, is_begun, inquiry);
        }
        let is_expected = match change {
            SharedChange::Reset => step == SharedStep::Rest,
            SharedChange::ResetById => {
                let is_expired =
                    runner.validity(inquiry.now.at).is_some_and(|validity| validity.is_expired(inquiry.now.at));
                self.viewed(runner, is_begun, inquiry, |view| view.may_recover(is_expired)).unwrap_or(false)
            }
            SharedChange::Register => false,
        };
        let others = runner.store.as_ref().and_then(|memory| memory.pending.as_ref());
        let is_awaited = others.is_some_and(|(pending, _)| pending.sender != own) && step == SharedStep::Rest;
        if !is_expected || is_awaited {
            tracing::debug!(runner = runner.label(), share = %name, step = step.as_str(), is_awaited, "not changing the shared runner now");
            let is_by_id = change == SharedChange::ResetById;
            let is_without_reason = is_by_id && step == SharedStep::Recover;
            return Ok(if is_without_reason { Announced::NoReason } else { Announced::NotNow });
        }
        if change == SharedChange::ResetById && !self.may_recover(runner, inquiry) {
            return Err(Error::RecoveredOften(runner.label().to_owned()));
        }
        if is_changed {
            self.save_record(runner).await?;
        }
        self.begin_change(name, runner, change, inquiry).await
    }

    /// Writes the announcement.
    pub(super) async fn begin_change(
        &self,
        name: &ShareName,
        runner: &mut Runner,
        change: SharedChange,
        inquiry: &Inquiry<'_>,
    ) -> Result<Announced, Error> {
        let (sender, token, member) = (self.sender(), runner.digest(), self.member(inquiry));
        let now = inquiry.now.at;
        let announced = self
            .swap_shared(name, runner, |next| {
                next.pending = Some(SharedPending { change, sender, token, number: random_bits() });
                enter_member(next, member);
                if change == SharedChange::ResetById {
                    next.recoveries.retain(|at| now.since(*at) < RECOVERY_WINDOW);
                    next.recoveries.push(now);
                }
            })
            .await?;
        Ok(if announced { Announced::Done } else { Announced::NotNow })
    }

    /// A token is recovered by the runner's id at most twice a day, by all machines together.
    fn may_recover(&self, runner: &Runner, inquiry: &Inquiry<'_>) -> bool {
        let recoveries = runner.stored_runner().map(|runner| &runner.recoveries);
        let recent = |at: &&Timestamp| inquiry.now.at.since(**at) < RECOVERY_WINDOW;
        recoveries.is_none_or(|recoveries| recoveries.iter().filter(recent).count() < RECOVERIES)
    }

    /// Takes back what [`Ops::announce`] has said: nothing was sent, or it had no effect.
    pub async fn withdraw(&self, name: &ShareName, runner: &mut Runner) {
        let own = self.sender();
        for _ in 0..CONTESTED_WRITES {
            let pending = runner.stored_runner().and_then(|it| it.pending.as_ref());
            if pending.is_none_or(|pending| pending.sender != own) {
                return;
            }
            // Any machine clears it after a while.
            match self.swap_shared(name, runner, |next| next.pending = None).await {
                Ok(true) | Err(_) => return,
                Ok(false) => {}
            }
        }
    }

    /// Tells the store of the token that an answer has brought. Returns whether it has it; else the next verification
    /// tells it.
    pub async fn tell(&self, name: &ShareName, runner: &mut Runner, inquiry: &Inquiry<'_>) -> bool {
        let Some(current) = runner.digest() else { return false };
        runner.note_accepted(current, inquiry.now);
        let inquiry = &Inquiry { asked: None, is_dead: false, ..*inquiry };
        for attempt in 0..TELLINGS {
            if attempt > 0 {
                sleep(PAUSE).await;
            }
            let told = match self.tell_once(name, runner, inquiry).await {
                Ok(is_told) => is_told,
                Err(error) => {
                    tracing::debug!(
                        runner = runner.label(),
                        error = chain(&error),
                        "the store is not told of the new token yet"
                    );
                    false
                }
            };
            if told {
                return true;
            }
            // A failure is reported, and the next attempt fails, too.
            let _looked = self.look(name, runner).await;
        }
        tracing::warn!(
            runner = runner.label(),
            share = %name,
            "this machine alone has the new token of the shared runner: the store is told of it as soon as it can be written"
        );
        false
    }

    async fn tell_once(&self, name: &ShareName, runner: &mut Runner, inquiry: &Inquiry<'_>) -> Result<bool, Error> {
        let mut entered = self.enter(runner).await?;
        entered.locked.give_place_back();
        if runner.note_lineage(name) {
            self.save_record(runner).await?;
        }
        let is_begun = entered.pending.is_some();
        match self.next_shared(runner, is_begun, inquiry) {
            SharedStep::Write { lineage, is_fork } if Some(lineage.token()) == runner.digest() => {
                self.write_shared(name, runner, lineage, is_fork, inquiry).await
            }
            SharedStep::Rest => Ok(true),
            step => {
                tracing::debug!(
                    runner = runner.label(),
                    step = step.as_str(),
                    "the store is not told of the new token now"
                );
                Ok(false)
            }
        }
    }
}
