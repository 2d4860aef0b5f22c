//! The dispatcher of hooks: finds events, keeps them on the disk, and has the hooks run for them.
//!
//! A task of its own. An event is found by comparing what is seen with what was announced last, so a crash at any point
//! only makes the next start find it again. Events of a runner reach a hook in their order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::{HookMessage, RunnerSight, Sighting, Subject};
use crate::error_chain::chain;
use crate::hooks::{Delivery, Hook, HookError};
use crate::lifecycle::Fraction;
use crate::lifecycle::hooks::{
    access_events, announced_runner, event_id, is_given_up, retry_delay, runner_events, settings_events,
};
use crate::model::{
    Announced, HookDelivery, HookEvent, HookKind, HookRecord, RunnerId, RunnerKey, ServerUrl, Timestamp,
};
use crate::secret::{Digest, Token, random_bits};
use crate::status::{Counters, HookOutcome};
use crate::store::{Error, HookFiles};

/// How many attempts are made at a time.
const MOST_AT_ONCE: usize = 8;

/// Finds events and delivers them.
pub(in super::super) struct Dispatcher {
    files: HookFiles,
    counters: Counters,
    inbox: UnboundedReceiver<HookMessage>,
    hooks: Arc<[Hook]>,
    /// Whether the files were read.
    is_loaded: bool,
    members: BTreeMap<RunnerKey, Member>,
    /// Those with something to deliver.
    queued: BTreeSet<RunnerKey>,
    attempts: JoinSet<Attempt>,
    /// When a stop gives up what is under way.
    deadline: Option<Instant>,
    /// Why the disk takes nothing, which is logged once.
    disk_error: Option<String>,
}

/// A runner, an access token, or the settings.
#[derive(Default)]
struct Member {
    announced: Option<Announced>,
    events: u64,
    queue: Vec<HookDelivery>,
    /// The present token; `None` until the runner was seen.
    token: Option<Token>,
    /// Whether it was seen since the start, so that its token is known.
    is_seen: bool,
    /// Whether it is enrolled.
    is_own: bool,
    /// Whether it is no longer served.
    is_dismissed: bool,
    /// The hooks whose file was looked at since the start, or since the settings have changed.
    looked_at: BTreeSet<String>,
    /// The hooks at work for it.
    busy: BTreeSet<String>,
    /// Before when a hook is not run for it again.
    not_before: BTreeMap<String, Instant>,
}

impl Member {
    /// Has the files looked at that are to hold the token: a file in `/run` is gone after a reboot, which is no event.
    fn look_after_files(&mut self, hooks: &[Hook], key: &RunnerKey, sight: &RunnerSight, now: Timestamp) {
        if sight.token.is_none() || !sight.is_own {
            return;
        }
        for hook in hooks.iter().filter(|hook| hook.keeps_file_of(&sight.label)) {
            let is_new = self.looked_at.insert(hook.name.clone());
            if !is_new || self.queue.iter().any(|delivery| delivery.hook == hook.name) {
                continue;
            }
            let event = HookEvent {
                event_id: event_id(key, 0, HookKind::Rotated, sight.seen.token),
                event: HookKind::Rotated,
                at: now,
                runner: Some(sight.label.clone()),
                runner_id: sight.id(),
                url: Some(sight.url.clone()),
                expires_at: sight.expiry.at(),
                text: "the file is looked at, at the start or after a change of the settings".to_owned(),
            };
            self.queue.push(HookDelivery { hook: hook.name.clone(), attempts: 0, event });
        }
    }
}

/// What has come of an attempt.
struct Attempt {
    key: RunnerKey,
    delivery: HookDelivery,
    result: Result<String, HookError>,
}

impl Dispatcher {
    pub(in super::super) fn new(files: HookFiles, counters: Counters, inbox: UnboundedReceiver<HookMessage>) -> Self {
        Self {
            files,
            counters,
            inbox,
            hooks: Arc::default(),
            is_loaded: false,
            members: BTreeMap::new(),
            queued: BTreeSet::new(),
            attempts: JoinSet::new(),
            deadline: None,
            disk_error: None,
        }
    }

