//! Encrypted servers: which are trusted, and how the others fail.

use std::error::Error as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::server::ServerScript;
use super::*;

const ACCEPTED: &str = r#"{"id":42,"token":"glrt-runner-secret"}"#;
const NOT_EXECUTED: Disposition = Disposition::NotExecuted { retry_after: None };

type Authority = CertifiedIssuer<'static, KeyPair>;

/// A certificate with its key.
struct CertificateAndKey {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

/// An encrypted server on 127.0.0.1 that accepts every token.
struct TlsServer {
    authority: String,
    script: ServerScript,
}

fn authority() -> Authority {
    named_authority("Example")
}

fn named_authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Authority::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn params(name: &str) -> CertificateParams {
    CertificateParams::new(vec![name.to_owned()]).unwrap()
}

fn signed(params: &CertificateParams, authority: &Authority) -> CertificateAndKey {
    let key = KeyPair::generate().unwrap();
    CertificateAndKey { certificate: params.signed_by(&key, authority).unwrap(), key }
}

/// The certificate that GitLab's instructions for a self-signed server create.
fn self_signed(name: &str) -> CertificateAndKey {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    CertificateAndKey { certificate: params.self_signed(&key).unwrap(), key }
}

fn file(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

impl TlsServer {
    async fn start(pair: &CertificateAndKey, clients: Option<&Authority>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from(authority.der().to_vec())).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain = vec![pair.certificate.der().clone()];
        let key = PrivateKeyDer::try_from(pair.key.serialize_der()).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let script = ServerScript::script(vec![Reply::json(200, ACCEPTED); 20]);
        let served = script.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, served) = (acceptor.clone(), served.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        served.serve(stream).await;
                    }
                });
            }
        });
        Self { authority: address, script }
    }

    fn site(&self, tls: TlsFiles) -> Site {
        Site { url: format!("https://{}/", self.authority).parse().unwrap(), tls }
    }
}

fn trusting(ca_file: &Path) -> TlsFiles {
    TlsPaths { ca_file: Some(ca_file.to_owned()), ..TlsPaths::default() }.into()
}

async fn refusal(server: &TlsServer, tls: TlsFiles) -> Error {
    let error = call(&client(), &server.site(tls), Endpoint::Reset).await.unwrap_err();
    assert_eq!(error.disposition(), NOT_EXECUTED, "{error:?}");
    assert_eq!(server.script.requests().len(), 0);
    error
}

#[tokio::test]
async fn an_authority_is_trusted_by_entry_or_certs_dir() {
    let (dir, authority) = (TempDir::new().unwrap(), authority());
    let server = TlsServer::start(&signed(&params("127.0.0.1"), &authority), None).await;
    let ca_file = file(&dir, "ca.pem", &authority.pem());
    call(&client(), &server.site(trusting(&ca_file)), Endpoint::Verify).await.unwrap();
    file(&dir, "127.0.0.1.crt", &authority.pem());
    let ready = Client::new(Config { certs_dir: Some(dir.path().to_owned()), ..Config::default() });
    call(&ready, &server.site(TlsFiles::default()), Endpoint::Verify).await.unwrap();
}

#[tokio::test]
async fn an_access_token_is_not_sent_by_the_trust_of_files_that_others_can_write() {
    let (dir, authority) = (TempDir::new().unwrap(), authority());
    let server = TlsServer::start(&signed(&params("127.0.0.1"), &authority), None).await;
    let of_host = file(&dir, "127.0.0.1.crt", &authority.pem());
    let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    set_mode(&of_host, 0o644);
    let site = server.site(TlsFiles::default());
    let client = Client::new(Config { certs_dir: Some(dir.path().to_owned()), ..Config::default() });
    let kind = async |site: &Site, endpoint| call(&client, site, endpoint).await.map_err(|error| error.kind());
    for (mode, expected) in [(0o755, Ok(())), (0o777, Err(ErrorKind::TlsIssuer))] {
        set_mode(dir.path(), mode);
        assert_eq!(kind(&site, Endpoint::Verify).await, Ok(()), "{mode:o}");
        assert_eq!(kind(&site, Endpoint::ResetById).await, expected, "{mode:o}");
    }
    let named = server.site(trusting(&file(&dir, "ca.pem", &authority.pem())));
    for (mode, expected) in [(0o644, Ok(())), (0o666, Err(ErrorKind::LocalFile))] {
        set_mode(&dir.path().join("ca.pem"), mode);
        assert_eq!(kind(&named, Endpoint::Verify).await, Ok(()), "{mode:o}");
        assert_eq!(kind(&named, Endpoint::ResetById).await, expected, "{mode:o}");
    }
}

