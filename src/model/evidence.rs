//! Evidence: what answers have said about a token, kept until it proves something; and the tokens that may still be good.
//!
//! No single answer of a server is a verdict. `lifecycle` counts equal answers and concludes; `store` keeps both
//! across restarts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Expiry, Origin, RunnerId, Timestamp, Trouble, named_enum};
use crate::secret::{Digest, Token};

/// One boot of this machine, by 64 bits of its random boot id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Boot(pub u64);

/// A moment by two clocks: the server's, and this machine's since its boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Server time.
    pub at: Timestamp,
    /// The boot that `since_boot` counts from.
    pub boot: Boot,
    /// Time since boot in milliseconds; never steps.
    pub since_boot_ms: u64,
}

impl Stamp {
    /// The time since an earlier moment. Within one boot the monotonic clock decides, so that a wrong `Date` neither
    /// shortens nor lengthens it; across boots, server time. A moment that lies ahead counts as now.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Duration {
        if self.boot == earlier.boot {
            Duration::from_millis(self.since_boot_ms.saturating_sub(earlier.since_boot_ms))
        } else {
            self.at.since(earlier.at)
        }
    }

    /// The moment that comes this much later in the same boot.
    #[must_use]
    pub fn plus(&self, span: Duration) -> Self {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self { at: self.at.plus(span), since_boot_ms: self.since_boot_ms.saturating_add(millis), ..*self }
    }
}

/// What an answer claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// The token is unknown, deleted, rotated or expired.
    Refused,
    /// The token cannot be renewed.
    NotRenewable,
    /// The runner does not exist.
    Removed,
    /// A human must act.
    MustAct(Trouble),
    /// Nothing that is understood.
    NotUnderstood,
}

/// Equal answers in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What they claim.
    pub claim: Claim,
    /// How many.
    pub count: u32,
    /// When the first one came.
    pub first: Stamp,
    /// When the last one came, as far as noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Stamp>,
}

impl Finding {
    /// Adds an answer: to a former finding that claims the same, else it begins a new one.
    #[must_use]
    pub fn added(former: Option<Self>, claim: Claim, now: Stamp) -> Self {
        match former {
            Some(former) if former.claim == claim => {
                // A time ahead of the present counts as now.
                let first = if former.first.at > now.at && former.first.boot != now.boot { now } else { former.first };
                Self { count: former.count.saturating_add(1), first, last: Some(now), ..former }
            }
            _ => Self { claim, count: 1, first: now, last: Some(now) },
        }
    }

    /// Whether at least `count` answers have come over at least `span`. That time has passed since is no answer.
    #[must_use]
    pub fn proves(&self, count: u32, span: Duration, now: &Stamp) -> bool {
        self.count >= count && self.last.as_ref().unwrap_or(now).since(&self.first) >= span
    }
}

/// Why a token is refused; decides which recovery is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    /// Refused before its expiry: revoked, deleted or rotated elsewhere.
    Refused,
    /// Past its expiry.
    Expired,
    /// A reset's answer was lost and the old token is refused: the new one is lost.
    Lost,
}

impl Rejection {
    /// Its word in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused before its expiry",
            Self::Expired => "expired",
            Self::Lost => "replaced by a token whose answer was lost",
        }
    }
}

/// The rungs of the recovery ladder that failed for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rungs {
    /// The server declined to reset the token by the runner's id.
    pub reset_failed: bool,
    /// The server declined a new registration; retried after the next verification.
    pub register_failed: bool,
    /// The answer to a new registration was lost. It is not repeated before a person asks for it.
    pub register_lost: bool,
    /// The runner was deleted on the server and is not recovered.
    pub is_removed: bool,
}

/// What was concluded from the evidence. Judged again when new evidence comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// The token is dead.
    Rejected {
        /// The probable reason.
        rejection: Rejection,
        /// The rungs of the recovery ladder tried so far.
        rungs: Rungs,
        /// Server time of the conclusion.
        since: Timestamp,
    },
    /// The token is valid and cannot be renewed.
    NotRenewable {
        /// Server time of the conclusion.
        since: Timestamp,
    },
    /// A human must act.
    Failed {
        /// The reason.
        trouble: Trouble,
        /// Server time of the conclusion.
        since: Timestamp,
    },
}

/// The answers about one token so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The token that they are about; absent for an enrollment without a runner.
    pub token: Option<Digest>,
    /// Answers to verifications, since the last acceptance.
    pub asked: Option<Finding>,
    /// Answers to requests that change something (register, reset), since the last success.
    pub changed: Option<Finding>,
    /// What they have proven.
    pub conclusion: Option<Conclusion>,
    /// Whether a verification has to be answered before the next reset.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asks_first: bool,
}

impl Evidence {
    /// Whether there is anything in it about its token.
    #[must_use]
    pub fn says_something(&self) -> bool {
        self.asked.is_some() || self.changed.is_some() || self.conclusion.is_some() || self.asks_first
    }
}

named_enum! {
    /// Where a candidate comes from.
    pub enum CandidateSource {
        /// It was the runner's current token before.
        Former = "former",
        /// The server sent it, in an answer that does not look like GitLab's.
        Received = "received",
        /// It was found in config.toml.
        Found = "found",
        /// It was read from the store of a shared runner, as a newer one.
        Shared = "shared",
    }
}

impl CandidateSource {
    /// Whether the server has not given it to this machine: it can be found again, and few are kept.
    #[must_use]
    pub fn was_found(self) -> bool {
        match self {
            Self::Found | Self::Shared => true,
            Self::Former | Self::Received => false,
        }
    }
}

/// A token that is not the current one, and that the server may accept again or after all: replicas lag, servers are
/// restored from backups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The token.
    pub token: Token,
    /// Where it comes from.
    pub source: CandidateSource,
    /// Server time at which it became a candidate.
    pub noted_at: Timestamp,
    /// Server time of issue, if known.
    pub obtained_at: Option<Timestamp>,
    /// When it expires.
    pub expiry: Expiry,
    /// The id that came with it: in the server's answer, or in its entry.
    pub id: Option<RunnerId>,
    /// How its runner was created, if the record had that runner before, or was to get it: another one may have come in
    /// between.
    pub origin: Option<Origin>,
    /// Its refusals in a row.
    pub refused: Option<Finding>,
}

/// What is kept beside a record: candidates, newest last, and evidence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The tokens that may still be good.
    pub candidates: Vec<Candidate>,
    /// What the server has said about the current token.
    pub evidence: Option<Box<Evidence>>,
}

impl Held {
    /// Whether there is nothing to keep.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty() && self.evidence.is_none()
    }
}
