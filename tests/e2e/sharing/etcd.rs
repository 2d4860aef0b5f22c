//! Three members of etcd, with TLS and a user for the agents.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use runner_agent::model::{TlsFiles, TlsPaths};
use runner_agent::secret::{Password, Source, Token};
use runner_agent::sharing::etcd::{Config, Etcd};
use runner_agent::sharing::{Engine as _, EngineSettings, Error, Settings, Watch as _};
use rustix::process::Signal;
use tempfile::TempDir;
use test_support::Process;

use crate::agents::StoreAddress;
use crate::cases::{free_port, run};
use crate::commands::{CommandStore, show_heal_and_forget};
use crate::conformance::{self, name, value};
use crate::fleet;
use crate::proxy::{Passage, Proxies, Proxy, UnderWay};
use crate::torture::{Disturbance, Store, loopback, machines, torture};

const MEMBERS: usize = 3;
const PREFIX: &str = "/runner-agent/";
const ROOT: &str = "root:root-password";
const PASSWORD: &str = "etcd-password";
const SHARING_KEY: &str = "a-sharing-key-that-only-the-machines-have";
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster, with users.
struct Cluster {
    directory: TempDir,
    ports: Vec<(u16, u16)>,
    members: Vec<Process>,
    /// The ways between two members, by the numbers of both, if each has a way of its own.
    ways: BTreeMap<(usize, usize), Proxy>,
    /// The members that are cut off.
    cut_off: BTreeSet<usize>,
}

impl Cluster {
    fn new() -> Self {
        Self::with(None)
    }

