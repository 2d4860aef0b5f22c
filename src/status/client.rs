//! The client of a running daemon's socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::routes::INSTANCE_HEADER;
use crate::files::is_trusted;

/// How long a daemon may take to respond.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Maximum length of a response body in bytes, enough for some ten thousand runners.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// The pause before connecting again to a socket whose backlog is full.
const CONNECT_PAUSE: Duration = Duration::from_millis(50);

/// A daemon's response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusResponse {
    /// Whether the status is 200.
    pub is_ok: bool,
    /// The body.
    pub body: Vec<u8>,
    /// The daemon's process id; `None` if this process cannot see it.
    pub process: Option<i32>,
}

/// No response from the requested daemon.
#[derive(Debug, thiserror::Error)]
pub enum StatusClientError {
    /// No socket exists, or no process listens on it.
    #[error("no daemon answers at {}", list(.0))]
    NotRunning(Vec<PathBuf>),
    /// The daemon there has a different instance id.
    #[error("the daemon at {} serves a different config.toml", .0.display())]
    OtherInstance(PathBuf),
    /// The response has no instance id.
    #[error("the process that serves the socket {} is no daemon of runner-agent", .0.display())]
    NoDaemon(PathBuf),
    /// The process that listens there belongs to another user.
    #[error("the socket {} is served by user {user}, who could answer anything", path.display())]
    OtherUser {
        /// The socket.
        path: PathBuf,
        /// That user.
        user: u32,
    },
    /// The socket cannot be used.
    #[error("cannot connect to the daemon at {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The response is not HTTP, too long, or cut short.
    #[error("the daemon at {} sent an invalid response", path.display())]
    InvalidResponse {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: BoxError,
    },
    /// There was no response within three seconds.
    #[error("the daemon at {} has not answered within {} s", .0.display(), RESPONSE_TIMEOUT.as_secs())]
    TimedOut(PathBuf),
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl StatusClientError {
    /// The error of the highest rank is reported if several sockets fail.
    fn rank(&self) -> u8 {
        match self {
            Self::NotRunning(_) => 0,
            Self::OtherInstance(_) => 1,
            Self::NoDaemon(_) => 2,
            Self::OtherUser { .. } => 3,
            Self::Connect { .. } => 4,
            Self::InvalidResponse { .. } => 5,
            Self::TimedOut(_) => 6,
        }
    }
}

/// The address of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusClient {
    /// The sockets where it may listen, in the order in which they are tried.
    pub sockets: Vec<PathBuf>,
    /// The required [`Sources::instance_id`](super::Sources::instance_id); `None` accepts any daemon, also
    /// one of another user.
    pub instance_id: Option<String>,
}

impl StatusClient {
    /// Sends `GET path` to each socket in turn, and returns the first response of the requested daemon.
    ///
    /// # Errors
    /// [`StatusClientError`], the most specific one of all sockets.
    pub async fn get(&self, path: &str) -> Result<StatusResponse, StatusClientError> {
        self.ask(Method::GET, path).await
    }

    /// The same with `POST path`, without a body.
    ///
    /// # Errors
    /// As [`StatusClient::get`].
    pub async fn post(&self, path: &str) -> Result<StatusResponse, StatusClientError> {
        self.ask(Method::POST, path).await
    }

    async fn ask(&self, method: Method, path: &str) -> Result<StatusResponse, StatusClientError> {
        let mut failure = StatusClientError::NotRunning(self.sockets.clone());
        for socket in &self.sockets {
            let result = timeout(RESPONSE_TIMEOUT, self.ask_at(socket, method.clone(), path)).await;
            let error = match result.unwrap_or_else(|_| Err(StatusClientError::TimedOut(socket.clone()))) {
                Ok(response) => return Ok(response),
                Err(StatusClientError::Connect { source, .. }) if is_not_listening(&source) => continue,
                Err(error) => error,
            };
            if error.rank() > failure.rank() {
                failure = error;
            }
        }
        Err(failure)
    }

    async fn ask_at(&self, socket: &Path, method: Method, path: &str) -> Result<StatusResponse, StatusClientError> {
        let stream = connect(socket).await;
        let stream = stream.map_err(|source| StatusClientError::Connect { path: socket.to_owned(), source })?;
        if self.instance_id.is_some() {
            check_server(&stream, socket)?;
        }
        let process = stream.peer_cred().ok().and_then(|peer| peer.pid()).filter(|process| *process > 0);
        let exchanged = exchange(stream, method, path).await;
        let (instance_id, response) =
            exchanged.map_err(|source| StatusClientError::InvalidResponse { path: socket.to_owned(), source })?;
        let Some(found) = instance_id else { return Err(StatusClientError::NoDaemon(socket.to_owned())) };
        match &self.instance_id {
            Some(wanted) if found != wanted => Err(StatusClientError::OtherInstance(socket.to_owned())),
            Some(_) | None => Ok(StatusResponse { process, ..response }),
        }
    }
}

/// Fails if the listening process belongs to neither root nor this process's user.
fn check_server(stream: &UnixStream, socket: &Path) -> Result<(), StatusClientError> {
    let path = || socket.to_owned();
    let server = stream.peer_cred().map_err(|source| StatusClientError::Connect { path: path(), source })?;
    let user = server.uid();
    if is_trusted(user) { Ok(()) } else { Err(StatusClientError::OtherUser { path: path(), user }) }
}

