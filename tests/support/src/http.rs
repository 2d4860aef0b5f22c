//! A small HTTP client that returns responses as received, even broken ones.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use fake_gitlab::Gitlab;
use serde_json::Value;

/// Longer than any test takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A response, possibly incomplete.
#[derive(Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Names and values, in the order received.
    pub headers: Vec<(String, String)>,
    /// The body, possibly cut short.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(present, _)| present.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The announced `Content-Length`.
    pub fn promised(&self) -> usize {
        self.header("content-length").unwrap().parse().unwrap()
    }
}

/// Sends JSON to a path below the API v4.
pub fn send(gitlab: &Gitlab, method: &str, path: &str, body: Value) -> Reply {
    try_send(gitlab, method, path, body).unwrap()
}

/// Sends JSON to a path below the API v4; `None` if the connection ended without an answer.
pub fn try_send(gitlab: &Gitlab, method: &str, path: &str, body: Value) -> Option<Reply> {
    let url_path = format!("/api/v4{path}");
    let body = body.to_string();
    exchange(gitlab.address(), method, &url_path, &[("Content-Type", "application/json")], body.as_bytes())
}

/// Sends JSON with an access token.
pub fn send_as(gitlab: &Gitlab, access_token: &str, method: &str, path: &str, body: Value) -> Reply {
    let url_path = format!("/api/v4{path}");
    let headers = [("Content-Type", "application/json"), ("PRIVATE-TOKEN", access_token)];
    exchange(gitlab.address(), method, &url_path, &headers, body.to_string().as_bytes()).unwrap()
}

/// Sends any body with any headers.
pub fn exchange(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<Reply> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    send_on(&mut stream, method, path, headers, body);
    receive(&mut stream)
}

/// Writes a request.
pub fn send_on(stream: &mut impl Write, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: gitlab.test\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(&[request.as_bytes(), body].concat()).unwrap();
}

/// Reads an answer until it is complete or the connection ends; `None` if its head is incomplete.
pub fn receive(stream: &mut impl Read) -> Option<Reply> {
    let mut bytes = Vec::new();
    loop {
        let is_open = read_some(stream, &mut bytes);
        if let Some(mut reply) = parsed(&bytes) {
            let promised = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
            if reply.body.len() >= promised || !is_open {
                reply.body.truncate(promised);
                return Some(reply);
            }
        }
        if !is_open {
            return None;
        }
    }
}

/// Reads available bytes; `false` at the end of the connection.
pub fn read_some(stream: &mut impl Read, bytes: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 16 * 1024];
    match stream.read(&mut buffer) {
        Ok(0) => false,
        Ok(count) => {
            bytes.extend_from_slice(&buffer[..count]);
            true
        }
        Err(error) => {
            assert!(error.kind() != ErrorKind::WouldBlock, "no answer in time");
            false
        }
    }
}

fn parsed(bytes: &[u8]) -> Option<Reply> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    Some(Reply { status, headers, body: bytes[end + 4..].to_vec() })
}
