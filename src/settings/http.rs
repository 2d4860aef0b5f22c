//! Addresses of the status server: `[http]`, the flags and variables that override it, and the socket.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::diagnostics::{Diagnostics, Place, Placed};
use super::table::{TableReader, split_list};
use super::{Environment, Overrides, Paths, parse_boolean};
use crate::status::StatusServerConfig;

/// Default port; the one that gitlab-runner's documentation uses for metrics.
pub const PORT: u16 = 9252;

/// The section `[http]`.
#[derive(Debug, Default)]
pub(super) struct HttpSection {
    listen: Vec<Placed<String>>,
    allow_remote: Option<bool>,
}

/// Reads the section.
pub(super) fn read(table: &mut TableReader<'_>, diagnostics: &mut Diagnostics) -> HttpSection {
    let listen = table.list("listen", diagnostics);
    let allow_remote = table.boolean("allow_remote", diagnostics).map(|allow_remote| allow_remote.value);
    HttpSection { listen: listen.map(each).unwrap_or_default(), allow_remote }
}

impl HttpSection {
    /// Applies flags and variables.
    pub(super) fn with_overrides(
        mut self,
        overrides: &Overrides,
        environment: &Environment,
        diagnostics: &mut Diagnostics,
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

    /// Validates the addresses and adds the sockets.
    pub(super) fn status_server(&self, paths: &Paths, diagnostics: &mut Diagnostics) -> StatusServerConfig {
        let mut listen = Vec::new();
        for text in &self.listen {
            match address(&text.value) {
                None => diagnostics.add(
                    &text.place,
                    format!("invalid listen address `{}`: use a form such as 127.0.0.1:{PORT}", text.value),
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
        "{address} is reachable from other machines and exposes the status of all runners: use a loopback address such as 127.0.0.1:{}, or set `allow_remote = true` in [http], --allow-remote or LISTEN_ALLOW_REMOTE",
        address.port()
    )
}

/// Parses an address in the forms that gitlab-runner accepts: with or without a port, or only a port.
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
    fn an_address_is_parsed_in_the_forms_of_gitlab_runner() {
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
