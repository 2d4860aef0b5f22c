//! A failure that lasts: told when it begins, and again as the end of the token comes near.

use std::time::Duration;

use super::Worker;
use crate::clock::Clock;
use crate::lifecycle::{Outcome, State, Step};
use crate::model::format_span;
use crate::ops::{Disk, Server};

/// What fails, for as long as it does.
pub(super) struct OngoingFailure {
    step: Step,
    /// Why, with all causes.
    pub(super) text: String,
    /// What is left of the token when it is told of loudly.
    loud_below: Option<Duration>,
}

impl OngoingFailure {
    /// Whether the token cannot be replaced although it is time.
    pub(super) fn is_about_rotation(&self) -> bool {
        self.step == Step::Rotate
    }
}

impl<S: Server, D: Disk, C: Clock> Worker<S, D, C> {
    /// A failure is a warning once, when it begins. Its repetitions are for the debug log, but for a rotation
    /// that goes on failing: an error whenever half of the life is gone that was left the last time.
    pub(super) fn complain(&mut self, step: Step, text: String, hint: Option<&str>) {
        let (runner, word) = (self.runner.label(), step.as_str());
        let left = self.state.validity().and_then(|validity| validity.left(self.now()));
        // That a question fails too is no news while the token cannot be replaced.
        let outlasts = |former: &OngoingFailure| former.is_about_rotation() && step == Step::Verify;
        let former = self.ongoing_failure.take().filter(|former| former.step == step || outlasts(former));
        let mut loud_below = left.map(|left| left / 2);
        match &former {
            None => tracing::warn!(runner, step = word, error = text, hint, "failed, trying again"),
            Some(former) if former.step == step && step == Step::Rotate && left < former.loud_below => {
                let expires_in = left.map(format_span);
                tracing::error!(runner, error = text, hint, expires_in, "still cannot replace the token");
            }
            Some(former) => {
                loud_below = former.loud_below;
                tracing::debug!(runner, step = word, error = text, "failed again");
            }
        }
        self.ongoing_failure = match former {
            Some(former) if former.step != step => Some(former),
            Some(_) | None => Some(OngoingFailure { step, text, loud_below }),
        };
    }

    /// What was complained of is over, as far as this outcome of a step shows.
    pub(super) fn stop_complaining(&mut self, outcome: Outcome) {
        let is_about_rotation = self.ongoing_failure.as_ref().is_some_and(OngoingFailure::is_about_rotation);
        let is_over = match outcome {
            Outcome::Unsaved | Outcome::Withheld => false,
            // The token is good, which does not say that it can be replaced.
            Outcome::Accepted(_) => !is_about_rotation || !matches!(self.state, State::Active(_)),
            _ => true,
        };
        if is_over && self.ongoing_failure.take().is_some() {
            tracing::info!(runner = self.runner.label(), "works again");
        }
    }
}
