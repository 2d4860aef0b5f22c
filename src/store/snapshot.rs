//! One version of config.toml, with its entries by what identifies a runner.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher as _};

use super::edit::EntrySelector;
use super::entry::Entry;
use crate::files::Exposure;
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
    /// How many versions of the file, up to this one, were found and not written by this process.
    pub found: u64,
    /// How another user could have written it.
    pub exposure: Option<Exposure>,
    by_id: Index,
    by_token: Index,
    by_name: Index,
}

/// The entries that have a key: a hash of it, and the position in the file, in this order. Two keys may share a hash. A
/// search touches no entry but those that it finds.
#[derive(Debug, Default)]
struct Index(Box<[(u32, u32)]>);

impl Index {
    fn new(entries: &[Entry], hash: impl Fn(&Entry) -> Option<u32>) -> Self {
        let positions = entries.iter().zip(0..);
        let mut index: Vec<_> = positions.filter_map(|(entry, at)| Some((hash(entry)?, at))).collect();
        index.sort_unstable();
        Self(index.into())
    }

    /// The positions of the entries whose key has this hash, in the order of the file.
    fn at(&self, hash: u32) -> impl Iterator<Item = usize> {
        let first = self.0.partition_point(|(known, _)| *known < hash);
        self.0[first..].iter().take_while(move |(known, _)| *known == hash).map(|(_, at)| *at as usize)
    }
}

impl Snapshot {
    /// Indexes the entries of a file, and sets their positions.
    #[must_use]
    pub fn new(mut entries: Vec<Entry>, takes_entries: bool) -> Self {
        for (position, entry) in entries.iter_mut().enumerate() {
            entry.position = position;
        }
        Self {
            by_id: Index::new(&entries, |entry| entry.id.map(hash)),
            by_token: Index::new(&entries, |entry| digest_of(entry).map(hash)),
            by_name: Index::new(&entries, |entry| entry.name.as_deref().map(hash)),
            entries,
            exists: true,
            takes_entries,
            found: 0,
            exposure: None,
        }
    }

    /// The same with the number of versions that were found.
    #[must_use]
    pub fn with_found(self, found: u64) -> Self {
        Self { found, ..self }
    }

    /// The same, of a file that another user could have written in this way.
    #[must_use]
    pub fn with_exposure(self, exposure: Option<Exposure>) -> Self {
        Self { exposure, ..self }
    }

    /// There is no file.
    #[must_use]
    pub fn missing() -> Self {
        Self { takes_entries: true, ..Self::default() }
    }

    /// The positions of the entries that belong to a runner: by its id, or by one of its tokens whatever the id.
    #[must_use]
    pub fn positions_of(&self, target: &EntrySelector) -> Vec<usize> {
        let by_id = target.id.into_iter().flat_map(|id| self.by_id.at(hash(id)));
        let by_token = target.digests.iter().flat_map(|digest| self.by_token.at(hash(digest)));
        let is_own = |entry: &Entry| target.id.is_some() && entry.id == target.id || target.has_token_of(entry);
        let own = by_id.chain(by_token).filter(|at| is_own(&self.entries[*at]) && target.covers(&self.entries[*at]));
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
        self.at_server(self.by_id.at(hash(id)), url).filter(move |entry| entry.id == Some(id))
    }

    /// The entries with this token at this server, in the order of the file.
    pub fn with_token(&self, url: &ServerUrl, token: Digest) -> impl Iterator<Item = &Entry> {
        self.at_server(self.by_token.at(hash(token)), url).filter(move |entry| digest_of(entry) == Some(token))
    }

    /// The number of entries with this token, at any server.
    #[must_use]
    pub fn count_of(&self, token: Digest) -> usize {
        self.by_token.at(hash(token)).filter(|at| digest_of(&self.entries[*at]) == Some(token)).count()
    }

    /// The entries of this name at this server, in the order of the file.
    pub fn named(&self, url: &ServerUrl, name: &str) -> impl Iterator<Item = &Entry> {
        let named = self.at_server(self.by_name.at(hash(name)), url);
        named.filter(move |entry| entry.name.as_deref() == Some(name))
    }

    /// What this version differs in from another one. Where an entry is in the file counts only beside the others.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Difference {
        let is_same = |(one, other): &(&Entry, &Entry)| one.says_the_same(other);
        let before = self.entries.iter().zip(&other.entries).take_while(is_same).count();
        let (mine, theirs) = (&self.entries[before..], &other.entries[before..]);
        let after = mine.iter().rev().zip(theirs.iter().rev()).take_while(is_same).count();
        let (mine, theirs) = (&mine[..mine.len() - after], &theirs[..theirs.len() - after]);
        let key = |entry: &Entry| (entry.id, digest_of(entry), entry.name.clone());
        let runner = |entry: &Entry| (entry.id, entry.name.clone(), entry.url.clone());
        let mut runners: BTreeMap<_, i64> = BTreeMap::new();
        mine.iter().for_each(|entry| *runners.entry(runner(entry)).or_default() += 1);
        theirs.iter().for_each(|entry| *runners.entry(runner(entry)).or_default() -= 1);
        let mut known: BTreeMap<_, VecDeque<&Entry>> = BTreeMap::new();
        theirs.iter().for_each(|entry| known.entry(key(entry)).or_default().push_back(entry));
        let (mut entries, mut is_reordered, mut last) = (Vec::new(), false, None);
        for entry in mine {
            match known.get_mut(&key(entry)).and_then(VecDeque::pop_front) {
                Some(former) => {
                    is_reordered |= last.is_some_and(|last| last > former.position);
                    last = Some(former.position);
                    if !entry.says_the_same(former) {
                        entries.extend([entry, former].map(Entry::clone));
                    }
                }
                None => entries.push(entry.clone()),
            }
        }
        entries.extend(known.into_values().flatten().cloned());
        let has_same_runners = runners.iter().all(|((id, ..), count)| id.is_some() && *count == 0);
        Difference { entries: Self::new(entries, true), is_reordered, has_same_runners }
    }

    fn at_server(&self, positions: impl Iterator<Item = usize>, url: &ServerUrl) -> impl Iterator<Item = &Entry> {
        positions.map(|at| &self.entries[at]).filter(move |entry| entry.url.as_ref() == Some(url))
    }
}

/// What two versions of config.toml differ in.
#[derive(Debug, Default)]
pub struct Difference {
    /// The entries that only one of them has, so a changed one twice. Their positions say nothing.
    pub entries: Snapshot,
    /// Whether the entries that both have are in another order.
    pub is_reordered: bool,
    /// Whether the entries that differ have the same ids, names and servers in both, so that only what else they say differs.
    pub has_same_runners: bool,
}

impl Difference {
    /// Whether nothing about the entries differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.entries.is_empty() && !self.is_reordered
    }

    /// Whether it concerns the entries of a runner.
    #[must_use]
    pub fn concerns(&self, target: &EntrySelector) -> bool {
        self.is_reordered || !self.entries.positions_of(target).is_empty()
    }

    /// Adds what a later version differs in from the one before.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        let mut entries = self.entries.entries;
        entries.extend(later.entries.entries);
        Self {
            entries: Snapshot::new(entries, true),
            is_reordered: self.is_reordered || later.is_reordered,
            has_same_runners: self.has_same_runners && later.has_same_runners,
        }
    }
}

fn digest_of(entry: &Entry) -> Option<Digest> {
    Some(entry.token.token()?.digest())
}

#[expect(clippy::cast_possible_truncation, reason = "half a hash is one")]
fn hash(key: impl Hash) -> u32 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish() as u32
}
