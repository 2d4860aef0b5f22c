//! The management API: what a user can do to runners with an access token.
//!
//! As in the whole room, one method sends one request, once, and fails with an [`Error`]; only [`Pages`] sends one
//! request per page. The access token is sent in the header `PRIVATE-TOKEN` only. Wire types are read leniently:
//! unknown fields are ignored, and only the id is required. They are written with the server's field names.

mod changes;
mod enums;
mod job;
mod owner;
mod pages;
mod query;
mod runner;

pub use changes::{NewRunner, NewRunnerOwner, PauseParameter, RegistrationTokenScope, RunnerChanges};
pub use enums::{ContactStatus, DeprecatedScope, JobExecution, JobStatus, RefAccess, RunnerType, Sort, UnknownName};
pub use job::{CiJob, Commit, Pipeline};
pub(super) use owner::segment;
pub use owner::{Group, OwnerName, OwnerNameError, Project, User};
pub use pages::{MAX_PAGE_ROWS, Pages, Row};
pub use query::{JobFilters, RunnerFilters, RunnerScope};
pub use runner::{FleetRunner, Manager, RunnerDetails};

use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::client::{Call, deleted, json, new_credential, registered, success};
use super::error::CallFailure;
use super::transport::Incoming;
use super::wire::{EmptyRequest, Fields, Flaw};
use super::{Answer, Client, Endpoint, Error, Registered, Reset};
use crate::model::{RunnerId, Site};
use crate::secret::Token;
use changes::{AssignRequest, CreateRequest, UpdateRequest};

/// The runners of one server, as an access token's user sees them.
#[derive(Clone, Debug)]
pub struct Fleet {
    client: Client,
    site: Site,
    access_token: Token,
}

impl Client {
    /// Returns the management API of a site for an access token. Sends no request.
    #[must_use]
    pub fn fleet(&self, site: Site, access_token: Token) -> Fleet {
        Fleet { client: self.clone(), site, access_token }
    }
}

/// Lists.
impl Fleet {
    /// Lists runners: `GET /runners`, `/runners/all`, `/projects/:id/runners` or `/groups/:id/runners`.
    #[must_use]
    pub fn runners(&self, scope: &RunnerScope, filters: &RunnerFilters) -> Pages<'_, FleetRunner> {
        Pages::new(self, scope.endpoint(), scope.path(), filters.query())
    }

    /// Lists the jobs of a runner in projects that the user can see: `GET /runners/:id/jobs`. Uses keyset pagination if
    /// the server supports it.
    #[must_use]
    pub fn jobs(&self, id: RunnerId, filters: &JobFilters) -> Pages<'_, CiJob> {
        // Keyset pagination requires an explicit order.
        let sort = filters.sort.clone().or(Some(Sort::Descending));
        let query = JobFilters { sort, ..filters.clone() }.query();
        Pages::new(self, Endpoint::ListJobs, format!("runners/{id}/jobs"), query).by_cursor()
    }

    /// Lists the projects that a runner is assigned to and the user can see: `GET /runners/:id/projects`.
    #[must_use]
    pub fn projects_of(&self, id: RunnerId) -> Pages<'_, Project> {
        Pages::new(self, Endpoint::ListProjects, format!("runners/{id}/projects"), query::Query::default())
    }

    /// Lists all machines that use a runner's token, in one answer: `GET /runners/:id/managers`. Since 17.1 or 17.2.
    ///
    /// # Errors
    /// [`Error`]; older servers do not support it.
    pub async fn managers(&self, id: RunnerId) -> Result<Answer<Vec<Manager>>, Error> {
        self.get(Endpoint::ListManagers, &format!("runners/{id}/managers")).await
    }
}

/// Single runners.
impl Fleet {
    /// Returns the details of a runner: `GET /runners/:id`. Without `with_projects` its projects are left out, since
    /// 18.6.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn runner(&self, id: RunnerId, with_projects: bool) -> Result<Answer<RunnerDetails>, Error> {
        let query = query::Query::default();
        let query = if with_projects { query } else { query.with("include_projects", false) };
        self.get(Endpoint::Show, &query.append_to(&format!("runners/{id}"))).await
    }

    /// Changes a runner: `PUT /runners/:id`.
    ///
    /// # Errors
    /// [`Error`], also if `changes` is empty.
    pub async fn update(&self, id: RunnerId, changes: &RunnerChanges) -> Result<Answer<RunnerDetails>, Error> {
        self.put(id, &UpdateRequest::new(changes, PauseParameter::Paused)).await
    }

    /// Pauses or resumes a runner: `PUT /runners/:id`.
    ///
    /// # Errors
    /// [`Error`]; see [`Fleet::needs_active_parameter`] for the one that asks for the other parameter.
    pub async fn set_paused(
        &self,
        id: RunnerId,
        paused: bool,
        parameter: PauseParameter,
    ) -> Result<Answer<RunnerDetails>, Error> {
        let changes = RunnerChanges { paused: Some(paused), ..RunnerChanges::default() };
        self.put(id, &UpdateRequest::new(&changes, parameter)).await
    }

    /// Whether a server before 14.8 did not recognise the parameter `paused` and needs `active`.
    #[must_use]
    pub fn needs_active_parameter(error: &Error) -> bool {
        error.status() == Some(400)
            && error.server_message().is_some_and(|message| message.contains("at least one parameter"))
    }

    /// Deletes a runner with all its managers: `DELETE /runners/:id`.
    ///
    /// # Errors
    /// [`Error`]. A second deletion is [`Gone`](super::Disposition::Gone).
    pub async fn delete(&self, id: RunnerId) -> Result<Answer<()>, Error> {
        self.erase(Endpoint::DeleteById, &format!("runners/{id}")).await
    }

    /// Rotates a runner's token, even an expired one: `POST /runners/:id/reset_authentication_token`.
    ///
    /// # Errors
    /// [`Error`], as for [`Client::reset`].
    pub async fn reset_token(&self, id: RunnerId) -> Result<Answer<Reset>, Error> {
        self.client.reset_by_id(&self.site, id, &self.access_token).await
    }

    /// Creates a runner: `POST /user/runners`. Each success creates another runner, and only this answer contains its
    /// token. Since 15.10.
    ///
    /// # Errors
    /// [`Error`]. An answer without a valid token has an unknown effect: the server created a runner.
    pub async fn create(&self, new: &NewRunner) -> Result<Answer<Registered>, Error> {
        let body = json(&CreateRequest::new(new));
        self.post(Endpoint::Create, "user/runners", body, |incoming| registered(incoming, Fields::IdAndExpiry)).await
    }
}

