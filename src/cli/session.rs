//! What one-shot commands share: the inventory, and driving runners towards a goal.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::context::Context;
use super::interrupt::Interrupt;
use super::outcome::RunnerOutcome;
use super::report::Reporter;
use super::selection::{Candidate, RunnerSelector, candidates};
use super::{Error, Exit, progress};
use crate::clock::SystemClock;
use crate::engine::{self, Asker, Engine, ManagedRunner, StepFailure, StepReport, take_inventory};
use crate::error_chain::chain;
use crate::gitlab::Client;
use crate::lifecycle::{Goal, Outcome, Taken};
use crate::model::{Timestamp, format_span};
use crate::ops::{Ops, Unregistration};
use crate::settings::{self, Settings};
use crate::store::Store;

/// A driver on this machine's disk and the real GitLab.
pub(super) type Driver = engine::Driver<Client, Store, SystemClock>;

/// What a command works with.
pub(super) struct CommandSession {
    engine: Rc<Engine<Client, Store, SystemClock>>,
    /// What agent.toml says.
    pub(super) config: Rc<engine::Config>,
    /// Asks for an end.
    pub(super) interrupt: Interrupt,
    /// Where answers and remarks go.
    pub(super) reporter: Reporter,
}

/// How driving towards a goal ended.
#[derive(Debug, Default)]
pub(super) struct Drive {
    /// Each step with its own outcome, oldest first.
    pub(super) taken: Vec<Taken>,
    /// The last step.
    pub(super) last: Option<StepReport>,
    /// Whether an interrupt ended a wait.
    pub(super) is_interrupted: bool,
}

/// How long a command may wait, all waits together.
#[derive(Clone, Copy, Debug)]
pub(super) enum Budget {
    /// This long, unless an interrupt comes first.
    Within(Duration),
    /// For ever and without regard to an interrupt: the only copy of a token is in memory.
    Unlimited,
}

impl Budget {
    /// Until the rules of `lifecycle` give up.
    pub(super) const BY_RULES: Self = Self::Within(Duration::MAX);

    /// For config.toml to take a token that is safe elsewhere, or that can be given back.
    pub(super) const FOR_CONFIG: Self = Self::Within(Duration::from_secs(10));

    fn left(self, began: Instant) -> Duration {
        match self {
            Self::Within(limit) => limit.saturating_sub(began.elapsed()),
            Self::Unlimited => Duration::MAX,
        }
    }
}

impl Drive {
    /// What went wrong with the last step.
    pub(super) fn failure(&self) -> Option<&StepFailure> {
        self.last.as_ref()?.failure.as_ref()
    }

    /// The same by value, for the command that ends with it.
    pub(super) fn into_failure(self) -> Option<StepFailure> {
        self.last?.failure
    }

    /// What an unregistration found, and where the entry is kept that it dropped.
    pub(super) fn unregistration(&self) -> Option<(Unregistration, Option<PathBuf>)> {
        let report = self.last.as_ref()?;
        Some((report.unregistration?, report.dropped_to.clone()))
    }

    /// The error of a command whose last step failed.
    pub(super) fn into_error(self) -> Error {
        self.into_failure().map_or_else(|| Error::Interrupted("not begun".to_owned()), Error::from)
    }

    /// Whether waiting is of no use: only an unreachable server can be waited for with a registration.
    fn is_last_word(&self, is_registration: bool) -> bool {
        is_registration && !self.failure().is_some_and(StepFailure::is_unreachable)
    }

    /// What came of the last step.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        self.taken.last().map(|(_, outcome)| *outcome)
    }
}

impl CommandSession {
    /// Opens the disk and makes a client.
    ///
    /// # Errors
    /// Invalid settings, and an unusable config.toml or `.runner_system_id`.
    pub(super) async fn open(context: &Context<'_>, interrupt: Interrupt) -> Result<Self, Error> {
        let Settings { store, gitlab, engine: config, warnings, .. } = context.command_settings()?;
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        let store = context.open_store(store)?;
        store.read().await?;
        let engine = Engine::open(store, Client::new(gitlab), settings::this_program()).await?;
        Ok(Self { engine: Rc::new(engine), config: Rc::new(config), interrupt, reporter: *context.reporter })
    }

    /// The operations on server and disk.
    pub(super) fn ops(&self) -> &Ops<Client, Store> {
        &self.engine.ops
    }

    /// This machine's wall clock.
    pub(super) fn now(&self) -> Timestamp {
        self.engine.now()
    }

    /// The runners that a command can select, after what a crash interrupted is finished.
    ///
    /// # Errors
    /// A config.toml or state directory that cannot be read.
    pub(super) async fn candidates(&self) -> Result<Vec<Candidate>, Error> {
        let (inventory, snapshot) = take_inventory(self.ops(), &self.config, self.now()).await?;
        Ok(candidates(inventory, &snapshot))
    }

