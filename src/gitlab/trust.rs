//! Which server certificates are trusted.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

/// Trusts certificates signed by the authorities, and a server that presents one of the `named` certificates itself, byte for
/// byte: its issuer need not be known then, as for gitlab-runner. GitLab's instructions for self-signed servers create one
/// certificate for both authority and server, which strict verification rejects.
#[derive(Debug)]
pub(super) struct Trust {
    pub(super) authorities: Arc<WebPkiServerVerifier>,
    pub(super) named: Vec<CertificateDer<'static>>,
}

/// Whether a certificate names no host at all.
pub(super) fn is_without_names(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }) = error else {
        return false;
    };
    presented.is_empty()
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // Its validity period is already checked, its name is not.
            Err(Error::InvalidCertificate(CertificateError::Other(_) | CertificateError::UnknownIssuer)) => {
                let name = verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name);
                match name {
                    name if self.named.contains(end_entity) => name.map(|()| ServerCertVerified::assertion()),
                    // To trust it would not help.
                    Err(error) if is_without_names(&error) => Err(error),
                    Ok(()) | Err(_) => verified,
                }
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;
    use rustls::crypto::ring::default_provider;
    use rustls::pki_types::pem::PemObject as _;

    use super::*;

    /// Of version 1, as `openssl x509 -req -signkey` makes it.
    const VERSION_1: &str = "-----BEGIN CERTIFICATE-----\n\
        MIIBNTCB2wIUVYnXvTUf+DQedC5WSITWsYjUn2AwCgYIKoZIzj0EAwIwHTEbMBkG\n\
        A1UEAwwSZ2l0bGFiLmV4YW1wbGUuY29tMB4XDTI2MTEyODE1MDkwMVoXDTM2MTEy\n\
        NTE1MDkwMVowHTEbMBkGA1UEAwwSZ2l0bGFiLmV4YW1wbGUuY29tMFkwEwYHKoZI\n\
        zj0CAQYIKoZIzj0DAQcDQgAEKm3n9Q40LW5kOibRvFGC7Tp3EX8GN8u38h1iqC2U\n\
        nfJrJV+w7IgYtgwGp06waqYrIdNLVcJW6JychUGyqDF/STAKBggqhkjOPQQDAgNJ\n\
        ADBGAiEA8PT2SK2IejtmzMzo3/QfbK4bHRmujNZOr+hVFgfUFCYCIQDGDD3aNTtd\n\
        +C6otNECCgUmB6gT9M81RBXxBEZI/MJhaA==\n\
        -----END CERTIFICATE-----";

    #[test]
    fn a_certificate_of_version_1_is_refused_for_its_version_also_if_it_is_named() {
        let certificate = CertificateDer::from_pem_slice(VERSION_1.as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let authorities = WebPkiServerVerifier::builder_with_provider(roots.into(), default_provider().into());
        let trust = Trust { authorities: authorities.build().unwrap(), named: vec![certificate.clone()] };
        let (name, now) = (ServerName::try_from("gitlab.example.com").unwrap(), UnixTime::now());
        let error = trust.verify_server_cert(&certificate, &[], &name, &[], now).unwrap_err();
        assert_eq!(super::super::transport::tls_kind(&error), super::super::ErrorKind::TlsNoName, "{error:?}");
    }
}
