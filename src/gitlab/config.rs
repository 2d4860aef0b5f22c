//! The configuration of a client.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::model::Site;

use super::Endpoint;

/// How the client connects to every site.
#[derive(Clone, Debug)]
pub struct Config {
    /// Timeout for connecting, including name lookup and TLS handshake. Capped at half of `request_timeout`.
    pub connect_timeout: Duration,
    /// Timeout for the whole request, until the last byte of its answer.
    pub request_timeout: Duration,
    /// The `certs` directory next to config.toml. If an entry sets no TLS files, `<host>.crt`, `<host>.auth.crt` and
    /// `<host>.auth.key` are read from here.
    pub certs_dir: Option<PathBuf>,
    /// The proxies to use.
    pub proxies: Proxies,
    /// Maximum number of concurrent requests to one host, if it is set; at least one.
    pub in_flight_per_host: Option<usize>,
    /// Called after every request.
    pub observer: Option<Observer>,
}

/// One completed request, successful or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The call.
    pub endpoint: Endpoint,
    /// `ok`, or the [name](super::ErrorKind::as_str) of the error kind.
    pub outcome: &'static str,
    /// Duration of the call, including the wait for a free slot of its host.
    pub took: Duration,
}

/// A callback for completed requests. It runs on the caller's thread and must not block.
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn(&Exchange) + Send + Sync>);

impl Observer {
    /// Wraps a function that is called with each request.
    #[must_use]
    pub fn new(observe: impl Fn(&Exchange) + Send + Sync + 'static) -> Self {
        Self(Arc::new(observe))
    }

    pub(super) fn notify(&self, exchange: &Exchange) {
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

/// The default of [`Config::in_flight_per_host`] for a daemon: many runners of one server start together, and a small server
/// must cope with that.
pub const IN_FLIGHT_PER_HOST: usize = 4;

impl Config {
    /// Maximum number of concurrent requests to one host; at least one.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight_per_host.unwrap_or(IN_FLIGHT_PER_HOST).clamp(1, Semaphore::MAX_PERMITS)
    }

    /// Whether a connection to a site needs a TLS configuration.
    pub(super) fn is_encrypted(&self, site: &Site) -> bool {
        site.url.is_https() || self.proxies.is_http_proxy_encrypted()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout: CONNECT_TIMEOUT,
            request_timeout: REQUEST_TIMEOUT,
            certs_dir: None,
            proxies: Proxies::default(),
            in_flight_per_host: None,
            observer: None,
        }
    }
}

/// The proxies, with the meaning of the usual environment variables. This room does not read the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// The proxy for https sites.
    pub https: Option<ProxySetting>,
    /// The proxy for http sites.
    pub http: Option<ProxySetting>,
    /// Hosts to connect to without a proxy, separated by commas.
    pub no_proxy: Option<String>,
    /// Whether a web server runs this program for a request, so that the proxy for http sites may be of that request's
    /// choice. It is not used then.
    pub is_cgi: bool,
}

/// One proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxySetting {
    /// Its address; may hold a password.
    pub url: String,
    /// The variable that names it.
    pub variable: &'static str,
}

impl Proxies {
    /// Whether requests to http sites use TLS to the proxy, which needs trusted authorities.
    pub(super) fn is_http_proxy_encrypted(&self) -> bool {
        self.http.as_ref().is_some_and(|proxy| proxy.url.starts_with("https:"))
    }
}

impl fmt::Debug for ProxySetting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ProxySetting").field("variable", &self.variable).finish_non_exhaustive()
    }
}
