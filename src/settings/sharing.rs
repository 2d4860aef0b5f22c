//! The store of shared runners: `[sharing]`, and the variables that override it.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use super::diagnostics::{Diagnostics, Place, Placed};
use super::draft::check_client_pair;
use super::secret_source::source;
use super::table::TableReader;
use super::variables::Variables;
use super::{Environment, Errors};
use crate::engine;
use crate::model::{AddressError, ServerUrl, ShareName, TlsFiles, TlsPaths};
use crate::ops::Enrollment;
use crate::secret::Source;
use crate::sharing::{EngineSettings, PREFIX, Settings};

/// The variable with the password of etcd, and the one that names a file with it.
pub(super) const PASSWORD: [&str; 2] = ["SHARING_PASSWORD", "SHARING_PASSWORD_FILE"];

/// The same for the key that tokens are sealed with.
pub(super) const ENCRYPTION_KEY: [&str; 2] = ["SHARING_ENCRYPTION_KEY", "SHARING_ENCRYPTION_KEY_FILE"];

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engine {
    Etcd,
    Kubernetes,
}

const ENGINES: [(&str, Engine); 2] = [("etcd", Engine::Etcd), ("kubernetes", Engine::Kubernetes)];

impl fmt::Display for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Etcd => "etcd",
            Self::Kubernetes => "kubernetes",
        })
    }
}

/// What agent.toml and the variables say about the store.
#[derive(Debug, Default)]
pub(super) struct SharingSection {
    /// Where the first of it was given.
    place: Option<Place>,
    /// A value was invalid: what seems to be missing may be that one.
    is_broken: bool,
    engine: Option<Placed<Engine>>,
    endpoints: Option<Placed<Vec<String>>>,
    prefix: Option<Placed<String>>,
    tls_ca_file: Option<Placed<PathBuf>>,
    tls_cert_file: Option<Placed<PathBuf>>,
    tls_key_file: Option<Placed<PathBuf>>,
    username: Option<Placed<String>>,
    password: Option<Placed<Source>>,
    kubeconfig: Option<Placed<PathBuf>>,
    namespace: Option<Placed<String>>,
    encryption_key: Option<Placed<Source>>,
    recover: Option<Placed<bool>>,
}

/// Reads the section.
pub(super) fn read(
    table: &mut TableReader<'_>,
    environment: &Environment,
    diagnostics: &mut Diagnostics,
) -> SharingSection {
    let before = diagnostics.len();
    let section = SharingSection {
        place: Some(table.place().clone()),
        is_broken: false,
        engine: table.one_of("engine", &ENGINES, diagnostics),
        endpoints: table.list("endpoints", diagnostics),
        prefix: table.text("prefix", diagnostics),
        tls_ca_file: table.path("tls_ca_file", diagnostics),
        tls_cert_file: table.path("tls_cert_file", diagnostics),
        tls_key_file: table.path("tls_key_file", diagnostics),
        username: table.text("username", diagnostics),
        password: source(table, "password", environment, diagnostics),
        kubeconfig: table.path("kubeconfig", diagnostics),
        namespace: table.text("namespace", diagnostics),
        encryption_key: source(table, "encryption_key", environment, diagnostics),
        recover: table.boolean("recover", diagnostics),
    };
    SharingSection { is_broken: diagnostics.len() > before, ..section }
}

fn of_variables(environment: &Environment, diagnostics: &mut Diagnostics) -> SharingSection {
    let before = diagnostics.len();
    let variables = Variables { environment };
    let secret = |names, diagnostics: &mut Diagnostics| {
        let Placed { value, place } = variables.source(names, diagnostics)?;
        Some(Placed::new(value?, place))
    };
    let section = SharingSection {
        place: None,
        is_broken: false,
        engine: variables.one_of("SHARING_ENGINE", &ENGINES, diagnostics),
        endpoints: variables.list("SHARING_ENDPOINTS", diagnostics),
        prefix: variables.text("SHARING_PREFIX", diagnostics),
        tls_ca_file: variables.path("SHARING_TLS_CA_FILE", diagnostics),
        tls_cert_file: variables.path("SHARING_TLS_CERT_FILE", diagnostics),
        tls_key_file: variables.path("SHARING_TLS_KEY_FILE", diagnostics),
        username: variables.text("SHARING_USERNAME", diagnostics),
        password: secret(PASSWORD, diagnostics),
        kubeconfig: variables.path("SHARING_KUBECONFIG", diagnostics),
        namespace: variables.text("SHARING_NAMESPACE", diagnostics),
        encryption_key: secret(ENCRYPTION_KEY, diagnostics),
        recover: variables.boolean("SHARING_RECOVER", diagnostics),
    };
    SharingSection { place: section.first_place(), is_broken: diagnostics.len() > before, ..section }
}

