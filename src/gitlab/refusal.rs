//! The meaning of each error status, per endpoint.

use super::endpoint::TokenKind;
use super::error_body::{ErrorBody, Form};
use super::transport::Incoming;
use super::{Endpoint, ErrorKind};

/// What an error answer is.
pub(super) struct Judgement {
    pub(super) kind: ErrorKind,
    /// The kind if the answer is GitLab's after all.
    pub(super) if_proven: Option<ErrorKind>,
    /// Whether it is none of GitLab's answers to this call.
    pub(super) is_foreign: bool,
}

/// Judges an error answer.
pub(super) fn judgement(endpoint: Endpoint, incoming: &Incoming, body: Option<&ErrorBody>) -> Judgement {
    Judgement { kind: kind(endpoint, incoming.status, body), if_proven: None, is_foreign: false }
}

/// Whether GitLab says that a request had no token.
pub(super) fn is_missing_token(body: &ErrorBody) -> bool {
    match body.form {
        Form::Error => body.text == "token is missing",
        // The API of 2016.
        Form::Message => body.text == "400 (Bad request) \"token\" not given",
        Form::Fields | Form::OAuth => false,
    }
}

/// Classifies an error answer. The status decides, and the body only if GitLab uses one status for several errors.
/// Without a GitLab error body only a few statuses are certain, such as a redirect or a throttle.
fn kind(endpoint: Endpoint, status: u16, body: Option<&ErrorBody>) -> ErrorKind {
    match (status, body) {
        (300..=399, _) => ErrorKind::Redirect,
        (407, _) => ErrorKind::ProxyAuthentication,
        (429, _) => ErrorKind::RateLimited,
        (503, Some(ErrorBody { form: Form::Message, .. })) => ErrorKind::Maintenance,
        (501, Some(_)) => ErrorKind::Unsupported,
        (408 | 500..=599, _) => ErrorKind::ServerError,
        // Since 10.0 these paths are ordinary missing pages.
        (404, None) if endpoint.is_v1() => ErrorKind::Unsupported,
        (_, None) => ErrorKind::NotGitlab,
        (400, Some(_)) => ErrorKind::InvalidParameters,
        (401, Some(_)) => unauthorized(endpoint),
        (403, Some(body)) => forbidden(endpoint, body),
        (404, Some(body)) => not_found(endpoint, body),
        (405, Some(_)) => ErrorKind::Unsupported,
        (409, Some(body)) if body.mentions("resource lock") => ErrorKind::Locked,
        // Old releases answer so if the runner is already assigned.
        (409, Some(_)) if endpoint == Endpoint::Assign => ErrorKind::InvalidParameters,
        (410, Some(_)) => gone(endpoint),
        (412, Some(_)) => ErrorKind::PreconditionFailed,
        (422, Some(body)) => unprocessable(endpoint, body),
        (_, Some(_)) => ErrorKind::UnexpectedStatus,
    }
}

/// Servers send 401 only for access tokens. One that does not know the call for managers takes `managers` for a
/// runner id and asks for an access token.
fn unauthorized(endpoint: Endpoint) -> ErrorKind {
    match endpoint.token_kind() {
        TokenKind::Access => ErrorKind::AccessTokenRefused,
        TokenKind::Runner if endpoint == Endpoint::DeleteManager => ErrorKind::Unsupported,
        TokenKind::Runner | TokenKind::Registration | TokenKind::None => ErrorKind::UnexpectedStatus,
    }
}

fn forbidden(endpoint: Endpoint, body: &ErrorBody) -> ErrorKind {
    match body.form {
        Form::Message if body.mentions("read-only instance") => ErrorKind::ReadOnly,
        Form::Error | Form::Message if body.mentions("rotation deadline") => ErrorKind::RotationClosed,
        Form::OAuth => ErrorKind::AccessTokenRights,
        Form::Message if body.mentions("runner is orphaned") => ErrorKind::Orphaned,
        Form::Message if is_plain_forbidden(&body.text) => match endpoint.token_kind() {
            TokenKind::Registration => ErrorKind::RegistrationRefused,
            TokenKind::Access if is_runner_the_obstacle(endpoint, body) => ErrorKind::Forbidden,
            TokenKind::Access => ErrorKind::AccessTokenRights,
            TokenKind::Runner | TokenKind::None => ErrorKind::TokenRefused,
        },
        Form::Message | Form::Fields | Form::Error => ErrorKind::UnexpectedStatus,
    }
}

/// Whether the text is `403 Forbidden`, with or without a reason. Gateways send `Forbidden` without the number.
fn is_plain_forbidden(text: &str) -> bool {
    text.strip_prefix("403 Forbidden").is_some_and(|rest| rest.is_empty() || rest.starts_with(" - "))
}

/// Whether the runner is the obstacle, not the user's rights: it is locked, of another type, or assigned to
/// other projects too.
fn is_runner_the_obstacle(endpoint: Endpoint, body: &ErrorBody) -> bool {
    matches!(endpoint, Endpoint::Assign | Endpoint::Unassign | Endpoint::DeleteById)
        && body.text.split_once(" - ").is_some_and(|(_, reason)| reason != "No access granted")
}

/// GitLab sends `message` for a missing record, and `error` for a missing route.
fn not_found(endpoint: Endpoint, body: &ErrorBody) -> ErrorKind {
    let is_record = body.form == Form::Message;
    match endpoint {
        // The API of 2016 answers so to invalid parameters.
        Endpoint::RegisterV1 if is_record => ErrorKind::InvalidParameters,
        Endpoint::DeleteRunner | Endpoint::DeleteManager if is_record => ErrorKind::NotFound,
        _ if is_record && endpoint.token_kind() == TokenKind::Access => ErrorKind::NotFound,
        _ => ErrorKind::Unsupported,
    }
}

/// 410 stands for disabled registration tokens, or for a removed API version.
fn gone(endpoint: Endpoint) -> ErrorKind {
    match endpoint.token_kind() {
        TokenKind::Registration => ErrorKind::RegistrationDisabled,
        TokenKind::Runner | TokenKind::Access | TokenKind::None => ErrorKind::Unsupported,
    }
}

fn unprocessable(endpoint: Endpoint, body: &ErrorBody) -> ErrorKind {
    if body.mentions("orphaned") {
        return ErrorKind::Orphaned;
    }
    match endpoint {
        Endpoint::Verify => ErrorKind::Orphaned,
        Endpoint::Reset | Endpoint::ResetById => ErrorKind::Unassigned,
        _ => ErrorKind::InvalidParameters,
    }
}
