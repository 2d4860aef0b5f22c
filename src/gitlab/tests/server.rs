//! A server that records requests and answers from a script.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::model::Site;

/// How the server answers one request.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// Sends these bytes and keeps the connection.
    Keep(Vec<u8>),
    /// Sends these bytes, possibly none, and closes the connection.
    Close(Vec<u8>),
    /// Sends these bytes one by one, too slowly for any timeout.
    Drip(Vec<u8>),
    /// Sends nothing.
    Silence,
}

impl Reply {
    pub(super) fn new(status: u16, headers: &[(&str, &str)], body: &str) -> Self {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let text = format!("HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n{body}", body.len());
        let text = if status == 204 { text.replace("content-length: 0\r\n", "") } else { text };
        Self::Keep(text.into_bytes())
    }

    pub(super) fn json(status: u16, body: &str) -> Self {
        Self::new(status, &[("content-type", "application/json")], body)
    }

    pub(super) fn html(status: u16) -> Self {
        Self::new(status, &[("content-type", "text/html")], "<html><p>glrt-page-secret</p></html>")
    }
}

/// One received request.
#[derive(Clone, Debug)]
pub(super) struct ReceivedRequest {
    /// Method and target: `POST /api/v4/runners`.
    pub(super) line: String,
    headers: String,
    pub(super) body: String,
}

impl ReceivedRequest {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.headers.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Everything but the body.
    pub(super) fn head(&self) -> String {
        format!("{}\n{}", self.line, self.headers)
    }
}

/// The replies still to send, and the requests received.
#[derive(Clone)]
pub(super) struct ServerScript(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    replies: VecDeque<Reply>,
    requests: Vec<ReceivedRequest>,
    connections: usize,
}

pub(super) struct ScriptedServer {
    pub(super) authority: String,
    script: ServerScript,
}

impl ScriptedServer {
    /// Starts a server that answers with these replies, in order, on any number of connections.
    pub(super) async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let script = ServerScript::script(replies);
        let served = script.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(served.clone().serve(stream));
            }
        });
        Self { authority, script }
    }

    pub(super) fn site(&self) -> Site {
        super::site(&format!("http://{}", self.authority))
    }

    pub(super) fn requests(&self) -> Vec<ReceivedRequest> {
        self.script.requests()
    }

    pub(super) fn connections(&self) -> usize {
        self.script.0.lock().unwrap().connections
    }
}

impl ServerScript {
    pub(super) fn script(replies: impl IntoIterator<Item = Reply>) -> Self {
        let replies = replies.into_iter().collect();
        Self(Arc::new(Mutex::new(Seen { replies, ..Seen::default() })))
    }

    pub(super) fn requests(&self) -> Vec<ReceivedRequest> {
        self.0.lock().unwrap().requests.clone()
    }

    /// Serves one connection to its end.
    pub(super) async fn serve(self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        self.0.lock().unwrap().connections += 1;
        while let Some(request) = read_request(&mut stream).await {
            let reply = {
                let mut seen = self.0.lock().unwrap();
                seen.requests.push(request);
                seen.replies.pop_front().expect("no more requests than replies")
            };
            match reply {
                Reply::Keep(bytes) => stream.write_all(&bytes).await.unwrap_or_default(),
                Reply::Close(bytes) => {
                    stream.write_all(&bytes).await.unwrap_or_default();
                    return stream.shutdown().await.unwrap_or_default();
                }
                Reply::Drip(bytes) => {
                    for byte in bytes {
                        stream.write_all(&[byte]).await.unwrap_or_default();
                        tokio::time::sleep(Duration::from_millis(30)).await;
                    }
                }
                Reply::Silence => return std::future::pending().await,
            }
        }
    }
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<ReceivedRequest> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let (line, headers) = head.split_once("\r\n").unwrap();
    let mut request = ReceivedRequest {
        line: line.trim_end_matches(" HTTP/1.1").to_owned(),
        headers: headers.to_owned(),
        body: String::new(),
    };
    let mut body = vec![0; request.header("content-length").map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    request.body = String::from_utf8(body).unwrap();
    Some(request)
}
