//! Events: what the daemon remembers of what has happened.

use serde::{Deserialize, Serialize};

use super::{Timestamp, named_enum};

named_enum! {
    /// The kind of an event.
    pub enum EventKind {
        /// A runner was registered.
        Registered = "registered",
        /// The token of a runner was rotated.
        Rotated = "rotated",
        /// Another process has replaced the token of a runner.
        Adopted = "adopted",
        /// The server refuses the token of a runner.
        Rejected = "rejected",
        /// A runner with a dead token has a new one, or works again after it needed attention.
        Recovered = "recovered",
        /// A runner was unregistered.
        Unregistered = "unregistered",
        /// A runner is no longer served.
        Released = "released",
        /// The answer to a rotation was lost.
        Uncertain = "uncertain",
        /// The server does not renew the token of a runner.
        NotRenewable = "not_renewable",
        /// A runner needs a person.
        NeedsAttention = "needs_attention",
        /// A step for a runner begins to fail. It is tried again.
        Failing = "failing",
        /// A step for a runner has succeeded after it failed.
        WorksAgain = "works_again",
        /// Another process has changed config.toml.
        ConfigChanged = "config_changed",
        /// config.toml cannot be read.
        ConfigRejected = "config_rejected",
        /// Other settings are in force.
        SettingsChanged = "settings_changed",
        /// The settings on the disk are invalid.
        SettingsRejected = "settings_rejected",
        /// An access token was rotated.
        AccessTokenRotated = "access_token_rotated",
        /// An access token in its file was replaced by a person, or put back by the agent.
        AccessTokenChanged = "access_token_changed",
        /// An access token needs a person, or cannot be asked about or rotated.
        AccessTokenProblem = "access_token_problem",
        /// A kind of a later version.
        Other = "other",
    }
    else Other
}

impl EventKind {
    /// Whether it is bad news.
    #[must_use]
    pub const fn is_trouble(self) -> bool {
        match self {
            Self::Rejected
            | Self::Uncertain
            | Self::NotRenewable
            | Self::NeedsAttention
            | Self::Failing
            | Self::ConfigRejected
            | Self::SettingsRejected
            | Self::AccessTokenProblem => true,
            Self::Registered
            | Self::Rotated
            | Self::Adopted
            | Self::Recovered
            | Self::Unregistered
            | Self::Released
            | Self::WorksAgain
            | Self::ConfigChanged
            | Self::SettingsChanged
            | Self::AccessTokenRotated
            | Self::AccessTokenChanged
            | Self::Other => false,
        }
    }
}

/// Something that has happened. Never contains a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number since the daemon's start, from 1.
    pub id: u64,
    /// When: the server's time for a runner or an access token, this machine's for the rest.
    pub at: Timestamp,
    /// The runner's display name; null if it concerns no single runner.
    pub runner: Option<String>,
    /// The kind.
    pub kind: EventKind,
    /// What has happened, in one sentence, with the remedy if there is one.
    pub text: String,
}
