//! Random walks of machines over one GitLab and one store.
//!
//! Machines crash, sleep between any two steps, lose answers and go away for good; a reset that was sent can be executed late
//! or never; GitLab answers from replicas that lag; the store and GitLab are each restored to an older moment. After each
//! step a token that has reached a disk is still known to a machine that is left, and once the faults have ended, machines,
//! store and GitLab agree on one token, unless the only answer with it has reached no disk and nothing may recover by id.
//!
//! `SHARING_SEEDS` says how many walks to take, `SHARING_SEED` the first one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use test_support::Chance;

use super::{Journal, SharedStep, Shown, Stored, View};
use crate::model::{Boot, Lineage, Sender, SharedChange, SharedPending, Stamp, Timestamp};
use crate::secret::Digest;

const SECOND: u64 = 1000;

/// How long a replica of GitLab's may lag, and a request may take until it is executed.
const LAG: u64 = 30 * SECOND;
const REQUEST: u64 = 60 * SECOND;

/// How long a pending change is waited for: a request and a lease.
const OVERDUE: u64 = REQUEST + 30 * SECOND;

const CONFIRM_AFTER: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_secs(6 * 3600);

/// Steps with faults, and the most without.
const STORMY: u32 = 160;
const CALM: u32 = 6000;

/// What can go wrong in a walk.
#[derive(Clone, Copy, Debug)]
struct Weather {
    machines: usize,
    lags: bool,
    is_store_restored: bool,
    is_gitlab_restored: bool,
    destroys: bool,
    recovers: bool,
    breaks: Option<Rule>,
}

/// A rule that is broken, to see why it stands.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    /// Every token is kept that was held or read.
    KeepEveryToken,
    /// A token is projected only once GitLab has accepted it.
    AskBeforeProjecting,
}

/// The store's value with the id of its last write, by which it is swapped.
#[derive(Clone, Debug)]
struct Value {
    lineage: Option<Lineage>,
    pending: Option<SharedPending>,
    write_id: u64,
}

/// A request to GitLab under way.
struct Request {
    sender: Sender,
    change: SharedChange,
    token: Option<Digest>,
    sent_at: u64,
    /// Whether its sender still waits for the answer.
    is_awaited: bool,
    /// What GitLab has answered; `None` inside for a refusal.
    answer: Option<Option<Digest>>,
}

#[derive(Clone, Debug, PartialEq)]
enum OnDisk {
    Empty,
    Begun(SharedChange),
    /// The answer is written, but not taken over yet.
    Received(Digest),
    Answered,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Idle,
    /// The pending change is in the store, and nothing is in the journal.
    Announced(SharedChange),
    /// It is in the journal, and nothing is sent.
    Begun(SharedChange),
    Waiting,
}

struct Machine {
    sender: Sender,
    is_up: bool,
    is_gone: bool,
    ours: Option<Lineage>,
    held: Vec<Digest>,
    journal: OnDisk,
    shown: BTreeMap<Digest, Shown>,
    phase: Phase,
    seen: Value,
    /// Since when the pending change that it has seen is the same.
    pending_since: u64,
}

struct World {
    chance: Chance,
    weather: Weather,
    now: u64,
    /// GitLab's present token and the one before, and when that changed.
    current: Option<Digest>,
    former: Option<Digest>,
    changed_at: u64,
    issued: u64,
    gitlab_history: Vec<Digest>,
    store: Value,
    store_history: Vec<Value>,
    writes: u64,
    machines: Vec<Machine>,
    network: Vec<Request>,
    /// Tokens that have reached a disk.
    delivered: BTreeSet<Digest>,
    trace: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
enum Move {
    Start(usize),
    Crash(usize),
    Destroy(usize),
    Look(usize),
    Act(usize),
    Verify(usize),
    Announce(usize),
    Begin(usize),
    Send(usize),
    Receive(usize),
    GiveUp(usize),
    Execute(usize),
}

impl World {
    fn new(seed: u64, weather: Weather) -> Self {
        let empty = Value { lineage: None, pending: None, write_id: 0 };
        let machine = |number: usize| Machine {
            sender: Sender { machine: format!("s_{number:012}").parse().unwrap(), boot: 0 },
            is_up: true,
            is_gone: false,
            ours: None,
            held: Vec::new(),
            journal: OnDisk::Empty,
            shown: BTreeMap::new(),
            phase: Phase::Idle,
            seen: empty.clone(),
            pending_since: 0,
        };
        let machines = (0..weather.machines).map(machine).collect();
        let (chance, now, issued, writes) = (Chance::new(seed), OVERDUE, 0, 0);
        let mut world = Self {
            chance,
            weather,
            now,
            current: None,
            former: None,
            changed_at: 0,
            issued,
            gitlab_history: Vec::new(),
            store: empty,
            store_history: Vec::new(),
            writes,
            machines,
            network: Vec::new(),
            delivered: BTreeSet::new(),
            trace: Vec::new(),
        };
        // The runner is registered, and all machines know it.
        let first = world.issue();
        let lineage = Lineage::first(first);
        world.store = Value { lineage: Some(lineage.clone()), pending: None, write_id: 1 };
        world.writes = 1;
        for machine in &mut world.machines {
            (machine.ours, machine.held, machine.seen) = (Some(lineage.clone()), vec![first], world.store.clone());
        }
        world.delivered.insert(first);
        world
    }

