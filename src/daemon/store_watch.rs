//! Watches the store of shared runners: the change of another machine reaches a runner at once.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use super::supervisor::reached;
use crate::engine::Config;
use crate::error_chain::chain;
use crate::lifecycle::Fraction;
use crate::lifecycle::sharing::{look_interval, watch_pause};
use crate::model::{Credential, ShareName, SharedRunner};
use crate::secret::random_bits;
use crate::sharing::{self, AnyEngine, Shares, Stored};

/// The store's value of a runner, as it was read or reported; or why it cannot be.
#[derive(Clone, Debug)]
pub(super) struct StoreReport {
    pub(super) seen: Result<Option<Rc<Stored>>, Rc<sharing::Error>>,
    /// When the store was asked, if it was: it had that value then or later. A report of its watch can be late.
    pub(super) read_at: Option<Instant>,
}

/// A report, and the runner that it is of.
pub(super) type StoreChange = (ShareName, StoreReport);

/// How long until a store is opened again whose secrets cannot be read. A file that changes ends that, too.
const OPEN_AGAIN: Duration = Duration::from_secs(30);

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
    /// When it is opened again after it could not be.
    open_at: Option<Instant>,
    /// Why it could not be opened, as it was reported.
    failure: Option<String>,
    watches: JoinSet<()>,
    watched: BTreeMap<ShareName, AbortHandle>,
    changes: mpsc::UnboundedSender<StoreChange>,
    inbox: mpsc::UnboundedReceiver<StoreChange>,
}

impl StoreWatch {
    /// No watch yet, for the store that was [opened](open_at_start) by these settings.
    pub(super) fn new(config: &Config, shares: Option<&Rc<Shares<AnyEngine>>>) -> Self {
        let (changes, inbox) = mpsc::unbounded_channel();
        let closed = shares.and_then(|shares| shares.closed_by());
        Self {
            settings: config.needed_store().cloned(),
            opening: JoinSet::new(),
            open_at: closed.as_ref().map(|_| Instant::now() + OPEN_AGAIN),
            // The runners report it.
            failure: closed.map(|error| error.to_string()),
            watches: JoinSet::new(),
            watched: BTreeMap::new(),
            changes,
            inbox,
        }
    }

    /// Opens the store of new settings, or of new secrets. A reload that was asked for opens it again in any case: other
    /// files may have changed.
    pub(super) fn open(&mut self, config: &Config, shares: Option<&Rc<Shares<AnyEngine>>>, is_asked: bool) {
        let settings = config.needed_store().cloned();
        if is_asked {
            self.failure = None;
        }
        if settings == self.settings && !(is_asked && settings.is_some()) {
            return self.look_at_secrets(shares);
        }
        self.settings = settings;
        self.begin();
    }

    /// Opens the store again if its secrets have changed, or can be read again.
    pub(super) fn look_at_secrets(&mut self, shares: Option<&Rc<Shares<AnyEngine>>>) {
        let Some((settings, shares)) = self.settings.as_ref().zip(shares) else { return };
        if settings.has_other_secrets(shares) {
            self.begin();
        } else if self.open_at.is_none() {
            // What could not be used was taken back.
            self.failure = None;
        }
    }

    fn begin(&mut self) {
        self.open_at = None;
        self.opening.abort_all();
        let settings = self.settings.clone();
        self.opening.spawn_local(async move {
            match settings {
                Some(settings) => sharing::open(&settings).await.map(Some),
                None => Ok(None),
            }
        });
    }

    /// Notes what came of opening the store. Returns whether that is to be reported.
    fn note(&mut self, opened: &Result<Option<Shares<AnyEngine>>, sharing::Error>) -> bool {
        let error = opened.as_ref().err();
        let is_unreadable = |error: &&sharing::Error| matches!(error, sharing::Error::Unreadable { .. });
        self.open_at = error.filter(is_unreadable).map(|_| Instant::now() + OPEN_AGAIN);
        let failure = error.map(ToString::to_string);
        let is_news = failure.is_none() || failure != self.failure;
        self.failure = failure;
        is_news
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
                    if let Ok(opened) = opened && self.note(&opened) {
                        return StoreEvent::Opened(Box::new(opened));
                    }
                }
                () = reached(self.open_at) => self.begin(),
                Some(_) = self.watches.join_next() => {}
                Some(change) = self.inbox.recv() => return StoreEvent::Changed(change),
            }
        }
    }
}

