//! The steps of a runner that other machines share, over its store.

use std::rc::Rc;
use std::sync::Arc;

use super::{Driver, StepReport};
use crate::clock::Clock;
use crate::engine::UnregisterShared;
use crate::error_chain::chain;
use crate::lifecycle::{Outcome, Step};
use crate::model::{ShareName, SharedChange};
use crate::ops::{
    self, AccessToken, Announced, Completed, Disk, EntryFate, Inquiry, Ops, Runner, Server, SharedStart,
    UnregisterRequest,
};
use crate::store::AskedBy;

/// What a verification of a shared runner has found that is to be done.
#[derive(Clone, Debug)]
pub(super) enum FollowUp {
    /// Another machine's runner is in the store: this machine's own one is deleted.
    GiveWay,
    /// Another machine that was the last one may be deleting the runner with the present token.
    Rotate,
    /// This machine had left the runner, and the last one has deleted it since.
    JoinAnew,
}

impl<S: Server, D: Disk, C: Clock> Driver<S, D, C> {
    /// Does what a verification has found.
    pub(super) async fn follow(&mut self, follow_up: FollowUp, found: StepReport) -> StepReport {
        let step = found.step;
        // The value may have been that of a watch which is late.
        let Some(name) = self.share() else { return found };
        let engine = Rc::clone(&self.engine);
        let has_answered = engine.ops.read_again(&name, &mut self.runner).await;
        let is_due = match &follow_up {
            FollowUp::GiveWay => self.runner.gives_way(),
            FollowUp::Rotate => self.runner.must_rotate(engine.ops.system_id()),
            FollowUp::JoinAnew => self.joins_anew(),
        };
        if !(has_answered && is_due) {
            return found;
        }
        let done = match follow_up {
            FollowUp::Rotate if matches!(found.outcomes.first(), Some(Outcome::Rotated(_))) => Ok(found),
            FollowUp::Rotate => Ok(self.rotate_at_once(step, found).await),
            FollowUp::GiveWay => self.give_way(step, &name).await,
            FollowUp::JoinAnew => self.join_anew(step, &name).await,
        };
        done.unwrap_or_else(|error| StepReport::failed(step, error))
    }

    /// Whether it had left a runner that is gone. Only a daemon or command with the enrollment can come to it again.
    pub(super) fn joins_anew(&self) -> bool {
        let inquiry = self.inquiry();
        self.enrollment.is_some() && inquiry.is_dead && self.engine.ops.joins_anew(&self.runner, &inquiry)
    }

    /// The store may not know of the token that this machine has: it may be the only one that is good.
    pub(super) async fn tell_before_leaving(&mut self) {
        let Some(name) = self.share().filter(|_| self.runner.is_untold()) else { return };
        let (engine, timing) = (Rc::clone(&self.engine), Arc::clone(&self.rules.timing));
        let inquiry = Inquiry { timing: &timing, ..self.inquiry() };
        engine.ops.tell(&name, &mut self.runner, &inquiry).await;
    }

    /// Why the store of a shared runner cannot be used until a person acts.
    pub async fn store_refusal(&mut self) -> Option<ops::Error> {
        let name = self.share()?;
        let engine = Rc::clone(&self.engine);
        engine.ops.store_refusal(&name, &mut self.runner).await
    }

    /// The name by which other machines share the runner. A command has the record alone.
    pub(super) fn share(&self) -> Option<ShareName> {
        match &self.enrollment {
            Some(enrollment) => enrollment.share_as.clone(),
            None => self.runner.record.shared.as_ref().map(|shared| shared.name.clone()),
        }
    }

