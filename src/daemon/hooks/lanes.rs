//! Which hook is to be run next, and for whom.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use crate::model::RunnerKey;

/// How many attempts of one hook are made at a time.
const MOST_AT_ONCE: usize = 4;

/// One lane per hook, so that a hook that hangs holds up no other one.
///
/// A runner has one place in a lane: the events of a runner reach a hook in their order.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<String, Lane>,
    /// Counts the places, so that those that are due at the same time are served in their order.
    places: u64,
}

#[derive(Debug, Default)]
struct Lane {
    running: usize,
    waiting: BTreeSet<(Instant, u64, RunnerKey)>,
    places: BTreeMap<RunnerKey, Place>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Waiting(Instant, u64),
    Running,
}

impl Lanes {
    /// Has a hook run for a runner at that time, unless that is so already, or it runs.
    pub(super) fn put(&mut self, hook: &str, key: &RunnerKey, at: Instant) {
        let lane = self.lanes.entry(hook.to_owned()).or_default();
        if !lane.places.contains_key(key) {
            self.places += 1;
            lane.wait(key, at, self.places);
        }
    }

    /// As [`put`], and not later than that.
    ///
    /// [`put`]: Lanes::put
    pub(super) fn hurry(&mut self, hook: &str, key: &RunnerKey, at: Instant) {
        if let Some(lane) = self.lanes.get_mut(hook)
            && let Some(Place::Waiting(due, number)) = lane.places.get(key).copied()
            && at < due
        {
            lane.leave(key);
            lane.wait(key, at, number);
        } else {
            self.put(hook, key, at);
        }
    }

    /// The next hook that is due, and for whom. It counts as running until [`Lanes::end`].
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(String, RunnerKey)> {
        self.lanes.iter_mut().find_map(|(hook, lane)| {
            let due = lane.first().filter(|(at, ..)| *at <= now)?;
            lane.waiting.remove(&due);
            let key = due.2;
            lane.running += 1;
            lane.places.insert(key.clone(), Place::Running);
            Some((hook.clone(), key))
        })
    }

    /// When the next one is due that may begin then.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.lanes.values().filter_map(|lane| Some(lane.first()?.0)).min()
    }

    /// An attempt has ended, and the runner has no place any more.
    pub(super) fn end(&mut self, hook: &str, key: &RunnerKey) {
        if let Some(lane) = self.lanes.get_mut(hook) {
            lane.leave(key);
            self.remove_if_empty(hook);
        }
    }

    /// Takes a runner that waits for a hook out of its lane.
    pub(super) fn withdraw(&mut self, hook: &str, key: &RunnerKey) {
        if !self.is_running(hook, key) {
            self.end(hook, key);
        }
    }

    /// Whether a hook runs for a runner.
    pub(super) fn is_running(&self, hook: &str, key: &RunnerKey) -> bool {
        self.lanes.get(hook).is_some_and(|lane| lane.places.get(key) == Some(&Place::Running))
    }

    fn remove_if_empty(&mut self, hook: &str) {
        if self.lanes.get(hook).is_some_and(|lane| lane.places.is_empty()) {
            self.lanes.remove(hook);
        }
    }
}

impl Lane {
    fn first(&self) -> Option<(Instant, u64, RunnerKey)> {
        self.waiting.first().filter(|_| self.running < MOST_AT_ONCE).cloned()
    }

    fn wait(&mut self, key: &RunnerKey, at: Instant, number: u64) {
        self.waiting.insert((at, number, key.clone()));
        self.places.insert(key.clone(), Place::Waiting(at, number));
    }

    fn leave(&mut self, key: &RunnerKey) {
        match self.places.remove(key) {
            Some(Place::Waiting(at, number)) => {
                self.waiting.remove(&(at, number, key.clone()));
            }
            Some(Place::Running) => self.running -= 1,
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(name: &str) -> RunnerKey {
        RunnerKey::enrollment(name).unwrap()
    }

    fn due(lanes: &mut Lanes, now: Instant) -> Vec<(String, RunnerKey)> {
        std::iter::from_fn(|| lanes.take_due(now)).collect()
    }

    #[test]
    fn a_hook_that_hangs_for_many_runners_holds_up_no_other_hook() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        let names: Vec<_> = (0..20).map(|number| format!("runner-{number:02}")).collect();
        for name in &names {
            lanes.put("hangs", &key(name), now);
        }
        lanes.put("quick", &key("runner-19"), now);
        let begun = due(&mut lanes, now);
        assert_eq!(begun.len(), MOST_AT_ONCE + 1, "{begun:?}");
        assert_eq!(begun.last(), Some(&("quick".to_owned(), key("runner-19"))));
        assert_eq!(lanes.next_due(), None, "the rest has to wait for the end of an attempt");
        lanes.end("hangs", &key("runner-00"));
        assert_eq!(due(&mut lanes, now), [("hangs".to_owned(), key("runner-04"))], "in the order of their arrival");
    }

    #[test]
    fn a_runner_has_one_place_in_a_lane() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        let later = now + Duration::from_secs(60);
        lanes.put("a", &key("x"), later);
        lanes.put("a", &key("x"), now);
        assert_eq!((due(&mut lanes, now).len(), lanes.next_due()), (0, Some(later)), "it waits for its time");
        lanes.hurry("a", &key("x"), now);
        assert_eq!(due(&mut lanes, now).len(), 1);
        lanes.hurry("a", &key("x"), now);
        assert_eq!((due(&mut lanes, later).len(), lanes.is_running("a", &key("x"))), (0, true));
        lanes.withdraw("a", &key("x"));
        assert!(lanes.is_running("a", &key("x")), "what runs is not withdrawn");
        lanes.end("a", &key("x"));
        assert!(lanes.lanes.is_empty(), "{lanes:?}");
    }

    #[test]
    fn those_that_are_due_first_come_first() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        lanes.put("a", &key("late"), after(9));
        lanes.put("a", &key("second"), after(2));
        lanes.put("a", &key("first"), after(1));
        lanes.put("a", &key("third"), after(2));
        lanes.withdraw("a", &key("late"));
        let order: Vec<_> = due(&mut lanes, after(10)).into_iter().map(|(_, key)| key).collect();
        assert_eq!(order, [key("first"), key("second"), key("third")]);
    }
}
