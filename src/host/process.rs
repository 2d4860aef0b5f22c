//! Another process, as a message names it.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::Owner;

/// The state of a socket that listens, in the kernel's tables.
///
/// Source: `net/tcp_states.h`.
const LISTENING: &str = "0A";

/// A process that is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub id: u32,
    /// The unit or container that it belongs to, if that can be seen.
    pub owner: Option<Owner>,
}

impl Process {
    /// Looks at a process that this machine's kernel has named.
    #[must_use]
    pub fn find(id: u32) -> Self {
        Self { id, owner: Owner::of_process(id) }
    }

    /// A process that has written its id somewhere; in another container, that may be the id of another process here.
    #[must_use]
    pub fn written(id: u32) -> Self {
        Self { id, owner: None }
    }

    /// The process that listens on a TCP address, if this process may see it.
    #[must_use]
    pub fn listening_on(address: SocketAddr) -> Option<Self> {
        let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
        let inodes = tables.iter().flat_map(|table| listening_inodes(&text(Path::new(table)), address.port()));
        let sockets: Vec<_> = inodes.map(|inode| format!("socket:[{inode}]")).collect();
        if sockets.is_empty() {
            return None;
        }
        let ids = names_in(Path::new("/proc")).filter_map(|name| name.parse().ok());
        ids.into_iter().find(|id| has_any(*id, &sockets)).map(Self::find)
    }

    /// How to look at it, reload it and stop it, if it is a daemon of this program. The way to stop it is QUIT, because
    /// TERM and `systemctl stop` unregister runners.
    #[must_use]
    pub fn how_to_manage(&self) -> String {
        format!(
            "`runner-agent status` shows what it does; to reload changed settings, {}; to stop it without unregistering \
             runners, {}",
            self.how_to_signal("HUP"),
            self.how_to_signal("QUIT")
        )
    }

    fn how_to_signal(&self, signal: &str) -> String {
        let plain = || format!("run `kill -{signal} {}`", self.id);
        self.owner.as_ref().map_or_else(plain, |owner| owner.how_to_signal(signal))
    }
}

impl fmt::Display for Process {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "process {}", self.id)?;
        self.owner.as_ref().map_or(Ok(()), |owner| write!(formatter, " of {owner}"))
    }
}

#[expect(clippy::disallowed_methods, reason = "a file of the kernel")]
fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The inodes of the sockets that listen on a port, on any address.
///
/// Source: proc_net_tcp.txt of the kernel.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    let inode = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let (_, found) = words.get(1)?.rsplit_once(':')?;
        let is_wanted = u16::from_str_radix(found, 16) == Ok(port) && words.get(3) == Some(&LISTENING);
        words.get(9).filter(|_| is_wanted).map(|inode| (*inode).to_owned())
    };
    table.lines().filter_map(inode).collect()
}

#[expect(clippy::disallowed_methods, reason = "a directory of the kernel")]
fn names_in(directory: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// Whether a process has one of these sockets open.
#[expect(clippy::disallowed_methods, reason = "links of the kernel")]
fn has_any(id: u32, sockets: &[String]) -> bool {
    let directory = Path::new("/proc").join(id.to_string()).join("fd");
    names_in(&directory).any(|name| {
        let target = fs::read_link(directory.join(name)).unwrap_or_default();
        sockets.iter().any(|socket| Path::new(socket) == target)
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_process_that_listens_on_a_port_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(Process::listening_on(address).map(|process| process.id), Some(std::process::id()));
        drop(listener);
        assert_eq!(Process::listening_on(address), None);
    }

    #[test]
    fn a_process_is_named_with_its_owner_and_signalled_through_it() {
        let unit = Process { id: 7, owner: Some(Owner::Unit("a.service".to_owned())) };
        assert_eq!(unit.to_string(), "process 7 of unit a.service");
        assert!(unit.how_to_manage().ends_with("run `systemctl kill --signal=QUIT a.service`"));
        let plain = Process::written(7);
        assert_eq!(plain.to_string(), "process 7");
        assert_eq!(
            plain.how_to_manage(),
            "`runner-agent status` shows what it does; to reload changed settings, run `kill -HUP 7`; to stop it without \
             unregistering runners, run `kill -QUIT 7`"
        );
    }

    #[test]
    fn only_sockets_that_listen_on_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: 0100007F:2404 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n   1: 0100007F:2404 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1\n   2: 0100007F:2405 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1\n";
        assert_eq!(listening_inodes(table, 0x2404), ["4711"]);
    }
}
