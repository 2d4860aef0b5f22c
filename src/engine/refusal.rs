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

/// What a refused token may be that an enrollment gave as that of a runner and that has no prefix of GitLab: GitLab refuses
/// a registration token, too, in the same words. `None` for any other token.
#[must_use]
pub fn unprefixed_text(record: &Record, enrollment: Option<&Enrollment>) -> Option<String> {
    let Some(RegistrationSource::Given(source)) = enrollment.map(|enrollment| &enrollment.source) else { return None };
    let is_unprefixed = record.credential.is_none() && source.read().is_ok_and(|token| token.class().is_none());
    is_unprefixed.then(|| {
        "the token has no prefix such as glrt-: a registration token belongs in `registration_token` of the [[enroll]], or is given by --registration-token; else the runner was deleted, or its token expired or was rotated elsewhere. GitLab answers the same to all of these"
            .to_owned()
    })
}
