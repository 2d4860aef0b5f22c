//! The endpoints that a runner calls with its own token.

use serde_json::{Value, json};

use super::{Call, Outcome, entities};
use crate::state::runner::{Runner, RunnerType};
use crate::{Answer, Version};

/// The longest system id, in characters.
const LONGEST_SYSTEM_ID: usize = 64;
/// The first release that records contacts per manager.
const MANAGERS_SINCE: (u16, u16) = (15, 11);
/// The first release whose verify refuses runners without an owner.
const ORPHANS_REFUSED_SINCE: (u16, u16) = (17, 9);

/// `POST /runners/verify`, answered by a replica if one lags.
pub(super) fn verify_on_replica(call: &mut Call<'_>) -> Outcome {
    let Call { state, target, method, headers, parameters, address } = call;
    state.on_replica(|state| verify(&mut Call { state, target, method, headers, parameters, address }))
}

fn verify(call: &mut Call<'_>) -> Outcome {
    let id = authenticate(call)?;
    let version = call.state.version;
    let (major, minor) = ORPHANS_REFUSED_SINCE;
    if version.is_at_least(major, minor) && call.state.runners[&id].is_orphaned {
        return Err(orphan_refused(version));
    }
    book_contact(call, id)?;
    if !version.is_at_least(15, 9) {
        return Ok(plain_success(call));
    }
    let runner = &call.state.runners[&id];
    let mut credentials = entities::credentials(version, runner);
    credentials.insert("id".to_owned(), json!(id));
    Ok(Answer::json(200, Value::Object(credentials)))
}

/// `DELETE /runners`: deletes the runner and all its managers.
pub(super) fn delete(call: &mut Call<'_>) -> Outcome {
    let id = authenticate(call)?;
    call.refuse_if_changed(call.state.runners[&id].updated_at)?;
    call.state.runners.remove(&id);
    Ok(Answer::empty(204))
}

/// `DELETE /runners/managers`: deletes one manager and keeps the runner and its token.
pub(super) fn delete_manager(call: &mut Call<'_>) -> Outcome {
    call.parameters.require(&["token", "system_id"])?;
    let id = authenticate(call)?;
    let system_id = call.parameters.text("system_id")?.unwrap_or_default();
    let manager = call.state.runners[&id].manager(&system_id);
    let contacted_at =
        manager.map(|manager| manager.contacted_at).ok_or_else(|| manager_unknown(call.state.version))?;
    call.refuse_if_changed(contacted_at)?;
    if let Some(runner) = call.state.runners.get_mut(&id) {
        runner.managers.retain(|manager| manager.system_id != system_id);
    }
    Ok(Answer::empty(204))
}

/// `POST /runners/reset_authentication_token`.
pub(super) fn reset(call: &mut Call<'_>) -> Outcome {
    let id = authenticate(call)?;
    book_contact(call, id)?;
    rotate(call, id)
}

/// `POST /jobs/request`: there is never a job.
pub(super) fn request_job(call: &mut Call<'_>) -> Outcome {
    let id = authenticate(call)?;
    book_contact(call, id)?;
    Ok(Answer::empty(204))
}

/// Rotates a runner's token.
pub(super) fn rotate(call: &mut Call<'_>, id: u64) -> Outcome {
    let now = call.state.clock.now();
    let version = call.state.version;
    let runner = &call.state.runners[&id];
    if version.is_at_least(18, 10) && runner.is_rotation_closed_at(now) {
        return Err(Answer::raw_error(403, "Token rotation deadline has passed"));
    }
    if runner.runner_type == RunnerType::Project && (runner.is_orphaned || runner.projects.is_empty()) {
        return Err(projectless_refused(version));
    }
    let runner = call.state.rotate(id).ok_or_else(|| Answer::error(403))?;
    Ok(Answer::json(201, Value::Object(entities::credentials(version, runner))))
}

/// Finds the runner by the token in the parameters; all invalid tokens get the same refusal.
fn authenticate(call: &Call<'_>) -> Result<u64, Answer> {
    call.parameters.require(&["token"])?;
    let token = call.parameters.text("token")?.unwrap_or_default();
    call.state.runner_by_live_token(&token).map(|runner: &Runner| runner.id).ok_or_else(|| Answer::error(403))
}

fn book_contact(call: &mut Call<'_>, id: u64) -> Result<(), Answer> {
    let system_id = call.parameters.text("system_id")?;
    let info = call.parameters.object("info")?;
    let now = call.state.clock.now();
    let (major, minor) = MANAGERS_SINCE;
    let has_managers = call.state.version.is_at_least(major, minor);
    let is_savable =
        system_id.as_deref().is_none_or(|text| !text.trim().is_empty() && text.chars().count() <= LONGEST_SYSTEM_ID);
    if has_managers && !is_savable {
        return Err(Answer::error(500));
    }
    let new_id = call.state.next_id();
    let Some(runner) = call.state.runners.get_mut(&id) else {
        return Ok(());
    };
    if has_managers {
        runner.contact_by(system_id.as_deref(), info, new_id, now);
    } else {
        runner.contact(info, now);
    }
    Ok(())
}

fn plain_success(call: &Call<'_>) -> Answer {
    if call.state.verify_is_json_string {
        Answer::json(200, json!("200"))
    } else {
        Answer::text(200, "text/plain", "200")
    }
}

fn orphan_refused(version: Version) -> Answer {
    if version.is_at_least(18, 0) {
        Answer::message(422, "Runner is orphaned")
    } else {
        Answer::message(403, "403 Forbidden - Runner is orphaned")
    }
}

fn projectless_refused(version: Version) -> Answer {
    if version.is_at_least(18, 10) {
        Answer::raw_error(422, "Runner must be assigned to at least one project")
    } else {
        Answer::error(500)
    }
}

fn manager_unknown(version: Version) -> Answer {
    let text = if version.is_at_least(17, 0) { "404 Runner manager not found Not Found" } else { "404 Not found" };
    Answer::message(404, text)
}