    /// Takes the runner from the store, or registers it for all machines.
    pub(super) async fn register_shared(&mut self, step: Step, name: &ShareName) -> Result<StepReport, ops::Error> {
        let label = || self.runner.label().to_owned();
        if step == Step::RegisterAgain {
            return Err(ops::Error::NotRegisteredAnew(label()));
        }
        let Some(enrollment) = self.enrollment.clone() else { return Err(ops::Error::NoToken(label())) };
        let (engine, timing) = (Rc::clone(&self.engine), Arc::clone(&self.rules.timing));
        let inquiry = Inquiry { timing: &timing, ..self.inquiry() };
        let (ops, runner) = (&engine.ops, &mut self.runner);
        match ops.start_shared(name, &enrollment, runner, &inquiry).await? {
            SharedStart::Wait => Err(ops::Error::SharedElsewhere(runner.label().to_owned())),
            SharedStart::Take { enrollment: taken, must_rotate } => {
                let registration = ops.register(&taken, runner, &inquiry).await;
                if registration.as_ref().is_err_and(|error| error.outcome() == Outcome::Refused) {
                    if must_rotate {
                        // The last machine has deleted the runner, and could not say so any more.
                        ops.clear_deleted(name, runner, &inquiry).await?;
                        return Err(ops::Error::SharedElsewhere(runner.label().to_owned()));
                    }
                    ops.take_over_dead(name, runner, inquiry.now.at).await?;
                    ops.note_given(&enrollment, runner).await?;
                    let now = inquiry.now.at;
                    let validity =
                        runner.validity(now).ok_or_else(|| ops::Error::NoToken(runner.label().to_owned()))?;
                    return Ok(StepReport::new(step, vec![Outcome::Adopted(validity), Outcome::Nudged]));
                }
                if registration.is_ok() {
                    ops.note_given(&enrollment, runner).await?;
                }
                let done = settled(ops, name, runner, registration, &inquiry).await?;
                let taken = StepReport::completed(step, done);
                self.follow_up = must_rotate.then_some(FollowUp::Rotate);
                Ok(taken)
            }
            SharedStart::Register => {
                let registration = ops.register(&enrollment, runner, &inquiry).await;
                match &registration {
                    Ok(done) if matches!(done.outcome, Outcome::Registered(_)) => {
                        ops.tell(name, runner, &inquiry).await;
                        if runner.gives_way() {
                            return self.give_way(step, name).await;
                        }
                    }
                    // Another machine goes on after a while.
                    Err(error) if matches!(error.outcome(), Outcome::Lost { .. }) => {}
                    Ok(_) | Err(_) => ops.withdraw(name, runner).await,
                }
                let done = settled(ops, name, runner, registration, &inquiry).await?;
                let mut report = StepReport::completed(step, done);
                // People count the machines in GitLab, which lists this one once it has verified the token.
                report.outcomes.push(Outcome::Nudged);
                Ok(report)
            }
        }
    }

    /// The machine that was the last one may be deleting the runner with the token that was taken.
    async fn rotate_at_once(&mut self, step: Step, taken: StepReport) -> StepReport {
        match self.reset(step, None).await {
            Ok(reset) => {
                let outcomes = taken.outcomes.into_iter().chain(reset.outcomes).collect();
                StepReport { outcomes, server_time: reset.server_time.or(taken.server_time), ..taken }
            }
            Err(error) => {
                tracing::warn!(
                    runner = self.runner.label(),
                    error = chain(&error),
                    "the last machine of the shared runner was about to delete it, and its token cannot be rotated at once"
                );
                taken
            }
        }
    }

    /// Whether a stop of the daemon deletes the runner for all: the settings say so, and no other machine has it.
    pub(super) async fn is_last(&mut self) -> bool {
        let Some(name) = self.share().filter(|_| self.config.shutdown.unregister_shared == UnregisterShared::Last)
        else {
            return false;
        };
        let engine = Rc::clone(&self.engine);
        engine.ops.begin_leaving(&name, &mut self.runner).await
    }

    /// Another machine has registered the shared runner first: this machine's one is deleted, and the other one is taken.
    async fn give_way(&mut self, step: Step, name: &ShareName) -> Result<StepReport, ops::Error> {
        tracing::warn!(
            runner = self.runner.label(),
            share = %name,
            id = self.runner.record.id.map(crate::model::RunnerId::number),
            "another machine has registered the shared runner at the same time: deleting the one that this machine has made"
        );
        self.retire_own(step, ops::Deletion::Runner).await
    }

    /// The runner that this machine had left is gone: it comes to the one that there is now, or makes it.
    async fn join_anew(&mut self, step: Step, name: &ShareName) -> Result<StepReport, ops::Error> {
        tracing::warn!(
            runner = self.runner.label(),
            share = %name,
            id = self.runner.record.id.map(crate::model::RunnerId::number),
            "this machine had left the shared runner, and GitLab accepts none of its tokens: taking the runner of the other machines, or registering it"
        );
        // With a dead token that deletes nothing; a manager is all that it could delete.
        self.retire_own(step, ops::Deletion::Manager).await
    }

