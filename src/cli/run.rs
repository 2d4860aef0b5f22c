//! `run`: the daemon.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::mpsc;

use super::arguments::RunArguments;
use super::context::{Context, chance, operations};
use super::{Error, Exit};
use crate::clock::{Clock, SystemClock};
use crate::daemon::{self, Heartbeat, Notice, Parts, Progress, ShutdownOutcome, Watch, Watched, Watcher};
use crate::engine;
use crate::gitlab::{self, Client, Observer};
use crate::model::{RunnerKey, RunnerReport, StateName, VerifyOutcome};
use crate::ops::{Enrollment, RegistrationSource};
use crate::secret::Source;
use crate::settings::{self, Environment, Overrides, Paths, Settings};
use crate::signals::{Signal, Signals};
use crate::status::{Counters, Sources, StatusRegistry, StatusServer, StatusServerConfig};
use crate::store::Store;
use crate::systemd;

/// Runs until a signal ends it, or makes one pass.
pub(super) async fn run(context: &Context<'_>, arguments: &RunArguments, mut signals: Signals) -> Result<Exit, Error> {
    let store = Store::open(context.settings()?.store)?;
    let _instance = store.lock_instance().await?;
    let environment = context.environment.clone().remembering(names(&store).await?);
    let Settings { mut gitlab, engine: config, status_server, .. } = settings::load(&context.overrides, &environment)?;
    if environment.is_container {
        warn_of_lost_state(&store, &config).await;
    }
    let counters = Counters::new();
    let store = counted(store, &mut gitlab, &counters);
    let files = Files {
        overrides: context.overrides.clone(),
        environment,
        config: store.config_path().to_owned(),
        status_server: status_server.clone(),
    };
    let watch = files.watch(&config);
    let (progress, news) = mpsc::unbounded_channel();
    let parts = Parts {
        ops: operations(store.clone(), Client::new(gitlab)).await?,
        clock: SystemClock,
        chance,
        heartbeat: Heartbeat::new(),
        reload: files.reload(watch.as_ref().map(Watch::watcher)),
        watch,
        registry: StatusRegistry::default(),
        counters,
        progress,
    };
    let ended = if arguments.once {
        pass(context, config, parts, &mut signals).await
    } else {
        let instance_id = settings::instance_id(store.config_path());
        serve(config, parts, news, &mut signals, StatusServer::listen(&status_server).await?, instance_id).await
    };
    // Of what was given up, a new token may be on its way to the disk still.
    systemd::notify_stopping_during(drain(&store, &mut signals)).await;
    ended
}

/// What the runners that were enrolled before are called.
async fn names(store: &Store) -> Result<Vec<(RunnerKey, String)>, Error> {
    let records = store.records().await?.records;
    Ok(records.into_iter().filter_map(|record| Some((record.key, record.name?))).collect())
}

/// A created runner's token is replaced by a new one that only the state knows: without it the next container
/// has nothing but the old one.
async fn warn_of_lost_state(store: &Store, config: &engine::Config) {
    let given = config.enrollments.iter().find(|enrollment| matches!(enrollment.source, RegistrationSource::Given(_)));
    let Some(given) = given.filter(|_| config.rotate.is_some()) else { return };
    if store.is_gone_with_container().await {
        tracing::warn!(
            runner = given.entry.name,
            "the state directory is gone with this container, and a rotated token with it, while the token that was given is dead then: mount a volume for the state directory"
        );
    }
}

/// Waits for what is on its way to the disk, as long as a disk may be slow.
async fn drain(store: &Store, signals: &mut Signals) {
    let mut drained = pin!(store.drain());
    let mut limit = pin!(tokio::time::sleep(SLOW_DISK));
    loop {
        tokio::select! {
            biased;
            () = &mut drained => return,
            () = &mut limit => {
                tracing::error!("the disk does not take what is on its way to it: ending without");
                return;
            }
            _ = signals.next() => tracing::warn!(
                seconds = SLOW_DISK.as_secs(),
                "told to stop again: still waiting for the disk, since a new token may be on its way to it"
            ),
        }
    }
}

/// How long the end waits for a disk: as long as systemd waits for a service unless told otherwise.
const SLOW_DISK: Duration = Duration::from_secs(90);

/// The daemon, until a signal ends it.
async fn serve(
    config: engine::Config,
    parts: DaemonParts,
    news: mpsc::UnboundedReceiver<Progress>,
    signals: &mut Signals,
    status_server: StatusServer,
    instance_id: String,
) -> Result<Exit, Error> {
    let (notices, inbox) = mpsc::unbounded_channel();
    let (heartbeat, registry) = (parts.heartbeat.clone(), parts.registry.clone());
    let sources = Sources {
        instance_id,
        registry: registry.clone(),
        counters: parts.counters.clone(),
        is_alive: is_alive(&heartbeat),
    };
    let outcome = tokio::select! {
        result = daemon::run(config, parts, inbox) => result?,
        never = pass_on(signals, &notices) => match never {},
        never = keep_posted(news) => match never {},
        never = keep_status(&registry) => match never {},
        never = status_server.serve(sources) => match never {},
        never = systemd::ping_watchdog(|| heartbeat.is_well()) => match never {},
    };
    Ok(match outcome {
        ShutdownOutcome::Done => Exit::Done,
        ShutdownOutcome::Unfinished => Exit::Failed,
    })
}

/// Has requests and changes of config.toml counted.
fn counted(store: Store, gitlab: &mut gitlab::Config, counters: &Counters) -> Store {
    let (requests, writes) = (counters.clone(), counters.clone());
    gitlab.observer = Some(Observer::new(move |exchange| {
        requests.count_request(exchange.endpoint.label(), exchange.outcome, exchange.took);
    }));
    store.observed(move |is_done| writes.count_config_write(is_done))
}

