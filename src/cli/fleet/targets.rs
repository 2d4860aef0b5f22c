//! Selects the runners to change.

use std::collections::HashSet;

use super::arguments::{FilterArguments, PlaceArguments, TargetArguments};
use super::list::{filters, scope};
use super::matching::{Details, Match, matches};
use super::rows::next_page;
use super::session::FleetSession;
use crate::cli::Error;
use crate::cli::text::printable;
use crate::gitlab::fleet::{FleetRunner, RunnerFilters};
use crate::model::RunnerId;

/// Up to this many runners that are given by id have their descriptions looked up.
const LOOKED_UP: usize = 20;

/// One runner to change.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The id.
    pub(super) id: RunnerId,
    /// The runner from a list or a lookup; `None` if given by id and not looked up.
    pub(super) runner: Option<FleetRunner>,
    /// What the server does not say about it, so that it may not match the filters: it is not changed.
    pub(super) unclear: Option<&'static str>,
}

impl Target {
    /// Id and description: ``6 (`test-1`)``.
    pub(super) fn label(&self) -> String {
        let description = self.runner.as_ref().and_then(|runner| runner.description.as_deref());
        match description.filter(|description| !description.is_empty()) {
            Some(description) => format!("{} (`{}`)", self.id, printable(description)),
            None => self.id.to_string(),
        }
    }
}

impl TargetArguments {
    /// Whether runners are selected by filters rather than by id.
    ///
    /// # Errors
    /// [`Error::Usage`] if neither is given, or both.
    fn is_by_filters(&self) -> Result<bool, Error> {
        let PlaceArguments { all, project, group } = &self.place;
        let FilterArguments { runner_type, status, paused, tags, version_prefix, scope } = &self.filters;
        let has_filters = *all
            || project.is_some()
            || group.is_some()
            || runner_type.is_some()
            || status.is_some()
            || paused.is_some()
            || !tags.is_empty()
            || version_prefix.is_some()
            || scope.is_some();
        match (self.ids.is_empty(), has_filters) {
            (false, false) => Ok(false),
            (true, true) => Ok(true),
            (true, false) => Err(Error::Usage(
                "specify runners: by id, or by --status, --type, --tag and so on; --all for all runners of the instance"
                    .to_owned(),
            )),
            (false, true) => Err(Error::Usage("use either ids or filters, not both".to_owned())),
        }
    }
}

/// Returns the selected runners. Looks up runners given by id only if they are few.
pub(super) async fn targets(
    session: &FleetSession,
    arguments: &TargetArguments,
    looks_up: bool,
) -> Result<Vec<Target>, Error> {
    if arguments.is_by_filters()? {
        return listed(session, arguments).await;
    }
    let mut seen = HashSet::new();
    let ids: Vec<_> = arguments.ids.iter().copied().filter(|id| seen.insert(*id)).collect();
    let looks_up = looks_up && ids.len() <= LOOKED_UP;
    let mut targets = Vec::new();
    for id in ids {
        // A runner may be changeable without being visible, so a failed lookup is no error.
        let details = if looks_up { session.fleet.runner(id, false).await.ok() } else { None };
        targets.push(Target { id, runner: details.map(|answer| answer.value.runner), unclear: None });
    }
    Ok(targets)
}

async fn listed(session: &FleetSession, arguments: &TargetArguments) -> Result<Vec<Target>, Error> {
    let filters = filters(&arguments.filters);
    let scope = scope(&arguments.place);
    let mut pages = session.fleet.runners(&scope, &filters);
    let mut targets = Vec::new();
    while let Some(page) = next_page(session, &mut pages).await? {
        for runner in page {
            let unclear = match judge(session, &runner, &filters).await? {
                Match::Yes => None,
                Match::No => continue,
                Match::Unclear(field) => Some(field),
            };
            targets.push(Target { id: runner.id, runner: Some(runner), unclear });
        }
    }
    Ok(targets)
}

/// Judges a listed runner by the filters. Asks for its details only if the list does not contain what decides.
async fn judge(session: &FleetSession, runner: &FleetRunner, filters: &RunnerFilters) -> Result<Match, Error> {
    let listed = matches(runner, None, filters);
    let Match::Unclear(_) = listed else { return Ok(listed) };
    if session.interrupt.is_interrupted() {
        return Err(Error::Interrupted("nothing was changed".to_owned()));
    }
    match session.ask(async || session.fleet.runner(runner.id, false).await).await {
        Ok(answer) => {
            let at = answer.date.unwrap_or_else(|| session.now());
            Ok(matches(runner, Some(Details { details: &answer.value, at }), filters))
        }
        // Deleted since it was listed.
        Err(error) if error.is_not_found() => Ok(Match::No),
        Err(error) => Err(error),
    }
}
