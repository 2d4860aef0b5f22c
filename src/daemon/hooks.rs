//! Tells the dispatcher of hooks what is seen: runners, access tokens, and the settings. Nothing waits for it.

mod attempt;
mod backlog;
mod describe;
mod dispatcher;
mod gone;
mod lanes;
mod member;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::engine::Config;
use crate::hooks::Hook;
use crate::lifecycle::hooks::SeenRunner;
use crate::model::{AccessRecord, Expiry, RunnerKey, ServerUrl, Timestamp};
use crate::ops::Runner;
use crate::secret::{Digest, Token};
use crate::status::Counters;
use crate::store::HookFiles;
use dispatcher::Dispatcher;

/// How long a stop waits at most for hooks that are due.
pub(super) const AT_STOP: Duration = Duration::from_secs(5);

/// How long it waits beyond that for the disk.
const FOR_DISK: Duration = Duration::from_secs(2);

/// Where the daemon's parts say what they see. Clones lead to one dispatcher; that of `default` leads nowhere.
#[derive(Clone, Debug, Default)]
pub struct HookFeed {
    sender: Option<mpsc::UnboundedSender<HookMessage>>,
    /// Whether the settings have hooks.
    has_hooks: Rc<Cell<bool>>,
    /// Whether the dispatcher was told which runners are there.
    has_told: Rc<Cell<bool>>,
    /// When the grace time of a stop is over, once it has begun.
    end: Rc<Cell<Option<Instant>>>,
}

/// What the dispatcher is told.
#[derive(Debug)]
pub(super) enum HookMessage {
    /// The hooks of the settings in force.
    Hooks(Arc<[Hook]>),
    /// The runners that are there at the start, or when the settings get their first hook.
    There(BTreeSet<RunnerKey>, Timestamp),
    /// Something was seen.
    Seen(Box<Sighting>),
    /// A runner is no longer served, at this time of the server.
    Dismissed(RunnerKey, Timestamp),
    /// The daemon stops: what is not done by then is left to the next start.
    Stop(Instant),
}

/// Something as it was seen.
#[derive(Debug)]
pub(super) struct Sighting {
    pub(super) key: RunnerKey,
    pub(super) subject: Subject,
    /// The server's time for a runner or an access token, this machine's for the settings.
    pub(super) now: Timestamp,
}

/// What was seen.
#[derive(Debug)]
pub(super) enum Subject {
    Runner(Box<RunnerSight>),
    AccessToken {
        url: ServerUrl,
        token: Option<Digest>,
        rotations: u64,
    },
    /// The mistakes of settings that are not in force, one sentence per line.
    Settings(Option<String>),
}

/// A runner as it was seen.
#[derive(Debug)]
pub(super) struct RunnerSight {
    pub(super) label: String,
    pub(super) url: ServerUrl,
    pub(super) expiry: Expiry,
    pub(super) token: Option<Token>,
    /// Whether it is enrolled.
    pub(super) is_own: bool,
    /// The same without the token.
    pub(super) seen: SeenRunner,
}

impl HookFeed {
    /// These settings are in force.
    pub(super) fn publish(&self, config: &Config) {
        self.has_hooks.set(!config.hooks.is_empty());
        if config.hooks.is_empty() {
            self.has_told.set(false);
        }
        self.send(HookMessage::Hooks(config.hooks.clone().into()));
    }

    /// These runners are there. Those that were there before the first hook make no event. Says it once.
    pub(super) fn note_present(&self, keys: impl Iterator<Item = RunnerKey>, now: Timestamp) {
        if self.has_hooks.get() && !self.has_told.replace(true) {
            self.send(HookMessage::There(keys.collect(), now));
        }
    }

    /// A runner was seen, whose token is where it belongs.
    pub(super) fn see_runner(&self, runner: &Runner, is_rejected: Option<bool>, is_expiring: bool, now: Timestamp) {
        if !self.has_hooks.get() {
            return;
        }
        let record = &runner.record;
        let credential = record.credential.as_ref();
        let token = credential.map(|credential| credential.token.clone());
        let seen = SeenRunner { token: token.as_ref().map(Token::digest), id: record.id, is_rejected, is_expiring };
        let sight = RunnerSight {
            label: runner.label().to_owned(),
            url: record.url.clone(),
            expiry: credential.map(|credential| credential.expiry).unwrap_or_default(),
            token,
            is_own: record.enrollment.is_some(),
            seen,
        };
        self.see(record.key.clone(), Subject::Runner(Box::new(sight)), now);
    }

    /// A runner is no longer served.
    pub(super) fn dismiss(&self, runner: &Runner, now: Timestamp) {
        if runner.is_unregistered() {
            self.see_runner(runner, None, false, now);
        }
        if self.has_hooks.get() {
            self.send(HookMessage::Dismissed(runner.record.key.clone(), now));
        }
    }

    /// An access token was seen.
    pub(super) fn see_access_token(&self, url: &ServerUrl, record: &AccessRecord, now: Timestamp) {
        if self.has_hooks.get() {
            let (token, rotations) = (record.token.as_ref().map(Token::digest), record.rotations);
            let subject = Subject::AccessToken { url: url.clone(), token, rotations };
            self.see(RunnerKey::access_token(url), subject, now);
        }
    }

    /// The settings on the disk have these mistakes, or none.
    pub(super) fn see_settings(&self, error: Option<&str>, now: Timestamp) {
        if self.has_hooks.get() {
            self.see(RunnerKey::settings(), Subject::Settings(error.map(str::to_owned)), now);
        }
    }

    /// The grace time of a stop is over then.
    pub(super) fn note_end(&self, end: Instant) {
        self.end.set(Some(end));
    }

    fn see(&self, key: RunnerKey, subject: Subject, now: Timestamp) {
        self.send(HookMessage::Seen(Box::new(Sighting { key, subject, now })));
    }

    fn send(&self, message: HookMessage) {
        if let Some(sender) = &self.sender {
            // A dispatcher that has ended was stopped, or has panicked, which was logged.
            let _ended = sender.send(message);
        }
    }
}

/// The dispatcher at work.
pub(super) struct RunningHooks {
    feed: HookFeed,
    task: JoinHandle<()>,
}

impl RunningHooks {
    /// Starts the dispatcher, in a task of its own.
    pub(super) fn start(files: HookFiles, counters: Counters) -> Self {
        let (sender, inbox) = mpsc::unbounded_channel();
        let feed = HookFeed { sender: Some(sender), ..HookFeed::default() };
        Self { feed, task: tokio::spawn(Dispatcher::new(files, counters, inbox).run()) }
    }

    /// Where the daemon's parts say what they see.
    pub(super) fn feed(&self) -> HookFeed {
        self.feed.clone()
    }

    /// Lets what is due be done, for as long as `limit` and the grace time of a stop allow, and leaves the rest to the next
    /// start.
    pub(super) async fn finish(mut self, limit: Duration) {
        let now = Instant::now();
        let deadline = (now + limit).min(self.feed.end.get().unwrap_or(now + limit));
        self.feed.send(HookMessage::Stop(deadline));
        match timeout_at(deadline.max(now) + FOR_DISK, &mut self.task).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(error)) => tracing::error!(%error, "an internal error has ended the work of the hooks"),
        }
    }
}

impl Drop for RunningHooks {
    fn drop(&mut self) {
        self.task.abort();
    }
}
