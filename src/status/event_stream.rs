//! `/events`: events and changes of the status as server-sent events, for as long as the reader listens.
//!
//! Nothing is queued for a reader: each message is made from the registry when the one before is on its way. A reader who
//! takes nothing is found by the server, which ends the connection.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Bytes, Frame};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

use super::registry::StatusRegistry;
use super::session::Sessions;
use crate::clock::{Clock as _, SystemClock};
use crate::model::printable_json;

pub(super) const CONTENT_TYPE: &str = "text/event-stream";

/// Maximum number of readers at a time.
pub(super) const MAX_READERS: usize = 8;

/// The interval of comments that show that the connection works.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(10);

/// What happens within this time is one message.
const COLLECT: Duration = Duration::from_millis(500);

/// How many readers may still come.
#[derive(Clone, Debug)]
pub(super) struct ReaderSlots(Arc<Semaphore>);

impl Default for ReaderSlots {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_READERS)))
    }
}

impl ReaderSlots {
    /// A place for one more reader; `None` if there are too many.
    pub(super) fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}

/// How far a stream has come: how often its connection has asked for more, 0 if it is no stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(Arc<AtomicU64>);

impl Progress {
    fn note(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How often; 0 before the first time.
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a reader follows.
pub(super) struct Follower {
    registry: StatusRegistry,
    changes: watch::Receiver<()>,
    /// The id of the last event that was sent.
    last_id: u64,
    has_begun: bool,
    /// The session that the stream belongs to; `None` on the socket.
    session: Option<(Arc<Sessions>, u64)>,
    _slot: OwnedSemaphorePermit,
}

impl Follower {
    /// Follows the registry from the event of this id.
    pub(super) fn new(
        registry: &StatusRegistry,
        after: Option<u64>,
        session: Option<(Arc<Sessions>, u64)>,
        slot: OwnedSemaphorePermit,
    ) -> Self {
        let (changes, last_id) = (registry.changes(), after.unwrap_or_else(|| registry.last_event()));
        Self { registry: registry.clone(), changes, last_id, has_begun: false, session, _slot: slot }
    }

    /// The next message; `None` if the session or the daemon has ended.
    async fn next(mut self) -> Option<(Self, String)> {
        if self.has_begun {
            tokio::select! {
                changed = self.changes.changed() => changed.ok()?,
                () = sleep(HEARTBEAT) => {
                    let goes_on = self.may_read();
                    return goes_on.then_some((self, ":\n\n".to_owned()));
                }
            }
            sleep(COLLECT).await;
        }
        self.has_begun = true;
        if !self.may_read() {
            return None;
        }
        self.changes.mark_unchanged();
        let text = self.message();
        Some((self, text))
    }

    fn may_read(&self) -> bool {
        self.session.as_ref().is_none_or(|(sessions, number)| sessions.is_open(*number, SystemClock.read()))
    }

    /// The events that were not sent yet, and the status.
    fn message(&mut self) -> String {
        let mut text = String::new();
        for event in self.registry.events_after(self.last_id) {
            self.last_id = event.id;
            let json = serde_json::to_string(&event).unwrap_or_default();
            text.push_str(&format!("id: {}\ndata: {}\n\n", event.id, printable_json(&json)));
        }
        let summary = self.registry.summary(SystemClock.read());
        let status = serde_json::json!({ "ready": self.registry.is_ready(), "summary": summary }).to_string();
        text.push_str(&format!("event: status\ndata: {}\n\n", printable_json(&status)));
        text
    }
}

type Next = Pin<Box<dyn Future<Output = Option<(Follower, String)>> + Send>>;

/// A body of server-sent events.
pub(super) struct EventStream {
    next: Option<Next>,
    progress: Progress,
}

impl EventStream {
    pub(super) fn new(follower: Follower, progress: Progress) -> Self {
        progress.note();
        Self { next: Some(Box::pin(follower.next())), progress }
    }

    pub(super) fn poll_next(&mut self, task: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        self.progress.note();
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        match ready!(next.as_mut().poll(task)) {
            Some((follower, text)) => {
                self.next = Some(Box::pin(follower.next()));
                Poll::Ready(Some(Frame::data(text.into())))
            }
            None => {
                self.next = None;
                Poll::Ready(None)
            }
        }
    }
}
