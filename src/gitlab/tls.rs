//! The TLS configuration of a site: trusted authorities and the client certificate.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use zeroize::Zeroizing;

use crate::files::{self, Access, Exposure, FileUse, Place};
use crate::model::Site;

use super::ErrorKind;
use super::endpoint::TokenKind;
use super::error::CallFailure;
use super::trust::Trust;

/// Number of TLS sessions kept for resumption. The default of 256 is too many for a daemon with a few servers.
const MAX_SESSIONS: usize = 8;

/// Size limit of a TLS file, in bytes. A bundle of all public authorities has a quarter of it.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The TLS files of a connection. Sites with the same profile share their connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum TlsProfile {
    /// Unencrypted.
    Plain,
    /// Encrypted.
    Tls {
        /// Authorities to trust in addition to the system's.
        ca: Option<PathBuf>,
        /// The client certificate chain and its key.
        client: Option<(PathBuf, PathBuf)>,
        /// Whose files these may be.
        trust: FileTrust,
    },
}

/// Whose TLS files a connection may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum FileTrust {
    /// Any user's: a runner's token is in config.toml, and a user who can write beside that file may know it.
    AnyUser,
    /// Not those of other users: they must not choose which server receives a registration token. A group may write them.
    NoOtherUser,
    /// Only root's and our own: no other user may choose which server receives an access token.
    OnlyOwn,
}

impl From<TokenKind> for FileTrust {
    fn from(kind: TokenKind) -> Self {
        match kind {
            TokenKind::None | TokenKind::Runner => Self::AnyUser,
            TokenKind::Registration => Self::NoOtherUser,
            TokenKind::Access => Self::OnlyOwn,
        }
    }
}

/// A file of a host that does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ignored {
    pub(super) path: PathBuf,
    why: Reason,
}

/// Why a file of a host does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// Another user could put another one in its place.
    Directory(Exposure),
    /// Another user could have written it.
    File(Exposure),
}

impl Ignored {
    /// Warns that it is not used for a token.
    pub(super) fn warn(&self, trust: FileTrust) {
        let (token, place) = match trust {
            FileTrust::AnyUser => return,
            FileTrust::NoOtherUser => ("a registration token", "[[enroll]]"),
            FileTrust::OnlyOwn => ("an access token", "[[server]]"),
        };
        let (who, remedy) = (self.why.cause(), self.why.remedy());
        tracing::warn!(
            file = %self.path.display(),
            "not used to send {token}: {who}, who could choose which server receives it: {remedy}, set `tls_ca_file` in the {place} of agent.toml, or use --tls-ca-file"
        );
    }
}

impl Reason {
    /// Who could have chosen the certificate.
    fn cause(self) -> String {
        match self {
            Self::Directory(Exposure::Foreign { user }) => format!("its directory belongs to user {user}"),
            Self::Directory(Exposure::Writable { mode }) => {
                format!("others can write in its directory (mode {mode:04o})")
            }
            Self::File(exposure) => exposure.cause(),
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::Directory(Exposure::Foreign { .. }) => {
                "run `chown root` on the directory and its files, mount it read-only"
            }
            Self::Directory(Exposure::Writable { .. }) => "run `chmod go-w` on the directory",
            Self::File(Exposure::Foreign { .. }) => "run `chown root`",
            Self::File(Exposure::Writable { .. }) => "run `chmod go-w`",
        }
    }
}

/// The version of a file, by its metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileStamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl TlsProfile {
    /// Finds the TLS files of an encrypted site: those that it names, else those of its host in `certs_dir`, unless they do
    /// not count.
    pub(super) fn of(
        site: &Site,
        certs_dir: Option<&Path>,
        trust: FileTrust,
        ignored: &mut Vec<Ignored>,
    ) -> Result<Self, CallFailure> {
        let host = site.url.host();
        let mut of_host = |suffix: &str| {
            let Some(found) = existing(certs_dir.map(|dir| dir.join(format!("{host}{suffix}"))))? else {
                return Ok(None);
            };
            match found.distrust(trust).map_err(|error| unreadable(&found.path, error))? {
                None => Ok(Some(found.path)),
                Some(why) => {
                    ignored.push(Ignored { path: found.path, why });
                    Ok(None)
                }
            }
        };
        let ca = match &site.tls.ca_file {
            Some(path) => Some(path.clone()),
            None => of_host(".crt")?,
        };
        let client = match (&site.tls.cert_file, &site.tls.key_file) {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            (Some(cert), None) => return Err(local_file("tls-key-file is missing, but tls-cert-file is", cert)),
            (None, Some(key)) => return Err(local_file("tls-cert-file is missing, but tls-key-file is", key)),
            (None, None) => of_host(".auth.crt")?.zip(of_host(".auth.key")?),
        };
        Ok(Self::Tls { ca, client, trust })
    }

    /// Returns the current version of each file.
    pub(super) fn stamps(&self) -> Result<Vec<FileStamp>, CallFailure> {
        self.files().map(|path| stamp(path).map_err(|error| unreadable(path, error))).collect()
    }

    /// Reads the files into a TLS configuration.
    pub(super) fn config(&self, roots: &SystemRoots) -> Result<ClientConfig, CallFailure> {
        let Self::Tls { ca, client, trust } = self else {
            return configured(Arc::new(RootCertStore::empty()), Vec::new(), None);
        };
        let client = client.as_ref().map(|(cert, key)| ClientCertificate { cert, key, trust: *trust });
        let Some(path) = ca else { return configured(roots.load()?, Vec::new(), client) };
        let named = certificates(path, *trust)?;
        let mut roots = roots.load_or_none();
        for certificate in &named {
            let added = roots.add(certificate.clone());
            added.map_err(|error| local_file("cannot use a certificate in", path).with_source(error))?;
        }
        configured(Arc::new(roots), named, client)
    }

    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let (ca, client) = match self {
            Self::Plain => (None, None),
            Self::Tls { ca, client, .. } => (ca.as_ref(), client.as_ref()),
        };
        ca.into_iter().chain(client.into_iter().flat_map(|(cert, key)| [cert, key]))
    }
}