impl SharingSection {
    /// Whether anything was given, valid or not.
    pub(super) fn is_given(&self) -> bool {
        self.place.is_some() || self.is_broken
    }

    /// Applies the variables.
    pub(super) fn with_variables(self, environment: &Environment, diagnostics: &mut Diagnostics) -> Self {
        let over = of_variables(environment, diagnostics);
        Self {
            place: self.place.or(over.place),
            is_broken: self.is_broken || over.is_broken,
            engine: over.engine.or(self.engine),
            endpoints: over.endpoints.or(self.endpoints),
            prefix: over.prefix.or(self.prefix),
            tls_ca_file: over.tls_ca_file.or(self.tls_ca_file),
            tls_cert_file: over.tls_cert_file.or(self.tls_cert_file),
            tls_key_file: over.tls_key_file.or(self.tls_key_file),
            username: over.username.or(self.username),
            password: over.password.or(self.password),
            kubeconfig: over.kubeconfig.or(self.kubeconfig),
            namespace: over.namespace.or(self.namespace),
            encryption_key: over.encryption_key.or(self.encryption_key),
            recover: over.recover.or(self.recover),
        }
    }

    /// Where its engine was given.
    pub(super) fn engine_place(&self) -> Option<&Place> {
        place(&self.engine)
    }

    /// Validates it; `None` without a store, or after an error.
    pub(super) fn validate(self, diagnostics: &mut Diagnostics) -> Option<Settings> {
        let place = self.place.clone()?;
        let Some(engine) = self.engine.clone() else {
            if !self.is_broken {
                let message = "no engine: set `engine` in [sharing], or SHARING_ENGINE, to \"etcd\" or \"kubernetes\"";
                diagnostics.add(&place, message);
            }
            return None;
        };
        self.check_keys_of_others(&engine, diagnostics);
        let settings = match engine.value {
            Engine::Etcd => self.etcd(&engine.place, diagnostics),
            Engine::Kubernetes => self.kubernetes(diagnostics),
        };
        Some(Settings {
            engine: settings?,
            encryption_key: self.encryption_key.map(|key| key.value),
            recover: self.recover.is_some_and(|recover| recover.value),
        })
    }

    /// Warnings about shared runners that `recover` cannot recover: a reset by the runner's id needs an access token.
    pub(super) fn recovery_warnings(&self, config: &engine::Config) -> Vec<String> {
        let Some(recover) = self.recover.as_ref().filter(|recover| recover.value) else { return Vec::new() };
        let is_without_access = |enrollment: &&Enrollment| config.access_to(&enrollment.site.url).is_none();
        let without_access = config.enrollments.iter().filter(is_without_access);
        let warning = |enrollment: &Enrollment| {
            let (place, url) = (&recover.place, &enrollment.site.url);
            enrollment.share_as.as_ref().map(|name| {
                format!(
                    "{place}: `recover` has no effect on the shared runner `{name}`: it needs the access token of a [[server]] with the url {url}"
                )
            })
        };
        without_access.filter_map(warning).collect()
    }

    /// The keys of one engine that were given.
    fn keys_of(&self, engine: Engine) -> Vec<(&'static str, &Place)> {
        let keys = match engine {
            Engine::Etcd => vec![
                ("endpoints", place(&self.endpoints)),
                ("prefix", place(&self.prefix)),
                ("tls_ca_file", place(&self.tls_ca_file)),
                ("tls_cert_file", place(&self.tls_cert_file)),
                ("tls_key_file", place(&self.tls_key_file)),
                ("username", place(&self.username)),
                ("password", place(&self.password)),
            ],
            Engine::Kubernetes => {
                vec![("kubeconfig", place(&self.kubeconfig)), ("namespace", place(&self.namespace))]
            }
        };
        keys.into_iter().filter_map(|(key, place)| Some((key, place?))).collect()
    }

