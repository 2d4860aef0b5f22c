//! Where the daemon answers: `[http]`, the flags and variables that outweigh it, and the socket.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::diagnostics::{Mistakes, Place, Placed};
use super::table::{Table, split_list};
use super::{Environment, Overrides, Paths, parse_boolean};
use crate::status::StatusServerConfig;

/// The port where the address names none; the official one for a runner's metrics.
pub const PORT: u16 = 9252;

/// What `[http]` says.
#[derive(Debug, Default)]
pub(super) struct Http {
    listen: Vec<Placed<String>>,
    allow_remote: Option<bool>,
}

/// Reads the table.
pub(super) fn read(table: &mut Table<'_>, diagnostics: &mut Mistakes) -> Http {
    let listen = table.list("listen", diagnostics);
    let allow_remote = table.boolean("allow_remote", diagnostics).map(|allow_remote| allow_remote.value);
    Http { listen: listen.map(each).unwrap_or_default(), allow_remote }
}

impl Http {
    /// Puts the flags and, for a daemon, the variables before it.
    pub(super) fn outweighed(
        mut self,
        overrides: &Overrides,
        environment: &Environment,
        diagnostics: &mut Mistakes,
    ) -> Self {
        let flag = overrides.listen_address.clone().map(|text| (text, Place::Flag("--listen-address")));
        let variable = || environment.text("LISTEN_ADDRESS").map(|text| (text, Place::Variable("LISTEN_ADDRESS")));
        if let Some((text, place)) = flag.or_else(variable) {
            self.listen = each(Placed::new(split_list(&text), place));
        }
        let variable = environment.text("LISTEN_ALLOW_REMOTE").and_then(|text| {
            parse_boolean(&text)
                .inspect_err(|error| diagnostics.add(&Place::Variable("LISTEN_ALLOW_REMOTE"), error))
                .ok()
        });
        self.allow_remote = overrides.allow_remote.or(variable).or(self.allow_remote);
        self
    }

    /// The addresses and sockets that are meant.
    pub(super) fn status_server(&self, paths: &Paths, diagnostics: &mut Mistakes) -> StatusServerConfig {
        let mut listen = Vec::new();
        for text in &self.listen {
            match address(&text.value) {
                None => diagnostics.add(
                    &text.place,
                    format!("`{}` is no address to listen at: write it as 127.0.0.1:{PORT}", text.value),
                ),
                Some(address) if !address.ip().to_canonical().is_loopback() && self.allow_remote != Some(true) => {
                    diagnostics.add(&text.place, remote(address));
                }
                Some(address) if listen.contains(&address) => {}
                Some(address) => listen.push(address),
            }
        }
        StatusServerConfig { sockets: paths.sockets.clone(), is_socket_required: paths.socket_is_named, listen }
    }
}

fn each(texts: Placed<Vec<String>>) -> Vec<Placed<String>> {
    let Placed { value, place } = texts;
    value.into_iter().map(|text| Placed::new(text, place.clone())).collect()
}

fn remote(address: SocketAddr) -> String {
    format!(
        "{address} can be reached from other machines, and whoever does may read how all runners stand: use a loopback address such as 127.0.0.1:{}, or allow it with `allow_remote = true` in [http], --allow-remote or LISTEN_ALLOW_REMOTE",
        address.port()
    )
}

/// Reads an address in the forms that gitlab-runner takes: with or without a port, or a port alone.
fn address(text: &str) -> Option<SocketAddr> {
    let local = text.strip_prefix("localhost").map(|rest| format!("127.0.0.1{rest}"));
    let text = local.as_deref().unwrap_or(text);
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, PORT));
    }
    match text.strip_prefix(':') {
        Some(port) => Some(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port.parse().ok()?)),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_in_the_official_forms() {
        let table = [
            ("127.0.0.1:9252", Some("127.0.0.1:9252")),
            ("127.0.0.1", Some("127.0.0.1:9252")),
            ("localhost:80", Some("127.0.0.1:80")),
            ("localhost", Some("127.0.0.1:9252")),
            ("[::1]:9000", Some("[::1]:9000")),
            ("::1", Some("[::1]:9252")),
            (":9252", Some("[::]:9252")),
            ("gitlab.example.com:9252", None),
            ("localhost9252", None),
            (":", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(address(text), expected.map(|expected| expected.parse().unwrap()), "{text}");
        }
    }
}
