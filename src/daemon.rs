//! The daemon: keeps every runner's credential alive until it is stopped.
//!
//! A worker per runner has done what its driver plans; a runner in trouble delays no other. Between two steps it rests in
//! the roster, which keeps the time. The supervisor takes the inventory, passes on notices and changes of files, and ends
//! all work within the grace time. A task for each `[[server]]` keeps its access token. The assembly puts the real parts
//! together: settings, store, client, signals, service manager, status server.
//!
//! Everything runs on the caller's current-thread runtime. How a runner is driven is the engine's matter.

mod access_tokens;
mod announcements;
mod assembly;
mod config_change;
mod disk_watch;
mod events;
mod file_watch;
mod heartbeat;
mod hooks;
mod once;
mod roster;
mod settings_files;
mod settings_reader;
mod shutdown;
mod store_watch;
mod supervisor;
mod transition_log;
mod worker;

#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};

use crate::clock::Clock;
use crate::engine::Engine;
use crate::ops::{Disk, Server};
use crate::status::{Counters, StatusRegistry};

pub use access_tokens::SettingsFeed;
pub use assembly::{Assembly, PassOutcome, StartError, expect_runners};
pub use file_watch::{Changed, Watch, Watched, Watcher};
pub use heartbeat::{HEARTBEAT_INTERVAL, HEARTBEAT_TIMEOUT, Heartbeat};
pub use hooks::HookFeed;
pub use once::{Ending, Pass, PassedRunner, once};
pub use settings_reader::{Reading, Reload, SettingsResult};
pub use shutdown::ShutdownOutcome;
pub use supervisor::run;

use worker::DrainMode;

/// What the daemon is made of; tests bring their own.
pub struct Parts<S, D, C> {
    /// Server, disk, time and chance.
    pub engine: Engine<S, D, C>,
    /// Reports changes of config.toml and agent.toml; `None` if they cannot be watched.
    pub watch: Option<Watch>,
    /// Set with every turn of the supervisor's loop.
    pub heartbeat: Heartbeat,
    /// Passes the settings in force on to what follows them.
    pub feed: SettingsFeed,
    /// Reads the settings again.
    pub reload: Reload,
    /// How long a request may take: a stop waits that long for an answer that is the only copy of a token.
    pub request_timeout: Duration,
    /// Receives the daemon's phase and the status of every runner.
    pub registry: StatusRegistry,
    /// Counts operations.
    pub counters: Counters,
    /// Tells the dispatcher of hooks what is seen.
    pub hooks: HookFeed,
}

/// What the daemon is asked to do from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Stop, and unregister by policy. A second one ends all waiting but that for a new token, a third one ends that too.
    Stop,
    /// Stop, and keep every registration.
    StopAndKeep,
    /// Stop because the machine reboots: as `[shutdown] on_reboot` says.
    StopForReboot,
    /// Read settings and files again, and verify now.
    Reload,
}

/// Where notices arrive.
pub type Notices = mpsc::UnboundedReceiver<Notice>;

/// What the workers share.
struct Shared<S, D, C> {
    engine: Rc<Engine<S, D, C>>,
    registry: StatusRegistry,
    counters: Counters,
    hooks: HookFeed,
    /// What may go on while the daemon stops.
    drain_mode: watch::Sender<DrainMode>,
    /// A worker has left its registration to another process: an inventory gives that one's runner to the enrollment.
    left_registration: Notify,
}

impl<S: Server, D: Disk, C: Clock> Shared<S, D, C> {
    fn new(engine: Engine<S, D, C>, registry: StatusRegistry, counters: Counters, hooks: HookFeed) -> Self {
        let drain_mode = watch::channel(DrainMode::Finish).0;
        Self { engine: Rc::new(engine), registry, counters, hooks, drain_mode, left_registration: Notify::new() }
    }
}
