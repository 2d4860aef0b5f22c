//! What an enrollment, a record and an entry have to do with each other.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Origin, RunnerKey, ServerUrl, Site, TlsFiles};
use crate::ops::{Enrollment, RegistrationSource, Runner, given_tokens, is_own, server_of_given};
use crate::secret::{Digest, Token};
use crate::store::{Entry, EntryProblem, Record, Snapshot};

/// What this machine has of the runner that an enrollment means.
///
/// The first row that applies decides. *Its name* is the enrollment's name at its server; for a given token, an entry
/// or record with that very token counts as one of its name.
///
/// | this machine has | relation | then |
/// |---|---|---|
/// | a given token that is another enrollment's too, at the same server | [`Taken`](Self::Taken) | nothing: that one serves it |
/// | a record under the enrollment's key, with a token | [`Own`](Self::Own) | it is served |
/// | an entry of its name that a record belongs to, or a record of its name without an entry (of several, one of its name) | [`Recorded`](Self::Recorded) | the record moves to the enrollment's key |
/// | a usable entry of its name without a record | [`Found`](Self::Found) | it gets a record under the enrollment's key |
/// | an entry of its name that cannot be used | [`Unusable`](Self::Unusable) | nothing, until it is corrected |
/// | the given token in another enrollment's runner | [`Taken`](Self::Taken) | nothing: that one serves it |
/// | an entry of its name without a token | [`Nothing`](Self::Nothing) | it is registered, and the entry is completed |
/// | none of these | [`Nothing`](Self::Nothing) | it is registered |
///
/// Never counted: the runners of other enrollments, and an entry with a former token of the enrollment's own retired
/// runner, which a new registration renews. A given token in the entry of a record that has another name and another token
/// gives the record to no enrollment: its worker finds out first whose token it is. How the runner came to be does not
/// matter: a one-shot `register`, a `verify` and an earlier daemon leave the same records.
#[derive(Clone, Debug)]
pub enum Relation {
    /// Its own record, with a token.
    Own(Record),
    /// A record under another key.
    Recorded(Record),
    /// An entry without a record.
    Found(Entry),
    /// An entry of its name that cannot be used.
    Unusable {
        /// The line of the entry.
        line: usize,
        /// What is wrong with it.
        problem: EntryProblem,
    },
    /// Another enrollment serves a runner with the same given token.
    Taken {
        /// The other enrollment's key.
        by: RunnerKey,
    },
    /// No runner; the enrollment's own record, if it has one without a token.
    Nothing(Option<Record>),
}

/// The keys of enrollments with their servers.
pub type Enrolled = BTreeMap<RunnerKey, ServerUrl>;

/// The relation of an enrollment, and what else could have been meant.
#[derive(Clone, Debug)]
pub struct Related {
    /// The relation.
    pub relation: Relation,
    /// How many runners of its name at its server there are besides; they stay as they are.
    pub others: usize,
}

/// Finds out what this machine has of the runner that an enrollment means; see [`Relation`].
///
/// `enrolled` are the keys of all enrollments with their servers: the daemon's leave each other's runners alone. A
/// command that enrolls something once passes none: the daemon's runner is the one that it means.
#[must_use]
pub fn relate(enrollment: &Enrollment, enrolled: &Enrolled, records: &[Record], snapshot: &Snapshot) -> Related {
    let mut holdings = Holdings::new(snapshot);
    records.iter().for_each(|record| holdings.add(record));
    holdings.relate(enrollment, enrolled)
}

/// The records with a token, the entries, and which belong together.
pub(super) struct Holdings<'h> {
    snapshot: &'h Snapshot,
    /// The record that an entry belongs to, by the entry's position.
    owners: BTreeMap<usize, &'h Record>,
    /// All records that an entry belongs to, by its id or by one of their tokens.
    claims: BTreeMap<usize, Vec<&'h Record>>,
    /// The records with a token and without an entry.
    without_entry: Vec<&'h Record>,
    by_key: BTreeMap<&'h RunnerKey, &'h Record>,
}

