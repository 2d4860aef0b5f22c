//! The time limit of an attempt.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// Stands for a limit that the clock cannot hold.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// The time limit of one attempt, from its beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeLimit {
    ends_at: Instant,
    span: Duration,
}

impl TimeLimit {
    /// Begins now.
    pub(super) fn begin(span: Duration) -> Self {
        let now = Instant::now();
        Self { ends_at: now.checked_add(span).unwrap_or(now + FAR), span }
    }

    /// Waits for the future, no longer than until the limit; `None` if that comes first.
    pub(super) async fn bound<T>(self, future: impl Future<Output = T>) -> Option<T> {
        timeout_at(self.ends_at, future).await.ok()
    }

    /// What is left of it.
    pub(super) fn left(self) -> Duration {
        self.ends_at.saturating_duration_since(Instant::now())
    }

    /// The same limit if this much is left of it, else one that ends after it.
    pub(super) fn or_at_least(self, least: Duration) -> Self {
        Self { ends_at: self.ends_at.max(Instant::now() + least), ..self }
    }

    /// Its whole length in seconds, for messages.
    pub(super) fn seconds(self) -> f64 {
        self.span.as_secs_f64()
    }
}
