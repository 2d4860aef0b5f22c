//! What is true at all times, read from GitLab, from the store and from every machine.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use fake_gitlab::{Endpoint, Gitlab};
use runner_agent::secret::{Digest, Token};
use runner_agent::sharing::{self, Settings, Shares, Stored};

use crate::agents::Agent;
use crate::conformance::name;
use crate::gitlab_runner::{LIMIT, Poll};

/// How long the observer waits for a change before it reads the store.
const LOOK: Duration = Duration::from_millis(500);

/// How long everything that a rotation needs is in order before an expired token is a fault: more than from the time of
/// rotation to the expiry. On a machine of one's own it is the time after a disturbance.
const IN_ORDER: Duration = Duration::from_secs(10);

/// A machine that reaches both has the token of the store this long after it was written, or after the last disturbance.
const AFTER_WRITE: Duration = Duration::from_secs(2);
const AFTER_HEALING: Duration = Duration::from_secs(5);

/// What is later is printed; only far beyond is it a fault, since other processes share the processors. On a machine of
/// one's own it is one if more than so many of a hundred are later.
const FAULT_AFTER: Duration = Duration::from_secs(20);
const LATE: usize = 1;

/// A time is another clock's if it differs from the machine's by so many seconds.
const FAR: f64 = 30.0;

/// After so many moves an agent has logged a line since.
const FEW: usize = 4;

/// How long a machine that reaches both may go without any token that is current: three are written in that time.
const PASSED_BY: Duration = Duration::from_secs(45);

/// The store's value at one time.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    /// The same by the clock that files are dated by.
    pub(crate) wall: jiff::Timestamp,
    pub(crate) token: Option<Digest>,
    /// The machine that changes the runner.
    pub(crate) pending: Option<String>,
    pub(crate) members: usize,
}

/// Reads and watches the store by a connection of its own.
#[derive(Clone)]
pub(crate) struct Observer(Arc<Mutex<Vec<Seen>>>);

impl Observer {
    pub(crate) fn start(settings: impl FnOnce() -> Settings + Send + 'static) -> Self {
        let observer = Self(Arc::default());
        let seen = observer.clone();
        thread::spawn(move || {
            crate::cases::run(async {
                let shares = sharing::open(&settings()).await.unwrap();
                // Until the test has ended.
                loop {
                    if seen.follow(&shares).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            });
        });
        observer
    }

    async fn follow(&self, shares: &Shares<sharing::AnyEngine>) -> Result<(), sharing::Error> {
        let name = name();
        let mut watch = shares.watch(&name).await?;
        self.note(shares.read(&name).await?);
        loop {
            match tokio::time::timeout(LOOK, shares.next(&name, &mut watch)).await {
                Ok(next) => self.note(next?),
                Err(_) => self.note(shares.read(&name).await?),
            }
        }
    }

    fn note(&self, stored: Option<Stored>) {
        let runner = stored.map(|stored| stored.runner);
        let token = runner.as_ref().and_then(|runner| runner.token.as_ref());
        let seen = Seen {
            at: Instant::now(),
            wall: jiff::Timestamp::now(),
            token: token.map(|token| token.lineage.token()),
            pending: runner
                .as_ref()
                .and_then(|runner| runner.pending.as_ref())
                .map(|it| it.sender.machine.as_str().to_owned()),
            members: runner.as_ref().map_or(0, |runner| runner.members.len()),
        };
        self.0.lock().unwrap().push(seen);
    }

    /// All values so far, oldest first.
    pub(crate) fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn last(&self) -> Option<Seen> {
        self.0.lock().unwrap().last().cloned()
    }
}

/// What is known of a machine.
#[derive(Clone, Debug, Default)]
struct Machine {
    token: Option<Digest>,
    /// Since when it runs and reaches both.
    undisturbed: Option<Instant>,
    /// How long it has been behind.
    behind: Option<Duration>,
    /// When it last had the token that GitLab accepts, or that it has not was reported.
    current_at: Option<Instant>,
    /// How many times in a row its gitlab-runner was refused.
    refused: usize,
    /// The same while nothing has disturbed the rotation or this machine.
    refused_undisturbed: usize,
}

/// What the rotations cost gitlab-runner.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals {
    requests: usize,
    refused: usize,
    /// So many of them where nothing was disturbed.
    calm: usize,
    /// The most refusals in a row while nothing was disturbed.
    most: usize,
    /// How many times a machine's gitlab-runner has given a token up because of a disturbance.
    given_up: usize,
}

