//! The HTTP server on the unix socket and on TCP addresses.
//!
//! Each connection carries one request, whose body is never read. Sizes, times and the number of connections are
//! limited. A stream of events alone lasts longer, for as long as its reader takes it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{self, Poll};
use std::time::Duration;

use hyper::header::{COOKIE, HOST};
use hyper::http::uri::Authority;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::error::Elapsed;
use tokio::time::{sleep, timeout};

use super::event_stream::{HEARTBEAT, Progress};
use super::routes::{Asked, Listener, Sources};
use super::socket::Socket;
use crate::error_chain::chain;
use crate::files::{FileUse, explain};
use crate::host::Process;

/// Where the server listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Paths for the unix socket; the first usable one is taken.
    pub sockets: Vec<PathBuf>,
    /// Whether listening fails if the first path is unusable, because the user named it.
    pub is_socket_required: bool,
    /// TCP addresses.
    pub listen: Vec<SocketAddr>,
}

/// The server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The required socket cannot be created.
    #[error("cannot create the socket {}", path.display())]
    Socket {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The TCP address cannot be bound.
    #[error("cannot listen on {address}{}", holder.as_ref().map_or_else(String::new, |holder| format!(", which {holder} uses")))]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// The process that listens there, if it can be seen.
        holder: Option<Process>,
        /// The cause.
        source: io::Error,
    },
}

/// Maximum number of open connections per listener. A further one takes the place of the oldest that has sent no request
/// yet, or waits in the backlog.
const MAX_CONNECTIONS: usize = 32;

/// How long a request may take to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may last in total.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// How long the reader of a stream of events may take nothing, although a comment is sent with each heartbeat.
const STREAM_TIMEOUT: Duration = Duration::from_secs(3 * HEARTBEAT.as_secs());

/// Maximum length of a request in bytes.
const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// The pause after a failed accept, for example if file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// A server that already listens.
#[derive(Debug)]
pub struct StatusServer {
    socket: Option<Socket>,
    tcp: Vec<TcpListener>,
}

impl StatusServer {
    /// Listens on the socket and all addresses. Without a usable path it logs a warning and serves no socket.
    ///
    /// # Errors
    /// [`Error`] if an address or a required socket is unusable.
    pub async fn listen(config: &Config) -> Result<Self, Error> {
        let socket = if config.is_socket_required { required(&config.sockets)? } else { usable(&config.sockets) };
        let mut tcp = Vec::new();
        for address in &config.listen {
            let listener = TcpListener::bind(address).await;
            tcp.push(listener.map_err(|source| unusable(*address, source))?);
        }
        let addresses: Vec<_> =
            tcp.iter().filter_map(|listener| Some(listener.local_addr().ok()?.to_string())).collect();
        if !addresses.is_empty() {
            tracing::info!(addresses = addresses.join(" "), "listening for HTTP");
        }
        Ok(Self { socket, tcp })
    }

    /// Binds each TCP address for a moment. Returns an error for each that cannot be bound.
    pub async fn unusable_addresses(config: &Config) -> Vec<Error> {
        let mut errors = Vec::new();
        for address in &config.listen {
            let bound = TcpListener::bind(address).await;
            errors.extend(bound.err().map(|source| unusable(*address, source)));
        }
        errors
    }

    /// Serves requests while it is polled; never returns.
    pub async fn serve(self, sources: Sources) -> Infallible {
        let addresses = self.tcp.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let sources = Arc::new(Sources { access: sources.access.clone().at(addresses), ..sources });
        let mut listeners = JoinSet::new();
        let (listener, _file) = self.socket.map(|socket| (socket.listener, socket.file)).unzip();
        if let Some(listener) = listener {
            let accept = move |task: &mut task::Context<'_>| listener.poll_accept(task).map_ok(|(stream, _)| stream);
            listeners.spawn(accept_connections(accept, Listener::Socket, Arc::clone(&sources)));
        }
        for listener in self.tcp {
            let is_loopback = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
            let kind = if is_loopback { Listener::Loopback } else { Listener::Remote };
            let accept = move |task: &mut task::Context<'_>| listener.poll_accept(task).map_ok(|(stream, _)| stream);
            listeners.spawn(accept_connections(accept, kind, Arc::clone(&sources)));
        }
        // A listener never returns.
        while listeners.join_next().await.is_some() {}
        std::future::pending().await
    }
}

