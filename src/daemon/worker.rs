//! The worker: waits for what is due for one runner, has the driver do it, and logs what came of it.

mod changes;
mod ongoing_failure;
mod secrets;
mod sharing_log;
mod status;
mod step_log;

use std::rc::Rc;

use tokio::time::Instant;

use super::Shared;
use super::events::RunnerEvents;
use super::store_watch::StoreReport;
use super::transition_log::{log_transition, sentence};
use crate::clock::Clock;
use crate::engine::{Asker, AtStop, Config, Driver, ManagedRunner, StepFailure, StepReport, at_stop};
use crate::error_chain::chain;
use crate::lifecycle::{Goal, Outcome, Plan};
use crate::model::{Link, RunnerId, RunnerKey, StateName};
use crate::ops::{Disk, Server};
use crate::store::EntrySelector;
use ongoing_failure::OngoingFailure;
pub(super) use secrets::Secrets;
pub(super) use status::Acceptance;

/// What the supervisor tells a worker.
#[derive(Clone, Debug)]
pub(super) enum RunnerCommand {
    /// A person asks for a new attempt of everything that failed.
    TryAgain {
        /// When.
        asked_at: Instant,
    },
    /// config.toml has changed.
    Changed {
        /// Whether a missing entry is missing for good.
        file: FileState,
        /// What to do if another process has unregistered the runner.
        unregistered: UnregisteredElsewhere,
    },
    /// A file has changed that may hold a secret: all secrets as they are now.
    SecretsChanged(Rc<Secrets>),
    /// New settings, and the secrets that they name.
    Settings(Rc<Config>, Rc<Secrets>),
    /// The store of the shared runner has this value, or cannot be used.
    Store(StoreReport),
    /// An enrollment takes the runner over.
    HandOver,
    /// The runner at another address that may be the same one, if any; see [`ManagedRunner::twin_of`].
    Twin(Option<RunnerKey>),
}

/// Whether config.toml may still be in the middle of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileState {
    /// It has just changed.
    Changing,
    /// It has been still for a while, or a person asked for a reload.
    Still,
}

/// What to do with the runner of an enrollment that another process has unregistered while the daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum UnregisteredElsewhere {
    /// Leave it alone: a person wanted it so.
    LeaveAlone,
    /// Register it again: a person asked for a reload.
    RegisterAgain,
}

/// What a stopping worker may go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DrainMode {
    /// Everything under way may finish.
    Finish,
    /// A verification is cancelled: it changes nothing.
    CancelVerify,
}

pub(super) struct Worker<S, D, C> {
    shared: Rc<Shared<S, D, C>>,
    /// The key that its runner had when it was taken up.
    key: RunnerKey,
    driver: Driver<S, D, C>,
    /// As they were when the worker last looked.
    secrets: Rc<Secrets>,
    acceptance: Acceptance,
    /// The failure that lasts and was logged already.
    ongoing_failure: Option<Box<OngoingFailure>>,
    /// What a comparison with config.toml that failed was to do, which the next one makes up for.
    missed: Option<UnregisteredElsewhere>,
    /// The shared token that the log knows of.
    said: Option<Link>,
    /// Whether this machine's manager of the runner was deleted before the worker began, and is not made again yet.
    is_to_be_revived: bool,
}

impl<S: Server, D: Disk, C: Clock> Worker<S, D, C> {
    pub(super) fn new(
        shared: Rc<Shared<S, D, C>>,
        managed: ManagedRunner,
        config: Rc<Config>,
        secrets: Rc<Secrets>,
    ) -> Self {
        let key = managed.runner.record.key.clone();
        let before =
            if managed.runner.record.credential.is_some() { StateName::Active } else { StateName::Unregistered };
        let is_to_be_revived = before == StateName::Active && managed.runner.record.state == Some(StateName::Retired);
        let said = managed.runner.shared_link();
        let driver = Driver::new(Rc::clone(&shared.engine), managed, config, Asker::Daemon);
        let (acceptance, ongoing_failure, missed) = (Acceptance::default(), None, None);
        let worker = Self { shared, key, driver, secrets, acceptance, ongoing_failure, missed, said, is_to_be_revived };
        worker.log_transition(before);
        worker.record_transition(before);
        worker.tell_hooks();
        worker
    }

