//! Plays lives of an access token at random: processes of two state directories, killed and held at any point, with
//! answers that are cut or odd, replicas that are behind, full disks, people and configuration management.
//!
//! `ACCESS_SEEDS=FIRST..END` plays other seeds than the default ones.

use std::ops::Range;
use std::time::Duration;

use super::memory::{DAY, Fault, Keeper, Machine, Running, World, keeper, killed, pass};
use super::{AccessPass, AccessWish};
use crate::secret::Token;

const MINUTE: Duration = Duration::from_secs(60);

/// A generator of small numbers (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from((self.0 >> 20) % u64::from(limit)).unwrap()
    }

    fn one_in(&mut self, number: u32) -> bool {
        self.below(number) == 0
    }
}

struct Play {
    world: World,
    machines: [Machine; 2],
    /// The processes that live; a killed one starts again when it is its turn.
    keepers: [Option<Keeper>; 2],
    chance: Chance,
    is_blind: bool,
    /// Whether a token was put back after a person had made another one.
    is_disputed: bool,
    /// Contents that the file had.
    former: Vec<String>,
    /// What was done, for a seed that fails.
    told: Vec<String>,
}

/// What a seed has seen.
#[derive(Debug, Default)]
struct Seen {
    reuses: u32,
    rotations: usize,
    losses: u32,
    /// The file has no good token, although its successor could be known.
    is_broken: bool,
    is_disputed: bool,
    told: Vec<String>,
}

impl Play {
    fn new(seed: u64, is_blind: bool) -> Self {
        let world = World::new();
        let machines = [world.machine(), world.machine()];
        let chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        Self {
            world,
            machines,
            keepers: [None, None],
            chance,
            is_blind,
            is_disputed: false,
            former: Vec::new(),
            told: Vec::new(),
        }
    }

    fn keeper(&mut self, number: usize) -> Keeper {
        self.keepers[number].take().unwrap_or_else(|| {
            let keeper = keeper(&self.machines[number]);
            keeper.repeats_blindly.set(self.is_blind);
            keeper
        })
    }

    fn play(mut self) -> Seen {
        for _ in 0..40 {
            self.disturb();
            self.act();
        }
        self.settle()
    }

    fn disturb(&mut self) {
        let spans = [Duration::ZERO, MINUTE, 3 * MINUTE, 11 * MINUTE, 60 * MINUTE, DAY];
        self.world.advance(spans[self.chance.below(6) as usize]);
        let faults = [
            Fault::Unreached,
            Fault::Failed,
            Fault::Cut,
            Fault::Odd,
            Fault::Foreign,
            Fault::Declined,
            Fault::Echo,
            Fault::StateBroken,
            Fault::AllBroken,
        ];
        let fault = if self.chance.one_in(3) { faults[self.chance.below(9) as usize] } else { Fault::None };
        let lag = if self.chance.one_in(2) { MINUTE * self.chance.below(10) } else { Duration::ZERO };
        let (is_full, is_journal_broken) = (self.chance.one_in(8), self.chance.one_in(8));
        let (is_person, is_management) = (self.chance.one_in(15), self.chance.one_in(15));
        {
            let mut inner = self.world.0.borrow_mut();
            (inner.fault, inner.lag) = (fault, lag);
            (inner.is_full, inner.is_journal_broken) = (is_full, is_journal_broken);
            inner.is_state_broken = self.chance.one_in(10);
            inner.is_refusing = self.chance.one_in(12);
            inner.ahead = if self.chance.one_in(12) { DAY } else { Duration::ZERO };
            let present = inner.file.clone();
            self.former.extend(present.filter(|text| !self.former.contains(text)));
        }
        self.told.push(format!("{fault:?}, {lag:?} behind, full {is_full}, broken {is_journal_broken}, person {is_person}, management {is_management}, {}", self.world.disturbances()));
        if is_person {
            self.world.person_puts_a_new_token();
            // What configuration management knew before is of no use any more.
            self.former.clear();
        } else if is_management && !self.former.is_empty() {
            self.told.push(self.world.in_words());
            self.is_disputed |= self.world.0.borrow().lines > 1;
            let chosen = self.chance.below(u32::try_from(self.former.len()).unwrap()) as usize;
            let overwritten = self.world.file_token().filter(|token| !self.is_known(token));
            // With a broken state directory, the file had the only copy.
            self.world.0.borrow_mut().unknowable.extend(overwritten.map(|token| token.digest()));
            self.world.0.borrow_mut().file = Some(self.former[chosen].clone());
        }
    }

