//! Keeps the access tokens of `[[server]]`: a task for each asks about it at the start, daily, at a reload and once its file
//! has changed, and rotates it when that is due. No runner waits for it.

mod access_log;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep};

use super::hooks::HookFeed;
use super::supervisor::REST;
use crate::clock::{Clock, ServerTime};
use crate::engine::Config;
use crate::error_chain::chain;
use crate::model::{ServerUrl, Timestamp};
use crate::ops::{
    AccessDisk, AccessKeeper, AccessMoment, AccessPass, AccessServer, AccessUses, AccessWish, ServerAccess, SoleCopies,
};
use crate::secret::{Digest, Source, Token};
use crate::status::{Counters, OperationOutcome, StatusRegistry};
use crate::store::AskedBy;

use access_log::{AccessLog, outcome_of};

/// The shortest rest between two passes.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest sleep of a rest: a suspended machine is late by no more.
const NAP: Duration = Duration::from_secs(3600);

/// How long uses are collected before the last one is remembered on the disk.
const COLLECT: Duration = Duration::from_secs(1);

/// The settings in force, for those who follow them.
#[derive(Debug, Default)]
pub struct SettingsFeed(watch::Sender<InForce>);

/// The settings in force, and how many reloads were asked for since the start.
#[derive(Clone, Debug, Default)]
pub(super) struct InForce {
    /// Absent until the daemon starts.
    config: Option<Rc<Config>>,
    reloads: u64,
}

/// What a rest between two passes lasts for.
struct Rest {
    /// The settings of the last pass.
    in_force: InForce,
    /// The token that the file held at its beginning, or that a rotation has put there.
    token: Option<Digest>,
    /// Server time of the next pass.
    due_at: Timestamp,
    time: ServerTime,
    /// The last use of the token that the state directory knows of.
    known_use: Option<Instant>,
}

impl SettingsFeed {
    /// These settings are in force.
    pub(super) fn publish(&self, config: &Rc<Config>) {
        self.0.send_modify(|in_force| in_force.config = Some(Rc::clone(config)));
    }

    /// A reload was asked for.
    pub(super) fn reloaded(&self) {
        self.0.send_modify(|in_force| in_force.reloads += 1);
    }

    /// A file that the settings name may have changed.
    pub(super) fn files_changed(&self) {
        self.0.send_modify(|_| ());
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<InForce> {
        self.0.subscribe()
    }
}

impl InForce {
    fn access_to(&self, url: &ServerUrl) -> Option<ServerAccess> {
        self.config.as_ref()?.access_to(url).cloned()
    }

