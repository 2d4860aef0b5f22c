//! A runner as the user describes it, before validation.
//!
//! agent.toml, the environment and the flags of `register` all become a [`Draft`] first, so that they share
//! one meaning and one set of diagnostics. This file lists the fields; `enrollment` validates them.

use std::path::PathBuf;
use std::time::Duration;

use super::Environment;
use super::diagnostics::{Diagnostics, Place, Placed};
use super::table::TableReader;
use super::variables::Variables;
use crate::gitlab::fleet::NewRunnerOwner;
use crate::model::{Timestamp, TlsFiles, TlsPaths};
use crate::secret::Source;

/// Declares [`Draft`] and reads its plain fields from every source.
///
/// A field is listed once, as `name: Type = method(flag, variable)`. Its name is also its key in agent.toml;
/// `method` is the method of [`TableReader`] and [`Variables`] that reads its type.
macro_rules! draft {
    ($($(#[$doc:meta])+ $field:ident: $type:ty = $method:ident($flag:literal $(, $variable:literal)?);)+) => {
        /// A runner as the user describes it, not yet validated. Paths are absolute and lists are split.
        #[derive(Clone, Debug)]
        pub struct Draft {
            /// Where the description as a whole was given.
            pub place: Place,
            /// Diagnostics found while reading it.
            pub(super) diagnostics: Diagnostics,
            /// Key of its state. Default: the name, else `default`.
            pub key: Option<Placed<String>>,
            /// Address of the server; `None` inside if it was given and is invalid.
            pub url: Option<Placed<Option<String>>>,
            /// Whether the registration token is for API v1.
            pub is_v1: bool,
            /// Source of the registration token; `None` inside if it was given and is invalid.
            pub registration_token: Option<Placed<Option<Source>>>,
            /// Source of a created runner's token; `None` inside if it was given and is invalid.
            pub token: Option<Placed<Option<Source>>>,
            /// How to create it with an access token; `None` inside if it was given and is invalid.
            pub create: Option<Placed<Option<DraftCreation>>>,
            /// Further keys of the entry, dotted, with their values as TOML text; the last one of a key counts.
            pub settings: Vec<Placed<(String, String)>>,
            /// Whether an executor and keys that gitlab-runner is not known to have are accepted.
            pub allows_unknown: bool,
            $($(#[$doc])+ pub $field: Option<Placed<$type>>,)+
        }

        /// The plain fields of a [`Draft`] as flags of the command line give them.
        #[derive(Clone, Debug, Default)]
        pub struct DraftFlags {
            $($(#[$doc])+ pub $field: Option<$type>,)+
        }

        impl Draft {
            /// An empty draft.
            #[must_use]
            pub fn at(place: Place) -> Self {
                Self {
                    place,
                    diagnostics: Diagnostics::default(),
                    key: None,
                    url: None,
                    is_v1: false,
                    registration_token: None,
                    token: None,
                    create: None,
                    settings: Vec::new(),
                    allows_unknown: false,
                    $($field: None,)+
                }
            }

            /// Fills missing fields from `other`. A token source of either kind replaces both of `other`.
            #[must_use]
            pub fn or(self, other: Self) -> Self {
                let mut diagnostics = self.diagnostics;
                diagnostics.append(other.diagnostics);
                let has_source = self.registration_token.is_some() || self.token.is_some() || self.create.is_some();
                let tokens = if has_source {
                    (self.registration_token, self.token)
                } else {
                    (other.registration_token, other.token)
                };
                Self {
                    place: self.place,
                    diagnostics,
                    key: self.key.or(other.key),
                    url: self.url.or(other.url),
                    is_v1: self.is_v1 || other.is_v1,
                    registration_token: tokens.0,
                    token: tokens.1,
                    create: self.create.or(other.create),
                    settings: [other.settings, self.settings].concat(),
                    allows_unknown: self.allows_unknown || other.allows_unknown,
                    $($field: self.$field.or(other.$field),)+
                }
            }

            /// Sets the fields whose flags were given.
            fn place_flags(&mut self, flags: DraftFlags) {
                $(if let Some(value) = flags.$field {
                    self.$field = Some(Placed::new(value, Place::Flag($flag)));
                })+
            }

            /// Reads the plain fields from a table of agent.toml.
            pub(super) fn read_table(&mut self, table: &mut TableReader<'_>, diagnostics: &mut Diagnostics) {
                $(self.$field = table.$method(stringify!($field), diagnostics);)+
            }

            fn read_variables(&mut self, variables: &Variables<'_>) {
                $($(self.$field = variables.$method($variable, &mut self.diagnostics);)?)+
            }
        }
    };
}

draft! {
    /// Name of the entry. Default: the name that the runner already has, else the hostname.
    name: String = text("--name", "RUNNER_NAME");
    /// Description in GitLab. Default: the name.
    description: String = text("--description");
    /// Tags.
    tag_list: Vec<String> = list("--tag-list", "RUNNER_TAG_LIST");
    /// Whether it takes jobs without tags. Default: only if it has no tags.
    run_untagged: bool = boolean("--run-untagged", "REGISTER_RUN_UNTAGGED");
    /// Whether it is locked to its project. Default: true.
    locked: bool = boolean("--locked", "REGISTER_LOCKED");
    /// `not_protected` or `ref_protected`.
    access_level: String = text("--access-level", "REGISTER_ACCESS_LEVEL");
    /// Maximum duration of a job; zero for no limit.
    maximum_timeout: Duration = seconds("--maximum-timeout", "REGISTER_MAXIMUM_TIMEOUT");
    /// Whether it starts paused.
    paused: bool = boolean("--paused", "REGISTER_PAUSED");
    /// Note for administrators.
    maintenance_note: String = text("--maintenance-note", "REGISTER_MAINTENANCE_NOTE");
    /// Name of the executor.
    executor: String = text("--executor", "RUNNER_EXECUTOR");
    /// Name of the shell.
    shell: String = text("--shell", "RUNNER_SHELL");
    /// Maximum number of concurrent jobs.
    limit: u32 = number("--limit", "RUNNER_LIMIT");
    /// Maximum number of concurrent job requests.
    request_concurrency: u32 = number("--request-concurrency", "RUNNER_REQUEST_CONCURRENCY");
    /// Maximum size of a job log, in KiB.
    output_limit: u32 = number("--output-limit", "RUNNER_OUTPUT_LIMIT");
    /// `tls-ca-file`.
    tls_ca_file: PathBuf = path("--tls-ca-file", "CI_SERVER_TLS_CA_FILE");
    /// `tls-cert-file`.
    tls_cert_file: PathBuf = path("--tls-cert-file", "CI_SERVER_TLS_CERT_FILE");
    /// `tls-key-file`.
    tls_key_file: PathBuf = path("--tls-key-file", "CI_SERVER_TLS_KEY_FILE");
    /// Name by which machines share it.
    share_as: String = text("--share-as", "RUNNER_SHARE_AS");
    /// File with exactly one `[[runners]]`.
    template: PathBuf = path("--template-config", "TEMPLATE_CONFIG_FILE");
}

/// How to create a runner with an access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraftCreation {
    /// Owner of the runner.
    pub owner: NewRunnerOwner,
    /// The access token. Default: that of the server's `[[server]]`.
    pub access_token: Option<Source>,
    /// Requested expiry of the first token.
    pub token_expires_at: Option<Timestamp>,
    /// Requested time until which that token can be rotated.
    pub token_rotation_deadline: Option<Timestamp>,
}

impl Draft {
    /// Reads the variables that gitlab-runner's `register` defines.
    #[must_use]
    pub fn of_environment(environment: &Environment) -> Self {
        let mut draft = Self::at(Place::Variable("the environment"));
        let variables = Variables { environment };
        draft.url = variables.text("CI_SERVER_URL", &mut draft.diagnostics).map(|url| url.map(Some));
        draft.registration_token = variables.source(REGISTRATION_TOKEN, &mut draft.diagnostics);
        draft.token = variables.source(TOKEN, &mut draft.diagnostics);
        draft.read_variables(&variables);
        draft.add_entry_variables(environment);
        draft
    }

    /// Sets the fields whose flags were given. Relative paths become absolute.
    pub fn set_flags(&mut self, mut flags: DraftFlags, environment: &Environment) {
        let DraftFlags { tls_ca_file, tls_cert_file, tls_key_file, template, .. } = &mut flags;
        for path in [tls_ca_file, tls_cert_file, tls_key_file, template].into_iter().flatten() {
            *path = environment.absolute(path);
        }
        self.place_flags(flags);
    }

    /// Adds a diagnostic found while the draft was put together, such as an invalid token.
    pub fn add_diagnostic(&mut self, place: &Place, message: impl Into<String>) {
        self.diagnostics.add(place, message);
    }

    /// The TLS files, without a check that certificate and key come together.
    pub(super) fn tls_files(&self) -> TlsFiles {
        let path = |field: &Option<Placed<PathBuf>>| field.as_ref().map(|placed| placed.value.clone());
        let paths = TlsPaths {
            ca_file: path(&self.tls_ca_file),
            cert_file: path(&self.tls_cert_file),
            key_file: path(&self.tls_key_file),
        };
        paths.into()
    }
}

/// Checks that a client certificate and its key come together.
pub(super) fn check_client_pair(
    certificate: &Option<Placed<PathBuf>>,
    key: &Option<Placed<PathBuf>>,
    diagnostics: &mut Diagnostics,
) {
    match (certificate, key) {
        (Some(certificate), None) => {
            diagnostics.add(&certificate.place, "the client certificate has no key file: set both")
        }
        (None, Some(key)) => diagnostics.add(&key.place, "the client key has no certificate file: set both"),
        (Some(_), Some(_)) | (None, None) => {}
    }
}

impl Environment {
    /// The TLS files that `--tls-ca-file`, `--tls-cert-file` and `--tls-key-file` name, else their variables.
    #[must_use]
    pub fn tls_files(&self, ca: Option<PathBuf>, cert: Option<PathBuf>, key: Option<PathBuf>) -> TlsFiles {
        let mut draft = Draft::at(Place::Flag("--tls-ca-file"));
        let flags = DraftFlags { tls_ca_file: ca, tls_cert_file: cert, tls_key_file: key, ..DraftFlags::default() };
        draft.set_flags(flags, self);
        draft.or(Draft::of_environment(self)).tls_files()
    }
}

/// The variable with a registration token, and the one that names a file with it.
pub(super) const REGISTRATION_TOKEN: [&str; 2] = ["REGISTRATION_TOKEN", "REGISTRATION_TOKEN_FILE"];

/// The same for a created runner's token.
pub(super) const TOKEN: [&str; 2] = ["CI_SERVER_TOKEN", "CI_SERVER_TOKEN_FILE"];
