//! The API v1 of GitLab before 10.0.

use serde_json::json;

use super::attributes::Attributes;
use super::{Call, Outcome};
use crate::Answer;

/// `POST /ci/api/v1/runners/register`.
pub(super) fn register(call: &mut Call<'_>) -> Outcome {
    let token = token(call)?;
    let attributes = Attributes::read(call.state.version, call.parameters)?;
    let new = call.state.registrant(&token).map_err(|_| Answer::error(403))?;
    if !attributes.violations(&[], true).is_empty() {
        return Err(Answer::error(404));
    }
    let runner = call.state.create_runner(new);
    attributes.apply(runner);
    Ok(Answer::json(201, json!({ "id": runner.id, "token": runner.token })))
}

/// `DELETE /ci/api/v1/runners/delete`, which answers 200 with the deleted runner.
pub(super) fn delete(call: &mut Call<'_>) -> Outcome {
    let id = runner_id(call)?;
    let runner = call.state.runners.remove(&id).ok_or_else(|| Answer::error(403))?;
    Ok(Answer::json(200, json!({ "id": runner.id, "description": runner.description })))
}

/// `PUT /ci/api/v1/builds/:id`: no build exists, so a valid token gets 404.
pub(super) fn probe(call: &mut Call<'_>) -> Outcome {
    runner_id(call)?;
    Err(Answer::error(404))
}

fn runner_id(call: &Call<'_>) -> Result<u64, Answer> {
    let token = token(call)?;
    call.state.runner_by_live_token(&token).map(|runner| runner.id).ok_or_else(|| Answer::error(403))
}

fn token(call: &Call<'_>) -> Result<String, Answer> {
    let missing = || Answer::message(400, "400 (Bad request) \"token\" not given");
    call.parameters.text("token")?.filter(|token| !token.is_empty()).ok_or_else(missing)
}
