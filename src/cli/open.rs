//! `open`: prints the address of the daemon's page, with a code that opens it once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::Serialize;

use super::context::Context;
use super::{Error, Exit};
use crate::settings;
use crate::settings::PORT;
use crate::status::OpenedPage;

/// The result as JSON.
#[derive(Serialize)]
struct Opened<'a> {
    url: &'a str,
    /// How long it can be opened, in seconds.
    seconds: u64,
}

/// Gets a code over the socket, which only its owner can use.
pub(super) async fn open(context: &Context<'_>) -> Result<Exit, Error> {
    let daemon = settings::paths(&context.overrides, &context.environment).status_client();
    let reply = daemon.post("/open").await?;
    let opened: Option<OpenedPage> = serde_json::from_slice(&reply.body).ok().filter(|_| reply.is_ok);
    let Some(OpenedPage { code, seconds, addresses }) = opened else {
        return Err(failed(
            "this daemon has no page to open",
            "restart it to use the version of this command".to_owned(),
        ));
    };
    let Some((code, address)) = code.zip(preferred(&addresses)) else {
        let hint = format!(
            "set `listen = [\"127.0.0.1:{PORT}\"]` in [http] of agent.toml, or start the daemon with --listen-address 127.0.0.1:{PORT}, and restart it"
        );
        return Err(failed("the daemon does not listen for HTTP", hint));
    };
    let url = format!("http://{address}/open?code={code}");
    if context.reporter.is_json() {
        context.reporter.document_line("page", Opened { url: &url, seconds });
    } else {
        context.reporter.answer(&format!("{url}\n"));
        context.reporter.remark(&format!("it can be opened once, within {seconds} s; a page opened before is closed"));
    }
    Ok(Exit::Done)
}

fn failed(message: &str, hint: String) -> Error {
    Error::Verdict { exit: Exit::Failed, message: message.to_owned(), hint: Some(hint) }
}

/// An address that a browser on this machine reaches.
fn preferred(addresses: &[SocketAddr]) -> Option<SocketAddr> {
    let reachable = |address: &SocketAddr| {
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        SocketAddr::new(ip, address.port())
    };
    let mut reachable = addresses.iter().map(reachable).collect::<Vec<_>>();
    reachable.sort_by_key(|address| !address.ip().is_loopback());
    reachable.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_this_machine_comes_first() {
        let preferred = |texts: &[&str]| {
            let addresses: Vec<_> = texts.iter().map(|text| text.parse().unwrap()).collect();
            preferred(&addresses).map(|address| address.to_string())
        };
        assert_eq!(preferred(&["10.0.0.1:80", "127.0.0.1:9252"]).as_deref(), Some("127.0.0.1:9252"));
        assert_eq!(preferred(&["[::]:9252"]).as_deref(), Some("[::1]:9252"));
        assert_eq!(preferred(&["0.0.0.0:1"]).as_deref(), Some("127.0.0.1:1"));
        assert_eq!(preferred(&["10.0.0.1:80"]).as_deref(), Some("10.0.0.1:80"));
        assert_eq!(preferred(&[]), None);
    }
}
