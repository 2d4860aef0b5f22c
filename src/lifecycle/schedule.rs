//! Times: when a token is rotated, and how long to wait after each outcome.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::clocks::SHORTEST_LIFE;
use super::{Rules, Timing, Validity};
use crate::model::{Claim, Expiry, Finding, Stamp, Timestamp};

/// A number from 0 (inclusive) to 1 (exclusive): a phase or a random number.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Fraction(f64);

impl Fraction {
    /// No offset.
    pub const ZERO: Self = Self(0.0);

    /// Converts 32 evenly distributed bits.
    #[must_use]
    pub fn from_bits(bits: u32) -> Self {
        Self(f64::from(bits) / (f64::from(u32::MAX) + 1.0))
    }

    pub(super) fn of(self, span: Duration) -> Duration {
        span.mul_f64(self.0)
    }
}

/// The share of a token's life after which it is rotated.
///
/// Range: 10 % to 74 %, ahead of gitlab-runner's own 75 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(f64);

impl Share {
    /// Two thirds, as most credential agents do.
    pub const DEFAULT: Self = Self(0.66);
}

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        let percent: f64 = text.strip_suffix('%').and_then(|n| n.trim().parse().ok()).ok_or(ShareError)?;
        if (10.0..=74.0).contains(&percent) { Ok(Self(percent / 100.0)) } else { Err(ShareError) }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.0}%", self.0 * 100.0)
    }
}

/// A text that is not a [`Share`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a share of the token's life from \"10%\" to \"74%\", ahead of gitlab-runner's 75 %")]
pub struct ShareError;

/// When a token is rotated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rotation {
    /// After a share of its life.
    AtShare(Share),
    /// Once gitlab-runner, which rotates at 75 % of the life, evidently does not: at 90 % at the earliest.
    LastResort {
        /// Whether the time of issue is known. If it is not, the life began earlier than it seems.
        is_issue_known: bool,
    },
}

/// The share of the life after which a token is rotated as a last resort. What is left is enough for retries, which come
/// at fractions of it.
const LAST_RESORT: f64 = 0.9;

/// The spread of last resorts after that share, as a share of the life.
const LAST_RESORT_SPREAD: f64 = 0.02;

/// A tenth of the shortest life: by then any token of GitLab's has lived for 90 % of its own.
const LAST_TENTH: Duration = Duration::from_secs(SHORTEST_LIFE.as_secs() / 10);

/// The spread of rotations before their share, as a share of the life.
const ROTATE_SPREAD: f64 = 0.04;

/// The spread of verifications before the end of their interval, as a share of the interval.
const VERIFY_SPREAD: f64 = 0.1;

/// The fixed share of a backoff; the rest is jitter. Full jitter would not bound the number of requests per hour.
const BACKOFF_FIXED: f64 = 0.75;

/// Near its expiry a token is retried at fractions of its remaining life, but at most this often in its whole life.
const LIFE_STEPS: u32 = 64;

/// When the token is rotated: at the share of its life, earlier by the phase; as a last resort later by the phase. `None`
/// without a known expiry.
#[must_use]
pub(super) fn rotate_at(validity: &Validity, rotation: Rotation, phase: Fraction) -> Option<Timestamp> {
    let (life, expires_at) = (validity.life()?, validity.expiry.at()?);
    let after = |share: f64| validity.obtained_at.plus(life.mul_f64(share));
    let last_resort = || after(LAST_RESORT + LAST_RESORT_SPREAD * phase.0);
    Some(match rotation {
        Rotation::AtShare(share) => after(share.0 - ROTATE_SPREAD * phase.0),
        Rotation::LastResort { is_issue_known: true } => last_resort(),
        // A token that was first seen shortly before its expiry has time for retries too.
        Rotation::LastResort { is_issue_known: false } => last_resort().min(expires_at.minus(LAST_TENTH)),
    })
}

/// The time until the next regular verification.
pub(super) fn verify_spacing(interval: Duration, phase: Fraction) -> Duration {
    interval.mul_f64(1.0 - VERIFY_SPREAD * phase.0)
}

/// The time until a rejected or failed runner is retried: at most an eighth of the life left while the token lives.
pub(super) fn look_again_spacing(timing: &Timing, phase: Fraction, left: Option<Duration>) -> Duration {
    let wanted = timing.look_again.mul_f64(1.0 - VERIFY_SPREAD * phase.0);
    left.filter(|left| !left.is_zero()).map_or(wanted, |left| wanted.min(left / 8)).max(timing.floor)
}

/// Evidence that a conclusion needs: this many equal answers, over at least this span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proof {
    count: u32,
    span: Duration,
}

impl Proof {
    /// That a token is dead, cannot be renewed, or that its runner is gone: two answers.
    pub(super) fn of_two(timing: &Timing, left: Option<Duration>) -> Self {
        Self { count: 2, span: certainty_wait(timing, timing.confirm_after, left) }
    }

