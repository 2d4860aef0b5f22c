//! The board: what the daemon tells about its runners, for whoever asks from outside.
//!
//! The daemon posts and never waits for a reader; a reader takes a copy. Nobody holds the lock across
//! anything that could wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};

use crate::clock::{Reading, ServerTime};
use crate::model::{RunnerId, RunnerKey, RunnerReport, Timestamp};

/// What is posted about one runner; never holds a token.
#[derive(Clone, Debug)]
pub struct RunnerStatus {
    /// How it stands.
    pub report: RunnerReport,
    /// Its name for people, also before it is registered: the local name, else the enrollment's key.
    pub label: String,
    /// The server's host, with its port where that is not the usual one.
    pub host: String,
    /// Why it is not ready, in one sentence; `None` if it is registered, the server accepted its credential
    /// when asked last, and config.toml holds it.
    pub obstacle: Option<String>,
    /// Server time of the last token that was issued to it by a reset.
    pub last_rotation_at: Option<Timestamp>,
    /// Server time from which the next one is due; `None` if its token is not replaced.
    pub next_rotation_at: Option<Timestamp>,
    /// The estimate of its server's time.
    pub time: ServerTime,
    /// Server time minus this machine's, in milliseconds, when the server told its time last.
    pub skew_millis: Option<i64>,
}

/// How far the daemon has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It finds out whom it serves.
    #[default]
    Starting,
    /// It serves.
    Serving,
    /// It reads its settings again, and finds out whom it serves then.
    Reloading,
    /// It unregisters, or lets what is under way finish.
    Stopping,
}

/// Who is not ready, and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Unready {
    /// The runner's name for people; absent if the daemon itself is meant.
    pub name: Option<String>,
    /// GitLab's number, once known.
    pub id: Option<RunnerId>,
    /// The reason, in one sentence.
    pub why: String,
}

/// Whether everything is as it should be: the body of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Readiness {
    /// Whether every enrollment is registered and every credential accepted.
    pub ready: bool,
    /// Who keeps it from being so.
    pub waiting_for: Vec<Unready>,
}

/// Where the daemon posts. Clones are the same board.
#[derive(Clone, Debug, Default)]
pub struct StatusRegistry {
    state: Arc<Mutex<RegistryState>>,
    changes: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct RegistryState {
    phase: Phase,
    phase_subscribers: Vec<mpsc::UnboundedSender<Phase>>,
    /// The runners that there have to be.
    expected: Vec<RunnerKey>,
    /// In the order in which they were first posted.
    runners: Vec<(RunnerKey, RunnerStatus)>,
}

impl StatusRegistry {
    /// Says how far the daemon has come.
    pub fn enter(&self, phase: Phase) {
        let mut state = self.state();
        state.phase = phase;
        state.phase_subscribers.retain(|subscriber| subscriber.send(phase).is_ok());
        drop(state);
        self.changes.send_replace(());
    }

    /// Says which runners there have to be; one that nothing is posted about is not ready.
    pub fn expect(&self, keys: Vec<RunnerKey>) {
        self.state().expected = keys;
        self.changes.send_replace(());
    }

    /// Puts up what is to be told about a runner, in place of what was told before.
    pub fn update(&self, key: &RunnerKey, status: RunnerStatus) {
        let mut state = self.state();
        match state.runners.iter_mut().find(|(posted, _)| posted == key) {
            Some((_, old)) => *old = status,
            None => state.runners.push((key.clone(), status)),
        }
        self.changes.send_replace(());
    }

    /// Takes down what was told about a runner.
    pub fn remove(&self, key: &RunnerKey) {
        self.state().runners.retain(|(posted, _)| posted != key);
        self.changes.send_replace(());
    }

    /// What is told about each runner.
    #[must_use]
    pub fn runners(&self) -> Vec<RunnerStatus> {
        self.state().runners.iter().map(|(_, status)| status.clone()).collect()
    }

    /// Whether everything is as it should be.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let state = self.state();
        let of_daemon = match state.phase {
            Phase::Starting => Some("the daemon is starting"),
            Phase::Serving => None,
            Phase::Reloading => Some("the daemon is reading its settings again"),
            Phase::Stopping => Some("the daemon is stopping"),
        };
        let of_daemon = of_daemon.map(|why| Unready { name: None, id: None, why: why.to_owned() });
        let waiting_for: Vec<_> = of_daemon.into_iter().chain(state.unready()).collect();
        Readiness { ready: waiting_for.is_empty(), waiting_for }
    }

