//! The dispatcher of hooks: finds events, keeps them on the disk, and has the hooks run for them.
//!
//! A task of its own. An event is found by comparing what is seen with what was announced last, so a crash at any point
//! only makes the next start find it again. Events of a runner reach a hook in their order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::attempt::{Attempt, Task};
use super::backlog::Backlog;
use super::gone::Gone;
use super::lanes::Lanes;
use super::member::{Former, Member};
use super::{HookMessage, Sighting, Subject};
use crate::error_chain::chain;
use crate::hooks::{Hook, HookError};
use crate::lifecycle::Fraction;
use crate::lifecycle::hooks::{is_given_up, retry_delay};
use crate::model::{HookDelivery, RunnerKey, Timestamp};
use crate::secret::random_bits;
use crate::status::{Counters, HookOutcome};
use crate::store::{Error, HookFiles, HookFilesRead};

/// When the files are read again that could not be read.
const READ_RETRY: Duration = Duration::from_secs(10);

/// Finds events and delivers them.
pub(in super::super) struct Dispatcher {
    files: HookFiles,
    counters: Counters,
    inbox: UnboundedReceiver<HookMessage>,
    hooks: Arc<[Hook]>,
    /// Whether the files were read.
    is_loaded: bool,
    /// Whether every runner was seen that was there before the first hook.
    has_begun: bool,
    /// The runners that make no event when they are seen first.
    there: BTreeSet<RunnerKey>,
    /// Those that may be gone.
    gone: Gone,
    members: BTreeMap<RunnerKey, Member>,
    /// What was seen before the files were read.
    backlog: Backlog,
    /// When their next reading is.
    read_at: Option<Instant>,
    lanes: Lanes,
    attempts: JoinSet<Attempt>,
    /// What is under way, by its task.
    under_way: HashMap<task::Id, (RunnerKey, HookDelivery)>,
    /// When a stop gives up what is under way.
    deadline: Option<Instant>,
    /// Why the disk takes nothing, which is logged once.
    disk_error: Option<String>,
}

impl Dispatcher {
    pub(in super::super) fn new(files: HookFiles, counters: Counters, inbox: UnboundedReceiver<HookMessage>) -> Self {
        Self {
            files,
            counters,
            inbox,
            hooks: Arc::default(),
            is_loaded: false,
            has_begun: false,
            there: BTreeSet::new(),
            gone: Gone::default(),
            members: BTreeMap::new(),
            backlog: Backlog::default(),
            read_at: None,
            lanes: Lanes::default(),
            attempts: JoinSet::new(),
            under_way: HashMap::new(),
            deadline: None,
            disk_error: None,
        }
    }

    /// Runs until it is told to stop, and nothing that is due is left, or the time for that is over.
    pub(in super::super) async fn run(mut self) {
        loop {
            self.begin_attempts();
            let is_idle = self.deadline.is_some() && self.attempts.is_empty();
            if is_idle {
                return;
            }
            let next = [self.lanes.next_due(), self.gone.next_due(), self.read_at].into_iter().flatten().min();
            tokio::select! {
                biased;
                () = reached(self.deadline) => return self.log_cut_off(),
                message = self.inbox.recv() => match message {
                    Some(message) => self.receive(message).await,
                    None => return,
                },
                Some(ended) = self.attempts.join_next_with_id() => self.take(ended).await,
                () = reached(next) => self.look_at_the_time().await,
            }
        }
    }

    fn log_cut_off(&self) {
        for (_, HookDelivery { hook, event, .. }) in self.under_way.values() {
            let (runner, kind) = (event.runner.as_deref().unwrap_or_default(), event.event.as_str());
            tracing::warn!(
                hook,
                runner,
                event = kind,
                event_id = event.event_id,
                "the end of the agent ends a hook: the next start runs it again"
            );
        }
    }

