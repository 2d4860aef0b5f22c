//! The steps of a worker: what `lifecycle` planned, done by `ops`, and given back as outcomes.

use super::{DrainMode, Worker};
use crate::clock::Clock;
use crate::engine::RotatePolicy;
use crate::error_chain::chain;
use crate::lifecycle::{Outcome, Plan, State, Step, Trouble};
use crate::model::{Origin, RunnerId};
use crate::ops::{Disk, EntryFate, EntryStatus, Error, Registration, Rotation, Server, Unfinished};
use crate::store;

impl<S: Server, D: Disk, C: Clock> Worker<S, D, C> {
    pub(super) async fn execute(&mut self, plan: Plan) {
        tracing::debug!(runner = self.runner.label(), step = plan.step.as_str(), why = plan.why.as_str(), "due");
        if self.unfinished == Some(Unfinished::Unregistration) {
            self.finish_unregistration().await;
            if self.unfinished.is_some() {
                return self.enter(Outcome::Deferred { retry_after: None });
            }
            return;
        }
        let result = match plan.step {
            Step::Register => self.register().await,
            Step::Verify => self.verify().await,
            Step::Rotate => self.rotate().await,
            Step::Save => self.save().await,
            Step::ResetById => self.reset_by_id().await,
            Step::RegisterAgain => self.register_again().await,
        };
        self.take_date();
        self.count(plan.step, &result);
        match result {
            Ok(outcomes) => {
                for outcome in outcomes {
                    self.enter(outcome);
                    self.stop_complaining(outcome);
                }
            }
            Err(error) => {
                self.complain(plan.step, chain(&error), error.hint());
                self.enter(error.outcome());
            }
        }
        self.settle().await;
        self.note_state().await;
    }

    /// The server's time of the last answer, for all that is planned from it.
    fn take_date(&mut self) {
        if let Some(date) = self.runner.date.take() {
            let reading = self.shared.engine.clock.read();
            self.time = self.time.with_date(date, reading);
            self.skew_millis = Some(self.time.skew_millis(reading));
        }
    }

    async fn register(&mut self) -> Result<Vec<Outcome>, Error> {
        let Some(enrollment) = self.enrollment.clone() else { return Ok(Vec::new()) };
        let now = self.now();
        let registration = self.shared.engine.ops.register(&enrollment, &mut self.runner, now).await?;
        if let Registration::Registered { unsaved, .. } = &registration {
            tracing::info!(
                runner = self.runner.label(),
                id = self.runner.record.id.map(RunnerId::number),
                "registered"
            );
            self.tell_unsaved(unsaved.as_ref());
        }
        self.rules = self.current_rules();
        Ok(outcomes(registration.outcome(), registration.unsaved()))
    }

    async fn verify(&mut self) -> Result<Vec<Outcome>, Error> {
        let now = self.now();
        let mut drain_mode = self.drain_mode.clone();
        let is_asking = matches!(self.state, State::Uncertain(_));
        let (ops, runner, enrollment) = (&self.shared.engine.ops, &mut self.runner, self.enrollment.as_ref());
        let ask = async {
            if let Some(enrollment) = enrollment
                && let Some(validity) = ops.reseed(enrollment, runner, now).await?
            {
                return Ok(vec![Outcome::Adopted(validity)]);
            }
            match ops.verify(runner, now).await {
                Ok(verification) => Ok(vec![verification.outcome()]),
                // Another process may have been cut off in the middle of a reset; then its answer is lost.
                Err(error) if !is_asking && error.outcome() == Outcome::Refused && ops.is_unsettled(runner).await => {
                    Ok(vec![Outcome::Lost { retry_after: None }])
                }
                Err(error) => Err(error),
            }
        };
        tokio::select! {
            biased;
            outcomes = ask => outcomes,
            _ = drain_mode.wait_for(|drain_mode| *drain_mode >= DrainMode::GiveUpVerify) => Ok(Vec::new()),
        }
    }

    async fn rotate(&mut self) -> Result<Vec<Outcome>, Error> {
        if self.is_used_elsewhere().await {
            return Ok(vec![Outcome::Withheld]);
        }
        let now = self.now();
        let rotation = self.shared.engine.ops.rotate(&mut self.runner, None, now).await?;
        if let Rotation::Rotated { validity, unsaved } = &rotation {
            let expires_at = validity.expiry.at().map(|at| at.to_string());
            tracing::info!(runner = self.runner.label(), expires_at, "rotated the token");
            self.tell_unsaved(unsaved.as_ref());
        }
        Ok(outcomes(rotation.outcome(), rotation.unsaved()))
    }

