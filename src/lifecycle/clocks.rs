//! Which clock to go by: the `Date` of the server's answers or this machine's clock. Each may be wrong.
//!
//! An expiry is in GitLab's own time, which neither shows for certain: a proxy may send a `Date` of its own, and a
//! machine may have lost its time. What is certain is that a token has not expired when it is accepted or issued. Beyond
//! that, going by a clock that is ahead makes rotations early, which is cheap, and going by one that is behind lets the
//! token expire. So of two clocks that differ, the later one counts, unless it contradicts the acceptance, or leaves a
//! fresh token less than GitLab's shortest life: then rotations would follow each other.

use std::time::Duration;

use crate::model::{Belief, Timestamp, Witness};

/// The two clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// The `Date` of an answer.
    pub date: Timestamp,
    /// This machine's clock when the answer came.
    pub local: Timestamp,
}

/// Why a clock is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// The two agree.
    Agreement,
    /// The accepted token would have expired by the `Date`.
    Refutation,
    /// They differ, and it is more likely to be right, or makes the cheaper mistake.
    Difference,
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

/// GitLab gives no token a shorter life. A clock by which a fresh token has less is ahead.
pub(super) const SHORTEST_LIFE: Duration = Duration::from_secs(7200);

/// A `Date` has whole seconds, and the answer takes its time.
const TOLERANCE_FLOOR: Duration = Duration::from_secs(2);

impl Clocks {
    fn ahead_millis(self) -> i64 {
        self.local.as_millis().saturating_sub(self.date.as_millis())
    }
}

/// Decides which clock to go by, when the server has issued or accepted a token. `former` is the belief until then.
#[must_use]
pub fn believe(clocks: Clocks, expires_at: Timestamp, life: Life, former: Option<Belief>) -> (Belief, Ground) {
    let ahead_millis = clocks.ahead_millis();
    let believed = |witness| Belief { witness, ahead_millis };
    match (clocks.date < expires_at, clocks.local < expires_at) {
        (true, true) => {}
        (true, false) => return (believed(Witness::Date), Ground::Difference),
        (false, _) => return (believed(Witness::Local), Ground::Refutation),
    }
    let (by_date, by_local) = (expires_at.since(clocks.date), expires_at.since(clocks.local));
    let whole = match life {
        Life::Known(Some(life)) if !life.is_zero() => life,
        Life::Known(_) | Life::Fresh { .. } => by_date.min(by_local),
    };
    let tolerated = millis(tolerance(whole));
    if ahead_millis.unsigned_abs() <= tolerated {
        return (believed(Witness::Date), Ground::Agreement);
    }
    let shown = match life {
        Life::Fresh { measured } => {
            // A server whose tokens were seen to live less is none of GitLab's.
            let has_short_tokens = measured.is_some_and(|life| !is_possible(life));
            let measured = measured.and_then(|life| measures(life, by_date, by_local));
            measured.or_else(|| only_possible(by_date, by_local).filter(|_| !has_short_tokens))
        }
        Life::Known(_) => None,
    };
    let before = former.filter(|former| former.ahead_millis.abs_diff(ahead_millis) <= tolerated);
    let later = if clocks.date < clocks.local { Witness::Local } else { Witness::Date };
    let witness = shown.or(before.map(|before| before.witness)).unwrap_or(later);
    // It stays as it is, so that it need not be written again.
    let belief = before.filter(|before| before.witness == witness).unwrap_or(believed(witness));
    (belief, Ground::Difference)
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

/// The one clock by which a fresh token lives as long as GitLab lets it live at least.
fn only_possible(by_date: Duration, by_local: Duration) -> Option<Witness> {
    match (is_possible(by_date), is_possible(by_local)) {
        (true, false) => Some(Witness::Date),
        (false, true) => Some(Witness::Local),
        (true, true) | (false, false) => None,
    }
}

fn is_possible(life: Duration) -> bool {
    life + tolerance(SHORTEST_LIFE) >= SHORTEST_LIFE
}

/// Whether no clock shows how long a token lives: by the one that is believed it lives for less than GitLab lets it live,
/// by the other one as well, or it would be believed. Tokens that were seen to live as short are those of another server.
#[must_use]
pub fn is_untimed(belief: Belief, life: Duration, measured: Option<Duration>) -> bool {
    let differ = belief.ahead_millis.unsigned_abs() > millis(tolerance(life));
    differ && !is_possible(life) && measured.is_none_or(is_possible)
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
        believe(clocks(date, local), expiry(), life, former).0.witness
    }

    #[test]
    fn the_later_clock_counts_unless_the_token_would_have_expired_by_it() {
        const YEARS: i64 = 30 * 365 * 86_400;
        let known = Life::Known(Some(WHOLE));
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
            assert_eq!(witness(date, local, known, None), expected, "{date} {local}");
        }
    }

    #[test]
    fn a_clock_by_which_a_fresh_token_has_less_than_the_shortest_life_is_not_believed() {
        for (date, local, expected) in [
            (-800, 0, Witness::Date),
            (-1000, 0, Witness::Local),
            (-LIFE * 9, 0, Witness::Local),
            (1000, 0, Witness::Local),
            (LIFE - 20, 0, Witness::Local),
            (0, 1000, Witness::Date),
            (0, LIFE - 20, Witness::Date),
            // A life of months: both are possible, and the later one counts.
            (-LIFE * 100, -LIFE * 99, Witness::Date),
            (-LIFE * 100, -LIFE * 10, Witness::Local),
            // Neither is: a test server.
            (LIFE - 60, LIFE - 30, Witness::Local),
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
            let (_, ground) = believe(clocks(date, 0), expiry(), FRESH, None);
            assert_eq!(ground == Ground::Refutation, is_refuted, "{date}");
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
        assert_eq!(witness(-LIFE * 9, -LIFE * 3, other, None), Witness::Local);
        assert_eq!(witness(0, -LIFE / 2, other, None), Witness::Date);
        // Tokens of a test server live less than GitLab's: the later clock counts.
        let short = Life::Fresh { measured: Some(Duration::from_secs(600)) };
        assert_eq!(witness(0, LIFE / 2, short, None), Witness::Local);
    }

    #[test]
    fn a_belief_lasts_for_as_long_as_the_clocks_differ_by_as_much() {
        let measured = Life::Fresh { measured: Some(WHOLE) };
        let former = Some(believe(clocks(0, LIFE / 2), expiry(), measured, None).0);
        let known = Life::Known(Some(WHOLE));
        assert_eq!(witness(0, LIFE / 2, known, former), Witness::Date);
        assert_eq!(witness(60, LIFE / 2, known, former), Witness::Date);
        assert_eq!(witness(-LIFE, 0, known, former), Witness::Local);
        assert_eq!(witness(0, LIFE / 2, known, None), Witness::Local);
    }

    #[test]
    fn a_life_that_is_too_short_by_clocks_that_differ_is_that_of_no_token() {
        let secs = Duration::from_secs;
        let belief = |ahead: i64| Belief { witness: Witness::Local, ahead_millis: ahead * 1000 };
        for (ahead, life, measured, expected) in [
            (-LIFE * 9, 30, None, true),
            (LIFE / 2, 30, None, true),
            (-LIFE * 9, 30, Some(7200), true),
            // By a clock that is right.
            (-LIFE * 9, 7200, None, false),
            // A test server's.
            (0, 30, None, false),
            (-LIFE * 9, 30, Some(60), false),
        ] {
            let actual = is_untimed(belief(ahead), secs(life), measured.map(secs));
            assert_eq!(actual, expected, "{ahead} {life} {measured:?}");
        }
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
