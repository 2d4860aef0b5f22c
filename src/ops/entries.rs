//! Removing one of several entries of a runner, which the others go on using.

use std::path::PathBuf;

use super::{Disk, EntryFate, Error, Ops, Runner, Server};
use crate::model::Timestamp;
use crate::store::{self, Edit, Entry, EntrySelector};

impl<S: Server, D: Disk> Ops<S, D> {
    /// Removes these entries of a runner from config.toml; sends nothing. The record stays if `others` of its entries
    /// stay, and follows one of them if it had the name of a removed one. Returns the file that keeps the last removed
    /// entry.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn remove_entries_of(
        &self,
        runner: &mut Runner,
        removed: &[Entry],
        others: &[Entry],
        now: Timestamp,
    ) -> Result<Option<PathBuf>, Error> {
        let _lock = self.lock(runner).await?;
        if others.is_empty() {
            self.check_settled(runner).await?;
            return self.retire(runner, EntryFate::Drop, now).await;
        }
        let mut dropped_to = None;
        for entry in removed {
            let target = EntrySelector { name: entry.name.clone(), ..runner.target() };
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
        if removed.iter().any(|entry| entry.name == runner.record.name) {
            runner.record.name = others.iter().find_map(|entry| entry.name.clone());
            self.save_record(runner).await?;
        }
        Ok(dropped_to)
    }
}
