//! The states of a runner's credential.

use std::time::Duration;

use super::Timing;
use super::schedule::ACT_SPAN;
use crate::model::{Conclusion, Evidence, Expiry, Finding, Rejection, Rungs, StateName, Timestamp, Trouble};

/// The state of one runner. Every `since` is the server time at which the state was entered.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// An enrollment without entry or record; to be registered.
    Unregistered(Unregistered),
    /// The credential is valid as far as known.
    Active(Active),
    /// A reset was sent and its answer was lost: either token may be valid.
    Uncertain(Uncertain),
    /// The server refuses the token.
    Rejected(Rejected),
    /// The token is valid, but the server does not renew it.
    NotRenewable(NotRenewable),
    /// The user must act.
    Failed(Failed),
    /// Unregistered.
    Retired {
        /// Time of entry.
        since: Timestamp,
    },
}

/// The initial state of an enrollment without a runner.
#[derive(Clone, Debug, PartialEq)]
pub struct Unregistered {
    /// Time of entry.
    pub since: Timestamp,
    /// Consecutive failed attempts.
    pub failures: u32,
    /// No attempt before this time.
    pub retry_from: Timestamp,
    /// How the server has declined it so far.
    pub changed: Option<Finding>,
}

/// Entered by a registration, an accepted token or a rotation; the initial state of a credential on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Active {
    /// Time of entry.
    pub since: Timestamp,
    /// The credential's validity.
    pub validity: Validity,
    /// Time of the next verification.
    pub verify_at: Timestamp,
    /// No reset before this time, regardless of the token's age.
    pub reset_from: Timestamp,
    /// Consecutive failed requests of any kind: a runner has one backoff.
    pub failures: u32,
    /// No request before this time.
    pub retry_from: Timestamp,
    /// Consecutive resets without a new token: lost, refused although the token is accepted, or unchanged.
    pub fruitless_resets: u32,
    /// What the answers to verifications claim since the last acceptance.
    pub asked: Option<Finding>,
    /// How the server has declined resets since the last one that it executed.
    pub changed: Option<Finding>,
    /// Whether a reset has failed since the last verification: no reset before the next one.
    pub ask_first: bool,
    /// Set while config.toml does not hold the credential.
    pub unsaved: Option<Unsaved>,
}

/// A credential that is in the record but not in config.toml. The write is retried without limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsaved {
    /// Consecutive failed writes.
    pub failures: u32,
    /// No write before this time.
    pub retry_from: Timestamp,
}

/// Entered when a reset's answer was lost.
#[derive(Clone, Debug, PartialEq)]
pub struct Uncertain {
    /// Time of entry.
    pub since: Timestamp,
    /// The validity of the OLD credential.
    pub validity: Validity,
    /// Time of the next verification of the old token.
    pub ask_at: Timestamp,
    /// Acceptances of the old token since; the second one settles it.
    pub accepted: u32,
    /// Its refusals in a row.
    pub asked: Option<Finding>,
    /// Consecutive failed verifications.
    pub failures: u32,
    /// Consecutive resets without a new token, including this one.
    pub fruitless_resets: u32,
}

/// Entered by a confirmed refusal.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejected {
    /// Time of entry.
    pub since: Timestamp,
    /// The validity of the refused credential.
    pub validity: Validity,
    /// The probable reason.
    pub rejection: Rejection,
    /// Time of the next verification.
    pub look_again_at: Timestamp,
    /// The rungs of the recovery ladder tried so far.
    pub rungs: Rungs,
    /// Consecutive failed attempts of the current rung.
    pub failures: u32,
    /// No attempt of a rung before this time.
    pub recover_from: Timestamp,
    /// How the server has declined the current rung so far.
    pub changed: Option<Finding>,
}

/// Entered if the server no longer rotates the token.
#[derive(Clone, Debug, PartialEq)]
pub struct NotRenewable {
    /// Time of entry.
    pub since: Timestamp,
    /// The credential's validity.
    pub validity: Validity,
    /// Time of the next verification.
    pub verify_at: Timestamp,
    /// Time of the next reset: the server may have changed its mind.
    pub reset_at: Timestamp,
    /// Consecutive failed requests.
    pub failures: u32,
    /// What the answers to verifications claim since the last acceptance.
    pub asked: Option<Finding>,
    /// How the server has declined resets.
    pub changed: Option<Finding>,
}

