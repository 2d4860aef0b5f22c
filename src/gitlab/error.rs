//! A call that did not bring what was asked for.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::model::Timestamp;

use super::{Disposition, Endpoint, ErrorClass, Reason};

/// A failed call: what was asked of whom, and what came instead. Holds no token and no body.
#[derive(Debug)]
pub struct Error(Box<FailedCall>);

#[derive(Debug)]
struct FailedCall {
    endpoint: Endpoint,
    host: String,
    request_id: String,
    failure: CallFailure,
}

/// What came instead of the answer.
#[derive(Debug)]
pub(super) struct CallFailure {
    pub(super) kind: ErrorKind,
    pub(super) status: Option<u16>,
    /// The server's words, fit to be shown.
    pub(super) server_message: Option<String>,
    /// What the kind does not say: the file, the host of a redirect, the flaw of an answer.
    pub(super) detail: Option<String>,
    pub(super) date: Option<Timestamp>,
    pub(super) retry_after: Option<Duration>,
    pub(super) source: Option<Cause>,
}

/// What lies behind an error.
pub(super) type Cause = Box<dyn StdError + Send + Sync>;

impl CallFailure {
    pub(super) fn new(kind: ErrorKind) -> Self {
        Self { kind, status: None, server_message: None, detail: None, date: None, retry_after: None, source: None }
    }

    pub(super) fn with_detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    pub(super) fn with_source(self, source: impl Into<Cause>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// The status and the server's words, which mostly begin with the status themselves.
    fn said(&self) -> Option<String> {
        let status = self.status?.to_string();
        match &self.server_message {
            Some(server_message) if server_message.starts_with(&status) => Some(server_message.clone()),
            Some(server_message) => Some(format!("{status}: {server_message}")),
            None => Some(status),
        }
    }
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A TLS file of this machine cannot be used.
    LocalFile,
    /// A proxy's address cannot be one.
    ProxySetting,
    /// The host's name has no address.
    NameLookup,
    /// No connection, to the server or to the proxy before it.
    Connect,
    /// No connection in time.
    ConnectTimeout,
    /// The server's certificate is for other names.
    TlsName,
    /// The server's certificate comes from an authority that is not trusted.
    TlsIssuer,
    /// The server's certificate has expired, or is not valid yet.
    TlsExpired,
    /// The server wants a client certificate, or not the one it was shown.
    TlsClientCertificate,
    /// No TLS connection, for another reason.
    Tls,
    /// The proxy wants a password (407).
    ProxyAuthentication,
    /// No complete answer in time.
    Timeout,
    /// The connection broke before the answer was complete.
    ConnectionLost,
    /// The answer is larger than any of GitLab's.
    TooLarge,
    /// A redirect, which is never followed.
    Redirect,
    /// Something other than GitLab's API answered: a page, a portal, a firewall.
    NotGitlab,
    /// Success by its status, but not an answer to what was asked.
    UnexpectedAnswer,
    /// GitLab's form, but a status that the call does not have.
    UnexpectedStatus,
    /// The server finds fault with the parameters (400; 422 on a registration or deletion).
    InvalidParameters,
    /// The access token is wrong, expired or revoked (401).
    AccessTokenRefused,
    /// The access token's scope or its owner's role does not suffice (403).
    AccessTokenRights,
    /// The runner is not one that this can be done to (403): locked, or of another kind.
    Forbidden,
    /// The runner token is not accepted (403).
    TokenRefused,
    /// The registration token is not accepted (403).
    RegistrationRefused,
    /// Registration with registration tokens is switched off (410).
    RegistrationDisabled,
    /// The token's rotation deadline has passed (403).
    RotationClosed,
    /// The server takes no writes at the moment (403).
    ReadOnly,
    /// The runner's owner is gone (403 or 422).
    Orphaned,
    /// The project runner is assigned to no project (422).
    Unassigned,
    /// The runner, manager, project or group is not there (404), or hidden.
    NotFound,
    /// This version of GitLab does not have the call (404, 405, 410, 501, or 401 for managers).
    Unsupported,
    /// Another request holds the runner (409).
    Locked,
    /// The runner changed meanwhile (412).
    PreconditionFailed,
    /// Too many requests, or migrations under way (429).
    RateLimited,
    /// GitLab is in maintenance (503 with its own words).
    Maintenance,
    /// The server or a proxy before it failed (408 and 5xx).
    ServerError,
}

impl Error {
    pub(super) fn new(endpoint: Endpoint, host: String, request_id: String, failure: CallFailure) -> Self {
        Self(Box::new(FailedCall { endpoint, host, request_id, failure }))
    }

