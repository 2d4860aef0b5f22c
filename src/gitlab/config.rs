//! What a client is built from.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Endpoint;

/// How the client connects; the same for every site.
#[derive(Clone, Debug)]
pub struct Config {
    /// The longest that connecting may take, name lookup and TLS handshake included; at most half of
    /// `request_timeout` counts.
    pub connect_timeout: Duration,
    /// The longest that a whole request may take, from its first byte to the last of its answer.
    pub request_timeout: Duration,
    /// Where `<host>.crt`, `<host>.auth.crt` and `<host>.auth.key` are looked for when an entry names
    /// no TLS files of its own: the `certs` directory beside config.toml.
    pub certs_dir: Option<PathBuf>,
    /// The proxies to go through.
    pub proxies: Proxies,
    /// How many requests to one host may be under way at a time; at least one.
    pub in_flight_per_host: usize,
    /// RunnerOutcome about every request when it has ended.
    pub observer: Option<Observer>,
}

/// One request that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// What was called.
    pub endpoint: Endpoint,
    /// What came of it: `ok`, or the [label](super::ErrorKind::label) of what went wrong.
    pub outcome: &'static str,
    /// From the call to its end; the wait for its turn counts too.
    pub took: Duration,
}

/// Somebody who is told about requests; called on the caller's thread, so it must not wait.
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn(&Exchange) + Send + Sync>);

impl Observer {
    /// Tells each request to a function.
    #[must_use]
    pub fn new(observe: impl Fn(&Exchange) + Send + Sync + 'static) -> Self {
        Self(Arc::new(observe))
    }

    pub(super) fn tell(&self, exchange: &Exchange) {
        (self.0)(exchange);
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Observer")
    }
}

/// The default of [`Config::connect_timeout`].
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The default of [`Config::request_timeout`].
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The default of [`Config::in_flight_per_host`]: many runners of one server start together, and a
/// small server should not notice.
pub const IN_FLIGHT_PER_HOST: usize = 4;

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout: CONNECT_TIMEOUT,
            request_timeout: REQUEST_TIMEOUT,
            certs_dir: None,
            proxies: Proxies::default(),
            in_flight_per_host: IN_FLIGHT_PER_HOST,
            observer: None,
        }
    }
}

/// The proxies to go through, as the official environment variables have them; the environment itself
/// is not read here.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// The proxy for https sites; may hold a password.
    pub https: Option<String>,
    /// The proxy for http sites; may hold a password.
    pub http: Option<String>,
    /// The hosts that are reached directly, separated by commas.
    pub no_proxy: Option<String>,
}

impl Proxies {
    /// Whether even an http site is reached through an encrypted connection, so that someone has to be
    /// trusted.
    pub(super) fn is_http_proxy_encrypted(&self) -> bool {
        self.http.as_deref().is_some_and(|url| url.starts_with("https:"))
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Proxies")
            .field("https", &self.https.is_some())
            .field("http", &self.http.is_some())
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}