/// Entered if the user must act.
#[derive(Clone, Debug, PartialEq)]
pub struct Failed {
    /// Time of entry.
    pub since: Timestamp,
    /// The credential's validity; `None` without a credential.
    pub validity: Option<Validity>,
    /// The reason.
    pub trouble: Trouble,
    /// Consecutive retries without an answer.
    pub failures: u32,
    /// Time of the next retry.
    pub look_again_at: Timestamp,
    /// What the answers to verifications claim.
    pub asked: Option<Finding>,
    /// How the server has declined requests.
    pub changed: Option<Finding>,
}

/// The lifetime of a credential, as far as known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Server time of issue; if unknown, the time at which it was first seen.
    pub obtained_at: Timestamp,
    /// When the server stops accepting it.
    pub expiry: Expiry,
}

/// How far in the future a time of issue may lie and still be plausible.
const OBTAINED_TOLERANCE: Duration = Duration::from_secs(300);

/// How long a pressing token waits for a reset of another record of its runner.
const SETTLING_TIME: Duration = Duration::from_secs(30);

/// The part of its life in which a token is pressing.
const LAST_SHARE: u32 = 8;

impl Validity {
    /// Uses a time of issue only if it is plausible; else the token's life starts when it was first seen.
    #[must_use]
    pub fn new(obtained_at: Option<Timestamp>, expiry: Expiry, first_seen_at: Timestamp) -> Self {
        let is_plausible = |obtained_at: &Timestamp| {
            *obtained_at <= first_seen_at.plus(OBTAINED_TOLERANCE) && expiry.at().is_none_or(|at| *obtained_at < at)
        };
        Self { obtained_at: obtained_at.filter(is_plausible).unwrap_or(first_seen_at), expiry }
    }

    /// The token's whole life; `None` without a known expiry.
    #[must_use]
    pub fn life(&self) -> Option<Duration> {
        self.expiry.at().map(|at| at.since(self.obtained_at))
    }

    /// The remaining life, zero if expired; `None` without a known expiry.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> Option<Duration> {
        self.expiry.at().map(|at| at.since(now))
    }

    /// Whether the token is in the last eighth of its life: a reset is not put off any further. An expired one is not
    /// urgent.
    #[must_use]
    pub fn is_pressing(&self, now: Timestamp) -> bool {
        self.pressing_from().is_some_and(|from| from <= now) && !self.is_expired(now)
    }

    /// Whether a pressing token waits for a reset of it that another record of its runner sent at `sent_at`: that record's
    /// worker asks within seconds what became of it, but it may be gone.
    #[must_use]
    pub fn waits_for_other_reset(&self, sent_at: Timestamp, now: Timestamp) -> bool {
        let longest = self.left(now).map_or(SETTLING_TIME, |left| SETTLING_TIME.min(left / 2));
        // One from the future was dated by another clock.
        sent_at <= now && now.since(sent_at) < longest
    }

    /// When the last eighth of its life begins; `None` without a known expiry.
    #[must_use]
    pub fn pressing_from(&self) -> Option<Timestamp> {
        self.life().map(|life| self.obtained_at.plus(life - life / LAST_SHARE))
    }

    /// Whether the expiry has passed.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expiry.at().is_some_and(|at| at <= now)
    }
}

impl Active {
    /// Entered now, and verified at once.
    pub(super) fn new(validity: Validity, reset_from: Timestamp, now: Timestamp) -> Self {
        Self {
            since: now,
            validity,
            verify_at: now,
            reset_from,
            failures: 0,
            retry_from: now,
            fruitless_resets: 0,
            asked: None,
            changed: None,
            ask_first: false,
            unsaved: None,
        }
    }
}

impl Rejected {
    /// Whether all candidates were verified, too, since the token was proven dead.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.recover_from < self.look_again_at
    }

    /// Whether a candidate that the server has not judged is waited for: not for ever, since a firewall may block it.
    #[must_use]
    pub fn awaits_candidates(&self, timing: &Timing, now: Timestamp) -> bool {
        now < self.since.plus(timing.confirm_after * ACT_SPAN)
    }
}

impl State {
    /// A credential on disk: assumed valid, and verified at once.
    #[must_use]
    pub fn found(validity: Validity, reset_from: Timestamp, now: Timestamp) -> Self {
        Self::Active(Active::new(validity, reset_from, now))
    }

    /// An enrollment without a runner.
    #[must_use]
    pub fn unregistered(now: Timestamp) -> Self {
        Self::Unregistered(Unregistered { since: now, failures: 0, retry_from: now, changed: None })
    }

