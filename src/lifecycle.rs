//! What to do with one runner's credential, and when: pure decisions without clock, network or disk.
//!
//! [`plan()`] looks at a [`State`] and says which [`Step`] is due at which server time and why;
//! [`apply()`] takes the state by value with the [`Outcome`] of a step and returns the next one. All times
//! are the server's wall time, handed in; chance comes in as a [`Fraction`].
//!
//! # States
//!
//! | state | meaning | leaves it |
//! |---|---|---|
//! | [`Unregistered`](State::Unregistered) | an enrollment with neither entry nor record | registered → Active; a human must act → Failed |
//! | [`Active`](State::Active) | the credential is good as far as we know | refused twice, or once past its expiry → Rejected; a reset's answer lost → Uncertain; rotation closed → NotRenewable |
//! | [`Uncertain`](State::Uncertain) | a reset was sent and its answer was lost | the OLD token accepted twice → Active; refused → Rejected |
//! | [`Rejected`](State::Rejected) | the server refuses the token | a rung of the recovery ladder, an acceptance after all, or another credential → Active |
//! | [`NotRenewable`](State::NotRenewable) | valid, but cannot be renewed | refused → Rejected |
//! | [`Failed`](State::Failed) | a human must act | looked at again: any of the above |
//! | [`Retired`](State::Retired) | unregistered | never |
//!
//! # The recovery ladder
//!
//! A refused token is first looked for in the record and in config.toml (which every verification does).
//! Then, each rung only where [`Recovery`] allows it: [`Step::ResetById`], once in a token's life, and
//! [`Step::RegisterAgain`]. A runner that the server no longer has was removed by somebody, and no rung
//! brings it back.
//!
//! This room imports `model` and std only.

mod apply;
mod goal;
mod plan;
mod recovery;
mod schedule;
mod state;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use crate::model::{Step, Trouble, Why};
pub use apply::{Moment, Outcome, apply};
pub use goal::{Goal, Taken, plan_towards};
pub use plan::{Plan, plan};
pub use recovery::{Recovery, RegisterAgain};
pub use schedule::{Fraction, Share, reset_from, rotate_at};
pub use state::{
    Active, Failed, NotRenewable, Rejected, Rejection, Rungs, State, Uncertain, Unregistered, Unsaved, Validity,
};

/// What governs one runner.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// The numbers.
    pub timing: Timing,
    /// How often an accepted credential is checked.
    pub verify_interval: Duration,
    /// The share of a token's life after which it is replaced; `None` leaves rotation to someone else.
    pub rotate: Option<Share>,
    /// What may be done about a refused token.
    pub recovery: Recovery,
    /// This runner's place within every spread: fixed for a machine and runner, so that a fleet that
    /// was started in one second does not act in one second.
    pub phase: Fraction,
}

/// Every number that shapes the schedule. The defaults are for production; tests shorten them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Least time between two successful resets, for tokens that live long.
    pub between_resets: Duration,
    /// Least time between two successful resets, for tokens that live hardly at all.
    pub between_resets_floor: Duration,
    /// Time between the first refusal and the one that counts.
    pub confirm_after: Duration,
    /// Time for a lost reset to commit before the old token is asked about, and between the two asks.
    pub settle_after: Duration,
    /// First delay after a failure; doubles with each further one.
    pub backoff_first: Duration,
    /// Longest delay after a failure.
    pub backoff_cap: Duration,
    /// Shortest delay of any kind.
    pub floor: Duration,
    /// Longest time that a server's `Retry-After` is obeyed.
    pub retry_after_cap: Duration,
    /// Time until a rejected or failed runner is looked at again.
    pub look_again: Duration,
    /// Longest time that the process sleeps without reading the clocks again.
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
