//! The short view of runners: a table that fits a terminal of 80 columns.

use super::context::Context;
use super::table::{Cell, Screen, Table, Tone};
use crate::model::{RunnerReport, StateName, Timestamp, format_span};

/// The width of what is no terminal.
const COLUMNS: usize = 80;

const HEADINGS: [(&str, bool); 5] =
    [("NAME", true), ("ID", false), ("STATE", false), ("EXPIRES", false), ("NEXT", true)];

/// The runners as a short table, which no terminal has to wrap.
pub(super) fn short_table(context: &Context<'_>, runners: &[RunnerReport], now: Timestamp) -> String {
    let reporter = context.reporter;
    let screen = Screen { width: Some(reporter.stdout_width().unwrap_or(COLUMNS)), is_coloured: is_coloured(context) };
    let rows: Vec<_> = runners.iter().map(|runner| row(runner, now)).collect();
    Table::new(HEADINGS.to_vec(), screen).lines(&rows)
}

/// Whether stdout shows colours.
pub(super) fn is_coloured(context: &Context<'_>) -> bool {
    context.reporter.is_stdout_terminal() && context.environment.text("NO_COLOR").is_none()
}

/// The colour of a state.
pub(super) fn tone_of(state: StateName) -> Tone {
    match state {
        StateName::Active => Tone::Good,
        StateName::Unregistered | StateName::Uncertain | StateName::NotRenewable | StateName::Unknown => Tone::Doubtful,
        StateName::Rejected | StateName::Expired | StateName::Failed | StateName::Unusable => Tone::Bad,
        StateName::Retired => Tone::Quiet,
    }
}

fn row(runner: &RunnerReport, now: Timestamp) -> Vec<Cell> {
    let until = |at: Timestamp| if at <= now { "now".to_owned() } else { format!("in {}", format_span(at.since(now))) };
    let expires = runner.token_expires_at.map(|at| if at <= now { "expired".to_owned() } else { until(at) });
    let next = runner.next.as_ref().map(|next| format!("{} {}", next.step.as_str().replace('_', " "), until(next.at)));
    vec![
        Cell::new(runner.name.as_deref()),
        Cell::new(runner.id.map(|id| id.to_string())),
        Cell::new(Some(runner.state.to_string())).toned(Some(tone_of(runner.state))),
        Cell::new(expires),
        Cell::new(next),
    ]
}
