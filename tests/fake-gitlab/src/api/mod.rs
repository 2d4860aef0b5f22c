//! The endpoints: a request and the state in, an answer out.

mod access_tokens;
mod attributes;
mod authentication;
mod entities;
mod filters;
mod legacy;
mod pagination;
pub(crate) mod parameters;
mod projects;
mod registration;
mod registration_tokens;
mod routes;
mod runner_lists;
mod runner_token;
mod runners;
mod user_runners;

use hyper::{HeaderMap, Method};

use crate::state::State;
use crate::state::clock::parse_http_date;
use crate::{Answer, Endpoint};
use parameters::Parameters;
pub(crate) use routes::Target;

/// A request to the API.
pub(crate) struct Call<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) target: &'a Target,
    pub(crate) method: &'a Method,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) parameters: &'a Parameters,
    /// The address that was called, without its query; links to further pages start with it.
    pub(crate) address: &'a str,
}

/// The answer; the error is a refusal, returned early.
pub(crate) type Outcome = Result<Answer, Answer>;

/// Handles a request.
pub(crate) fn act(call: &mut Call<'_>) -> Answer {
    let endpoint = call.target.endpoint;
    let exists = endpoint.exists_in(call.state.version) || (call.state.serves_v1 && endpoint.is_legacy());
    if exists {
        authentication::note_use(call);
    }
    let outcome = if exists { dispatch(call) } else { routes::missing(call) };
    call.state.note_change();
    outcome.unwrap_or_else(|refusal| refusal)
}

fn dispatch(call: &mut Call<'_>) -> Outcome {
    match call.target.endpoint {
        Endpoint::Register => registration::register(call),
        Endpoint::Verify => runner_token::verify_on_replica(call),
        Endpoint::Delete => runner_token::delete(call),
        Endpoint::DeleteManager => runner_token::delete_manager(call),
        Endpoint::Reset => runner_token::reset(call),
        Endpoint::RequestJob => runner_token::request_job(call),
        Endpoint::RouterDiscovery => Err(Answer::error(501)),
        Endpoint::ListRunners => runner_lists::own(call),
        Endpoint::ListAllRunners => runner_lists::all(call),
        Endpoint::ShowRunner => runners::show(call),
        Endpoint::UpdateRunner => runners::update(call),
        Endpoint::DeleteById => runners::delete(call),
        Endpoint::ListManagers => runners::managers(call),
        Endpoint::ListRunnerProjects => runners::projects(call),
        Endpoint::ListJobs => runners::jobs(call),
        Endpoint::ResetById => runners::reset(call),
        Endpoint::ListProjectRunners => projects::runners(call),
        Endpoint::AssignRunner => projects::assign(call),
        Endpoint::UnassignRunner => projects::unassign(call),
        Endpoint::ListGroupRunners => runner_lists::of_group(call),
        Endpoint::ResetInstanceRegistrationToken => registration_tokens::reset_instance(call),
        Endpoint::ResetProjectRegistrationToken => registration_tokens::reset_project(call),
        Endpoint::ResetGroupRegistrationToken => registration_tokens::reset_group(call),
        Endpoint::CreateRunner => user_runners::create(call),
        Endpoint::ShowProject => projects::show(call),
        Endpoint::ShowGroup => runner_lists::show_group(call),
        Endpoint::ShowUser => authentication::user(call),
        Endpoint::ShowAccessToken => access_tokens::show_on_replica(call),
        Endpoint::RotateAccessToken => access_tokens::rotate(call),
        Endpoint::RotateGroupAccessToken => access_tokens::rotate_of_group(call),
        Endpoint::RotateProjectAccessToken => access_tokens::rotate_of_project(call),
        Endpoint::Version => authentication::version(call),
        Endpoint::LegacyRegister => legacy::register(call),
        Endpoint::LegacyDelete => legacy::delete(call),
        Endpoint::LegacyProbe => legacy::probe(call),
        Endpoint::Any | Endpoint::Unknown => routes::missing(call),
    }
}

impl Call<'_> {
    /// Refuses with 412 if the object changed since the date in `If-Unmodified-Since`; an invalid date is ignored.
    fn refuse_if_changed(&self, updated_at: jiff::Timestamp) -> Result<(), Answer> {
        let since = self.headers.get("if-unmodified-since").and_then(|date| date.to_str().ok());
        match since.and_then(parse_http_date) {
            Some(since) if since.as_second() < updated_at.as_second() => Err(Answer::error(412)),
            _ => Ok(()),
        }
    }
}