    fn first_place(&self) -> Option<Place> {
        let common = [place(&self.engine), place(&self.encryption_key), place(&self.recover)];
        let [etcd, kubernetes] = [Engine::Etcd, Engine::Kubernetes].map(|engine| self.keys_of(engine));
        let keys = etcd.into_iter().chain(kubernetes).map(|(_, place)| place);
        common.into_iter().flatten().chain(keys).next().cloned()
    }

    fn check_keys_of_others(&self, engine: &Placed<Engine>, diagnostics: &mut Diagnostics) {
        for (_, other) in ENGINES.into_iter().filter(|(_, other)| *other != engine.value) {
            for (key, place) in self.keys_of(other) {
                diagnostics
                    .add(place, format!("`{key}` is for the engine \"{other}\", and this one is \"{}\"", engine.value));
            }
        }
    }

    fn etcd(&self, engine: &Place, diagnostics: &mut Diagnostics) -> Option<EngineSettings> {
        let user = self.user(diagnostics);
        let endpoints = self.endpoints(engine, diagnostics);
        check_client_pair(&self.tls_cert_file, &self.tls_key_file, diagnostics);
        let prefix = self.prefix(diagnostics);
        Some(EngineSettings::Etcd { endpoints: endpoints?, prefix, tls: self.tls_files(), user })
    }

    fn user(&self, diagnostics: &mut Diagnostics) -> Option<(String, Source)> {
        match (&self.username, &self.password) {
            (Some(name), Some(password)) => Some((name.value.clone(), password.value.clone())),
            (Some(name), None) if !self.is_broken => {
                diagnostics.add(&name.place, "`username` has no `password`: set both");
                None
            }
            (None, Some(password)) if !self.is_broken => {
                diagnostics.add(&password.place, "`password` has no `username`: set both");
                None
            }
            (Some(_), None) | (None, Some(_)) | (None, None) => None,
        }
    }

    fn endpoints(&self, engine: &Place, diagnostics: &mut Diagnostics) -> Option<Vec<ServerUrl>> {
        let given = self.endpoints.as_ref().filter(|given| !given.value.is_empty());
        let Some(Placed { value: texts, place }) = given else {
            if !self.is_broken {
                let place = place(&self.endpoints).unwrap_or(engine);
                diagnostics.add(place, "etcd needs `endpoints`, such as [\"https://etcd-1:2379\"]");
            }
            return None;
        };
        let before = diagnostics.len();
        let mut endpoints = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            match text.parse::<ServerUrl>() {
                Err(error) => {
                    diagnostics.add(place, format!("invalid endpoint {}: {}", index + 1, explained(&error)));
                }
                Ok(url) if self.password.is_some() && !url.is_https() && !is_loopback(&url) => {
                    let message = format!("{url} would get the password unencrypted: use https");
                    diagnostics.add(place, message);
                }
                Ok(url) if endpoints.contains(&url) => {}
                Ok(url) => endpoints.push(url),
            }
        }
        (diagnostics.len() == before).then_some(endpoints)
    }

    fn prefix(&self, diagnostics: &mut Diagnostics) -> String {
        let Some(prefix) = &self.prefix else { return PREFIX.to_owned() };
        // Without the slash another machine, with it, would use another object.
        if !prefix.value.ends_with('/') || prefix.value.chars().any(char::is_control) {
            diagnostics.add(&prefix.place, format!("`prefix` must end with a slash, as in \"{PREFIX}\""));
        }
        prefix.value.clone()
    }

    fn tls_files(&self) -> TlsFiles {
        let path = |field: &Option<Placed<PathBuf>>| field.as_ref().map(|placed| placed.value.clone());
        let (ca_file, cert_file) = (path(&self.tls_ca_file), path(&self.tls_cert_file));
        TlsPaths { ca_file, cert_file, key_file: path(&self.tls_key_file) }.into()
    }

    fn kubernetes(&self, diagnostics: &mut Diagnostics) -> Option<EngineSettings> {
        let before = diagnostics.len();
        if let Some(namespace) = self.namespace.as_ref().filter(|namespace| !is_label(&namespace.value)) {
            let message =
                "`namespace` must have 1 to 63 lower-case letters, digits and dashes, with no dash at either end";
            diagnostics.add(&namespace.place, message);
        }
        let kubeconfig = self.kubeconfig.as_ref().map(|path| path.value.clone());
        let namespace = self.namespace.as_ref().map(|namespace| namespace.value.clone());
        (diagnostics.len() == before).then_some(EngineSettings::Kubernetes { kubeconfig, namespace })
    }
}

