//! The managed runners: enrollments, records and entries combined.
//!
//! [`relate`] decides what an enrollment has to do with the records and entries of this machine; its table is on
//! [`Relation`]. Everything else follows from it: an inventory lists each runner once, under the key that it is stored
//! under, and says which records are to move to another key. The daemon moves them
//! ([`Inventory::apply_changes`]); a command leaves them where they are, so that both lock the same runner by the
//! same key.

mod addresses;
mod relation;
#[cfg(test)]
mod tests;
mod twins;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use addresses::Addresses;
pub use relation::{Enrolled, Related, Relation, relate, runner_of};

use relation::{Holdings, holds_token, left_to_their_name, with_one_token};

use super::pace::Pace;
use super::{Config, RotateFound, found_policy};
use crate::error_chain::chain;
use crate::model::{Origin, RunnerKey, Timestamp, VerifyOutcome};
use crate::ops::{Disk, Enrollment, Error, Ops, RecordMove, Runner, Server, Unfinished, is_locked, knows_token_of};
use crate::store::{self, Record, Snapshot};

/// A runner for a driver.
#[derive(Clone, Debug)]
pub struct ManagedRunner {
    /// The runner, registered or not.
    pub runner: Runner,
    /// Its enrollment; `None` for an entry that was only found in config.toml.
    pub enrollment: Option<Box<Enrollment>>,
    /// The operation that a crash interrupted.
    pub unfinished: Option<Unfinished>,
    /// An earlier runner with the same token at another address. The two may be one runner: this one is not rotated
    /// before its token is pressing, and a refusal of its token counts only after the other's present token was refused at
    /// this address too.
    ///
    /// A runner whose token was accepted after the other had replaced it is no twin: it is a runner of its own, as on a
    /// GitLab that was restored from a copy of the other.
    pub twin_of: Option<RunnerKey>,
}

/// The runners of one config.toml and its settings.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Runners of enrollments first, then entries in the order of the file. A runner whose record is to move has its
    /// present key.
    pub runners: Vec<ManagedRunner>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
    /// Enrollments that are not served because of the settings.
    pub errors: Vec<String>,
    /// Runners whose worker has to end first, because an enrollment takes them over. Filled by
    /// [`Inventory::apply_changes`].
    pub handovers: Vec<RunnerKey>,
    /// Whether an enrollment waits until another runner has found out whose token is in its entry. That may change no file.
    pub is_awaited: bool,
    changes: Vec<RecordChange>,
    /// Records of runners that are served by another record, or may be, with the key of that one.
    leftovers: Vec<(RunnerKey, Record)>,
}

/// A change of the records that follows from the settings.
#[derive(Clone, Debug)]
enum RecordChange {
    /// An enrollment takes over a runner; the text tells the user.
    TakeOver(RecordMove, String),
    /// The record gets another key or loses its enrollment.
    Move(RecordMove),
    /// The record holds nothing and its key is needed.
    Remove(RunnerKey),
}

/// Finishes what a crash interrupted, then reads the runners.
///
/// # Errors
/// [`Error::Disk`] if config.toml or the state directory cannot be read.
pub async fn take_inventory<S: Server, D: Disk>(
    ops: &Ops<S, D>,
    config: &Config,
    now: Timestamp,
) -> Result<(Inventory, Arc<Snapshot>), Error> {
    let mut unfinished: BTreeMap<_, _> = ops.replay(now).await?.unfinished.into_iter().collect();
    let records = ops.disk().records().await?;
    for damaged in &records.damaged {
        tracing::error!(error = chain(damaged), "a runner's record is damaged");
    }
    let snapshot = ops.disk().read().await?;
    let mut inventory = inventory(config, records.records, &snapshot).await;
    // A key can name two runners while one of them, which has no token yet, waits for the other's record to move.
    let (with_token, without): (Vec<_>, Vec<_>) =
        inventory.runners.iter_mut().partition(|managed| managed.runner.record.credential.is_some());
    for managed in with_token.into_iter().chain(without) {
        managed.unfinished = unfinished.remove(&managed.runner.record.key);
    }
    ops.load_held_of(inventory.runners.iter_mut().map(|managed| &mut managed.runner)).await?;
    inventory.note_leftovers(ops).await;
    Ok((inventory, snapshot))
}

