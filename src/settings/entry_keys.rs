//! The keys of `[[runners]]` that gitlab-runner knows, and the flags and variables of its `register` that set them.
//!
//! The tables are the only place that lists them: `register` offers their flags, reads their variables, and checks keys
//! and executors against them. They follow gitlab-runner 18.

mod check;
mod docker;
mod general;
mod kubernetes;
mod machines;
mod value;

use std::fmt;

pub(super) use check::{Problem, check_entry, check_executor, first_entry};

use super::Environment;
use super::diagnostics::{Place, Placed};
use super::draft::Draft;

/// The executors of gitlab-runner, in the order of its prompt.
pub const EXECUTORS: [&str; 11] = [
    "custom",
    "ssh",
    "parallels",
    "docker-windows",
    "docker+machine",
    "docker-autoscaler",
    "shell",
    "virtualbox",
    "docker",
    "kubernetes",
    "instance",
];

/// The tables of an entry that belong to executors. An entry without such an executor does not get them from flags or
/// variables, as in gitlab-runner.
const EXECUTOR_TABLES: [&str; 7] = ["docker", "machine", "ssh", "parallels", "virtualbox", "kubernetes", "custom"];

/// The tables that an executor uses.
pub(super) fn tables_of(executor: &str) -> &'static [&'static str] {
    match executor {
        "docker" | "docker-autoscaler" | "docker-windows" => &["docker"],
        "docker+machine" => &["docker", "machine"],
        "ssh" => &["ssh"],
        "parallels" => &["parallels", "ssh"],
        "virtualbox" => &["virtualbox", "ssh"],
        "kubernetes" => &["kubernetes"],
        "custom" => &["custom"],
        _ => &[],
    }
}

/// The executor's table that a dotted key is in.
pub(super) fn executor_table(path: &str) -> Option<&'static str> {
    let first = path.split('.').next().unwrap_or_default();
    EXECUTOR_TABLES.into_iter().find(|table| *table == first)
}

/// A key of `[[runners]]`.
#[derive(PartialEq, Eq)]
pub struct EntryKey {
    /// Its dotted path, such as `docker.image`.
    pub path: &'static str,
    /// The type of its value.
    pub kind: Kind,
    /// Its flag with dashes; `None` if gitlab-runner has none, or if `register` declares it by itself.
    pub flag: Option<&'static str>,
    /// Its variable.
    pub variable: Option<&'static str>,
}

/// The type of a key's value, and how a flag or variable gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// A string that is a secret.
    Secret,
    /// A boolean; its flag needs no value.
    Switch,
    /// An integer.
    Integer,
    /// A number.
    Decimal,
    /// A duration in Go's format, such as `"1h30m"`.
    Duration,
    /// A list of strings; its flag is repeated.
    List,
    /// A string or a list of strings.
    TextOrList,
    /// A list of integers.
    Integers,
    /// A table of strings; its flag `key:value` is repeated.
    Map,
    /// A table of lists of strings.
    ListMap,
    /// A table of booleans.
    Flags,
    /// A table of integers.
    Numbers,
    /// A list of tables with a `name`; its flag gives one name.
    Services,
    /// Any value; its flag gives it as JSON.
    Json,
    /// Any value, which is not checked.
    Any,
}

/// Lists keys as `path: kind, flag without dashes, variable;`, where an empty flag stands for none.
macro_rules! keys {
    ($($path:literal: $kind:ident $(, $flag:literal $(, $variable:literal)?)?;)+) => {
        &[$($crate::settings::entry_keys::EntryKey::of(
            $path,
            $crate::settings::entry_keys::Kind::$kind,
            concat!("" $(, "--", $flag)?),
            concat!("" $($(, $variable)?)?),
        ),)+]
    };
}
use keys;

impl EntryKey {
    const fn of(path: &'static str, kind: Kind, flag: &'static str, variable: &'static str) -> Self {
        // The dashes alone stand for no flag.
        let flag = if flag.len() > 2 { Some(flag) } else { None };
        let variable = if variable.is_empty() { None } else { Some(variable) };
        Self { path, kind, flag, variable }
    }

    /// All keys.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        [general::KEYS, docker::KEYS, machines::KEYS, kubernetes::KEYS].into_iter().flatten()
    }

    /// Whether its value is a secret.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.kind == Kind::Secret
    }

    /// The value as TOML text, from the values of its flag in their order, or from that of its variable.
    ///
    /// # Errors
    /// A message that names the expected format, without the value.
    pub fn toml(&self, values: &[String]) -> Result<String, String> {
        value::toml(self.kind, values)
    }
}

