//! The rows of the page: runners with the lives of their tokens, access tokens, and events.

use std::fmt::{self, Write as _};

use super::html::{At, Beside, Escaped};
use super::view::Tone;
use crate::clock::Reading;
use crate::model::{
    AccessTokenReport, AccessTokenState, Event, RunnerReport, StateName, Timestamp, TokenLife, VerifyOutcome,
};
use crate::status::RunnerStatus;

/// The width of the line of a life, in units of its own.
const WIDTH: u64 = 1000;

/// What the page shows of a runner.
pub(super) struct Row {
    pub(super) number: u64,
    pub(super) status: RunnerStatus,
    /// Server time of the verifications before the last one.
    pub(super) verified_before: Vec<Timestamp>,
}

/// The state of a runner at a server time, as far as it is known without asking.
pub(super) fn state_at(status: &RunnerStatus, now: Timestamp) -> StateName {
    let RunnerReport { state, token_expires_at, .. } = status.report;
    RunnerReport { state, token_expires_at, ..RunnerReport::default() }.as_of(now).state
}

impl Row {
    pub(super) fn write(&self, reading: Reading, html: &mut String) -> fmt::Result {
        let Self { number, status, .. } = self;
        let now = status.time.now(reading);
        let state = state_at(status, now);
        let tone = Tone::of(state, status.not_ready_because.is_none()).class();
        let report = &status.report;
        write!(html, "<tr id=\"runner-{number}\"><th scope=\"row\">{}", Escaped(status.label()))?;
        if let Some(id) = report.id {
            write!(html, "<small>id {id}</small>")?;
        }
        write!(
            html,
            "</th><td>{}</td><td><span class=\"state {tone}\">{}</span></td><td class=\"life\">",
            Escaped(status.host()),
            spaced(state.as_str())
        )?;
        self.write_life(now, html)?;
        html.push_str("</td><td class=\"next\">");
        match &report.next {
            Some(next) if next.at <= now => write!(html, "{} now", spaced(next.step.as_str()))?,
            Some(next) => write!(html, "{} {}", spaced(next.step.as_str()), Beside { at: next.at, now })?,
            None => html.push_str("none"),
        }
        if let Some(next) = &report.next {
            write!(html, "<small>{}</small>", spaced(next.why.as_str()))?;
        }
        html.push_str("</td></tr>");
        if let Some(why) = report.error.as_ref().or(status.not_ready_because.as_ref()) {
            write!(html, "<tr class=\"why\"><td colspan=\"5\"><p class=\"{tone}\">{}</p></td></tr>", Escaped(why))?;
        }
        html.push('\n');
        Ok(())
    }

