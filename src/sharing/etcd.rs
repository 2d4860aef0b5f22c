//! etcd, by its JSON gateway.
//!
//! Every read is linearizable: a member that is cut off from the majority does not answer it. A write that has no answer
//! may be executed later; the swap by value makes that harmless once the value has changed. A removed value leaves its key,
//! without data: a create that is executed late finds that key, and fails.
//!
//! A login costs etcd up to a second of computing, by design of its passwords. So there is one login at a time, and every
//! request waits for it.

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{Engine, Error, Value, Watch};
use crate::gitlab::{JsonAnswer, JsonClient, JsonFailure, JsonStream};
use crate::model::{ServerUrl, ShareName, TlsFiles};
use crate::secret::{Password, random_bits};

const ENGINE: &str = "etcd";

/// How long the answer of the last member to a write is waited for. It waits five seconds for the others itself.
const WRITE_TIMEOUT: Duration = Duration::from_secs(6);

/// The same for a connection, and while there is another member to ask: one that is paused holds up nothing for long.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a refused user and password are not sent again: etcd works on each password for up to a second. It is too short
/// for a second refusal that would prove anything.
const REFUSED_LOGIN: Duration = Duration::from_secs(3);

/// The same for a login at a member that has just answered something else: it checks one password after the other, and
/// machines that start together all have one.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Ends a watch of a member that has lost the majority.
const WITH_LEADER: (&str, &str) = ("grpc-metadata-hasleader", "true");

/// Codes of gRPC, by which etcd says what went wrong.
mod code {
    pub(super) const INVALID_ARGUMENT: u32 = 3;
    pub(super) const NOT_FOUND: u32 = 5;
    pub(super) const PERMISSION_DENIED: u32 = 7;
    pub(super) const RESOURCE_EXHAUSTED: u32 = 8;
    pub(super) const FAILED_PRECONDITION: u32 = 9;
    pub(super) const UNIMPLEMENTED: u32 = 12;
    pub(super) const UNAUTHENTICATED: u32 = 16;
}

/// Where etcd is, and the credentials for it.
#[derive(Clone, Debug)]
pub struct Config {
    /// The addresses of its members.
    pub endpoints: Vec<ServerUrl>,
    /// The beginning of all keys.
    pub prefix: String,
    /// Its authority, and our certificate.
    pub tls: TlsFiles,
    /// The user and the password.
    pub user: Option<(String, Password)>,
}

/// An etcd cluster.
#[derive(Debug)]
pub struct Etcd {
    config: Config,
    client: JsonClient,
    /// The member that has answered last.
    preferred: Cell<usize>,
    logins: Logins,
}

/// The token of a session; `None` if etcd has no users.
type Session = Option<Zeroizing<String>>;

/// The logins of the user.
#[derive(Debug, Default)]
struct Logins {
    /// Held during a login.
    turn: tokio::sync::Mutex<()>,
    /// How many have ended.
    ended: Cell<u64>,
    /// What came of the last one, and when.
    last: RefCell<Option<(Result<Session, Failure>, Instant)>>,
}

impl Logins {
    fn known(&self) -> Session {
        self.last.borrow().as_ref()?.0.as_ref().ok()?.clone()
    }

    /// Forgets a session that etcd does not accept any more, unless there is another one already.
    fn forget(&self, session: &Session) {
        self.last.borrow_mut().take_if(|(last, _)| last.as_ref().is_ok_and(|last| last == session));
    }

    /// Logs in, or waits for the login under way, which then speaks for all that have waited for it.
    async fn one(&self, login: impl Future<Output = Result<Session, Failure>>) -> Result<Session, Failure> {
        let ended = self.ended.get();
        let _turn = self.turn.lock().await;
        if let Some((last, at)) = self.last.borrow().clone() {
            let is_refused = matches!(last, Err(Failure::Refused { .. })) && at.elapsed() < REFUSED_LOGIN;
            if is_refused || self.ended.get() != ended {
                return last;
            }
        }
        let result = login.await;
        self.ended.set(self.ended.get() + 1);
        *self.last.borrow_mut() = Some((result.clone(), Instant::now()));
        result
    }
}

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Login,
}

