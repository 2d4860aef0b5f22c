//! `fleet prune`: deletes runners that nobody has seen for long, and none that this machine serves.

use std::collections::HashSet;

use super::arguments::PruneArguments;
use super::delete::delete_all;
use super::list::{filters, scope};
use super::rows::next_page;
use super::session::FleetSession;
use super::targets::{Target, is_meant, is_surely_meant};
use crate::cli::context::Context;
use crate::cli::{Error, Exit, list};
use crate::gitlab::fleet::{Runner, RunnerDetails, RunnerStatus};
use crate::model::{RunnerId, Timestamp, format_span};
use crate::settings;

/// Deletes, once it is agreed to.
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
        session.reporter.remark(&format!("left alone, since this machine serves them: {}", numbers.join(", ")));
    }
    if !silent.is_empty() {
        session.reporter.remark(&format!("asking when {} runners were seen, one request each", silent.len()));
    }
    let stale = stale(&session, silent, arguments).await?;
    delete_all(session, stale, arguments.confirm).await
}

/// The runners of this server that this machine has an entry or a record of.
///
/// # Errors
/// An entry whose number nobody knows could be any of them.
async fn served(context: &Context<'_>, session: &FleetSession) -> Result<HashSet<RunnerId>, Error> {
    let store = list::open(settings::paths(&context.overrides, &context.environment).store())?;
    let mut served = HashSet::new();
    for candidate in list::read_candidates(&store).await? {
        let record = candidate.runner.as_ref().ok().map(|runner| &runner.record);
        let of_entries = candidate.entries.iter().map(|entry| (entry.url.as_ref(), entry.id, entry.name.as_deref()));
        let of_record = record.map(|record| (Some(&record.url), record.id, record.name.as_deref()));
        let known: Vec<_> = of_entries.chain(of_record).filter(|(url, ..)| *url == Some(&session.site.url)).collect();
        let ids: Vec<_> = known.iter().filter_map(|(_, id, _)| *id).collect();
        if let (true, Some((_, _, name))) = (ids.is_empty(), known.first()) {
            return Err(Error::Verdict {
                exit: Exit::LocalFile,
                message: format!(
                    "nobody knows which runner the entry `{}` in config.toml is, so it could be among those",
                    name.unwrap_or_default()
                ),
                hint: Some("run `verify` first, which finds out its id".to_owned()),
            });
        }
        served.extend(ids);
    }
    Ok(served)
}

/// Those that are not online, or whose status does not say.
async fn silent(session: &FleetSession, arguments: &PruneArguments) -> Result<Vec<Runner>, Error> {
    let filters = filters(&arguments.filters);
    let scope = scope(&arguments.place);
    let mut pages = session.fleet.runners(&scope, &filters);
    let mut silent = Vec::new();
    while let Some(page) = next_page(session, &mut pages).await? {
        let is_silent = |runner: &Runner| {
            is_meant(runner, &filters) && runner.status != Some(RunnerStatus::Online) && runner.online != Some(true)
        };
        silent.extend(page.into_iter().filter(is_silent));
    }
    Ok(silent)
}

/// Those of them that were last seen, or else made, long enough ago.
async fn stale(session: &FleetSession, silent: Vec<Runner>, arguments: &PruneArguments) -> Result<Vec<Target>, Error> {
    let filters = filters(&arguments.filters);
    let mut stale = Vec::new();
    let mut unknown = 0_usize;
    for runner in silent {
        if session.interrupt.is_asked() {
            return Err(Error::Interrupted("nothing was deleted".to_owned()));
        }
        let answer = session.ask(async || session.fleet.runner(runner.id, false).await).await?;
        let now = answer.date.unwrap_or_else(|| session.now());
        let details: RunnerDetails = answer.value;
        match details.contacted_at.or(details.runner.created_at) {
            None => unknown += 1,
            Some(at) if !is_long_ago(at, now, arguments) => {}
            Some(_) if is_surely_meant(&details, &filters) => {
                stale.push(Target { id: runner.id, runner: Some(runner) });
            }
            Some(_) => {}
        }
    }
    if unknown > 0 {
        session.reporter.remark(&format!(
            "left alone, since the server does not tell how old they are: {unknown} runners that were never in contact"
        ));
    }
    if stale.is_empty() {
        session.reporter.remark(&format!("nobody is missing for {}", format_span(arguments.stale)));
    }
    Ok(stale)
}

fn is_long_ago(at: Timestamp, now: Timestamp, arguments: &PruneArguments) -> bool {
    now.since(at) >= arguments.stale
}
