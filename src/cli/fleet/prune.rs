//! `fleet prune`: deletes runners without recent contact, except those that this machine serves.

use std::collections::HashSet;

use super::arguments::PruneArguments;
use super::delete::delete_all;
use super::list::{filters, scope};
use super::rows::next_page;
use super::session::FleetSession;
use super::targets::{Target, details_match, row_matches};
use crate::cli::context::Context;
use crate::cli::{Error, Exit, list};
use crate::gitlab::fleet::{ContactStatus, FleetRunner, RunnerDetails};
use crate::model::{RunnerId, Timestamp, format_span};
use crate::settings;

/// Deletes stale runners once the user has confirmed it.
pub(super) async fn prune(
    context: &Context<'_>,
    session: FleetSession,
    arguments: &PruneArguments,
) -> Result<Exit, Error> {
    let served = served(context, &session).await?;
    let silent = silent(&session, arguments).await?;
    let (ours, silent): (Vec<_>, Vec<_>) = silent.into_iter().partition(|runner| served.contains(&runner.id));
    if !ours.is_empty() {
        let numbers: Vec<_> = ours.iter().map(|runner| runner.id.to_string()).collect();
        session.reporter.remark(&format!("kept, because this machine serves them: {}", numbers.join(", ")));
    }
    if !silent.is_empty() {
        session.reporter.remark(&format!("reading the last contact of {} runners, one request each", silent.len()));
    }
    let stale = stale(&session, silent, arguments).await?;
    delete_all(session, stale, arguments.confirm).await
}

/// The runners of this server that this machine has an entry or a record of.
///
/// # Errors
/// [`Error::Verdict`] for an entry without a known id, since it could be any of the runners.
async fn served(context: &Context<'_>, session: &FleetSession) -> Result<HashSet<RunnerId>, Error> {
    let store = list::open(settings::paths(&context.overrides, &context.environment).store())?;
    let mut served = HashSet::new();
    for candidate in list::read_candidates(&store).await? {
        let record = candidate.record();
        let of_entries = candidate.entries.iter().map(|entry| (entry.url.as_ref(), entry.id, entry.name.as_deref()));
        let of_record = record.map(|record| (Some(&record.url), record.id, record.name.as_deref()));
        let known: Vec<_> = of_entries.chain(of_record).filter(|(url, ..)| *url == Some(&session.site.url)).collect();
        let ids: Vec<_> = known.iter().filter_map(|(_, id, _)| *id).collect();
        if let (true, Some((_, _, name))) = (ids.is_empty(), known.first()) {
            return Err(Error::Verdict {
                exit: Exit::LocalFile,
                message: format!(
                    "the entry `{}` in config.toml has no known id, so it could be any of these runners",
                    name.unwrap_or_default()
                ),
                hint: Some("run `verify` first, which learns the id".to_owned()),
            });
        }
        served.extend(ids);
    }
    Ok(served)
}

/// The runners that are not online or have no status.
async fn silent(session: &FleetSession, arguments: &PruneArguments) -> Result<Vec<FleetRunner>, Error> {
    let filters = filters(&arguments.filters);
    let scope = scope(&arguments.place);
    let mut pages = session.fleet.runners(&scope, &filters);
    let mut silent = Vec::new();
    while let Some(page) = next_page(session, &mut pages).await? {
        let is_silent = |runner: &FleetRunner| {
            row_matches(runner, &filters) && runner.status != Some(ContactStatus::Online) && runner.online != Some(true)
        };
        silent.extend(page.into_iter().filter(is_silent));
    }
    Ok(silent)
}

/// The runners whose last contact, or creation if there was none, is long enough ago.
async fn stale(
    session: &FleetSession,
    silent: Vec<FleetRunner>,
    arguments: &PruneArguments,
) -> Result<Vec<Target>, Error> {
    let filters = filters(&arguments.filters);
    let mut stale = Vec::new();
    let mut unknown = 0_usize;
    for runner in silent {
        if session.interrupt.is_interrupted() {
            return Err(Error::Interrupted("nothing was deleted".to_owned()));
        }
        let answer = session.ask(async || session.fleet.runner(runner.id, false).await).await?;
        let now = answer.date.unwrap_or_else(|| session.now());
        let details: RunnerDetails = answer.value;
        match details.contacted_at.or(details.runner.created_at) {
            None => unknown += 1,
            Some(at) if !is_long_ago(at, now, arguments) => {}
            Some(_) if details_match(&details, &filters) => {
                stale.push(Target { id: runner.id, runner: Some(runner) });
            }
            Some(_) => {}
        }
    }
    if unknown > 0 {
        session.reporter.remark(&format!(
            "kept, because the server does not report their age: {unknown} runners that were never in contact"
        ));
    }
    if stale.is_empty() {
        session.reporter.remark(&format!("no runner is stale for {}", format_span(arguments.stale)));
    }
    Ok(stale)
}

fn is_long_ago(at: Timestamp, now: Timestamp, arguments: &PruneArguments) -> bool {
    now.since(at) >= arguments.stale
}
