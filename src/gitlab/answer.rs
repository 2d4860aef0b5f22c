//! The typed content of a genuine answer.

use crate::model::{Expiry, RunnerId, Timestamp};
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

/// A newly registered runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The runner's id.
    pub id: RunnerId,
    /// The runner's authentication token.
    pub token: Token,
    /// When the token expires; unknown from a server before 14.8.
    pub expiry: Expiry,
}

/// A successful verification of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The token's runner; `None` in the plain answer of a server before 15.9.
    pub id: Option<RunnerId>,
    /// When the token expires; unknown in the plain answer.
    pub expiry: Expiry,
    /// Whether this was the plain answer of a server before 15.9, a bare `200`.
    pub legacy: bool,
}

/// The result of a rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    /// The new token. Past a rotation deadline some servers repeat the token that was sent: it was not rotated.
    pub token: Token,
    /// When the new token expires.
    pub expiry: Expiry,
}
