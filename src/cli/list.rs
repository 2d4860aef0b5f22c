//! `list`: the runners in config.toml, without contacting a server.

use std::borrow::Borrow;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::arguments::ListArguments;
use super::context::Context;
use super::outcome::of_entry;
use super::selection::{Candidate, candidates};
use super::short::{is_coloured, short_table, tone_of};
use super::table::{Cell, Screen, Table};
use super::text::{expiry_text, printable};
use super::{Error, Exit};
use crate::engine::{Config, inventory, record_report};
use crate::files::look;
use crate::model::{NextStep, RotationRule, RunnerReport, SharingReport, StateName, Step, Timestamp, format_span};
use crate::settings;
use crate::store::{self, Store};

/// Lists the runners. Reads only, and needs neither agent.toml nor a state directory.
pub(super) async fn list(context: &Context<'_>, arguments: &ListArguments) -> Result<Exit, Error> {
    let paths = settings::paths(&context.overrides, &context.environment);
    let store = open(paths.store())?;
    let candidates = read_candidates(&store).await?;
    let now = context.now();
    if candidates.is_empty() {
        let is_there = store.read().await?.exists;
        check_missing(context, &store, is_there, paths.is_root)?;
        if !context.reporter.is_json() {
            let missing = if is_there { "" } else { ", which does not exist" };
            context.reporter.answer(&format!("no runners in {}{missing}\n", store.config_path().display()));
            return Ok(Exit::Done);
        }
    }
    // Made anew for each pass, and never all at once.
    let is_shown = |report: &RunnerReport| arguments.filter.matches(report, now);
    let reports = || {
        let rows = candidates.iter().flat_map(|candidate| reports(candidate, now));
        rows.map(|report| report.as_of(now)).filter(is_shown)
    };
    if !arguments.filter.is_empty() && reports().next().is_none() && !context.reporter.is_json() {
        context.reporter.answer("no runner matches\n");
        return Ok(Exit::Done);
    }
    if !context.reporter.is_json() {
        for report in reports() {
            if let Some(error) = &report.error {
                context.reporter.remark(&format!(
                    "warning: runner {}: {}",
                    super::text::label(&report),
                    printable(error)
                ));
            }
        }
    }
    if arguments.short && !context.reporter.is_json() {
        let rows: Vec<_> = reports().collect();
        context.reporter.answer(&short_table(context, &rows, now));
    } else {
        let screen = Screen { width: None, is_coloured: is_coloured(context) };
        context.reporter.runners(reports(), || columns(&HEADINGS[..7], reports, now, screen));
    }
    Ok(Exit::Done)
}

/// Refuses to call a machine without runners only because another file is meant.
fn check_missing(context: &Context<'_>, store: &Store, is_there: bool, is_root: bool) -> Result<(), Error> {
    let remedy = if is_there {
        return Ok(());
    } else if context.overrides.config.is_some() {
        "name an existing file with --config".to_owned()
    } else if !is_root && store.config_path() != Path::new(settings::ROOT_CONFIG) && may_exist(settings::ROOT_CONFIG) {
        format!("root's runners are in {}: use sudo, or name a file with --config", settings::ROOT_CONFIG)
    } else {
        return Ok(());
    };
    let message = format!("{} does not exist", store.config_path().display());
    Err(Error::Verdict { exit: Exit::LocalFile, message, hint: Some(remedy) })
}

/// Whether a file is there, or in a directory that this user may not look into.
fn may_exist(path: &str) -> bool {
    look(Path::new(path)).map_or_else(|error| error.kind() == io::ErrorKind::PermissionDenied, |_| true)
}

/// Reads all runners that this machine has an entry or a record of.
pub(super) async fn read_candidates(store: &Store) -> Result<Vec<Candidate>, Error> {
    let snapshot = store.read().await?;
    let records = store.records().await?;
    for damaged in &records.damaged {
        tracing::error!(error = %damaged, "a runner's record is damaged");
    }
    Ok(candidates(inventory(&Config::default(), records.records, &snapshot).await, &snapshot))
}

/// Opens the store for reading; does not create a state directory.
pub(super) fn open(config: store::Config) -> Result<Store, Error> {
    let state_root = config.state_root.clone().filter(|root| look(root).is_ok_and(|found| found.is_dir()));
    let alone = store::Config { state_root: None, ..config.clone() };
    match Store::open(store::Config { state_root, ..config }) {
        Ok(store) => Ok(store),
        Err(error) => {
            tracing::debug!(%error, "the state directory cannot be used");
            Ok(Store::open(alone)?)
        }
    }
}

