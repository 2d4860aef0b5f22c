//! The supervisor: starts the workers, hands out news, and ends them.
//!
//! Its loop waits for nothing but news. What the disk has to say comes as news too, so that a slow one delays
//! neither the sign of life nor a stop.

mod stop;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::worker::{DrainMode, Retired, RunnerChannels, RunnerCommand, SharedTarget, Worker, WorkerExit};
use super::{Changed, Heartbeat, Notice, Notices, Parts, Progress, Shared, Watch};
use crate::clock::Clock;
use crate::engine::{Config, Count, Engine, Inventory, ManagedRunner, count_again, take_stock};
use crate::error_chain::chain;
use crate::model::{RunnerKey, StateName};
use crate::ops::{Disk, Error, Runner, Server, Unfinished, is_own};
use crate::status::{Phase, StatusRegistry};
use crate::store::Snapshot;

/// How long config.toml must have been still before an entry that is missing counts as removed:
/// editors and configuration managers write it in several steps.
const STILL: Duration = Duration::from_secs(5);

/// Runs the daemon until a notice stops it. What a crash interrupted is finished first.
///
/// # Errors
/// [`Error::Disk`] if config.toml or the state directory cannot be read at the start.
pub async fn run<S, D, C>(config: Config, parts: Parts<S, D, C>, notices: Notices) -> Result<ShutdownOutcome, Error>
where
    S: Server + 'static,
    D: Disk + 'static,
    C: Clock + 'static,
{
    LocalSet::new().run_until(supervise(config, parts, notices)).await
}

async fn supervise<S, D, C>(
    config: Config,
    parts: Parts<S, D, C>,
    mut notices: Notices,
) -> Result<ShutdownOutcome, Error>
where
    S: Server + 'static,
    D: Disk + 'static,
    C: Clock + 'static,
{
    let Parts { ops, clock, chance, watch, heartbeat, mut reload, registry, counters, progress } = parts;
    let shared = Rc::new(Shared { engine: Engine { ops, clock, chance }, registry, counters });
    let mut supervisor = Supervisor::new(shared, config, watch, heartbeat, progress);
    let heartbeat = supervisor.heartbeat.clone();
    tokio::select! {
        biased;
        started = supervisor.start() => started?,
        () = heartbeat.keep_beating() => {}
    }
    supervisor.announce(Progress::Serving);
    let ending = loop {
        supervisor.heartbeat.beat();
        match supervisor.next(&mut notices).await {
            News::Notice(Notice::Stop) => break StopMode::ByPolicy,
            News::Notice(Notice::StopAndKeep) => break StopMode::Keep,
            News::Notice(Notice::StopForReboot) => break supervisor.ending_at_reboot(),
            News::Notice(Notice::Reload) => supervisor.reload(reload()),
            News::Changed(changed) => {
                if changed.settings {
                    supervisor.settings_changed(reload());
                }
                if changed.config {
                    supervisor.config_changed(false, Retired::Stay);
                }
            }
            News::FileStill => supervisor.config_changed(true, Retired::Stay),
            News::Counted(retired, counted) => supervisor.counted(retired, counted),
            // It may have left its runner to the next census.
            News::WorkerEnded => supervisor.take_in(Retired::Stay),
            News::None => {}
        }
    };
    supervisor.announce(Progress::Stopping);
    Ok(supervisor.stop(ending, &mut notices).await)
}

/// How a stopped daemon leaves its runners behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownOutcome {
    /// As it should.
    Done,
    /// A runner that should have been unregistered was not, or a request was cut short; the log names it.
    Unfinished,
}

