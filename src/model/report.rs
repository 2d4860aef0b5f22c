//! What is told about a runner, in the one JSON shape that every command shares.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{Action, RunnerId, ServerUrl, StateName, Step, Timestamp, VerifyOutcome, Why};
use crate::secret::Fingerprint;

/// The whole answer of `list`, `verify`, `rotate`, `register`, `unregister` and the daemon's status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Raised when a field changes its meaning; new fields do not raise it.
    pub schema: u32,
    /// One element a runner, in the order of config.toml; from the daemon those of enrollments first.
    pub runners: Vec<RunnerReport>,
}

impl Report {
    /// The current shape.
    pub const SCHEMA: u32 = 1;

    /// Wraps runners in the current shape.
    #[must_use]
    pub fn new(runners: Vec<RunnerReport>) -> Self {
        Self { schema: Self::SCHEMA, runners }
    }
}

/// One runner as it is told to people and scripts; never holds a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerReport {
    /// The local name, where the entry has one.
    pub name: Option<String>,
    /// GitLab's number, once known.
    pub id: Option<RunnerId>,
    /// The instance.
    pub url: Option<ServerUrl>,
    /// The entry's executor; absent for custom runners.
    pub executor: Option<String>,
    /// First eight hex digits of the token's SHA-256.
    pub token_fingerprint: Option<Fingerprint>,
    /// Server time at which the token was issued.
    pub token_obtained_at: Option<Timestamp>,
    /// Server time at which it stops working; null for never and for unknown.
    pub token_expires_at: Option<Timestamp>,
    /// The lifecycle state.
    pub state: StateName,
    /// Server time since which it is in that state.
    pub since: Option<Timestamp>,
    /// The last check that got a genuine answer or none.
    pub last_verify: Option<LastVerify>,
    /// What comes next; absent outside the daemon.
    #[serde(deserialize_with = "if_known")]
    pub next: Option<NextStep>,
    /// What a one-shot command did to it.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// Why it failed, needs a human or is not as it should be, in one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Reads a value that a later version may name in a way that this one does not know.
fn if_known<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}

/// The last verification of a runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastVerify {
    /// Server time of the answer.
    pub at: Timestamp,
    /// What it found.
    pub outcome: VerifyOutcome,
}

/// What the daemon will do next with a runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextStep {
    /// The step.
    pub step: Step,
    /// Server time at which it is due.
    pub at: Timestamp,
    /// The reason.
    pub why: Why,
}
