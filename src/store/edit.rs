//! Changes of config.toml.

use super::entry::Entry;
use super::entry_text::EntryText;
use crate::model::{Credential, RunnerId, ServerUrl};
use crate::secret::Fingerprint;

/// Selects all entries of one runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntrySelector {
    /// The instance.
    pub url: ServerUrl,
    /// The runner's id, once known.
    pub id: Option<RunnerId>,
    /// Its tokens, to match entries without an id.
    pub fingerprints: Vec<Fingerprint>,
}

/// One change of config.toml.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Sets token and times of every entry of the runner.
    Renew {
        /// The runner.
        target: EntrySelector,
        /// Written if the entry has another or no id.
        id: Option<RunnerId>,
        /// The new token with its times.
        credential: Credential,
    },
    /// Appends an entry, or renews an existing entry of this runner.
    Insert {
        /// The entry without id and token.
        text: EntryText,
        /// The runner's id.
        id: Option<RunnerId>,
        /// The token with its times.
        credential: Credential,
    },
    /// Removes every entry of the runner, with sub-tables and the comment above.
    Remove {
        /// The runner.
        target: EntrySelector,
    },
}

/// The result of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edited {
    /// How many entries were renewed, inserted or removed.
    pub entries: usize,
    /// The removed entries.
    pub removed: Vec<EntryText>,
}

impl EntrySelector {
    /// Whether an entry belongs to this runner: same instance, and same id if both have one, else one of its
    /// tokens.
    #[must_use]
    pub fn matches(&self, entry: &Entry) -> bool {
        if entry.url.as_ref() != Some(&self.url) {
            return false;
        }
        if let (Some(id), Some(entry_id)) = (self.id, entry.id) {
            return id == entry_id;
        }
        entry.token.token().is_some_and(|token| self.fingerprints.contains(&token.fingerprint()))
    }
}
