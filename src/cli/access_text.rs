//! An access token in one line, for people.

use super::text::printable;
use crate::model::{AccessTokenReport, AccessTokenState, Timestamp, format_span};

/// ``active, named `agent`, scopes api, ends on 2027-01-01 (in 30d), rotates on 2026-12-02 (in 1d)``.
pub(super) fn access_line(report: &AccessTokenReport, now: Timestamp) -> String {
    let mut clauses = vec![state_text(report.state).to_owned()];
    clauses.extend(report.name.as_ref().map(|name| format!("named `{}`", printable(name))));
    clauses.extend(report.scopes.as_ref().map(|scopes| format!("scopes {}", printable(&scopes.join(", ")))));
    clauses.extend(ending(report, now));
    clauses.extend(report.next_rotation_at.map(|at| {
        if at > now {
            format!("rotates on {} (in {})", at.date(), format_span(at.since(now)))
        } else {
            "its rotation is due".to_owned()
        }
    }));
    clauses.join(", ")
}

fn ending(report: &AccessTokenReport, now: Timestamp) -> Option<String> {
    match (report.expires_at, report.state) {
        (Some(at), _) if at > now => Some(format!("ends on {} (in {})", at.date(), format_span(at.since(now)))),
        (Some(at), _) => Some(format!("ended on {}", at.date())),
        (None, AccessTokenState::Active) => Some("never ends".to_owned()),
        (None, _) => None,
    }
}

fn state_text(state: AccessTokenState) -> &'static str {
    match state {
        AccessTokenState::Unknown => "not known",
        AccessTokenState::Active => "active",
        AccessTokenState::Expiring => "ends soon",
        AccessTokenState::NotRenewable => "cannot be rotated",
        AccessTokenState::Uncertain => "a rotation has no answer yet",
        AccessTokenState::Unsaved => "rotated, and the new one is in memory alone",
        AccessTokenState::Refused => "refused",
        AccessTokenState::Lost => "lost",
        AccessTokenState::Unreadable => "cannot be read",
    }
}
