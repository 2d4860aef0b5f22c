//! The registry of runner statuses: written by the daemon, read by the status server.
//!
//! Readers take copies, so the daemon never waits for one. The lock is never held across an await.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};

use super::events::EventRing;
use super::kept::KeptRunner;
use crate::clock::{Reading, ServerTime};
use crate::model::{AccessTokenReport, DaemonReport, RunnerId, RunnerKey, RunnerReport, ServerUrl, Timestamp};

/// The status of one runner; never holds a token.
#[derive(Clone, Debug)]
pub struct RunnerStatus {
    /// The runner as `/status` reports it.
    pub report: RunnerReport,
    /// Its key.
    pub key: RunnerKey,
    /// The reason in one sentence; `None` if the runner is registered, its last answered check accepted the
    /// token, and config.toml holds the token.
    pub not_ready_because: Option<String>,
    /// Server time at which the last reset issued a token.
    pub last_rotation_at: Option<Timestamp>,
    /// Server time from which the next rotation is due; `None` if none is planned.
    pub next_rotation_at: Option<Timestamp>,
    /// The estimated time of its server.
    pub time: ServerTime,
    /// Server time minus local time in milliseconds, from the server's last `Date`.
    pub skew_millis: Option<i64>,
}

/// The phase of the daemon's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Reading the inventory of runners.
    #[default]
    Starting,
    /// Serving its runners.
    Serving,
    /// Reading settings and files again; [`Phase::Serving`] follows.
    Reloading,
    /// Finishing operations or unregistering runners.
    Stopping,
}

/// How the work on files goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FileWork {
    /// None takes long.
    #[default]
    Flows,
    /// Some takes long, in one sentence.
    Slow(String),
    /// Some does not end, and only a new process could help, in one sentence.
    Stuck(String),
}

/// Why the daemon or one of its runners is not ready.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NotReadyReason {
    /// The runner's display name; absent if the reason concerns the daemon itself.
    pub name: Option<String>,
    /// GitLab's number of the runner, if it is registered.
    pub id: Option<RunnerId>,
    /// The reason in one sentence.
    pub why: String,
}

/// The body of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Readiness {
    /// Whether the daemon serves, every enrollment is registered and every credential accepted.
    pub ready: bool,
    /// The reasons if it is not ready.
    pub waiting_for: Vec<NotReadyReason>,
}

/// The status of the daemon and its runners. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct StatusRegistry {
    state: Arc<Mutex<RegistryState>>,
    changes: watch::Sender<()>,
}

#[derive(Debug, Default)]
pub(super) struct RegistryState {
    pub(super) phase: Phase,
    pub(super) file_work: FileWork,
    daemon: DaemonReport,
    pub(super) access_tokens: BTreeMap<ServerUrl, AccessTokenReport>,
    phase_subscribers: Vec<mpsc::UnboundedSender<Phase>>,
    /// The enrolled runners.
    expected: Vec<RunnerKey>,
    /// In the order of their first update.
    pub(super) runners: BTreeMap<u64, Box<KeptRunner>>,
    /// The number of each runner there.
    numbers: BTreeMap<RunnerKey, u64>,
    /// The next number.
    next: u64,
    pub(super) events: EventRing,
}

impl StatusRegistry {
    /// Sets the daemon's phase.
    pub fn enter(&self, phase: Phase) {
        let mut state = self.state();
        state.phase = phase;
        state.phase_subscribers.retain(|subscriber| subscriber.send(phase).is_ok());
        self.changes.send_replace(());
    }

    /// Sets how the work on files goes.
    pub fn report_file_work(&self, file_work: FileWork) {
        self.state().file_work = file_work;
        self.changes.send_replace(());
    }

    /// Sets why agent.toml on the disk is not in force, one sentence per line.
    pub fn report_settings(&self, error: Option<&String>) {
        self.state().daemon.settings_error = error.cloned();
        self.changes.send_replace(());
    }

    /// Sets why config.toml on the disk is not in force.
    pub fn report_config(&self, error: Option<&String>) {
        self.state().daemon.config_error = error.cloned();
        self.changes.send_replace(());
    }