    /// Whether a process or a state directory has the token.
    fn is_known(&self, token: &Token) -> bool {
        let is_unsaved = |keeper: &Keeper| {
            keeper.unsaved.borrow().as_ref().is_some_and(|unsaved| unsaved.answer.token.as_ref() == Some(token))
        };
        self.machines.iter().any(|machine| machine.knows(token)) || self.keepers.iter().flatten().any(is_unsaved)
    }

    fn act(&mut self) {
        let number = self.chance.below(2) as usize;
        let wish = if self.chance.one_in(3) { AccessWish::Keep } else { AccessWish::Rotate };
        let keeper = self.keeper(number);
        let points = self.chance.below(60);
        self.world.allow(Some(points));
        let mut running = Running::start(&keeper, wish);
        let done = running.run();
        self.told.push(format!("process {number}, {wish:?}, {points} points: {:?}", done.as_ref().map(told)));
        let is_done = done.is_some();
        if !is_done && self.chance.one_in(2) {
            // It is held, and the other one goes on meanwhile.
            let other = self.keeper(1 - number);
            let done = pass(&other, AccessWish::Rotate);
            self.told.push(format!("the other one meanwhile: {:?}", told(&done)));
            self.keepers[1 - number] = Some(other);
            self.world.advance(MINUTE * self.chance.below(3));
            self.world.allow(None);
            let done = running.run().expect("nothing holds it");
            self.told.push(format!("goes on: {:?}", told(&done)));
            drop(running);
            self.keepers[number] = Some(keeper);
        } else if is_done && !self.chance.one_in(4) {
            drop(running);
            self.keepers[number] = Some(keeper);
        } else {
            drop(running);
            killed(keeper);
            self.told.push("killed".to_owned());
        }
        self.world.allow(None);
    }

    /// Everything works again; what can be known is known in an hour.
    fn settle(mut self) -> Seen {
        let mut losses = 0;
        for _ in 0..6 {
            {
                let mut inner = self.world.0.borrow_mut();
                (inner.fault, inner.lag, inner.is_full, inner.is_journal_broken) =
                    (Fault::None, Duration::ZERO, false, false);
                (inner.is_state_broken, inner.is_refusing, inner.ahead) = (false, false, Duration::ZERO);
            }
            for number in [0, 1] {
                let keeper = self.keeper(number);
                let done = pass(&keeper, AccessWish::Keep);
                self.told.push(format!("at the end, process {number}: {:?}", told(&done)));
                losses += u32::from(done.record.lost_at.is_some());
                self.keepers[number] = Some(keeper);
            }
            self.world.advance(11 * MINUTE);
        }
        self.told.push(self.world.in_words());
        self.told.extend(self.machines.iter().map(Machine::in_words));
        // Two state directories that have met different tokens of a person, with old ones put back meanwhile, may settle on
        // either. What is promised then is only that no rotation is sent twice.
        let is_disputed = self.is_disputed || self.world.is_file_abandoned();
        let is_broken = !self.world.is_file_good() && !self.world.is_head_unknowable() && !is_disputed;
        let inner = self.world.0.borrow();
        Seen { reuses: inner.reuses, rotations: inner.rotated.len(), losses, is_broken, is_disputed, told: self.told }
    }
}

/// What a pass has come to.
fn told(pass: &AccessPass) -> String {
    format!("{:?} {:?}", pass.events, pass.error.as_ref().map(ToString::to_string))
}

fn seeds() -> Range<u64> {
    let given = std::env::var("ACCESS_SEEDS").ok();
    let range = given.as_deref().and_then(|text| text.split_once(".."));
    range.map_or(0..4000, |(first, end)| first.parse().unwrap()..end.parse().unwrap())
}

#[test]
fn no_life_of_an_access_token_has_two_rotations_with_one_token_or_loses_one_that_was_read() {
    let (mut rotations, mut losses, mut disputed, mut played) = (0, 0, 0, 0);
    for seed in seeds() {
        let seen = Play::new(seed, false).play();
        let told = || seen.told.join("\n");
        assert_eq!(seen.reuses, 0, "seed {seed}: two rotations with one token\n{}", told());
        assert!(!seen.is_broken, "seed {seed}: the file has no good token, and one is known\n{}", told());
        played += 1;
        disputed += u32::from(seen.is_disputed);
        rotations += seen.rotations;
        losses += seen.losses;
    }
    assert!(disputed * 10 < played * 9, "{disputed} of {played} seeds are not judged");
    assert!(rotations > 1000 && losses > 100, "too little was played: {rotations} rotations, {losses} losses");
}

#[test]
fn lives_with_a_blind_repetition_spring_the_trap() {
    let sprung = (0..200).filter(|seed| Play::new(*seed, true).play().reuses > 0).count();
    assert!(sprung > 20, "{sprung} of 200");
}
