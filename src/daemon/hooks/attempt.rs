//! One attempt of a hook, in a task of its own.

use tokio::time::timeout;

use crate::error_chain::chain;
use crate::hooks::{Delivery, Hook, HookError};
use crate::model::{HookDelivery, RunnerKey};
use crate::secret::{Digest, Token};
use crate::status::HookOutcome;
use crate::store::HookFiles;

/// An attempt to make.
pub(super) struct Task {
    pub(super) key: RunnerKey,
    pub(super) hook: Hook,
    pub(super) delivery: HookDelivery,
    /// The runner's present token.
    pub(super) token: Option<Token>,
    /// Whether the runner is enrolled.
    pub(super) is_own: bool,
}

/// What has come of an attempt.
pub(super) struct Attempt {
    pub(super) key: RunnerKey,
    pub(super) delivery: HookDelivery,
    pub(super) result: Result<String, HookError>,
}

impl Task {
    pub(super) async fn run(self, files: HookFiles) -> Attempt {
        let result = self.result(files).await;
        Attempt { key: self.key, delivery: self.delivery, result }
    }

    async fn result(&self, files: HookFiles) -> Result<String, HookError> {
        let Self { key, hook, delivery, token, is_own } = self;
        let token_path = if hook.takes_token_path() {
            // Of one runner and hook, one attempt is made at a time.
            let stem = Digest::of(format!("{key}\n{}", hook.name).as_bytes()).to_hex();
            let found = timeout(hook.timeout, files.token_path(stem)).await;
            let found = found.map_err(|_| HookError::Passing("the state directory does not answer".to_owned()))?;
            found.map_err(|error| HookError::Passing(chain(&error).to_string()))?
        } else {
            None
        };
        let delivery = Delivery {
            event: &delivery.event,
            token: token.as_ref(),
            token_path: token_path.as_deref(),
            is_own: *is_own,
        };
        hook.run(delivery).await
    }
}

impl Attempt {
    /// Logs what has come of it. An error that is no news, and after which it is tried again, is logged for debugging alone.
    pub(super) fn log(&self, outcome: HookOutcome, attempts: u32, is_news: bool) {
        let HookDelivery { hook, event, .. } = &self.delivery;
        let runner = event.runner.as_deref().unwrap_or_default();
        let (event, event_id) = (event.event.as_str(), event.event_id.as_str());
        match (&self.result, outcome) {
            (Ok(said), _) => tracing::info!(hook, runner, event, event_id, result = said, "a hook has run"),
            (Err(error), HookOutcome::Failed) if is_news => {
                tracing::warn!(hook, runner, event, event_id, attempts, %error, "a hook has failed: trying again");
            }
            (Err(error), HookOutcome::Failed) => {
                tracing::debug!(hook, runner, event, event_id, attempts, %error, "a hook has failed again");
            }
            (Err(error), HookOutcome::Done | HookOutcome::Dropped) => tracing::error!(
                hook,
                runner,
                event,
                event_id,
                attempts,
                %error,
                "a hook has failed for good: the event is dropped; correct it, then try it with `runner-agent hook test`"
            ),
        }
    }
}