    /// The life as a line, and in words.
    fn write_life(&self, now: Timestamp, html: &mut String) -> fmt::Result {
        let report = &self.status.report;
        let Some(life) = TokenLife::of(report, now) else {
            html.push_str("no token yet");
            return Ok(());
        };
        let verified = report.last_verify.as_ref().map(|verify| verify.at);
        let column = |at: Timestamp| life.column(at, WIDTH);
        let mark = |html: &mut String, class: &str, at: Timestamp, width: u64, inset: u64| {
            let x = column(at).saturating_sub(width / 2).min(WIDTH - width);
            write!(
                html,
                "<rect class=\"{class}\" x=\"{x}\" y=\"{inset}\" width=\"{width}\" height=\"{}\"/>",
                20 - 2 * inset
            )
        };
        let label = match life.spent_percent() {
            Some(percent) => format!("{percent} % of the token's life is over"),
            None => "the end of the token's life is not known".to_owned(),
        };
        write!(
            html,
            "<svg class=\"line\" viewBox=\"0 0 {WIDTH} 20\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{label}\">\
             <rect class=\"track\" y=\"7\" width=\"{WIDTH}\" height=\"6\"/><rect class=\"spent\" y=\"7\" width=\"{}\" height=\"6\"/>",
            column(now)
        )?;
        mark(html, "start", life.obtained_at, 6, 3)?;
        for at in self.verified_before.iter().copied().chain(verified).filter(|at| *at >= life.obtained_at) {
            mark(html, "check", at, 4, 5)?;
        }
        for (class, at) in [("plan", life.rotation_at), ("end", life.expires_at)] {
            if let Some(at) = at {
                mark(html, class, at, 8, 2)?;
            }
        }
        mark(html, "now", now, 6, 0)?;
        html.push_str("</svg><small>");
        let is_rotated = self.status.last_rotation_at.is_some();
        let got = if is_rotated { "rotated" } else { "obtained" };
        write!(html, "{got} {}", Beside { at: life.obtained_at, now })?;
        if let Some(verify) = &report.last_verify {
            write!(html, " · {} {}", verification(verify.outcome), Beside { at: verify.at, now })?;
        }
        match life.rotation_at {
            Some(at) if at > now => write!(html, " · rotation {}", Beside { at, now })?,
            Some(_) => html.push_str(" · rotation due"),
            None => {}
        }
        match life.expires_at {
            Some(at) if at > now => write!(html, " · expires {}", Beside { at, now })?,
            Some(at) => write!(html, " · expired {}", Beside { at, now })?,
            None => html.push_str(" · no known expiry"),
        }
        html.push_str("</small>");
        Ok(())
    }
}

/// The row of an access token.
pub(super) fn write_access_token(report: &AccessTokenReport, now: Timestamp, html: &mut String) -> fmt::Result {
    let tone = match report.state {
        state if state.needs_person() => Tone::Bad,
        AccessTokenState::Active => Tone::Good,
        _ => Tone::Doubt,
    };
    let (tone, name) = (tone.class(), report.name.as_deref().unwrap_or_default());
    write!(
        html,
        "<tr><th scope=\"row\">{}<small>{}</small></th><td>{}</td><td><span class=\"state {tone}\">{}</span></td><td data-label=\"Ends\">",
        Escaped(report.server.as_str()),
        Escaped(&report.source),
        Escaped(name),
        spaced(report.state.as_str())
    )?;
    match report.expires_at {
        Some(at) => write!(html, "{}", Beside { at, now })?,
        None if report.state == AccessTokenState::Active => html.push_str("never"),
        None => html.push_str("not known"),
    }
    html.push_str("</td><td data-label=\"Next rotation\">");
    match report.next_rotation_at {
        Some(at) if at > now => write!(html, "{}", Beside { at, now })?,
        Some(_) => html.push_str("due"),
        None => html.push_str("none"),
    }
    html.push_str("</td></tr>");
    if let Some(why) = &report.last_error {
        write!(html, "<tr class=\"why\"><td colspan=\"5\"><p class=\"{tone}\">{}</p></td></tr>", Escaped(why))?;
    }
    Ok(())
}

/// The row of an event.
pub(super) fn write_event(event: &Event, html: &mut String) -> fmt::Result {
    let tone = if event.kind.is_trouble() { Tone::Bad } else { Tone::Quiet };
    let runner = event.runner.as_deref().unwrap_or("-");
    writeln!(
        html,
        "<tr><td class=\"time\">{}</td><td><span class=\"state {}\">{}</span></td><td>{}</td><td class=\"text\">{}</td></tr>",
        At(event.at),
        tone.class(),
        spaced(event.kind.as_str()),
        Escaped(runner),
        Escaped(&event.text)
    )
}

/// What became of a verification, in words that a time can follow.
fn verification(outcome: VerifyOutcome) -> &'static str {
    match outcome {
        VerifyOutcome::Accepted => "verified",
        VerifyOutcome::Refused => "refused",
        VerifyOutcome::Unanswered => "asked without an answer",
        VerifyOutcome::Trouble(_) => "asked in vain",
    }
}

/// A name of ours in words.
fn spaced(name: &str) -> String {
    name.replace('_', " ")
}
