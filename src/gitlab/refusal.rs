//! What an error answer is: one that GitLab documents for the call, or one of something else.
//!
//! Gateways, proxies and portals answer with any status, and in JSON too. So the status alone decides nothing:
//! [`DOCUMENTED`] lists every error answer by call, status, shape and text, and only those have a meaning. Texts change
//! between releases: an unknown text with the status and shape of a listed one counts as that if the answer carries
//! `X-Gitlab-Meta`; else it is [unproven](super::Error::unproven).

mod documented;
mod texts;

use super::error_body::{ErrorBody, Form};
use super::transport::Incoming;
use super::{Endpoint, ErrorKind, headers, scheme};
use documented::{DOCUMENTED, Others, Row};

/// What an error answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) kind: ErrorKind,
    /// The kind if the answer is GitLab's after all.
    pub(super) if_proven: Option<ErrorKind>,
    /// Whether it is none of GitLab's answers to this call.
    pub(super) is_foreign: bool,
}

impl Judgement {
    fn genuine(kind: ErrorKind) -> Self {
        Self { kind, if_proven: None, is_foreign: false }
    }

    fn foreign(kind: ErrorKind) -> Self {
        Self { is_foreign: true, ..Self::genuine(kind) }
    }

    fn unproven(kind: ErrorKind) -> Self {
        Self { if_proven: Some(kind), ..Self::foreign(ErrorKind::NotGitlab) }
    }
}

/// Judges an answer without a success status; `body` is its error body, if it has one of GitLab's shapes.
pub(super) fn judgement(endpoint: Endpoint, incoming: &Incoming, body: Option<&ErrorBody>) -> Judgement {
    let status = incoming.status;
    match (status, body) {
        (300..=399, _) => Judgement::foreign(ErrorKind::Redirect),
        _ if scheme::says_https(incoming) => Judgement::foreign(ErrorKind::HttpsExpected),
        (407, _) => Judgement::foreign(ErrorKind::ProxyAuthentication),
        // A throttle, whatever sent it: its text is the administrator's.
        (429, _) => Judgement::genuine(ErrorKind::RateLimited),
        (408 | 500..=599, body) => server_error(incoming, body),
        // Since 10.0 these paths are ordinary missing pages.
        (404, None) if endpoint.is_v1() => Judgement::genuine(ErrorKind::Unsupported),
        (_, None) => Judgement::foreign(ErrorKind::NotGitlab),
        (_, Some(body)) => refusal(endpoint, incoming, body),
    }
}

/// Whether GitLab says that a request had no token.
pub(super) fn is_missing_token(body: &ErrorBody) -> bool {
    match body.form {
        Form::Error => body.text == "token is missing",
        Form::Message => body.text == texts::TOKEN_NOT_GIVEN,
        Form::Fields | Form::OAuth => false,
    }
}

fn server_error(incoming: &Incoming, body: Option<&ErrorBody>) -> Judgement {
    let Some(body) = body else { return Judgement::foreign(ErrorKind::ServerError) };
    let is_gitlabs = incoming.has_gitlab_meta() && !texts::is_foreign(&body.text);
    if incoming.status == 503 && body.form == Form::Message && headers::has_retry_after(&incoming.headers) {
        // The administrator's text, or else the default.
        if is_gitlabs || texts::is_default_maintenance(&body.text) {
            return Judgement::genuine(ErrorKind::Maintenance);
        }
    }
    if is_gitlabs || (incoming.status == 500 && texts::is(&body.text, "500 Internal Server Error")) {
        Judgement::genuine(ErrorKind::ServerError)
    } else {
        Judgement::foreign(ErrorKind::ServerError)
    }
}

fn refusal(endpoint: Endpoint, incoming: &Incoming, body: &ErrorBody) -> Judgement {
    let has_meta = incoming.has_gitlab_meta();
    let of_this_shape = |row: &&Row| row.is_about(endpoint, incoming.status, body.form);
    if let Some(row) = DOCUMENTED.iter().filter(of_this_shape).find(|row| row.texts.contain(body)) {
        return Judgement::genuine(row.kind);
    }
    if texts::is_foreign(&body.text) {
        return Judgement::foreign(ErrorKind::NotGitlab);
    }
    let similar = DOCUMENTED.iter().filter(of_this_shape).find(|row| row.others == Others::Count);
    match similar {
        Some(row) if has_meta => Judgement::genuine(row.kind),
        Some(row) => Judgement::unproven(row.kind),
        None if has_meta => Judgement::foreign(ErrorKind::UnexpectedStatus),
        None => Judgement::foreign(ErrorKind::NotGitlab),
    }
}

#[cfg(test)]
mod tests;
