//! The heartbeat: a stamp that the supervisor's loop sets with every turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The maximum time between two beats: short enough for a watchdog of a minute, long enough to cost nothing.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

/// How long a loop may be silent before it counts as hung: three beats, for a busy machine.
pub const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(15);

/// The time of the loop's last turn. Clones share one stamp.
///
/// Time base: monotonic; suspending the machine does not age it.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    interval: Duration,
    born: Instant,
    beat_at_millis: Arc<AtomicU64>,
}

impl Heartbeat {
    /// A heartbeat that has just beaten, and beats every [`HEARTBEAT_INTERVAL`].
    #[must_use]
    pub fn new() -> Self {
        Self::every(HEARTBEAT_INTERVAL)
    }

    /// A heartbeat with another interval: tests live through days.
    #[must_use]
    pub(crate) fn every(interval: Duration) -> Self {
        Self { interval, born: Instant::now(), beat_at_millis: Arc::default() }
    }

    /// The longest time between two beats.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Beats: the loop has turned.
    pub fn beat(&self) {
        self.beat_at_millis.store(self.millis(), Ordering::Relaxed);
    }

    /// The time since the last beat.
    #[must_use]
    pub fn age(&self) -> Duration {
        let beat_at = self.beat_at_millis.load(Ordering::Relaxed);
        Duration::from_millis(self.millis().saturating_sub(beat_at))
    }

    /// Whether the loop has turned within [`HEARTBEAT_TIMEOUT`].
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.age() <= HEARTBEAT_TIMEOUT
    }

    /// Beats for as long as it is polled; never ends.
    pub async fn keep_beating(&self) {
        loop {
            self.beat();
            sleep(self.interval).await;
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn heartbeat_ages_until_the_next_beat() {
        let heartbeat = Heartbeat::new();
        let reader = heartbeat.clone();
        sleep(Duration::from_secs(60)).await;
        assert_eq!((reader.age(), reader.is_alive()), (Duration::from_secs(60), false));
        heartbeat.beat();
        assert_eq!((reader.age(), reader.is_alive()), (Duration::ZERO, true));
    }
}