    /// Runs until it is told to stop, and nothing that is due is left, or the time for that is over.
    pub(in super::super) async fn run(mut self) {
        loop {
            let next = self.begin_attempts().await;
            let is_idle = self.deadline.is_some() && self.attempts.is_empty();
            if is_idle {
                return;
            }
            tokio::select! {
                biased;
                () = reached(self.deadline) => return,
                message = self.inbox.recv() => match message {
                    Some(message) => self.receive(message).await,
                    None => return,
                },
                Some(ended) = self.attempts.join_next() => match ended {
                    Ok(attempt) => self.conclude(attempt).await,
                    // It has panicked, which has been logged. The next start tries again.
                    Err(error) => tracing::error!(%error, "an internal error has ended the work of a hook"),
                },
                () = reached(next) => {}
            }
        }
    }

    async fn receive(&mut self, message: HookMessage) {
        match message {
            HookMessage::Hooks(hooks) => self.take_hooks(hooks).await,
            HookMessage::Seen(sighting) => self.see(*sighting).await,
            HookMessage::Dismissed(key) => {
                if let Some(member) = self.members.get_mut(&key) {
                    member.is_dismissed = true;
                    self.forget_if_done(&key).await;
                }
            }
            HookMessage::Stop(deadline) => self.deadline = Some(deadline),
        }
    }

    /// Takes the hooks of new settings. What was announced while there were none is of no use any more.
    async fn take_hooks(&mut self, hooks: Arc<[Hook]>) {
        self.hooks = hooks;
        for hook in &*self.hooks {
            self.counters.expect_hook(&hook.name);
        }
        self.members.values_mut().for_each(|member| member.looked_at.clear());
        if self.hooks.is_empty() {
            let removed = self.files.remove_all().await;
            self.note_disk(removed);
            self.members.clear();
            self.queued.clear();
            self.is_loaded = false;
        } else if !self.is_loaded {
            self.is_loaded = true;
            self.load().await;
        }
    }

    async fn load(&mut self) {
        let (records, damaged) = match self.files.read().await {
            Ok(read) => read,
            Err(error) => {
                self.note_disk(Err(error));
                return;
            }
        };
        for error in damaged {
            tracing::error!(
                error = chain(&error),
                "what a hook was to be run for is lost with a damaged file: the present state counts as announced"
            );
        }
        for HookRecord { key, announced, events, queue } in records {
            if !queue.is_empty() {
                self.queued.insert(key.clone());
            }
            let member = Member { announced: Some(announced), events, queue, ..Member::default() };
            self.members.insert(key, member);
        }
    }

    /// Compares what is seen with what was announced.
    async fn see(&mut self, Sighting { key, subject, now }: Sighting) {
        let member = self.members.entry(key.clone()).or_default();
        let former = member.announced.as_ref();
        let (announced, kinds) = compared(former, &subject);
        let is_changed = former != Some(&announced);
        if let Subject::Runner(sight) = &subject {
            member.token.clone_from(&sight.token);
            member.is_own = sight.is_own;
        }
        (member.is_seen, member.is_dismissed) = (true, false);
        let former_id = former.and_then(|former| former.id);
        for kind in kinds {
            member.events += 1;
            let (RunnerFacts { runner, runner_id, url, expires_at }, text) = described(kind, &subject, former_id);
            let event_id = event_id(&key, member.events, kind, announced.token);
            let event = HookEvent { event_id, event: kind, at: now, runner, runner_id, url, expires_at, text };
            for hook in self.hooks.iter().filter(|hook| hook.is_for(&event)) {
                let delivery = HookDelivery { hook: hook.name.clone(), attempts: 0, event: event.clone() };
                member.queue.push(delivery);
            }
        }
        if let Subject::Runner(sight) = &subject {
            member.look_after_files(&self.hooks, &key, sight, now);
        }
        member.announced = Some(announced);
        if !member.queue.is_empty() {
            self.queued.insert(key.clone());
        }
        if is_changed {
            self.save(&key).await;
        }
    }

