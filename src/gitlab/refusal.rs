//! What a status that is no success means, endpoint by endpoint.

use super::endpoint::Proof;
use super::error_body::{ErrorTexts, Form};
use super::{Endpoint, Kind};

/// Reads a refusal. The status decides, and the words only where GitLab uses one status for several
/// things; without words of GitLab's own, only a throttle and a redirect say anything for certain.
pub(super) fn kind(endpoint: Endpoint, status: u16, words: Option<&ErrorTexts>) -> Kind {
    match (status, words) {
        (300..=399, _) => Kind::Redirect,
        (407, _) => Kind::ProxyAuthentication,
        (429, _) => Kind::RateLimited,
        (503, Some(ErrorTexts { form: Form::Message, .. })) => Kind::Maintenance,
        (501, Some(_)) => Kind::Unsupported,
        (408 | 500..=599, _) => Kind::ServerError,
        // Since 10.0 these paths are nothing but missing pages.
        (404, None) if endpoint.is_v1() => Kind::Unsupported,
        (_, None) => Kind::NotGitlab,
        (400, Some(_)) => Kind::InvalidParameters,
        (401, Some(_)) => unauthorized(endpoint),
        (403, Some(words)) => forbidden(endpoint, words),
        (404, Some(words)) => not_found(endpoint, words),
        (405, Some(_)) => Kind::Unsupported,
        (409, Some(words)) if words.mention("resource lock") => Kind::Locked,
        // Releases of long ago say so of a runner that is assigned already.
        (409, Some(_)) if endpoint == Endpoint::Assign => Kind::InvalidParameters,
        (410, Some(_)) => gone(endpoint),
        (412, Some(_)) => Kind::PreconditionFailed,
        (422, Some(words)) => unprocessable(endpoint, words),
        (_, Some(_)) => Kind::UnexpectedStatus,
    }
}

/// Only an access token is answered so; a server without the call for managers takes `managers` for
/// the id of a runner and wants one.
fn unauthorized(endpoint: Endpoint) -> Kind {
    match endpoint.proof() {
        Proof::Access => Kind::AccessTokenRefused,
        Proof::Runner if endpoint == Endpoint::DeleteManager => Kind::Unsupported,
        Proof::Runner | Proof::Registration => Kind::UnexpectedStatus,
    }
}

fn forbidden(endpoint: Endpoint, words: &ErrorTexts) -> Kind {
    match words.form {
        Form::Message if words.mention("read-only instance") => Kind::ReadOnly,
        Form::Error | Form::Message if words.mention("rotation deadline") => Kind::RotationClosed,
        Form::OAuth => Kind::AccessTokenRights,
        Form::Message if words.mention("runner is orphaned") => Kind::Orphaned,
        Form::Message if is_plain_forbidden(&words.text) => match endpoint.proof() {
            Proof::Registration => Kind::RegistrationRefused,
            Proof::Access if is_about_the_runner(endpoint, words) => Kind::Forbidden,
            Proof::Access => Kind::AccessTokenRights,
            Proof::Runner => Kind::TokenRefused,
        },
        Form::Message | Form::Fields | Form::Error => Kind::UnexpectedStatus,
    }
}

/// `403 Forbidden` with or without a reason; gateways say `Forbidden` without the number.
fn is_plain_forbidden(text: &str) -> bool {
    text.strip_prefix("403 Forbidden").is_some_and(|rest| rest.is_empty() || rest.starts_with(" - "))
}

/// Whether it is not the user that lacks a right but the runner that stands in the way: locked, of another
/// kind, or of other projects too.
fn is_about_the_runner(endpoint: Endpoint, words: &ErrorTexts) -> bool {
    matches!(endpoint, Endpoint::Assign | Endpoint::Unassign | Endpoint::DeleteById)
        && words.text.split_once(" - ").is_some_and(|(_, reason)| reason != "No access granted")
}

/// GitLab's helpers say `message` when a record is missing; the router says `error` when the call is.
fn not_found(endpoint: Endpoint, words: &ErrorTexts) -> Kind {
    let is_record = words.form == Form::Message;
    match endpoint {
        // The first API has no other way to say that the parameters are wrong.
        Endpoint::RegisterV1 if is_record => Kind::InvalidParameters,
        Endpoint::DeleteRunner | Endpoint::DeleteManager if is_record => Kind::NotFound,
        _ if is_record && endpoint.proof() == Proof::Access => Kind::NotFound,
        _ => Kind::Unsupported,
    }
}

/// The number stands for a switched-off registration, or for a whole version of the API.
fn gone(endpoint: Endpoint) -> Kind {
    match endpoint.proof() {
        Proof::Registration => Kind::RegistrationDisabled,
        Proof::Runner | Proof::Access => Kind::Unsupported,
    }
}

fn unprocessable(endpoint: Endpoint, words: &ErrorTexts) -> Kind {
    if words.mention("orphaned") {
        return Kind::Orphaned;
    }
    match endpoint {
        Endpoint::Verify => Kind::Orphaned,
        Endpoint::Reset | Endpoint::ResetById => Kind::Unassigned,
        _ => Kind::InvalidParameters,
    }
}