    pub(super) fn key(&self) -> &RunnerKey {
        &self.key
    }

    /// The host of the runner's server.
    pub(super) fn host(&self) -> Rc<str> {
        self.driver.runner.site.url.authority().into()
    }

    /// The entries that the worker answers for.
    pub(super) fn target(&self) -> EntrySelector {
        self.driver.runner.target()
    }

    /// The runner's name if a stop unregisters it in its present state.
    pub(super) fn leaving(&self) -> Option<String> {
        let Driver { runner, enrollment, config, .. } = &self.driver;
        let is_leaving = match at_stop(config, runner, enrollment.as_deref(), self.driver.state()) {
            AtStop::Keep | AtStop::TokenLost => false,
            AtStop::Unregister => true,
            AtStop::UnregisterRenewable => self.secrets.has_source_of(&runner.record.key),
        };
        is_leaving.then(|| runner.label().to_owned())
    }

    pub(super) fn into_driver(self) -> Driver<S, D, C> {
        self.driver
    }

    /// Publishes the runner's status. Returns what is to be done next, and when it is time to look at least; `None` once
    /// the runner is retired.
    pub(super) fn rest(&mut self) -> Option<(Instant, Plan)> {
        let plan = self.driver.plan()?;
        self.driver.runner.rest();
        self.publish();
        let nap = plan.at.since(self.driver.now()).min(self.driver.rules.timing.longest_nap);
        Some((Instant::now() + nap, plan))
    }

    /// Notices a clock that has jumped.
    pub(super) fn check_clock(&mut self) {
        if self.driver.check_clock() {
            let runner = self.driver.runner.label();
            tracing::info!(runner, "the clock has jumped: asking the server for the time");
        }
    }

    /// Does what it was told, or else what is due.
    pub(super) async fn work(mut self: Box<Self>, commands: Vec<RunnerCommand>) -> Box<Self> {
        let is_told = !commands.is_empty();
        self.shared.engine.ops.recall_candidates(&mut self.driver.runner).await;
        for command in commands {
            self.handle(command).await;
            if self.driver.plan().is_none() {
                self.tell_hooks();
                return self;
            }
        }
        if !is_told
            && let Some(plan) = self.driver.plan()
            && plan.at <= self.driver.now()
        {
            self.execute(plan).await;
        }
        self.tell_hooks();
        self
    }

    /// Whether a token is in memory alone.
    pub(super) fn has_sole_copy(&self) -> bool {
        self.driver.runner.is_unstored()
    }

    /// Writes a token that is in memory alone.
    pub(super) async fn store(mut self: Box<Self>) -> Box<Self> {
        self.store_sole_copy().await;
        self.tell_hooks();
        self
    }

    /// Makes one pass: every step that is due now, each kind once; returns its driver, what the server said about its
    /// token in the pass, and the last failure that no later step has made up for.
    pub(super) async fn once(mut self) -> (Driver<S, D, C>, Acceptance, Option<StepFailure>) {
        self.reconcile(FileState::Still, UnregisteredElsewhere::LeaveAlone).await;
        let (mut done, mut failure) = (Vec::new(), None);
        while let Some(plan) = self.driver.plan_once(&done) {
            done.push(plan.step);
            let report = self.execute(plan).await;
            let is_overcome = report.outcomes.iter().any(makes_up_for_failures);
            failure = report.failure.or(failure.filter(|_| !is_overcome));
        }
        if self.driver.runner.is_unstored() {
            self.store_sole_copy().await;
            failure = failure.filter(|_| self.driver.runner.is_unstored());
        }
        // A shared runner may be refused because the store has its new token.
        if failure.as_ref().is_none_or(StepFailure::is_refusal)
            && let Some(error) = self.driver.store_refusal().await
        {
            let runner = self.driver.runner.label();
            if !self.driver.runner.is_store_trouble_said() {
                let (error, hint) = (chain(&error), error.hint());
                tracing::error!(runner, error, hint, "the store of the shared runner cannot be used");
            }
            failure = Some(StepFailure::Operation(error));
        }
        self.tell_hooks();
        (self.driver, self.acceptance, failure)
    }

