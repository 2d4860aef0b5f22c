//! What a failed call means for its caller.

use std::time::Duration;

use super::ErrorKind;

/// Whether a failed call may have taken effect, and what its caller can do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The server did not act; the same call may be sent again.
    NotExecuted {
        /// How long the server asked to wait, at most a day.
        retry_after: Option<Duration>,
    },
    /// The server may or may not have acted. Find out before repeating a call that must not happen twice.
    Unknown {
        /// How long the server asked to wait, at most a day.
        retry_after: Option<Duration>,
    },
    /// GitLab itself refused the runner token: unknown, deleted, rotated or expired, which its answer does
    /// not distinguish. Callers act on it only after a second refusal.
    Refused,
    /// The token's rotation deadline has passed: it stays valid until it expires, and cannot be renewed.
    RotationClosed,
    /// The runner or manager no longer exists. A deletion counts this as success.
    Gone,
    /// This GitLab version does not support the call.
    Unsupported,
    /// Retrying is useless until a human acts.
    MustAct(Reason),
}

/// What a human must act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The server rejects the parameters (400).
    Parameters,
    /// The registration token is wrong, or an administrator does not allow runners of its type (403).
    RegistrationRefused,
    /// Registration tokens are disabled (410).
    RegistrationDisabled,
    /// The access token is wrong, expired or revoked (401).
    AccessToken,
    /// The access token lacks the scope, or its user lacks the role (403).
    AccessTokenRights,
    /// The group or project that owned the runner is gone (403 or 422).
    Orphaned,
    /// The project runner is not assigned to any project (422).
    Unassigned,
}

/// The class of an error, for the exit code of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The server answered and refused.
    RefusedByServer,
    /// The server could not be reached, was busy, or did not answer like a GitLab.
    Unreachable,
    /// A file or setting on this machine cannot be used.
    Local,
}

impl ErrorKind {
    /// The status matters only to answers that are not GitLab's.
    pub(super) fn disposition(self, status: Option<u16>, retry_after: Option<Duration>) -> Disposition {
        match self {
            // Whatever answered so has not passed the request on.
            Self::NotGitlab | Self::UnexpectedStatus if status.is_some_and(is_client_error) => {
                Disposition::NotExecuted { retry_after }
            }
            Self::LocalFile
            | Self::ProxySetting
            | Self::ProxyUnreachable
            | Self::ProxyRefused
            | Self::NameLookup
            | Self::Connect
            | Self::ConnectTimeout
            | Self::TlsName
            | Self::TlsNoName
            | Self::TlsIssuer
            | Self::TlsExpired
            | Self::TlsClientCertificate
            | Self::HttpExpected
            | Self::HttpsExpected
            | Self::Tls
            | Self::ProxyAuthentication
            | Self::Redirect
            | Self::WrongAddress
            | Self::ReadOnly
            | Self::Locked
            | Self::PreconditionFailed
            | Self::RateLimited
            | Self::Maintenance => Disposition::NotExecuted { retry_after },
            Self::Timeout
            | Self::ConnectionLost
            | Self::TooLarge
            | Self::NotGitlab
            | Self::UnexpectedAnswer
            | Self::UnexpectedStatus
            | Self::ServerError => Disposition::Unknown { retry_after },
            Self::TokenRefused => Disposition::Refused,
            Self::RotationClosed => Disposition::RotationClosed,
            Self::NotFound => Disposition::Gone,
            Self::Unsupported => Disposition::Unsupported,
            Self::InvalidParameters | Self::Forbidden => Disposition::MustAct(Reason::Parameters),
            Self::AccessTokenRefused => Disposition::MustAct(Reason::AccessToken),
            Self::AccessTokenRights => Disposition::MustAct(Reason::AccessTokenRights),
            Self::RegistrationRefused => Disposition::MustAct(Reason::RegistrationRefused),
            Self::RegistrationDisabled => Disposition::MustAct(Reason::RegistrationDisabled),
            Self::Orphaned => Disposition::MustAct(Reason::Orphaned),
            Self::Unassigned => Disposition::MustAct(Reason::Unassigned),
        }
    }

    pub(super) fn class(self) -> ErrorClass {
        if matches!(self, Self::LocalFile | Self::ProxySetting) {
            return ErrorClass::Local;
        }
        match self.disposition(None, None) {
            Disposition::NotExecuted { .. } | Disposition::Unknown { .. } => ErrorClass::Unreachable,
            Disposition::Refused
            | Disposition::RotationClosed
            | Disposition::Gone
            | Disposition::Unsupported
            | Disposition::MustAct(_) => ErrorClass::RefusedByServer,
        }
    }

    /// Whether nothing but GitLab's own answers was received.
    pub(super) fn is_understood(self) -> bool {
        !matches!(
            self,
            Self::HttpsExpected
                | Self::ProxyAuthentication
                | Self::Redirect
                | Self::WrongAddress
                | Self::TooLarge
                | Self::NotGitlab
                | Self::UnexpectedAnswer
                | Self::UnexpectedStatus
        )
    }

    /// Whether a proxy on the way may have caused it instead of the server.
    pub(super) fn may_be_of_proxy(self) -> bool {
        matches!(
            self,
            Self::Connect
                | Self::ConnectTimeout
                | Self::NameLookup
                | Self::Timeout
                | Self::ConnectionLost
                | Self::Redirect
                | Self::NotGitlab
                | Self::ServerError
        )
    }

    /// Whether the server may have received the request, so that its logs may have the request id.
    pub(super) fn is_after_sending(self) -> bool {
        !matches!(
            self,
            Self::LocalFile
                | Self::ProxySetting
                | Self::ProxyUnreachable
                | Self::ProxyRefused
                | Self::NameLookup
                | Self::Connect
                | Self::ConnectTimeout
                | Self::TlsName
                | Self::TlsNoName
                | Self::TlsIssuer
                | Self::TlsExpired
                | Self::TlsClientCertificate
                | Self::HttpExpected
                | Self::Tls
        )
    }
}

/// Whether a status says that the request was not executed, whatever sent it. After a 408 it may have been.
pub(super) fn is_client_error(status: u16) -> bool {
    (400..=499).contains(&status) && status != 408
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_retryable_kinds_carry_retry_after() {
        let wait = Some(Duration::from_secs(60));
        for kind in ErrorKind::ALL {
            if let Disposition::NotExecuted { retry_after } | Disposition::Unknown { retry_after } =
                kind.disposition(None, wait)
            {
                assert_eq!(retry_after, wait, "{kind}");
                assert_ne!(kind.class(), ErrorClass::RefusedByServer, "{kind}");
            } else {
                assert_eq!(kind.class(), ErrorClass::RefusedByServer, "{kind}");
            }
        }
    }
}