impl Kind {
    /// What is done to the object, for messages.
    fn act(self) -> &'static str {
        match self {
            Self::Read | Self::Login => "read",
            Self::Write => "write",
        }
    }

    /// How long one member's answer is waited for.
    fn timeout(self, is_last_member: bool) -> Duration {
        match self {
            Self::Read => READ_TIMEOUT,
            Self::Write if is_last_member => WRITE_TIMEOUT,
            Self::Write => READ_TIMEOUT,
            Self::Login => LOGIN_TIMEOUT,
        }
    }
}

/// What went wrong with one member.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        // Machines that start together ask all members, not the first one.
        let first = usize::try_from(random_bits()).unwrap_or_default() % config.endpoints.len();
        Ok(Self { config, client, preferred: Cell::new(first), logins: Logins::default() })
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
        kind: Kind,
        path: &str,
        question: &Q,
    ) -> Result<A, Error> {
        let failed = |failure| self.error(name, kind, failure);
        let mut is_renewed = false;
        loop {
            let session = self.session().await.map_err(failed)?;
            let body = body_of(question).map_err(failed)?;
            match self.ask_members(kind, path, &body, session.as_ref().map(|session| session.as_str())).await {
                Ok(answer) => return self.read(name, kind, &answer.body),
                // A session ends after some minutes, and with the member that has begun it.
                Err(Failure::Refused { code: code::UNAUTHENTICATED, .. }) if !is_renewed => {
                    is_renewed = true;
                    self.logins.forget(&session);
                }
                Err(failure) => return Err(failed(failure)),
            }
        }
    }

    async fn ask_members(
        &self,
        kind: Kind,
        path: &str,
        body: &Zeroizing<Vec<u8>>,
        session: Option<&str>,
    ) -> Result<JsonAnswer, Failure> {
        let (count, first) = (self.config.endpoints.len(), self.preferred.get());
        let (mut failures, mut is_lost) = (Vec::new(), false);
        for number in 0..count {
            let at = (first + number) % count;
            let Some(endpoint) = self.config.endpoints.get(at) else { continue };
            let timeout = kind.timeout(number + 1 == count);
            let failure = match self.ask(kind, endpoint, path, body, session, timeout).await {
                Ok(answer) => {
                    self.preferred.set(at);
                    return Ok(answer);
                }
                Err(refused @ Failure::Refused { .. }) if !is_lost => {
                    self.preferred.set(at);
                    return Err(refused);
                }
                Err(Failure::Refused { message, .. }) => message,
                // The same write to another member is executed at most once: each compares with what it replaces.
                Err(Failure::Lost(detail)) if kind == Kind::Write => {
                    is_lost = true;
                    self.preferred.set((at + 1) % count);
                    detail
                }
                Err(Failure::Lost(detail) | Failure::NotExecuted(detail)) => detail,
            };
            failures.push(format!("{endpoint}: {failure}"));
        }
        let failures = failures.join("; ");
        Err(if is_lost { Failure::Lost(failures) } else { Failure::NotExecuted(failures) })
    }

    async fn ask(
        &self,
        kind: Kind,
        endpoint: &ServerUrl,
        path: &str,
        body: &Zeroizing<Vec<u8>>,
        session: Option<&str>,
        timeout: Duration,
    ) -> Result<JsonAnswer, Failure> {
        // A member that is paused takes connections, too: it would be waited for as long as one that checks a password.
        if kind == Kind::Login && self.config.endpoints.len() > 1 {
            let question = body_of(&Range { key: BASE64.encode(&self.config.prefix) })?;
            let answer = self.client.post(format!("{endpoint}/v3/kv/range"), question, None, READ_TIMEOUT).await;
            // It is asked without a session, and may well refuse to answer that.
            if let Err(silent @ (Failure::NotExecuted(_) | Failure::Lost(_))) = answered(answer) {
                return Err(silent);
            }
        }
        answered(self.client.post(format!("{endpoint}{path}"), body.clone(), session, timeout).await)
    }

    /// The session of the user, if there is one to be.
    async fn session(&self) -> Result<Session, Failure> {
        let Some((name, password)) = &self.config.user else { return Ok(None) };
        match self.logins.known() {
            Some(known) => Ok(Some(known)),
            None => self.logins.one(self.log_in(name, password)).await,
        }
    }

    async fn log_in(&self, name: &str, password: &Password) -> Result<Session, Failure> {
        #[derive(Serialize)]
        struct Question<'a> {
            name: &'a str,
            password: &'a str,
        }
        #[derive(Deserialize)]
        struct Answer {
            token: Zeroizing<String>,
        }
        let question = body_of(&Question { name, password: password.expose() })?;
        let answer = match self.ask_members(Kind::Login, "/v3/auth/authenticate", &question, None).await {
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
        Ok(Some(token))
    }

    fn read<A: DeserializeOwned>(&self, name: &ShareName, kind: Kind, body: &[u8]) -> Result<A, Error> {
        serde_json::from_slice(body).map_err(|_| {
            let detail = "something else than etcd does";
            match kind {
                // A proxy has answered, and may have passed it on.
                Kind::Write => {
                    Error::Unknown { engine: ENGINE, object: self.object(name), detail: format!("it was {detail}") }
                }
                Kind::Read | Kind::Login => self.unexpected(name, detail),
            }
        })
    }

    fn unexpected(&self, name: &ShareName, detail: &str) -> Error {
        Error::Answer { engine: ENGINE, object: self.object(name), detail: detail.to_owned() }
    }

    /// The user, for messages.
    fn user(&self) -> String {
        self.config
            .user
            .as_ref()
            .map_or_else(|| "a client without a user".to_owned(), |(name, _)| format!("the user `{name}`"))
    }

    /// Who has tried what at the member that has answered.
    fn attempt(&self, kind: Kind, object: &str) -> String {
        let member = self.config.endpoints.get(self.preferred.get());
        let member = member.map(|member| format!(" at {member}")).unwrap_or_default();
        format!("{}{member} to {} {object}", self.user(), kind.act())
    }

    fn error(&self, name: &ShareName, kind: Kind, failure: Failure) -> Error {
        let (engine, object) = (ENGINE, self.object(name));
        match failure {
            Failure::Lost(detail) if kind == Kind::Write => Error::Unknown { engine, object, detail },
            Failure::NotExecuted(detail) | Failure::Lost(detail) => {
                let (act, user) = (kind.act(), self.user());
                Error::Unreachable { engine, detail: format!("no answer to {act} {object} as {user}: {detail}") }
            }
            Failure::Refused { code: code::PERMISSION_DENIED, .. } => {
                let act = kind.act();
                let right =
                    format!("the permission of {} to {act} keys with the prefix `{}`", self.user(), self.config.prefix);
                Error::Denied { engine, act, object, right }
            }
            Failure::Refused { code: code::UNAUTHENTICATED, message } => {
                Error::Unauthenticated { engine, attempt: self.attempt(kind, &object), detail: message }
            }
            // Without a user, on an etcd that has some.
            Failure::Refused { code: code::INVALID_ARGUMENT, message } if message.contains("user name is empty") => {
                let detail = "it asks for a user, and [sharing] has none".to_owned();
                Error::Unauthenticated { engine, attempt: self.attempt(kind, &object), detail }
            }
            Failure::Refused { message, .. } => Error::Rejected { engine, object, detail: message },
        }
    }
}

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
        let detail = format!("the status {status}, which is none of etcd's");
        return match status {
            404 | 405 => Failure::NotExecuted(format!("{detail}: it may have no JSON gateway")),
            // A proxy takes no request of this size, and passes nothing on.
            413 => Failure::Refused { code: code::RESOURCE_EXHAUSTED, message: detail },
            _ => Failure::Lost(detail),
        };
    };
    // Both have the same text.
    let message = message.or(error).unwrap_or_default();
    match code {
        // The rights of some user were changed since the session began.
        code::INVALID_ARGUMENT if message.contains("revision of auth store is old") => {
            Failure::Refused { code: code::UNAUTHENTICATED, message }
        }
        // The gateway knows no such path.
        code::NOT_FOUND | code::UNIMPLEMENTED => Failure::NotExecuted(message),
        // Nothing is written any more until a person makes room; or the request is too large.
        code::RESOURCE_EXHAUSTED if message.contains("space exceeded") || message.contains("larger than max") => {
            Failure::Refused { code, message }
        }
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
    Mod {
        mod_revision: String,
    },
    Value {
        value: Zeroizing<String>,
    },
}