    pub(super) async fn receive(&mut self, message: HookMessage) {
        match message {
            HookMessage::Hooks(hooks) => self.take_hooks(hooks).await,
            HookMessage::Stop(deadline) => self.deadline = Some(deadline),
            HookMessage::There(keys, now) if self.is_loaded => self.expect(keys, now).await,
            HookMessage::Seen(sighting) if self.is_loaded => self.see(*sighting).await,
            HookMessage::Dismissed(key, now) if self.is_loaded => self.dismiss(key, now).await,
            HookMessage::There(keys, now) => self.backlog.there = Some((keys, now)),
            HookMessage::Seen(sighting) => self.backlog.see(*sighting),
            HookMessage::Dismissed(key, now) => {
                self.backlog.dismissed.insert(key, now);
            }
        }
    }

    pub(super) async fn look_at_the_time(&mut self) {
        let now = Instant::now();
        if self.read_at.is_some_and(|at| at <= now) {
            self.load().await;
        }
        while let Some((key, at)) = self.gone.take_due(now) {
            if let Some(member) = self.members.get_mut(&key) {
                let dropped = member.lose(&key, at, &self.hooks, &self.lanes);
                self.note_displaced(&dropped);
                self.line_up(&key, LineUp::Untried);
                self.save(&key).await;
                self.forget_if_done(&key).await;
            }
        }
    }