impl Refusals {
    pub(crate) fn summary(&self) -> String {
        let Self { requests, refused, calm, most, given_up } = self;
        format!(
            "{requests} requests for jobs, {refused} refused; where nothing was disturbed {calm}, at most {most} in a row; \
             elsewhere {given_up} tokens given up"
        )
    }
}

/// The token that GitLab accepts.
#[derive(Clone, Debug)]
struct ServerToken {
    digest: Digest,
    expires_at: Option<jiff::Timestamp>,
    since: Instant,
    is_known: bool,
}

/// Spans of time, for people.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spans(Vec<Duration>);

impl Spans {
    pub(crate) fn add(&mut self, span: Duration) {
        self.0.push(span);
    }

    fn extend(&mut self, span: Option<Duration>) {
        self.0.extend(span);
    }

    /// How many are longer.
    fn over(&self, limit: Duration) -> usize {
        self.0.iter().filter(|span| **span > limit).count()
    }

    pub(crate) fn summary(&self) -> String {
        let mut sorted = self.0.clone();
        sorted.sort();
        let at = |share: usize| sorted.get((sorted.len() * share / 100).min(sorted.len().saturating_sub(1)));
        let seconds = |span: Option<&Duration>| span.map_or(0.0, Duration::as_secs_f64);
        let [half, most, worst] = [at(50), at(99), sorted.last()].map(seconds);
        format!("{} times, median {half:.2} s, p99 {most:.2} s, worst {worst:.2} s", sorted.len())
    }
}

/// Checks what is true at all times.
pub(crate) struct Checker<'c> {
    /// Whether what is late is a fault: no other process shares the processors.
    is_strict: bool,
    gitlab: &'c Gitlab,
    observer: Observer,
    began: Instant,
    machines: Vec<Machine>,
    /// The system_id of each machine.
    names: Vec<String>,
    server: Option<ServerToken>,
    tokens: BTreeSet<Digest>,
    /// When the store was first seen with a token.
    written: BTreeMap<Digest, Instant>,
    looked: usize,
    /// The machine that has brought the store's token.
    sender: Option<String>,
    has_majority: Option<Instant>,
    is_whole: Option<Instant>,
    in_order: Option<Instant>,
    /// From the write of a token until a machine has it that was never disturbed since before.
    pub(crate) projected: Spans,
    /// The same from the last disturbance on.
    pub(crate) healed: Spans,
    /// From a lost answer until the next token.
    pub(crate) lost: Spans,
    /// How long tokens were used past their expiry, whatever was out of order.
    pub(crate) expired: Spans,
    pub(crate) refusals: Refusals,
    /// What is wrong.
    pub(crate) faults: Vec<String>,
}

impl<'c> Checker<'c> {
    pub(crate) fn new(gitlab: &'c Gitlab, observer: Observer, agents: &[Agent]) -> Self {
        Self {
            is_strict: env::var("SHARING_STRICT").is_ok_and(|text| text == "1"),
            gitlab,
            observer,
            began: Instant::now(),
            machines: vec![Machine::default(); agents.len()],
            names: agents.iter().map(|agent| agent.machine.clone()).collect(),
            server: None,
            tokens: BTreeSet::new(),
            written: BTreeMap::new(),
            looked: 0,
            sender: None,
            has_majority: None,
            is_whole: None,
            in_order: None,
            projected: Spans::default(),
            healed: Spans::default(),
            lost: Spans::default(),
            expired: Spans::default(),
            refusals: Refusals::default(),
            faults: Vec::new(),
        }
    }

