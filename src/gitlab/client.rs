//! The calls of a runner, and how every call is sent.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::model::{Expiry, RunnerId, Site, SystemId};
use crate::secret::Token;

use super::error::CallFailure;
use super::error_body;
use super::refusal::Judgement;
use super::transport::{Incoming, Outgoing, Transport};
use super::wire::{self, EmptyRequest, Fields, Flaw, NewCredential, RegisterRequest, TokenRequest};
use super::{
    Answer, Config, Endpoint, Error, ErrorKind, Exchange, Info, RegisterParameters, Registered, Reset, Shape, Verified,
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
    secret: Option<&'a Token>,
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

    /// The number of requests that may be under way to one host; at least one.
    #[must_use]
    pub fn in_flight_per_host(&self) -> usize {
        self.0.in_flight_per_host()
    }

    /// How long an answer is waited for.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        self.0.request_timeout()
    }

    /// Registers a runner: `POST /runners`. Each success creates another runner.
    ///
    /// # Errors
    /// [`Error`]. An answer without a valid token has an unknown effect: the server created a runner.
    pub async fn register(
        &self,
        site: &Site,
        registration_token: &Token,
        parameters: &RegisterParameters,
    ) -> Result<Answer<Registered>, Error> {
        let body = json(&RegisterRequest::new(registration_token, parameters));
        let call = Call::new(Endpoint::Register, site, "runners", body, Some(registration_token));
        self.call(call, |incoming| registered(incoming, Fields::Id)).await
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
        let call = Call::new(Endpoint::Verify, site, "runners/verify", body, Some(token));
        self.call(call, |incoming| verified(incoming, token)).await
    }

    /// Asks whether a GitLab answers: `POST /runners/verify` without a token, which GitLab refuses in its own words.
    /// Needs no right and changes nothing.
    ///
    /// # Errors
    /// [`Error`] for any other answer.
    pub async fn probe(&self, site: &Site) -> Result<Answer<()>, Error> {
        let call = Call::new(Endpoint::Probe, site, "runners/verify", json(&EmptyRequest {}), None);
        self.call(call, probed).await
    }

    /// Deletes a runner with all its managers, including those of other machines: `DELETE /runners`.
    ///
    /// # Errors
    /// [`Error`]. A second deletion is refused like any unknown token.
    pub async fn delete_runner(&self, site: &Site, token: &Token) -> Result<Answer<()>, Error> {
        let body = json(&TokenRequest::new(token, None, None));
        let call = Call::new(Endpoint::DeleteRunner, site, "runners", body, Some(token));
        self.call(call, deleted).await
    }

    /// Deletes this machine's manager and keeps the runner and its token: `DELETE /runners/managers`.
    ///
    /// # Errors
    /// [`Error`]. A second deletion is [`Gone`](super::Disposition::Gone).
    pub async fn delete_manager(&self, site: &Site, token: &Token, system_id: &SystemId) -> Result<Answer<()>, Error> {
        let body = json(&TokenRequest::new(token, Some(system_id), None));
        let call = Call::new(Endpoint::DeleteManager, site, "runners/managers", body, Some(token));
        self.call(call, deleted).await
    }

    /// Rotates a token: `POST /runners/reset_authentication_token`. The old token is revoked at once, and only
    /// this answer contains the new one.
    ///
    /// # Errors
    /// [`Error`]. An answer without a valid token has an unknown effect: the old token is revoked.
    pub async fn reset(&self, site: &Site, token: &Token, system_id: &SystemId) -> Result<Answer<Reset>, Error> {
        let body = json(&TokenRequest::new(token, Some(system_id), None));
        let call = Call::new(Endpoint::Reset, site, "runners/reset_authentication_token", body, Some(token));
        self.call(call, reset).await
    }

    /// Rotates a token with an access token, even an expired one: `POST /runners/:id/reset_authentication_token`.
    ///
    /// # Errors
    /// [`Error`], as for [`reset`](Self::reset).
    pub async fn reset_by_id(&self, site: &Site, id: RunnerId, access_token: &Token) -> Result<Answer<Reset>, Error> {
        let path = format!("runners/{id}/reset_authentication_token");
        let call = Call::new(Endpoint::ResetById, site, &path, json(&EmptyRequest {}), Some(access_token));
        self.call(call, reset).await
    }

    /// Reads the TLS files with which a call would be made, and the address of the proxy. Connects to nothing.
    ///
    /// # Errors
    /// [`Error`], as of the call.
    pub async fn check_files(&self, endpoint: Endpoint, site: &Site) -> Result<(), Error> {
        let checked = self.0.check_files(site, endpoint.token_kind().into()).await;
        checked.map_err(|failure| Error::new(endpoint, site.url.authority(), String::new(), failure))
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.0
    }

    /// Sends one request, reads its answer and logs one line.
    pub(super) async fn call<T>(
        &self,
        call: Call<'_>,
        read: impl FnOnce(&Incoming) -> Result<T, CallFailure>,
    ) -> Result<Answer<T>, Error> {
        let request_id = request_id();
        let (endpoint, site, secret) = (call.endpoint, call.site, call.secret);
        let host = site.url.authority();
        let started = Instant::now();
        let outcome = match self.0.exchange(call.outgoing(&request_id)).await {
            Ok(mut incoming) => match interpreted(endpoint, &incoming, secret, read) {
                Ok(value) => Ok((value, incoming)),
                Err(failure) => Err(incoming.cut.take().unwrap_or(failure)),
            },
            Err(failure) => Err(failure),
        };
        let outcome = match outcome {
            Ok(answered) => Ok(answered),
            Err(failure) => {
                let failure = self.0.at_right_address(endpoint, site, failure).await;
                Err(self.0.with_proxy(site, failure).await)
            }
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
        secret: Option<&'a Token>,
    ) -> Self {
        Self { endpoint, site, path, body, secret }
    }

    pub(super) fn outgoing(self, request_id: &'a str) -> Outgoing<'a> {
        Outgoing {
            site: self.site,
            method: self.endpoint.method(),
            root: self.endpoint.root(),
            path: self.path,
            body: self.body,
            token_kind: self.endpoint.token_kind(),
            access_token: self.secret.filter(|_| self.endpoint.needs_access_token()),
            request_id,
            reuses_connection: !self.endpoint.has_side_effects(),
            max_answer_bytes: self.endpoint.max_answer_bytes(),
            keeps_cut_success: self.endpoint.brings_token(),
        }
    }
}

/// Reads an answer: `read` is for a success, and for the probe, which has none.
fn interpreted<T>(
    endpoint: Endpoint,
    incoming: &Incoming,
    secret: Option<&Token>,
    read: impl FnOnce(&Incoming) -> Result<T, CallFailure>,
) -> Result<T, CallFailure> {
    if (200..=299).contains(&incoming.status) || endpoint == Endpoint::Probe {
        return read(incoming).map_err(|failure| CallFailure { status: Some(incoming.status), ..failure });
    }
    Err(refused(endpoint, incoming, secret))
}

/// Reads the answer to a registration or creation. Any answer with a valid token is one: the server has made a runner.
pub(super) fn registered(incoming: &Incoming, fields: Fields) -> Result<Registered, CallFailure> {
    let NewCredential { id, token, expiry, shape } = new_credential(incoming, fields)?;
    Ok(Registered { id, token, expiry, shape })
}

/// Reads the answer to a reset. Any answer with a valid token is one: the old token is revoked.
fn reset(incoming: &Incoming) -> Result<Reset, CallFailure> {
    let NewCredential { token, expiry, shape, .. } = new_credential(incoming, Fields::Expiry)?;
    Ok(Reset { token, expiry, shape })
}

/// Reads an answer with a new token, which may be the only copy: its status and content type only decide its shape.
pub(super) fn new_credential(incoming: &Incoming, fields: Fields) -> Result<NewCredential, CallFailure> {
    let read = wire::credential(&incoming.body, fields).map_err(|flaw| unreadable(incoming, flaw))?;
    let shape = if incoming.cut.is_some() {
        Shape::Odd("it is cut off")
    } else if incoming.status != 201 {
        Shape::Odd("its status is not 201")
    } else if !incoming.is_json() {
        Shape::Odd("its content type is not application/json")
    } else {
        read.shape
    };
    Ok(NewCredential { shape, ..read })
}

/// Reads the answer to the verification of `sent`: status 200 with the token that was sent and its id, or the plain
/// acceptance of a server before 15.9.
fn verified(incoming: &Incoming, sent: &Token) -> Result<Verified, CallFailure> {
    if incoming.status != 200 {
        return Err(unreadable(incoming, Flaw("it does not have the status of a verification")));
    }
    if wire::is_plain_acceptance(&incoming.body) {
        return Ok(Verified { id: None, expiry: Expiry::Unknown, legacy: true });
    }
    wire::verified(&incoming.body, sent).map_err(|flaw| unreadable(incoming, flaw))
}

/// Reads the answer to a probe: GitLab's refusal of a request without a token.
pub(super) fn probed(incoming: &Incoming) -> Result<(), CallFailure> {
    match incoming.status {
        400 if incoming.error_body().is_some_and(|body| refusal::is_missing_token(&body)) => Ok(()),
        200..=299 => Err(unreadable(incoming, Flaw("it accepts a request without a token"))),
        _ => Err(refused(Endpoint::Probe, incoming, None)),
    }
}

/// Reads the body of a success, which must be JSON by its content type and its syntax.
pub(super) fn success<T>(incoming: &Incoming, read: impl FnOnce(&[u8]) -> Result<T, Flaw>) -> Result<T, CallFailure> {
    if !incoming.is_json() {
        return Err(CallFailure::new(ErrorKind::NotGitlab).with_detail(incoming.description()));
    }
    read(&incoming.body).map_err(|flaw| unreadable(incoming, flaw))
}

/// Reads the answer to a deletion, which must have status 204.
pub(super) fn deleted(incoming: &Incoming) -> Result<(), CallFailure> {
    if incoming.status == 204 {
        return Ok(());
    }
    success(incoming, |_| Err(Flaw("it does not have the status of a deletion")))
}

/// A success status whose content is not the one of the call.
pub(super) fn unreadable(incoming: &Incoming, Flaw(flaw): Flaw) -> CallFailure {
    if incoming.is_json() {
        CallFailure::new(ErrorKind::UnexpectedAnswer).with_detail(flaw)
    } else {
        CallFailure::new(ErrorKind::NotGitlab).with_detail(incoming.description())
    }
}

/// Reads an answer without a success status.
fn refused(endpoint: Endpoint, incoming: &Incoming, secret: Option<&Token>) -> CallFailure {
    let body = incoming.error_body();
    let Judgement { kind, if_proven, is_foreign } = refusal::judgement(endpoint, incoming, body.as_ref());
    let secrets = secret.as_slice();
    let detail = if kind == ErrorKind::Redirect {
        let host = headers::location_host(&incoming.headers, &incoming.url);
        host.map(|host| format!("to {}", error_body::sanitized(&host, secrets)))
    } else {
        (kind == ErrorKind::NotGitlab && body.is_none()).then(|| incoming.description().to_owned())
    };
    CallFailure {
        kind,
        if_proven,
        is_foreign,
        status: Some(incoming.status),
        date: body.as_ref().filter(|_| !is_foreign).and_then(|_| headers::date(&incoming.headers)),
        server_message: body.map(|body| body.sanitized(secrets)),
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
pub(super) fn request_id() -> String {
    let mut bytes = [0_u8; 16];
    // If this fails, ids repeat: logs are harder to read, but nothing breaks.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).ok();
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let mut text = String::with_capacity(2 * bytes.len());
    text.extend(digits.filter_map(|digit| char::from_digit(digit.into(), 16)));
    text
}
