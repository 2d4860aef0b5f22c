//! The daemon's unix socket: accessible to its owner only, and removed at shutdown.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use tokio::net::{UnixListener, UnixSocket};

use crate::files::{Place, make_directories};
use crate::host::Process;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 64;

/// A listening socket and its file.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) listener: UnixListener,
    pub(super) file: SocketFile,
}

/// The file of a socket. Dropping it removes the file unless another socket has replaced it.
#[derive(Debug)]
pub(super) struct SocketFile {
    place: Place,
    device: u64,
    inode: u64,
}

impl Socket {
    /// Listens on `path` with mode 0600. Creates the directory, and replaces a socket without a listener.
    pub(super) fn listen(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            make_directories(directory)?;
        }
        let place = Place::find(path)?;
        let address = place.path_by_descriptor();
        let socket = UnixSocket::new_stream()?;
        if let Err(error) = socket.bind(&address) {
            if error.kind() != io::ErrorKind::AddrInUse {
                return Err(error);
            }
            remove_stale(&place)?;
            socket.bind(&address)?;
        }
        let metadata = place.metadata()?;
        let file = SocketFile { place, device: metadata.dev(), inode: metadata.ino() };
        // No process can connect before `listen`.
        file.place.set_mode(0o600)?;
        Ok(Self { listener: socket.listen(BACKLOG)?, file })
    }
}

/// Removes a socket without a listener.
fn remove_stale(place: &Place) -> io::Result<()> {
    if !place.metadata()?.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the path is taken by a file that is not a socket"));
    }
    match try_connect(&place.path_by_descriptor()) {
        Err(Errno::CONNREFUSED) => place.remove().map(drop),
        Err(Errno::NOENT) => Ok(()),
        Ok(holder) => {
            let holder = holder.map(|holder| format!(": {holder}; {}", holder.how_to_manage()));
            Err(in_use(&holder.unwrap_or_default()))
        }
        // A full backlog: the listener is alive but does not accept.
        Err(Errno::AGAIN) => Err(in_use("")),
        Err(error) => Err(error.into()),
    }
}

fn in_use(holder: &str) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, format!("another daemon listens on it, or hangs{holder}"))
}

/// Connects without blocking. Returns the process that listens there, if it can be seen.
fn try_connect(path: &Path) -> Result<Option<Process>, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let peer = rustix::net::sockopt::socket_peercred(&socket).ok();
    Ok(peer.and_then(|peer| u32::try_from(peer.pid.as_raw_nonzero().get()).ok()).map(Process::find))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = |found: &Metadata| (found.dev(), found.ino()) == (self.device, self.inode);
        if self.place.metadata().is_ok_and(|found| is_ours(&found)) {
            // The next daemon replaces a file that cannot be removed.
            let _left = self.place.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_socket_is_private_and_removed_on_drop() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/agent.sock");
        let socket = Socket::listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn only_a_dead_socket_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let live = Socket::listen(&path).unwrap();
        assert_eq!(Socket::listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());
        fs::remove_file(&path).unwrap();
        let successor = Socket::listen(&path).unwrap();
        drop(live);
        assert!(path.exists(), "it belongs to the successor");
        drop(successor);
    }

    #[tokio::test]
    async fn a_hung_daemon_with_a_full_backlog_blocks_no_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let hung = UnixSocket::new_stream().unwrap();
        hung.bind(&path).unwrap();
        let _hung = hung.listen(0).unwrap();
        let _first = std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert_eq!(Socket::listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn a_file_that_is_not_a_socket_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        fs::write(&path, "precious").unwrap();
        assert!(Socket::listen(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