    /// The call that failed.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        self.0.endpoint
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.failure.kind
    }

    /// The host and port that were asked.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// The request's `X-Request-Id`, which GitLab's own logs repeat.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.0.request_id
    }

    /// The answer's HTTP status; absent if there was no answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.0.failure.status
    }

    /// The server's own words, made safe to show: short, plain, without any secret of the request.
    #[must_use]
    pub fn server_message(&self) -> Option<&str> {
        self.0.failure.server_message.as_deref()
    }

    /// The server's wall time when it answered; absent if what answered may not be GitLab.
    #[must_use]
    pub fn date(&self) -> Option<Timestamp> {
        self.0.failure.date
    }

    /// How long the server asked to wait, at most a day.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.failure.retry_after
    }

    /// Whether the call may have taken effect, and what can be done next.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        let retry_after = self.0.failure.retry_after;
        match self.0.failure.kind {
            ErrorKind::LocalFile
            | ErrorKind::ProxySetting
            | ErrorKind::NameLookup
            | ErrorKind::Connect
            | ErrorKind::ConnectTimeout
            | ErrorKind::TlsName
            | ErrorKind::TlsIssuer
            | ErrorKind::TlsExpired
            | ErrorKind::TlsClientCertificate
            | ErrorKind::Tls
            | ErrorKind::ProxyAuthentication
            | ErrorKind::Redirect
            | ErrorKind::ReadOnly
            | ErrorKind::Locked
            | ErrorKind::PreconditionFailed
            | ErrorKind::RateLimited
            | ErrorKind::Maintenance => Disposition::NotExecuted { retry_after },
            ErrorKind::Timeout
            | ErrorKind::ConnectionLost
            | ErrorKind::TooLarge
            | ErrorKind::NotGitlab
            | ErrorKind::UnexpectedAnswer
            | ErrorKind::UnexpectedStatus
            | ErrorKind::ServerError => Disposition::Unknown { retry_after },
            ErrorKind::TokenRefused => Disposition::Refused,
            ErrorKind::RotationClosed => Disposition::RotationClosed,
            ErrorKind::NotFound => Disposition::Gone,
            ErrorKind::Unsupported => Disposition::Unsupported,
            ErrorKind::InvalidParameters | ErrorKind::Forbidden => Disposition::MustAct(Reason::Parameters),
            ErrorKind::AccessTokenRefused => Disposition::MustAct(Reason::AccessToken),
            ErrorKind::AccessTokenRights => Disposition::MustAct(Reason::AccessTokenRights),
            ErrorKind::RegistrationRefused => Disposition::MustAct(Reason::RegistrationRefused),
            ErrorKind::RegistrationDisabled => Disposition::MustAct(Reason::RegistrationDisabled),
            ErrorKind::Orphaned => Disposition::MustAct(Reason::Orphaned),
            ErrorKind::Unassigned => Disposition::MustAct(Reason::Unassigned),
        }
    }

    /// The kind of failure, as a command's exit code tells it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        if matches!(self.0.failure.kind, ErrorKind::LocalFile | ErrorKind::ProxySetting) {
            return ErrorClass::Local;
        }
        match self.disposition() {
            Disposition::NotExecuted { .. } | Disposition::Unknown { .. } => ErrorClass::Unreachable,
            Disposition::Refused
            | Disposition::RotationClosed
            | Disposition::Gone
            | Disposition::Unsupported
            | Disposition::MustAct(_) => ErrorClass::RefusedByServer,
        }
    }

    /// What the user can do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self.0.failure.kind {
            ErrorKind::AccessTokenRights => Some(self.0.endpoint.needs()),
            kind => kind.hint(),
        }
    }
}

