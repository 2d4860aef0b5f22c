//! Machines that share a runner while everything around them fails.

use std::env;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use fake_gitlab::{Endpoint, Fault, Gitlab};
use runner_agent::sharing::Settings;
use test_support::Chance;

use crate::agents::{Agents, StoreAddress, Ways};
use crate::checker::{Checker, Observer};
use crate::gitlab_runner::{GitlabRunners, INTERVAL};
use crate::proxy::Passage;

/// How long tokens live.
const LIFE: Duration = Duration::from_secs(20);

/// The delays of the agent, for tokens that live that long.
pub(crate) const TIMING: &str = "[timing]\nfloor = \"200ms\"\nconfirm_after = \"1s\"\nsettle_after = \"500ms\"\n";

/// The pause between two looks at everything.
const LOOK: Duration = Duration::from_millis(20);

/// How long a server of the store takes to take part again.
const READY: Duration = Duration::from_secs(3);

/// How long everything is given to settle at the end.
const PATIENCE: Duration = Duration::from_secs(90);

/// How far a clock is moved, in seconds: by minutes, or by hours.
const MINUTES: (u64, u64) = (60, 30 * 60);
const HOURS: (u64, u64) = (3600, 12 * 3600);

/// How many tokens may be lost. Two are recovered in a day: one is left for a store whose start outlasts a token.
const LOST: usize = 1;

/// What is done to a server of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disturbance {
    Killed,
    Paused,
    /// It has clients, and does not reach the other servers.
    CutOff(Passage),
}

/// A store whose servers can be disturbed.
pub(crate) trait Store {
    /// Where it is.
    fn address(&self) -> StoreAddress;
    /// How the test itself gets there.
    fn settings(&self) -> Box<dyn FnOnce() -> Settings + Send>;
    /// The number of its servers.
    fn servers(&self) -> usize;
    /// Whether servers can be cut off from each other.
    fn has_peers(&self) -> bool;
    /// Disturbs a server.
    fn disturb(&mut self, server: usize, kind: Disturbance);
    /// Starts, resumes or connects it.
    fn heal(&mut self, server: usize);
    /// Whether a server that was started answers again.
    fn is_ready(&self, server: usize) -> bool;
}

/// What ends a disturbance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Start(usize),
    Resume(usize),
    Connect(usize),
    Server(usize),
    /// A server that was started takes part again.
    Ready(usize),
}

struct Torture<'t> {
    chance: Chance,
    gitlab: &'t Gitlab,
    agents: &'t mut Agents,
    store: &'t mut dyn Store,
    observer: Observer,
    began: Instant,
    ends: Vec<(Instant, End)>,
    majority_again: Instant,
    lost: usize,
    /// How many times a clock was moved.
    moved: usize,
    /// Whether the next machine that changes the runner is disturbed in the middle of that.
    hunts_sender: bool,
    events: Vec<String>,
}

