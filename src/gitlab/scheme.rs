//! Whether a server speaks the other one of http and https.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::headers;
use super::transport::Incoming;
use crate::model::ServerUrl;

/// What servers write if they get plain http where they speak https: nginx, Go, and Apache.
const PLAIN_TO_TLS: [&str; 3] = [
    "plain HTTP request was sent to HTTPS port",
    "Client sent an HTTP request to an HTTPS server",
    "speaking plain HTTP to an SSL-enabled server port",
];

/// The first two bytes of a TLS record: a handshake or an alert, of version 3.
const TLS_RECORDS: [[u8; 2]; 2] = [[0x16, 0x03], [0x15, 0x03]];

/// How long a handshake is waited for. A server without TLS may wait for the rest of a request.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// Whether an answer says that the server speaks https on this port.
pub(super) fn says_https(incoming: &Incoming) -> bool {
    incoming.status == 400
        && !headers::is_json(&incoming.headers)
        && PLAIN_TO_TLS.iter().any(|text| incoming.body.windows(text.len()).any(|part| part == text.as_bytes()))
}

/// Whether the server of an address speaks TLS on its port: it answers the first message of a handshake, which is then given
/// up. Nothing secret is sent.
pub(super) async fn speaks_tls(url: &ServerUrl) -> bool {
    let answered = async {
        let hello = client_hello(url.host())?;
        let mut stream = TcpStream::connect((url.host(), url.port())).await?;
        stream.write_all(&hello).await?;
        let mut first = [0; 2];
        stream.read_exact(&mut first).await?;
        Ok::<_, io::Error>(TLS_RECORDS.contains(&first))
    };
    matches!(timeout(ANSWERS_WITHIN, answered).await, Ok(Ok(true)))
}

fn client_hello(host: &str) -> io::Result<Vec<u8>> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    let config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut hello = Vec::new();
    connection.write_tls(&mut hello)?;
    Ok(hello)
}
