//! The texts of error answers: GitLab's, and those of what stands in front of it.

use crate::gitlab::error_body::ErrorBody;

/// GitLab's answer to a missing parameter in the API of 2016.
pub(super) const TOKEN_NOT_GIVEN: &str = "400 (Bad request) \"token\" not given";

/// The texts of one documented answer. Case is ignored: releases differ in it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Texts {
    /// One of these, and nothing else.
    Is(&'static [&'static str]),
    /// This beginning, and any reason after it.
    APrefix(&'static str),
    /// A sentence with this phrase.
    ADescribed(&'static str),
    /// What parameter validation says: `token is missing, system_id is invalid`.
    AParameter,
    /// What a model's validation says about its attributes.
    OfModel,
    /// A missing object: `404 Not found`, `404 Project Not Found`.
    AMissing,
}

impl Texts {
    pub(super) fn contain(self, body: &ErrorBody) -> bool {
        match self {
            Self::Is(texts) => texts.iter().any(|text| is(&body.text, text)),
            Self::APrefix(beginning) => begins(&body.text, beginning),
            Self::ADescribed(phrase) => body.mentions(phrase),
            Self::AParameter => is_about_parameters(&body.text),
            Self::OfModel => !body.fields.is_empty() && body.fields.iter().all(|field| is_one_of(field, ATTRIBUTES)),
            Self::AMissing => MISSING.iter().any(|text| is(&body.text, text)),
        }
    }
}

/// The texts of a missing object. The code that adds `Not Found` sometimes gets a text that has it already.
const MISSING: &[&str] = &[
    "404 Not found",
    "404 Runner Not Found",
    "404 Runner not found Not Found",
    "404 Project Not Found",
    "404 Group Not Found",
];

/// The parameters of the calls, as validation names them.
const PARAMETERS: &[&str] = &[
    "access_level",
    "active",
    "cursor",
    "description",
    "expires_at",
    "group_id",
    "id",
    "include_projects",
    "info",
    "info[architecture]",
    "info[name]",
    "info[platform]",
    "info[revision]",
    "info[version]",
    "locked",
    "maintainer_note",
    "maintenance_note",
    "maximum_timeout",
    "order_by",
    "page",
    "pagination",
    "paused",
    "per_page",
    "project_id",
    "run_untagged",
    "runner_id",
    "runner_type",
    "scope",
    "sort",
    "status",
    "system_id",
    "tag_list",
    "token",
    "token_expires_at",
    "token_rotation_deadline",
    "type",
    "version_prefix",
];

/// What validation says about a parameter.
const COMPLAINTS: &[&str] = &[
    "are missing",
    "are mutually exclusive",
    "does not have a valid value",
    "is empty",
    "is invalid",
    "is missing",
    "is too long",
];

/// What validation adds about several parameters.
const REQUIREMENTS: &[&str] = &["at least one parameter must be provided", "exactly one parameter must be provided"];

/// The attributes of a runner that its validation names.
const ATTRIBUTES: &[&str] = &[
    "access_level",
    "base",
    "description",
    "locked",
    "maintainer_note",
    "maintenance_note",
    "maximum_timeout",
    "name",
    "run_untagged",
    "runner_namespaces",
    "runner_namespaces.base",
    "runner_projects",
    "runner_projects.base",
    "runner_type",
    "tag_list",
    "tags_list",
];

/// The texts of gateways, load balancers and proxies that answer in JSON, by their beginnings.
const FOREIGN: &[&str] = &[
    "no Route matched with those values",
    "failure to get a peer from the ring-balancer",
    "Missing Authentication Token",
    "Endpoint request timed out",
    "An invalid response was received from the upstream server",
    "The upstream server is timing out",
    "API rate limit exceeded",
    "No API key found in request",
    "Invalid authentication credentials",
    "no healthy upstream",
    "upstream connect error or disconnect/reset before headers",
    "RBAC: access denied",
    "404 page not found",
    "default backend - 404",
    "The plain HTTP request was sent to HTTPS port",
    "error code:",
];

/// The text of GitLab's maintenance mode unless the administrator has written another one.
const MAINTENANCE: &str = "GitLab is undergoing maintenance";

pub(super) fn is_default_maintenance(text: &str) -> bool {
    is(text.trim_end_matches('.'), MAINTENANCE)
}

/// Whether a text is certainly none of GitLab's: that of a gateway, the bare phrase of a status (GitLab's begin with its
/// number), or empty.
pub(super) fn is_foreign(text: &str) -> bool {
    let text = text.trim().trim_end_matches('.');
    let is_phrase = || (400..=599).filter_map(phrase).any(|phrase| is(text, phrase));
    text.is_empty() || FOREIGN.iter().any(|foreign| begins(text, foreign)) || is_phrase()
}

/// The phrase of a status: `Forbidden`.
fn phrase(status: u16) -> Option<&'static str> {
    reqwest::StatusCode::from_u16(status).ok()?.canonical_reason()
}

fn is_about_parameters(text: &str) -> bool {
    let is_part = |part: &str| {
        let (name, complaint) = part.split_once(' ').unwrap_or((part, ""));
        // A list of names comes before its complaint: `paused, active are mutually exclusive`.
        let is_listed = complaint.is_empty() || is_one_of(complaint, COMPLAINTS);
        (is_one_of(name, PARAMETERS) && is_listed) || is_one_of(part, REQUIREMENTS)
    };
    let has_complaint = COMPLAINTS.iter().chain(REQUIREMENTS).any(|complaint| text.ends_with(complaint));
    has_complaint && text.split(", ").all(is_part)
}

fn is_one_of(text: &str, known: &[&str]) -> bool {
    known.contains(&text)
}

pub(super) fn is(text: &str, known: &str) -> bool {
    text.trim().eq_ignore_ascii_case(known)
}

fn begins(text: &str, beginning: &str) -> bool {
    let start = text.trim_start().as_bytes().get(..beginning.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(beginning.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_errors_are_told_from_other_texts() {
        for text in [
            "token is missing",
            "token is missing, system_id is missing",
            "paused, active are mutually exclusive",
            "runner_type is missing, runner_type does not have a valid value",
            "description, active, paused are missing, at least one parameter must be provided",
            "id is invalid",
        ] {
            assert!(is_about_parameters(text), "{text}");
        }
        for text in [
            "",
            "token",
            "token, id",
            "Bad Request",
            "Authorization header is missing",
            "api_key is missing",
            "token is missing, go away",
            "is missing",
        ] {
            assert!(!is_about_parameters(text), "{text}");
        }
    }

    #[test]
    fn texts_of_gateways_are_foreign() {
        for text in [
            "",
            "no Route matched with those values",
            "Unauthorized",
            "Forbidden",
            "Service Unavailable",
            "Not Found",
            "Bad gateway",
            "Method Not Allowed",
            "Missing Authentication Token",
            "upstream connect error or disconnect/reset before headers. reset reason: overflow",
        ] {
            assert!(is_foreign(text), "{text}");
        }
        for text in ["403 Forbidden", "Runner is orphaned", "404 Not found", "Token rotation deadline has passed", "é"]
        {
            assert!(!is_foreign(text), "{text}");
        }
    }
}