    /// Its members reach each other by these proxies.
    fn with(proxies: Option<&Proxies>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Machines with ways of their own reach the members by names, and so do members.
        certificates(directory.path(), (0..MEMBERS).map(host).chain((0..MEMBERS).map(peer)));
        let ports: Vec<_> = (0..MEMBERS).map(|_| (free_port(), free_port())).collect();
        let (members, ways, cut_off) = Default::default();
        let mut cluster = Self { directory, ports, members, ways, cut_off };
        proxies.into_iter().for_each(|proxies| cluster.lay_ways(proxies));
        (0..MEMBERS).for_each(|number| cluster.members.push(cluster.member(number)));
        cluster.wait_until_healthy();
        cluster.etcdctl(&["user", "add", ROOT], None);
        cluster.etcdctl(&["user", "grant-role", "root", "root"], None);
        cluster.etcdctl(&["auth", "enable"], None);
        let created = cluster.create_user("agent", PASSWORD);
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
        write_secret(&cluster.path("sharing-key"), SHARING_KEY);
        cluster
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn url(&self, number: usize) -> String {
        format!("https://127.0.0.1:{}", self.ports[number].0)
    }

    /// Gives each member hosts of its own, by which it reaches each other one by a proxy of its own.
    fn lay_ways(&mut self, proxies: &Proxies) {
        for from in 0..MEMBERS {
            let mut hosts = String::from("127.0.0.1 localhost\n");
            for to in 0..MEMBERS {
                let server = SocketAddr::from(([127, 0, 0, 1], self.ports[to].1));
                let ip = if from == to { Ipv4Addr::LOCALHOST } else { way(from, to) };
                writeln!(hosts, "{ip} {}", peer(to)).unwrap();
                if from != to {
                    let proxy = proxies.forward((ip, server.port()).into(), server, UnderWay::Lost);
                    self.ways.insert((from, to), proxy);
                }
            }
            fs::write(self.path(&format!("hosts-{from}")), hosts).unwrap();
        }
    }

    /// Sets the ways between a member and those that are not cut off.
    fn set_ways(&self, member: usize, passage: Passage) {
        let is_meant = |from: usize, to: usize| from == member && !self.cut_off.contains(&to);
        let ways = self.ways.iter().filter(|((from, to), _)| is_meant(*from, *to) || is_meant(*to, *from));
        ways.for_each(|(_, way)| way.set(passage));
    }

    /// etcd, in a mount namespace with its own hosts if it has ways of its own.
    fn etcd(&self, number: usize) -> Command {
        if self.ways.is_empty() {
            return Command::new("etcd");
        }
        let mut command = Command::new("unshare");
        let script = "mount --bind \"$0\" /etc/hosts && exec etcd \"$@\"";
        command.args(["--mount", "--propagation", "private", "sh", "-c", script]);
        command.arg(self.path(&format!("hosts-{number}")));
        command
    }

    /// Starts a member, or starts it again.
    fn member(&self, number: usize) -> Process {
        let listen = format!("https://127.0.0.1:{}", self.ports[number].1);
        let name = |number: usize| if self.ways.is_empty() { "127.0.0.1".to_owned() } else { peer(number) };
        let peer = |number: usize| format!("https://{}:{}", name(number), self.ports[number].1);
        let all: Vec<_> = (0..MEMBERS).map(|number| format!("m{number}={}", peer(number))).collect();
        let (ca, cert, key) = (self.path("ca.pem"), self.path("cert.pem"), self.path("key.pem"));
        let mut command = self.etcd(number);
        command.arg(format!("--name=m{number}")).arg("--data-dir").arg(self.path(&format!("m{number}")));
        command.arg(format!("--listen-client-urls={}", self.url(number)));
        command.arg(format!("--advertise-client-urls={}", self.url(number)));
        command.arg(format!("--listen-peer-urls={listen}"));
        command.arg(format!("--initial-advertise-peer-urls={}", peer(number)));
        command.arg(format!("--initial-cluster={}", all.join(",")));
        for prefix in ["", "peer-"] {
            command.arg(format!("--{prefix}cert-file")).arg(&cert).arg(format!("--{prefix}key-file")).arg(&key);
        }
        // The processors of one machine check the passwords that three hosts check elsewhere.
        command.arg("--bcrypt-cost=4");
        // That of the clients would ask them for certificates.
        command.arg("--peer-trusted-ca-file").arg(&ca);
        Process::start(command)
    }

    fn wait_until_healthy(&self) {
        let is_healthy = |number: usize| {
            let mut command = Command::new("curl");
            let output = command.args(["-sk", "-m", "5", &format!("{}/health", self.url(number))]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).contains("true")
        };
        let are_healthy = |_: &Process| (0..MEMBERS).all(is_healthy);
        assert!(self.members[0].wait_for(PATIENCE, are_healthy), "{}", self.members[0].log());
    }

    fn etcdctl_command(&self) -> Command {
        let mut command = Command::new("etcdctl");
        self.for_etcdctl(&mut command);
        command
    }

    fn for_etcdctl(&self, command: &mut Command) {
        let endpoints: Vec<_> = (0..MEMBERS).map(|number| self.url(number)).collect();
        command.env("ETCDCTL_API", "3").env("ETCDCTL_ENDPOINTS", endpoints.join(","));
        command.env("ETCDCTL_CACERT", self.path("ca.pem"));
    }

    /// Runs etcdctl, as this user if there is one.
    fn etcdctl(&self, args: &[&str], user: Option<&str>) {
        let mut command = self.etcdctl_command();
        command.args(args).envs(user.map(|user| ("ETCDCTL_USER", user)));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs the script of the packages as etcd's root.
    fn create_user(&self, user: &str, password: &str) -> Output {
        let file = self.path("password");
        write_secret(&file, password);
        let mut command = Command::new("packaging/etcd/create-user");
        self.for_etcdctl(&mut command);
        command.args([user, PREFIX]).env("ETCDCTL_USER", ROOT);
        command.stdin(Stdio::from(fs::File::open(file).unwrap())).output().unwrap()
    }

    /// The requests that all members have got from clients, by their kind.
    fn requests(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for number in 0..MEMBERS {
            let mut command = Command::new("curl");
            let output = command.args(["-sk", "-m", "20", &format!("{}/metrics", self.url(number))]).output().unwrap();
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                let Some(line) = line.strip_prefix("grpc_server_started_total{grpc_method=\"") else { continue };
                let (method, count) = (line.split('"').next().unwrap(), line.rsplit(' ').next().unwrap());
                *counts.entry(method.to_owned()).or_default() += count.parse::<u64>().unwrap();
            }
        }
        counts
    }

    fn config(&self) -> Config {
        Config {
            endpoints: (0..MEMBERS).map(|number| self.url(number).parse().unwrap()).collect(),
            prefix: PREFIX.to_owned(),
            tls: TlsPaths { ca_file: Some(self.path("ca.pem")), ..TlsPaths::default() }.into(),
            user: Some(("agent".to_owned(), Password::parse(PASSWORD).unwrap())),
        }
    }

    fn connect(&self) -> Etcd {
        Etcd::new(self.config()).unwrap()
    }
}

impl CommandStore for Cluster {
    fn section(&self) -> String {
        let endpoints: Vec<_> = (0..MEMBERS).map(|number| self.url(number)).collect();
        let (ca, password) = (self.path("ca.pem"), self.path("password"));
        format!(
            "[sharing]\nengine = \"etcd\"\nendpoints = {endpoints:?}\nprefix = \"{PREFIX}\"\ntls_ca_file = {ca:?}\nusername = \"agent\"\npassword = {{ file = {password:?} }}\n"
        )
    }

