//! The attacker is another server, a web page, or a process that serves the daemon's socket.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use fake_gitlab::{Gitlab, Request, Scope, Tls};
use test_support::Process;

use crate::attacker::{Attacker, FORGED, serve};
use crate::scene::Scene;

/// The attacker's server has a certificate of an authority that only files of the attacker's vouch for.
pub(crate) fn access_token_by_foreign_trust() -> Result<(), String> {
    let scene = Scene::of(Gitlab::builder().tls(Tls::self_signed(["127.0.0.1"])));
    let (url, access) = (scene.gitlab.url(), scene.gitlab.add_access_token([Scope::Api]));
    let access = scene.write("access", &access);
    let access = access.to_str().unwrap();
    scene.write_fast_settings(&format!("[[server]]\nurl = \"{url}\"\naccess_token = {{ file = {access:?} }}\n"));
    let ca = scene.write("config/ca.pem", &scene.gitlab.ca_pem());
    scene.give("config/ca.pem");
    let entry = scene.config();
    let attempts = |what: &str| {
        scene.run(&["verify"]).exits(0);
        let id = scene.gitlab.runners().first().unwrap().id;
        scene.gitlab.expire(id);
        for args in [
            &["rotate", "--all", "--force", "--pat-file", access][..],
            &["rotate", "--all"],
            &["run", "--once"],
            &["fleet", "list"],
            &["fleet", "create", "--instance", "--write-token", "created"],
        ] {
            scene.run(args);
        }
        let has_token = |request: &Request| request.header("private-token").is_some();
        if scene.gitlab.requests().iter().any(has_token) { Err(format!("{what} was trusted")) } else { Ok(()) }
    };
    scene.write_config(&format!("{entry}tls-ca-file = {ca:?}\n"));
    scene.give("config/config.toml");
    attempts("tls-ca-file of an entry")?;

    let scene = Scene::of(Gitlab::builder().tls(Tls::self_signed(["127.0.0.1"])));
    let of_host = scene.write("config/certs/127.0.0.1.crt", &scene.gitlab.ca_pem());
    scene.give("config/certs");
    fs::set_permissions(&of_host, Permissions::from_mode(0o644)).unwrap();
    scene.run(&["verify"]).exits(0);
    let access = scene.write("access", &scene.gitlab.add_access_token([Scope::Api]));
    let list = ["fleet", "list", "--url", &scene.gitlab.url(), "--access-token-file", access.to_str().unwrap()];
    let refused = scene.run(&list);
    if refused.is_success() {
        return Err("a certificate in the attacker's directory was trusted".to_owned());
    }
    // Root's own directory counts.
    scene.take("config/certs");
    fs::set_permissions(scene.path("config/certs"), Permissions::from_mode(0o755)).unwrap();
    let listed = scene.run(&list);
    if listed.is_success() { Ok(()) } else { Err(format!("root's own certificate is not trusted: {}", listed.text())) }
}

/// The same for what runners are made from: the attacker's directory, or the entry of a runner that is made again, would
/// vouch for his server.
pub(crate) fn registration_token_by_foreign_trust() -> Result<(), String> {
    let scene = Scene::of(Gitlab::builder().tls(Tls::self_signed(["127.0.0.1"])));
    let url = scene.gitlab.url();
    let of_host = scene.write("config/certs/127.0.0.1.crt", &scene.gitlab.ca_pem());
    scene.give("config/certs");
    fs::set_permissions(&of_host, Permissions::from_mode(0o644)).unwrap();
    let access = scene.write("access", &scene.gitlab.add_access_token([Scope::Api]));
    let token = scene.path("token");
    // A file of root's, which the attacker has filled in some way, such as root's mail.
    let of_entry = scene.write("mail-of-root", &scene.gitlab.ca_pem());
    let (config, tls) = (scene.config(), format!("tls-ca-file = {of_entry:?}\n"));
    let secrets = [
        format!("registration_token = {{ file = {token:?} }}"),
        format!(
            "create = {{ runner_type = \"instance_type\" }}\n[[server]]\nurl = \"{url}\"\naccess_token = {{ file = {access:?} }}"
        ),
    ];
    let token = token.to_str().unwrap();
    let register = ["register", "-n", "--url", &url, "--registration-token-file", token, "--wait", "0s", "--name"];
    let has_secret = |request: &Request| {
        request.header("private-token").is_some()
            || request.parameter("token") == Some(scene.gitlab.instance_registration_token().as_str())
    };
    for (what, trust) in [("a certificate in the attacker's directory", ""), ("the entry of the attacker's", &tls)] {
        for name in ["found", "new"] {
            scene.write_config(&format!("{config}{trust}"));
            scene.give("config/config.toml");
            let args = [&register[..], &[name, "--force"]].concat();
            let output = scene.run(&args);
            let is_sent = scene.gitlab.requests().iter().any(has_secret);
            if is_sent || output.is_success() {
                return Err(format!("{what} was trusted: {}", output.text()));
            }
            // Only the runner that is made again has an entry.
            let is_named = output.text().contains(of_entry.to_str().unwrap()) && output.text().contains("user 1500");
            if is_named != (name == "found" && !trust.is_empty()) {
                return Err(format!("the file of an entry is named: {is_named}: {}", output.text()));
            }
            for secret in &secrets {
                scene.write_fast_settings(&scene.enrollment(name, secret));
                scene.run(&["run", "--once"]);
            }
            if scene.gitlab.requests().iter().any(has_secret) {
                return Err(format!("{what} was trusted by an enrollment"));
            }
        }
    }
    scene.write_fast_settings("");
    let refused = scene.run(&[&register[..], &["new"]].concat());
    if !refused.text().contains(of_host.to_str().unwrap()) || !refused.text().contains("user 1500") {
        return Err(format!("the file and its owner are not named: {}", refused.text()));
    }
    // What root names counts, and so does root's own directory.
    let own = scene.write("ca.pem", &scene.gitlab.ca_pem());
    let named = scene.run(&[&register[..], &["named", "--tls-ca-file", own.to_str().unwrap()]].concat());
    scene.take("config/certs");
    let found = scene.run(&[&register[..], &["found-in-own"]].concat());
    if named.is_success() && found.is_success() {
        return Ok(());
    }
    Err(format!("root's own certificate is not trusted: {}{}", named.text(), found.text()))
}

