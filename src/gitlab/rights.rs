//! What a call takes of whoever makes it, for the hints of those that were refused.

use super::Endpoint;

impl Endpoint {
    /// What a 404 in GitLab's own words says is missing.
    pub(super) fn object(self) -> &'static str {
        match self {
            Self::ListOfProject | Self::ResetProjectRegistrationToken | Self::ShowProject => {
                "there is no such project, or it is hidden from the access token's user"
            }
            Self::ListOfGroup | Self::ResetGroupRegistrationToken | Self::ShowGroup => {
                "there is no such group, or it is hidden from the access token's user"
            }
            Self::Assign | Self::Unassign => {
                "there is no such runner in reach, or no such project, or it is hidden from the access token's user"
            }
            Self::DeleteManager => "the server has no such runner or manager",
            Self::Register
            | Self::Verify
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

    /// The scope and the role that an access token needs for the call.
    pub(super) fn needs(self) -> &'static str {
        match self {
            Self::ListOwned | Self::ShowProject | Self::ShowGroup => {
                "the access token needs the scope `read_api` or `api`"
            }
            Self::ListAll => {
                "this takes an access token of an administrator or auditor with the scope `read_api` or `api`, and `admin_mode` where the instance has that"
            }
            Self::ListOfProject => {
                "the access token needs the scope `read_api` or `api`, of a maintainer of the project"
            }
            Self::ListOfGroup => {
                "the access token needs the scope `read_api` or `api`, of a maintainer or owner of the group"
            }
            Self::Show | Self::ListJobs | Self::ListManagers | Self::ListProjects => {
                "the access token needs the scope `read_api`, `manage_runner` or `api`, of a user who may see the runner: a maintainer of its project, an owner of its group, or an administrator"
            }
            Self::Assign | Self::Unassign => {
                "the access token needs the scope `api`, of a maintainer of the project who also manages the runner, which has to be an unlocked project runner"
            }
            Self::ResetInstanceRegistrationToken => {
                "this takes an administrator's access token with the scope `api`, on an instance that allows registration tokens"
            }
            Self::ResetProjectRegistrationToken => {
                "the access token needs the scope `api`, of a maintainer of the project, which has to allow registration tokens"
            }
            Self::ResetGroupRegistrationToken => {
                "the access token needs the scope `api`, of an owner of the group, which has to allow registration tokens"
            }
            Self::Create => {
                "the access token needs the scope `create_runner` or `api`, of a maintainer of the project, an owner of the group, or for the instance an administrator"
            }
            Self::Register
            | Self::Verify
            | Self::DeleteRunner
            | Self::DeleteManager
            | Self::Reset
            | Self::ResetById
            | Self::Update
            | Self::DeleteById
            | Self::RegisterV1
            | Self::DeleteV1 => {
                "the access token needs the scope `manage_runner` or `api`, of a user who may change the runner"
            }
        }
    }
}
