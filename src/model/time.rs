//! Wall time in the formats of GitLab and config.toml, and durations for users.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// A point of wall time in UTC, in milliseconds.
///
/// Range: the years 1970 to 9998. Arithmetic is clamped to it and cannot overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp {
    /// Milliseconds since 1970, and one: an absent time then needs no more room.
    millis_and_one: NonZeroU64,
}

/// 9998-12-31T23:59:59Z in milliseconds since 1970. Servers send the year 9999 for "never".
const LATEST_MILLIS: i64 = 253_370_764_799_000;

/// A text that is not a time in the range of [`Timestamp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a time in RFC 3339 between the years 1970 and 9998")]
pub struct TimestampError;

impl Timestamp {
    /// The start of the range.
    pub const EARLIEST: Self = Self { millis_and_one: NonZeroU64::MIN };

    /// Converts milliseconds since 1970, clamped to the range of the type.
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        let millis = millis.clamp(0, LATEST_MILLIS).cast_unsigned();
        Self { millis_and_one: NonZeroU64::MIN.saturating_add(millis) }
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        self.millis_and_one.get().cast_signed() - 1
    }

    /// Parses the `Date` header of an HTTP answer (`Sun, 06 Nov 1994 08:49:37 GMT`).
    ///
    /// # Errors
    /// [`TimestampError`] for anything else.
    pub fn from_http_date(text: &str) -> Result<Self, TimestampError> {
        let zoned = jiff::fmt::rfc2822::parse(text).map_err(|_| TimestampError)?;
        Self::within_range(zoned.timestamp())
    }

    /// Parses a date (`2026-12-31`) as 00:00 UTC of that day.
    ///
    /// # Errors
    /// [`TimestampError`] for anything else.
    pub fn from_date(text: &str) -> Result<Self, TimestampError> {
        let date = text.parse::<jiff::civil::Date>().map_err(|_| TimestampError)?;
        let zoned = date.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| TimestampError)?;
        Self::within_range(zoned.timestamp())
    }

    /// The day in UTC (`2026-12-31`).
    #[must_use]
    pub fn date(self) -> String {
        let mut text = self.to_string();
        text.truncate("2026-12-31".len());
        text
    }

    /// 00:00 UTC of its day.
    #[must_use]
    pub fn start_of_day(self) -> Self {
        const DAY_MILLIS: i64 = 86_400_000;
        Self::from_millis(self.as_millis() - self.as_millis() % DAY_MILLIS)
    }

    /// Drops the fraction of a second, as in config.toml.
    #[must_use]
    pub fn whole_seconds(self) -> Self {
        Self::from_millis(self.as_millis() - self.as_millis() % 1000)
    }

    /// Returns the time `span` later.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        let span = i64::try_from(span.as_millis()).unwrap_or(LATEST_MILLIS);
        Self::from_millis(self.as_millis().saturating_add(span))
    }

    /// Returns the time `span` earlier.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        let span = i64::try_from(span.as_millis()).unwrap_or(LATEST_MILLIS);
        Self::from_millis(self.as_millis().saturating_sub(span))
    }

    /// Returns the duration since `earlier`; zero if it is in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.as_millis() - earlier.as_millis()).unwrap_or(0))
    }

    fn within_range(timestamp: jiff::Timestamp) -> Result<Self, TimestampError> {
        let millis = timestamp.as_millisecond();
        if (0..=LATEST_MILLIS).contains(&millis) { Ok(Self::from_millis(millis)) } else { Err(TimestampError) }
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let timestamp = text.parse::<jiff::Timestamp>().map_err(|_| TimestampError)?;
        Self::within_range(timestamp)
    }
}

impl TryFrom<String> for Timestamp {
    type Error = TimestampError;

    fn try_from(text: String) -> Result<Self, TimestampError> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(timestamp: Timestamp) -> Self {
        timestamp.to_string()
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let span = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self::EARLIEST.plus(span)
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, with a fraction only if it is not zero.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.as_millis()) {
            Ok(timestamp) => timestamp.fmt(formatter),
            Err(_) => Err(fmt::Error),
        }
    }
}

