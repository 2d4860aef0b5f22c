//! The pieces of work, and what each may cost.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use fake_gitlab::{Endpoint, Fault};
use rustix::process::Signal;
use test_support::PATIENCE;

use super::fleet::{Fleet, gitlab};
use super::usage::{self, Usage};

/// How much more one runner may cost if there are more of them.
const MOST_GROWTH: f64 = 1.5;

/// How much more memory one more runner may take once all are verified, in KiB.
const MOST_MEMORY_KIB: f64 = 4.0;

/// The memory of a daemon with one runner, in MiB: 8.5 at most with a list of functions that was traced just now, and what
/// changes of the code may add before packaging/link/trace-start is due again.
const MOST_MEMORY_FOR_ONE_MIB: f64 = 9.5;

mod soak;

/// CPU time below which a ratio says nothing, in seconds.
const LEAST_CPU: f64 = 0.1;

/// The life of the tokens that are rotated, in seconds, unless `SCALE_LIFE` is set.
const SHORT_SECS: u64 = 180;

/// The latest share of a token's life at which it is replaced.
const LATEST_SHARE: f64 = 0.8;

/// Replaces of config.toml while all tokens are rotated, however many those are.
const MOST_REPLACES: usize = 120;

/// A long life: nothing is rotated.
const LONG: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long the daemon is given to finish what a change causes, and is watched at rest.
const QUIET: Duration = Duration::from_secs(5);

/// How long the server takes to answer, and how many requests it gets at a time.
const LATENCY: Duration = Duration::from_millis(20);
const PARALLEL: u16 = 64;

/// How long a stop may take by agent.toml.
const GRACE: Duration = Duration::from_secs(4);

/// What a piece of work came to.
pub(crate) struct Figures {
    what: &'static str,
    usage: Usage,
    requests: usize,
    /// The most requests that the work may cause.
    most_requests: usize,
    /// Replaces of config.toml, and the most of them.
    replaces: usize,
    most_replaces: usize,
    /// What else there is to say.
    remark: String,
    /// What else went wrong.
    wrong: Vec<String>,
    /// Whether the CPU time grows with the number of runners, and no faster.
    is_per_runner: bool,
    /// Whether the memory is that of runners at rest.
    is_at_rest: bool,
}

impl fmt::Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Usage { cpu, memory } = self.usage;
        let Self { what, requests, replaces, remark, .. } = self;
        write!(
            formatter,
            "{what:24} CPU {cpu:8.3} s, {memory:7.1} MiB, {requests} requests, {replaces} replaces{remark}"
        )
    }
}

impl Figures {
    /// What is wrong with them, beside those of fewer runners; all but [`Figures::growth`].
    pub(crate) fn faults(&self, count: usize, former: Option<(usize, &Self)>) -> Vec<String> {
        let mut faults = self.wrong.clone();
        if self.replaces > self.most_replaces {
            faults.push(format!("{}: {} replaces, at most {}", self.what, self.replaces, self.most_replaces));
        }
        if self.requests > self.most_requests {
            faults.push(format!("{}: {} requests, at most {}", self.what, self.requests, self.most_requests));
        }
        if let Some((size, former)) = former.filter(|_| self.is_at_rest) {
            let kib = (self.usage.memory - former.usage.memory) * 1024.0 / difference(count, size);
            if kib > MOST_MEMORY_KIB {
                faults.push(format!("{}: {kib:.1} KiB of memory for each runner more", self.what));
            }
        }
        faults
    }

    /// Says so if the CPU time of one runner is more than with fewer runners.
    pub(crate) fn growth(&self, count: usize, former: Option<(usize, &Self)>) -> Option<String> {
        let (size, former) = former.filter(|(_, former)| self.is_per_runner && former.usage.cpu >= LEAST_CPU)?;
        let growth = (self.usage.cpu / former.usage.cpu) / ratio(count, size);
        (growth > MOST_GROWTH)
            .then(|| format!("{}: the CPU time of one runner has grown by the factor {growth:.2}", self.what))
    }

    /// Takes the CPU time of another measurement of the same work if that is less.
    pub(crate) fn take_least_cpu(&mut self, other: &Self) {
        self.usage.cpu = self.usage.cpu.min(other.usage.cpu);
    }
}

#[expect(clippy::cast_precision_loss, reason = "thousands")]
fn ratio(count: usize, size: usize) -> f64 {
    count as f64 / size as f64
}

#[expect(clippy::cast_precision_loss, reason = "thousands")]
fn difference(count: usize, size: usize) -> f64 {
    count as f64 - size as f64
}

