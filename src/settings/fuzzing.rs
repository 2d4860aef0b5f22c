//! Checks for any agent.toml.
//!
//! Compiled for fuzzing, and for tests, which run the corpus.

use std::path::PathBuf;

use super::{Environment, Overrides, Paths, Place, Scope, assemble};

/// Environment variables that agent.toml can name.
const SECRETS: [(&str, &str); 2] = [("GOOD", "glrt-of-the-environment"), ("BAD", "no token but secret")];

/// Parses an agent.toml: valid settings, or errors that each name an existing line.
pub fn settings(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let environment =
        SECRETS.into_iter().fold(Environment::default(), |environment, (name, value)| environment.with(name, value));
    let paths = Paths {
        config: PathBuf::from("/nonexistent/config.toml"),
        agent_config: PathBuf::from("/nonexistent/agent.toml"),
        agent_config_is_named: true,
        state_root: None,
        sockets: Vec::new(),
        socket_is_named: false,
        is_root: false,
    };
    for scope in [Scope::Daemon, Scope::Command] {
        let shown = match assemble(&paths, Some(text.to_owned()), &Overrides::default(), &environment, scope) {
            Ok(settings) => format!("{settings:?}"),
            Err(errors) => {
                assert!(!errors.diagnostics().is_empty());
                for mistake in errors.diagnostics() {
                    if let Place::Line { line, .. } = mistake.place {
                        assert!((1..=text.split('\n').count()).contains(&line), "{mistake}");
                    }
                }
                errors.to_string()
            }
        };
        // What agent.toml itself says may be repeated.
        for (_, secret) in SECRETS.into_iter().filter(|(_, secret)| !text.contains(secret)) {
            assert!(!shown.contains(secret), "a secret is shown");
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_passes_every_check() {
        crate::model::fuzzing::feed("settings", super::settings);
    }
}
