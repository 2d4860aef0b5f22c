//! One pass over all runners, for `run --once`: enroll, verify, rotate what is due, and end.

use std::collections::BTreeSet;
use std::rc::Rc;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet};

use super::worker::{DrainMode, RunnerChannels, SharedTarget, Worker};
use super::{Parts, Shared};
use crate::clock::Clock;
use crate::engine::{Config, Driver, take_inventory};
use crate::lifecycle::State;
use crate::model::RunnerReport;
use crate::ops::{Disk, Error, Server};

/// The error of a runner whose token a pass could not write to config.toml.
const UNSAVED: &str = "cannot write its new token to config.toml; the next start retries";

/// Makes one pass and reports every runner after it.
///
/// # Errors
/// [`Error::Disk`] if config.toml or the state directory cannot be read.
pub async fn once<S: Server, D: Disk, C: Clock>(
    config: Config,
    parts: Parts<S, D, C>,
) -> Result<Vec<RunnerReport>, Error> {
    let Parts { engine, registry, counters, .. } = parts;
    let shared = Shared { engine: Rc::new(engine), registry, counters };
    LocalSet::new().run_until(pass(Rc::new(shared), Rc::new(config))).await
}

async fn pass<S: Server, D: Disk, C: Clock>(
    shared: Rc<Shared<S, D, C>>,
    config: Rc<Config>,
) -> Result<Vec<RunnerReport>, Error> {
    let (mut inventory, _) = take_inventory(&shared.engine.ops, &config, shared.engine.now()).await?;
    inventory.apply_changes(&shared.engine.ops, &BTreeSet::new()).await?;
    inventory.log_warnings();
    let drain_mode = watch::channel(DrainMode::Finish).0;
    let mut workers = JoinSet::new();
    for (position, managed) in inventory.runners.into_iter().enumerate() {
        let channels = RunnerChannels {
            target: SharedTarget::new(managed.runner.target().into()),
            commands: mpsc::unbounded_channel().1,
            drain_mode: drain_mode.subscribe(),
        };
        let worker = Worker::new(Rc::clone(&shared), managed, Rc::clone(&config), channels);
        workers.spawn_local(async move { (position, report_of(&worker.once().await)) });
    }
    let mut reports = workers.join_all().await;
    reports.sort_by_key(|(position, _)| *position);
    Ok(reports.into_iter().map(|(_, report)| report).collect())
}

fn report_of<S: Server, D: Disk, C: Clock>(driver: &Driver<S, D, C>) -> RunnerReport {
    let is_unsaved = matches!(driver.state(), State::Active(active) if active.unsaved.is_some());
    let error = is_unsaved.then(|| UNSAVED.to_owned());
    RunnerReport { next: None, error, ..driver.report() }
}
