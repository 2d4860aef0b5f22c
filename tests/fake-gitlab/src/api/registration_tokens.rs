//! Resets of registration tokens at three levels.

use serde_json::json;

use super::{Call, Outcome, authentication, projects, runner_lists};
use crate::Answer;
use crate::state::access::Role;

/// `POST /runners/reset_registration_token`.
pub(super) fn reset_instance(call: &mut Call<'_>) -> Outcome {
    let caller = authentication::authenticate(call)?;
    if caller.role != Role::Admin || !call.state.registration.is_allowed {
        return Err(Answer::error(403));
    }
    let token = fresh(call, true);
    call.state.registration.instance_token.clone_from(&token);
    Ok(created(&token))
}

/// `POST /projects/:id/runners/reset_registration_token`.
pub(super) fn reset_project(call: &mut Call<'_>) -> Outcome {
    let project = projects::managed(call)?;
    if !project.allows_registration || !call.state.registration.is_allowed {
        return Err(Answer::error(403));
    }
    let token = fresh(call, false);
    if let Some(project) = call.state.projects.get_mut(&project.id) {
        project.registration_token.clone_from(&token);
    }
    Ok(created(&token))
}

/// `POST /groups/:id/runners/reset_registration_token`.
pub(super) fn reset_group(call: &mut Call<'_>) -> Outcome {
    let caller = authentication::authenticate(call)?;
    let group = runner_lists::group(call).filter(|_| caller.sees_owners()).cloned();
    let group = group.ok_or_else(|| Answer::message(404, "404 Group Not Found"))?;
    if !caller.manages_owners() || !group.allows_registration || !call.state.registration.is_allowed {
        return Err(Answer::error(403));
    }
    let token = fresh(call, false);
    if let Some(group) = call.state.groups.get_mut(&group.id) {
        group.registration_token.clone_from(&token);
    }
    Ok(created(&token))
}

fn fresh(call: &mut Call<'_>, is_for_instance: bool) -> String {
    let version = call.state.version;
    call.state.tokens.registration(version, is_for_instance)
}

fn created(token: &str) -> Answer {
    Answer::json(201, json!({ "token": token }))
}
