//! JSON requests to a server that is not GitLab, by the same rules for TLS files.

use std::error::Error as StdError;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, RequestBuilder};
use zeroize::Zeroizing;

use super::Proxies;
use super::error::CallFailure;
use super::proxy::Route;
use super::tls::{FileTrust, SystemRoots, TlsProfile};
use crate::model::{ServerUrl, TlsFiles};

/// Bounds the wait for a peer that has gone away without a word.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// How long a stream is read. Its caller begins another one.
const STREAM: Duration = Duration::from_secs(24 * 3600);

/// Size limit of an answer and of one message of a stream, in bytes.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// A client for JSON requests with POST. It follows no redirect.
#[derive(Clone, Debug)]
pub struct JsonClient {
    client: Client,
    /// The variable of the proxy that all requests go through.
    proxy: Option<&'static str>,
}

/// An answer.
#[derive(Debug)]
pub struct JsonAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The whole body. It may hold a secret.
    pub body: Zeroizing<Vec<u8>>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonFailure {
    /// The server cannot have the request.
    #[error("{0}")]
    NotSent(String),
    /// It may have it.
    #[error("{0}")]
    Lost(String),
}

/// The messages of an answer that does not end.
#[derive(Debug)]
pub struct JsonStream {
    response: reqwest::Response,
    /// What was received of the messages that were not returned yet.
    received: Zeroizing<Vec<u8>>,
}

impl JsonClient {
    /// A client with these TLS files, which no other user may have written. Reads them. It knows no proxy.
    ///
    /// # Errors
    /// A message that names the file.
    pub fn new(tls: &TlsFiles, connect_timeout: Duration) -> Result<Self, String> {
        Self::on_route(None, tls, connect_timeout)
    }

    /// As [`JsonClient::new`], for one site, by the way that these proxies say.
    ///
    /// # Errors
    /// A message that names the file, or the variable of the proxy.
    pub fn for_site(
        site: &ServerUrl,
        proxies: &Proxies,
        tls: &TlsFiles,
        connect_timeout: Duration,
    ) -> Result<Self, String> {
        Self::on_route(proxies.route(site).map_err(text_of)?, tls, connect_timeout)
    }

