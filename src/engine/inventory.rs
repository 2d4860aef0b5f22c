//! The managed runners: enrollments, records and entries combined.

use std::collections::{BTreeMap, BTreeSet};

use super::Config;
use crate::error_chain::chain;
use crate::model::{RunnerKey, Site, Timestamp, TlsFiles};
use crate::ops::{Disk, Enrollment, Error, Ops, Runner, Server, Unfinished, is_own};
use crate::store::{Entry, Record, Snapshot};

/// A runner for a driver.
#[derive(Clone, Debug)]
pub struct ManagedRunner {
    /// The runner, registered or not.
    pub runner: Runner,
    /// Its enrollment; `None` for an entry that was only found in config.toml.
    pub enrollment: Option<Enrollment>,
    /// The operation that a crash interrupted.
    pub unfinished: Option<Unfinished>,
}

/// The runners of one config.toml and its settings.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Runners of enrollments first, then entries in the order of the file.
    pub runners: Vec<ManagedRunner>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
    /// Records that no longer belong to an enrollment, with their old keys.
    renamed: Vec<(RunnerKey, Record)>,
}

/// Finishes what a crash interrupted, then reads the runners.
///
/// # Errors
/// [`Error::Disk`] if config.toml or the state directory cannot be read.
pub async fn take_inventory<S: Server, D: Disk>(
    ops: &Ops<S, D>,
    config: &Config,
    now: Timestamp,
) -> Result<(Inventory, Snapshot), Error> {
    let mut unfinished: BTreeMap<_, _> = ops.replay(now).await?.unfinished.into_iter().collect();
    let records = ops.disk().records().await?;
    for damaged in &records.damaged {
        tracing::error!(error = chain(damaged), "a runner's record is damaged");
    }
    let snapshot = ops.disk().read().await?;
    let mut inventory = inventory(config, records.records, &snapshot);
    for managed in &mut inventory.runners {
        managed.unfinished = unfinished.remove(&managed.runner.record.key);
    }
    Ok((inventory, snapshot))
}

/// Reads the runners again after a change, and moves records to their new keys.
///
/// # Errors
/// As [`take_inventory`].
pub async fn retake_inventory<S: Server, D: Disk>(
    ops: &Ops<S, D>,
    config: &Config,
) -> Result<(Inventory, Snapshot), Error> {
    let snapshot = ops.disk().read().await?;
    let inventory = inventory(config, ops.disk().records().await?.records, &snapshot);
    inventory.save_renamed(ops).await?;
    Ok((inventory, snapshot))
}

/// Combines the enrollments, the records and the entries of config.toml.
#[must_use]
pub fn inventory(config: &Config, mut records: Vec<Record>, snapshot: &Snapshot) -> Inventory {
    let mut inventory = Inventory::default();
    let mut claimed = BTreeSet::new();
    for enrollment in &config.enrollments {
        let runner = enrolled(enrollment, &mut records, snapshot, &mut inventory);
        inventory.add(runner, Some(enrollment.clone()), snapshot, &mut claimed);
    }
    records.sort_by_cached_key(|record| position(record, snapshot));
    for record in records {
        let key = record.key.clone();
        let was_enrolled = record.enrollment.is_some();
        let Some(runner) = recorded(record, snapshot, &claimed, &mut inventory.warnings) else { continue };
        if was_enrolled {
            inventory.renamed.push((key, runner.record.clone()));
        }
        inventory.add(runner, None, snapshot, &mut claimed);
    }
    for entry in &snapshot.entries {
        if claimed.contains(&entry.position) {
            continue;
        }
        match Runner::found(entry) {
            Ok(runner) => inventory.add(runner, None, snapshot, &mut claimed),
            Err(error) => inventory.warnings.push(error.to_string()),
        }
    }
    inventory
}

/// The position of its first entry in config.toml; after all others if it has none.
fn position(record: &Record, snapshot: &Snapshot) -> usize {
    let target = Runner::recorded(record.clone(), site(record)).target();
    let own = snapshot.entries.iter().find(|entry| is_own(&target, entry));
    own.map_or(usize::MAX, |entry| entry.position)
}

impl Inventory {
    /// Logs the warnings.
    pub fn log_warnings(&self) {
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
    }

