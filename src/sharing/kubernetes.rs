//! Kubernetes: a Secret per shared runner.
//!
//! The Secret is made when the agent is installed, so that its Role needs no right to create any. It is changed by a JSON
//! patch that tests the whole value, or the version of an object without one: the API server applies all of a patch or nothing.

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::Stream;
use futures_util::future::poll_fn;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Status;
use kube::{Client, ResourceExt as _};
use serde_json::{Value as Json, json};

use super::{Engine, Error, Value, Watch};
use crate::files;
use crate::model::ShareName;

const ENGINE: &str = "Kubernetes";

/// Size limit of a kubeconfig, in bytes.
const MAX_KUBECONFIG_BYTES: u64 = 1024 * 1024;

/// The field of the Secret's data that holds the runner.
const FIELD: &str = "runner";

/// How long the API server is waited for.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The same for a read, which changes nothing.
const READ_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the API server keeps a watch, in seconds. Its caller begins another one.
const WATCH_SECS: u32 = 290;

/// Where the API server is, and which Secrets are used.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Instead of the credentials of the pod.
    pub kubeconfig: Option<PathBuf>,
    /// Instead of that of the pod or of the kubeconfig.
    pub namespace: Option<String>,
}

/// The Secrets of a namespace.
pub struct Kubernetes {
    secrets: RefCell<Api<Secret>>,
    /// What it is connected by.
    config: kube::Config,
    namespace: String,
    /// The address of the API server, and whose credentials it gets, for messages.
    address: String,
    user: String,
}

impl std::fmt::Debug for Kubernetes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Kubernetes").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Kubernetes {
    /// A connection to the API server. Reads the credentials, and sends nothing.
    ///
    /// # Errors
    /// [`Error::Settings`].
    pub async fn new(config: Config) -> Result<Self, Error> {
        let settings = |detail: String| Error::Settings { engine: ENGINE, detail };
        let mut found = match &config.kubeconfig {
            Some(path) => {
                let named = |error: &dyn std::fmt::Display| settings(format!("`{}`: {error}", path.display()));
                // It can name a program to run.
                files::read_trusted(path, MAX_KUBECONFIG_BYTES).map_err(|error| named(&error))?;
                let read = Kubeconfig::read_from(path).map_err(|error| named(&error))?;
                let options = KubeConfigOptions::default();
                kube::Config::from_custom_kubeconfig(read, &options).await.map_err(|error| named(&error))?
            }
            None => kube::Config::incluster().map_err(|error| Error::NoPod { detail: error.to_string() })?,
        };
        // The crate would repeat a change that may have been made, and report the failed test of the second one.
        found.default_retry = false;
        // Those of the environment are for GitLab.
        found.proxy_url = None;
        found.connect_timeout = Some(TIMEOUT / 2);
        found.read_timeout = Some(Duration::from_secs(u64::from(WATCH_SECS) + 10));
        found.write_timeout = Some(TIMEOUT);
        let namespace = config.namespace.unwrap_or_else(|| found.default_namespace.clone());
        if found.accept_invalid_certs {
            tracing::warn!("the kubeconfig of [sharing] does not check the certificate of the API server");
        }
        // Without what a URL can have besides.
        let (url, port) = (&found.cluster_url, found.cluster_url.port_u16());
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let address = format!("{}://{}{port}", url.scheme_str().unwrap_or("https"), url.host().unwrap_or_default());
        let user = match &config.kubeconfig {
            Some(path) => format!("the kubeconfig `{}`", path.display()),
            None => "the service account of the pod".to_owned(),
        };
        let client = Client::try_from(found.clone()).map_err(|error| settings(error.to_string()))?;
        let secrets = RefCell::new(Api::namespaced(client, &namespace));
        Ok(Self { secrets, config: found, namespace, address, user })
    }

    fn secrets(&self) -> Api<Secret> {
        self.secrets.borrow().clone()
    }

    /// Gives up all connections: behind a network that was cut they can stay open without an end, and each of them would
    /// cost a time limit.
    fn connect_again(&self) {
        match Client::try_from(self.config.clone()) {
            Ok(client) => *self.secrets.borrow_mut() = Api::namespaced(client, &self.namespace),
            Err(error) => tracing::debug!(error = chain(&error), "keeping the connections to the API server"),
        }
    }

    fn error(&self, name: &ShareName, verb: &'static str, error: kube::Error) -> Error {
        let (engine, object) = (ENGINE, self.object(name));
        let kube::Error::Api(status) = error else {
            let detail = chain(&error);
            let is_lost = verb == PATCH && !is_not_sent(&error);
            return if is_lost {
                Error::Unknown { engine, object, detail }
            } else {
                self.unreachable(name, verb, &detail)
            };
        };
        let act = act(verb);
        let detail = format!("{}: {}", status.code, status.message);
        match (status.code, is_of_api_server(&status)) {
            // It is refused before it is looked at. The API server says so in plain text.
            (429, _) => self.unreachable(name, verb, "429: it is too busy"),
            (413, _) => Error::Rejected { engine, object, detail: "413: the request is too large".to_owned() },
            // A proxy, or an API server that is about to serve. It may have passed a change on.
            (code, false) if verb == PATCH => Error::Unknown { engine, object, detail: not_of_api_server(code) },
            (code, false) => self.unreachable(name, verb, &not_of_api_server(code)),
            (401, true) => {
                let attempt = format!("{} at {} to {act} {object}", self.user, self.address);
                Error::Unauthenticated { engine, attempt, detail }
            }
            (403, true) if status.message.contains(ADMISSION) => Error::Rejected { engine, object, detail },
            (403, true) => {
                Error::Denied { engine, act, object, right: format!("the verb `{verb}` on this Secret in a Role") }
            }
            (404, true) => Error::Missing { object },
            // It can have passed a change on to its own store.
            (500.., true) if verb == PATCH => Error::Unknown { engine, object, detail },
            (500.., true) => self.unreachable(name, verb, &detail),
            // Another change came in between, or what was asked for is out of date.
            (409 | 410, true) => Error::Answer { engine, object, detail },
            (_, true) => Error::Rejected { engine, object, detail },
        }
    }

    async fn read(&self, name: &ShareName) -> Result<Secret, Error> {
        let answer = tokio::time::timeout(READ_TIMEOUT, self.secrets().get(&secret_of(name))).await;
        answer.map_err(|_| self.late(name, GET))?.map_err(|error| self.error(name, GET, error))
    }

    fn late(&self, name: &ShareName, verb: &'static str) -> Error {
        self.connect_again();
        self.unreachable(name, verb, "it does not answer in time")
    }

    fn unreachable(&self, name: &ShareName, verb: &'static str, detail: &str) -> Error {
        let (act, object, Self { address, user, .. }) = (act(verb), self.object(name), self);
        let detail = format!("no answer to {act} {object} with {user}: {address}: {detail}");
        Error::Unreachable { engine: ENGINE, detail }
    }

    async fn patch(&self, name: &ShareName, patch: Vec<Json>, is_dry: bool) -> Result<(), Failed> {
        let patch = serde_json::from_value(Json::Array(patch)).map_err(|error| {
            Failed::For(Error::Answer { engine: ENGINE, object: self.object(name), detail: error.to_string() })
        })?;
        let patch = Patch::<()>::Json(patch);
        let parameters = PatchParams { dry_run: is_dry, ..PatchParams::default() };
        let name_of_secret = secret_of(name);
        let secrets = self.secrets();
        let sent = secrets.patch(&name_of_secret, &parameters, &patch);
        let answer = tokio::time::timeout(TIMEOUT, sent).await.map_err(|_| {
            self.connect_again();
            let detail = "the API server does not answer in time".to_owned();
            Failed::For(Error::Unknown { engine: ENGINE, object: self.object(name), detail })
        })?;
        match answer {
            Ok(_) => Ok(()),
            // A test of the patch has failed, or the Secret was changed between the test and the write.
            Err(kube::Error::Api(status)) if matches!(status.code, 409 | 422) && is_of_api_server(&status) => {
                Err(Failed::Test { is_conflict: status.code == 409, detail: status.message.clone() })
            }
            Err(error) => Err(Failed::For(self.error(name, PATCH, error))),
        }
    }
}

