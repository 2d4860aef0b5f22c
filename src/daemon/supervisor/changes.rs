//! What a change of the settings, of config.toml or of a secret means for the workers.

use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use super::super::SettingsResult;
use super::super::config_change::ConfigChange;
use super::super::events::{record_config, record_settings, record_settings_error};
use super::super::store_watch::StoreEvent;
use super::super::worker::{FileState, RunnerCommand, Secrets, UnregisteredElsewhere};
use super::{INVENTORY_RETRY, ReloadStage, Supervisor};
use crate::clock::Clock;
use crate::engine::Config;
use crate::error_chain::chain;
use crate::files::forget_late_reads;
use crate::ops::{Disk, Error, Server};
use crate::sharing;
use crate::store::{Difference, EntrySelector};

impl<S: Server, D: Disk, C: Clock> Supervisor<S, D, C> {
    /// New settings on request: every runner is looked at again.
    pub(super) fn reload(&mut self, config: SettingsResult, asked_at: Instant) {
        self.reload = ReloadStage::Inventory;
        forget_late_reads();
        self.report_settings(config.as_ref().err());
        if let Ok(config) = config {
            if config != *self.config {
                record_settings(&self.shared.registry, self.shared.engine.now());
            }
            self.take_settings(config);
        }
        self.shared.engine.ops.forget_tls();
        self.files.feed.reloaded();
        self.store_watch.open(&self.config, self.shared.engine.ops.shares().as_ref(), true);
        self.config_changed(FileState::Still, UnregisteredElsewhere::RegisterAgain);
        self.roster.tell_all(&RunnerCommand::TryAgain { asked_at });
    }

    /// Settings after one of their files changed: agent.toml, or a token file.
    pub(super) fn settings_changed(&mut self, config: SettingsResult) {
        forget_late_reads();
        self.report_settings(config.as_ref().err());
        match config {
            Ok(config) if config != *self.config => {
                record_settings(&self.shared.registry, self.shared.engine.now());
                self.take_settings(config);
                self.config_changed(FileState::Changing, UnregisteredElsewhere::LeaveAlone);
                tracing::info!("agent.toml has changed: its settings are in force");
            }
            Ok(_) => self.hand_out_secrets(),
            Err(_) => {}
        }
    }

    /// Reports why the settings on the disk are not in force.
    fn report_settings(&self, error: Option<&String>) {
        let registry = &self.shared.registry;
        if let Some(error) = error {
            record_settings_error(registry, self.shared.engine.now(), error);
        }
        registry.report_settings(error);
        self.shared.hooks.see_settings(error.map(String::as_str), self.shared.engine.now());
    }

    fn take_settings(&mut self, config: Config) {
        self.unregistered_elsewhere.retain(|key| config.enrollments.iter().any(|wanted| wanted.key == *key));
        self.config = Rc::new(config);
        self.files.feed.publish(&self.config);
        self.shared.hooks.publish(&self.config);
        self.shared.hooks.note_present(self.roster.keys().cloned(), self.shared.engine.now());
        self.has_new_settings = true;
        self.expect_enrolled();
        self.secrets = Rc::new(Secrets::read(&self.config, &self.secrets));
        self.roster.tell_all(&RunnerCommand::Settings(Rc::clone(&self.config), Rc::clone(&self.secrets)));
        self.store_watch.open(&self.config, self.shared.engine.ops.shares().as_ref(), false);
        self.store_watch.follow(&self.config, self.shared.engine.ops.shares().as_ref(), false);
    }