/// Reads the runners again after a change, and moves the records of those that are not `served` to their new keys.
///
/// # Errors
/// As [`take_inventory`].
pub async fn retake_inventory<S: Server, D: Disk>(
    ops: &Ops<S, D>,
    config: &Config,
    served: &BTreeSet<RunnerKey>,
) -> Result<(Inventory, Arc<Snapshot>), Error> {
    let snapshot = ops.disk().read().await?;
    let mut inventory = inventory(config, ops.disk().records().await?.records, &snapshot).await;
    inventory.apply_changes(ops, served).await?;
    ops.load_held_of(inventory.runners.iter_mut().map(|managed| &mut managed.runner)).await?;
    inventory.note_leftovers(ops).await;
    Ok((inventory, snapshot))
}

/// Combines the enrollments, the records and the entries of config.toml. Waits for nothing, but lets other tasks work now
/// and then.
pub async fn inventory(config: &Config, mut records: Vec<Record>, snapshot: &Snapshot) -> Inventory {
    let taken = taken_keys(&records);
    // A list that grows leaves its former places behind, among what stays.
    let runners = Vec::with_capacity(records.len().max(snapshot.entries.len()));
    let inventory = Inventory { runners, ..Inventory::default() };
    let (claimed, absent, pace) = (BTreeSet::new(), Vec::new(), Pace::default());
    let mut listing = Listing { snapshot, taken, inventory, claimed, absent, pace };
    for managed in listing.enrolled(config, &mut records).await {
        listing.add(managed);
        listing.pace.step().await;
    }
    listing.add_recorded(records).await;
    listing.add_found().await;
    let Listing { mut inventory, absent, .. } = listing;
    inventory.warnings.extend(addresses::warnings(&absent, &inventory.runners));
    twins::mark(&mut inventory.runners).await;
    inventory
}

/// The keys of the records with a token. One that has no entry can have the key that another runner's entry claims.
#[must_use]
pub fn taken_keys(records: &[Record]) -> BTreeSet<RunnerKey> {
    records.iter().filter(|record| record.credential.is_some()).map(|record| record.key.clone()).collect()
}

/// What an entry and the record of a runner have in common, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Match {
    /// The entry holds its present token.
    Token,
    /// The entry has its id.
    Id,
    /// The entry holds a former token.
    Former,
}

/// An inventory in the making.
struct Listing<'l> {
    snapshot: &'l Snapshot,
    /// The keys of the records.
    taken: BTreeSet<RunnerKey>,
    inventory: Inventory,
    /// The positions of entries that a runner has.
    claimed: BTreeSet<usize>,
    /// Records whose runner has no entry.
    absent: Vec<Record>,
    pace: Pace,
}

