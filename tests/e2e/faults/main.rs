//! The fault matrix: nothing is lost if any disk operation fails, or if the process is killed at it.
//!
//! For each operation (`register`, `enroll`, `rotate`, …) strace first records the calls below the directories of
//! config.toml and of the state. Then each call fails once and the process is killed at each call; disks are full,
//! connections are cut, also in combination. After each case the daemon starts again without the fault, and server
//! and disk are compared.
//!
//! Needs root, strace and `RUNNER_AGENT_E2E=1`; `cargo test --test fault_matrix -- NAME…` runs the cases whose names
//! start with one of the given names.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "this is a test from its first line to its last"
)]

mod access_token;
mod case;
mod hooks;
mod oracle;
mod sandbox;
mod strace;
mod work;

use std::collections::{BTreeMap, VecDeque};
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use case::Case;

/// The binary under test.
const BINARY: &str = env!("CARGO_BIN_EXE_runner-agent");

/// How many cases run at a time.
const WORKERS: usize = 8;

/// Set if this program runs in its own mount namespace.
const INSIDE: &str = "RUNNER_AGENT_E2E_INSIDE";

fn main() -> ExitCode {
    if let Some(missing) = missing() {
        println!("fault_matrix: skipped: {missing}");
        return ExitCode::SUCCESS;
    }
    if env::var_os(INSIDE).is_none() {
        return in_own_mounts();
    }
    let wanted: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let began = Instant::now();
    let cases: Vec<Case> = case::all(&wanted).into_iter().filter(|case| is_wanted(&case.name(), &wanted)).collect();
    println!("{} cases recorded after {} s", cases.len(), began.elapsed().as_secs());
    if wanted.is_empty() && cases.len() < MIN_CASES {
        println!("the matrix has {} cases, but at least {MIN_CASES} are expected", cases.len());
        return ExitCode::FAILURE;
    }
    let results = run_all(cases);
    report(&results, began)
}

fn missing() -> Option<&'static str> {
    if env::var("RUNNER_AGENT_E2E").as_deref() != Ok("1") {
        Some("RUNNER_AGENT_E2E=1 is not set")
    } else if !rustix::process::geteuid().is_root() {
        Some("not root")
    } else if Command::new("strace").arg("--version").output().is_err() {
        Some("strace is not installed")
    } else {
        None
    }
}

/// Runs this program again in a mount namespace of its own.
fn in_own_mounts() -> ExitCode {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--"]).arg(env::current_exe().unwrap());
    let status = command.args(env::args_os().skip(1)).env(INSIDE, "1").status().unwrap();
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn is_wanted(name: &str, wanted: &[String]) -> bool {
    wanted.is_empty() || wanted.iter().any(|wanted| name.starts_with(wanted.as_str()))
}

/// The outcome of one case.
struct Outcome {
    kind: &'static str,
    name: String,
    lost: Option<String>,
    /// Whether the fault was injected, in one of the attempts.
    is_injected: bool,
}

/// How many cases the whole matrix has at least. A lower number means that calls are no longer recorded; if the agent
/// really makes fewer, lower it.
const MIN_CASES: usize = 3500;

/// One fault in so many may miss: how often config.toml is read again depends on its age, so a run can have fewer calls than
/// every recording had. Each is named.
const MISSED_SHARE: usize = 50;

fn run_all(cases: Vec<Case>) -> Vec<Outcome> {
    let queue = Mutex::new(VecDeque::from(cases));
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let Some(case) = queue.lock().unwrap().pop_front() else { return };
                    let outcome = run(&case);
                    if let Some(lost) = &outcome.lost {
                        println!("LOST {}: {lost}", outcome.name);
                    }
                    results.lock().unwrap().push(outcome);
                }
            });
        }
    });
    results.into_inner().unwrap()
}

fn run(case: &Case) -> Outcome {
    let result = catch_unwind(AssertUnwindSafe(|| case.run()));
    let result = result.unwrap_or_else(|_| Err("the case panicked".to_owned()));
    let is_injected = !result.as_ref().is_err_and(|lost| lost.starts_with(case::NOT_INJECTED));
    Outcome { kind: case.kind(), name: case.name(), lost: result.err().filter(|_| is_injected), is_injected }
}

fn report(results: &[Outcome], began: Instant) -> ExitCode {
    let mut kinds: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for outcome in results {
        let (all, lost) = kinds.entry(outcome.kind).or_default();
        *all += 1;
        *lost += usize::from(outcome.lost.is_some());
    }
    for (kind, (all, lost)) in &kinds {
        println!("{kind}: {all} cases, {lost} lost something");
    }
    let failed = results.iter().filter(|outcome| outcome.lost.is_some()).count();
    println!("{} cases, {failed} lost something, {} s", results.len(), began.elapsed().as_secs());
    let missed: Vec<&Outcome> = results.iter().filter(|outcome| !outcome.is_injected).collect();
    for outcome in &missed {
        println!("the fault was not injected: {}", outcome.name);
    }
    println!("{} passed, {failed} failed", results.len() - failed - missed.len());
    let is_complete = missed.len() * MISSED_SHARE <= results.len() && !results.is_empty();
    if failed == 0 && is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
