//! Why an operation did not do what it should, and what that means for the runner.

use std::error::Error as StdError;
use std::fmt;

use crate::gitlab::{self, Disposition, ErrorClass, Reason};
use crate::lifecycle::{Outcome, Trouble};
use crate::model::{ServerUrl, Timestamp};
use crate::secret::SourceError;
use crate::store::{self, ComposeError, EntryProblem};

/// A failed call to a server.
#[derive(Debug)]
pub struct Failure {
    /// Whether the server may have acted, and what can be done next.
    pub disposition: Disposition,
    /// The kind of trouble.
    pub class: ErrorClass,
    /// The server's wall time, if this was a genuine answer.
    pub date: Option<Timestamp>,
    /// What the user can do about it.
    pub hint: Option<String>,
    /// The failed act, with its causes.
    pub error: Box<dyn StdError + Send + Sync>,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(formatter)
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

impl From<gitlab::Error> for Failure {
    fn from(error: gitlab::Error) -> Self {
        Self {
            disposition: error.disposition(),
            class: error.class(),
            date: error.date(),
            hint: error.hint().map(str::to_owned),
            error: Box::new(error),
        }
    }
}

/// Why an operation did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Asking whether a token is good brought no acceptance; the server surely changed nothing.
    #[error(transparent)]
    Asking(Failure),
    /// Making a runner failed.
    #[error(transparent)]
    Registering(Failure),
    /// Replacing a token, or deleting what it belongs to, failed.
    #[error(transparent)]
    Changing(Failure),
    /// The disk failed; no token was spent.
    #[error(transparent)]
    Disk(#[from] store::Error),
    /// The secret that the runner is made from cannot be had.
    #[error(transparent)]
    Secret(#[from] SourceError),
    /// No entry can be made from the template.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// The entry in config.toml cannot be used.
    #[error("the entry of runner `{runner}` cannot be used: {problem}")]
    Entry {
        /// The runner's name or key.
        runner: String,
        /// What is wrong with it.
        problem: EntryProblem,
    },
    /// The entry's token is an environment variable, which a rotation would make stale.
    #[error("the token of runner `{runner}` is the variable `{variable}`, which a rotation would make stale")]
    VariableToken {
        /// The runner's name or key.
        runner: String,
        /// The variable's name.
        variable: String,
    },
    /// `runners` is written in a way that no entry can be added to.
    #[error(
        "config.toml writes `runners` as one array, to which no entry can be added: write each runner as [[runners]]"
    )]
    NoRoom,
    /// The record under this key is of a runner on another server.
    #[error("the record of runner `{runner}` belongs to {recorded}: give the enrollment another key")]
    OtherServer {
        /// The runner's name or key.
        runner: String,
        /// The server it belongs to.
        recorded: ServerUrl,
    },
    /// The API of 2016, through which the runner was made, has no such call.
    #[error("runner `{0}` was made through the API v1, which has neither verification nor rotation")]
    FirstApi(String),
    /// The record has no token.
    #[error("runner `{0}` has no token")]
    NoToken(String),
}

impl Error {
    /// What this means for the runner's state.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Asking(failure) => match failure.disposition {
                Disposition::NotExecuted { retry_after } | Disposition::Unknown { retry_after } => {
                    Outcome::Deferred { retry_after }
                }
                Disposition::Refused | Disposition::Gone => Outcome::Refused,
                Disposition::RotationClosed => Outcome::RotationClosed,
                Disposition::Unsupported => Outcome::MustAct(Trouble::Unsupported),
                Disposition::MustAct(reason) => Outcome::MustAct(trouble(reason)),
            },
            Self::Registering(failure) => match failure.disposition {
                Disposition::NotExecuted { retry_after } => Outcome::Deferred { retry_after },
                Disposition::Unknown { retry_after } => Outcome::Lost { retry_after },
                Disposition::Refused => Outcome::MustAct(Trouble::RegistrationRefused),
                Disposition::Gone | Disposition::RotationClosed | Disposition::Unsupported => {
                    Outcome::MustAct(Trouble::Unsupported)
                }
                Disposition::MustAct(reason) => Outcome::MustAct(trouble(reason)),
            },
            Self::Changing(failure) => match failure.disposition {
                Disposition::NotExecuted { retry_after } => Outcome::Deferred { retry_after },
                Disposition::Unknown { retry_after } => Outcome::Lost { retry_after },
                Disposition::Refused => Outcome::ResetRefused,
                Disposition::Gone => Outcome::Removed,
                Disposition::RotationClosed | Disposition::Unsupported => Outcome::RotationClosed,
                Disposition::MustAct(reason) => Outcome::MustAct(trouble(reason)),
            },
            Self::FirstApi(_) => Outcome::MustAct(Trouble::Unsupported),
            // A token file may be about to appear; looking for it asks no server.
            Self::Disk(_) | Self::Secret(_) => Outcome::Deferred { retry_after: None },
            Self::Compose(_)
            | Self::Entry { .. }
            | Self::VariableToken { .. }
            | Self::NoRoom
            | Self::OtherServer { .. }
            | Self::NoToken(_) => Outcome::MustAct(Trouble::LocalFile),
        }
    }

    /// The server's failure, where that is what it is.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Asking(failure) | Self::Registering(failure) | Self::Changing(failure) => Some(failure),
            Self::Disk(_)
            | Self::Secret(_)
            | Self::Compose(_)
            | Self::Entry { .. }
            | Self::VariableToken { .. }
            | Self::NoRoom
            | Self::OtherServer { .. }
            | Self::FirstApi(_)
            | Self::NoToken(_) => None,
        }
    }

    /// The server's wall time, if a genuine answer brought this.
    #[must_use]
    pub fn date(&self) -> Option<Timestamp> {
        self.failure()?.date
    }

    /// What the user can do about it, where the message does not say so already.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        if let Self::Disk(error) = self {
            return error.hint();
        }
        self.failure()?.hint.as_deref()
    }
}

fn trouble(reason: Reason) -> Trouble {
    match reason {
        Reason::Parameters => Trouble::InvalidRequest,
        Reason::RegistrationRefused => Trouble::RegistrationRefused,
        Reason::RegistrationDisabled => Trouble::RegistrationDisabled,
        Reason::AccessToken | Reason::AccessTokenRights => Trouble::AccessDenied,
        Reason::Orphaned => Trouble::Orphaned,
        Reason::Unassigned => Trouble::Unassigned,
    }
}
