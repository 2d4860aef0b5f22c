//! `POST /user/runners`.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::attributes::Attributes;
use super::{Call, Outcome, authentication, entities};
use crate::Answer;
use crate::state::access::Role;
use crate::state::runner::{NewRunner, RunnerType};

/// The minimum lifetime that a request can set for the first token.
const SHORTEST_LIFE: SignedDuration = SignedDuration::from_mins(5);
/// The maximum lifetime that a request can set for the first token.
const LONGEST_LIFE: SignedDuration = SignedDuration::from_hours(15 * 24);

/// Creates a runner on behalf of a user.
pub(super) fn create(call: &mut Call<'_>) -> Outcome {
    let caller = authentication::authenticate(call)?;
    let runner_type = runner_type(call)?;
    let attributes = Attributes::read(call.state.version, call.parameters)?;
    let wishes = Wishes::read(call)?;
    let new = owned(call, runner_type)?;
    let is_permitted = match runner_type {
        RunnerType::Instance => caller.role == Role::Admin,
        RunnerType::Group | RunnerType::Project => caller.manages_owners(),
    };
    if !is_permitted {
        return Err(Answer::message(403, "403 Forbidden - Insufficient permissions"));
    }
    let violations = attributes.violations(&[], true);
    if !violations.is_empty() {
        return Err(violations.as_text());
    }
    let version = call.state.version;
    let runner = call.state.create_runner(new);
    attributes.apply(runner);
    runner.token_expires_at = wishes.token_expires_at.or(runner.token_expires_at);
    runner.rotation_deadline = wishes.rotation_deadline;
    let mut credentials = entities::credentials(version, runner);
    credentials.insert("id".to_owned(), json!(runner.id));
    Ok(Answer::json(201, Value::Object(credentials)))
}

fn runner_type(call: &Call<'_>) -> Result<RunnerType, Answer> {
    if !call.parameters.has("runner_type") {
        return Err(Answer::raw_error(400, "runner_type is missing, runner_type does not have a valid value"));
    }
    let name = call.parameters.choice("runner_type", &["instance_type", "group_type", "project_type"])?;
    let runner_type = name.as_deref().and_then(RunnerType::from_name);
    let runner_type = runner_type.ok_or_else(|| Answer::raw_error(400, "runner_type does not have a valid value"))?;
    match runner_type {
        RunnerType::Instance => {}
        RunnerType::Group => call.parameters.require(&["group_id"])?,
        RunnerType::Project => call.parameters.require(&["project_id"])?,
    }
    Ok(runner_type)
}

fn owned(call: &Call<'_>, runner_type: RunnerType) -> Result<NewRunner, Answer> {
    let id = |name: &str| Ok(call.parameters.integer(name)?.and_then(|id| u64::try_from(id).ok()));
    let invalid = |owner: &str| Answer::message(400, format!("400 Bad request - Missing/invalid {owner}"));
    match runner_type {
        RunnerType::Instance => Ok(NewRunner::instance()),
        RunnerType::Group => {
            let group = id("group_id")?.filter(|id| call.state.groups.contains_key(id));
            group.map(NewRunner::group).ok_or_else(|| invalid("group"))
        }
        RunnerType::Project => {
            let project = id("project_id")?.filter(|id| call.state.projects.contains_key(id));
            project.map(NewRunner::project).ok_or_else(|| invalid("project"))
        }
    }
}

/// Expiry and deadline of the first token, since 18.10; older releases ignore these parameters.
#[derive(Default)]
struct Wishes {
    token_expires_at: Option<Timestamp>,
    rotation_deadline: Option<Timestamp>,
}

impl Wishes {
    fn read(call: &Call<'_>) -> Result<Self, Answer> {
        if !call.state.version.is_at_least(18, 10) {
            return Ok(Self::default());
        }
        let now = call.state.clock.now();
        let wishes = Self {
            token_expires_at: instant(call, "token_expires_at")?,
            rotation_deadline: instant(call, "token_rotation_deadline")?,
        };
        let configured = call.state.token_life.map(|life| call.state.clock.in_the_future(life));
        if let Some(expires_at) = wishes.token_expires_at {
            let life = expires_at.duration_since(now);
            let is_beyond = configured.is_some_and(|configured| expires_at > configured);
            if life < SHORTEST_LIFE || life > LONGEST_LIFE || is_beyond {
                return Err(Answer::message(400, "400 Bad request - Token expires at is out of range"));
            }
        }
        if let Some(deadline) = wishes.rotation_deadline {
            let is_in_reach =
                wishes.token_expires_at.is_some_and(|expires_at| deadline <= expires_at) && deadline >= now;
            if !is_in_reach {
                return Err(Answer::message(400, "400 Bad request - Token rotation deadline is out of range"));
            }
        }
        Ok(wishes)
    }
}

fn instant(call: &Call<'_>, name: &str) -> Result<Option<Timestamp>, Answer> {
    let text = call.parameters.text(name)?.filter(|text| !text.is_empty());
    let parsed = text.map(|text| text.parse::<Timestamp>()).transpose();
    parsed.map_err(|_| Answer::raw_error(400, format!("{name} is invalid")))
}
