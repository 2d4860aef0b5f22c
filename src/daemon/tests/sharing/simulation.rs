//! Whole daemons that share a runner on a simulated network, from a seed.
//!
//! Daemons are killed at any wait and with any write to their disk, paused, stopped and started again; disks are lost, machines
//! reboot and come and go; the ways to the store and to GitLab are cut, slow, and have proxies that send a request twice;
//! every machine has a clock of its own; the store and GitLab are restored to an older moment. All the while a token that has
//! reached a disk is still known to a machine that is left or to the store. Once the faults have ended, all machines, store
//! and GitLab agree on one token of one runner, and no token expires any more.
//!
//! `SHARING_WALKS` says how many simulations to run, `SHARING_WALK` the first one.
//! What happens at one moment happens in any order, so a seed repeats the faults and not always what comes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use test_support::Chance;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::Instant;
use tracing::Instrument;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use super::server::DistantServer;
use super::*;
use crate::clock::{Clock, Reading};
use crate::engine::UnregisterShared;
use crate::model::{Boot, ShareName, SharedRunner, SystemId};
use crate::ops::ServerAccess;
use crate::ops::memory::ServedRunner;
use crate::secret::{Digest, SealingKey};
use crate::sharing::memory::network::{Line, Network, Way};

/// The shortest that GitLab gives. A clock by which a token has less is not believed, and rotations wait then.
const LIFE: Duration = secs(7200);

/// How long there are faults, and how long after them all has to agree.
const STORM: Duration = secs(10 * 3600);
const CALM: Duration = secs(4 * 3600);

/// How long requests to the store and to GitLab are waited for.
const TIMEOUTS: [Duration; 2] = [secs(5), secs(30)];

const MOST_MACHINES: usize = 6;

/// What can go wrong in a simulation.
#[derive(Clone, Copy, Debug)]
struct Weather {
    repeats: bool,
    is_slow: bool,
    is_store_restored: bool,
    is_gitlab_restored: bool,
    destroys: bool,
    deletes_last: bool,
    is_sealed: bool,
}

impl Weather {
    fn of(chance: &Chance) -> Self {
        let is_gitlab_restored = chance.one_in(4);
        Self {
            repeats: chance.one_in(3),
            is_slow: chance.one_in(3),
            is_store_restored: chance.one_in(4),
            is_gitlab_restored,
            // The token of that time may be known to no machine that is left.
            destroys: !is_gitlab_restored && chance.one_in(3),
            deletes_last: chance.one_in(4),
            is_sealed: chance.one_in(2),
        }
    }
}

/// The clock of one machine, which can be wrong, and starts at zero with a reboot.
#[derive(Clone)]
struct MachineClock {
    truth: TokioClock,
    shared: Rc<RefCell<(i64, u64, Instant)>>,
}

impl Clock for MachineClock {
    fn boot(&self) -> Boot {
        Boot(self.shared.borrow().1)
    }

    fn read(&self) -> Reading {
        let (offset, _, booted) = *self.shared.borrow();
        let wall = crate::model::Timestamp::from_millis(self.truth.truth().as_millis() + offset);
        Reading { wall, since_boot: secs(60) + booted.elapsed() }
    }
}

/// The agents' log, which says what came of a seed: that is not the same each time.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

/// The time since the start of a simulation.
struct SimulatedTime(Instant);

impl FormatTime for SimulatedTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        write!(writer, "{:>9.3}", self.0.elapsed().as_secs_f64())
    }
}

impl Log {
    fn collect() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let sink = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_timer(SimulatedTime(Instant::now()))
            .with_target(false)
            .with_ansi(false)
            .with_writer(move || sink.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A process that does nothing while it is paused.
struct Pausable<F> {
    process: Pin<Box<F>>,
    pause: Rc<RefCell<(bool, Option<Waker>)>>,
}

impl<F: Future> Future for Pausable<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.pause.borrow().0 {
            self.pause.borrow_mut().1 = Some(context.waker().clone());
            return Poll::Pending;
        }
        self.process.as_mut().poll(context)
    }
}

struct Process {
    notices: mpsc::UnboundedSender<Notice>,
    pause: Rc<RefCell<(bool, Option<Waker>)>>,
    registry: StatusRegistry,
    task: JoinHandle<Result<(), String>>,
}

struct Machine {
    id: SystemId,
    disk: MemoryDisk,
    clock: MachineClock,
    to_store: Line,
    to_gitlab: Line,
    process: Option<Process>,
    /// Whether it was stopped and is not to come back, or its disk is lost.
    is_gone: bool,
}

