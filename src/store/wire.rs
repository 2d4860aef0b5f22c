//! Serde forms of values in the state directory. They expose tokens, so they stay private to the room.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::entry_text::EntryText;
use crate::model::{Credential, Expiry, StateName, SystemId, Timestamp};
use crate::secret::Token;

/// `"unknown"`, `"never"` or `{"at": "2026-01-31T12:00:00Z"}`.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Expiry", rename_all = "snake_case")]
pub(super) enum StoredExpiry {
    Unknown,
    Never,
    At(Timestamp),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Credential")]
struct StoredCredential {
    #[serde(with = "text")]
    token: Token,
    obtained_at: Option<Timestamp>,
    #[serde(with = "StoredExpiry")]
    expiry: Expiry,
}

/// A value that is stored as text.
pub(super) trait StoredText: Sized {
    fn as_text(&self) -> &str;
    /// `None` for an invalid text.
    fn from_text(text: &str) -> Option<Self>;
}

impl StoredText for Token {
    fn as_text(&self) -> &str {
        self.expose()
    }

    fn from_text(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }
}

impl StoredText for EntryText {
    fn as_text(&self) -> &str {
        self.expose()
    }

    fn from_text(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }
}

impl StoredText for SystemId {
    fn as_text(&self) -> &str {
        self.as_str()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// An unknown state is the empty text; a state of a later version is read as unknown.
impl StoredText for Option<StateName> {
    fn as_text(&self) -> &str {
        self.map_or("", StateName::as_str)
    }

    fn from_text(text: &str) -> Option<Self> {
        Some(StateName::from_name(text))
    }
}

/// For `#[serde(with)]` on a [`StoredText`].
pub(super) mod text {
    use super::*;

    pub(in crate::store) fn serialize<T: StoredText, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_text().serialize(serializer)
    }

    pub(in crate::store) fn deserialize<'de, T: StoredText, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        T::from_text(&String::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("invalid text"))
    }
}

/// For `#[serde(with)]` on an optional [`StoredText`].
pub(super) mod optional_text {
    use super::*;

    pub(in crate::store) fn serialize<T: StoredText, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(T::as_text).serialize(serializer)
    }

    pub(in crate::store) fn deserialize<'de, T: StoredText, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        T::from_text(&text).map(Some).ok_or_else(|| D::Error::custom("invalid text"))
    }
}

/// For `#[serde(with)]` on an optional [`Credential`].
pub(super) mod optional_credential {
    use super::*;

    #[derive(Serialize)]
    struct Written<'c>(#[serde(with = "StoredCredential")] &'c Credential);

    #[derive(Deserialize)]
    struct Read(#[serde(with = "StoredCredential")] Credential);

    pub(in crate::store) fn serialize<S: Serializer>(
        value: &Option<Credential>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(Written).serialize(serializer)
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Credential>, D::Error> {
        Ok(Option::deserialize(deserializer)?.map(|Read(credential)| credential))
    }
}
