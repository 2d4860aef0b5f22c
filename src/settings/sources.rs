//! The world around the process: its command line, its variables, its user and its machine's name.
//!
//! Only this file reads them; everything else is handed a [`Start`] or an [`Environment`].

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::model::RunnerKey;
use crate::secret::{Launch, take_over};

/// How the process was started.
#[derive(Clone, Default)]
pub struct Start {
    /// The command line and the variables, with the secrets that were handed over.
    pub launch: Launch,
    /// The same variables, and the rest of the world.
    pub environment: Environment,
    /// Whether the process has executed itself without its secrets already.
    pub is_second: bool,
}

/// What the process was started with.
#[derive(Clone, Default)]
pub struct Environment {
    pub(super) variables: BTreeMap<OsString, OsString>,
    /// Whether the process runs as root.
    pub is_root: bool,
    /// The user's own directories; absent without a home.
    pub user: Option<UserDirectories>,
    /// This machine's name: the default name of a runner that has none yet.
    pub hostname: String,
    /// What runners are called already, by the keys of their enrollments.
    pub(super) names: BTreeMap<String, String>,
    /// Whether this is the inside of a container, as opposed to a machine.
    pub is_container: bool,
    /// What relative paths of flags and variables are relative to.
    pub current_dir: PathBuf,
}

/// The directories of the user that the process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserDirectories {
    /// The home directory.
    pub home: PathBuf,
    /// Where this program's settings belong (`$XDG_CONFIG_HOME/runner-agent`).
    pub config: PathBuf,
    /// Where this program's state belongs (`$XDG_STATE_HOME/runner-agent`).
    pub state: PathBuf,
}

impl Start {
    /// Reads it from the process, once, before anything reads stdin.
    ///
    /// # Errors
    /// If secrets were handed over and cannot be had.
    pub fn of_process() -> io::Result<Self> {
        let mut launch = Launch { words: std::env::args_os().collect(), variables: std::env::vars_os().collect() };
        let is_second = take_over(&mut launch)?;
        let variables = VARIABLES.get_or_init(|| launch.variables.clone());
        let environment = Environment::of_process(variables.clone());
        Ok(Self { launch, environment, is_second })
    }
}

/// The variables that the process was started with, to expand entries by.
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

    /// The same with one more variable, for tests.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// The same, knowing what runners are called already, by the keys of their enrollments. One that agent.toml
    /// and the environment give no name keeps the one it has, although each container is a machine of another
    /// name.
    #[must_use]
    pub fn remembering(mut self, names: impl IntoIterator<Item = (RunnerKey, String)>) -> Self {
        self.names.extend(names.into_iter().map(|(key, name)| (key.as_str().to_owned(), name)));
        self
    }

    /// A variable's value as text; an empty one counts as not set.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        self.value(name).map(|value| value.to_string_lossy().into_owned())
    }

    /// A variable's value as an absolute path; an empty one counts as not set.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(|value| self.absolute(Path::new(value)))
    }

    /// A path of a flag or variable, independent of the current directory.
    #[must_use]
    pub fn absolute(&self, path: &Path) -> PathBuf {
        self.current_dir.join(path)
    }

    fn value(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }
}

impl fmt::Debug for Environment {
    /// Names of variables only: their values may be secrets.
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

/// Looks up one variable of the process, to expand `token = "$NAME"` of an entry.
#[must_use]
pub fn variable(name: &str) -> Option<String> {
    VARIABLES.get()?.get(OsStr::new(name))?.to_str().map(str::to_owned)
}

/// By the marks that docker, podman and Kubernetes leave.
fn is_container(variables: &BTreeMap<OsString, OsString>) -> bool {
    let has_variable =
        ["container", "KUBERNETES_SERVICE_HOST"].iter().any(|name| variables.contains_key(OsStr::new(name)));
    has_variable || ["/.dockerenv", "/run/.containerenv"].iter().any(|path| Path::new(path).exists())
}

fn user_directories() -> Option<UserDirectories> {
    let own = directories::ProjectDirs::from("", "", "runner-agent")?;
    let home = directories::BaseDirs::new()?.home_dir().to_owned();
    Some(UserDirectories { home, config: own.config_dir().to_owned(), state: own.state_dir()?.to_owned() })
}
