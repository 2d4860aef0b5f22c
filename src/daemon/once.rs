//! One pass over all runners, for `run --once`: enroll, verify, rotate what is due, and end.

use std::rc::Rc;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet};

use super::worker::{DrainMode, RunnerChannels, SharedTarget, Worker, WorkerExit};
use super::{Parts, Shared};
use crate::clock::Clock;
use crate::engine::{Config, Engine, report, take_stock};
use crate::lifecycle::State;
use crate::model::RunnerReport;
use crate::ops::{Disk, Error, Server};

/// What is told of a runner whose token a pass could not bring to config.toml.
const UNSAVED: &str = "config.toml does not take its new token, which the next start tries to write again";

/// Makes one pass and tells how every runner stands after it.
///
/// # Errors
/// [`Error::Disk`] if config.toml or the state directory cannot be read.
pub async fn once<S, D, C>(config: Config, parts: Parts<S, D, C>) -> Result<Vec<RunnerReport>, Error>
where
    S: Server + 'static,
    D: Disk + 'static,
    C: Clock + 'static,
{
    let Parts { ops, clock, chance, registry, counters, .. } = parts;
    let shared = Rc::new(Shared { engine: Engine { ops, clock, chance }, registry, counters });
    LocalSet::new().run_until(pass(shared, Rc::new(config))).await
}

async fn pass<S, D, C>(shared: Rc<Shared<S, D, C>>, config: Rc<Config>) -> Result<Vec<RunnerReport>, Error>
where
    S: Server + 'static,
    D: Disk + 'static,
    C: Clock + 'static,
{
    let (inventory, mut unfinished) = take_stock(&shared.engine, &config).await?;
    for remark in &inventory.remarks {
        tracing::warn!("{remark}");
    }
    let drain_mode = watch::channel(DrainMode::Finish).0;
    let mut workers = JoinSet::new();
    for (position, member) in inventory.members.into_iter().enumerate() {
        let unfinished = unfinished.remove(&member.runner.record.key);
        let lines = RunnerChannels {
            target: SharedTarget::new(member.runner.target().into()),
            commands: mpsc::unbounded_channel().1,
            drain_mode: drain_mode.subscribe(),
        };
        let worker = Worker::new(Rc::clone(&shared), member, Rc::clone(&config), unfinished, lines);
        workers.spawn_local(async move { (position, worker.once().await) });
    }
    let mut exits = workers.join_all().await;
    exits.sort_by_key(|(position, _)| *position);
    Ok(exits.iter().map(|(_, exit)| report_of(exit)).collect())
}

fn report_of(exit: &WorkerExit) -> RunnerReport {
    let WorkerExit { runner, state, .. } = exit;
    let is_unsaved = matches!(state, State::Active(active) if active.unsaved.is_some());
    let error = is_unsaved.then(|| UNSAVED.to_owned());
    RunnerReport { error, ..report(runner, state, None) }
}
