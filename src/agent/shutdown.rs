//! The end: which runners are unregistered, all at once, within what is left of the grace time.

use std::rc::Rc;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::worker::Leftover;
use super::{Config, Shared, Unregister};
use crate::clock::Clock;
use crate::lifecycle::State;
use crate::ops::{Disk, EntryFate, Runner, Server, Unregistration};

/// Unregisters those that the policy names; whoever does not make it in time stays registered, and
/// the journal lets the next start finish.
pub(super) async fn unregister_all<S, D, C>(
    shared: &Rc<Shared<S, D, C>>,
    config: &Config,
    leftovers: Vec<Leftover>,
    deadline: Instant,
) where
    S: Server + 'static,
    D: Disk + 'static,
    C: Clock + 'static,
{
    let mut tasks = JoinSet::new();
    for leftover in leftovers {
        if wants_unregistration(config, &leftover) {
            let shared = Rc::clone(shared);
            tasks.spawn_local(async move { unregister(&shared, leftover).await });
        }
    }
    let all = async { while tasks.join_next().await.is_some() {} };
    if timeout_at(deadline, all).await.is_err() {
        tracing::error!(
            unfinished = tasks.len(),
            "the grace time is over before every runner was unregistered: the next start finishes what was begun"
        );
    }
}

async fn unregister<S: Server, D: Disk, C: Clock>(shared: &Shared<S, D, C>, leftover: Leftover) {
    let Leftover { mut runner, now, .. } = leftover;
    let fate = EntryFate::at_shutdown(&runner.record);
    match shared.ops.unregister(&mut runner, fate, now).await {
        Ok(Unregistration::Deleted) => tracing::info!(runner = runner.label(), "unregistered"),
        Ok(Unregistration::AlreadyGone) => {
            tracing::info!(runner = runner.label(), "unregistered: the server had already forgotten it")
        }
        Ok(Unregistration::MayRemain) => tracing::warn!(
            runner = runner.label(),
            id = runner.record.id.map(crate::model::RunnerId::number),
            "its token has expired, so it could not be unregistered and may remain in GitLab: delete it there"
        ),
        Err(error) => tracing::error!(runner = runner.label(), %error, hint = error.hint(), "cannot unregister"),
    }
}

fn wants_unregistration(config: &Config, leftover: &Leftover) -> bool {
    let Leftover { runner, state, .. } = leftover;
    if runner.record.credential.is_none() || matches!(state, State::Retired { .. }) {
        return false;
    }
    if matches!(state, State::Uncertain(_)) {
        tracing::warn!(
            runner = runner.label(),
            "not unregistered: the answer to a rotation was lost, so its token may be another one"
        );
        return false;
    }
    match policy(config, runner) {
        Unregister::Never => false,
        Unregister::Enrolled => runner.record.enrollment.is_some(),
        Unregister::All => true,
    }
}

fn policy(config: &Config, runner: &Runner) -> Unregister {
    config.policy_of(runner).unregister.unwrap_or(config.shutdown.unregister)
}
