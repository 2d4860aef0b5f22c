//! What many runners cost: the real binary with a config.toml of many entries against a GitLab on loopback.
//!
//! Prints CPU, memory, requests and writes of each piece of work, and fails if a count is above its bar or if the cost
//! per runner grows with the number of runners. Nothing here depends on how fast the machine is.
//!
//! Needs `RUNNER_AGENT_E2E=1`. `SCALE_RUNNERS` are the numbers of runners, such as `1000,4000`; `SCALE_BINARY` is another
//! binary to measure; `SCALE_LIFE` is the life of the tokens that are rotated, in seconds. `cargo test --test scale -- NAME…`
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

use work::{Figures, SOAK, WORK};

/// The numbers of runners that are compared.
const RUNNERS: &str = "1000,4000";

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
        let mut before: Option<(usize, Vec<Figures>)> = None;
        for &count in &sizes {
            let figures = work(count);
            for (row, line) in figures.iter().enumerate() {
                println!("{name} {count}: {line}");
                let former = before.as_ref().and_then(|(size, rows)| Some((*size, rows.get(row)?)));
                for wrong in line.faults(count, former) {
                    println!("{name} {count}: FAILED: {wrong}");
                    failures += 1;
                }
            }
            before = Some((count, figures));
        }
    }
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
