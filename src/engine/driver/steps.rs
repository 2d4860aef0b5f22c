//! The steps: each asks `ops` for one operation and says what came of it. None of them touches the state.

use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use super::shared::{FollowUp, rotate_shared, verify_shared};
use super::{Asker, Driver, IdTrust, StepFailure, StepReport};
use crate::clock::Clock;
use crate::engine::RotatePolicy;
use crate::engine::policy::{deletion_at_stop, has_confirmed_id, requested_deletion};
use crate::lifecycle::{Outcome, Rejection, State, Step, Trouble};
use crate::model::{Origin, TlsFiles};
use crate::ops::{
    self, AccessToken, Completed, Deletion, Disk, EntryFate, EntryStatus, Inquiry, Server, ServerAccess, Unfinished,
    UnregisterRequest, UnregisterResult, Unregistration,
};
use crate::store::{self, AskedBy};

impl StepReport {
    pub(super) fn new(step: Step, outcomes: Vec<Outcome>) -> Self {
        Self { step, outcomes, server_time: None, unregistration: None, dropped_to: None, failure: None }
    }

    pub(super) fn completed(step: Step, completed: Completed) -> Self {
        let Completed { outcome, date, unsaved, is_disputed, is_doubtful } = completed;
        let further = [
            unsaved.as_ref().map(|_| Outcome::Unsaved),
            is_disputed.then_some(Outcome::Disputed),
            is_doubtful.then_some(Outcome::Doubtful),
        ];
        let outcomes = std::iter::once(outcome).chain(further.into_iter().flatten()).collect();
        let failure = unsaved.map(|error| StepFailure::Unsaved(error.into()));
        Self { server_time: date, failure, ..Self::new(step, outcomes) }
    }

    pub(super) fn failed(step: Step, error: ops::Error) -> Self {
        let outcomes = vec![error.outcome()];
        Self { server_time: error.date(), failure: Some(error.into()), ..Self::new(step, outcomes) }
    }
}

impl<S: Server, D: Disk, C: Clock> Driver<S, D, C> {
    pub(super) async fn attempt(&mut self, step: Step) -> StepReport {
        self.engine.ops.recall_candidates(&mut self.runner).await;
        let attempted = match step {
            Step::Register | Step::RegisterAgain => self.register(step).await,
            Step::Verify => self.verify(step).await,
            Step::Rotate => self.rotate(step).await,
            Step::ResetById => self.reset_by_id(step).await,
            Step::Save => self.save(step).await,
            Step::Unregister => return self.unregister(step).await,
        };
        attempted.unwrap_or_else(|error| StepReport::failed(step, error))
    }

    async fn register(&mut self, step: Step) -> Result<StepReport, ops::Error> {
        let Some(enrollment) = &self.enrollment else {
            return Ok(StepReport::new(step, vec![Outcome::MustAct(Trouble::RegistrationRefused)]));
        };
        let (engine, timing) = (Rc::clone(&self.engine), Arc::clone(&self.rules.timing));
        let inquiry = Inquiry { timing: &timing, ..self.inquiry() };
        let ops = &engine.ops;
        if let Some(name) = self.share() {
            return self.register_shared(step, &name).await;
        }
        let registration = match step {
            // The last rung of the recovery ladder, or forced by a person.
            Step::RegisterAgain => ops.register_again(enrollment, &mut self.runner, &inquiry).await,
            _ => ops.register(enrollment, &mut self.runner, &inquiry).await,
        };
        // A command beside the daemon has lost the answer to a reset: the next verification settles it.
        if let Err(ops::Error::Disk(store::Error::Unsettled { .. })) = &registration
            && self.asker.is_daemon()
        {
            self.unfinished = Some(Unfinished::LostReset);
        }
        Ok(StepReport::completed(step, registration?))
    }