impl Listing<'_> {
    /// The runners of the enrollments, in the order of the settings; takes their records out of `records`.
    async fn enrolled(&mut self, config: &Config, records: &mut Vec<Record>) -> Vec<ManagedRunner> {
        if config.enrollments.is_empty() {
            return Vec::new();
        }
        let of = |enrollment: &Enrollment| (enrollment.key.clone(), enrollment.site.url.clone());
        let enrolled: Enrolled = config.enrollments.iter().map(of).collect();
        let mut holdings = Holdings::new(self.snapshot);
        for record in records.iter() {
            holdings.add(record);
            self.pace.step().await;
        }
        let served_by = with_one_token(&config.enrollments, records);
        let relate = |enrollment: &Enrollment| match served_by.get(&enrollment.key) {
            Some(by) => Related { relation: Relation::Taken { by: by.clone() }, others: 0 },
            None => holdings.relate(enrollment, &enrolled),
        };
        let mut relations = Vec::new();
        for enrollment in &config.enrollments {
            relations.push(relate(enrollment));
            self.pace.step().await;
        }
        drop(holdings);
        let left = left_to_their_name(&config.enrollments, &relations);
        let mut taken = Enrolled::new();
        let mut runners = Vec::new();
        for (enrollment, related) in config.enrollments.iter().zip(&relations) {
            if let Some(by) = left.get(&enrollment.key) {
                self.inventory.warnings.push(format!(
                    "the token of enrollment `{}` is in the entry of {by}: that one finds out first whose token it is",
                    enrollment.key
                ));
                self.inventory.is_awaited = true;
                continue;
            }
            if let Some(managed) = self.adopted(enrollment, related, &mut taken) {
                self.check_share(config, enrollment, &managed.runner);
                runners.push(managed);
            }
            self.pace.step().await;
        }
        let is_ours =
            |record: &Record| [&taken, &enrolled].iter().any(|keys| keys.get(&record.key) == Some(&record.url));
        records.retain(|record| !is_ours(record));
        for enrollment in &config.enrollments {
            self.leave_former_server(enrollment, records);
        }
        runners
    }

    /// A `[[runner]]` that selects the runner by its id says that nothing rotates it. The settings alone cannot know whose id
    /// that is.
    fn check_share(&mut self, config: &Config, enrollment: &Enrollment, runner: &Runner) {
        let Some(share) = enrollment.share_as.as_ref().filter(|_| config.policy_of(runner).shared == Some(true)) else {
            return;
        };
        self.inventory.errors.push(format!(
            "enrollment `{}` has `share_as = \"{share}\"`, and the [[runner]] of its runner has `shared = true`: this machine does not rotate the token; remove one of the two",
            enrollment.key
        ));
    }

    /// A record of an enrollment that names another server now. The old runner stays managed, without an enrollment.
    fn leave_former_server(&mut self, enrollment: &Enrollment, records: &[Record]) {
        let Some(record) = records.iter().find(|record| record.key == enrollment.key) else { return };
        let Some(credential) = &record.credential else {
            self.inventory.changes.push(RecordChange::Remove(enrollment.key.clone()));
            return;
        };
        // Whose entry is at the new address has not stayed behind.
        if self.snapshot.with_token(&enrollment.site.url, credential.token.digest()).next().is_none() {
            self.inventory.warnings.push(format!(
            "enrollment `{}` now names {}: its runner at {} stays registered; unregister it if it is no longer needed",
            enrollment.key, enrollment.site.url, record.url
        ));
        }
        let key = RunnerKey::found(&record.url, record.id, credential.token.digest());
        self.change(enrollment.key.clone(), Record { key, enrollment: None, ..record.clone() });
    }

    /// The runner of an enrollment; `None` if nothing may be done for it.
    fn adopted(&mut self, enrollment: &Enrollment, related: &Related, taken: &mut Enrolled) -> Option<ManagedRunner> {
        let site = || enrollment.site.clone();
        let name = &enrollment.entry.name;
        let runner = match &related.relation {
            Relation::Own(record) => {
                let mut runner = Runner::recorded(record.clone(), site());
                runner.record.enrollment = Some(enrollment.key.as_str().to_owned());
                // The enrollment was gone for a while: the record on the disk says so still, and is read again.
                if record.enrollment != runner.record.enrollment {
                    self.change(record.key.clone(), runner.record.clone());
                }
                runner
            }
            Relation::Recorded(record) => Runner::recorded(record.clone(), site()),
            Relation::Found(entry) => Runner::found_beside(entry, |key| self.taken.contains(key)).ok()?,
            Relation::Unusable { line, problem } => {
                self.inventory.warnings.push(format!(
                    "enrollment `{}` is not registered: config.toml already has a runner `{name}` at {}, whose entry in line {line} cannot be used: {problem}",
                    enrollment.key, enrollment.site.url
                ));
                return None;
            }
            Relation::Taken { by } => {
                self.inventory.errors.push(format!(
                    "enrollment `{}` has the same token as enrollment `{by}`, which serves the runner: remove one of them",
                    enrollment.key
                ));
                return None;
            }
            Relation::Nothing(own) => {
                let mut runner = match own {
                    Some(record) => Runner::recorded(record.clone(), site()),
                    None => Runner::blank(enrollment.key.clone(), enrollment.source.origin(), site()),
                };
                runner.record.enrollment = Some(enrollment.key.as_str().to_owned());
                runner
            }
        };
        let is_free = taken.get(&runner.record.key) != Some(&runner.record.url);
        if !is_free {
            self.inventory.warnings.push(format!(
                "enrollment `{}` is not registered: another enrollment has the runner `{name}` at {}",
                enrollment.key, enrollment.site.url
            ));
            return None;
        }
        taken.insert(runner.record.key.clone(), runner.record.url.clone());
        if matches!(related.relation, Relation::Recorded(_) | Relation::Found(_)) {
            self.take_over(enrollment, &runner, related.others);
        }
        Some(ManagedRunner { runner, enrollment: Some(Box::new(enrollment.clone())), unfinished: None, twin_of: None })
    }

    fn take_over(&mut self, enrollment: &Enrollment, runner: &Runner, others: usize) {
        let besides =
            if others == 0 { String::new() } else { format!("; {others} more of this name stay as they are") };
        let warning = format!(
            "this machine already has a runner `{}` at {}: enrollment `{}` takes it over instead of registering another one{besides}",
            runner.label(),
            enrollment.site.url,
            enrollment.key
        );
        let from = runner.record.key.clone();
        let origin =
            if self.is_named_otherwise(enrollment, &runner.record) { Origin::Given } else { runner.record.origin };
        let record = Record {
            key: enrollment.key.clone(),
            enrollment: Some(enrollment.key.as_str().to_owned()),
            origin,
            ..runner.record.clone()
        };
        let moved =
            RecordMove { from, record, is_recorded: runner.is_recorded(), is_stored: runner.variable.is_none() };
        self.inventory.changes.push(RecordChange::TakeOver(moved, warning));
    }

    /// Whether a person has put the runner's token into the entry of the enrollment, while its own entry has another name:
    /// the enrollment did not make it, and never deletes it.
    fn is_named_otherwise(&self, enrollment: &Enrollment, record: &Record) -> bool {
        let mut own = self.snapshot.of(&runner_of(record).target());
        record.name.as_ref() != Some(&enrollment.entry.name) && own.any(|entry| entry.name == record.name)
    }

    /// Adds the runners of the other records. Of several records of one entry, the one with its token comes first, and one
    /// whose former token it holds last.
    async fn add_recorded(&mut self, records: Vec<Record>) {
        let mut ranked = Vec::with_capacity(records.len());
        for record in records {
            ranked.push((self.rank(&record), Box::new(record)));
            self.pace.step().await;
        }
        ranked.sort_by_key(|(rank, _)| *rank);
        for (_, record) in ranked {
            self.pace.step().await;
            let record = *record;
            // A record that moves to another key loses its enrollment on the way.
            let moves = |listing: &Self| listing.inventory.changes.iter().any(|change| change.is_of(&record));
            // What is noted about the registration of an enrollment that is gone concerns every other one of its name.
            if record.enrollment.is_some() && record.credential.is_none() && !moves(self) {
                self.change(record.key.clone(), Record { enrollment: None, ..record.clone() });
            }
            let Some(runner) = self.recorded(&record) else { continue };
            if record.enrollment.is_some() && !moves(self) {
                self.change(record.key.clone(), runner.record.clone());
            }
            self.add(ManagedRunner { runner, enrollment: None, unfinished: None, twin_of: None });
        }
    }

    /// The position of a record's first entry, and what the two have in common; after all others without one.
    fn rank(&self, record: &Record) -> (usize, Match) {
        let Some(first) = self.snapshot.positions_of(&runner_of(record).target()).first().copied() else {
            return (usize::MAX, Match::Former);
        };
        let entry = &self.snapshot.entries[first];
        let common = match entry.id {
            _ if holds_token(record, entry) => Match::Token,
            Some(id) if record.id == Some(id) => Match::Id,
            Some(_) | None => Match::Former,
        };
        (first, common)
    }

    fn recorded(&mut self, record: &Record) -> Option<Runner> {
        record.credential.as_ref()?;
        let mut runner = runner_of(record);
        let own = self.snapshot.positions_of(&runner.target());
        let Some(first) = own.first() else {
            // The runner is served by another record, whose token may be the dead one of the two: served by both, each would
            // replace the other's token.
            if self.merge_leftover(record) {
                return None;
            }
            // Its entry waits to be written, or a person has given it to another runner.
            if runner.record.entry_text.is_some() || runner.record.given_to.is_some() {
                return Some(runner);
            }
            self.note_for_its_name(record);
            self.absent.push(record.clone());
            return None;
        };
        // The entry that is another runner's can hold a former token of this one, which has an entry of its own too.
        if self.claimed.contains(first)
            && (self.merge_leftover(record) || own.iter().all(|at| self.claimed.contains(at)))
        {
            return None;
        }
        runner.record.enrollment = None;
        Some(runner)
    }

    /// A move that was interrupted leaves the record under both keys. Of two records of one runner, as after an entry
    /// without its id had got a new token, only one has the entry: the token of the other may be the good one. Returns
    /// whether the record is one of these.
    fn merge_leftover(&mut self, record: &Record) -> bool {
        let is_copy = |managed: &&ManagedRunner| {
            managed.enrollment.is_some()
                && managed.runner.record.url == record.url
                && managed.runner.record.key != record.key
                && knows_token_of(&managed.runner.record, record)
        };
        if let Some(managed) = self.inventory.runners.iter().find(is_copy) {
            self.change(record.key.clone(), managed.runner.record.clone());
            return true;
        }
        // The id of its entry is a claim until the server has named it, and this record's token is named so: asking about
        // it does no harm.
        let is_claimed = |mine: &Record| {
            mine.url == record.url && mine.named_id().is_none() && mine.id.is_some() && mine.id == record.confirmed_id
        };
        let is_same =
            |managed: &&ManagedRunner| managed.runner.is_same_as(record) || is_claimed(&managed.runner.record);
        let Some(managed) = self.inventory.runners.iter().find(is_same) else { return false };
        self.inventory.leftovers.push((managed.runner.record.key.clone(), record.clone()));
        true
    }

    /// An entry without an id had another token for a while, and the server has not said yet whose that is: the runner of
    /// its name asks about it once its own token is refused.
    fn note_for_its_name(&mut self, record: &Record) {
        let is_accepted = record.last_verify.as_ref().is_some_and(|last| last.outcome == VerifyOutcome::Accepted);
        if record.id.is_some() || is_accepted {
            return;
        }
        // Another runner's token stays that runner's where the server names it.
        let is_of_name = |managed: &&ManagedRunner| {
            let mine = &managed.runner.record;
            mine.url == record.url && mine.name.is_some() && mine.name == record.name && mine.named_id().is_some()
        };
        let namesakes = self.inventory.runners.iter().filter(is_of_name).map(|managed| &managed.runner.record.key);
        let leftovers: Vec<_> = namesakes.map(|key| (key.clone(), record.clone())).collect();
        self.inventory.leftovers.extend(leftovers);
    }

    /// Adds the entries without a record.
    async fn add_found(&mut self) {
        for entry in &self.snapshot.entries {
            self.pace.step().await;
            if self.claimed.contains(&entry.position) {
                continue;
            }
            match Runner::found_beside(entry, |key| self.taken.contains(key)) {
                Ok(runner) => self.add(ManagedRunner { runner, enrollment: None, unfinished: None, twin_of: None }),
                Err(error) => self.inventory.warnings.push(error.to_string()),
            }
        }
    }

    /// Adds a runner and claims its entries. It is reached as its first one says that no other runner has.
    fn add(&mut self, mut managed: ManagedRunner) {
        let own = self.snapshot.positions_of(&managed.runner.target());
        let unclaimed = own.iter().find(|position| !self.claimed.contains(position));
        if let Some(first) = unclaimed.or(own.first()) {
            managed.runner.take_from(&self.snapshot.entries[*first]);
        }
        self.claimed.extend(own);
        self.inventory.runners.push(managed);
    }

    fn change(&mut self, from: RunnerKey, record: Record) {
        self.inventory.changes.push(RecordChange::Move(RecordMove {
            from,
            record,
            is_recorded: true,
            is_stored: true,
        }));
    }
}

