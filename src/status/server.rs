//! The face: answers over a unix socket, and over TCP where that is asked for.
//!
//! A connection is for one request, whose body is never read; everything about it is bounded. The face
//! reads what is on the board and makes the daemon wait for nothing.

use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::routes::Sources;
use super::socket::Socket;
use crate::error_chain::chain;

/// Where the daemon answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Where its unix socket may be: at the first place where it can be made.
    pub sockets: Vec<PathBuf>,
    /// Whether the user has named the place, so that the daemon does not start without it.
    pub is_socket_required: bool,
    /// The TCP addresses.
    pub listen: Vec<SocketAddr>,
}

/// A place where the daemon cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket that was named cannot be made.
    #[error("cannot make the socket {}", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The address cannot be listened at.
    #[error("cannot listen at {address}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// The most connections of one listener at a time; more wait until one has ended.
const CONNECTIONS: usize = 32;

/// How long a request may take to arrive.
const HEADER_TIME: Duration = Duration::from_secs(5);

/// How long a connection may last, for one who reads slowly.
const CONNECTION_TIME: Duration = Duration::from_secs(15);

/// The longest request, in bytes.
const REQUEST_BYTES: usize = 16 * 1024;

/// The pause after a connection that could not be accepted, say for want of descriptors.
const PAUSE: Duration = Duration::from_secs(1);

/// The places where the daemon answers, listened at already.
#[derive(Debug)]
pub struct StatusServer {
    socket: Option<Socket>,
    tcp: Vec<TcpListener>,
}

impl StatusServer {
    /// Listens. A socket that nobody has named is done without where it cannot be made.
    ///
    /// # Errors
    /// [`Error`] if a place that was asked for cannot be had.
    pub async fn listen(config: &Config) -> Result<Self, Error> {
        let socket = if config.is_socket_required { named(&config.sockets)? } else { usable(&config.sockets) };
        let mut tcp = Vec::new();
        for address in &config.listen {
            let listener = TcpListener::bind(address).await;
            tcp.push(listener.map_err(|source| Error::Tcp { address: *address, source })?);
        }
        let addresses: Vec<_> = tcp.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        if !addresses.is_empty() {
            tracing::info!(?addresses, "answering over HTTP");
        }
        Ok(Self { socket, tcp })
    }

    /// Answers for as long as it is polled; never ends.
    pub async fn serve(self, sources: Sources) -> Infallible {
        let sources = Arc::new(sources);
        let mut listeners = JoinSet::new();
        let (listener, _file) = self.socket.map(|socket| (socket.listener, socket.file)).unzip();
        if let Some(listener) = listener {
            listeners.spawn(accept_connections(listener, Arc::clone(&sources)));
        }
        for listener in self.tcp {
            listeners.spawn(accept_connections(listener, Arc::clone(&sources)));
        }
        // None of them ends by itself.
        while listeners.join_next().await.is_some() {}
        std::future::pending().await
    }
}

fn named(paths: &[PathBuf]) -> Result<Option<Socket>, Error> {
    let listen = |path: &PathBuf| Socket::listen(path).map_err(|source| Error::Socket { path: path.clone(), source });
    paths.first().map(listen).transpose()
}

fn usable(paths: &[PathBuf]) -> Option<Socket> {
    let socket = paths.iter().find_map(|path| try_at(path));
    if socket.is_none() {
        tracing::warn!("going on without a socket: `status` and `health` cannot ask this daemon");
    }
    socket
}

fn try_at(path: &Path) -> Option<Socket> {
    match Socket::listen(path) {
        Ok(socket) => {
            tracing::debug!(path = %path.display(), "answering at the socket");
            Some(socket)
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), error = chain(&error), "cannot make the socket");
            None
        }
    }
}

/// Somewhere connections come from.
trait Listener: Send + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn next(&self) -> io::Result<Self::Stream> {
        Ok(self.accept().await?.0)
    }
}

impl Listener for TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn next(&self) -> io::Result<Self::Stream> {
        Ok(self.accept().await?.0)
    }
}

async fn accept_connections<L: Listener + Sync>(listener: L, sources: Arc<Sources>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.next(), if connections.len() < CONNECTIONS => match accepted {
                Ok(stream) => {
                    connections.spawn(serve_connection(stream, Arc::clone(&sources)));
                }
                Err(error) => {
                    tracing::debug!(error = chain(&error), "cannot accept a connection");
                    sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// Reads one request and answers it.
async fn serve_connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, sources: Arc<Sources>) {
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        ready(Ok::<_, Infallible>(sources.answer(request.method(), request.uri().path())))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(REQUEST_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(error = chain(&error), "a connection has ended early"),
        Err(_) => tracing::debug!("a connection took too long"),
    }
}
