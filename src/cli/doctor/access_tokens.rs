//! The access tokens of the servers that answer.

use super::super::Exit;
use super::super::access_text::access_line;
use super::super::access_token::exit_of;
use super::super::check::Checked;
use super::row::Row;
use super::servers::is_reachable;
use crate::gitlab::Client;
use crate::model::{AccessTokenReport, AccessTokenState, Site, Timestamp};
use crate::ops::{AccessError, AccessKeeper, AccessPass, AccessUses, ServerAccess, SoleCopies, StoredAccessToken};
use crate::secret::SourceError;
use crate::settings::Settings;
use crate::store::AskedBy;

/// The name of the check.
const CHECK: &str = "access token";

/// Asks each server about its token, one after the other: there are few. Rotates none.
pub(super) async fn examine(
    client: &Client,
    settings: &Settings,
    checked: &Checked,
    reachable: &[Site],
    now: Timestamp,
) -> Vec<Row> {
    let Some(store) = &checked.store else { return Vec::new() };
    let mut rows = Vec::new();
    for access in &settings.engine.servers {
        if !is_reachable(reachable, &Site { url: access.url.clone(), tls: access.tls.clone() }) {
            continue;
        }
        let disk = StoredAccessToken::of(store.clone(), access);
        let shared = (SoleCopies::default(), AccessUses::default());
        let keeper = AccessKeeper::new(client.clone(), disk, access.clone(), AskedBy::Command, shared);
        let pass = keeper.look(now).await;
        let report = settings.engine.access_report(access, &pass);
        rows.extend(row(access, &pass, &report));
    }
    rows
}

/// What was found; `None` for a file that `check` has reported already.
fn row(access: &ServerAccess, pass: &AccessPass, report: &AccessTokenReport) -> Option<Row> {
    let (subject, line) = (access.url.to_string(), access_line(report, pass.now));
    let problem = report.last_error.clone();
    let row = match &pass.error {
        // systemd passes credentials to the unit alone.
        Some(AccessError::Source(error @ SourceError::NoCredential(_))) => {
            return Some(Row::note(&subject, CHECK, &format!("not asked about: {error}")));
        }
        Some(AccessError::Source(_)) => return None,
        Some(error) => Row::error(&subject, CHECK, &line, exit_of(error)),
        None if pass.record.is_unsupported => {
            return Some(Row::note(
                &subject,
                CHECK,
                "this GitLab does not say what it is: it has no call for that before 15.5",
            ));
        }
        None if report.state == AccessTokenState::Uncertain => {
            let remedy = "the daemon or `runner-agent access-token show` finds out: leave the token where it is";
            return Some(Row::warning(&subject, CHECK, &line).with_remedy(Some(remedy)));
        }
        // It was revoked, and the answer says so.
        None if report.state == AccessTokenState::Refused => Row::error(&subject, CHECK, &line, Exit::Refused),
        None if problem.is_some() => Row::warning(&subject, CHECK, &line),
        None => Row::ok(&subject, CHECK, &line),
    };
    Some(row.with_remedy(problem))
}