impl Torture<'_> {
    fn note(&mut self, text: String) {
        self.events.push(format!("{:7.2} {text}", self.began.elapsed().as_secs_f64()));
    }

    fn servers_down(&self) -> usize {
        self.ends.iter().filter(|(_, end)| matches!(end, End::Server(_) | End::Ready(_))).count()
    }

    fn has_majority(&self) -> bool {
        self.servers_down() * 2 < self.store.servers()
    }

    fn is_disturbed(&self, agent: usize) -> bool {
        self.ends.iter().any(|(_, end)| match end {
            End::Start(number) | End::Resume(number) | End::Connect(number) => *number == agent,
            End::Server(_) | End::Ready(_) => false,
        })
    }

    /// What is over ends.
    fn end(&mut self, is_last: bool) {
        let now = Instant::now();
        let is_over = |(at, _): &(Instant, End)| is_last || *at <= now;
        let over: Vec<_> = self.ends.extract_if(.., |end| is_over(end)).collect();
        for (_, end) in over {
            match end {
                End::Start(number) => self.agents.agents[number].start(),
                End::Resume(number) => self.agents.agents[number].set_paused(false),
                End::Connect(number) => {
                    let agent = &self.agents.agents[number];
                    agent.set_gitlab(Passage::Open);
                    agent.set_store(None, Passage::Open);
                }
                End::Server(number) => {
                    self.store.heal(number);
                    self.ends.push((now + READY, End::Ready(number)));
                }
                End::Ready(number) if !self.store.is_ready(number) => self.ends.push((now + READY, end)),
                End::Ready(_) => {}
            }
            self.note(format!("over: {end:?}"));
        }
    }

    /// How old the present token is.
    fn age(&self) -> Duration {
        let runners = self.gitlab.runners();
        let left = runners.first().and_then(|it| it.token_expires_at).map(|at| at.duration_since(self.gitlab.now()));
        left.and_then(|left| Duration::try_from(left).ok()).map_or(LIFE, |left| LIFE.saturating_sub(left))
    }

    /// One more disturbance.
    fn disturb(&mut self) {
        match self.chance.index(23) {
            0..15 => {
                let number = self.chance.index(self.agents.agents.len());
                // Half of the machines go on.
                if self.is_disturbed(number) || self.ends.len() * 2 > self.agents.agents.len() {
                    return;
                }
                let pending = self.observer.last().and_then(|seen| seen.pending);
                // The answer to it may be lost, or come too late.
                if pending.as_ref() == Some(&self.agents.agents[number].machine) {
                    return;
                }
                self.disturb_agent(number);
            }
            15..19 => self.disturb_store(),
            19..22 => self.move_clock(),
            _ => {
                if self.lost == LOST || self.began.elapsed() < LIFE || self.hunts_sender {
                    return;
                }
                self.lost += 1;
                if self.chance.index(2) == 0 {
                    self.gitlab.order(Endpoint::Reset, Fault::cut().after_acting());
                    self.note("the answer to the next reset is lost".to_owned());
                } else {
                    self.hunts_sender = true;
                }
            }
        }
    }

    /// Disturbs the machine that changes the runner at present.
    fn hunt_sender(&mut self) {
        let Some(pending) = self.observer.last().and_then(|seen| seen.pending) else { return };
        let Some(number) = self.agents.agents.iter().position(|agent| agent.machine == pending) else { return };
        if !self.is_disturbed(number) {
            self.hunts_sender = false;
            self.note(format!("{number} is about to change the runner"));
            self.disturb_agent(number);
        }
    }

    fn disturb_agent(&mut self, number: usize) {
        let kind = self.chance.index(8);
        let agent = &mut self.agents.agents[number];
        let passage = if self.chance.index(2) == 0 { Passage::Silent } else { Passage::Refusing };
        let (what, end, span) = match kind {
            0 | 1 => {
                agent.kill();
                ("killed", End::Start(number), self.chance.millis(50, 6000))
            }
            2 => {
                agent.set_paused(true);
                ("paused", End::Resume(number), self.chance.millis(500, 30_000))
            }
            3 => {
                agent.set_paused(true);
                ("paused", End::Resume(number), self.chance.millis(200, 5000))
            }
            4 => {
                agent.set_store(None, passage);
                ("cut from the store", End::Connect(number), self.chance.millis(500, 15_000))
            }
            5 => {
                let server = self.chance.index(self.store.servers());
                agent.set_store(Some(server), passage);
                ("cut from one server", End::Connect(number), self.chance.millis(500, 15_000))
            }
            6 => {
                agent.set_gitlab(passage);
                ("cut from GitLab", End::Connect(number), self.chance.millis(500, 15_000))
            }
            _ => {
                agent.set_store(None, passage);
                agent.set_gitlab(passage);
                ("cut from both", End::Connect(number), self.chance.millis(500, 15_000))
            }
        };
        self.ends.push((Instant::now() + span, end));
        self.note(format!("{number} {what} ({passage:?}) for {:.1} s", span.as_secs_f64()));
    }

    /// Moves a clock. That is no disturbance: everything is promised as before.
    fn move_clock(&mut self) {
        let own: Vec<usize> =
            (0..).zip(&self.agents.agents).filter(|(_, it)| it.has_clock()).map(|(at, _)| at).collect();
        let number = own[self.chance.index(own.len())];
        let (least, most) = if self.chance.index(2) == 0 { MINUTES } else { HOURS };
        let span = i64::try_from(least + self.chance.next() % (most - least + 1)).unwrap();
        // The last one sets it right.
        let seconds = [span, span, -span, -span, 0][self.chance.index(5)];
        self.agents.agents[number].set_clock(seconds);
        self.moved += 1;
        self.note(format!("{number} has a clock that is {seconds} s ahead"));
    }

    fn disturb_store(&mut self) {
        let (count, down) = (self.store.servers(), self.servers_down());
        let number = self.chance.index(count);
        let passage = if self.chance.index(2) == 0 { Passage::Silent } else { Passage::Refusing };
        let kind = match self.chance.index(if self.store.has_peers() { 3 } else { 2 }) {
            0 => Disturbance::Killed,
            1 => Disturbance::Paused,
            _ => Disturbance::CutOff(passage),
        };
        if self.ends.iter().any(|(_, end)| matches!(end, End::Server(it) | End::Ready(it) if *it == number)) {
            return;
        }
        let loses_majority = (down + 1) * 2 > count;
        // Where the others go on, a pause can outlast a token.
        let longest = if loses_majority || kind == Disturbance::Killed { 10_000 } else { 30_000 };
        let mut span = self.chance.millis(500, longest);
        if loses_majority {
            // What cannot be rotated meanwhile does not expire: a server takes half of the life to start on a busy machine.
            let left = (LIFE / 2).saturating_sub(self.age());
            let is_pending = self.observer.last().is_some_and(|seen| seen.pending.is_some());
            if Instant::now() < self.majority_again || left < Duration::from_secs(1) || is_pending || down > 1 {
                return;
            }
            span = span.min(left);
            self.majority_again = Instant::now() + span + LIFE;
        }
        self.store.disturb(number, kind);
        self.ends.push((Instant::now() + span, End::Server(number)));
        self.note(format!("server {number} {kind:?} for {:.1} s", span.as_secs_f64()));
    }
}

