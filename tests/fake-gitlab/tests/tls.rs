//! HTTPS: the certificate of the server, and client certificates.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::TcpStream;
use std::sync::Arc;

use fake_gitlab::{Gitlab, Identity, Tls};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use test_support::http::{receive, send_on};

/// Verifies over TLS and returns the status, or the error of rustls.
fn status(gitlab: &Gitlab, ca_pem: &str, identity: Option<Identity>) -> Result<u16, String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let certificate = CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    };
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect(gitlab.address()).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).map_err(|error| error.to_string())?;
    }
    let mut stream = StreamOwned::new(connection, socket);
    send_on(&mut stream, "POST", "/api/v4/runners/verify", &[], b"");
    receive(&mut stream).map(|reply| reply.status).ok_or_else(|| "no answer".to_owned())
}

#[test]
fn https_uses_its_own_certificate_authority() {
    let gitlab = Gitlab::builder().tls(Tls::self_signed(["localhost", "127.0.0.1"])).start();
    assert!(gitlab.url().starts_with("https://127.0.0.1:"));
    assert_eq!(status(&gitlab, &gitlab.ca_pem(), None), Ok(400));
    let stranger = Tls::self_signed(["localhost"]);
    assert!(status(&gitlab, &stranger.ca_pem(), None).unwrap_err().contains("UnknownIssuer"));
}

#[test]
fn certificate_can_be_expired_or_for_another_host() {
    let gitlab = Gitlab::builder().tls(Tls::self_signed(["localhost"]).expired()).start();
    assert!(status(&gitlab, &gitlab.ca_pem(), None).unwrap_err().contains("expired"));
    let gitlab = Gitlab::builder().tls(Tls::self_signed(["elsewhere.test"])).start();
    assert!(status(&gitlab, &gitlab.ca_pem(), None).unwrap_err().contains("not valid for name"));
}

#[test]
fn client_certificates_can_be_required() {
    let gitlab = Gitlab::builder().tls(Tls::self_signed(["localhost"]).require_client()).start();
    let identity = gitlab.tls().unwrap().client_identity();
    assert_eq!(status(&gitlab, &gitlab.ca_pem(), Some(identity)), Ok(400));
    assert!(status(&gitlab, &gitlab.ca_pem(), None).is_err());
    let stranger = Tls::self_signed(["localhost"]).client_identity();
    assert!(status(&gitlab, &gitlab.ca_pem(), Some(stranger)).is_err());
}
