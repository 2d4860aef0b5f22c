//! The typed content of a genuine answer.

use crate::model::{AccessTokenFacts, Expiry, RunnerId, Timestamp};
use crate::secret::Token;

/// A genuine answer with its time and request id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// The content of the answer.
    pub value: T,
    /// The server's wall time of the answer (the `Date` header); `None` if the header is missing.
    pub date: Option<Timestamp>,
    /// The request's `X-Request-Id`, which GitLab's own logs repeat.
    pub request_id: String,
}

/// Whether an answer with a new token looks like GitLab's. The token is returned in either case: it may be the only copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Status, content type and fields are those that GitLab documents for the call.
    Documented,
    /// Something in the answer is not: which one, in words. Only a verification proves such a token.
    Odd(&'static str),
}

/// A newly registered runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The runner's id; `None` only in an odd answer.
    pub id: Option<RunnerId>,
    /// The runner's authentication token.
    pub token: Token,
    /// When the token expires; unknown from a server before 14.8, or if the answer's time is unreadable.
    pub expiry: Expiry,
    /// Whether the answer looks like GitLab's.
    pub shape: Shape,
}

/// A successful verification of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The token's runner; `None` in the plain answer of a server before 15.9.
    pub id: Option<RunnerId>,
    /// When the token expires; unknown in the plain answer, or if the answer's time is unreadable.
    pub expiry: Expiry,
    /// Whether this was the plain answer of a server before 15.9, a bare `200`.
    pub legacy: bool,
}

/// The result of a rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    /// The new token. Past a rotation deadline some servers repeat the token that was sent: it was not rotated.
    pub token: Token,
    /// When the new token expires; unknown if the answer's time is unreadable.
    pub expiry: Expiry,
    /// Whether the answer looks like GitLab's. The token that was sent does not make it odd.
    pub shape: Shape,
}

/// The result of a rotation of an access token. The old one is dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotatedAccessToken {
    /// The new token: kept whatever else is odd in the answer.
    pub token: Token,
    /// What the answer says about it; `None` if it cannot be read.
    pub facts: Option<AccessTokenFacts>,
    /// What in the answer is not as GitLab documents it, in words.
    pub oddity: Option<&'static str>,
}

/// The status and text of an answer, to compare it with another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerText {
    /// The HTTP status.
    pub status: u16,
    /// The server's message, safe to display: one short line without any secret of the request.
    pub text: String,
}