/// What ends a disturbance.
#[derive(Clone, Copy, Debug)]
enum End {
    Start(usize),
    Kill(usize),
    Resume(usize),
    Connect(usize),
    Store,
}

struct Simulation {
    chance: Rc<Chance>,
    weather: Weather,
    network: Network,
    truth: TokioClock,
    server: MemoryServer,
    store: MemoryEngine,
    machines: Vec<Machine>,
    ends: Vec<(Instant, End)>,
    /// Tokens that have reached a disk.
    delivered: BTreeSet<Digest>,
    store_backups: Vec<Option<Value>>,
    gitlab_backups: Vec<(RunnerId, Credential)>,
}

fn name() -> ShareName {
    "docker-fleet".parse().unwrap()
}

/// All tokens on a disk.
fn tokens_on(disk: &MemoryDisk) -> BTreeSet<Digest> {
    let entries = disk.tokens();
    let state = disk.state();
    let records = state.records.values().filter_map(|record| record.credential.as_ref().map(|it| &it.token));
    let held = state.held.values().flat_map(|held| held.candidates.iter().map(|candidate| &candidate.token));
    let answers = state.journal.values().filter_map(|pending| pending.answer.as_ref()?.token.as_ref());
    entries.iter().chain(records).chain(held).chain(answers).map(Token::digest).collect()
}

impl Simulation {
    fn config(&self) -> Config {
        let enrollment = Enrollment { share_as: Some(name()), ..crate::ops::memory::enrollment(registration_token()) };
        let access_token = Source::Value { token: Token::parse("glpat-access").unwrap(), origin: "a test".to_owned() };
        let keeping = crate::lifecycle::AccessKeeping::default();
        let servers = vec![ServerAccess { url: url(), access_token, tls: TlsFiles::default(), keeping }];
        let engine = crate::sharing::EngineSettings::Kubernetes { kubeconfig: None, namespace: None };
        let sharing = Some(crate::sharing::Settings { engine, encryption_key: None, recover: true });
        let shutdown = Shutdown {
            unregister_shared: if self.weather.deletes_last { UnregisterShared::Last } else { UnregisterShared::Never },
            ..Config::default().shutdown
        };
        Config { enrollments: vec![enrollment], servers, sharing, shutdown, ..Config::default() }
    }

    fn shares(&self, store: MemoryEngine) -> Shares<AnyEngine> {
        let key = SealingKey::from_text("a key of the tests with enough characters").unwrap();
        Shares::new(AnyEngine::Memory(store), self.weather.is_sealed.then_some(key))
    }

    fn add(&mut self) {
        let number = self.machines.len();
        let [to_store, to_gitlab] = TIMEOUTS.map(|timeout| self.network.line(timeout));
        let shared = Rc::new(RefCell::new((0, 1, Instant::now())));
        self.machines.push(Machine {
            id: format!("s_{number:012}").parse().unwrap(),
            disk: MemoryDisk::default(),
            clock: MachineClock { truth: self.truth.clone(), shared },
            to_store,
            to_gitlab,
            process: None,
            is_gone: false,
        });
        self.start(number);
    }

    fn start(&mut self, number: usize) {
        let config = self.config();
        let machine = &self.machines[number];
        if machine.is_gone || machine.process.is_some() {
            return;
        }
        machine.disk.state().writes_left = None;
        let ops = Ops::new(
            DistantServer { server: self.server.clone(), line: machine.to_gitlab.clone() },
            machine.disk.clone(),
            crate::ops::Identity { system_id: machine.id.clone(), host: format!("host-{number}"), ..identity() },
        );
        ops.share_in(Some(self.shares(self.store.over(machine.to_store.clone()))));
        let registry = StatusRegistry::default();
        let parts = Parts {
            engine: Engine { ops, clock: machine.clock.clone(), chance: || Fraction::ZERO, skews: RefCell::default() },
            watch: None,
            request_timeout: TIMEOUTS[1],
            heartbeat: Heartbeat::every(secs(3600)),
            registry: registry.clone(),
            counters: Counters::new(),
            feed: SettingsFeed::default(),
            hooks: HookFeed::default(),
            reload: Box::new(|| Box::pin(ready(Err("invalid".to_owned())))),
        };
        let (notices, inbox) = mpsc::unbounded_channel();
        let pause = Rc::default();
        let process = Box::pin(run(config, parts, inbox));
        let process = Pausable { process, pause: Rc::clone(&pause) };
        let life = async move { process.await.map(drop).map_err(|error| error.to_string()) };
        let task = spawn_local(life.instrument(tracing::info_span!("machine", number)));
        self.machines[number].process = Some(Process { notices, pause, registry, task });
    }

