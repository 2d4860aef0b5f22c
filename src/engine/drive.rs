//! Driving a runner towards a command's goal: the loop that waits and steps.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Driver, StepFailure, StepReport};
use crate::clock::Clock;
use crate::lifecycle::{Goal, Outcome, Taken};
use crate::ops::{Disk, Server, Unregistration};

/// How long a drive may wait, all waits together.
#[derive(Clone, Copy, Debug)]
pub enum Budget {
    /// This long, unless an interrupt comes first.
    Within(Duration),
    /// For ever and without regard to an interrupt: the only copy of a token is in memory.
    Unlimited,
}

impl Budget {
    /// Until the rules of `lifecycle` give up.
    pub const BY_RULES: Self = Self::Within(Duration::MAX);

    /// For writing a token to config.toml that is stored elsewhere, or that can be given back.
    pub const FOR_CONFIG: Self = Self::Within(Duration::from_secs(5));

    fn left(self, began: Instant) -> Duration {
        match self {
            Self::Within(limit) => limit.saturating_sub(began.elapsed()),
            Self::Unlimited => Duration::MAX,
        }
    }
}

/// The command behind a drive.
#[expect(async_fn_in_trait, reason = "everything runs on one thread")]
pub trait Caller {
    /// Whether an end was asked for.
    fn is_interrupted(&self) -> bool;

    /// Completes once an end is asked for.
    async fn interrupted(&self);

    /// Called before each wait, with the rest of the budget.
    fn will_wait(&self, runner: &str, goal: Goal, drive: &Drive, left: Duration);
}

/// What a drive did.
#[derive(Debug, Default)]
pub struct Drive {
    /// Each step with its own outcome, oldest first.
    pub taken: Vec<Taken>,
    /// The last step.
    pub last: Option<StepReport>,
    /// Whether an interrupt ended the drive.
    pub is_interrupted: bool,
}

impl Drive {
    /// What came of the last step.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.taken.last().map(|(_, outcome)| *outcome)
    }

    /// What went wrong with the last step.
    #[must_use]
    pub fn failure(&self) -> Option<&StepFailure> {
        self.last.as_ref()?.failure.as_ref()
    }

    /// The same by value.
    #[must_use]
    pub fn into_failure(self) -> Option<StepFailure> {
        self.last?.failure
    }

    /// What an unregistration found, and where the entry is kept that it dropped.
    #[must_use]
    pub fn unregistration(&self) -> Option<(Unregistration, Option<PathBuf>)> {
        let report = self.last.as_ref()?;
        Some((report.unregistration?, report.dropped_to.clone()))
    }
}

impl<S: Server, D: Disk, C: Clock> Driver<S, D, C> {
    /// Steps towards a goal until it is reached or out of reach, or the next step would come after the budget.
    ///
    /// An interrupt ends a wait within a budget, but no step: its answer may be the only copy of a token. A
    /// registration waits for an unreachable server only, and takes its last try at the very end of the budget: the
    /// server surely did not execute the former ones.
    pub async fn drive(&mut self, goal: Goal, budget: Budget, caller: &impl Caller) -> Drive {
        let began = Instant::now();
        let is_registration = matches!(goal, Goal::Registered | Goal::RegisteredAgain);
        let mut drive = Drive::default();
        while let Some(plan) = self.plan_towards(goal, &drive.taken) {
            let (left, wait) = (budget.left(began), plan.at.since(self.now()));
            let is_waiting_allowed = if is_registration {
                !left.is_zero() && drive.failure().is_some_and(StepFailure::is_unreachable)
            } else {
                wait <= left
            };
            drive.is_interrupted = is_registration && caller.is_interrupted();
            if drive.is_interrupted || !(wait.is_zero() || is_waiting_allowed) {
                break;
            }
            if !wait.is_zero() {
                caller.will_wait(self.runner.label(), goal, &drive, left);
                drive.is_interrupted = is_interrupted_within(wait.min(left), budget, caller).await;
            }
            if drive.is_interrupted {
                break;
            }
            let report = self.step(plan, std::future::pending()).await;
            drive.taken.extend(report.outcomes.first().map(|outcome| (report.step, *outcome)));
            drive.last = Some(report);
        }
        let is_undone = drive.taken.iter().any(|(_, outcome)| matches!(outcome, Outcome::NotUnregistered(_)))
            && drive.outcome() != Some(Outcome::Unregistered);
        if is_undone {
            self.call_off_unregistration().await;
        }
        drive
    }
}

async fn is_interrupted_within(span: Duration, budget: Budget, caller: &impl Caller) -> bool {
    let interrupted = async {
        match budget {
            Budget::Within(_) => caller.interrupted().await,
            Budget::Unlimited => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = interrupted => true,
        () = sleep(span) => false,
    }
}
