//! Certificates, generated for each server.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use tokio_rustls::TlsAcceptor;

/// The server's certificate, and the clients that it accepts.
pub struct Tls {
    authority: CertifiedIssuer<'static, KeyPair>,
    names: Vec<String>,
    is_expired: bool,
    client_ca_pem: Option<String>,
}

/// A certificate with its key, both as PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key.
    pub key_pem: String,
}

impl Tls {
    /// Creates an authority and a certificate for these names and addresses.
    #[must_use]
    pub fn self_signed<const N: usize>(names: [&str; N]) -> Self {
        Self {
            authority: authority(),
            names: names.map(str::to_owned).to_vec(),
            is_expired: false,
            client_ca_pem: None,
        }
    }

    /// Uses a certificate that expired in 2001.
    #[must_use]
    pub fn expired(mut self) -> Self {
        self.is_expired = true;
        self
    }

    /// Requires client certificates of one of these authorities.
    #[must_use]
    pub fn require_client_ca(mut self, pem: impl Into<String>) -> Self {
        self.client_ca_pem = Some(pem.into());
        self
    }

    /// Requires client certificates from [`Tls::client_identity`].
    #[must_use]
    pub fn require_client(self) -> Self {
        let own = self.ca_pem();
        self.require_client_ca(own)
    }

    /// The authority's certificate, which clients must trust.
    #[must_use]
    pub fn ca_pem(&self) -> String {
        self.authority.pem()
    }

    /// Creates a certificate for a client, signed by the same authority.
    #[must_use]
    pub fn client_identity(&self) -> Identity {
        let mut parameters = CertificateParams::new(vec!["client.test".to_owned()]).expect("a valid name");
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.certified(&parameters)
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let mut parameters = CertificateParams::new(self.names.clone()).expect("names that a certificate can bear");
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if self.is_expired {
            parameters.not_before = rcgen::date_time_ymd(2000, 1, 1);
            parameters.not_after = rcgen::date_time_ymd(2001, 1, 1);
        }
        let identity = self.certified(&parameters);
        let certificate = CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).expect("our own PEM");
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).expect("our own PEM");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = match &self.client_ca_pem {
            None => Arc::new(NoClientAuth) as Arc<dyn rustls::server::danger::ClientCertVerifier>,
            Some(pem) => WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pem)), Arc::clone(&provider))
                .build()
                .expect("client authorities to verify with"),
        };
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring supports the default versions")
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate], key)
            .expect("the key belongs to the certificate");
        TlsAcceptor::from(Arc::new(config))
    }

    fn certified(&self, parameters: &CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.signed_by(&key, &self.authority).expect("an authority that may sign");
        Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() }
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let key = KeyPair::generate().expect("a key");
    // The name is unique, so another authority is an unknown issuer and not a known one with a bad signature.
    let mark: String = key.public_key_raw().iter().rev().take(4).map(|byte| format!("{byte:02x}")).collect();
    let mut parameters = CertificateParams::new(Vec::new()).expect("no names");
    parameters.distinguished_name.push(DnType::CommonName, format!("Test GitLab authority {mark}"));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(parameters, key).expect("an authority")
}

fn roots(pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.expect("a certificate as PEM")).expect("a certificate of an authority");
    }
    roots
}
