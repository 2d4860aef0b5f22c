//! The board: what the daemon tells about its runners, for whoever asks from outside.
//!
//! The daemon posts and never waits for a reader; a reader takes a copy. Nobody holds the lock across
//! anything that could wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::clock::{Reading, ServerTime};
use crate::model::{RunnerId, RunnerKey, RunnerReport, Timestamp};

/// What is posted about one runner; never holds a token.
#[derive(Clone, Debug)]
pub struct Posting {
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
pub struct Board {
    notes: Arc<Mutex<Notes>>,
    changes: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Notes {
    phase: Phase,
    /// The runners that there have to be.
    expected: Vec<RunnerKey>,
    /// In the order in which they were first posted.
    postings: Vec<(RunnerKey, Posting)>,
}

impl Board {
    /// Says how far the daemon has come.
    pub fn enter(&self, phase: Phase) {
        self.notes().phase = phase;
        self.changes.send_replace(());
    }

    /// Says which runners there have to be; one that nothing is posted about is not ready.
    pub fn expect(&self, keys: Vec<RunnerKey>) {
        self.notes().expected = keys;
        self.changes.send_replace(());
    }

    /// Puts up what is to be told about a runner, in place of what was told before.
    pub fn post(&self, key: &RunnerKey, posting: Posting) {
        let mut notes = self.notes();
        match notes.postings.iter_mut().find(|(posted, _)| posted == key) {
            Some((_, old)) => *old = posting,
            None => notes.postings.push((key.clone(), posting)),
        }
        self.changes.send_replace(());
    }

    /// Takes down what was told about a runner.
    pub fn remove(&self, key: &RunnerKey) {
        self.notes().postings.retain(|(posted, _)| posted != key);
        self.changes.send_replace(());
    }

    /// What is told about each runner.
    #[must_use]
    pub fn postings(&self) -> Vec<Posting> {
        self.notes().postings.iter().map(|(_, posting)| posting.clone()).collect()
    }

    /// Whether everything is as it should be.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let notes = self.notes();
        let of_daemon = match notes.phase {
            Phase::Starting => Some("the daemon is starting"),
            Phase::Serving => None,
            Phase::Reloading => Some("the daemon is reading its settings again"),
            Phase::Stopping => Some("the daemon is stopping"),
        };
        let of_daemon = of_daemon.map(|why| Unready { name: None, id: None, why: why.to_owned() });
        let waiting_for: Vec<_> = of_daemon.into_iter().chain(notes.unready()).collect();
        Readiness { ready: waiting_for.is_empty(), waiting_for }
    }

