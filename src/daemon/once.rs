//! One pass over all runners, for `run --once`: enroll, verify, rotate what is due, and end.

use std::collections::BTreeSet;
use std::rc::Rc;

use tokio::task::{JoinSet, LocalSet};

use super::announcements::log_found;
use super::worker::{Acceptance, Secrets, Worker};
use super::{Parts, Shared};
use crate::clock::Clock;
use crate::engine::{Config, StepFailure, record_report, take_inventory};
use crate::error_chain::chain;
use crate::model::RunnerReport;
use crate::ops::{Disk, Error, Server};
use crate::store::Entry;

/// What one pass found and did.
#[derive(Debug, Default)]
pub struct Pass {
    /// The runners, in the order of the inventory.
    pub runners: Vec<PassedRunner>,
    /// The entries that no runner can be made of.
    pub unusable: Vec<Entry>,
    /// What is wrong with enrollments that therefore have no runner. It has been logged.
    pub errors: Vec<String>,
}

/// A runner after a pass.
#[derive(Debug)]
pub struct PassedRunner {
    /// The runner; `error` says what went wrong.
    pub report: RunnerReport,
    /// How the work on it ended.
    pub ending: Ending,
}

/// How the work of a pass on one runner ended.
#[derive(Debug)]
pub enum Ending {
    /// Every step that was due was done.
    Done {
        /// Whether the server has accepted or issued the runner's present token in this pass. Its last verification may
        /// have been of a former token.
        is_accepted: bool,
    },
    /// A step failed, and no later one made up for it.
    Failed(StepFailure),
    /// It was cut short by an internal error, which has been logged.
    Panicked,
}

const PANICKED: &str = "an internal error, see the log, has ended the work on it";

/// Makes one pass and reports every runner after it.
///
/// # Errors
/// [`Error::Disk`] if config.toml or the state directory cannot be read.
pub async fn once<S: Server, D: Disk, C: Clock>(config: Config, parts: Parts<S, D, C>) -> Result<Pass, Error> {
    let Parts { engine, registry, counters, hooks, .. } = parts;
    hooks.publish(&config);
    let shared = Shared::new(engine, registry, counters, hooks);
    LocalSet::new().run_until(pass(Rc::new(shared), Rc::new(config))).await
}

async fn pass<S: Server, D: Disk, C: Clock>(shared: Rc<Shared<S, D, C>>, config: Rc<Config>) -> Result<Pass, Error> {
    let (mut inventory, _) = take_inventory(&shared.engine.ops, &config, shared.engine.now()).await?;
    inventory.apply_changes(&shared.engine.ops, &BTreeSet::new()).await?;
    inventory.log_warnings();
    if let Some((count, policy)) = inventory.found(&config) {
        log_found(count, policy);
    }
    let present = inventory.runners.iter().map(|managed| managed.runner.record.key.clone());
    shared.hooks.note_present(present, shared.engine.now());
    let errors = std::mem::take(&mut inventory.errors);
    // Nothing changes during a pass.
    let secrets = Rc::new(Secrets::default());
    let mut workers = JoinSet::new();
    let mut runners = Vec::new();
    for (position, managed) in inventory.runners.into_iter().enumerate() {
        let report = record_report(&managed.runner, shared.engine.now());
        // Until its worker has ended.
        runners.push(PassedRunner {
            report: RunnerReport { error: Some(PANICKED.to_owned()), ..report },
            ending: Ending::Panicked,
        });
        let worker = Worker::new(Rc::clone(&shared), managed, Rc::clone(&config), Rc::clone(&secrets));
        workers.spawn_local(async move {
            let (driver, acceptance, failure) = worker.once().await;
            (position, passed(driver.report(), acceptance, failure))
        });
    }
    while let Some(ended) = workers.join_next().await {
        if let Ok((position, passed)) = ended {
            runners[position] = passed;
        }
    }
    // Afterwards, because an entry that was prepared for an enrollment is complete by now.
    let snapshot = shared.engine.ops.disk().read().await?;
    let unusable = snapshot.entries.iter().filter(|entry| entry.access().is_err()).cloned().collect();
    Ok(Pass { runners, unusable, errors })
}

fn passed(report: RunnerReport, acceptance: Acceptance, failure: Option<StepFailure>) -> PassedRunner {
    let error = failure.as_ref().map(|failure| match failure {
        StepFailure::Unsaved(error) => {
            format!("cannot write its new token to config.toml; the next start retries: {}", chain(error))
        }
        StepFailure::Operation(_) | StepFailure::UsedElsewhere { .. } => chain(failure).to_string(),
    });
    let done = Ending::Done { is_accepted: acceptance == Acceptance::Accepted };
    let ending = failure.map_or(done, Ending::Failed);
    PassedRunner { report: RunnerReport { next: None, error, ..report }, ending }
}
