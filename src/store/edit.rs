//! Changes of config.toml.

use super::entry::Entry;
use super::entry_text::EntryText;
use crate::model::{Credential, RunnerId, ServerUrl};
use crate::secret::Digest;

/// Selects all entries of one runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntrySelector {
    /// The instance.
    pub url: ServerUrl,
    /// The runner's id, once known.
    pub id: Option<RunnerId>,
    /// Whole digests of its tokens, to match entries without an id.
    pub digests: Vec<Digest>,
    /// Narrows the selection to entries of this name.
    pub name: Option<String>,
}

/// One change of config.toml.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Sets token and times of every entry of the runner that holds one of its tokens, one of `over`, or none. An entry
    /// with an unknown token is left alone: that may be the only copy.
    Renew {
        /// The runner.
        target: EntrySelector,
        /// Written if the entry has another or no id.
        id: Option<RunnerId>,
        /// The new token with its times.
        credential: Credential,
        /// Whole digests of further tokens that may be overwritten.
        over: Vec<Digest>,
    },
    /// Renews an existing entry of this runner, else completes the prepared entry of the text's name and instance
    /// ([`Entry::is_incomplete`]), else appends the text.
    Insert {
        /// The entry without id and token.
        text: EntryText,
        /// The runner's id.
        id: Option<RunnerId>,
        /// The token with its times.
        credential: Credential,
    },
    /// Puts id, token and times into the first prepared entry of this name and instance ([`Entry::is_incomplete`]); its
    /// other keys stay. Renews an entry of this name and instance that already has the token.
    Complete {
        /// The local name.
        name: String,
        /// The instance.
        url: ServerUrl,
        /// The runner's id.
        id: Option<RunnerId>,
        /// The token with its times.
        credential: Credential,
    },
    /// Removes every entry of the runner that holds one of its tokens or none, with sub-tables and the comment above.
    Remove {
        /// The runner.
        target: EntrySelector,
    },
}

/// The result of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edited {
    /// How many entries were renewed, inserted, completed or removed.
    pub entries: usize,
    /// The removed entries.
    pub removed: Vec<EntryText>,
}

impl EntrySelector {
    /// Whether an entry belongs to this runner: same instance, and same id if both have one, else one of its
    /// tokens by its whole digest.
    #[must_use]
    pub fn matches(&self, entry: &Entry) -> bool {
        if !self.covers(entry) {
            return false;
        }
        if let (Some(id), Some(entry_id)) = (self.id, entry.id) {
            return id == entry_id;
        }
        self.has_token_of(entry)
    }

    /// Whether an entry holds one of the runner's tokens.
    pub(super) fn has_token_of(&self, entry: &Entry) -> bool {
        entry.token.token().is_some_and(|token| self.digests.contains(&token.digest()))
    }

    /// Whether an entry may be removed: it belongs to this runner and holds one of its tokens, or none. An unknown token
    /// may be the only copy.
    #[must_use]
    pub fn may_remove(&self, entry: &Entry) -> bool {
        self.matches(entry) && (entry.token.token().is_none() || self.has_token_of(entry))
    }

    /// Whether an entry has the instance, and the name if one is given.
    pub(super) fn covers(&self, entry: &Entry) -> bool {
        entry.url.as_ref() == Some(&self.url) && (self.name.is_none() || self.name == entry.name)
    }
}
