//! The fault matrix: each step on the disk fails once, or is the last thing that happens, and nothing is lost.
//!
//! For each piece of work (`register`, `enroll`, `rotate`, …) strace first records which calls touch the
//! directories of config.toml and of the state. Then each call fails once, and the process is killed at
//! each; disks are full, connections cut, and both at a time. After each case the daemon is started again
//! without the fault, and server and disk are compared.
//!
//! Runs as root, with strace and `RUNNER_AGENT_E2E=1`; `cargo test --test fault_matrix -- NAME…` runs the cases
//! whose names begin with one of these.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "this is a test from its first line to its last"
)]

mod case;
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
const WORKERS: usize = 4;

/// Set for the copy of this program that has mounts of its own.
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
    let results = run_all(cases);
    tell(&results, began)
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

/// Runs this program again where its mounts end with it.
fn in_own_mounts() -> ExitCode {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--"]).arg(env::current_exe().unwrap());
    let status = command.args(env::args_os().skip(1)).env(INSIDE, "1").status().unwrap();
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn is_wanted(name: &str, wanted: &[String]) -> bool {
    wanted.is_empty() || wanted.iter().any(|wanted| name.starts_with(wanted.as_str()))
}

/// What became of one case: its kind, its name, and what was lost.
struct Outcome {
    kind: &'static str,
    name: String,
    lost: Option<String>,
    /// Whether the fault was there at all; a daemon does not make every call in every run.
    has_come: bool,
}

/// One in so many faults may not come.
const MAY_STAY_AWAY: usize = 100;

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
    let result = result.unwrap_or_else(|_| Err("the case itself broke".to_owned()));
    let has_come = !result.as_ref().is_err_and(|lost| lost.starts_with(case::NOT_STRUCK));
    Outcome { kind: case.kind(), name: case.name(), lost: result.err().filter(|_| has_come), has_come }
}

fn tell(results: &[Outcome], began: Instant) -> ExitCode {
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
    let away: Vec<&Outcome> = results.iter().filter(|outcome| !outcome.has_come).collect();
    for outcome in &away {
        println!("the fault did not come: {}", outcome.name);
    }
    let are_enough = away.len() * MAY_STAY_AWAY <= results.len();
    println!("{} passed, {failed} failed", results.len() - failed - away.len());
    if failed == 0 && are_enough && !results.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