/// One report for each entry, and one for a runner whose entry is still to be written.
fn reports(candidate: &Candidate, now: Timestamp) -> Vec<RunnerReport> {
    let known = candidate.runner.as_ref().ok().map(|managed| record_report(&managed.runner, now));
    if candidate.entries.is_empty() {
        let error = "its entry is not in config.toml yet".to_owned();
        return known.map(|known| RunnerReport { error: Some(error), ..known }).into_iter().collect();
    }
    let report = |entry: &store::Entry| {
        let problems: Vec<_> = entry.problems.iter().map(ToString::to_string).collect();
        let error = (!problems.is_empty()).then(|| format!("in line {}, {}", entry.line, problems.join("; ")));
        let written = of_entry(entry);
        match &known {
            Some(known) => RunnerReport {
                state: known.state,
                since: known.since,
                last_verify: known.last_verify.clone(),
                id: written.id.or(known.id),
                token_expires_at: written.token_expires_at.or(known.token_expires_at),
                sharing: known.sharing.clone(),
                error,
                ..written
            },
            None => RunnerReport { state: StateName::Unusable, error, ..written },
        }
    };
    candidate.entries.iter().map(report).collect()
}

const HEADINGS: [&str; 8] = ["NAME", "ID", "URL", "EXECUTOR", "TOKEN", "STATE", "EXPIRES", "NEXT"];

/// The runners as a table, in parts. `runners` gives them twice: to measure the columns, and to write the rows.
pub(super) fn table<I: Iterator<Item: Borrow<RunnerReport>>>(
    runners: impl Fn() -> I,
    now: Timestamp,
) -> impl Iterator<Item = String> {
    columns(&HEADINGS[..7], runners, now, Screen::default())
}

/// The same with the daemon's next step, and a line below each runner that is shared.
pub(super) fn table_with_next<I: Iterator<Item: Borrow<RunnerReport>>>(
    runners: impl Fn() -> I,
    now: Timestamp,
    screen: Screen,
) -> impl Iterator<Item = String> {
    columns(&HEADINGS, runners, now, screen)
}

fn columns<I: Iterator<Item: Borrow<RunnerReport>>>(
    headings: &[&'static str],
    runners: impl Fn() -> I,
    now: Timestamp,
    screen: Screen,
) -> impl Iterator<Item = String> {
    let count = headings.len();
    let rows = || runners().map(move |runner| row(runner.borrow(), now, count));
    let table = Table::new(headings.iter().map(|heading| (*heading, false)).collect(), screen);
    let mut table = table.measured(rows());
    let headings = table.lines(&[]);
    let lines = runners().map(move |runner| {
        let runner = runner.borrow();
        let sharing = runner.sharing.as_ref().filter(|_| count == HEADINGS.len());
        table.lines(&[row(runner, now, count)]) + &sharing.map(|sharing| sharing_line(sharing)).unwrap_or_default()
    });
    std::iter::once(headings).chain(lines)
}

/// What the daemon knows of a runner that is shared: indented, below its row.
fn sharing_line(sharing: &SharingReport) -> String {
    let SharingReport {
        share,
        engine,
        generation,
        changing,
        changed_by,
        members,
        contact_seconds,
        problem,
        untold,
        ..
    } = sharing;
    let contact = match contact_seconds {
        Some(0) => "contact now".to_owned(),
        Some(seconds) => format!("last contact {} ago", format_span(Duration::from_secs(*seconds))),
        None => "no contact yet".to_owned(),
    };
    let place = engine.as_ref().map(|engine| format!(" in {engine}")).unwrap_or_default();
    let clauses = [
        generation.map(|generation| format!("generation {generation}")),
        members.map(|members| format!("{members} {}", if members == 1 { "member" } else { "members" })),
        changing
            .as_ref()
            .map(|machine| format!("{machine} is changing it"))
            .or_else(|| changed_by.as_ref().map(|machine| format!("last changed by {machine}"))),
        untold.then(|| "the store does not have this machine's token yet".to_owned()),
        Some(contact),
        problem.clone(),
    ];
    let clauses: Vec<_> = clauses.into_iter().flatten().collect();
    format!("  shared as {share}{}: {}\n", printable(&place), printable(&clauses.join(", ")))
}

fn row(runner: &RunnerReport, now: Timestamp, columns: usize) -> Vec<Cell> {
    let mut cells = vec![
        Cell::new(runner.name.as_deref()),
        Cell::new(runner.id.map(|id| id.to_string())),
        Cell::new(runner.url.as_ref().map(ToString::to_string)),
        Cell::new(runner.executor.as_deref()),
        Cell::new(runner.token_fingerprint.as_ref().map(ToString::to_string)),
        Cell::new(Some(runner.state.to_string())).toned(Some(tone_of(runner.state))),
        Cell::new(runner.token_expires_at.map(|at| expiry(at, now))),
        Cell::new(runner.next.as_ref().map(|next| next_step(next, now) + rotation_note(runner))),
    ];
    cells.truncate(columns);
    cells
}

/// The next step, when it is due and why: `rotate 2027-01-01T00:00:00Z (in 4h, before expiry)`.
pub(super) fn next_step(next: &NextStep, now: Timestamp) -> String {
    let at = next.at.whole_seconds();
    let when = if at <= now { "now".to_owned() } else { format!("in {}", format_span(at.since(now))) };
    let words = |text: &str| text.replace('_', " ");
    format!("{} {at} ({when}, {})", words(next.step.as_str()), words(next.why.as_str()))
}

/// What the next step does not say about the rotation of the token.
fn rotation_note(runner: &RunnerReport) -> &'static str {
    let is_rotation = runner.next.as_ref().is_some_and(|next| next.step == Step::Rotate);
    match runner.rotation.map(|rotation| rotation.rule) {
        Some(RotationRule::LastResort) if !is_rotation => "; rotated as a last resort",
        Some(RotationRule::Off) => "; not rotated",
        Some(RotationRule::ShareOfLife | RotationRule::LastResort) | None => "",
    }
}

