//! What the explorer has found, shrunk and kept, by what it is about.

mod clocks;
mod enrollments;
mod entries;
mod lost_registrations;
mod records;
mod stateless;
mod tokens;
mod unregistrations;

use super::act::Act::*;
use super::act::When::{After, Await};
use super::act::{Act, Move, When};
use super::gitlab::Call::{
    Any, DeleteManager, DeleteRunner, Probe, Register as Registration, Reset, ResetById, Verify as Verification,
};
use super::gitlab::{Body, Fault as Trouble, Oddity};
use super::people::Mistakes;
use super::play::{Played, Setup, play};

const DAY: Setup = Setup { life: 86_400, age: 0, jitter: 7, is_stateless: false, mistakes: Mistakes::Together };
const TWO_HOURS: Setup = Setup { life: 7200, ..DAY };
const FOR_EVER: Setup = Setup { life: 0, ..DAY };
/// A rotation is due at once.
const DUE: Setup = Setup { age: 77_760, ..DAY };
const HALF: Setup = Setup { age: 43_200, ..DAY };

const NOW: When = After(0);

fn keeps_every_promise(setup: Setup, acts: &[(When, Act)]) -> Played {
    let moves: Vec<_> = acts.iter().cloned().map(|(when, act)| Move(when, act)).collect();
    let played = play(setup, &moves, true);
    assert!(played.violations.is_empty(), "{:?}\n{}", played.violations, played.trace.join("\n"));
    played
}
