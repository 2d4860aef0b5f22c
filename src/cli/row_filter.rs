//! Which rows `list` and `status` show.

use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};

use crate::model::{RunnerReport, StateName, Timestamp, parse_span};

/// Criteria for the rows that are shown.
#[derive(Clone, Debug, Default, Args)]
pub struct RowFilter {
    /// Show only runners in this state; can be repeated
    #[arg(long, value_name = "STATE", value_parser = state_parser())]
    pub state: Vec<StateName>,
    /// Show only runners whose token expires within this time, such as 7d, or has expired
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    pub expires_within: Option<Duration>,
}

/// Takes the names of states.
fn state_parser() -> impl clap::builder::TypedValueParser<Value = StateName> {
    PossibleValuesParser::new(StateName::ALL.iter().map(|state| state.as_str()))
        .map(|name| StateName::from_name(&name).unwrap_or_default())
}

impl RowFilter {
    /// Whether a row is shown.
    #[must_use]
    pub fn matches(&self, row: &RunnerReport, now: Timestamp) -> bool {
        let is_soon = |within: Duration| row.token_expires_at.is_some_and(|at| at <= now.plus(within));
        (self.state.is_empty() || self.state.contains(&row.state)) && self.expires_within.is_none_or(is_soon)
    }

    /// Whether all rows are shown.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.state.is_empty() && self.expires_within.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_shown_by_state_and_by_what_is_left() {
        let now: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
        let row = |state, left: Option<i64>| RunnerReport {
            state,
            token_expires_at: left.map(|days| Timestamp::from_millis(now.as_millis() + days * 86_400_000)),
            ..RunnerReport::default()
        };
        let week = Some(Duration::from_secs(7 * 86_400));
        for (states, expires_within, shown) in [
            (vec![], None, [true, true, true, true]),
            (vec![StateName::Active], None, [true, true, false, true]),
            (vec![StateName::Active, StateName::Rejected], None, [true, true, true, true]),
            (vec![], week, [true, false, true, false]),
            (vec![StateName::Active], week, [true, false, false, false]),
        ] {
            let filter = RowFilter { state: states, expires_within };
            let rows = [
                row(StateName::Active, Some(7)),
                row(StateName::Active, Some(8)),
                row(StateName::Rejected, Some(-1)),
                row(StateName::Active, None),
            ];
            assert_eq!(rows.map(|row| filter.matches(&row, now)), shown, "{filter:?}");
        }
    }
}
