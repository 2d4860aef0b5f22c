//! Access tokens of GitLab: what the server says about one, and what is reported about it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ServerUrl, Timestamp, named_enum};
use crate::secret::{Digest, Fingerprint, Token};

/// What GitLab says about an access token (`GET /personal_access_tokens/self`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessTokenFacts {
    /// Its number in GitLab. A rotation makes a new one.
    pub id: u64,
    /// The name that a person gave it: one short printable line.
    pub name: String,
    /// Its scopes, such as `api` and `self_rotate`.
    pub scopes: Vec<String>,
    /// Whether GitLab accepts it.
    pub active: bool,
    /// Whether it was revoked.
    pub revoked: bool,
    /// Server time at which it was made.
    pub created_at: Option<Timestamp>,
    /// Server time at which it was last used. GitLab notes it at most every ten minutes.
    pub last_used_at: Option<Timestamp>,
    /// Server time at which it ends: 00:00 UTC of GitLab's date. `None` for never.
    pub expires_at: Option<Timestamp>,
}

/// Whose access token it is, which decides the call that rotates it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum AccessTokenOwner {
    /// A user's or a service account's, or not known.
    #[default]
    Personal,
    /// A group's, by its number or path.
    Group(String),
    /// A project's, by its number or path.
    Project(String),
}

impl fmt::Display for AccessTokenOwner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Personal => formatter.write_str("personal"),
            Self::Group(group) => write!(formatter, "group {group}"),
            Self::Project(project) => write!(formatter, "project {project}"),
        }
    }
}

named_enum! {
    /// The state of an access token, as reported.
    #[derive(Default)]
    pub enum AccessTokenState {
        /// Not asked yet, or the server does not have the call.
        #[default]
        Unknown = "unknown",
        /// The server accepts it.
        Active = "active",
        /// The server accepts it, and it ends soon.
        Expiring = "expiring",
        /// The server accepts it, and its rotation needs a person.
        NotRenewable = "not_renewable",
        /// A rotation was sent and its answer was lost; the server is asked about the old token.
        Uncertain = "uncertain",
        /// It was rotated, and the new one is in memory alone: neither its file nor the state directory can be written.
        Unsaved = "unsaved",
        /// The server refuses it: it expired, was revoked, or is not known there.
        Refused = "refused",
        /// The answer to its rotation was lost, and the token is dead. It is never rotated again: a person has to put a
        /// new one into its file.
        Lost = "lost",
        /// Its file or what is kept about it cannot be read or written, or the file holds no access token.
        Unreadable = "unreadable",
    }
    else Unknown
}

impl AccessTokenState {
    /// Whether a person has to act.
    #[must_use]
    pub const fn needs_person(self) -> bool {
        match self {
            Self::NotRenewable | Self::Unsaved | Self::Refused | Self::Lost | Self::Unreadable => true,
            Self::Unknown | Self::Active | Self::Expiring | Self::Uncertain => false,
        }
    }
}

/// One access token, for users and scripts. Never contains it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessTokenReport {
    /// The instance.
    pub server: ServerUrl,
    /// Where the token is read from: the path of its file, or the name of a credential or variable.
    pub source: String,
    /// The state.
    pub state: AccessTokenState,
    /// First eight hex digits of the token's SHA-256; null if it cannot be read.
    pub token_fingerprint: Option<Fingerprint>,
    /// Its name in GitLab; null if the server did not say.
    pub name: Option<String>,
    /// Its scopes; null if the server did not say.
    pub scopes: Option<Vec<String>>,
    /// The scopes that the settings need and that it lacks.
    #[serde(default)]
    pub missing_scopes: Vec<String>,
    /// Server time at which it ends; null for never and for unknown.
    pub expires_at: Option<Timestamp>,
    /// Server time at which it is rotated next; null if it is not.
    pub next_rotation_at: Option<Timestamp>,
    /// Whether the agent rotates it.
    pub rotates: bool,
    /// How many rotations the state directory knows of.
    pub rotations: u64,
    /// Server time at which it was last asked about.
    pub asked_at: Option<Timestamp>,
    /// Why it needs a person, or could not be asked about or rotated, in one sentence.
    pub last_error: Option<String>,
}

/// What is remembered about the access token of one server between two starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessRecord {
    /// The token that counts: the one that a person has put into the file, or the one that came from its rotation.
    pub token: Option<Token>,
    /// What the server last said about it.
    pub facts: Option<AccessTokenFacts>,
    /// Server time of the last acceptance.
    pub asked_at: Option<Timestamp>,
    /// Server time of the first refusal since then.
    pub refused_at: Option<Timestamp>,
    /// Whether the server does not have the call.
    pub is_unsupported: bool,
    /// Tokens that a rotation was sent with, or that were rotated: none is sent with them again. The newest come last.
    pub spent: Vec<Digest>,
    /// Server time at which it was certain that the successor of the token is lost.
    pub lost_at: Option<Timestamp>,
    /// Why the server refuses to rotate it, in one sentence.
    pub declined: Option<String>,
    /// How many rotations were made.
    pub rotations: u64,
    /// Server time of the last one.
    pub rotated_at: Option<Timestamp>,
    /// Server time of the last use by this agent, but for questions.
    pub last_use: Option<Timestamp>,
    /// 32 random bits, drawn once for each token: how much earlier than necessary it is rotated.
    pub spread: Option<u32>,
    /// How often a use from elsewhere was seen.
    pub uses_elsewhere: u32,
    /// How old the last use was that the server knew of at the last acceptance.
    pub use_age: Option<Duration>,
    /// The time of a rotation without an answer by a clock that was ahead, and server time of the first look at it.
    pub settles_from: Option<(Timestamp, Timestamp)>,
}

impl AccessRecord {
    /// Whether no rotation may be sent with the present token.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.token.as_ref().is_some_and(|token| self.spent.contains(&token.digest()))
    }

    /// The same server with another token, of which nothing is known yet.
    #[must_use]
    pub fn with_token(self, token: Token) -> Self {
        let Self { spent, rotations, rotated_at, .. } = self;
        Self { token: Some(token), spent, rotations, rotated_at, ..Self::default() }
    }
}
