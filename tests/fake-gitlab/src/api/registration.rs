//! `POST /runners`.

use serde_json::{Value, json};

use super::attributes::Attributes;
use super::{Call, Outcome, entities};
use crate::Answer;
use crate::state::registration::RegistrationRefusal;

/// Registers a runner with a registration token; its first manager appears with its first contact.
pub(super) fn register(call: &mut Call<'_>) -> Outcome {
    let parameters = call.parameters;
    parameters.require(&["token"])?;
    let token = parameters.text("token")?.unwrap_or_default();
    let attributes = Attributes::read(call.state.version, parameters)?;
    let info = parameters.object("info")?.cloned().unwrap_or(Value::Null);
    let new = call.state.registrant(&token).map_err(|refusal| refused(call, refusal))?;
    let violations = attributes.violations(&[], true);
    if !violations.is_empty() {
        return Err(violations.as_object());
    }
    let version = call.state.version;
    let runner = call.state.create_runner(new);
    attributes.apply(runner);
    runner.info = info;
    let mut credentials = entities::credentials(version, runner);
    credentials.insert("id".to_owned(), json!(runner.id));
    Ok(Answer::json(201, Value::Object(credentials)))
}

fn refused(call: &Call<'_>, refusal: RegistrationRefusal) -> Answer {
    let is_newer = call.state.version.is_at_least(16, 0);
    match refusal {
        RegistrationRefusal::Disallowed if is_newer => {
            Answer::message(410, "410 Gone - runner registration disallowed")
        }
        RegistrationRefusal::Forbidden if is_newer => Answer::message(403, "403 Forbidden - invalid token supplied"),
        RegistrationRefusal::Disallowed | RegistrationRefusal::Forbidden => Answer::error(403),
    }
}
