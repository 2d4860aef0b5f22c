//! What a worker does about changes from outside: files, settings, another process at work.

use std::rc::Rc;

use tokio::time::Instant;

use super::super::store_watch::StoreReport;
use super::ongoing_failure::OngoingFailure;
use super::secrets::Known;
use super::{FileState, RunnerCommand, Secrets, UnregisteredElsewhere, Worker};
use crate::clock::Clock;
use crate::engine::Config;
use crate::error_chain::chain;
use crate::lifecycle::{Active, Failed, Outcome, State};
use crate::model::{Claim, RunnerKey};
use crate::ops::{Disk, Enrollment, EntryStatus, RegistrationSource, Server};
use crate::sharing::Stored;

impl<S: Server, D: Disk, C: Clock> Worker<S, D, C> {
    pub(super) async fn handle(&mut self, command: RunnerCommand) {
        match command {
            RunnerCommand::TryAgain { asked_at } => self.try_again(asked_at).await,
            RunnerCommand::Changed { file, unregistered } => self.reconcile(file, unregistered).await,
            RunnerCommand::SecretsChanged(secrets) => self.look_at_secrets(secrets),
            RunnerCommand::Settings(config, secrets) => self.take_settings(config, secrets).await,
            RunnerCommand::Store(StoreReport { seen: Ok(stored), read_at }) => {
                self.compare_with_store(stored.as_deref(), read_at);
            }
            RunnerCommand::Store(StoreReport { seen: Err(error), read_at }) => {
                if !self.driver.runner.is_outdated_report(read_at) {
                    self.driver.runner.note_store_failure(&error);
                }
            }
            RunnerCommand::HandOver => self.hand_over().await,
            RunnerCommand::Twin(twin) => self.follow(twin).await,
        }
    }

    /// A person asks for a new attempt of everything that failed. One who asked before a registration was lost did not
    /// know of it.
    async fn try_again(&mut self, asked_at: Instant) {
        let is_lost = self.driver.state().has_lost_registration();
        if is_lost && self.driver.runner.lost_at().is_some_and(|lost_at| asked_at <= lost_at) {
            return;
        }
        if is_lost && let Err(error) = self.driver.forget_lost_registration(Some(asked_at)).await {
            tracing::warn!(
                runner = self.driver.runner.label(),
                error = chain(&error),
                "cannot forget the lost registration: reload the agent again"
            );
        }
        self.enter(Outcome::Requested);
    }

    /// What another machine has written is verified now. A registration that waits for another machine goes on.
    fn compare_with_store(&mut self, stored: Option<&Stored>, read_at: Option<Instant>) {
        if self.driver.runner.take_report(stored, read_at) {
            self.enter(Outcome::Nudged);
        }
    }

    /// Leaves the runner to the next inventory, which gives it to an enrollment. So does the worker of that enrollment,
    /// unless it has the runner already. A token that only this process has is written first: config.toml changes
    /// then, and the next inventory asks again.
    async fn hand_over(&mut self) {
        let has_runner = self.driver.enrollment.is_some() && self.driver.runner.record.credential.is_some();
        match self.driver.state() {
            State::Active(Active { unsaved: Some(_), .. }) => {}
            _ if has_runner && !self.is_superseded().await => {}
            _ => self.driver.enter(Outcome::Released),
        }
    }

    /// Whether the enrollment has got another runner, whose entry goes before that of this one.
    async fn is_superseded(&self) -> bool {
        let Some(enrollment) = &self.driver.enrollment else { return false };
        // A file that cannot be read says nothing.
        let is_superseded =
            self.shared.engine.ops.is_superseded(&self.driver.runner, enrollment).await.unwrap_or(false);
        if is_superseded {
            tracing::warn!(
                runner = self.driver.runner.label(),
                "config.toml holds another runner of its name before it: the enrollment goes on with that one, and this one is served as found"
            );
        }
        is_superseded
    }

