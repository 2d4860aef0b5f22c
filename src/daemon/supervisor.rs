//! The supervisor: starts the workers, passes on notices and changes, and ends them.
//!
//! Its loop waits for events only. An answer of the disk is an event too, so a disk or network share that does not answer
//! delays neither the heartbeat nor a stop.

mod changes;
mod inventory;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::config_change::ConfigChange;
use super::events::RunnerEvents;
use super::roster::{Ended, Roster};
use super::settings_reader::{Cause, SettingsReader};
use super::shutdown::{ShutdownOutcome, StopMode};
use super::store_watch::{StoreEvent, StoreWatch};
use super::worker::{FileState, Secrets, UnregisteredElsewhere, Worker};
use super::{Changed, Heartbeat, Notice, Notices, Parts, SettingsFeed, Shared, Watch};
use crate::clock::Clock;
use crate::engine::{Config, Driver, Inventory, ManagedRunner, RotateFound, take_inventory};
use crate::error_chain::chain;
use crate::files::{late_read, limit_reads_while_serving};
use crate::model::RunnerKey;
use crate::ops::{Disk, Error, Server};
use crate::status::Phase;
use crate::store::{Difference, Snapshot, Urgency};

/// How long config.toml must have been still before a missing entry counts as removed: editors and configuration
/// management write the file in several steps.
const STILL: Duration = Duration::from_secs(5);

/// How long a runner rests after its worker has panicked: a fault that comes back must not become a stream of requests.
pub(super) const REST: Duration = Duration::from_secs(60);

/// How long until an inventory is taken that has failed before, or that an enrollment waits for.
const INVENTORY_RETRY: Duration = Duration::from_secs(60);

const PANICKED: &str = "an internal error, see the log, has ended the work on it; it is taken up again within a minute";

/// Runs the daemon until a notice stops it. What a crash interrupted is finished first.
///
/// # Errors
/// [`Error::Disk`] if config.toml or the state directory cannot be read at the start.
pub async fn run<S: Server, D: Disk, C: Clock>(
    config: Config,
    parts: Parts<S, D, C>,
    notices: Notices,
) -> Result<ShutdownOutcome, Error> {
    LocalSet::new().run_until(supervise(config, parts, notices)).await
}

async fn supervise<S: Server, D: Disk, C: Clock>(
    config: Config,
    parts: Parts<S, D, C>,
    mut notices: Notices,
) -> Result<ShutdownOutcome, Error> {
    let Parts { engine, watch, heartbeat, feed, reload, request_timeout, registry, counters, hooks } = parts;
    let shared = Rc::new(Shared::new(engine, registry, counters, hooks));
    let files = FilesOutside { watch, settings: SettingsReader::new(reload), feed };
    let mut supervisor = Supervisor::new(shared, config, files, heartbeat);
    let heartbeat = supervisor.heartbeat.clone();
    tokio::select! {
        biased;
        started = supervisor.start() => started?,
        () = heartbeat.keep_beating() => {}
    }
    limit_reads_while_serving();
    supervisor.enter(Phase::Serving);
    let mode = loop {
        supervisor.heartbeat.beat();
        match supervisor.next(&mut notices).await {
            Event::Notice(Notice::Stop) => break StopMode::ByPolicy,
            Event::Notice(Notice::StopAndKeep) => break StopMode::Keep,
            Event::Notice(Notice::StopForReboot) => break supervisor.config.shutdown.on_reboot.into(),
            Event::Notice(Notice::Reload) => {
                supervisor.enter(Phase::Reloading);
                supervisor.shared.registry.begin_reload();
                supervisor.reload = ReloadStage::Settings;
                supervisor.files.settings.read(Cause::Asked(Instant::now()));
            }
            Event::Settings(Cause::Asked(asked_at), config) => supervisor.reload(config.map(|it| *it), asked_at),
            Event::Settings(Cause::Changed, config) => supervisor.settings_changed(config.map(|it| *it)),
            Event::Changed(changed) => {
                if changed.settings {
                    supervisor.files.settings.read(Cause::Changed);
                }
                if changed.config {
                    supervisor.read_config();
                }
            }
            Event::LateRead => supervisor.hand_out_secrets(),
            Event::FileStill => supervisor.read_config(),
            Event::Read(file, read) => supervisor.compare(file, *read),
            Event::Inventory(taken) => supervisor.take_over(*taken),
            Event::Store(event) => supervisor.store_changed(event),
            // It may have left its runner to the next inventory.
            Event::WorkerEnded => supervisor.look_for_runners(UnregisteredElsewhere::LeaveAlone),
            Event::Retry => {
                supervisor.read_config();
                supervisor.look_for_runners(UnregisteredElsewhere::LeaveAlone);
            }
            Event::Rested => {
                supervisor.replays = true;
                supervisor.look_for_runners(UnregisteredElsewhere::LeaveAlone);
            }
            Event::None => {}
        }
    };
    supervisor.enter(Phase::Stopping);
    Ok(supervisor.stop(mode, request_timeout, &mut notices).await)
}

type InventoryResult = Result<(Inventory, Arc<Snapshot>), Error>;