    /// Looks at everything once. `down` is how many servers of the store are disturbed.
    pub(crate) fn look(&mut self, agents: &[Agent], down: usize, has_majority: bool) {
        let now = Instant::now();
        let since = |is_so: bool, since: Option<Instant>| is_so.then(|| since.unwrap_or(now));
        self.has_majority = since(has_majority, self.has_majority);
        self.is_whole = since(down == 0, self.is_whole);
        self.look_at_store();
        self.look_at_server(now);
        for (number, agent) in agents.iter().enumerate() {
            if agent.has_ended() {
                self.fault(format!("agent {number} has ended"));
            }
            self.look_at_machine(number, agent, now);
        }
        self.look_at_expiry(agents, now);
    }

    fn look_at_store(&mut self) {
        let seen = self.observer.all();
        for at in self.looked..seen.len() {
            let Some(token) = seen[at].token else { continue };
            if let Entry::Vacant(written) = self.written.entry(token) {
                written.insert(seen[at].at);
                let before = at.checked_sub(1).and_then(|before| seen[before].pending.clone());
                self.sender = before.or(self.sender.take());
            }
        }
        self.looked = seen.len();
    }

    fn look_at_server(&mut self, now: Instant) {
        let runners = self.gitlab.runners();
        let Some(runner) = runners.first() else { return };
        let digest = Token::parse(&runner.token).unwrap().digest();
        self.tokens.insert(digest);
        if self.server.as_ref().is_none_or(|server| server.digest != digest) {
            if let Some(last) = self.server.take() {
                if !last.is_known {
                    self.lost.add(now - last.since);
                }
                let past = last.expires_at.map(|at| jiff::Timestamp::now().duration_since(at));
                self.expired.extend(past.and_then(|past| Duration::try_from(past).ok()));
            }
            self.machines.iter_mut().for_each(|machine| machine.refused_undisturbed = 0);
            let expires_at = runner.token_expires_at;
            self.server = Some(ServerToken { digest, expires_at, since: now, is_known: false });
        }
        if let Some(server) = &mut self.server {
            server.is_known |= self.written.contains_key(&server.digest);
        }
    }

    fn look_at_machine(&mut self, number: usize, agent: &Agent, now: Instant) {
        let machine = &mut self.machines[number];
        machine.undisturbed = agent.is_undisturbed().then(|| machine.undisturbed.unwrap_or(now));
        if let Some(token) = agent.token() {
            machine.token = Some(token);
        }
        let Some(server) = &mut self.server else { return };
        let is_current = machine.token == Some(server.digest);
        server.is_known |= is_current;
        if is_current {
            machine.current_at = Some(now);
        }
        let well_since = machine.undisturbed.max(machine.current_at).max(self.has_majority);
        let is_well = machine.undisturbed.is_some() && self.has_majority.is_some();
        if is_well && well_since.is_some_and(|since| now - since > PASSED_BY) {
            machine.current_at = Some(now);
            self.fault(format!("agent {number} has had no token that is current for {} s", PASSED_BY.as_secs()));
            return;
        }
        let written = self.written.get(&server.digest);
        let (Some(written), Some(undisturbed), Some(majority)) = (written, machine.undisturbed, self.has_majority)
        else {
            machine.behind = None;
            return;
        };
        let since = *written.max(&undisturbed).max(&majority);
        if !is_current {
            let behind = now - since;
            if behind > FAULT_AFTER && machine.behind.is_none_or(|before| before <= FAULT_AFTER) {
                let held = machine.token.map(|token| token.fingerprint().to_string());
                let current = server.digest.fingerprint().to_string();
                let text = format!("agent {number} has {held:?} and not {current} after {} s", behind.as_secs());
                machine.behind = Some(behind);
                self.fault(text);
            } else {
                machine.behind = Some(behind);
            }
        } else if let Some(behind) = machine.behind.take() {
            let is_undisturbed = since == *written && self.is_whole.is_some_and(|whole| whole < *written);
            if is_undisturbed { &mut self.projected } else { &mut self.healed }.add(behind);
        }
    }