    /// Takes new settings. A runner whose enrollment is gone is served on as a found one; one whose enrollment now
    /// names another server is left to the next inventory.
    async fn take_settings(&mut self, config: Rc<Config>, secrets: Rc<Secrets>) {
        let former_access = self.secrets.of(&self.driver).access.copied();
        self.secrets = secrets;
        let (ops, driver) = (&self.shared.engine.ops, &mut self.driver);
        let wanted = config.enrollments.iter().find(|wanted| wanted.key == driver.runner.record.key).cloned();
        driver.config = config;
        let has_moved = wanted.as_ref().is_some_and(|wanted| wanted.site.url != driver.runner.site.url);
        if has_moved || (wanted.is_none() && driver.runner.record.credential.is_none()) {
            return driver.enter(Outcome::Released);
        }
        if wanted.is_some() != driver.enrollment.is_some()
            && let Err(error) = ops.note_enrollment(&mut driver.runner, wanted.as_ref()).await
        {
            tracing::warn!(runner = driver.runner.label(), error = chain(&error), "cannot write the runner's record");
        }
        driver.enrollment = wanted.map(Box::new);
        let has_new_access = Known::is_new(self.secrets.of(&self.driver).access, former_access.as_ref());
        self.enter(if has_new_access { Outcome::SecretReplaced } else { Outcome::Nudged });
    }

    pub(super) async fn reconcile(&mut self, file: FileState, unregistered: UnregisteredElsewhere) {
        if self.driver.runner.record.credential.is_none() {
            return;
        }
        let unregistered = self.missed.take().map_or(unregistered, |missed| missed.max(unregistered));
        if unregistered == UnregisteredElsewhere::RegisterAgain {
            self.finish_unregistration().await;
        }
        let runner = &mut self.driver.runner;
        // The record is read first: it may show that the runner is gone although config.toml cannot be read.
        let reconciled = match self.shared.engine.ops.reconcile(runner).await {
            Ok(reconciled) => Some(reconciled),
            Err(error) => {
                tracing::warn!(
                    runner = runner.label(),
                    error = chain(&error),
                    "cannot compare the runner with config.toml, which has changed: keeping the last known state until the next verification"
                );
                None
            }
        };
        if runner.record.credential.is_none() {
            tracing::info!(runner = runner.label(), "another process has unregistered it");
            let comes_back = unregistered == UnregisteredElsewhere::RegisterAgain && self.driver.enrollment.is_some();
            return self.driver.enter(if comes_back { Outcome::Reenrolled(None) } else { Outcome::Unregistered });
        }
        let Some(reconciled) = reconciled else {
            self.missed = Some(unregistered);
            return;
        };
        if reconciled.is_replaced
            && let Some(validity) = self.driver.runner.validity(self.driver.now())
        {
            tracing::info!(runner = self.driver.runner.label(), "another process has replaced the token");
            self.events().record_replacement();
            self.enter(Outcome::Adopted(validity));
        }
        if let Some(error) = reconciled.unsaved {
            tracing::error!(
                runner = self.driver.runner.label(),
                error = chain(&error),
                "cannot put the current token back: trying again"
            );
            self.enter(Outcome::Unsaved);
        }
        match reconciled.entry_status {
            // The server decides which token is good.
            EntryStatus::Foreign { .. } | EntryStatus::Stale | EntryStatus::Padded => self.enter(Outcome::Nudged),
            EntryStatus::Missing if file == FileState::Still => self.restore_entry().await,
            EntryStatus::Ours
            | EntryStatus::Variable(_)
            | EntryStatus::Blank
            | EntryStatus::Broken
            | EntryStatus::Missing => {}
        }
    }