    /// Whether another machine uses the token too, which a reset would shut out. Only asked where nobody has
    /// said so, and where there is an access token to ask with.
    async fn is_used_elsewhere(&mut self) -> bool {
        let policy = self.config.policy_of(&self.runner);
        let is_decided = policy.shared.is_some() || policy.rotate == Some(RotatePolicy::Always);
        if is_decided || self.runner.record.origin != Origin::Given {
            return false;
        }
        let Some(access) = self.config.access_to(&self.runner.record.url) else { return false };
        // An unreadable one is told of where it is needed.
        let Ok(access_token) = access.access_token.read() else { return false };
        let Some(other) = self.shared.engine.ops.other_machine(&self.runner, &access_token, self.now()).await else {
            return false;
        };
        let hint = "create a runner for each machine, or say `shared = true` or `rotate = \"always\"` in a [[runner]]";
        let text = format!("another machine ({other}) uses its token too, and would be shut out");
        self.complain(Step::Rotate, text, Some(hint));
        true
    }

    /// The rung of the ladder that needs an access token.
    async fn reset_by_id(&mut self) -> Result<Vec<Outcome>, Error> {
        let Some(access) = self.config.access_to(&self.runner.record.url) else {
            return Ok(vec![Outcome::MustAct(Trouble::AccessDenied)]);
        };
        let access_token = access.access_token.read()?;
        if self.is_used_elsewhere().await {
            return Ok(vec![Outcome::Withheld]);
        }
        let now = self.now();
        let rotation = self.shared.engine.ops.rotate(&mut self.runner, Some(&access_token), now).await?;
        if let Rotation::Rotated { unsaved, .. } = &rotation {
            tracing::warn!(runner = self.runner.label(), "recovered: its token was reset with the access token");
            self.tell_unsaved(unsaved.as_ref());
        }
        Ok(outcomes(rotation.outcome(), rotation.unsaved()))
    }

    /// The last rung of the ladder.
    async fn register_again(&mut self) -> Result<Vec<Outcome>, Error> {
        let Some(enrollment) = self.enrollment.clone() else {
            return Ok(vec![Outcome::MustAct(Trouble::RegistrationRefused)]);
        };
        let (now, old) = (self.now(), self.runner.record.id);
        let registration = self.shared.engine.ops.register_again(&enrollment, &mut self.runner, now).await?;
        if let Registration::Registered { unsaved, .. } = &registration {
            tracing::warn!(
                runner = self.runner.label(),
                old_id = old.map(RunnerId::number),
                id = self.runner.record.id.map(RunnerId::number),
                "recovered: registered anew into the same entry; the old runner may be deleted in GitLab"
            );
            self.tell_unsaved(unsaved.as_ref());
        }
        Ok(outcomes(registration.outcome(), registration.unsaved()))
    }

    async fn save(&mut self) -> Result<Vec<Outcome>, Error> {
        match self.shared.engine.ops.save(&mut self.runner).await {
            Ok(EntryStatus::Foreign { .. }) => Ok(vec![Outcome::Saved, Outcome::Nudged]),
            Ok(_) => {
                tracing::info!(runner = self.runner.label(), "config.toml holds the token now");
                Ok(vec![Outcome::Saved])
            }
            Err(error) => {
                tracing::error!(
                    runner = self.runner.label(),
                    error = chain(&error),
                    "config.toml still does not hold the token"
                );
                Ok(vec![Outcome::Unsaved])
            }
        }
    }

    fn tell_unsaved(&self, unsaved: Option<&store::Error>) {
        if let Some(error) = unsaved {
            tracing::error!(
                runner = self.runner.label(),
                error = chain(&error),
                "config.toml does not hold the new token yet: it is safe in the state directory, and writing it is tried again"
            );
        }
    }

    /// Ends the journal of a lost reset once the old token has told what happened.
    async fn settle(&mut self) {
        let is_lost = matches!(self.state, State::Uncertain(_));
        if is_lost {
            self.unfinished = Some(Unfinished::LostReset);
        } else if self.unfinished == Some(Unfinished::LostReset) {
            match self.shared.engine.ops.settle(&mut self.runner).await {
                Ok(()) => self.unfinished = None,
                Err(error) => {
                    tracing::warn!(runner = self.runner.label(), error = chain(&error), "cannot clear the journal")
                }
            }
        }
    }

    /// A shutdown that was interrupted after it had asked the server to delete the runner.
    pub(super) async fn finish_unregistration(&mut self) {
        if self.unfinished != Some(Unfinished::Unregistration) {
            return;
        }
        let fate = EntryFate::at_shutdown(&self.runner.record);
        let now = self.now();
        match self.shared.engine.ops.unregister(&mut self.runner, fate, now).await {
            Ok(found) => {
                tracing::info!(
                    runner = self.runner.label(),
                    ?found,
                    "finished an unregistration that had been interrupted"
                );
                self.unfinished = None;
                self.take_date();
                let now = self.now();
                self.state = if self.enrollment.is_some() {
                    self.runner.initial_state(&self.config.timing, now)
                } else {
                    State::Retired { since: now }
                };
            }
            Err(error) => {
                tracing::warn!(
                    runner = self.runner.label(),
                    error = chain(&error),
                    "cannot finish an interrupted unregistration: serving the runner on"
                );
            }
        }
    }
}

fn outcomes(outcome: Outcome, unsaved: Option<&store::Error>) -> Vec<Outcome> {
    std::iter::once(outcome).chain(unsaved.map(|_| Outcome::Unsaved)).collect()
}
