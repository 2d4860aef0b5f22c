//! The end: which runners are unregistered, all at once, within what is left of the grace time.

use std::rc::Rc;

use tokio::task::JoinSet;

use super::Shared;
use super::worker::WorkerExit;
use crate::clock::Clock;
use crate::engine::{Config, Unregister};
use crate::error_chain::chain;
use crate::lifecycle::{Rejection, State};
use crate::ops::{Disk, EntryFate, RegistrationSource, Runner, Server, Unregistration};

/// The unregistrations under way.
pub(super) struct Farewell<S, D, C> {
    shared: Rc<Shared<S, D, C>>,
    config: Rc<Config>,
    tasks: JoinSet<bool>,
    failures: usize,
}

impl<S, D, C> Farewell<S, D, C>
where
    S: Server + 'static,
    D: Disk + 'static,
    C: Clock + 'static,
{
    pub(super) fn new(shared: Rc<Shared<S, D, C>>, config: Rc<Config>) -> Self {
        Self { shared, config, tasks: JoinSet::new(), failures: 0 }
    }

    /// Begins to unregister a runner whose worker has ended, if the policy wants it.
    pub(super) fn bid(&mut self, exit: WorkerExit) {
        if wants_unregistration(&self.config, &exit) {
            let shared = Rc::clone(&self.shared);
            self.tasks.spawn_local(async move { unregister(&shared, exit).await });
        }
    }

    /// Waits until all are done. Whoever is cut short stays registered, and the journal lets the next start
    /// finish.
    pub(super) async fn finish(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if !ended.unwrap_or(false) {
                self.failures += 1;
            }
        }
    }

    /// How many could not be unregistered.
    pub(super) fn failures(&self) -> usize {
        self.failures
    }

    pub(super) fn under_way(&self) -> usize {
        self.tasks.len()
    }
}

async fn unregister<S: Server, D: Disk, C: Clock>(shared: &Shared<S, D, C>, exit: WorkerExit) -> bool {
    let WorkerExit { mut runner, now, .. } = exit;
    let fate = EntryFate::at_shutdown(&runner.record);
    let result = shared.engine.ops.unregister(&mut runner, fate, now).await;
    let is_done = result.is_ok();
    match result {
        Ok(Unregistration::Deleted) => tracing::info!(runner = runner.label(), "unregistered"),
        Ok(Unregistration::AlreadyGone) => {
            tracing::info!(runner = runner.label(), "unregistered: the server had already forgotten it")
        }
        Ok(Unregistration::MayRemain) => tracing::warn!(
            runner = runner.label(),
            id = runner.record.id.map(crate::model::RunnerId::number),
            "its token has expired, so it could not be unregistered and may remain in GitLab: delete it there"
        ),
        Err(error) => {
            tracing::error!(runner = runner.label(), error = chain(&error), hint = error.hint(), "cannot unregister")
        }
    }
    is_done
}

fn wants_unregistration(config: &Config, exit: &WorkerExit) -> bool {
    let WorkerExit { runner, state, .. } = exit;
    if runner.record.credential.is_none() || matches!(state, State::Retired { .. }) {
        return false;
    }
    let is_lost = match state {
        State::Uncertain(_) => true,
        State::Rejected(rejected) => rejected.rejection == Rejection::Lost,
        _ => false,
    };
    if is_lost {
        tracing::warn!(
            runner = runner.label(),
            "not unregistered: the answer to a rotation was lost, and with it the token that could; delete the runner in GitLab if it is not wanted"
        );
        return false;
    }
    match policy(config, runner) {
        Unregister::Never => false,
        Unregister::Enrolled => exit.is_enrolled && can_be_made_again(config, runner),
        Unregister::All => true,
    }
}

/// Whether the enrollment could make the runner once more. Of one that was given only this machine's part
/// ends, which its next verification brings back.
fn can_be_made_again(config: &Config, runner: &Runner) -> bool {
    let Some(enrollment) = config.enrollments.iter().find(|wanted| wanted.key == runner.record.key) else {
        return false;
    };
    match enrollment.source.read() {
        Err(error) if !matches!(enrollment.source, RegistrationSource::Given(_)) => {
            tracing::warn!(
                runner = runner.label(),
                error = chain(&error),
                "kept registered: what it was registered with is gone, so that it could not be made again"
            );
            false
        }
        Ok(_) | Err(_) => true,
    }
}

fn policy(config: &Config, runner: &Runner) -> Unregister {
    config.policy_of(runner).unregister.unwrap_or(config.shutdown.unregister)
}