    fn kill(&mut self, number: usize) {
        if let Some(process) = self.machines[number].process.take() {
            process.task.abort();
        }
    }

    fn pause(&mut self, number: usize, is_paused: bool) {
        let Some(process) = &self.machines[number].process else { return };
        let mut pause = process.pause.borrow_mut();
        pause.0 = is_paused;
        if !is_paused && let Some(waker) = pause.1.take() {
            waker.wake();
        }
    }

    fn end(&mut self, end: End) {
        match end {
            End::Start(number) => self.start(number),
            End::Kill(number) => self.kill(number),
            End::Resume(number) => self.pause(number, false),
            End::Connect(number) => {
                let machine = &self.machines[number];
                let way = self.way();
                machine.to_store.change(|present| *present = way);
                machine.to_gitlab.change(|present| *present = way);
            }
            End::Store => self.store.stop(false),
        }
        tracing::info!("  over: {end:?}");
    }

    /// An undisturbed way.
    fn way(&self) -> Way {
        Way { is_cut: false, is_slow: self.weather.is_slow, repeats: self.weather.repeats }
    }

    /// Processes that have ended by themselves are noticed.
    fn look_at_processes(&mut self) {
        for number in 0..self.machines.len() {
            let is_over = self.machines[number].process.as_ref().is_some_and(|process| process.task.is_finished());
            if is_over {
                self.machines[number].process = None;
                tracing::info!("machine {number} has ended");
            }
        }
    }

    async fn disturb(&mut self) {
        let number = self.chance.index(self.machines.len());
        if self.machines[number].is_gone {
            return;
        }
        let span = match self.chance.below(4) {
            0 => self.chance.millis(100, 5000),
            1 | 2 => self.chance.millis(1000, 60_000),
            _ => self.chance.millis(10_000, 1_800_000),
        };
        let until = |end| (Instant::now() + span, end);
        let text = match self.chance.below(24) {
            0..=2 => {
                self.kill(number);
                self.ends.push(until(End::Start(number)));
                "is killed".to_owned()
            }
            3..=5 => {
                let writes = u32::try_from(self.chance.below(8)).unwrap();
                self.machines[number].disk.state().writes_left = Some(writes);
                self.ends.push((Instant::now() + span / 2, End::Kill(number)));
                self.ends.push(until(End::Start(number)));
                format!("is killed after {writes} writes")
            }
            6 | 7 => {
                self.pause(number, true);
                self.ends.push(until(End::Resume(number)));
                "is paused".to_owned()
            }
            8..=10 => {
                let (store, gitlab) = self.chance.of(&[(true, false), (false, true), (true, true)]);
                let machine = &self.machines[number];
                machine.to_store.change(|way| way.is_cut = store);
                machine.to_gitlab.change(|way| way.is_cut = gitlab);
                self.ends.push(until(End::Connect(number)));
                format!("is cut from the store: {store}, from GitLab: {gitlab}")
            }
            11 | 12 => {
                let far = self.chance.of(&[60_000, 3_600_000, 86_400_000]);
                let offset = self.chance.of(&[far, -far, 0]);
                self.machines[number].clock.shared.borrow_mut().0 = offset;
                format!("has a clock that is {offset} ms ahead")
            }
            13 => {
                self.kill(number);
                let mut clock = self.machines[number].clock.shared.borrow_mut();
                (clock.1, clock.2) = (clock.1 + 1, Instant::now());
                drop(clock);
                self.ends.push(until(End::Start(number)));
                "reboots".to_owned()
            }
            14 | 15 => {
                if let Some(process) = &self.machines[number].process {
                    let _ended = process.notices.send(Notice::Stop);
                }
                let comes_back = self.chance.below(3) > 0 || self.left() < 2;
                if comes_back {
                    self.ends.push(until(End::Start(number)));
                }
                format!("is stopped, and comes back: {comes_back}")
            }
            16 if self.machines.len() < MOST_MACHINES => {
                self.add();
                "and another one: the last one is new".to_owned()
            }
            17 if self.weather.destroys && self.left() > 1 => {
                // Otherwise a token is lost that no other machine has: that is not a fault of the agent's.
                let is_at_rest = self.machines[number].disk.state().journal.is_empty()
                    && self.machines[number]
                        .disk
                        .state()
                        .records
                        .values()
                        .all(|record| record.shared.as_ref().is_none_or(|shared| !shared.is_untold));
                if !is_at_rest {
                    return;
                }
                self.kill(number);
                self.machines[number].is_gone = true;
                "is gone".to_owned()
            }
            18 | 19 => {
                self.store.stop(true);
                self.ends.push(until(End::Store));
                "… the store is stopped".to_owned()
            }
            20 if self.weather.is_store_restored => {
                let value = self.store.value_of(&name());
                // A machine that joins would register a runner into a store from before the first registration.
                if self.stored().await.is_some_and(|stored| stored.token.is_some()) {
                    self.store_backups.push(value);
                }
                if self.store_backups.len() < 2 || !self.chance.one_in(2) {
                    return;
                }
                let at = self.chance.index(self.store_backups.len());
                self.store.restore(&name(), self.store_backups[at].clone());
                "… the store is restored".to_owned()
            }
            21 if self.weather.is_gitlab_restored => {
                let served = self.server.runners().into_iter().next();
                let Some((id, ServedRunner { token, expiry, .. })) = served else { return };
                let id = RunnerId::try_new(id).unwrap();
                if self.chance.one_in(2)
                    && let Some(at) = self.gitlab_backups.iter().rposition(|(of, it)| *of == id && it.token != token)
                {
                    let (_, backup) = self.gitlab_backups.remove(at);
                    self.server.restore(id, &backup);
                    tracing::info!("GitLab is restored");
                } else {
                    self.gitlab_backups.push((id, Credential { token, obtained_at: None, expiry }));
                }
                return;
            }
            _ => return,
        };
        tracing::info!("machine {number} {text} ({} s)", span.as_secs());
    }

