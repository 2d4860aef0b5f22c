//! The only reader of the system clocks.
//!
//! Expiry is in the server's wall time, so all plans use it. [`ServerTime`] estimates it independently of steps of
//! the local wall clock: the server's `Date` at one moment, plus the time since then on the boot clock, which counts
//! suspend.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use crate::model::{Boot, Timestamp, format_span};

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The local wall clock; can be wrong and can step.
    pub wall: Timestamp,
    /// Time since boot, including suspend; never steps.
    pub since_boot: Duration,
}

/// A source of time; tests implement their own.
pub trait Clock: 'static {
    /// Reads both clocks.
    fn read(&self) -> Reading;

    /// The boot that [`Reading::since_boot`] counts from.
    fn boot(&self) -> Boot;
}

/// The clocks of the system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
    fn read(&self) -> Reading {
        let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Reading { wall: SystemTime::now().into(), since_boot: Duration::try_from(since_boot).unwrap_or_default() }
    }

    fn boot(&self) -> Boot {
        static BOOT: OnceLock<Boot> = OnceLock::new();
        *BOOT.get_or_init(|| Boot(boot_id().unwrap_or_default()))
    }
}

/// The first 64 bits of the kernel's random boot id; `None` if it cannot be read.
fn boot_id() -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "a file of the kernel")]
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).ok()
}

/// Estimate of one server's wall time.
#[derive(Clone, Copy, Debug)]
pub struct ServerTime {
    anchor: Reading,
    server_at_anchor: Timestamp,
}

/// Maximum drift between wall and boot clock between two readings; more is a jump. Above an NTP slew of ten minutes,
/// below any relevant step.
const JUMP_TOLERANCE: Duration = Duration::from_secs(5);

impl ServerTime {
    /// Uses the local wall clock until the server sends a `Date`.
    #[must_use]
    pub fn from_local(reading: Reading) -> Self {
        Self { anchor: reading, server_at_anchor: reading.wall }
    }

    /// Applies the `Date` of a genuine answer that arrived at `reading`.
    ///
    /// The header has whole seconds. An estimate within a second of it is kept, so planned times do not flicker.
    #[must_use]
    pub fn with_date(self, date: Timestamp, reading: Reading) -> Self {
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

    /// Whether the wall clock has jumped against the boot clock since the anchor, through an NTP step or a paused
    /// virtual machine. Only an answer of the server can then correct the estimate.
    #[must_use]
    pub fn is_doubtful(self, reading: Reading) -> bool {
        let expected_wall = self.anchor.wall.plus(reading.since_boot.saturating_sub(self.anchor.since_boot));
        reading.wall.since(expected_wall) > JUMP_TOLERANCE || expected_wall.since(reading.wall) > JUMP_TOLERANCE
    }

    /// Keeps the estimate and accepts the jump of the wall clock, for a server that did not answer.
    #[must_use]
    pub fn accept_jump(self, reading: Reading) -> Self {
        Self { server_at_anchor: self.now(reading), anchor: reading }
    }

    /// Server time minus local wall time, in milliseconds.
    #[must_use]
    pub fn skew_millis(self, reading: Reading) -> i64 {
        self.now(reading).as_millis() - reading.wall.as_millis()
    }
}

/// Clocks that differ by less agree: a `Date` has whole seconds, and machines without NTP drift by seconds a day.
const SKEW_TOLERANCE: Duration = Duration::from_secs(60);

/// What there is to say of a server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkewNews {
    /// It differs from this machine's clock by this time, or by another one than was said.
    Differs(Skew),
    /// It agrees again.
    Agrees,
}

/// How far this machine's clock is from a server's, by more than is tolerated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skew {
    /// This machine's clock is ahead.
    Ahead(Duration),
    /// This machine's clock is behind.
    Behind(Duration),
}

impl Skew {
    /// Judges server time minus local time, in milliseconds; `None` if the clocks agree.
    #[must_use]
    pub fn of_millis(millis: i64) -> Option<Self> {
        let size = Duration::from_millis(millis.unsigned_abs());
        (size > SKEW_TOLERANCE).then_some(if millis < 0 { Self::Ahead(size) } else { Self::Behind(size) })
    }
}