    /// Takes the hooks of new settings.
    async fn take_hooks(&mut self, hooks: Arc<[Hook]>) {
        self.hooks = hooks;
        for hook in &*self.hooks {
            self.counters.expect_hook(&hook.name);
        }
        if !self.is_loaded {
            if self.hooks.is_empty() {
                // What was announced before is of no use any more.
                let removed = self.files.remove_all().await;
                self.note_disk(removed);
                (self.read_at, self.backlog) = (None, Backlog::default());
            } else {
                self.load().await;
            }
            return;
        }
        self.members.values_mut().for_each(Member::forget_looks);
        // A mistake in the settings may be corrected: what waits is tried now.
        let waiting = self.members.iter().filter(|(_, member)| !member.is_idle());
        for key in waiting.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.drop_unwanted(&key).await;
            self.line_up(&key, LineUp::All);
        }
    }

    /// Reads the files. Nothing is written before they could be read: it would replace what they hold.
    async fn load(&mut self) {
        let HookFilesRead { records, damaged, has_begun } = match self.files.read().await {
            Ok(read) => read,
            Err(error) => {
                if self.read_at.is_none() {
                    tracing::error!(
                        error = chain(&error),
                        "no hook runs: what they are to be run for cannot be read; trying again"
                    );
                }
                self.read_at = Some(Instant::now() + READ_RETRY);
                return;
            }
        };
        (self.is_loaded, self.has_begun, self.read_at) = (true, has_begun, None);
        for (key, error) in damaged {
            tracing::error!(
                error = chain(&error),
                "what a hook was to be run for is lost with a damaged file, which is kept under another name: the present state counts as announced"
            );
            self.there.insert(key);
        }
        self.members = records.into_iter().map(Member::stored).collect();
        for key in self.members.keys().cloned().collect::<Vec<_>>() {
            self.drop_unwanted(&key).await;
            self.line_up(&key, LineUp::All);
        }
        let Backlog { there, seen, dismissed } = std::mem::take(&mut self.backlog);
        if let Some((keys, now)) = there {
            self.expect(keys, now).await;
        }
        for sighting in seen.into_values() {
            self.see(sighting).await;
        }
        for (key, now) in dismissed {
            self.dismiss(key, now).await;
        }
    }

    async fn dismiss(&mut self, key: RunnerKey, now: Timestamp) {
        if let Some(member) = self.members.get_mut(&key) {
            member.is_dismissed = true;
            if member.has_token() {
                self.gone.note(key.clone(), now);
            }
            self.forget_if_done(&key).await;
        }
        self.note_seen(&key).await;
    }

    /// These runners are there. If that is before the first hook, they are not announced. Others that have a file may be
    /// gone.
    async fn expect(&mut self, keys: BTreeSet<RunnerKey>, now: Timestamp) {
        let absent = self
            .members
            .iter()
            .filter(|(key, member)| member.is_of_runner() && member.has_token() && !keys.contains(key));
        for key in absent.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.gone.note(key, now);
        }
        if !self.has_begun {
            self.there.extend(keys.into_iter().filter(|key| !self.members.contains_key(key)));
            self.begin_if_all_are_seen().await;
        }
    }

    /// One that was there was seen, or is gone.
    async fn note_seen(&mut self, key: &RunnerKey) {
        if self.there.remove(key) {
            self.begin_if_all_are_seen().await;
        }
    }

    /// From here on, a runner without a file is new.
    async fn begin_if_all_are_seen(&mut self) {
        if self.there.is_empty() && !self.has_begun && self.is_loaded {
            self.has_begun = true;
            let noted = self.files.begin().await;
            self.note_disk(noted);
        }
    }

    /// Compares what is seen with what was announced.
    async fn see(&mut self, sighting: Sighting) {
        let key = sighting.key.clone();
        let former = if self.there.contains(&key) { Former::There } else { Former::Announced };
        self.gone.forget(&key);
        self.follow(&sighting).await;
        let member = self.members.entry(key.clone()).or_default();
        let change = member.see(&sighting, former, &self.hooks, &self.lanes);
        self.note_displaced(&change.dropped);
        self.line_up(&key, LineUp::Untried);
        if change.is_news {
            self.save(&key).await;
        }
        self.note_seen(&key).await;
    }

    /// Reports events that a queue had no room for any more.
    fn note_displaced(&self, dropped: &[HookDelivery]) {
        for HookDelivery { hook, event, .. } in dropped {
            let (runner, kind) = (event.runner.as_deref().unwrap_or_default(), event.event.as_str());
            tracing::error!(
                hook,
                runner,
                event = kind,
                event_id = event.event_id,
                "too many events wait for a hook that fails: the oldest one is dropped; correct the hook, then reload"
            );
            self.counters.count_hook(hook, HookOutcome::Dropped);
        }
    }

    /// A runner that is seen first may be one that was there under another key: it is the same one.
    async fn follow(&mut self, Sighting { key, subject, .. }: &Sighting) {
        let Subject::Runner(sight) = subject else { return };
        if self.members.contains_key(key) {
            return;
        }
        let former = self.gone.keys().find(|gone| self.members.get(gone).is_some_and(|member| member.is_same(sight)));
        let Some(former) = former.cloned() else { return };
        self.gone.forget(&former);
        if let Some(member) = self.members.remove(&former) {
            for hook in member.wanted_hooks() {
                self.lanes.withdraw(&hook, &former);
            }
            self.members.insert(key.clone(), member);
            // A crash in between leaves both, and the former one is gone after that.
            self.save(key).await;
            let removed = self.files.remove(former).await;
            self.note_disk(removed);
        }
    }

    /// Has the hooks run for a member that something is to be delivered about.
    fn line_up(&mut self, key: &RunnerKey, which: LineUp) {
        let Some(member) = self.members.get(key) else { return };
        let now = Instant::now();
        for name in member.wanted_hooks() {
            let Some(hook) = self.hooks.iter().find(|hook| hook.name == name) else { continue };
            // The token is not known before the runner was seen.
            if hook.takes_token() && !member.is_seen {
                continue;
            }
            let is_untried = member.next_for(&name).is_some_and(|delivery| delivery.attempts == 0);
            if is_untried || which == LineUp::All {
                self.lanes.hurry(&name, key, now);
            } else {
                self.lanes.put(&name, key, now);
            }
        }
    }

    /// Begins what is due.
    fn begin_attempts(&mut self) {
        while let Some((name, key)) = self.lanes.take_due(Instant::now()) {
            let hook = self.hooks.iter().find(|hook| hook.name == name);
            let found = hook
                .zip(self.members.get(&key))
                .and_then(|(hook, member)| Some((hook, member, member.next_for(&name)?)))
                .filter(|(hook, _, delivery)| hook.still_wants(&delivery.event));
            let Some((hook, member, delivery)) = found else {
                self.lanes.end(&name, &key);
                continue;
            };
            let delivery = delivery.clone();
            let task = Task {
                key: key.clone(),
                hook: hook.clone(),
                delivery: delivery.clone(),
                token: member.token.clone(),
                is_own: member.is_own,
            };
            let begun = self.attempts.spawn(task.run(self.files.clone()));
            self.under_way.insert(begun.id(), (key, delivery));
        }
    }

    /// Takes what has come of an attempt. One that has panicked, which has been logged, has failed.
    async fn take(&mut self, ended: Result<(task::Id, Attempt), JoinError>) {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let Some((key, delivery)) = self.under_way.remove(&id) else { return };
        let panicked =
            |_| Attempt { key, delivery, result: Err(HookError::Passing("an internal error, see the log".to_owned())) };
        let attempt = ended.map_or_else(panicked, |(_, attempt)| attempt);
        self.conclude(attempt).await;
    }

    /// Drops what no hook of the settings wants any more.
    async fn drop_unwanted(&mut self, key: &RunnerKey) {
        let Some(member) = self.members.get_mut(key) else { return };
        let dropped = member.drop_unwanted(&self.hooks);
        if dropped.is_empty() {
            return;
        }
        for (hook, events) in &dropped {
            self.lanes.withdraw(hook, key);
            tracing::warn!(
                hook,
                events,
                "the settings no longer have this hook for events that have waited for it: they are dropped"
            );
        }
        self.save(key).await;
        self.forget_if_done(key).await;
    }

    /// Notes what has come of an attempt, and says when the next one is.
    async fn conclude(&mut self, attempt: Attempt) {
        let (HookDelivery { hook, attempts, .. }, key) = (&attempt.delivery, &attempt.key);
        let attempts = attempts + 1;
        let retries = self.hooks.iter().find(|known| known.name == *hook).map_or(0, |hook| hook.retries);
        let outcome = match &attempt.result {
            Ok(_) => HookOutcome::Done,
            Err(HookError::Passing(_)) if !is_given_up(attempts, retries) => HookOutcome::Failed,
            Err(_) => HookOutcome::Dropped,
        };
        let has_failed = outcome == HookOutcome::Failed;
        let mut is_news = true;
        if let Some(member) = self.members.get_mut(key) {
            match &attempt.result {
                Err(why) if has_failed => is_news = member.note_error(hook, &why.to_string()),
                _ => member.forget_error(hook),
            }
        }
        attempt.log(outcome, attempts, is_news);
        self.counters.count_hook(hook, outcome);
        self.lanes.end(hook, key);
        let Some(member) = self.members.get_mut(key) else { return };
        if !member.conclude(&attempt.delivery, has_failed.then_some(attempts)) {
            // It was dropped meanwhile.
            return self.line_up(key, LineUp::Untried);
        }
        if has_failed {
            let delay = retry_delay(attempts, Fraction::from_bits(random_bits()));
            self.lanes.put(hook, key, Instant::now() + delay);
        } else {
            self.line_up(key, LineUp::Untried);
        }
        self.save(key).await;
        self.forget_if_done(key).await;
    }

    /// Writes what is known of a member. An error only means that a crash makes an event be delivered again.
    async fn save(&mut self, key: &RunnerKey) {
        let Some(record) = self.members.get(key).and_then(|member| member.record(key)) else { return };
        let saved = self.files.save(record).await;
        self.note_disk(saved);
    }

    /// Forgets a runner that is gone and has nothing left to deliver: it may be registered anew.
    async fn forget_if_done(&mut self, key: &RunnerKey) {
        if self.members.get(key).is_some_and(Member::is_done) {
            self.members.remove(key);
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

/// Which hooks run as soon as they can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineUp {
    /// All, also those that wait after a failure.
    All,
    /// Those whose next event was not tried yet.
    Untried,
}

async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