impl ErrorKind {
    /// A stable word for logs and metric labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::LocalFile => "local_file",
            Self::ProxySetting => "proxy_setting",
            Self::NameLookup => "name_lookup",
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::TlsName => "tls_name",
            Self::TlsIssuer => "tls_issuer",
            Self::TlsExpired => "tls_expired",
            Self::TlsClientCertificate => "tls_client_certificate",
            Self::Tls => "tls",
            Self::ProxyAuthentication => "proxy_authentication",
            Self::Timeout => "timeout",
            Self::ConnectionLost => "connection_lost",
            Self::TooLarge => "too_large",
            Self::Redirect => "redirect",
            Self::NotGitlab => "not_gitlab",
            Self::UnexpectedAnswer => "unexpected_answer",
            Self::UnexpectedStatus => "unexpected_status",
            Self::InvalidParameters => "invalid_parameters",
            Self::AccessTokenRefused => "access_token_refused",
            Self::AccessTokenRights => "access_token_rights",
            Self::Forbidden => "forbidden",
            Self::TokenRefused => "token_refused",
            Self::RegistrationRefused => "registration_refused",
            Self::RegistrationDisabled => "registration_disabled",
            Self::RotationClosed => "rotation_closed",
            Self::ReadOnly => "read_only",
            Self::Orphaned => "orphaned",
            Self::Unassigned => "unassigned",
            Self::NotFound => "not_found",
            Self::Unsupported => "unsupported",
            Self::Locked => "locked",
            Self::PreconditionFailed => "precondition_failed",
            Self::RateLimited => "rate_limited",
            Self::Maintenance => "maintenance",
            Self::ServerError => "server_error",
        }
    }

    /// What happened, in words that the detail, the status and the server's own words complete.
    fn what(self, endpoint: Endpoint) -> &'static str {
        match self {
            Self::LocalFile => "a local file is unusable",
            Self::ProxySetting => "the proxy's address is not a URL",
            Self::NameLookup => "the host's name cannot be resolved",
            Self::Connect => "cannot connect",
            Self::ConnectTimeout => "cannot connect in time",
            Self::TlsName => "the server's certificate is for another name",
            Self::TlsIssuer => "the server's certificate is from an unknown issuer",
            Self::TlsExpired => "the server's certificate has expired or is not valid yet",
            Self::TlsClientCertificate => "the server does not accept the client certificate, or wants one",
            Self::Tls => "cannot set up an encrypted connection",
            Self::ProxyAuthentication => "the proxy wants a user name and password",
            Self::Timeout => "no complete answer in time",
            Self::ConnectionLost => "the connection broke before the answer was complete",
            Self::TooLarge => "the answer is larger than any of GitLab's",
            Self::Redirect => "a redirect instead of an answer",
            Self::NotGitlab => "not a GitLab API answer",
            Self::UnexpectedAnswer => "the answer is not to what was asked",
            Self::UnexpectedStatus => "an answer that the call does not have",
            Self::InvalidParameters => "the server finds fault with the parameters",
            Self::AccessTokenRefused => "the access token is wrong, expired or revoked",
            Self::AccessTokenRights => "the access token's scope or its owner's role does not suffice",
            Self::Forbidden => "the server does not do that to this runner",
            Self::TokenRefused => "the server refuses the runner's token",
            Self::RegistrationRefused => "the server refuses the registration token",
            Self::RegistrationDisabled => "registration tokens are switched off on the server",
            Self::RotationClosed => "the token's rotation deadline has passed",
            Self::ReadOnly => "the server takes no writes at the moment",
            Self::Orphaned => "the group or project that owned the runner is gone",
            Self::Unassigned => "the runner is assigned to no project",
            Self::NotFound => endpoint.object(),
            Self::Unsupported => "this version of GitLab does not have the call",
            Self::Locked => "the runner is busy with another request",
            Self::PreconditionFailed => "the runner has changed meanwhile",
            Self::RateLimited => "too many requests, or a migration under way",
            Self::Maintenance => "the server is in maintenance",
            Self::ServerError => "the server failed",
        }
    }

    fn hint(self) -> Option<&'static str> {
        match self {
            Self::TlsIssuer => Some(
                "name the certificate of the authority in `tls-ca-file`, or install the system's authorities (ca-certificates)",
            ),
            Self::TlsName => Some("use the name that the certificate was made for in `url`"),
            Self::TlsExpired => Some("renew the server's certificate, or set this machine's clock"),
            Self::TlsClientCertificate => {
                Some("name the client certificate and its key in `tls-cert-file` and `tls-key-file`")
            }
            Self::Tls => Some("check whether the server speaks https at this port"),
            Self::LocalFile => Some("check the TLS files that the entry names, and those in the `certs` directory"),
            Self::ProxySetting => Some("set the proxy as in `http://proxy.example.com:3128`"),
            Self::ProxyAuthentication => Some("set the proxy as in `http://user:password@proxy.example.com:3128`"),
            Self::Redirect => Some("set `url` to the address that GitLab itself uses, with https"),
            Self::NotGitlab => Some("check `url`, and whether a proxy or portal lies between"),
            Self::RegistrationRefused => Some("take a current registration token, or create the runner in GitLab's UI"),
            Self::RegistrationDisabled => Some("create the runner in GitLab's UI and give its `glrt-` token"),
            Self::TokenRefused => Some("the runner was deleted, or its token expired or was rotated elsewhere"),
            Self::AccessTokenRefused => Some("take an access token that is valid"),
            Self::RotationClosed => Some("create a new runner in GitLab's UI before this token expires"),
            Self::Orphaned => Some("delete the runner and create a new one"),
            Self::Unassigned => Some("assign the runner to a project in GitLab's UI"),
            Self::NameLookup
            | Self::Connect
            | Self::ConnectTimeout
            | Self::Timeout
            | Self::ConnectionLost
            | Self::TooLarge
            | Self::UnexpectedAnswer
            | Self::UnexpectedStatus
            | Self::InvalidParameters
            | Self::AccessTokenRights
            | Self::Forbidden
            | Self::ReadOnly
            | Self::NotFound
            | Self::Unsupported
            | Self::Locked
            | Self::PreconditionFailed
            | Self::RateLimited
            | Self::Maintenance
            | Self::ServerError => None,
        }
    }

    /// Whether the server may have seen the request, so that its id can be looked up there.
    fn is_after_sending(self) -> bool {
        !matches!(
            self,
            Self::LocalFile
                | Self::ProxySetting
                | Self::NameLookup
                | Self::Connect
                | Self::ConnectTimeout
                | Self::TlsName
                | Self::TlsIssuer
                | Self::TlsExpired
                | Self::TlsClientCertificate
                | Self::Tls
        )
    }
}