    fn breaks(&self, rule: Rule) -> bool {
        self.weather.breaks == Some(rule)
    }

    fn stamp(&self) -> Stamp {
        Stamp { at: Timestamp::from_millis(self.now as i64), boot: Boot(1), since_boot_ms: self.now }
    }

    fn issue(&mut self) -> Digest {
        self.issued += 1;
        let token = Digest::of(format!("token {}", self.issued).as_bytes());
        self.set_current(token);
        self.gitlab_history.push(token);
        token
    }

    fn set_current(&mut self, token: Digest) {
        self.former = self.current.replace(token);
        self.changed_at = self.now;
    }

    fn swap(&mut self, at: usize, lineage: Option<Lineage>, pending: Option<SharedPending>) -> bool {
        if self.store.write_id != self.machines[at].seen.write_id {
            return false;
        }
        self.writes += 1;
        let value = Value { lineage, pending, write_id: self.writes };
        self.store_history.push(std::mem::replace(&mut self.store, value));
        true
    }

    fn look(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        if machine.seen.pending != self.store.pending {
            machine.pending_since = self.now;
        }
        machine.seen = self.store.clone();
        if let Some(lineage) = &self.store.lineage {
            hold(machine, lineage.token());
        }
    }

    fn ask(&mut self, at: usize, token: Digest) {
        let is_behind = self.weather.lags && self.now - self.changed_at < LAG && self.chance.one_in(2);
        let accepted = if is_behind { self.former } else { self.current };
        let stamp = self.stamp();
        let shown = self.machines[at].shown.entry(token).or_default();
        *shown = if accepted == Some(token) { shown.with_acceptance(stamp, false) } else { shown.with_refusal(stamp) };
    }

    fn next_step(&self, at: usize) -> SharedStep {
        let machine = &self.machines[at];
        let stored = Stored {
            lineage: machine.seen.lineage.clone(),
            pending: machine.seen.pending.clone(),
            is_pending_overdue: self.now - machine.pending_since > OVERDUE,
            is_foreign: false,
        };
        let journal = match &machine.journal {
            OnDisk::Empty => Journal::Empty,
            OnDisk::Begun(_) | OnDisk::Received(_) => Journal::Begun,
            OnDisk::Answered => Journal::Answered,
        };
        let held: Vec<_> = machine.held.iter().rev().copied().collect();
        let is_blind = self.breaks(Rule::AskBeforeProjecting);
        let news = machine.seen.lineage.as_ref().map(Lineage::token).filter(|_| is_blind);
        View {
            own: &machine.sender,
            ours: machine.ours.as_ref(),
            held: &held,
            journal,
            has_left: false,
            stored: &stored,
            shown: |token| match machine.shown.get(&token).copied().unwrap_or_default() {
                _ if news == Some(token) => Shown::default().with_acceptance(self.stamp(), false),
                shown => shown,
            },
            now: self.stamp(),
            confirm_after: CONFIRM_AFTER,
            look_again: LOOK_AGAIN,
        }
        .next_step()
    }

