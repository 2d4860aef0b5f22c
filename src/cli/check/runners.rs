//! The runners of the settings and of config.toml: their TLS files, their proxies, and what belongs to what.

use std::path::PathBuf;

use super::Finding;
use crate::engine::inventory;
use crate::error_chain::chain;
use crate::gitlab::{Client, Endpoint};
use crate::model::Site;
use crate::ops::RegistrationSource;
use crate::secret::TokenPurpose;
use crate::settings::{Paths, Settings};
use crate::store::{Record, Snapshot};

/// Reports tokens of another kind, which are never sent.
pub(super) fn check_tokens(snapshot: &Snapshot, paths: &Paths, findings: &mut Vec<Finding>) {
    for entry in &snapshot.entries {
        let wrong = entry.token.token().and_then(|token| TokenPurpose::Runner.check(token).err());
        findings.extend(wrong.map(|wrong| Finding::error(&wrong.to_string()).in_line(&paths.config, entry.line)));
    }
}

/// A server as a runner or an enrollment names it, and where.
struct NamedSite {
    endpoint: Endpoint,
    site: Site,
    file: PathBuf,
    line: Option<usize>,
}

/// Reads the TLS files of each server, and the address of its proxy. Connects to nothing.
pub(super) async fn check_files(
    settings: &Settings,
    snapshot: Option<&Snapshot>,
    paths: &Paths,
    findings: &mut Vec<Finding>,
) {
    let client = Client::new(settings.gitlab.clone());
    let mut known: Vec<NamedSite> = Vec::new();
    for named in sites(settings, snapshot, paths) {
        if known.iter().any(|other| other.endpoint == named.endpoint && other.site == named.site) {
            continue;
        }
        if let Err(error) = client.check_files(named.endpoint, &named.site).await {
            let finding = Finding::error(&chain(&error)).with_remedy(error.hint());
            findings.push(match named.line {
                Some(line) => finding.in_line(&named.file, line),
                None => finding.in_file(&named.file),
            });
        }
        known.push(named);
    }
}

fn sites(settings: &Settings, snapshot: Option<&Snapshot>, paths: &Paths) -> Vec<NamedSite> {
    let in_settings = |endpoint, site| NamedSite { endpoint, site, file: paths.agent_config.clone(), line: None };
    let of_enrollments = settings.engine.enrollments.iter().map(|enrollment| {
        let (endpoint, site) = match &enrollment.source {
            RegistrationSource::Registration(_) | RegistrationSource::V1(_) => {
                (Endpoint::Register, enrollment.site.clone())
            }
            RegistrationSource::Given(_) => (Endpoint::Verify, enrollment.site.clone()),
            RegistrationSource::Created(creation) => {
                (Endpoint::Create, Site { url: enrollment.site.url.clone(), tls: creation.tls.clone() })
            }
        };
        NamedSite { line: settings.line_of(enrollment.key.as_str()), ..in_settings(endpoint, site) }
    });
    let of_servers = settings
        .engine
        .servers
        .iter()
        .map(|server| in_settings(Endpoint::ResetById, Site { url: server.url.clone(), tls: server.tls.clone() }));
    let entries = snapshot.map(|snapshot| &snapshot.entries[..]).unwrap_or_default();
    let of_entries = entries.iter().filter_map(|entry| {
        let (site, _) = entry.access().ok()?;
        Some(NamedSite { endpoint: Endpoint::Verify, site, file: paths.config.clone(), line: Some(entry.line) })
    });
    of_entries.chain(of_enrollments).chain(of_servers).collect()
}

/// Reports what the inventory of runners finds: enrollments and entries that do not go together.
pub(super) async fn check_inventory(
    settings: &Settings,
    records: Vec<Record>,
    snapshot: &Snapshot,
    paths: &Paths,
    findings: &mut Vec<Finding>,
) {
    let inventory = inventory(&settings.engine, records, snapshot).await;
    let errors = inventory.errors.iter().map(|error| Finding::error(error));
    // The problems of an entry are reported with its line.
    let problems: Vec<_> = snapshot.entries.iter().flat_map(|entry| &entry.problems).map(ToString::to_string).collect();
    let is_new = |warning: &&String| !problems.iter().any(|problem| warning.ends_with(problem.as_str()));
    let warnings = inventory.warnings.iter().filter(is_new).map(|warning| Finding::warning(warning));
    findings.extend(errors.chain(warnings).map(|finding| {
        match enrollment_of(&finding.message).and_then(|key| settings.line_of(key)) {
            Some(line) => finding.in_line(&paths.agent_config, line),
            None => finding.in_file(&paths.config),
        }
    }));
}

/// The key of the enrollment that a message of the inventory is about: the first one that it names.
fn enrollment_of(message: &str) -> Option<&str> {
    let (_, named) = message.split_once("enrollment `")?;
    named.split('`').next()
}