/// The authorities that the system trusts, loaded on first use.
#[derive(Default)]
pub(super) struct SystemRoots(Mutex<Option<Arc<RootCertStore>>>);

impl SystemRoots {
    /// # Errors
    /// [`ErrorKind::LocalFile`] if the system has authorities and none can be read.
    pub(super) fn load(&self) -> Result<Arc<RootCertStore>, CallFailure> {
        let loaded = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(roots) = loaded {
            return Ok(roots);
        }
        // Not under the lock: the files can be on a share that hangs.
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty()
            && let Some(error) = found.errors.into_iter().next()
        {
            let what = "cannot load the system's certificate authorities";
            return Err(CallFailure::new(ErrorKind::LocalFile).with_detail(what).with_source(error));
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        let roots = Arc::new(roots);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&roots));
        Ok(roots)
    }

    /// Like [`load`](Self::load), but an error counts as no authorities.
    fn load_or_none(&self) -> RootCertStore {
        self.load().map_or_else(|_| RootCertStore::empty(), |roots| RootCertStore::clone(&roots))
    }
}

/// The files of a client certificate.
struct ClientCertificate<'a> {
    cert: &'a Path,
    key: &'a Path,
    trust: FileTrust,
}

fn configured(
    roots: Arc<RootCertStore>,
    named: Vec<CertificateDer<'static>>,
    client: Option<ClientCertificate<'_>>,
) -> Result<ClientConfig, CallFailure> {
    let provider = Arc::new(default_provider());
    let failed =
        |error: rustls::Error| CallFailure::new(ErrorKind::Tls).with_detail("cannot set up TLS").with_source(error);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(failed)?;
    let builder = if roots.is_empty() {
        builder.with_root_certificates(roots)
    } else {
        let authorities = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
        let authorities = authorities.map_err(|error| failed(rustls::Error::General(error.to_string())))?;
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Trust { authorities, named }))
    };
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some(ClientCertificate { cert, key, trust }) => {
            let unusable =
                |error: rustls::Error| local_file("cannot use the client certificate", cert).with_source(error);
            builder.with_client_auth_cert(certificates(cert, trust)?, private_key(key, trust)?).map_err(unusable)?
        }
    };
    config.resumption = Resumption::in_memory_sessions(MAX_SESSIONS);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path, trust: FileTrust) -> Result<Vec<CertificateDer<'static>>, CallFailure> {
    let pem = read(path, trust)?;
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| not_pem(path, error))?;
    if certificates.is_empty() {
        return Err(local_file("no PEM certificate in", path));
    }
    Ok(certificates)
}

fn private_key(path: &Path, trust: FileTrust) -> Result<PrivateKeyDer<'static>, CallFailure> {
    let pem = read(path, trust)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| not_pem(path, error))
}

fn read(path: &Path, trust: FileTrust) -> Result<Zeroizing<Vec<u8>>, CallFailure> {
    let read = match trust {
        FileTrust::AnyUser => files::read(path, MAX_FILE_BYTES),
        FileTrust::NoOtherUser => files::read_unless_foreign(path, MAX_FILE_BYTES),
        FileTrust::OnlyOwn => files::read_trusted(path, MAX_FILE_BYTES),
    };
    match read {
        Ok(bytes) => Ok(Zeroizing::new(bytes)),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Err(local_file("more than 1 MiB in", path)),
        Err(error) => Err(unreadable(path, error)),
    }
}

/// A file of a host.
struct Existing {
    path: PathBuf,
    place: Place,
}

impl Existing {
    /// Why it does not count, so that the system's authorities alone decide. A file that the user named fails instead, once
    /// it is read.
    fn distrust(&self, trust: FileTrust) -> io::Result<Option<Reason>> {
        if trust == FileTrust::AnyUser {
            return Ok(None);
        }
        let counts = |exposure: &Exposure| !(trust == FileTrust::NoOtherUser && exposure.is_to_group());
        if let Some(exposure) = self.place.exposure_of_directory()?.filter(counts) {
            return Ok(Some(Reason::Directory(exposure)));
        }
        Ok(self.place.open(Access::Read)?.exposure_unless_of_group(trust == FileTrust::NoOtherUser).map(Reason::File))
    }
}

/// Returns the file if one exists there. Errors other than "not found" are reported.
fn existing(path: Option<PathBuf>) -> Result<Option<Existing>, CallFailure> {
    let Some(path) = path else { return Ok(None) };
    let found = Place::find(&path).and_then(|place| place.metadata().map(|_| place));
    match found {
        Ok(place) => Ok(Some(Existing { path, place })),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(unreadable(&path, error)),
    }
}

fn stamp(path: &Path) -> io::Result<FileStamp> {
    let metadata = Place::find(path)?.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(FileStamp {
        inode: (metadata.dev(), metadata.ino()),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

fn unreadable(path: &Path, error: io::Error) -> CallFailure {
    let error = files::explain(path, FileUse::Read, error);
    local_file("cannot read the TLS file", path).with_source(error)
}

fn not_pem(path: &Path, error: rustls::pki_types::pem::Error) -> CallFailure {
    local_file("no valid PEM in", path).with_source(error)
}

fn local_file(what: &str, path: &Path) -> CallFailure {
    CallFailure::new(ErrorKind::LocalFile).with_detail(format!("{what} `{}`", path.display()))
}
