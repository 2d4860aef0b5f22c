//! A kube-apiserver over an etcd of its own, with the Role of the packages.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use runner_agent::sharing::kubernetes::{Config, Kubernetes};
use runner_agent::sharing::{Engine as _, EngineSettings, Error, Settings};
use rustix::process::Signal;
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use test_support::Process;

use crate::agents::StoreAddress;
use crate::cases::{free_port, run};
use crate::commands::{CommandStore, show_heal_and_forget};
use crate::conformance::{self, name, value};
use crate::etcd::certificates;
use crate::torture::{Disturbance, Store, loopback, machines, torture};

/// A name in the certificate of the API server.
const HOST: &str = "kubernetes";

pub(crate) const NAMESPACE: &str = "ci";

/// The token of the administrator.
pub(crate) const ADMIN: &str = "admin-token";

pub(crate) const JSON: &str = "application/json";

const PATIENCE: Duration = Duration::from_secs(120);

/// An API server, with the objects of the packages in its namespace.
pub(crate) struct ApiServer {
    pub(crate) directory: TempDir,
    binary: PathBuf,
    pub(crate) port: u16,
    etcd_url: String,
    server: Process,
    _etcd: Process,
}

impl ApiServer {
    pub(crate) fn new() -> Self {
        let binary = binary();
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let (port, etcd_port, peer) = (free_port(), free_port(), free_port());
        let etcd_url = format!("http://127.0.0.1:{etcd_port}");
        let mut etcd = Command::new("etcd");
        etcd.arg("--data-dir").arg(path("etcd")).arg(format!("--listen-client-urls={etcd_url}"));
        etcd.arg(format!("--advertise-client-urls={etcd_url}"));
        etcd.arg(format!("--listen-peer-urls=http://127.0.0.1:{peer}"));
        let etcd = Process::start(etcd);
        let key = Command::new("openssl").args(["genrsa", "-out"]).arg(path("sa.key")).arg("2048").output().unwrap();
        assert!(key.status.success());
        let tokens = format!("{ADMIN},admin,1,system:masters\nother-token,other,3\n");
        fs::write(
            path("tokens.csv"),
            format!("{tokens}agent-token,system:serviceaccount:{NAMESPACE}:runner-agent,2\n"),
        )
        .unwrap();
        certificates(directory.path(), [HOST.to_owned()]);
        let server = launch(&binary, directory.path(), port, &etcd_url);
        let server = Self { directory, binary, port, etcd_url, server, _etcd: etcd };
        server.wait_until_ready();
        server.create("/api/v1/namespaces", &json!({"metadata": {"name": NAMESPACE}}));
        server
    }

    fn wait_until_ready(&self) {
        let is_ready = |_: &Process| self.request("GET", "/readyz", None).is_some_and(|(code, _)| code == 200);
        assert!(self.server.wait_for(PATIENCE, is_ready), "{}", self.server.log());
    }

    /// Asks as the administrator; `None` without an answer.
    fn request(&self, method: &str, path: &str, body: Option<&Json>) -> Option<(u16, String)> {
        self.ask(ADMIN, method, path, body.map(|body| (JSON, body)))
    }

    /// Asks by a token, with a body of a type; `None` without an answer.
    pub(crate) fn ask(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<(&str, &Json)>,
    ) -> Option<(u16, String)> {
        let mut command = Command::new("curl");
        command.args(["-sk", "-m", "10", "-X", method, "-K", "-", "-w", "\n%{http_code}"]);
        if let Some((kind, body)) = body {
            command.args(["-H", &format!("Content-Type: {kind}"), "-d", &body.to_string()]);
        }
        command.arg(format!("https://127.0.0.1:{}{path}", self.port)).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut curl = command.spawn().unwrap();
        writeln!(curl.stdin.take().unwrap(), "header = \"Authorization: Bearer {token}\"").unwrap();
        let output = String::from_utf8(curl.wait_with_output().unwrap().stdout).unwrap();
        let (body, code) = output.rsplit_once('\n')?;
        Some((code.parse().ok().filter(|code| *code != 0)?, body.to_owned()))
    }

    fn create(&self, path: &str, object: &Json) {
        let answer = self.request("POST", path, Some(object));
        let (code, body) = answer.unwrap_or_else(|| panic!("{path}: no answer: {}", self.server.log()));
        assert!(matches!(code, 200 | 201), "{path}: {code} {body}");
    }

    /// Creates the objects of the packages, but for those of this kind.
    fn apply_manifests(&self, but: &str) {
        for object in manifest("packaging/kubernetes/sharing.yaml").iter().filter(|object| object["kind"] != but) {
            self.create(&collection(object), object);
        }
    }

