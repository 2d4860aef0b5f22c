//! Where a runner's credential stands.

use std::time::Duration;

use crate::model::{Expiry, StateName, Timestamp, Trouble};

/// The state of one runner. Every `since` is the server time of entry into the state.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// An enrollment that has neither entry nor record: to be registered.
    Unregistered(Unregistered),
    /// The credential is good as far as we know.
    Active(Active),
    /// A reset was sent and its answer was lost: either token may be the valid one.
    Uncertain(Uncertain),
    /// The server refuses the token.
    Rejected(Rejected),
    /// The token is valid, but the server will not renew it.
    NotRenewable(NotRenewable),
    /// Nothing helps until a human acts.
    Failed(Failed),
    /// Unregistered; its worker ends.
    Retired {
        /// When.
        since: Timestamp,
    },
}

/// Entered by an enrollment without a runner.
#[derive(Clone, Debug, PartialEq)]
pub struct Unregistered {
    /// Time of entry.
    pub since: Timestamp,
    /// Attempts that failed in a row.
    pub failures: u32,
    /// No attempt before this time.
    pub retry_from: Timestamp,
}

/// Entered by a registration, an accepted token, a rotation; also the state in which a credential that
/// was read from disk starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Active {
    /// Time of entry.
    pub since: Timestamp,
    /// The credential's times.
    pub validity: Validity,
    /// When it is checked next.
    pub verify_at: Timestamp,
    /// No reset before this time, whatever the life says.
    pub reset_from: Timestamp,
    /// Requests that failed in a row, whichever they were: one backoff for all that a runner asks.
    pub failures: u32,
    /// No request before this time.
    pub retry_from: Timestamp,
    /// Resets in a row that brought no new token: lost, refused although the token is accepted, or unchanged.
    pub resets_in_vain: u32,
    /// Time of a refusal that has yet to be confirmed.
    pub refused_at: Option<Timestamp>,
    /// Set while config.toml does not yet hold the credential.
    pub unsaved: Option<Unsaved>,
}

/// A credential that is in the record but not in config.toml; its write is retried for ever.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsaved {
    /// Writes that failed in a row.
    pub failures: u32,
    /// No write before this time.
    pub retry_from: Timestamp,
}

/// Entered when a reset's answer was lost.
#[derive(Clone, Debug, PartialEq)]
pub struct Uncertain {
    /// Time of entry.
    pub since: Timestamp,
    /// The OLD credential's times.
    pub validity: Validity,
    /// When the old token is asked about next.
    pub ask_at: Timestamp,
    /// How often it was accepted since; twice settles it.
    pub accepted: u32,
    /// Asks that failed in a row.
    pub failures: u32,
    /// Resets in a row that brought no new token, this one included.
    pub resets_in_vain: u32,
}

/// Entered by refusals that count.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejected {
    /// Time of entry.
    pub since: Timestamp,
    /// The refused credential's times.
    pub validity: Validity,
    /// What it looks like.
    pub rejection: Rejection,
    /// When the token is tried again.
    pub look_again_at: Timestamp,
    /// How far up the recovery ladder it has come.
    pub rungs: Rungs,
    /// Tries of the present rung that failed in a row.
    pub failures: u32,
    /// No try of a rung before this time.
    pub recover_from: Timestamp,
}

/// Which rungs of the recovery ladder have been tried and failed for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rungs {
    /// The server declined to reset the token by its number.
    pub reset_failed: bool,
    /// The server declined to register it anew; tried again at the next look.
    pub register_failed: bool,
    /// The server no longer has the runner: somebody removed it, and it stays removed.
    pub is_removed: bool,
}

/// How a token came to be refused, which decides what may be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// It was refused within its life: revoked, deleted or rotated by someone else.
    Refused,
    /// It was past its expiry.
    Expired,
    /// A reset's answer was lost and the old token no longer works: the new one is lost.
    Lost,
}

/// Entered when the server declares the rotation closed.
#[derive(Clone, Debug, PartialEq)]
pub struct NotRenewable {
    /// Time of entry.
    pub since: Timestamp,
    /// The credential's times.
    pub validity: Validity,
    /// When it is checked next.
    pub verify_at: Timestamp,
    /// Checks that failed in a row.
    pub failures: u32,
    /// Time of a refusal that has yet to be confirmed.
    pub refused_at: Option<Timestamp>,
}

