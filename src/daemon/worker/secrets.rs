//! The secrets that runners depend on, read once for all workers.

use std::collections::BTreeMap;

use crate::clock::Clock;
use crate::engine::{Config, Driver};
use crate::model::{RunnerKey, ServerUrl};
use crate::ops::{Disk, RegistrationSource, Server};
use crate::secret::{Fingerprint, Source};

/// The secrets that the settings name, as they were at one time. One that could not be read is missing; the step that
/// needs it reports why.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Secrets {
    /// What enrollments make their runners from.
    sources: BTreeMap<RunnerKey, Fingerprint>,
    /// The access tokens.
    access: BTreeMap<ServerUrl, Fingerprint>,
    /// The given tokens of all enrollments at a server: while another one is given a token, a runner does not adopt it.
    given: BTreeMap<ServerUrl, Vec<Fingerprint>>,
}

/// The secrets that one runner depends on.
#[derive(Clone, Copy)]
pub(super) struct OwnSecrets<'a> {
    pub(super) source: Option<&'a Fingerprint>,
    pub(super) access: Option<&'a Fingerprint>,
    pub(super) given: &'a [Fingerprint],
}

impl Secrets {
    pub(in crate::daemon) fn read(config: &Config) -> Self {
        let fingerprint = |source: &Source| source.read().ok().map(|token| token.fingerprint());
        let mut secrets = Self::default();
        for enrollment in &config.enrollments {
            let Some(read) = fingerprint(enrollment.source.secret()) else { continue };
            if matches!(enrollment.source, RegistrationSource::Given(_)) {
                secrets.given.entry(enrollment.site.url.clone()).or_default().push(read);
            }
            secrets.sources.insert(enrollment.key.clone(), read);
        }
        for server in &config.servers {
            if let Some(read) = fingerprint(&server.access_token) {
                secrets.access.insert(server.url.clone(), read);
            }
        }
        secrets
    }

    pub(super) fn of<S: Server, D: Disk, C: Clock>(&self, driver: &Driver<S, D, C>) -> OwnSecrets<'_> {
        let url = &driver.runner.record.url;
        let enrollment = driver.enrollment.as_deref();
        let access = driver.config.access_to(url);
        OwnSecrets {
            source: enrollment.and_then(|enrollment| self.sources.get(&enrollment.key)),
            access: access.and_then(|access| self.access.get(&access.url)),
            given: self.given.get(url).map_or(&[], Vec::as_slice),
        }
    }
}
