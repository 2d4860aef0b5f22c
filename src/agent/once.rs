//! One pass over all runners, for `run --once`: enroll, verify, rotate what is due, and end.

use std::rc::Rc;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet};

use super::status::report;
use super::stock::take_stock;
use super::worker::{Leftover, Lines, Patience, SharedTarget, Worker};
use super::{Config, Parts, Shared};
use crate::clock::Clock;
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
    let Parts { ops, clock, chance, board, tally, .. } = parts;
    let shared = Rc::new(Shared { ops, clock, chance, board, tally });
    LocalSet::new().run_until(pass(shared, Rc::new(config))).await
}

async fn pass<S, D, C>(shared: Rc<Shared<S, D, C>>, config: Rc<Config>) -> Result<Vec<RunnerReport>, Error>
where
    S: Server + 'static,
    D: Disk + 'static,
    C: Clock + 'static,
{
    let (census, mut unfinished) = take_stock(&shared, &config).await?;
    for remark in &census.remarks {
        tracing::warn!("{remark}");
    }
    let patience = watch::channel(Patience::Finish).0;
    let mut workers = JoinSet::new();
    for (position, member) in census.members.into_iter().enumerate() {
        let unfinished = unfinished.remove(&member.runner.record.key);
        let lines = Lines {
            target: SharedTarget::new(member.runner.target().into()),
            mailbox: mpsc::unbounded_channel().1,
            patience: patience.subscribe(),
        };
        let worker = Worker::new(Rc::clone(&shared), member, Rc::clone(&config), unfinished, lines);
        workers.spawn_local(async move { (position, worker.once().await) });
    }
    let mut leftovers = workers.join_all().await;
    leftovers.sort_by_key(|(position, _)| *position);
    Ok(leftovers.iter().map(|(_, leftover)| report_of(leftover)).collect())
}

fn report_of(leftover: &Leftover) -> RunnerReport {
    let Leftover { runner, state, .. } = leftover;
    let is_unsaved = matches!(state, State::Active(active) if active.unsaved.is_some());
    let error = is_unsaved.then(|| UNSAVED.to_owned());
    RunnerReport { error, ..report(runner, state, None) }
}