/// The number in a variable of the environment.
pub(crate) fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// `SHARING_MACHINES`, else this many.
pub(crate) fn machines(count: usize) -> usize {
    number("SHARING_MACHINES").map_or(count, |count| usize::try_from(count).unwrap())
}

/// The seeds of `SHARING_SEED`, which are separated by commas, else another one each time.
fn seeds() -> Vec<u64> {
    let fresh = || vec![jiff::Timestamp::now().as_millisecond().unsigned_abs()];
    env::var("SHARING_SEED")
        .map_or_else(|_| fresh(), |text| text.split(',').map(|seed| seed.parse().unwrap()).collect())
}

/// Tortures this many machines over a store for two minutes, or `SHARING_TORTURE_SECS`; by all seeds at the same time.
pub(crate) fn torture(make: impl Fn() -> Box<dyn Store> + Sync, machines: usize) {
    let span = Duration::from_secs(number("SHARING_TORTURE_SECS").unwrap_or(120));
    thread::scope(|scope| {
        let of_seed = |seed: u64| {
            scope.spawn({
                let make = &make;
                move || torture_by(make().as_mut(), machines, seed, span)
            })
        };
        let tortures: Vec<_> = seeds().into_iter().map(of_seed).collect();
        let are_passed: Vec<_> = tortures.into_iter().map(|torture| torture.join().is_ok()).collect();
        assert!(are_passed.into_iter().all(|is_passed| is_passed), "see above");
    });
}

