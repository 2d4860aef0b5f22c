//! The secrets that the settings name.

use std::path::Path;

use super::Finding;
use crate::error_chain::chain;
use crate::ops::Enrollment;
use crate::secret::{Source, SourceError, TokenPurpose};
use crate::settings::Settings;
use crate::sharing;
use crate::store::Record;

/// Reads each secret once.
pub(super) fn check(settings: &Settings, records: &[Record], findings: &mut Vec<Finding>) {
    findings.extend(settings.secret_warnings().map(|warning| Finding::warning(&warning)));
    for enrollment in &settings.engine.enrollments {
        if let Err(error) = enrollment.source.read() {
            findings.push(of_enrollment(enrollment, &error, records));
        }
    }
    for server in &settings.engine.servers {
        if let Err(error) = server.access_token.read_for(TokenPurpose::Access) {
            let message = format!("the access token for {} cannot be used: {}", server.url, chain(&error));
            findings.push(of_source(&message, &error, &server.access_token));
        }
    }
    for source in settings.engine.sharing.iter().flat_map(sharing::Settings::secrets) {
        if let Err(error) = source.read_password() {
            let message = format!("a secret of [sharing] cannot be used: {}", chain(&error));
            findings.push(of_source(&message, &error, source));
        }
    }
}

/// A registered runner needs the secret only to be registered again.
fn of_enrollment(enrollment: &Enrollment, error: &SourceError, records: &[Record]) -> Finding {
    let is_registered = records.iter().any(|record| record.key == enrollment.key && record.credential.is_some());
    let name = &enrollment.entry.name;
    let consequence = if is_registered { "could not be registered again" } else { "cannot be registered" };
    let message = format!("the runner `{name}` {consequence}: {}", chain(error));
    let finding = of_source(&message, error, enrollment.source.secret());
    match (is_registered, finding.severity) {
        (true, super::Severity::Error) => Finding { severity: super::Severity::Warning, ..finding },
        (true | false, _) => finding,
    }
}

fn of_source(message: &str, error: &SourceError, source: &Source) -> Finding {
    let finding = match error {
        // systemd passes them to the unit alone.
        SourceError::NoCredential(_) => Finding::note(message),
        SourceError::Unreadable { .. }
        | SourceError::Exposed { .. }
        | SourceError::Invalid { .. }
        | SourceError::WrongClass { .. }
        | SourceError::NoPassword { .. } => Finding::error(message),
    };
    match path_of(source) {
        Some(path) => finding.in_file(path),
        None => finding,
    }
}

fn path_of(source: &Source) -> Option<&Path> {
    match source {
        Source::File(path) => Some(path),
        Source::Credential { path, .. } => path.as_deref(),
        Source::Value { .. } => None,
    }
}
