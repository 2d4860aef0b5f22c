//! The calls of the API that this client makes.

use std::fmt;

use reqwest::Method;

/// The largest answer about one runner, in bytes: GitLab's have a few hundred.
const LARGEST_ANSWER: usize = 1024 * 1024;

/// The largest answer with a list, in bytes: a hundred jobs with long commit messages.
const LARGEST_LIST: usize = 8 * LARGEST_ANSWER;

/// One call of the Runners API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// `POST /runners`: make a runner with a registration token.
    Register,
    /// `POST /runners/verify`: ask whether a runner's token is good, and until when.
    Verify,
    /// `DELETE /runners`: delete a runner with all its managers.
    DeleteRunner,
    /// `DELETE /runners/managers`: delete one machine's manager of a runner.
    DeleteManager,
    /// `POST /runners/reset_authentication_token`: rotate by the current token.
    Reset,
    /// `POST /runners/:id/reset_authentication_token`: rotate by an access token.
    ResetById,
    /// `GET /runners`: the runners that the access token's user manages.
    ListOwned,
    /// `GET /runners/all`: every runner of the instance.
    ListAll,
    /// `GET /projects/:id/runners`: the runners that serve a project.
    ListOfProject,
    /// `GET /groups/:id/runners`: the runners that serve a group.
    ListOfGroup,
    /// `GET /runners/:id`: all about one runner.
    Show,
    /// `PUT /runners/:id`: change a runner; pause it or let it go on.
    Update,
    /// `DELETE /runners/:id`: delete a runner by an access token.
    DeleteById,
    /// `GET /runners/:id/jobs`: the jobs a runner took.
    ListJobs,
    /// `GET /runners/:id/managers`: the machines that use a runner's token.
    ListManagers,
    /// `GET /runners/:id/projects`: the projects a runner is assigned to.
    ListProjects,
    /// `POST /projects/:id/runners`: assign a project runner to one more project.
    Assign,
    /// `DELETE /projects/:id/runners/:runner_id`: take a project runner from a project.
    Unassign,
    /// `POST /runners/reset_registration_token`: the instance's registration token anew.
    ResetInstanceRegistrationToken,
    /// `POST /projects/:id/runners/reset_registration_token`: a project's registration token anew.
    ResetProjectRegistrationToken,
    /// `POST /groups/:id/runners/reset_registration_token`: a group's registration token anew.
    ResetGroupRegistrationToken,
    /// `POST /user/runners`: make a runner with an access token.
    Create,
    /// `GET /projects/:id`: which project has a path.
    ShowProject,
    /// `GET /groups/:id`: which group has a path.
    ShowGroup,
    /// `POST /ci/api/v1/runners/register`: make a runner, in the API of 2016.
    RegisterV1,
    /// `DELETE /ci/api/v1/runners/delete`: delete a runner, in the API of 2016.
    DeleteV1,
}

/// What a call shows to prove that it may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A registration token, in the body.
    Registration,
    /// A runner's own token, in the body.
    Runner,
    /// A user's access token, in the header `PRIVATE-TOKEN`.
    Access,
}

impl Endpoint {
    /// Every call there is.
    pub const ALL: [Self; 26] = [
        Self::Register,
        Self::Verify,
        Self::DeleteRunner,
        Self::DeleteManager,
        Self::Reset,
        Self::ResetById,
        Self::ListOwned,
        Self::ListAll,
        Self::ListOfProject,
        Self::ListOfGroup,
        Self::Show,
        Self::Update,
        Self::DeleteById,
        Self::ListJobs,
        Self::ListManagers,
        Self::ListProjects,
        Self::Assign,
        Self::Unassign,
        Self::ResetInstanceRegistrationToken,
        Self::ResetProjectRegistrationToken,
        Self::ResetGroupRegistrationToken,
        Self::Create,
        Self::ShowProject,
        Self::ShowGroup,
        Self::RegisterV1,
        Self::DeleteV1,
    ];

    /// A stable word for logs and metric labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Verify => "verify",
            Self::DeleteRunner => "delete_runner",
            Self::DeleteManager => "delete_manager",
            Self::Reset => "reset",
            Self::ResetById => "reset_by_id",
            Self::ListOwned => "list_owned",
            Self::ListAll => "list_all",
            Self::ListOfProject => "list_of_project",
            Self::ListOfGroup => "list_of_group",
            Self::Show => "show",
            Self::Update => "update",
            Self::DeleteById => "delete_by_id",
            Self::ListJobs => "list_jobs",
            Self::ListManagers => "list_managers",
            Self::ListProjects => "list_projects",
            Self::Assign => "assign",
            Self::Unassign => "unassign",
            Self::ResetInstanceRegistrationToken => "reset_instance_registration_token",
            Self::ResetProjectRegistrationToken => "reset_project_registration_token",
            Self::ResetGroupRegistrationToken => "reset_group_registration_token",
            Self::Create => "create",
            Self::ShowProject => "show_project",
            Self::ShowGroup => "show_group",
            Self::RegisterV1 => "register_v1",
            Self::DeleteV1 => "delete_v1",
        }
    }

    /// What the call does, as the act in "cannot …".
    #[must_use]
    pub fn act(self) -> &'static str {
        match self {
            Self::Register | Self::RegisterV1 => "register a runner",
            Self::Verify => "verify the runner",
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
            | Self::ShowGroup => Method::GET,
            Self::Register
            | Self::Verify
            | Self::Reset
            | Self::ResetById
            | Self::Assign
            | Self::ResetInstanceRegistrationToken
            | Self::ResetProjectRegistrationToken
            | Self::ResetGroupRegistrationToken
            | Self::Create
            | Self::RegisterV1 => Method::POST,
            Self::Update => Method::PUT,
            Self::DeleteRunner | Self::DeleteManager | Self::DeleteById | Self::Unassign | Self::DeleteV1 => {
                Method::DELETE
            }
        }
    }

    /// Whether repeating the call can do harm or means something else than the first time, so that it
    /// never goes over a connection that the server may be closing.
    pub(super) fn changes_something(self) -> bool {
        self.method() != Method::GET && self != Self::Verify
    }

    pub(super) fn token_kind(self) -> TokenKind {
        match self {
            Self::Register | Self::RegisterV1 => TokenKind::Registration,
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
            | Self::ShowGroup => TokenKind::Access,
        }
    }

    /// The largest answer taken, in bytes: a list has up to a hundred rows, of managers any number.
    pub(super) fn max_answer_bytes(self) -> usize {
        if self.method() == Method::GET { LARGEST_LIST } else { LARGEST_ANSWER }
    }

    /// Where the call's path begins, below the instance's address.
    pub(super) fn root(self) -> &'static str {
        if self.is_v1() { "ci/api/v1" } else { "api/v4" }
    }

    /// Whether the call belongs to the API of 2016.
    pub(super) fn is_v1(self) -> bool {
        matches!(self, Self::RegisterV1 | Self::DeleteV1)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.act())
    }
}
