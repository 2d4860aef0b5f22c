//! Chance from a seed.

use std::cell::Cell;

pub(super) use test_support::Chance;

use crate::lifecycle::Fraction;

thread_local! {
    static JITTER: Cell<u64> = const { Cell::new(0) };
}

/// Begins the jitter of a run anew.
pub(super) fn seed_jitter(seed: u64) {
    JITTER.set(seed);
}

/// A fresh draw for delays.
pub(super) fn jitter() -> Fraction {
    let chance = Chance::new(JITTER.get());
    let bits = chance.next();
    JITTER.set(bits);
    Fraction::from_bits((bits >> 32) as u32)
}