#[derive(Serialize)]
enum Request {
    #[serde(rename = "request_put")]
    Put { key: String, value: Zeroizing<String> },
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
    mod_revision: String,
    #[serde(default)]
    value: Zeroizing<String>,
}

impl KeyValue {
    /// The value; `None` if it has no data.
    fn decoded(&self) -> Result<Option<Value>, base64::DecodeError> {
        let bytes = BASE64.decode(self.value.as_bytes())?;
        Ok(Some(Value::new(bytes)).filter(|value| !value.expose().is_empty()))
    }
}

const NOT_BASE64: &str = "a value that is not base64";

#[derive(Deserialize)]
struct Swapped {
    #[serde(default)]
    succeeded: bool,
}

fn encoded(value: &Value) -> Zeroizing<String> {
    Zeroizing::new(BASE64.encode(value.expose()))
}

impl Etcd {
    async fn range(&self, name: &ShareName) -> Result<Ranged, Error> {
        self.call(name, Kind::Read, "/v3/kv/range", &Range { key: self.encoded_key(name) }).await
    }

    /// What a key without a value is compared with; `None` if it has one.
    async fn absent(&self, name: &ShareName) -> Result<Option<Target>, Error> {
        let found = self.range(name).await?;
        let Some(found) = found.kvs.first() else {
            return Ok(Some(Target::Create { create_revision: "0".to_owned() }));
        };
        let is_empty = found.value.is_empty();
        Ok(is_empty.then(|| Target::Mod { mod_revision: found.mod_revision.clone() }))
    }
}

