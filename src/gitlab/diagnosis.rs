//! How far the way to a server goes: proxy, name, connection, certificate, GitLab. No token is sent.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::certificate::CertificateNames;
use super::proxy::Way;
use super::{Client, Error, ErrorClass, ErrorKind};
use crate::model::{ServerUrl, Site, Timestamp};

/// What was found on the way to a server.
#[derive(Debug)]
pub struct Diagnosis {
    /// The steps in their order; those after a failure are missing.
    pub steps: Vec<DiagnosisStep>,
    /// The server's wall time of its answer; `None` without one.
    pub date: Option<Timestamp>,
}

/// One step on the way to a server.
#[derive(Debug)]
pub struct DiagnosisStep {
    /// A short name: `proxy`, `name`, `connection`, `certificate`, `GitLab`.
    pub name: &'static str,
    /// What was found.
    pub result: Result<String, Obstacle>,
}

/// Why a step failed; never contains a token or a password.
#[derive(Debug)]
pub struct Obstacle {
    /// What went wrong.
    pub message: String,
    /// What the user can do about it.
    pub hint: Option<&'static str>,
    /// The class, for the exit code of a command.
    pub class: ErrorClass,
}

impl Client {
    /// Goes the way to a server step by step, up to a request that carries no token. Each step takes at most as long as a
    /// connection may take, and the request as long as a request.
    pub async fn diagnose(&self, site: &Site) -> Diagnosis {
        let mut steps = Vec::new();
        let way = match self.transport().config().proxies.way(&site.url) {
            Ok(way) => way,
            Err(failure) => {
                steps.push(step("proxy", Err(of_error(&Error::of_probe(site, failure)))));
                return Diagnosis { steps, date: None };
            }
        };
        steps.push(step("proxy", Ok(way.to_string())));
        let (host, port) = match &way {
            Way::Proxy(route) => route.host_and_port(),
            Way::Direct(_) => (site.url.host().to_owned(), site.url.port()),
        };
        let within = self.transport().config().connect_timeout;
        let is_reached = match looked_up(&host, port, within).await {
            Err(obstacle) => {
                steps.push(step("name", Err(obstacle)));
                false
            }
            Ok(addresses) => {
                if host.parse::<IpAddr>().is_err() {
                    let texts: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
                    steps.push(step("name", Ok(format!("{host} is {}", texts.join(", ")))));
                }
                let connected = connected(&addresses, within).await;
                let is_reached = connected.is_ok();
                steps.push(step("connection", connected));
                is_reached
            }
        };
        if !is_reached {
            return Diagnosis { steps, date: None };
        }
        let chain = match &way {
            Way::Direct(_) if site.url.is_https() => presented(&site.url, within).await,
            Way::Direct(_) | Way::Proxy(_) => Vec::new(),
        };
        let answer = self.probe(site).await;
        if site.url.is_https() {
            steps.extend(certificate(&chain, answer.as_ref().err()));
        }
        match answer {
            Ok(answer) => {
                steps.push(step("GitLab", Ok("a GitLab answers".to_owned())));
                Diagnosis { steps, date: answer.date }
            }
            Err(error) => {
                let date = error.date();
                if !is_of_certificate(error.kind()) {
                    steps.push(step("GitLab", Err(of_error(&error))));
                }
                Diagnosis { steps, date }
            }
        }
    }
}

fn step(name: &'static str, result: Result<String, Obstacle>) -> DiagnosisStep {
    DiagnosisStep { name, result }
}

fn of_error(error: &Error) -> Obstacle {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Obstacle { message: format!("{error}{cause}"), hint: error.hint(), class: error.class() }
}

fn unreachable(message: String, hint: &'static str) -> Obstacle {
    Obstacle { message, hint: Some(hint), class: ErrorClass::Unreachable }
}

