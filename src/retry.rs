//! Retry delays of a one-shot command with `--wait`.
//!
//! The daemon does not use this: `lifecycle` plans its attempts. `backoff` is used only here, and only to compute
//! delays: its clock, elapsed limit and retry loop stay unused.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

/// First delay, before jitter.
pub const FIRST_DELAY: Duration = Duration::from_secs(1);

/// Longest delay, before jitter.
pub const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// Maximum jitter in either direction, as a fraction of the delay.
const JITTER: f64 = 0.25;

/// Delays that double from [`FIRST_DELAY`] to [`LONGEST_DELAY`] with jitter. The last one is cut short, so the
/// last attempt starts when the allowed time ends.
#[derive(Debug)]
pub struct Delays {
    backoff: ExponentialBackoff,
    left: Duration,
}

impl Delays {
    /// Delays whose sum is `wait`.
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

    /// Subtracts time spent on the attempts themselves.
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
    fn delays_double_up_to_the_longest_with_jitter() {
        let delays: Vec<_> = Delays::within(Duration::from_secs(3600)).take(8).collect();
        for (delay, secs) in delays.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]) {
            let range = secs * (1.0 - JITTER)..=secs * (1.0 + JITTER);
            assert!(range.contains(&delay.as_secs_f64()), "{delay:?} is not about {secs} s");
        }
    }

    #[test]
    fn the_sum_of_delays_is_the_allowed_time() {
        let wait = Duration::from_secs(300);
        assert_eq!(Delays::within(wait).sum::<Duration>(), wait);
        assert_eq!(Delays::within(Duration::ZERO).next(), None);
    }

    #[test]
    fn time_spent_on_attempts_is_subtracted() {
        let mut delays = Delays::within(Duration::from_secs(10));
        assert!(delays.next().is_some());
        delays.spent(Duration::from_secs(60));
        assert_eq!(delays.next(), None);
    }
}
