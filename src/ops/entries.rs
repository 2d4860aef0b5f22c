//! Removing one of several entries of a runner, which the others go on using.

use std::path::PathBuf;

use super::{Disk, EntryFate, Error, Ops, RecordMove, Runner, Server};
use crate::model::{RunnerKey, StateName, Timestamp};
use crate::secret::Token;
use crate::store::{self, Edit, Entry, EntrySelector, Record};

impl<S: Server, D: Disk> Ops<S, D> {
    /// Removes these entries of a runner from config.toml; sends nothing. The record stays if `others` of its entries
    /// stay, and follows one of them if it had the name of a removed one, or was `enrolled_as` that: the enrollment has no
    /// runner any more then.
    /// Returns the file that keeps the last removed entry.
    ///
    /// # Errors
    /// [`Error::Disk`]; [`Error::Replaced`], before anything is removed, if an entry has got a token that neither the runner
    /// nor one of the others has: it may be the only copy.
    pub async fn remove_entries_of(
        &self,
        runner: &mut Runner,
        removed: &[Entry],
        others: &[Entry],
        enrolled_as: Option<&str>,
        now: Timestamp,
    ) -> Result<Option<PathBuf>, Error> {
        let copied: Vec<_> = others.iter().filter_map(|entry| entry.token.token().map(Token::digest)).collect();
        let is_sole_copy = |token: &Token| !copied.contains(&token.digest()) && !runner.has_had(token);
        if !others.is_empty() && removed.iter().filter_map(|entry| entry.token.token()).any(is_sole_copy) {
            return Err(Error::Replaced(runner.label().to_owned()));
        }
        let is_enrolled = |name: &str| removed.iter().any(|entry| entry.name.as_deref() == Some(name));
        let enrolled_as = enrolled_as.filter(|name| is_enrolled(name));
        let is_named = enrolled_as.is_some() || removed.iter().any(|entry| entry.name == runner.record.name);
        if is_named && !others.is_empty() {
            self.part_from_enrollment(runner, enrolled_as, now).await?;
        }
        let _lock = self.lock(runner).await?;
        if others.is_empty() {
            self.check_settled(runner).await?;
            return self.retire(runner, EntryFate::Drop, now).await;
        }
        let mut dropped_to = None;
        for entry in removed {
            let own = runner.target();
            let digests = own.digests.iter().chain(&copied).copied().collect();
            let target = EntrySelector { name: entry.name.clone(), digests, ..own };
            let by_token = EntrySelector { id: None, ..target.clone() };
            for target in [target, by_token] {
                for text in self.disk.texts(target.clone()).await? {
                    dropped_to = self.disk.keep_dropped(runner.label(), &text, now).await?.or(dropped_to);
                }
                match self.disk.edit(Edit::Remove { target }).await {
                    Ok(_) | Err(store::Error::NoSuchEntry { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        if is_named {
            // An entry with another runner's id has no more than a token that a person has put there: its name is that
            // one's.
            let is_its = |entry: &&Entry| entry.id.is_none() || entry.id == runner.record.id;
            runner.record.name = others.iter().filter(is_its).find_map(|entry| entry.name.clone());
            self.save_record(runner).await?;
        }
        Ok(dropped_to)
    }

    /// The runner goes on as one that was found. Its enrollment keeps the record of a retired runner, which keeps a running
    /// daemon from registering another one.
    async fn part_from_enrollment(
        &self,
        runner: &mut Runner,
        enrolled_as: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let (Some(digest), Some(_), true) = (runner.digest(), &runner.record.enrollment, self.disk.has_state()) else {
            return Ok(());
        };
        let mut left = Runner::blank(runner.record.key.clone(), runner.record.origin, runner.site.clone()).record;
        left.enrollment.clone_from(&runner.record.enrollment);
        left.name = enrolled_as.map(str::to_owned).or_else(|| runner.record.name.clone());
        (left.state, left.since) = (Some(StateName::Retired), Some(now));
        let from = runner.record.key.clone();
        let key = RunnerKey::found(&runner.record.url, runner.record.id, digest);
        let record = Record { key, enrollment: None, ..runner.record.clone() };
        let change =
            RecordMove { from, record, is_recorded: runner.is_recorded(), is_stored: runner.variable.is_none() };
        match self.move_and_leave(&change, Some(left)).await? {
            Some(moved) => {
                runner.record = moved.record;
                Ok(())
            }
            None => Err(Error::Replaced(runner.label().to_owned())),
        }
    }
}