    fn act(&mut self, at: usize) {
        let step = self.next_step(at);
        self.trace.push(format!("{:>6} machine {at}: {}", self.now / SECOND, self.shown_step(&step)));
        let seen = self.machines[at].seen.clone();
        match step {
            SharedStep::Rest => {
                if self.machines[at].journal == OnDisk::Answered {
                    self.machines[at].journal = OnDisk::Empty;
                }
            }
            SharedStep::Wait | SharedStep::Refuse | SharedStep::Register => {}
            SharedStep::Settle => self.settle(at),
            SharedStep::Ask(token) => self.ask(at, token),
            SharedStep::Project | SharedStep::TakeOver => {
                let machine = &mut self.machines[at];
                machine.ours = seen.lineage;
                machine.journal = OnDisk::Empty;
            }
            SharedStep::Write { lineage, is_fork: _ } => {
                if self.swap(at, Some(lineage.clone()), None) {
                    let machine = &mut self.machines[at];
                    hold(machine, lineage.token());
                    (machine.ours, machine.journal) = (Some(lineage), OnDisk::Empty);
                }
                self.look(at);
            }
            SharedStep::ClearPending => {
                self.swap(at, seen.lineage, None);
                self.look(at);
            }
            SharedStep::Recover if self.weather.recovers => self.announce(at, SharedChange::ResetById),
            SharedStep::Recover => {}
        }
    }

    fn settle(&mut self, at: usize) {
        let machine = &self.machines[at];
        if let OnDisk::Received(token) = machine.journal {
            return self.take(at, token);
        }
        // A request that was sent can no longer be executed, and its answer comes no more.
        let is_over = |request: &Request| {
            request.sender.machine != machine.sender.machine || self.now - request.sent_at > REQUEST
        };
        if self.network.iter().all(is_over) {
            self.machines[at].journal = OnDisk::Empty;
        }
    }

    /// The answer in the journal becomes the machine's token.
    fn take(&mut self, at: usize, token: Digest) {
        let stamp = self.stamp();
        let machine = &mut self.machines[at];
        hold(machine, token);
        let next = machine.ours.as_ref().map_or_else(|| Lineage::first(token), |ours| ours.with_next(token));
        machine.ours = Some(next);
        machine.journal = OnDisk::Answered;
        machine.shown.insert(token, Shown::default().with_acceptance(stamp, false));
    }

    fn announce(&mut self, at: usize, change: SharedChange) {
        let seen = self.machines[at].seen.clone();
        if seen.pending.as_ref().is_some_and(|pending| pending.sender != self.machines[at].sender)
            && self.now - self.machines[at].pending_since <= OVERDUE
        {
            return;
        }
        let token = seen.lineage.as_ref().map(Lineage::token);
        let pending = SharedPending { change, sender: self.machines[at].sender.clone(), token, number: 1 };
        if self.swap(at, seen.lineage, Some(pending)) {
            self.machines[at].phase = Phase::Announced(change);
        }
        self.look(at);
    }

    fn moves(&mut self, is_stormy: bool) -> Vec<Move> {
        let mut moves = Vec::new();
        for at in 0..self.machines.len() {
            let machine = &self.machines[at];
            if machine.is_gone {
                continue;
            }
            if !machine.is_up {
                moves.push(Move::Start(at));
                continue;
            }
            match machine.phase {
                Phase::Idle => {
                    moves.extend([Move::Look(at), Move::Act(at), Move::Act(at), Move::Verify(at)]);
                    if is_stormy {
                        moves.push(Move::Announce(at));
                    }
                    let left = self.machines.iter().filter(|machine| !machine.is_gone).count();
                    let is_at_rest = self.machines[at].journal == OnDisk::Empty;
                    if is_stormy && self.weather.destroys && is_at_rest && left > 1 && self.chance.one_in(6) {
                        moves.push(Move::Destroy(at));
                    }
                }
                Phase::Announced(_) => moves.push(Move::Begin(at)),
                Phase::Begun(_) => moves.push(Move::Send(at)),
                Phase::Waiting => {
                    let sender = &self.machines[at].sender;
                    let own = self.network.iter().filter(|request| request.sender == *sender && request.is_awaited);
                    let (mut is_answered, mut is_late) = (false, true);
                    own.for_each(|request| {
                        is_answered |= request.answer.is_some();
                        is_late &= self.now - request.sent_at > REQUEST;
                    });
                    if is_answered {
                        moves.push(Move::Receive(at));
                    } else if is_late {
                        moves.push(Move::GiveUp(at));
                    }
                    if is_stormy && self.chance.one_in(4) {
                        moves.push(Move::GiveUp(at));
                    }
                }
            }
            if is_stormy && self.chance.one_in(5) {
                moves.push(Move::Crash(at));
            }
        }
        for (number, request) in self.network.iter().enumerate() {
            if request.answer.is_none() && self.now - request.sent_at <= REQUEST {
                moves.extend([Move::Execute(number); 3]);
            }
        }
        moves
    }

