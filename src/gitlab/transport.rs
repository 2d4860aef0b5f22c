//! Connections: two HTTP clients per TLS profile, and a request over one of them.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, InvalidMessage};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::model::{Site, Timestamp};
use crate::secret::Token;

use super::endpoint::TokenKind;
use super::error::CallFailure;
use super::error_body::ErrorBody;
use super::other_address::OtherAddresses;
use super::tls::FileTrust;
use super::tls_checks::TlsChecks;
use super::trust::is_without_names;
use super::{Config, ErrorKind, Exchange, headers, scheme};

/// All connections of a client.
pub(super) struct Transport {
    config: Arc<Config>,
    tls: TlsChecks,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
    other_addresses: OtherAddresses,
}

/// One request to send.
pub(super) struct Outgoing<'a> {
    pub(super) site: &'a Site,
    pub(super) method: Method,
    /// The API root below the instance's address, without slashes around it.
    pub(super) root: &'a str,
    /// Relative to the root, with its query.
    pub(super) path: &'a str,
    /// Empty for a request without a body.
    pub(super) body: Zeroizing<Vec<u8>>,
    /// The kind of its token, here or in the body.
    pub(super) token_kind: TokenKind,
    pub(super) access_token: Option<&'a Token>,
    pub(super) request_id: &'a str,
    /// Whether an idle connection may be reused.
    pub(super) reuses_connection: bool,
    pub(super) max_answer_bytes: usize,
    /// Whether a success that was cut off is an answer all the same: it may hold the only copy of a token.
    pub(super) keeps_cut_success: bool,
}

/// One received answer.
pub(super) struct Incoming {
    pub(super) status: u16,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    /// As much as was received.
    pub(super) body: Zeroizing<Vec<u8>>,
    /// What ended the body before its end.
    pub(super) cut: Option<CallFailure>,
}

impl Transport {
    pub(super) fn new(config: Config) -> Self {
        let config = Arc::new(config);
        let tls = TlsChecks::new(Arc::clone(&config));
        Self { config, tls, hosts: Mutex::default(), other_addresses: OtherAddresses::default() }
    }

    /// Notifies the observer, if there is one.
    pub(super) fn observe(&self, exchange: &Exchange) {
        if let Some(observer) = &self.config.observer {
            observer.notify(exchange);
        }
    }

    /// Reads the TLS files of a site, and the address of its proxy.
    pub(super) async fn check_files(&self, site: &Site, trust: FileTrust) -> Result<(), CallFailure> {
        self.config.proxies.route(&site.url)?;
        self.tls.clients(site, trust).await.map(drop)
    }

    /// Waits for a free slot of the host and sends one request, once.
    pub(super) async fn exchange(&self, outgoing: Outgoing<'_>) -> Result<Incoming, CallFailure> {
        self.config.proxies.route(&outgoing.site.url)?;
        let host = self.host(&outgoing.site.url.authority());
        let _slot = host.acquire().await.ok();
        let clients = self.tls.clients(outgoing.site, outgoing.token_kind.into()).await?;
        let client = if outgoing.reuses_connection { &clients.kept } else { &clients.fresh };
        let url = format!("{}/{}/{}", outgoing.site.url, outgoing.root, outgoing.path);
        let mut request =
            client.request(outgoing.method, url).header(HeaderName::from_static("x-request-id"), outgoing.request_id);
        let is_probe = outgoing.token_kind == TokenKind::None;
        if !outgoing.body.is_empty() {
            let json = HeaderValue::from_static("application/json");
            request = request.header(CONTENT_TYPE, json).body(bytes::Bytes::from_owner(outgoing.body));
        }
        if let Some(token) = outgoing.access_token {
            request = request.header(HeaderName::from_static("private-token"), sensitive(token)?);
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(self.with_scheme(outgoing.site, not_answered(error), is_probe).await),
        };
        received(response, outgoing.max_answer_bytes, outgoing.keeps_cut_success).await
    }

    /// Names the proxy that a failed request went through.
    pub(super) async fn with_proxy(&self, site: &Site, failure: CallFailure) -> CallFailure {
        match self.config.proxies.route(&site.url) {
            Ok(Some(route)) => route.blamed(site, failure, self.config.connect_timeout).await,
            Ok(None) | Err(_) => failure,
        }
    }

