//! Faults of a single request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::Answer;
use crate::answer::{META, meta};

/// A fault of a request; [`crate::Gitlab::order`] selects the request.
///
/// A fault that replaces the answer or cuts the connection is injected before the server acts. With
/// [`Fault::after_acting`] the state changes first and only the answer is lost. A fault that deforms the answer always
/// lets the server act first.
#[derive(Clone, Debug)]
pub struct Fault {
    pub(crate) moment: Moment,
    pub(crate) effect: Effect,
    pub(crate) delay: Duration,
    pub(crate) is_held: bool,
    /// Headers to set on the answer; `None` removes the header.
    pub(crate) headers: Vec<(String, Option<String>)>,
}

/// When a fault is injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    BeforeActing,
    AfterActing,
}

/// What a fault does to the answer.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    /// Nothing: the answer is the real one.
    None,
    /// The connection is closed without an answer.
    Cut,
    /// Another answer is sent.
    Replace(Answer),
    /// The real JSON answer is changed.
    Amend(Amendment),
    /// The real answer is sent in a broken way.
    Deform(Deformation),
}

/// A broken way to send an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deformation {
    /// Half of the JSON, with a matching `Content-Length`.
    BrokenJson,
    /// Half of the body with the `Content-Length` of the whole; then the connection closes.
    Truncated,
    /// A body of this many bytes.
    Huge(u64),
    /// The head immediately, then one byte of the body per interval.
    DripBody(Duration),
    /// One byte per interval, starting with the status line.
    Drip(Duration),
    /// A head that never ends.
    EndlessHeaders,
}

/// A change to the JSON of an answer.
#[derive(Clone)]
pub(crate) struct Amendment(pub(crate) Arc<dyn Fn(&mut Value) + Send + Sync>);

impl fmt::Debug for Amendment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Amendment")
    }
}

