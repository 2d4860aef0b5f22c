//! Enrollments: the runners that should exist.

use crate::gitlab::RegisterParameters;
use crate::gitlab::fleet::{NewRunner, NewRunnerOwner};
use crate::lifecycle::AccessKeeping;
use crate::model::{Origin, RunnerKey, ServerUrl, ShareName, Site, Timestamp, TlsFiles};
use crate::secret::{Source, SourceError, Token, TokenPurpose};
use crate::store::{NewEntry, Record};

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
    /// The name by which all machines that share the runner know it (`share_as`).
    pub share_as: Option<ShareName>,
}

impl Enrollment {
    /// Whether a runner without an entry has no more than the enrollment's name, from the entry that it had for a while: a
    /// person had put its token there, instead of that of the runner which was registered for the enrollment (`own`). It
    /// is not the enrollment's once that one is unregistered.
    #[must_use]
    pub fn was_displaced_by(&self, record: &Record, own: Option<&Record>) -> bool {
        let is_registered = match self.source {
            RegistrationSource::Registration(_) | RegistrationSource::Created(_) => true,
            RegistrationSource::Given(_) | RegistrationSource::V1(_) => false,
        };
        is_registered && record.origin == Origin::Given && own.is_some_and(|own| own.seed.is_some())
    }
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
    /// The TLS files to send it with.
    pub tls: TlsFiles,
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

    /// What the secret must be.
    #[must_use]
    pub fn purpose(&self) -> TokenPurpose {
        match self {
            Self::Registration(_) => TokenPurpose::Registration,
            Self::Given(_) => TokenPurpose::Runner,
            Self::V1(_) => TokenPurpose::FirstApiRegistration,
            Self::Created(_) => TokenPurpose::Access,
        }
    }

    /// Reads the secret.
    ///
    /// # Errors
    /// As [`Source::read_for`]: no request is sent with a token that GitLab certainly refuses.
    pub fn read(&self) -> Result<Token, SourceError> {
        self.secret().read_for(self.purpose())
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
    /// The TLS files to send it with.
    pub tls: TlsFiles,
    /// How it is kept.
    pub keeping: AccessKeeping,
}

impl ServerAccess {
    /// Reads the token.
    ///
    /// # Errors
    /// As [`Source::read_for`].
    pub fn read(&self) -> Result<AccessToken, SourceError> {
        Ok(AccessToken { token: self.access_token.read_for(TokenPurpose::Access)?, tls: self.tls.clone() })
    }
}

/// An access token, and the TLS files of the connections that it is sent over. They are never those of an entry of
/// config.toml: another user who can write that file must not choose which server receives the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// The token.
    pub token: Token,
    /// From agent.toml or the command line.
    pub tls: TlsFiles,
}

impl AccessToken {
    /// The server of a runner, as this token is sent to it.
    pub(super) fn site(&self, url: &ServerUrl) -> Site {
        Site { url: url.clone(), tls: self.tls.clone() }
    }
}

/// The enrollments with a given token, each with the one that it is given now. One that cannot be read is left out.
#[must_use]
pub fn given_tokens(enrollments: &[Enrollment]) -> Vec<(&Enrollment, Token)> {
    let given = |enrollment: &Enrollment| match &enrollment.source {
        RegistrationSource::Given(_) => enrollment.source.read().ok(),
        RegistrationSource::Registration(_) | RegistrationSource::V1(_) | RegistrationSource::Created(_) => None,
    };
    enrollments.iter().filter_map(|enrollment| Some((enrollment, given(enrollment)?))).collect()
}

/// Of the enrollments that are given one token at one server, the one that serves its runner: the first whose runner has
/// the token or was made of it, else the first that has a runner, else the first of all.
#[must_use]
pub fn server_of_given<'e>(
    given: &[(&'e Enrollment, Token)],
    records: &[Record],
    url: &ServerUrl,
    token: &Token,
) -> Option<&'e Enrollment> {
    let is_same = |(enrollment, own): &&(&Enrollment, Token)| enrollment.site.url == *url && own == token;
    let rank = |enrollment: &Enrollment| {
        let is_own =
            |record: &&Record| record.key == enrollment.key && record.url == *url && record.credential.is_some();
        match records.iter().find(is_own) {
            Some(record) if has_given(record, token) => 0,
            Some(_) => 1,
            None => 2,
        }
    };
    given.iter().filter(is_same).map(|(enrollment, _)| *enrollment).min_by_key(|enrollment| rank(enrollment))
}

/// Whether a record's runner has this token, or was made of it.
pub(super) fn has_given(record: &Record, token: &Token) -> bool {
    record.credential.as_ref().is_some_and(|own| own.token == *token || record.has_seed(token))
}