    fn left(&self) -> usize {
        self.machines.iter().filter(|machine| !machine.is_gone).count()
    }

    async fn stored(&self) -> Option<SharedRunner> {
        let value = self.store.value_of(&name());
        let still = MemoryEngine::default();
        still.restore(&name(), value);
        self.shares(still).read(&name()).await.unwrap().map(|stored| stored.runner)
    }

    /// A token that has reached a disk is still known, if its runner accepts it.
    async fn check_known(&mut self) -> Result<(), String> {
        let present = self.machines.iter().filter(|machine| !machine.is_gone);
        let mut known: BTreeSet<Digest> = present.flat_map(|machine| tokens_on(&machine.disk)).collect();
        self.delivered.extend(known.iter().copied());
        let stored = self.stored().await;
        known.extend(stored.as_ref().and_then(|stored| stored.token.as_ref()).map(|token| token.lineage.token()));
        let id = stored.and_then(|stored| stored.id);
        let served = id.and_then(|id| self.server.runners().remove(&id.number()));
        let Some(token) = served.map(|served| served.token.digest()) else { return Ok(()) };
        if self.delivered.contains(&token) && !known.contains(&token) {
            return Err(format!("the token {} that has reached a disk is known no more", token.fingerprint()));
        }
        Ok(())
    }

    /// What is not agreed yet.
    async fn disagreement(&self) -> Option<String> {
        let Some(stored) = self.stored().await else { return Some("nothing is stored".to_owned()) };
        let now = self.truth.truth();
        let runners: BTreeMap<_, _> = self.server.runners();
        let served = stored.id.and_then(|id| runners.get(&id.number()));
        let Some(served) = served else { return Some("the server does not have the stored runner".to_owned()) };
        let current = served.token.digest();
        if stored.token.as_ref().map(|token| token.lineage.token()) != Some(current) {
            return Some("the store has another token than the server".to_owned());
        }
        if served.expiry.at().is_none_or(|at| at <= now) {
            return Some("the token has expired".to_owned());
        }
        if stored.pending.is_some() || stored.leaving.is_some() {
            return Some(format!("a change is under way: {:?}, {:?}", stored.pending, stored.leaving));
        }
        for (number, machine) in self.machines.iter().enumerate().filter(|(_, machine)| !machine.is_gone) {
            let has: Vec<_> = machine.disk.tokens().iter().map(Token::digest).collect();
            if has != [current] {
                return Some(format!("machine {number} has other tokens in config.toml: {has:?}"));
            }
            if !stored.members.iter().any(|member| member.machine == machine.id) {
                return Some(format!("machine {number} is no member"));
            }
            let others = runners.values().filter(|other| other.token != served.token);
            let is_alive = |other: &&ServedRunner| other.expiry.at().is_none_or(|at| at > now);
            let known = tokens_on(&machine.disk);
            if let Some(other) = others.filter(is_alive).find(|other| known.contains(&other.token.digest())) {
                return Some(format!("machine {number} has left a runner: {}", other.token.fingerprint()));
            }
        }
        None
    }

