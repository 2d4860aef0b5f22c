//! The calls.

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
#[path = "../../tests/fuzz/checks/gitlab.rs"]
pub mod fuzzing;

/// The client of any number of GitLab servers. Cloning is cheap, and clones share their connections.
/// The calls that an access token allows are those of its [`fleet`](Self::fleet).
///
/// Every method sends one request, once, and fails with an [`Error`]. Dropping the future of a call
/// cancels it, after which nobody can tell whether the server acted.
#[derive(Clone)]
pub struct Client(Arc<Transport>);

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Client")
    }
}

/// One call, before it has a request id.
pub(super) struct Call<'a> {
    endpoint: Endpoint,
    site: &'a Site,
    /// Below the root of the endpoint's API, encoded, with its query.
    path: &'a str,
    /// Empty for a request without one.
    body: Zeroizing<Vec<u8>>,
    /// The token that must not show up in anything that is reported.
    secret: &'a Token,
}

impl Client {
    /// Makes a client; nothing is read or connected before its first use.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self(Arc::new(Transport::new(config)))
    }

    /// Forgets client certificates, named authorities and those of the system, so that the next call reads
    /// them again and connects anew. Calls under way are not disturbed.
    pub fn forget_tls(&self) {
        self.0.forget_tls();
    }

    /// Makes a runner: `POST /runners`. Each success makes another one.
    ///
    /// # Errors
    /// [`Error`]; an answer without a usable id and token is of unknown effect, since a runner was made.
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

    /// Asks whether a runner's token is good, and until when: `POST /runners/verify`. Makes this
    /// machine's manager on the server if there is none.
    ///
    /// # Errors
    /// [`Error`]; an answer about another token is none.
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

    /// Deletes a runner with all its managers, also those of other machines: `DELETE /runners`.
    ///
    /// # Errors
    /// [`Error`]; deleted twice is refused like any unknown token.
    pub async fn delete_runner(&self, site: &Site, token: &Token) -> Result<Answer<()>, Error> {
        let body = json(&TokenRequest::new(token, None, None));
        let call = Call::new(Endpoint::DeleteRunner, site, "runners", body, token);
        self.call(call, deleted).await
    }

    /// Deletes this machine's manager, leaving the runner and its token alive:
    /// `DELETE /runners/managers`.
    ///
    /// # Errors
    /// [`Error`]; deleted twice is gone.
    pub async fn delete_manager(&self, site: &Site, token: &Token, system_id: &SystemId) -> Result<Answer<()>, Error> {
        let body = json(&TokenRequest::new(token, Some(system_id), None));
        let call = Call::new(Endpoint::DeleteManager, site, "runners/managers", body, token);
        self.call(call, deleted).await
    }

    /// Replaces a token by a new one: `POST /runners/reset_authentication_token`. The old one dies at
    /// once, and the answer is the only place where the new one is ever shown.
    ///
    /// # Errors
    /// [`Error`]; an answer without a usable token is of unknown effect, since the old one is dead.
    pub async fn reset(&self, site: &Site, token: &Token, system_id: &SystemId) -> Result<Answer<Reset>, Error> {
        let body = json(&TokenRequest::new(token, Some(system_id), None));
        let call = Call::new(Endpoint::Reset, site, "runners/reset_authentication_token", body, token);
        self.call(call, |incoming| success(incoming, wire::reset)).await
    }

    /// Replaces a token by a new one with an access token, which also revives an expired one:
    /// `POST /runners/:id/reset_authentication_token`.
    ///
    /// # Errors
    /// [`Error`]; as for [`reset`](Self::reset).
    pub async fn reset_by_id(&self, site: &Site, id: RunnerId, access_token: &Token) -> Result<Answer<Reset>, Error> {
        let path = format!("runners/{id}/reset_authentication_token");
        let call = Call::new(Endpoint::ResetById, site, &path, json(&EmptyRequest {}), access_token);
        self.call(call, |incoming| success(incoming, wire::reset)).await
    }

    /// Sends one request and reads its answer; leaves one line in the log.
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
        let outcome_word = outcome.as_ref().map_or_else(|failure| failure.kind.label(), |_| "ok");
        self.0.observe(&Exchange { endpoint, outcome: outcome_word, took });
        match outcome {
            Ok((value, incoming)) => {
                let status = incoming.status;
                tracing::debug!(endpoint = endpoint.label(), host, request_id, status, elapsed_ms, "request answered");
                Ok(Answer { value, date: headers::date(&incoming.headers), request_id })
            }
            Err(failure) => {
                let (kind, status) = (failure.kind.label(), failure.status);
                tracing::debug!(
                    endpoint = endpoint.label(),
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
    /// What a request goes out from; an access token goes into a header, any other is in the body already.
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
            on_kept_connection: !self.endpoint.changes_something(),
            max_answer_bytes: self.endpoint.max_answer_bytes(),
        }
    }
}

/// Reads the body of a success: JSON by its own word and by its shape.
pub(super) fn success<T>(incoming: &Incoming, read: impl FnOnce(&[u8]) -> Result<T, Flaw>) -> Result<T, CallFailure> {
    if !incoming.is_json() {
        return Err(CallFailure::new(ErrorKind::NotGitlab).with_detail(incoming.looks()));
    }
    read(&incoming.body).map_err(|Flaw(flaw)| CallFailure::new(ErrorKind::UnexpectedAnswer).with_detail(flaw))
}

/// Reads the answer to a deletion, which is the status 204 and nothing else.
pub(super) fn deleted(incoming: &Incoming) -> Result<(), CallFailure> {
    if incoming.status == 204 {
        return Ok(());
    }
    success(incoming, |_| Err(Flaw("its status does not say that anything was deleted")))
}

/// Reads an answer that is no success.
fn refused(endpoint: Endpoint, incoming: &Incoming, secret: &Token) -> CallFailure {
    let body = if incoming.is_json() { ErrorBody::read(&incoming.body) } else { None };
    let kind = refusal::kind(endpoint, incoming.status, body.as_ref());
    let detail = if kind == ErrorKind::Redirect {
        let host = headers::location_host(&incoming.headers, &incoming.url);
        host.map(|host| format!("to {}", error_body::sanitized(&host, &[secret])))
    } else {
        (kind == ErrorKind::NotGitlab).then(|| incoming.looks().to_owned())
    };
    CallFailure {
        kind,
        status: Some(incoming.status),
        date: body.as_ref().and_then(|_| headers::date(&incoming.headers)),
        server_message: body.map(|body| body.shown(&[secret])),
        detail,
        retry_after: headers::retry_after(&incoming.headers, kind == ErrorKind::RateLimited),
        source: None,
    }
}

/// Writes a request's body into memory that is zeroed when dropped.
pub(super) fn json(request: &impl Serialize) -> Zeroizing<Vec<u8>> {
    let mut body = Zeroizing::new(Vec::with_capacity(BODY_CAPACITY));
    #[expect(clippy::expect_used, reason = "plain structs of texts and numbers always serialize into memory")]
    serde_json::to_writer(&mut *body, request).expect("plain structs serialize into memory");
    body
}

/// Room for any request's body but the wordiest registration, in bytes: growing would leave a copy of
/// the token behind.
const BODY_CAPACITY: usize = 4096;

/// A new `X-Request-Id`, 32 hex digits as gitlab-runner's.
fn request_id() -> String {
    let mut bytes = [0_u8; 16];
    // Without the system's randomness ids repeat, which makes logs harder to read and nothing else.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).ok();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
