//! Text in HTML.

use std::fmt;
use std::fmt::Write as _;

use crate::model::{Timestamp, format_span, is_unprintable};

/// A text from outside, in content and in quoted attributes: escaped, and without characters that hide or reorder text.
pub(super) struct Escaped<T>(pub(super) T);

impl<T: AsRef<str>> fmt::Display for Escaped<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.as_ref().chars() {
            match character {
                '&' => formatter.write_str("&amp;"),
                '<' => formatter.write_str("&lt;"),
                '>' => formatter.write_str("&gt;"),
                '"' => formatter.write_str("&quot;"),
                '\'' => formatter.write_str("&#39;"),
                character if is_unprintable(character) => formatter.write_char('?'),
                character => formatter.write_char(character),
            }?;
        }
        Ok(())
    }
}

/// A point of time for people: `2027-01-01 00:30:00 UTC`.
pub(super) struct At(pub(super) Timestamp);

impl fmt::Display for At {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.0.whole_seconds().to_string();
        let text = at.replacen('T', " ", 1).replace('Z', " UTC");
        write!(formatter, "<time datetime=\"{at}\">{text}</time>")
    }
}

/// A point of time beside now: `in 4h`, or `3m ago`.
pub(super) struct Beside {
    pub(super) at: Timestamp,
    pub(super) now: Timestamp,
}

impl fmt::Display for Beside {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, now } = self;
        let (datetime, at) = (at.whole_seconds(), *at);
        write!(formatter, "<time datetime=\"{datetime}\" title=\"{datetime}\">")?;
        if at > *now {
            write!(formatter, "in {}", format_span(whole_seconds(at.since(*now))))?;
        } else {
            write!(formatter, "{} ago", format_span(whole_seconds(now.since(at))))?;
        }
        formatter.write_str("</time>")
    }
}

fn whole_seconds(span: std::time::Duration) -> std::time::Duration {
    std::time::Duration::from_secs(span.as_secs().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_ends_no_element_and_no_attribute() {
        let text = "<script>alert('1')</script>\" onload=\"x & y\u{202e}\n";
        let escaped = Escaped(text).to_string();
        assert!(!escaped.contains(['<', '>', '"', '\'', '\n', '\u{202e}']), "{escaped}");
        assert!(escaped.contains("x &amp; y??"), "{escaped}");
    }

    #[test]
    fn times_are_shown_beside_now() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2027-01-01T00:30:00Z");
        assert!(At(now).to_string().ends_with(">2027-01-01 00:30:00 UTC</time>"));
        let beside = |text: &str| Beside { at: at(text), now }.to_string();
        assert!(beside("2027-01-01T04:30:00.5Z").ends_with(">in 4h</time>"));
        assert!(beside("2027-01-01T00:29:58Z").ends_with(">2s ago</time>"));
        assert!(beside("2027-01-01T00:30:00Z").ends_with(">1s ago</time>"));
    }
}
