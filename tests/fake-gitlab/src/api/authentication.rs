//! Access tokens: the caller and its rights.

use serde_json::json;

use super::{Call, Outcome};
use crate::state::access::{AccessToken, Role, Scope, Validity};
use crate::state::runner::{Runner, RunnerType};
use crate::{Answer, Endpoint};

/// Finds the caller by the access token, and refuses tokens without the endpoint's scope.
pub(super) fn authenticate(call: &Call<'_>) -> Result<AccessToken, Answer> {
    let sent = sent_token(call).ok_or_else(|| Answer::error(401))?;
    let token = call.state.access.0.get(&sent).ok_or_else(|| Answer::error(401))?;
    match token.validity(call.state.clock.now()) {
        Validity::Live => {}
        Validity::Expired => {
            return Err(invalid_token("Token is expired. You can either do re-authorization or token refresh."));
        }
        Validity::Revoked => {
            return Err(invalid_token("Token was revoked. You have to re-authorize from the user."));
        }
    }
    let accepted = accepted_scopes(call);
    if !token.scopes.iter().any(|scope| accepted.contains(scope)) {
        return Err(insufficient_scope(&accepted));
    }
    Ok(token.clone())
}

/// Notes the use of the request's access token. A rotation with a token that was revoked revokes its whole family: GitLab
/// takes it for a stolen one.
pub(super) fn note_use(call: &mut Call<'_>) {
    let Some(sent) = sent_token(call) else { return };
    let now = call.state.clock.now();
    let detects_reuse = call.state.version.is_at_least(16, 3);
    let is_rotation = call.target.endpoint.rotates_access_token();
    let Some(token) = call.state.access.0.get_mut(&sent) else { return };
    let (validity, family) = (token.validity(now), token.family);
    if validity == Validity::Live {
        token.note_use(now);
    }
    if is_rotation {
        token.rotate_requests += 1;
    }
    if is_rotation && validity == Validity::Revoked && detects_reuse {
        call.state.access.revoke_family(family);
    }
}

/// `GET /user`: the user of the access token.
pub(super) fn user(call: &mut Call<'_>) -> Outcome {
    let caller = authenticate(call)?;
    let (id, name) = match caller.role {
        Role::Admin => (1, "root"),
        Role::Owner => (2, "owner"),
        Role::Guest => (3, "guest"),
        Role::Outsider => (4, "outsider"),
    };
    Ok(Answer::json(200, json!({ "id": id, "username": name, "name": name, "state": "active", "is_admin": id == 1 })))
}

/// `GET /version` and `GET /metadata`.
pub(super) fn version(call: &mut Call<'_>) -> Outcome {
    authenticate(call)?;
    Ok(Answer::json(200, json!({ "version": format!("{}.0-ee", call.state.version), "revision": "0123456789a" })))
}

impl AccessToken {
    pub(super) fn may_manage(&self, runner: &Runner) -> bool {
        match self.role {
            Role::Admin => true,
            Role::Owner => runner.runner_type != RunnerType::Instance,
            Role::Guest | Role::Outsider => false,
        }
    }

    pub(super) fn may_see(&self, runner: &Runner) -> bool {
        runner.runner_type == RunnerType::Instance || self.may_manage(runner)
    }

    /// Whether the caller sees projects and groups.
    pub(super) fn sees_owners(&self) -> bool {
        self.role >= Role::Guest
    }

    /// Whether the caller manages projects and groups.
    pub(super) fn manages_owners(&self) -> bool {
        self.role >= Role::Owner
    }
}

/// The access token of the request, from header or parameter.
pub(super) fn sent_token(call: &Call<'_>) -> Option<String> {
    let header = |name: &str| call.headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let parameter = call.parameters.text("private_token").ok().flatten();
    header("private-token").or(bearer).map(str::to_owned).or(parameter)
}

fn accepted_scopes(call: &Call<'_>) -> Vec<Scope> {
    let mut scopes = vec![Scope::Api];
    if call.method == hyper::Method::GET {
        scopes.push(Scope::ReadApi);
    }
    match call.target.endpoint {
        Endpoint::CreateRunner => scopes.push(Scope::CreateRunner),
        Endpoint::ShowRunner
        | Endpoint::UpdateRunner
        | Endpoint::DeleteById
        | Endpoint::ListManagers
        | Endpoint::ListRunnerProjects
        | Endpoint::ListJobs
        | Endpoint::ResetById => scopes.push(Scope::ManageRunner),
        Endpoint::Version | Endpoint::ShowUser => scopes.push(Scope::ReadUser),
        // Any token may look at itself.
        Endpoint::ShowAccessToken => scopes.extend(Scope::ALL),
        Endpoint::RotateAccessToken | Endpoint::RotateGroupAccessToken | Endpoint::RotateProjectAccessToken => {
            scopes.push(Scope::SelfRotate);
        }
        _ => {}
    }
    scopes.retain(|scope| scope.exists_in(call.state.version));
    scopes
}

fn invalid_token(description: &str) -> Answer {
    Answer::json(401, json!({ "error": "invalid_token", "error_description": description }))
}

fn insufficient_scope(accepted: &[Scope]) -> Answer {
    let names: Vec<&str> = accepted.iter().map(|scope| scope.name()).collect();
    let body = json!({
        "error": "insufficient_scope",
        "error_description": "The request requires higher privileges than provided by the access token.",
        "scope": names.join(" "),
    });
    Answer::json(403, body)
}