fn torture_by(store: &mut dyn Store, machines: usize, seed: u64, span: Duration) {
    let is_calm = env::var_os("SHARING_CALM").is_some();
    let gitlab = Gitlab::builder().token_life(LIFE).start();
    let mut agents = Agents::new(machines, &gitlab, &store.address(), Ways::Own, TIMING);
    agents.give_clocks();
    let observer = Observer::start(store.settings());
    let gitlab_runners = GitlabRunners::start(&agents.agents);
    let mut checker = Checker::new(&gitlab, observer.clone(), &agents.agents);
    let now = Instant::now();
    let mut torture = Torture {
        chance: Chance::new(seed),
        gitlab: &gitlab,
        agents: &mut agents,
        store,
        observer,
        began: now,
        ends: Vec::new(),
        majority_again: now + LIFE,
        lost: 0,
        moved: 0,
        hunts_sender: false,
        events: Vec::new(),
    };
    // Some machines start with a wrong clock.
    if !is_calm {
        (0..machines / 4).for_each(|_| torture.move_clock());
    }
    torture.agents.start_all();
    let end = now + span;
    let mut next = now + Duration::from_secs(1);
    let (mut is_over, mut settled) = (false, None);
    loop {
        let now = Instant::now();
        if now >= end && !is_over {
            torture.end(true);
            is_over = true;
        }
        torture.end(false);
        if !is_over && torture.hunts_sender {
            torture.hunt_sender();
        }
        if !is_over && now >= next && !is_calm {
            torture.disturb();
            next = now + torture.chance.millis(100, 1500);
        }
        checker.look_at_gitlab_runners(&gitlab_runners.take());
        checker.look(&torture.agents.agents, torture.servers_down(), torture.has_majority());
        if is_over && (is_quiet(&checker, &mut settled) || now > end + PATIENCE) {
            break;
        }
        thread::sleep(LOOK);
    }
    let (lost, moved, events) = (torture.lost, torture.moved, std::mem::take(&mut torture.events));
    let report = [
        format!("SHARING_SEED={seed} SHARING_TORTURE_SECS={} {machines} machines", span.as_secs()),
        format!("  {}", checker.finish(lost)),
        format!("  {}", checker.finish_clocks(&agents.agents, moved)),
        format!("  from a write to every undisturbed machine: {}", checker.finish_projected()),
        format!("  from a disturbance's end to the token: {}", checker.finish_healed()),
        format!("  from a lost answer to the next token: {}", checker.lost.summary()),
        format!("  tokens past their expiry: {}", checker.expired.summary()),
        format!("  {}", checker.refusals.summary()),
    ];
    // Of several at the same time.
    println!("  {}", report.join("\n  "));
    let faults = std::mem::take(&mut checker.faults);
    if !faults.is_empty() || env::var_os("SHARING_KEEP").is_some() {
        let kept = agents.keep();
        std::fs::write(kept.join("events"), events.join("\n")).unwrap();
        let requests: Vec<_> = gitlab.requests().iter().map(line).collect();
        std::fs::write(kept.join("gitlab"), requests.join("\n")).unwrap();
        println!("  see {}", kept.display());
    }
    agents.agents.iter_mut().for_each(crate::agents::Agent::kill);
    assert!(faults.is_empty(), "seed {seed}: {faults:#?}");
}

/// Whether a token was replaced after all was settled, and everything has settled again. `settled` is the number of tokens
/// when it had settled first.
fn is_quiet(checker: &Checker<'_>, settled: &mut Option<usize>) -> bool {
    let (tokens, age) = checker.tokens();
    checker.is_settled() && *settled.get_or_insert(tokens) < tokens && age > 2 * INTERVAL
}

/// A request of the log, without secrets.
fn line(request: &fake_gitlab::Request) -> String {
    let token = request.parameter("token").and_then(|text| runner_agent::secret::Token::parse(text).ok());
    let token = token.map(|token| token.digest().fingerprint().to_string()).unwrap_or_default();
    let machine = request.parameter("system_id").unwrap_or_default();
    let fake_gitlab::Request { received_at, endpoint, status, .. } = request;
    format!("{received_at} {endpoint:?} {status:?} {token} {machine}")
}

/// The address of a server of the store by a name of its own.
pub(crate) fn loopback(name: &str, port: u16) -> (String, SocketAddr) {
    (name.to_owned(), SocketAddr::from(([127, 0, 0, 1], port)))
}