    /// Whether neither other settings nor a reload came in between.
    fn is_as(&self, other: &Self) -> bool {
        let config = |in_force: &Self| in_force.config.as_ref().map(Rc::as_ptr);
        config(self) == config(other) && self.reloads == other.reloads
    }
}

/// What keeps access tokens.
pub(super) struct AccessTokens<S, C, M> {
    pub(super) server: S,
    pub(super) clock: C,
    /// Makes the port to the disk of a server's token.
    pub(super) disk_of: M,
    pub(super) copies: SoleCopies,
    pub(super) uses: AccessUses,
    pub(super) registry: StatusRegistry,
    pub(super) counters: Counters,
    pub(super) hooks: HookFeed,
}

impl<S, C, M, D> AccessTokens<S, C, M>
where
    S: AccessServer + Clone,
    C: Clock,
    M: Fn(&ServerAccess) -> D + 'static,
    D: AccessDisk,
{
    /// Keeps those of the settings in force, until the daemon has ended.
    pub(super) async fn keep(self, settings: watch::Receiver<InForce>) -> Infallible {
        let keeping = async move {
            let this = Rc::new(self);
            let mut followed = settings.clone();
            let (mut tasks, mut served) = (JoinSet::new(), BTreeMap::new());
            loop {
                let config = followed.borrow_and_update().config.clone();
                for server in config.iter().flat_map(|config| &config.servers) {
                    served.entry(server.url.clone()).or_insert_with(|| {
                        let (this, settings, url) = (Rc::clone(&this), settings.clone(), server.url.clone());
                        tasks.spawn_local(async move { this.keep_one(&url, settings).await }).id()
                    });
                }
                tokio::select! {
                    changed = followed.changed() => if changed.is_err() {
                        // The daemon has ended, and drops this.
                        return std::future::pending().await;
                    },
                    Some(ended) = tasks.join_next_with_id() => match ended {
                        Ok((ended, ())) => served.retain(|_, task| *task != ended),
                        Err(error) => {
                            tracing::error!(
                                error = %error,
                                "an internal error has ended the work on an access token; it is taken up again within a minute"
                            );
                            sleep(REST).await;
                            served.retain(|_, task| *task != error.id());
                        }
                    },
                }
            }
        };
        LocalSet::new().run_until(keeping).await
    }

    /// Keeps the token of one server until the settings have none, and a new one that is in memory alone is stored.
    async fn keep_one(&self, url: &ServerUrl, mut settings: watch::Receiver<InForce>) {
        let mut time = ServerTime::from_local(self.clock.read());
        let mut log = AccessLog::new(url.clone(), self.registry.clone());
        let mut present: Option<AccessKeeper<S, D>> = None;
        loop {
            let in_force = settings.borrow_and_update().clone();
            let Some(config) = in_force.config.clone() else { return };
            let keeper = match (present.take(), in_force.access_to(url)) {
                // A new token that is in memory alone is stored first.
                (Some(keeper), access) if keeper.has_unsaved() || access.as_ref() == Some(keeper.access()) => keeper,
                (_, Some(access)) => self.keeper(access),
                (_, None) => return self.registry.forget_access_token(url),
            };
            if keeper.access().keeping.rotate {
                self.counters.expect_access_rotations(url);
            }
            let known_use = self.uses.last(url);
            let before = read_token(&keeper.access().access_token);
            let pass = self.pass(&keeper, &mut time).await;
            let is_rotated = outcome_of(&pass) == Some(OperationOutcome::Done);
            let known_token = pass.record.token.as_ref().map(Token::digest);
            let report = config.access_report(keeper.access(), &pass);
            log.note(&pass, &report);
            self.registry.report_access_token(report);
            self.tell_hooks(url, &keeper, &pass);
            if !keeper.has_unsaved() && in_force.access_to(url).as_ref() != Some(keeper.access()) {
                // The settings were waiting for it.
                continue;
            }
            let due_at = time.now(self.clock.read()).plus(pass.wait.max(PAUSE));
            // One that a person puts there during the pass is news.
            let token = if is_rotated { known_token } else { before };
            let rest = Rest { in_force, token, due_at, time, known_use };
            self.rest(&keeper, &mut settings, rest).await;
            present = Some(keeper);
        }
    }

    /// Makes one pass over every token of the settings.
    pub(super) async fn pass_once(&self, config: &Config) {
        for server in &config.servers {
            let (keeper, mut time) = (self.keeper(server.clone()), ServerTime::from_local(self.clock.read()));
            let mut log = AccessLog::new(server.url.clone(), self.registry.clone());
            loop {
                let pass = self.pass(&keeper, &mut time).await;
                log.note(&pass, &config.access_report(server, &pass));
                self.tell_hooks(&server.url, &keeper, &pass);
                // The only copy of a new token.
                if !keeper.has_unsaved() {
                    break;
                }
                sleep(PAUSE).await;
            }
        }
    }

    /// Tells the dispatcher of hooks of a token that is where it belongs.
    fn tell_hooks(&self, url: &ServerUrl, keeper: &AccessKeeper<S, D>, pass: &AccessPass) {
        if !keeper.has_unsaved() {
            self.hooks.see_access_token(url, &pass.record, pass.now);
        }
    }

    fn keeper(&self, access: ServerAccess) -> AccessKeeper<S, D> {
        let disk = (self.disk_of)(&access);
        let shared = (self.copies.clone(), self.uses.clone());
        AccessKeeper::new(self.server.clone(), disk, access, AskedBy::Daemon, shared)
    }

    async fn pass(&self, keeper: &AccessKeeper<S, D>, time: &mut ServerTime) -> AccessPass {
        let url = &keeper.access().url;
        let now = time.now(self.clock.read());
        let last_use = self.uses.last(url).map(|last| now.minus(last.elapsed()));
        let pass = keeper.pass(AccessMoment { now, last_use, wish: AccessWish::Keep }).await;
        if pass.now != now {
            *time = time.with_date(pass.now, self.clock.read());
        }
        if let Some(outcome) = outcome_of(&pass) {
            self.counters.count_access_rotation(url, outcome);
        }
        pass
    }

    /// Waits until the next pass is due: by its time, by a reload, or because the file or the settings have changed.
    async fn rest(
        &self,
        keeper: &AccessKeeper<S, D>,
        settings: &mut watch::Receiver<InForce>,
        Rest { in_force, token, due_at, time, mut known_use }: Rest,
    ) {
        let url = &keeper.access().url;
        let mut collected = pin!(self.collect_uses(url, known_use));
        loop {
            let left = due_at.since(time.now(self.clock.read()));
            if left.is_zero() {
                return;
            }
            tokio::select! {
                biased;
                changed = settings.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                    let next = settings.borrow_and_update().clone();
                    let has_changed = !next.is_as(&in_force) || read_token(&keeper.access().access_token) != token;
                    if has_changed {
                        return;
                    }
                }
                // A stop waits for it.
                () = self.copies.closed(), if keeper.has_unsaved() => return sleep(PAUSE).await,
                () = &mut collected => {
                    known_use = self.uses.last(url);
                    collected.set(self.collect_uses(url, known_use));
                    let since = known_use.map(|last| last.elapsed()).unwrap_or_default();
                    if let Err(error) = keeper.note_use(time.now(self.clock.read()).minus(since)).await {
                        tracing::debug!(error = chain(&error), "cannot remember the use of an access token");
                    }
                }
                () = sleep(left.min(NAP)) => {}
            }
        }
    }

    /// Waits for a use that is not known, and for those that follow soon.
    async fn collect_uses(&self, url: &ServerUrl, known: Option<Instant>) {
        while self.uses.last(url) == known {
            self.uses.used().await;
        }
        sleep(COLLECT).await;
    }
}

fn read_token(source: &Source) -> Option<Digest> {
    source.read().ok().map(|token| token.digest())
}
