//! A failure that lasts: logged when it begins, and again as the token's expiry comes near.

use std::time::Duration;

use super::Worker;
use crate::clock::Clock;
use crate::engine::{StepFailure, StepReport};
use crate::error_chain::chain;
use crate::lifecycle::{Outcome, State, Step, Trouble};
use crate::model::format_span;
use crate::ops::{self, Disk, Server};
use crate::secret::Source;

/// What fails, for as long as it does.
pub(super) struct OngoingFailure {
    step: Step,
    /// Why, with all causes.
    cause: String,
    /// The remedy.
    hint: Option<String>,
    /// Whether the server refused the token.
    is_refusal: bool,
    /// Whether a secret could not be read.
    is_about_secret: bool,
    /// Whether the log has its begin and its end already, as those of the store's failure.
    is_of_store: bool,
    /// The next error is logged once less than this is left of the token.
    loud_below: Option<Duration>,
}

impl OngoingFailure {
    /// Why, with all causes and the remedy.
    pub(super) fn text(&self) -> String {
        let hint = self.hint.as_ref().map(|hint| format!(": {hint}"));
        let retry = if self.is_about_secret { "; it is tried again as soon as its file changes" } else { "" };
        format!("{}{}{retry}", self.cause, hint.unwrap_or_default())
    }

    /// The same beside a text that says what to do about a refused token.
    pub(super) fn text_beside_refusal(&self) -> String {
        if self.is_refusal { self.cause.clone() } else { self.text() }
    }

    /// Whether the token cannot be replaced although it is time.
    pub(super) fn is_about_rotation(&self) -> bool {
        self.step == Step::Rotate
    }

    /// Whether the step waits for a secret that can be read.
    pub(super) fn is_about_secret(&self) -> bool {
        self.is_about_secret
    }
}

impl<S: Server, D: Disk, C: Clock> Worker<S, D, C> {
    /// Remembers a step's failure, or ends the one that the step has overcome.
    pub(super) fn track_failure(&mut self, report: &StepReport) {
        match &report.failure {
            // It has a log line of its own, and the state remembers it.
            _ if report.step == Step::Unregister => {}
            // The process stops, and nothing has failed.
            Some(StepFailure::Operation(ops::Error::Stopping)) => {}
            None | Some(StepFailure::Unsaved(_)) => {
                report.outcomes.iter().for_each(|outcome| self.end_failure(*outcome))
            }
            Some(failure @ StepFailure::Operation(_)) => self.begin_failure(report.step, failure),
            // Whichever step was withheld, the token is not replaced.
            Some(failure @ StepFailure::UsedElsewhere { .. }) => self.begin_failure(Step::Rotate, failure),
        }
    }

    /// A failure is logged as a warning when it begins, and its repetitions in the debug log. A rotation that keeps
    /// failing is logged as an error each time the remaining life has halved.
    fn begin_failure(&mut self, step: Step, failure: &StepFailure) {
        let (text, hint) = (chain(failure), self.hint(step, failure));
        let (runner, name) = (self.driver.runner.label(), step.as_str());
        let left = self.driver.state().validity().and_then(|validity| validity.left(self.driver.now()));
        // That a verification fails too is no news while the token cannot be replaced.
        let outlasts = |former: &OngoingFailure| former.is_about_rotation() && step == Step::Verify;
        let former = self.ongoing_failure.take().filter(|former| former.step == step || outlasts(former));
        // A machine without a token waits for it.
        let is_of_store =
            step == Step::Register && matches!(failure, StepFailure::Operation(ops::Error::Sharing { .. }));
        let mut loud_below = left.map(|left| left / 2);
        match &former {
            None => {
                if !is_of_store {
                    tracing::warn!(runner, step = name, error = text, hint, "failed, trying again");
                }
                self.events().record_failure(step, &text);
            }
            Some(former) if former.step == step && step == Step::Rotate && left < former.loud_below => {
                let expires_in = left.map(format_span);
                tracing::error!(runner, error = text, hint, expires_in, "still cannot replace the token");
            }
            Some(former) => {
                loud_below = former.loud_below;
                tracing::debug!(runner, step = name, error = text, "failed again");
            }
        }
        self.ongoing_failure = match former {
            Some(former) if former.step != step => Some(former),
            Some(_) | None => {
                let is_about_secret = matches!(failure, StepFailure::Operation(ops::Error::Secret(_)));
                let is_refusal = matches!(failure, StepFailure::Operation(error) if error.is_refusal());
                let cause = text.to_string();
                Some(Box::new(OngoingFailure {
                    step,
                    cause,
                    hint,
                    is_refusal,
                    is_about_secret,
                    is_of_store,
                    loud_below,
                }))
            }
        };
    }

    /// The remedy. A changed file with the secret of an enrollment is not waited for until the next attempt.
    fn hint(&self, step: Step, failure: &StepFailure) -> Option<String> {
        let hint = failure.hint();
        let source = self.driver.enrollment.as_deref().map(|enrollment| enrollment.source.secret());
        let noticed = match source {
            Some(file @ Source::File(_)) if step == Step::Register && is_for_another_secret(failure) => {
                Some(format!("a change of {} is noticed at once", file.origin()))
            }
            Some(_) | None => None,
        };
        match (hint, noticed) {
            (Some(hint), Some(noticed)) => Some(format!("{hint}; {noticed}")),
            (hint, noticed) => hint.map(str::to_owned).or(noticed),
        }
    }

    /// Ends the failure, as far as this outcome of a step shows that it is over.
    fn end_failure(&mut self, outcome: Outcome) {
        let is_about_rotation = self.ongoing_failure.as_deref().is_some_and(OngoingFailure::is_about_rotation);
        let is_over = match outcome {
            Outcome::Unsaved | Outcome::Withheld => false,
            // The token is good, which does not say that it can be replaced.
            Outcome::Accepted(_) => !is_about_rotation || !matches!(self.driver.state(), State::Active(_)),
            _ => true,
        };
        if is_over && let Some(over) = self.ongoing_failure.take() {
            if !over.is_of_store {
                tracing::info!(runner = self.driver.runner.label(), "works again");
            }
            self.events().record_success();
        }
    }
}

/// Whether the server has refused the secret of a registration.
fn is_for_another_secret(failure: &StepFailure) -> bool {
    let StepFailure::Operation(error) = failure else { return false };
    matches!(
        error.outcome(),
        Outcome::Refused | Outcome::Declined(Trouble::RegistrationRefused | Trouble::AccessDenied)
    )
}
