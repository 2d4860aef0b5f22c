//! The life of a token as a line: where on it lie now, the planned rotation and the expiry.

use super::{RunnerReport, Timestamp};

/// The life of a token, on a scale from its issue to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenLife {
    /// Server time at which it was issued: the begin of the scale.
    pub obtained_at: Timestamp,
    /// Server time at which it expires; `None` for never and for unknown.
    pub expires_at: Option<Timestamp>,
    /// Server time from which its rotation is due; `None` if none is planned.
    pub rotation_at: Option<Timestamp>,
    /// Server time now.
    pub now: Timestamp,
    /// Server time at the end of the scale: the expiry, or now or the rotation if that is later.
    pub end: Timestamp,
}

impl TokenLife {
    /// The life of a runner's token; `None` if it is not known when that was issued.
    #[must_use]
    pub fn of(report: &RunnerReport, now: Timestamp) -> Option<Self> {
        let obtained_at = report.token_obtained_at?;
        let rotation_at = report.rotation.and_then(|rotation| rotation.at);
        let expires_at = report.token_expires_at;
        let end = [Some(now), rotation_at, expires_at].into_iter().flatten().fold(obtained_at, Ord::max);
        Some(Self { obtained_at, expires_at, rotation_at, now, end })
    }

    /// Where a time lies on a line of `width` columns, from 0 to `width - 1`. Times outside the scale lie at its ends.
    #[must_use]
    pub fn column(&self, at: Timestamp, width: u64) -> u64 {
        let last = u128::from(width.saturating_sub(1));
        let (whole, part) = (self.end.since(self.obtained_at).as_millis(), at.since(self.obtained_at).as_millis());
        let column = (part.min(whole) * last + whole / 2).checked_div(whole).unwrap_or(last);
        u64::try_from(column).unwrap_or_default()
    }

    /// How much of the life is over in per cent; `None` if it has no end.
    #[must_use]
    pub fn spent_percent(&self) -> Option<u64> {
        let whole = self.expires_at?.since(self.obtained_at).as_millis();
        let spent = self.now.since(self.obtained_at).as_millis().min(whole);
        u64::try_from((spent * 100).checked_div(whole).unwrap_or(100)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PlannedRotation, RotationRule};

    fn at(hour: u32) -> Timestamp {
        format!("2027-01-01T{hour:02}:00:00Z").parse().unwrap()
    }

    fn life(expires: Option<u32>, rotation: Option<u32>, now: u32) -> TokenLife {
        let rotation = rotation.map(|hour| PlannedRotation { rule: RotationRule::ShareOfLife, at: Some(at(hour)) });
        let report = RunnerReport {
            token_obtained_at: Some(at(0)),
            token_expires_at: expires.map(at),
            rotation,
            ..RunnerReport::default()
        };
        TokenLife::of(&report, at(now)).unwrap()
    }

    #[test]
    fn each_time_has_its_column_between_issue_and_expiry() {
        let life = life(Some(10), Some(7), 5);
        let columns = |hours: [u32; 5]| hours.map(|hour| life.column(at(hour), 101));
        assert_eq!(columns([0, 5, 7, 10, 12]), [0, 50, 70, 100, 100]);
        assert_eq!(life.column(Timestamp::EARLIEST, 101), 0);
        assert_eq!(life.spent_percent(), Some(50));
        assert_eq!((life.column(at(5), 1), life.column(at(5), 0)), (0, 0));
    }

    #[test]
    fn the_scale_reaches_now_after_the_expiry_and_without_one() {
        let expired = life(Some(10), None, 20);
        assert_eq!((expired.column(at(10), 101), expired.column(at(20), 101)), (50, 100));
        assert_eq!(expired.spent_percent(), Some(100));
        let endless = life(None, None, 20);
        assert_eq!((endless.column(at(20), 101), endless.spent_percent()), (100, None));
        let new = life(None, None, 0);
        assert_eq!(new.column(at(0), 101), 100, "a scale without length");
        assert_eq!(TokenLife::of(&RunnerReport::default(), at(0)), None);
    }
}
