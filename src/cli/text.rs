//! Texts that several commands show to people.

use crate::model::{RunnerReport, Timestamp, format_span, is_unprintable};

/// Replaces characters that could move the cursor or hide text. For every text that comes from outside.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|character| if is_unprintable(character) { '?' } else { character }).collect()
}

/// A word for a shell.
pub(super) fn shell_word(text: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "/._-:,".contains(character);
    let is_word = !text.is_empty() && text.chars().all(is_plain);
    if is_word { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// Names a runner, with the id or the address that distinguishes it from others of the same name.
pub(super) fn label(report: &RunnerReport) -> String {
    match (report.name.as_deref().map(printable), report.id, &report.url) {
        (Some(name), Some(id), _) => format!("`{name}` (id {id})"),
        (Some(name), None, _) => format!("`{name}`"),
        (None, Some(id), Some(url)) => format!("(id {id} at {url})"),
        (None, Some(id), None) => format!("(id {id})"),
        (None, None, Some(url)) => format!("(at {url})"),
        (None, None, None) => "(without a name)".to_owned(),
    }
}

/// When a token expires: `expires 2027-01-15T08:00:00Z (in 2d 4h)`.
pub(super) fn expiry_text(expires_at: Option<Timestamp>, now: Timestamp) -> String {
    match expires_at.map(Timestamp::whole_seconds) {
        None => "does not expire".to_owned(),
        Some(at) if at <= now => format!("expired {at} ({} ago)", format_span(now.since(at))),
        Some(at) => format!("expires {at} (in {})", format_span(at.since(now))),
    }
}
