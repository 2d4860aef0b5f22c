//! Proxies of TCP that cut a machine off.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long a connection is silent before an answer counts as complete.
const QUIET: Duration = Duration::from_millis(200);

/// What a proxy does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    /// Forwards everything.
    Open,
    /// Takes connections and all that is sent, and forwards it only later.
    Silent,
    /// Drops connections and refuses new ones.
    Refusing,
}

/// What happens to a request that is under way when its connection is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnderWay {
    /// Its answer is lost.
    Lost,
    /// Its answer is delivered first.
    Answered,
}

/// The thread on which all proxies run.
pub(crate) struct Proxies(Handle);

/// One proxy; it ends with its process.
pub(crate) struct Proxy(watch::Sender<Passage>);

impl Proxies {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        Self(handle)
    }

    /// Forwards connections at one address to another one.
    pub(crate) fn forward(&self, from: SocketAddr, to: SocketAddr, under_way: UnderWay) -> Proxy {
        let (sender, receiver) = watch::channel(Passage::Open);
        self.0.spawn(serve(from, to, under_way, receiver));
        Proxy(sender)
    }
}

impl Proxy {
    pub(crate) fn set(&self, passage: Passage) {
        self.0.send_replace(passage);
    }

    pub(crate) fn is_open(&self) -> bool {
        *self.0.borrow() == Passage::Open
    }
}

async fn serve(from: SocketAddr, to: SocketAddr, under_way: UnderWay, mut passage: watch::Receiver<Passage>) {
    while passage.wait_for(|passage| *passage != Passage::Refusing).await.is_ok() {
        let listener = TcpListener::bind(from).await.unwrap();
        let relayed = passage.clone();
        loop {
            tokio::select! {
                changed = passage.wait_for(|passage| *passage == Passage::Refusing) => match changed {
                    Ok(_) => break,
                    Err(_) => return,
                },
                accepted = listener.accept() => if let Ok((client, _)) = accepted {
                    let passage = relayed.clone();
                    tokio::spawn(async move {
                        // Its two ends see that it has ended.
                        let _ended = relay(client, to, under_way, passage).await;
                    });
                },
            }
        }
    }
}

async fn relay(
    mut client: TcpStream,
    to: SocketAddr,
    under_way: UnderWay,
    mut passage: watch::Receiver<Passage>,
) -> io::Result<()> {
    let mut server = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut question, mut answer) = ([0; 16 * 1024], [0; 16 * 1024]);
    let mut is_asked = false;
    loop {
        let now = *passage.borrow_and_update();
        match now {
            Passage::Silent => {
                if passage.changed().await.is_err() {
                    return Ok(());
                }
                continue;
            }
            Passage::Refusing if under_way == UnderWay::Lost => return Ok(()),
            Passage::Refusing => match timeout(QUIET, server.read(&mut answer)).await {
                Ok(count) => {
                    let count = count?;
                    is_asked = false;
                    client.write_all(&answer[..count]).await?;
                    if count == 0 {
                        return Ok(());
                    }
                }
                Err(_) if is_asked => {}
                Err(_) => return Ok(()),
            },
            Passage::Open => tokio::select! {
                changed = passage.changed() => if changed.is_err() { return Ok(()) },
                count = client.read(&mut question) => {
                    let count = count?;
                    if count == 0 {
                        return Ok(());
                    }
                    server.write_all(&question[..count]).await?;
                    is_asked = true;
                },
                count = server.read(&mut answer) => {
                    let count = count?;
                    if count == 0 {
                        return Ok(());
                    }
                    client.write_all(&answer[..count]).await?;
                    is_asked = false;
                },
            },
        }
    }
}