/// The error about an address, which speaks of GitLab.
fn explained(error: &AddressError) -> String {
    match error {
        AddressError::Malformed(error) => format!("not a URL ({error}), expected something like https://etcd-1:2379"),
        AddressError::NoScheme => {
            "not a URL: it must begin with https:// or http://, as in https://etcd-1:2379".to_owned()
        }
        AddressError::Scheme(_) => format!("{error}, as in https://etcd-1:2379"),
        AddressError::Credentials => {
            "the URL must not contain a user name or password: set `username` and `password`".to_owned()
        }
        AddressError::Query | AddressError::TooLong => error.to_string(),
    }
}

fn is_loopback(url: &ServerUrl) -> bool {
    let host = url.host();
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Whether a text is a label of DNS, as the names of namespaces are.
fn is_label(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(is_plain) && !text.starts_with('-') && !text.ends_with('-')
}

fn place<T>(field: &Option<Placed<T>>) -> Option<&Place> {
    field.as_ref().map(|placed| &placed.place)
}

/// What the settings say about shared runners.
pub(super) struct SharingRules<'settings> {
    /// Whether there is a store, or an invalid one.
    pub(super) is_given: bool,
    pub(super) policies: &'settings [engine::Policy],
}

impl SharingRules<'_> {
    /// Reports what keeps the runner of an enrollment from being shared.
    pub(super) fn check(&self, enrollment: &Enrollment, place: &Place, diagnostics: &mut Diagnostics) {
        if enrollment.share_as.is_none() {
            return;
        }
        if !self.is_given {
            diagnostics.add(place, "a shared runner needs a store: add [sharing] to agent.toml, or set SHARING_ENGINE");
        }
        if self.is_declared_shared(enrollment) {
            let message =
                "its [[runner]] has `shared = true`, so that nothing rotates its token: remove that, or `share_as`";
            diagnostics.add(place, message);
        }
    }

    /// Whether a `[[runner]]` says that machines share the runner without a store. By an id alone that cannot be known yet.
    fn is_declared_shared(&self, enrollment: &Enrollment) -> bool {
        let is_of = |policy: &&engine::Policy| {
            let selector = &policy.selector;
            (selector.id.is_none() || selector.name.is_some())
                && selector.name.as_ref().is_none_or(|name| *name == enrollment.entry.name)
                && selector.url.as_ref().is_none_or(|url| *url == enrollment.site.url)
        };
        self.policies.iter().filter(is_of).find_map(|policy| policy.shared) == Some(true)
    }
}

/// Checks whether the runner of `register` can be shared. `place` is that of its `share_as`.
///
/// # Errors
/// [`Errors`] with everything that speaks against it.
pub fn check_share(enrollment: &Enrollment, place: &Place, config: &engine::Config) -> Result<(), Errors> {
    let mut diagnostics = Diagnostics::default();
    let rules = SharingRules { is_given: config.sharing.is_some(), policies: &config.policies };
    rules.check(enrollment, place, &mut diagnostics);
    diagnostics.into_result(())
}

/// Reports enrollments that mean the same shared runner: a machine is one member.
pub(super) fn check_names(shared: &[(ShareName, Place)], diagnostics: &mut Diagnostics) {
    for (index, (name, place)) in shared.iter().enumerate() {
        if let Some((_, other)) = shared.iter().take(index).find(|(other, _)| other == name) {
            diagnostics.add(place, format!("the enrollment at {other} has `share_as = \"{name}\"` too: remove one"));
        }
    }
}
