//! The other side of the face: one question to a running daemon, over its socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::answers::INSTANCE_HEADER;

/// How long a daemon may take to answer before it counts as hung.
pub const ANSWER_TIME: Duration = Duration::from_secs(3);

/// The longest answer, in bytes: some ten thousand runners.
const ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// What a daemon said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusReply {
    /// Whether it was a yes: status 200.
    pub is_yes: bool,
    /// The body.
    pub body: Vec<u8>,
}

/// No answer from the daemon that is meant; of several places that is told which says most, the last one first.
#[derive(Debug, thiserror::Error)]
pub enum StatusClientError {
    /// Nobody listens at any of the places.
    #[error("no daemon answers at {}", places(.0))]
    Absent(Vec<PathBuf>),
    /// Who listens there is another one.
    #[error("the daemon at {} serves another config.toml than the one that is meant", .0.display())]
    Stranger(PathBuf),
    /// The socket cannot be used by this user, or by nobody.
    #[error("cannot connect to the daemon at {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What it said is no answer.
    #[error("the daemon at {} has not answered in a way that can be understood", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It does not answer in time.
    #[error("the daemon at {} has not answered within {} s", .0.display(), ANSWER_TIME.as_secs())]
    Hung(PathBuf),
}

impl StatusClientError {
    /// How much it says about the daemon that is meant.
    fn weight(&self) -> u8 {
        match self {
            Self::Absent(_) => 0,
            Self::Stranger(_) => 1,
            Self::Connect { .. } => 2,
            Self::Broken { .. } => 3,
            Self::Hung(_) => 4,
        }
    }
}

/// Which daemon is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusClient {
    /// Where it can listen, the likeliest place first.
    pub sockets: Vec<PathBuf>,
    /// The [`Sources::mark`](super::Sources::mark) that it answers with; `None` if whoever listens is meant.
    pub instance_id: Option<String>,
}

/// Asks the daemon that is meant, at the first of its places where it answers: a daemon that cannot have one place
/// goes on to the next, and so does who asks.
///
/// # Errors
/// [`StatusClientError`].
pub async fn ask(whom: &StatusClient, question: &str) -> Result<StatusReply, StatusClientError> {
    let mut found = StatusClientError::Absent(whom.sockets.clone());
    for path in &whom.sockets {
        let asked = timeout(ANSWER_TIME, ask_at(path, whom.instance_id.as_deref(), question)).await;
        let error = match asked.unwrap_or_else(|_| Err(StatusClientError::Hung(path.clone()))) {
            Ok(reply) => return Ok(reply),
            Err(StatusClientError::Connect { source, .. }) if is_absence(&source) => continue,
            Err(error) => error,
        };
        if error.weight() > found.weight() {
            found = error;
        }
    }
    Err(found)
}

/// Whether there is no socket, or nobody behind it.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory)
}

async fn ask_at(path: &Path, instance_id: Option<&str>, question: &str) -> Result<StatusReply, StatusClientError> {
    let stream = connect(path).await;
    let stream = stream.map_err(|source| StatusClientError::Connect { path: path.to_owned(), source })?;
    let conversed = serve_connection(stream, question).await;
    let (own, reply) = conversed.map_err(|source| StatusClientError::Broken { path: path.to_owned(), source })?;
    // Who does not say whom it serves is taken for the one that is meant.
    match (instance_id, own) {
        (Some(wanted), Some(own)) if own != wanted => Err(StatusClientError::Stranger(path.to_owned())),
        _ => Ok(reply),
    }
}

/// Connects, as soon as the daemon takes one more: it may be busy, or hang.
async fn connect(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(PAUSE).await,
            connected => return connected,
        }
    }
}

/// The pause before a daemon that has no room for one more is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// A daemon's mark, where it has one, and what it said.
type Marked = (Option<HeaderValue>, StatusReply);