    fn section_of_unknown(&self) -> String {
        self.section().replace("username = \"agent\"", "username = \"unknown\"")
    }

    fn edit(&self, share: &str, change: &dyn Fn(&mut serde_json::Value)) {
        let key = format!("{PREFIX}{share}");
        let mut command = self.etcdctl_command();
        let output = command.args(["get", "--print-value-only", &key]).env("ETCDCTL_USER", ROOT).output().unwrap();
        let mut value = serde_json::from_slice(&output.stdout).unwrap();
        change(&mut value);
        self.etcdctl(&["put", &key, &value.to_string()], Some(ROOT));
    }

    fn stop(&self) {
        self.members.iter().for_each(|member| member.signal(Signal::STOP));
    }
}

fn write_secret(file: &Path, text: &str) {
    fs::write(file, text).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

/// The name of a member for machines.
fn host(number: usize) -> String {
    format!("etcd-{number}.test")
}

/// The name of a member for the other ones.
fn peer(number: usize) -> String {
    format!("peer-{number}.test")
}

/// Where a member finds another one.
fn way(from: usize, to: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 9, u8::try_from(from).unwrap(), u8::try_from(to + 1).unwrap())
}

impl Store for Cluster {
    fn address(&self) -> StoreAddress {
        let endpoints = (0..MEMBERS).map(|number| format!("\"https://{}:{}\"", host(number), self.ports[number].0));
        let section = format!(
            "engine = \"etcd\"\nendpoints = [{}]\nprefix = \"{PREFIX}\"\ntls_ca_file = \"{}\"\nusername = \
             \"agent\"\npassword = {{ file = \"{}\" }}\nencryption_key = {{ file = \"{}\" }}\n",
            endpoints.collect::<Vec<_>>().join(", "),
            self.path("ca.pem").display(),
            self.path("password").display(),
            self.path("sharing-key").display(),
        );
        let servers = (0..MEMBERS).map(|number| loopback(&host(number), self.ports[number].0)).collect();
        StoreAddress { servers, section }
    }

    fn settings(&self) -> Box<dyn FnOnce() -> Settings + Send> {
        let (urls, ca): (Vec<_>, _) = ((0..MEMBERS).map(|number| self.url(number)).collect(), self.path("ca.pem"));
        Box::new(move || {
            let password = Source::Value { token: Token::parse(PASSWORD).unwrap(), origin: "test".to_owned() };
            let engine = EngineSettings::Etcd {
                endpoints: urls.iter().map(|url| url.parse().unwrap()).collect(),
                prefix: PREFIX.to_owned(),
                tls: TlsPaths { ca_file: Some(ca), ..TlsPaths::default() }.into(),
                user: Some(("agent".to_owned(), password)),
            };
            // The machines' tokens are sealed before they leave them.
            let key = Source::Value { token: Token::parse(SHARING_KEY).unwrap(), origin: "test".to_owned() };
            Settings { engine, encryption_key: Some(key), recover: false }
        })
    }

    fn servers(&self) -> usize {
        MEMBERS
    }

    fn has_peers(&self) -> bool {
        !self.ways.is_empty()
    }

    fn disturb(&mut self, server: usize, kind: Disturbance) {
        match kind {
            Disturbance::Killed => self.members[server].signal(Signal::KILL),
            Disturbance::Paused => self.members[server].signal(Signal::STOP),
            Disturbance::CutOff(passage) => {
                self.set_ways(server, passage);
                self.cut_off.insert(server);
            }
        }
    }

    fn heal(&mut self, server: usize) {
        if self.cut_off.remove(&server) {
            self.set_ways(server, Passage::Open);
        }
        if self.members[server].is_running() {
            self.members[server].signal(Signal::CONT);
        } else {
            self.members[server] = self.member(server);
        }
    }

