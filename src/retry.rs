//! Delays between the tries of a one-shot command that was told to wait.
//!
//! The daemon does not retry here: `lifecycle` plans its tries. `backoff` is used here and nowhere else,
//! as an iterator of delays only: its own clock, elapsed limit and retry loop stay unused.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

/// The first delay, before its jitter.
pub const FIRST_DELAY: Duration = Duration::from_secs(1);

/// The longest delay, before its jitter.
pub const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// How far the jitter goes in either direction, as a share of the delay.
const JITTER: f64 = 0.25;

/// Delays that double from [`FIRST_DELAY`] to [`LONGEST_DELAY`], each a quarter longer or shorter by
/// chance, until their sum would exceed what was granted. The last one is cut short, so that the last
/// try comes at the very end.
#[derive(Debug)]
pub struct Delays {
    backoff: ExponentialBackoff,
    left: Duration,
}

impl Delays {
    /// Delays that take no longer than `wait` together.
    #[must_use]
    pub fn within(wait: Duration) -> Self {
        let backoff = ExponentialBackoff {
            current_interval: FIRST_DELAY,
            initial_interval: FIRST_DELAY,
            multiplier: 2.0,
            randomization_factor: JITTER,
            max_interval: LONGEST_DELAY,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        Self { backoff, left: wait }
    }

    /// Takes time off that was spent otherwise, as on the tries themselves.
    pub fn spent(&mut self, time: Duration) {
        self.left = self.left.saturating_sub(time);
    }
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if self.left.is_zero() {
            return None;
        }
        let delay = self.backoff.next_backoff()?.min(self.left);
        self.left -= delay;
        Some(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_within_their_jitter() {
        let delays: Vec<_> = Delays::within(Duration::from_secs(3600)).take(8).collect();
        for (delay, secs) in delays.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]) {
            let range = secs * (1.0 - JITTER)..=secs * (1.0 + JITTER);
            assert!(range.contains(&delay.as_secs_f64()), "{delay:?} is not about {secs} s");
        }
    }

    #[test]
    fn delays_take_exactly_the_time_that_was_granted() {
        let wait = Duration::from_secs(300);
        assert_eq!(Delays::within(wait).sum::<Duration>(), wait);
        assert_eq!(Delays::within(Duration::ZERO).next(), None);
    }

    #[test]
    fn time_spent_on_the_tries_counts() {
        let mut delays = Delays::within(Duration::from_secs(10));
        assert!(delays.next().is_some());
        delays.spent(Duration::from_secs(60));
        assert_eq!(delays.next(), None);
    }
}
