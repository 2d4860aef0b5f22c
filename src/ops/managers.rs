//! Other machines that use a runner's token, as the server lists them for an access token.

use std::time::Duration;

use super::{AccessToken, Disk, Ops, Runner, Server};
use crate::error_chain::chain;
use crate::gitlab::fleet::Manager;
use crate::model::Timestamp;

/// A machine that contacted the server within this time counts as a user of the token. Longer than a night or a day
/// off, short enough to ignore a replaced machine. Limited to half of the token's remaining life: a replaced machine
/// must not keep the token from being rotated in time.
const CONTACT_WINDOW: Duration = Duration::from_secs(2 * 24 * 3600);

/// GitLab's name for a machine without a system id; an older program may have registered this machine so.
const NAMELESS: &str = "<legacy>";

impl<S: Server, D: Disk> Ops<S, D> {
    /// The system id of another machine that recently used the runner's token, at server time `now`.
    ///
    /// `None` if the request fails: a token that is never rotated is certain to be lost.
    pub async fn other_machine(&self, runner: &Runner, access: &AccessToken, now: Timestamp) -> Option<String> {
        let id = runner.record.id?;
        let _place = self.place(&runner.site).await;
        let access = self.with_access(runner, access).await;
        match self.server.managers(&runner.site.url, id, &access).await {
            Ok(answer) => {
                let since = window_start(runner, now);
                let is_seen = |manager: &Manager| manager.contacted_at.is_some_and(|at| at > since);
                let is_other = |manager: &Manager| is_seen(manager) && !self.is_this_machine(manager);
                answer.value.into_iter().find(is_other)?.system_id
            }
            Err(error) => {
                tracing::debug!(
                    runner = runner.label(),
                    error = chain(&error),
                    "cannot determine whether other machines use the token"
                );
                None
            }
        }
    }

    /// The system ids of the managers of a shared runner that are not among its members, as far as GitLab lists them.
    pub async fn strangers(&self, runner: &Runner, access: &AccessToken) -> Vec<String> {
        let Some((id, shared)) = runner.record.id.zip(runner.shared_members()) else { return Vec::new() };
        let _place = self.place(&runner.site).await;
        let access = self.with_access(runner, access).await;
        let listed = self.server.managers(&runner.site.url, id, &access).await.map(|answer| answer.value);
        let is_stranger = |id: &String| {
            id != self.identity.system_id.as_str() && shared.iter().all(|member| member.machine.as_str() != id)
        };
        listed.unwrap_or_default().into_iter().filter_map(|manager| manager.system_id).filter(is_stranger).collect()
    }

    /// Whether the server confirms, to a person's access token, that the id which config.toml claims is this runner's:
    /// its managers show this machine, or its description is the entry's name.
    pub async fn confirms_id(&self, runner: &Runner, access: &AccessToken) -> bool {
        let Some(id) = runner.record.id else { return false };
        let _place = self.place(&runner.site).await;
        let own = self.identity.system_id.as_str();
        let is_own = |manager: &Manager| manager.system_id.as_deref() == Some(own);
        let access = self.with_access(runner, access).await;
        let managers = self.server.managers(&runner.site.url, id, &access).await;
        if managers.is_ok_and(|answer| answer.value.iter().any(is_own)) {
            return true;
        }
        let description = self.server.description(&runner.site.url, id, &access).await;
        let name = runner.record.name.as_ref();
        description.is_ok_and(|answer| answer.value.is_some() && answer.value.as_ref() == name)
    }

    fn is_this_machine(&self, manager: &Manager) -> bool {
        manager.system_id.as_deref().is_none_or(|id| id == self.identity.system_id.as_str() || id == NAMELESS)
    }
}

/// The start of the contact window. A contact after the token's expiry was made with a newer token.
fn window_start(runner: &Runner, now: Timestamp) -> Timestamp {
    let Some(validity) = runner.validity(now) else { return now.minus(CONTACT_WINDOW) };
    match validity.expiry.at() {
        Some(expires_at) if expires_at <= now => expires_at,
        Some(_) | None => now.minus(validity.left(now).map_or(CONTACT_WINDOW, |left| CONTACT_WINDOW.min(left / 2))),
    }
}
