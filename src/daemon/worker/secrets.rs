//! The secrets that runners depend on, read once for all workers.

use std::collections::BTreeMap;

use crate::clock::Clock;
use crate::engine::{Config, Driver};
use crate::model::{RunnerKey, ServerUrl};
use crate::ops::{Disk, RegistrationSource, Server};
use crate::secret::{Fingerprint, Source};

/// The secrets that the settings name, as they were at one time. One that was never read is missing; the step that needs it
/// reports why.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Secrets {
    /// What enrollments make their runners from.
    sources: BTreeMap<RunnerKey, Known>,
    /// The access tokens.
    access: BTreeMap<ServerUrl, Known>,
    /// The given tokens of all enrollments at a server: while another one is given a token, a runner does not adopt it.
    given: BTreeMap<ServerUrl, Vec<Fingerprint>>,
}

/// A secret as it was last read: a file that cannot be read for a time is not replaced by that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) fingerprint: Fingerprint,
    is_readable: bool,
}

impl Known {
    fn read(source: &Source, former: Option<&Self>) -> Option<Self> {
        match source.read() {
            Ok(token) => Some(Self { fingerprint: token.fingerprint(), is_readable: true }),
            Err(_) => former.map(|known| Self { is_readable: false, ..*known }),
        }
    }

    /// Whether there is a secret that was another one before, or none.
    pub(super) fn is_new(present: Option<&Self>, former: Option<&Self>) -> bool {
        let former = former.map(|former| former.fingerprint);
        present.is_some_and(|present| former != Some(present.fingerprint))
    }

    /// Whether a secret can be read that could not be read before.
    pub(super) fn is_back(present: Option<&Self>, former: Option<&Self>) -> bool {
        present.is_some_and(|present| present.is_readable) && former.is_some_and(|former| !former.is_readable)
    }
}

/// The secrets that one runner depends on.
#[derive(Clone, Copy)]
pub(super) struct OwnSecrets<'a> {
    pub(super) source: Option<&'a Known>,
    pub(super) access: Option<&'a Known>,
    pub(super) given: &'a [Fingerprint],
}

impl Secrets {
    /// Reads them. Of one that cannot be read, what was read formerly is kept.
    pub(in crate::daemon) fn read(config: &Config, former: &Self) -> Self {
        let mut secrets = Self::default();
        for enrollment in &config.enrollments {
            let former = former.sources.get(&enrollment.key);
            let Some(known) = Known::read(enrollment.source.secret(), former) else { continue };
            if matches!(enrollment.source, RegistrationSource::Given(_)) {
                secrets.given.entry(enrollment.site.url.clone()).or_default().push(known.fingerprint);
            }
            secrets.sources.insert(enrollment.key.clone(), known);
        }
        for server in &config.servers {
            if let Some(known) = Known::read(&server.access_token, former.access.get(&server.url)) {
                secrets.access.insert(server.url.clone(), known);
            }
        }
        secrets
    }

    /// Whether the secret of an enrollment could be read last.
    pub(super) fn has_source_of(&self, key: &RunnerKey) -> bool {
        self.sources.get(key).is_some_and(|known| known.is_readable)
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
