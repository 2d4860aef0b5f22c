//! The changes that may be made to config.toml.

use super::entry::Entry;
use super::entry_text::EntryText;
use crate::model::{Credential, RunnerId, ServerUrl};
use crate::secret::Fingerprint;

/// Which entries a change is about: all that belong to one runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntrySelector {
    /// The instance.
    pub url: ServerUrl,
    /// The runner's number, once known.
    pub id: Option<RunnerId>,
    /// The tokens it had, for entries without a number.
    pub fingerprints: Vec<Fingerprint>,
}

/// One change of config.toml.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Sets token and times of every entry of the runner.
    Renew {
        /// The runner.
        target: EntrySelector,
        /// Written where the entry has another or none.
        id: Option<RunnerId>,
        /// The new token with its times.
        credential: Credential,
    },
    /// Appends an entry; an entry of this runner that is there already is renewed instead.
    Insert {
        /// The entry but for its number and token.
        text: EntryText,
        /// The runner's number.
        id: Option<RunnerId>,
        /// The token with its times.
        credential: Credential,
    },
    /// Takes every entry of the runner out, with its sub-tables and the comment above it.
    Remove {
        /// The runner.
        target: EntrySelector,
    },
}

/// What a change did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edited {
    /// How many entries were renewed, inserted or removed.
    pub entries: usize,
    /// The removed ones, to be inserted again some day.
    pub removed: Vec<EntryText>,
}

impl EntrySelector {
    /// Whether an entry belongs to this runner: same instance, and same number where both have one, else
    /// one of its tokens.
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
