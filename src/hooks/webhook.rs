//! Sends an event to a web server.

use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use super::file_work::file_work;
use super::limit::TimeLimit;
use super::{Delivery, Hook, HookError};
use crate::gitlab::{JsonClient, Proxies};
use crate::model::{TlsPaths, WebhookUrl};
use crate::secret::{Source, Token, hmac_sha256_hex};

/// Time limit of name lookup, connection and TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A web server that gets events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookAction {
    /// Its address.
    pub url: WebhookUrl,
    /// The key of the signature.
    pub secret: Option<Source>,
    /// Certificates to trust in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// The proxies, of which one may lead to it.
    pub proxies: Proxies,
}

impl WebhookAction {
    pub(super) async fn run(&self, hook: &Hook, delivery: Delivery<'_>, limit: TimeLimit) -> Result<String, HookError> {
        let body = hook.body(delivery.event)?;
        let failed = |error: String| HookError::Passing(error);
        let secret = self.read_secret(limit).await?;
        let client = self.client(limit).await?;
        let mut headers = vec![
            ("x-runner-agent-event", delivery.event.event.to_string()),
            ("x-runner-agent-event-id", delivery.event.event_id.clone()),
        ];
        if let Some(secret) = secret {
            let signature = hmac_sha256_hex(secret.expose().as_bytes(), &body);
            headers.push(("x-runner-agent-signature", format!("sha256={signature}")));
        }
        let url = self.url.as_str().to_owned();
        let sent = client.post_with(url, Zeroizing::new(body), &headers, limit.left()).await;
        let answer = sent.map_err(|error| failed(format!("no answer: {error}")))?;
        match answer.status {
            200..=299 => Ok(format!("the server has taken it (status {})", answer.status)),
            status @ (408 | 429) => Err(failed(format!("the server is busy (status {status})"))),
            status @ 400..=499 => Err(HookError::Lasting(format!("the server has refused it (status {status})"))),
            status => Err(failed(format!("the server has failed (status {status})"))),
        }
    }
    async fn read_secret(&self, limit: TimeLimit) -> Result<Option<Token>, HookError> {
        let Some(secret) = self.secret.clone() else { return Ok(None) };
        let path = PathBuf::from(secret.label());
        let read = file_work(limit, &path, move || secret.read().map_err(|error| error.to_string()));
        read.await?.map(Some).map_err(HookError::Passing)
    }

    /// Makes a client. It reads the CA certificates.
    async fn client(&self, limit: TimeLimit) -> Result<JsonClient, HookError> {
        let Self { url, ca_file, proxies, .. } = self.clone();
        let path = ca_file.clone().unwrap_or_else(|| PathBuf::from("the system's CA certificates"));
        let made = file_work(limit, &path, move || {
            let tls = TlsPaths { ca_file, ..TlsPaths::default() }.into();
            JsonClient::for_site(url.site(), &proxies, &tls, CONNECT_TIMEOUT)
        });
        made.await?.map_err(HookError::Passing)
    }
}