    /// What another process has unregistered before a reload is registered again by that, also if that process was cut off
    /// before its end.
    async fn finish_unregistration(&mut self) {
        let now = self.driver.now();
        match self.shared.engine.ops.finish_unregistration(&mut self.driver.runner, now).await {
            Ok(Some(_)) => {
                tracing::info!(runner = self.driver.runner.label(), "finished an unregistration that was cut off");
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(
                runner = self.driver.runner.label(),
                error = chain(&error),
                "cannot finish an unregistration that was cut off"
            ),
        }
    }

    /// Looks at once if the same runner at another address has got another token, which revokes this one. Then only a
    /// verification parts the two: without a state directory the inventory does not know of the former token.
    async fn follow(&mut self, twin: Option<RunnerKey>) {
        let (ops, runner) = (&self.shared.engine.ops, &mut self.driver.runner);
        let is_gone = twin.is_none();
        runner.twin_of = twin.or(runner.twin_of.take());
        if ops.has_twin_moved(runner).await {
            self.enter(Outcome::Nudged);
        } else if is_gone && !ops.has_twin_here(runner).await {
            runner.twin_of = None;
        }
    }

    /// Looks at once if a secret that the runner depends on was replaced: a token that was given for it, and the one
    /// that could get it out of its trouble. Also if one that a step has failed for can be read again.
    fn look_at_secrets(&mut self, secrets: Rc<Secrets>) {
        let all_former = std::mem::replace(&mut self.secrets, secrets);
        let (present, former) = (self.secrets.of(&self.driver), all_former.of(&self.driver));
        let is_given =
            matches!(self.driver.enrollment.as_deref(), Some(Enrollment { source: RegistrationSource::Given(_), .. }));
        let source = present.source.map(|source| source.fingerprint);
        let is_unadopted = source != self.driver.runner.record.seed;
        let has_new_source = Known::is_new(present.source, former.source) && is_unadopted;
        let may_adopt = source.is_some() && is_unadopted && present.given != former.given;
        let has_new_access = Known::is_new(present.access, former.access);
        let is_back = Known::is_back(present.source, former.source) || Known::is_back(present.access, former.access);
        let is_waiting = self.ongoing_failure.as_deref().is_some_and(OngoingFailure::is_about_secret);
        let is_concerned = match self.driver.state() {
            State::Unregistered(_) | State::Failed(_) | State::Rejected(_) => has_new_source || has_new_access,
            State::Active(_) | State::Uncertain(_) | State::NotRenewable(_) => {
                is_given && (has_new_source || may_adopt)
            }
            State::Retired { .. } => false,
        };
        if is_concerned {
            tracing::info!(runner = self.driver.runner.label(), "a token file has changed: looking now");
            self.enter(Outcome::SecretReplaced);
        } else if is_back && is_waiting {
            tracing::info!(runner = self.driver.runner.label(), "a token file can be read again: looking now");
            self.enter(Outcome::Nudged);
        }
    }

    /// The entry is gone for good: an enrollment wants it back, any other was removed by a person.
    async fn restore_entry(&mut self) {
        let driver = &mut self.driver;
        let ops = &self.shared.engine.ops;
        let is_given = match (ops.is_entry_given(&driver.runner).await, &driver.enrollment) {
            (Ok(false), Some(enrollment)) => ops.has_unnamed_entry(&driver.runner, &enrollment.entry.name).await,
            (is_given, _) => is_given,
        };
        match is_given {
            Ok(false) => {}
            Ok(true) => return,
            Err(error) => {
                tracing::warn!(runner = driver.runner.label(), error = chain(&error), "cannot read config.toml");
                return;
            }
        }
        let Some(enrollment) = &driver.enrollment else {
            tracing::warn!(
                runner = driver.runner.label(),
                "its entry was removed from config.toml: not serving it any more, and not unregistering it"
            );
            return driver.enter(Outcome::Released);
        };
        let is_refused = |state: &Active| state.asked.is_some_and(|asked| asked.claim == Claim::Refused);
        match driver.state() {
            // Its token is dead: the next registration brings the entry back. Another runner that had the token once would
            // write over it again and again.
            State::Rejected(_) | State::Failed(Failed { validity: None, .. }) => return,
            // It may be: an acceptance brings the entry back.
            State::Active(state) if is_refused(state) => return,
            _ => {}
        }
        match self.shared.engine.ops.is_replaced_here(&driver.runner).await {
            Ok(false) => {}
            // Its runner would write over the entry: the server decides whose token is good.
            Ok(true) => return self.enter(Outcome::Nudged),
            Err(error) => {
                tracing::warn!(runner = driver.runner.label(), error = chain(&error), "cannot read the records");
                return;
            }
        }
        match self.shared.engine.ops.restore(&mut driver.runner, enrollment).await {
            Ok(()) => tracing::warn!(
                runner = driver.runner.label(),
                "its entry was missing from config.toml: restored, because agent.toml enrolls it"
            ),
            Err(error) => {
                tracing::error!(
                    runner = driver.runner.label(),
                    error = chain(&error),
                    "cannot put its entry back into config.toml"
                );
                self.enter(Outcome::Unsaved);
            }
        }
    }
}
