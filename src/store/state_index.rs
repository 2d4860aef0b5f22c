//! Finds records by what they hold, and journals by their tokens, without reading all of them each time.
//!
//! The kernel tells by inotify which files of the directory have changed, whoever changed them; only those are read again.
//! Where it cannot, and in a directory of a few files, everything is read again each time. The index is made at the first
//! question.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash as _, Hasher as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self as watches, CreateFlags, ReadFlags, WatchFlags};

use super::error::Error;
use super::files::{Seen, names_in};
use super::journal;
use super::record::{self, Record};
use super::{Pending, held};
use crate::files::{OwnDirectory, Place, look};
use crate::model::{RunnerId, RunnerKey};
use crate::secret::{Digest, Fingerprint};

/// What a record or the file beside it may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordQuery {
    /// This token: its present or a former one, or the one that it was created from.
    Token(Digest),
    /// This id, claimed or named by the server.
    Id(RunnerId),
    /// This name.
    Name(String),
    /// A candidate that the server has named for this runner.
    CandidateOf(RunnerId),
}

/// The hash of something that a record is found by. Two things may share one: a finding is a superset.
type Term = u64;

#[derive(Hash)]
enum Key<'k> {
    Token(&'k Fingerprint),
    Id(u64),
    Name(&'k str),
    CandidateOf(u64),
}

impl Key<'_> {
    fn term(&self) -> Term {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

impl RecordQuery {
    fn term(&self) -> Term {
        match self {
            Self::Token(digest) => Key::Token(&digest.fingerprint()).term(),
            Self::Id(id) => Key::Id(id.number()).term(),
            Self::Name(name) => Key::Name(name).term(),
            Self::CandidateOf(id) => Key::CandidateOf(id.number()).term(),
        }
    }
}

/// The index of one state directory.
#[derive(Default)]
pub(super) struct StateIndex {
    /// Reports changes; `None` before the first question, with a few files, and if the kernel has none to give.
    changes: Option<Changes>,
    /// By the number of a runner, for the other maps.
    runners: Vec<Known>,
    numbers: HashMap<RunnerKey, u32>,
    found: BTreeSet<(Term, u32)>,
    /// The runners with a journal, each with the token that its request was about.
    journals: BTreeMap<RunnerKey, Option<Digest>>,
}

struct Known {
    key: RunnerKey,
    /// Those of the record, and those of what is kept beside it.
    terms: [Box<[Term]>; 2],
    /// The record, if this process has written it as it is.
    written: Option<Seen>,
}

/// The kinds of files of a runner, by the ends of their names.
const SUFFIXES: [&str; 3] = [".json", ".held", ".pending"];

/// Room for a few hundred events.
const BUFFER_BYTES: usize = 16 * 1024;

/// The number of files from which a directory is watched. The kernel ends a watch in some twenty milliseconds, in which a
/// command for one runner does all its work.
const MANY_FILES: usize = 16;

/// A watched directory.
struct Changes {
    descriptor: OwnedFd,
}

/// What has changed since the last look.
enum Changed {
    These(BTreeSet<String>),
    /// Events were lost.
    Anything,
    /// The directory is another one, or events cannot be read.
    Unknown,
}

impl StateIndex {
    /// The runners whose record, or what is kept beside it, may answer a question, by key.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory cannot be read.
    pub(super) fn keys(&mut self, directory: &OwnDirectory, query: &RecordQuery) -> Result<Vec<RunnerKey>, Error> {
        self.refresh(directory)?;
        let term = query.term();
        let numbers = self.found.range((term, 0)..=(term, u32::MAX)).map(|(_, number)| *number);
        let mut keys: Vec<_> = numbers.filter_map(|number| self.runners.get(number as usize)).collect();
        keys.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(keys.into_iter().map(|known| known.key.clone()).collect())
    }

    /// The records of [`StateIndex::keys`]. A damaged one is left out.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn records(&mut self, directory: &OwnDirectory, query: &RecordQuery) -> Result<Vec<Record>, Error> {
        let mut records = Vec::new();
        for key in self.keys(directory, query)? {
            match record::read(directory, &key) {
                Ok(found) => records.extend(found),
                Err(Error::Record { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(records)
    }

    /// The runners with a reset of this token whose answer was not written. The journal of another runner that cannot be
    /// read holds up nothing.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory cannot be read.
    pub(super) fn lost_resets_of(&mut self, directory: &OwnDirectory, token: Digest) -> Result<Vec<RunnerKey>, Error> {
        self.refresh(directory)?;
        // An answer is written in place, and seen here only once the journal is closed.
        let is_lost = |key: &&RunnerKey| {
            let pending = journal::pending_of(directory, key).ok().flatten();
            pending.is_some_and(|pending: Pending| pending.is_lost_reset_of(token))
        };
        let about = self.journals.iter().filter(|(_, known)| **known == Some(token)).map(|(key, _)| key);
        Ok(about.filter(is_lost).cloned().collect())
    }

    fn refresh(&mut self, directory: &OwnDirectory) -> Result<(), Error> {
        match self.changes.as_ref().map(Changes::take) {
            Some(Changed::These(names)) => {
                names.iter().for_each(|name| self.read(directory, name));
                Ok(())
            }
            Some(Changed::Anything) => self.read_all(directory),
            None | Some(Changed::Unknown) => {
                // Before the files are read: what changes meanwhile is read again.
                self.changes = has_many_files(directory.path()).then(|| Changes::watch(directory.path())).flatten();
                self.read_all(directory)
            }
        }
    }

    fn read_all(&mut self, directory: &OwnDirectory) -> Result<(), Error> {
        let changes = self.changes.take();
        *self = Self { changes, ..Self::default() };
        let mut names: BTreeMap<String, ()> = BTreeMap::new();
        for name in names_in(directory.path())? {
            // What is beside a record is read with it.
            if let Some((key, suffix)) = name.to_str().and_then(split) {
                let suffix = if suffix == ".held" { ".json" } else { suffix };
                names.insert(format!("{key}{suffix}"), ());
            }
        }
        names.keys().for_each(|name| self.read(directory, name));
        Ok(())
    }

    /// Reads a file again that has changed, or is new or gone. One that cannot be read answers nothing.
    fn read(&mut self, directory: &OwnDirectory, name: &str) {
        let Some((key, suffix)) = split(name) else { return };
        let Ok(key) = RunnerKey::try_from(key.to_owned()) else { return };
        if suffix == ".pending" {
            match journal::pending_of(directory, &key) {
                Ok(Some(pending)) => {
                    self.journals.insert(key, pending.intent.token);
                }
                Ok(None) | Err(_) => {
                    self.journals.remove(&key);
                }
            }
            return;
        }
        if suffix == ".json" && self.is_as_written(directory, name, &key) {
            return;
        }
        let record = record::read(directory, &key).ok().flatten();
        let held = held::read(directory, &key).unwrap_or_default();
        let owners = held.candidates.iter().filter_map(|candidate| candidate.id);
        let held = owners.map(|id| Key::CandidateOf(id.number()).term()).collect();
        let record = record.map(|record| terms_of(&record)).unwrap_or_default();
        self.put(key, [Some(record), Some(held)], None);
    }

    /// Whether this process was the last one that has written a record.
    fn is_as_written(&self, directory: &OwnDirectory, name: &str, key: &RunnerKey) -> bool {
        let known = self.numbers.get(key).and_then(|number| self.runners.get(*number as usize));
        let Some(written) = known.and_then(|known| known.written) else { return false };
        look(&directory.path().join(name)).is_ok_and(|found| Seen::of(&found) == written)
    }

    /// Notes a record that this process has written: it need not be read when its change is reported.
    pub(super) fn note_written(&mut self, record: &Record, written: Option<Seen>) {
        if self.changes.is_some() && written.is_some() {
            self.put(record.key.clone(), [Some(terms_of(record)), None], written);
        }
    }

    /// Sets the terms of a runner; what is `None` stays.
    fn put(&mut self, key: RunnerKey, terms: [Option<Box<[Term]>>; 2], written: Option<Seen>) {
        let number = match self.numbers.get(&key) {
            Some(number) => *number,
            None if terms.iter().flatten().all(|terms| terms.is_empty()) => return,
            None => {
                let Ok(number) = u32::try_from(self.runners.len()) else { return };
                self.runners.push(Known { key: key.clone(), terms: Default::default(), written: None });
                self.numbers.insert(key, number);
                number
            }
        };
        let Some(known) = self.runners.get_mut(number as usize) else { return };
        known.written = written;
        let former = known.terms.clone();
        for (known, terms) in known.terms.iter_mut().zip(terms) {
            *known = terms.unwrap_or_else(|| std::mem::take(known));
        }
        if known.terms == former {
            return;
        }
        for term in former.iter().flatten() {
            self.found.remove(&(*term, number));
        }
        self.found.extend(known.terms.iter().flatten().map(|term| (*term, number)));
    }
}

fn has_many_files(directory: &Path) -> bool {
    let count = Place::own(&directory.join("-")).and_then(|place| place.count_beside(MANY_FILES));
    count.is_ok_and(|count| count == MANY_FILES)
}

/// The runner's key in a file's name, and the kind of file.
fn split(name: &str) -> Option<(&str, &'static str)> {
    SUFFIXES.into_iter().find_map(|suffix| Some((name.strip_suffix(suffix)?, suffix)))
}

fn terms_of(record: &Record) -> Box<[Term]> {
    let present = record.credential.as_ref().map(|credential| credential.token.fingerprint());
    let former = record.former_digests.iter().map(Digest::fingerprint);
    let mut tokens: BTreeSet<_> = present.into_iter().chain(former).collect();
    tokens.extend(record.former_tokens.iter().chain(&record.seed).cloned());
    let ids: BTreeSet<_> = [record.id, record.confirmed_id].into_iter().flatten().collect();
    let name = record.name.iter().map(|name| Key::Name(name).term());
    let tokens = tokens.iter().map(|token| Key::Token(token).term());
    tokens.chain(ids.into_iter().map(|id| Key::Id(id.number()).term())).chain(name).collect()
}

impl Changes {
    /// `None` if the kernel has no more watches to give.
    fn watch(directory: &Path) -> Option<Self> {
        let descriptor = watches::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
        let wanted = WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF;
        watches::add_watch(&descriptor, directory, wanted | WatchFlags::ONLYDIR).ok()?;
        Some(Self { descriptor })
    }

    fn take(&self) -> Changed {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = watches::Reader::new(&self.descriptor, &mut buffer);
        let (mut names, mut is_complete) = (BTreeSet::new(), true);
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => is_complete = false,
                Ok(event) => match event.file_name() {
                    Some(name) => {
                        names.extend(name.to_str().ok().filter(|name| split(name).is_some()).map(str::to_owned))
                    }
                    // About the directory itself.
                    None => return Changed::Unknown,
                },
                Err(rustix::io::Errno::AGAIN) if is_complete => return Changed::These(names),
                Err(rustix::io::Errno::AGAIN) => return Changed::Anything,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Changed::Unknown,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_is_watched_from_sixteen_files_on() {
        let directory = tempfile::tempdir().unwrap();
        let mut index = StateIndex::default();
        let mut is_watched_with = |files: usize| {
            (0..files).for_each(|number| std::fs::write(directory.path().join(number.to_string()), "").unwrap());
            index.refresh(&OwnDirectory::new(directory.path().to_owned())).unwrap();
            index.changes.is_some()
        };
        assert!(!is_watched_with(MANY_FILES - 1));
        assert!(is_watched_with(MANY_FILES));
    }
}
