//! Enrollments: the runners that should exist.

use crate::gitlab::RegisterParameters;
use crate::gitlab::fleet::{NewRunner, NewRunnerOwner};
use crate::model::{Origin, RunnerKey, ServerUrl, Site, Timestamp};
use crate::secret::Source;
use crate::store::NewEntry;

/// A runner that should exist, from an `[[enroll]]`, the environment or the flags of `register`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrollment {
    /// Identifies its record across restarts.
    pub key: RunnerKey,
    /// Its GitLab instance and TLS files.
    pub site: Site,
    /// The secret it is registered with.
    pub source: RegistrationSource,
    /// The runner's attributes on the server; unused for a [`RegistrationSource::Given`].
    pub parameters: RegisterParameters,
    /// The content of its `[[runners]]` entry.
    pub entry: NewEntry,
}

/// The secret that a runner is registered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistrationSource {
    /// A registration token; the runner can be registered again.
    Registration(Source),
    /// The token of a runner created in GitLab; the runner cannot be registered again.
    Given(Source),
    /// A registration token for the API v1 of 2016; only used if the user asks for it.
    V1(Source),
    /// An access token that creates the runner; the runner can be created again.
    Created(Creation),
}

/// How a runner is created with an access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Creation {
    /// An access token with the scope `create_runner` or `api`.
    pub access_token: Source,
    /// The owner of the runner.
    pub owner: NewRunnerOwner,
    /// The requested expiry of the first token; see [`NewRunner`].
    pub token_expires_at: Option<Timestamp>,
    /// The requested deadline for rotating that token; see [`NewRunner`].
    pub token_rotation_deadline: Option<Timestamp>,
}

impl Creation {
    /// The request that creates the runner.
    #[must_use]
    pub fn request(&self, parameters: &RegisterParameters) -> NewRunner {
        NewRunner {
            owner: self.owner,
            parameters: parameters.clone(),
            token_expires_at: self.token_expires_at,
            token_rotation_deadline: self.token_rotation_deadline,
        }
    }
}

impl RegistrationSource {
    /// Where the secret is read from.
    #[must_use]
    pub fn secret(&self) -> &Source {
        match self {
            Self::Registration(source) | Self::Given(source) | Self::V1(source) => source,
            Self::Created(creation) => &creation.access_token,
        }
    }

    /// The origin of a runner registered with it.
    #[must_use]
    pub fn origin(&self) -> Origin {
        match self {
            Self::Registration(_) | Self::Created(_) => Origin::Registered,
            Self::Given(_) => Origin::Given,
            Self::V1(_) => Origin::V1,
        }
    }
}

/// An access token for the management API of one GitLab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAccess {
    /// The instance.
    pub url: ServerUrl,
    /// A personal, project or group access token with the scope `api` or `manage_runner`.
    pub access_token: Source,
}