    /// Whether agent.toml and config.toml are in force as they are on the disk.
    #[must_use]
    pub fn is_in_force(&self) -> bool {
        let state = self.state();
        state.daemon.settings_error.is_none() && state.daemon.config_error.is_none()
    }

    /// A reload was asked for.
    pub fn begin_reload(&self) {
        self.state().daemon.reloads_begun += 1;
    }

    /// All reloads that were asked for are done.
    pub fn finish_reload(&self) {
        let daemon = &mut self.state().daemon;
        daemon.reloads_done = daemon.reloads_begun;
    }

    /// Sets what is known of the access token of a server.
    pub fn report_access_token(&self, report: AccessTokenReport) {
        self.state().access_tokens.insert(report.server.clone(), report);
        self.changes.send_replace(());
    }

    /// The settings have no access token for a server any more.
    pub fn forget_access_token(&self, server: &ServerUrl) {
        self.state().access_tokens.remove(server);
        self.changes.send_replace(());
    }

    /// The daemon as `/status` reports it.
    #[must_use]
    pub fn daemon(&self) -> DaemonReport {
        let state = self.state();
        let access_tokens = state.access_tokens.values().cloned().collect();
        DaemonReport { version: env!("CARGO_PKG_VERSION").to_owned(), access_tokens, ..state.daemon.clone() }
    }

    /// Why only a new process could help, in one sentence; `None` if this one can go on.
    #[must_use]
    pub fn stuck_because(&self) -> Option<String> {
        match &self.state().file_work {
            FileWork::Stuck(why) => Some(why.clone()),
            FileWork::Flows | FileWork::Slow(_) => None,
        }
    }

    /// Sets the runners that are not ready unless they have a status.
    pub fn expect_runners(&self, keys: Vec<RunnerKey>) {
        self.state().expected = keys;
        self.changes.send_replace(());
    }

    /// Sets the status of a runner.
    pub fn update(&self, status: RunnerStatus) {
        let mut state = self.state();
        let number = match state.numbers.get(&status.key) {
            Some(number) => *number,
            None => {
                let number = state.next;
                state.next += 1;
                state.numbers.insert(status.key.clone(), number);
                number
            }
        };
        match state.runners.entry(number) {
            Entry::Occupied(mut known) => known.get_mut().update(status),
            Entry::Vacant(vacant) => {
                vacant.insert(Box::new(KeptRunner::new(status)));
            }
        }
        drop(state);
        self.changes.send_replace(());
    }

    /// Says why a runner is not ready, until its next update. Returns its display name, if it has a status.
    pub fn report_trouble(&self, key: &RunnerKey, why: &str) -> Option<String> {
        let mut state = self.state();
        let number = *state.numbers.get(key)?;
        let status = &mut state.runners.get_mut(&number)?.status;
        status.not_ready_because = Some(why.to_owned());
        status.report.error = Some(why.to_owned());
        let label = status.label().to_owned();
        drop(state);
        self.changes.send_replace(());
        Some(label)
    }

    /// Removes the status of a runner.
    pub fn remove(&self, key: &RunnerKey) {
        let mut state = self.state();
        if let Some(number) = state.numbers.remove(key) {
            state.runners.remove(&number);
        }
        drop(state);
        self.changes.send_replace(());
    }

    /// The numbers of the present runners, in the order of their first update; some may be vacant.
    pub(super) fn numbers(&self) -> Range<u64> {
        let state = self.state();
        state.runners.keys().next().map_or(state.next, |first| *first)..state.next
    }

    /// How many runners have a status.
    pub(super) fn count(&self) -> usize {
        self.state().runners.len()
    }

    /// Takes what is needed of the first runners of a range, at most `limit`, and moves its start behind them. Nothing
    /// is left once the range is empty. A runner that was removed is left out, and one that was added since the range
    /// was made lies behind its end.
    pub(super) fn page<T>(
        &self,
        numbers: &mut Range<u64>,
        limit: usize,
        take: impl Fn(u64, &RunnerStatus) -> T,
    ) -> Vec<T> {
        let state = self.state();
        let mut present = state.runners.range(numbers.clone());
        let taken = present.by_ref().take(limit).map(|(number, status)| take(*number, status)).collect();
        numbers.start = present.next().map_or(numbers.end, |(number, _)| *number);
        taken
    }