/// An expiry without `expires`, which the heading says already.
pub(super) fn expiry(at: Timestamp, now: Timestamp) -> String {
    expiry_text(Some(at), now).trim_start_matches("expires ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_the_expiry_is_also_relative() {
        let now: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
        let report = |name: &str, expires_at: Option<&str>| RunnerReport {
            name: Some(name.to_owned()),
            id: None,
            url: Some("https://gitlab.example.com".parse().unwrap()),
            executor: None,
            token_fingerprint: None,
            token_obtained_at: None,
            token_expires_at: expires_at.map(|at| at.parse().unwrap()),
            state: StateName::Active,
            since: None,
            last_verify: None,
            next: None,
            rotation: None,
            at_stop: None,
            action: None,
            error: None,
            clock_skew_seconds: None,
            sharing: None,
        };
        let runners = [
            report("a", Some("2027-01-02T04:00:00Z")),
            report("läufer-2", None),
            report("b\u{1b}[2J", Some("2026-12-31T00:00:00Z")),
        ];
        insta::assert_snapshot!(table(|| runners.iter(), now).collect::<String>(), @r"
        NAME      ID  URL                         EXECUTOR  TOKEN  STATE   EXPIRES
        a         -   https://gitlab.example.com  -         -      active  2027-01-02T04:00:00Z (in 1d 4h)
        läufer-2  -   https://gitlab.example.com  -         -      active  -
        b?[2J     -   https://gitlab.example.com  -         -      active  expired 2026-12-31T00:00:00Z (1d ago)
        ");
    }
    #[test]
    fn line_below_a_shared_runner_says_what_is_known_of_the_store() {
        let now: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
        let sharing = SharingReport::new("docker-fleet".parse().unwrap());
        let runner = |name: &str, sharing: SharingReport| RunnerReport {
            name: Some(name.to_owned()),
            sharing: Some(Box::new(sharing)),
            ..RunnerReport::default()
        };
        let runners = [
            runner("new", sharing.clone()),
            RunnerReport { name: Some("alone".to_owned()), ..RunnerReport::default() },
            runner(
                "docker",
                SharingReport {
                    engine: Some("etcd".to_owned()),
                    generation: Some(7),
                    changing: Some("s_0123456789ab".to_owned()),
                    members: Some(20),
                    contact_seconds: Some(95),
                    problem: Some("etcd cannot be reached".to_owned()),
                    untold: true,
                    ..sharing
                },
            ),
        ];
        insta::assert_snapshot!(table_with_next(|| runners.iter(), now, Screen::default()).collect::<String>(), @r"
        NAME    ID  URL  EXECUTOR  TOKEN  STATE    EXPIRES  NEXT
        new     -   -    -         -      unknown  -        -
          shared as docker-fleet: no contact yet
        alone   -   -    -         -      unknown  -        -
        docker  -   -    -         -      unknown  -        -
          shared as docker-fleet in etcd: generation 7, 20 members, s_0123456789ab is changing it, the store does not have this machine's token yet, last contact 1m 35s ago, etcd cannot be reached
        ");
        let alone: String = table(|| runners.iter(), now).collect();
        assert!(!alone.contains("shared as"), "{alone}");
    }
}
