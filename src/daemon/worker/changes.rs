//! What a worker does about news: changed files, changed settings, another process at work.

use std::rc::Rc;

use super::super::Config;
use super::{Retired, RunnerCommand, Worker};
use crate::clock::Clock;
use crate::error_chain::chain;
use crate::lifecycle::{Outcome, State};
use crate::ops::{Disk, EntryStatus, Server};

impl<S: Server, D: Disk, C: Clock> Worker<S, D, C> {
    pub(super) async fn read(&mut self, mail: RunnerCommand) {
        match mail {
            RunnerCommand::Nudge => self.enter(Outcome::Nudged),
            RunnerCommand::Changed { settled, retired } => self.reconcile(settled, retired).await,
            RunnerCommand::Settings(config) => self.take_settings(config).await,
            RunnerCommand::Stop => {}
        }
    }

    /// Takes new settings. A runner that no enrollment asks for any more is served on as one that was found,
    /// and one whose enrollment now names another server is left to the next census.
    async fn take_settings(&mut self, config: Rc<Config>) {
        let wanted = config.enrollments.iter().find(|wanted| wanted.key == self.runner.record.key).cloned();
        let was_enrolled = self.enrollment.is_some();
        self.config = config;
        let has_moved = wanted.as_ref().is_some_and(|wanted| wanted.site.url != self.runner.site.url);
        if has_moved || (wanted.is_none() && self.runner.record.credential.is_none()) {
            self.state = State::Retired { since: self.now() };
            return;
        }
        if wanted.is_some() != was_enrolled
            && let Err(error) = self.shared.engine.ops.note_enrollment(&mut self.runner, wanted.as_ref()).await
        {
            tracing::warn!(runner = self.runner.label(), error = chain(&error), "cannot write the runner's record");
        }
        self.enrollment = wanted;
        self.enter(Outcome::Nudged);
    }

    pub(super) async fn reconcile(&mut self, settled: bool, retired: Retired) {
        self.look_at_seed();
        if self.runner.record.credential.is_none() {
            return;
        }
        let reconciled = match self.shared.engine.ops.reconcile(&mut self.runner).await {
            Ok(reconciled) => reconciled,
            Err(error) => {
                tracing::warn!(
                    runner = self.runner.label(),
                    error = chain(&error),
                    "config.toml has changed and cannot be compared: serving on with what is known"
                );
                return;
            }
        };
        if self.runner.record.credential.is_none() {
            tracing::info!(runner = self.runner.label(), "another process has unregistered it");
            let now = self.now();
            let comes_back = retired == Retired::ComeBack && self.enrollment.is_some();
            self.state = if comes_back { State::unregistered(now) } else { State::Retired { since: now } };
            return;
        }
        if reconciled.is_replaced
            && let Some(validity) = self.runner.validity(self.now())
        {
            tracing::info!(runner = self.runner.label(), "another process has replaced the token");
            self.enter(Outcome::Adopted(validity));
        }
        if let Some(error) = reconciled.unsaved {
            tracing::error!(
                runner = self.runner.label(),
                error = chain(&error),
                "cannot put the current token back: trying again"
            );
            self.enter(Outcome::Unsaved);
        }
        match reconciled.entry_status {
            EntryStatus::Foreign { .. } => self.enter(Outcome::Nudged),
            EntryStatus::Missing if settled => self.missing().await,
            EntryStatus::Ours
            | EntryStatus::Stale
            | EntryStatus::Variable(_)
            | EntryStatus::Broken
            | EntryStatus::Missing => {}
        }
    }

    /// What failed or was refused is tried again at once when the token that it is made from was replaced.
    fn look_at_seed(&mut self) {
        let waits = matches!(self.state, State::Unregistered(_) | State::Failed(_) | State::Rejected(_));
        let Some(enrollment) = self.enrollment.as_ref().filter(|_| waits) else { return };
        let Ok(seed) = enrollment.source.read() else { return };
        if self.runner.record.seed != Some(seed.fingerprint()) {
            self.enter(Outcome::Nudged);
        }
    }

    /// The entry is gone for good: an enrollment wants it back, a person has taken any other away.
    async fn missing(&mut self) {
        let Some(enrollment) = self.enrollment.clone() else {
            tracing::warn!(
                runner = self.runner.label(),
                "its entry was removed from config.toml: not serving it any more, and not unregistering it"
            );
            self.state = State::Retired { since: self.now() };
            return;
        };
        match self.shared.engine.ops.restore(&mut self.runner, &enrollment).await {
            Ok(()) => tracing::warn!(
                runner = self.runner.label(),
                "its entry was gone from config.toml: put it back, since agent.toml enrolls it"
            ),
            Err(error) => {
                tracing::error!(
                    runner = self.runner.label(),
                    error = chain(&error),
                    "cannot put its entry back into config.toml"
                );
                self.enter(Outcome::Unsaved);
            }
        }
    }
}