/// A daemon that answers on loopback, and its port.
fn listening(scene: &Scene) -> (Process, u16) {
    let daemon = scene.start(&["run", "--listen-address", "127.0.0.1:0"]);
    let mut port = None;
    scene.wait("the daemon to listen", |_| {
        let log = daemon.log();
        port = log.split_once("addresses=\"127.0.0.1:").and_then(|(_, rest)| rest.split_once('"')?.0.parse().ok());
        port.is_some()
    });
    (daemon, port.unwrap())
}

/// Sends a request and reads the answer; fails if it takes long.
fn ask(port: u16, path: &str, host: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("no answer: {error}");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(failed)?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    Ok(answer)
}

/// A page in a browser on this machine, whose name leads to loopback.
pub(crate) fn host_rebound() -> Result<(), String> {
    let scene = Scene::new();
    let (_daemon, port) = listening(&scene);
    for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example:80", ""] {
        let host = if host.is_empty() { String::new() } else { format!("{host}:{port}") };
        for path in ["/status", "/metrics", "/"] {
            let answer = ask(port, path, &host)?;
            if answer.starts_with("HTTP/1.1 2") || answer.contains("found") {
                return Err(format!("{path} was answered for the host `{host}`: {answer}"));
            }
        }
    }
    let answer = ask(port, "/status", &format!("127.0.0.1:{port}"))?;
    let is_guarded = answer.to_ascii_lowercase().contains("x-content-type-options: nosniff");
    if answer.starts_with("HTTP/1.1 200") && is_guarded { Ok(()) } else { Err(format!("a wrong answer: {answer}")) }
}

/// 400 connections that send nothing more.
pub(crate) fn connections_half_open() -> Result<(), String> {
    let scene = Scene::new();
    let (_daemon, port) = listening(&scene);
    let ready = scene.path("config/ready");
    let address = format!("127.0.0.1:{port}");
    let mut attacker = Attacker::start("half-open", &[Path::new(&address), Path::new("400"), &ready]);
    scene.wait("the connections to be open", |_| ready.exists() || !attacker.is_running());
    for _ in 0..3 {
        let answer = ask(port, "/metrics", &address)?;
        if !answer.starts_with("HTTP/1.1 200") {
            return Err(format!("a wrong answer: {answer}"));
        }
    }
    if attacker.is_running() { Ok(()) } else { Err("the attacker has ended".to_owned()) }
}

/// The attacker listens where root looks for the daemon. He knows the mark of the instance; another process of root's that
/// answers there, such as another program, has none.
pub(crate) fn socket_served_by_another() -> Result<(), String> {
    let scene = Scene::new();
    let commands = [&["status"][..], &["status", "--output", "json"], &["health"], &["health", "--ready"]];
    let check = |who: &str| {
        for args in commands {
            let output = scene.run(args);
            if output.is_success() || output.text().contains(FORGED) {
                return Err(format!("{args:?} believed {who}: {}", output.text()));
            }
        }
        Ok(())
    };
    fs::create_dir(scene.path("run")).unwrap();
    scene.give("run");
    let socket = scene.path("run/agent.sock");
    let config = scene.path("config/config.toml");
    let instance = runner_agent::settings::instance_id(&config);
    let attacker = Attacker::start("serve", &[&socket, Path::new(&instance)]);
    scene.wait("the attacker to listen", |_| socket.exists());
    check("the attacker")?;
    drop(attacker);
    fs::remove_file(&socket).unwrap();
    scene.take("run");
    let path = socket.clone();
    thread::spawn(move || serve(&path, ""));
    scene.wait("the other program to listen", |_| socket.exists());
    check("a program without a mark")
}

/// Root's daemon is told to listen behind a link of the attacker's.
pub(crate) fn socket_in_a_foreign_directory() -> Result<(), String> {
    let scene = Scene::new();
    scene.link(scene.path("safe"), "config/run");
    for name in ["config/run/agent.sock", "config/run/new/agent.sock"] {
        let socket = scene.path(name);
        let daemon = scene.start(&["run", "--socket", socket.to_str().unwrap()]);
        let output = daemon.try_end()?;
        if output.code == Some(0) {
            return Err(format!("it listens at {name}"));
        }
        scene.check(&["run", "--socket", name], &output)?;
    }
    Ok(())
}