    /// Begins what is due. Returns when something else is.
    async fn begin_attempts(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let (mut next, mut orphans): (Option<Instant>, Vec<_>) = (None, Vec::new());
        for key in &self.queued {
            let Some(member) = self.members.get_mut(key) else { continue };
            let mut blocked = member.busy.clone();
            for delivery in &member.queue {
                if !blocked.insert(delivery.hook.clone()) {
                    continue;
                }
                let Some(hook) = self.hooks.iter().find(|hook| hook.name == delivery.hook) else {
                    orphans.push((key.clone(), delivery.hook.clone()));
                    continue;
                };
                // The token is not known before the runner was seen.
                if hook.takes_token() && !member.is_seen {
                    continue;
                }
                if let Some(at) = member.not_before.get(&hook.name).filter(|at| **at > now) {
                    next = Some(next.map_or(*at, |next| next.min(*at)));
                    continue;
                }
                if self.attempts.len() >= MOST_AT_ONCE {
                    return next;
                }
                member.busy.insert(hook.name.clone());
                let token = member.token.clone().filter(|_| hook.takes_token());
                let task = Task {
                    key: key.clone(),
                    hook: hook.clone(),
                    delivery: delivery.clone(),
                    token,
                    is_own: member.is_own,
                };
                self.attempts.spawn(task.run(self.files.clone()));
            }
        }
        for (key, hook) in orphans {
            self.drop_orphans(&key, &hook).await;
        }
        next
    }

    /// Drops what is for a hook that the settings no longer have.
    async fn drop_orphans(&mut self, key: &RunnerKey, hook: &str) {
        if let Some(member) = self.members.get_mut(key) {
            let before = member.queue.len();
            member.queue.retain(|delivery| delivery.hook != hook);
            let events = before - member.queue.len();
            tracing::warn!(hook, events, "the settings no longer have a hook: its events are dropped");
            self.save(key).await;
            self.forget_if_done(key).await;
        }
    }

    /// Takes what has come of an attempt.
    async fn conclude(&mut self, Attempt { key, delivery, result }: Attempt) {
        let HookDelivery { hook, attempts, event } = &delivery;
        let attempts = attempts + 1;
        let runner = event.runner.as_deref().unwrap_or_default();
        let retries = self.hooks.iter().find(|known| known.name == *hook).map_or(0, |hook| hook.retries);
        let (kind, event_id) = (event.event.as_str(), event.event_id.as_str());
        let outcome = match &result {
            Ok(said) => {
                tracing::info!(hook, runner, event = kind, event_id, result = said, "a hook has run");
                HookOutcome::Done
            }
            Err(HookError::Passing(why)) if !is_given_up(attempts, retries) => {
                if attempts == 1 {
                    tracing::warn!(
                        hook,
                        runner,
                        event = kind,
                        event_id,
                        error = why,
                        "a hook has failed: trying again"
                    );
                } else {
                    tracing::debug!(
                        hook,
                        runner,
                        event = kind,
                        event_id,
                        attempts,
                        error = why,
                        "a hook has failed again"
                    );
                }
                HookOutcome::Failed
            }
            Err(why) => {
                tracing::error!(
                    hook,
                    runner,
                    event = kind,
                    event_id,
                    attempts,
                    error = %why,
                    "a hook has failed for good: the event is dropped; correct it, then try it with `runner-agent hook test`"
                );
                HookOutcome::Dropped
            }
        };
        self.counters.count_hook(hook, outcome);
        let Some(member) = self.members.get_mut(&key) else { return };
        member.busy.remove(hook);
        let Some(position) = member.queue.iter().position(|queued| queued == &delivery) else { return };
        match outcome {
            HookOutcome::Done | HookOutcome::Dropped => {
                member.queue.remove(position);
                member.not_before.remove(hook);
            }
            HookOutcome::Failed => {
                member.queue[position].attempts = attempts;
                let delay = retry_delay(attempts, Fraction::from_bits(random_bits()));
                member.not_before.insert(hook.clone(), Instant::now() + delay);
            }
        }
        self.save(&key).await;
        self.forget_if_done(&key).await;
    }

    /// Writes what is known of a member. An error only means that a crash makes an event be delivered again.
    async fn save(&mut self, key: &RunnerKey) {
        let Some(member) = self.members.get(key) else { return };
        if member.queue.is_empty() {
            self.queued.remove(key);
        }
        let Some(announced) = member.announced.clone() else { return };
        let (events, queue) = (member.events, member.queue.clone());
        let saved = self.files.save(HookRecord { key: key.clone(), announced, events, queue }).await;
        self.note_disk(saved);
    }

    /// Forgets a runner that is gone and has nothing left to deliver: it may be registered anew.
    async fn forget_if_done(&mut self, key: &RunnerKey) {
        let is_done = |member: &Member| {
            let has_token = member.announced.as_ref().is_some_and(|announced| announced.token.is_some());
            member.is_dismissed && member.queue.is_empty() && member.busy.is_empty() && !has_token
        };
        if self.members.get(key).is_some_and(is_done) {
            self.members.remove(key);
            self.queued.remove(key);
            let removed = self.files.remove(key.clone()).await;
            self.note_disk(removed);
        }
    }