enum Event {
    Notice(Notice),
    Changed(Changed),
    /// The settings were read, or are invalid for these reasons.
    Settings(Cause, Result<Box<Config>, String>),
    /// A file has answered after its read was given up: a token file perhaps.
    LateRead,
    FileStill,
    /// config.toml was read after a change, or because it has been still.
    Read(FileState, Box<Result<ConfigChange, Error>>),
    /// An inventory was taken; `None` if it has panicked.
    Inventory(Box<Option<InventoryResult>>),
    WorkerEnded,
    /// The store of shared runners has changed, or another one is used.
    Store(StoreEvent),
    /// An inventory that was taken a while ago has failed, or an enrollment waits for one.
    Retry,
    /// A runner has rested after a panic.
    Rested,
    /// Time for a heartbeat.
    None,
}

/// The files that people change.
struct FilesOutside {
    watch: Option<Watch>,
    settings: SettingsReader,
    /// For those outside who follow the settings and the files that they name.
    feed: SettingsFeed,
}

pub(super) struct Supervisor<S, D, C> {
    pub(super) shared: Rc<Shared<S, D, C>>,
    pub(super) config: Rc<Config>,
    /// The secrets that the settings name, as they were read last.
    secrets: Rc<Secrets>,
    files: FilesOutside,
    pub(super) heartbeat: Heartbeat,
    still_at: Option<Instant>,
    /// Whether config.toml has been still, and is to be compared as such.
    file: FileState,
    /// The version of config.toml that the workers have heard of.
    known: Arc<Snapshot>,
    /// What has changed in it since it was last still.
    unsettled: Difference,
    /// Whether that can concern other runners than those whose entries differ.
    concerns_others: bool,
    /// The read of config.toml under way.
    reading: JoinSet<(FileState, Result<ConfigChange, Error>)>,
    /// Another read is due, because of what came while this one was under way.
    is_read_due: bool,
    /// Enrollments that another process has unregistered while this one runs.
    unregistered_elsewhere: BTreeSet<RunnerKey>,
    /// What the inventory is to do that is under way, or that has failed: the next one makes up for it.
    missed_inventory: Option<UnregisteredElsewhere>,
    /// When an inventory is taken that has failed before, or that an enrollment waits for: nothing else may change.
    retry_at: Option<Instant>,
    /// Why the last inventory failed, which is logged once.
    unreadable: Option<String>,
    pub(super) roster: Roster<S, D, C>,
    /// Runners whose worker has panicked, and until when they are not served.
    pub(super) resting: BTreeMap<RunnerKey, Instant>,
    /// The inventory under way, one at a time: a slow disk holds up nothing else.
    inventory: JoinSet<InventoryResult>,
    /// Whether inventories also look for operations that were cut short, as at a start, until one has.
    replays: bool,
    /// Another inventory is due, because something changed while this one was under way.
    next_inventory: Option<UnregisteredElsewhere>,
    reload: ReloadStage,
    /// No inventory has been taken with these settings yet: the next one reports its warnings.
    has_new_settings: bool,
    /// What the log says is done with the runners that were only found in config.toml.
    announced_found: Option<RotateFound>,
    store_watch: StoreWatch,
}

/// What the last reload that was asked for waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReloadStage {
    Done,
    Settings,
    Inventory,
}

impl<S: Server, D: Disk, C: Clock> Supervisor<S, D, C> {
    fn new(shared: Rc<Shared<S, D, C>>, config: Config, files: FilesOutside, heartbeat: Heartbeat) -> Self {
        let store_watch = StoreWatch::new(&config, shared.engine.ops.shares().as_ref());
        let supervisor = Self {
            shared,
            secrets: Rc::new(Secrets::read(&config, &Secrets::default())),
            store_watch,
            config: Rc::new(config),
            files,
            heartbeat,
            // An entry that is missing from the start is missing for good once the file has been still.
            still_at: Some(Instant::now() + STILL),
            file: FileState::Changing,
            known: Arc::new(Snapshot::missing()),
            unsettled: Difference::default(),
            concerns_others: false,
            reading: JoinSet::new(),
            is_read_due: false,
            unregistered_elsewhere: BTreeSet::new(),
            missed_inventory: None,
            retry_at: None,
            unreadable: None,
            roster: Roster::new(),
            resting: BTreeMap::new(),
            inventory: JoinSet::new(),
            replays: false,
            next_inventory: None,
            reload: ReloadStage::Done,
            has_new_settings: false,
            announced_found: None,
        };
        supervisor.files.feed.publish(&supervisor.config);
        supervisor.shared.hooks.publish(&supervisor.config);
        supervisor.shared.hooks.see_settings(None, supervisor.shared.engine.now());
        supervisor.expect_enrolled();
        supervisor
    }

    fn enter(&self, phase: Phase) {
        self.shared.registry.enter(phase);
    }

    /// A runner that an enrollment asks for and that is not served is reported as missing.
    fn expect_enrolled(&self) {
        let keys = self.config.enrollments.iter().map(|enrollment| enrollment.key.clone());
        self.shared.registry.expect_runners(keys.collect());
    }

