//! The machines behind one runner token.

use jiff::Timestamp;
use serde_json::Value;

/// The system id for contacts without one.
pub(crate) const LEGACY_SYSTEM_ID: &str = "<legacy>";

/// A machine that used a runner's token.
#[derive(Clone, Debug, PartialEq)]
pub struct Manager {
    /// The manager's own id.
    pub id: u64,
    /// The system id as sent, or `<legacy>` if none was sent.
    pub system_id: String,
    /// The `info` object as last sent, `null` if it never was.
    pub info: Value,
    /// The first contact, by the server's clock.
    pub created_at: Timestamp,
    /// The last contact, by the server's clock.
    pub contacted_at: Timestamp,
}

impl Manager {
    /// A text of `info`, such as `version` or `platform`.
    #[must_use]
    pub fn info(&self, name: &str) -> Option<&str> {
        self.info.get(name).and_then(Value::as_str)
    }
}