impl fmt::Display for Error {
    /// `cannot verify the runner at gitlab.example.com: the server failed (500: the server's words;
    /// request 1f…)`; the cause is left to [`source`](StdError::source).
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FailedCall { endpoint, host, request_id, failure } = &*self.0;
        write!(formatter, "cannot {endpoint} at {host}: ")?;
        match (&failure.detail, failure.kind) {
            (Some(detail), ErrorKind::LocalFile | ErrorKind::ProxySetting | ErrorKind::Tls) => {
                formatter.write_str(detail)?
            }
            (Some(detail), kind) => write!(formatter, "{}, {detail}", kind.what(*endpoint))?,
            (None, kind) => formatter.write_str(kind.what(*endpoint))?,
        }
        match (failure.said(), failure.kind.is_after_sending()) {
            (Some(said), _) => write!(formatter, " ({said}; request {request_id})"),
            (None, true) => write!(formatter, " (request {request_id})"),
            (None, false) => Ok(()),
        }
    }
}

impl StdError for Error {
    /// The innermost cause: what lies between only says again that a request failed.
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let mut innermost: &(dyn StdError + 'static) = self.0.failure.source.as_deref()?;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        Some(innermost)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ALL: [ErrorKind; 36] = [
        ErrorKind::LocalFile,
        ErrorKind::ProxySetting,
        ErrorKind::NameLookup,
        ErrorKind::Connect,
        ErrorKind::ConnectTimeout,
        ErrorKind::TlsName,
        ErrorKind::TlsIssuer,
        ErrorKind::TlsExpired,
        ErrorKind::TlsClientCertificate,
        ErrorKind::Tls,
        ErrorKind::ProxyAuthentication,
        ErrorKind::Timeout,
        ErrorKind::ConnectionLost,
        ErrorKind::TooLarge,
        ErrorKind::Redirect,
        ErrorKind::NotGitlab,
        ErrorKind::UnexpectedAnswer,
        ErrorKind::UnexpectedStatus,
        ErrorKind::InvalidParameters,
        ErrorKind::AccessTokenRefused,
        ErrorKind::AccessTokenRights,
        ErrorKind::Forbidden,
        ErrorKind::TokenRefused,
        ErrorKind::RegistrationRefused,
        ErrorKind::RegistrationDisabled,
        ErrorKind::RotationClosed,
        ErrorKind::ReadOnly,
        ErrorKind::Orphaned,
        ErrorKind::Unassigned,
        ErrorKind::NotFound,
        ErrorKind::Unsupported,
        ErrorKind::Locked,
        ErrorKind::PreconditionFailed,
        ErrorKind::RateLimited,
        ErrorKind::Maintenance,
        ErrorKind::ServerError,
    ];

