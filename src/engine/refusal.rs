//! What a person can do about a token that the server refuses, as far as the record and the enrollment of its runner know.

use crate::lifecycle::Validity;
use crate::model::{Origin, Timestamp, format_span};
use crate::ops::{Enrollment, RegistrationSource};
use crate::secret::Source;
use crate::store::Record;

/// The remedy for a token that the server refuses for good. Commands know no enrollments, but what the record says of them.
#[must_use]
pub fn refusal_remedy(record: &Record, enrollment: Option<&Enrollment>) -> String {
    let new_token = "write the token of a new runner, or a new token of this one,";
    match (enrollment.map(|enrollment| &enrollment.source), &record.enrollment) {
        (Some(RegistrationSource::Given(source @ Source::File(_))), _) => {
            format!("{new_token} to {}: the daemon reads it at once", source.origin())
        }
        (None, Some(key)) if record.origin == Origin::Given => {
            format!("{new_token} to where the [[enroll]] `{key}` of agent.toml reads it")
        }
        _ => "register the runner again, or reset its token in GitLab and put the new one into config.toml".to_owned(),
    }
}

/// That the token has expired, when, and the remedy; `None` if it has not, or no expiry is known.
#[must_use]
pub fn expired_text(
    record: &Record,
    validity: Option<&Validity>,
    enrollment: Option<&Enrollment>,
    now: Timestamp,
) -> Option<String> {
    let at = validity?.expiry.at().filter(|at| *at <= now)?;
    let ago = format_span(now.since(at));
    Some(format!("the token expired {} ({ago} ago): {}", at.whole_seconds(), refusal_remedy(record, enrollment)))
}
