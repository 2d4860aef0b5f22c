//! What a client is built from.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

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
