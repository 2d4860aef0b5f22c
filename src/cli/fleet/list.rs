//! `fleet list`: lists runners as they arrive.

use super::arguments::{FilterArguments, ListArguments, PlaceArguments};
use super::matching::{Details, Match, matches};
use super::rows::{Rows, next_page, write_pages};
use super::session::FleetSession;
use crate::cli::{Error, Exit};
use crate::gitlab::fleet::{FleetRunner, RunnerDetails, RunnerFilters, RunnerScope};

/// Lists runners.
pub(super) async fn list(session: &FleetSession, arguments: &ListArguments) -> Result<Exit, Error> {
    let (scope, filters) = (scope(&arguments.place), filters(&arguments.filters));
    if arguments.details {
        return with_details(session, &scope, &filters, arguments.limit).await;
    }
    let matches_row = |runner: &FleetRunner| matches(runner, None, &filters) != Match::No;
    write_pages(session, session.fleet.runners(&scope, &filters), arguments.limit, matches_row).await
}

async fn with_details(
    session: &FleetSession,
    scope: &RunnerScope,
    filters: &RunnerFilters,
    limit: Option<usize>,
) -> Result<Exit, Error> {
    let mut rows = Rows::new::<RunnerDetails>(session);
    let written = write_details(session, scope, filters, limit.unwrap_or(usize::MAX), &mut rows).await;
    rows.finish(written.as_ref().err());
    written.map(|()| Exit::Done)
}

async fn write_details(
    session: &FleetSession,
    scope: &RunnerScope,
    filters: &RunnerFilters,
    limit: usize,
    rows: &mut Rows,
) -> Result<(), Error> {
    let mut pages = session.fleet.runners(scope, filters).of_length(limit);
    while rows.count() < limit {
        let Some(page) = next_page(session, &mut pages).await? else { return Ok(()) };
        let page = page.into_iter().filter(|runner| matches(runner, None, filters) != Match::No);
        let (details, end) = details(session, page, filters, limit - rows.count()).await;
        if rows.add(&details).is_err() {
            return Ok(());
        }
        end?;
    }
    Ok(())
}

/// Reads the details of up to `limit` runners up to the first failure, and returns both. Skips runners that do not match
/// the filters or were deleted since they were listed.
async fn details(
    session: &FleetSession,
    runners: impl Iterator<Item = FleetRunner>,
    filters: &RunnerFilters,
    limit: usize,
) -> (Vec<RunnerDetails>, Result<(), Error>) {
    let mut details = Vec::new();
    for runner in runners {
        if session.interrupt.is_interrupted() || details.len() >= limit {
            break;
        }
        match session.ask(async || session.fleet.runner(runner.id, false).await).await {
            Ok(answer) => {
                let at = answer.date.unwrap_or_else(|| session.now());
                let found = Details { details: &answer.value, at };
                if matches(&runner, Some(found), filters) != Match::No {
                    details.push(answer.value);
                }
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return (details, Err(error)),
        }
    }
    (details, Ok(()))
}

/// The scope of the arguments.
pub(super) fn scope(place: &PlaceArguments) -> RunnerScope {
    match (place.all, &place.project, &place.group) {
        (true, _, _) => RunnerScope::All,
        (false, Some(project), _) => RunnerScope::Project(project.clone()),
        (false, None, Some(group)) => RunnerScope::Group(group.clone()),
        (false, None, None) => RunnerScope::Owned,
    }
}

/// The filters of the arguments.
pub(super) fn filters(arguments: &FilterArguments) -> RunnerFilters {
    RunnerFilters {
        runner_type: arguments.runner_type.clone(),
        status: arguments.status.clone(),
        paused: arguments.paused,
        tag_list: arguments.tags.clone(),
        version_prefix: arguments.version_prefix.clone(),
        scope: arguments.scope.clone(),
    }
}
