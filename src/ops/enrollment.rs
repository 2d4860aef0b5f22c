//! Desired state: a runner that shall exist.

use crate::gitlab::RegisterParameters;
use crate::model::{Origin, RunnerKey, ServerUrl, Site};
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
    pub seed: Seed,
    /// What the server is told about it; counts for a [`Seed::Registration`] only.
    pub parameters: RegisterParameters,
    /// What its `[[runners]]` entry is made of.
    pub entry: NewEntry,
}

/// The secret that a runner is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seed {
    /// A registration token: the runner can be made again.
    Registration(Source),
    /// A created runner's own token: it cannot.
    Given(Source),
    /// A registration token that is shown to the API of 2016; only where the user says so.
    V1(Source),
}

impl Seed {
    /// What should be changed about the place that the secret is read from.
    #[must_use]
    pub fn remark(&self) -> Option<String> {
        match self {
            Self::Registration(source) | Self::Given(source) | Self::V1(source) => source.remark(),
        }
    }

    /// Reads the secret.
    ///
    /// # Errors
    /// [`SourceError`] naming the place it should come from.
    pub fn read(&self) -> Result<Token, SourceError> {
        match self {
            Self::Registration(source) | Self::Given(source) | Self::V1(source) => source.read(),
        }
    }

    /// How a runner made from it came into being.
    #[must_use]
    pub fn origin(&self) -> Origin {
        match self {
            Self::Registration(_) => Origin::Registered,
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