impl RecordChange {
    /// Whether it concerns this record.
    fn is_of(&self, record: &Record) -> bool {
        match self {
            Self::TakeOver(change, _) | Self::Move(change) => {
                change.from == record.key && change.record.url == record.url
            }
            Self::Remove(key) => *key == record.key,
        }
    }
}

impl Inventory {
    /// Logs the errors and warnings.
    pub fn log_warnings(&self) {
        for error in &self.errors {
            tracing::error!("{error}");
        }
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
    }

    /// How many runners were only found in config.toml, and the rule for their tokens; `None` for none.
    #[must_use]
    pub fn found(&self, config: &Config) -> Option<(usize, RotateFound)> {
        let policies = self
            .runners
            .iter()
            .filter_map(|ManagedRunner { runner, enrollment, .. }| found_policy(config, runner, enrollment.as_deref()));
        policies.fold(None, |known, policy| Some((known.map_or(0, |(count, _)| count) + 1, policy)))
    }

    /// Lets the runners know the tokens of their other records, and what is kept beside those.
    async fn note_leftovers<S: Server, D: Disk>(&mut self, ops: &Ops<S, D>) {
        for (key, record) in std::mem::take(&mut self.leftovers) {
            let is_of = |managed: &&mut ManagedRunner| {
                managed.runner.record.key == key && managed.runner.record.url == record.url
            };
            if let Some(managed) = self.runners.iter_mut().find(is_of) {
                ops.note_record(&mut managed.runner, record).await;
            }
        }
    }

