//! The endpoints of the Runners API.

use hyper::Method;

use crate::Version;

/// An endpoint; the reference of each variant is its method and its path below `/api/v4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// Any request; only for faults and queries of the request log.
    Any,
    /// `POST /runners`.
    Register,
    /// `POST /runners/verify`.
    Verify,
    /// `DELETE /runners`, by the runner's token.
    Delete,
    /// `DELETE /runners/managers`.
    DeleteManager,
    /// `POST /runners/reset_authentication_token`, by the current token.
    Reset,
    /// `POST /jobs/request`, by which a runner asks for a job.
    RequestJob,
    /// `GET /runners/router/discovery`.
    RouterDiscovery,
    /// `GET /runners`.
    ListRunners,
    /// `GET /runners/all`.
    ListAllRunners,
    /// `GET /runners/:id`.
    ShowRunner,
    /// `PUT /runners/:id`.
    UpdateRunner,
    /// `DELETE /runners/:id`.
    DeleteById,
    /// `GET /runners/:id/managers`.
    ListManagers,
    /// `GET /runners/:id/projects`.
    ListRunnerProjects,
    /// `GET /runners/:id/jobs`.
    ListJobs,
    /// `POST /runners/:id/reset_authentication_token`.
    ResetById,
    /// `GET /projects/:id/runners`.
    ListProjectRunners,
    /// `POST /projects/:id/runners`.
    AssignRunner,
    /// `DELETE /projects/:id/runners/:runner_id`.
    UnassignRunner,
    /// `GET /groups/:id/runners`.
    ListGroupRunners,
    /// `POST /runners/reset_registration_token`.
    ResetInstanceRegistrationToken,
    /// `POST /projects/:id/runners/reset_registration_token`.
    ResetProjectRegistrationToken,
    /// `POST /groups/:id/runners/reset_registration_token`.
    ResetGroupRegistrationToken,
    /// `POST /user/runners`.
    CreateRunner,
    /// `GET /projects/:id`.
    ShowProject,
    /// `GET /groups/:id`.
    ShowGroup,
    /// `GET /user`.
    ShowUser,
    /// `GET /personal_access_tokens/self`.
    ShowAccessToken,
    /// `POST /personal_access_tokens/self/rotate`.
    RotateAccessToken,
    /// `POST /groups/:id/access_tokens/self/rotate`.
    RotateGroupAccessToken,
    /// `POST /projects/:id/access_tokens/self/rotate`.
    RotateProjectAccessToken,
    /// `GET /version` and `GET /metadata`.
    Version,
    /// `POST /ci/api/v1/runners/register`.
    LegacyRegister,
    /// `DELETE /ci/api/v1/runners/delete`.
    LegacyDelete,
    /// `PUT /ci/api/v1/builds/:id`, which old clients used to check their token.
    LegacyProbe,
    /// Any other endpoint.
    Unknown,
}

impl Endpoint {
    /// Whether this endpoint, given by a test, matches the called one.
    #[must_use]
    pub fn covers(self, called: Self) -> bool {
        self == Self::Any || self == called
    }

    /// Recognises an endpoint by the method and by the segments of the path below `/api/v4`.
    pub(crate) fn of_v4(method: &Method, segments: &[&str]) -> Self {
        match *method {
            Method::GET => get(segments),
            Method::POST => post(segments),
            Method::PUT if matches!(segments, ["runners", _]) => Self::UpdateRunner,
            Method::DELETE => delete(segments),
            _ => Self::Unknown,
        }
    }

    /// Recognises an endpoint by the method and by the segments of the path below `/ci/api/v1`.
    pub(crate) fn of_v1(method: &Method, segments: &[&str]) -> Self {
        match (method, segments) {
            (&Method::POST, ["runners", "register" | "register.json"]) => Self::LegacyRegister,
            (&Method::DELETE, ["runners", "delete" | "delete.json"]) => Self::LegacyDelete,
            (&Method::PUT, ["builds", _]) => Self::LegacyProbe,
            _ => Self::Unknown,
        }
    }