    /// Delivers every phase that is entered after this call, in order.
    #[must_use]
    pub fn phases(&self) -> mpsc::UnboundedReceiver<Phase> {
        let (subscriber, phases) = mpsc::unbounded_channel();
        self.state().phase_subscribers.push(subscriber);
        phases
    }

    /// Hears of every change; several that come at once count as one.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// How everything stands at `reading`, for somebody who has a line to read.
    #[must_use]
    pub fn sentence(&self, reading: Reading) -> String {
        let state = self.state();
        let unready: Vec<_> = state.unready().collect();
        let count = state.runners.len() + state.missing().count();
        let mut clauses = vec![match (state.phase, count) {
            (Phase::Starting, 0) => "starting".to_owned(),
            (phase, count) => format!("{}{}", phase.prefix(), well(count - unready.len(), count)),
        }];
        if let Some(Unready { name, why, .. }) = unready.first() {
            let more = if unready.len() > 1 { format!(" (and {} more)", unready.len() - 1) } else { String::new() };
            clauses.push(format!("{}: {why}{more}", name.as_deref().unwrap_or_default()));
        }
        clauses.extend(state.next_rotation(reading));
        clauses.join("; ")
    }

    fn state(&self) -> MutexGuard<'_, RegistryState> {
        // Whoever panicked while posting has left whole postings behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RegistryState {
    /// Who is not as it should be, and why.
    fn unready(&self) -> impl Iterator<Item = Unready> {
        let posted = self.runners.iter().filter_map(|(_, status)| {
            let why = status.obstacle.clone()?;
            Some(Unready { name: Some(status.label.clone()), id: status.report.id, why })
        });
        posted.chain(self.missing().map(|key| Unready {
            name: Some(key.to_string()),
            id: None,
            why: MISSING.to_owned(),
        }))
    }

    /// The runners that there have to be and that nobody serves.
    fn missing(&self) -> impl Iterator<Item = &RunnerKey> {
        // Before it serves, nobody is missed.
        let expected = if self.phase == Phase::Starting { [].iter() } else { self.expected.iter() };
        expected.filter(|key| !self.runners.iter().any(|(posted, _)| posted == *key))
    }

    /// The earliest rotation that is still to come.
    fn next_rotation(&self, reading: Reading) -> Option<String> {
        let to_come = |status: &RunnerStatus| status.next_rotation_at.filter(|at| *at > status.time.now(reading));
        let rotations = self.runners.iter().filter_map(|(_, status)| Some((to_come(status)?, status)));
        let (at, status) = rotations.min_by_key(|(at, _)| *at)?;
        Some(format!("next rotation at {} ({})", at.whole_seconds(), status.label))
    }
}

/// Why a runner that there has to be and that nobody serves is not ready.
const MISSING: &str = "nobody serves it; if it was unregistered, a reload registers it again";

impl Phase {
    fn prefix(self) -> &'static str {
        match self {
            Self::Starting => "starting; ",
            Self::Serving => "",
            Self::Reloading => "reloading; ",
            Self::Stopping => "stopping; ",
        }
    }
}

fn well(well: usize, count: usize) -> String {
    match (well, count) {
        (_, 0) => "there is no runner to serve".to_owned(),
        (1, 1) => "1 runner is well".to_owned(),
        (well, count) if well == count => format!("{count} runners are well"),
        (1, count) => format!("1 of {count} runners is well"),
        (well, count) => format!("{well} of {count} runners are well"),
    }
}

impl RunnerStatus {
    /// What is left of its token at `reading`, in seconds, negative once it has expired; `None` if it has no end.
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
    fn nobody_is_ready_before_the_daemon_serves_or_once_it_stops() {
        let registry = StatusRegistry::default();
        assert!(!registry.readiness().ready, "it does not know yet whom it serves");
        registry.enter(Phase::Serving);
        assert!(registry.readiness().ready);
        registry.enter(Phase::Stopping);
        assert_eq!(names(&registry), [None]);
    }

