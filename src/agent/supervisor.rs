//! The supervisor: starts the workers, hands out news, and ends them.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::census::Member;
use super::shutdown::Farewell;
use super::worker::{Leftover, Lines, Mail, Patience, Retired, SharedTarget, Worker};
use super::{Census, Changed, Config, Notice, Notices, OnReboot, Parts, Progress, Pulse, Shared, Watch, census};
use crate::clock::Clock;
use crate::model::RunnerKey;
use crate::observe::{Phase, chain};
use crate::ops::{Disk, Error, RETIRED, Runner, Server, Unfinished, is_own};
use crate::store::Snapshot;

/// How long config.toml must have been still before an entry that is missing counts as removed:
/// editors and configuration managers write it in several steps.
const STILL: Duration = Duration::from_secs(5);

/// Runs the daemon until a notice stops it. What a crash interrupted is finished first.
///
/// # Errors
/// [`Error::Disk`] if config.toml or the state directory cannot be read at the start.
pub async fn run<S, D, C>(config: Config, parts: Parts<S, D, C>, notices: Notices) -> Result<Farewells, Error>
where
    S: Server + 'static,
    D: Disk + 'static,
    C: Clock + 'static,
{
    LocalSet::new().run_until(supervise(config, parts, notices)).await
}

async fn supervise<S, D, C>(config: Config, parts: Parts<S, D, C>, mut notices: Notices) -> Result<Farewells, Error>
where
    S: Server + 'static,
    D: Disk + 'static,
    C: Clock + 'static,
{
    let Parts { ops, clock, chance, watch, pulse, mut reload, board, tally, progress } = parts;
    let shared = Rc::new(Shared { ops, clock, chance, board: board.clone(), tally });
    let tell = |news| {
        match news {
            Progress::Serving => board.enter(Phase::Serving),
            Progress::Reloading => {}
            Progress::Stopping => board.enter(Phase::Stopping),
        }
        // Whether anybody listens is none of its business.
        let _unheard = progress.send(news);
    };
    let mut supervisor = Supervisor::new(shared, config, watch, pulse);
    supervisor.start().await?;
    tell(Progress::Serving);
    let ending = loop {
        supervisor.pulse.beat();
        match supervisor.next(&mut notices).await {
            News::Notice(Notice::Stop) => break Ending::ByPolicy,
            News::Notice(Notice::StopAndKeep) => break Ending::Keep,
            News::Notice(Notice::StopForReboot) => break supervisor.ending_at_reboot(),
            News::Notice(Notice::Reload) => {
                tell(Progress::Reloading);
                supervisor.reload(reload()).await;
                tell(Progress::Serving);
            }
            News::Changed(changed) => {
                if changed.settings {
                    supervisor.settings_changed(reload()).await;
                }
                if changed.config {
                    supervisor.config_changed(false, Retired::Stay).await;
                }
            }
            News::FileStill => supervisor.config_changed(true, Retired::Stay).await,
            // It may have left its runner to the next census.
            News::WorkerEnded => supervisor.take_in(Retired::Stay).await,
            News::None => {}
        }
    };
    tell(Progress::Stopping);
    Ok(supervisor.stop(ending, &mut notices).await)
}

/// How a stopped daemon leaves its runners behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewells {
    /// As it should.
    Done,
    /// A runner that should have been unregistered was not, or a request was cut short; the log names it.
    Unfinished,
}

enum News {
    Notice(Notice),
    Changed(Changed),
    FileStill,
    WorkerEnded,
    /// Time for a sign of life.
    None,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    ByPolicy,
    Keep,
}

struct Desk {
    mail: mpsc::UnboundedSender<Mail>,
    target: SharedTarget,
}

struct Supervisor<S, D, C> {
    shared: Rc<Shared<S, D, C>>,
    config: Rc<Config>,
    watch: Option<Watch>,
    pulse: Pulse,
    still_at: Option<Instant>,
    /// Enrollments that another process has unregistered while this one runs.
    retired_here: BTreeSet<RunnerKey>,
    desks: BTreeMap<RunnerKey, Desk>,
    workers: JoinSet<Leftover>,
    patience: watch::Sender<Patience>,
}

