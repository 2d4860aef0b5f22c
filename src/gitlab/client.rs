//! The calls of a runner, and how every call is sent.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::model::{Expiry, RunnerId, Site, SystemId};
use crate::secret::Token;

use super::endpoint::TokenKind;
use super::error::CallFailure;
use super::error_body::{self, ErrorBody};
use super::transport::{Incoming, Outgoing, Transport};
use super::wire::{self, EmptyRequest, Flaw, RegisterRequest, TokenRequest};
use super::{
    Answer, Config, Endpoint, Error, ErrorKind, Exchange, Info, RegisterParameters, Registered, Reset, Verified,
};
use super::{headers, refusal};

#[cfg(any(test, fuzzing))]
pub mod fuzzing;

/// A client for any number of GitLab servers. Clones are cheap and share their connections.
/// [`fleet`](Self::fleet) has the calls that need an access token.
///
/// Every method sends one request, once, and fails with an [`Error`]. Dropping the future of a call cancels
/// it; the server may or may not have acted.
#[derive(Clone)]
pub struct Client(Arc<Transport>);

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Client")
    }
}

/// One call without its request id.
pub(super) struct Call<'a> {
    endpoint: Endpoint,
    site: &'a Site,
    /// Relative to the endpoint's API root, percent-encoded, with its query.
    path: &'a str,
    /// Empty for a request without a body.
    body: Zeroizing<Vec<u8>>,
    /// The token of the request, which no error or log line may show.
    secret: &'a Token,
}

impl Client {
    /// Creates a client. Files are read and connections made on first use.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self(Arc::new(Transport::new(config)))
    }

    /// Drops the loaded certificates and authorities, including the system's: the next call reads them again
    /// and opens a new connection. Calls in flight continue.
    pub fn forget_tls(&self) {
        self.0.forget_tls();
    }

    /// Registers a runner: `POST /runners`. Each success creates another runner.
    ///
    /// # Errors
    /// [`Error`]. An answer without a valid id and token has an unknown effect: the server created a runner.
    pub async fn register(
        &self,
        site: &Site,
        registration_token: &Token,
        parameters: &RegisterParameters,
    ) -> Result<Answer<Registered>, Error> {
        let body = json(&RegisterRequest::new(registration_token, parameters));
        let call = Call::new(Endpoint::Register, site, "runners", body, registration_token);
        self.call(call, |incoming| success(incoming, wire::registered)).await
    }

    /// Checks a runner's token and reads its expiry: `POST /runners/verify`. The server creates this
    /// machine's manager if it is missing.
    ///
    /// # Errors
    /// [`Error`], also for an answer about another token.
    pub async fn verify(
        &self,
        site: &Site,
        token: &Token,
        system_id: &SystemId,
        info: Option<&Info>,
    ) -> Result<Answer<Verified>, Error> {
        let body = json(&TokenRequest::new(token, Some(system_id), info));
        let call = Call::new(Endpoint::Verify, site, "runners/verify", body, token);
        self.call(call, |incoming| {
            if incoming.status == 200 && wire::is_plain_acceptance(&incoming.body) {
                return Ok(Verified { id: None, expiry: Expiry::Unknown, legacy: true });
            }
            success(incoming, |body| wire::verified(body, token))
        })
        .await
    }

    /// Deletes a runner with all its managers, including those of other machines: `DELETE /runners`.
    ///
    /// # Errors
    /// [`Error`]. A second deletion is refused like any unknown token.
    pub async fn delete_runner(&self, site: &Site, token: &Token) -> Result<Answer<()>, Error> {
        let body = json(&TokenRequest::new(token, None, None));
        let call = Call::new(Endpoint::DeleteRunner, site, "runners", body, token);
        self.call(call, deleted).await
    }

    /// Deletes this machine's manager and keeps the runner and its token: `DELETE /runners/managers`.
    ///
    /// # Errors
    /// [`Error`]. A second deletion is [`Gone`](super::Disposition::Gone).
    pub async fn delete_manager(&self, site: &Site, token: &Token, system_id: &SystemId) -> Result<Answer<()>, Error> {
        let body = json(&TokenRequest::new(token, Some(system_id), None));
        let call = Call::new(Endpoint::DeleteManager, site, "runners/managers", body, token);
        self.call(call, deleted).await
    }

    /// Rotates a token: `POST /runners/reset_authentication_token`. The old token is revoked at once, and only
    /// this answer contains the new one.
    ///
    /// # Errors
    /// [`Error`]. An answer without a valid token has an unknown effect: the old token is revoked.
    pub async fn reset(&self, site: &Site, token: &Token, system_id: &SystemId) -> Result<Answer<Reset>, Error> {
        let body = json(&TokenRequest::new(token, Some(system_id), None));
        let call = Call::new(Endpoint::Reset, site, "runners/reset_authentication_token", body, token);
        self.call(call, |incoming| success(incoming, wire::reset)).await
    }

    /// Rotates a token with an access token, even an expired one: `POST /runners/:id/reset_authentication_token`.
    ///
    /// # Errors
    /// [`Error`], as for [`reset`](Self::reset).
    pub async fn reset_by_id(&self, site: &Site, id: RunnerId, access_token: &Token) -> Result<Answer<Reset>, Error> {
        let path = format!("runners/{id}/reset_authentication_token");
        let call = Call::new(Endpoint::ResetById, site, &path, json(&EmptyRequest {}), access_token);
        self.call(call, |incoming| success(incoming, wire::reset)).await
    }

    /// Sends one request, reads its answer and logs one line.
    pub(super) async fn call<T>(
        &self,
        call: Call<'_>,
        read: impl FnOnce(&Incoming) -> Result<T, CallFailure>,
    ) -> Result<Answer<T>, Error> {
        let request_id = request_id();
        let (endpoint, host, secret) = (call.endpoint, call.site.url.authority(), call.secret);
        let started = Instant::now();
        let outcome = match self.0.exchange(call.outgoing(&request_id)).await {
            Ok(incoming) if (200..=299).contains(&incoming.status) => {
                let value = read(&incoming).map_err(|failure| CallFailure { status: Some(incoming.status), ..failure });
                value.map(|value| (value, incoming))
            }
            Ok(incoming) => Err(refused(endpoint, &incoming, secret)),
            Err(failure) => Err(failure),
        };
        let took = started.elapsed();
        let elapsed_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let outcome_name = outcome.as_ref().map_or_else(|failure| failure.kind.as_str(), |_| "ok");
        self.0.observe(&Exchange { endpoint, outcome: outcome_name, took });
        match outcome {
            Ok((value, incoming)) => {
                let status = incoming.status;
                tracing::debug!(endpoint = endpoint.as_str(), host, request_id, status, elapsed_ms, "request answered");
                Ok(Answer { value, date: headers::date(&incoming.headers), request_id })
            }
            Err(failure) => {
                let (kind, status) = (failure.kind.as_str(), failure.status);
                tracing::debug!(
                    endpoint = endpoint.as_str(),
                    host,
                    request_id,
                    kind,
                    status,
                    elapsed_ms,
                    "request failed"
                );
                Err(Error::new(endpoint, host, request_id, failure))
            }
        }
    }
}

