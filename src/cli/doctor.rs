//! `doctor`: what `check` does, then the way to each server, its access token, each runner's token, and the daemon. Changes
//! nothing, but remembers that it has used an access token.

mod access_tokens;
mod bundle;
mod daemon;
mod row;
mod runners;
mod servers;
mod store;

use super::arguments::DoctorArguments;
use super::check::{self, Checked};
use super::context::Context;
use super::interrupt::Interrupt;
use super::{Error, Exit};
use crate::engine::{Inventory, inventory};
use crate::gitlab::Client;
use crate::settings::this_program;

use row::{Marks, Row, RowResult};

/// The number of requests to one host that are under way: a person waits.
const IN_FLIGHT_PER_HOST: usize = 8;

/// Reports the checks. An interrupt ends it at once, since it changes nothing.
pub(super) async fn doctor(
    context: &Context<'_>,
    arguments: DoctorArguments,
    interrupt: Interrupt,
) -> Result<Exit, Error> {
    tokio::select! {
        biased;
        () = interrupt.asked() => Err(Error::Interrupted("interrupted".to_owned())),
        result = examine(context, &arguments) => result,
    }
}

async fn examine(context: &Context<'_>, arguments: &DoctorArguments) -> Result<Exit, Error> {
    let checked = check::checked(context).await?;
    let mut rows = of_files(&checked);
    let (daemon_rows, report) = daemon::examine(&checked).await;
    let inventory = match (&checked.settings, &checked.snapshot) {
        (Some(settings), Some(snapshot)) => inventory(&settings.engine, checked.records.clone(), snapshot).await,
        _ => Inventory::default(),
    };
    if let Some(settings) = &checked.settings {
        let mut gitlab = settings.gitlab.clone();
        gitlab.in_flight_per_host = gitlab.in_flight_per_host.or(Some(IN_FLIGHT_PER_HOST));
        let client = Client::new(gitlab);
        let servers = servers::examine(context, &client, settings, &checked).await;
        rows.extend(servers.rows);
        let reachable = &servers.reachable;
        for row in access_tokens::examine(&client, settings, &checked, reachable, context.now()).await {
            servers::add_row(&mut rows, row);
        }
        rows.extend(store::examine(settings, &checked.records).await);
        let patient = runners::Patient {
            config: &settings.engine,
            store: checked.store.as_ref(),
            reachable: &servers.reachable,
            info: this_program(),
            daemon: report.as_ref(),
        };
        let examined = runners::examine(context, &client, &patient, &inventory).await?;
        for (url, is_old) in examined.releases {
            servers::add_release(&mut rows, &url.to_string(), is_old);
        }
        rows.extend(examined.rows);
    }
    rows.extend(daemon_rows);
    show(context, &rows);
    if let Some(path) = &arguments.bundle {
        let content = bundle::content(context, &checked, &inventory, &rows, report);
        bundle::write(context, path, &content)?;
    }
    Ok(exit_of(&rows))
}

/// The findings of `check`, or that there are none.
fn of_files(checked: &Checked) -> Vec<Row> {
    let rows: Vec<_> = checked.findings.iter().map(Row::of_finding).collect();
    let is_well = rows.iter().all(|row| row.result == RowResult::Note);
    let well = is_well.then(|| {
        let entries = checked.snapshot.as_ref().map_or(0, |snapshot| snapshot.entries.len());
        Row::ok("files", "check", &format!("no errors, no warnings; entries in config.toml: {entries}"))
    });
    well.into_iter().chain(rows).collect()
}

fn show(context: &Context<'_>, rows: &[Row]) {
    if context.reporter.is_json() {
        return context.reporter.rows("checks", rows.iter());
    }
    let marks = Marks::of(&context.environment);
    let mut text = String::new();
    let mut subject = "";
    for row in rows {
        if row.subject != subject {
            subject = &row.subject;
            text.push_str(&format!("{}\n", super::text::printable(subject)));
        }
        text.push_str(&row.text(marks));
    }
    let count = |result| rows.iter().filter(|row| row.result == result).count();
    let (errors, warnings) = (count(RowResult::Error), count(RowResult::Warning));
    context.reporter.answer(&format!("{text}errors: {errors}, warnings: {warnings}\n"));
}

/// The exit code of the first area with an error: files, servers, runners. Some runners may be well.
fn exit_of(rows: &[Row]) -> Exit {
    let failed = rows.iter().find(|row| row.result == RowResult::Error);
    match failed {
        None => Exit::Done,
        Some(first) if !first.is_of_runner => first.exit,
        Some(_) => {
            let tokens = rows.iter().filter(|row| row.is_of_runner && row.check == "token");
            let exits: Vec<_> = tokens.map(|row| row.exit).collect();
            match Exit::of_all(&exits) {
                Exit::Done => Exit::Failed,
                exit => exit,
            }
        }
    }
}
