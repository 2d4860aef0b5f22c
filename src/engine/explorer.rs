//! An explorer: random acts of GitLab, of people and of the machine against the daemon and the commands, from a seed.
//!
//! After every change it checks what is promised: no token is lost, nothing is deleted without an intent in force, no
//! enrollment gets a second runner, requests stay bounded, and what can be served is served again.
//!
//! `EXPLORER_STEPS` says how many acts and requests to try, `EXPLORER_SEED` where to begin (a number, or `fresh`), and
//! `EXPLORER_THREADS` by how many threads. A failure prints its seed and the list of acts after everything needless was
//! taken out of it, with a trace; `EXPLORER_TRACE` is the number of its lines, and `EXPLORER_LOG=1` adds the agent's log.
//! With `EXPLORER_FINDINGS` above one it goes on and collects that many different findings, for `EXPLORER_SECONDS`;
//! `EXPLORER_SKIP` leaves acts out by the beginning of their names. `EXPLORER_MISTAKES=together` lets people make several
//! mistakes at once: see `people.rs`.
//!
//! What it has found is kept in `cases/`; `matrix.rs` has every wrong answer of a gateway.

mod act;
mod agent_log;
mod cases;
mod chance;
mod command;
mod disk;
mod gitlab;
mod matrix;
mod people;
mod play;
mod server;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::secret::random_bits;
use act::{Move, draw};
use chance::Chance;
use people::Mistakes;
use play::{Played, Setup, play};
use world::Kind;

/// Lines of a trace that are shown, from its end.
const TRACE_LINES: usize = 80;

/// Acts of one run.
const RUN_LENGTH: u64 = 60;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// The run of a seed.
fn run_of(seed: u64) -> (Setup, Vec<Move>) {
    let mut chance = Chance::new(seed);
    let life = chance.of(&[7200, 86_400, 86_400, 86_400, 0]);
    let age = if life > 0 { chance.of(&[0, 0, life / 2, life * 3 / 5, life * 9 / 10]) } else { 0 };
    let is_stateless = chance.one_in(16);
    let mistakes = match std::env::var("EXPLORER_MISTAKES").as_deref() {
        Ok("together") => Mistakes::Together,
        _ => Mistakes::OneByOne,
    };
    let setup = Setup { life, age, jitter: seed, is_stateless, mistakes };
    let mut moves = vec![Move(act::When::After(0), act::Act::StartDaemon)];
    let length = 4 + chance.below(RUN_LENGTH);
    // Acts to leave out, by the beginning of their names.
    let skipped = std::env::var("EXPLORER_SKIP").unwrap_or_default();
    let is_skipped = |Move(_, act): &Move| {
        let text = format!("{act:?}");
        skipped.split(',').any(|name| !name.is_empty() && text.starts_with(name))
    };
    moves.extend((0..length).map(|_| draw(&mut chance)).filter(|next| !is_skipped(next)));
    (setup, moves)
}

fn kind_of(played: &Played) -> Option<(Kind, String)> {
    let first = played.violations.first()?;
    // Without the numbers of runners.
    let text = first.text.chars().filter(|character| !character.is_ascii_digit()).collect();
    Some((first.kind, text))
}

/// Takes acts out for as long as the same promise is broken, beginning with the mistakes that people did not make: the list
/// shows the same with and without the restriction on them.
fn shrunk(setup: Setup, mut moves: Vec<Move>, kind: &(Kind, String)) -> Vec<Move> {
    for position in play(setup, &moves, false).omitted {
        moves[position].1 = act::Act::Wait;
    }
    let still_fails = |moves: &[Move]| {
        let played = play(setup, moves, false);
        played.omitted.is_empty() && kind_of(&played).as_ref() == Some(kind)
    };
    let mut width = moves.len() / 2;
    while width > 0 {
        let mut at = 0;
        while at < moves.len() {
            let mut fewer = moves.clone();
            fewer.drain(at..(at + width).min(moves.len()));
            if still_fails(&fewer) {
                moves = fewer;
            } else {
                at += width;
            }
        }
        width /= 2;
    }
    for at in 0..moves.len() {
        for when in [act::When::After(0), act::When::After(1), act::When::After(60), act::When::After(600)] {
            let mut simpler = moves.clone();
            if simpler[at].0 == when {
                break;
            }
            simpler[at].0 = when;
            if still_fails(&simpler) {
                moves = simpler;
                break;
            }
        }
    }
    moves
}

