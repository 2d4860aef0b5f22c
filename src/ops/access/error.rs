//! Why a pass over an access token was not completed.

use std::time::Duration;

use super::is_refusal;
use crate::lifecycle::AccessObstacle;
use crate::ops::Failure;
use crate::secret::SourceError;
use crate::store;

/// Why a pass was not completed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The file cannot be read, or holds no access token.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file cannot be read or written, or another process has locked it.
    #[error(transparent)]
    Disk(#[from] store::Error),
    /// The server did not accept the token, or did not answer.
    #[error(transparent)]
    Asking(Failure),
    /// A rotation failed.
    #[error(transparent)]
    Rotating(Failure),
    /// A rotation was sent, and its answer was lost.
    #[error("a rotation of the access token was sent and its answer was lost: the server is asked about the old token")]
    Uncertain {
        /// Until the next answer may settle it.
        wait: Duration,
    },
    /// The answer to a rotation was lost, and the token is dead.
    #[error(
        "the answer to a rotation of the access token was lost, and the server refuses the old token: make a new one in GitLab and put it into the file"
    )]
    Lost,
    /// The answer to a rotation is not one of GitLab's, and the token in it is not accepted.
    #[error(
        "the answer to a rotation of the access token is not one of GitLab's ({0}): the token in it is kept and asked about"
    )]
    Unproven(&'static str),
    /// It was rotated, and the state directory or the file cannot take the new token.
    #[error("{}: {error}", unfinished(*is_held))]
    Unfinished {
        /// Why.
        error: Box<AccessError>,
        /// Whether the file has the new token.
        is_held: bool,
    },
    /// The new token is refused, and was made so recently that a replica may not know it yet.
    #[error("the server does not know the new access token yet, which was made just now: it is asked again")]
    NotKnownYet,
    /// The file was written and read back, and holds something else.
    #[error("the token file does not hold the new token: the state directory keeps it")]
    NotHeld,
    /// A rotation was asked for that is not possible.
    #[error("the access token is not rotated: {}", .0.as_str())]
    Obstacle(AccessObstacle),
    /// A rotation needs a file that can be written, and a state directory.
    #[error("{0}")]
    NoPlace(&'static str),
    /// The process stops.
    #[error("not sent, because the agent is stopping")]
    Stopping,
}

impl AccessError {
    /// The remedy, unless the message already contains it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Disk(error) => error.hint(),
            Self::Asking(failure) | Self::Rotating(failure) => failure.hint.as_deref(),
            Self::Unfinished { error, .. } => error.hint(),
            _ => None,
        }
    }

    /// Whether the server refuses the token.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Asking(failure) if is_refusal(failure))
    }
}

const fn unfinished(is_held: bool) -> &'static str {
    if is_held {
        "it was rotated and its file has the new token, but the state directory does not know of that yet"
    } else {
        "it was rotated, but its file does not have the new token yet, which the agent keeps"
    }
}