async fn looked_up(host: &str, port: u16, within: Duration) -> Result<Vec<SocketAddr>, Obstacle> {
    let hint = "check the name, /etc/resolv.conf and /etc/hosts";
    match timeout(within, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => {
            let addresses: Vec<_> = addresses.collect();
            if addresses.is_empty() {
                return Err(unreachable(format!("{host} has no address"), hint));
            }
            Ok(addresses)
        }
        Ok(Err(error)) => Err(unreachable(format!("{host} cannot be looked up: {error}"), hint)),
        Err(_) => Err(unreachable(format!("no name server has answered for {host} in time"), hint)),
    }
}

/// Connects to the first address that can be connected to.
async fn connected(addresses: &[SocketAddr], within: Duration) -> Result<String, Obstacle> {
    let mut failures = Vec::new();
    for address in addresses {
        let failure = match timeout(within, TcpStream::connect(address)).await {
            Ok(Ok(_)) if failures.is_empty() => return Ok(format!("{address} accepts connections")),
            Ok(Ok(_)) => return Ok(format!("{address} accepts connections ({})", failures.join("; "))),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        failures.push(format!("{address}: {failure}"));
    }
    let message = format!("no connection: {}", failures.join("; "));
    Err(unreachable(message, "check the port in the url, the firewall, and whether the server runs"))
}

/// The step about the server's certificate; none if nothing is known about it.
fn certificate(chain: &[CertificateNames], error: Option<&Error>) -> Option<DiagnosisStep> {
    let texts: Vec<_> = chain.iter().map(|names| format!("`{}` issued by `{}`", names.subject, names.issuer)).collect();
    let presented = if texts.is_empty() { String::new() } else { format!("; it presents {}", texts.join(", ")) };
    let Some(error) = error.filter(|error| is_of_certificate(error.kind())) else {
        return (!texts.is_empty()).then(|| step("certificate", Ok(format!("trusted{presented}"))));
    };
    let obstacle = of_error(error);
    let missing = chain.last().filter(|_| error.kind() == ErrorKind::TlsIssuer);
    let missing = missing.map(|last| format!("; the certificate of `{}` is missing", last.issuer)).unwrap_or_default();
    let message = format!("{}{presented}{missing}", obstacle.message);
    Some(step("certificate", Err(Obstacle { message, ..obstacle })))
}

fn is_of_certificate(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::TlsName | ErrorKind::TlsNoName | ErrorKind::TlsIssuer | ErrorKind::TlsExpired | ErrorKind::LocalFile
    )
}

/// The names in the certificates that a server presents; empty if it presents none.
async fn presented(url: &ServerUrl, within: Duration) -> Vec<CertificateNames> {
    let recorder = Arc::new(Recorder::default());
    // It fails in any case, because the recorder trusts nothing.
    let _failed = timeout(within, handshake(url, Arc::clone(&recorder))).await;
    let seen = recorder.seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.iter().filter_map(|certificate| CertificateNames::parse(certificate)).collect()
}

async fn handshake(url: &ServerUrl, recorder: Arc<Recorder>) -> io::Result<()> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    let config = builder.dangerous().with_custom_certificate_verifier(recorder).with_no_client_auth();
    let name = ServerName::try_from(url.host().to_owned()).map_err(io::Error::other)?;
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect((url.host(), url.port())).await?;
    let mut buffer = vec![0; 16 * 1024];
    while connection.is_handshaking() {
        let mut outgoing = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut outgoing)?;
        }
        stream.write_all(&outgoing).await?;
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut incoming = &buffer[..length];
        while !incoming.is_empty() {
            connection.read_tls(&mut incoming)?;
            connection.process_new_packets().map_err(io::Error::other)?;
        }
    }
    Ok(())
}

/// Keeps what a server presents, and trusts nothing.
#[derive(Debug, Default)]
struct Recorder {
    seen: Mutex<Vec<CertificateDer<'static>>>,
}

/// No handshake is completed with this verifier.
fn only_looked_at<T>() -> Result<T, rustls::Error> {
    Err(rustls::Error::General("only looked at".to_owned()))
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let all = std::iter::once(end_entity).chain(intermediates).map(|certificate| certificate.clone().into_owned());
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = all.collect();
        only_looked_at()
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        only_looked_at()
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        only_looked_at()
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}