fn is_not_listening(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory)
}

/// Connects, and waits while the daemon's backlog is full.
async fn connect(socket: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(socket).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(CONNECT_PAUSE).await,
            result => return result,
        }
    }
}

/// The instance id, if the daemon sent one, and the response.
type Exchanged = (Option<HeaderValue>, StatusResponse);

async fn exchange(stream: UnixStream, method: Method, path: &str) -> Result<Exchanged, BoxError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder().method(method).uri(path).header(HOST, "localhost").body(Empty::<Bytes>::new())?;
    let response = async {
        let response = sender.send_request(request).await?;
        let is_ok = response.status() == StatusCode::OK;
        let instance_id = response.headers().get(INSTANCE_HEADER).cloned();
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await?.to_bytes();
        Ok((instance_id, StatusResponse { is_ok, body: body.into(), process: None }))
    };
    // hyper reads and writes only while the connection is polled.
    let driver = async {
        connection.await?;
        std::future::pending::<Result<Exchanged, BoxError>>().await
    };
    tokio::select! {
        response = response => response,
        error = driver => error,
    }
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    if paths.is_empty() { "any socket: no socket path is known".to_owned() } else { paths.join(" or ") }
}

#[cfg(test)]
mod tests {
    use std::net::Shutdown;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;
    use crate::status::tests::sources;
    use crate::status::{StatusServer, StatusServerConfig};

    /// Starts a status server on a socket.
    async fn daemon(socket: &Path, instance_id: &str) -> tokio::task::JoinHandle<std::convert::Infallible> {
        let config =
            StatusServerConfig { sockets: vec![socket.to_owned()], is_socket_required: true, listen: Vec::new() };
        let sources = super::super::Sources { instance_id: instance_id.to_owned(), ..sources(true) };
        tokio::spawn(StatusServer::listen(&config).await.unwrap().serve(sources))
    }

    fn client(sockets: &[&Path], instance_id: Option<&str>) -> StatusClient {
        StatusClient {
            sockets: sockets.iter().map(|path| (*path).to_owned()).collect(),
            instance_id: instance_id.map(str::to_owned),
        }
    }

    #[tokio::test]
    async fn the_requested_instance_is_found_behind_another() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (directory.path().join("1.sock"), directory.path().join("2.sock"));
        let (_a, _b) = (daemon(&first, "a").await, daemon(&second, "b").await);
        let both = [first.as_path(), &second];
        assert!(client(&both, Some("b")).get("/healthz").await.unwrap().is_ok);
        assert!(client(&both[1..], None).get("/healthz").await.unwrap().is_ok, "any daemon is accepted");
        let error = client(&both, Some("c")).get("/healthz").await.unwrap_err();
        assert!(matches!(&error, StatusClientError::OtherInstance(path) if *path == first), "{error}");
    }

    #[tokio::test]
    async fn an_answer_without_an_instance_mark_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _request = stream.read(&mut [0; 1000]).unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nok\n").unwrap();
            }
        });
        for instance_id in [Some("a"), None] {
            let error = client(&[&path], instance_id).get("/healthz").await.unwrap_err();
            assert!(matches!(error, StatusClientError::NoDaemon(_)), "{error}");
        }
    }

    #[tokio::test]
    async fn an_unusable_socket_leads_to_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, symlink_loop) = (directory.path().join("1.sock"), directory.path().join("symlink_loop"));
        std::os::unix::fs::symlink(&symlink_loop, &symlink_loop).unwrap();
        let long = directory.path().join("x".repeat(200));
        let _daemon = daemon(&socket, "a").await;
        for unusable in
            [symlink_loop.as_path(), &symlink_loop.join("agent.sock"), &long, &directory.path().join("absent")]
        {
            assert!(client(&[unusable, &socket], Some("a")).get("/healthz").await.unwrap().is_ok, "{unusable:?}");
        }
        let error = client(&[&directory.path().join("absent"), &symlink_loop, &long], None).get("/").await.unwrap_err();
        assert!(matches!(&error, StatusClientError::Connect { path, .. } if *path == symlink_loop), "{error}");
        let error = client(&[&directory.path().join("absent")], None).get("/").await.unwrap_err();
        assert!(matches!(error, StatusClientError::NotRunning(_)), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_daemon_with_a_full_backlog_times_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let socket = tokio::net::UnixSocket::new_stream().unwrap();
        socket.bind(&path).unwrap();
        let _listener = socket.listen(0).unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = UnixStream::connect(&path).await {
            queued.push(stream);
        }
        let error = client(&[&path], None).get("/healthz").await.unwrap_err();
        assert!(matches!(&error, StatusClientError::TimedOut(at) if *at == path), "{error}");
    }

    #[tokio::test]
    async fn the_most_specific_error_is_returned() {
        let directory = tempfile::tempdir().unwrap();
        let (broken, other) = (directory.path().join("broken.sock"), directory.path().join("other.sock"));
        let listener = UnixListener::bind(&broken).unwrap();
        thread::spawn(move || listener.accept().unwrap().0.shutdown(Shutdown::Both));
        let _other = daemon(&other, "a").await;
        let error = client(&[&other, &broken], Some("b")).get("/healthz").await.unwrap_err();
        assert!(matches!(&error, StatusClientError::InvalidResponse { path, .. } if *path == broken), "{error}");
    }
}
