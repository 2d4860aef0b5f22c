//! What the log says about steps that were taken.

use super::Worker;
use crate::clock::Clock;
use crate::engine::{StepFailure, StepReport};
use crate::error_chain::chain;
use crate::lifecycle::{Outcome, Step};
use crate::model::RunnerId;
use crate::ops::{Disk, Server};

impl<S: Server, D: Disk, C: Clock> Worker<S, D, C> {
    /// `old_id` is the runner's id before the step; `is_told` whether the log says already where the token has come from.
    pub(super) fn log_step(&self, report: &StepReport, old_id: Option<RunnerId>, is_told: bool) {
        let runner = self.driver.runner.label();
        let id = self.driver.runner.record.id.map(RunnerId::number);
        match (report.step, report.outcomes.as_slice()) {
            _ if is_told => {}
            (Step::Register, [Outcome::Registered(_), ..]) => tracing::info!(runner, id, "registered"),
            (Step::RegisterAgain, [Outcome::Registered(_), ..]) => {
                let old_id = old_id.map(RunnerId::number);
                tracing::warn!(
                    runner,
                    old_id,
                    id,
                    "recovered: registered again into the same entry; the old runner may be deleted in GitLab"
                );
            }
            (Step::Rotate, [Outcome::Rotated(validity), ..]) => {
                let expires_at = validity.expiry.at().map(|at| at.to_string());
                tracing::info!(runner, expires_at, "rotated the token");
            }
            (Step::ResetById, [Outcome::Rotated(_), ..]) => {
                tracing::warn!(runner, "recovered: its token was reset with the access token");
            }
            (Step::Save, [Outcome::Saved]) => tracing::info!(runner, "config.toml holds the token now"),
            _ => {}
        }
        if let Some(StepFailure::Unsaved(error)) = &report.failure {
            let (error, hint) = (chain(error), error.hint());
            if report.step == Step::Save {
                tracing::error!(runner, error, hint, "config.toml still does not hold the token");
            } else {
                let place = if self.driver.runner.is_unstored() {
                    "in memory alone: do not end this process"
                } else {
                    "safe in the state directory"
                };
                tracing::error!(
                    runner,
                    error,
                    hint,
                    "config.toml does not hold the new token yet, and the write is retried; the token is {place}"
                );
            }
        }
    }

    /// Logs once that a runner whose manager a stop has deleted has its manager again.
    pub(super) fn log_revival(&mut self, report: &StepReport) {
        let is_made_again = |outcome: &Outcome| matches!(outcome, Outcome::Accepted(_) | Outcome::Adopted(_));
        if self.is_to_be_revived && report.outcomes.iter().any(is_made_again) {
            self.is_to_be_revived = false;
            let (runner, id) = (self.driver.runner.label(), self.driver.runner.record.id.map(RunnerId::number));
            tracing::info!(runner, id, "this machine, which was unregistered from the runner, is its manager again");
        }
    }
}