    /// Calls `take` with each of these runners, or with `None` for one that was removed.
    pub(super) fn look_up<T>(
        &self,
        numbers: impl Iterator<Item = u64>,
        mut take: impl FnMut(Option<&RunnerStatus>) -> T,
    ) -> Vec<T> {
        let state = self.state();
        numbers.map(|number| take(state.runners.get(&number).map(|kept| &kept.status))).collect()
    }

    /// Returns the status of each runner.
    #[must_use]
    pub fn runners(&self) -> Vec<RunnerStatus> {
        self.state().runners.values().map(|kept| kept.status.clone()).collect()
    }

    /// The status of each of these runners that is there, and the server time of its verifications before the last one.
    pub(super) fn look_up_runners(&self, numbers: &[u64]) -> Vec<(u64, RunnerStatus, Vec<Timestamp>)> {
        let state = self.state();
        let kept = numbers.iter().filter_map(|number| Some((*number, state.runners.get(number)?)));
        kept.map(|(number, kept)| (number, kept.status.clone(), kept.verified_before())).collect()
    }

    /// Whether the daemon and all runners are ready.
    pub(super) fn is_ready(&self) -> bool {
        let state = self.state();
        let is_serving = state.phase == Phase::Serving && state.file_work == FileWork::Flows;
        is_serving && state.not_in_force().next().is_none() && state.not_ready().next().is_none()
    }

    /// Returns whether the daemon and all runners are ready.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let state = self.state();
        let why = match state.phase {
            Phase::Starting => Some("the daemon is starting"),
            Phase::Serving => None,
            Phase::Reloading => Some("the daemon is reloading its settings"),
            Phase::Stopping => Some("the daemon is stopping"),
        };
        let of_daemon = why.into_iter().chain(state.file_work.trouble()).map(str::to_owned).chain(state.not_in_force());
        let daemon = of_daemon.map(|why| NotReadyReason { name: None, id: None, why });
        let waiting_for: Vec<_> = daemon.chain(state.not_ready()).collect();
        Readiness { ready: waiting_for.is_empty(), waiting_for }
    }

    /// Notifies of changes. Several changes may be merged into one notification.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Delivers every phase that is entered after this call, in order.
    #[must_use]
    pub fn phases(&self) -> mpsc::UnboundedReceiver<Phase> {
        let (subscriber, phases) = mpsc::unbounded_channel();
        self.state().phase_subscribers.push(subscriber);
        phases
    }

    /// Wakes those that wait for [changes](Self::changes).
    pub(super) fn notify(&self) {
        self.changes.send_replace(());
    }

    pub(super) fn state(&self) -> MutexGuard<'_, RegistryState> {
        // No panic under the lock can leave a partial update.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RegistryState {
    /// Why files on the disk are not in force, in one line each.
    pub(super) fn not_in_force(&self) -> impl Iterator<Item = String> + use<> {
        let DaemonReport { settings_error, config_error, .. } = &self.daemon;
        let settings = settings_error.as_ref().map(|error| format!("{SETTINGS_NOT_IN_FORCE}: {}", first_of(error)));
        let config = config_error.as_ref().map(|error| format!("{CONFIG_NOT_IN_FORCE}: {}", first_of(error)));
        settings.into_iter().chain(config)
    }

    /// The runners that are not ready.
    pub(super) fn not_ready(&self) -> impl Iterator<Item = NotReadyReason> {
        let known = self.runners.values().filter_map(|status| {
            let why = status.not_ready_because.clone()?;
            Some(NotReadyReason { name: Some(status.label().to_owned()), id: status.report.id, why })
        });
        known.chain(self.missing().map(|key| NotReadyReason {
            name: Some(key.to_string()),
            id: None,
            why: MISSING.to_owned(),
        }))
    }

    /// The expected runners without a status; none before the daemon serves.
    pub(super) fn missing(&self) -> impl Iterator<Item = &RunnerKey> {
        let expected = if self.phase == Phase::Starting { [].iter() } else { self.expected.iter() };
        expected.filter(|key| !self.numbers.contains_key(*key))
    }
}

