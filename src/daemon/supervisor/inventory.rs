//! Inventories while the daemon serves: one at a time, and the runners that they find are taken up.

use std::collections::BTreeSet;
use std::rc::Rc;

use tokio::time::Instant;

use super::super::announcements::log_found;
use super::super::events::record_config_error;
use super::super::worker::{RunnerCommand, UnregisteredElsewhere};
use super::{INVENTORY_RETRY, InventoryResult, ReloadStage, Supervisor};
use crate::clock::Clock;
use crate::engine::{Config, Engine, Inventory, ManagedRunner, retake_inventory};
use crate::error_chain::chain;
use crate::model::RunnerKey;
use crate::ops::{Disk, Server, is_own};
use crate::status::Phase;
use crate::store::{EntrySelector, Snapshot};

impl<S: Server, D: Disk, C: Clock> Supervisor<S, D, C> {
    /// Takes an inventory, now or after the one that is under way.
    pub(super) fn look_for_runners(&mut self, unregistered: UnregisteredElsewhere) {
        let wanted =
            [self.next_inventory, self.missed_inventory.take()].into_iter().flatten().fold(unregistered, Ord::max);
        if !self.inventory.is_empty() {
            self.next_inventory = Some(wanted);
            return;
        }
        self.next_inventory = None;
        self.missed_inventory = Some(wanted);
        let (engine, config) = (Rc::clone(&self.shared.engine), Rc::clone(&self.config));
        let served: BTreeSet<_> = self.roster.keys().cloned().collect();
        let replays = self.replays;
        self.inventory.spawn_local(async move { take_again(&engine, &config, &served, replays).await });
    }

    /// Serves the runners of an inventory that are not served yet; `None` is one that has panicked.
    pub(super) fn take_over(&mut self, taken: Option<InventoryResult>) {
        if self.next_inventory.is_some() {
            // It is out of date.
            return self.look_for_runners(UnregisteredElsewhere::LeaveAlone);
        }
        match taken {
            Some(Ok((inventory, snapshot))) => {
                let unregistered = self.missed_inventory.take().unwrap_or(UnregisteredElsewhere::LeaveAlone);
                self.unreadable = None;
                self.shared.registry.report_config(None);
                self.replays = false;
                self.retry_at = inventory.is_awaited.then(|| Instant::now() + INVENTORY_RETRY);
                self.serve_new(unregistered, inventory, &snapshot);
            }
            Some(Err(error)) => {
                let text = chain(&error).to_string();
                if self.unreadable.as_ref() == Some(&text) {
                    tracing::debug!(error = text, "config.toml cannot be read still");
                } else {
                    tracing::warn!(
                        error = text,
                        "config.toml has changed and cannot be read: keeping the last known state"
                    );
                    record_config_error(&self.shared.registry, self.shared.engine.now(), &text);
                }
                self.shared.registry.report_config(Some(&text));
                self.unreadable = Some(text);
                self.retry_at = Some(Instant::now() + INVENTORY_RETRY);
            }
            // That has been logged.
            None => self.retry_at = Some(Instant::now() + INVENTORY_RETRY),
        }
        if self.reload == ReloadStage::Inventory {
            self.reload = ReloadStage::Done;
            if self.shared.registry.is_in_force() {
                tracing::info!("reloaded");
            } else {
                tracing::warn!(
                    "the reload is done: files on the disk are invalid, and what was read before stays in force"
                );
            }
            self.shared.registry.finish_reload();
            self.enter(Phase::Serving);
        }
    }

    fn serve_new(&mut self, unregistered: UnregisteredElsewhere, inventory: Inventory, snapshot: &Snapshot) {
        for error in &inventory.errors {
            tracing::error!("{error}");
        }
        let is_first = std::mem::take(&mut self.has_new_settings);
        for warning in &inventory.warnings {
            if is_first { tracing::warn!("{warning}") } else { tracing::debug!("{warning}") }
        }
        self.announce_found(&inventory);
        // The next inventory, at the end of such a worker, gives its runner to the enrollment.
        for key in &inventory.handovers {
            self.roster.tell(key, RunnerCommand::HandOver);
        }
        for managed in inventory.runners {
            let key = &managed.runner.record.key;
            if self.roster.note_twin(key, managed.twin_of.is_some()) {
                self.roster.tell(key, RunnerCommand::Twin(managed.twin_of.clone()));
            }
            // One that a person has registered again since has a token.
            let is_left_alone = unregistered == UnregisteredElsewhere::LeaveAlone
                && managed.runner.record.credential.is_none()
                && self.unregistered_elsewhere.contains(key);
            let is_resting = self.resting.contains_key(key);
            if is_left_alone || is_resting || self.is_served(&managed, snapshot) {
                continue;
            }
            let former = self.former_workers(&managed, snapshot);
            for key in &former {
                self.roster.tell(key, RunnerCommand::HandOver);
            }
            if former.is_empty() {
                tracing::info!(runner = managed.runner.label(), "serving a new runner");
                self.spawn(managed);
            }
        }
    }

    /// Logs what is done with the runners that were only found in config.toml: when there are any for the first time, and
    /// when the settings change that.
    pub(super) fn announce_found(&mut self, inventory: &Inventory) {
        let Some((count, policy)) = inventory.found(&self.config) else { return };
        if self.announced_found.replace(policy) != Some(policy) {
            log_found(count, policy);
        }
    }

    /// The workers that serve an enrollment's runner under the keys of enrollments that are gone. Without a state directory
    /// no record says so, and the inventory does not know of them.
    fn former_workers(&self, managed: &ManagedRunner, snapshot: &Snapshot) -> Vec<RunnerKey> {
        if managed.enrollment.is_none() || self.shared.engine.ops.disk().has_state() {
            return Vec::new();
        }
        let target = managed.runner.target();
        let own: Vec<_> = snapshot.of(&target).collect();
        let is_its = |target: &EntrySelector| own.iter().any(|entry| is_own(target, entry));
        let is_enrolled = |key: &RunnerKey| self.config.enrollments.iter().any(|enrollment| enrollment.key == *key);
        self.roster.keys_of(is_its).into_iter().filter(|key| !is_enrolled(key)).collect()
    }

    /// Whether a worker has this runner's key, or workers answer for every entry that it would. The runner of an enrollment
    /// has its key once it is taken over: its entry may hold the token of another one by then.
    fn is_served(&self, managed: &ManagedRunner, snapshot: &Snapshot) -> bool {
        if self.roster.contains(&managed.runner.record.key) {
            return true;
        }
        let target = managed.runner.target();
        let mut own = snapshot.of(&target).peekable();
        managed.enrollment.is_none()
            && own.peek().is_some()
            && own.all(|entry| self.roster.answers_for(|target| is_own(target, entry)))
    }
}

/// Reads the runners again. A panic cuts an operation short like the end of the process does.
async fn take_again<S: Server, D: Disk, C: Clock>(
    engine: &Engine<S, D, C>,
    config: &Config,
    served: &BTreeSet<RunnerKey>,
    replays: bool,
) -> InventoryResult {
    let unfinished = if replays { engine.ops.replay(engine.now()).await?.unfinished } else { Vec::new() };
    let (mut inventory, snapshot) = retake_inventory(&engine.ops, config, served).await?;
    for (key, unfinished) in unfinished {
        let managed = inventory.runners.iter_mut().find(|managed| managed.runner.record.key == key);
        managed.into_iter().for_each(|managed| managed.unfinished = Some(unfinished.clone()));
    }
    Ok((inventory, snapshot))
}