/// Opens the store at a start, which does not end because a secret cannot be read: the store is opened once it can be.
///
/// # Errors
/// As [`sharing::open`], but for [`sharing::Error::Unreadable`].
pub(super) async fn open_at_start(config: &Config) -> Result<Option<Shares<AnyEngine>>, sharing::Error> {
    config.open_store().await.or_else(|error| Shares::closed(error).map(Some))
}

/// A watch that has lasted for this long has ended in the ordinary way.
const ORDINARY: Duration = Duration::from_secs(30);

/// Reports each change of a value, and the value itself now and then: a server that is paused reports nothing.
async fn watch(shares: Rc<Shares<AnyEngine>>, name: ShareName, changes: mpsc::UnboundedSender<StoreChange>) {
    let mut reporter = Reporter { name, changes, life: None, reported: None };
    let mut failures = 0;
    loop {
        let began = Instant::now();
        let followed = follow(&shares, &mut reporter).await;
        if followed.is_ok() && began.elapsed() >= ORDINARY {
            failures = 0;
        }
        if let Err(error) = followed {
            reporter.report(Err(error), Some(Instant::now()));
        }
        sleep(watch_pause(failures, reporter.life, Fraction::from_bits(random_bits()))).await;
        failures = failures.saturating_add(1);
    }
}

/// Reports what is new.
struct Reporter {
    name: ShareName,
    changes: mpsc::UnboundedSender<StoreChange>,
    /// The life of the token in the store, if there is one.
    life: Option<Duration>,
    /// The last value, and when it was reported.
    reported: Option<(Instant, Option<SharedRunner>)>,
}

impl Reporter {
    fn report(&mut self, seen: Result<Option<Stored>, sharing::Error>, read_at: Option<Instant>) {
        if let Ok(stored) = &seen {
            self.life = stored.as_ref().and_then(|stored| stored.runner.token.as_ref()).map(|token| {
                let Credential { obtained_at, expiry, .. } = &token.credential;
                let times = obtained_at.zip(expiry.at());
                times.map_or(Duration::MAX, |(obtained_at, expires_at)| expires_at.since(obtained_at))
            });
        }
        let present = seen.as_ref().ok().map(|stored| stored.as_ref().map(|stored| stored.runner.clone()));
        let is_news = |(when, known): &(Instant, Option<SharedRunner>)| {
            when.elapsed() >= REPORT || Some(known) != present.as_ref()
        };
        if !self.reported.as_ref().is_none_or(is_news) {
            return;
        }
        self.reported = present.map(|present| (Instant::now(), present));
        let seen = seen.map(|stored| stored.map(Rc::new)).map_err(Rc::new);
        // The daemon has ended.
        let _ended = self.changes.send((self.name.clone(), StoreReport { seen, read_at }));
    }
}

/// Follows a value until its watch ends, which says nothing of the store, or the store cannot be used.
async fn follow(shares: &Shares<AnyEngine>, reporter: &mut Reporter) -> Result<(), sharing::Error> {
    let name = reporter.name.clone();
    let mut watch = shares.watch(&name).await?;
    let mut asked = Instant::now();
    let mut seen = (shares.read(&name).await?, Some(asked));
    loop {
        reporter.report(Ok(seen.0), seen.1);
        seen = match timeout(look_interval(reporter.life), shares.next(&name, &mut watch)).await {
            Ok(Ok(next)) => (next, None),
            Ok(Err(error)) => {
                tracing::debug!(share = %name, error = chain(&error), "the watch of a shared runner has ended");
                return Ok(());
            }
            Err(_) => {
                asked = Instant::now();
                (shares.read(&name).await?, Some(asked))
            }
        };
    }
}
