//! One version of config.toml, with its entries by what identifies a runner.

use std::cmp::Ordering;

use super::edit::EntrySelector;
use super::entry::Entry;
use crate::model::{RunnerId, ServerUrl};
use crate::secret::Digest;

/// config.toml at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The `[[runners]]` entries in the order of the file.
    pub entries: Vec<Entry>,
    /// Whether the file exists.
    pub exists: bool,
    /// Whether an entry can be added; false if `runners` is an inline array.
    pub takes_entries: bool,
    /// Positions of the entries with an id, in its order, and by that of the file. So are the next two.
    by_id: Vec<usize>,
    by_token: Vec<usize>,
    by_name: Vec<usize>,
}

impl Snapshot {
    /// Indexes the entries of a file, and sets their positions.
    #[must_use]
    pub fn new(mut entries: Vec<Entry>, takes_entries: bool) -> Self {
        for (position, entry) in entries.iter_mut().enumerate() {
            entry.position = position;
        }
        Self {
            by_id: ordered(&entries, |entry| entry.id),
            by_token: ordered(&entries, digest_of),
            by_name: ordered(&entries, |entry| entry.name.as_deref()),
            entries,
            exists: true,
            takes_entries,
        }
    }

    /// There is no file.
    #[must_use]
    pub fn missing() -> Self {
        Self { takes_entries: true, ..Self::default() }
    }

    /// The positions of the entries that belong to a runner: by its id, or by one of its tokens whatever the id.
    #[must_use]
    pub fn positions_of(&self, target: &EntrySelector) -> Vec<usize> {
        let by_id = target.id.map(|id| self.at(&self.by_id, |entry| entry.id.cmp(&Some(id)))).unwrap_or_default();
        let by_token = target.digests.iter().flat_map(|digest| self.at_token(*digest));
        let own = by_id.iter().chain(by_token).copied().filter(|at| target.covers(&self.entries[*at]));
        let mut own: Vec<usize> = own.collect();
        own.sort_unstable();
        own.dedup();
        own
    }

    /// The entries that belong to a runner, in the order of the file; see [`Snapshot::positions_of`].
    pub fn of(&self, target: &EntrySelector) -> impl Iterator<Item = &Entry> + use<'_> {
        self.positions_of(target).into_iter().map(|at| &self.entries[at])
    }

    /// The entries with this id at this server, in the order of the file.
    pub fn with_id(&self, url: &ServerUrl, id: RunnerId) -> impl Iterator<Item = &Entry> {
        self.at_server(self.at(&self.by_id, |entry| entry.id.cmp(&Some(id))), url)
    }

    /// The entries with this token at this server, in the order of the file.
    pub fn with_token(&self, url: &ServerUrl, token: Digest) -> impl Iterator<Item = &Entry> {
        self.at_server(self.at_token(token), url)
    }

    /// The entries of this name at this server, in the order of the file.
    pub fn named(&self, url: &ServerUrl, name: &str) -> impl Iterator<Item = &Entry> {
        self.at_server(self.at(&self.by_name, |entry| entry.name.as_deref().cmp(&Some(name))), url)
    }

    fn at_server<'s>(&'s self, positions: &'s [usize], url: &ServerUrl) -> impl Iterator<Item = &'s Entry> {
        let entries = positions.iter().map(|at| &self.entries[*at]);
        entries.filter(move |entry| entry.url.as_ref() == Some(url))
    }

    fn at_token(&self, token: Digest) -> &[usize] {
        self.at(&self.by_token, |entry| digest_of(entry).cmp(&Some(token)))
    }

    /// The positions in an index whose entry has the wanted key.
    fn at<'s>(&'s self, positions: &'s [usize], order: impl Fn(&Entry) -> Ordering) -> &'s [usize] {
        let first = positions.partition_point(|at| order(&self.entries[*at]) == Ordering::Less);
        let count = positions[first..].partition_point(|at| order(&self.entries[*at]) == Ordering::Equal);
        &positions[first..first + count]
    }
}

fn digest_of(entry: &Entry) -> Option<Digest> {
    Some(entry.token.token()?.digest())
}

/// The positions of the entries that have a key, ordered by it.
fn ordered<'e, K: Ord>(entries: &'e [Entry], key: impl Fn(&'e Entry) -> Option<K>) -> Vec<usize> {
    let has_key = |at: &usize| key(&entries[*at]).is_some();
    let mut positions: Vec<usize> = (0..entries.len()).filter(has_key).collect();
    // Stable: equal keys stay in the order of the file.
    positions.sort_by_key(|at| key(&entries[*at]));
    positions
}