fn shown(setup: Setup, moves: &[Move]) -> String {
    let lines: Vec<_> = moves.iter().map(|Move(when, act)| format!("    Move({when:?}, {act:?}),\n")).collect();
    format!("{setup:?}\n{}", lines.concat())
}

/// The acts of a shrunk list, by their names, as a mark of what it shows.
fn mark(kind: &(Kind, String), moves: &[Move]) -> String {
    let names: BTreeSet<String> = moves
        .iter()
        .map(|Move(_, act)| format!("{act:?}"))
        .map(|text| match text.strip_prefix("Fault(") {
            Some(fault) => fault.split(['(', ')']).next().unwrap_or_default().to_owned(),
            None => text.split('(').next().unwrap_or_default().to_owned(),
        })
        .collect();
    format!("{:?} {} {}", kind.0, kind.1, names.into_iter().collect::<Vec<_>>().join("+"))
}

/// What some runs came to.
#[derive(Default)]
struct Explored {
    steps: u64,
    runs: u64,
    /// How often each kind of finding came.
    found: BTreeMap<String, u64>,
    report: String,
}

/// Explores every so-manieth seed from this one on.
fn explore(first: u64, stride: u64, steps: u64) -> Explored {
    // Above one it surveys: it goes on after a finding, and shows so many different ones.
    let most = number("EXPLORER_FINDINGS", 1) as usize;
    // Seconds after which it ends, however many steps are left; zero for never.
    let limit = number("EXPLORER_SECONDS", 0);
    let (began, mut seed, mut explored) = (Instant::now(), first, Explored::default());
    while explored.steps < steps && (limit == 0 || began.elapsed().as_secs() < limit) {
        let (setup, moves) = run_of(seed);
        let played = play(setup, &moves, false);
        explored.steps += played.steps;
        explored.runs += 1;
        if let Some(kind) = kind_of(&played) {
            let moves = shrunk(setup, moves, &kind);
            let count = explored.found.entry(mark(&kind, &moves)).or_default();
            *count += 1;
            if *count == 1 && explored.found.len() <= most {
                let trace = play(setup, &moves, true).trace;
                let lines = number("EXPLORER_TRACE", TRACE_LINES as u64) as usize;
                let trace = trace[trace.len().saturating_sub(lines)..].join("\n");
                explored.report += &format!("seed {seed}: {kind:?}\n{}{trace}\n\n", shown(setup, &moves));
            }
            if most == 1 {
                break;
            }
        }
        seed += stride;
    }
    explored
}

/// The first seed: a number, or `fresh` for another one at each run.
fn first_seed() -> u64 {
    match std::env::var("EXPLORER_SEED") {
        Ok(text) if text == "fresh" => 1_000_000 + u64::from(random_bits()),
        _ => number("EXPLORER_SEED", 1),
    }
}

#[test]
fn random_acts_break_no_promise() {
    // The unit tests take a few; `.ci/run explorer` takes a million.
    let (steps, seed) = (number("EXPLORER_STEPS", 4000), first_seed());
    let threads = number("EXPLORER_THREADS", 1).max(1);
    let began = Instant::now();
    let explorers: Vec<_> = (0..threads)
        .map(|number| std::thread::spawn(move || explore(seed + number, threads, steps / threads)))
        .collect();
    let mut all = Explored::default();
    for explorer in explorers {
        let explored = explorer.join().unwrap();
        all.steps += explored.steps;
        all.runs += explored.runs;
        all.report += &explored.report;
        for (mark, count) in explored.found {
            *all.found.entry(mark).or_default() += count;
        }
    }
    let counts: Vec<_> = all.found.iter().map(|(mark, count)| format!("{count:>6} {mark}\n")).collect();
    let seconds = began.elapsed().as_secs();
    let summary = format!("{} steps in {} runs from seed {seed} on, {seconds} s", all.steps, all.runs);
    assert!(all.found.is_empty(), "{summary}\n{}\n{}", counts.concat(), all.report);
    #[expect(clippy::print_stdout, reason = "the stage of .ci/run shows it")]
    {
        println!("{summary}");
    }
}
