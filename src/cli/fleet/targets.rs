//! Selects the runners to change.

use std::collections::HashSet;

use super::arguments::{FilterArguments, PlaceArguments, TargetArguments};
use super::list::{filters, scope};
use super::rows::next_page;
use super::session::FleetSession;
use crate::cli::Error;
use crate::cli::text::printable;
use crate::gitlab::fleet::{ContactStatus, FleetRunner, RunnerDetails, RunnerFilters};
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
        targets.push(Target { id, runner: details.map(|answer| answer.value.runner) });
    }
    Ok(targets)
}

async fn listed(session: &FleetSession, arguments: &TargetArguments) -> Result<Vec<Target>, Error> {
    let filters = filters(&arguments.filters);
    let scope = scope(&arguments.place);
    let mut pages = session.fleet.runners(&scope, &filters);
    let mut targets = Vec::new();
    while let Some(page) = next_page(session, &mut pages).await? {
        for runner in page.into_iter().filter(|runner| row_matches(runner, &filters)) {
            if matches_details(session, &runner, &filters).await? {
                targets.push(Target { id: runner.id, runner: Some(runner) });
            }
        }
    }
    Ok(targets)
}

/// Whether a listed runner matches the filters. A server ignores filters that it does not know, and would return
/// runners that must not be changed.
pub(super) fn row_matches(runner: &FleetRunner, filters: &RunnerFilters) -> bool {
    let has_status = |status: &ContactStatus| match status {
        ContactStatus::Active => runner.is_paused() != Some(true),
        ContactStatus::Paused => runner.is_paused() != Some(false),
        // GitLab hides the contact status of a paused runner.
        status => runner.status.as_ref().is_none_or(|own| own == status || *own == ContactStatus::Paused),
    };
    let is_of_type = |wanted| runner.runner_type.as_ref() == Some(wanted);
    filters.runner_type.as_ref().is_none_or(is_of_type)
        && filters.status.as_ref().is_none_or(has_status)
        && filters.paused.is_none_or(|paused| runner.is_paused() == Some(paused))
}

/// Checks the filters that need a runner's details.
async fn matches_details(session: &FleetSession, runner: &FleetRunner, filters: &RunnerFilters) -> Result<bool, Error> {
    if filters.tag_list.is_empty() && filters.version_prefix.is_none() {
        return Ok(true);
    }
    match session.ask(async || Ok(session.fleet.runner(runner.id, false).await?.value)).await {
        Ok(details) => Ok(details_match(&details, filters)),
        // Deleted since it was listed.
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a runner's details match the filters for tags and version.
pub(super) fn details_match(details: &RunnerDetails, filters: &RunnerFilters) -> bool {
    let has_tag = |tag: &String| details.tag_list.iter().flatten().any(|own| own == tag);
    let has_version =
        |prefix: &String| details.version.as_ref().is_some_and(|version| version.starts_with(prefix.as_str()));
    filters.tag_list.iter().all(has_tag) && filters.version_prefix.as_ref().is_none_or(has_version)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_that_do_not_match_the_filters_are_dropped() {
        let runner: FleetRunner = serde_json::from_value(json!({
            "id": 1, "status": "online", "paused": false, "runner_type": "group_type",
        }))
        .unwrap();
        let filters = |status: Option<&str>, runner_type: Option<&str>, paused| RunnerFilters {
            status: status.map(|word| word.parse().unwrap()),
            runner_type: runner_type.map(|word| word.parse().unwrap()),
            paused,
            ..RunnerFilters::default()
        };
        for (wanted, is_wanted) in [
            (filters(None, None, None), true),
            (filters(Some("online"), Some("group_type"), Some(false)), true),
            (filters(Some("offline"), None, None), false),
            (filters(Some("active"), None, None), true),
            (filters(Some("paused"), None, None), false),
            (filters(None, Some("project_type"), None), false),
            (filters(None, None, Some(true)), false),
        ] {
            assert_eq!(row_matches(&runner, &wanted), is_wanted, "{wanted:?}");
        }
        let details: RunnerDetails =
            serde_json::from_value(json!({ "id": 1, "tag_list": ["a", "b"], "version": "16.1.0" })).unwrap();
        for (tags, version_prefix, is_wanted) in [
            (vec![], None, true),
            (vec!["a", "b"], Some("16.1"), true),
            (vec!["a", "c"], None, false),
            (vec!["a"], Some("16.2"), false),
        ] {
            let tag_list = tags.into_iter().map(str::to_owned).collect();
            let version_prefix = version_prefix.map(str::to_owned);
            let wanted = RunnerFilters { tag_list, version_prefix, ..RunnerFilters::default() };
            assert_eq!(details_match(&details, &wanted), is_wanted, "{wanted:?}");
        }
        let paused = FleetRunner { status: Some(ContactStatus::Paused), paused: Some(true), ..runner };
        assert!(row_matches(&paused, &filters(Some("offline"), None, None)));
    }
}
