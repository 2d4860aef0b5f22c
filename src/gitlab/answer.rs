//! What a genuine answer says.

use crate::model::{Expiry, RunnerId, Timestamp};
use crate::secret::Token;

/// A genuine answer with the circumstances of its arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// What the server said.
    pub value: T,
    /// The server's wall time when it answered (the `Date` header); absent if it sent none.
    pub date: Option<Timestamp>,
    /// The request's `X-Request-Id`, which GitLab's own logs repeat.
    pub request_id: String,
}

/// A runner that has just been made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its number.
    pub id: RunnerId,
    /// Its authentication token.
    pub token: Token,
    /// When that token stops working; unknown from a server before 14.8.
    pub expiry: Expiry,
}

/// What the server knows of a token that it accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The runner the token belongs to; absent in the plain answer of a server before 15.9.
    pub id: Option<RunnerId>,
    /// When the token stops working; unknown in the plain answer.
    pub expiry: Expiry,
    /// Whether this was the plain answer of a server before 15.9, a bare `200`.
    pub legacy: bool,
}

/// A token that has just replaced another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    /// The token from now on. Some servers past a rotation deadline repeat the one that was sent, which
    /// means "not rotated".
    pub token: Token,
    /// When it stops working.
    pub expiry: Expiry,
}