#[tokio::test]
async fn a_file_of_a_host_that_others_can_write_leaves_the_decision_to_the_systems_authorities() {
    let (dir, authority) = (TempDir::new().unwrap(), authority());
    let server = TlsServer::start(&signed(&params("127.0.0.1"), &authority), None).await;
    let of_host = file(&dir, "127.0.0.1.crt", &authority.pem());
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let site = server.site(TlsFiles::default());
    let client = Client::new(Config { certs_dir: Some(dir.path().to_owned()), ..Config::default() });
    let kind = async |endpoint| call(&client, &site, endpoint).await.map_err(|error| error.kind());
    let ignored = Err(ErrorKind::TlsIssuer);
    for (mode, by_registration, by_access) in
        [(0o644, Ok(()), Ok(())), (0o664, Ok(()), ignored), (0o666, ignored, ignored)]
    {
        fs::set_permissions(&of_host, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(kind(Endpoint::Verify).await, Ok(()), "{mode:o}");
        assert_eq!(kind(Endpoint::Register).await, by_registration, "{mode:o}");
        assert_eq!(kind(Endpoint::ResetById).await, by_access, "{mode:o}");
    }
    // Only root can give a file away; it distrusts the user's then.
    if rustix::process::geteuid().is_root() {
        fs::set_permissions(&of_host, fs::Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::chown(&of_host, Some(1500), None).unwrap();
        assert_eq!(kind(Endpoint::Verify).await, Ok(()));
        assert_eq!(kind(Endpoint::Register).await, ignored);
        assert_eq!(kind(Endpoint::ResetById).await, ignored);
    }
}

#[tokio::test]
async fn certificate_errors_are_distinguished() {
    let (dir, authority) = (TempDir::new().unwrap(), authority());
    let ca_file = file(&dir, "ca.pem", &authority.pem());
    let mut expired = params("127.0.0.1");
    expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let mut early = params("127.0.0.1");
    early.not_before = rcgen::date_time_ymd(4000, 1, 1);
    let strangers = named_authority("Stranger");
    let renewed = super::tls::authority();
    for (pair, kind) in [
        (signed(&params("other.example.com"), &authority), ErrorKind::TlsName),
        (signed(&expired, &authority), ErrorKind::TlsExpired),
        (signed(&early, &authority), ErrorKind::TlsExpired),
        (signed(&params("127.0.0.1"), &strangers), ErrorKind::TlsIssuer),
        (signed(&params("127.0.0.1"), &renewed), ErrorKind::TlsIssuer),
    ] {
        let server = TlsServer::start(&pair, None).await;
        let error = refusal(&server, trusting(&ca_file)).await;
        assert_eq!((error.kind(), error.class()), (kind, ErrorClass::Unreachable), "{error:?}");
        // The times of a certificate say more than its cause.
        let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        assert!(error.hint().is_some() && !cause.is_empty(), "{error:?}");
    }
}

#[tokio::test]
async fn a_certificate_outside_its_time_is_reported_with_this_machines_clock() {
    let (dir, authority) = (TempDir::new().unwrap(), authority());
    let ca_file = file(&dir, "ca.pem", &authority.pem());
    let mut expired = params("127.0.0.1");
    expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let mut early = params("127.0.0.1");
    early.not_before = rcgen::date_time_ymd(4000, 1, 1);
    for (params, times) in [
        (expired, "it is valid until 2020-01-01T00:00:00Z"),
        (early, "it is valid from 4000-01-01T00:00:00Z: the clock is probably behind"),
    ] {
        let server = TlsServer::start(&signed(&params, &authority), None).await;
        let error = refusal(&server, trusting(&ca_file)).await.to_string();
        assert!(error.contains("this machine's clock says 20") && error.contains(times), "{error}");
    }
}

#[tokio::test]
async fn a_self_signed_server_is_trusted_by_its_certificate() {
    let dir = TempDir::new().unwrap();
    let pair = self_signed("127.0.0.1");
    let server = TlsServer::start(&pair, None).await;
    let ca_file = file(&dir, "ca.pem", &pair.certificate.pem());
    call(&client(), &server.site(trusting(&ca_file)), Endpoint::Verify).await.unwrap();
    let other = file(&dir, "other.pem", &self_signed("127.0.0.1").certificate.pem());
    let server = TlsServer::start(&pair, None).await;
    refusal(&server, trusting(&other)).await;
}

#[tokio::test]
async fn a_named_certificate_needs_a_valid_name_and_time() {
    let dir = TempDir::new().unwrap();
    let wrong_name = self_signed("other.example.com");
    let server = TlsServer::start(&wrong_name, None).await;
    let ca_file = file(&dir, "name.pem", &wrong_name.certificate.pem());
    assert_eq!(refusal(&server, trusting(&ca_file)).await.kind(), ErrorKind::TlsName);

    let mut params = params("127.0.0.1");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let key = KeyPair::generate().unwrap();
    let expired = CertificateAndKey { certificate: params.self_signed(&key).unwrap(), key };
    let server = TlsServer::start(&expired, None).await;
    let ca_file = file(&dir, "time.pem", &expired.certificate.pem());
    assert_eq!(refusal(&server, trusting(&ca_file)).await.kind(), ErrorKind::TlsExpired);
}

#[tokio::test]
async fn a_server_is_trusted_by_its_own_leaf_certificate() {
    let (dir, authority) = (TempDir::new().unwrap(), authority());
    let pair = signed(&params("127.0.0.1"), &authority);
    let server = TlsServer::start(&pair, None).await;
    let leaf = file(&dir, "127.0.0.1.crt", &pair.certificate.pem());
    call(&client(), &server.site(trusting(&leaf)), Endpoint::Verify).await.unwrap();
    let ready = Client::new(Config { certs_dir: Some(dir.path().to_owned()), ..Config::default() });
    call(&ready, &server.site(TlsFiles::default()), Endpoint::Verify).await.unwrap();
}

#[tokio::test]
async fn a_leaf_certificate_trusts_no_other_one() {
    let (dir, authority) = (TempDir::new().unwrap(), authority());
    let pinned = signed(&params("127.0.0.1"), &authority);
    let leaf = file(&dir, "leaf.pem", &pinned.certificate.pem());
    // Of the same name and issuer; of the same key too.
    let other = signed(&params("127.0.0.1"), &authority);
    let key = KeyPair::from_pem(&pinned.key.serialize_pem()).unwrap();
    let reissued = CertificateAndKey { certificate: params("127.0.0.1").signed_by(&key, &authority).unwrap(), key };
    assert_ne!(reissued.certificate.der(), pinned.certificate.der());
    for pair in [other, reissued] {
        let server = TlsServer::start(&pair, None).await;
        assert_eq!(refusal(&server, trusting(&leaf)).await.kind(), ErrorKind::TlsIssuer);
    }
}

#[tokio::test]
async fn a_leaf_certificate_needs_a_valid_name_and_time_all_the_same() {
    let (dir, authority) = (TempDir::new().unwrap(), authority());
    let mut expired = params("127.0.0.1");
    expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let mut early = params("127.0.0.1");
    early.not_before = rcgen::date_time_ymd(4000, 1, 1);
    for (params, kind) in [
        (params("other.example.com"), ErrorKind::TlsName),
        (expired, ErrorKind::TlsExpired),
        (early, ErrorKind::TlsExpired),
    ] {
        let pair = signed(&params, &authority);
        let server = TlsServer::start(&pair, None).await;
        let leaf = file(&dir, "leaf.pem", &pair.certificate.pem());
        assert_eq!(refusal(&server, trusting(&leaf)).await.kind(), kind);
    }
}

#[tokio::test]
async fn a_self_signed_certificate_has_an_unknown_issuer_until_it_is_named() {
    let dir = TempDir::new().unwrap();
    let stranger = file(&dir, "stranger.pem", &authority().pem());
    let server = TlsServer::start(&self_signed("127.0.0.1"), None).await;
    for tls in [TlsFiles::default(), trusting(&stranger)] {
        let error = refusal(&server, tls).await;
        assert_eq!(error.kind(), ErrorKind::TlsIssuer, "{error:?}");
        assert!(error.hint().unwrap().contains("tls-ca-file"), "{error:?}");
    }
}

#[tokio::test]
async fn a_certificate_without_names_must_be_issued_again() {
    let (dir, authority) = (TempDir::new().unwrap(), authority());
    let mut nameless = CertificateParams::new(Vec::new()).unwrap();
    nameless.distinguished_name.push(DnType::CommonName, "127.0.0.1");
    let issued = signed(&nameless, &authority);
    // The default of `openssl req -x509`.
    nameless.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let own = CertificateAndKey { certificate: nameless.self_signed(&key).unwrap(), key };
    let (ca, stranger) = (file(&dir, "ca.pem", &authority.pem()), file(&dir, "other.pem", &named_authority("X").pem()));
    for pair in [issued, own] {
        let server = TlsServer::start(&pair, None).await;
        let leaf = file(&dir, "leaf.pem", &pair.certificate.pem());
        for tls in [trusting(&stranger), trusting(&leaf), trusting(&ca)] {
            let error = refusal(&server, tls).await;
            assert_eq!(error.kind(), ErrorKind::TlsNoName, "{error:?}");
            let hint = error.hint().unwrap();
            assert!(hint.contains("subjectAltName") && hint.contains("tls-ca-file"), "{hint}");
        }
    }
}

#[tokio::test]
async fn a_client_certificate_is_sent_and_its_refusal_reported() {
    let (dir, servers, clients) = (TempDir::new().unwrap(), authority(), authority());
    let server = TlsServer::start(&signed(&params("127.0.0.1"), &servers), Some(&clients)).await;
    let ca_file = file(&dir, "ca.pem", &servers.pem());
    assert_eq!(refusal(&server, trusting(&ca_file)).await.kind(), ErrorKind::TlsClientCertificate);

    let ours = signed(&params("runner"), &clients);
    let tls = TlsPaths {
        cert_file: Some(file(&dir, "cert.pem", &ours.certificate.pem())),
        key_file: Some(file(&dir, "key.pem", &ours.key.serialize_pem())),
        ..(*trusting(&ca_file)).clone()
    };
    call(&client(), &server.site(tls.into()), Endpoint::Verify).await.unwrap();
    file(&dir, "127.0.0.1.auth.crt", &ours.certificate.pem());
    file(&dir, "127.0.0.1.auth.key", &ours.key.serialize_pem());
    let ready = Client::new(Config { certs_dir: Some(dir.path().to_owned()), ..Config::default() });
    call(&ready, &server.site(trusting(&ca_file)), Endpoint::Verify).await.unwrap();
}

#[tokio::test]
async fn a_changed_file_is_read_again() {
    let (dir, authority) = (TempDir::new().unwrap(), authority());
    let server = TlsServer::start(&signed(&params("127.0.0.1"), &authority), None).await;
    let ca_file = file(&dir, "ca.pem", &named_authority("Stranger").pem());
    let (client, site) = (client(), server.site(trusting(&ca_file)));
    let error = call(&client, &site, Endpoint::Verify).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TlsIssuer);
    fs::write(&ca_file, authority.pem()).unwrap();
    call(&client, &site, Endpoint::Verify).await.unwrap();
    fs::remove_file(&ca_file).unwrap();
    let error = call(&client, &site, Endpoint::Verify).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LocalFile);
}