    fn make(&mut self, next: Move) {
        self.trace.push(format!("{:>6} {next:?}", self.now / SECOND));
        match next {
            Move::Start(at) => {
                let machine = &mut self.machines[at];
                (machine.is_up, machine.phase) = (true, Phase::Idle);
                machine.sender.boot += 1;
                // What it has noted can be gone.
                if self.chance.one_in(2) {
                    self.machines[at].shown.clear();
                }
                self.look(at);
                self.machines[at].pending_since = self.now;
            }
            Move::Crash(at) => {
                self.machines[at].is_up = false;
                self.hang_up(at);
            }
            Move::Destroy(at) => (self.machines[at].is_up, self.machines[at].is_gone) = (false, true),
            Move::Look(at) => self.look(at),
            Move::Act(at) => self.act(at),
            Move::Verify(at) => {
                if let Some(token) = self.machines[at].ours.as_ref().map(Lineage::token) {
                    self.ask(at, token);
                }
            }
            Move::Announce(at) => {
                if self.next_step(at) == SharedStep::Rest && self.machines[at].seen.pending.is_none() {
                    self.announce(at, SharedChange::Reset);
                }
            }
            Move::Begin(at) => {
                let Phase::Announced(change) = self.machines[at].phase else { return };
                self.machines[at].journal = OnDisk::Begun(change);
                self.machines[at].phase = Phase::Begun(change);
            }
            Move::Send(at) => {
                let Phase::Begun(change) = self.machines[at].phase else { return };
                let machine = &mut self.machines[at];
                let (sender, token) = (machine.sender.clone(), machine.ours.as_ref().map(Lineage::token));
                machine.phase = Phase::Waiting;
                self.network.push(Request { sender, change, token, sent_at: self.now, is_awaited: true, answer: None });
            }
            Move::Receive(at) => self.receive(at),
            Move::GiveUp(at) => {
                self.machines[at].phase = Phase::Idle;
                self.hang_up(at);
            }
            Move::Execute(number) => {
                let Request { change, token, .. } = self.network[number];
                let is_good = change == SharedChange::ResetById || token == self.current;
                let answer = is_good.then(|| self.issue());
                self.network[number].answer = Some(answer);
            }
        }
    }

    fn hang_up(&mut self, at: usize) {
        let sender = self.machines[at].sender.clone();
        self.network.iter_mut().filter(|request| request.sender == sender).for_each(|it| it.is_awaited = false);
    }

    fn receive(&mut self, at: usize) {
        let sender = self.machines[at].sender.clone();
        let is_its = |request: &Request| request.sender == sender && request.is_awaited && request.answer.is_some();
        let Some(number) = self.network.iter().position(is_its) else { return };
        let answer = self.network.remove(number).answer.flatten();
        self.machines[at].phase = Phase::Idle;
        match answer {
            Some(token) => {
                self.delivered.insert(token);
                self.machines[at].journal = OnDisk::Received(token);
            }
            None => self.machines[at].journal = OnDisk::Empty,
        }
    }

    /// With the rule broken, a machine keeps nothing but its present token.
    fn forget(&mut self) {
        if self.breaks(Rule::KeepEveryToken) {
            for machine in &mut self.machines {
                let current = machine.ours.as_ref().map(Lineage::token);
                machine.held.retain(|token| Some(*token) == current);
            }
        }
    }

    /// Whether the present token is known to a machine that is left, or on its way to one, once it has reached a disk.
    fn is_known(&self) -> bool {
        let Some(current) = self.current.filter(|current| self.delivered.contains(current)) else { return true };
        let is_in_store = self.store.lineage.as_ref().is_some_and(|lineage| lineage.token() == current);
        let mut left = self.machines.iter().filter(|machine| !machine.is_gone);
        is_in_store
            || left.any(|machine| machine.held.contains(&current) || machine.journal == OnDisk::Received(current))
    }

    fn is_in_step(&self) -> bool {
        let agrees = |machine: &Machine| {
            machine.is_gone
                || machine.is_up
                    && machine.phase == Phase::Idle
                    && machine.journal == OnDisk::Empty
                    && machine.ours.as_ref().map(Lineage::newest) == self.store.lineage.as_ref().map(Lineage::newest)
        };
        self.store.pending.is_none()
            && self.store.lineage.as_ref().map(Lineage::token) == self.current
            && self.machines.iter().all(agrees)
    }

    fn shown_step(&self, step: &SharedStep) -> String {
        match step {
            SharedStep::Ask(token) => format!("Ask({})", token.fingerprint()),
            SharedStep::Write { lineage, is_fork } => {
                let newest = lineage.newest();
                format!("Write({} {}, fork {is_fork})", newest.generation, newest.token.fingerprint())
            }
            other => format!("{other:?}"),
        }
    }

