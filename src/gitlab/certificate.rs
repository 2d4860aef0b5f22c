//! The names in a certificate, for messages.
//!
//! Source: RFC 5280, section 4.1, and X.690 for the encoding. Nothing here decides about trust.

/// The subject and the issuer of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CertificateNames {
    pub(super) subject: String,
    pub(super) issuer: String,
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
/// The optional version at the start of the signed part.
const VERSION: u8 = 0xa0;

/// `id-at-commonName`, then `id-at-organizationName`.
const NAMING_ATTRIBUTES: [&[u8]; 2] = [&[0x55, 0x04, 0x03], &[0x55, 0x04, 0x0a]];

/// The name of a certificate that has neither attribute.
const UNNAMED: &str = "(without a name)";

impl CertificateNames {
    /// Reads the names of a certificate in DER; `None` if it is none.
    pub(super) fn parse(der: &[u8]) -> Option<Self> {
        let (certificate, _) = content(der, SEQUENCE)?;
        let (mut signed, _) = content(certificate, SEQUENCE)?;
        if signed.first() == Some(&VERSION) {
            signed = element(signed)?.2;
        }
        // The serial number and the algorithm of the signature.
        let (_, _, rest) = element(signed)?;
        let (_, _, rest) = element(rest)?;
        let (issuer, rest) = content(rest, SEQUENCE)?;
        let (_validity, rest) = content(rest, SEQUENCE)?;
        let (subject, _) = content(rest, SEQUENCE)?;
        Some(Self { subject: name(subject), issuer: name(issuer) })
    }
}

/// The common name, else the organization.
fn name(relative_names: &[u8]) -> String {
    let found = NAMING_ATTRIBUTES.iter().find_map(|attribute| value_of(relative_names, attribute));
    found.unwrap_or_else(|| UNNAMED.to_owned())
}

fn value_of(mut relative_names: &[u8], wanted: &[u8]) -> Option<String> {
    while !relative_names.is_empty() {
        let (mut attributes, rest) = content(relative_names, SET)?;
        relative_names = rest;
        while !attributes.is_empty() {
            let (attribute, rest) = content(attributes, SEQUENCE)?;
            attributes = rest;
            let (kind, value) = content(attribute, OBJECT_IDENTIFIER)?;
            if kind == wanted {
                let (_, text, _) = element(value)?;
                return Some(String::from_utf8_lossy(text).into_owned());
            }
        }
    }
    None
}

/// The content of the first element, if it has this tag, and what follows it.
fn content(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(der)?;
    (tag == wanted).then_some((content, rest))
}

/// The tag and the content of the first element, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        // The length of the length: four bytes are 4 GiB.
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, Issuer, KeyPair};

    fn params(kind: DnType, name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(kind, name);
        params
    }

    #[test]
    fn names_of_subject_and_issuer_are_read() {
        let (authority_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let issuer = Issuer::new(params(DnType::OrganizationName, "Example Ltd"), authority_key);
        let certificate = params(DnType::CommonName, "gitlab.example.com").signed_by(&key, &issuer).unwrap();
        let names = CertificateNames::parse(certificate.der()).unwrap();
        assert_eq!((names.subject.as_str(), names.issuer.as_str()), ("gitlab.example.com", "Example Ltd"));
    }

    #[test]
    fn what_is_no_certificate_has_no_names() {
        let key = KeyPair::generate().unwrap();
        let certificate = params(DnType::CommonName, "a").self_signed(&key).unwrap();
        for length in 0..certificate.der().len() {
            assert_eq!(CertificateNames::parse(&certificate.der()[..length]), None, "{length}");
        }
        assert_eq!(CertificateNames::parse(&[0x30, 0x80]), None);
        assert_eq!(CertificateNames::parse(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