    async fn start(&mut self) -> Result<(), Error> {
        let engine = &self.shared.engine;
        let (mut inventory, snapshot) = take_inventory(&engine.ops, &self.config, engine.now()).await?;
        self.known = snapshot;
        inventory.apply_changes(&engine.ops, &BTreeSet::new()).await?;
        inventory.log_warnings();
        self.announce_found(&inventory);
        if !inventory.runners.is_empty() {
            self.probe().await;
        }
        self.retry_at = inventory.is_awaited.then(|| Instant::now() + INVENTORY_RETRY);
        let present = inventory.runners.iter().map(|managed| managed.runner.record.key.clone());
        self.shared.hooks.note_present(present, self.shared.engine.now());
        for managed in inventory.runners {
            self.spawn(managed);
        }
        self.store_watch.follow(&self.config, self.shared.engine.ops.shares().as_ref(), false);
        tracing::info!(runners = self.roster.len(), enrollments = self.config.enrollments.len(), "serving");
        Ok(())
    }

    /// Warns at the start of what would fail at the first rotation.
    async fn probe(&self) {
        if let Err(error) = self.shared.engine.ops.disk().probe(Urgency::CanWait).await {
            let error = Error::Disk(error);
            tracing::warn!(
                error = chain(&error),
                hint = error.hint(),
                "config.toml cannot be replaced: no runner can be registered and no token rotated until it can"
            );
        }
    }

    fn spawn(&mut self, managed: ManagedRunner) {
        let has_twin = managed.twin_of.is_some();
        let (config, secrets) = (Rc::clone(&self.config), Rc::clone(&self.secrets));
        let worker = Worker::new(Rc::clone(&self.shared), managed, config, secrets);
        // Its status is published here: a reader that sees the daemon serving sees every runner.
        self.roster.add(worker, has_twin);
    }

    async fn next(&mut self, notices: &mut Notices) -> Event {
        let Self {
            shared, files, still_at, retry_at, roster, heartbeat, reading, inventory, resting, store_watch, ..
        } = self;
        let changed = async {
            match &mut files.watch {
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
        };
        let (still, retry) = (reached(*still_at), reached(*retry_at));
        let rested = reached(resting.values().min().copied());
        tokio::select! {
            biased;
            notice = notices.recv() => Event::Notice(notice.unwrap_or(Notice::Stop)),
            changed = changed => {
                if changed.config {
                    (self.still_at, self.file) = (Some(Instant::now() + STILL), FileState::Changing);
                }
                Event::Changed(changed)
            }
            () = late_read() => Event::LateRead,
            (cause, config) = files.settings.finished() => Event::Settings(cause, config.map(Box::new)),
            () = still => {
                (self.still_at, self.file) = (None, FileState::Still);
                Event::FileStill
            }
            ended = roster.ended() => {
                match ended {
                    Ended::Driver(driver) => self.dismiss(&driver),
                    Ended::Panic(key) => self.rest(key),
                }
                Event::WorkerEnded
            }
            Some(read) = reading.join_next() => match read {
                Ok((file, read)) => Event::Read(file, Box::new(read)),
                // It has panicked, which has been logged.
                Err(_) => {
                    self.still_at = Some(Instant::now() + REST);
                    Event::None
                }
            },
            Some(taken) = inventory.join_next() => Event::Inventory(Box::new(taken.ok())),
            event = store_watch.next() => Event::Store(event),
            // That process may still be at work.
            () = shared.left_registration.notified() => {
                self.retry_at.get_or_insert(Instant::now() + INVENTORY_RETRY);
                Event::None
            }
            () = retry => {
                self.retry_at = None;
                Event::Retry
            }
            () = rested => {
                let now = Instant::now();
                self.resting.retain(|_, until| *until > now);
                Event::Rested
            }
            () = sleep(heartbeat.interval()) => Event::None,
        }
    }

    fn dismiss(&mut self, driver: &Driver<S, D, C>) {
        let key = &driver.runner.record.key;
        self.shared.registry.remove(key);
        self.events_of(driver).record_dismissal();
        self.shared.hooks.dismiss(&driver.runner, driver.now());
        if driver.enrollment.is_some() && driver.runner.is_unregistered() {
            self.unregistered_elsewhere.insert(key.clone());
        }
    }

    /// Where the events of a driver's runner are recorded.
    fn events_of<'a>(&'a self, driver: &'a Driver<S, D, C>) -> RunnerEvents<'a> {
        RunnerEvents { registry: &self.shared.registry, runner: &driver.runner, now: driver.now() }
    }

    /// A worker has panicked, which has been logged. Its runner is served again after a while, from what is on disk.
    fn rest(&mut self, key: RunnerKey) {
        let label = self.shared.registry.report_trouble(&key, PANICKED);
        let runner = label.as_deref().unwrap_or(key.as_str());
        tracing::error!(runner, seconds = REST.as_secs(), "its worker has panicked: taking it up again after a rest");
        self.resting.insert(key, Instant::now() + REST);
    }
}

/// Waits until then; for ever without one.
pub(super) async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
