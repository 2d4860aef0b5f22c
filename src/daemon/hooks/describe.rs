//! What an event says.

use super::{RunnerSight, Subject};
use crate::model::{Announced, HookEvent, HookKind, RunnerId, Timestamp};

/// The event with its facts and a sentence. `former_id` is the id that was announced last.
pub(super) fn described(
    event_id: String,
    event: HookKind,
    subject: &Subject,
    former_id: Option<RunnerId>,
    at: Timestamp,
) -> HookEvent {
    let bare =
        |text| HookEvent { event_id, event, at, runner: None, runner_id: None, url: None, expires_at: None, text };
    match subject {
        Subject::Runner(sight) => {
            let expires_at = sight.expiry.at().map(|at| at.whole_seconds());
            HookEvent {
                runner: Some(sight.label.clone()),
                runner_id: sight.seen.id.or(former_id),
                url: Some(sight.url.clone()),
                expires_at,
                ..bare(sentence(event, sight, expires_at))
            }
        }
        Subject::AccessToken { url, .. } => {
            HookEvent { url: Some(url.clone()), ..bare(format!("the access token for {url} was rotated")) }
        }
        Subject::Settings(error) => {
            let error = error.as_deref().unwrap_or_default().replace('\n', "; ");
            bare(format!("agent.toml is invalid, and the settings before it stay in force: {error}"))
        }
    }
}

/// The event of a runner that is no longer there. `former` is what was announced of it.
pub(super) fn lost(event_id: String, former: Announced, at: Timestamp) -> HookEvent {
    HookEvent {
        event_id,
        event: HookKind::Unregistered,
        at,
        runner: former.label,
        runner_id: former.id,
        url: former.url,
        expires_at: None,
        text: "it is no longer in config.toml".to_owned(),
    }
}

fn sentence(kind: HookKind, sight: &RunnerSight, expires_at: Option<Timestamp>) -> String {
    let expiry = expires_at.map(|at| format!("; its token expires at {at}")).unwrap_or_default();
    match kind {
        HookKind::Registered => match sight.seen.id {
            Some(id) => format!("registered as runner {id}{expiry}"),
            None => format!("registered{expiry}"),
        },
        HookKind::Rotated => format!("the token was rotated{expiry}"),
        HookKind::Rejected => "the server refuses the token".to_owned(),
        HookKind::Recovered => format!("it has a token that the server accepts again{expiry}"),
        HookKind::Unregistered => "unregistered".to_owned(),
        HookKind::Expiring => format!("little life is left of its token, which is not renewed{expiry}"),
        HookKind::AccessTokenRotated | HookKind::SettingsRejected => String::new(),
    }
}
