//! Reads the command line, the variables, the user and the hostname of the process.
//!
//! Only this file reads them; all other code gets a [`Start`] or an [`Environment`].

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::files::is_there;
use crate::model::RunnerKey;
use crate::secret::{Launch, take_over};

use super::access::ACCESS_TOKENS;
use super::draft::REGISTRATION_TOKEN;
use super::sharing::{ENCRYPTION_KEY, PASSWORD};

/// How the process was started.
#[derive(Clone, Default)]
pub struct Start {
    /// The command line and the variables, with the secrets passed on by the first execution.
    pub launch: Launch,
    /// The same variables, the user and the hostname.
    pub environment: Environment,
    /// Whether this is the second execution, after the process removed its secrets from the command line.
    pub is_second: bool,
}

/// The environment of the process.
#[derive(Clone, Default)]
pub struct Environment {
    pub(super) variables: BTreeMap<OsString, OsString>,
    /// Whether the process runs as root.
    pub is_root: bool,
    /// The user's directories; `None` without a home.
    pub user: Option<UserDirectories>,
    /// The hostname: the default name of a new runner.
    pub hostname: String,
    /// Names of known runners by the keys of their enrollments.
    pub(super) names: BTreeMap<String, String>,
    /// Whether the process runs in a container.
    pub is_container: bool,
    /// Base of relative paths in flags and variables.
    pub current_dir: PathBuf,
}

/// Directories of the user that the process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserDirectories {
    /// The home directory.
    pub home: PathBuf,
    /// Directory of settings (`$XDG_CONFIG_HOME/runner-agent`).
    pub config: PathBuf,
    /// Directory of state (`$XDG_STATE_HOME/runner-agent`).
    pub state: PathBuf,
}

impl Start {
    /// Reads the process. Call once, before stdin is read.
    ///
    /// # Errors
    /// Secrets passed on by the first execution cannot be received.
    pub fn of_process() -> io::Result<Self> {
        let mut launch = Launch { arguments: std::env::args_os().collect(), variables: std::env::vars_os().collect() };
        let is_second = take_over(&mut launch)?;
        let variables = VARIABLES.get_or_init(|| launch.variables.clone());
        let environment = Environment::of_process(variables.clone());
        Ok(Self { launch, environment, is_second })
    }
}

/// The variables at the start of the process, for `$NAME` in entries.
static VARIABLES: OnceLock<BTreeMap<OsString, OsString>> = OnceLock::new();

impl Environment {
    fn of_process(variables: BTreeMap<OsString, OsString>) -> Self {
        Self {
            is_container: is_container(&variables),
            variables,
            names: BTreeMap::new(),
            is_root: rustix::process::geteuid().is_root(),
            user: user_directories(),
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            current_dir: std::env::current_dir().unwrap_or_default(),
        }
    }

    /// Adds a variable, for tests.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// Adds the names of known runners by the keys of their enrollments. A runner without a name in agent.toml and
    /// environment keeps its name, although each container has another hostname.
    #[must_use]
    pub fn remembering(mut self, names: impl IntoIterator<Item = (RunnerKey, String)>) -> Self {
        self.names.extend(names.into_iter().map(|(key, name)| (key.as_str().to_owned(), name)));
        self
    }

    /// The value of a variable as text; an empty one counts as not set.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        self.value(name).map(|value| value.to_string_lossy().into_owned())
    }

    /// Whether the locale's encoding is UTF-8.
    #[must_use]
    pub fn is_utf8(&self) -> bool {
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(|name| self.text(name));
        let locale = locale.unwrap_or_default().to_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    }

    /// The value of a variable as an absolute path; an empty one counts as not set.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(|value| self.absolute(Path::new(value)))
    }

    /// Makes a path of a flag or variable absolute.
    #[must_use]
    pub fn absolute(&self, path: &Path) -> PathBuf {
        self.current_dir.join(path)
    }

    fn value(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }
}

impl fmt::Debug for Environment {
    /// Shows names of variables only, because their values may be secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Environment")
            .field("variables", &self.variables.keys())
            .field("is_root", &self.is_root)
            .field("user", &self.user)
            .field("hostname", &self.hostname)
            .field("names", &self.names)
            .field("is_container", &self.is_container)
            .field("current_dir", &self.current_dir)
            .finish()
    }
}

/// Looks up a variable of the process, such as for `token = "$NAME"` in an entry. The agent's own secrets are none of an
/// entry's.
#[must_use]
pub fn variable(name: &str) -> Option<String> {
    if is_own_secret(name) {
        return None;
    }
    VARIABLES.get()?.get(OsStr::new(name))?.to_str().map(str::to_owned)
}

/// Whether a variable holds what is never sent as a runner's token: a registration token, an access token, a secret of the
/// store of shared runners, or a proxy.
fn is_own_secret(name: &str) -> bool {
    let access = ACCESS_TOKENS.iter().map(|[name, _]| *name);
    let name = name.to_ascii_uppercase();
    access.chain([REGISTRATION_TOKEN[0], PASSWORD[0], ENCRYPTION_KEY[0]]).any(|own| own == name)
        || name.ends_with("_PROXY")
}

/// Detects docker, podman and Kubernetes by their variables and marker files.
fn is_container(variables: &BTreeMap<OsString, OsString>) -> bool {
    let has_variable =
        ["container", "KUBERNETES_SERVICE_HOST"].iter().any(|name| variables.contains_key(OsStr::new(name)));
    has_variable || ["/.dockerenv", "/run/.containerenv"].iter().any(|path| is_there(Path::new(path)))
}

fn user_directories() -> Option<UserDirectories> {
    let own = directories::ProjectDirs::from("", "", "runner-agent")?;
    let home = directories::BaseDirs::new()?.home_dir().to_owned();
    Some(UserDirectories { home, config: own.config_dir().to_owned(), state: own.state_dir()?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_cannot_name_a_secret_of_the_agent() {
        for name in [
            "REGISTRATION_TOKEN",
            "GITLAB_TOKEN",
            "PRIVATE_TOKEN",
            "SHARING_PASSWORD",
            "SHARING_ENCRYPTION_KEY",
            "HTTPS_PROXY",
            "all_proxy",
        ] {
            assert!(is_own_secret(name), "{name}");
        }
        for name in ["RUNNER_TOKEN", "CI_SERVER_TOKEN", "MY_OWN"] {
            assert!(!is_own_secret(name), "{name}");
        }
    }
}
