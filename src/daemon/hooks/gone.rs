//! Runners that are no longer served, until it is certain that they are gone.

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;

use crate::lifecycle::hooks::GONE_AFTER;
use crate::model::{RunnerKey, Timestamp};

/// Runners that may be gone. One whose record gets another key, or whose entry is written anew, comes back.
#[derive(Debug, Default)]
pub(super) struct Gone {
    since: BTreeMap<RunnerKey, (Instant, Timestamp)>,
    /// The same in the order of time. May have more: those that have come back.
    order: VecDeque<(Instant, RunnerKey)>,
}

impl Gone {
    /// A runner is no longer served.
    pub(super) fn note(&mut self, key: RunnerKey, at: Timestamp) {
        let due = Instant::now() + GONE_AFTER;
        self.order.push_back((due, key.clone()));
        self.since.insert(key, (due, at));
    }

    /// A runner is served.
    pub(super) fn forget(&mut self, key: &RunnerKey) {
        self.since.remove(key);
    }

    /// The runners that may be gone.
    pub(super) fn keys(&self) -> impl Iterator<Item = &RunnerKey> {
        self.since.keys()
    }

    /// When the next one is gone.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.order.front().map(|(due, _)| *due)
    }

    /// The next one that is gone, and since when.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(RunnerKey, Timestamp)> {
        while self.next_due().is_some_and(|due| due <= now) {
            let (due, key) = self.order.pop_front()?;
            // One that has come back and is gone again has a place of its own.
            if let Some((_, at)) = self.since.get(&key).copied().filter(|(since, _)| *since == due) {
                self.since.remove(&key);
                return Some((key, at));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runner_that_comes_back_is_not_gone() {
        let [stays, returns] = ["stays", "returns"].map(|name| RunnerKey::enrollment(name).unwrap());
        let (mut gone, at) = (Gone::default(), Timestamp::from_millis(7));
        gone.note(returns.clone(), at);
        gone.note(stays.clone(), at);
        assert_eq!(gone.take_due(Instant::now()), None, "it is not certain yet");
        gone.forget(&returns);
        assert_eq!(gone.keys().collect::<Vec<_>>(), [&stays]);
        let later = Instant::now() + GONE_AFTER;
        assert_eq!((gone.take_due(later), gone.take_due(later)), (Some((stays, at)), None));
        assert_eq!(gone.next_due(), None);
    }
}