    /// Writes a token that is in memory alone before the process ends, for as long as that takes: the caller bounds it.
    async fn store_sole_copy(&mut self) {
        while self.driver.runner.is_unstored()
            && let Some(plan) = self.driver.plan_towards(Goal::Stored, &[])
        {
            tokio::time::sleep(plan.at.since(self.driver.now())).await;
            let report = self.execute(plan).await;
            if report.outcomes.contains(&Outcome::Unsaved) {
                continue;
            }
            // Without a state directory there is no place for a token in an odd answer that is not accepted.
            if let Some(failure) = report.failure {
                tracing::error!(runner = self.driver.runner.label(), error = chain(&failure), "ending nevertheless");
            }
            break;
        }
    }

    async fn execute(&mut self, plan: Plan) -> StepReport {
        let (before, old_id) = (self.driver.state().name(), self.driver.runner.record.id);
        let mut drain_mode = self.shared.drain_mode.subscribe();
        let cancelled = async move {
            let cancels = drain_mode.wait_for(|mode| *mode >= DrainMode::CancelVerify);
            // A supervisor that is gone cancels too.
            let _mode = cancels.await;
        };
        let report = self.driver.step(plan, cancelled).await;
        self.follow_up(before, old_id, &report);
        report
    }

    /// Logs and counts what a step did.
    fn follow_up(&mut self, before: StateName, old_id: Option<RunnerId>, report: &StepReport) {
        for outcome in &report.outcomes {
            self.acceptance = self.acceptance.after(outcome);
        }
        if report.outcomes.contains(&Outcome::RegisteredElsewhere) {
            self.shared.left_registration.notify_one();
        }
        self.count(report);
        let is_told = self.log_sharing(report);
        self.log_step(report, old_id, is_told);
        self.log_revival(report);
        self.track_failure(report);
        self.log_transition(before);
        // A step that has led to a new token says so itself.
        if !self.events().record_step(report) || self.driver.state().name() != StateName::Active {
            self.record_transition(before);
        }
    }

    /// Applies an outcome that no step produced.
    fn enter(&mut self, outcome: Outcome) {
        let before = self.driver.state().name();
        self.acceptance = self.acceptance.after(&outcome);
        self.driver.enter(outcome);
        self.log_transition(before);
        self.record_transition(before);
    }

    fn log_transition(&self, before: StateName) {
        if self.driver.state().name() != before {
            let Driver { runner, enrollment, .. } = &self.driver;
            log_transition(runner, enrollment.as_deref(), before, self.driver.state(), self.driver.now());
        }
    }

    /// Records that a state was entered, if it is another one than before.
    fn record_transition(&self, before: StateName) {
        let driver = &self.driver;
        if driver.state().name() != before {
            let (record, enrollment) = (&driver.runner.record, driver.enrollment.as_deref());
            let problem = sentence(record, driver.state(), enrollment, driver.now());
            self.events().record_transition(before, driver.state(), problem.as_deref());
        }
    }

    /// Where the events of its runner are recorded.
    fn events(&self) -> RunnerEvents<'_> {
        let Driver { runner, .. } = &self.driver;
        RunnerEvents { registry: &self.shared.registry, runner, now: self.driver.now() }
    }
}

/// Whether an outcome gives the runner a token that works and is written.
fn makes_up_for_failures(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Registered(_) | Outcome::Rotated(_) | Outcome::Adopted(_) | Outcome::Saved => true,
        Outcome::Accepted(_)
        | Outcome::Refused
        | Outcome::Claimed(_)
        | Outcome::NotUnderstood { .. }
        | Outcome::Disputed
        | Outcome::Contested
        | Outcome::Doubtful
        | Outcome::ResetRefused
        | Outcome::RegisteredElsewhere
        | Outcome::ResetDeferred { .. }
        | Outcome::Declined(_)
        | Outcome::NotUnregistered(_)
        | Outcome::SecretReplaced
        | Outcome::Requested
        | Outcome::Removed
        | Outcome::NotRotated
        | Outcome::Withheld
        | Outcome::NoEntry
        | Outcome::RotationClosed
        | Outcome::Deferred { .. }
        | Outcome::Lost { .. }
        | Outcome::LostElsewhere
        | Outcome::MustAct(_)
        | Outcome::Unsaved
        | Outcome::Nudged
        | Outcome::TimeCorrected { .. }
        | Outcome::Unregistered
        | Outcome::Released
        | Outcome::Reenrolled(_) => false,
    }
}
