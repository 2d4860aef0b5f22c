//! Wrong and jumping wall clocks: every token is replaced in time, and requests stay rare.
//!
//! libfaketime changes the wall clock of the real binary but not its monotonic clocks, as setting a clock does. Each
//! trial has its own daemon and GitLab, with tokens of 60 s.
//!
//! Needs libfaketime and `RUNNER_AGENT_E2E=1`; `cargo test --test wall_clock -- NAME…` runs the trials whose names
//! start with one of the given names.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "this is a test from its first line to its last"
)]

mod sandbox;
mod trial;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use trial::{TRIALS, Trial};

/// The binary under test.
const BINARY: &str = env!("CARGO_BIN_EXE_runner-agent");

fn main() -> ExitCode {
    let library = match library() {
        Ok(library) => library,
        Err(missing) => {
            println!("wall_clock: skipped: {missing}");
            return ExitCode::SUCCESS;
        }
    };
    let wanted: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let is_wanted = |trial: &&Trial| wanted.is_empty() || wanted.iter().any(|wanted| trial.name.starts_with(wanted));
    let began = Instant::now();
    let (passed, failed): (Vec<bool>, Vec<bool>) = thread::scope(|scope| {
        let trials = TRIALS.iter().filter(is_wanted).map(|trial| scope.spawn(|| has_passed(trial, &library)));
        let trials: Vec<_> = trials.collect();
        trials.into_iter().map(|trial| trial.join().unwrap()).partition(|has_passed| *has_passed)
    });
    println!("{} passed, {} failed, {} s", passed.len(), failed.len(), began.elapsed().as_secs());
    if failed.is_empty() && !passed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn library() -> Result<PathBuf, &'static str> {
    if env::var("RUNNER_AGENT_E2E").as_deref() != Ok("1") {
        return Err("RUNNER_AGENT_E2E=1 is not set");
    }
    test_support::faketime::library().ok_or("libfaketime is not installed")
}

fn has_passed(trial: &Trial, library: &Path) -> bool {
    let result = catch_unwind(AssertUnwindSafe(|| trial.run(library)));
    match result.unwrap_or_else(|_| Err("the trial panicked".to_owned())) {
        Ok(()) => println!("{}: ok", trial.name),
        Err(wrong) => {
            println!("{}: FAILED: {wrong}", trial.name);
            return false;
        }
    }
    true
}
