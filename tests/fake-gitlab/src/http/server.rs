//! The server's thread and its listening socket.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc as blocking};
use std::thread::JoinHandle;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::connection::{self, Context};
use crate::shared::Shared;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

/// The running server; it stops when this is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    commands: Option<mpsc::UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a thread that serves; returns once it listens.
    ///
    /// The thread creates its own runtime, because an async caller can neither enter nor drop one.
    pub(crate) fn start(address: SocketAddr, tls: Option<TlsAcceptor>, shared: Arc<Shared>) -> io::Result<Self> {
        let (commands, orders) = mpsc::unbounded_channel();
        let (started, start) = blocking::channel();
        let thread = std::thread::Builder::new().name("gitlab".to_owned()).spawn(move || {
            // The caller waits for this message, so the send cannot fail.
            let report = |outcome| started.send(outcome).expect("a caller that waits");
            match listen(address) {
                Err(error) => report(Err(error)),
                Ok((runtime, socket, address)) => {
                    report(Ok(address));
                    runtime.block_on(Doorman::new(address, tls, shared).work(socket, orders));
                }
            }
        })?;
        let address = start.recv().expect("the thread reports before it ends")?;
        Ok(Self { address, commands: Some(commands), thread: Some(thread) })
    }

    /// Closes all connections and the listening socket, but keeps the port.
    pub(crate) fn refuse_connections(&self) {
        self.obey(Command::Refuse);
    }

    /// Listens again on the same port.
    pub(crate) fn accept_connections(&self) {
        self.obey(Command::Accept);
    }

    /// Closes all connections and goes on listening.
    pub(crate) fn cut_connections(&self) {
        self.obey(Command::CutAll);
    }

    fn obey(&self, command: fn(blocking::Sender<()>) -> Command) {
        let (done, obeyed) = blocking::channel();
        if let Some(commands) = &self.commands {
            commands.send(command(done)).expect("the server's thread lives as long as its handle");
            obeyed.recv().expect("the server's thread obeys every command");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(thread) = self.thread.take() {
            // A panic of that thread is already printed.
            let _panicked = thread.join();
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<(Runtime, Socket, SocketAddr)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let socket = runtime.block_on(async { Socket::reserve(address)?.listening() })?;
    let address = socket.address()?;
    Ok((runtime, socket, address))
}

/// A command to the thread, which replies once it is done.
enum Command {
    Refuse(blocking::Sender<()>),
    Accept(blocking::Sender<()>),
    CutAll(blocking::Sender<()>),
}

/// A socket that owns the port, whether or not it accepts connections.
enum Socket {
    Listening(TcpListener),
    /// Bound without listening: connections are refused, and no other program can take the port.
    Reserved(TcpSocket),
}

impl Socket {
    fn reserve(address: SocketAddr) -> io::Result<Self> {
        let socket = bound(address, false)?;
        // From here on `refusing` may bind the port a second time.
        socket.set_reuseport(true)?;
        Ok(Self::Reserved(socket))
    }

    fn listening(self) -> io::Result<Self> {
        match self {
            Self::Reserved(socket) => Ok(Self::Listening(socket.listen(BACKLOG)?)),
            listening @ Self::Listening(_) => Ok(listening),
        }
    }

    /// Stops listening without ever releasing the port, because connections of other programs could take it.
    fn refusing(self) -> io::Result<Self> {
        Ok(Self::Reserved(bound(self.address()?, true)?))
    }

    fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Listening(listener) => listener.local_addr(),
            Self::Reserved(socket) => socket.local_addr(),
        }
    }

    /// Waits for a connection; never returns while connections are refused.
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match self {
            Self::Listening(listener) => listener.accept().await,
            Self::Reserved(_) => std::future::pending().await,
        }
    }
}

fn bound(address: SocketAddr, is_second: bool) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(is_second)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Accepts connections.
struct Doorman {
    shared: Arc<Shared>,
    tls: Option<TlsAcceptor>,
    origin: Arc<str>,
    connections: JoinSet<()>,
}

impl Doorman {
    fn new(address: SocketAddr, tls: Option<TlsAcceptor>, shared: Arc<Shared>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        Self { shared, tls, origin: format!("{scheme}://{address}").into(), connections: JoinSet::new() }
    }

    async fn work(mut self, mut socket: Socket, mut orders: mpsc::UnboundedReceiver<Command>) {
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    None => return,
                    Some(command) => socket = self.obey(command, socket).await,
                },
                accepted = socket.accept() => {
                    if let Ok((stream, peer)) = accepted {
                        self.admit(stream, peer);
                    }
                }
                Some(_ended) = self.connections.join_next() => {}
            }
        }
    }

    async fn obey(&mut self, command: Command, socket: Socket) -> Socket {
        let (socket, done) = match command {
            Command::Refuse(done) => {
                self.connections.shutdown().await;
                (socket.refusing(), done)
            }
            Command::Accept(done) => (socket.listening(), done),
            Command::CutAll(done) => {
                self.connections.shutdown().await;
                (Ok(socket), done)
            }
        };
        let socket = socket.expect("the port is still ours");
        // The caller may have given up waiting.
        let _gone = done.send(());
        socket
    }

    fn admit(&mut self, stream: TcpStream, peer: SocketAddr) {
        let context = Context { shared: Arc::clone(&self.shared), peer, origin: Arc::clone(&self.origin) };
        let tls = self.tls.clone();
        self.connections.spawn(async move {
            // Without this, small answers on a kept connection wait for the client's delayed acknowledgement.
            let _unsupported = stream.set_nodelay(true);
            match tls {
                None => connection::serve(stream, context).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        connection::serve(stream, context).await;
                    }
                }
            }
        });
    }
}
