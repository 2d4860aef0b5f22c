//! What the log says when a runner changes its state, with the remedy.

use crate::engine::{expired_text, refusal_remedy};
use crate::lifecycle::{Rejected, Rejection, State, Trouble};
use crate::model::{StateName, Timestamp, format_span};
use crate::ops::{Enrollment, Runner};
use crate::store::Record;

/// Logs that a state was entered. An error asks a person to act.
pub(super) fn log_transition(
    runner: &Runner,
    enrollment: Option<&Enrollment>,
    before: StateName,
    state: &State,
    now: Timestamp,
) {
    let record = &runner.record;
    let (runner, from, to) = (runner.label(), before.as_str(), state.name().as_str());
    match state {
        // Its registration was logged already.
        State::Active(_) if before == StateName::Unregistered => {}
        State::Active(_) | State::Unregistered(_) | State::Retired { .. } => {
            tracing::info!(runner, from, to, "changed its state");
        }
        State::Uncertain(_) => tracing::warn!(runner, from, to, "{LOST}"),
        State::Rejected(rejected) => {
            tracing::error!(
                runner,
                from,
                to,
                rejection = rejected.rejection.as_str(),
                "{}",
                refused(record, rejected, enrollment, now)
            );
        }
        State::NotRenewable(state) => {
            let left = state.validity.left(now).map(format_span);
            tracing::error!(runner, from, to, left, "{NOT_RENEWED}");
        }
        State::Failed(failed) => {
            let (trouble, remedy) = (failed.trouble.as_str(), remedy(failed.trouble));
            tracing::error!(runner, from, to, trouble, remedy, "{STUCK}");
        }
    }
}

/// The problem of a state in one sentence, with the remedy; `None` if there is none.
pub(super) fn sentence(
    record: &Record,
    state: &State,
    enrollment: Option<&Enrollment>,
    now: Timestamp,
) -> Option<String> {
    match state {
        State::Active(_) | State::Unregistered(_) | State::Retired { .. } => None,
        State::Uncertain(_) => Some(LOST.to_owned()),
        State::Rejected(rejected) => Some(refused(record, rejected, enrollment, now)),
        State::NotRenewable(_) => Some(NOT_RENEWED.to_owned()),
        State::Failed(failed) => Some(format!("{STUCK}: {}", remedy(failed.trouble))),
    }
}

const LOST: &str = "the answer to a rotation was lost: verifying the old token before anything else";
const NOT_RENEWED: &str = "the server does not renew this token: create a new runner before the token expires";
const STUCK: &str = "needs attention";

fn refused(record: &Record, rejected: &Rejected, enrollment: Option<&Enrollment>, now: Timestamp) -> String {
    let expired = expired_text(record, Some(&rejected.validity), enrollment, now);
    expired
        .filter(|_| rejected.rejection == Rejection::Expired)
        .unwrap_or_else(|| format!("the server refuses the token: {}", refusal_remedy(record, enrollment)))
}

fn remedy(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::RegistrationDisabled => {
            "create the runner in GitLab's UI and give its glrt- token as `token` instead of the registration token"
        }
        Trouble::RegistrationRefused => "put a valid registration token where the enrollment reads it",
        Trouble::GivenTokenRefused => "put the token of an existing runner where the enrollment reads it",
        Trouble::Orphaned => "its project or group is gone: remove its entry, and enroll it elsewhere",
        Trouble::Unassigned => "assign the runner to a project in GitLab",
        Trouble::InvalidRequest => "correct the parameters that the server names",
        Trouble::AccessDenied => "give an access token with the scope `manage_runner` or `api`",
        Trouble::Unsupported => "this GitLab is too old for it",
        Trouble::LocalFile => "make the file that the error names usable",
        Trouble::NotUnderstood => {
            "what answers is not understood as GitLab: check `url`, and the proxies and gateways in between"
        }
        Trouble::RegistrationLost => {
            "look for the runner in GitLab and delete it if it was never contacted, then reload the agent: it registers then"
        }
    }
}
