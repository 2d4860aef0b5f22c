//! A call that did not bring what was asked for.

use std::fmt;
use std::time::Duration;

use crate::model::Timestamp;

use super::{Disposition, Endpoint, ErrorClass};

/// A failed call: what was asked of whom, and what came instead. Holds no token and no body.
pub struct Error {
    endpoint: Endpoint,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A TLS file of this machine cannot be used.
    LocalFile,
}

impl Error {
    /// The call that failed.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> Kind {
        todo!()
    }

    /// The host and port that were asked.
    #[must_use]
    pub fn host(&self) -> &str {
        todo!()
    }

    /// The request's `X-Request-Id`, which GitLab's own logs repeat.
    #[must_use]
    pub fn request_id(&self) -> &str {
        todo!()
    }

    /// The answer's HTTP status; absent if there was no answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        todo!()
    }

    /// The server's own words, made safe to show: short, plain, without any secret of the request.
    #[must_use]
    pub fn words(&self) -> Option<&str> {
        todo!()
    }

    /// The server's wall time when it answered; absent if it did not answer as GitLab does.
    #[must_use]
    pub fn date(&self) -> Option<Timestamp> {
        todo!()
    }

    /// How long the server asked to wait, at most a day.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        todo!()
    }

    /// Whether the call may have taken effect, and what can be done next.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        todo!()
    }

    /// The kind of trouble, as a command's exit code tells it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        todo!()
    }

    /// What the user can do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        todo!()
    }
}

impl Kind {
    /// A stable word for logs and metric labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        todo!()
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.endpoint)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cannot {}", self.endpoint)
    }
}

impl std::error::Error for Error {}
