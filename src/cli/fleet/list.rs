//! `fleet list`: lists runners as they arrive.

use super::arguments::{FilterArguments, ListArguments, PlaceArguments};
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
    write_pages(session, session.fleet.runners(&scope, &filters), arguments.limit).await
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
        let (details, end) = details(session, page.into_iter().take(limit - rows.count())).await;
        if rows.add(&details).is_err() {
            return Ok(());
        }
        end?;
    }
    Ok(())
}

/// Reads the details of runners up to the first failure, and returns both. Skips runners that were deleted since
/// they were listed.
async fn details(
    session: &FleetSession,
    runners: impl Iterator<Item = FleetRunner>,
) -> (Vec<RunnerDetails>, Result<(), Error>) {
    let mut details = Vec::new();
    for runner in runners {
        if session.interrupt.is_interrupted() {
            break;
        }
        match session.ask(async || Ok(session.fleet.runner(runner.id, false).await?.value)).await {
            Ok(found) => details.push(found),
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
