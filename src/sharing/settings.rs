//! Which store the machines share, and how it is opened.

use std::path::PathBuf;

use zeroize::Zeroizing;

use super::{AnyEngine, Error, Shares};
use crate::model::{ServerUrl, TlsFiles};
use crate::secret::{Digest, Password, SealingKey, Source, SourceError, Token};

/// The store of shared runners (`[sharing]`); built by the room `settings`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The store, and the credentials for it.
    pub engine: EngineSettings,
    /// The key that tokens are sealed with before they leave the machine.
    pub encryption_key: Option<Source>,
    /// Whether a shared runner may be recovered by its id (`recover`).
    pub recover: bool,
}

/// A store, and the credentials for it. Also of an engine that is not compiled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineSettings {
    /// etcd.
    Etcd {
        /// The addresses of its members; at least one.
        endpoints: Vec<ServerUrl>,
        /// The beginning of all keys.
        prefix: String,
        /// Its authority, and our certificate.
        tls: TlsFiles,
        /// The user, and the source of the password.
        user: Option<(String, Source)>,
    },
    /// Secrets of Kubernetes.
    Kubernetes {
        /// Instead of the credentials of the pod.
        kubeconfig: Option<PathBuf>,
        /// Instead of that of the pod or of the kubeconfig.
        namespace: Option<String>,
    },
}

/// The default of `[sharing] prefix`.
pub const PREFIX: &str = "/runner-agent/";

impl Settings {
    /// Where the secrets are read from.
    pub fn secrets(&self) -> impl Iterator<Item = &Source> {
        self.engine.password().into_iter().chain(&self.encryption_key)
    }
}

impl EngineSettings {
    /// The name of the engine, for messages.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Etcd { .. } => "etcd",
            Self::Kubernetes { .. } => "Kubernetes",
        }
    }

    /// The name of the engine as in `[sharing] engine`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Etcd { .. } => "etcd",
            Self::Kubernetes { .. } => "kubernetes",
        }
    }

    /// Checks whether this build has the engine.
    ///
    /// # Errors
    /// [`Error::NotCompiledIn`].
    pub fn check_compiled(&self) -> Result<(), Error> {
        let is_compiled = match self {
            Self::Etcd { .. } => cfg!(feature = "etcd"),
            Self::Kubernetes { .. } => cfg!(feature = "kubernetes"),
        };
        if is_compiled { Ok(()) } else { Err(Error::NotCompiledIn { engine: self.name() }) }
    }

    fn password(&self) -> Option<&Source> {
        match self {
            Self::Etcd { user, .. } => user.as_ref().map(|(_, password)| password),
            Self::Kubernetes { .. } => None,
        }
    }
}

/// The secrets of a store, as they were read.
struct Secrets {
    password: Option<Password>,
    key: Option<SealingKey>,
    /// Of the texts of all of them.
    digest: Digest,
}

impl Settings {
    fn read_secrets(&self) -> Result<Secrets, Error> {
        let engine = self.engine.name();
        let password = self.engine.password().map(Source::read_password).transpose();
        let password = password.map_err(|error| unread("password", &error, engine))?;
        let text = self.encryption_key.as_ref().map(Source::read).transpose();
        let text = text.map_err(|error| unread("encryption_key", &error, engine))?;
        let key = text.as_ref().map(|text| SealingKey::from_text(text.expose())).transpose();
        let key = key.map_err(|error| unusable("encryption_key", &error, engine))?;
        let texts = [password.as_ref().map(Password::expose), text.as_ref().map(Token::expose)];
        // Neither of them has a control character.
        let digest = Digest::of(Zeroizing::new(texts.map(Option::unwrap_or_default).join("\n")).as_bytes());
        Ok(Secrets { password, key, digest })
    }

    /// Whether the secrets are other ones than those that the store was opened with, or cannot be used. Ones that cannot be
    /// read now are not.
    #[must_use]
    pub fn has_other_secrets(&self, shares: &Shares<AnyEngine>) -> bool {
        match self.read_secrets() {
            Ok(secrets) => !shares.has(secrets.digest),
            Err(Error::Unreadable { .. }) => false,
            Err(_) => true,
        }
    }
}

/// Reads the secrets and the TLS files, and makes the engine. Sends nothing.
///
/// # Errors
/// [`Error::NotCompiledIn`], [`Error::Settings`] for a secret or file that cannot be used, and [`Error::Unreadable`] for a
/// secret that cannot be read now.
pub async fn open(settings: &Settings) -> Result<Shares<AnyEngine>, Error> {
    settings.engine.check_compiled()?;
    let Secrets { password, key, digest } = settings.read_secrets()?;
    let engine = engine(&settings.engine, password).await?;
    Ok(Shares::opened(engine, key, digest))
}

#[cfg_attr(not(feature = "etcd"), expect(unused_variables, reason = "only etcd has a password"))]
async fn engine(settings: &EngineSettings, password: Option<Password>) -> Result<AnyEngine, Error> {
    match settings {
        #[cfg(feature = "etcd")]
        EngineSettings::Etcd { endpoints, prefix, tls, user } => {
            let user = user.as_ref().map(|(user, _)| user.clone()).zip(password);
            let config =
                super::etcd::Config { endpoints: endpoints.clone(), prefix: prefix.clone(), tls: tls.clone(), user };
            super::etcd::Etcd::new(config).map(AnyEngine::Etcd)
        }
        #[cfg(feature = "kubernetes")]
        EngineSettings::Kubernetes { kubeconfig, namespace } => {
            let config = super::kubernetes::Config { kubeconfig: kubeconfig.clone(), namespace: namespace.clone() };
            super::kubernetes::Kubernetes::new(config).await.map(|engine| AnyEngine::Kubernetes(Box::new(engine)))
        }
        #[cfg(not(all(feature = "etcd", feature = "kubernetes")))]
        other => Err(Error::NotCompiledIn { engine: other.name() }),
    }
}

fn unread(key: &'static str, error: &SourceError, engine: &'static str) -> Error {
    match error {
        SourceError::Unreadable { .. } => Error::Unreadable { engine, detail: detail_of(key, error) },
        SourceError::Exposed { .. }
        | SourceError::NoCredential(_)
        | SourceError::Invalid { .. }
        | SourceError::WrongClass { .. }
        | SourceError::NoPassword { .. } => unusable(key, error, engine),
    }
}

fn unusable(key: &'static str, error: &dyn std::error::Error, engine: &'static str) -> Error {
    Error::Settings { engine, detail: detail_of(key, error) }
}

fn detail_of(key: &'static str, error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("`{key}` of [sharing]: {error}{cause}")
}