    /// Gives up the runner that this machine has, to come to the shared one like a new machine.
    async fn retire_own(&mut self, step: Step, deletion: ops::Deletion) -> Result<StepReport, ops::Error> {
        let (engine, timing) = (Rc::clone(&self.engine), Arc::clone(&self.rules.timing));
        let inquiry = Inquiry { timing: &timing, ..self.inquiry() };
        let request =
            UnregisterRequest { deletion, fate: EntryFate::KeepText, asked_by: AskedBy::Daemon, is_sent: false };
        let result = engine.ops.unregister(&mut self.runner, request, &inquiry).await?;
        let report = StepReport::new(step, vec![Outcome::Reenrolled(None)]);
        Ok(StepReport { server_time: result.date, ..report })
    }

    /// Says in the store that this machine is about to change the runner. If store and machine are to be compared first, the
    /// token is verified instead; what came of that is returned unless the change can go on.
    pub(super) async fn announce(
        &mut self,
        step: Step,
        name: &ShareName,
        is_by_id: bool,
    ) -> Result<Option<StepReport>, ops::Error> {
        let change = if is_by_id { SharedChange::ResetById } else { SharedChange::Reset };
        for is_compared in [false, true] {
            let (engine, timing) = (Rc::clone(&self.engine), Arc::clone(&self.rules.timing));
            let inquiry = Inquiry { timing: &timing, ..self.inquiry() };
            let announced = if is_by_id && self.is_healing {
                engine.ops.announce_healing(name, &mut self.runner, &inquiry).await?
            } else {
                engine.ops.announce(name, &mut self.runner, change, &inquiry).await?
            };
            match announced {
                Announced::Done => return Ok(None),
                Announced::NotNow => {}
                Announced::NoReason => {
                    let access = self.access_token()?;
                    let strangers = match &access {
                        Some(access) => engine.ops.strangers(&self.runner, access).await,
                        None => Vec::new(),
                    };
                    let runner = self.runner.label().to_owned();
                    return Err(ops::Error::NoReason { runner, strangers });
                }
            }
            if is_by_id {
                break;
            }
            let verified = self.verify(step).await?;
            if is_compared || !matches!(verified.outcomes[..], [Outcome::Accepted(_)]) {
                // Another machine is at work on it: what it brings is reported.
                let outcomes = verified.outcomes.into_iter().chain([Outcome::Doubtful]).collect();
                return Ok(Some(StepReport { outcomes, ..verified }));
            }
        }
        Err(ops::Error::SharedElsewhere(self.runner.label().to_owned()))
    }
}

/// Verifies the token, and compares store and machine.
pub(super) async fn verify_shared<S: Server, D: Disk>(
    ops: &Ops<S, D>,
    name: &ShareName,
    runner: &mut Runner,
    inquiry: &Inquiry<'_>,
) -> Result<Completed, ops::Error> {
    let verified = ops.verify(runner, inquiry).await;
    settled(ops, name, runner, verified, inquiry).await
}

/// Compares store and machine after an answer about the token.
async fn settled<S: Server, D: Disk>(
    ops: &Ops<S, D>,
    name: &ShareName,
    runner: &mut Runner,
    done: Result<Completed, ops::Error>,
    inquiry: &Inquiry<'_>,
) -> Result<Completed, ops::Error> {
    let is_doubtful = match ops.settle_shared(name, runner, &done, inquiry).await {
        Ok(is_doubtful) => is_doubtful,
        Err(error) => {
            tracing::warn!(runner = runner.label(), error = chain(&error), "cannot compare the token with the store's");
            true
        }
    };
    done.map(|done| Completed { is_doubtful: done.is_doubtful || is_doubtful, ..done })
}

/// Resets an announced token, and tells the store.
pub(super) async fn rotate_shared<S: Server, D: Disk>(
    ops: &Ops<S, D>,
    name: &ShareName,
    runner: &mut Runner,
    access_token: Option<&AccessToken>,
    inquiry: &Inquiry<'_>,
) -> Result<Completed, ops::Error> {
    let rotated = ops.rotate(runner, access_token, inquiry).await;
    match rotated {
        Ok(done) if matches!(done.outcome, Outcome::Rotated(_)) => {
            let is_told = ops.tell(name, runner, inquiry).await;
            Ok(Completed { is_doubtful: done.is_doubtful || !is_told, ..done })
        }
        // It may have been executed: the change stays announced until that is known.
        Err(error) if matches!(error.outcome(), Outcome::Lost { .. }) => Err(error),
        other => {
            ops.withdraw(name, runner).await;
            other
        }
    }
}
