//! How values of the model are written in the state directory.

use serde::{Deserialize, Serialize};

use crate::model::{Expiry, Timestamp};
use crate::secret::Token;

/// An [`Expiry`]: `"unknown"`, `"never"` or `{"at": "2026-01-31T12:00:00Z"}`.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StoredExpiry {
    Unknown,
    Never,
    At(Timestamp),
}

impl From<Expiry> for StoredExpiry {
    fn from(expiry: Expiry) -> Self {
        match expiry {
            Expiry::Unknown => Self::Unknown,
            Expiry::Never => Self::Never,
            Expiry::At(at) => Self::At(at),
        }
    }
}

impl From<StoredExpiry> for Expiry {
    fn from(expiry: StoredExpiry) -> Self {
        match expiry {
            StoredExpiry::Unknown => Self::Unknown,
            StoredExpiry::Never => Self::Never,
            StoredExpiry::At(at) => Self::At(at),
        }
    }
}

/// A token as it was stored.
pub(super) fn stored_token(text: &str) -> Option<Token> {
    Token::parse(text).ok()
}
