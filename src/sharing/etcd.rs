//! etcd, by its JSON gateway.
//!
//! Every read is linearizable: a member that is cut off from the majority does not answer it. A write that has no answer
//! may be executed later; the swap by value makes that harmless once the value has changed.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Engine, Error, Value, Watch};
use crate::gitlab::{JsonAnswer, JsonClient, JsonFailure, JsonStream};
use crate::model::{ServerUrl, ShareName, TlsFiles};
use crate::secret::Token;

const ENGINE: &str = "etcd";

/// How long the answer of one member to a write is waited for. It waits five seconds for the others itself.
const WRITE_TIMEOUT: Duration = Duration::from_secs(6);

/// The same for a connection, and for what can be asked of another member: one that is paused holds up nothing for long.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Ends a watch of a member that has lost the majority.
const WITH_LEADER: (&str, &str) = ("grpc-metadata-hasleader", "true");

/// Codes of gRPC, by which etcd says what went wrong.
mod code {
    pub(super) const INVALID_ARGUMENT: u32 = 3;
    pub(super) const PERMISSION_DENIED: u32 = 7;
    pub(super) const RESOURCE_EXHAUSTED: u32 = 8;
    pub(super) const FAILED_PRECONDITION: u32 = 9;
    pub(super) const UNAUTHENTICATED: u32 = 16;
}

/// Where etcd is, and who asks it.
#[derive(Clone, Debug)]
pub struct Config {
    /// The addresses of its members.
    pub endpoints: Vec<ServerUrl>,
    /// The beginning of all keys.
    pub prefix: String,
    /// Its authority, and our certificate.
    pub tls: TlsFiles,
    /// The user and the password.
    pub user: Option<(String, Token)>,
}

/// An etcd cluster.
#[derive(Debug)]
pub struct Etcd {
    config: Config,
    client: JsonClient,
    /// The member that has answered last.
    preferred: Cell<usize>,
    /// The token of the user's session, once there is one.
    session: RefCell<Option<Zeroizing<String>>>,
}

/// What went wrong with one member.
enum Failure {
    /// It cannot have executed the request: another one can be asked.
    NotExecuted(String),
    /// It may have executed the request, now or later.
    Lost(String),
    /// etcd says no.
    Refused { code: u32, message: String },
}

impl Etcd {
    /// A connection to it. Reads the TLS files, and sends nothing.
    ///
    /// # Errors
    /// [`Error::Settings`].
    pub fn new(config: Config) -> Result<Self, Error> {
        let settings = |detail: String| Error::Settings { engine: ENGINE, detail };
        if config.endpoints.is_empty() {
            return Err(settings("there is no endpoint".to_owned()));
        }
        let client = JsonClient::new(&config.tls, READ_TIMEOUT).map_err(settings)?;
        Ok(Self { config, client, preferred: Cell::new(0), session: RefCell::default() })
    }

    fn key(&self, name: &ShareName) -> String {
        format!("{}{name}", self.config.prefix)
    }

    fn encoded_key(&self, name: &ShareName) -> String {
        BASE64.encode(self.key(name))
    }

