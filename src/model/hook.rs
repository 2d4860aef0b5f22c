//! What hooks are run for, and what is kept on the disk about them.

use serde::{Deserialize, Serialize};

use super::{RunnerId, RunnerKey, ServerUrl, Timestamp, named_enum};
use crate::secret::Digest;

named_enum! {
    /// What a hook can be run for.
    pub enum HookKind {
        /// A runner was registered.
        Registered = "registered",
        /// The token of a runner was replaced.
        Rotated = "rotated",
        /// The server refuses the token of a runner.
        Rejected = "rejected",
        /// A runner whose token was refused has one that works.
        Recovered = "recovered",
        /// A runner was unregistered.
        Unregistered = "unregistered",
        /// Little life is left of a token that is not renewed.
        Expiring = "expiring",
        /// An access token was rotated.
        AccessTokenRotated = "access_token_rotated",
        /// The settings on the disk are invalid.
        SettingsRejected = "settings_rejected",
    }
}

impl HookKind {
    /// Whether it concerns a runner.
    #[must_use]
    pub const fn is_of_runner(self) -> bool {
        match self {
            Self::Registered
            | Self::Rotated
            | Self::Rejected
            | Self::Recovered
            | Self::Unregistered
            | Self::Expiring => true,
            Self::AccessTokenRotated | Self::SettingsRejected => false,
        }
    }

    /// Whether a runner has a token after it.
    #[must_use]
    pub const fn leaves_token(self) -> bool {
        match self {
            Self::Registered | Self::Rotated | Self::Rejected | Self::Recovered | Self::Expiring => true,
            Self::Unregistered | Self::AccessTokenRotated | Self::SettingsRejected => false,
        }
    }

    /// Whether a runner has another token, or none, after it.
    #[must_use]
    pub const fn changes_token(self) -> bool {
        match self {
            Self::Registered | Self::Rotated | Self::Recovered | Self::Unregistered => true,
            Self::Rejected | Self::Expiring | Self::AccessTokenRotated | Self::SettingsRejected => false,
        }
    }
}

/// An event as hooks get it. A repetition is equal in every field. Never contains a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookEvent {
    /// 64 hex digits that a repetition has too; `test-` and a kind for a test.
    pub event_id: String,
    /// The kind.
    pub event: HookKind,
    /// When it was noticed: the server's time for a runner or an access token, this machine's for the settings.
    pub at: Timestamp,
    /// The runner's display name; null if it concerns no runner.
    pub runner: Option<String>,
    /// GitLab's id of the runner, if known; for a runner that was unregistered, the one that it had.
    pub runner_id: Option<RunnerId>,
    /// The GitLab instance; null for the settings.
    pub url: Option<ServerUrl>,
    /// When the runner's token expires; null if that is unknown or never.
    pub expires_at: Option<Timestamp>,
    /// What has happened, in one sentence.
    pub text: String,
}

/// An event that one hook has not taken yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookDelivery {
    /// The name of the hook.
    pub hook: String,
    /// Failed attempts so far.
    pub attempts: u32,
    /// The event.
    pub event: HookEvent,
}

/// What was known when the last event was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// The runner's token or the access token; of invalid settings, the digest of their mistakes.
    pub token: Option<Digest>,
    /// GitLab's id of the runner.
    #[serde(default)]
    pub id: Option<RunnerId>,
    /// Whether the server refuses the token.
    #[serde(default)]
    pub is_rejected: bool,
    /// Whether little life is left of it.
    #[serde(default)]
    pub is_expiring: bool,
    /// How often the access token was rotated.
    #[serde(default)]
    pub rotations: u64,
    /// The runner's display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The runner's GitLab instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<ServerUrl>,
}

/// The file of a runner, of an access token, or of the settings: what was announced, and what is to be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookRecord {
    /// Names the file.
    pub key: RunnerKey,
    /// What was known when the last event was made.
    pub announced: Announced,
    /// How many events were made, counted from a random number.
    pub events: u64,
    /// What is to be delivered, in order.
    pub queue: Vec<HookDelivery>,
}