    fn is_ready(&self, _server: usize) -> bool {
        true
    }
}

/// An authority, and a certificate for loopback by its address and by names. They are valid by any clock.
pub(crate) fn certificates(directory: &Path, names: impl IntoIterator<Item = String>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = std::iter::once("127.0.0.1".to_owned()).chain(names);
    let params = CertificateParams::new(names.collect::<Vec<_>>()).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    for (name, text) in [("ca.pem", authority.pem()), ("cert.pem", certificate.pem()), ("key.pem", key.serialize_pem())]
    {
        fs::write(directory.join(name), text).unwrap();
    }
}

pub(crate) fn commands() {
    show_heal_and_forget(&Cluster::new());
}

pub(crate) fn keeps_what_every_engine_has_to() {
    let cluster = Cluster::new();
    let engines: Vec<_> = (0..8).map(|_| cluster.connect()).collect();
    run(conformance::check(&engines));
}

pub(crate) fn goes_on_without_one_member() {
    let cluster = Cluster::new();
    let etcd = cluster.connect();
    run(async {
        assert!(etcd.swap(&name(), None, Some(&value("0"))).await.unwrap());
        for number in 0..MEMBERS {
            // It takes connections, and does not answer.
            cluster.members[number].signal(Signal::STOP);
            let (old, new) = (value(&number.to_string()), value(&(number + 1).to_string()));
            swapped(&etcd, &old, &new).await;
            assert_eq!(etcd.get(&name()).await.unwrap(), Some(new));
            cluster.members[number].signal(Signal::CONT);
            cluster.wait_until_healthy();
        }
    });
}

/// Swaps until the store has the new value: a write without an answer is looked up.
async fn swapped(etcd: &Etcd, old: &runner_agent::sharing::Value, new: &runner_agent::sharing::Value) {
    for _ in 0..20 {
        match etcd.swap(&name(), Some(old), Some(new)).await {
            Ok(true) => return,
            Ok(false) if etcd.get(&name()).await.unwrap().as_ref() == Some(new) => return,
            Ok(false) => panic!("the store has another value"),
            Err(Error::Unknown { .. } | Error::Unreachable { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no write is taken");
}

pub(crate) fn without_a_majority() {
    let cluster = Cluster::new();
    let etcd = cluster.connect();
    run(async {
        assert!(etcd.swap(&name(), None, Some(&value("old"))).await.unwrap());
        let lone = vec![cluster.url(0).parse().unwrap()];
        let lone = Etcd::new(Config { endpoints: lone, ..cluster.config() }).unwrap();
        let mut watch = lone.watch(&name()).await.unwrap();
        cluster.members[1..].iter().for_each(|member| member.signal(Signal::STOP));
        let read = etcd.get(&name()).await;
        assert!(matches!(read, Err(Error::Unreachable { .. })), "a value of one member is none: {read:?}");
        let write = etcd.swap(&name(), Some(&value("old")), Some(&value("new"))).await;
        assert!(matches!(write, Err(Error::Unreachable { .. } | Error::Unknown { .. })), "{write:?}");
        let probe = etcd.probe(&name()).await;
        assert!(matches!(probe, Err(Error::Unreachable { .. })), "{probe:?}");
        let ended = tokio::time::timeout(PATIENCE, watch.next()).await;
        assert!(ended.is_ok_and(|next| next.is_err()), "a watch without a leader ends");
        cluster.members[1..].iter().for_each(|member| member.signal(Signal::CONT));
        cluster.wait_until_healthy();
        swapped(&etcd, &value("old"), &value("new")).await;
    });
}

pub(crate) fn session_that_ended() {
    let mut cluster = Cluster::new();
    let etcd = cluster.connect();
    run(async { assert!(etcd.swap(&name(), None, Some(&value("old"))).await.unwrap()) });
    // Sessions are in the memory of the members.
    std::mem::take(&mut cluster.members).into_iter().for_each(|member| drop(member.kill()));
    (0..MEMBERS).for_each(|number| cluster.members.push(cluster.member(number)));
    cluster.wait_until_healthy();
    run(async {
        assert_eq!(etcd.get(&name()).await.unwrap(), Some(value("old")));
        assert!(etcd.swap(&name(), Some(&value("old")), Some(&value("new"))).await.unwrap());
    });
}

pub(crate) fn names_the_permission() {
    let cluster = Cluster::new();
    let root = Some(ROOT);
    for (user, grants) in [("none", &[][..]), ("reader", &["read"][..])] {
        cluster.etcdctl(&["role", "add", user], root);
        for grant in grants {
            cluster.etcdctl(&["role", "grant-permission", "--prefix=true", user, grant, PREFIX], root);
        }
        cluster.etcdctl(&["user", "add", &format!("{user}:{PASSWORD}")], root);
        cluster.etcdctl(&["user", "grant-role", user, user], root);
    }
    let connect = |user: &str, prefix: &str| {
        let user = Some((user.to_owned(), Password::parse(PASSWORD).unwrap()));
        Etcd::new(Config { user, prefix: prefix.to_owned(), ..cluster.config() }).unwrap()
    };
    run(async {
        let denied = |result: Result<(), Error>, act: &str| {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Denied { .. }), "{error:?}");
            let text = error.to_string();
            assert!(text.contains(&format!("to {act} ")) && text.contains("/docker-fleet"), "{text}");
        };
        let reader = connect("reader", PREFIX);
        assert_eq!(reader.get(&name()).await.unwrap(), None);
        denied(reader.probe(&name()).await, "write");
        denied(reader.swap(&name(), None, Some(&value("new"))).await.map(drop), "write");
        denied(connect("none", PREFIX).get(&name()).await.map(drop), "read");
        denied(connect("none", PREFIX).watch(&name()).await.map(drop), "read");
        // The user of the packages has no right to other keys.
        denied(connect("agent", "/other/").probe(&name()).await, "write");
        assert_eq!(cluster.connect().get(&name()).await.unwrap(), None, "nothing was written");
    });
}

pub(crate) fn wrong_credentials() {
    let cluster = Cluster::new();
    run(async {
        for user in [None, Some(("agent", "wrong")), Some(("unknown", PASSWORD))] {
            let user = user.map(|(user, password)| (user.to_owned(), Password::parse(password).unwrap()));
            let etcd = Etcd::new(Config { user, ..cluster.config() }).unwrap();
            for result in [etcd.get(&name()).await.map(drop), etcd.probe(&name()).await] {
                let error = result.unwrap_err();
                assert!(matches!(error, Error::Unauthenticated { .. }), "{error:?}");
                assert!(!format!("{error} {error:?}").contains("wrong"), "{error:?}");
            }
        }
        let etcd = Etcd::new(Config { tls: TlsFiles::default(), ..cluster.config() }).unwrap();
        let error = etcd.get(&name()).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }) && error.to_string().contains("certificate"), "{error}");
    });
}