enum Failed {
    /// The value is not the expected one; or the Secret was changed meanwhile, or the patch is none that the API server takes.
    Test {
        is_conflict: bool,
        detail: String,
    },
    For(Error),
}

/// What the API server says if a webhook refuses a change.
const ADMISSION: &str = "admission webhook";

/// How `kube` names an answer that the API server has not made.
const NOT_PARSED: &str = "Failed to parse error data";

fn is_of_api_server(status: &Status) -> bool {
    status.reason != NOT_PARSED
}

/// The text of such an answer can be a whole page.
fn not_of_api_server(code: u16) -> String {
    format!("the status {code}, which is none of an API server's")
}

const GET: &str = "get";
const WATCH: &str = "watch";
const PATCH: &str = "patch";

/// What is done to the Secret, for messages.
fn act(verb: &str) -> &'static str {
    if verb == PATCH { "change" } else { "read" }
}

fn secret_of(name: &ShareName) -> String {
    format!("runner-agent-{name}")
}

fn value_of(secret: &Secret) -> Option<Value> {
    let bytes = secret.data.as_ref()?.get(FIELD)?;
    Some(Value::new(bytes.0.clone())).filter(|value| !value.expose().is_empty())
}

fn chain(error: &kube::Error) -> String {
    // The program of a kubeconfig may have printed a token.
    if matches!(error, kube::Error::Auth(_)) {
        return "the credentials cannot be had by the kubeconfig or the service account".to_owned();
    }
    // Its text can hold a part of the Secret.
    if matches!(error, kube::Error::SerdeError(_) | kube::Error::FromUtf8(_)) {
        return "an answer that is no Secret".to_owned();
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// Whether the API server cannot have the request.
fn is_not_sent(error: &kube::Error) -> bool {
    match error {
        kube::Error::BuildRequest(_) | kube::Error::Auth(_) => true,
        kube::Error::HyperError(_) | kube::Error::Service(_) => {
            let mut cause = std::error::Error::source(error);
            while let Some(error) = cause {
                let is_refused = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
                if error.downcast_ref().is_some_and(is_refused) {
                    return true;
                }
                cause = error.source();
            }
            false
        }
        _ => false,
    }
}

impl Engine for Kubernetes {
    type Watch = KubernetesWatch;

    fn object(&self, name: &ShareName) -> String {
        format!("the Secret `{}` in the namespace `{}`", secret_of(name), self.namespace)
    }

    async fn get(&self, name: &ShareName) -> Result<Option<Value>, Error> {
        Ok(value_of(&self.read(name).await?))
    }

    async fn swap(&self, name: &ShareName, expected: Option<&Value>, value: Option<&Value>) -> Result<bool, Error> {
        let field = format!("/data/{FIELD}");
        let new = value.map(|value| BASE64.encode(value.expose())).unwrap_or_default();
        let (mut patch, mut tested) = (Vec::new(), None);
        match expected {
            Some(expected) => {
                patch.push(json!({"op": "test", "path": field, "value": BASE64.encode(expected.expose())}));
                patch.push(json!({"op": "replace", "path": field, "value": new}));
            }
            // There is no value to test: the Secret is the one that has none.
            None => {
                let secret = self.read(name).await?;
                tested = secret.resource_version();
                if value_of(&secret).is_some() {
                    return Ok(false);
                }
                patch.push(json!({"op": "test", "path": "/metadata/uid", "value": secret.uid()}));
                patch.push(
                    json!({"op": "test", "path": "/metadata/resourceVersion", "value": secret.resource_version()}),
                );
                if secret.data.is_none() {
                    patch.push(json!({"op": "add", "path": "/data", "value": {}}));
                }
                patch.push(json!({"op": "add", "path": field, "value": new}));
            }
        }
        match self.patch(name, patch, false).await {
            Ok(()) => Ok(true),
            Err(Failed::For(error)) => Err(error),
            // It is looked at before it is believed: an immutable Secret fails in the same way.
            Err(Failed::Test { is_conflict, detail }) => {
                let present = self.read(name).await?;
                if value_of(&present).as_ref() != expected {
                    return Ok(false);
                }
                let (engine, object) = (ENGINE, self.object(name));
                // What is beside the value was changed.
                let is_passing = is_conflict || tested.is_some() && tested != present.resource_version();
                Err(if is_passing {
                    Error::Answer { engine, object, detail }
                } else {
                    Error::Rejected { engine, object, detail }
                })
            }
        }
    }

    async fn probe(&self, name: &ShareName) -> Result<(), Error> {
        let patch = vec![json!({"op": "test", "path": "/metadata/name", "value": secret_of(name)})];
        match self.patch(name, patch, true).await {
            Ok(()) => Ok(()),
            Err(Failed::Test { is_conflict, detail }) => {
                let (engine, object) = (ENGINE, self.object(name));
                Err(if is_conflict {
                    Error::Answer { engine, object, detail }
                } else {
                    Error::Rejected { engine, object, detail }
                })
            }
            Err(Failed::For(error)) => Err(error.without_effect()),
        }
    }

    async fn watch(&self, name: &ShareName) -> Result<KubernetesWatch, Error> {
        let version = self.read(name).await?.resource_version().unwrap_or_default();
        // A Role for one Secret allows to watch it by this field only.
        let fields = format!("metadata.name={}", secret_of(name));
        let parameters = WatchParams { timeout: Some(WATCH_SECS), ..WatchParams::default() }.fields(&fields);
        let stream = tokio::time::timeout(TIMEOUT, self.secrets().watch(&parameters, &version)).await;
        let stream = stream.map_err(|_| self.late(name, WATCH))?.map_err(|error| self.error(name, WATCH, error))?;
        Ok(KubernetesWatch(Box::pin(stream)))
    }
}

type Events = dyn Stream<Item = kube::Result<WatchEvent<Secret>>>;

/// Changes of a Secret.
pub struct KubernetesWatch(Pin<Box<Events>>);

impl std::fmt::Debug for KubernetesWatch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("KubernetesWatch").finish_non_exhaustive()
    }
}

impl Watch for KubernetesWatch {
    async fn next(&mut self) -> Result<Option<Value>, Error> {
        let ended = |detail: String| Error::Unreachable { engine: ENGINE, detail };
        loop {
            match poll_fn(|context| self.0.as_mut().poll_next(context)).await {
                Some(Ok(WatchEvent::Added(secret) | WatchEvent::Modified(secret))) => return Ok(value_of(&secret)),
                Some(Ok(WatchEvent::Deleted(_))) => return Ok(None),
                Some(Ok(WatchEvent::Bookmark(_))) => {}
                Some(Ok(WatchEvent::Error(status))) => return Err(ended(status.message.clone())),
                Some(Err(error)) => return Err(ended(chain(&error))),
                None => return Err(ended("it has ended the watch".to_owned())),
            }
        }
    }
}
