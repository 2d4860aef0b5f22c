//! What one-shot commands share: the inventory, and driving runners towards a goal.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::context::Context;
use super::interrupt::Interrupt;
use super::outcome::RunnerOutcome;
use super::progress::Bar;
use super::report::Reporter;
use super::selection::{Candidate, RunnerSelector, Selected, candidates};
use super::{Error, Exit};
use crate::clock::SystemClock;
use crate::engine::{self, Asker, Budget, Caller, Drive, Engine, Inventory, ManagedRunner, take_inventory};
use crate::error_chain::chain;
use crate::gitlab::Client;
use crate::lifecycle::{Goal, Outcome};
use crate::limits::operations_at_once;
use crate::model::{Timestamp, format_span};
use crate::ops::{self, Ops, Runner};
use crate::settings::{self, Settings};
use crate::store::{Snapshot, Store};

/// A driver on this machine's disk and the real GitLab.
pub(super) type Driver = engine::Driver<Client, Store, SystemClock>;

/// The number of requests to one host that a command has under way, if nothing else is said: a person waits for it.
const IN_FLIGHT_PER_HOST: usize = 16;

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

impl CommandSession {
    /// Opens the disk and makes a client, for so many requests to a host at a time.
    pub(super) async fn open(
        context: &Context<'_>,
        interrupt: Interrupt,
        parallel: Option<u16>,
    ) -> Result<Self, Error> {
        Self::with_settings(context, context.command_settings()?, interrupt, parallel).await
    }

    /// The same with settings that were read already.
    pub(super) async fn with_settings(
        context: &Context<'_>,
        settings: Settings,
        interrupt: Interrupt,
        parallel: Option<u16>,
    ) -> Result<Self, Error> {
        settings.log_warnings();
        let Settings { store, mut gitlab, engine: config, .. } = settings;
        gitlab.in_flight_per_host = parallel
            .map(usize::from)
            .or(gitlab.in_flight_per_host)
            .or(Some(IN_FLIGHT_PER_HOST.min(operations_at_once())));
        let store = context.open_store(store)?;
        tokio::select! {
            biased;
            read = store.read() => drop(read?),
            () = interrupt.asked() => {
                let message = "interrupted before config.toml was read: its disk or network share may not answer";
                return Err(Error::Interrupted(message.to_owned()));
            }
        }
        let engine = Engine::open(store, Client::new(gitlab), settings::this_program()).await?;
        engine.ops.share_in(config.open_store().await?);
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
    pub(super) async fn candidates(&self) -> Result<Vec<Candidate>, Error> {
        let (inventory, snapshot) = self.inventory().await?;
        Ok(candidates(inventory, &snapshot))
    }

    /// The runners of this machine, after what a crash interrupted is finished.
    pub(super) async fn inventory(&self) -> Result<(Inventory, Arc<Snapshot>), Error> {
        Ok(take_inventory(self.ops(), &self.config, self.now()).await?)
    }

    /// Takes up a runner.
    pub(super) fn driver(&self, managed: ManagedRunner, asker: Asker) -> Driver {
        Driver::new(Rc::clone(&self.engine), managed, Rc::clone(&self.config), asker)
    }

    /// Drives a runner towards a goal; see [`engine::Driver::drive`].
    pub(super) async fn drive(&self, driver: &mut Driver, goal: Goal, budget: Budget) -> Drive {
        driver.drive(goal, budget, self).await
    }

    /// Does the same to every selected runner, all at the same time, and reports what became of each. The client
    /// bounds the number of requests under way.
    pub(super) async fn for_all<Work, Future>(self, selector: &RunnerSelector, work: Work) -> Result<Exit, Error>
    where
        Work: Fn(Rc<Self>, ManagedRunner) -> Future,
        Future: std::future::Future<Output = RunnerOutcome> + 'static,
    {
        self.for_all_selected(selector, |session, selected| work(session, selected.managed)).await
    }

    /// As [`CommandSession::for_all`], for a command that distinguishes the selected entries of a runner from others.
    pub(super) async fn for_all_selected<Work, Future>(
        self,
        selector: &RunnerSelector,
        work: Work,
    ) -> Result<Exit, Error>
    where
        Work: Fn(Rc<Self>, Selected) -> Future,
        Future: std::future::Future<Output = RunnerOutcome> + 'static,
    {
        let chosen = selector.choose(self.candidates().await?)?;
        if chosen.is_empty() && !self.reporter.is_json() {
            self.reporter.answer(&format!("no runners in {}\n", self.ops().disk().config_path().display()));
            return Ok(Exit::Done);
        }
        let reporter = self.reporter;
        let mut bar = Bar::new(&reporter, chosen.len(), "runners");
        let session = Rc::new(self);
        let mut outcomes = Vec::new();
        let mut usable = Vec::new();
        for (position, Candidate { entries, others, twins, runner }) in chosen.into_iter().enumerate() {
            match (runner, entries.first()) {
                (Ok(managed), _) => usable.push((position, Selected { managed, entries, others, twins })),
                (Err(problem), Some(entry)) => outcomes.push((position, RunnerOutcome::unusable(entry, &problem))),
                (Err(_), None) => {}
            }
        }
        bar.add(outcomes.len());
        // What becomes of a runner decides about its twins.
        let (firsts, twins): (Vec<_>, Vec<_>) =
            usable.into_iter().partition(|(_, selected)| selected.managed.twin_of.is_none());
        for selected in [firsts, twins] {
            // Of each host as many as can wait for the disk together: thousands need no more memory than those.
            let mut waiting: BTreeMap<String, VecDeque<(usize, Selected)>> = BTreeMap::new();
            for (position, selected) in selected {
                let host = selected.managed.runner.site.url.authority();
                waiting.entry(host).or_default().push_back((position, selected));
            }
            let mut tasks = JoinSet::new();
            let hosts: Vec<_> = waiting.keys().cloned().collect();
            let mut begin = |tasks: &mut JoinSet<_>, host: String| {
                let Some((position, selected)) = waiting.get_mut(&host).and_then(VecDeque::pop_front) else { return };
                let (entry, shared) = (selected.entries.first().cloned(), selected.others.clone());
                let task = work(Rc::clone(&session), selected);
                tasks.spawn_local(async move { (host, position, task.await.of_entry(entry.as_ref(), &shared)) });
            };
            for host in hosts {
                (0..operations_at_once()).for_each(|_| begin(&mut tasks, host.clone()));
            }
            while let Some(done) = tasks.join_next().await {
                match done {
                    Ok((host, position, outcome)) => {
                        outcomes.push((position, outcome));
                        begin(&mut tasks, host);
                    }
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                }
                bar.add(1);
            }
        }
        bar.clear();
        outcomes.sort_by_key(|(position, _)| *position);
        Ok(reporter.report_outcomes(outcomes.into_iter().map(|(_, outcome)| outcome).collect()))
    }
}

impl CommandSession {
    /// How long config.toml is waited for after it could not be written. If the token is in memory alone, this is said, and
    /// there is no limit.
    pub(super) fn saving_budget(&self, runner: &Runner, error: &ops::Error) -> Budget {
        if !runner.is_unstored() {
            return Budget::FOR_CONFIG;
        }
        self.remark_in_memory(runner.label(), &chain(error));
        Budget::Unlimited
    }