    /// A rotation does not make gitlab-runner give up, unless the machine, the one that rotates or the store is disturbed
    /// meanwhile.
    pub(crate) fn look_at_gitlab_runners(&mut self, polls: &[Poll]) {
        for poll in polls {
            self.refusals.requests += 1;
            let is_calm = self.is_calm(poll);
            let machine = &mut self.machines[poll.machine];
            if !poll.is_refused {
                (machine.refused, machine.refused_undisturbed) = (0, 0);
                continue;
            }
            machine.refused += 1;
            machine.refused_undisturbed = if is_calm { machine.refused_undisturbed + 1 } else { 0 };
            let (refused, refused_undisturbed) = (machine.refused, machine.refused_undisturbed);
            self.refusals.refused += 1;
            self.refusals.calm += usize::from(is_calm);
            // The answer with a token that is not known may have been lost.
            if self.server.as_ref().is_some_and(|server| server.is_known) {
                self.refusals.most = self.refusals.most.max(refused_undisturbed);
                if refused_undisturbed == LIMIT {
                    self.fault(format!("gitlab-runner {} has given up {}", poll.machine, poll.token.fingerprint()));
                    continue;
                }
            }
            if refused == LIMIT {
                self.refusals.given_up += 1;
            }
        }
    }

    /// Whether everything that a rotation needs has been in order since before it.
    fn is_calm(&self, poll: &Poll) -> bool {
        let Some(server) = &self.server else { return false };
        let is_older = |since: Option<Instant>| since.is_some_and(|since| since < server.since);
        let sender = self.sender().and_then(|sender| self.names.iter().position(|name| *name == sender));
        let machines = [Some(poll.machine), sender];
        let are_well = machines.iter().all(|at| at.is_some_and(|at| is_older(self.machines[at].undisturbed)));
        are_well && is_older(self.is_whole)
    }

    /// The machine that changes the runner, or has changed it last.
    fn sender(&self) -> Option<String> {
        self.observer.last().and_then(|seen| seen.pending).or_else(|| self.sender.clone())
    }

    /// A token is replaced before its expiry if everything that this needs is in order.
    fn look_at_expiry(&mut self, agents: &[Agent], now: Instant) {
        let sender = self.sender();
        let is_sender = |agent: &&Agent| sender.as_ref() == Some(&agent.machine);
        let is_sender_well = agents.iter().find(is_sender).is_some_and(Agent::is_undisturbed);
        let is_known = self.server.as_ref().is_some_and(|server| server.is_known);
        let is_in_order = self.has_majority.is_some() && is_sender_well && is_known;
        self.in_order = is_in_order.then(|| self.in_order.unwrap_or(now));
        let Some(server) = &self.server else { return };
        let is_expired = server.expires_at.is_some_and(|at| at < jiff::Timestamp::now());
        let in_order = if self.is_strict { AFTER_HEALING } else { IN_ORDER };
        if is_expired && self.in_order.is_some_and(|since| now - since > in_order) {
            let text = format!("the token {} is past its expiry", server.digest.fingerprint());
            self.in_order = Some(now);
            self.fault(text);
        }
    }

    fn fault(&mut self, text: String) {
        let text = format!("{:7.2} {text}", self.began.elapsed().as_secs_f64());
        println!("  FAULT {text}");
        self.faults.push(text);
    }

    /// Whether every machine has the token of server and store, and no change is under way.
    pub(crate) fn is_settled(&self) -> bool {
        let Some(server) = &self.server else { return false };
        let seen = self.observer.last();
        seen.is_some_and(|seen| seen.token == Some(server.digest) && seen.members == self.machines.len())
            && self.machines.iter().all(|machine| machine.token == Some(server.digest))
    }

