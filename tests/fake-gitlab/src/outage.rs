//! States of the whole server in which it refuses work.

use hyper::Method;

use crate::{Answer, Endpoint, Version};

/// The admin's text in maintenance mode.
const MAINTENANCE_TEXT: &str = "GitLab is undergoing maintenance";
/// The message of a read-only instance to a write.
const READ_ONLY_TEXT: &str = "You cannot perform write operations on a read-only instance";

/// An outage of the whole server; no state changes while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// Maintenance mode refuses writes: since 18.2 with 503, `Retry-After: 900` and a JSON message, before that as
    /// [`Outage::ReadOnly`] does. A write that is not JSON is redirected to the root page.
    Maintenance,
    /// A read-only database refuses JSON writes with 403 and redirects all others.
    ReadOnly,
    /// A running migration refuses all runner-token endpoints with 429 and `Retry-After: 60`.
    Migrations,
    /// A proxy answers everything with a bare 503 page.
    Unavailable,
}

impl Outage {
    /// The refusal of a request; `None` if the request passes.
    pub(crate) fn refusal(
        self,
        version: Version,
        endpoint: Endpoint,
        method: &Method,
        is_json: bool,
    ) -> Option<Answer> {
        let writes = method != Method::GET;
        match self {
            Self::Unavailable => Some(Answer::html(503)),
            Self::Migrations if endpoint.is_for_runners() => {
                Some(Answer::message(429, "Executing database migrations. Please retry later.").retry_after(60))
            }
            Self::Migrations => None,
            Self::Maintenance | Self::ReadOnly if !writes => None,
            Self::Maintenance | Self::ReadOnly if !is_json => Some(Answer::redirect(301, "/")),
            Self::Maintenance if version.is_at_least(18, 2) => {
                Some(Answer::message(503, MAINTENANCE_TEXT).retry_after(900))
            }
            Self::Maintenance | Self::ReadOnly => Some(Answer::message(403, READ_ONLY_TEXT)),
        }
    }
}
