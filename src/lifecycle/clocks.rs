//! Which clock to go by: the `Date` of the server's answers or this machine's clock. Each may be wrong.
//!
//! An expiry is in GitLab's own time, which neither shows for certain: a proxy may send a `Date` of its own, and a
//! machine may have lost its time. What is certain is that a token has not expired when it is accepted or issued. Beyond
//! that, going by a clock that is ahead makes rotations early, which is cheap, and going by one that is behind lets the
//! token expire. So of two clocks that differ, the later one counts, unless it contradicts the acceptance.

use std::time::Duration;

use crate::model::Timestamp;

/// The two clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// The `Date` of an answer.
    pub date: Timestamp,
    /// This machine's clock when the answer came.
    pub local: Timestamp,
}

/// A clock that tells the server's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witness {
    /// The `Date` of the server's answers.
    Date,
    /// This machine's clock.
    Local,
}

/// Which clock is believed, for as long as the two differ by as much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Belief {
    /// The clock.
    pub witness: Witness,
    /// Whether the `Date` is wrong for certain, because the accepted token would have expired by it.
    pub is_date_refuted: bool,
    /// This machine's clock minus the `Date`.
    ahead_millis: i64,
}

/// How long an accepted token lives in all, as far as known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It has just been issued.
    Fresh {
        /// The life of an earlier token of this runner, by clocks that agreed when it was issued.
        measured: Option<Duration>,
    },
    /// It was issued earlier.
    Known(Option<Duration>),
}

/// Clocks that differ by less than this share of the life agree: rotations come early enough by either.
const TOLERANCE_SHARE: u32 = 8;

/// The shortest life that GitLab gives a token is two hours. A clock by which a fresh one lives a good deal less is wrong,
/// if the other one does not say so too.
const LEAST_LIFE: Duration = Duration::from_secs(7200 - 7200 / TOLERANCE_SHARE as u64);

/// A `Date` has whole seconds, and the answer takes its time.
const TOLERANCE_FLOOR: Duration = Duration::from_secs(2);

impl Clocks {
    fn ahead_millis(self) -> i64 {
        self.local.as_millis().saturating_sub(self.date.as_millis())
    }
}

/// Decides which clock to go by, when the server has issued or accepted a token. `former` is the belief until then.
#[must_use]
pub fn believe(clocks: Clocks, expires_at: Timestamp, life: Life, former: Option<Belief>) -> Belief {
    let ahead_millis = clocks.ahead_millis();
    let believed = |witness| Belief { witness, is_date_refuted: clocks.date >= expires_at, ahead_millis };
    match (clocks.date < expires_at, clocks.local < expires_at) {
        (true, true) => {}
        (true, false) => return believed(Witness::Date),
        (false, _) => return believed(Witness::Local),
    }
    let (by_date, by_local) = (expires_at.since(clocks.date), expires_at.since(clocks.local));
    let whole = match life {
        Life::Known(Some(life)) if !life.is_zero() => life,
        Life::Known(_) | Life::Fresh { .. } => by_date.min(by_local),
    };
    if ahead_millis.unsigned_abs() <= millis(tolerance(whole)) {
        return believed(Witness::Date);
    }
    let measured = match life {
        Life::Fresh { measured } => {
            let is_bound = measured.is_none_or(|life| life >= LEAST_LIFE);
            let measured = measured.and_then(|life| measures(life, by_date, by_local));
            measured.or_else(|| gives_enough(by_date, by_local).filter(|_| is_bound))
        }
        Life::Known(_) => None,
    };
    let is_as_before = |former: &Belief| former.ahead_millis.abs_diff(ahead_millis) <= millis(tolerance(whole));
    let before = former.filter(is_as_before).map(|former| former.witness);
    let later = if clocks.date < clocks.local { Witness::Local } else { Witness::Date };
    believed(measured.or(before).unwrap_or(later))
}

/// The one clock by which a fresh token lives as long as an earlier one did.
fn measures(life: Duration, by_date: Duration, by_local: Duration) -> Option<Witness> {
    let is_equal = |left: Duration| left.abs_diff(life) <= tolerance(life);
    match (is_equal(by_date), is_equal(by_local)) {
        (true, false) => Some(Witness::Date),
        (false, true) => Some(Witness::Local),
        (true, true) | (false, false) => None,
    }
}

/// The one clock by which a fresh token lives as long as GitLab's tokens do.
fn gives_enough(by_date: Duration, by_local: Duration) -> Option<Witness> {
    match (by_date >= LEAST_LIFE, by_local >= LEAST_LIFE) {
        (true, false) => Some(Witness::Date),
        (false, true) => Some(Witness::Local),
        (true, true) | (false, false) => None,
    }
}

/// The life of a fresh token; `None` unless both clocks agree on it.
#[must_use]
pub fn measured_life(clocks: Clocks, expires_at: Timestamp) -> Option<Duration> {
    let (by_date, by_local) = (expires_at.since(clocks.date), expires_at.since(clocks.local));
    let agree = clocks.ahead_millis().unsigned_abs() <= millis(tolerance(by_date.min(by_local)));
    Some(by_date).filter(|life| agree && !life.is_zero())
}

/// Whether a `Date` lies so far before the time at which a token was issued that it is not believed.
#[must_use]
pub fn precedes_issue(date: Timestamp, obtained_at: Timestamp, expires_at: Timestamp) -> bool {
    obtained_at < expires_at && obtained_at.since(date) > tolerance(expires_at.since(obtained_at))
}