    /// Whether it is a person's turn: the present token has reached no disk, and no recovery is left for the day.
    async fn is_lost(&self) -> bool {
        let Some(stored) = self.stored().await else { return false };
        let served = stored.id.and_then(|id| self.server.runners().remove(&id.number()));
        let is_dead = served.is_none_or(|served| {
            let is_over = served.expiry.at().is_some_and(|at| at <= self.truth.truth());
            is_over || !self.delivered.contains(&served.token.digest())
        });
        is_dead && stored.recoveries.len() >= 2
    }

    async fn storm(&mut self) -> Result<(), String> {
        let end = Instant::now() + STORM;
        while Instant::now() < end {
            sleep(self.chance.millis(100, 180_000)).await;
            self.look_at_processes();
            let now = Instant::now();
            let over: Vec<_> = self.ends.extract_if(.., |(at, _)| *at <= now).collect();
            for (_, end) in over {
                self.end(end);
            }
            self.check_known().await?;
            self.disturb().await;
        }
        for (_, end) in std::mem::take(&mut self.ends) {
            self.end(end);
        }
        for number in 0..self.machines.len() {
            self.pause(number, false);
            self.machines[number].disk.state().writes_left = None;
            for line in [&self.machines[number].to_store, &self.machines[number].to_gitlab] {
                line.change(|way| *way = Way::default());
            }
        }
        self.store.stop(false);
        tracing::info!("the storm is over");
        Ok(())
    }

    /// Everything agrees in time, and goes on to.
    async fn calm(&mut self) -> Result<(), String> {
        let began = Instant::now();
        let mut agreed = None;
        while agreed.is_none_or(|agreed: Instant| agreed.elapsed() < LIFE * 2) {
            self.look_at_processes();
            for number in 0..self.machines.len() {
                self.start(number);
            }
            sleep(secs(10)).await;
            self.check_known().await?;
            match self.disagreement().await {
                None => {
                    agreed.get_or_insert_with(Instant::now);
                }
                Some(_) if self.is_lost().await => return Ok(()),
                Some(what) if agreed.is_none() && began.elapsed() > CALM => {
                    return Err(format!("no agreement: {what}"));
                }
                Some(_) => {}
            }
            if agreed.is_some() {
                let stored = self.stored().await;
                let served = stored.and_then(|it| it.id).and_then(|id| self.server.runners().remove(&id.number()));
                if served.is_none_or(|served| served.expiry.at().is_none_or(|at| at <= self.truth.truth())) {
                    return Err("a token has expired after all had agreed".to_owned());
                }
            }
        }
        let deadline = Instant::now() + secs(600);
        while let Some(what) = self.disagreement().await {
            if Instant::now() > deadline {
                return Err(format!("agreement was lost: {what}"));
            }
            sleep(secs(1)).await;
        }
        Ok(())
    }
}

async fn simulate(seed: u64) {
    let (log, _collected) = Log::collect();
    let chance = Rc::new(Chance::new(seed));
    let weather = Weather::of(&chance);
    let (network, delivery) = Network::new(Rc::clone(&chance));
    let _delivery = spawn_local(delivery);
    let truth = TokioClock::new();
    let mut simulation = Simulation {
        server: MemoryServer::new(truth.clone(), Some(LIFE)),
        store: MemoryEngine::default(),
        chance,
        weather,
        network,
        truth,
        machines: Vec::new(),
        ends: Vec::new(),
        delivered: BTreeSet::new(),
        store_backups: Vec::new(),
        gitlab_backups: Vec::new(),
    };
    for number in 0..2 + simulation.chance.index(3) {
        simulation.add();
        simulation.end(End::Connect(number));
    }
    let mut result = simulation.storm().await;
    if result.is_ok() {
        result = simulation.calm().await;
    }
    if let Err(what) = result {
        let stored = simulation.stored().await;
        let shown = |machine: &Machine| {
            let reports = machine.process.as_ref().map(|process| process.registry.runners());
            format!("{}: {:?} {reports:?}", machine.id, machine.disk.tokens())
        };
        let machines: Vec<_> = simulation.machines.iter().map(shown).collect();
        let (log, machines, runners) = (log.text(), machines.join("\n"), simulation.server.runners());
        panic!("SHARING_WALK={seed} {weather:?}: {what}\n{log}\n{machines}\n{stored:?}\n{runners:?}");
    }
}

#[test]
fn daemons_that_share_a_runner_agree_after_any_faults_of_machines_and_network() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (first, count) = (number("SHARING_WALK", 1), number("SHARING_WALKS", 4));
    for seed in first..first + count {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(LocalSet::new().run_until(simulate(seed)));
    }
}
