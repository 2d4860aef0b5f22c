//! The other side of the face: one question to a running daemon, over its socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long a daemon may take to answer before it counts as hung.
pub const ANSWER_TIME: Duration = Duration::from_secs(3);

/// The longest answer, in bytes: some ten thousand runners.
const ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// What a daemon said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Whether it was a yes: status 200.
    pub is_yes: bool,
    /// The body.
    pub body: Vec<u8>,
}

/// No answer from a daemon.
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    /// Nobody listens at any of the places.
    #[error("no daemon answers at {}", places(.0))]
    Absent(Vec<PathBuf>),
    /// The socket cannot be used by this user.
    #[error("cannot connect to the daemon at {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not answer in time.
    #[error("the daemon at {} has not answered within {} s", .0.display(), ANSWER_TIME.as_secs())]
    Hung(PathBuf),
    /// What it said is no answer.
    #[error("the daemon at {} has not answered in a way that can be understood", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Asks the daemon that listens at the first of these sockets where any does.
///
/// # Errors
/// [`QuestionError`].
pub async fn ask(sockets: &[PathBuf], question: &str) -> Result<Reply, QuestionError> {
    for path in sockets {
        match timeout(ANSWER_TIME, ask_at(path, question)).await {
            Err(_) => return Err(QuestionError::Hung(path.clone())),
            Ok(Err(QuestionError::Connect { source, .. })) if is_absence(&source) => {}
            Ok(answered) => return answered,
        }
    }
    Err(QuestionError::Absent(sockets.to_vec()))
}

/// Whether there is no socket, or nobody behind it.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory)
}

async fn ask_at(path: &Path, question: &str) -> Result<Reply, QuestionError> {
    let stream = UnixStream::connect(path).await;
    let stream = stream.map_err(|source| QuestionError::Connect { path: path.to_owned(), source })?;
    converse(stream, question).await.map_err(|source| QuestionError::Broken { path: path.to_owned(), source })
}

async fn converse(stream: UnixStream, question: &str) -> Result<Reply, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(question).header(HOST, "localhost").body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let is_yes = response.status() == StatusCode::OK;
        let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await?.to_bytes();
        Ok(Reply { is_yes, body: body.into() })
    };
    // The connection ends with the answer, but does its work only while it is polled.
    let connected = async {
        connection.await?;
        std::future::pending::<Result<Reply, Box<dyn std::error::Error + Send + Sync>>>().await
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
