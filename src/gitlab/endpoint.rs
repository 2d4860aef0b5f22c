//! The calls of the API that this client makes.

use reqwest::Method;

use crate::model::named_enum;

/// The size limit of an answer about one runner, in bytes. GitLab's have a few hundred.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// The size limit of a list, in bytes: a hundred jobs with long commit messages fit.
const MAX_LIST_BYTES: usize = 8 * MAX_ANSWER_BYTES;

named_enum! {
    /// One call of the Runners API. The name is stable: logs and metric labels use it.
    #[derive(PartialOrd, Ord, Hash)]
    pub enum Endpoint {
        /// `POST /runners`: register a runner with a registration token.
        Register = "register",
        /// `POST /runners/verify`: check a runner token and read its expiry.
        Verify = "verify",
        /// `POST /runners/verify` without a token: check that a GitLab answers. Needs no right and changes nothing.
        Probe = "probe",
        /// `DELETE /runners`: delete a runner with all its managers.
        DeleteRunner = "delete_runner",
        /// `DELETE /runners/managers`: delete one machine's manager of a runner.
        DeleteManager = "delete_manager",
        /// `POST /runners/reset_authentication_token`: rotate by the current token.
        Reset = "reset",
        /// `POST /runners/:id/reset_authentication_token`: rotate by an access token.
        ResetById = "reset_by_id",
        /// `GET /runners`: the runners that the access token's user manages.
        ListOwned = "list_owned",
        /// `GET /runners/all`: every runner of the instance.
        ListAll = "list_all",
        /// `GET /projects/:id/runners`: the runners available to a project.
        ListOfProject = "list_of_project",
        /// `GET /groups/:id/runners`: the runners available to a group.
        ListOfGroup = "list_of_group",
        /// `GET /runners/:id`: the details of one runner.
        Show = "show",
        /// `PUT /runners/:id`: change, pause or resume a runner.
        Update = "update",
        /// `DELETE /runners/:id`: delete a runner by an access token.
        DeleteById = "delete_by_id",
        /// `GET /runners/:id/jobs`: the jobs of a runner.
        ListJobs = "list_jobs",
        /// `GET /runners/:id/managers`: the machines that use a runner's token.
        ListManagers = "list_managers",
        /// `GET /runners/:id/projects`: the projects a runner is assigned to.
        ListProjects = "list_projects",
        /// `POST /projects/:id/runners`: assign a project runner to another project.
        Assign = "assign",
        /// `DELETE /projects/:id/runners/:runner_id`: unassign a project runner from a project.
        Unassign = "unassign",
        /// `POST /runners/reset_registration_token`: reset the instance's registration token.
        ResetInstanceRegistrationToken = "reset_instance_registration_token",
        /// `POST /projects/:id/runners/reset_registration_token`: reset a project's registration token.
        ResetProjectRegistrationToken = "reset_project_registration_token",
        /// `POST /groups/:id/runners/reset_registration_token`: reset a group's registration token.
        ResetGroupRegistrationToken = "reset_group_registration_token",
        /// `POST /user/runners`: create a runner with an access token.
        Create = "create",
        /// `GET /projects/:id`: look up a project by its path.
        ShowProject = "show_project",
        /// `GET /groups/:id`: look up a group by its path.
        ShowGroup = "show_group",
        /// `GET /personal_access_tokens/self`: what the access token is. Needs no right and changes nothing.
        ShowAccessToken = "show_access_token",
        /// `POST /personal_access_tokens/self/rotate`: replace the access token of a user.
        RotateAccessToken = "rotate_access_token",
        /// `POST /groups/:id/access_tokens/self/rotate`: replace the access token of a group.
        RotateGroupAccessToken = "rotate_group_access_token",
        /// `POST /projects/:id/access_tokens/self/rotate`: replace the access token of a project.
        RotateProjectAccessToken = "rotate_project_access_token",
        /// `POST /ci/api/v1/runners/register`: register a runner in the API of 2016.
        RegisterV1 = "register_v1",
        /// `DELETE /ci/api/v1/runners/delete`: delete a runner in the API of 2016.
        DeleteV1 = "delete_v1",
    }
}

/// The token that authenticates a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A registration token, in the body.
    Registration,
    /// The runner's own token, in the body.
    Runner,
    /// A user's access token, in the header `PRIVATE-TOKEN`.
    Access,
    /// No token.
    None,
}

