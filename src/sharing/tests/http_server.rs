//! A server for tests that answers by a function: a member of etcd, or an API server.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A request.
#[derive(Clone, Debug)]
pub(in crate::sharing) struct Request {
    /// Counts the connections from 1.
    pub connection: usize,
    pub method: String,
    pub path: String,
    pub authorization: Option<String>,
    pub body: String,
}

/// The status and the body of an answer.
pub(in crate::sharing) type Reply = (u16, String);

/// Answers a request; `None` is silence.
type Handler = dyn Fn(&Request) -> Option<Reply> + Send + Sync;

/// A server on loopback.
pub(in crate::sharing) struct HttpServer {
    pub url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl HttpServer {
    pub(in crate::sharing) async fn start(handler: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (requests, handler): (_, Arc<Handler>) = (Arc::<Mutex<Vec<_>>>::default(), Arc::new(handler));
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            let mut connection = 0;
            while let Ok((stream, _)) = listener.accept().await {
                connection += 1;
                tokio::spawn(serve(stream, connection, Arc::clone(&handler), Arc::clone(&seen)));
            }
        });
        Self { url, requests }
    }

    /// The requests for a path, oldest first.
    pub(in crate::sharing) fn requests(&self, path: &str) -> Vec<Request> {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|request| request.path == path).cloned().collect()
    }
}

async fn serve(mut stream: TcpStream, connection: usize, handler: Arc<Handler>, seen: Arc<Mutex<Vec<Request>>>) {
    while let Some(request) = read_request(&mut stream, connection).await {
        seen.lock().unwrap().push(request.clone());
        let Some((status, body)) = handler(&request) else { return std::future::pending().await };
        let length = body.len();
        let text =
            format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(text.as_bytes()).await.unwrap_or_default();
    }
}

async fn read_request(stream: &mut TcpStream, connection: usize) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    let mut body = vec![0; header("content-length").map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    let mut line = head.split(' ');
    let (method, target) = (line.next()?.to_owned(), line.next()?);
    let path = target.split('?').next()?.to_owned();
    let (authorization, body) = (header("authorization"), String::from_utf8(body).unwrap());
    Some(Request { connection, method, path, authorization, body })
}
