//! The address of a web server that gets events.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use url::Url;

use super::ServerUrl;

/// The URL of a webhook. Its path and query can be a secret: `Debug` shows scheme and host alone.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    url: Url,
    site: ServerUrl,
}

/// Why a text is no [`WebhookUrl`]; does not contain the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookUrlError {
    /// Not a URL with a host.
    #[error("not a URL, expected something like https://hooks.example.com/runners")]
    Malformed,
    /// Another machine would get the event unencrypted.
    #[error("it must begin with https://; http:// is for this machine alone")]
    Unencrypted,
    /// It has a user or password.
    #[error("the URL must not contain a user name or password")]
    Credentials,
}

impl WebhookUrl {
    /// The whole URL, for a request.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.url.as_str()
    }

    /// Scheme, host and port.
    #[must_use]
    pub const fn site(&self) -> &ServerUrl {
        &self.site
    }
}

impl FromStr for WebhookUrl {
    type Err = WebhookUrlError;

    fn from_str(text: &str) -> Result<Self, WebhookUrlError> {
        let url = Url::parse(text).map_err(|_| WebhookUrlError::Malformed)?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(WebhookUrlError::Malformed)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(WebhookUrlError::Credentials);
        }
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let is_here = host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback());
        if url.scheme() != "https" && !(url.scheme() == "http" && is_here) {
            return Err(WebhookUrlError::Unencrypted);
        }
        let site = url.origin().ascii_serialization().parse().map_err(|_| WebhookUrlError::Malformed)?;
        Ok(Self { url, site })
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "WebhookUrl({}://{})", self.url.scheme(), self.url.host_str().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_is_encrypted_unless_it_is_on_this_machine() {
        for right in
            ["https://hooks.example.com/a?b=c", "http://127.0.0.1:8080/x", "http://[::1]/", "http://localhost/"]
        {
            assert!(right.parse::<WebhookUrl>().is_ok(), "{right}");
        }
        let url: WebhookUrl = "https://hooks.example.com:8443/api/v4/a?b=c#d".parse().unwrap();
        assert_eq!(url.site().as_str(), "https://hooks.example.com:8443");
        for (wrong, error) in [
            ("hooks.example.com", WebhookUrlError::Malformed),
            ("http://hooks.example.com/", WebhookUrlError::Unencrypted),
            ("http://127.0.0.1.example.com/", WebhookUrlError::Unencrypted),
            ("ftp://localhost/", WebhookUrlError::Unencrypted),
            ("https://me:secret@hooks.example.com/", WebhookUrlError::Credentials),
        ] {
            assert_eq!(wrong.parse::<WebhookUrl>(), Err(error), "{wrong}");
        }
    }

    #[test]
    fn what_may_be_secret_in_a_url_is_not_shown() {
        let url: WebhookUrl = "https://hooks.example.com/services/T0/secret?token=secret".parse().unwrap();
        assert_eq!(format!("{url:?}"), "WebhookUrl(https://hooks.example.com)");
    }
}