/// Owners.
impl Fleet {
    /// Assigns a project runner to another project: `POST /projects/:id/runners`.
    ///
    /// # Errors
    /// [`Error`]; [`InvalidParameters`](super::ErrorKind::InvalidParameters) if it is already assigned.
    pub async fn assign(&self, project: &OwnerName, id: RunnerId) -> Result<Answer<FleetRunner>, Error> {
        let path = format!("projects/{}/runners", project.segment());
        let body = json(&AssignRequest { runner_id: id.number() });
        self.post(Endpoint::Assign, &path, body, |incoming| success(incoming, object)).await
    }

    /// Unassigns a project runner from a project other than its owner: `DELETE /projects/:id/runners/:runner_id`.
    ///
    /// # Errors
    /// [`Error`]; [`Gone`](super::Disposition::Gone) if it is not assigned to the project.
    pub async fn unassign(&self, project: &OwnerName, id: RunnerId) -> Result<Answer<()>, Error> {
        self.erase(Endpoint::Unassign, &format!("projects/{}/runners/{id}", project.segment())).await
    }

    /// Resets a registration token and revokes the old one at once: `POST …/runners/reset_registration_token`. Since
    /// 14.3, deprecated since 15.6.
    ///
    /// # Errors
    /// [`Error`]. An answer without a valid token has an unknown effect.
    pub async fn reset_registration_token(&self, scope: &RegistrationTokenScope) -> Result<Answer<Token>, Error> {
        let (endpoint, owner) = match scope {
            RegistrationTokenScope::Instance => (Endpoint::ResetInstanceRegistrationToken, String::new()),
            RegistrationTokenScope::Project(project) => {
                (Endpoint::ResetProjectRegistrationToken, format!("projects/{}/", project.segment()))
            }
            RegistrationTokenScope::Group(group) => {
                (Endpoint::ResetGroupRegistrationToken, format!("groups/{}/", group.segment()))
            }
        };
        let path = format!("{owner}runners/reset_registration_token");
        let read = |incoming: &Incoming| Ok(new_credential(incoming, Fields::Token)?.token);
        self.post(endpoint, &path, json(&EmptyRequest {}), read).await
    }

    /// Looks up a project: `GET /projects/:id`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn project(&self, name: &OwnerName) -> Result<Answer<Project>, Error> {
        self.get(Endpoint::ShowProject, &format!("projects/{}", name.segment())).await
    }

    /// Looks up a group: `GET /groups/:id`, without its projects.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn group(&self, name: &OwnerName) -> Result<Answer<Group>, Error> {
        self.get(Endpoint::ShowGroup, &format!("groups/{}?with_projects=false", name.segment())).await
    }
}

impl Fleet {
    async fn get<T: DeserializeOwned>(&self, endpoint: Endpoint, path: &str) -> Result<Answer<T>, Error> {
        let call = Call::new(endpoint, &self.site, path, Zeroizing::default(), Some(&self.access_token));
        self.client.call(call, |incoming| success(incoming, object)).await
    }

    async fn put(&self, id: RunnerId, request: &UpdateRequest<'_>) -> Result<Answer<RunnerDetails>, Error> {
        let path = format!("runners/{id}");
        let call = Call::new(Endpoint::Update, &self.site, &path, json(request), Some(&self.access_token));
        self.client.call(call, |incoming| success(incoming, object)).await
    }

    async fn post<T>(
        &self,
        endpoint: Endpoint,
        path: &str,
        body: Zeroizing<Vec<u8>>,
        read: impl FnOnce(&Incoming) -> Result<T, CallFailure>,
    ) -> Result<Answer<T>, Error> {
        let call = Call::new(endpoint, &self.site, path, body, Some(&self.access_token));
        self.client.call(call, read).await
    }

    async fn erase(&self, endpoint: Endpoint, path: &str) -> Result<Answer<()>, Error> {
        let call = Call::new(endpoint, &self.site, path, json(&EmptyRequest {}), Some(&self.access_token));
        self.client.call(call, deleted).await
    }
}

fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, Flaw> {
    serde_json::from_slice(body).map_err(|_| Flaw("it is not the JSON that GitLab sends"))
}
