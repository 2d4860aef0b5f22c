//! Access tokens of users, sent as `PRIVATE-TOKEN`.

use std::collections::BTreeMap;

use crate::Version;

/// The scope of an access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everything.
    Api,
    /// Reading.
    ReadApi,
    /// Only `POST /user/runners`, since 16.2.
    CreateRunner,
    /// Only calls under `/runners/:id`, since 17.1.
    ManageRunner,
    /// Nothing about runners.
    ReadUser,
}

impl Scope {
    /// The name in the API, such as `read_api`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::ReadApi => "read_api",
            Self::CreateRunner => "create_runner",
            Self::ManageRunner => "manage_runner",
            Self::ReadUser => "read_user",
        }
    }

    pub(crate) fn exists_in(self, version: Version) -> bool {
        match self {
            Self::Api | Self::ReadApi | Self::ReadUser => true,
            Self::CreateRunner => version.is_at_least(16, 2),
            Self::ManageRunner => version.is_at_least(17, 1),
        }
    }
}

/// The role of an access token's user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Sees no project and no group, only instance runners.
    Outsider,
    /// Sees all projects and groups, and manages none.
    Guest,
    /// Owns all projects and groups, and manages no instance runner.
    Owner,
    /// Manages everything.
    Admin,
}

/// Whether an access token still works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validity {
    Live,
    Expired,
    Revoked,
}

/// An access token and its user.
#[derive(Clone, Debug)]
pub(crate) struct AccessToken {
    pub(crate) role: Role,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) validity: Validity,
}

/// All access tokens by their text.
#[derive(Default)]
pub(crate) struct AccessTokens(pub(crate) BTreeMap<String, AccessToken>);
