//! What many runners cost: the real binary with a config.toml of many entries against a GitLab on loopback.
//!
//! Prints CPU, memory, requests and writes of each piece of work, and fails if a count is above its bar or if the cost
//! per runner grows with the number of runners. Nothing here depends on how fast the machine is. Other processes on it
//! only add to the CPU time, so work whose cost seems to grow is measured again, and its least times count.
//!
//! Needs `RUNNER_AGENT_E2E=1`. `SCALE_RUNNERS` are the numbers of runners, such as `1000,4000`; `SCALE_BINARY` is another
//! binary to measure; `SCALE_LIFE` is the life of the tokens that are rotated, in seconds; `TMPDIR` is where the files are,
//! instead of in memory. `cargo test --test scale -- NAME…`
//! does the work whose name starts with one of the given names; `soak` is done only by its name, for `SCALE_SOAK` seconds.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "this is a test from its first line to its last"
)]

mod fleet;
mod usage;
mod work;

use std::env;
use std::process::ExitCode;

use work::{Figures, SOAK, WORK, Work};

/// The numbers of runners that are compared.
const RUNNERS: &str = "1000,4000";

/// How often work is measured before it counts that the CPU time of one runner grows: other processes only add to it.
const MEASUREMENTS: usize = 3;

fn main() -> ExitCode {
    if env::var("RUNNER_AGENT_E2E").as_deref() != Ok("1") {
        println!("scale: skipped: RUNNER_AGENT_E2E=1 is not set");
        return ExitCode::SUCCESS;
    }
    let sizes = env::var("SCALE_RUNNERS").unwrap_or_else(|_| RUNNERS.to_owned());
    let sizes: Vec<usize> = sizes.split(',').map(|size| size.trim().parse().unwrap()).collect();
    let wanted: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let mut failures = 0;
    for (name, work) in WORK {
        let is_named = wanted.iter().any(|wanted| name.starts_with(wanted.as_str()));
        if !is_named && (name == SOAK || !wanted.is_empty()) {
            continue;
        }
        failures += measure(name, work, &sizes);
    }
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Does a piece of work with each number of runners, and returns how many figures are wrong.
fn measure(name: &str, work: Work, sizes: &[usize]) -> usize {
    let mut least: Vec<(usize, Vec<Figures>)> = Vec::new();
    for number in 1..=MEASUREMENTS {
        let measured: Vec<_> = sizes.iter().map(|&count| (count, print(name, count, work(count)))).collect();
        let wrong = faults(&measured, Figures::faults);
        if !wrong.is_empty() {
            return fail(name, &wrong);
        }
        if least.is_empty() {
            least = measured;
        } else {
            for ((_, rows), (_, others)) in least.iter_mut().zip(measured) {
                rows.iter_mut().zip(others).for_each(|(row, other)| row.take_least_cpu(&other));
            }
        }
        let grown = faults(&least, Figures::growth);
        if grown.is_empty() {
            break;
        }
        if number == MEASUREMENTS {
            return fail(name, &grown);
        }
        grown.iter().for_each(|(count, grown)| println!("{name} {count}: measured again: {grown}"));
    }
    0
}

fn print(name: &str, count: usize, figures: Vec<Figures>) -> Vec<Figures> {
    figures.iter().for_each(|line| println!("{name} {count}: {line}"));
    figures
}

fn fail(name: &str, wrong: &[(usize, String)]) -> usize {
    wrong.iter().for_each(|(count, wrong)| println!("{name} {count}: FAILED: {wrong}"));
    wrong.len()
}

/// What is wrong with the figures of each number of runners, beside those of the number before.
fn faults<F: IntoIterator<Item = String>>(
    measured: &[(usize, Vec<Figures>)],
    find: impl Fn(&Figures, usize, Option<(usize, &Figures)>) -> F,
) -> Vec<(usize, String)> {
    let mut faults = Vec::new();
    for (position, (count, rows)) in measured.iter().enumerate() {
        let before = position.checked_sub(1).and_then(|before| measured.get(before));
        for (row, figures) in rows.iter().enumerate() {
            let former = before.and_then(|(size, rows)| Some((*size, rows.get(row)?)));
            faults.extend(find(figures, *count, former).into_iter().map(|fault| (*count, fault)));
        }
    }
    faults
}
