//! `GET /runners`, `GET /runners/all` and `GET /groups/:id/runners`.

use serde_json::Value;

use super::filters::{Filters, SCOPES, WIDE_SCOPES};
use super::pagination::Page;
use super::{Call, Outcome, authentication, entities};
use crate::Answer;
use crate::state::access::Role;
use crate::state::owner::Group;
use crate::state::runner::{Runner, RunnerType};

/// `GET /runners`: runners of the caller's projects and groups.
pub(super) fn own(call: &mut Call<'_>) -> Outcome {
    let caller = authentication::authenticate(call)?;
    listed(call, &SCOPES, |runner| caller.manages_owners() && runner.runner_type != RunnerType::Instance)
}

/// `GET /runners/all`: for admins.
pub(super) fn all(call: &mut Call<'_>) -> Outcome {
    let caller = authentication::authenticate(call)?;
    if caller.role != Role::Admin {
        return Err(Answer::error(403));
    }
    listed(call, &WIDE_SCOPES, |_| true)
}

/// `GET /groups/:id/runners`: the group's own, and since 14.8 those of the groups above it and of the instance.
pub(super) fn of_group(call: &mut Call<'_>) -> Outcome {
    let caller = authentication::authenticate(call)?;
    let group =
        group(call).filter(|_| caller.sees_owners()).ok_or_else(|| Answer::message(404, "404 Group Not Found"))?;
    if !caller.manages_owners() {
        return Err(Answer::error(403));
    }
    let with_inherited = call.state.version.is_at_least(14, 8);
    let groups: Vec<u64> = call
        .state
        .groups
        .values()
        .filter(|other| other.id == group.id || (with_inherited && group.path.starts_with(&format!("{}/", other.path))))
        .map(|group| group.id)
        .collect();
    listed(call, &[], |runner| match runner.runner_type {
        RunnerType::Instance => with_inherited,
        RunnerType::Group => runner.groups.iter().any(|id| groups.contains(id)),
        RunnerType::Project => false,
    })
}

/// Answers with a page of the runners that belong here and match the filters.
pub(super) fn listed(call: &Call<'_>, scopes: &[&str], belongs: impl Fn(&Runner) -> bool) -> Outcome {
    let page = Page::read(call)?;
    let filters = Filters::read(call, scopes)?;
    let rows =
        call.state.runners.values().filter(|runner| belongs(runner) && filters.let_pass(call.state, runner)).collect();
    Ok(page.of(call, rows, |runner: &Runner| Value::Object(entities::runner(call.state, runner))))
}

/// `GET /groups/:id`.
pub(super) fn show_group(call: &mut Call<'_>) -> Outcome {
    let caller = authentication::authenticate(call)?;
    let group = group(call).filter(|_| caller.sees_owners());
    let group = group.ok_or_else(|| Answer::message(404, "404 Group Not Found"))?;
    Ok(Answer::json(200, entities::group(group)))
}

/// Finds the group by the id or path in the request's path.
pub(super) fn group<'a>(call: &'a Call<'_>) -> Option<&'a Group> {
    let name = call.target.segments.get(1)?;
    let by_id = name.parse().ok().and_then(|id: u64| call.state.groups.get(&id));
    by_id.or_else(|| call.state.groups.values().find(|group| group.path == *name))
}