impl<'h> Holdings<'h> {
    pub(super) fn new(snapshot: &'h Snapshot) -> Self {
        Self {
            snapshot,
            owners: BTreeMap::new(),
            claims: BTreeMap::new(),
            without_entry: Vec::new(),
            by_key: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, record: &'h Record) {
        self.by_key.insert(&record.key, record);
        if record.credential.is_none() {
            return;
        }
        let positions = self.snapshot.positions_of(&runner_of(record).target());
        if positions.is_empty() {
            self.without_entry.push(record);
        }
        for position in positions {
            self.claims.entry(position).or_default().push(record);
            let entry = &self.snapshot.entries[position];
            let is_better =
                self.owners.get(&position).is_none_or(|other| holds_token(record, entry) && !holds_token(other, entry));
            if is_better {
                self.owners.insert(position, record);
            }
        }
    }

    pub(super) fn relate(&self, enrollment: &Enrollment, enrolled: &Enrolled) -> Related {
        let own = self.by_key.get(&enrollment.key).copied().filter(|own| own.url == enrollment.site.url);
        if let Some(own) = own.filter(|own| own.credential.is_some()) {
            return Related { relation: Relation::Own(own.clone()), others: 0 };
        }
        let given = given_token(enrollment);
        let is_anothers =
            |record: &Record| record.key != enrollment.key && enrolled.get(&record.key) == Some(&record.url);
        let mut runners = Vec::new();
        let mut unusable = None;
        let mut taken = None;
        let name = Some(&enrollment.entry.name);
        for entry in self.meant(enrollment, given) {
            let is_given = given.is_some_and(|given| has_token(entry, given));
            match self.owner_for(entry.position, name.filter(|_| !is_given)) {
                Some(record) if is_anothers(record) => {
                    if is_given {
                        taken = Some(record.key.clone());
                    }
                }
                Some(record) => runners.push(Relation::Recorded(record.clone())),
                None if own.is_some_and(|own| is_renewed(own, entry)) => {}
                None => match entry.access() {
                    Ok(_) => runners.push(Relation::Found(entry.clone())),
                    Err(_) if entry.is_incomplete() => {}
                    Err(problem) => {
                        unusable = unusable.or(Some(Relation::Unusable { line: entry.line, problem }));
                    }
                },
            }
        }
        for record in self.without_entry.iter().copied().filter(|record| record.url == enrollment.site.url) {
            let has_given = given.is_some() && current_digest(record) == given;
            let is_named =
                record.name.as_ref() == Some(&enrollment.entry.name) && !enrollment.was_displaced_by(record, own);
            match is_anothers(record) {
                false if has_given || is_named => runners.push(Relation::Recorded(record.clone())),
                true if has_given => taken = Some(record.key.clone()),
                true | false => {}
            }
        }
        dedup(&mut runners);
        // A person has put another runner's token into the entry: the record of its name goes before that runner's.
        let is_own = |record: &Record, holder: &Record| {
            let is_given = record.given_to.is_some() && record.given_to == holder.id;
            record.name.as_ref() == name && (holder.name.as_ref() != name || is_given)
        };
        if let Some(Relation::Recorded(holder)) = runners.first()
            && (given.is_none() || current_digest(holder) != given)
            && let Some(own) = runners.iter().position(|it| matches!(it, Relation::Recorded(it) if is_own(it, holder)))
        {
            runners[..=own].rotate_right(1);
        }
        let others = runners.len().saturating_sub(1);
        let first = runners.into_iter().next();
        let taken = taken.map(|by| Relation::Taken { by });
        let relation = first.or(unusable).or(taken).unwrap_or_else(|| Relation::Nothing(own.cloned()));
        Related { relation, others }
    }

    /// The record that an entry belongs to. One of the enrollment's name goes before one of another name whose token a
    /// person has put into the entry, unless that is the given token: it may have a good token of its own.
    fn owner_for(&self, position: usize, name: Option<&String>) -> Option<&'h Record> {
        let owner = self.owners.get(&position).copied()?;
        if name.is_none() || owner.name.as_ref() == name {
            return Some(owner);
        }
        let claims = self.claims.get(&position).map_or(&[][..], Vec::as_slice);
        Some(claims.iter().copied().find(|record| record.name.as_ref() == name).unwrap_or(owner))
    }

    /// The entries that an enrollment can mean: those with its given token first, then by name.
    fn meant(&self, enrollment: &Enrollment, given: Option<Digest>) -> Vec<&'h Entry> {
        let url = &enrollment.site.url;
        let by_token = given.map(|given| self.snapshot.with_token(url, given)).into_iter().flatten();
        let has_given = |entry: &&Entry| given.is_some_and(|given| has_token(entry, given));
        let by_name = self.snapshot.named(url, &enrollment.entry.name).filter(|entry| !has_given(entry));
        by_token.chain(by_name).collect()
    }
}