    fn on_route(route: Option<Route>, tls: &TlsFiles, connect_timeout: Duration) -> Result<Self, String> {
        let client = match (&tls.cert_file, &tls.key_file) {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err("a client certificate needs both its file and that of its key".to_owned());
            }
        };
        let profile = TlsProfile::Tls { ca: tls.ca_file.clone(), client, trust: FileTrust::OnlyOwn };
        let tls = profile.config(&SystemRoots::default()).map_err(text_of)?;
        let variable = route.as_ref().map(|route| route.variable);
        let proxy = route.map(|route| reqwest::Proxy::all(route.url)).transpose().map_err(cause)?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            .http1_only()
            .no_proxy()
            .connect_timeout(connect_timeout)
            .tcp_keepalive(KEEPALIVE)
            .tcp_keepalive_interval(KEEPALIVE)
            .tcp_keepalive_retries(2);
        let client = proxy.into_iter().fold(client, reqwest::ClientBuilder::proxy);
        Ok(Self { client: client.build().map_err(cause)?, proxy: variable })
    }

    /// Sends a request, once. `authorization` is a secret.
    ///
    /// # Errors
    /// [`JsonFailure`].
    pub async fn post(
        &self,
        url: String,
        body: Zeroizing<Vec<u8>>,
        authorization: Option<&str>,
        timeout: Duration,
    ) -> Result<JsonAnswer, JsonFailure> {
        received(self.request(url, body, authorization, timeout)?).await
    }

    /// Sends a request with these headers, once. Returns the HTTP status of its answer, whose body is not read.
    ///
    /// # Errors
    /// [`JsonFailure`].
    pub async fn post_for_status(
        &self,
        url: String,
        body: Zeroizing<Vec<u8>>,
        headers: &[(&'static str, String)],
        timeout: Duration,
    ) -> Result<u16, JsonFailure> {
        let request = self.request(url, body, None, timeout)?;
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
        let answer = request.send().await.map_err(failure_of);
        let status = answer.map(|response| response.status().as_u16());
        let Some(variable) = self.proxy else { return status };
        let by_proxy = |text| format!("{text}; the request went to the proxy in {variable}");
        status.map_err(|failure| match failure {
            JsonFailure::NotSent(text) => JsonFailure::NotSent(by_proxy(text)),
            JsonFailure::Lost(text) => JsonFailure::Lost(by_proxy(text)),
        })
    }

    /// Sends a request with one more header whose answer is a message per line, for as long as both sides like. The timeout
    /// is that of its beginning.
    ///
    /// # Errors
    /// [`JsonFailure`].
    pub async fn stream(
        &self,
        url: String,
        body: Zeroizing<Vec<u8>>,
        authorization: Option<&str>,
        header: (&'static str, &'static str),
        timeout: Duration,
    ) -> Result<JsonStream, JsonFailure> {
        let (name, value) = header;
        let sent = self.request(url, body, authorization, STREAM)?.header(name, value).send();
        let response = tokio::time::timeout(timeout, sent).await;
        let response = response.map_err(|_| JsonFailure::Lost("it did not answer in time".to_owned()))?;
        Ok(JsonStream { response: response.map_err(failure_of)?, received: Zeroizing::default() })
    }

    fn request(
        &self,
        url: String,
        body: Zeroizing<Vec<u8>>,
        authorization: Option<&str>,
        timeout: Duration,
    ) -> Result<RequestBuilder, JsonFailure> {
        let json = HeaderValue::from_static("application/json");
        let request = self.client.post(url).timeout(timeout).header(CONTENT_TYPE, json);
        let request = request.body(bytes::Bytes::from_owner(body));
        let Some(authorization) = authorization else { return Ok(request) };
        let unusable = |_| JsonFailure::NotSent("the credentials are no valid header value".to_owned());
        let mut value = HeaderValue::from_str(authorization).map_err(unusable)?;
        value.set_sensitive(true);
        Ok(request.header(AUTHORIZATION, value))
    }
}

impl JsonStream {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// Waits for the next message; `None` at the end.
    ///
    /// Cancellation safe.
    ///
    /// # Errors
    /// [`JsonFailure::Lost`].
    pub async fn next(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, JsonFailure> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let rest = Zeroizing::new(self.received.split_off(end + 1));
                let line = std::mem::replace(&mut self.received, rest);
                if line.iter().any(|byte| !byte.is_ascii_whitespace()) {
                    return Ok(Some(line));
                }
                continue;
            }
            match self.response.chunk().await.map_err(|error| JsonFailure::Lost(cause(error)))? {
                Some(chunk) => extend(&mut self.received, &chunk)?,
                None if self.received.is_empty() => return Ok(None),
                None => return Ok(Some(std::mem::take(&mut self.received))),
            }
        }
    }
}

/// Sends a request and reads its whole answer.
async fn received(request: RequestBuilder) -> Result<JsonAnswer, JsonFailure> {
    let mut response = request.send().await.map_err(failure_of)?;
    let mut received = Zeroizing::new(Vec::new());
    while let Some(chunk) = response.chunk().await.map_err(|error| JsonFailure::Lost(cause(error)))? {
        extend(&mut received, &chunk)?;
    }
    Ok(JsonAnswer { status: response.status().as_u16(), body: received })
}

fn extend(received: &mut Vec<u8>, chunk: &[u8]) -> Result<(), JsonFailure> {
    if received.len() + chunk.len() > MAX_ANSWER_BYTES {
        return Err(JsonFailure::Lost("its answer has more than 4 MiB".to_owned()));
    }
    received.extend_from_slice(chunk);
    Ok(())
}

fn failure_of(error: reqwest::Error) -> JsonFailure {
    if error.is_connect() || error.is_builder() {
        JsonFailure::NotSent(cause(error))
    } else {
        JsonFailure::Lost(cause(error))
    }
}

/// What went wrong, with its causes and without the address, which the caller knows.
fn cause(error: reqwest::Error) -> String {
    chain(String::new(), &error.without_url())
}

fn text_of(failure: CallFailure) -> String {
    let detail = failure.detail.unwrap_or_default();
    match failure.source {
        Some(source) => chain(detail, source.as_ref()),
        None => detail,
    }
}

fn chain(mut text: String, error: &(dyn StdError + 'static)) -> String {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