    /// Whether a release has this endpoint.
    pub(crate) fn exists_in(self, version: Version) -> bool {
        match self {
            Self::Reset => version.is_at_least(14, 9),
            Self::ResetById => version.is_at_least(14, 4),
            Self::ResetInstanceRegistrationToken
            | Self::ResetProjectRegistrationToken
            | Self::ResetGroupRegistrationToken => version.is_at_least(14, 3),
            Self::DeleteManager => version.is_at_least(16, 0),
            Self::CreateRunner => version.is_at_least(15, 10),
            Self::ListManagers => version.is_at_least(17, 1),
            Self::ShowAccessToken => version.is_at_least(15, 5),
            Self::RotateAccessToken => version.is_at_least(16, 10),
            Self::RotateGroupAccessToken | Self::RotateProjectAccessToken => version.is_at_least(17, 9),
            Self::RouterDiscovery => version.is_at_least(18, 7),
            Self::ListJobs => version.is_at_least(10, 3),
            Self::Unknown | Self::Any => false,
            legacy if legacy.is_legacy() => !version.is_at_least(10, 0),
            _ => version.is_at_least(9, 0),
        }
    }

    /// Whether the endpoint belongs to the API v1.
    pub(crate) fn is_legacy(self) -> bool {
        matches!(self, Self::LegacyRegister | Self::LegacyDelete | Self::LegacyProbe)
    }

    /// Whether the endpoint rotates the access token that it is called with.
    pub(crate) fn rotates_access_token(self) -> bool {
        matches!(self, Self::RotateAccessToken | Self::RotateGroupAccessToken | Self::RotateProjectAccessToken)
    }

    /// Whether the endpoint authenticates by a runner's or a registration token in the parameters.
    pub(crate) fn is_for_runners(self) -> bool {
        matches!(
            self,
            Self::Register | Self::Verify | Self::Delete | Self::DeleteManager | Self::Reset | Self::RequestJob
        )
    }
}

fn get(segments: &[&str]) -> Endpoint {
    match segments {
        ["runners"] => Endpoint::ListRunners,
        ["runners", "all"] => Endpoint::ListAllRunners,
        ["runners", "router", "discovery"] => Endpoint::RouterDiscovery,
        ["runners", _] => Endpoint::ShowRunner,
        ["runners", _, "managers"] => Endpoint::ListManagers,
        ["runners", _, "projects"] => Endpoint::ListRunnerProjects,
        ["runners", _, "jobs"] => Endpoint::ListJobs,
        ["projects", _] => Endpoint::ShowProject,
        ["groups", _] => Endpoint::ShowGroup,
        ["projects", _, "runners"] => Endpoint::ListProjectRunners,
        ["groups", _, "runners"] => Endpoint::ListGroupRunners,
        ["user"] => Endpoint::ShowUser,
        ["personal_access_tokens", "self"] => Endpoint::ShowAccessToken,
        ["version" | "metadata"] => Endpoint::Version,
        _ => Endpoint::Unknown,
    }
}

fn post(segments: &[&str]) -> Endpoint {
    match segments {
        ["runners"] => Endpoint::Register,
        ["runners", "verify"] => Endpoint::Verify,
        ["runners", "reset_authentication_token"] => Endpoint::Reset,
        ["jobs", "request"] => Endpoint::RequestJob,
        ["runners", "reset_registration_token"] => Endpoint::ResetInstanceRegistrationToken,
        ["runners", _, "reset_authentication_token"] => Endpoint::ResetById,
        ["projects", _, "runners"] => Endpoint::AssignRunner,
        ["projects", _, "runners", "reset_registration_token"] => Endpoint::ResetProjectRegistrationToken,
        ["groups", _, "runners", "reset_registration_token"] => Endpoint::ResetGroupRegistrationToken,
        ["user", "runners"] => Endpoint::CreateRunner,
        ["personal_access_tokens", "self", "rotate"] => Endpoint::RotateAccessToken,
        ["groups", _, "access_tokens", "self", "rotate"] => Endpoint::RotateGroupAccessToken,
        ["projects", _, "access_tokens", "self", "rotate"] => Endpoint::RotateProjectAccessToken,
        _ => Endpoint::Unknown,
    }
}

fn delete(segments: &[&str]) -> Endpoint {
    match segments {
        ["runners"] => Endpoint::Delete,
        ["runners", "managers"] => Endpoint::DeleteManager,
        ["runners", _] => Endpoint::DeleteById,
        ["projects", _, "runners", _] => Endpoint::UnassignRunner,
        _ => Endpoint::Unknown,
    }
}
