//! The one place where clocks are read.
//!
//! Expiry is the server's wall time, so that is what everything is planned in. [`ServerTime`] keeps an
//! estimate of it that no step of the local wall clock can move: the server's `Date` at one moment, plus
//! what the boot clock (which counts suspend) has advanced since.

use std::time::{Duration, SystemTime};

use crate::model::Timestamp;

/// What a clock says at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// This machine's wall clock; may be wrong, may step.
    pub wall: Timestamp,
    /// Time since boot including suspend; never steps.
    pub since_boot: Duration,
}

/// Something that can be asked for the time; tests bring their own.
pub trait Clock: 'static {
    /// Both clocks at one moment.
    fn read(&self) -> Reading;
}

/// The clocks of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
    fn read(&self) -> Reading {
        let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Reading { wall: SystemTime::now().into(), since_boot: Duration::try_from(since_boot).unwrap_or_default() }
    }
}

/// An estimate of one server's wall time.
#[derive(Clone, Copy, Debug)]
pub struct ServerTime {
    anchor: Reading,
    server_at_anchor: Timestamp,
}

/// How far wall and boot clock may drift apart between two looks before it counts as a jump: more than
/// an NTP slew of ten minutes makes, less than any step worth noticing.
const JUMP_TOLERANCE: Duration = Duration::from_secs(5);

impl ServerTime {
    /// Takes this machine's wall clock for the server's until the server says otherwise.
    #[must_use]
    pub fn assumed(reading: Reading) -> Self {
        Self { anchor: reading, server_at_anchor: reading.wall }
    }

    /// Takes the `Date` of a genuine answer that arrived at `reading`.
    ///
    /// The header has whole seconds; an estimate that already agrees with it to the second is kept, so
    /// that planned times do not flicker.
    #[must_use]
    pub fn told(self, date: Timestamp, reading: Reading) -> Self {
        let estimate = self.now(reading);
        if estimate.since(date) < Duration::from_secs(1) && date.since(estimate) < Duration::from_secs(1) {
            return Self { anchor: reading, server_at_anchor: estimate };
        }
        Self { anchor: reading, server_at_anchor: date }
    }

    /// The server's wall time at `reading`.
    #[must_use]
    pub fn now(self, reading: Reading) -> Timestamp {
        self.server_at_anchor.plus(reading.since_boot.saturating_sub(self.anchor.since_boot))
    }

    /// Whether the wall clock has moved against the boot clock since the anchor: an NTP step, or a
    /// virtual machine that was paused. Then only the server knows the time, and should be asked.
    #[must_use]
    pub fn is_doubtful(self, reading: Reading) -> bool {
        let expected_wall = self.anchor.wall.plus(reading.since_boot.saturating_sub(self.anchor.since_boot));
        reading.wall.since(expected_wall) > JUMP_TOLERANCE || expected_wall.since(reading.wall) > JUMP_TOLERANCE
    }

    /// The same estimate, with this reading's wall clock accepted as undoubtful: asked and not answered.
    #[must_use]
    pub fn accepted(self, reading: Reading) -> Self {
        Self { server_at_anchor: self.now(reading), anchor: reading }
    }

    /// Server time minus local wall time, in milliseconds.
    #[must_use]
    pub fn skew_millis(self, reading: Reading) -> i64 {
        self.now(reading).as_millis() - reading.wall.as_millis()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(wall_secs: i64, since_boot_secs: u64) -> Reading {
        Reading { wall: Timestamp::from_millis(wall_secs * 1000), since_boot: Duration::from_secs(since_boot_secs) }
    }

    #[test]
    fn the_servers_date_outweighs_the_local_clock() {
        let time = ServerTime::assumed(reading(10_000, 5)).told(Timestamp::from_millis(6_400_000), reading(10_000, 5));
        assert_eq!(time.now(reading(10_060, 65)), Timestamp::from_millis(6_460_000));
        assert_eq!(time.skew_millis(reading(10_060, 65)), -3_600_000);
    }

    #[test]
    fn a_step_of_the_wall_clock_moves_nothing_but_is_noticed() {
        let time = ServerTime::assumed(reading(10_000, 5));
        let stepped = reading(10_000 + 3600, 5);
        assert_eq!(time.now(stepped), Timestamp::from_millis(10_000_000));
        assert!(time.is_doubtful(stepped));
        assert!(!time.accepted(stepped).is_doubtful(stepped));
        assert!(!time.is_doubtful(reading(10_600, 605)));
    }

    #[test]
    fn a_date_within_the_second_does_not_move_the_estimate() {
        let time = ServerTime::assumed(Reading { wall: Timestamp::from_millis(10_700), since_boot: Duration::ZERO });
        let told = time.told(
            Timestamp::from_millis(10_000),
            Reading { wall: Timestamp::from_millis(10_700), since_boot: Duration::ZERO },
        );
        assert_eq!(
            told.now(Reading { wall: Timestamp::from_millis(10_700), since_boot: Duration::ZERO }),
            Timestamp::from_millis(10_700)
        );
    }
}
