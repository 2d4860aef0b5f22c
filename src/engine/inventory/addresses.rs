//! Runners that config.toml names at another address than their record: their GitLab has moved, or another one has a copy
//! of it.

use std::collections::BTreeMap;

use super::ManagedRunner;
use super::relation::current_digest;
use crate::model::{RunnerId, ServerUrl};
use crate::ops::Runner;
use crate::secret::Digest;
use crate::store::Record;

/// The number of runners that a warning names.
const NAMED: usize = 3;

/// Runners by their tokens and ids, whatever their address.
#[derive(Debug)]
pub struct Addresses<'r> {
    runners: &'r [ManagedRunner],
    by_token: BTreeMap<Digest, Vec<usize>>,
    by_id: BTreeMap<RunnerId, Vec<usize>>,
}

impl<'r> Addresses<'r> {
    /// The runners of an inventory.
    #[must_use]
    pub fn of(runners: &'r [ManagedRunner]) -> Self {
        let mut all = Self { runners, by_token: BTreeMap::new(), by_id: BTreeMap::new() };
        for (number, managed) in runners.iter().enumerate() {
            for digest in tokens_of(&managed.runner.record) {
                all.by_token.entry(digest).or_default().push(number);
            }
            if let Some(id) = managed.runner.record.id {
                all.by_id.entry(id).or_default().push(number);
            }
        }
        all
    }

    /// The runner at this address that shares a token with a record, of now or before; else the one with the id that the
    /// server has named for the record.
    #[must_use]
    pub fn at(&self, record: &Record, url: &ServerUrl) -> Option<&'r Runner> {
        let by_token = tokens_of(record).find_map(|token| self.with_token(token, |there| there == url));
        by_token.or_else(|| {
            let known = self.by_id.get(&record.named_id()?)?;
            known.iter().map(|number| &self.runners[*number].runner).find(|runner| runner.record.url == *url)
        })
    }

    /// The other address at which a runner shares a token with a record.
    fn of_record(&self, record: &Record) -> Option<&'r ServerUrl> {
        let found = tokens_of(record).find_map(|token| self.with_token(token, |there| *there != record.url));
        found.map(|runner| &runner.record.url)
    }

    fn with_token(&self, token: Digest, is_there: impl Fn(&ServerUrl) -> bool) -> Option<&'r Runner> {
        let known = self.by_token.get(&token)?;
        known.iter().map(|number| &self.runners[*number].runner).find(|runner| is_there(&runner.record.url))
    }
}

/// The tokens that a record has or had.
fn tokens_of(record: &Record) -> impl Iterator<Item = Digest> {
    current_digest(record).into_iter().chain(record.former_digests.iter().copied())
}

/// One warning for all records without an entry that have one at the same other address, and one for each other record.
pub(super) fn warnings(absent: &[Record], runners: &[ManagedRunner]) -> Vec<String> {
    if absent.is_empty() {
        return Vec::new();
    }
    let addresses = Addresses::of(runners);
    let mut moved: BTreeMap<(&ServerUrl, &ServerUrl), Vec<&Record>> = BTreeMap::new();
    let mut warnings = Vec::new();
    for record in absent {
        match addresses.of_record(record) {
            Some(new) => moved.entry((&record.url, new)).or_default().push(record),
            None => warnings.push(format!(
                "runner `{}` at {} is no longer in config.toml and is not managed: restore its entry, or remove its record `{}.json`",
                record.label(),
                record.url,
                record.key
            )),
        }
    }
    warnings.extend(moved.into_iter().map(|((old, new), records)| {
        let names: Vec<_> = records.iter().take(NAMED).map(|record| format!("`{}`", record.label())).collect();
        let more = if records.len() > NAMED { ", …" } else { "" };
        let number = if records.len() == 1 { "1 runner".to_owned() } else { format!("{} runners", records.len()) };
        format!(
            "config.toml names {new} for {number} recorded at {old} ({}{more}): if this GitLab has a new address, run `runner-agent relocate {old} {new}`, which keeps how they were made and their former tokens; else restore the address",
            names.join(", ")
        )
    }));
    warnings
}