impl Fault {
    /// Answers with a status and GitLab's usual JSON message for it.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::answer(Answer::error(status))
    }

    /// Answers with any JSON.
    #[must_use]
    pub fn json(status: u16, body: Value) -> Self {
        Self::answer(Answer::json(status, body))
    }

    /// Answers with a body of any type.
    #[must_use]
    pub fn text(status: u16, content_type: &str, body: impl Into<String>) -> Self {
        Self::answer(Answer::text(status, content_type, body))
    }

    /// Answers with a web page, as a proxy does.
    #[must_use]
    pub fn html(status: u16) -> Self {
        Self::answer(Answer::html(status))
    }

    /// Redirects the client.
    #[must_use]
    pub fn redirect(status: u16, location: &str) -> Self {
        Self::answer(Answer::redirect(status, location))
    }

    /// Refuses as the rate limiter in front of GitLab does: 429, plain text, `Retry-After` and the `RateLimit` headers
    /// except those with an instant.
    #[must_use]
    pub fn throttled(retry_after_secs: u64) -> Self {
        let answer = Answer::text(429, "text/plain", "Retry later\n")
            .retry_after(retry_after_secs)
            .with_header("RateLimit-Name", "throttle_unauthenticated_api")
            .with_header("RateLimit-Limit", "60")
            .with_header("RateLimit-Observed", "67")
            .with_header("RateLimit-Remaining", "0");
        Self::answer(answer)
    }

    /// Answers with exactly this.
    #[must_use]
    pub fn answer(answer: Answer) -> Self {
        Self::with_effect(Effect::Replace(answer))
    }

    /// Closes the connection without an answer.
    #[must_use]
    pub fn cut() -> Self {
        Self::with_effect(Effect::Cut)
    }

    /// Changes the JSON of the real answer: another id, a hostile token, a missing field.
    #[must_use]
    pub fn amended(change: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        Self::with_effect(Effect::Amend(Amendment(Arc::new(change))))
    }

    /// Sets one field of the JSON of the real answer, which commits what the request asked for.
    #[must_use]
    pub fn field(name: &'static str, value: Value) -> Self {
        Self::amended(move |answer| {
            if let Some(fields) = answer.as_object_mut() {
                fields.insert(name.to_owned(), value.clone());
            }
        })
    }

    /// Sends the real answer, which commits what the request asked for, with another content type.
    #[must_use]
    pub fn content_type(content_type: &str) -> Self {
        Self::header("Content-Type", content_type)
    }

    /// Sends the first half of the real answer as a complete body.
    #[must_use]
    pub fn broken_json() -> Self {
        Self::deformed(Deformation::BrokenJson)
    }

    /// Closes the connection halfway through the body.
    #[must_use]
    pub fn truncated() -> Self {
        Self::deformed(Deformation::Truncated)
    }

    /// Streams a body of this many bytes without holding it in memory.
    #[must_use]
    pub fn huge(bytes: u64) -> Self {
        Self::deformed(Deformation::Huge(bytes))
    }

    /// Sends one byte per interval, starting with the status line.
    #[must_use]
    pub fn drip(interval: Duration) -> Self {
        Self::deformed(Deformation::Drip(interval))
    }

    /// Sends the head immediately, then one byte of the body per interval.
    #[must_use]
    pub fn drip_body(interval: Duration) -> Self {
        Self::deformed(Deformation::DripBody(interval))
    }

    /// Sends headers until the client disconnects.
    #[must_use]
    pub fn endless_headers() -> Self {
        Self::deformed(Deformation::EndlessHeaders)
    }

    /// Delays the real answer: the server acts after this time, or immediately with [`Fault::after_acting`].
    #[must_use]
    pub fn delay(delay: Duration) -> Self {
        Self::with_effect(Effect::None).delayed(delay)
    }

    /// Holds the real answer until [`crate::Order::release`] or [`crate::Gitlab::clear_faults`].
    #[must_use]
    pub fn hold() -> Self {
        Self::with_effect(Effect::None).held()
    }

    /// Sends the real answer with one header set, such as a wrong `Date`.
    #[must_use]
    pub fn header(name: &str, value: &str) -> Self {
        Self::with_effect(Effect::None).with_header(name, value)
    }

    /// Sends the real answer without one header.
    #[must_use]
    pub fn without_header(name: &str) -> Self {
        let mut fault = Self::with_effect(Effect::None);
        fault.headers.push((name.to_owned(), None));
        fault
    }

    /// Injects the fault after the server has acted.
    #[must_use]
    pub fn after_acting(mut self) -> Self {
        self.moment = Moment::AfterActing;
        self
    }

    /// Delays the fault by this time.
    #[must_use]
    pub fn delayed(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Holds the request until [`crate::Order::release`] before the fault is injected.
    #[must_use]
    pub fn held(mut self) -> Self {
        self.is_held = true;
        self
    }

    /// Sets a header of the answer.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), Some(value.to_owned())));
        self
    }

    /// Sends GitLab's own header with an answer that replaces the real one: it is GitLab's, with other content.
    #[must_use]
    pub fn with_meta(self) -> Self {
        self.with_header(META, &meta("01JFAKE0000000000000000000"))
    }

    /// Sets `Retry-After` in seconds.
    #[must_use]
    pub fn retry_after(self, secs: u64) -> Self {
        self.with_header("Retry-After", &secs.to_string())
    }

    /// Whether the server acts under this fault.
    pub(crate) fn lets_act(&self) -> bool {
        match self.effect {
            Effect::Cut | Effect::Replace(_) => self.moment == Moment::AfterActing,
            Effect::None | Effect::Amend(_) | Effect::Deform(_) => true,
        }
    }

    fn deformed(deformation: Deformation) -> Self {
        Self::with_effect(Effect::Deform(deformation))
    }

    fn with_effect(effect: Effect) -> Self {
        Self { moment: Moment::BeforeActing, effect, delay: Duration::ZERO, is_held: false, headers: Vec::new() }
    }
}