    /// Asks one member after the other, from the one on that has answered last.
    async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        name: &ShareName,
        act: &'static str,
        path: &str,
        question: &Q,
    ) -> Result<A, Error> {
        let is_write = act == WRITE;
        let mut is_renewed = false;
        loop {
            match self.call_as_user(path, question, is_write).await {
                Ok(answer) => return self.read(name, &answer.body),
                // A session ends after some minutes, and with the member that has begun it.
                Err(Failure::Refused { code: code::UNAUTHENTICATED, .. }) if !is_renewed => {
                    (is_renewed, *self.session.borrow_mut()) = (true, None);
                }
                Err(failure) => return Err(self.error(name, act, failure, is_write)),
            }
        }
    }

    async fn call_as_user<Q: Serialize>(
        &self,
        path: &str,
        question: &Q,
        is_write: bool,
    ) -> Result<JsonAnswer, Failure> {
        let session = self.session().await?;
        self.ask_members(path, &body_of(question)?, session.as_ref().map(|session| session.as_str()), is_write).await
    }

    async fn ask_members(
        &self,
        path: &str,
        body: &Zeroizing<Vec<u8>>,
        session: Option<&str>,
        is_write: bool,
    ) -> Result<JsonAnswer, Failure> {
        let (count, first) = (self.config.endpoints.len(), self.preferred.get());
        let timeout = if is_write { WRITE_TIMEOUT } else { READ_TIMEOUT };
        let mut failures = Vec::new();
        for at in (first..first + count).map(|at| at % count) {
            let Some(endpoint) = self.config.endpoints.get(at) else { continue };
            let answer = self.client.post(format!("{endpoint}{path}"), body.clone(), session, timeout).await;
            let failure = match answered(answer) {
                Ok(answer) => {
                    self.preferred.set(at);
                    return Ok(answer);
                }
                Err(refused @ Failure::Refused { .. }) => {
                    self.preferred.set(at);
                    return Err(refused);
                }
                Err(Failure::Lost(detail)) if is_write => {
                    self.preferred.set((at + 1) % count);
                    return Err(Failure::Lost(format!("{endpoint}: {detail}")));
                }
                Err(Failure::Lost(detail) | Failure::NotExecuted(detail)) => detail,
            };
            failures.push(format!("{endpoint}: {failure}"));
        }
        Err(Failure::NotExecuted(failures.join("; ")))
    }

    /// The session of the user, if there is one to be.
    async fn session(&self) -> Result<Option<Zeroizing<String>>, Failure> {
        #[derive(Serialize)]
        struct Question<'a> {
            name: &'a str,
            password: &'a str,
        }
        #[derive(Deserialize)]
        struct Answer {
            token: Zeroizing<String>,
        }
        let Some((name, password)) = &self.config.user else { return Ok(None) };
        let known = self.session.borrow().clone();
        if known.is_some() {
            return Ok(known);
        }
        let question = body_of(&Question { name, password: password.expose() })?;
        let answer = match self.ask_members("/v3/auth/authenticate", &question, None, false).await {
            Ok(answer) => answer,
            // This etcd has no users.
            Err(Failure::Refused { code: code::FAILED_PRECONDITION, .. }) => return Ok(None),
            // A wrong user or password is an invalid argument to it.
            Err(Failure::Refused { code: code::INVALID_ARGUMENT, message }) => {
                return Err(Failure::Refused { code: code::UNAUTHENTICATED, message });
            }
            Err(failure) => return Err(failure),
        };
        let Answer { token } = serde_json::from_slice(&answer.body)
            .map_err(|_| Failure::NotExecuted("it has answered something else to a login".to_owned()))?;
        *self.session.borrow_mut() = Some(token.clone());
        Ok(Some(token))
    }

    fn read<A: DeserializeOwned>(&self, name: &ShareName, body: &[u8]) -> Result<A, Error> {
        serde_json::from_slice(body).map_err(|_| self.unexpected(name, "something else than etcd does"))
    }

    fn unexpected(&self, name: &ShareName, detail: &str) -> Error {
        Error::Answer { engine: ENGINE, object: self.object(name), detail: detail.to_owned() }
    }

    fn error(&self, name: &ShareName, act: &'static str, failure: Failure, is_write: bool) -> Error {
        let (engine, object) = (ENGINE, self.object(name));
        match failure {
            Failure::NotExecuted(detail) => Error::Unreachable { engine, detail },
            Failure::Lost(detail) if is_write => Error::Unknown { engine, object, detail },
            Failure::Lost(detail) => Error::Unreachable { engine, detail },
            Failure::Refused { code: code::PERMISSION_DENIED, .. } => {
                let user = self.config.user.as_ref().map_or("this user", |(name, _)| name);
                let right =
                    format!("the permission of `{user}` to {act} keys with the prefix `{}`", self.config.prefix);
                Error::Denied { engine, act, object, right }
            }
            Failure::Refused { code: code::UNAUTHENTICATED, message } => {
                Error::Unauthenticated { engine, detail: message }
            }
            // Without a user, on an etcd that has some.
            Failure::Refused { code: code::INVALID_ARGUMENT, message } if message.contains("user name is empty") => {
                Error::Unauthenticated { engine, detail: "it asks for a user, and [sharing] has none".to_owned() }
            }
            Failure::Refused { code, message } => {
                Error::Answer { engine, object, detail: format!("the error {code} ({message})") }
            }
        }
    }
}

const READ: &str = "read";
const WRITE: &str = "write";

