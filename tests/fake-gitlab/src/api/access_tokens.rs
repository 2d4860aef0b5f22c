//! Access tokens about themselves: `…/self` and `…/self/rotate`.

use jiff::ToSpan;
use jiff::civil::Date;
use serde_json::{Map, Value, json};

use super::{Call, Outcome, authentication, projects, runner_lists};
use crate::Answer;
use crate::state::access::{AccessToken, AccessTokenOwner, day_of};
use crate::state::clock::iso8601;

/// How many days a successor lives if the request names no day.
const DEFAULT_DAYS: u32 = 7;

/// `GET /personal_access_tokens/self`, answered by a replica if one lags.
pub(super) fn show_on_replica(call: &mut Call<'_>) -> Outcome {
    let Call { state, target, method, headers, parameters, address } = call;
    state.on_replica_of_access(|state| show(&Call { state, target, method, headers, parameters, address }))
}

fn show(call: &Call<'_>) -> Outcome {
    let token = authentication::authenticate(call)?;
    let mut fields = entity(call, &token);
    fields.insert("last_used_ips".to_owned(), json!([]));
    Ok(Answer::json(200, Value::Object(fields)))
}

/// `POST /personal_access_tokens/self/rotate`.
pub(super) fn rotate(call: &mut Call<'_>) -> Outcome {
    let token = authentication::authenticate(call)?;
    rotated(call, &token)
}

/// `POST /groups/:id/access_tokens/self/rotate`.
pub(super) fn rotate_of_group(call: &mut Call<'_>) -> Outcome {
    let token = authentication::authenticate(call)?;
    refuse_personal(&token)?;
    let group = runner_lists::group(call).ok_or_else(|| Answer::message(404, "404 Group Not Found"))?;
    refuse_other_owner(&token, AccessTokenOwner::Group(group.id))?;
    rotated(call, &token)
}

/// `POST /projects/:id/access_tokens/self/rotate`.
pub(super) fn rotate_of_project(call: &mut Call<'_>) -> Outcome {
    let token = authentication::authenticate(call)?;
    refuse_personal(&token)?;
    let (project, _) = projects::visible(call)?;
    refuse_other_owner(&token, AccessTokenOwner::Project(project.id))?;
    rotated(call, &token)
}

fn refuse_personal(token: &AccessToken) -> Result<(), Answer> {
    match token.owner {
        AccessTokenOwner::User => Err(Answer::message(405, "405 Method Not Allowed")),
        AccessTokenOwner::Group(_) | AccessTokenOwner::Project(_) => Ok(()),
    }
}

fn refuse_other_owner(token: &AccessToken, owner: AccessTokenOwner) -> Result<(), Answer> {
    if token.owner == owner { Ok(()) } else { Err(Answer::error(401)) }
}

fn rotated(call: &mut Call<'_>, token: &AccessToken) -> Outcome {
    let expires_on = expiry_of_successor(call)?;
    let old = authentication::sent_token(call).unwrap_or_default();
    let new = call.state.rotate_access_token(&old, expires_on).ok_or_else(|| Answer::error(401))?;
    let mut fields = entity(call, &call.state.access.0[&new]);
    match token.owner {
        AccessTokenOwner::User => {}
        AccessTokenOwner::Group(id) => insert_resource(&mut fields, "group", id),
        AccessTokenOwner::Project(id) => insert_resource(&mut fields, "project", id),
    }
    fields.insert("token".to_owned(), json!(new));
    Ok(Answer::json(200, Value::Object(fields)))
}

/// The day that the request asks for, within the instance's limit.
fn expiry_of_successor(call: &Call<'_>) -> Result<Option<Date>, Answer> {
    let asked = call.parameters.text("expires_at")?.filter(|text| !text.is_empty());
    let asked = asked.map(|text| text.parse::<Date>()).transpose();
    let asked = asked.map_err(|_| Answer::raw_error(400, "expires_at is invalid"))?;
    let today = day_of(call.state.clock.now());
    let Some(limit) = call.state.access_token_days else { return Ok(asked) };
    let expires_on = asked.unwrap_or_else(|| after_days(today, DEFAULT_DAYS));
    let last = after_days(today, limit);
    if expires_on > last {
        return Err(Answer::message(400, format!("400 Bad request - Expires at must be before {last}")));
    }
    Ok(Some(expires_on))
}

fn after_days(day: Date, days: u32) -> Date {
    day.saturating_add(i64::from(days).days())
}

fn entity(call: &Call<'_>, token: &AccessToken) -> Map<String, Value> {
    let scopes: Vec<&str> = token.scopes.iter().map(|scope| scope.name()).collect();
    let fields = json!({
        "id": token.id,
        "name": token.name,
        "revoked": token.revoked,
        "created_at": iso8601(token.created_at),
        "description": null,
        "scopes": scopes,
        "user_id": 1,
        "last_used_at": token.last_used_at.map(iso8601),
        "active": token.is_active_at(call.state.clock.now()),
        "expires_at": token.expires_on.map(|day| day.to_string()),
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn insert_resource(fields: &mut Map<String, Value>, resource: &str, id: u64) {
    fields.insert("access_level".to_owned(), json!(50));
    fields.insert("resource_type".to_owned(), json!(resource));
    fields.insert("resource_id".to_owned(), json!(id));
}
