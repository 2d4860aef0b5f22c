//! The address of a GitLab instance.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::secret::sha256_hex;

/// The base URL of a GitLab instance, without a trailing slash, without the `/ci` of old configurations and without the
/// `/api/v4` of the API's own address. A relative root such as `/gitlab` is kept.
///
/// Clones share the text: every runner of a server has several. Two addresses are equal if they belong to the same instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServerUrl(Arc<Url>);

/// Maximum length of an address, in bytes: an intent must fit into its half of the journal.
pub const MAX_URL_BYTES: usize = 1024;

/// What is added to an instance's address: by old configurations, and by the addresses of its API.
const ADDED_PATHS: [&str; 2] = ["/ci", API_PATH];

/// The path of the API below the instance's address.
const API_PATH: &str = "/api/v4";

/// Maximum number of path segments of an address that [`ServerUrl::above`] returns.
const MAX_ROOT_SEGMENTS: usize = 3;

/// Why a text is not the address of a GitLab instance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not a URL.
    #[error("not a URL ({0}), expected something like https://gitlab.example.com")]
    Malformed(url::ParseError),
    /// Without a scheme, such as `gitlab.example.com`.
    #[error("not a URL: it must begin with https:// or http://, such as https://gitlab.example.com")]
    NoScheme,
    /// A scheme other than HTTP.
    #[error("the scheme must be https or http, not `{0}`")]
    Scheme(String),
    /// A user name or password in the address would be logged.
    #[error("the URL must not contain a user name or password, since it is logged")]
    Credentials,
    /// A query or fragment, probably copied from a browser.
    #[error("the URL must not have a query or fragment")]
    Query,
    /// Longer than [`MAX_URL_BYTES`].
    #[error("longer than {MAX_URL_BYTES} bytes")]
    TooLong,
}

impl ServerUrl {
    /// Returns the address without a trailing slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }

    /// Returns the host name or IP address; IPv6 without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    /// Returns host and port, without a default port: `gitlab.example.com:8443`.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = self.0.host_str().unwrap_or_default();
        self.0.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// Returns the port, or that of the scheme.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or_default()
    }

    /// Whether requests are encrypted.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Whether a text is the address of an instance's API instead of the instance's own.
    #[must_use]
    pub fn is_of_api(text: &str) -> bool {
        text.trim().trim_end_matches('/').ends_with(API_PATH)
    }

    /// Returns the addresses above this one on its host, beginning with the host itself: those at which an instance can be
    /// if the path of this one is wrong. At most four.
    #[must_use]
    pub fn above(&self) -> Vec<Self> {
        let segments: Vec<_> = self.0.path().split('/').filter(|segment| !segment.is_empty()).collect();
        let counts = 0..segments.len().min(MAX_ROOT_SEGMENTS + 1);
        let address = |count| {
            let mut url = Url::clone(&self.0);
            url.set_path(&segments[..count].join("/"));
            url.as_str().parse::<Self>().ok()
        };
        let mut addresses: Vec<_> = counts.filter_map(address).filter(|address| address != self).collect();
        addresses.dedup();
        addresses
    }

    /// Returns a plain file name, distinct for distinct addresses: the host if it identifies the address, else the host
    /// and a hash.
    #[must_use]
    pub fn file_name(&self) -> String {
        let host: String =
            self.host().chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).take(80).collect();
        // A file name with a leading dot is hidden.
        let host = host.trim_matches('.');
        if self.as_str() == format!("https://{host}") {
            return host.to_owned();
        }
        format!("{host}-{}", &sha256_hex(self.as_str().as_bytes())[..8])
    }
}

impl FromStr for ServerUrl {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.len() > MAX_URL_BYTES {
            return Err(AddressError::TooLong);
        }
        let mut url = Url::parse(text.trim()).map_err(|error| match error {
            url::ParseError::RelativeUrlWithoutBase => AddressError::NoScheme,
            error => AddressError::Malformed(error),
        })?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(AddressError::Scheme(url.scheme().to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(AddressError::Credentials);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(AddressError::Query);
        }
        // Repeated, so that reading back the stored address changes nothing.
        let mut path = url.path().trim_end_matches('/');
        while let Some(root) = ADDED_PATHS.iter().find_map(|added| path.strip_suffix(added)) {
            path = root.trim_end_matches('/');
        }
        let path = path.to_owned();
        url.set_path(&path);
        // Percent-encoding may have made it longer.
        if url.as_str().len() > MAX_URL_BYTES {
            return Err(AddressError::TooLong);
        }
        Ok(Self(Arc::new(url)))
    }
}

impl TryFrom<String> for ServerUrl {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<ServerUrl> for String {
    fn from(url: ServerUrl) -> Self {
        url.as_str().to_owned()
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> ServerUrl {
        text.parse().unwrap()
    }

    #[test]
    fn one_instance_has_one_address() {
        let plain = address("https://gitlab.example.com");
        for same in [
            "https://gitlab.example.com/",
            "https://gitlab.example.com/ci",
            "https://gitlab.example.com/ci/",
            "https://gitlab.example.com/ci//ci",
            "https://gitlab.example.com/api/v4",
            "https://gitlab.example.com/api/v4/",
            "https://GitLab.example.com:443",
        ] {
            assert_eq!(address(same), plain, "{same}");
        }
        assert_eq!(plain.as_str(), "https://gitlab.example.com");
    }

    #[test]
    fn a_relative_root_a_port_and_an_ipv6_literal_are_kept() {
        assert_eq!(address("http://[::1]:8080/gitlab/").as_str(), "http://[::1]:8080/gitlab");
        assert_eq!(address("http://[::1]:8080/gitlab/").host(), "::1");
        assert_eq!(address("http://[::1]:8080/gitlab/").authority(), "[::1]:8080");
    }

    #[test]
    fn the_addresses_above_begin_with_the_host_and_are_few() {
        let above = |text: &str| address(text).above().iter().map(ToString::to_string).collect::<Vec<_>>();
        let host = "https://x.example.com:8443";
        assert!(above(host).is_empty());
        assert_eq!(above(&format!("{host}/a")), [host]);
        assert_eq!(above(&format!("{host}/a/ci/b%20b")), [host, &format!("{host}/a")]);
        assert_eq!(above(&format!("{host}/1/2/3/4/5/6")).len(), 4);
        assert!(
            ServerUrl::is_of_api(&format!("{host}/gitlab/api/v4/ ")) && !ServerUrl::is_of_api(&format!("{host}/v4"))
        );
    }

    #[test]
    fn other_addresses_are_rejected() {
        for wrong in ["", "gitlab.example.com", "ftp://x", "https://u:p@x", "https://x/?a=b", "https://x/#f"] {
            assert!(wrong.parse::<ServerUrl>().is_err(), "{wrong}");
        }
        let grows = format!("https://x/{}", "ü".repeat(MAX_URL_BYTES / 3));
        assert_eq!(grows.parse::<ServerUrl>(), Err(AddressError::TooLong));
    }

    #[test]
    fn distinct_addresses_have_distinct_plain_file_names() {
        let names: std::collections::BTreeSet<_> = [
            "https://gitlab.example.com",
            "http://gitlab.example.com",
            "https://gitlab.example.com:8443",
            "https://gitlab.example.com/a/b",
            "https://gitlab.example.com/a_b",
            "https://[::1]",
            "https://.example.com",
        ]
        .map(|text| address(text).file_name())
        .into();
        assert_eq!(names.len(), 7);
        assert!(!names.iter().any(|name| name.starts_with('.')), "{names:?}");
        assert!(names.contains("gitlab.example.com"));
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b))));
    }
}
