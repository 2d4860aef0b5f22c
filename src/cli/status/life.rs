//! `status NAME`: the life of a runner's token as a line.

use crate::cli::context::Context;
use crate::cli::short::{is_coloured, tone_of};
use crate::cli::table::painted;
use crate::cli::text::label;
use crate::model::{RunnerReport, Timestamp, TokenLife, VerifyOutcome, format_span};
use crate::settings::Environment;

/// The narrowest and the widest line, in terminal columns.
const WIDTHS: std::ops::RangeInclusive<usize> = 20..=100;

/// The characters of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    begin: char,
    spent: char,
    left: char,
    now: char,
    end: char,
}

impl Line {
    /// Those that the locale can show.
    fn of(environment: &Environment) -> Self {
        if environment.is_utf8() {
            Self { begin: '├', spent: '━', left: '─', now: '●', end: '┤' }
        } else {
            Self { begin: '|', spent: '=', left: '-', now: '#', end: '|' }
        }
    }

    /// Draws a life on this many columns.
    fn draw(self, life: &TokenLife, verified_at: Option<Timestamp>, width: usize) -> String {
        let column = |at: Timestamp| {
            let column = life.column(at, u64::try_from(width).unwrap_or_default());
            usize::try_from(column).unwrap_or_default().min(width.saturating_sub(1))
        };
        let now = column(life.now);
        let mut line: Vec<char> = (0..width).map(|place| if place < now { self.spent } else { self.left }).collect();
        let marks = [
            (Some(life.obtained_at), self.begin),
            (life.expires_at, self.end),
            (verified_at.filter(|at| *at >= life.obtained_at), 'v'),
            (life.rotation_at, 'R'),
            (Some(life.now), self.now),
        ];
        for (at, mark) in marks {
            if let Some(place) = at.and_then(|at| line.get_mut(column(at))) {
                *place = mark;
            }
        }
        line.into_iter().collect()
    }
}

/// The life of a runner's token: a line, and its times in words.
pub(super) fn life_text(context: &Context<'_>, runner: &RunnerReport, now: Timestamp) -> String {
    let width = context.reporter.stdout_width().map_or(*WIDTHS.end(), |width| width.saturating_sub(4));
    let text = text(runner, now, Line::of(&context.environment), width.clamp(*WIDTHS.start(), *WIDTHS.end()));
    let Some((heading, line, words)) = text else {
        return format!("\nrunner {}: no token yet\n", label(runner));
    };
    let line = if is_coloured(context) { painted(&line, Some(tone_of(runner.state))) } else { line };
    format!("\n{heading}\n  {line}\n  {words}\n")
}

fn text(runner: &RunnerReport, now: Timestamp, line: Line, width: usize) -> Option<(String, String, String)> {
    let life = TokenLife::of(runner, now)?;
    let verified = runner.last_verify.as_ref();
    let spent = life.spent_percent().map(|percent| format!("{percent} % of its token's life is over"));
    let heading =
        format!("runner {}: {}", label(runner), spent.unwrap_or_else(|| "its token has no known end".to_owned()));
    let past = |at: Timestamp| format!("{} ago", format_span(whole_seconds(now.since(at))));
    let beside =
        |at: Timestamp| if at > now { format!("in {}", format_span(whole_seconds(at.since(now)))) } else { past(at) };
    let words = [
        Some(format!("{} now", line.now)),
        Some(format!("obtained {}", past(life.obtained_at))),
        verified.map(|verify| {
            let what = if verify.outcome == VerifyOutcome::Accepted { "v verified" } else { "v asked" };
            format!("{what} {}", past(verify.at))
        }),
        life.rotation_at.map(|at| format!("R rotation {}", if at > now { beside(at) } else { "due".to_owned() })),
        life.expires_at.map(|at| format!("{} {}", if at > now { "expires" } else { "expired" }, beside(at))),
    ];
    let words: Vec<_> = words.into_iter().flatten().collect();
    Some((heading, line.draw(&life, verified.map(|verify| verify.at), width), words.join(", ")))
}

fn whole_seconds(span: std::time::Duration) -> std::time::Duration {
    std::time::Duration::from_secs(span.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LastVerify, PlannedRotation, RotationRule, StateName};

    fn at(hour: u32) -> Timestamp {
        format!("2027-01-01T{hour:02}:00:00Z").parse().unwrap()
    }

    fn runner() -> RunnerReport {
        RunnerReport {
            name: Some("build-1".to_owned()),
            state: StateName::Active,
            token_obtained_at: Some(at(0)),
            token_expires_at: Some(at(20)),
            last_verify: Some(LastVerify { at: at(6), outcome: VerifyOutcome::Accepted }),
            rotation: Some(PlannedRotation { rule: RotationRule::ShareOfLife, at: Some(at(15)) }),
            ..RunnerReport::default()
        }
    }

    fn drawn(runner: &RunnerReport, now: u32, locale: &str) -> String {
        let environment = Environment::default().with("LANG", locale);
        let (heading, line, words) = text(runner, at(now), Line::of(&environment), 41).unwrap();
        format!("{heading}\n{line}\n{words}")
    }

    #[test]
    fn a_life_is_a_line_with_its_marks() {
        insta::assert_snapshot!(drawn(&runner(), 10, "C.UTF-8"), @r"
        runner `build-1`: 50 % of its token's life is over
        ├━━━━━━━━━━━v━━━━━━━●─────────R─────────┤
        ● now, obtained 10h ago, v verified 4h ago, R rotation in 5h, expires in 10h
        ");
        insta::assert_snapshot!(drawn(&runner(), 10, "C"), @r"
        runner `build-1`: 50 % of its token's life is over
        |===========v=======#---------R---------|
        # now, obtained 10h ago, v verified 4h ago, R rotation in 5h, expires in 10h
        ");
    }

    #[test]
    fn a_life_that_is_over_or_has_no_end_reaches_now() {
        let expired = RunnerReport { token_expires_at: Some(at(10)), rotation: None, ..runner() };
        insta::assert_snapshot!(drawn(&expired, 20, "C"), @r"
        runner `build-1`: 100 % of its token's life is over
        |===========v=======|===================#
        # now, obtained 20h ago, v verified 14h ago, expired 10h ago
        ");
        let endless = RunnerReport { token_expires_at: None, rotation: None, last_verify: None, ..runner() };
        insta::assert_snapshot!(drawn(&endless, 20, "C"), @r"
        runner `build-1`: its token has no known end
        |=======================================#
        # now, obtained 20h ago
        ");
        assert_eq!(text(&RunnerReport::default(), at(0), Line::of(&Environment::default()), 41), None);
    }
}