    /// Logs once that the disk takes nothing.
    fn note_disk(&mut self, result: Result<(), Error>) {
        let error = result.err().map(|error| chain(&error).to_string());
        if let Some(error) = &error
            && self.disk_error.as_ref() != Some(error)
        {
            tracing::warn!(error, "cannot keep what hooks are run for: after a crash, events may come again");
        }
        self.disk_error = error;
    }
}

/// An attempt to make.
struct Task {
    key: RunnerKey,
    hook: Hook,
    delivery: HookDelivery,
    /// The present token, if the hook takes it.
    token: Option<Token>,
    is_own: bool,
}

impl Task {
    async fn run(self, files: HookFiles) -> Attempt {
        let result = self.result(files).await;
        Attempt { key: self.key, delivery: self.delivery, result }
    }

    async fn result(&self, files: HookFiles) -> Result<String, HookError> {
        let path = if self.hook.takes_token_path() {
            // Of one runner and hook, one attempt is made at a time.
            let stem = Digest::of(format!("{}\n{}", self.key, self.hook.name).as_bytes()).to_hex();
            files.token_path(stem).await.map_err(|error| HookError::Passing(chain(&error).to_string()))?
        } else {
            None
        };
        let Self { delivery, token, is_own, .. } = self;
        let delivery =
            Delivery { event: &delivery.event, token: token.as_ref(), token_path: path.as_deref(), is_own: *is_own };
        self.hook.run(delivery).await
    }
}

/// What is announced once this was seen, and the events that lead there.
fn compared(former: Option<&Announced>, subject: &Subject) -> (Announced, Vec<HookKind>) {
    match subject {
        Subject::Runner(sight) => (announced_runner(former, &sight.seen), runner_events(former, &sight.seen)),
        Subject::AccessToken { token, rotations, .. } => {
            let events = access_events(former, *token, *rotations);
            (Announced { token: *token, rotations: *rotations, ..Announced::default() }, events)
        }
        Subject::Settings(error) => {
            let mistakes = error.as_ref().map(|error| Digest::of(error.as_bytes()));
            let events = settings_events(former, mistakes);
            (Announced { token: mistakes, ..Announced::default() }, events)
        }
    }
}

/// What an event says about a runner.
#[derive(Default)]
struct RunnerFacts {
    runner: Option<String>,
    runner_id: Option<RunnerId>,
    url: Option<ServerUrl>,
    expires_at: Option<Timestamp>,
}

/// The facts of an event, and a sentence.
fn described(kind: HookKind, subject: &Subject, former_id: Option<RunnerId>) -> (RunnerFacts, String) {
    match subject {
        Subject::Runner(sight) => {
            let facts = RunnerFacts {
                runner: Some(sight.label.clone()),
                runner_id: sight.id().or(former_id),
                url: Some(sight.url.clone()),
                expires_at: sight.expiry.at().map(|at| at.whole_seconds()),
            };
            let text = sentence(kind, sight, &facts);
            (facts, text)
        }
        Subject::AccessToken { url, .. } => {
            let facts = RunnerFacts { url: Some(url.clone()), ..RunnerFacts::default() };
            (facts, format!("the access token for {url} was rotated"))
        }
        Subject::Settings(error) => {
            let error = error.as_deref().unwrap_or_default().replace('\n', "; ");
            (
                RunnerFacts::default(),
                format!("agent.toml is invalid, and the settings before it stay in force: {error}"),
            )
        }
    }
}

fn sentence(kind: HookKind, sight: &RunnerSight, facts: &RunnerFacts) -> String {
    let expiry = facts.expires_at.map(|at| format!("; its token expires at {at}")).unwrap_or_default();
    match kind {
        HookKind::Registered => match sight.id() {
            Some(id) => format!("registered as runner {id}{expiry}"),
            None => format!("registered{expiry}"),
        },
        HookKind::Rotated => format!("the token was rotated{expiry}"),
        HookKind::Rejected => "the server refuses the token".to_owned(),
        HookKind::Recovered => format!("it has a token that the server accepts again{expiry}"),
        HookKind::Unregistered => "unregistered".to_owned(),
        HookKind::Expiring => format!("little life is left of its token, which is not renewed{expiry}"),
        HookKind::AccessTokenRotated | HookKind::SettingsRejected => String::new(),
    }
}

async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