const SETTINGS_NOT_IN_FORCE: &str = "the settings on the disk are invalid, and the previous ones are in force";

const CONFIG_NOT_IN_FORCE: &str = "config.toml cannot be read, and its last known content is in force";

/// The first of several errors, and how many others there are.
fn first_of(errors: &str) -> String {
    let mut lines = errors.lines();
    let first = lines.next().unwrap_or_default();
    match lines.count() {
        0 => first.to_owned(),
        others => format!("{first} (and {others} more)"),
    }
}

/// Why an expected runner without a status is not ready.
const MISSING: &str = "it is not served; if it was unregistered, a reload registers it again";

impl FileWork {
    pub(super) fn trouble(&self) -> Option<&str> {
        match self {
            Self::Flows => None,
            Self::Slow(why) | Self::Stuck(why) => Some(why),
        }
    }
}

impl RunnerStatus {
    /// Its display name: the local name, or else the key.
    #[must_use]
    pub fn label(&self) -> &str {
        self.report.name.as_deref().unwrap_or(self.key.as_str())
    }

    /// The server's host, with the port unless it is the default one.
    #[must_use]
    pub fn host(&self) -> String {
        self.report.url.as_ref().map(ServerUrl::authority).unwrap_or_default()
    }

    /// The runner as `/status` reports it at `reading`.
    #[must_use]
    pub fn report_at(&self, reading: Reading) -> RunnerReport {
        let mut report = self.report.clone();
        if let Some(sharing) = report.sharing.take() {
            report.sharing = Some(Box::new(sharing.at(self.time.now(reading))));
        }
        report
    }