impl<S, D, C> Supervisor<S, D, C>
where
    S: Server + 'static,
    D: Disk + 'static,
    C: Clock + 'static,
{
    fn new(shared: Rc<Shared<S, D, C>>, config: Config, watch: Option<Watch>, pulse: Pulse) -> Self {
        Self {
            shared,
            config: Rc::new(config),
            watch,
            pulse,
            // What is missing from the start on is missing for good once the file has been still.
            still_at: Some(Instant::now() + STILL),
            retired_here: BTreeSet::new(),
            desks: BTreeMap::new(),
            workers: JoinSet::new(),
            patience: watch::channel(Patience::Finish).0,
        }
    }

    async fn start(&mut self) -> Result<(), Error> {
        let (census, mut unfinished) = take_stock(&self.shared, &self.config).await?;
        for remark in &census.remarks {
            tracing::warn!("{remark}");
        }
        tracing::info!(runners = census.members.len(), enrollments = self.config.enrollments.len(), "serving");
        for member in census.members {
            let unfinished = unfinished.remove(&member.runner.record.key);
            self.spawn(member, unfinished);
        }
        Ok(())
    }

    fn spawn(&mut self, member: Member, unfinished: Option<Unfinished>) {
        let key = member.runner.record.key.clone();
        let (mail, mailbox) = mpsc::unbounded_channel();
        let target = SharedTarget::new(member.runner.target().into());
        let lines = Lines { target: Rc::clone(&target), mailbox, patience: self.patience.subscribe() };
        let worker = Worker::new(Rc::clone(&self.shared), member, Rc::clone(&self.config), unfinished, lines);
        // Whoever hears that the daemon serves shall find every runner.
        worker.post();
        self.workers.spawn_local(worker.run());
        self.desks.insert(key, Desk { mail, target });
    }

    async fn next(&mut self, notices: &mut Notices) -> News {
        let Self { watch, still_at, workers, pulse, .. } = self;
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
            () = sleep(pulse.interval()) => News::None,
        }
    }

    fn dismiss(&mut self, ended: Result<Leftover, tokio::task::JoinError>) {
        match ended {
            Ok(leftover) => {
                let Leftover { runner, is_enrolled, .. } = leftover;
                self.desks.remove(&runner.record.key);
                self.shared.board.remove(&runner.record.key);
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
    async fn reload(&mut self, config: Option<Config>) {
        if let Some(config) = config {
            self.take_settings(config);
        }
        self.shared.ops.forget_tls();
        self.config_changed(true, Retired::ComeBack).await;
        self.tell(&Mail::Nudge);
        tracing::info!("reloaded");
    }

    /// Settings after one of their files changed: agent.toml, or a token file.
    async fn settings_changed(&mut self, config: Option<Config>) {
        match config {
            Some(config) if config != *self.config => {
                self.take_settings(config);
                self.config_changed(false, Retired::Stay).await;
                tracing::info!("agent.toml has changed: its settings are in force");
            }
            Some(_) => self.tell(&Mail::Changed { settled: false, retired: Retired::Stay }),
            None => {}
        }
    }

    fn take_settings(&mut self, config: Config) {
        self.retired_here.retain(|key| config.enrollments.iter().any(|wanted| wanted.key == *key));
        self.config = Rc::new(config);
        self.tell(&Mail::Settings(Rc::clone(&self.config)));
    }

    /// Lets every worker compare its entry, and takes in runners that nobody serves yet.
    async fn config_changed(&mut self, settled: bool, retired: Retired) {
        self.tell(&Mail::Changed { settled, retired });
        self.take_in(retired).await;
    }

    /// Begins to serve whoever is not served yet.
    async fn take_in(&mut self, retired: Retired) {
        match take_stock_of_new(&self.shared, &self.config, &self.desks).await {
            Ok(mut census) => {
                let stays_away =
                    |runner: &Runner| retired == Retired::Stay && self.retired_here.contains(&runner.record.key);
                census.members.retain(|member| !stays_away(&member.runner));
                for remark in &census.remarks {
                    tracing::debug!("{remark}");
                }
                for member in census.members {
                    tracing::info!(runner = member.runner.label(), "serving a new runner");
                    self.spawn(member, None);
                }
            }
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "config.toml has changed and cannot be read: serving on with what is known"
                )
            }
        }
    }

    fn tell(&self, mail: &Mail) {
        for desk in self.desks.values() {
            // A worker that has ended is dismissed when its task is joined.
            let _ended = desk.mail.send(mail.clone());
        }
    }

    fn ending_at_reboot(&self) -> Ending {
        match self.config.shutdown.on_reboot {
            OnReboot::Keep => Ending::Keep,
            OnReboot::Unregister => Ending::ByPolicy,
        }
    }

    /// Stops planning, lets what is under way finish, and unregisters each runner as its worker ends.
    async fn stop(mut self, ending: Ending, notices: &mut Notices) -> Farewells {
        let deadline = Instant::now() + self.config.shutdown.grace;
        tracing::info!(unregister = ending == Ending::ByPolicy, "stopping");
        self.tell(&Mail::Stop);
        if ending == Ending::Keep {
            self.patience.send_replace(Patience::GiveUpVerify);
        }
        let pulse = self.pulse.clone();
        tokio::select! {
            biased;
            farewells = self.wind_up(ending, deadline) => farewells,
            () = pulse.keep_beating() => Farewells::Unfinished,
            () = second(notices) => {
                tracing::warn!("told to stop a second time: the next start finishes what was begun");
                Farewells::Unfinished
            }
        }
    }

    /// Half of the grace time is for everything that is under way, the rest only for what changes something.
    async fn wind_up(&mut self, ending: Ending, deadline: Instant) -> Farewells {
        let mut farewell = Farewell::new(Rc::clone(&self.shared), Rc::clone(&self.config));
        let patient_until = deadline - self.config.shutdown.grace / 2;
        for until in [patient_until, deadline] {
            while let Ok(Some(ended)) = timeout_at(until, self.workers.join_next()).await {
                match ended {
                    Ok(leftover) if ending == Ending::ByPolicy => farewell.bid(leftover),
                    Ok(_) | Err(_) => {}
                }
            }
            self.patience.send_replace(Patience::GiveUpVerify);
        }
        let is_late = timeout_at(deadline, farewell.finish()).await.is_err();
        if is_late || !self.workers.is_empty() {
            tracing::error!(
                unfinished = self.workers.len() + farewell.under_way(),
                "the grace time is over while requests were under way: the next start finishes what was begun"
            );
            return Farewells::Unfinished;
        }
        if farewell.failures() > 0 { Farewells::Unfinished } else { Farewells::Done }
    }
}

