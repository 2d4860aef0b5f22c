//! `fleet show`: the details of runners.

use super::arguments::ShowArguments;
use super::cells::{ago, seen};
use super::rows::Rows;
use super::session::FleetSession;
use crate::cli::arguments::Output;
use crate::cli::text::printable;
use crate::cli::{Error, Exit};
use crate::error_chain::chain;
use crate::gitlab::fleet::RunnerDetails;
use crate::model::{Timestamp, format_span};

/// Shows runners one after the other, and reports an error for each that cannot be read.
pub(super) async fn show(session: &FleetSession, arguments: &ShowArguments) -> Result<Exit, Error> {
    let mut rows = Rows::new::<RunnerDetails>(session);
    let mut exits = Vec::new();
    for (position, id) in arguments.ids.iter().enumerate() {
        let asked = session.ask(async || Ok(session.fleet.runner(*id, !arguments.no_projects).await?.value)).await;
        let details = match asked {
            Ok(details) => details,
            Err(error) if arguments.ids.len() == 1 => return Err(error),
            Err(error) => {
                session.reporter.remark(&format!("error: runner {id}: {}", chain(&error)));
                exits.push(error.exit());
                continue;
            }
        };
        exits.push(Exit::Done);
        if session.reporter.output() == Output::Text {
            let gap = if position == 0 { "" } else { "\n" };
            session.reporter.answer(&(gap.to_owned() + &page(&details, session.now())));
        } else if rows.add(&[details]).is_err() {
            return Ok(Exit::Done);
        }
    }
    if session.reporter.is_json() {
        rows.finish(None);
    }
    Ok(Exit::of_all(&exits))
}

/// A runner's details, one per line.
fn page(details: &RunnerDetails, now: Timestamp) -> String {
    let runner = &details.runner;
    let words = |flag: Option<bool>| flag.map(|flag| if flag { "yes" } else { "no" }.to_owned());
    let time = |at: Option<Timestamp>| at.map(|at| format!("{} ({})", at.whole_seconds(), ago(at, now)));
    let program = [&runner.name, &details.version, &details.platform, &details.architecture];
    let program: Vec<_> = program.into_iter().flatten().filter(|word| !word.is_empty()).cloned().collect();
    let timeout = details.maximum_timeout.map(|secs| format_span(std::time::Duration::from_secs(secs)));
    let projects = details
        .projects
        .iter()
        .flatten()
        .map(|project| project.path_with_namespace.clone().unwrap_or_else(|| project.id.to_string()));
    let groups =
        details.groups.iter().flatten().map(|group| group.name.clone().unwrap_or_else(|| group.id.to_string()));
    let lines = [
        ("id", Some(runner.id.to_string())),
        ("description", runner.description.clone()),
        ("type", runner.runner_type.as_ref().map(ToString::to_string)),
        ("status", runner.status.as_ref().map(ToString::to_string)),
        ("paused", words(runner.is_paused())),
        ("tags", details.tag_list.as_ref().map(|tags| tags.join(", "))),
        ("run untagged", words(details.run_untagged)),
        ("locked", words(details.locked)),
        ("access level", details.access_level.as_ref().map(ToString::to_string)),
        ("maximum timeout", timeout),
        ("maintenance note", details.maintenance_note.clone()),
        ("created", time(runner.created_at)),
        ("created by", runner.created_by.as_ref().and_then(|user| user.username.clone())),
        ("seen", Some(time(details.contacted_at).unwrap_or_else(|| seen(None, now)))),
        ("address", runner.ip_address.clone()),
        ("program", Some(program.join(" "))),
        ("projects", details.projects.as_ref().map(|_| projects.collect::<Vec<_>>().join(", "))),
        ("groups", details.groups.as_ref().map(|_| groups.collect::<Vec<_>>().join(", "))),
    ];
    let line = |(name, value): (&str, Option<String>)| {
        let value = value.filter(|value| !value.is_empty())?;
        Some(format!("{:<18}{}\n", format!("{name}:"), printable(&value)))
    };
    lines.into_iter().filter_map(line).collect()
}