impl<'a> Call<'a> {
    /// `secret` is sent in a header if it is an access token; `body` already contains any other token.
    pub(super) fn new(
        endpoint: Endpoint,
        site: &'a Site,
        path: &'a str,
        body: Zeroizing<Vec<u8>>,
        secret: &'a Token,
    ) -> Self {
        Self { endpoint, site, path, body, secret }
    }

    fn outgoing(self, request_id: &'a str) -> Outgoing<'a> {
        Outgoing {
            site: self.site,
            method: self.endpoint.method(),
            root: self.endpoint.root(),
            path: self.path,
            body: self.body,
            access_token: (self.endpoint.token_kind() == TokenKind::Access).then_some(self.secret),
            request_id,
            reuses_connection: !self.endpoint.has_side_effects(),
            max_answer_bytes: self.endpoint.max_answer_bytes(),
        }
    }
}

/// Reads the body of a success, which must be JSON by its content type and its syntax.
pub(super) fn success<T>(incoming: &Incoming, read: impl FnOnce(&[u8]) -> Result<T, Flaw>) -> Result<T, CallFailure> {
    if !incoming.is_json() {
        return Err(CallFailure::new(ErrorKind::NotGitlab).with_detail(incoming.description()));
    }
    read(&incoming.body).map_err(|Flaw(flaw)| CallFailure::new(ErrorKind::UnexpectedAnswer).with_detail(flaw))
}

/// Reads the answer to a deletion, which must have status 204.
pub(super) fn deleted(incoming: &Incoming) -> Result<(), CallFailure> {
    if incoming.status == 204 {
        return Ok(());
    }
    success(incoming, |_| Err(Flaw("not the status of a deletion")))
}

/// Reads an answer without a success status.
fn refused(endpoint: Endpoint, incoming: &Incoming, secret: &Token) -> CallFailure {
    let body = if incoming.is_json() { ErrorBody::read(&incoming.body) } else { None };
    let kind = refusal::kind(endpoint, incoming.status, body.as_ref());
    let detail = if kind == ErrorKind::Redirect {
        let host = headers::location_host(&incoming.headers, &incoming.url);
        host.map(|host| format!("to {}", error_body::sanitized(&host, &[secret])))
    } else {
        (kind == ErrorKind::NotGitlab).then(|| incoming.description().to_owned())
    };
    CallFailure {
        kind,
        status: Some(incoming.status),
        date: body.as_ref().and_then(|_| headers::date(&incoming.headers)),
        server_message: body.map(|body| body.sanitized(&[secret])),
        detail,
        retry_after: headers::retry_after(&incoming.headers, kind == ErrorKind::RateLimited),
        source: None,
    }
}

/// Serializes a request body into memory that is zeroed on drop.
pub(super) fn json(request: &impl Serialize) -> Zeroizing<Vec<u8>> {
    let mut body = Zeroizing::new(Vec::with_capacity(BODY_CAPACITY));
    #[expect(clippy::expect_used, reason = "structs of strings and numbers always serialize into memory")]
    serde_json::to_writer(&mut *body, request).expect("the request serializes into memory");
    body
}

/// Initial capacity of a request body, in bytes: growing a buffer leaves a copy of the token in memory, so only
/// the longest registrations exceed it.
const BODY_CAPACITY: usize = 4096;

/// Returns a new `X-Request-Id` of 32 hex digits, as gitlab-runner sends it.
fn request_id() -> String {
    let mut bytes = [0_u8; 16];
    // If this fails, ids repeat: logs are harder to read, but nothing breaks.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).ok();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