    /// Moves the records that no longer belong to an enrollment to their new keys. The daemon does so before it starts
    /// any driver.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn save_renamed<S: Server, D: Disk>(&self, ops: &Ops<S, D>) -> Result<(), Error> {
        for (old, record) in &self.renamed {
            ops.rename_record(old, record.clone()).await?;
        }
        Ok(())
    }

    /// Adds a runner and claims its entries.
    fn add(
        &mut self,
        mut runner: Runner,
        enrollment: Option<Enrollment>,
        snapshot: &Snapshot,
        claimed: &mut BTreeSet<usize>,
    ) {
        let target = runner.target();
        claimed.extend(snapshot.entries.iter().filter(|entry| is_own(&target, entry)).map(|entry| entry.position));
        runner.look_up(snapshot);
        self.runners.push(ManagedRunner { runner, enrollment, unfinished: None });
    }
}

fn enrolled(
    enrollment: &Enrollment,
    records: &mut Vec<Record>,
    snapshot: &Snapshot,
    inventory: &mut Inventory,
) -> Runner {
    let mut runner = match records.iter().position(|record| record.key == enrollment.key) {
        Some(position) if records[position].url == enrollment.site.url => {
            Runner::recorded(records.remove(position), enrollment.site.clone())
        }
        Some(position) => {
            inventory.warnings.push(moved_away(enrollment, &mut records[position]));
            inventory.renamed.push((enrollment.key.clone(), records[position].clone()));
            blank(enrollment)
        }
        None => match same_name(enrollment, records, snapshot) {
            Some(entry) => taken_over(enrollment, entry, &mut inventory.warnings).unwrap_or_else(|| blank(enrollment)),
            None => blank(enrollment),
        },
    };
    runner.record.enrollment = Some(enrollment.key.as_str().to_owned());
    runner
}

fn blank(enrollment: &Enrollment) -> Runner {
    Runner::blank(enrollment.key.clone(), enrollment.source.origin(), enrollment.site.clone())
}

/// The enrollment now names another server. The old runner stays managed, without an enrollment. Returns a warning.
fn moved_away(enrollment: &Enrollment, record: &mut Record) -> String {
    if let Some(credential) = &record.credential {
        record.key = RunnerKey::found(&record.url, record.id, credential.token.digest());
    }
    record.enrollment = None;
    format!(
        "enrollment `{}` now names {}: its runner at {} stays registered; unregister it if it is no longer needed",
        enrollment.key, enrollment.site.url, record.url
    )
}

/// The only usable entry with this name and server and without a record. Taking it over avoids a second registration
/// after the state directory was lost.
fn same_name<'a>(enrollment: &Enrollment, records: &[Record], snapshot: &'a Snapshot) -> Option<&'a Entry> {
    let is_known = |entry: &Entry| {
        records.iter().any(|record| is_own(&Runner::recorded(record.clone(), site(record)).target(), entry))
    };
    let mut candidates = snapshot.entries.iter().filter(|entry| {
        entry.name.as_deref() == Some(enrollment.entry.name.as_str())
            && entry.url.as_ref() == Some(&enrollment.site.url)
            && entry.access().is_ok()
            && !is_known(entry)
    });
    candidates.next().filter(|_| candidates.next().is_none())
}

fn taken_over(enrollment: &Enrollment, entry: &Entry, warnings: &mut Vec<String>) -> Option<Runner> {
    let mut runner = Runner::found(entry).ok()?;
    runner.record.key = enrollment.key.clone();
    warnings.push(format!(
        "config.toml already has a runner `{}` at {}: enrollment `{}` takes it over instead of registering another one",
        enrollment.entry.name, enrollment.site.url, enrollment.key
    ));
    Some(runner)
}

fn recorded(
    record: Record,
    snapshot: &Snapshot,
    claimed: &BTreeSet<usize>,
    warnings: &mut Vec<String>,
) -> Option<Runner> {
    record.credential.as_ref()?;
    let site = site(&record);
    let mut runner = Runner::recorded(record, site);
    let target = runner.target();
    let mut own = snapshot.entries.iter().filter(|entry| is_own(&target, entry));
    let Some(entry) = own.next() else {
        if runner.record.entry_text.is_some() {
            return Some(runner);
        }
        warnings.push(format!(
            "runner `{}` at {} is no longer in config.toml and is not managed: restore its entry, or remove its record `{}.json`",
            runner.label(),
            runner.record.url,
            runner.record.key
        ));
        return None;
    };
    if claimed.contains(&entry.position) {
        return None;
    }
    runner.record.enrollment = None;
    Some(runner)
}

fn site(record: &Record) -> Site {
    Site { url: record.url.clone(), tls: TlsFiles::default() }
}