/// Parses a duration such as `90s`, `10m`, `1h 30m` or `2d`.
///
/// # Errors
/// A message with the expected format.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let expected = || format!("`{text}` is not a duration such as \"90s\", \"10m\", \"1h 30m\" or \"2d\"");
    let (days, rest) = split_days(text.trim()).ok_or_else(expected)?;
    let rest = match rest {
        "" if days > Duration::ZERO => Duration::ZERO,
        rest => {
            let span = rest.parse::<jiff::SignedDuration>().map_err(|_| expected())?;
            Duration::try_from(span).map_err(|_| expected())?
        }
    };
    let span = days.checked_add(rest).ok_or_else(expected)?;
    if span > MAX_SPAN {
        return Err(format!("`{text}` is longer than 100 years"));
    }
    Ok(span)
}

/// Maximum of a parsed duration: 100 years.
const MAX_SPAN: Duration = Duration::from_secs(100 * 365 * 86_400 + 25 * 86_400);

/// Formats a duration with its two largest units: `1h 30m`, `2d 4h`, `850ms`.
#[must_use]
pub fn format_span(span: Duration) -> String {
    let secs = span.as_secs();
    let (days, hours, minutes) = (secs / 86_400, secs / 3_600 % 24, secs / 60 % 60);
    match (days, hours, minutes, secs % 60) {
        (0, 0, 0, 0) => format!("{}ms", span.subsec_millis()),
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, 0) => format!("{minutes}m"),
        (0, 0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (0, hours, 0, _) => format!("{hours}h"),
        (0, hours, minutes, _) => format!("{hours}h {minutes}m"),
        (days, 0, _, _) => format!("{days}d"),
        (days, hours, _, _) => format!("{days}d {hours}h"),
    }
}

/// Splits off a leading number of days. A day has 24 hours; `jiff` does not define that.
fn split_days(text: &str) -> Option<(Duration, &str)> {
    let Some((days, rest)) = text.split_once('d') else { return Some((Duration::ZERO, text)) };
    let hours = days.trim().parse::<u64>().ok()?.checked_mul(24)?;
    Some((Duration::from_secs(hours.checked_mul(3600)?), rest.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_of_gitlab_is_the_start_of_its_day() {
        let start = Timestamp::from_date("2026-12-31").unwrap();
        assert_eq!(start.to_string(), "2026-12-31T00:00:00Z");
        let later = start.plus(Duration::from_secs(86_399));
        assert_eq!((later.date().as_str(), later.start_of_day()), ("2026-12-31", start));
        for wrong in ["", "2026-13-01", "1969-12-31", "9999-12-31", "2026-12-31T00:00:00Z "] {
            assert!(Timestamp::from_date(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_formats_of_gitlab_and_config_toml_are_read() {
        let expected = Timestamp::from_millis(1_768_142_364_000);
        for text in ["2026-01-11T14:39:24.000Z", "2026-01-11T14:39:24Z", "2026-01-11T15:39:24+01:00"] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        assert_eq!(Timestamp::from_http_date("Sun, 11 Jan 2026 14:39:24 GMT"), Ok(expected));
        assert_eq!(expected.to_string(), "2026-01-11T14:39:24Z");
    }

    #[test]
    fn times_outside_the_range_are_rejected() {
        for text in ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "tomorrow"] {
            assert_eq!(text.parse::<Timestamp>(), Err(TimestampError), "{text}");
        }
    }

    #[test]
    fn arithmetic_is_clamped_to_the_range() {
        assert_eq!(Timestamp::EARLIEST.minus(Duration::from_secs(1)), Timestamp::EARLIEST);
        let latest = Timestamp::from_millis(i64::MAX);
        assert_eq!(latest.plus(Duration::MAX), latest);
        assert_eq!(latest.to_string(), "9998-12-31T23:59:59Z");
    }

    #[test]
    fn durations_are_parsed() {
        for (text, secs) in [("90s", 90), ("10m", 600), ("1h 30m", 5400), ("2d", 172_800), ("1d 2h", 93_600)] {
            assert_eq!(parse_span(text), Ok(Duration::from_secs(secs)), "{text}");
        }
        for wrong in ["", "10", "-5m", "soon", "1x", "9223372036854775807s", "36600d"] {
            assert!(parse_span(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn durations_are_formatted_with_their_two_largest_units() {
        for (secs, text) in [(0, "0ms"), (59, "59s"), (61, "1m 1s"), (5400, "1h 30m"), (183_600, "2d 3h")] {
            assert_eq!(format_span(Duration::from_secs(secs)), text);
        }
    }
}