    /// That a human must act: three answers, over ten times the time that confirms a refusal.
    pub(super) fn of_three(timing: &Timing, left: Option<Duration>) -> Self {
        Self { count: 3, span: certainty_wait(timing, timing.confirm_after * ACT_SPAN, left) }
    }

    /// That what answers is not understood: for a day, or less if little life is left.
    pub(super) fn of_a_day(timing: &Timing, left: Option<Duration>) -> Self {
        Self { count: 3, span: certainty_wait(timing, DAY, left) }
    }

    /// What a claim of a verification needs.
    pub(super) fn of(claim: Claim, timing: &Timing, left: Option<Duration>) -> Self {
        match claim {
            Claim::Refused | Claim::NotRenewable | Claim::Removed => Self::of_two(timing, left),
            Claim::MustAct(_) => Self::of_three(timing, left),
            Claim::NotUnderstood => Self::of_a_day(timing, left),
        }
    }

    pub(super) fn is_met(self, finding: &Finding, now: &Stamp) -> bool {
        finding.proves(self.count, self.span, now)
    }

    /// The time until the next answer, if the missing ones come evenly over the rest of the span.
    pub(super) fn wait(self, finding: &Finding, now: &Stamp, timing: &Timing) -> Duration {
        let rest = self.span.saturating_sub(now.since(&finding.first));
        (rest / self.count.saturating_sub(finding.count).max(1)).max(timing.floor)
    }
}

/// Whether these refusals prove that a token is dead, with this much of its life left.
#[must_use]
pub fn proves_dead(finding: &Finding, timing: &Timing, left: Option<Duration>, now: &Stamp) -> bool {
    finding.claim == Claim::Refused && Proof::of_two(timing, left).is_met(finding, now)
}

/// How long a replica may go on accepting a token that was replaced.
const REPLICA_LAG: Duration = Duration::from_secs(600);

/// Whether an acceptance shows that a token is of a runner of its own, although a twin, which had the same token at
/// another address, has got a new one: the acceptance comes so much later that no replica lags. The wait is shorter if
/// little of the token's life was left. An unknown time of replacement is long past.
#[must_use]
pub fn outlives_twin(accepted_at: Timestamp, twin_replaced_at: Option<Timestamp>, expiry: Expiry) -> bool {
    twin_replaced_at.is_none_or(|replaced_at| {
        let left = expiry.at().map(|at| at.since(replaced_at));
        accepted_at > replaced_at.plus(left.map_or(REPLICA_LAG, |left| REPLICA_LAG.min(left / 8)))
    })
}

/// A human is asked for after this many times the time that confirms a refusal: ten minutes by default.
pub(super) const ACT_SPAN: u32 = 10;

/// How long answers may stay misunderstood, and how often a token that cannot be renewed is tried again.
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// The time until a token that the server does not renew is tried again. An expiry that has passed contradicts an
/// acceptance, and nothing is urgent then.
pub(super) fn renew_again_spacing(timing: &Timing, left: Option<Duration>) -> Duration {
    left.filter(|left| !left.is_zero()).map_or(DAY, |left| DAY.min(left / 8)).max(timing.confirm_after)
}

/// The minimum time between two successful resets of a token with this lifetime. A life of zero is a contradiction of
/// clocks, and counts as unknown.
pub(super) fn between_resets(timing: &Timing, life: Option<Duration>) -> Duration {
    let life = life.filter(|life| !life.is_zero());
    let wanted = life.map_or(timing.between_resets, |life| timing.between_resets.min(life / 4));
    wanted.max(timing.between_resets_floor)
}

/// A reset is followed by the next after this many times the minimum if no clock shows how long the new token lives: by
/// default eighty minutes, two thirds of the shortest life that GitLab sets.
const BLIND_RESETS: u32 = 8;

/// The minimum time from a reset to the next one, with the token that it gave.
pub(super) fn after_reset(rules: &Rules, validity: &Validity, now: Timestamp) -> Duration {
    if rules.is_untimed || validity.is_expired(now) {
        return rules.timing.between_resets.saturating_mul(BLIND_RESETS);
    }
    between_resets(&rules.timing, validity.life())
}

/// The wait before a lost answer is settled. It is so much shorter if little life is left that a token is replaced in time
/// although the answers to three resets in a row are lost.
pub(super) fn settling_wait(timing: &Timing, left: Option<Duration>) -> Duration {
    left.map_or(timing.settle_after, |left| timing.settle_after.min(left / 20)).max(timing.floor)
}

/// The wait before a refusal is confirmed: shorter if little life is left.
pub(super) fn certainty_wait(timing: &Timing, wanted: Duration, left: Option<Duration>) -> Duration {
    left.map_or(wanted, |left| wanted.min(left / 8)).max(timing.floor)
}