    /// Moves the records to their new keys, before the daemon starts the drivers of these runners. Logs which runners
    /// were taken over.
    ///
    /// `served` are the keys whose workers run: their records stay until the worker has ended.
    ///
    /// # Errors
    /// [`Error::Disk`]. A runner that another process works on is no error; it stays as it is.
    pub async fn apply_changes<S: Server, D: Disk>(
        &mut self,
        ops: &Ops<S, D>,
        served: &BTreeSet<RunnerKey>,
    ) -> Result<(), Error> {
        // A key is vacated before it is taken.
        let mut changes = std::mem::take(&mut self.changes);
        changes.sort_by_key(|change| matches!(change, RecordChange::TakeOver(..)));
        for change in changes {
            match change {
                RecordChange::Remove(key) if served.contains(&key) => {}
                RecordChange::Remove(key) => ops.remove_blank_record(&key).await?,
                RecordChange::Move(change) if served.contains(&change.from) || served.contains(&change.record.key) => {}
                // The worker of the runner ends, and that of the enrollment, if it is still to register one. Until then
                // no other worker serves it.
                RecordChange::TakeOver(change, _)
                    if served.contains(&change.from) || served.contains(&change.record.key) =>
                {
                    self.runners.retain(|managed| {
                        managed.runner.record.key != change.from || managed.runner.record.url != change.record.url
                    });
                    let workers = [change.from, change.record.key];
                    self.handovers.extend(workers.into_iter().filter(|key| served.contains(key)));
                }
                RecordChange::Move(change) => {
                    self.apply(ops, &change).await?;
                }
                RecordChange::TakeOver(change, warning) => {
                    if self.apply(ops, &change).await? {
                        tracing::warn!("{warning}");
                    }
                }
            }
        }
        twins::mark(&mut self.runners).await;
        Ok(())
    }

