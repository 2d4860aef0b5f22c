//! Answers, before they are sent.

use std::fmt;

use serde_json::{Value, json};

/// A whole HTTP answer: status, headers and body.
///
/// The server adds `Date`, `X-Request-Id` and `Content-Length` unless the answer sets them, and to its own answers
/// `X-Gitlab-Meta`.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers in order, names as they go on the wire.
    pub headers: Vec<(String, String)>,
    /// The body's bytes.
    pub body: Vec<u8>,
}

impl Answer {
    /// Answers with a status and nothing else.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// Answers with exactly these bytes and headers.
    #[must_use]
    pub fn raw(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { status, headers, body: body.into() }
    }

    /// Answers with JSON.
    #[must_use]
    pub fn json(status: u16, body: Value) -> Self {
        Self::text(status, "application/json", body.to_string())
    }

    /// Answers with a body of any type.
    #[must_use]
    pub fn text(status: u16, content_type: &str, body: impl Into<String>) -> Self {
        Self { body: body.into().into_bytes(), ..Self::empty(status) }.with_header("Content-Type", content_type)
    }

    /// Answers with a web page, as proxies and sign-in redirects do.
    #[must_use]
    pub fn html(status: u16) -> Self {
        let name = reason(status);
        let page = format!(
            "<!DOCTYPE html>\n<html><head><title>{name} ({status})</title></head>\n<body><h1>{status}</h1><p>{name}</p></body></html>\n"
        );
        Self::text(status, "text/html; charset=utf-8", page)
    }

    /// Redirects the client.
    #[must_use]
    pub fn redirect(status: u16, location: &str) -> Self {
        let body = format!("<html><body>You are being <a href=\"{location}\">redirected</a>.</body></html>");
        Self::text(status, "text/html; charset=utf-8", body).with_header("Location", location)
    }

    /// Answers with the usual error of GitLab's helpers: `{"message":"403 Forbidden"}`.
    #[must_use]
    pub fn error(status: u16) -> Self {
        Self::message(status, format!("{status} {}", reason(status)))
    }

    /// Answers with `{"message": …}`.
    #[must_use]
    pub fn message(status: u16, message: impl Into<Value>) -> Self {
        Self::json(status, json!({ "message": message.into() }))
    }

    /// Answers with `{"error": …}`, as parameter validation and raw errors do.
    #[must_use]
    pub fn raw_error(status: u16, error: impl Into<String>) -> Self {
        Self::json(status, json!({ "error": error.into() }))
    }

    /// Adds or replaces a header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.retain(|(present, _)| !present.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Adds `Retry-After` in seconds.
    #[must_use]
    pub fn retry_after(self, secs: u64) -> Self {
        self.with_header("Retry-After", secs.to_string())
    }

    /// The first value of a header, by its name in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(present, _)| present.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for Answer {
    /// Omits the body, because it may contain a token.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Answer").field("status", &self.status).field("body_bytes", &self.body.len()).finish()
    }
}

/// The name of GitLab's own header.
pub(crate) const META: &str = "X-Gitlab-Meta";

/// The content of GitLab's own header.
pub(crate) fn meta(correlation_id: &str) -> String {
    json!({ "correlation_id": correlation_id, "version": "1" }).to_string()
}

/// The reason phrase of a status.
pub(crate) fn reason(status: u16) -> &'static str {
    hyper::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Unknown")
}