/// Completes with the next notice to stop.
async fn second(notices: &mut Notices) {
    loop {
        match notices.recv().await {
            Some(Notice::Stop | Notice::StopAndKeep | Notice::StopForReboot) => return,
            Some(Notice::Reload) => {}
            None => std::future::pending().await,
        }
    }
}

/// Finishes what was interrupted, then finds out who is to be served.
pub(super) async fn take_stock<S: Server, D: Disk, C: Clock>(
    shared: &Shared<S, D, C>,
    config: &Config,
) -> Result<(Census, BTreeMap<RunnerKey, Unfinished>), Error> {
    let now = shared.wall();
    let replayed = shared.ops.replay(now).await?;
    let records = shared.ops.disk().records().await?;
    for damaged in &records.damaged {
        tracing::error!(error = chain(damaged), "a runner's record is damaged");
    }
    let snapshot = shared.ops.disk().read().await?;
    let census = census(config, records.records, &snapshot);
    write_down(shared, &census).await?;
    Ok((census, replayed.unfinished.into_iter().collect()))
}

/// Brings to the disk what the census has decided about records.
async fn write_down<S: Server, D: Disk, C: Clock>(shared: &Shared<S, D, C>, census: &Census) -> Result<(), Error> {
    for (old, record) in &census.renamed {
        shared.ops.rename_record(old, record.clone()).await?;
    }
    Ok(())
}

/// The part of the census that nobody serves yet.
async fn take_stock_of_new<S: Server, D: Disk, C: Clock>(
    shared: &Shared<S, D, C>,
    config: &Config,
    desks: &BTreeMap<RunnerKey, Desk>,
) -> Result<Census, Error> {
    let snapshot = shared.ops.disk().read().await?;
    let records = shared.ops.disk().records().await?;
    let mut census = census(config, records.records, &snapshot);
    write_down(shared, &census).await?;
    census.members.retain(|member| !is_served(&member.runner, &snapshot, desks));
    Ok(census)
}

/// Whether its record says that it was unregistered, which only another process does while this one runs.
fn is_retired(runner: &Runner) -> bool {
    runner.record.credential.is_none() && runner.record.state == RETIRED
}

/// Whether a worker has this key, or answers for every entry that this runner would.
fn is_served(runner: &Runner, snapshot: &Snapshot, desks: &BTreeMap<RunnerKey, Desk>) -> bool {
    if desks.contains_key(&runner.record.key) {
        return true;
    }
    let target = runner.target();
    let mut own = snapshot.entries.iter().filter(|entry| is_own(&target, entry)).peekable();
    own.peek().is_some() && own.all(|entry| desks.values().any(|desk| is_own(&desk.target.borrow(), entry)))
}
