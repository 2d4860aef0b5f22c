//! Sends an event to a web server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use super::{Delivery, Hook, HookError};
use crate::files::spawn_file_task;
use crate::gitlab::{JsonClient, Proxies};
use crate::model::{TlsPaths, WebhookUrl};
use crate::secret::{Source, hmac_sha256_hex};

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
    pub(super) async fn run(&self, hook: &Hook, delivery: Delivery<'_>) -> Result<String, HookError> {
        let body = hook.body(delivery.event)?;
        let failed = |error: String| HookError::Passing(error);
        let Self { url, secret, ca_file, proxies } = self.clone();
        // Both read files.
        let prepared = spawn_file_task(Path::new("the CA certificates and the secret of a hook"), move || {
            let secret = secret.map(|secret| secret.read().map_err(|error| error.to_string())).transpose()?;
            let tls = TlsPaths { ca_file, ..TlsPaths::default() }.into();
            Ok((JsonClient::for_site(url.site(), &proxies, &tls, CONNECT_TIMEOUT)?, secret))
        });
        let (client, secret) = prepared.await.map_err(|error| failed(error.to_string()))?.map_err(failed)?;
        let mut headers = vec![
            ("x-runner-agent-event", delivery.event.event.to_string()),
            ("x-runner-agent-event-id", delivery.event.event_id.clone()),
        ];
        if let Some(secret) = secret {
            let signature = hmac_sha256_hex(secret.expose().as_bytes(), &body);
            headers.push(("x-runner-agent-signature", format!("sha256={signature}")));
        }
        let sent = client.post_with(self.url.as_str().to_owned(), Zeroizing::new(body), &headers, hook.timeout).await;
        let answer = sent.map_err(|error| failed(format!("no answer: {error}")))?;
        match answer.status {
            200..=299 => Ok(format!("the server has taken it (status {})", answer.status)),
            status @ (408 | 429) => Err(failed(format!("the server is busy (status {status})"))),
            status @ 400..=499 => Err(HookError::Lasting(format!("the server has refused it (status {status})"))),
            status => Err(failed(format!("the server has failed (status {status})"))),
        }
    }
}