    /// Hears of every change; several that come at once count as one.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// How everything stands at `reading`, for somebody who has a line to read.
    #[must_use]
    pub fn sentence(&self, reading: Reading) -> String {
        let notes = self.notes();
        let unready: Vec<_> = notes.unready().collect();
        let count = notes.postings.len() + notes.missing().count();
        let mut clauses = vec![match (notes.phase, count) {
            (Phase::Starting, 0) => "starting".to_owned(),
            (phase, count) => format!("{}{}", phase.prefix(), well(count - unready.len(), count)),
        }];
        if let Some(Unready { name, why, .. }) = unready.first() {
            let more = if unready.len() > 1 { format!(" (and {} more)", unready.len() - 1) } else { String::new() };
            clauses.push(format!("{}: {why}{more}", name.as_deref().unwrap_or_default()));
        }
        clauses.extend(notes.next_rotation(reading));
        clauses.join("; ")
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        // Whoever panicked while posting has left whole postings behind.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Notes {
    /// Who is not as it should be, and why.
    fn unready(&self) -> impl Iterator<Item = Unready> {
        let posted = self.postings.iter().filter_map(|(_, posting)| {
            let why = posting.obstacle.clone()?;
            Some(Unready { name: Some(posting.label.clone()), id: posting.report.id, why })
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
        expected.filter(|key| !self.postings.iter().any(|(posted, _)| posted == *key))
    }

    /// The earliest rotation that is still to come.
    fn next_rotation(&self, reading: Reading) -> Option<String> {
        let to_come = |posting: &Posting| posting.next_rotation_at.filter(|at| *at > posting.time.now(reading));
        let rotations = self.postings.iter().filter_map(|(_, posting)| Some((to_come(posting)?, posting)));
        let (at, posting) = rotations.min_by_key(|(at, _)| *at)?;
        Some(format!("next rotation at {} ({})", at.whole_seconds(), posting.label))
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

impl Posting {
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
    use crate::observe::tests::{key, posting};

    fn names(board: &Board) -> Vec<Option<String>> {
        board.readiness().waiting_for.into_iter().map(|unready| unready.name).collect()
    }

    #[test]
    fn nobody_is_ready_before_the_daemon_serves_or_once_it_stops() {
        let board = Board::default();
        assert!(!board.readiness().ready, "it does not know yet whom it serves");
        board.enter(Phase::Serving);
        assert!(board.readiness().ready);
        board.enter(Phase::Stopping);
        assert_eq!(names(&board), [None]);
    }

    #[test]
    fn everybody_who_is_not_ready_is_named_with_the_reason() {
        let board = Board::default();
        board.enter(Phase::Serving);
        board.post(&key("a"), posting("a", Some(1), "active"));
        assert!(board.readiness().ready);
        let refused = Posting { obstacle: Some("refused".to_owned()), ..posting("b", Some(2), "rejected") };
        board.post(&key("b"), refused);
        let expected = Unready { name: Some("b".to_owned()), id: RunnerId::try_new(2).ok(), why: "refused".to_owned() };
        assert_eq!(board.readiness(), Readiness { ready: false, waiting_for: vec![expected] });
        board.post(&key("b"), posting("b", Some(2), "active"));
        assert!(board.readiness().ready);
    }

    #[test]
    fn one_sentence_tells_how_many_are_well_and_what_comes_next() {
        let board = Board::default();
        assert_eq!(sentence(&board), "starting");
        board.enter(Phase::Serving);
        assert_eq!(sentence(&board), "there is no runner to serve");
        board.post(&key("a"), posting("a", Some(1), "active"));
        assert_eq!(sentence(&board), "1 runner is well; next rotation at 2027-01-01T00:38:00Z (a)");
        let later = Posting { next_rotation_at: None, ..posting("b", Some(2), "active") };
        board.post(&key("b"), later.clone());
        assert_eq!(sentence(&board), "2 runners are well; next rotation at 2027-01-01T00:38:00Z (a)");
        board.remove(&key("a"));
        let refused = Posting { obstacle: Some("the server refuses the token".to_owned()), ..later };
        for name in ["b", "c"] {
            board.post(&key(name), refused.clone());
        }
        board.post(&key("d"), posting("d", None, "active"));
        let expected = "1 of 3 runners is well; b: the server refuses the token (and 1 more)";
        assert_eq!(sentence(&board), expected);
    }

    #[test]
    fn a_rotation_that_lies_in_the_past_is_not_the_next_one() {
        let board = Board::default();
        board.enter(Phase::Serving);
        let late = Posting {
            next_rotation_at: Some("2027-01-01T00:31:00Z".parse().unwrap()),
            ..posting("a", Some(1), "active")
        };
        board.post(&key("a"), late);
        assert_eq!(sentence(&board), "1 runner is well", "the server is a minute and a half ahead");
    }

    #[test]
    fn a_runner_that_has_to_be_there_and_is_not_is_missed() {
        let board = Board::default();
        board.expect(vec![key("a"), key("b")]);
        assert_eq!(sentence(&board), "starting");
        board.enter(Phase::Serving);
        board.post(&key("a"), posting("a", None, "active"));
        assert_eq!(names(&board), [Some("b".to_owned())]);
        assert!(sentence(&board).starts_with("1 of 2 runners is well; b: nobody serves it"), "{}", sentence(&board));
        board.post(&key("b"), posting("b", None, "active"));
        assert!(board.readiness().ready);
    }

    #[test]
    fn nothing_is_ready_while_settings_are_read() {
        let board = Board::default();
        board.enter(Phase::Reloading);
        assert_eq!(names(&board), [None]);
    }

    fn sentence(board: &Board) -> String {
        board.sentence(crate::observe::tests::now())
    }

    #[tokio::test]
    async fn every_change_is_heard_of() {
        let board = Board::default();
        let mut changes = board.changes();
        assert!(!changes.has_changed().unwrap());
        board.clone().enter(Phase::Serving);
        changes.changed().await.unwrap();
        board.post(&key("a"), posting("a", None, "active"));
        changes.changed().await.unwrap();
        board.remove(&key("a"));
        changes.changed().await.unwrap();
    }

    #[test]
    fn runners_keep_their_order_when_they_are_posted_again() {
        let board = Board::default();
        for name in ["z", "a", "z"] {
            board.post(&key(name), posting(name, None, "active"));
        }
        let labels: Vec<_> = board.postings().into_iter().map(|posting| posting.label).collect();
        assert_eq!(labels, ["z", "a"]);
    }
}
