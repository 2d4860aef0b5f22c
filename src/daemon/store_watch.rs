//! Watches the store of shared runners: the change of another machine reaches a runner at once.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::engine::Config;
use crate::error_chain::chain;
use crate::lifecycle::sharing::look_interval;
use crate::model::{Credential, ShareName, SharedRunner};
use crate::sharing::{self, AnyEngine, Shares, Stored};

/// The store's value of a runner, as it was read or reported; or why it cannot be.
#[derive(Clone, Debug)]
pub(super) struct StoreReport {
    pub(super) seen: Result<Option<Rc<Stored>>, Rc<sharing::Error>>,
    /// The store had that value at this time or later.
    pub(super) at: Instant,
}

/// A report, and the runner that it is of.
pub(super) type StoreChange = (ShareName, StoreReport);

/// How often an unchanged value is reported: it shows that the store answers.
const REPORT: Duration = Duration::from_secs(30);

/// What the store watch reports.
pub(super) enum StoreEvent {
    /// The settings have another store, or none.
    Opened(Box<Result<Option<Shares<AnyEngine>>, sharing::Error>>),
    /// A value may differ from what its runner knows, or cannot be read.
    Changed(StoreChange),
}

/// The watches of all shared runners. Without any, nothing is connected.
pub(super) struct StoreWatch {
    settings: Option<sharing::Settings>,
    opening: JoinSet<Result<Option<Shares<AnyEngine>>, sharing::Error>>,
    watches: JoinSet<()>,
    watched: BTreeMap<ShareName, AbortHandle>,
    changes: mpsc::UnboundedSender<StoreChange>,
    inbox: mpsc::UnboundedReceiver<StoreChange>,
}

impl StoreWatch {
    /// No watch yet, for a store that was opened by these settings.
    pub(super) fn new(config: &Config) -> Self {
        let (changes, inbox) = mpsc::unbounded_channel();
        let (opening, watches) = (JoinSet::new(), JoinSet::new());
        Self { settings: config.needed_store().cloned(), opening, watches, watched: BTreeMap::new(), changes, inbox }
    }

    /// Opens the store of new settings. A reload that was asked for opens it again in any case: a secret may have changed.
    pub(super) fn open(&mut self, config: &Config, is_asked: bool) {
        let settings = config.needed_store().cloned();
        if settings == self.settings && !(is_asked && settings.is_some()) {
            return;
        }
        self.settings.clone_from(&settings);
        self.opening.abort_all();
        let config = config.clone();
        self.opening.spawn_local(async move { config.open_store().await });
    }

    /// Watches these runners and no others. Another store is watched anew.
    pub(super) fn follow(&mut self, config: &Config, shares: Option<&Rc<Shares<AnyEngine>>>, is_other_store: bool) {
        let wanted: Vec<_> = config.enrollments.iter().filter_map(|enrollment| enrollment.share_as.clone()).collect();
        self.watched.retain(|name, watch| {
            let stays = wanted.contains(name) && shares.is_some() && !is_other_store;
            if !stays {
                watch.abort();
            }
            stays
        });
        let Some(shares) = shares else { return };
        for name in wanted {
            let task = watch(Rc::clone(shares), name.clone(), self.changes.clone());
            self.watched.entry(name).or_insert_with(|| self.watches.spawn_local(task));
        }
    }

    /// Waits for the next event. Cancel safe.
    pub(super) async fn next(&mut self) -> StoreEvent {
        loop {
            tokio::select! {
                Some(opened) = self.opening.join_next() => {
                    // It was replaced by the next one otherwise, or has panicked, which has been logged.
                    if let Ok(opened) = opened {
                        return StoreEvent::Opened(Box::new(opened));
                    }
                }
                Some(_) = self.watches.join_next() => {}
                Some(change) = self.inbox.recv() => return StoreEvent::Changed(change),
            }
        }
    }
}

/// Reports each change of a value, and the value itself now and then: a server that is paused reports nothing.
async fn watch(shares: Rc<Shares<AnyEngine>>, name: ShareName, changes: mpsc::UnboundedSender<StoreChange>) {
    let mut interval = look_interval(None);
    let mut reported: Option<(Instant, Option<SharedRunner>)> = None;
    let mut report = |seen: Result<Option<Stored>, sharing::Error>, at: Instant, interval: &mut Duration| {
        if let Ok(stored) = &seen {
            let token = stored.as_ref().and_then(|stored| stored.runner.token.as_ref());
            let life = token.map(|token| {
                let Credential { obtained_at, expiry, .. } = &token.credential;
                let times = obtained_at.zip(expiry.at());
                times.map_or(Duration::MAX, |(obtained_at, expires_at)| expires_at.since(obtained_at))
            });
            *interval = look_interval(life);
        }
        let present = seen.as_ref().ok().map(|stored| stored.as_ref().map(|stored| stored.runner.clone()));
        let is_news = |(when, known): &(Instant, Option<SharedRunner>)| {
            when.elapsed() >= REPORT || Some(known) != present.as_ref()
        };
        if !reported.as_ref().is_none_or(is_news) {
            return *interval;
        }
        reported = present.map(|present| (Instant::now(), present));
        // The daemon has ended.
        let seen = seen.map(|stored| stored.map(Rc::new)).map_err(Rc::new);
        let _ended = changes.send((name.clone(), StoreReport { seen, at }));
        *interval
    };
    loop {
        if let Err(error) = follow(&shares, &name, |stored, at| report(Ok(stored), at, &mut interval)).await {
            report(Err(error), Instant::now(), &mut interval);
        }
        sleep(interval).await;
    }
}

/// Follows a value until its watch ends, which says nothing of the store, or the store cannot be used. `report` returns how
/// long to wait before the value is read again in any case.
async fn follow(
    shares: &Shares<AnyEngine>,
    name: &ShareName,
    mut report: impl FnMut(Option<Stored>, Instant) -> Duration,
) -> Result<(), sharing::Error> {
    let mut watch = shares.watch(name).await?;
    let mut at = Instant::now();
    let mut stored = shares.read(name).await?;
    loop {
        let interval = report(stored, at);
        at = Instant::now() + interval;
        stored = match timeout(interval, shares.next(name, &mut watch)).await {
            Ok(Ok(next)) => {
                at = Instant::now();
                next
            }
            Ok(Err(error)) => {
                tracing::debug!(share = %name, error = chain(&error), "the watch of a shared runner has ended");
                return Ok(());
            }
            Err(_) => shares.read(name).await?,
        };
    }
}
