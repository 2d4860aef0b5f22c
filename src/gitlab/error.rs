//! The error of a call.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::model::{Site, Timestamp};

use super::disposition::is_client_error;
use super::{AnswerText, Disposition, Endpoint, ErrorClass, ErrorKind};

/// A failed call: what was asked of which host, and what went wrong. Holds no token and no body.
#[derive(Debug)]
pub struct Error(Box<FailedCall>);

#[derive(Debug)]
struct FailedCall {
    endpoint: Endpoint,
    host: String,
    request_id: String,
    failure: CallFailure,
}

/// What went wrong, before it is known which call it was.
#[derive(Debug)]
pub(super) struct CallFailure {
    pub(super) kind: ErrorKind,
    /// The kind if the answer is GitLab's after all: its status and shape are, its text is unknown.
    pub(super) if_proven: Option<ErrorKind>,
    /// Whether the answer is none of GitLab's, although the kind is one that GitLab has too.
    pub(super) is_foreign: bool,
    pub(super) status: Option<u16>,
    /// The server's message, sanitized.
    pub(super) server_message: Option<String>,
    /// What the kind does not say: the file, the host of a redirect, the flaw of an answer.
    pub(super) detail: Option<String>,
    pub(super) date: Option<Timestamp>,
    pub(super) retry_after: Option<Duration>,
    pub(super) source: Option<Cause>,
}

pub(super) type Cause = Box<dyn StdError + Send + Sync>;

impl CallFailure {
    pub(super) fn new(kind: ErrorKind) -> Self {
        Self {
            kind,
            if_proven: None,
            is_foreign: false,
            status: None,
            server_message: None,
            detail: None,
            date: None,
            retry_after: None,
            source: None,
        }
    }

    pub(super) fn with_detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    pub(super) fn with_source(self, source: impl Into<Cause>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// The status and the server's message, which usually begins with the status itself.
    fn status_and_message(&self) -> Option<String> {
        let status = self.status?.to_string();
        match &self.server_message {
            Some(message) if message.starts_with(&status) => Some(message.clone()),
            Some(message) => Some(format!("{status}: {message}")),
            None => Some(status),
        }
    }
}

impl Error {
    pub(super) fn new(endpoint: Endpoint, host: String, request_id: String, failure: CallFailure) -> Self {
        Self(Box::new(FailedCall { endpoint, host, request_id, failure }))
    }

    /// A failure before a probe was sent.
    pub(super) fn of_probe(site: &Site, failure: CallFailure) -> Self {
        Self::new(Endpoint::Probe, site.url.authority(), String::new(), failure)
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

    /// The server's host, with its port unless that is the default.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// The request's `X-Request-Id`, which GitLab's own logs repeat.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.0.request_id
    }

    /// The HTTP status; `None` if there was no answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.0.failure.status
    }

    /// The server's message, safe to display: one short line without any secret of the request.
    #[must_use]
    pub fn server_message(&self) -> Option<&str> {
        self.0.failure.server_message.as_deref()
    }

    /// The server's wall time of the answer; `None` if the answer may not be GitLab's.
    #[must_use]
    pub fn date(&self) -> Option<Timestamp> {
        self.0.failure.date
    }

    /// How long the server asked to wait, at most a day.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.failure.retry_after
    }

    /// Whether the call may have taken effect, and what the caller can do next.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        self.kind().disposition(self.status(), self.retry_after())
    }

    /// Whether nothing but GitLab's own answers was received: `false` if an answer came that GitLab does not send to
    /// this call, `true` also if no answer came.
    #[must_use]
    pub fn is_understood(&self) -> bool {
        self.kind().is_understood() && !self.0.failure.is_foreign
    }

    /// Whether the request may have reached GitLab's application, so that it may have acted on it. `false` if there was
    /// no connection, after a redirect, and after a 4xx of something in front of GitLab.
    #[must_use]
    pub fn may_have_reached_rails(&self) -> bool {
        let kind = self.kind();
        let was_turned_away =
            matches!(kind, ErrorKind::Redirect | ErrorKind::ProxyAuthentication | ErrorKind::HttpsExpected)
                || (!self.is_understood() && self.status().is_some_and(is_client_error));
        kind.is_after_sending() && !was_turned_away
    }

    /// The status and text of an answer that has the status and shape of a verdict, but an unknown text and nothing else
    /// that shows it is GitLab's. It decides nothing until it is proven: then see
    /// [`disposition_if_proven`](Self::disposition_if_proven).
    #[must_use]
    pub fn unproven(&self) -> Option<AnswerText> {
        let FailedCall { failure, .. } = &*self.0;
        failure.if_proven?;
        Some(AnswerText { status: failure.status?, text: failure.server_message.clone()? })
    }

    /// The disposition of an [`unproven`](Self::unproven) answer once it is known to be GitLab's; of any other error,
    /// its disposition.
    #[must_use]
    pub fn disposition_if_proven(&self) -> Disposition {
        let kind = self.0.failure.if_proven.unwrap_or(self.kind());
        kind.disposition(self.status(), self.retry_after())
    }

    /// Turns an [`unproven`](Self::unproven) answer into the refusal that it is, once it is known to be GitLab's. Any
    /// other error stays as it is.
    #[must_use]
    pub fn into_proven(mut self) -> Self {
        if let Some(kind) = self.0.failure.if_proven.take() {
            self.0.failure.kind = kind;
            self.0.failure.is_foreign = false;
        }
        self
    }

    /// The class of the error, for the exit code of a command.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        self.kind().class()
    }

    /// What the user can do about it, if anything.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        self.kind().hint(self.endpoint())
    }
}

impl fmt::Display for Error {
    /// `cannot verify the runner at gitlab.example.com: the server failed (500: the server's message; request 1f…)`.
    /// The cause is left to [`source`](StdError::source).
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FailedCall { endpoint, host, request_id, failure } = &*self.0;
        write!(formatter, "cannot {} at {host}: ", endpoint.action())?;
        let summary = failure.kind.summary(*endpoint);
        match (&failure.detail, failure.kind) {
            (
                Some(detail),
                ErrorKind::LocalFile
                | ErrorKind::ProxySetting
                | ErrorKind::ProxyUnreachable
                | ErrorKind::ProxyRefused
                | ErrorKind::ProxyAuthentication
                | ErrorKind::Tls
                | ErrorKind::WrongAddress,
            ) => {
                formatter.write_str(detail)?;
            }
            (Some(detail), _) => write!(formatter, "{summary}, {detail}")?,
            (None, _) => formatter.write_str(summary)?,
        }
        match failure.status_and_message() {
            Some(answer) => write!(formatter, " ({answer}; request {request_id})"),
            None if failure.kind.is_after_sending() => write!(formatter, " (request {request_id})"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    /// The innermost cause: the errors in between only repeat that a request failed.
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
    use super::super::Reason;
    use super::*;

    fn error(failure: CallFailure) -> Error {
        Error::new(Endpoint::Verify, "gitlab.example.com".to_owned(), "1f".to_owned(), failure)
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
            (lost, "the request timed out (request 1f)"),
            (unread, "cannot read the TLS file `/ca.pem`"),
        ] {
            let expected = format!("cannot verify the runner at gitlab.example.com: {end}");
            assert_eq!(error(failure).to_string(), expected);
        }
    }

    #[test]
    fn an_error_that_needs_a_human_has_a_hint() {
        for kind in ErrorKind::ALL {
            let error = error(CallFailure::new(*kind));
            if let Disposition::MustAct(reason) = error.disposition() {
                assert!(error.hint().is_some() || reason == Reason::Parameters, "{kind}");
            }
        }
    }
}
