//! The daemon: keeps every runner's credential alive until it is told to stop.
//!
//! One worker per runner asks `lifecycle` what is due, sleeps until then, lets `ops` do it and gives the
//! outcome back; a runner in trouble delays nobody else. The supervisor finds out who is to be served
//! (`census`), hands out news (a signal, a changed file), and ends it all within the grace time.
//!
//! Everything runs on the caller's current-thread runtime. Nothing here knows GitLab's answers or the
//! disk's files: that is `ops`. Settings come in as [`Config`]; a reload is a closure that brings another.

mod file_watch;
mod heartbeat;
mod once;
mod shutdown;
mod supervisor;
mod transition_log;
mod worker;

#[cfg(test)]
mod tests;

use tokio::sync::mpsc;

use crate::engine::{Config, Engine};
use crate::lifecycle::Fraction;
use crate::ops::Ops;
use crate::status::{Counters, StatusRegistry};

pub use file_watch::{Changed, Watch, Watched, Watcher};
pub use heartbeat::{HEARTBEAT_INTERVAL, HEARTBEAT_TIMEOUT, Heartbeat};
pub use once::once;
pub use supervisor::{ShutdownOutcome, run};

/// What the daemon is made of; tests bring their own.
pub struct Parts<S, D, C> {
    /// Server and disk.
    pub ops: Ops<S, D>,
    /// Where the time comes from.
    pub clock: C,
    /// Where chance comes from: a fresh draw with every call.
    pub chance: fn() -> Fraction,
    /// Tells that config.toml or agent.toml changed; `None` if they cannot be watched.
    pub watch: Option<Watch>,
    /// Set by the supervisor's loop with every turn, for whoever wants to know that it turns.
    pub heartbeat: Heartbeat,
    /// Brings the settings as they are now; `None` (after it said why) if they are unusable.
    pub reload: Box<dyn FnMut() -> Option<Config>>,
    /// Where it tells how its runners stand.
    pub registry: StatusRegistry,
    /// Where it counts what it does.
    pub counters: Counters,
    /// Hears how far the daemon is; nobody needs to listen.
    pub progress: mpsc::UnboundedSender<Progress>,
}

/// How far the daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It supervises: what was interrupted is finished, and every runner has its worker.
    Serving,
    /// It was told to read settings and files again; [`Progress::Serving`] follows.
    Reloading,
    /// It was told to stop.
    Stopping,
}

/// What the outside world tells the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Stop, and unregister by policy. A second one ends the draining too.
    Stop,
    /// Stop, and keep every registration.
    StopAndKeep,
    /// Stop, because the machine starts anew: as `[shutdown] on_reboot` says.
    StopForReboot,
    /// Read settings and files again, and verify now.
    Reload,
}

/// Where notices arrive.
pub type Notices = mpsc::UnboundedReceiver<Notice>;

/// What the workers share.
struct Shared<S, D, C> {
    engine: Engine<S, D, C>,
    registry: StatusRegistry,
    counters: Counters,
}