fn body_of(question: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, Failure> {
    serde_json::to_vec(question).map(Zeroizing::new).map_err(|error| Failure::NotExecuted(error.to_string()))
}

/// What an answer of a member means.
fn answered(answer: Result<JsonAnswer, JsonFailure>) -> Result<JsonAnswer, Failure> {
    let answer = answer.map_err(|failure| match failure {
        JsonFailure::NotSent(detail) => Failure::NotExecuted(detail),
        JsonFailure::Lost(detail) => Failure::Lost(detail),
    })?;
    if answer.status == 200 { Ok(answer) } else { Err(refusal(answer.status, &answer.body)) }
}

fn refusal(status: u16, body: &[u8]) -> Failure {
    #[derive(Deserialize)]
    struct Refusal {
        code: u32,
        error: Option<String>,
        message: Option<String>,
    }
    let Ok(Refusal { code, error, message }) = serde_json::from_slice(body) else {
        return Failure::Lost(format!("the status {status}, which is none of etcd's"));
    };
    // Both have the same text.
    let message = message.or(error).unwrap_or_default();
    match code {
        // The rights of some user were changed since the session began.
        code::INVALID_ARGUMENT if message.contains("revision of auth store is old") => {
            Failure::Refused { code: code::UNAUTHENTICATED, message }
        }
        // Nothing is written any more until a person makes room.
        code::RESOURCE_EXHAUSTED if message.contains("space exceeded") => Failure::Refused { code, message },
        code::INVALID_ARGUMENT | code::PERMISSION_DENIED | code::FAILED_PRECONDITION | code::UNAUTHENTICATED => {
            Failure::Refused { code, message }
        }
        // It has no leader, is too busy, or ends: what it has passed on can still be executed.
        _ => Failure::Lost(message),
    }
}

#[derive(Serialize)]
struct Range {
    key: String,
}

/// A whole transaction: a comparison, and what is done if it holds or not.
#[derive(Serialize)]
struct Transaction {
    compare: Vec<Comparison>,
    success: Vec<Request>,
    failure: Vec<Request>,
}

#[derive(Serialize)]
struct Comparison {
    key: String,
    result: &'static str,
    #[serde(flatten)]
    target: Target,
}

#[derive(Serialize)]
#[serde(tag = "target", rename_all = "UPPERCASE")]
enum Target {
    /// Revisions are 64 bits, which JSON has as text.
    Create {
        create_revision: String,
    },
    Value {
        value: Zeroizing<String>,
    },
}

#[derive(Serialize)]
enum Request {
    #[serde(rename = "request_put")]
    Put { key: String, value: Zeroizing<String> },
    #[serde(rename = "request_delete_range")]
    Delete { key: String },
    #[serde(rename = "request_range")]
    Range { key: String },
}

#[derive(Deserialize)]
struct Ranged {
    #[serde(default)]
    kvs: Vec<KeyValue>,
    header: Header,
}

#[derive(Deserialize)]
struct Header {
    revision: String,
}

#[derive(Deserialize)]
struct KeyValue {
    #[serde(default)]
    value: Zeroizing<String>,
}

impl KeyValue {
    fn decoded(&self) -> Option<Value> {
        BASE64.decode(self.value.as_bytes()).ok().map(Value::new)
    }
}

#[derive(Deserialize)]
struct Swapped {
    #[serde(default)]
    succeeded: bool,
}

fn encoded(value: &Value) -> Zeroizing<String> {
    Zeroizing::new(BASE64.encode(value.expose()))
}

impl Etcd {
    async fn range(&self, name: &ShareName) -> Result<(Option<Value>, String), Error> {
        let Ranged { kvs, header } =
            self.call(name, READ, "/v3/kv/range", &Range { key: self.encoded_key(name) }).await?;
        let Some(found) = kvs.first() else { return Ok((None, header.revision)) };
        let value = found.decoded().ok_or_else(|| self.unexpected(name, "a value that is not base64"))?;
        Ok((Some(value), header.revision))
    }
}

impl Engine for Etcd {
    type Watch = EtcdWatch;

    fn object(&self, name: &ShareName) -> String {
        format!("the etcd key `{}`", self.key(name))
    }

    async fn get(&self, name: &ShareName) -> Result<Option<Value>, Error> {
        Ok(self.range(name).await?.0)
    }

    async fn swap(&self, name: &ShareName, expected: Option<&Value>, value: Option<&Value>) -> Result<bool, Error> {
        let key = self.encoded_key(name);
        let target = match expected {
            Some(expected) => Target::Value { value: encoded(expected) },
            None => Target::Create { create_revision: "0".to_owned() },
        };
        let request = match value {
            Some(value) => Request::Put { key: key.clone(), value: encoded(value) },
            None => Request::Delete { key: key.clone() },
        };
        let transaction = Transaction {
            compare: vec![Comparison { key, result: "EQUAL", target }],
            success: vec![request],
            failure: Vec::new(),
        };
        let Swapped { succeeded } = self.call(name, WRITE, "/v3/kv/txn", &transaction).await?;
        Ok(succeeded)
    }

    async fn probe(&self, name: &ShareName) -> Result<(), Error> {
        let key = self.encoded_key(name);
        // No key was created before the first revision: etcd checks the right to put, and puts nothing.
        let never =
            Comparison { key: key.clone(), result: "LESS", target: Target::Create { create_revision: "0".to_owned() } };
        let put = Request::Put { key: key.clone(), value: Zeroizing::default() };
        let transaction =
            Transaction { compare: vec![never], success: vec![put], failure: vec![Request::Range { key }] };
        self.call::<_, Swapped>(name, WRITE, "/v3/kv/txn", &transaction).await.map(drop).map_err(|error| match error {
            // Nothing is written in any case.
            Error::Unknown { engine, detail, .. } => Error::Unreachable { engine, detail },
            other => other,
        })
    }

    async fn watch(&self, name: &ShareName) -> Result<EtcdWatch, Error> {
        #[derive(Serialize)]
        struct Create {
            key: String,
            start_revision: String,
        }
        #[derive(Serialize)]
        struct Question {
            create_request: Create,
        }
        // The watch begins where a linearizable read was: a member that lags reports what it learns later.
        let (_, revision) = self.range(name).await?;
        let next = revision.parse::<i64>().map_err(|_| self.unexpected(name, "a revision that is no number"))? + 1;
        let create_request = Create { key: self.encoded_key(name), start_revision: next.to_string() };
        let failed = |failure| self.error(name, READ, failure, false);
        let session = self.session().await.map_err(failed)?;
        let body = body_of(&Question { create_request }).map_err(failed)?;
        let endpoint = self.config.endpoints.get(self.preferred.get());
        let endpoint = endpoint.ok_or_else(|| self.unexpected(name, "nothing"))?;
        let stream = self
            .client
            .stream(
                format!("{endpoint}/v3/watch"),
                body,
                session.as_ref().map(|it| it.as_str()),
                WITH_LEADER,
                READ_TIMEOUT,
            )
            .await;
        let stream = stream.map_err(|failure| failed(Failure::NotExecuted(format!("{endpoint}: {failure}"))))?;
        if stream.status() != 200 {
            return Err(failed(refusal(stream.status(), b"")));
        }
        Ok(EtcdWatch { stream, object: self.object(name) })
    }
}

/// Changes of a key.
#[derive(Debug)]
pub struct EtcdWatch {
    stream: JsonStream,
    object: String,
}

#[derive(Deserialize)]
struct Message {
    result: Option<Watched>,
}

#[derive(Deserialize)]
struct Watched {
    #[serde(default)]
    canceled: bool,
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    /// Absent for a put.
    #[serde(rename = "type", default)]
    kind: Option<String>,
    kv: Option<KeyValue>,
}

impl Watch for EtcdWatch {
    async fn next(&mut self) -> Result<Option<Value>, Error> {
        let ended = |detail: &str| Error::Unreachable { engine: ENGINE, detail: detail.to_owned() };
        loop {
            let message = self.stream.next().await.map_err(|failure| ended(&failure.to_string()))?;
            let message = message.ok_or_else(|| ended("it has ended the watch"))?;
            let message = serde_json::from_slice::<Message>(&message).ok().and_then(|message| message.result);
            let Watched { canceled, events } = message.ok_or_else(|| ended("it does not go on with the watch"))?;
            // Of several changes the last one counts.
            let Some(Event { kind, kv }) = events.into_iter().next_back() else {
                if canceled {
                    return Err(ended("it has ended the watch"));
                }
                continue;
            };
            if kind.as_deref() == Some("DELETE") {
                return Ok(None);
            }
            let value = kv.and_then(|kv| kv.decoded());
            return value.map(Some).ok_or_else(|| Error::Answer {
                engine: ENGINE,
                object: self.object.clone(),
                detail: "a value that is not base64".to_owned(),
            });
        }
    }
}
