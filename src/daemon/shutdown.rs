//! The end of the daemon: what is under way may finish, then runners are unregistered by policy, all within the
//! grace time.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::announcements::log_unregistrations;
use super::events::RunnerEvents;
use super::hooks::HookFeed;
use super::roster::Ended;
use super::supervisor::Supervisor;
use super::worker::DrainMode;
use super::{Notice, Notices};
use crate::clock::Clock;
use crate::engine::{AtStop, Config, Driver, OnReboot, at_stop};
use crate::error_chain::chain;
use crate::lifecycle::Goal;
use crate::limits::operations_at_once;
use crate::model::RunnerId;
use crate::ops::{Disk, Runner, Server, SoleCopies, Unregistration};
use crate::status::StatusRegistry;

/// One part in so many of the grace time is for what remains to be done then: thousands of runners take their time.
const END_OF_PROCESS: u32 = 32;

/// How a stopped daemon leaves its runners behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownOutcome {
    /// As it should.
    Done,
    /// A runner that should have been unregistered was not, or a request was cut short; the log names it.
    Unfinished,
}

/// What a stop does with the runners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopMode {
    /// Unregisters those that the policy names.
    ByPolicy,
    /// Keeps every registration.
    Keep,
}

impl From<OnReboot> for StopMode {
    fn from(on_reboot: OnReboot) -> Self {
        match on_reboot {
            OnReboot::Keep => Self::Keep,
            OnReboot::Unregister => Self::ByPolicy,
        }
    }
}

impl<S: Server, D: Disk, C: Clock> Supervisor<S, D, C> {
    /// Plans nothing more, lets what is under way finish, and unregisters each runner as its worker ends.
    ///
    /// An answer that is the only copy of a token is waited for beyond the grace time.
    pub(super) async fn stop(
        mut self,
        mode: StopMode,
        request_timeout: Duration,
        notices: &mut Notices,
    ) -> ShutdownOutcome {
        let grace = self.config.shutdown.grace;
        let end = Instant::now() + grace;
        let deadline = end - grace / END_OF_PROCESS;
        self.shared.hooks.note_end(deadline);
        let leaving = if mode == StopMode::ByPolicy { self.roster.leaving() } else { Vec::new() };
        tracing::info!(unregister = leaving.len(), "stopping");
        log_unregistrations(&leaving);
        self.sole_copies().close();
        self.shared.engine.ops.disk().hurry();
        self.roster.stop();
        if mode == StopMode::Keep {
            self.shared.drain_mode.send_replace(DrainMode::CancelVerify);
        }
        let heartbeat = self.heartbeat.clone();
        let drained = tokio::select! {
            biased;
            outcome = self.drain(mode, deadline) => outcome,
            () = heartbeat.keep_beating() => ShutdownOutcome::Unfinished,
            () = another_stop(notices) => {
                tracing::warn!("second stop signal: the next start finishes the interrupted operations");
                ShutdownOutcome::Unfinished
            }
        };
        // The request ends by its timeout; what is left then is for the disk.
        let late = tokio::select! {
            biased;
            outcome = self.receive_tokens(mode, end + request_timeout) => outcome,
            () = heartbeat.keep_beating() => ShutdownOutcome::Unfinished,
            () = another_stop(notices) => {
                tracing::error!("another stop signal: ending without the new tokens, which are lost");
                ShutdownOutcome::Unfinished
            }
        };
        match (drained, late) {
            (ShutdownOutcome::Done, ShutdownOutcome::Done) => ShutdownOutcome::Done,
            (ShutdownOutcome::Unfinished, _) | (_, ShutdownOutcome::Unfinished) => ShutdownOutcome::Unfinished,
        }
    }

    fn sole_copies(&self) -> &SoleCopies {
        self.shared.engine.ops.sole_copies()
    }

    /// Waits for the answers that are the only copies of tokens, and until the tokens are stored.
    async fn receive_tokens(&mut self, mode: StopMode, deadline: Instant) -> ShutdownOutcome {
        let mut outcome = ShutdownOutcome::Done;
        let requests = self.sole_copies().under_way();
        if requests > 0 {
            tracing::warn!(
                requests,
                "waiting for answers that are the only copies of new tokens; another signal ends without them"
            );
        }
        while self.sole_copies().under_way() > 0 {
            let copies = self.sole_copies().clone();
            let ended = async {
                tokio::select! {
                    biased;
                    ended = self.roster.ended() => Some(ended),
                    // That of an access token is no runner's.
                    () = copies.finished() => None,
                }
            };
            let Ok(ended) = timeout_at(deadline, ended).await else {
                tracing::error!(
                    "ending without an answer, or with a new token that cannot be stored: the next start finds out what became of it"
                );
                return ShutdownOutcome::Unfinished;
            };
            let Some(ended) = ended else { break };
            match (ended, mode) {
                (Ended::Driver(driver), StopMode::ByPolicy) if wants_unregistration(&self.config, &driver) => {
                    tracing::error!(runner = driver.runner.label(), "not unregistered: the grace time is over");
                    outcome = ShutdownOutcome::Unfinished;
                }
                (Ended::Driver(_), StopMode::ByPolicy | StopMode::Keep) => {}
                (Ended::Panic(_), _) => outcome = ShutdownOutcome::Unfinished,
            }
        }
        outcome
    }

