//! The last events of the daemon, in memory.

use std::collections::VecDeque;

use super::registry::StatusRegistry;
use crate::model::{Event, EventKind, Timestamp};
use crate::secret::without_tokens;

/// How many events are kept.
pub const MAX_EVENTS: usize = 100;

/// Maximum length of an event's text in bytes.
const MAX_TEXT_BYTES: usize = 1000;

/// The last events, oldest first. Takes no memory before the first one.
#[derive(Debug, Default)]
pub(super) struct EventRing {
    events: VecDeque<Event>,
    last_id: u64,
}

impl EventRing {
    fn push(&mut self, at: Timestamp, runner: Option<&str>, kind: EventKind, text: &str) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.last_id += 1;
        let (runner, text) = (runner.map(str::to_owned), cut(&without_tokens(text)));
        self.events.push_back(Event { id: self.last_id, at, runner, kind, text });
    }
}

/// The beginning of a text that is too long.
fn cut(text: &str) -> String {
    if text.len() <= MAX_TEXT_BYTES {
        return text.to_owned();
    }
    let end = (0..=MAX_TEXT_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    format!("{}…", &text[..end])
}

impl StatusRegistry {
    /// Remembers that something has happened, until a hundred other things have.
    pub fn record_event(&self, at: Timestamp, runner: Option<&str>, kind: EventKind, text: &str) {
        self.state().events.push(at, runner, kind, text);
        self.notify();
    }

    /// The last events with an id above `id`, oldest first.
    #[must_use]
    pub fn events_after(&self, id: u64) -> Vec<Event> {
        self.state().events.events.iter().filter(|event| event.id > id).cloned().collect()
    }

    /// The id of the last event; 0 if there was none.
    #[must_use]
    pub fn last_event(&self) -> u64 {
        self.state().events.last_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(registry: &StatusRegistry, text: &str) {
        let at = "2027-01-01T00:00:00Z".parse().unwrap();
        registry.record_event(at, Some("a"), EventKind::Rotated, text);
    }

    #[test]
    fn the_last_hundred_events_are_kept() {
        let registry = StatusRegistry::default();
        assert!(registry.events_after(0).is_empty() && registry.last_event() == 0);
        (0..250).for_each(|number| record(&registry, &number.to_string()));
        let events = registry.events_after(0);
        let ids: Vec<_> = events.iter().map(|event| event.id).collect();
        assert_eq!(ids, (151..=250).collect::<Vec<_>>());
        assert_eq!((events[0].text.as_str(), registry.last_event()), ("150", 250));
        assert_eq!(registry.events_after(248).len(), 2);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let registry = StatusRegistry::default();
        record(&registry, &format!("a{}", "ü".repeat(MAX_TEXT_BYTES)));
        let text = &registry.events_after(0)[0].text;
        assert!(text.len() < MAX_TEXT_BYTES + 4 && text.ends_with("ü…"), "{}", text.len());
    }

    #[test]
    fn a_token_in_a_text_is_masked() {
        let registry = StatusRegistry::default();
        record(&registry, "the server says glrt-0123456789abcdefghij is wrong");
        assert!(!registry.events_after(0)[0].text.contains("0123456789"));
    }

    #[tokio::test]
    async fn an_event_notifies() {
        let registry = StatusRegistry::default();
        let mut changes = registry.changes();
        record(&registry, "rotated");
        changes.changed().await.unwrap();
    }
}