/// Several entries of one runner are one runner.
fn dedup(runners: &mut Vec<Relation>) {
    let mut keys = BTreeSet::new();
    let mut found: Vec<Runner> = Vec::new();
    runners.retain(|relation| match relation {
        Relation::Recorded(record) => keys.insert(record.key.clone()),
        Relation::Found(entry) => {
            let is_new = found.iter().all(|runner| !is_own(&runner.target(), entry));
            found.extend(Runner::found(entry).ok());
            is_new
        }
        Relation::Own(_) | Relation::Unusable { .. } | Relation::Taken { .. } | Relation::Nothing(_) => true,
    });
}

/// Whether a new registration of the retired runner renews this entry. A given token may be good still: the runner
/// was not deleted with this machine's manager.
fn is_renewed(own: &Record, entry: &Entry) -> bool {
    let is_gone = match own.origin {
        Origin::Registered | Origin::V1 => true,
        Origin::Given => false,
    };
    is_gone && entry.token.token().is_some_and(|token| own.former_digests.contains(&token.digest()))
}

/// The enrollments with a given token whose runner another one at the same server serves, with the key of that one.
pub(super) fn with_one_token(enrollments: &[Enrollment], records: &[Record]) -> BTreeMap<RunnerKey, RunnerKey> {
    let given = given_tokens(enrollments);
    let served_by = |(enrollment, token): &(&Enrollment, Token)| {
        let server = server_of_given(&given, records, &enrollment.site.url, token)?;
        (server.key != enrollment.key).then(|| (enrollment.key.clone(), server.key.clone()))
    };
    given.iter().filter_map(served_by).collect()
}

/// The enrollments whose given token a person has put into the entry of a recorded runner that has another token and
/// another name, each with what the record belongs to: the enrollment that means it by its name, or else the runner itself,
/// which was only found. The record stays that one's, and may have a good token of its own. Its worker finds out whose token
/// is in the entry, and a later inventory gives the runner of that token to the enrollment that it was given to.
pub(super) fn left_to_their_name(enrollments: &[Enrollment], relations: &[Related]) -> BTreeMap<RunnerKey, String> {
    let is_named = |enrollment: &Enrollment, record: &Record| record.name.as_ref() == Some(&enrollment.entry.name);
    let recorded = enrollments.iter().zip(relations).filter_map(|(enrollment, related)| match &related.relation {
        Relation::Recorded(record) => Some((enrollment, record)),
        Relation::Own(_)
        | Relation::Found(_)
        | Relation::Unusable { .. }
        | Relation::Taken { .. }
        | Relation::Nothing(_) => None,
    });
    let (named, others): (Vec<_>, Vec<_>) = recorded.partition(|(enrollment, record)| is_named(enrollment, record));
    let left_to = others.into_iter().filter_map(|(enrollment, record)| {
        let given = given_token(enrollment).filter(|given| current_digest(record) != Some(*given))?;
        let is_its = |(_, other): &&(&Enrollment, &Record)| other.key == record.key && other.url == record.url;
        let owner = match named.iter().find(is_its) {
            Some((by, _)) => format!("enrollment `{}`", by.key),
            // A token that was the runner's before is no other one's.
            None if record.former_digests.contains(&given) || record.seed_digest == Some(given) => return None,
            None => format!("runner `{}`", record.name.as_deref().unwrap_or(record.key.as_str())),
        };
        Some((enrollment.key.clone(), owner))
    });
    left_to.collect()
}

/// The token of an enrollment with a given token; `None` for any other, and if it cannot be read.
fn given_token(enrollment: &Enrollment) -> Option<Digest> {
    match &enrollment.source {
        RegistrationSource::Given(source) => source.read().ok().map(|token| token.digest()),
        RegistrationSource::Registration(_) | RegistrationSource::V1(_) | RegistrationSource::Created(_) => None,
    }
}

fn has_token(entry: &Entry, token: Digest) -> bool {
    entry.token.token().is_some_and(|own| own.digest() == token)
}

/// Whether an entry holds the record's current token.
pub(super) fn holds_token(record: &Record, entry: &Entry) -> bool {
    record.credential.as_ref().is_some_and(|credential| entry.token.token() == Some(&credential.token))
}

pub(super) fn current_digest(record: &Record) -> Option<Digest> {
    record.credential.as_ref().map(|credential| credential.token.digest())
}

/// The runner of a record, to compare it with entries.
#[must_use]
pub fn runner_of(record: &Record) -> Runner {
    Runner::recorded(record.clone(), Site { url: record.url.clone(), tls: TlsFiles::default() })
}