    fn kubeconfig(&self, token: &str) -> PathBuf {
        self.kubeconfig_of("127.0.0.1", token)
    }

    fn kubeconfig_of(&self, host: &str, token: &str) -> PathBuf {
        let path = self.directory.path().join(format!("{host}-{token}"));
        let cluster = json!({"server": format!("https://{host}:{}", self.port),
            "certificate-authority": self.directory.path().join("ca.pem")});
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "c", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c", "namespace": NAMESPACE}}]});
        fs::write(&path, config.to_string()).unwrap();
        path
    }

    async fn connect(&self, token: &str) -> Kubernetes {
        let config = Config { kubeconfig: Some(self.kubeconfig(token)), namespace: None };
        Kubernetes::new(config).await.unwrap()
    }
}

/// The objects of a file with YAML.
pub(crate) fn manifest(path: &str) -> Vec<Json> {
    let script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let output = Command::new("/usr/bin/python3").args(["-c", script, path]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The path of all objects of an object's kind.
pub(crate) fn collection(object: &Json) -> String {
    let plural = format!("{}s", object["kind"].as_str().unwrap().to_lowercase());
    let group = match object["apiVersion"].as_str().unwrap() {
        "v1" => "/api/v1".to_owned(),
        group => format!("/apis/{group}"),
    };
    format!("{group}/namespaces/{NAMESPACE}/{plural}")
}

/// The API server, which is built once.
fn binary() -> PathBuf {
    static BINARY: LazyLock<PathBuf> = LazyLock::new(|| {
        let output = Command::new("tests/e2e/sharing/kube-apiserver.sh").output().unwrap();
        let path = String::from_utf8(output.stdout).unwrap();
        assert!(!path.is_empty(), "kube-apiserver was not built: {}", String::from_utf8_lossy(&output.stderr));
        path.trim().into()
    });
    BINARY.clone()
}

fn launch(binary: &Path, directory: &Path, port: u16, etcd_url: &str) -> Process {
    let path = |name: &str| directory.join(name);
    let mut server = Command::new(binary);
    server.arg(format!("--etcd-servers={etcd_url}")).arg(format!("--secure-port={port}"));
    server.args(["--bind-address=127.0.0.1", "--service-account-issuer=https://kubernetes.test"]);
    server.arg("--tls-cert-file").arg(path("cert.pem")).arg("--tls-private-key-file").arg(path("key.pem"));
    server.arg("--cert-dir").arg(path("certs")).arg("--token-auth-file").arg(path("tokens.csv"));
    server.arg("--service-account-signing-key-file").arg(path("sa.key"));
    server.arg("--service-account-key-file").arg(path("sa.key"));
    server.args(["--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/24"]);
    // No controller makes the secret of a service account's token.
    server.arg("--disable-admission-plugins=ServiceAccount");
    Process::start(server)
}

impl Store for ApiServer {
    fn address(&self) -> StoreAddress {
        let kubeconfig = self.kubeconfig_of(HOST, "agent-token");
        let section = format!("engine = \"kubernetes\"\nkubeconfig = \"{}\"\n", kubeconfig.display());
        StoreAddress { servers: vec![loopback(HOST, self.port)], section }
    }

    fn settings(&self) -> Box<dyn FnOnce() -> Settings + Send> {
        let kubeconfig = Some(self.kubeconfig("agent-token"));
        Box::new(move || {
            let engine = EngineSettings::Kubernetes { kubeconfig, namespace: None };
            Settings { engine, encryption_key: None, recover: false }
        })
    }

    fn servers(&self) -> usize {
        1
    }

    fn has_peers(&self) -> bool {
        false
    }

    fn disturb(&mut self, _server: usize, kind: Disturbance) {
        self.server.signal(match kind {
            Disturbance::Killed => Signal::KILL,
            Disturbance::Paused => Signal::STOP,
            Disturbance::CutOff(_) => unreachable!("it is alone"),
        });
    }

    fn heal(&mut self, _server: usize) {
        if self.server.is_running() {
            self.server.signal(Signal::CONT);
        } else {
            self.server = launch(&self.binary, self.directory.path(), self.port, &self.etcd_url);
        }
    }

    fn is_ready(&self, _server: usize) -> bool {
        self.request("GET", "/readyz", None).is_some_and(|(code, _)| code == 200)
    }
}

impl CommandStore for ApiServer {
    fn section(&self) -> String {
        format!("[sharing]\nengine = \"kubernetes\"\nkubeconfig = {:?}\n", self.kubeconfig("agent-token"))
    }

    fn section_of_unknown(&self) -> String {
        format!("[sharing]\nengine = \"kubernetes\"\nkubeconfig = {:?}\n", self.kubeconfig("unknown-token"))
    }

    fn edit(&self, share: &str, change: &dyn Fn(&mut Json)) {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets/runner-agent-{share}");
        let (_, secret) = self.request("GET", &path, None).unwrap();
        let mut secret: Json = serde_json::from_str(&secret).unwrap();
        let value = BASE64.decode(secret["data"]["runner"].as_str().unwrap()).unwrap();
        let mut value = serde_json::from_slice(&value).unwrap();
        change(&mut value);
        secret["data"]["runner"] = BASE64.encode(value.to_string()).into();
        let (code, body) = self.request("PUT", &path, Some(&secret)).unwrap();
        assert_eq!(code, 200, "{body}");
    }

    fn stop(&self) {
        // Connections are refused; one that is paused takes its time.
        self.server.signal(Signal::KILL);
    }
}

pub(crate) fn commands() {
    let server = ApiServer::new();
    server.apply_manifests("");
    show_heal_and_forget(&server);
}

pub(crate) fn tortured() {
    let make = || {
        let server = ApiServer::new();
        server.apply_manifests("");
        Box::new(server) as Box<dyn Store>
    };
    torture(make, machines(10));
}

pub(crate) fn keeps_what_every_engine_has_to() {
    let server = ApiServer::new();
    server.apply_manifests("");
    run(async {
        let mut engines = Vec::new();
        for _ in 0..8 {
            engines.push(server.connect("agent-token").await);
        }
        conformance::check(&engines).await;
    });
}

pub(crate) fn names_the_verb() {
    let server = ApiServer::new();
    server.apply_manifests("Role");
    run(async {
        let denied = |result: Result<(), Error>, verb: &str| {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Denied { .. }), "{error:?}");
            assert!(error.to_string().contains(&format!("the verb `{verb}`")), "{error}");
        };
        let agent = server.connect("agent-token").await;
        denied(agent.get(&name()).await.map(drop), "get");
        denied(agent.probe(&name()).await, "patch");
        let rules = json!([{"apiGroups": [""], "resources": ["secrets"],
            "resourceNames": ["runner-agent-docker-fleet"], "verbs": ["get"]}]);
        let role = json!({"metadata": {"name": "runner-agent-docker-fleet"}, "rules": rules});
        server.create(&format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/roles"), &role);
        // The API server learns of it within a moment.
        let mut read = agent.get(&name()).await;
        for _ in 0..100 {
            if read.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            read = agent.get(&name()).await;
        }
        assert_eq!(read.unwrap(), None);
        denied(agent.swap(&name(), None, Some(&value("new"))).await.map(drop), "patch");
        denied(agent.probe(&name()).await, "patch");
        denied(agent.watch(&name()).await.map(drop), "watch");
        let error = server.connect("unknown-token").await.get(&name()).await.unwrap_err();
        assert!(matches!(error, Error::Unauthenticated { .. }), "{error:?}");
    });
}

pub(crate) fn names_the_secret() {
    let server = ApiServer::new();
    server.apply_manifests("Secret");
    run(async {
        let agent = server.connect("agent-token").await;
        for result in [agent.get(&name()).await.map(drop), agent.probe(&name()).await] {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Missing { .. }), "{error:?}");
            assert!(error.to_string().contains("`runner-agent-docker-fleet` in the namespace `ci`"), "{error}");
        }
    });
}