    /// What an operation is told about the present.
    pub(super) fn inquiry(&self) -> Inquiry<'_> {
        let now = self.moment().stamp();
        let (is_dead, is_patient) = match &self.state {
            State::Rejected(state) => (true, state.awaits_candidates(&self.rules.timing, now.at)),
            _ => (false, false),
        };
        let is_pressing = !is_dead && self.state.validity().is_some_and(|validity| validity.is_pressing(now.at));
        let local = self.engine.clock.read().wall;
        let asked = self.state.evidence().asked;
        Inquiry {
            now,
            local,
            timing: &self.rules.timing,
            is_dead,
            begun: Instant::now(),
            asked,
            is_patient,
            is_pressing,
        }
    }

    pub(super) async fn verify(&mut self, step: Step) -> Result<StepReport, ops::Error> {
        if let Some(finished) = self.finish_unregistration(step).await? {
            return Ok(finished);
        }
        // Whether a lost reset is known to be the probable reason for a refusal.
        let is_blamed = match &self.state {
            State::Uncertain(_) => true,
            State::Rejected(rejected) => rejected.rejection == Rejection::Lost,
            _ => false,
        };
        let (engine, timing) = (Rc::clone(&self.engine), Arc::clone(&self.rules.timing));
        let inquiry = Inquiry { timing: &timing, ..self.inquiry() };
        let share = self.share();
        let (ops, runner) = (&engine.ops, &mut self.runner);
        if let Some(enrollment) = &self.enrollment
            && let Some(adopted) = ops.adopt_given_token(&self.config.enrollments, enrollment, runner, &inquiry).await?
        {
            return Ok(StepReport::completed(step, adopted));
        }
        let verified = match share {
            Some(name) => {
                ops.prepare_shared(&name, runner, &inquiry).await?;
                if runner.gives_way() {
                    self.follow_up = Some(FollowUp::GiveWay);
                    return Ok(StepReport::new(step, vec![Outcome::Doubtful]));
                }
                verify_shared(ops, &name, runner, &inquiry).await
            }
            None => ops.verify(runner, &inquiry).await,
        };
        match verified {
            Ok(verified) => {
                if runner.must_rotate(ops.system_id()) {
                    self.follow_up = Some(FollowUp::Rotate);
                }
                Ok(StepReport::completed(step, verified))
            }
            // Another process may have lost the answer to a reset, or have been cut off in the middle of one.
            Err(error)
                if self.asker.is_daemon()
                    && !is_blamed
                    && error.outcome() == Outcome::Refused
                    && ops.is_unsettled(runner).await =>
            {
                let outcomes = match self.state {
                    State::Rejected(_) => vec![Outcome::Refused, Outcome::LostElsewhere],
                    _ => vec![Outcome::LostElsewhere],
                };
                Ok(StepReport { server_time: error.date(), ..StepReport::new(step, outcomes) })
            }
            Err(error) => {
                if error.outcome() == Outcome::Refused && self.joins_anew() {
                    self.follow_up = Some(FollowUp::JoinAnew);
                }
                Err(error)
            }
        }
    }

    /// An entry that an unregistration could not remove goes before anything is asked.
    async fn finish_unregistration(&mut self, step: Step) -> Result<Option<StepReport>, ops::Error> {
        let now = self.now();
        let Some((fate, result)) = self.engine.ops.finish_unregistration(&mut self.runner, now).await? else {
            return Ok(None);
        };
        tracing::info!(runner = self.runner.label(), "finished an unregistration that was cut off");
        // What was unregistered beside a running daemon stays so until a restart or a reload.
        let is_from_before = self.unfinished == Some(Unfinished::Unregistration);
        let outcome = match (fate, &self.enrollment) {
            (EntryFate::Keep, _) => Outcome::Reenrolled(self.runner.validity(now)),
            (EntryFate::KeepText | EntryFate::Drop, Some(_)) if is_from_before => Outcome::Reenrolled(None),
            (EntryFate::KeepText | EntryFate::Drop, _) => Outcome::Unregistered,
        };
        self.unfinished = None;
        let UnregisterResult { found, dropped_to, date: _ } = result;
        Ok(Some(StepReport { unregistration: Some(found), dropped_to, ..StepReport::new(step, vec![outcome]) }))
    }

    async fn rotate(&mut self, step: Step) -> Result<StepReport, ops::Error> {
        if let Some(withheld) = self.withhold(step).await {
            return Ok(withheld);
        }
        self.reset_unless_moved(step, None).await
    }

    /// The same runner at another address may have a new token already, which a reset would replace: then the token is
    /// verified first, and follows that one.
    async fn reset_unless_moved(
        &mut self,
        step: Step,
        access_token: Option<&AccessToken>,
    ) -> Result<StepReport, ops::Error> {
        let engine = Rc::clone(&self.engine);
        let _until_replaced = engine.ops.lock_twin(&self.runner).await?;
        if engine.ops.has_twin_moved(&self.runner).await {
            match self.verify(step).await {
                Ok(verified) if verified.outcomes.contains(&Outcome::Doubtful) => {
                    let error = ops::Error::TwinMoved(self.runner.label().to_owned());
                    return Ok(StepReport { server_time: verified.server_time, ..StepReport::failed(step, error) });
                }
                Ok(verified) if matches!(verified.outcomes.first(), Some(Outcome::Accepted(_))) => {}
                Err(error) if error.outcome() == Outcome::Refused => {}
                followed => return followed,
            }
        }
        self.reset(step, access_token).await
    }

    /// The rung of the recovery ladder that needs an access token.
    async fn reset_by_id(&mut self, step: Step) -> Result<StepReport, ops::Error> {
        let Some(access_token) = self.access_token()? else {
            return Ok(StepReport::new(step, vec![Outcome::MustAct(Trouble::AccessDenied)]));
        };
        if let Some(withheld) = self.withhold(step).await {
            return Ok(withheld);
        }
        if !self.may_act_by_id(&access_token).await {
            return Err(ops::Error::UnconfirmedId(self.runner.label().to_owned()));
        }
        self.reset_unless_moved(step, Some(&access_token)).await
    }

    /// An id in config.toml is a claim.
    async fn may_act_by_id(&self, access_token: &AccessToken) -> bool {
        if has_confirmed_id(&self.runner.record) {
            return true;
        }
        match self.id_trust {
            IdTrust::None => false,
            IdTrust::Named => self.engine.ops.confirms_id(&self.runner, access_token).await,
            IdTrust::Vouched => true,
        }
    }

    pub(super) async fn reset(
        &mut self,
        step: Step,
        access_token: Option<&AccessToken>,
    ) -> Result<StepReport, ops::Error> {
        let (engine, timing) = (Rc::clone(&self.engine), Arc::clone(&self.rules.timing));
        if self.share().is_none() && self.runner.record.shared.is_some() {
            return Err(ops::Error::NoStore(self.runner.label().to_owned()));
        }
        if let Some(name) = self.share()
            && let Some(compared) = self.announce(step, &name, access_token.is_some()).await?
        {
            return Ok(compared);
        }
        let share = self.share();
        let inquiry = Inquiry { timing: &timing, ..self.inquiry() };
        let rotated = match &share {
            Some(name) => rotate_shared(&engine.ops, name, &mut self.runner, access_token, &inquiry).await,
            None => engine.ops.rotate(&mut self.runner, access_token, &inquiry).await,
        };
        match rotated {
            Ok(rotation) => {
                let mut report = StepReport::completed(step, rotation);
                // A token that a person has put into config.toml may be of a runner that has a record: the server says so.
                if self.runner.record.named_id().is_none() && matches!(report.outcomes[..], [Outcome::Rotated(_), ..]) {
                    report.outcomes.push(Outcome::Nudged);
                }
                Ok(report)
            }
            // A journal that could not be cleared: a verification settles it, as after a lost answer.
            Err(error @ ops::Error::Disk(store::Error::Unsettled { .. })) if self.asker.is_daemon() => {
                let lost = StepReport::new(step, vec![Outcome::Lost { retry_after: None }]);
                Ok(StepReport { failure: Some(error.into()), ..lost })
            }
            // A command beside the daemon has lost the answer to a reset, and has found out already that the token is dead.
            Err(error)
                if self.asker.is_daemon()
                    && error.outcome() == Outcome::ResetRefused
                    && engine.ops.is_unsettled(&self.runner).await =>
            {
                Ok(StepReport { outcomes: vec![Outcome::LostElsewhere], ..StepReport::failed(step, error) })
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn access_token(&self) -> Result<Option<AccessToken>, ops::Error> {
        let of_server = self.config.access_to(&self.runner.record.url);
        let Asker::Command { access_token: Some(given), .. } = &self.asker else {
            return Ok(of_server.map(ServerAccess::read).transpose()?);
        };
        let tls = match of_server {
            Some(server) if given.tls == TlsFiles::default() => &server.tls,
            Some(_) | None => &given.tls,
        };
        Ok(Some(AccessToken { token: given.token.clone(), tls: tls.clone() }))
    }

    /// Withholds a reset that was not asked for if another machine uses the token too: that one would be shut out.
    async fn withhold(&mut self, step: Step) -> Option<StepReport> {
        let policy = self.config.policy_of(&self.runner);
        let is_decided =
            policy.shared.is_some() || self.share().is_some() || policy.rotate == Some(RotatePolicy::Always);
        if is_decided || self.runner.record.origin != Origin::Given || !self.asker.is_daemon() {
            return None;
        }
        // A token that cannot be read is reported by the step that needs it.
        let access_token = self.access_token().ok()??;
        let ops = &self.engine.ops;
        let machine = match ops.unless_stopping(ops.other_machine(&self.runner, &access_token, self.now())).await {
            Ok(machine) => machine?,
            // The reset is not sent either.
            Err(_) => return None,
        };
        let failure = Some(StepFailure::UsedElsewhere { machine });
        Some(StepReport { failure, ..StepReport::new(step, vec![Outcome::Withheld]) })
    }

    async fn save(&mut self, step: Step) -> Result<StepReport, ops::Error> {
        let saved = match &self.state {
            State::Active(_) => self.engine.ops.save(&mut self.runner).await,
            // A token in an odd answer: the credential is still the former one.
            _ => {
                let (engine, timing) = (Rc::clone(&self.engine), Arc::clone(&self.rules.timing));
                let inquiry = Inquiry { timing: &timing, ..self.inquiry() };
                match engine.ops.save_received(&mut self.runner, &inquiry).await {
                    Ok(Some(adopted)) => return Ok(StepReport::completed(step, adopted)),
                    Err(error @ ops::Error::Unstored { .. }) => return Err(error),
                    saved => saved.map(|_| EntryStatus::Ours),
                }
            }
        };
        Ok(match saved {
            Ok(EntryStatus::Foreign { .. }) => StepReport::new(step, vec![Outcome::Saved, Outcome::Nudged]),
            Ok(_) => StepReport::new(step, vec![Outcome::Saved]),
            Err(error) => {
                let failure = Some(StepFailure::Unsaved(error));
                StepReport { failure, ..StepReport::new(step, vec![Outcome::Unsaved]) }
            }
        })
    }

    /// A failure only defers: what else its answer could mean is for a verification to find out.
    async fn unregister(&mut self, step: Step) -> StepReport {
        self.tell_before_leaving().await;
        let is_last = self.asker.is_daemon() && self.is_last().await;
        let (deletion, fate, asked_by) = match self.asker {
            Asker::Daemon => {
                let deletion =
                    if is_last { Deletion::SharedRunner } else { deletion_at_stop(&self.config, &self.runner) };
                (deletion, EntryFate::at_shutdown(&self.runner.record, deletion), AskedBy::Daemon)
            }
            Asker::Command { entry_fate, .. } => {
                (requested_deletion(&self.config, &self.runner), entry_fate, AskedBy::Command)
            }
        };
        let is_sent = std::mem::replace(&mut self.is_deletion_sent, true);
        let request = UnregisterRequest { deletion, fate, asked_by, is_sent };
        let (engine, timing) = (Rc::clone(&self.engine), Arc::clone(&self.rules.timing));
        let inquiry = Inquiry { timing: &timing, ..self.inquiry() };
        match engine.ops.unregister(&mut self.runner, request, &inquiry).await {
            Ok(UnregisterResult { found, dropped_to, date }) => {
                self.unfinished = None;
                let shared = self.runner.record.shared.as_ref().map(|shared| shared.name.clone());
                if let Some(name) = shared {
                    if is_last {
                        engine.ops.remove_shared(&name, &mut self.runner).await;
                    }
                    engine.ops.leave(&name, &mut self.runner).await;
                }
                // Its present token is lost, so the refusal of the former one does not say that the runner is gone.
                let is_lost = matches!(&self.state, State::Rejected(rejected) if rejected.rejection == Rejection::Lost);
                let found =
                    if is_lost && found == Unregistration::AlreadyGone { Unregistration::MayRemain } else { found };
                let report = StepReport::new(step, vec![Outcome::Unregistered]);
                StepReport { server_time: date, unregistration: Some(found), dropped_to, ..report }
            }
            Err(error @ ops::Error::Deleting { .. }) => StepReport::failed(step, error),
            Err(error) => StepReport {
                outcomes: vec![Outcome::Deferred { retry_after: None }],
                ..StepReport::failed(step, error)
            },
        }
    }
}