impl Endpoint {
    /// What the call does, as in "cannot register a runner".
    #[must_use]
    pub fn action(self) -> &'static str {
        match self {
            Self::Register | Self::RegisterV1 => "register a runner",
            Self::Verify => "verify the runner",
            Self::Probe => "reach GitLab",
            Self::DeleteRunner | Self::DeleteById | Self::DeleteV1 => "delete the runner",
            Self::DeleteManager => "delete the runner's manager",
            Self::Reset => "rotate the runner's token",
            Self::ResetById => "rotate the runner's token by its id",
            Self::ListOwned => "list runners",
            Self::ListAll => "list the runners of the instance",
            Self::ListOfProject => "list the runners of the project",
            Self::ListOfGroup => "list the runners of the group",
            Self::Show => "show the runner",
            Self::Update => "change the runner",
            Self::ListJobs => "list the runner's jobs",
            Self::ListManagers => "list the runner's managers",
            Self::ListProjects => "list the runner's projects",
            Self::Assign => "assign the runner to the project",
            Self::Unassign => "unassign the runner from the project",
            Self::ResetInstanceRegistrationToken => "reset the instance's registration token",
            Self::ResetProjectRegistrationToken => "reset the project's registration token",
            Self::ResetGroupRegistrationToken => "reset the group's registration token",
            Self::Create => "create a runner",
            Self::ShowProject => "find the project",
            Self::ShowGroup => "find the group",
            Self::ShowAccessToken => "look at the access token",
            Self::RotateAccessToken => "rotate the access token",
            Self::RotateGroupAccessToken => "rotate the access token of the group",
            Self::RotateProjectAccessToken => "rotate the access token of the project",
        }
    }

    pub(super) fn method(self) -> Method {
        match self {
            Self::ListOwned
            | Self::ListAll
            | Self::ListOfProject
            | Self::ListOfGroup
            | Self::Show
            | Self::ListJobs
            | Self::ListManagers
            | Self::ListProjects
            | Self::ShowProject
            | Self::ShowGroup
            | Self::ShowAccessToken => Method::GET,
            Self::Register
            | Self::Verify
            | Self::Probe
            | Self::Reset
            | Self::ResetById
            | Self::Assign
            | Self::ResetInstanceRegistrationToken
            | Self::ResetProjectRegistrationToken
            | Self::ResetGroupRegistrationToken
            | Self::Create
            | Self::RotateAccessToken
            | Self::RotateGroupAccessToken
            | Self::RotateProjectAccessToken
            | Self::RegisterV1 => Method::POST,
            Self::Update => Method::PUT,
            Self::DeleteRunner | Self::DeleteManager | Self::DeleteById | Self::Unassign | Self::DeleteV1 => {
                Method::DELETE
            }
        }
    }

    /// Whether repeating the call can do harm. Such a call never uses a connection that the server may be closing.
    pub(super) fn has_side_effects(self) -> bool {
        self.method() != Method::GET && !matches!(self, Self::Verify | Self::Probe)
    }

    /// Whether its answer holds the only copy of a new token of a runner, or of a new access token.
    pub(super) fn brings_token(self) -> bool {
        matches!(self, Self::Register | Self::RegisterV1 | Self::Create | Self::Reset | Self::ResetById)
            || self.rotates_access_token()
    }

    /// Whether the call replaces the access token that it is made with.
    pub(super) fn rotates_access_token(self) -> bool {
        matches!(self, Self::RotateAccessToken | Self::RotateGroupAccessToken | Self::RotateProjectAccessToken)
    }

    pub(super) fn token_kind(self) -> TokenKind {
        match self {
            Self::Register | Self::RegisterV1 => TokenKind::Registration,
            Self::Probe => TokenKind::None,
            Self::Verify | Self::DeleteRunner | Self::DeleteManager | Self::Reset | Self::DeleteV1 => TokenKind::Runner,
            Self::ResetById
            | Self::ListOwned
            | Self::ListAll
            | Self::ListOfProject
            | Self::ListOfGroup
            | Self::Show
            | Self::Update
            | Self::DeleteById
            | Self::ListJobs
            | Self::ListManagers
            | Self::ListProjects
            | Self::Assign
            | Self::Unassign
            | Self::ResetInstanceRegistrationToken
            | Self::ResetProjectRegistrationToken
            | Self::ResetGroupRegistrationToken
            | Self::Create
            | Self::ShowProject
            | Self::ShowGroup
            | Self::ShowAccessToken
            | Self::RotateAccessToken
            | Self::RotateGroupAccessToken
            | Self::RotateProjectAccessToken => TokenKind::Access,
        }
    }

    /// Whether the call sends an access token.
    pub(super) fn needs_access_token(self) -> bool {
        self.token_kind() == TokenKind::Access
    }

    /// The size limit of the answer, in bytes. A list has up to a hundred rows; managers are not paged.
    pub(super) fn max_answer_bytes(self) -> usize {
        if self.method() == Method::GET { MAX_LIST_BYTES } else { MAX_ANSWER_BYTES }
    }

    /// The base of the call's path, below the instance's address.
    pub(super) fn root(self) -> &'static str {
        if self.is_v1() { "ci/api/v1" } else { "api/v4" }
    }

    /// Whether the call belongs to the API of 2016.
    pub(super) fn is_v1(self) -> bool {
        matches!(self, Self::RegisterV1 | Self::DeleteV1)
    }
}