pub(crate) fn users_of_any_name() {
    let cluster = Cluster::new();
    let (user, password) = ("-o'brien \"$HOME\" \\ ü", "-pa$$'\"\\`é✓");
    let created = cluster.create_user(user, &format!("{password}\n"));
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    let connect = |user: &str, password: &str| {
        let user = Some((user.to_owned(), Password::parse(password).unwrap()));
        Etcd::new(Config { user, ..cluster.config() }).unwrap()
    };
    // What etcdctl would understand otherwise: another user, or half of a password.
    for (user, password) in [("a:b", "secret"), ("spaced", "two words"), ("spaced", "  "), ("spaced", "")] {
        let created = cluster.create_user(user, password);
        assert_eq!(created.status.code(), Some(2), "{user} {password}");
        assert!(!String::from_utf8_lossy(&created.stderr).contains("two words"));
    }
    cluster.etcdctl(&["user", "add", "spaced:two words"], Some(ROOT));
    cluster.etcdctl(&["user", "grant-role", "spaced", "agent"], Some(ROOT));
    run(async {
        for etcd in [connect(user, password), connect("spaced", "two words")] {
            etcd.probe(&name()).await.unwrap();
        }
        assert!(matches!(connect("spaced", "two").get(&name()).await, Err(Error::Unauthenticated { .. })));
    });
}

pub(crate) fn tortured() {
    let proxies = Proxies::new();
    torture(|| Box::new(Cluster::with(Some(&proxies))), machines(20));
}

pub(crate) fn starts_together() {
    let cluster = Cluster::new();
    fleet::start_together(&cluster, machines(200), &|| cluster.requests());
}