pub(crate) type Work = fn(usize) -> Vec<Figures>;

pub(crate) const WORK: [(&str, Work); 8] = [
    ("one", one),
    ("list", list),
    ("verify", verify),
    ("latency", latency),
    ("daemon", daemon),
    ("rotations", rotations),
    ("stop", stop),
    (SOAK, soak::soak),
];

/// The work that is done only if it is named.
pub(crate) const SOAK: &str = "soak";

/// One runner costs little more than the code that is loaded for it. The binary of the tests is not optimized.
fn one(_: usize) -> Vec<Figures> {
    let fleet = Fleet::new(1, gitlab(LONG), "");
    let daemon = fleet.start(&["run"]);
    fleet.wait_for_requests(Endpoint::Verify, 1);
    thread::sleep(QUIET);
    let usage = usage::of(&daemon).unwrap();
    let is_heavy = env::var_os("SCALE_BINARY").is_some() && usage.memory > MOST_MEMORY_FOR_ONE_MIB;
    let wrong = is_heavy.then(|| format!("one runner: at most {MOST_MEMORY_FOR_ONE_MIB} MiB")).into_iter().collect();
    vec![Figures { wrong, ..figures("one runner", usage, fleet.gitlab.requests().len(), 1) }]
}

fn list(count: usize) -> Vec<Figures> {
    let fleet = Fleet::new(count, gitlab(LONG), "");
    let (output, usage) = usage::run(fleet.start(&["list"]));
    output.exits(0);
    assert_eq!(output.stdout.lines().count(), count + 1);
    vec![figures("list", usage, fleet.gitlab.requests().len(), 0)]
}

fn verify(count: usize) -> Vec<Figures> {
    let fleet = Fleet::new(count, gitlab(LONG), "");
    let (output, usage) = usage::run(fleet.start(&["verify"]));
    output.exits(0);
    vec![figures("verify", usage, fleet.gitlab.requests().len(), count)]
}

/// A server that answers late is asked about as many runners as it may be at a time. The remark is for people: the
/// server's timer and its work on the same processors are part of it.
fn latency(count: usize) -> Vec<Figures> {
    let fleet = Fleet::new(count, gitlab(LONG), "");
    fleet.gitlab.order(Endpoint::Verify, Fault::delay(LATENCY)).always();
    let began = Instant::now();
    let (output, usage) = usage::run(fleet.start(&["verify", "--parallel", &PARALLEL.to_string()]));
    let least = LATENCY.as_secs_f64() * ratio(count, PARALLEL.into());
    let remark = format!(", {:.2} times the latency", began.elapsed().as_secs_f64() / least);
    output.exits(0);
    vec![Figures { remark, ..figures("verify --parallel 64", usage, fleet.gitlab.requests().len(), count) }]
}

/// The daemon from its start to its stop.
fn daemon(count: usize) -> Vec<Figures> {
    let fleet = Fleet::new(count, gitlab(LONG), "");
    let daemon = fleet.start(&["run"]);
    let mut all = Vec::new();
    wait("serving", || daemon.log().contains("serving"));
    all.push(figures("start to serving", usage::of(&daemon).unwrap(), 0, 0));
    fleet.wait_for_requests(Endpoint::Verify, count);
    thread::sleep(QUIET);
    let mut last = usage::of(&daemon).unwrap();
    let mut asked = fleet.gitlab.requests().len();
    all.push(Figures { is_at_rest: true, ..figures("first verification", last, asked, count) });
    let mut since = |what: &'static str, most: usize, is_per_runner: bool| {
        let (now, requests) = (usage::of(&daemon).unwrap(), fleet.gitlab.requests().len());
        let used = Usage { cpu: now.cpu - last.cpu, ..now };
        let figures = Figures { is_per_runner, ..figures(what, used, requests - asked, most) };
        (last, asked) = (now, requests);
        figures
    };
    thread::sleep(2 * QUIET);
    all.push(since("at rest for 10 s", 0, false));
    let text = fleet.config();
    fleet.write_config(&format!("# a comment\n{text}"));
    thread::sleep(2 * QUIET);
    all.push(since("a comment added", 0, true));
    let runner = fleet.gitlab.runners().into_iter().nth(count / 2).unwrap();
    let token = fleet.gitlab.revoke(runner.id);
    fleet.write_config(&fleet.config().replace(&runner.token, &token));
    thread::sleep(2 * QUIET);
    all.push(since("one token by hand", 2, true));
    daemon.signal(Signal::TERM);
    let (output, usage) = usage::run(daemon);
    output.exits(0);
    let used = Usage { cpu: usage.cpu - last.cpu, memory: usage.memory };
    all.push(figures("stop", used, fleet.gitlab.requests().len() - asked, 0));
    all
}