    /// Tells an alert of TLS, which is the answer of an https port to plain http, from an answer that was lost. A port that
    /// closes the connection without an alert is asked after a probe alone: any other request may have been executed, and
    /// is not held up.
    async fn with_scheme(&self, site: &Site, failure: CallFailure, is_probe: bool) -> CallFailure {
        let is_direct = matches!(self.config.proxies.route(&site.url), Ok(None));
        let is_no_http = failure.source.as_deref().is_some_and(|error| is_no_http(error));
        let is_lost = failure.kind == ErrorKind::ConnectionLost && is_direct && !site.url.is_https();
        if !is_lost || !(is_no_http || is_probe) || !scheme::speaks_tls(&site.url).await {
            return failure;
        }
        if is_no_http {
            return CallFailure { kind: ErrorKind::HttpsExpected, source: None, ..failure };
        }
        failure.with_detail("and the server speaks https on this port: set `url` to https://")
    }

    /// Drops everything built from TLS files and the system's authorities, including idle connections. Requests in
    /// flight continue.
    pub(super) fn forget_tls(&self) {
        self.tls.forget();
    }

    pub(super) fn other_addresses(&self) -> &OtherAddresses {
        &self.other_addresses
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn in_flight_per_host(&self) -> usize {
        self.config.in_flight()
    }

    pub(super) fn request_timeout(&self) -> Duration {
        self.config.request_timeout
    }

    fn host(&self, authority: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = || Arc::new(Semaphore::new(self.config.in_flight()));
        Arc::clone(hosts.entry(authority.to_owned()).or_insert_with(slots))
    }
}

fn sensitive(token: &Token) -> Result<HeaderValue, CallFailure> {
    let unusable = |_| CallFailure::new(ErrorKind::AccessTokenRefused).with_detail("it is not a valid header value");
    let mut value = HeaderValue::from_str(token.expose()).map_err(unusable)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Reads an answer to its end, up to the size limit.
async fn received(
    mut response: reqwest::Response,
    max_bytes: usize,
    keeps_cut_success: bool,
) -> Result<Incoming, CallFailure> {
    let status = response.status();
    let mut body = Zeroizing::new(Vec::with_capacity(FIRST_CAPACITY));
    let is_announced_too_large = response.content_length().is_some_and(|announced| announced > max_bytes as u64);
    let read = if is_announced_too_large && !(keeps_cut_success && status.is_success()) {
        Err(too_large(max_bytes))
    } else {
        read_body(&mut response, max_bytes, &mut body).await
    };
    let cut = match read {
        Ok(()) => None,
        // Their status says everything.
        Err(_) if status.is_redirection() || matches!(status.as_u16(), 407 | 429) => {
            body.clear();
            None
        }
        Err(failure) if keeps_cut_success && status.is_success() => Some(failure),
        Err(failure) => return Err(CallFailure { status: Some(status.as_u16()), ..failure }),
    };
    let url = response.url().clone();
    let headers = std::mem::take(response.headers_mut());
    Ok(Incoming { status: status.as_u16(), url, headers, body, cut })
}

/// Bytes of a body before it grows: GitLab's answers about one runner fit.
const FIRST_CAPACITY: usize = 1024;

async fn read_body(
    response: &mut reqwest::Response,
    max_bytes: usize,
    body: &mut Zeroizing<Vec<u8>>,
) -> Result<(), CallFailure> {
    while let Some(chunk) = response.chunk().await.map_err(not_answered)? {
        let room = max_bytes - body.len();
        append(body, &chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            return Err(too_large(max_bytes));
        }
    }
    Ok(())
}

/// Appends to a body that may hold a secret: memory that it grows out of is zeroed.
fn append(body: &mut Zeroizing<Vec<u8>>, chunk: &[u8]) {
    if body.capacity() - body.len() < chunk.len() {
        let mut larger = Zeroizing::new(Vec::with_capacity((body.len() + chunk.len()).next_power_of_two()));
        larger.extend_from_slice(body);
        *body = larger;
    }
    body.extend_from_slice(chunk);
}

fn too_large(max_bytes: usize) -> CallFailure {
    CallFailure::new(ErrorKind::TooLarge).with_detail(format!("more than {} KiB", max_bytes / 1024))
}

fn not_answered(error: reqwest::Error) -> CallFailure {
    let error = error.without_url();
    let kind = match tls_error(&error) {
        Some(tls) if error.is_connect() => tls_kind(tls),
        // With TLS 1.3 the server checks the client certificate after the client has sent its request.
        Some(tls) if tls_kind(tls) == ErrorKind::TlsClientCertificate => ErrorKind::TlsClientCertificate,
        _ if error.is_connect() && error.is_timeout() => ErrorKind::ConnectTimeout,
        _ if error.is_connect() && error.is_dns() => ErrorKind::NameLookup,
        _ if error.is_connect() => ErrorKind::Connect,
        _ if error.is_timeout() => ErrorKind::Timeout,
        _ => ErrorKind::ConnectionLost,
    };
    let failure = CallFailure::new(kind);
    match tls_error(&error).and_then(times_of_certificate) {
        // It names the times in words.
        Some(times) if kind == ErrorKind::TlsExpired => failure.with_detail(times),
        // The library has these by the names of its own types.
        _ if let Some(problem) = tls_error(&error).and_then(problem_in_words) => failure.with_detail(problem),
        // The cause is only that of the handshake.
        _ if kind == ErrorKind::HttpExpected => failure,
        Some(_) | None => failure.with_source(error),
    }
}

/// The times by which a certificate was refused.
fn times_of_certificate(error: &rustls::Error) -> Option<String> {
    let shown =
        |time: &UnixTime| Timestamp::from_millis(i64::try_from(time.as_secs()).unwrap_or(i64::MAX / 1000) * 1000);
    Some(match error {
        rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { time, not_after }) => {
            format!("this machine's clock says {}, and it is valid until {}", shown(time), shown(not_after))
        }
        rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { time, not_before }) => format!(
            "this machine's clock says {}, and it is valid from {}: the clock is probably behind",
            shown(time),
            shown(not_before)
        ),
        _ => return None,
    })
}

