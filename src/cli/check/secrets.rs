//! The secrets that the settings name.

use std::path::Path;

use super::Finding;
use crate::error_chain::chain;
use crate::model::RunnerKey;
use crate::ops::{Enrollment, ServerAccess};
use crate::secret::{Source, SourceError, TokenPurpose};
use crate::settings::Settings;
use crate::sharing;
use crate::store::{AccessFile, ErrorKind, Record, Store};

/// What helps if the file of an access token cannot be replaced where it is.
const MOVE_FILE: &str = "keep the access token in a file in the state directory, or mount its directory for writing";

/// Reads each secret once.
pub(super) async fn check(
    settings: &Settings,
    records: &[Record],
    store: Option<&Store>,
    agent_toml: &Path,
    findings: &mut Vec<Finding>,
) {
    findings.extend(settings.secret_warnings().map(|warning| Finding::warning(&warning)));
    for enrollment in &settings.engine.enrollments {
        if let Err(error) = enrollment.source.read() {
            let line = settings.line_of(enrollment.key.as_str()).map(|line| (agent_toml, line));
            findings.push(of_enrollment(enrollment, &error, records, line));
        }
    }
    for server in &settings.engine.servers {
        match server.access_token.read_for(TokenPurpose::Access) {
            Err(error) => {
                let message = format!("the access token for {} cannot be used: {}", server.url, chain(&error));
                findings.push(of_source(&message, &error, &server.access_token));
            }
            Ok(_) if server.keeping.rotate => findings.extend(check_rotation(server, settings, store).await),
            Ok(_) => {}
        }
    }
    for source in settings.engine.sharing.iter().flat_map(sharing::Settings::secrets) {
        if let Err(error) = source.read_password() {
            let message = format!("a secret of [sharing] cannot be used: {}", chain(&error));
            findings.push(of_source(&message, &error, source));
        }
    }
}

/// Whether the file of an access token that is rotated can be replaced, and the new one be kept until then.
async fn check_rotation(server: &ServerAccess, settings: &Settings, store: Option<&Store>) -> Option<Finding> {
    // The settings refuse another source.
    let Source::File(path) = &server.access_token else { return None };
    let error = |why: &str| {
        Finding::error(&format!("the access token for {} cannot be rotated: {why}", server.url)).in_file(path)
    };
    if settings.store.state_root.is_none() {
        let remedy = "set STATE_DIRECTORY, or use --state-dir";
        return Some(error("there is no state directory that keeps the new one").with_remedy(Some(remedy)));
    }
    let file = AccessFile::new(store?.clone(), path.to_owned(), RunnerKey::access_token(&server.url));
    let probed = async {
        let _lock = file.lock().await?;
        file.probe().await
    };
    // Another process of the agent is at work, which shows that it can be.
    let failed = probed.await.err().filter(|error| error.kind() != ErrorKind::Locked)?;
    let remedy = failed.hint().unwrap_or(MOVE_FILE);
    Some(error(&chain(&failed)).with_remedy(Some(remedy)))
}

/// A registered runner needs the secret only to be registered again.
fn of_enrollment(
    enrollment: &Enrollment,
    error: &SourceError,
    records: &[Record],
    line: Option<(&Path, usize)>,
) -> Finding {
    let is_registered = records.iter().any(|record| record.key == enrollment.key && record.credential.is_some());
    let name = &enrollment.entry.name;
    let consequence = if is_registered { "could not be registered again" } else { "cannot be registered" };
    let message = format!("the runner `{name}` {consequence}: {}", chain(error));
    // The `[[enroll]]` is where it is said which file is read.
    let finding = match line {
        Some((file, line)) => of_error(&message, error).in_line(file, line),
        None => of_source(&message, error, enrollment.source.secret()),
    };
    match (is_registered, finding.severity) {
        (true, super::Severity::Error) => Finding { severity: super::Severity::Warning, ..finding },
        (true | false, _) => finding,
    }
}

pub(super) fn of_source(message: &str, error: &SourceError, source: &Source) -> Finding {
    let finding = of_error(message, error);
    match path_of(source) {
        Some(path) => finding.in_file(path),
        None => finding,
    }
}

fn of_error(message: &str, error: &SourceError) -> Finding {
    match error {
        // systemd passes them to the unit alone.
        SourceError::NoCredential(_) => Finding::note(message),
        SourceError::Unreadable { .. }
        | SourceError::Exposed { .. }
        | SourceError::Invalid { .. }
        | SourceError::WrongClass { .. }
        | SourceError::NoPassword { .. } => Finding::error(message),
    }
}

fn path_of(source: &Source) -> Option<&Path> {
    match source {
        Source::File(path) => Some(path),
        Source::Credential { path, .. } => path.as_deref(),
        Source::Value { .. } => None,
    }
}
