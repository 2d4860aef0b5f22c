//! The server's clock.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The real wall clock with an offset.
#[derive(Default)]
pub(crate) struct Clock {
    pub(crate) skew: SignedDuration,
}

impl Clock {
    /// The server's time, in whole milliseconds like the API.
    pub(crate) fn now(&self) -> Timestamp {
        let now = Timestamp::now().saturating_add(self.skew).expect("a skew is an absolute span");
        Timestamp::from_millisecond(now.as_millisecond()).expect("within the range it was in before")
    }

    /// The server's time after a span, capped at the last representable instant.
    pub(crate) fn in_the_future(&self, span: Duration) -> Timestamp {
        let span = SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
        self.now().saturating_add(span).expect("an absolute span")
    }
}

/// Writes an instant as the API does: `2026-01-11T14:39:24.000Z`.
pub(crate) fn iso8601(instant: Timestamp) -> String {
    instant.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Writes an instant as HTTP headers do.
pub(crate) fn http_date(instant: Timestamp) -> String {
    jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&instant)
        .unwrap_or_else(|_| "Fri, 31 Dec 9999 23:59:59 GMT".to_owned())
}

/// Parses a date of an HTTP header; `None` if it is invalid.
pub(crate) fn parse_http_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}
