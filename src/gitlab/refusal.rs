//! What a status that is no success means, endpoint by endpoint.

use super::endpoint::TokenKind;
use super::error_body::{ErrorBody, Form};
use super::{Endpoint, ErrorKind};

/// Reads a refusal. The status decides, and the body only where GitLab uses one status for several
/// things; without a body of GitLab's own, only a throttle and a redirect say anything for certain.
pub(super) fn kind(endpoint: Endpoint, status: u16, body: Option<&ErrorBody>) -> ErrorKind {
    match (status, body) {
        (300..=399, _) => ErrorKind::Redirect,
        (407, _) => ErrorKind::ProxyAuthentication,
        (429, _) => ErrorKind::RateLimited,
        (503, Some(ErrorBody { form: Form::Message, .. })) => ErrorKind::Maintenance,
        (501, Some(_)) => ErrorKind::Unsupported,
        (408 | 500..=599, _) => ErrorKind::ServerError,
        // Since 10.0 these paths are nothing but missing pages.
        (404, None) if endpoint.is_v1() => ErrorKind::Unsupported,
        (_, None) => ErrorKind::NotGitlab,
        (400, Some(_)) => ErrorKind::InvalidParameters,
        (401, Some(_)) => unauthorized(endpoint),
        (403, Some(body)) => forbidden(endpoint, body),
        (404, Some(body)) => not_found(endpoint, body),
        (405, Some(_)) => ErrorKind::Unsupported,
        (409, Some(body)) if body.mention("resource lock") => ErrorKind::Locked,
        // Releases of long ago say so of a runner that is assigned already.
        (409, Some(_)) if endpoint == Endpoint::Assign => ErrorKind::InvalidParameters,
        (410, Some(_)) => gone(endpoint),
        (412, Some(_)) => ErrorKind::PreconditionFailed,
        (422, Some(body)) => unprocessable(endpoint, body),
        (_, Some(_)) => ErrorKind::UnexpectedStatus,
    }
}

/// Only an access token is answered so; a server without the call for managers takes `managers` for
/// the id of a runner and wants one.
fn unauthorized(endpoint: Endpoint) -> ErrorKind {
    match endpoint.token_kind() {
        TokenKind::Access => ErrorKind::AccessTokenRefused,
        TokenKind::Runner if endpoint == Endpoint::DeleteManager => ErrorKind::Unsupported,
        TokenKind::Runner | TokenKind::Registration => ErrorKind::UnexpectedStatus,
    }
}

fn forbidden(endpoint: Endpoint, body: &ErrorBody) -> ErrorKind {
    match body.form {
        Form::Message if body.mention("read-only instance") => ErrorKind::ReadOnly,
        Form::Error | Form::Message if body.mention("rotation deadline") => ErrorKind::RotationClosed,
        Form::OAuth => ErrorKind::AccessTokenRights,
        Form::Message if body.mention("runner is orphaned") => ErrorKind::Orphaned,
        Form::Message if is_plain_forbidden(&body.text) => match endpoint.token_kind() {
            TokenKind::Registration => ErrorKind::RegistrationRefused,
            TokenKind::Access if is_about_the_runner(endpoint, body) => ErrorKind::Forbidden,
            TokenKind::Access => ErrorKind::AccessTokenRights,
            TokenKind::Runner => ErrorKind::TokenRefused,
        },
        Form::Message | Form::Fields | Form::Error => ErrorKind::UnexpectedStatus,
    }
}

/// `403 Forbidden` with or without a reason; gateways say `Forbidden` without the number.
fn is_plain_forbidden(text: &str) -> bool {
    text.strip_prefix("403 Forbidden").is_some_and(|rest| rest.is_empty() || rest.starts_with(" - "))
}

/// Whether it is not the user that lacks a right but the runner that stands in the way: locked, of another
/// kind, or of other projects too.
fn is_about_the_runner(endpoint: Endpoint, body: &ErrorBody) -> bool {
    matches!(endpoint, Endpoint::Assign | Endpoint::Unassign | Endpoint::DeleteById)
        && body.text.split_once(" - ").is_some_and(|(_, reason)| reason != "No access granted")
}

/// GitLab's helpers say `message` when a record is missing; the router says `error` when the call is.
fn not_found(endpoint: Endpoint, body: &ErrorBody) -> ErrorKind {
    let is_record = body.form == Form::Message;
    match endpoint {
        // The first API has no other way to say that the parameters are wrong.
        Endpoint::RegisterV1 if is_record => ErrorKind::InvalidParameters,
        Endpoint::DeleteRunner | Endpoint::DeleteManager if is_record => ErrorKind::NotFound,
        _ if is_record && endpoint.token_kind() == TokenKind::Access => ErrorKind::NotFound,
        _ => ErrorKind::Unsupported,
    }
}

/// The number stands for a switched-off registration, or for a whole version of the API.
fn gone(endpoint: Endpoint) -> ErrorKind {
    match endpoint.token_kind() {
        TokenKind::Registration => ErrorKind::RegistrationDisabled,
        TokenKind::Runner | TokenKind::Access => ErrorKind::Unsupported,
    }
}

fn unprocessable(endpoint: Endpoint, body: &ErrorBody) -> ErrorKind {
    if body.mention("orphaned") {
        return ErrorKind::Orphaned;
    }
    match endpoint {
        Endpoint::Verify => ErrorKind::Orphaned,
        Endpoint::Reset | Endpoint::ResetById => ErrorKind::Unassigned,
        _ => ErrorKind::InvalidParameters,
    }
}
