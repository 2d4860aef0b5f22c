//! The report about runners: the JSON shape that every command shares.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{
    AccessTokenReport, Action, RotationRule, RunnerId, ServerUrl, ShareName, StateName, Step, StopAction, Timestamp,
    VerifyOutcome, Why,
};
use crate::secret::Fingerprint;

/// The output of `list`, `verify`, `rotate`, `register` and `unregister`, and the daemon's status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Incremented if a field changes its meaning, not for new fields.
    pub schema: u32,
    /// The daemon that reports; absent in the output of commands that ask no daemon.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub daemon: Option<DaemonReport>,
    /// One element per runner, in the order of config.toml. The daemon lists runners of enrollments first.
    pub runners: Vec<RunnerReport>,
}

impl Report {
    /// The current schema.
    pub const SCHEMA: u32 = 1;

    /// Creates a report with the current schema.
    #[must_use]
    pub fn new(runners: Vec<RunnerReport>) -> Self {
        Self { schema: Self::SCHEMA, daemon: None, runners }
    }
}

/// A running daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonReport {
    /// Its version.
    pub version: String,
    /// Why agent.toml as it is on the disk is not in force, one sentence per line; null if it is.
    pub settings_error: Option<String>,
    /// Why config.toml as it is on the disk is not in force; null if it is.
    pub config_error: Option<String>,
    /// How many reloads were asked for.
    pub reloads_begun: u64,
    /// How many of them are done, whatever their result.
    pub reloads_done: u64,
    /// The access tokens of `[[server]]`, by server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access_tokens: Vec<AccessTokenReport>,
}

/// One runner, for users and scripts. Never contains a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerReport {
    /// The local name, if the entry has one.
    pub name: Option<String>,
    /// GitLab's id, once known.
    pub id: Option<RunnerId>,
    /// The instance.
    pub url: Option<ServerUrl>,
    /// The entry's executor; absent for custom runners.
    pub executor: Option<Arc<str>>,
    /// First eight hex digits of the token's SHA-256.
    pub token_fingerprint: Option<Fingerprint>,
    /// Server time at which the token was issued.
    pub token_obtained_at: Option<Timestamp>,
    /// Server time at which the token expires; null for never and for unknown.
    pub token_expires_at: Option<Timestamp>,
    /// The lifecycle state.
    pub state: StateName,
    /// Server time since which it is in that state.
    pub since: Option<Timestamp>,
    /// The last verification.
    pub last_verify: Option<LastVerify>,
    /// The next step; absent outside the daemon.
    #[serde(default, deserialize_with = "if_known")]
    pub next: Option<NextStep>,
    /// When its token is rotated; absent outside the daemon and `plan`.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub rotation: Option<PlannedRotation>,
    /// What a stop of the daemon does with it; only `plan` says it.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub at_stop: Option<StopAction>,
    /// What a one-shot command did with it.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// Why it failed, needs a human or is in an unexpected state, in one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Server time minus this machine's in seconds; absent while the clocks agree, and outside the daemon.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub clock_skew_seconds: Option<i64>,
    /// How it is shared with other machines; absent if it is not.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub sharing: Option<Box<SharingReport>>,
}

impl RunnerReport {
    /// The report as it reads now: a token that was valid when the server was last asked may have expired since. It stays
    /// expired once the server has refused it, and is not rotated any more.
    #[must_use]
    pub fn as_of(self, now: Timestamp) -> Self {
        let may_expire = match self.state {
            StateName::Active | StateName::NotRenewable | StateName::Unknown | StateName::Rejected => true,
            StateName::Unregistered
            | StateName::Uncertain
            | StateName::Failed
            | StateName::Retired
            | StateName::Expired
            | StateName::Unusable => false,
        };
        if may_expire && self.token_expires_at.is_some_and(|at| at <= now) {
            return Self { state: StateName::Expired, rotation: None, ..self };
        }
        self
    }
}

/// When a runner's token is rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedRotation {
    /// The rule.
    pub rule: RotationRule,
    /// Server time from which it is due; null for never, and while the expiry is unknown.
    pub at: Option<Timestamp>,
}

/// What a machine knows of a runner that it shares. Without the daemon: share, generation and `untold` alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharingReport {
    /// The name in the store, as in `share_as`.
    pub share: ShareName,
    /// The kind of store, as in `[sharing] engine`.
    pub engine: Option<String>,
    /// The generation of this machine's token; null before there is one.
    pub generation: Option<u64>,
    /// The machine (`system_id`) that changes the runner at present.
    pub changing: Option<String>,
    /// The machine (`system_id`) that has changed it last, as far as the store says so.
    pub changed_by: Option<String>,
    /// The number of machines that use the runner; null if the store was never read.
    pub members: Option<usize>,
    /// Seconds since the store last answered; null if it never did.
    pub contact_seconds: Option<u64>,
    /// Why the store cannot be used at present, in one sentence.
    pub problem: Option<String>,
    /// Whether this machine alone has its token: the store is told of it once it can be written.
    pub untold: bool,
    /// Server time at which the store last answered.
    #[serde(skip)]
    pub contact_at: Option<Timestamp>,
    /// Whether a person has to end the problem.
    #[serde(skip)]
    pub is_lasting: bool,
}

impl SharingReport {
    /// Nothing is known but the name.
    #[must_use]
    pub fn new(share: ShareName) -> Self {
        Self {
            share,
            engine: None,
            generation: None,
            changing: None,
            changed_by: None,
            members: None,
            contact_seconds: None,
            problem: None,
            untold: false,
            contact_at: None,
            is_lasting: false,
        }
    }

    /// The same at this server time.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Self {
        Self { contact_seconds: self.contact_at.map(|at| now.since(at).as_secs()), ..self }
    }
}

/// Reads a value; `None` for a name of a later version.
fn if_known<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}

/// The last verification of a runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastVerify {
    /// Server time of the answer.
    pub at: Timestamp,
    /// The result.
    pub outcome: VerifyOutcome,
}

/// The daemon's next step for a runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextStep {
    /// The step.
    pub step: Step,
    /// Server time at which it is due.
    pub at: Timestamp,
    /// The reason.
    pub why: Why,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_another_version_is_readable() {
        let report: RunnerReport = serde_json::from_str(r#"{ "state": "active" }"#).unwrap();
        assert_eq!(report, RunnerReport { state: StateName::Active, ..RunnerReport::default() });
        let later =
            r#"{ "state": "paused", "action": "paused", "next": { "step": "pause", "at": "2027-01-01T00:00:00Z" } }"#;
        assert_eq!(serde_json::from_str::<RunnerReport>(later).unwrap(), RunnerReport::default());
    }
}