    /// Moves one record; returns whether it was moved.
    async fn apply<S: Server, D: Disk>(&mut self, ops: &Ops<S, D>, change: &RecordMove) -> Result<bool, Error> {
        // After an interrupted move the runner is listed under its new key already.
        let has_key = |key: &RunnerKey, managed: &ManagedRunner| {
            managed.runner.record.key == *key && managed.runner.record.url == change.record.url
        };
        let former = self.runners.iter().position(|managed| has_key(&change.from, managed));
        let present = || self.runners.iter().position(|managed| has_key(&change.record.key, managed));
        let position = former.or_else(present);
        match ops.move_record(change).await {
            Ok(Some(moved)) => {
                for (key, _) in self.leftovers.iter_mut().filter(|(key, _)| *key == change.from) {
                    key.clone_from(&change.record.key);
                }
                if let Some(managed) = position.map(|position| &mut self.runners[position]) {
                    managed.runner.record = moved.record;
                    managed.unfinished = managed.unfinished.take().or(moved.unfinished);
                }
                Ok(true)
            }
            Ok(None) => {
                tracing::debug!(runner = %change.from, "its record has changed: it is left to the next inventory");
                if let Some(position) = former {
                    self.runners.remove(position);
                }
                Ok(false)
            }
            Err(error) if is_locked(&error) => {
                tracing::warn!(runner = %change.from, error = chain(&error), "its record cannot be moved now");
                if let Some(managed) = former.map(|position| &mut self.runners[position]) {
                    managed.enrollment = None;
                }
                Ok(false)
            }
            // A damaged file of one runner must not stop the others.
            Err(error @ Error::Disk(store::Error::Record { .. } | store::Error::Held { .. })) => {
                tracing::error!(runner = %change.from, error = chain(&error), "its record cannot be moved: it is not served until this is corrected");
                if let Some(position) = former {
                    self.runners.remove(position);
                }
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