    /// Half of the grace time is for everything that is under way, the rest only for what changes something.
    async fn drain(&mut self, mode: StopMode, deadline: Instant) -> ShutdownOutcome {
        // The runners that are not served at present cannot be unregistered.
        let resting = if mode == StopMode::ByPolicy { self.resting.len() } else { 0 };
        let (mut unregistrations, mut failures) = (JoinSet::new(), resting);
        let mut waiting: VecDeque<Box<Driver<S, D, C>>> = VecDeque::new();
        let cancel_verify_at = deadline - self.config.shutdown.grace / 2;
        let mut is_cancelled = false;
        loop {
            while unregistrations.len() < operations_at_once()
                && let Some(driver) = waiting.pop_front()
            {
                unregistrations.spawn_local(unregister(
                    *driver,
                    deadline,
                    self.shared.registry.clone(),
                    self.shared.hooks.clone(),
                ));
            }
            if self.roster.is_empty() && unregistrations.is_empty() {
                break;
            }
            let until = if is_cancelled { deadline } else { cancel_verify_at };
            tokio::select! {
                biased;
                () = sleep_until(until) => {
                    if is_cancelled {
                        break;
                    }
                    is_cancelled = true;
                    self.shared.drain_mode.send_replace(DrainMode::CancelVerify);
                }
                ended = self.roster.ended() => match (ended, mode) {
                    (Ended::Driver(driver), StopMode::ByPolicy) if wants_unregistration(&self.config, &driver) => {
                        waiting.push_back(driver);
                    }
                    (Ended::Driver(_), StopMode::ByPolicy | StopMode::Keep) => {}
                    (Ended::Panic(_), _) => failures += 1,
                },
                Some(ended) = unregistrations.join_next() => failures += usize::from(!ended.unwrap_or(false)),
            }
        }
        let under_way = self.roster.at_work().saturating_sub(self.sole_copies().under_way()) + unregistrations.len();
        if under_way > 0 {
            tracing::error!(
                unfinished = under_way,
                "the grace time is over with operations in progress: the next start finishes them"
            );
        }
        if !waiting.is_empty() {
            tracing::error!(
                runners = waiting.len(),
                "the grace time is over: these are not unregistered and stay registered"
            );
        }
        if under_way + waiting.len() + failures > 0 { ShutdownOutcome::Unfinished } else { ShutdownOutcome::Done }
    }
}

/// Completes with the next notice to stop.
async fn another_stop(notices: &mut Notices) {
    loop {
        match notices.recv().await {
            Some(Notice::Stop | Notice::StopAndKeep | Notice::StopForReboot) => return,
            Some(Notice::Reload) => {}
            None => std::future::pending().await,
        }
    }
}

/// Unregisters a runner; returns whether that is done. A runner whose request is cut short stays registered, and the
/// journal lets the next start finish.
async fn unregister<S: Server, D: Disk, C: Clock>(
    mut driver: Driver<S, D, C>,
    deadline: Instant,
    registry: StatusRegistry,
    hooks: HookFeed,
) -> bool {
    let (mut taken, mut last) = (Vec::new(), None);
    while let Some(plan) = driver.plan_towards(Goal::Unregistered, &taken) {
        let at = Instant::now() + plan.at.since(driver.now());
        if at >= deadline {
            break;
        }
        sleep_until(at).await;
        let report = driver.step(plan, std::future::pending()).await;
        taken.extend(report.outcomes.first().map(|outcome| (report.step, *outcome)));
        last = Some(report);
    }
    let Some(report) = last else { return true };
    let runner = driver.runner.label();
    if let Some(error) = &report.failure {
        tracing::error!(runner, error = chain(error), hint = error.hint(), "cannot unregister");
    }
    match report.unregistration {
        // The token of a runner that remains is needed again.
        Some(Unregistration::Deleted) if driver.runner.record.credential.is_some() => {
            tracing::info!(
                runner,
                "unregistered: this machine's runner manager is deleted, the runner and its entry stay"
            );
        }
        Some(Unregistration::Deleted) => {
            tracing::info!(runner, "unregistered: the runner is deleted, and its entry removed")
        }
        Some(Unregistration::AlreadyGone) => tracing::info!(runner, "unregistered: the server no longer had it"),
        Some(Unregistration::MayRemain) => tracing::warn!(
            runner,
            id = driver.runner.record.id.map(RunnerId::number),
            "its token has expired, so it could not be unregistered and may remain in GitLab: delete it there"
        ),
        None => {}
    }
    if matches!(report.unregistration, Some(Unregistration::Deleted | Unregistration::AlreadyGone)) {
        RunnerEvents { registry: &registry, runner: &driver.runner, now: driver.now() }.record_unregistration();
        hooks.see_runner(&driver.runner, None, false, driver.now());
    }
    let is_done = report.unregistration.is_some();
    if !is_done && report.failure.is_none() {
        tracing::error!(runner, "not unregistered: the server still accepts its token");
    }
    is_done
}

fn wants_unregistration<S: Server, D: Disk, C: Clock>(config: &Config, driver: &Driver<S, D, C>) -> bool {
    let runner = &driver.runner;
    match at_stop(config, runner, driver.enrollment.as_deref(), driver.state()) {
        AtStop::Keep => false,
        AtStop::TokenLost => {
            tracing::warn!(
                runner = runner.label(),
                "not unregistered: the answer to a rotation was lost, and with it the token; delete the runner in GitLab if it is no longer needed"
            );
            false
        }
        AtStop::Unregister => true,
        AtStop::UnregisterRenewable => can_be_made_again(config, runner),
    }
}

/// Whether the enrollment could make the runner once more.
fn can_be_made_again(config: &Config, runner: &Runner) -> bool {
    let Some(enrollment) = config.enrollments.iter().find(|wanted| wanted.key == runner.record.key) else {
        return false;
    };
    match enrollment.source.read() {
        Err(error) => {
            tracing::warn!(
                runner = runner.label(),
                error = chain(&error),
                "kept registered: the token that it was registered with is missing, so it could not be registered again"
            );
            false
        }
        Ok(_) => true,
    }
}