    /// What every part holds, for a report.
    fn summary(&self) -> String {
        let of = |lineage: &Option<Lineage>| {
            lineage.as_ref().map(|lineage| (lineage.generation(), lineage.token().fingerprint().to_string()))
        };
        let machines: Vec<_> = self
            .machines
            .iter()
            .map(|machine| (machine.is_gone, of(&machine.ours), &machine.journal, machine.phase))
            .collect();
        let current = self.current.map(|token| token.fingerprint().to_string());
        format!("gitlab {current:?}, store {:?} {:?}, {machines:?}", of(&self.store.lineage), self.store.pending)
    }
}

fn hold(machine: &mut Machine, token: Digest) {
    machine.held.retain(|held| *held != token);
    machine.held.push(token);
}

/// Takes one walk; the error says which promise was broken.
fn walk(seed: u64, weather: Weather) -> Result<(), String> {
    let mut world = World::new(seed, weather);
    let [store_at, gitlab_at] = [0; 2].map(|_| 20 + world.chance.index(STORMY as usize - 20) as u32);
    for step in 0..STORMY {
        if weather.is_store_restored && step == store_at && !world.store_history.is_empty() {
            let at = world.chance.index(world.store_history.len());
            world.store = world.store_history[at].clone();
            world.trace.push(format!("{:>6} the store is restored", world.now / SECOND));
        }
        if weather.is_gitlab_restored && step == gitlab_at && world.gitlab_history.len() > 1 {
            let at = world.chance.index(world.gitlab_history.len() - 1);
            world.set_current(world.gitlab_history[at]);
            world.trace.push(format!("{:>6} GitLab is restored", world.now / SECOND));
        }
        world.now += SECOND * (1 + world.chance.index(20) as u64);
        let moves = world.moves(true);
        let next = moves[world.chance.index(moves.len())];
        world.make(next);
        world.forget();
        if !world.is_known() {
            return Err(report(&world, seed, "a token that reached a disk was lost"));
        }
    }
    for _ in 0..CALM {
        if world.is_in_step() {
            return Ok(());
        }
        world.now += SECOND * (1 + world.chance.index(20) as u64);
        let moves = world.moves(false);
        let next = moves[world.chance.index(moves.len())];
        world.make(next);
    }
    let is_lost = world.current.is_none_or(|current| !world.delivered.contains(&current));
    if is_lost && !weather.recovers { Ok(()) } else { Err(report(&world, seed, "no agreement")) }
}

fn report(world: &World, seed: u64, what: &str) -> String {
    let from = world.trace.len().saturating_sub(120);
    format!("seed {seed}, {:?}: {what}: {}\n{}", world.weather, world.summary(), world.trace[from..].join("\n"))
}

fn weathers() -> Vec<Weather> {
    let fair = Weather {
        machines: 3,
        lags: true,
        is_store_restored: false,
        is_gitlab_restored: false,
        destroys: false,
        recovers: true,
        breaks: None,
    };
    vec![
        Weather { destroys: true, ..fair },
        Weather { destroys: true, machines: 5, ..fair },
        Weather { is_store_restored: true, ..fair },
        Weather { is_gitlab_restored: true, ..fair },
        Weather { is_store_restored: true, is_gitlab_restored: true, ..fair },
        Weather { machines: 5, is_store_restored: true, is_gitlab_restored: true, recovers: false, ..fair },
        Weather { machines: 2, recovers: false, destroys: true, ..fair },
    ]
}

#[test]
fn each_rule_that_is_broken_is_found_out() {
    for rule in [Rule::KeepEveryToken, Rule::AskBeforeProjecting] {
        let broken = |weather: Weather| Weather { breaks: Some(rule), ..weather };
        let is_found = |seed: &u64| weathers().into_iter().any(|weather| walk(*seed, broken(weather)).is_err());
        assert!((1..500).any(|seed| is_found(&seed)), "{rule:?}");
    }
}

#[test]
fn machines_that_crash_and_stores_that_are_restored_lose_no_token_and_agree_in_the_end() {
    let number = |variable: &str, otherwise| {
        std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    };
    let (first, seeds): (u64, u64) = (number("SHARING_SEED", 1), number("SHARING_SEEDS", 300));
    for seed in first..first + seeds {
        for weather in weathers() {
            if let Err(broken) = walk(seed, weather) {
                panic!("{broken}");
            }
        }
    }
}
