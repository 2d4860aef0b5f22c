//! The way to each server, asked once for all runners that go the same way.

use std::collections::BTreeSet;

use tokio::task::JoinSet;

use super::super::check::Checked;
use super::super::context::Context;
use super::super::error::of_class;
use super::row::Row;
use crate::gitlab::{Client, Diagnosis};
use crate::limits::operations_at_once;
use crate::model::{Site, Timestamp, TlsFiles, format_span};
use crate::settings::Settings;

/// What was found about the servers.
pub(super) struct Servers {
    pub(super) rows: Vec<Row>,
    /// Those at which a GitLab answers.
    pub(super) reachable: Vec<Site>,
}

/// From this difference on, a clock is wrong: an answer's date has whole seconds and takes a while.
const MAX_SKEW_SECS: u64 = 30;

/// Goes the way to each server, to all at the same time.
pub(super) async fn examine(context: &Context<'_>, client: &Client, settings: &Settings, checked: &Checked) -> Servers {
    let mut sites = sites(settings, checked).into_iter().enumerate();
    let mut tasks = JoinSet::new();
    let mut found = Vec::new();
    loop {
        while tasks.len() < operations_at_once()
            && let Some((position, site)) = sites.next()
        {
            let client = client.clone();
            tasks.spawn_local(async move {
                let diagnosis = client.diagnose(&site).await;
                (position, site, diagnosis)
            });
        }
        match tasks.join_next().await {
            Some(Ok((position, site, diagnosis))) => {
                let rows = rows(&site, &diagnosis, context.now());
                let is_reachable = diagnosis.steps.iter().all(|step| step.result.is_ok());
                found.push((position, site, rows, is_reachable));
            }
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            None => break,
        }
    }
    found.sort_by_key(|(position, ..)| *position);
    let reachable = found.iter().filter(|(.., is_reachable)| *is_reachable).map(|(_, site, ..)| site.clone()).collect();
    Servers { rows: found.into_iter().flat_map(|(_, _, rows, _)| rows).collect(), reachable }
}

/// Each way once: a server may be trusted by several TLS files.
fn sites(settings: &Settings, checked: &Checked) -> Vec<Site> {
    let entries = checked.snapshot.as_ref().map(|snapshot| &snapshot.entries[..]).unwrap_or_default();
    let of_entries = entries.iter().filter_map(|entry| entry.access().ok()).map(|(site, _)| site);
    let of_records = checked.records.iter().filter(|record| record.credential.is_some()).filter_map(|record| {
        let has_entry = entries.iter().any(|entry| entry.url.as_ref() == Some(&record.url));
        (!has_entry).then(|| Site { url: record.url.clone(), tls: TlsFiles::default() })
    });
    let of_enrollments = settings.engine.enrollments.iter().map(|enrollment| enrollment.site.clone());
    let of_servers = settings
        .engine
        .servers
        .iter()
        .map(|server| Site { url: server.url.clone(), tls: server.tls.clone() })
        .filter(|site| !entries.iter().any(|entry| entry.url.as_ref() == Some(&site.url)));
    let mut seen = BTreeSet::new();
    let all = of_entries.chain(of_enrollments).chain(of_records).chain(of_servers);
    all.filter(|site| seen.insert((site.url.to_string(), format!("{:?}", site.tls)))).collect()
}

fn rows(site: &Site, diagnosis: &Diagnosis, now: Timestamp) -> Vec<Row> {
    let subject = site.url.to_string();
    let mut rows: Vec<_> = diagnosis
        .steps
        .iter()
        .map(|step| match &step.result {
            Ok(message) => Row::ok(&subject, step.name, message),
            Err(obstacle) => {
                Row::error(&subject, step.name, &obstacle.message, of_class(obstacle.class)).with_remedy(obstacle.hint)
            }
        })
        .collect();
    rows.extend(diagnosis.date.map(|date| clock(&subject, date, now)));
    rows
}

/// Compares this machine's clock with the server's.
fn clock(subject: &str, date: Timestamp, now: Timestamp) -> Row {
    let (difference, side) = if date > now { (date.since(now), "behind") } else { (now.since(date), "ahead of") };
    if difference.as_secs() < MAX_SKEW_SECS {
        return Row::ok(subject, "clock", &format!("within {MAX_SKEW_SECS} s of the server's"));
    }
    let message = format!("this machine's clock is {} {side} the server's", format_span(difference));
    Row::warning(subject, "clock", &message)
        .with_remedy(Some("set the clock, for example by `timedatectl set-ntp true`, or correct the server's"))
}

/// Adds what the answer to a verification tells of the server's release, after the other rows of the server.
pub(super) fn add_release(rows: &mut Vec<Row>, subject: &str, is_old: bool) {
    let release = if is_old { "GitLab before 15.9" } else { "GitLab 15.9 or later" };
    add_row(rows, Row::ok(subject, "release", &format!("{release}, by its answer to a verification")));
}

/// Adds a row after the others of its server.
pub(super) fn add_row(rows: &mut Vec<Row>, row: Row) {
    let at = rows.iter().rposition(|known| known.subject == row.subject).map_or(rows.len(), |last| last + 1);
    rows.insert(at, row);
}

/// Whether a server is worth a further request.
pub(super) fn is_reachable(reachable: &[Site], site: &Site) -> bool {
    reachable.iter().any(|known| known.url == site.url)
}
