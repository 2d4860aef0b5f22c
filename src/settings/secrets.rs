//! The variables that hold secrets.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::access::ACCESS_TOKENS;
use super::draft::{REGISTRATION_TOKEN, TOKEN};
use super::sharing::{ENCRYPTION_KEY, PASSWORD};
use super::{Environment, Overrides, entry_keys, paths};
use crate::secret::{has_copy, without_tokens};
use crate::store::{MAX_FILE_BYTES, token_variables};

/// Lists the variables that are set and hold secrets: the token variables, those of the store, those that agent.toml or config.toml
/// name as the source of a token, those of executors' secrets, those with a copy of such a value or with what looks like a GitLab token, and addresses
/// with a password.
///
/// Invalid files are ignored here; the commands that need them report their errors.
#[must_use]
pub fn secret_variables(overrides: &Overrides, environment: &Environment) -> Vec<OsString> {
    let paths = paths(overrides, environment);
    let own = [REGISTRATION_TOKEN, TOKEN, PASSWORD, ENCRYPTION_KEY];
    let own = own.iter().chain(&ACCESS_TOKENS).map(|[name, _]| *name);
    let mut names: BTreeSet<String> = own.chain(entry_keys::secret_variables()).map(str::to_owned).collect();
    let agent_toml: Table = text(&paths.agent_config).parse().unwrap_or_default();
    texts_of("env", &Value::Table(agent_toml), &mut names);
    names.extend(token_variables(text(&paths.config)));
    let secrets: Vec<_> = names.iter().filter_map(|name| environment.text(name)).collect();
    let is_secret = |name: &str, value: &str| {
        names.contains(name)
            || is_proxy(name) && value.contains('@')
            || has_password(value)
            || without_tokens(value) != value
            || secrets.iter().any(|secret| has_copy(value.as_bytes(), secret.trim().as_bytes()))
    };
    let set = environment.variables.iter().filter(|(_, value)| !value.is_empty());
    set.filter(|(name, value)| is_secret(&name.to_string_lossy(), &value.to_string_lossy()))
        .map(|(name, _)| name.clone())
        .collect()
}

/// Lists the files that the variables and agent.toml name as the source of a secret, also if other settings are invalid.
#[must_use]
pub fn secret_files(overrides: &Overrides, environment: &Environment) -> Vec<PathBuf> {
    let paths = paths(overrides, environment);
    let own = [REGISTRATION_TOKEN, TOKEN, PASSWORD, ENCRYPTION_KEY];
    let mut files: Vec<_> = own.iter().chain(&ACCESS_TOKENS).filter_map(|[_, name]| environment.path(name)).collect();
    let agent_toml: Table = text(&paths.agent_config).parse().unwrap_or_default();
    let (mut named, directory) = (BTreeSet::new(), paths.agent_config.parent().unwrap_or(Path::new("")));
    texts_of("file", &Value::Table(agent_toml), &mut named);
    files.extend(named.iter().map(|file| directory.join(file)));
    files
}

fn is_proxy(name: &str) -> bool {
    name.to_ascii_uppercase().ends_with("_PROXY")
}

/// Whether a text has an address such as `postgres://user:password@host`.
fn has_password(text: &str) -> bool {
    text.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', '?', '#', ' ']).next().unwrap_or_default();
        authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
    })
}

/// Reads a file; empty if it is no text, or no regular file, because a pipe can be read only once.
fn text(path: &Path) -> String {
    let text = crate::files::read(path, MAX_FILE_BYTES).ok().and_then(|content| String::from_utf8(content).ok());
    let mut text = text.unwrap_or_default();
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    text
}

/// Adds each text of a key, such as the name in `{ env = "NAME" }`, at any depth.
fn texts_of(key: &str, value: &Value, texts: &mut BTreeSet<String>) {
    match value {
        Value::Table(table) => {
            texts.extend(table.get(key).and_then(Value::as_str).map(str::to_owned));
            table.values().for_each(|value| texts_of(key, value, texts));
        }
        Value::Array(values) => values.iter().for_each(|value| texts_of(key, value, texts)),
        Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_variables_named_ones_and_proxy_passwords_are_secret() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name, text| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let agent = "[[enroll]]\ntoken = { env = \"BUILD\" }\n[[server]]\naccess_token.env = \"ACCESS\"\n";
        let config =
            "\u{feff}[[runners]]\ntoken = \"$FIRST\"\n[[runners]]\ntoken = \"${SECOND}\"\n[[runners]]\nid = 1\n";
        let overrides = Overrides {
            agent_config: Some(write("agent.toml", agent)),
            config: Some(write("config.toml", config)),
            ..Overrides::default()
        };
        let named = ["ACCESS", "BUILD", "CI_SERVER_TOKEN", "FIRST", "GITLAB_TOKEN", "PRIVATE_TOKEN"];
        let others = ["REGISTRATION_TOKEN", "SECOND", "SHARING_ENCRYPTION_KEY", "SHARING_PASSWORD"];
        let environment = named.into_iter().chain(others).fold(
            Environment::default().with("HTTP_PROXY", "http://proxy").with("RUNNER_NAME", "a"),
            // Equal ones would be copies of each other.
            |environment, name| environment.with(name, format!("of-{name}")),
        );
        let secret = secret_variables(&overrides, &environment.with("https_proxy", "http://me:password@proxy"));
        let expected: Vec<_> = named.into_iter().chain(others).chain(["https_proxy"]).collect();
        assert_eq!(secret, expected);
    }

    #[test]
    fn copies_of_secrets_and_passwords_in_addresses_are_secret_under_any_name() {
        let environment = Environment::default()
            .with("GITLAB_TOKEN", "a-secret-of-its-own")
            .with("EQUAL", " a-secret-of-its-own\n")
            .with("WITHIN", "Authorization: Bearer a-secret-of-its-own")
            .with("UNKNOWN", "curl -H 'PRIVATE-TOKEN: glpat-0123456789abcdefghij'")
            .with("ALL_PROXY", "socks5://me:password@proxy")
            .with("all_proxy", "me:password@proxy")
            .with("DATABASE_URL", "postgres://me:p@ss@db/x")
            .with("CI_SERVER_TOKEN", "short")
            .with("HOME", "/home/short")
            .with("REPOSITORY", "ssh://git@gitlab.example.com:22/a/b")
            .with("NO_PROXY", "a,b")
            .with("ADDRESS", "https://gitlab.example.com:443/me@x:y");
        let secret = secret_variables(&Overrides::default(), &environment);
        let expected = ["ALL_PROXY", "CI_SERVER_TOKEN", "DATABASE_URL", "EQUAL", "GITLAB_TOKEN", "UNKNOWN", "WITHIN"];
        assert_eq!(secret, expected.into_iter().chain(["all_proxy"]).collect::<Vec<_>>());
    }

    #[test]
    fn unset_variables_and_invalid_files_add_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.toml");
        std::fs::write(&path, "not TOML").unwrap();
        let overrides = Overrides { agent_config: Some(path), ..Overrides::default() };
        let environment = Environment::default().with("REGISTRATION_TOKEN", "");
        assert!(secret_variables(&overrides, &environment).is_empty());
    }
}
