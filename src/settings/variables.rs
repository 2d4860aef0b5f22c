//! What the environment asks for: one enrollment, and the proxies.

use std::time::Duration;

use super::Environment;
use super::diagnostics::{Mistakes, Place, Placed};
use super::enrollment::{Draft, ENVIRONMENT_KEY};
use super::table::split_list;
use crate::gitlab::Proxies;
use crate::model::parse_span;
use crate::secret::{Source, Token};

/// The runner that the environment makes the daemon enroll, if one of the token variables is set.
pub(super) fn enrolled(environment: &Environment) -> Option<Draft> {
    let draft = Draft::of_environment(environment);
    if draft.registration_token.is_none() && draft.token.is_none() {
        return None;
    }
    let key = Placed::new(ENVIRONMENT_KEY.to_owned(), draft.place.clone());
    Some(Draft { key: Some(key), ..draft })
}

impl Draft {
    /// What the official variables say about a runner.
    #[must_use]
    pub fn of_environment(environment: &Environment) -> Self {
        let mut diagnostics = Mistakes::default();
        let variables = Variables { environment };
        Self {
            name: variables.text("RUNNER_NAME"),
            url: variables.text("CI_SERVER_URL").map(|url| url.map(Some)),
            registration_token: variables.source(REGISTRATION_TOKEN, &mut diagnostics),
            token: variables.source(TOKEN, &mut diagnostics),
            tag_list: variables.text("RUNNER_TAG_LIST").map(|list| list.map(|list| split_list(&list))),
            run_untagged: variables.parsed("REGISTER_RUN_UNTAGGED", parse_boolean, &mut diagnostics),
            locked: variables.parsed("REGISTER_LOCKED", parse_boolean, &mut diagnostics),
            access_level: variables.text("REGISTER_ACCESS_LEVEL"),
            maximum_timeout: variables.parsed("REGISTER_MAXIMUM_TIMEOUT", parse_seconds, &mut diagnostics),
            paused: variables.parsed("REGISTER_PAUSED", parse_boolean, &mut diagnostics),
            maintenance_note: variables.text("REGISTER_MAINTENANCE_NOTE"),
            executor: variables.text("RUNNER_EXECUTOR"),
            shell: variables.text("RUNNER_SHELL"),
            limit: variables.parsed("RUNNER_LIMIT", parse_number, &mut diagnostics),
            request_concurrency: variables.parsed("RUNNER_REQUEST_CONCURRENCY", parse_number, &mut diagnostics),
            output_limit: variables.parsed("RUNNER_OUTPUT_LIMIT", parse_number, &mut diagnostics),
            tls_ca_file: variables.path("CI_SERVER_TLS_CA_FILE"),
            tls_cert_file: variables.path("CI_SERVER_TLS_CERT_FILE"),
            tls_key_file: variables.path("CI_SERVER_TLS_KEY_FILE"),
            template: variables.path("TEMPLATE_CONFIG_FILE"),
            diagnostics,
            ..Self::at(Place::Variable("the environment"))
        }
    }
}

/// The proxies in the names that Go programs read, upper case first.
pub(super) fn proxies(environment: &Environment) -> Proxies {
    let [https, https_lower, http, http_lower] = PROXIES;
    let either = |upper, lower| environment.text(upper).or_else(|| environment.text(lower));
    Proxies {
        https: either(https, https_lower),
        http: either(http, http_lower),
        no_proxy: either("NO_PROXY", "no_proxy"),
    }
}

/// Reads a boolean in every spelling that the official flags and variables take.
///
/// # Errors
/// A text that says what was expected.
pub fn parse_boolean(text: &str) -> Result<bool, String> {
    match text.trim() {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
        other => Err(format!("`{other}` is neither true nor false")),
    }
}

/// Reads a number of seconds, as the official flags have it, or a duration such as `2h`.
///
/// # Errors
/// A text that says what was expected.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.trim().parse() {
        Ok(secs) => Ok(Duration::from_secs(secs)),
        Err(_) => parse_span(text).map_err(|error| format!("{error}, nor a number of seconds")),
    }
}

/// The variable with a registration token, and its twin that names a file with it.
pub(super) const REGISTRATION_TOKEN: [&str; 2] = ["REGISTRATION_TOKEN", "REGISTRATION_TOKEN_FILE"];

/// The same for a created runner's own token.
pub(super) const TOKEN: [&str; 2] = ["CI_SERVER_TOKEN", "CI_SERVER_TOKEN_FILE"];

/// The variables with a proxy's address, which can hold a password.
pub(super) const PROXIES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];

struct Variables<'environment> {
    environment: &'environment Environment,
}

impl Variables<'_> {
    fn text(&self, name: &'static str) -> Option<Placed<String>> {
        Some(Placed::new(self.environment.text(name)?, Place::Variable(name)))
    }

    fn path(&self, name: &'static str) -> Option<Placed<std::path::PathBuf>> {
        Some(Placed::new(self.environment.path(name)?, Place::Variable(name)))
    }

    fn parsed<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
        diagnostics: &mut Mistakes,
    ) -> Option<Placed<T>> {
        let text = self.environment.text(name)?;
        let place = Place::Variable(name);
        match parse(&text) {
            Ok(value) => Some(Placed::new(value, place)),
            Err(error) => {
                diagnostics.add(&place, error);
                None
            }
        }
    }

    /// A secret that stands in one variable, or in the file that its twin names.
    fn source(&self, [name, twin]: [&'static str; 2], diagnostics: &mut Mistakes) -> Option<Placed<Option<Source>>> {
        let file = self.path(twin).map(|path| path.map(|path| Some(Source::File(path))));
        let Some(text) = self.environment.text(name) else { return file };
        let place = Place::Variable(name);
        if file.is_some() {
            diagnostics.add(&place, format!("{name} and {twin} are both set: set one of them"));
        }
        let token = Token::parse(text.trim()).inspect_err(|error| diagnostics.add(&place, error.to_string()));
        let source = token.ok().map(|token| Source::Value { token, origin: name.to_owned() });
        Some(Placed::new(source, place))
    }
}

fn parse_number(text: &str) -> Result<u32, String> {
    text.trim().parse().map_err(|_| format!("`{text}` is not a whole number that is not negative"))
}
