//! What one-shot commands work with.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::context::{Context, operations};
use super::interrupt::Interrupt;
use super::outcome::RunnerOutcome;
use super::report::Reporter;
use super::selection::{Candidate, RunnerSelector, candidates};
use super::{Error, Exit, progress};
use crate::clock::{Clock as _, SystemClock};
use crate::engine;
use crate::gitlab::Client;
use crate::lifecycle::Timing;
use crate::model::{RunnerKey, Timestamp};
use crate::ops::{Ops, Runner, Unfinished};
use crate::settings::Settings;
use crate::store::Store;

/// The operations, with everything around them.
pub(super) struct CommandSession {
    /// What is done to server and disk.
    pub(super) ops: Ops<Client, Store>,
    /// What agent.toml says.
    pub(super) config: engine::Config,
    /// Asks for an end.
    pub(super) interrupt: Interrupt,
    /// Where people are told.
    pub(super) reporter: Reporter,
}

/// How a nap ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nap {
    /// It is over.
    Over,
    /// An end was asked for before.
    Interrupted,
}

impl CommandSession {
    /// Opens the disk and makes a client.
    ///
    /// # Errors
    /// Wrong settings, and an unusable config.toml or `.runner_system_id`.
    pub(super) async fn open(context: &Context<'_>, interrupt: Interrupt) -> Result<Self, Error> {
        let Settings { store, gitlab, engine: config, warnings, .. } = context.command_settings()?;
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        let store = context.open_store(store)?;
        store.read().await?;
        let ops = operations(store, Client::new(gitlab)).await?;
        Ok(Self { ops, config, interrupt, reporter: *context.reporter })
    }

    /// The numbers of the schedule.
    pub(super) fn timing(&self) -> &Timing {
        &self.config.timing
    }

    /// This machine's wall clock.
    pub(super) fn now(&self) -> Timestamp {
        SystemClock.read().wall
    }

    /// Everybody that a command can be about, after what a crash interrupted is finished.
    ///
    /// # Errors
    /// A config.toml or state directory that cannot be read.
    pub(super) async fn candidates(&self) -> Result<Vec<Candidate>, Error> {
        let replayed: BTreeMap<RunnerKey, Unfinished> =
            self.ops.replay(self.now()).await?.unfinished.into_iter().collect();
        let records = self.ops.disk().records().await?;
        for damaged in &records.damaged {
            tracing::error!(error = %damaged, "a runner's record is damaged");
        }
        let snapshot = self.ops.disk().read().await?;
        Ok(candidates(&self.config, records.records, &snapshot, replayed))
    }

    /// Does the same to everybody that is wanted, all at the same time, and tells what became of each. The
    /// client bounds how many requests are under way.
    ///
    /// # Errors
    /// Those of finding out who is wanted.
    pub(super) async fn for_all<Work, Future>(self, wanted: &RunnerSelector, work: Work) -> Result<Exit, Error>
    where
        Work: Fn(Rc<Self>, Runner, Option<Unfinished>) -> Future,
        Future: std::future::Future<Output = RunnerOutcome> + 'static,
    {
        let chosen = wanted.choose(self.candidates().await?)?;
        if chosen.is_empty() && !self.reporter.is_json() {
            self.reporter.answer(&format!("no runners in {}\n", self.ops.disk().config_path().display()));
            return Ok(Exit::Done);
        }
        let reporter = self.reporter;
        let bar = progress::bar(&reporter, chosen.len(), "runners");
        let session = Rc::new(self);
        let mut told = Vec::new();
        let mut tasks = JoinSet::new();
        for (position, Candidate { entries, runner, unfinished }) in chosen.into_iter().enumerate() {
            match (runner, entries.first()) {
                (Ok(runner), _) => {
                    let task = work(Rc::clone(&session), runner, unfinished);
                    tasks.spawn_local(async move { (position, task.await) });
                }
                (Err(problem), Some(entry)) => told.push((position, RunnerOutcome::unusable(entry, &problem))),
                (Err(_), None) => {}
            }
        }
        bar.inc(u64::try_from(told.len()).unwrap_or_default());
        while let Some(done) = tasks.join_next().await {
            match done {
                Ok(done) => told.push(done),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        told.sort_by_key(|(position, _)| *position);
        Ok(reporter.report_outcomes(told.into_iter().map(|(_, told)| told).collect()))
    }

    /// Sleeps unless an end is asked for.
    pub(super) async fn nap(&self, span: Duration) -> Nap {
        tokio::select! {
            biased;
            () = self.interrupt.asked() => Nap::Interrupted,
            () = tokio::time::sleep(span) => Nap::Over,
        }
    }

    /// A wait for certainty: shorter where little of the token's life is left.
    pub(super) fn certainty_wait(&self, runner: &Runner, wanted: Duration) -> Duration {
        let now = self.now();
        let left = runner.validity(now).and_then(|validity| validity.left(now));
        left.map_or(wanted, |left| wanted.min(left / 8)).max(self.timing().floor)
    }
}
