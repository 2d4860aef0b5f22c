//! Desired state: a runner that shall exist.

use crate::gitlab::RegisterParameters;
use crate::gitlab::fleet::{NewRunner, NewRunnerOwner};
use crate::model::{Origin, RunnerKey, ServerUrl, Site, Timestamp};
use crate::secret::{Source, SourceError, Token};
use crate::store::NewEntry;

/// A runner that shall exist, from an `[[enroll]]`, the environment or the flags of `register`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrollment {
    /// What ties it to its state across restarts.
    pub key: RunnerKey,
    /// Its instance and how to trust it.
    pub site: Site,
    /// What it is made from.
    pub source: RegistrationSource,
    /// What the server is told about it; counts unless it is a [`RegistrationSource::Given`].
    pub parameters: RegisterParameters,
    /// What its `[[runners]]` entry is made of.
    pub entry: NewEntry,
}

/// The secret that a runner is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistrationSource {
    /// A registration token: the runner can be made again.
    Registration(Source),
    /// A created runner's own token: it cannot.
    Given(Source),
    /// A registration token that is shown to the API of 2016; only where the user says so.
    V1(Source),
    /// An access token that the runner is created with: it can be made again.
    Created(Creation),
}

/// How a runner is created with an access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Creation {
    /// An access token with the scope `create_runner` or `api`.
    pub access_token: Source,
    /// Whom the runner belongs to.
    pub owner: NewRunnerOwner,
    /// When its first token ends, where that is wished for; see [`NewRunner`].
    pub token_expires_at: Option<Timestamp>,
    /// Until when that token can be rotated; see [`NewRunner`].
    pub token_rotation_deadline: Option<Timestamp>,
}

impl Creation {
    /// What the server is asked for.
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
    /// What should be changed about the place that the secret is read from.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        self.secret_source().warning()
    }

    /// Reads the secret.
    ///
    /// # Errors
    /// [`SourceError`] naming the place it should come from.
    pub fn read(&self) -> Result<Token, SourceError> {
        self.secret_source().read()
    }

    /// The place of the secret.
    #[must_use]
    pub fn secret_source(&self) -> &Source {
        match self {
            Self::Registration(source) | Self::Given(source) | Self::V1(source) => source,
            Self::Created(creation) => &creation.access_token,
        }
    }

    /// How a runner made from it came into being.
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
