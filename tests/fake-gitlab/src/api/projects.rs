//! The endpoints below `/projects/:id/runners`.

use serde_json::Value;

use super::filters::WIDE_SCOPES;
use super::{Call, Outcome, authentication, entities, runner_lists};
use crate::Answer;
use crate::state::access::AccessToken;
use crate::state::owner::Project;
use crate::state::runner::RunnerType;

/// `GET /projects/:id/runners`: the project's own runners and inherited ones.
pub(super) fn runners(call: &mut Call<'_>) -> Outcome {
    let project = managed(call)?;
    let groups: Vec<u64> = call
        .state
        .groups
        .values()
        .filter(|group| project.path.starts_with(&format!("{}/", group.path)))
        .map(|group| group.id)
        .collect();
    runner_lists::listed(call, &WIDE_SCOPES, |runner| match runner.runner_type {
        RunnerType::Instance => true,
        RunnerType::Group => runner.groups.iter().any(|id| groups.contains(id)),
        RunnerType::Project => runner.projects.contains(&project.id),
    })
}

/// `POST /projects/:id/runners`: lets a project runner serve one more project.
pub(super) fn assign(call: &mut Call<'_>) -> Outcome {
    let project_id = managed(call)?.id;
    call.parameters.require(&["runner_id"])?;
    let runner_id = call.parameters.integer("runner_id")?.and_then(|id| u64::try_from(id).ok());
    let state = &mut *call.state;
    let runner =
        runner_id.and_then(|id| state.runners.get_mut(&id)).ok_or_else(|| Answer::message(404, "404 Not found"))?;
    let refusal = match runner.runner_type {
        RunnerType::Group => Some("Runner is a group runner"),
        RunnerType::Instance => Some("No access granted"),
        RunnerType::Project if runner.locked => Some("Runner is locked"),
        RunnerType::Project => None,
    };
    if let Some(refusal) = refusal {
        return Err(Answer::message(403, format!("403 Forbidden - {refusal}")));
    }
    if runner.projects.contains(&project_id) {
        return Err(Answer::message(400, "400 Bad request - Runner is already assigned to this project"));
    }
    runner.projects.push(project_id);
    let id = runner.id;
    Ok(Answer::json(201, Value::Object(entities::runner(call.state, &call.state.runners[&id]))))
}

/// `DELETE /projects/:id/runners/:runner_id`; refused for the owner project, before 17.9 for the last project.
pub(super) fn unassign(call: &mut Call<'_>) -> Outcome {
    let project_id = managed(call)?.id;
    let segment = call.target.segments.get(3).map(String::as_str).unwrap_or_default();
    let id: u64 = segment.parse().map_err(|_| Answer::raw_error(400, "runner_id is invalid"))?;
    let has_owner_rule = call.state.version.is_at_least(17, 9);
    let runner = call.state.runners.get(&id).filter(|runner| runner.projects.contains(&project_id));
    let runner = runner.ok_or_else(|| Answer::message(404, "404 Runner Not Found"))?;
    let refusal = if runner.locked {
        Some("Runner is locked")
    } else if has_owner_rule && runner.projects.first() == Some(&project_id) {
        Some("You cannot unassign a runner from the owner project. Delete the runner instead")
    } else if runner.projects.len() == 1 {
        Some("Only one project associated with the runner. Please remove the runner instead")
    } else {
        None
    };
    if let Some(refusal) = refusal {
        return Err(Answer::message(403, format!("403 Forbidden - {refusal}")));
    }
    call.refuse_if_changed(runner.updated_at)?;
    if let Some(runner) = call.state.runners.get_mut(&id) {
        runner.projects.retain(|project| *project != project_id);
    }
    Ok(Answer::empty(204))
}

/// `GET /projects/:id`.
pub(super) fn show(call: &mut Call<'_>) -> Outcome {
    Ok(Answer::json(200, entities::project(&visible(call)?.0)))
}

/// Finds the project that the path names by its id or its path; 403 if the caller does not manage it.
pub(super) fn managed(call: &Call<'_>) -> Result<Project, Answer> {
    let (project, caller) = visible(call)?;
    if caller.manages_owners() { Ok(project) } else { Err(Answer::error(403)) }
}

/// Finds the project that the path names by its id or its path; 404 if the caller cannot see it.
pub(super) fn visible(call: &Call<'_>) -> Result<(Project, AccessToken), Answer> {
    let caller = authentication::authenticate(call)?;
    let name = call.target.segments.get(1).map(String::as_str).unwrap_or_default();
    let by_id = name.parse().ok().and_then(|id: u64| call.state.projects.get(&id));
    let project = by_id.or_else(|| call.state.projects.values().find(|project| project.path == name));
    let project =
        project.filter(|_| caller.sees_owners()).ok_or_else(|| Answer::message(404, "404 Project Not Found"))?;
    Ok((project.clone(), caller))
}
