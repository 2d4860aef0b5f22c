//! Which entries of config.toml belong to a runner, without comparing each with each.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{RunnerId, ServerUrl};
use crate::ops::Runner;
use crate::secret::Digest;
use crate::store::{Entry, Snapshot};

/// The entries of a snapshot by what identifies a runner.
pub(super) struct EntryIndex<'s> {
    entries: &'s [Entry],
    servers: BTreeMap<&'s ServerUrl, ServerEntries<'s>>,
}

/// The positions of the entries of one server.
#[derive(Default)]
struct ServerEntries<'s> {
    by_id: BTreeMap<RunnerId, Vec<usize>>,
    by_token: BTreeMap<Digest, Vec<usize>>,
    by_name: BTreeMap<&'s str, Vec<usize>>,
}

impl<'s> EntryIndex<'s> {
    pub(super) fn new(snapshot: &'s Snapshot) -> Self {
        let mut servers: BTreeMap<_, ServerEntries<'_>> = BTreeMap::new();
        for (position, entry) in snapshot.entries.iter().enumerate() {
            let Some(url) = &entry.url else { continue };
            let server = servers.entry(url).or_default();
            if let Some(id) = entry.id {
                server.by_id.entry(id).or_default().push(position);
            }
            if let Some(token) = entry.token.token() {
                server.by_token.entry(token.digest()).or_default().push(position);
            }
            if let Some(name) = &entry.name {
                server.by_name.entry(name).or_default().push(position);
            }
        }
        Self { entries: &snapshot.entries, servers }
    }

    /// The entries that belong to a runner, in the order of the file: the same as by [`crate::ops::is_own`].
    pub(super) fn of(&self, runner: &Runner) -> BTreeSet<usize> {
        let target = runner.target();
        let Some(server) = self.servers.get(&target.url) else { return BTreeSet::new() };
        let by_id = target.id.and_then(|id| server.by_id.get(&id));
        let by_token = target.digests.iter().filter_map(|digest| server.by_token.get(digest));
        by_id.into_iter().chain(by_token).flatten().copied().collect()
    }

    /// The entries of this name at this server.
    pub(super) fn named(&self, url: &ServerUrl, name: &str) -> &[usize] {
        self.servers.get(url).and_then(|server| server.by_name.get(name)).map_or(&[], Vec::as_slice)
    }

    /// The entries with this token at this server.
    pub(super) fn with_token(&self, url: &ServerUrl, token: Digest) -> &[usize] {
        self.servers.get(url).and_then(|server| server.by_token.get(&token)).map_or(&[], Vec::as_slice)
    }

    pub(super) fn entry(&self, position: usize) -> &'s Entry {
        &self.entries[position]
    }
}