    /// How many tokens there were, and how old the last one is.
    pub(crate) fn tokens(&self) -> (usize, Duration) {
        (self.tokens.len(), self.server.as_ref().map_or(Duration::ZERO, |server| server.since.elapsed()))
    }

    /// Checks how soon machines have had a token that were never disturbed since before its write. Returns what happened.
    pub(crate) fn finish_projected(&mut self) -> String {
        let projected = self.projected.clone();
        self.finish_spans(&projected, AFTER_WRITE)
    }

    /// The same since the end of the last disturbance.
    pub(crate) fn finish_healed(&mut self) -> String {
        let healed = self.healed.clone();
        self.finish_spans(&healed, AFTER_HEALING)
    }

    fn finish_spans(&mut self, spans: &Spans, limit: Duration) -> String {
        let (late, count) = (spans.over(limit), spans.0.len());
        let text = format!("{}; {late} later than {} s", spans.summary(), limit.as_secs());
        if self.is_strict && late * 100 > count * LATE {
            self.fault(format!("more than {LATE} of a hundred are late: {text}"));
        }
        text
    }

    /// Checks that clocks that were moved are those that the agents have gone by. Returns what happened.
    pub(crate) fn finish_clocks(&mut self, agents: &[Agent], moved: usize) -> String {
        let (now, span) = (jiff::Timestamp::now(), self.began.elapsed().as_secs_f64());
        let is_far = |at: &jiff::Timestamp| !(-FAR..span + FAR).contains(&now.duration_since(*at).as_secs_f64());
        let lines = agents.iter().flat_map(Agent::log_times).filter(is_far).count();
        if moved > FEW && lines == 0 {
            self.fault("no agent has gone by a clock that was moved".to_owned());
        }
        format!("{moved} clocks moved; {lines} lines of the logs have such times")
    }

    /// Checks what is true at the end. `lost` is the number of answers that were cut before an agent has read a byte.
    /// Returns what happened.
    pub(crate) fn finish(&mut self, lost: usize) -> String {
        let resets = self.gitlab.requests_to(Endpoint::Reset);
        let mut tokens = BTreeSet::new();
        for reset in resets.iter().filter(|reset| reset.status == Some(201)) {
            if !tokens.insert(reset.parameter("token").unwrap_or_default().to_owned()) {
                self.fault("one token was reset twice".to_owned());
            }
        }
        let by_id = self.gitlab.requests_to(Endpoint::ResetById);
        let by_id = by_id.iter().filter(|reset| reset.status == Some(201)).count();
        let runners = self.gitlab.runners();
        let managers = runners.first().map_or(0, |runner| runner.managers.len());
        let members = self.observer.last().map_or(0, |seen| seen.members);
        let summary = format!(
            "{} tokens, {} resets by token, {by_id} by id for {lost} lost answers, {} runners, {managers} managers, \
             {members} members",
            self.tokens.len(),
            tokens.len(),
            runners.len(),
        );
        // A store that is slow to start can outlast a token; `look_at_expiry` sees what has no such reason.
        let expired = self.expired.0.len();
        if by_id > lost + expired {
            self.fault(format!("{by_id} recoveries for {lost} lost answers and {expired} expired tokens"));
        }
        if runners.len() != 1 {
            self.fault(format!("{} runners", runners.len()));
        }
        if managers > self.machines.len() || members != self.machines.len() {
            self.fault(format!("{managers} managers and {members} members of {} machines", self.machines.len()));
        }
        if !self.is_settled() {
            let server = self.server.as_ref().map(|server| server.digest);
            let behind: Vec<_> = self.machines.iter().enumerate().filter(|(_, it)| it.token != server).collect();
            let behind: Vec<_> = behind.iter().map(|(number, _)| *number).collect();
            let is_stored = self.observer.last().and_then(|seen| seen.token) == server;
            self.fault(format!("not settled at the end: behind are {behind:?}; the store has the token: {is_stored}"));
        }
        summary
    }
}
