//! Decides what to do with a runner's credential, and when. Pure: no clock, network or disk.
//!
//! [`plan()`] returns the next [`Step`] of a [`State`], when it is due and why; [`apply()`] takes a state and the
//! [`Outcome`] of a step and returns the next state. All times are server time and passed in; randomness is passed in
//! as a [`Fraction`].
//!
//! # States
//!
//! | state | meaning | leaves it |
//! |---|---|---|
//! | [`Unregistered`](State::Unregistered) | an enrollment without entry or record | registered → Active; user must act → Failed |
//! | [`Active`](State::Active) | the credential is valid as far as known | refused twice, or once past its expiry → Rejected; a reset's answer lost → Uncertain; rotation closed → NotRenewable |
//! | [`Uncertain`](State::Uncertain) | a reset was sent and its answer was lost | the OLD token accepted twice → Active; refused → Rejected |
//! | [`Rejected`](State::Rejected) | the server refuses the token | recovered, accepted after all, or another credential found → Active |
//! | [`NotRenewable`](State::NotRenewable) | the token is valid but cannot be renewed | refused → Rejected |
//! | [`Failed`](State::Failed) | the user must act | retried: any of the above |
//! | [`Retired`](State::Retired) | unregistered | never |
//!
//! # The recovery ladder
//!
//! Every verification first checks record and config.toml for a newer token. For a refused token [`Recovery`] may allow
//! [`Step::ResetById`], once in a token's life, and then [`Step::RegisterAgain`]. A runner that was deleted on the server
//! is not recovered.
//!
//! [`sharing`] decides about the token of a runner that many machines use.
//!
//! This room imports `model`, the digests of `secret`, and std.

pub mod access;
mod apply;
mod clocks;
mod goal;
pub mod hooks;
mod plan;
mod recovery;
mod schedule;
pub mod sharing;
mod state;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use crate::model::{Rejection, Rungs, Step, Trouble, Why};
pub use access::{AccessKeeping, AccessObstacle, AccessWarning, UsedElsewhere};
pub use apply::{Moment, Outcome, Settling, apply};
pub use clocks::{Clocks, Ground, Life, believe, is_untimed, measured_life, precedes_issue};
pub use goal::{Goal, Taken, plan_towards};
pub use plan::{Plan, next_rotation, plan};
pub use recovery::{Recovery, RegisterAgain};
pub use schedule::{Fraction, Rotation, Share, outlives_twin, proves_dead, reset_from};
pub use state::{Active, Failed, NotRenewable, Rejected, State, Uncertain, Unregistered, Unsaved, Validity};

/// The rules for one runner.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// The delays and limits, which all runners share.
    pub timing: Arc<Timing>,
    /// The interval between verifications of an accepted credential.
    pub verify_interval: Duration,
    /// When its token is rotated; `None` for never.
    pub rotate: Option<Rotation>,
    /// Whether the same runner at another address may rotate the token: this one does so only once it is pressing.
    pub is_twin: bool,
    /// Whether no clock shows how long the token lives: a reset is followed by the next one only after a large part
    /// of the shortest life that GitLab sets.
    pub is_untimed: bool,
    /// What is allowed for a refused token.
    pub recovery: Recovery,
    /// The runner's position in every spread. Fixed for a machine and runner; it distributes the requests of a fleet
    /// that was started at once.
    pub phase: Fraction,
}

/// The delays and limits of the schedule. The defaults are for production; tests shorten them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Minimum time between two successful resets, for long-lived tokens.
    pub between_resets: Duration,
    /// Minimum time between two successful resets, for tokens of any lifetime.
    pub between_resets_floor: Duration,
    /// Time between the first refusal and its confirmation.
    pub confirm_after: Duration,
    /// Time for a lost reset to commit before the old token is verified, and between the two verifications.
    pub settle_after: Duration,
    /// First delay after a failure; doubles with each further failure.
    pub backoff_first: Duration,
    /// Longest delay after a failure.
    pub backoff_cap: Duration,
    /// Shortest delay of any kind.
    pub floor: Duration,
    /// Longest `Retry-After` that is honoured.
    pub retry_after_cap: Duration,
    /// Time until a rejected or failed runner is retried.
    pub look_again: Duration,
    /// Longest sleep between two readings of the clock.
    pub longest_nap: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            between_resets: Duration::from_secs(600),
            between_resets_floor: Duration::from_secs(5),
            confirm_after: Duration::from_secs(60),
            settle_after: Duration::from_secs(60),
            backoff_first: Duration::from_secs(1),
            backoff_cap: Duration::from_secs(300),
            floor: Duration::from_secs(2),
            retry_after_cap: Duration::from_secs(3600),
            look_again: Duration::from_secs(6 * 3600),
            longest_nap: Duration::from_secs(600),
        }
    }
}