async fn serve_connection(
    stream: UnixStream,
    question: &str,
) -> Result<Marked, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(question).header(HOST, "localhost").body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let is_yes = response.status() == StatusCode::OK;
        let instance_id = response.headers().get(INSTANCE_HEADER).cloned();
        let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await?.to_bytes();
        Ok((instance_id, StatusReply { is_yes, body: body.into() }))
    };
    // The connection ends with the answer, but does its work only while it is polled.
    let connected = async {
        connection.await?;
        std::future::pending::<Result<Marked, Box<dyn std::error::Error + Send + Sync>>>().await
    };
    tokio::select! {
        answer = answer => answer,
        broken = connected => broken,
    }
}

fn places(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    if paths.is_empty() { "any socket: there is no place for one".to_owned() } else { paths.join(" or ") }
}

#[cfg(test)]
mod tests {
    use std::net::Shutdown;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;
    use crate::status::tests::sources;
    use crate::status::{StatusServer, StatusServerConfig};

    /// Serves a face at a socket until it is dropped.
    async fn daemon(socket: &Path, instance_id: &str) -> tokio::task::JoinHandle<std::convert::Infallible> {
        let config = StatusServerConfig { sockets: vec![socket.to_owned()], is_socket_named: true, listen: Vec::new() };
        let sources = super::super::Sources { instance_id: instance_id.to_owned(), ..sources(true) };
        tokio::spawn(StatusServer::listen(&config).await.unwrap().serve(sources))
    }

    fn whom(sockets: &[&Path], instance_id: Option<&str>) -> StatusClient {
        StatusClient {
            sockets: sockets.iter().map(|path| (*path).to_owned()).collect(),
            instance_id: instance_id.map(str::to_owned),
        }
    }

    #[tokio::test]
    async fn the_daemon_that_is_meant_is_found_behind_another_one() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (directory.path().join("1.sock"), directory.path().join("2.sock"));
        let (_a, _b) = (daemon(&first, "a").await, daemon(&second, "b").await);
        let both = [first.as_path(), &second];
        assert!(ask(&whom(&both, Some("b")), "/healthz").await.unwrap().is_yes);
        assert!(ask(&whom(&both[1..], None), "/healthz").await.unwrap().is_yes, "whoever listens there");
        let error = ask(&whom(&both, Some("c")), "/healthz").await.unwrap_err();
        assert!(matches!(&error, StatusClientError::Stranger(path) if *path == first), "{error}");
    }

    #[tokio::test]
    async fn a_place_that_cannot_be_used_leads_on_to_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, circle) = (directory.path().join("1.sock"), directory.path().join("circle"));
        std::os::unix::fs::symlink(&circle, &circle).unwrap();
        let long = directory.path().join("x".repeat(200));
        let _daemon = daemon(&socket, "a").await;
        for place in [circle.as_path(), &circle.join("agent.sock"), &long, &directory.path().join("absent")] {
            assert!(ask(&whom(&[place, &socket], Some("a")), "/healthz").await.unwrap().is_yes, "{place:?}");
        }
        let error = ask(&whom(&[&directory.path().join("absent"), &circle, &long], None), "/").await.unwrap_err();
        assert!(matches!(&error, StatusClientError::Connect { path, .. } if *path == circle), "{error}");
        let error = ask(&whom(&[&directory.path().join("absent")], None), "/").await.unwrap_err();
        assert!(matches!(error, StatusClientError::Absent(_)), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_takes_nobody_more_hangs() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let socket = tokio::net::UnixSocket::new_stream().unwrap();
        socket.bind(&path).unwrap();
        let _listener = socket.listen(0).unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = UnixStream::connect(&path).await {
            waiting.push(stream);
        }
        let error = ask(&whom(&[&path], None), "/healthz").await.unwrap_err();
        assert!(matches!(&error, StatusClientError::Hung(at) if *at == path), "{error}");
    }

    #[tokio::test]
    async fn what_says_most_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let (broken, other) = (directory.path().join("broken.sock"), directory.path().join("other.sock"));
        let listener = UnixListener::bind(&broken).unwrap();
        thread::spawn(move || listener.accept().unwrap().0.shutdown(Shutdown::Both));
        let _other = daemon(&other, "a").await;
        let error = ask(&whom(&[&other, &broken], Some("b")), "/healthz").await.unwrap_err();
        assert!(matches!(&error, StatusClientError::Broken { path, .. } if *path == broken), "{error}");
    }
}
