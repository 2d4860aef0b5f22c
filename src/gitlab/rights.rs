//! What a call needs: the object it is about, and the rights of the access token.

use super::Endpoint;

impl Endpoint {
    /// What is missing if GitLab answers 404.
    pub(super) fn missing(self) -> &'static str {
        match self {
            Self::ListOfProject
            | Self::ResetProjectRegistrationToken
            | Self::ShowProject
            | Self::RotateProjectAccessToken => "no such project, or the access token's user cannot see it",
            Self::ListOfGroup | Self::ResetGroupRegistrationToken | Self::ShowGroup | Self::RotateGroupAccessToken => {
                "no such group, or the access token's user cannot see it"
            }
            Self::Assign | Self::Unassign => "no such runner or project, or the access token's user cannot see it",
            Self::ShowAccessToken | Self::RotateAccessToken => "the server has no such access token",
            Self::DeleteManager => "the server has no such runner or manager",
            Self::Register
            | Self::Verify
            | Self::Probe
            | Self::DeleteRunner
            | Self::Reset
            | Self::ResetById
            | Self::ListOwned
            | Self::ListAll
            | Self::Show
            | Self::Update
            | Self::DeleteById
            | Self::ListJobs
            | Self::ListManagers
            | Self::ListProjects
            | Self::ResetInstanceRegistrationToken
            | Self::Create
            | Self::RegisterV1
            | Self::DeleteV1 => "the server has no such runner",
        }
    }

    /// The scope that the access token needs, and the role that its user needs.
    pub(super) fn required_rights(self) -> &'static str {
        match self {
            Self::ListOwned | Self::ShowProject | Self::ShowGroup => {
                "the access token needs the scope `read_api` or `api`"
            }
            Self::ListAll => {
                "this needs an administrator's or auditor's access token with the scope `read_api` or `api`, and `admin_mode` if the instance uses it"
            }
            Self::ListOfProject => {
                "this needs the access token of a project maintainer with the scope `read_api` or `api`"
            }
            Self::ListOfGroup => {
                "this needs the access token of a group maintainer or owner with the scope `read_api` or `api`"
            }
            Self::Show | Self::ListJobs | Self::ListManagers | Self::ListProjects => {
                "the access token needs the scope `read_api`, `manage_runner` or `api`, and its user must be a maintainer of the runner's project, an owner of its group, or an administrator"
            }
            Self::Assign | Self::Unassign => {
                "the access token needs the scope `api`, its user must be a maintainer of the project who also manages the runner, and the runner must be an unlocked project runner"
            }
            Self::ResetInstanceRegistrationToken => {
                "this needs an administrator's access token with the scope `api`, and an instance that allows registration tokens"
            }
            Self::ResetProjectRegistrationToken => {
                "this needs the access token of a project maintainer with the scope `api`, and a project that allows registration tokens"
            }
            Self::ResetGroupRegistrationToken => {
                "this needs the access token of a group owner with the scope `api`, and a group that allows registration tokens"
            }
            Self::ShowAccessToken => {
                "any access token may look at itself: check that this is an access token of this server"
            }
            Self::RotateAccessToken | Self::RotateGroupAccessToken | Self::RotateProjectAccessToken => {
                "the access token needs the scope `self_rotate` (since 17.9) or `api`"
            }
            Self::Create => {
                "the access token needs the scope `create_runner` or `api`, and its user must be a maintainer of the project, an owner of the group, or for an instance runner an administrator"
            }
            Self::Register
            | Self::Verify
            | Self::Probe
            | Self::DeleteRunner
            | Self::DeleteManager
            | Self::Reset
            | Self::ResetById
            | Self::Update
            | Self::DeleteById
            | Self::RegisterV1
            | Self::DeleteV1 => {
                "the access token needs the scope `manage_runner` or `api`, and its user must be allowed to change the runner"
            }
        }
    }
}