    /// Takes up a runner.
    pub(super) fn driver(&self, managed: ManagedRunner, asker: Asker) -> Driver {
        Driver::new(Rc::clone(&self.engine), managed, Rc::clone(&self.config), asker)
    }

    /// Steps towards a goal until it is reached or out of reach, or the next step would come after the budget.
    ///
    /// An interrupt ends a wait within a budget, but no step: its answer may be the only copy of a token.
    pub(super) async fn drive(&self, driver: &mut Driver, goal: Goal, budget: Budget) -> Drive {
        let began = Instant::now();
        let is_registration = matches!(goal, Goal::Registered | Goal::RegisteredAgain);
        let mut drive = Drive::default();
        while let Some(plan) = driver.plan_towards(goal, &drive.taken) {
            let left = budget.left(began);
            let wait = plan.at.since(driver.now());
            drive.is_interrupted = is_registration && self.interrupt.is_asked();
            let is_over = !wait.is_zero() && (drive.is_last_word(is_registration) || left.is_zero());
            // A registration that the server surely did not execute may be hurried: its last try comes at the very end.
            if drive.is_interrupted || is_over || (wait > left && !is_registration) {
                break;
            }
            if !wait.is_zero() {
                self.remark_wait(driver, goal, &drive, left);
                drive.is_interrupted = self.wait(wait.min(left), budget).await;
            }
            if drive.is_interrupted {
                break;
            }
            let report = driver.step(plan).await;
            drive.taken.extend(report.outcomes.first().map(|outcome| (report.step, *outcome)));
            drive.last = Some(report);
        }
        drive
    }

    /// Says why the command waits.
    fn remark_wait(&self, driver: &Driver, goal: Goal, drive: &Drive, left: Duration) {
        let Some(failure) = drive.failure() else { return };
        let (runner, error) = (driver.runner.label(), chain(failure));
        match (goal, drive.taken.as_slice()) {
            (Goal::Registered | Goal::RegisteredAgain, [_]) => {
                self.reporter.remark(&format!("waiting up to {}: {error}", format_span(left)));
            }
            (Goal::Rotated | Goal::RotatedById, [.., (_, Outcome::Lost { .. })]) => {
                self.reporter.remark(&format!("runner `{runner}`: {error}: finding out whether the token was replaced"))
            }
            (Goal::Saved, _) if !self.ops().disk().has_state() => self.reporter.remark(&format!(
                "error: the new token of runner `{runner}` is nowhere but in memory, trying again: {error}"
            )),
            _ => {}
        }
    }

    /// Waits; returns whether an interrupt ended that.
    async fn wait(&self, span: Duration, budget: Budget) -> bool {
        let interrupted = async {
            match budget {
                Budget::Within(_) => self.interrupt.asked().await,
                Budget::Unlimited => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = interrupted => true,
            () = tokio::time::sleep(span) => false,
        }
    }

    /// Does the same to every selected runner, all at the same time, and reports what became of each. The client
    /// bounds the number of requests under way.
    ///
    /// # Errors
    /// Those of the selection.
    pub(super) async fn for_all<Work, Future>(self, selector: &RunnerSelector, work: Work) -> Result<Exit, Error>
    where
        Work: Fn(Rc<Self>, ManagedRunner) -> Future,
        Future: std::future::Future<Output = RunnerOutcome> + 'static,
    {
        let chosen = selector.choose(self.candidates().await?)?;
        if chosen.is_empty() && !self.reporter.is_json() {
            self.reporter.answer(&format!("no runners in {}\n", self.ops().disk().config_path().display()));
            return Ok(Exit::Done);
        }
        let reporter = self.reporter;
        let bar = progress::bar(&reporter, chosen.len(), "runners");
        let session = Rc::new(self);
        let mut outcomes = Vec::new();
        let mut tasks = JoinSet::new();
        for (position, Candidate { entries, runner }) in chosen.into_iter().enumerate() {
            match (runner, entries.first()) {
                (Ok(managed), _) => {
                    let task = work(Rc::clone(&session), managed);
                    tasks.spawn_local(async move { (position, task.await) });
                }
                (Err(problem), Some(entry)) => outcomes.push((position, RunnerOutcome::unusable(entry, &problem))),
                (Err(_), None) => {}
            }
        }
        bar.inc(u64::try_from(outcomes.len()).unwrap_or_default());
        while let Some(done) = tasks.join_next().await {
            match done {
                Ok(done) => outcomes.push(done),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        outcomes.sort_by_key(|(position, _)| *position);
        Ok(reporter.report_outcomes(outcomes.into_iter().map(|(_, outcome)| outcome).collect()))
    }
}