    fn error(failure: CallFailure) -> Error {
        Error::new(Endpoint::Verify, "gitlab.example.com".to_owned(), "1f".to_owned(), failure)
    }

    #[test]
    fn labels_are_distinct_words_in_snake_case() {
        let labels: BTreeSet<_> = ALL.iter().map(|kind| kind.label()).collect();
        assert_eq!(labels.len(), ALL.len());
        assert!(labels.iter().all(|label| label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
    }

    #[test]
    fn messages_name_act_host_and_request() {
        let answered = CallFailure {
            status: Some(403),
            server_message: Some("403 Forbidden - no".to_owned()),
            ..CallFailure::new(ErrorKind::TokenRefused)
        };
        let failed = CallFailure {
            status: Some(500),
            server_message: Some("Oops".to_owned()),
            ..CallFailure::new(ErrorKind::ServerError)
        };
        let redirected = CallFailure {
            status: Some(302),
            ..CallFailure::new(ErrorKind::Redirect).with_detail("to sso.example.com")
        };
        let lost = CallFailure::new(ErrorKind::Timeout);
        let unread = CallFailure::new(ErrorKind::LocalFile).with_detail("cannot read the TLS file `/ca.pem`");
        for (failure, end) in [
            (answered, "the server refuses the runner's token (403 Forbidden - no; request 1f)"),
            (failed, "the server failed (500: Oops; request 1f)"),
            (redirected, "a redirect instead of an answer, to sso.example.com (302; request 1f)"),
            (lost, "no complete answer in time (request 1f)"),
            (unread, "cannot read the TLS file `/ca.pem`"),
        ] {
            let expected = format!("cannot verify the runner at gitlab.example.com: {end}");
            assert_eq!(error(failure).to_string(), expected);
        }
    }

    #[test]
    fn only_what_may_be_repeated_has_a_wait() {
        let wait = Some(Duration::from_secs(60));
        for kind in ALL {
            let error = error(CallFailure { retry_after: wait, ..CallFailure::new(kind) });
            if let Disposition::NotExecuted { retry_after } | Disposition::Unknown { retry_after } = error.disposition()
            {
                assert_eq!(retry_after, wait, "{kind:?}");
                assert_ne!(error.class(), ErrorClass::RefusedByServer, "{kind:?}");
            } else {
                assert_eq!(error.class(), ErrorClass::RefusedByServer, "{kind:?}");
            }
        }
    }

    #[test]
    fn whoever_must_act_is_told_how() {
        for kind in ALL {
            let error = error(CallFailure::new(kind));
            let must_act = matches!(error.disposition(), Disposition::MustAct(_));
            assert!(
                !must_act
                    || error.hint().is_some()
                    || matches!(kind, ErrorKind::InvalidParameters | ErrorKind::Forbidden),
                "{kind:?}"
            );
        }
    }
}