    /// The token's remaining life at `reading` in seconds, negative after its expiry; `None` if it does not expire.
    #[must_use]
    pub fn expires_in_secs(&self, reading: Reading) -> Option<f64> {
        let left_millis = self.report.token_expires_at?.as_millis() - self.time.now(reading).as_millis();
        Some(left_millis as f64 / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StateName;
    use crate::status::tests::{key, status};

    fn names(registry: &StatusRegistry) -> Vec<Option<String>> {
        registry.readiness().waiting_for.into_iter().map(|unready| unready.name).collect()
    }

    #[test]
    fn only_a_serving_daemon_is_ready() {
        let registry = StatusRegistry::default();
        assert!(!registry.readiness().ready, "starting");
        registry.enter(Phase::Serving);
        assert!(registry.readiness().ready);
        registry.enter(Phase::Stopping);
        assert_eq!(names(&registry), [None]);
    }

    #[test]
    fn a_daemon_whose_files_do_not_answer_is_not_ready_and_says_which() {
        let registry = StatusRegistry::default();
        registry.enter(Phase::Serving);
        registry.update(status("a", Some(1), StateName::Active));
        for (file_work, is_stuck) in [
            (FileWork::Slow("the work on `/x` has not ended".to_owned()), false),
            (FileWork::Stuck("the work on `/x` has not ended".to_owned()), true),
        ] {
            registry.report_file_work(file_work);
            assert_eq!(registry.readiness().waiting_for[0].why, "the work on `/x` has not ended");
            assert!(summary(&registry).starts_with("1 runner ready; the work on `/x` has not ended; next"));
            assert_eq!(registry.stuck_because().is_some(), is_stuck);
        }
        registry.report_file_work(FileWork::Flows);
        assert!(registry.readiness().ready && registry.stuck_because().is_none());
    }

    #[test]
    fn a_daemon_whose_files_on_the_disk_are_not_in_force_is_not_ready_until_they_are() {
        let registry = StatusRegistry::default();
        registry.enter(Phase::Serving);
        registry.update(status("a", Some(1), StateName::Active));
        registry.report_settings(Some(&"agent.toml:1: wrong\nagent.toml:2: wrong too".to_owned()));
        let why = &registry.readiness().waiting_for[0].why;
        assert!(why.ends_with("are in force: agent.toml:1: wrong (and 1 more)"), "{why}");
        assert!(summary(&registry).starts_with(&format!("1 runner ready; {why}; next")), "{}", summary(&registry));
        registry.report_config(Some(&"unclosed".to_owned()));
        assert_eq!(registry.readiness().waiting_for.len(), 2);
        registry.report_settings(None);
        registry.report_config(None);
        assert!(registry.readiness().ready && registry.daemon().settings_error.is_none());
    }

    #[test]
    fn a_reload_that_is_asked_for_during_another_is_not_done_with_that() {
        let registry = StatusRegistry::default();
        let counts = || (registry.daemon().reloads_begun, registry.daemon().reloads_done);
        registry.begin_reload();
        registry.begin_reload();
        assert_eq!(counts(), (2, 0));
        registry.finish_reload();
        assert_eq!(counts(), (2, 2));
    }

    #[test]
    fn each_unready_runner_is_reported_with_its_reason() {
        let registry = StatusRegistry::default();
        registry.enter(Phase::Serving);
        registry.update(status("a", Some(1), StateName::Active));
        assert!(registry.readiness().ready);
        let refused =
            RunnerStatus { not_ready_because: Some("refused".to_owned()), ..status("b", Some(2), StateName::Rejected) };
        registry.update(refused);
        let expected =
            NotReadyReason { name: Some("b".to_owned()), id: RunnerId::try_new(2).ok(), why: "refused".to_owned() };
        assert_eq!(registry.readiness(), Readiness { ready: false, waiting_for: vec![expected] });
        registry.update(status("b", Some(2), StateName::Active));
        assert!(registry.readiness().ready);
    }

    #[test]
    fn an_expected_runner_without_a_status_is_not_ready() {
        let registry = StatusRegistry::default();
        registry.expect_runners(vec![key("a"), key("b")]);
        assert_eq!(summary(&registry), "starting");
        registry.enter(Phase::Serving);
        registry.update(status("a", None, StateName::Active));
        assert_eq!(names(&registry), [Some("b".to_owned())]);
        assert!(summary(&registry).starts_with("1 of 2 runners ready; b: it is not served"), "{}", summary(&registry));
        registry.update(status("b", None, StateName::Active));
        assert!(registry.readiness().ready);
    }

    #[test]
    fn a_reloading_daemon_is_not_ready() {
        let registry = StatusRegistry::default();
        registry.enter(Phase::Reloading);
        assert_eq!(names(&registry), [None]);
    }

    fn summary(registry: &StatusRegistry) -> String {
        registry.summary(crate::status::tests::now())
    }

    #[tokio::test]
    async fn every_change_notifies() {
        let registry = StatusRegistry::default();
        let mut changes = registry.changes();
        assert!(!changes.has_changed().unwrap());
        registry.clone().enter(Phase::Serving);
        changes.changed().await.unwrap();
        registry.update(status("a", None, StateName::Active));
        changes.changed().await.unwrap();
        registry.remove(&key("a"));
        changes.changed().await.unwrap();
    }

    #[test]
    fn an_update_keeps_the_order_of_runners() {
        let registry = StatusRegistry::default();
        for name in ["z", "a", "z"] {
            registry.update(status(name, None, StateName::Active));
        }
        let labels: Vec<_> = registry.runners().into_iter().map(|status| status.label().to_owned()).collect();
        assert_eq!(labels, ["z", "a"]);
    }

    #[tokio::test]
    async fn every_phase_arrives_in_order() {
        let registry = StatusRegistry::default();
        registry.enter(Phase::Serving);
        let (mut phases, dropped) = (registry.phases(), registry.phases());
        drop(dropped);
        registry.enter(Phase::Reloading);
        registry.clone().enter(Phase::Serving);
        registry.enter(Phase::Serving);
        drop(registry);
        let mut received = Vec::new();
        while let Some(phase) = phases.recv().await {
            received.push(phase);
        }
        assert_eq!(received, [Phase::Reloading, Phase::Serving, Phase::Serving]);
    }
}