fn is_alive(heartbeat: &Heartbeat) -> Box<dyn Fn() -> bool + Send + Sync> {
    let heartbeat = heartbeat.clone();
    Box::new(move || heartbeat.is_well())
}

/// Tells the daemon what the signals mean, until it has ended.
async fn pass_on(signals: &mut Signals, notices: &mpsc::UnboundedSender<Notice>) -> Infallible {
    loop {
        let notice = match signals.next().await {
            Signal::Terminate if systemd::is_rebooting().await => Notice::StopForReboot,
            Signal::Terminate | Signal::Interrupt => Notice::Stop,
            Signal::Quit => Notice::StopAndKeep,
            Signal::Hangup => Notice::Reload,
        };
        // Once the daemon has ended, so does this.
        let _ended = notices.send(notice);
    }
}

/// Tells the service manager how far the daemon is, until it has ended.
async fn keep_posted(mut news: mpsc::UnboundedReceiver<Progress>) -> Infallible {
    while let Some(progress) = news.recv().await {
        match progress {
            Progress::Serving => systemd::notify_ready(),
            Progress::Reloading => systemd::notify_reloading(),
            Progress::Stopping => break,
        }
    }
    systemd::notify_stopping_during(std::future::pending()).await
}

/// Tells the service manager how the runners stand, until the daemon has ended.
async fn keep_status(registry: &StatusRegistry) -> Infallible {
    let mut changes = registry.changes();
    let mut told = String::new();
    loop {
        let sentence = registry.summary(SystemClock.read());
        if sentence != told {
            systemd::notify_status(&sentence);
            told = sentence;
        }
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// One pass. As with the other commands that end by themselves, any signal asks for an end: what is under
/// way has the grace time to finish, and a second signal takes that away.
async fn pass(
    context: &Context<'_>,
    config: engine::Config,
    parts: DaemonParts,
    signals: &mut Signals,
) -> Result<Exit, Error> {
    let grace = config.shutdown.grace;
    let mut pass = pin!(daemon::once(config, parts));
    let runners = tokio::select! {
        biased;
        runners = &mut pass => runners?,
        _ = signals.next() => {
            context.reporter.remark("interrupted: finishing what is under way, a second signal ends at once");
            tokio::select! {
                biased;
                runners = &mut pass => runners?,
                _ = signals.next() => return Err(unfinished("told to stop a second time")),
                () = tokio::time::sleep(grace) => return Err(unfinished("the grace time is over")),
            }
        }
    };
    Ok(tell(context, runners))
}

fn unfinished(why: &str) -> Error {
    Error::Interrupted(format!("{why} before the pass was: the next start finishes what was begun"))
}

type DaemonParts = Parts<Client, Store, SystemClock>;

/// Where the settings come from, to read and watch them again later.
struct Files {
    overrides: Overrides,
    environment: Environment,
    /// config.toml, with symbolic links resolved.
    config: PathBuf,
    /// Where the daemon answers, which lasts until its end.
    status_server: StatusServerConfig,
}

impl Files {
    /// Watches config.toml, agent.toml and the token files; without it, HUP still works.
    fn watch(&self, config: &engine::Config) -> Option<Watch> {
        Watch::new(self.watched(config)).inspect_err(cannot_watch).ok()
    }

    /// Reads the settings again, and watches the token files that they name then.
    fn reload(self, mut watcher: Option<Watcher>) -> Box<dyn FnMut() -> Option<engine::Config>> {
        Box::new(move || match settings::load(&self.overrides, &self.environment) {
            Ok(Settings { engine: config, status_server, .. }) => {
                if status_server != self.status_server {
                    tracing::warn!("the addresses in [http] take effect when the daemon is started anew");
                }
                if let Some(watcher) = &mut watcher {
                    watcher.watch(self.watched(&config)).unwrap_or_else(|error| cannot_watch(&error));
                }
                Some(config)
            }
            Err(errors) => {
                tracing::error!("the settings are wrong, those from before stay in force: {errors}");
                None
            }
        })
    }

    fn watched(&self, config: &engine::Config) -> Watched {
        let Paths { agent_config, config: path, .. } = settings::paths(&self.overrides, &self.environment);
        let seeds = config.enrollments.iter().filter_map(seed_file);
        Watched {
            config: vec![path, self.config.clone()],
            settings: std::iter::once(agent_config).chain(seeds).collect(),
        }
    }
}

fn cannot_watch(error: &io::Error) {
    tracing::warn!(%error, "cannot watch files for changes: send HUP after changing them");
}

fn seed_file(enrollment: &Enrollment) -> Option<PathBuf> {
    match enrollment.source.secret_source() {
        Source::File(path) => Some(path.clone()),
        Source::Credential { .. } | Source::Value { .. } => None,
    }
}

fn tell(context: &Context<'_>, runners: Vec<RunnerReport>) -> Exit {
    let exits: Vec<_> = runners.iter().map(exit_of).collect();
    let now = context.now();
    context.reporter.runners(runners, |runners| super::list::table(runners, now));
    Exit::of_all(&exits)
}

fn exit_of(runner: &RunnerReport) -> Exit {
    if runner.error.is_some() {
        return Exit::LocalFile;
    }
    let is_accepted = runner.last_verify.as_ref().is_none_or(|verify| verify.outcome == VerifyOutcome::Accepted);
    match runner.state {
        StateName::Active if is_accepted => Exit::Done,
        StateName::Active | StateName::Unregistered | StateName::Uncertain => Exit::Unreachable,
        StateName::Rejected
        | StateName::NotRenewable
        | StateName::Failed
        | StateName::Retired
        | StateName::Unusable
        | StateName::Unknown => Exit::Refused,
    }
}