impl fmt::Display for Skew {
    /// `this machine's clock is 730d ahead of the server's`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (size, side) = match self {
            Self::Ahead(size) => (size, "ahead of"),
            Self::Behind(size) => (size, "behind"),
        };
        // A `Date` has no fractions of a second, which would make a day 23 hours.
        let minutes = Duration::from_secs((size.as_secs() + 30) / 60 * 60);
        write!(formatter, "this machine's clock is {} {side} the server's", format_span(minutes))
    }
}

/// Says once per server that its clock differs, and again once the difference has changed.
#[derive(Debug, Default)]
pub struct SkewWatch {
    /// What was said, in milliseconds, by host.
    said: BTreeMap<String, i64>,
}

impl SkewWatch {
    /// Takes server time minus local time in milliseconds, and returns what is new.
    pub fn notice(&mut self, host: &str, millis: i64) -> Option<SkewNews> {
        let said = self.said.get(host).copied();
        match (said, Skew::of_millis(millis)) {
            (None, None) => None,
            (Some(_), None) => {
                self.said.remove(host);
                Some(SkewNews::Agrees)
            }
            (Some(said), Some(_)) if Skew::of_millis(millis.saturating_sub(said)).is_none() => None,
            (_, Some(skew)) => {
                self.said.insert(host.to_owned(), millis);
                Some(SkewNews::Differs(skew))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skew_is_said_once_and_again_when_it_changes() {
        let mut watch = SkewWatch::default();
        let (day, second) = (86_400_000, 1000);
        let behind = |millis: i64| Some(SkewNews::Differs(Skew::Behind(Duration::from_millis(millis.unsigned_abs()))));
        for (host, millis, expected) in [
            ("a", 59 * second, None),
            ("a", 730 * day, behind(730 * day)),
            ("a", 730 * day - 30 * second, None),
            ("b", 730 * day, behind(730 * day)),
            ("a", day, behind(day)),
            ("a", -day, Some(SkewNews::Differs(Skew::Ahead(Duration::from_secs(86_400))))),
            ("a", 0, Some(SkewNews::Agrees)),
            ("a", 0, None),
        ] {
            assert_eq!(watch.notice(host, millis), expected, "{host} {millis}");
        }
        let text = Skew::of_millis(-730 * day).map(|skew| skew.to_string());
        assert_eq!(text.as_deref(), Some("this machine's clock is 730d ahead of the server's"));
    }

    fn reading(wall_secs: i64, since_boot_secs: u64) -> Reading {
        Reading { wall: Timestamp::from_millis(wall_secs * 1000), since_boot: Duration::from_secs(since_boot_secs) }
    }

    #[test]
    fn the_servers_date_replaces_the_local_clock() {
        let time =
            ServerTime::from_local(reading(10_000, 5)).with_date(Timestamp::from_millis(6_400_000), reading(10_000, 5));
        assert_eq!(time.now(reading(10_060, 65)), Timestamp::from_millis(6_460_000));
        assert_eq!(time.skew_millis(reading(10_060, 65)), -3_600_000);
    }

    #[test]
    fn a_step_of_the_wall_clock_is_detected_but_ignored() {
        let time = ServerTime::from_local(reading(10_000, 5));
        let stepped = reading(10_000 + 3600, 5);
        assert_eq!(time.now(stepped), Timestamp::from_millis(10_000_000));
        assert!(time.is_doubtful(stepped));
        assert!(!time.accept_jump(stepped).is_doubtful(stepped));
        assert!(!time.is_doubtful(reading(10_600, 605)));
    }

    #[test]
    fn a_date_within_the_second_does_not_move_the_estimate() {
        let time = ServerTime::from_local(Reading { wall: Timestamp::from_millis(10_700), since_boot: Duration::ZERO });
        let updated = time.with_date(
            Timestamp::from_millis(10_000),
            Reading { wall: Timestamp::from_millis(10_700), since_boot: Duration::ZERO },
        );
        assert_eq!(
            updated.now(Reading { wall: Timestamp::from_millis(10_700), since_boot: Duration::ZERO }),
            Timestamp::from_millis(10_700)
        );
    }
}
