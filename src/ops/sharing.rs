//! Who else uses a runner's token, as far as an access token shows it.

use std::time::Duration;

use super::{Disk, Ops, Runner, Server};
use crate::error_chain::chain;
use crate::gitlab::fleet::Manager;
use crate::model::Timestamp;
use crate::secret::Token;

/// How lately a machine was heard of that counts as one that uses the token: a night's sleep and a day's
/// holiday are less than this, and a machine that was replaced is forgotten by then. At most half of what is
/// left of the token, so that one that was replaced does not let the token expire.
const LATELY: Duration = Duration::from_secs(2 * 24 * 3600);

/// What GitLab calls a machine that told no name, such as ours may have been to an older program.
const NAMELESS: &str = "<legacy>";

impl<S: Server, D: Disk> Ops<S, D> {
    /// The system id of another machine that lately used the runner's token, at server time `now`.
    ///
    /// `None` also where the server does not tell: it is asked for safety's sake, and a token that nobody
    /// rotates is lost for certain.
    pub async fn other_machine(&self, runner: &Runner, access_token: &Token, now: Timestamp) -> Option<String> {
        let managers = self.server.managers(&runner.site, runner.record.id?, access_token).await;
        match managers {
            Ok(answer) => {
                let since = lately(runner, now);
                let is_seen = |manager: &Manager| manager.contacted_at.is_some_and(|at| at > since);
                let is_other = |manager: &Manager| is_seen(manager) && !self.is_this_machine(manager);
                answer.value.into_iter().find(is_other)?.system_id
            }
            Err(error) => {
                tracing::debug!(
                    runner = runner.label(),
                    error = chain(&error),
                    "cannot find out whether other machines use the token"
                );
                None
            }
        }
    }

    fn is_this_machine(&self, manager: &Manager) -> bool {
        manager.system_id.as_deref().is_none_or(|id| id == self.identity.system_id.as_str() || id == NAMELESS)
    }
}

/// Since when a machine has to have been heard of. Whoever was after the token has expired has a newer one.
fn lately(runner: &Runner, now: Timestamp) -> Timestamp {
    let Some(validity) = runner.validity(now) else { return now.minus(LATELY) };
    match validity.expiry.at() {
        Some(expires_at) if expires_at <= now => expires_at,
        Some(_) | None => now.minus(validity.left(now).map_or(LATELY, |left| LATELY.min(left / 2))),
    }
}