/// Whether the answer was not one of HTTP: what hyper says about its first line.
fn is_no_http(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.to_string().starts_with("invalid HTTP") {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Finds the TLS error among an error's causes.
fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut cause = StdError::source(error);
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref() {
            return Some(tls);
        }
        // An `io::Error` hides what it wraps from `source`.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = wrapped.map(|wrapped| wrapped as &(dyn StdError + 'static)).or_else(|| error.source());
    }
    None
}

pub(super) fn tls_kind(error: &rustls::Error) -> ErrorKind {
    match error {
        error if is_without_names(error) => ErrorKind::TlsNoName,
        rustls::Error::InvalidCertificate(error) => certificate_kind(error),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => ErrorKind::HttpExpected,
        rustls::Error::AlertReceived(
            AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::NoCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate,
        ) => ErrorKind::TlsClientCertificate,
        _ => ErrorKind::Tls,
    }
}

/// What webpki says of a certificate that is its own authority, and of one of version 1.
const OWN_AUTHORITY: &str = "CaUsedAsEndEntity";
const FIRST_VERSION: &str = "UnsupportedCertVersion";

fn problem_in_words(error: &rustls::Error) -> Option<String> {
    let rustls::Error::InvalidCertificate(CertificateError::Other(problem)) = error else { return None };
    let words = match problem.to_string().as_str() {
        OWN_AUTHORITY => "it is its own authority",
        FIRST_VERSION => "it has version 1",
        _ => return None,
    };
    Some(words.to_owned())
}

fn certificate_kind(error: &CertificateError) -> ErrorKind {
    match error {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => ErrorKind::TlsName,
        // A bad signature: the authority has a new key, and the old one is still trusted.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => ErrorKind::TlsIssuer,
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => ErrorKind::TlsExpired,
        CertificateError::Other(problem) if problem.to_string() == OWN_AUTHORITY => ErrorKind::TlsIssuer,
        CertificateError::Other(problem) if problem.to_string() == FIRST_VERSION => ErrorKind::TlsNoName,
        _ => ErrorKind::Tls,
    }
}

impl Incoming {
    /// Whether the answer can be from GitLab's API.
    pub(super) fn is_json(&self) -> bool {
        headers::is_json(&self.headers)
    }

    /// Whether the answer carries GitLab's `X-Gitlab-Meta`, JSON with a correlation id. Proxies strip it at times, so only
    /// its presence says something.
    pub(super) fn has_gitlab_meta(&self) -> bool {
        headers::has_gitlab_meta(&self.headers)
    }

    /// Reads GitLab's error body, if this has one.
    pub(super) fn error_body(&self) -> Option<ErrorBody> {
        if self.is_json() { ErrorBody::read(&self.body) } else { None }
    }

    /// Describes an answer that is not GitLab's, without its content.
    pub(super) fn description(&self) -> &'static str {
        match self.body.trim_ascii_start().first() {
            Some(b'<') => "an HTML page",
            Some(_) if self.is_json() => "JSON that GitLab does not send",
            Some(_) => "text that is not JSON",
            None => "an empty answer",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_token_in_a_header_is_not_printed() {
        let value = sensitive(&Token::parse("glpat-secret").unwrap()).unwrap();
        assert!(!format!("{value:?}").contains("secret"));
    }
}