fn tolerance(life: Duration) -> Duration {
    (life / TOLERANCE_SHARE).max(TOLERANCE_FLOOR)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: i64 = 7200;
    const WHOLE: Duration = Duration::from_secs(7200);
    const FRESH: Life = Life::Fresh { measured: None };

    /// Clocks that are ahead of the server's by these seconds.
    fn clocks(date: i64, local: i64) -> Clocks {
        let at = |secs: i64| Timestamp::from_millis(1_800_000_000_000 + secs * 1000);
        Clocks { date: at(date), local: at(local) }
    }

    fn expiry() -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + LIFE * 1000)
    }

    fn witness(date: i64, local: i64, life: Life, former: Option<Belief>) -> Witness {
        believe(clocks(date, local), expiry(), life, former).witness
    }

    #[test]
    fn the_later_clock_counts_unless_the_token_would_have_expired_by_it() {
        const YEARS: i64 = 30 * 365 * 86_400;
        for (date, local, expected) in [
            (0, 0, Witness::Date),
            (-800, 0, Witness::Date),
            (800, 0, Witness::Date),
            (-1000, 0, Witness::Local),
            (-LIFE / 2, 0, Witness::Local),
            (-YEARS, 0, Witness::Local),
            (1000, 0, Witness::Date),
            (LIFE / 2, 0, Witness::Date),
            (LIFE, 0, Witness::Local),
            (YEARS, 0, Witness::Local),
            (0, -YEARS, Witness::Date),
            (0, -1000, Witness::Date),
            (0, 1000, Witness::Local),
            (0, LIFE, Witness::Date),
            (0, YEARS, Witness::Date),
            (YEARS, YEARS, Witness::Local),
        ] {
            assert_eq!(witness(date, local, Life::Known(Some(WHOLE)), None), expected, "{date} {local}");
        }
    }

    #[test]
    fn a_clock_by_which_a_fresh_token_lives_for_less_than_gitlab_s_two_hours_is_wrong() {
        for (date, local, expected) in [
            (1000, 0, Witness::Local),
            (LIFE - 30, 0, Witness::Local),
            (0, 1000, Witness::Date),
            (0, LIFE - 30, Witness::Date),
            // Both may be right.
            (-1000, 0, Witness::Local),
            (0, -1000, Witness::Date),
            // Both are wrong.
            (LIFE - 60, LIFE / 2, Witness::Date),
        ] {
            assert_eq!(witness(date, local, FRESH, None), expected, "{date} {local}");
        }
        // A server whose tokens live for less is not bound to it.
        let short = Life::Fresh { measured: Some(Duration::from_secs(60)) };
        assert_eq!(witness(0, LIFE - 30, short, None), Witness::Local);
    }

    #[test]
    fn a_date_is_refuted_only_by_a_token_that_would_have_expired_by_it() {
        for (date, is_refuted) in [(-LIFE * 9, false), (0, false), (LIFE - 1, false), (LIFE, true)] {
            assert_eq!(believe(clocks(date, 0), expiry(), FRESH, None).is_date_refuted, is_refuted, "{date}");
        }
    }

    #[test]
    fn a_life_that_was_measured_tells_which_clock_is_right() {
        let measured = Life::Fresh { measured: Some(WHOLE) };
        for wrong in [-20 * LIFE, -LIFE, -LIFE / 2, 1000, LIFE / 2, LIFE - 60] {
            assert_eq!(witness(wrong, 0, measured, None), Witness::Local, "the Date by {wrong}");
            assert_eq!(witness(0, wrong, measured, None), Witness::Date, "this machine's clock by {wrong}");
        }
        // One that neither clock confirms, because the setting has changed, says nothing.
        let other = Life::Fresh { measured: Some(WHOLE * 5) };
        assert_eq!(witness(-LIFE / 2, 0, other, None), Witness::Local);
        assert_eq!(witness(0, -LIFE / 2, other, None), Witness::Date);
    }

    #[test]
    fn a_belief_lasts_for_as_long_as_the_clocks_differ_by_as_much() {
        let measured = Life::Fresh { measured: Some(WHOLE) };
        let former = Some(believe(clocks(0, LIFE / 2), expiry(), measured, None));
        let known = Life::Known(Some(WHOLE));
        assert_eq!(witness(0, LIFE / 2, known, former), Witness::Date);
        assert_eq!(witness(60, LIFE / 2, known, former), Witness::Date);
        assert_eq!(witness(-LIFE, 0, known, former), Witness::Local);
        assert_eq!(witness(0, LIFE / 2, known, None), Witness::Local);
    }

    #[test]
    fn a_life_is_measured_only_while_both_clocks_agree() {
        for (date, local, is_measured) in [(0, 0, true), (-800, 0, true), (-1000, 0, false), (0, 1000, false)] {
            assert_eq!(measured_life(clocks(date, local), expiry()).is_some(), is_measured, "{date} {local}");
        }
        assert_eq!(measured_life(clocks(LIFE + 1, LIFE + 1), expiry()), None);
    }

    #[test]
    fn a_date_from_before_the_issue_of_a_token_is_not_believed() {
        let clocks = clocks(0, 0);
        for (secs, is_before) in [(0, false), (800, false), (1000, true)] {
            let expires_at = Timestamp::from_millis(clocks.date.as_millis() + (secs + LIFE) * 1000);
            let obtained_at = Timestamp::from_millis(clocks.date.as_millis() + secs * 1000);
            assert_eq!(precedes_issue(clocks.date, obtained_at, expires_at), is_before, "{secs}");
        }
    }
}