    /// The state after a restart: what was concluded before it, judged again by the next verification; else a
    /// credential on disk, or an enrollment without one.
    #[must_use]
    pub fn restored(validity: Option<Validity>, reset_from: Timestamp, evidence: &Evidence, now: Timestamp) -> Self {
        let Evidence { token: _, asked, changed, conclusion, asks_first } = *evidence;
        match (conclusion, validity) {
            (Some(Conclusion::Rejected { rejection, rungs, since }), Some(validity)) => Self::Rejected(Rejected {
                since: since.min(now),
                validity,
                rejection,
                look_again_at: now,
                rungs,
                failures: 0,
                recover_from: now,
                changed,
            }),
            (Some(Conclusion::NotRenewable { since }), Some(validity)) => Self::NotRenewable(NotRenewable {
                since: since.min(now),
                validity,
                verify_at: now,
                reset_at: now,
                failures: 0,
                asked,
                changed,
            }),
            (Some(Conclusion::Failed { trouble, since }), validity) => Self::Failed(Failed {
                since: since.min(now),
                validity,
                trouble,
                failures: 0,
                look_again_at: now,
                asked,
                changed,
            }),
            (_, Some(validity)) => {
                Self::Active(Active { asked, changed, ask_first: asks_first, ..Active::new(validity, reset_from, now) })
            }
            (_, None) => Self::Unregistered(Unregistered { since: now, failures: 0, retry_from: now, changed }),
        }
    }

    /// What has to survive a restart. The token that it is about is for the caller to add.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        let (asked, changed, conclusion) = match self {
            Self::Unregistered(state) => (None, state.changed, None),
            Self::Active(state) => (state.asked, state.changed, None),
            Self::Uncertain(state) => (state.asked, None, None),
            Self::Rejected(Rejected { rejection, rungs, since, changed, .. }) => {
                let conclusion = Conclusion::Rejected { rejection: *rejection, rungs: *rungs, since: *since };
                (None, *changed, Some(conclusion))
            }
            Self::NotRenewable(state) => {
                (state.asked, state.changed, Some(Conclusion::NotRenewable { since: state.since }))
            }
            Self::Failed(Failed { trouble, since, asked, changed, .. }) => {
                (*asked, *changed, Some(Conclusion::Failed { trouble: *trouble, since: *since }))
            }
            Self::Retired { .. } => (None, None, None),
        };
        let asks_first = matches!(self, Self::Active(state) if state.ask_first);
        Evidence { token: None, asked, changed, conclusion, asks_first }
    }

    /// Whether it waits for a person because the answer to a registration was lost.
    #[must_use]
    pub fn has_lost_registration(&self) -> bool {
        match self {
            Self::Failed(state) => state.validity.is_none() && state.trouble == Trouble::RegistrationLost,
            Self::Rejected(state) => state.rungs.register_lost,
            Self::Unregistered(_)
            | Self::Active(_)
            | Self::Uncertain(_)
            | Self::NotRenewable(_)
            | Self::Retired { .. } => false,
        }
    }

    /// The state once the estimate of the server's time was corrected, from `before` to `now` at one moment: what waits
    /// goes on waiting for as long, and what is due stays due. The times of the credential are the server's own.
    pub(super) fn corrected(self, before: Timestamp, now: Timestamp) -> Self {
        let moved = |at: Timestamp| if now > before { at.plus(now.since(before)) } else { at.minus(before.since(now)) };
        match self {
            Self::Unregistered(state) => Self::Unregistered(Unregistered {
                since: moved(state.since),
                retry_from: moved(state.retry_from),
                ..state
            }),
            Self::Active(state) => Self::Active(Active {
                since: moved(state.since),
                verify_at: moved(state.verify_at),
                reset_from: moved(state.reset_from),
                retry_from: moved(state.retry_from),
                unsaved: state.unsaved.map(|it| Unsaved { retry_from: moved(it.retry_from), ..it }),
                ..state
            }),
            Self::Uncertain(state) => {
                Self::Uncertain(Uncertain { since: moved(state.since), ask_at: moved(state.ask_at), ..state })
            }
            Self::Rejected(state) => Self::Rejected(Rejected {
                since: moved(state.since),
                look_again_at: moved(state.look_again_at),
                recover_from: moved(state.recover_from),
                ..state
            }),
            Self::NotRenewable(state) => Self::NotRenewable(NotRenewable {
                since: moved(state.since),
                verify_at: moved(state.verify_at),
                reset_at: moved(state.reset_at),
                ..state
            }),
            Self::Failed(state) => {
                Self::Failed(Failed { since: moved(state.since), look_again_at: moved(state.look_again_at), ..state })
            }
            Self::Retired { since } => Self::Retired { since },
        }
    }

    /// The name used in JSON and metrics.
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

    /// Server time at which the state was entered.
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

    /// The validity of its credential, if it has one.
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