    #[test]
    fn everybody_who_is_not_ready_is_named_with_the_reason() {
        let registry = StatusRegistry::default();
        registry.enter(Phase::Serving);
        registry.update(&key("a"), status("a", Some(1), StateName::Active));
        assert!(registry.readiness().ready);
        let refused =
            RunnerStatus { obstacle: Some("refused".to_owned()), ..status("b", Some(2), StateName::Rejected) };
        registry.update(&key("b"), refused);
        let expected = Unready { name: Some("b".to_owned()), id: RunnerId::try_new(2).ok(), why: "refused".to_owned() };
        assert_eq!(registry.readiness(), Readiness { ready: false, waiting_for: vec![expected] });
        registry.update(&key("b"), status("b", Some(2), StateName::Active));
        assert!(registry.readiness().ready);
    }

    #[test]
    fn one_sentence_tells_how_many_are_well_and_what_comes_next() {
        let registry = StatusRegistry::default();
        assert_eq!(sentence(&registry), "starting");
        registry.enter(Phase::Serving);
        assert_eq!(sentence(&registry), "there is no runner to serve");
        registry.update(&key("a"), status("a", Some(1), StateName::Active));
        assert_eq!(sentence(&registry), "1 runner is well; next rotation at 2027-01-01T00:38:00Z (a)");
        let later = RunnerStatus { next_rotation_at: None, ..status("b", Some(2), StateName::Active) };
        registry.update(&key("b"), later.clone());
        assert_eq!(sentence(&registry), "2 runners are well; next rotation at 2027-01-01T00:38:00Z (a)");
        registry.remove(&key("a"));
        let refused = RunnerStatus { obstacle: Some("the server refuses the token".to_owned()), ..later };
        for name in ["b", "c"] {
            registry.update(&key(name), refused.clone());
        }
        registry.update(&key("d"), status("d", None, StateName::Active));
        let expected = "1 of 3 runners is well; b: the server refuses the token (and 1 more)";
        assert_eq!(sentence(&registry), expected);
    }

    #[test]
    fn a_rotation_that_lies_in_the_past_is_not_the_next_one() {
        let registry = StatusRegistry::default();
        registry.enter(Phase::Serving);
        let late = RunnerStatus {
            next_rotation_at: Some("2027-01-01T00:31:00Z".parse().unwrap()),
            ..status("a", Some(1), StateName::Active)
        };
        registry.update(&key("a"), late);
        assert_eq!(sentence(&registry), "1 runner is well", "the server is a minute and a half ahead");
    }

    #[test]
    fn a_runner_that_has_to_be_there_and_is_not_is_missed() {
        let registry = StatusRegistry::default();
        registry.expect(vec![key("a"), key("b")]);
        assert_eq!(sentence(&registry), "starting");
        registry.enter(Phase::Serving);
        registry.update(&key("a"), status("a", None, StateName::Active));
        assert_eq!(names(&registry), [Some("b".to_owned())]);
        assert!(
            sentence(&registry).starts_with("1 of 2 runners is well; b: nobody serves it"),
            "{}",
            sentence(&registry)
        );
        registry.update(&key("b"), status("b", None, StateName::Active));
        assert!(registry.readiness().ready);
    }

    #[test]
    fn nothing_is_ready_while_settings_are_read() {
        let registry = StatusRegistry::default();
        registry.enter(Phase::Reloading);
        assert_eq!(names(&registry), [None]);
    }

    fn sentence(registry: &StatusRegistry) -> String {
        registry.sentence(crate::status::tests::now())
    }

    #[tokio::test]
    async fn every_change_is_heard_of() {
        let registry = StatusRegistry::default();
        let mut changes = registry.changes();
        assert!(!changes.has_changed().unwrap());
        registry.clone().enter(Phase::Serving);
        changes.changed().await.unwrap();
        registry.update(&key("a"), status("a", None, StateName::Active));
        changes.changed().await.unwrap();
        registry.remove(&key("a"));
        changes.changed().await.unwrap();
    }

    #[test]
    fn runners_keep_their_order_when_they_are_posted_again() {
        let registry = StatusRegistry::default();
        for name in ["z", "a", "z"] {
            registry.update(&key(name), status(name, None, StateName::Active));
        }
        let labels: Vec<_> = registry.runners().into_iter().map(|status| status.label).collect();
        assert_eq!(labels, ["z", "a"]);
    }
}