impl fmt::Debug for EntryKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.path)
    }
}

impl Draft {
    /// Adds a key of the entry from the values of its flag.
    pub fn add_entry_flag(&mut self, key: &'static EntryKey, values: &[String]) {
        let Some(flag) = key.flag else { return };
        self.add_entry_key(key, values, Place::Flag(flag));
    }

    /// Adds a key of the entry from an answer.
    pub fn add_entry_answer(&mut self, path: &str, answer: String, place: Place) {
        if let Some(key) = EntryKey::all().find(|key| key.path == path) {
            self.add_entry_key(key, &[answer], place);
        }
    }

    /// Whether a key of the entry is given by itself, outside of a template.
    #[must_use]
    pub fn has_entry_key(&self, path: &str) -> bool {
        self.settings.iter().any(|setting| setting.value.0 == path)
    }

    /// Adds the keys of the entry that variables set.
    pub(super) fn add_entry_variables(&mut self, environment: &Environment) {
        for key in EntryKey::all() {
            let Some(variable) = key.variable else { continue };
            let Some(value) = environment.text(variable) else { continue };
            self.add_entry_key(key, &[value], Place::Variable(variable));
        }
    }

    fn add_entry_key(&mut self, key: &'static EntryKey, values: &[String], place: Place) {
        match key.toml(values) {
            Ok(value) => self.settings.push(Placed::new((key.path.to_owned(), value), place)),
            Err(message) => self.add_diagnostic(&place, message),
        }
    }
}

/// What to say about an executor that gitlab-runner does not have.
#[must_use]
pub fn unknown_executor(name: &str) -> Option<String> {
    check_executor(name).map(|problem| problem.message)
}

/// The variables that hold secrets of executors.
pub(super) fn secret_variables() -> impl Iterator<Item = &'static str> {
    EntryKey::all().filter(|key| key.is_secret()).filter_map(|key| key.variable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn paths_flags_and_variables_are_unique() {
        let mut known = BTreeSet::new();
        for key in EntryKey::all() {
            assert!(known.insert(key.path), "{}", key.path);
            assert!(key.flag.is_none_or(|flag| known.insert(flag)), "{:?}", key.flag);
            assert!(key.variable.is_none_or(|variable| known.insert(variable)), "{:?}", key.variable);
        }
    }

    #[test]
    fn documented_flags_set_their_keys() {
        for (flag, variable, path) in [
            ("--docker-image", Some("DOCKER_IMAGE"), "docker.image"),
            ("--docker-tlsverify", Some("DOCKER_TLS_VERIFY"), "docker.tls_verify"),
            ("--cache-dir", Some("RUNNER_CACHE_DIR"), "cache_dir"),
            ("--docker-cache-dir", Some("DOCKER_CACHE_DIR"), "docker.cache_dir"),
            ("--cache-s3-bucket-name", Some("CACHE_S3_BUCKET_NAME"), "cache.s3.BucketName"),
            ("--env", Some("RUNNER_ENV"), "environment"),
            ("--machine-idle-nodes", Some("MACHINE_IDLE_COUNT"), "machine.IdleCount"),
            ("--machine-machine-driver", Some("MACHINE_DRIVER"), "machine.MachineDriver"),
            ("--ssh-identity-file", Some("SSH_IDENTITY_FILE"), "ssh.identity_file"),
            ("--kubernetes-bearer_token", Some("KUBERNETES_BEARER_TOKEN"), "kubernetes.bearer_token"),
            ("--kubernetes-retry-limit", Some("KUBERNETES_REQUEST_RETRY_LIMIT"), "kubernetes.retry_limit"),
            ("--kubernetes-pod-labels", None, "kubernetes.pod_labels"),
            (
                "--kubernetes-build_container_security_context-capabilities-add",
                Some("KUBERNETES_BUILD_CONTAINER_SECURITY_CONTEXT_CAPABILITIES_ADD"),
                "kubernetes.build_container_security_context.capabilities.add",
            ),
            (
                "--kubernetes-helper-ephemeral_storage-limit-overwrite-max-allowed",
                Some("KUBERNETES_HELPER_EPHEMERAL_STORAGE_LIMIT_OVERWRITE_MAX_ALLOWED"),
                "kubernetes.helper_ephemeral_storage_limit_overwrite_max_allowed",
            ),
        ] {
            let key = EntryKey::all().find(|key| key.flag == Some(flag)).unwrap();
            assert_eq!((key.path, key.variable), (path, variable), "{flag}");
        }
    }
}