/// The delay after a number of consecutive failures.
///
/// Doubles up to the cap. Before the expiry, the delay is at most a quarter of the remaining life, to rotate in time
/// even if the server comes back late. An expired token is not urgent.
pub(super) fn backoff(
    timing: &Timing,
    failures: u32,
    validity: Option<&Validity>,
    now: Timestamp,
    chance: Fraction,
) -> Duration {
    let ceiling = doubled(timing.backoff_first, failures).min(timing.backoff_cap);
    let fixed = ceiling.mul_f64(BACKOFF_FIXED);
    let delay = (fixed + chance.of(ceiling - fixed)).max(timing.floor);
    let Some((left, life)) = validity.and_then(|validity| Some((validity.left(now)?, validity.life()?))) else {
        return delay;
    };
    if left.is_zero() {
        return delay;
    }
    delay.min((left / 4).max(life / LIFE_STEPS)).max(timing.floor)
}

/// Why a reset has given no new token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fruitless {
    /// Its answer was lost, and it was surely not executed.
    Lost,
    /// The server has answered.
    Answered,
}

/// The delay after a reset without a new token: the settling time, doubled with each consecutive one, at most a quarter
/// of the remaining life. After a lost answer it is at most a tenth: settling that has taken its time already.
pub(super) fn fruitless_backoff(
    timing: &Timing,
    reason: Fruitless,
    resets: u32,
    validity: &Validity,
    now: Timestamp,
) -> Duration {
    let wanted = doubled(timing.settle_after, resets).min(timing.look_again);
    let share = match reason {
        Fruitless::Lost => 10,
        Fruitless::Answered => 4,
    };
    match validity.left(now) {
        Some(left) if !left.is_zero() => wanted.min(left / share).max(timing.floor),
        _ => wanted.max(timing.floor),
    }
}

/// Doubles a span with each time after the first.
pub(super) fn doubled(span: Duration, times: u32) -> Duration {
    span.saturating_mul(1_u32.checked_shl(times.saturating_sub(1)).unwrap_or(u32::MAX))
}

/// The earliest time of the next reset after the last one. A stored time ahead of the present counts as now. Whether the
/// token has expired is not known yet: a process that has just started has not heard the server's time.
#[must_use]
pub fn reset_from(timing: &Timing, validity: &Validity, last_reset_at: Option<Timestamp>, now: Timestamp) -> Timestamp {
    last_reset_at.map_or(Timestamp::EARLIEST, |at| at.min(now).plus(between_resets(timing, validity.life())))
}

/// How long a `Retry-After` is honoured: up to the cap and half of the remaining life.
pub(super) fn honoured(timing: &Timing, retry_after: Duration, left: Option<Duration>) -> Duration {
    let capped = retry_after.min(timing.retry_after_cap);
    match left {
        Some(left) if !left.is_zero() => capped.min(left / 2),
        _ => capped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_stays_ahead_of_gitlab_runner() {
        assert!("66%".parse::<Share>().is_ok());
        for wrong in ["75%", "100%", "9%", "66", "", "-5%", "NaN%"] {
            assert_eq!(wrong.parse::<Share>(), Err(ShareError), "{wrong}");
        }
    }

    #[test]
    fn a_rotation_is_earlier_by_the_phase_and_a_last_resort_later() {
        let (obtained_at, day) = (Timestamp::from_millis(0), Duration::from_secs(86_400));
        let validity = Validity { obtained_at, expiry: Expiry::At(obtained_at.plus(day)) };
        let share_of_life = |rotation, phase| {
            let at = rotate_at(&validity, rotation, Fraction(phase)).unwrap();
            (at.since(obtained_at).as_secs_f64() / day.as_secs_f64() * 100.0).round()
        };
        let at_share = Rotation::AtShare(Share::DEFAULT);
        assert_eq!((share_of_life(at_share, 0.0), share_of_life(at_share, 1.0)), (66.0, 62.0));
        let last_resort = Rotation::LastResort { is_issue_known: true };
        assert_eq!((share_of_life(last_resort, 0.0), share_of_life(last_resort, 1.0)), (90.0, 92.0));
    }

    #[test]
    fn backoff_doubles_from_the_floor_to_the_cap() {
        let timing = Timing::default();
        let delays: Vec<u64> = (1..=11)
            .map(|failures| backoff(&timing, failures, None, Timestamp::EARLIEST, Fraction(0.999_999)).as_secs())
            .collect();
        assert_eq!(delays, [2, 2, 3, 7, 15, 31, 63, 127, 255, 299, 299]);
    }

    #[test]
    fn the_time_between_resets_shrinks_with_the_life_to_a_floor() {
        let timing = Timing::default();
        for (life, expected) in [(None, 600), (Some(86_400), 600), (Some(1200), 300), (Some(4), 5)] {
            let actual = between_resets(&timing, life.map(Duration::from_secs));
            assert_eq!(actual, Duration::from_secs(expected), "{life:?}");
        }
    }

    #[test]
    fn retry_after_is_limited_to_half_of_the_remaining_life() {
        let timing = Timing::default();
        let day = Duration::from_secs(86_400);
        assert_eq!(honoured(&timing, day, None), timing.retry_after_cap);
        assert_eq!(honoured(&timing, day, Some(Duration::from_secs(600))), Duration::from_secs(300));
    }
}
