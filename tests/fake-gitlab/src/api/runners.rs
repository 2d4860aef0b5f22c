//! The endpoints below `/runners/:id`.

use serde_json::{Value, json};

use super::attributes::{self, Attributes};
use super::pagination::Page;
use super::{Call, Outcome, authentication, entities, runner_token};
use crate::Answer;
use crate::state::access::{AccessToken, Role};
use crate::state::job::Job;
use crate::state::runner::RunnerType;

/// The statuses that a job can have.
const JOB_STATUSES: [&str; 12] = [
    "created",
    "waiting_for_resource",
    "preparing",
    "waiting_for_callback",
    "pending",
    "running",
    "success",
    "failed",
    "canceling",
    "canceled",
    "skipped",
    "manual",
];

/// `GET /runners/:id`.
pub(super) fn show(call: &mut Call<'_>) -> Outcome {
    let caller = authentication::authenticate(call)?;
    let id = path_id(call)?;
    let with_projects = call.parameters.boolean("include_projects")?.unwrap_or(true);
    let runner = call.state.runners.get(&id).ok_or_else(|| unknown(call))?;
    if !caller.may_see(runner) {
        return Err(no_access());
    }
    Ok(Answer::json(200, entities::runner_details(call.state, runner, caller.manages_owners(), with_projects)))
}

/// `PUT /runners/:id`.
pub(super) fn update(call: &mut Call<'_>) -> Outcome {
    let caller = authentication::authenticate(call)?;
    let id = path_id(call)?;
    let names = attributes::names(call.state.version);
    if !names.iter().any(|name| call.parameters.has(name)) {
        let names = names.join(", ");
        return Err(Answer::raw_error(400, format!("{names} are missing, at least one parameter must be provided")));
    }
    let attributes = Attributes::read(call.state.version, call.parameters)?;
    managed(call, &caller, id)?;
    let now = call.state.clock.now();
    let Some(runner) = call.state.runners.get_mut(&id) else {
        return Err(Answer::error(404));
    };
    let violations = attributes.violations(&runner.tags, runner.run_untagged);
    if !violations.is_empty() {
        return Err(violations.as_object());
    }
    attributes.apply(runner);
    runner.updated_at = now;
    Ok(Answer::json(200, entities::runner_details(call.state, &call.state.runners[&id], true, true)))
}

/// `DELETE /runners/:id`.
pub(super) fn delete(call: &mut Call<'_>) -> Outcome {
    let caller = authentication::authenticate(call)?;
    let id = path_id(call)?;
    managed(call, &caller, id)?;
    let runner = &call.state.runners[&id];
    if runner.projects.len() > 1 && caller.role != Role::Admin {
        return Err(Answer::message(403, "403 Forbidden - Runner associated with more than one project"));
    }
    call.refuse_if_changed(runner.updated_at)?;
    call.state.runners.remove(&id);
    Ok(Answer::empty(204))
}

/// `GET /runners/:id/managers`: all of them in one answer.
pub(super) fn managers(call: &mut Call<'_>) -> Outcome {
    let caller = authentication::authenticate(call)?;
    let id = path_id(call)?;
    managed(call, &caller, id)?;
    let managers = &call.state.runners[&id].managers;
    let listed: Vec<Value> = managers.iter().map(|manager| entities::manager(call.state, id, manager)).collect();
    Ok(Answer::json(200, json!(listed)))
}

/// `GET /runners/:id/projects`.
pub(super) fn projects(call: &mut Call<'_>) -> Outcome {
    let caller = authentication::authenticate(call)?;
    let id = path_id(call)?;
    let page = Page::read(call)?;
    managed(call, &caller, id)?;
    let projects = &call.state.runners[&id].projects;
    let listed = projects.iter().filter_map(|id| call.state.projects.get(id)).collect();
    Ok(page.of(call, listed, entities::project))
}

/// `GET /runners/:id/jobs`.
pub(super) fn jobs(call: &mut Call<'_>) -> Outcome {
    let caller = authentication::authenticate(call)?;
    let id = path_id(call)?;
    let page = Page::read(call)?;
    let status = call.parameters.choice("status", &JOB_STATUSES)?;
    let sort = call.parameters.choice("sort", &["asc", "desc"])?;
    let order = call.parameters.choice("order_by", &["id"])?;
    let is_keyset = call.state.version.is_at_least(16, 0)
        && call.parameters.choice("pagination", &["legacy", "keyset"])?.as_deref() == Some("keyset");
    let system_id = call.parameters.text("system_id")?;
    let runner = call.state.runners.get(&id).ok_or_else(|| unknown(call))?;
    if !caller.may_manage(runner) || (runner.runner_type == RunnerType::Instance && caller.role != Role::Admin) {
        return Err(no_access());
    }
    let is_wanted = |job: &&Job| {
        job.runner_id == id
            && status.as_ref().is_none_or(|status| *status == job.status)
            && system_id.as_ref().is_none_or(|system_id| Some(system_id) == job.system_id.as_ref())
    };
    if is_keyset && order.is_none() {
        return Err(Answer::raw_error(405, "Keyset pagination is not yet available for this type of request"));
    }
    let mut listed: Vec<&Job> = call.state.jobs.values().filter(is_wanted).collect();
    if sort.as_deref() != Some("asc") {
        listed.reverse();
    }
    let show = |job: &Job| entities::job(call.state, job);
    if is_keyset {
        return page.behind_cursor(call, listed, |job| job.id, show);
    }
    let page = if system_id.is_some() { page.without_totals() } else { page };
    Ok(page.of(call, listed, show))
}

/// `POST /runners/:id/reset_authentication_token`: also revives an expired token.
pub(super) fn reset(call: &mut Call<'_>) -> Outcome {
    let caller = authentication::authenticate(call)?;
    let id = path_id(call)?;
    managed(call, &caller, id)?;
    runner_token::rotate(call, id)
}

/// Refuses unless the runner exists and the caller manages it.
fn managed(call: &Call<'_>, caller: &AccessToken, id: u64) -> Result<(), Answer> {
    let runner = call.state.runners.get(&id).ok_or_else(|| unknown(call))?;
    if caller.may_manage(runner) { Ok(()) } else { Err(no_access()) }
}

fn path_id(call: &Call<'_>) -> Result<u64, Answer> {
    let segment = call.target.segments.get(1).map(String::as_str).unwrap_or_default();
    segment.parse().map_err(|_| Answer::raw_error(400, "id is invalid"))
}

fn unknown(call: &Call<'_>) -> Answer {
    let is_newer = call.state.version.is_at_least(18, 10);
    Answer::message(404, if is_newer { "404 Runner Not Found" } else { "404 Not found" })
}

fn no_access() -> Answer {
    Answer::message(403, "403 Forbidden - No access granted")
}
