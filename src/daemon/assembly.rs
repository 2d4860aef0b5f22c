//! The composition root: puts the daemon together from the real parts, and runs it.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::access_tokens::{AccessTokens, SettingsFeed};
use super::disk_watch::watch_disk;
use super::hooks::{self, HookFeed, RunningHooks};
use super::settings_files::SettingsFiles;
use super::store_watch::open_at_start;
use super::supervisor::reached;
use super::{Heartbeat, Notice, Parts, Pass, ShutdownOutcome, Watch, once, supervisor};
use crate::clock::{Clock as _, SystemClock};
use crate::engine::{Config, Engine};
use crate::files::{ReadLimit, limit_reads, spawn_file_task};
use crate::gitlab::{self, Client, Observer};
use crate::model::RunnerKey;
use crate::ops::{self, RegistrationSource, ServerAccess, SoleCopies, StoredAccessToken};
use crate::settings::{self, Environment, Overrides, Settings};
use crate::sharing;
use crate::signals::{Signal, Signals, has_end_arrived};
use crate::status::{
    Counters, PageAccess, Phase, Sources, StatusRegistry, StatusServer, StatusServerConfig, StatusServerError,
};
use crate::store::{self, HookFiles, InstanceLock, Record, Store};
use crate::systemd;

/// Why the daemon ended before it was stopped.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No runner is enrolled, config.toml has no entries, and the settings do not say that it is to get any.
    #[error("nothing to serve: {} has no [[runners]] entry, and the settings enroll no runner", config.display())]
    NothingToServe {
        /// The path of config.toml.
        config: PathBuf,
        /// Whether the environment names a server, and only the token is missing.
        has_server: bool,
    },
    /// The settings are invalid.
    #[error(transparent)]
    Settings(#[from] settings::Errors),
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// An address or socket of the status server cannot be used.
    #[error(transparent)]
    StatusServer(#[from] StatusServerError),
    /// config.toml or the state directory cannot be read.
    #[error(transparent)]
    Operation(#[from] ops::Error),
    /// The store of shared runners cannot be used.
    #[error(transparent)]
    Sharing(#[from] sharing::Error),
}

/// What became of one pass.
#[derive(Debug)]
pub enum PassOutcome {
    /// Every runner, after the pass.
    Complete(Pass),
    /// It was cut short, for this reason; the next start finishes what was begun.
    CutShort(&'static str),
}

/// The daemon with everything that it needs to run.
pub struct Assembly {
    config: Config,
    parts: Parts<Client, Store, SystemClock>,
    client: Client,
    store: Store,
    status_server: StatusServerConfig,
    instance_id: String,
    _instance: InstanceLock,
}

/// How long a start goes on that was asked to end: it has begun nothing, and its files may be on a share that does not
/// answer.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the end waits for a disk: as long as systemd waits for a service by default.
const DISK_TIMEOUT: Duration = Duration::from_secs(90);

impl Assembly {
    /// Reads the settings, locks the instance, and puts the parts together. `None` if a signal that asks for an end comes and
    /// that is not complete soon after. The signals that came before it was complete are received again.
    ///
    /// # Errors
    /// Invalid settings, another daemon for this config.toml, and unusable files.
    pub async fn start(
        overrides: &Overrides,
        environment: &Environment,
        signals: &mut Signals,
    ) -> Result<Option<Self>, StartError> {
        limit_reads(ReadLimit::Start, has_end_arrived);
        let (mut received, mut end) = (Vec::new(), None);
        let mut started = pin!(Self::assemble(overrides, environment));
        let assembly = loop {
            tokio::select! {
                biased;
                assembly = &mut started => break assembly?,
                signal = signals.next() => {
                    if signal != Signal::Hangup {
                        end.get_or_insert(Instant::now() + START_TIMEOUT);
                    }
                    received.push(signal);
                }
                () = reached(end) => return Ok(None),
            }
        };
        signals.put_back(received);
        Ok(Some(assembly))
    }

    /// Other threads wait for the files, so the caller can stop waiting for them.
    async fn assemble(overrides: &Overrides, environment: &Environment) -> Result<Self, StartError> {
        let settings = load(overrides, environment).await?;
        settings.log_warnings();
        let named = settings.store.config_path.clone();
        let store = awaited(spawn_file_task(&named, move || Store::open(settings.store))).await?;
        let config_path = store.config_path().to_owned();
        let instance = store.lock_instance().await?;
        // Enrollments keep the names that their runners have.
        let environment = environment.clone().remembering(recorded_names(&store).await?);
        let settings = load(overrides, &environment).await?;
        // Before anything is bound or sent.
        store.read().await?;
        expect_runners(&settings, &environment, &store).await?;
        let Settings { mut gitlab, engine: config, status_server, templates, warnings, .. } = settings;
        if environment.is_container {
            warn_of_lost_state(&store, &config).await;
        }
        let (counters, request_timeout) = (Counters::new(), gitlab.request_timeout);
        let store = count_work(store, &mut gitlab, &counters);
        let overrides = overrides.clone();
        let warnings = Mutex::new(warnings);
        let files = SettingsFiles { overrides, environment, status_server: status_server.clone(), warnings };
        let (files, config, watch, instance_id) = awaited(spawn_file_task(&config_path.clone(), move || {
            let watch = files.watch(&config, templates);
            (files, config, watch, settings::instance_id(&config_path))
        }))
        .await;
        let client = Client::new(gitlab);
        let engine = Engine::open(store.clone(), client.clone(), settings::this_program()).await?;
        engine.ops.share_in(open_at_start(&config).await?);
        let parts = Parts {
            engine,
            heartbeat: Heartbeat::new(),
            reload: files.reload(watch.as_ref().and_then(Watch::watcher)),
            watch,
            feed: SettingsFeed::default(),
            request_timeout,
            registry: StatusRegistry::default(),
            counters,
            hooks: HookFeed::default(),
        };
        Ok(Self { config, parts, client, store, status_server, instance_id, _instance: instance })
    }

    /// Runs until a signal ends it.
    ///
    /// # Errors
    /// [`StartError`] if the status server or the first inventory fails.
    pub async fn serve(self, signals: &mut Signals) -> Result<ShutdownOutcome, StartError> {
        let Self { config, mut parts, client, store, status_server, instance_id, _instance } = self;
        let hooks = RunningHooks::start(HookFiles::new(store.clone()), parts.counters.clone());
        parts.hooks = hooks.feed();
        let status_server = StatusServer::listen(&status_server).await?;
        let (notices, inbox) = mpsc::unbounded_channel();
        let (heartbeat, registry) = (parts.heartbeat.clone(), parts.registry.clone());
        let is_alive = Box::new({
            let heartbeat = heartbeat.clone();
            move || heartbeat.is_alive()
        });
        let sources = Sources {
            instance_id,
            registry: registry.clone(),
            counters: parts.counters.clone(),
            is_alive,
            access: PageAccess::default(),
        };
        let phases = registry.phases();
        let sole_copies = parts.engine.ops.sole_copies().clone();
        let (access_tokens, in_force) = (access_tokens(&parts, client, &store), parts.feed.subscribe());
        let is_well = || heartbeat.is_alive() && registry.stuck_because().is_none();
        let outcome = tokio::select! {
            outcome = supervisor::run(config, parts, inbox) => outcome.map_err(StartError::from),
            never = forward_signals(signals, &notices) => match never {},
            never = report_phases(phases) => match never {},
            never = access_tokens.keep(in_force) => match never {},
            never = watch_disk(&store, &sole_copies, &registry) => match never {},
            never = report_status(&registry) => match never {},
            never = status_server.serve(sources) => match never {},
            never = systemd::ping_watchdog(is_well) => match never {},
        };
        let end = async {
            finish_hooks(hooks, hooks::AT_STOP, signals).await;
            drain(&store, signals).await;
        };
        tokio::select! {
            biased;
            () = systemd::notify_stopping_during(end) => {}
            never = watch_disk(&store, &sole_copies, &registry) => match never {},
        }
        outcome
    }

    /// Makes one pass over all runners. As in the other commands that end by themselves, any signal asks for an end:
    /// what is under way has the grace time to finish, and a second signal takes that away. An answer that is the only
    /// copy of a token is waited for nevertheless, up to a third signal.
    ///
    /// # Errors
    /// [`StartError::Operation`] if config.toml or the state directory cannot be read.
    pub async fn pass(mut self, signals: &mut Signals, on_interrupt: impl FnOnce()) -> Result<PassOutcome, StartError> {
        let hooks = RunningHooks::start(HookFiles::new(self.store.clone()), self.parts.counters.clone());
        self.parts.hooks = hooks.feed();
        let (grace, request_timeout) = (self.config.shutdown.grace, self.parts.request_timeout);
        let patience = self.config.hooks.iter().map(|hook| hook.timeout).max().unwrap_or(hooks::AT_STOP);
        let sole_copies = self.parts.engine.ops.sole_copies().clone();
        let outcome = {
            let (access, config) = (access_tokens(&self.parts, self.client, &self.store), self.config.clone());
            let pass = async {
                let (runners, ()) = tokio::join!(once(self.config, self.parts), access.pass_once(&config));
                runners
            };
            let mut pass = pin!(pass);
            tokio::select! {
                biased;
                reports = &mut pass => reports.map(PassOutcome::Complete),
                _ = signals.next() => {
                    on_interrupt();
                    sole_copies.close();
                    systemd::notify_stopping_during(finish(pass, signals, &sole_copies, grace, request_timeout)).await
                }
            }
        };
        // A pass is the only chance of a hook.
        let limit = if matches!(outcome, Ok(PassOutcome::Complete(_))) { patience } else { hooks::AT_STOP };
        // A cancelled operation may still be writing a new token.
        let end = async {
            finish_hooks(hooks, limit, signals).await;
            drain(&self.store, signals).await;
        };
        systemd::notify_stopping_during(end).await;
        Ok(outcome?)
    }
}

/// What keeps the access tokens.
fn access_tokens(
    parts: &Parts<Client, Store, SystemClock>,
    client: Client,
    store: &Store,
) -> AccessTokens<Client, SystemClock, impl Fn(&ServerAccess) -> StoredAccessToken + 'static> {
    let store = store.clone();
    let ops = &parts.engine.ops;
    AccessTokens {
        server: client,
        clock: SystemClock,
        disk_of: move |access: &ServerAccess| StoredAccessToken::of(store.clone(), access),
        copies: ops.sole_copies().clone(),
        uses: ops.access_uses().clone(),
        registry: parts.registry.clone(),
        counters: parts.counters.clone(),
        hooks: parts.hooks.clone(),
    }
}

/// Ends a pass: within the grace time, unless a signal comes; then within the time of a request, as long as an answer
/// is awaited that is the only copy of a token.
async fn finish(
    mut pass: Pin<&mut impl Future<Output = Result<Pass, ops::Error>>>,
    signals: &mut Signals,
    sole_copies: &SoleCopies,
    grace: Duration,
    request_timeout: Duration,
) -> Result<PassOutcome, ops::Error> {
    let why = tokio::select! {
        biased;
        reports = &mut pass => return reports.map(PassOutcome::Complete),
        _ = signals.next() => "a second signal came",
        () = tokio::time::sleep(grace) => "the grace time is over",
    };
    if sole_copies.under_way() > 0 {
        tracing::warn!("waiting for answers that are the only copies of new tokens; another signal ends without them");
        tokio::select! {
            biased;
            reports = &mut pass => return reports.map(PassOutcome::Complete),
            () = sole_copies.finished() => {}
            _ = signals.next() => return Ok(PassOutcome::CutShort("another signal came, and new tokens are lost")),
            () = tokio::time::sleep(request_timeout) => {}
        }
    }
    Ok(PassOutcome::CutShort(why))
}

async fn load(overrides: &Overrides, environment: &Environment) -> Result<Settings, settings::Errors> {
    let (overrides, environment) = (overrides.clone(), environment.clone());
    awaited(spawn_file_task(Path::new("agent.toml"), move || settings::load(&overrides, &environment))).await
}

/// The result of another thread's work; a panic of its goes on here.
async fn awaited<T>(work: JoinHandle<T>) -> T {
    match work.await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only the end of the runtime cancels it, and then nothing waits.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Fails if there is nothing to serve and nothing to wait for: a container that lacks its settings should not look well.
///
/// # Errors
/// [`StartError::NothingToServe`], and [`StartError::Store`] if config.toml or the state directory cannot be read.
pub async fn expect_runners(settings: &Settings, environment: &Environment, store: &Store) -> Result<(), StartError> {
    let has_server = settings::has_server_variable(environment);
    // A machine's agent.toml without an enrollment is for the entries that config.toml has or gets.
    if !settings.engine.enrollments.is_empty() || settings.has_file && !has_server {
        return Ok(());
    }
    let awaits_entry = |record: &Record| record.credential.is_some() && record.entry_text.is_some();
    if !store.read().await?.entries.is_empty() || store.records().await?.records.iter().any(awaits_entry) {
        return Ok(());
    }
    let config = store.config_path().to_owned();
    if settings.waits_for_config {
        tracing::info!(config = %config.display(), "waiting for another process to write the first entry into config.toml");
        return Ok(());
    }
    Err(StartError::NothingToServe { config, has_server })
}

/// The names of the runners that were enrolled before.
async fn recorded_names(store: &Store) -> Result<Vec<(RunnerKey, String)>, store::Error> {
    let records = store.records().await?.records;
    Ok(records.into_iter().filter_map(|record| Some((record.key, record.name?))).collect())
}

/// A rotation replaces a created runner's token by one that only the state directory knows: without it the next
/// container has nothing but the old one.
async fn warn_of_lost_state(store: &Store, config: &Config) {
    let given = config.enrollments.iter().find(|enrollment| matches!(enrollment.source, RegistrationSource::Given(_)));
    let Some(given) = given.filter(|_| config.rotate.is_some()) else { return };
    if store.is_gone_with_container().await {
        tracing::warn!(
            runner = given.entry.name,
            "the state directory does not outlive this container: a rotated token would be lost with it, and the given token is dead then: mount a volume for the state directory"
        );
    }
}

/// Counts requests to GitLab, changes of config.toml and jobs of the disk thread.
fn count_work(store: Store, gitlab: &mut gitlab::Config, counters: &Counters) -> Store {
    let (requests, writes, jobs) = (counters.clone(), counters.clone(), counters.clone());
    store.observe_jobs(move |took| jobs.count_disk_job(took));
    gitlab.observer = Some(Observer::new(move |exchange| {
        requests.count_request(exchange.endpoint.as_str(), exchange.outcome, exchange.took);
    }));
    store.observed(move |is_done| writes.count_config_write(is_done))
}

/// Passes signals on as notices, until the daemon has ended.
async fn forward_signals(signals: &mut Signals, notices: &mpsc::UnboundedSender<Notice>) -> Infallible {
    loop {
        let notice = match signals.next().await {
            Signal::Terminate if systemd::is_rebooting().await => Notice::StopForReboot,
            Signal::Terminate | Signal::Interrupt => Notice::Stop,
            Signal::Quit => Notice::StopAndKeep,
            Signal::Hangup => Notice::Reload,
        };
        // Once the daemon has ended, this future is dropped.
        let _ended = notices.send(notice);
    }
}

/// Reports the daemon's phase to the service manager, until the daemon has ended.
async fn report_phases(mut phases: mpsc::UnboundedReceiver<Phase>) -> Infallible {
    while let Some(phase) = phases.recv().await {
        match phase {
            Phase::Starting => {}
            Phase::Serving => systemd::notify_ready(),
            Phase::Reloading => systemd::notify_reloading(),
            Phase::Stopping => break,
        }
    }
    systemd::notify_stopping_during(std::future::pending()).await
}

/// The pause between two reports to the service manager: each looks at all runners.
const STATUS_PAUSE: Duration = Duration::from_millis(250);

/// Reports the runners' status to the service manager, until the daemon has ended.
async fn report_status(registry: &StatusRegistry) -> Infallible {
    let mut changes = registry.changes();
    let mut reported = String::new();
    loop {
        let summary = registry.summary(SystemClock.read());
        if summary != reported {
            systemd::notify_status(&summary);
            reported = summary;
        }
        tokio::time::sleep(STATUS_PAUSE).await;
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Waits for hooks that are due, up to a signal.
async fn finish_hooks(hooks: RunningHooks, limit: Duration, signals: &mut Signals) {
    tokio::select! {
        biased;
        () = hooks.finish(limit) => {}
        () = stop_signal(signals) => tracing::warn!("stop signal: not waiting for hooks, which the next start runs"),
    }
}

/// Waits for writes that are under way, as long as a disk may be slow, and up to a second signal.
async fn drain(store: &Store, signals: &mut Signals) {
    let mut drained = pin!(store.drain());
    let mut limit = pin!(tokio::time::sleep(DISK_TIMEOUT));
    for is_last in [false, true] {
        tokio::select! {
            biased;
            () = &mut drained => return,
            () = &mut limit => {
                tracing::error!("the disk does not finish the writes under way: ending without them");
                return;
            }
            () = stop_signal(signals) => {}
        }
        if !is_last {
            tracing::warn!(
                seconds = DISK_TIMEOUT.as_secs(),
                "stop signal: still waiting for the disk, which may be writing a new token; another signal ends that too"
            );
        }
    }
}

/// Waits for a signal that asks for an end.
async fn stop_signal(signals: &mut Signals) {
    while signals.next().await == Signal::Hangup {}
}