/// The variable with the bundle that a test may overwrite; the system's own is never touched.
const BUNDLE: &str = "RUNNER_AGENT_TEST_BUNDLE";

/// Runs the test binary again with its own bundle of authorities: only a new process can get an environment variable.
#[test]
fn forgotten_system_authorities_are_read_again() {
    let dir = TempDir::new().unwrap();
    let bundle = file(&dir, "bundle.pem", &named_authority("Stranger").pem());
    let inner = "gitlab::tests::tls::system_authorities_in_a_separate_process";
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", inner, "--ignored"]).env("SSL_CERT_FILE", &bundle).env(BUNDLE, &bundle);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test]
#[ignore = "run by forgotten_system_authorities_are_read_again"]
async fn system_authorities_in_a_separate_process() {
    let bundle = std::env::var_os(BUNDLE).unwrap();
    let authority = authority();
    let server = TlsServer::start(&signed(&params("127.0.0.1"), &authority), None).await;
    let (client, site) = (client(), server.site(TlsFiles::default()));
    let kind = async || call(&client, &site, Endpoint::Verify).await.map_err(|error| error.kind());
    assert_eq!(kind().await, Err(ErrorKind::TlsIssuer));
    fs::write(&bundle, authority.pem()).unwrap();
    assert_eq!(kind().await, Err(ErrorKind::TlsIssuer), "read once");
    client.forget_tls();
    assert_eq!(kind().await, Ok(()));
    // Trust is revoked too, even for a connection that is still open.
    fs::write(&bundle, named_authority("Stranger").pem()).unwrap();
    client.clone().forget_tls();
    assert_eq!(kind().await, Err(ErrorKind::TlsIssuer));
}

#[tokio::test]
async fn an_unusable_file_is_reported_with_its_path() {
    let (dir, authority) = (TempDir::new().unwrap(), authority());
    let pair = signed(&params("runner"), &authority);
    let cert = file(&dir, "cert.pem", &pair.certificate.pem());
    let foreign_key = file(&dir, "key.pem", &KeyPair::generate().unwrap().serialize_pem());
    let garbage = file(&dir, "garbage.pem", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
    let empty = file(&dir, "empty.pem", "");
    let missing = dir.path().join("missing.pem");
    let with_key = |key_file: &Path| -> TlsFiles {
        let (cert_file, key_file) = (Some(cert.clone()), Some(key_file.to_owned()));
        TlsPaths { cert_file, key_file, ..TlsPaths::default() }.into()
    };
    for (tls, named) in [
        (trusting(&missing), &missing),
        (trusting(dir.path()), &dir.path().to_owned()),
        (trusting(&garbage), &garbage),
        (trusting(&empty), &empty),
        (with_key(&missing), &missing),
        (with_key(&empty), &empty),
        (with_key(&foreign_key), &cert),
        (TlsPaths { cert_file: Some(cert.clone()), ..TlsPaths::default() }.into(), &cert),
        (TlsPaths { key_file: Some(foreign_key.clone()), ..TlsPaths::default() }.into(), &foreign_key),
    ] {
        let site = Site { url: "https://127.0.0.1:1".parse().unwrap(), tls };
        let error = call(&client(), &site, Endpoint::Reset).await.unwrap_err();
        assert_eq!((error.kind(), error.class()), (ErrorKind::LocalFile, ErrorClass::Local), "{error:?}");
        assert_eq!(error.disposition(), NOT_EXECUTED);
        assert!(error.to_string().contains(&format!("`{}`", named.display())), "{error}");
    }
}

#[tokio::test]
async fn a_server_without_tls_fails_an_https_request() {
    let server = ScriptedServer::start(Vec::new()).await;
    let site = super::site(&format!("https://{}", server.authority));
    let error = call(&client(), &site, Endpoint::Reset).await.unwrap_err();
    assert_eq!(error.disposition(), NOT_EXECUTED, "{error:?}");
}