/// Why an address cannot be listened on, and which process uses it.
fn unusable(address: SocketAddr, source: io::Error) -> Error {
    let is_in_use = source.kind() == io::ErrorKind::AddrInUse;
    let holder = is_in_use.then(|| Process::listening_on(address)).flatten();
    Error::Tcp { address, holder, source }
}

fn required(paths: &[PathBuf]) -> Result<Option<Socket>, Error> {
    let listen = |path: &PathBuf| listen_on(path).map_err(|source| Error::Socket { path: path.clone(), source });
    paths.first().map(listen).transpose()
}

fn usable(paths: &[PathBuf]) -> Option<Socket> {
    let socket = paths.iter().find_map(|path| try_listen(path));
    if socket.is_none() {
        tracing::warn!("continuing without a socket: `status` and `health` cannot reach this daemon");
    }
    socket
}

fn listen_on(path: &Path) -> io::Result<Socket> {
    Socket::listen(path).map_err(|error| explain(path, FileUse::Write, error))
}

fn try_listen(path: &Path) -> Option<Socket> {
    match listen_on(path) {
        Ok(socket) => {
            tracing::debug!(path = %path.display(), "listening on the socket");
            Some(socket)
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), error = chain(&error), "cannot create the socket");
            None
        }
    }
}

async fn accept_connections<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    accept: impl Fn(&mut task::Context<'_>) -> Poll<io::Result<S>>,
    listener: Listener,
    sources: Arc<Sources>,
) {
    let mut connections = JoinSet::new();
    // In the order in which they were accepted.
    let mut opened: VecDeque<Opened> = VecDeque::new();
    loop {
        opened.retain(|connection| !connection.task.is_finished());
        let has_room = opened.len() < MAX_CONNECTIONS || opened.iter().any(Opened::is_silent);
        tokio::select! {
            accepted = poll_fn(&accept), if has_room => match accepted {
                Ok(stream) => {
                    // It may have asked while this one was waited for.
                    let silent = opened.iter().position(Opened::is_silent);
                    if opened.len() >= MAX_CONNECTIONS
                        && let Some(silent) = silent.and_then(|silent| opened.remove(silent))
                    {
                        silent.task.abort();
                    }
                    let has_asked = Arc::new(AtomicBool::new(false));
                    let served = serve_connection(stream, listener, Arc::clone(&sources), Arc::clone(&has_asked));
                    opened.push_back(Opened { task: connections.spawn(served), has_asked });
                    // What it has sent already is read before another one can take its place.
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    tracing::debug!(error = chain(&error), "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// An open connection.
struct Opened {
    task: AbortHandle,
    has_asked: Arc<AtomicBool>,
}

impl Opened {
    fn is_silent(&self) -> bool {
        !self.has_asked.load(Ordering::Relaxed)
    }
}

/// Responds to one request.
async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    listener: Listener,
    sources: Arc<Sources>,
    has_asked: Arc<AtomicBool>,
) {
    let progress = Progress::default();
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        has_asked.store(true, Ordering::Relaxed);
        let named = request.headers().get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
        let hosts: Vec<_> = named.chain(request.uri().authority().map(Authority::as_str)).collect();
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        let cookies = request.headers().get_all(COOKIE).iter().filter_map(|cookie| cookie.to_str().ok()).collect();
        let asked = Asked { method: request.method(), path, query, hosts, cookies, listener, progress: &progress };
        ready(Ok::<_, Infallible>(sources.answer(&asked)))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_REQUEST_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let connection = async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = chain(&error), "a connection failed");
        }
    };
    if within_limits(connection, &progress).await.is_err() {
        tracing::debug!("a connection timed out");
    }
}

/// Waits for a connection as long as it may last: a stream of events as long as its reader takes something.
async fn within_limits(connection: impl Future<Output = ()>, progress: &Progress) -> Result<(), Elapsed> {
    let mut connection = pin!(connection);
    let ended = timeout(CONNECTION_TIMEOUT, &mut connection).await;
    let mut count = progress.count();
    if ended.is_ok() || count == 0 {
        return ended;
    }
    loop {
        if let Ok(()) = timeout(STREAM_TIMEOUT, &mut connection).await {
            return Ok(());
        }
        if progress.count() == count {
            return ended;
        }
        count = progress.count();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, duplex};
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;
    use crate::model::{EventKind, StateName};
    use crate::status::StatusRegistry;
    use crate::status::tests::{now, sources, status};

    #[tokio::test(start_paused = true)]
    async fn connections_that_send_nothing_do_not_hold_up_one_that_asks() {
        let (connect, mut backlog) = mpsc::unbounded_channel::<DuplexStream>();
        let backlog = std::cell::RefCell::new(&mut backlog);
        let accept = |task: &mut task::Context<'_>| {
            backlog.borrow_mut().poll_recv(task).map(|stream| stream.ok_or(io::ErrorKind::BrokenPipe.into()))
        };
        let began = Instant::now();
        let ask = async {
            let mut silent = Vec::new();
            for _ in 0..10 * MAX_CONNECTIONS {
                let (client, server) = duplex(1000);
                connect.send(server).unwrap();
                silent.push(client);
            }
            let (mut asking, server) = duplex(1000);
            connect.send(server).unwrap();
            asking.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            asking.read_to_string(&mut answer).await.unwrap();
            answer
        };
        tokio::select! {
            answer = ask => assert!(answer.starts_with("HTTP/1.1 200"), "{answer}"),
            () = accept_connections(accept, Listener::Loopback, Arc::new(sources(true))) => unreachable!("it never ends"),
        }
        assert!(began.elapsed() < HEADER_TIMEOUT, "it waited for the silent ones");
    }

    /// Sends a request to a server that serves it while `client` runs.
    async fn with_connection<T>(sources: Sources, path: &str, client: impl AsyncFnOnce(DuplexStream) -> T) -> T {
        let (mut stream, server) = duplex(1000);
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        let served = serve_connection(server, Listener::Socket, Arc::new(sources), Arc::default());
        tokio::join!(served, client(stream)).1
    }

    fn record_events(registry: StatusRegistry) -> tokio::task::JoinHandle<Infallible> {
        tokio::spawn(async move {
            loop {
                registry.record_event(now().wall, None, EventKind::ConfigChanged, &"x".repeat(900));
                sleep(Duration::from_secs(1)).await;
            }
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_of_events_stays_for_as_long_as_it_reads() {
        let sources = sources(true);
        let events = record_events(sources.registry.clone());
        let began = Instant::now();
        let received = with_connection(sources, "/events", async |stream| {
            let mut received = 0;
            let mut lines = BufReader::new(stream).lines();
            while began.elapsed() < 10 * CONNECTION_TIMEOUT {
                received += usize::from(lines.next_line().await.unwrap().unwrap().starts_with("id: "));
            }
            received
        });
        assert!(received.await >= 100);
        events.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_of_events_that_takes_nothing_loses_its_connection() {
        let sources = sources(true);
        let events = record_events(sources.registry.clone());
        let mut text = Vec::new();
        with_connection(sources, "/events", async |mut stream| {
            sleep(20 * CONNECTION_TIMEOUT).await;
            assert!(stream.write_all(b"x").await.is_err(), "the server has closed it");
            let _cut = stream.read_to_end(&mut text).await;
        })
        .await;
        assert!(text.len() <= 1000, "{} bytes were waiting for it", text.len());
        events.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn no_other_response_lasts_longer_than_a_connection_may() {
        let sources = sources(true);
        (0..1000)
            .for_each(|id| sources.registry.update(status(&format!("runner-{id}"), Some(id + 1), StateName::Active)));
        with_connection(sources, "/status", async |mut stream| {
            sleep(2 * CONNECTION_TIMEOUT).await;
            assert!(stream.write_all(b"x").await.is_err(), "the server has closed it");
        })
        .await;
    }
}