    /// Another machine has changed a shared runner, or the settings name another store.
    pub(super) fn store_changed(&mut self, event: StoreEvent) {
        let ops = &self.shared.engine.ops;
        match event {
            StoreEvent::Changed((name, report)) => {
                let shared =
                    self.config.enrollments.iter().find(|enrollment| enrollment.share_as.as_ref() == Some(&name));
                if let Some(enrollment) = shared {
                    self.roster.tell(&enrollment.key, RunnerCommand::Store(report));
                }
            }
            StoreEvent::Opened(opened) => match *opened {
                Ok(shares) => {
                    ops.share_in(shares);
                    self.store_watch.follow(&self.config, ops.shares().as_ref(), true);
                }
                Err(error @ sharing::Error::Unreadable { .. }) => tracing::error!(
                    error = chain(&error),
                    "the store of [sharing] cannot be opened: going on with the one before, and trying again"
                ),
                Err(error) => tracing::error!(
                    error = chain(&error),
                    hint = error.hint(),
                    "the store of [sharing] cannot be used: going on with the one before; correct it, then reload"
                ),
            },
        }
    }

    /// Reads the secrets once for all workers.
    pub(super) fn hand_out_secrets(&mut self) {
        self.secrets = Rc::new(Secrets::read(&self.config, &self.secrets));
        self.roster.tell_all(&RunnerCommand::SecretsChanged(Rc::clone(&self.secrets)));
        self.files.feed.files_changed();
        self.store_watch.look_at_secrets(self.shared.engine.ops.shares().as_ref());
    }

    /// Lets every worker compare its entry, and looks for runners that are not served yet.
    fn config_changed(&mut self, file: FileState, unregistered: UnregisteredElsewhere) {
        self.roster.tell_all(&RunnerCommand::Changed { file, unregistered });
        self.look_for_runners(unregistered);
    }

    /// Reads config.toml, now or after the read that is under way.
    pub(super) fn read_config(&mut self) {
        self.is_read_due = !self.reading.is_empty();
        if self.is_read_due {
            return;
        }
        let file = self.file;
        let (engine, config, known) =
            (Rc::clone(&self.shared.engine), Rc::clone(&self.config), Arc::clone(&self.known));
        self.reading.spawn_local(async move { (file, ConfigChange::read(&engine, &config, &known).await) });
    }

    /// Lets the workers compare their entries that differ from the last known version of config.toml. Once the file has been
    /// still, so do those whose entry is missing. Looks for runners that are not served yet if others can be concerned.
    pub(super) fn compare(&mut self, file: FileState, read: Result<ConfigChange, Error>) {
        if self.is_read_due {
            // It is out of date.
            return self.read_config();
        }
        // An inventory says why the file cannot be read. Once it can be, everything that has changed is compared.
        let Ok(ConfigChange { snapshot, difference, is_own, concerns_others }) = read else {
            if file == FileState::Still {
                self.still_at.get_or_insert(Instant::now() + INVENTORY_RETRY);
            }
            return self.look_for_runners(UnregisteredElsewhere::LeaveAlone);
        };
        let is_still = file == FileState::Still;
        // A new token that this process has written is known to the worker that wrote it.
        let concerns_others = concerns_others || self.roster.has_twins();
        let is_news = !difference.is_empty() && (concerns_others || !is_own);
        if is_news && !is_own {
            record_config(&self.shared.registry, self.shared.engine.now());
        }
        if is_news {
            self.unsettled = std::mem::take(&mut self.unsettled).and(difference);
            self.concerns_others |= concerns_others;
        }
        if is_news || is_still {
            let unsettled = &self.unsettled;
            let is_concerned = |target: &EntrySelector| {
                unsettled.concerns(target) || is_still && snapshot.positions_of(target).is_empty()
            };
            let changed = RunnerCommand::Changed { file, unregistered: UnregisteredElsewhere::LeaveAlone };
            self.roster.tell_those(is_concerned, &changed);
        }
        self.known = snapshot;
        if (is_news || is_still) && self.concerns_others {
            self.look_for_runners(UnregisteredElsewhere::LeaveAlone);
        }
        if is_still {
            (self.unsettled, self.concerns_others) = (Difference::default(), false);
            self.file = FileState::Changing;
        }
    }
}