/// Entered when only a human can help.
#[derive(Clone, Debug, PartialEq)]
pub struct Failed {
    /// Time of entry.
    pub since: Timestamp,
    /// The credential's times; none if there never was one.
    pub validity: Option<Validity>,
    /// What to act on.
    pub trouble: Trouble,
    /// Looks that got no answer in a row.
    pub failures: u32,
    /// When it is tried again.
    pub look_again_at: Timestamp,
}

/// What is known of a credential's times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Server time of issue, or of first sight where nobody wrote that down.
    pub obtained_at: Timestamp,
    /// When the server will stop accepting it.
    pub expiry: Expiry,
}

/// How far ahead of the server's clock a time of issue may lie and still be believed.
const OBTAINED_TOLERANCE: Duration = Duration::from_secs(300);

impl Validity {
    /// Believes a time of issue only where it can be true; else the token's life is counted from when
    /// it was first seen.
    #[must_use]
    pub fn new(obtained_at: Option<Timestamp>, expiry: Expiry, first_seen_at: Timestamp) -> Self {
        let is_possible = |obtained_at: &Timestamp| {
            *obtained_at <= first_seen_at.plus(OBTAINED_TOLERANCE) && expiry.at().is_none_or(|at| *obtained_at < at)
        };
        Self { obtained_at: obtained_at.filter(is_possible).unwrap_or(first_seen_at), expiry }
    }

    /// The token's whole life; `None` if it has no end that we know of.
    #[must_use]
    pub fn life(&self) -> Option<Duration> {
        self.expiry.at().map(|at| at.since(self.obtained_at))
    }

    /// What is left of it; `None` if it has no end that we know of.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> Option<Duration> {
        self.expiry.at().map(|at| at.since(now))
    }

    /// Whether it should no longer work.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expiry.at().is_some_and(|at| at <= now)
    }
}

impl State {
    /// A credential that was found on disk: good until the server says otherwise, and checked at once.
    #[must_use]
    pub fn found(validity: Validity, reset_from: Timestamp, now: Timestamp) -> Self {
        Self::Active(Active {
            since: now,
            validity,
            verify_at: now,
            reset_from,
            failures: 0,
            retry_from: now,
            resets_in_vain: 0,
            refused_at: None,
            unsaved: None,
        })
    }

    /// An enrollment that has no runner yet.
    #[must_use]
    pub fn unregistered(now: Timestamp) -> Self {
        Self::Unregistered(Unregistered { since: now, failures: 0, retry_from: now })
    }

    /// The state's name, as in the JSON shape and the metrics.
    #[must_use]
    pub fn name(&self) -> StateName {
        match self {
            Self::Unregistered(_) => StateName::Unregistered,
            Self::Active(_) => StateName::Active,
            Self::Uncertain(_) => StateName::Uncertain,
            Self::Rejected(_) => StateName::Rejected,
            Self::NotRenewable(_) => StateName::NotRenewable,
            Self::Failed(_) => StateName::Failed,
            Self::Retired { .. } => StateName::Retired,
        }
    }

    /// Server time of entry into the state.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        match self {
            Self::Unregistered(state) => state.since,
            Self::Active(state) => state.since,
            Self::Uncertain(state) => state.since,
            Self::Rejected(state) => state.since,
            Self::NotRenewable(state) => state.since,
            Self::Failed(state) => state.since,
            Self::Retired { since } => *since,
        }
    }

    /// The times of the credential it holds, if it holds one.
    #[must_use]
    pub fn validity(&self) -> Option<&Validity> {
        match self {
            Self::Unregistered(_) | Self::Retired { .. } => None,
            Self::Active(state) => Some(&state.validity),
            Self::Uncertain(state) => Some(&state.validity),
            Self::Rejected(state) => Some(&state.validity),
            Self::NotRenewable(state) => Some(&state.validity),
            Self::Failed(state) => state.validity.as_ref(),
        }
    }
}
