//! http where the server speaks https, and the other way round.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use fake_gitlab::{Gitlab, Tls};
use test_support::Sandbox;

fn register(sandbox: &Sandbox, url: &str) -> test_support::Output {
    let token = sandbox.gitlab.instance_registration_token();
    sandbox.run(&["register", "-n", "--name", "a", "--url", url, "-r", &token])
}

#[test]
fn https_to_a_port_that_speaks_http_is_named() {
    let sandbox = super::sandbox();
    let done = register(&sandbox, &sandbox.gitlab.url().replace("http:", "https:"));
    done.exits(5).says("the server speaks http on this port, not https").says("http://");
    assert!(!done.stderr.contains("InvalidContentType"), "{}", done.stderr);
}

#[test]
fn http_to_a_port_that_speaks_https_is_named() {
    // It answers with an alert.
    let sandbox = super::sandbox_with(Gitlab::builder().tls(Tls::self_signed(["127.0.0.1"])));
    let done = register(&sandbox, &sandbox.gitlab.url().replace("https:", "http:"));
    done.exits(5).says("the server speaks https on this port, not http").says("set `url` to https://");
}

#[test]
fn an_https_port_that_closes_a_connection_of_http_is_named() {
    let sandbox = super::sandbox();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut first) = (stream.unwrap(), [0; 1024]);
            let read = stream.read(&mut first).unwrap_or_default();
            // An alert to the first message of a handshake, and nothing to anything else.
            if first[..read].starts_with(&[0x16, 0x03]) {
                let _sent = stream.write_all(&[0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x28]);
            }
        }
    });
    let done = register(&sandbox, &format!("http://{address}"));
    done.exits(5).says("the server speaks https on this port: set `url` to https://").says("no registration was sent");
}

/// A server that answers each request with this text.
fn answering(body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _request = stream.read(&mut [0; 4096]);
            let length = body.len();
            let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/html\r\nconnection: close";
            let _sent = write!(stream, "{head}\r\ncontent-length: {length}\r\n\r\n{body}");
        }
    });
    format!("http://{address}")
}

#[test]
fn what_servers_write_to_http_on_an_https_port_is_understood() {
    let sandbox = super::sandbox();
    for body in [
        "<html><center>The plain HTTP request was sent to HTTPS port</center></html>",
        "Client sent an HTTP request to an HTTPS server.\n",
        "<p>Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />",
    ] {
        let done = register(&sandbox, &answering(body));
        done.exits(5).says("the server speaks https on this port, not http").says("set `url` to https://");
    }
    register(&sandbox, &answering("<html>Bad Request</html>")).exits(5).says("not a GitLab API answer");
}