    /// Says that a token must not be lost by ending this process.
    pub(super) fn remark_in_memory(&self, runner: &str, error: &str) {
        self.reporter
            .remark(&format!("error: the new token of runner `{runner}` exists only in memory, retrying: {error}"));
    }
}

impl Caller for CommandSession {
    fn is_interrupted(&self) -> bool {
        self.interrupt.is_interrupted()
    }

    async fn interrupted(&self) {
        self.interrupt.asked().await;
    }

    fn will_wait(&self, runner: &str, goal: Goal, drive: &Drive, left: Duration) {
        let Some(error) = drive.failure().map(|failure| chain(failure)) else { return };
        match (goal, drive.taken.as_slice()) {
            (Goal::Registered | Goal::RegisteredAgain, [_]) => {
                self.reporter.remark(&format!("waiting up to {}: {error}", format_span(left)));
            }
            (Goal::Rotated | Goal::RotatedById, [.., (_, Outcome::Lost { .. })]) => {
                self.reporter.remark(&format!("runner `{runner}`: {error}: finding out whether the token was replaced"))
            }
            (Goal::Healed, _) => {
                self.reporter.remark(&format!("runner `{runner}`: {error}: asking again"));
            }
            (Goal::Saved, _) if !self.ops().disk().has_state() => self.remark_in_memory(runner, &error),
            _ => {}
        }
    }
}

/// The error of a command whose drive failed.
pub(super) fn error_of(drive: Drive) -> Error {
    drive.into_failure().map_or_else(|| Error::Interrupted("not begun".to_owned()), Error::from)
}
