//! Chance from a seed.

use std::cell::Cell;

use crate::lifecycle::Fraction;

/// A small generator of random numbers (SplitMix64), the same on every machine.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `limit`.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub(super) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(super) fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        let index = self.below(choices.len() as u64) as usize;
        choices[index].clone()
    }
}

thread_local! {
    static JITTER: Cell<u64> = const { Cell::new(0) };
}

/// Begins the jitter of a run anew.
pub(super) fn seed_jitter(seed: u64) {
    JITTER.set(seed);
}

/// A fresh draw for delays.
pub(super) fn jitter() -> Fraction {
    let mut chance = Chance::new(JITTER.get());
    let bits = chance.next();
    JITTER.set(bits);
    Fraction::from_bits((bits >> 32) as u32)
}
