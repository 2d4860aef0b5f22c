//! What a failed call means for whoever sent it.

use std::time::Duration;

/// Whether a failed call may have taken effect, and what its sender can do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The server surely did not act; the same call may be sent again.
    NotExecuted {
        /// How long the server asked to wait, at most a day.
        retry_after: Option<Duration>,
    },
    /// Nobody can tell whether the server acted: settle that before a call is repeated that may not
    /// happen twice.
    Unknown {
        /// How long the server asked to wait, at most a day.
        retry_after: Option<Duration>,
    },
    /// GitLab itself said no to the runner token: unknown, deleted, rotated away or expired, which it
    /// does not tell apart. Believed only when said twice.
    Refused,
    /// The token's rotation deadline has passed: it stays valid until it expires, and cannot be renewed.
    RotationClosed,
    /// The runner or manager is not there any more: for a deletion that is success.
    Gone,
    /// This version of GitLab does not have the call.
    Unsupported,
    /// Sending it again changes nothing until a human does something.
    MustAct(Reason),
}

/// What a human must look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The server finds fault with the parameters (400, or 422 on a registration or deletion).
    Parameters,
    /// The registration token is wrong, or an administrator does not allow runners of its kind (403).
    RegistrationRefused,
    /// Registration with registration tokens is switched off (410).
    RegistrationDisabled,
    /// The access token is wrong, expired or revoked (401).
    AccessToken,
    /// The access token lacks the scope or its owner lacks the role (403).
    AccessTokenRights,
    /// The group or project that owned the runner is gone (403 or 422).
    Orphaned,
    /// The project runner is assigned to no project (422).
    Unassigned,
}

/// The kind of trouble, as a command's exit code tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The server answered, and its answer is no.
    RefusedByServer,
    /// The server could not be reached, was busy, or did not answer like a GitLab.
    Unreachable,
    /// A file or setting on this machine cannot be used.
    Local,
}