impl Engine for Etcd {
    type Watch = EtcdWatch;

    fn object(&self, name: &ShareName) -> String {
        format!("the etcd key `{}`", self.key(name))
    }

    async fn get(&self, name: &ShareName) -> Result<Option<Value>, Error> {
        let found = self.range(name).await?;
        let Some(found) = found.kvs.first() else { return Ok(None) };
        found.decoded().map_err(|_| self.unexpected(name, NOT_BASE64))
    }

    async fn swap(&self, name: &ShareName, expected: Option<&Value>, value: Option<&Value>) -> Result<bool, Error> {
        let key = self.encoded_key(name);
        let target = match expected {
            Some(expected) => Target::Value { value: encoded(expected) },
            None => match self.absent(name).await? {
                Some(absent) => absent,
                None => return Ok(false),
            },
        };
        let request = Request::Put { key: key.clone(), value: value.map(encoded).unwrap_or_default() };
        let transaction = Transaction {
            compare: vec![Comparison { key, result: "EQUAL", target }],
            success: vec![request],
            failure: Vec::new(),
        };
        let Swapped { succeeded } = self.call(name, Kind::Write, "/v3/kv/txn", &transaction).await?;
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
        let probed = self.call::<_, Swapped>(name, Kind::Write, "/v3/kv/txn", &transaction).await;
        probed.map(drop).map_err(Error::without_effect)
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
        let revision = self.range(name).await?.header.revision;
        let next = revision.parse::<i64>().map_err(|_| self.unexpected(name, "a revision that is no number"))? + 1;
        let create_request = Create { key: self.encoded_key(name), start_revision: next.to_string() };
        let failed = |failure| self.error(name, Kind::Read, failure);
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
            let value = kv.map(|kv| kv.decoded()).transpose();
            return value.map(Option::flatten).map_err(|_| Error::Answer {
                engine: ENGINE,
                object: self.object.clone(),
                detail: NOT_BASE64.to_owned(),
            });
        }
    }
}