/// Every token is rotated once.
fn rotations(count: usize) -> Vec<Figures> {
    let life = Duration::from_secs(number("SCALE_LIFE").unwrap_or(SHORT_SECS));
    let fleet = Fleet::new(count, gitlab(life), "[rotate]\nat = \"50%\"\nfound = \"always\"\n");
    let known: BTreeMap<_, _> =
        fleet.gitlab.runners().into_iter().map(|runner| (runner.token, runner.token_expires_at)).collect();
    let daemon = fleet.start(&["run"]);
    fleet.wait_for_requests(Endpoint::Verify, count);
    let before = usage::of(&daemon).unwrap();
    let is_rotated = || fleet.gitlab.runners().iter().all(|runner| runner.rotations > 0);
    let ((), replaces) = fleet.replaces_during(|| {
        wait_within(life, "rotations", is_rotated);
        // The last tokens are written.
        wait("config.toml", || fleet.is_in_step());
    });
    let after = usage::of(&daemon).unwrap();
    let resets = fleet.gitlab.requests_to(Endpoint::Reset);
    // The first token of each runner: when was it replaced?
    let shares = resets.iter().filter_map(|request| {
        let expires_at = (*known.get(request.parameter("token")?)?)?;
        Some(1.0 - expires_at.duration_since(request.received_at).as_secs_f64() / life.as_secs_f64())
    });
    let latest = shares.fold(0.0, f64::max);
    daemon.kill();
    let usage = Usage { cpu: after.cpu - before.cpu, ..after };
    let mut wrong = Vec::new();
    if latest > LATEST_SHARE {
        wrong.push(format!("a token was replaced at {:.0} % of its life", latest * 100.0));
    }
    // Some are rotated twice while the others wait.
    let figures = figures("rotations", usage, resets.len(), 2 * count);
    let remark = format!(", the last at {:.0} % of a life", latest * 100.0);
    vec![Figures { replaces, most_replaces: MOST_REPLACES, wrong, remark, ..figures }]
}

/// A stop unregisters as many as there is time for, and the next start deletes none. Without a server it ends, too.
fn stop(count: usize) -> Vec<Figures> {
    let settings = format!("[shutdown]\nunregister = \"all\"\ngrace = \"{}s\"\n", GRACE.as_secs());
    [("stop", true), ("stop without a server", false)]
        .map(|(what, has_server)| {
            let fleet = Fleet::new(count, gitlab(LONG), &settings);
            let daemon = fleet.start(&["run"]);
            fleet.wait_for_requests(Endpoint::Verify, count);
            thread::sleep(QUIET);
            let before = usage::of(&daemon).unwrap();
            if !has_server {
                fleet.gitlab.refuse_connections();
                fleet.gitlab.cut_connections();
            }
            let began = Instant::now();
            daemon.signal(Signal::TERM);
            let (_, after) = usage::run(daemon);
            let share = began.elapsed().as_secs_f64() / GRACE.as_secs_f64();
            let deletions = fleet.gitlab.requests_to(Endpoint::DeleteManager).len();
            let usage = Usage { cpu: after.cpu - before.cpu, ..after };
            fleet.gitlab.accept_connections();
            let daemon = fleet.start_serving();
            thread::sleep(2 * QUIET);
            let mut wrong = Vec::new();
            if fleet.gitlab.requests_to(Endpoint::DeleteManager).len() != deletions {
                wrong.push("the next start has deleted a manager".to_owned());
            }
            daemon.kill();
            let remark = format!(", after {share:.2} of its grace");
            Figures { wrong, remark, is_per_runner: false, ..figures(what, usage, deletions, count) }
        })
        .into()
}

fn figures(what: &'static str, usage: Usage, requests: usize, most_requests: usize) -> Figures {
    let (replaces, most_replaces, remark, wrong) = (0, 0, String::new(), Vec::new());
    let (is_per_runner, is_at_rest) = (true, false);
    Figures { what, usage, requests, most_requests, replaces, most_replaces, remark, wrong, is_per_runner, is_at_rest }
}

/// The number in a variable of the environment.
fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap())
}

fn wait(what: &str, is_met: impl Fn() -> bool) {
    wait_within(PATIENCE, what, is_met);
}

fn wait_within(patience: Duration, what: &str, is_met: impl Fn() -> bool) {
    let deadline = Instant::now() + patience.max(PATIENCE);
    while !is_met() {
        assert!(Instant::now() < deadline, "timed out waiting for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
