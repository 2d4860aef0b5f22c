//! Hundreds of machines that share a runner.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use fake_gitlab::{Endpoint, Gitlab};

use crate::agents::{Agents, Ways};
use crate::checker::{Observer, Spans};
use crate::torture::Store;

/// How long hundreds of processes may take on few processors.
const PATIENCE: Duration = Duration::from_secs(240);

/// How long the fleet is left alone before its rotations are measured.
const QUIET: Duration = Duration::from_secs(2);

/// How many rotations are measured.
const ROTATIONS: usize = 3;

struct Fleet {
    gitlab: Gitlab,
    agents: Agents,
    observer: Observer,
}

impl Fleet {
    fn start(store: &dyn Store, machines: usize) -> Self {
        let gitlab = Gitlab::start();
        let agents = Agents::new(machines, &gitlab, &store.address(), Ways::Direct, "");
        let observer = Observer::start(store.settings());
        let mut fleet = Self { gitlab, agents, observer };
        fleet.agents.start_all();
        let began = Instant::now();
        fleet.wait_until_joined(began);
        fleet
    }

    fn wait_until_joined(&self, began: Instant) {
        let count = self.agents.agents.len();
        while self.observer.last().is_none_or(|seen| seen.members < count) || !self.holds_one_token() {
            let members = self.observer.last().map_or(0, |seen| seen.members);
            assert!(began.elapsed() < PATIENCE, "{members} members of {count}");
            thread::sleep(Duration::from_millis(100));
        }
        println!("  {count} machines share a runner after {:.1} s", began.elapsed().as_secs_f64());
    }

    fn holds_one_token(&self) -> bool {
        let token = self.observer.last().and_then(|seen| seen.token);
        token.is_some() && self.agents.agents.iter().all(|agent| agent.token() == token)
    }
}

/// Machines that start at the same time make one runner. Then that is rotated, by a command on one of them after the other.
pub(crate) fn start_together(store: &dyn Store, machines: usize, requests: &dyn Fn() -> BTreeMap<String, u64>) {
    let fleet = Fleet::start(store, machines);
    let registrations = fleet.gitlab.requests_to(Endpoint::Register);
    assert_eq!(registrations.len(), 1, "one registration");
    let runners = fleet.gitlab.runners();
    assert_eq!(runners.len(), 1, "one runner");
    assert_eq!(runners[0].managers.len(), machines);
    println!("  {} verifications", fleet.gitlab.requests_to(Endpoint::Verify).len());
    propagate(&fleet, requests);
}

/// How long a rotation takes until all machines have the new token, and what it costs the store.
fn propagate(fleet: &Fleet, requests: &dyn Fn() -> BTreeMap<String, u64>) {
    let mut all = Spans::default();
    for number in 0..ROTATIONS.min(fleet.agents.agents.len()) {
        let last = fleet.observer.last().and_then(|seen| seen.token);
        thread::sleep(QUIET);
        let (before, began) = (requests(), Instant::now());
        thread::sleep(QUIET);
        let idle = difference(&before, &requests(), 1.0 / began.elapsed().as_secs_f64());
        let (before, began) = (requests(), Instant::now());
        let output = fleet.agents.agents[number].run(&["rotate", "--name", "docker"]);
        output.exits(0);
        let written = loop {
            assert!(began.elapsed() < PATIENCE, "no rotation");
            match fleet.observer.all().into_iter().rev().take_while(|seen| seen.token != last).last() {
                Some(seen) => break seen,
                None => thread::sleep(Duration::from_millis(20)),
            }
        };
        while !fleet.holds_one_token() {
            assert!(began.elapsed() < PATIENCE, "not all machines have the token");
            thread::sleep(Duration::from_millis(100));
        }
        let took = began.elapsed().as_secs_f64();
        let after = requests();
        let mut spans = Spans::default();
        for agent in &fleet.agents.agents {
            let changed = jiff::Timestamp::try_from(fs::metadata(agent.config()).unwrap().modified().unwrap()).unwrap();
            let span = Duration::try_from(changed.duration_since(written.wall)).unwrap_or_default();
            spans.add(span);
            all.add(span);
        }
        println!("  from the store's write to config.toml: {}", spans.summary());
        let spent = difference(&before, &after, 1.0);
        let spent: BTreeMap<_, _> = spent
            .into_iter()
            .map(|(kind, count)| {
                let beside = idle.get(&kind).copied().unwrap_or_default() * took;
                (kind, (count - beside).max(0.0).round())
            })
            .filter(|(_, count)| *count > 0.0)
            .collect();
        println!("  requests to the store, without those at rest: {spent:?}; at rest in a second: {idle:.1?}");
    }
    println!("  from the store's write to config.toml: {}", all.summary());
    assert_eq!(fleet.gitlab.runners().len(), 1);
}

#[expect(clippy::cast_precision_loss, reason = "thousands")]
fn difference(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>, factor: f64) -> BTreeMap<String, f64> {
    let count = |kind: &str, count: u64| count - before.get(kind).copied().unwrap_or_default();
    let counts = after.iter().map(|(kind, value)| (kind.clone(), count(kind, *value) as f64 * factor));
    counts.filter(|(_, count)| *count > 0.0).collect()
}
