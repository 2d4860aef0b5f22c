//! The HTTP clients, two per TLS profile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};

use super::error::CallFailure;
use super::tls::{FileStamp, FileTrust, Ignored, SystemRoots, TlsProfile};
use super::{Config, ErrorKind, Proxies};
use crate::model::Site;

/// How long an idle connection is kept: long enough for the runners of one pass, short enough that an idle daemon
/// has none open.
const IDLE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(20);

const USER_AGENT: &str = concat!("runner-agent/", env!("CARGO_PKG_VERSION"));
/// The two HTTP clients of one TLS profile.
#[derive(Clone)]
pub(super) struct HttpClients {
    /// For calls with side effects. It never reuses a connection: the server may be closing it, and the request may
    /// or may not arrive.
    pub(super) fresh: reqwest::Client,
    /// For calls that may be repeated. It reuses connections.
    pub(super) kept: reqwest::Client,
}

/// What a profile's clients were built from, and they themselves.
type Built = (Vec<FileStamp>, HttpClients);

/// What was built since the files were read anew.
#[derive(Default)]
struct Generation {
    roots: SystemRoots,
    built: Mutex<HashMap<TlsProfile, Built>>,
}

/// The clients that were built.
pub(super) struct ClientCache {
    config: Arc<Config>,
    /// Replaced as a whole: what is built while it is dropped goes into the former one.
    generation: Mutex<Arc<Generation>>,
    /// Files that were warned about.
    warned: Mutex<Vec<Ignored>>,
}

impl Generation {
    fn built(&self) -> MutexGuard<'_, HashMap<TlsProfile, Built>> {
        self.built.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientCache {
    pub(super) fn new(config: Arc<Config>) -> Self {
        Self { config, generation: Mutex::default(), warned: Mutex::default() }
    }

    /// Drops them, and the system's authorities.
    pub(super) fn forget(&self) {
        *self.generation.lock().unwrap_or_else(PoisonError::into_inner) = Arc::default();
    }

    /// Returns the clients of a site. They are rebuilt if one of its TLS files has changed. Waits for the disk if the site is
    /// encrypted.
    pub(super) fn of(&self, site: &Site, trust: FileTrust) -> Result<HttpClients, CallFailure> {
        let generation = self.generation();
        let mut ignored = Vec::new();
        let profile = if self.config.is_encrypted(site) {
            TlsProfile::of(site, self.config.certs_dir.as_deref(), trust, &mut ignored)?
        } else {
            TlsProfile::Plain
        };
        ignored.into_iter().for_each(|ignored| self.warn_once(ignored, trust));
        let stamps = profile.stamps()?;
        let cached = generation.built().get(&profile).filter(|(built_from, _)| *built_from == stamps).cloned();
        if let Some((_, clients)) = cached {
            return Ok(clients);
        }
        // Not under the lock: the files are read, and their share may not answer.
        let clients = self.build(&profile, &generation.roots)?;
        generation.built().insert(profile, (stamps, clients.clone()));
        Ok(clients)
    }

    fn warn_once(&self, ignored: Ignored, trust: FileTrust) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if !warned.contains(&ignored) {
            ignored.warn(trust);
            warned.push(ignored);
        }
    }

    /// Lets all checks wait, as for a disk, until it is dropped.
    #[cfg(test)]
    pub(super) fn hold(&self) -> impl Drop {
        self.generation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn generation(&self) -> Arc<Generation> {
        Arc::clone(&self.generation.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn build(&self, profile: &TlsProfile, roots: &SystemRoots) -> Result<HttpClients, CallFailure> {
        let tls = profile.config(roots)?;
        // If the request timeout expired while connecting, it would be unknown whether anything was sent.
        let connect_timeout = self.config.connect_timeout.min(self.config.request_timeout / 2);
        let build = |kept: usize| {
            let builder = reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .retry(reqwest::retry::never())
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .http1_only()
                .no_proxy()
                .proxy(Proxies::interceptor(&self.config))
                .connect_timeout(connect_timeout)
                .timeout(self.config.request_timeout)
                .pool_max_idle_per_host(kept)
                .pool_idle_timeout(IDLE_TIMEOUT)
                .user_agent(format!("{USER_AGENT} ({}/{})", std::env::consts::OS, std::env::consts::ARCH))
                .default_headers(accepts_json());
            builder.build().map_err(|error| {
                CallFailure::new(ErrorKind::Tls)
                    .with_detail("cannot set up connections")
                    .with_source(error.without_url())
            })
        };
        Ok(HttpClients { fresh: build(0)?, kept: build(self.config.in_flight())? })
    }
}

fn accepts_json() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TlsFiles;

    #[test]
    fn clients_that_are_built_during_a_reload_are_not_kept() {
        let cache = ClientCache::new(Arc::new(Config::default()));
        let site = Site { url: "https://gitlab.example.com".parse().unwrap(), tls: TlsFiles::default() };
        let mut ignored = Vec::new();
        let profile = TlsProfile::of(&site, None, FileTrust::AnyUser, &mut ignored).unwrap();
        let during = cache.generation();
        cache.forget();
        let clients = cache.build(&profile, &during.roots).unwrap();
        during.built().insert(profile.clone(), (Vec::new(), clients));
        assert!(cache.generation().built().is_empty());
        assert!(!Arc::ptr_eq(&during.roots.load().unwrap(), &cache.generation().roots.load().unwrap()));
        cache.of(&site, FileTrust::AnyUser).unwrap();
        assert_eq!(cache.generation().built().len(), 1);
    }
}
