//! Another user owns the directory of config.toml and attacks a process of root: every attack loses.
//!
//! The attacker is user 1500. Where an attack is a race, this program plays it as that user in a loop, while root runs
//! commands: `ADVERSARIAL_ROUNDS` says how many (default 200). If it is set, all files are in memory: on a disk, most of a
//! round is syncs. `ADVERSARIAL_BINARY` names another binary of the agent.
//!
//! Needs root and `RUNNER_AGENT_E2E=1`; `cargo test --test adversarial -- NAME…` plays the attacks whose names start with
//! one of the given names.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "this is a test from its first line to its last"
)]

mod attacker;
mod attacks;
mod hang;
mod locks;
mod network;
mod promises;
mod scene;
mod terminal;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};
use std::time::Instant;

use attacks::ATTACKS;

/// Set in the mount namespace of the attacks.
const INSIDE: &str = "ADVERSARIAL_INSIDE";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    if let [first, rest @ ..] = &words[..]
        && first == attacker::PLAY
    {
        attacker::play(rest);
        return ExitCode::SUCCESS;
    }
    if env::var("RUNNER_AGENT_E2E").as_deref() != Ok("1") || !rustix::process::geteuid().is_root() {
        println!("adversarial: skipped: RUNNER_AGENT_E2E=1 is not set, or this is not root");
        return ExitCode::SUCCESS;
    }
    if env::var_os(INSIDE).is_none() {
        return in_own_mounts();
    }
    let wanted: Vec<String> = words.into_iter().filter(|word| !word.starts_with('-')).collect();
    let began = Instant::now();
    let (mut lost, mut won) = (0, 0);
    for (name, attack) in ATTACKS {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| name.starts_with(wanted.as_str())) {
            continue;
        }
        let started = Instant::now();
        let played = catch_unwind(AssertUnwindSafe(attack));
        match played.unwrap_or_else(|_| Err("the test panicked".to_owned())) {
            Ok(()) => {
                lost += 1;
                println!("{name}: ok, {} s", started.elapsed().as_secs());
            }
            Err(how) => {
                won += 1;
                println!("{name}: FAILED: {how}");
            }
        }
    }
    println!("{lost} attacks lost, {won} won, {} s", began.elapsed().as_secs());
    if won == 0 && lost > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Where files are in memory, in the mount namespace of the attacks.
const IN_MEMORY: &str = "/run/tmp";

/// Runs this program again with a `/run` of its own, so that no lock of root's is left on the machine.
fn in_own_mounts() -> ExitCode {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--", "sh", "-c"]);
    let script = format!("mount -t tmpfs tmpfs /run && mkdir -m 1777 {IN_MEMORY} && exec \"$0\" \"$@\"");
    command.arg(script).arg(env::current_exe().unwrap());
    if env::var_os(scene::ROUNDS).is_some() {
        command.env("TMPDIR", IN_MEMORY);
    }
    let status = command.args(env::args_os().skip(1)).env(INSIDE, "1").status().unwrap();
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
