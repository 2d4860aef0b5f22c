//! Settings from environment variables: one enrollment, and the proxies.

use std::path::PathBuf;
use std::time::Duration;

use super::Environment;
use super::diagnostics::{Diagnostics, Place, Placed};
use super::draft::Draft;
use super::enrollment::ENVIRONMENT_KEY;
use super::table::split_list;
use crate::gitlab::{Proxies, ProxySetting};
use crate::model::parse_span;
use crate::secret::{Source, Token};

/// The runner that the environment enrolls in the daemon; `None` if no token variable is set.
pub(super) fn enrolled(environment: &Environment) -> Option<Draft> {
    let draft = Draft::of_environment(environment);
    if draft.registration_token.is_none() && draft.token.is_none() {
        return None;
    }
    let key = Placed::new(ENVIRONMENT_KEY.to_owned(), draft.place.clone());
    Some(Draft { key: Some(key), ..draft })
}

/// Whether `CI_SERVER_URL` asks for a runner.
#[must_use]
pub fn has_server_variable(environment: &Environment) -> bool {
    environment.text("CI_SERVER_URL").is_some()
}

/// Whether the daemon waits for entries that another process is to write into config.toml.
pub(super) fn waits_for_config(environment: &Environment, diagnostics: &mut Diagnostics) -> bool {
    let variables = Variables { environment };
    variables.boolean("WAIT_FOR_CONFIG", diagnostics).is_some_and(|waits| waits.value)
}

/// The proxies from the variables that Go programs read; upper case wins. A web server that runs a program for a request sets
/// REQUEST_METHOD.
pub(super) fn proxies(environment: &Environment) -> Proxies {
    let [https, https_lower, http, http_lower] = PROXIES;
    let set = |variable| environment.text(variable).map(|url| ProxySetting { url, variable });
    Proxies {
        https: set(https).or_else(|| set(https_lower)),
        http: set(http).or_else(|| set(http_lower)),
        no_proxy: environment.text("NO_PROXY").or_else(|| environment.text("no_proxy")),
        is_cgi: environment.text("REQUEST_METHOD").is_some(),
    }
}

/// Parses a boolean in every spelling that gitlab-runner accepts.
///
/// # Errors
/// A message that names the expected values.
pub fn parse_boolean(text: &str) -> Result<bool, String> {
    match text.trim() {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
        other => Err(format!("`{other}` is neither true nor false")),
    }
}

/// Parses a number of seconds, as gitlab-runner's flags take it, or a duration such as `2h`.
///
/// # Errors
/// A message that names the expected format.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.trim().parse() {
        Ok(secs) => Ok(Duration::from_secs(secs)),
        Err(_) => parse_span(text).map_err(|error| format!("{error}, nor a number of seconds")),
    }
}

/// The variables with a proxy's address, which can contain a password.
const PROXIES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];

/// Reads typed values from variables; an empty variable counts as not set.
pub(super) struct Variables<'environment> {
    pub(super) environment: &'environment Environment,
}

impl Variables<'_> {
    /// Reads a text.
    pub(super) fn text(&self, name: &'static str, diagnostics: &mut Diagnostics) -> Option<Placed<String>> {
        self.parsed(name, |text| Ok(text.to_owned()), diagnostics)
    }

    /// Reads a path and makes it absolute.
    pub(super) fn path(&self, name: &'static str, _diagnostics: &mut Diagnostics) -> Option<Placed<PathBuf>> {
        Some(Placed::new(self.environment.path(name)?, Place::Variable(name)))
    }

    /// Reads a comma-separated list.
    pub(super) fn list(&self, name: &'static str, diagnostics: &mut Diagnostics) -> Option<Placed<Vec<String>>> {
        self.parsed(name, |text| Ok(split_list(text)), diagnostics)
    }

    /// Reads a boolean.
    pub(super) fn boolean(&self, name: &'static str, diagnostics: &mut Diagnostics) -> Option<Placed<bool>> {
        self.parsed(name, parse_boolean, diagnostics)
    }

    /// Reads a number of seconds or a duration.
    pub(super) fn seconds(&self, name: &'static str, diagnostics: &mut Diagnostics) -> Option<Placed<Duration>> {
        self.parsed(name, parse_seconds, diagnostics)
    }

    /// Reads a non-negative integer.
    pub(super) fn number(&self, name: &'static str, diagnostics: &mut Diagnostics) -> Option<Placed<u32>> {
        let parse = |text: &str| text.trim().parse().map_err(|_| format!("`{text}` is not a non-negative integer"));
        self.parsed(name, parse, diagnostics)
    }

    /// Reads one of a few names.
    pub(super) fn one_of<T: Copy>(
        &self,
        name: &'static str,
        names: &[(&str, T)],
        diagnostics: &mut Diagnostics,
    ) -> Option<Placed<T>> {
        let parse = |text: &str| {
            let found = names.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
            let names = || names.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            found.ok_or_else(|| format!("must be one of {}, not `{text}`", names()))
        };
        self.parsed(name, parse, diagnostics)
    }

    /// Reads a secret from a variable, or from the file that `file_name` names.
    pub(super) fn source(
        &self,
        [name, file_name]: [&'static str; 2],
        diagnostics: &mut Diagnostics,
    ) -> Option<Placed<Option<Source>>> {
        let file = self.path(file_name, diagnostics).map(|path| path.map(|path| Some(Source::File(path))));
        let Some(text) = self.environment.text(name) else { return file };
        let place = Place::Variable(name);
        if file.is_some() {
            diagnostics.add(&place, format!("{name} and {file_name} are both set: set only one of them"));
        }
        let token = Token::parse(text.trim()).inspect_err(|error| diagnostics.add(&place, error.to_string()));
        let source = token.ok().map(|token| Source::Value { token, origin: name.to_owned() });
        Some(Placed::new(source, place))
    }

    fn parsed<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
        diagnostics: &mut Diagnostics,
    ) -> Option<Placed<T>> {
        let text = self.environment.text(name)?;
        let place = Place::Variable(name);
        let value = parse(&text).inspect_err(|error| diagnostics.add(&place, error)).ok()?;
        Some(Placed::new(value, place))
    }
}