enum News {
    Notice(Notice),
    Changed(Changed),
    FileStill,
    Counted(Retired, Count),
    WorkerEnded,
    /// Time for a sign of life.
    None,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum StopMode {
    ByPolicy,
    Keep,
}

struct RunnerHandle {
    mail: mpsc::UnboundedSender<RunnerCommand>,
    target: SharedTarget,
}

struct Supervisor<S, D, C> {
    shared: Rc<Shared<S, D, C>>,
    config: Rc<Config>,
    watch: Option<Watch>,
    heartbeat: Heartbeat,
    still_at: Option<Instant>,
    /// Enrollments that another process has unregistered while this one runs.
    retired_here: BTreeSet<RunnerKey>,
    handles: BTreeMap<RunnerKey, RunnerHandle>,
    workers: JoinSet<WorkerExit>,
    drain_mode: watch::Sender<DrainMode>,
    /// The census under way, one at a time: a disk that is slow holds up nothing but this.
    counting: JoinSet<(Retired, Count)>,
    /// That another census is wanted, since things have changed while this one was under way.
    wanted: Option<Retired>,
    is_reloading: bool,
    progress: mpsc::UnboundedSender<Progress>,
}

impl<S, D, C> Supervisor<S, D, C>
where
    S: Server + 'static,
    D: Disk + 'static,
    C: Clock + 'static,
{
    fn new(
        shared: Rc<Shared<S, D, C>>,
        config: Config,
        watch: Option<Watch>,
        heartbeat: Heartbeat,
        progress: mpsc::UnboundedSender<Progress>,
    ) -> Self {
        expect(&shared.registry, &config);
        Self {
            shared,
            config: Rc::new(config),
            watch,
            heartbeat,
            // What is missing from the start on is missing for good once the file has been still.
            still_at: Some(Instant::now() + STILL),
            retired_here: BTreeSet::new(),
            handles: BTreeMap::new(),
            workers: JoinSet::new(),
            drain_mode: watch::channel(DrainMode::Finish).0,
            counting: JoinSet::new(),
            wanted: None,
            is_reloading: false,
            progress,
        }
    }

    fn announce(&self, progress: Progress) {
        self.shared.registry.enter(match progress {
            Progress::Serving => Phase::Serving,
            Progress::Reloading => Phase::Reloading,
            Progress::Stopping => Phase::Stopping,
        });
        // Whether anybody listens is none of its business.
        let _unheard = self.progress.send(progress);
    }

    async fn start(&mut self) -> Result<(), Error> {
        let (inventory, mut unfinished) = take_stock(&self.shared.engine, &self.config).await?;
        for remark in &inventory.remarks {
            tracing::warn!("{remark}");
        }
        self.probe(&inventory).await;
        for member in inventory.members {
            let unfinished = unfinished.remove(&member.runner.record.key);
            self.spawn(member, unfinished);
        }
        tracing::info!(runners = self.handles.len(), enrollments = self.config.enrollments.len(), "serving");
        Ok(())
    }

    /// What would fail at the first rotation is told while somebody is looking.
    async fn probe(&self, inventory: &Inventory) {
        if inventory.members.is_empty() {
            return;
        }
        if let Err(error) = self.shared.engine.ops.disk().probe().await {
            let error = Error::Disk(error);
            tracing::warn!(
                error = chain(&error),
                hint = error.hint(),
                "config.toml cannot be replaced: no runner can be registered and no token rotated until it can"
            );
        }
    }

    fn spawn(&mut self, member: ManagedRunner, unfinished: Option<Unfinished>) {
        let key = member.runner.record.key.clone();
        let (mail, commands) = mpsc::unbounded_channel();
        let target = SharedTarget::new(member.runner.target().into());
        let lines = RunnerChannels { target: Rc::clone(&target), commands, drain_mode: self.drain_mode.subscribe() };
        let worker = Worker::new(Rc::clone(&self.shared), member, Rc::clone(&self.config), unfinished, lines);
        // Whoever hears that the daemon serves shall find every runner.
        worker.post();
        self.workers.spawn_local(worker.run());
        self.handles.insert(key, RunnerHandle { mail, target });
    }

    async fn next(&mut self, notices: &mut Notices) -> News {
        let Self { watch, still_at, workers, heartbeat, counting, .. } = self;
        let changed = async {
            match watch {
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
        };
        let still = async {
            match still_at {
                Some(at) => sleep_until(*at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            notice = notices.recv() => News::Notice(notice.unwrap_or(Notice::Stop)),
            changed = changed => {
                if changed.config {
                    self.still_at = Some(Instant::now() + STILL);
                }
                News::Changed(changed)
            }
            () = still => {
                self.still_at = None;
                News::FileStill
            }
            Some(ended) = workers.join_next() => {
                self.dismiss(ended);
                News::WorkerEnded
            }
            Some(counted) = counting.join_next() => match counted {
                Ok((retired, counted)) => News::Counted(retired, counted),
                // It has panicked, which has been printed; the next change of a file makes another.
                Err(_) => News::None,
            },
            () = sleep(heartbeat.interval()) => News::None,
        }
    }

    fn dismiss(&mut self, ended: Result<WorkerExit, tokio::task::JoinError>) {
        match ended {
            Ok(exit) => {
                let WorkerExit { runner, is_enrolled, .. } = exit;
                self.handles.remove(&runner.record.key);
                self.shared.registry.remove(&runner.record.key);
                if is_enrolled && is_retired(&runner) {
                    self.retired_here.insert(runner.record.key);
                }
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "a worker has died: restart the agent, and please report this")
            }
        }
    }

    /// New settings on request: everybody looks again.
    fn reload(&mut self, config: Option<Config>) {
        self.is_reloading = true;
        self.announce(Progress::Reloading);
        if let Some(config) = config {
            self.take_settings(config);
        }
        self.shared.engine.ops.forget_tls();
        self.config_changed(true, Retired::ComeBack);
        self.tell(&RunnerCommand::Nudge);
    }

    /// Settings after one of their files changed: agent.toml, or a token file.
    fn settings_changed(&mut self, config: Option<Config>) {
        match config {
            Some(config) if config != *self.config => {
                self.take_settings(config);
                self.config_changed(false, Retired::Stay);
                tracing::info!("agent.toml has changed: its settings are in force");
            }
            Some(_) => self.tell(&RunnerCommand::Changed { settled: false, retired: Retired::Stay }),
            None => {}
        }
    }

    fn take_settings(&mut self, config: Config) {
        self.retired_here.retain(|key| config.enrollments.iter().any(|wanted| wanted.key == *key));
        expect(&self.shared.registry, &config);
        self.config = Rc::new(config);
        self.tell(&RunnerCommand::Settings(Rc::clone(&self.config)));
    }

    /// Lets every worker compare its entry, and takes in runners that nobody serves yet.
    fn config_changed(&mut self, settled: bool, retired: Retired) {
        self.tell(&RunnerCommand::Changed { settled, retired });
        self.take_in(retired);
    }

    /// Finds out who is not served yet, now or after the census that is under way.
    fn take_in(&mut self, retired: Retired) {
        let wanted = self.wanted.map_or(retired, |wanted| wanted.max(retired));
        if !self.counting.is_empty() {
            self.wanted = Some(wanted);
            return;
        }
        self.wanted = None;
        let (shared, config) = (Rc::clone(&self.shared), Rc::clone(&self.config));
        self.counting.spawn_local(async move { (wanted, count_again(&shared.engine, &config).await) });
    }

    /// Begins to serve whoever is not served yet.
    fn counted(&mut self, retired: Retired, counted: Count) {
        if self.wanted.is_some() {
            // What it has found may not be so any more.
            return self.take_in(retired);
        }
        match counted {
            Ok((inventory, snapshot)) => self.serve_new(retired, inventory, &snapshot),
            Err(error) => tracing::warn!(
                error = chain(&error),
                "config.toml has changed and cannot be read: serving on with what is known"
            ),
        }
        if std::mem::take(&mut self.is_reloading) {
            tracing::info!("reloaded");
            self.announce(Progress::Serving);
        }
    }

    fn serve_new(&mut self, retired: Retired, inventory: Inventory, snapshot: &Snapshot) {
        for remark in &inventory.remarks {
            tracing::debug!("{remark}");
        }
        for member in inventory.members {
            let stays_away = retired == Retired::Stay && self.retired_here.contains(&member.runner.record.key);
            if !stays_away && !is_served(&member.runner, snapshot, &self.handles) {
                tracing::info!(runner = member.runner.label(), "serving a new runner");
                self.spawn(member, None);
            }
        }
    }

    fn tell(&self, mail: &RunnerCommand) {
        for handle in self.handles.values() {
            // A worker that has ended is dismissed when its task is joined.
            let _ended = handle.mail.send(mail.clone());
        }
    }
}

/// Tells the board which runners there have to be.
fn expect(registry: &StatusRegistry, config: &Config) {
    registry.expect_runners(config.enrollments.iter().map(|enrollment| enrollment.key.clone()).collect());
}

/// Whether its record says that it was unregistered, which only another process does while this one runs.
fn is_retired(runner: &Runner) -> bool {
    runner.record.credential.is_none() && runner.record.state == Some(StateName::Retired)
}

/// Whether a worker has this key, or answers for every entry that this runner would.
fn is_served(runner: &Runner, snapshot: &Snapshot, handles: &BTreeMap<RunnerKey, RunnerHandle>) -> bool {
    if handles.contains_key(&runner.record.key) {
        return true;
    }
    let target = runner.target();
    let mut own = snapshot.entries.iter().filter(|entry| is_own(&target, entry)).peekable();
    own.peek().is_some() && own.all(|entry| handles.values().any(|handle| is_own(&handle.target.borrow(), entry)))
}