pub(crate) fn gone() {
    let server = ApiServer::new();
    server.apply_manifests("");
    run(async {
        let agent = server.connect("agent-token").await;
        assert!(agent.swap(&name(), None, Some(&value("old"))).await.unwrap());
        server.server.signal(Signal::STOP);
        let read = agent.get(&name()).await;
        assert!(matches!(read, Err(Error::Unreachable { .. })), "{read:?}");
        let write = agent.swap(&name(), Some(&value("old")), Some(&value("new"))).await;
        assert!(matches!(write, Err(Error::Unknown { .. })), "it can be executed later: {write:?}");
        let probe = agent.probe(&name()).await;
        assert!(matches!(probe, Err(Error::Unreachable { .. })), "{probe:?}");
        server.server.signal(Signal::CONT);
        let is_ready = |_: &Process| server.request("GET", "/readyz", None).is_some_and(|(code, _)| code == 200);
        assert!(server.server.wait_for(PATIENCE, is_ready));
        let found = agent.get(&name()).await.unwrap().unwrap();
        assert!(found == value("old") || found == value("new"));
    });
    let server = ApiServer {
        server: {
            server.server.signal(Signal::KILL);
            server.server
        },
        ..server
    };
    run(async {
        let agent = server.connect("agent-token").await;
        let write = agent.swap(&name(), Some(&value("new")), Some(&value("other"))).await;
        assert!(matches!(write, Err(Error::Unreachable { .. } | Error::Unknown { .. })), "{write:?}");
    });
}
