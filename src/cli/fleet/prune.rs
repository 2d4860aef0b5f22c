//! `fleet prune`: deletes runners without recent contact, except those that this machine serves.

use std::collections::HashSet;

use super::arguments::PruneArguments;
use super::delete::delete_all;
use super::list::{filters, scope};
use super::matching::{Details, Match, matches};
use super::rows::next_page;
use super::session::FleetSession;
use super::targets::Target;
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
    let (ours, silent): (Vec<_>, Vec<_>) = silent.into_iter().partition(|runner| served.here.contains(&runner.id));
    let (perhaps, silent): (Vec<_>, Vec<_>) =
        silent.into_iter().partition(|runner| served.elsewhere.contains(&runner.id));
    let keep = |runners: &[FleetRunner], why: &str| {
        if !runners.is_empty() {
            let numbers: Vec<_> = runners.iter().map(|runner| runner.id.to_string()).collect();
            session.reporter.remark(&format!("kept, because this machine serves {why}: {}", numbers.join(", ")));
        }
    };
    keep(&ours, "them");
    keep(&perhaps, "runners with these ids under another address, which may be the same server");
    if !silent.is_empty() {
        session.reporter.remark(&format!("reading the last contact of {} runners, one request each", silent.len()));
    }
    let stale = stale(&session, silent, arguments).await?;
    delete_all(session, stale, arguments.confirm).await
}

/// The runners that this machine has an entry or a record of.
#[derive(Default)]
struct Served {
    /// Those of this server.
    here: HashSet<RunnerId>,
    /// Those of other addresses, which may be other names of this server.
    elsewhere: HashSet<RunnerId>,
}

/// Finds the runners that this machine has an entry or a record of.
///
/// # Errors
/// [`Error::Verdict`] for an entry without a known id, since it could be any of the runners.
async fn served(context: &Context<'_>, session: &FleetSession) -> Result<Served, Error> {
    let store = list::open(settings::paths(&context.overrides, &context.environment).store())?;
    let mut served = Served::default();
    for candidate in list::read_candidates(&store).await? {
        let record = candidate.record();
        let of_entries = candidate.entries.iter().map(|entry| (entry.url.as_ref(), entry.id, entry.name.as_deref()));
        let of_record = record.map(|record| (Some(&record.url), record.id, record.name.as_deref()));
        let (known, others): (Vec<_>, Vec<_>) =
            of_entries.chain(of_record).partition(|(url, ..)| *url == Some(&session.site.url));
        served.elsewhere.extend(others.iter().filter_map(|(_, id, _)| *id));
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
        served.here.extend(ids);
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
            matches(runner, None, &filters) != Match::No
                && runner.status != Some(ContactStatus::Online)
                && runner.online != Some(true)
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
        let answer = match session.ask(async || session.fleet.runner(runner.id, false).await).await {
            Ok(answer) => answer,
            // Deleted since it was listed.
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        let now = answer.date.unwrap_or_else(|| session.now());
        let details: RunnerDetails = answer.value;
        let unclear = match matches(&runner, Some(Details { details: &details, at: now }), &filters) {
            Match::Yes => None,
            Match::No => continue,
            Match::Unclear(field) => Some(field),
        };
        match last_seen(&details) {
            None => unknown += 1,
            Some(at) if is_long_ago(at, now, arguments) => {
                stale.push(Target { id: runner.id, runner: Some(runner), unclear });
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

/// The last contact, or the creation of a runner that was never in contact. A runner that was seen at a time that is
/// missing or unreadable has neither.
fn last_seen(details: &RunnerDetails) -> Option<Timestamp> {
    let created_at = details.runner.created_at.filter(|_| details.runner.online.is_none());
    details.contacted_at.or(created_at)
}

fn is_long_ago(at: Timestamp, now: Timestamp, arguments: &PruneArguments) -> bool {
    now.since(at) >= arguments.stale
}
