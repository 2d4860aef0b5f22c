//! Proxies that fail, and hosts that are excluded from them.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use test_support::{Output, Sandbox};

const PASSWORD: &str = "proxy-password";

/// A proxy that answers each request with one status, and keeps the heads of the requests.
struct FakeProxy {
    authority: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl FakeProxy {
    fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut bytes = [0; 4096];
                let length = stream.read(&mut bytes).unwrap_or_default();
                seen.lock().unwrap().push(String::from_utf8_lossy(&bytes[..length]).into_owned());
                let _sent = write!(stream, "HTTP/1.1 {status} No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
        });
        Self { authority, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn register(sandbox: &Sandbox, url: &str, variables: &[(&str, &str)]) -> Output {
    let token = sandbox.gitlab.instance_registration_token();
    let done = sandbox.run_with(&["register", "-n", "--name", "a", "--url", url, "-r", &token], variables);
    done.hides(&[PASSWORD, &token]);
    done
}

#[test]
fn refusal_of_a_tunnel_names_the_proxy_and_the_status() {
    let sandbox = super::sandbox();
    for status in [403, 502, 503] {
        let proxy = FakeProxy::start(status);
        let address = format!("http://me:{PASSWORD}@{}", proxy.authority);
        let done = register(&sandbox, "https://gitlab.invalid:8443", &[("HTTPS_PROXY", &address)]);
        let shown =
            format!("the proxy http://{} of HTTPS_PROXY does not connect to gitlab.invalid:8443", proxy.authority);
        done.exits(5).says(&shown).says(&format!("({status}")).says("NO_PROXY");
        let heads = proxy.heads();
        assert!(heads.len() >= 2, "{heads:?}");
        for head in heads {
            assert!(head.starts_with("CONNECT gitlab.invalid:8443 HTTP/1.1"), "{head}");
            assert!(head.to_lowercase().contains("proxy-authorization: basic "), "{head}");
        }
    }
}

#[test]
fn proxy_that_wants_a_password_is_named() {
    let sandbox = super::sandbox();
    let proxy = FakeProxy::start(407);
    let cases = [
        ("", "requires a user name and password"),
        (&format!("me:{PASSWORD}@"), "does not accept the user name and password in its URL"),
    ];
    for (credentials, problem) in cases {
        let address = format!("http://{credentials}{}", proxy.authority);
        for (url, variable) in [("https://gitlab.invalid", "https_proxy"), ("http://gitlab.invalid", "HTTP_PROXY")] {
            let done = register(&sandbox, url, &[(variable, &address)]);
            let shown = format!("the proxy http://{} of {variable} {problem}", proxy.authority);
            done.exits(5).says(&shown).says("(407");
        }
    }
}

#[test]
fn unreachable_proxy_is_named_instead_of_gitlab() {
    let sandbox = super::sandbox();
    // Bound without listening.
    let deaf = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&deaf, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let port = std::net::SocketAddr::try_from(rustix::net::getsockname(&deaf).unwrap()).unwrap().port();
    for (authority, cause) in [(format!("127.0.0.1:{port}"), "refused"), ("proxy.invalid:3128".to_owned(), "")] {
        for (url, variable) in [("https://gitlab.invalid", "HTTPS_PROXY"), ("http://gitlab.invalid", "http_proxy")] {
            let done = register(&sandbox, url, &[(variable, &format!("http://me:{PASSWORD}@{authority}"))]);
            let shown = format!("cannot connect to the proxy http://{authority} of {variable}");
            done.exits(5).says(&shown).says(cause);
        }
    }
}

#[test]
fn proxy_that_is_no_url_of_http_is_an_unusable_setting() {
    let sandbox = super::sandbox();
    let address = format!("htp://me:{PASSWORD}@127.0.0.1:1");
    let done = register(&sandbox, "https://gitlab.invalid", &[("HTTPS_PROXY", &address)]);
    done.exits(4).says("the proxy in HTTPS_PROXY has the scheme htp for ");
}

#[test]
fn gateway_error_by_way_of_a_proxy_names_the_proxy() {
    let sandbox = super::sandbox();
    let proxy = FakeProxy::start(502);
    let done =
        register(&sandbox, "http://gitlab.invalid", &[("HTTP_PROXY", &format!("me:{PASSWORD}@{}", proxy.authority))]);
    done.exits(5).says(&format!("by way of the proxy http://{} of HTTP_PROXY (502", proxy.authority));
}

#[test]
fn excluded_host_is_not_reached_by_way_of_the_proxy() {
    let sandbox = super::sandbox();
    let proxy = FakeProxy::start(502);
    let address = format!("http://{}", proxy.authority);
    for no_proxy in ["*", "gitlab.invalid:80", "*.invalid", ".invalid", "invalid"] {
        let done = register(&sandbox, "http://gitlab.invalid", &[("HTTP_PROXY", &address), ("no_proxy", no_proxy)]);
        done.exits(5).says("cannot resolve the host name");
    }
    register(&sandbox, "http://gitlab.invalid", &[("HTTP_PROXY", &address), ("REQUEST_METHOD", "GET")])
        .exits(5)
        .says("cannot resolve the host name");
    // Loopback addresses need no exclusion.
    register(&sandbox, &sandbox.gitlab.url(), &[("HTTP_PROXY", &address), ("HTTPS_PROXY", &address)]).exits(0);
    assert!(proxy.heads().is_empty(), "{:?}", proxy.heads());
}
