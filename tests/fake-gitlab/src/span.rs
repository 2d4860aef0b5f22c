//! Time spans of tests and command lines.

use std::fmt;
use std::time::Duration;

/// Parses a whole number with a unit: `250ms`, `60s`, `5m`, `2h` or `7d`.
///
/// # Errors
/// The number is missing or the unit is unknown.
pub fn parse_span(text: &str) -> Result<Duration, ParseSpanError> {
    let refused = || ParseSpanError(text.to_owned());
    let digits = text.find(|character: char| !character.is_ascii_digit()).ok_or_else(refused)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| refused())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(refused()),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(refused)
}

/// A lifetime of tokens: a span, `None`, or a text such as `"60s"` or `"never"`.
pub trait IntoLife {
    /// The lifetime; `None` for tokens that never expire.
    fn into_life(self) -> Option<Duration>;
}

impl IntoLife for Duration {
    fn into_life(self) -> Option<Duration> {
        Some(self)
    }
}

impl IntoLife for Option<Duration> {
    fn into_life(self) -> Option<Duration> {
        self
    }
}

impl IntoLife for &str {
    fn into_life(self) -> Option<Duration> {
        match self {
            "never" => None,
            span => Some(parse_span(span).expect("a life such as 60s, 2h or never")),
        }
    }
}

/// An invalid time span.
#[derive(Debug, PartialEq, Eq)]
pub struct ParseSpanError(String);

impl fmt::Display for ParseSpanError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}` is no span of time: write it like 250ms, 60s, 5m, 2h or 7d", self.0)
    }
}

impl std::error::Error for ParseSpanError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_need_a_number_and_a_unit() {
        assert_eq!(parse_span("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(parse_span("2h"), Ok(Duration::from_secs(7200)));
        for wrong in ["", "60", "s", "1y", "-1s"] {
            assert!(parse_span(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn never_has_no_duration() {
        assert_eq!("never".into_life(), None);
    }
}
