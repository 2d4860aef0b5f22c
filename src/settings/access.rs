//! The access token from the environment, for commands without a flag for it.

use super::diagnostics::Place;
use super::{Diagnostic, Environment, Errors};
use crate::secret::{Source, Token};

/// The variables with an access token, each with the one that names a file with it. The first one set is used.
pub(super) const ACCESS_TOKENS: [[&str; 2]; 2] =
    [["GITLAB_TOKEN", "GITLAB_TOKEN_FILE"], ["PRIVATE_TOKEN", "PRIVATE_TOKEN_FILE"]];

/// Finds the access token of the environment; `None` if no variable is set.
///
/// # Errors
/// [`Errors`] if a variable holds no valid token, or if both variables of a pair are set.
pub fn access_token(environment: &Environment) -> Result<Option<Source>, Errors> {
    for [name, file_name] in ACCESS_TOKENS {
        let file = environment.path(file_name);
        let Some(text) = environment.text(name) else {
            if let Some(path) = file {
                return Ok(Some(Source::File(path)));
            }
            continue;
        };
        let invalid = |message: String| Errors::from(Diagnostic::new(Place::Variable(name), message));
        if file.is_some() {
            return Err(invalid(format!("{name} and {file_name} are both set: set only one of them")));
        }
        let token = Token::parse(text.trim()).map_err(|error| invalid(error.to_string()))?;
        return Ok(Some(Source::Value { token, origin: format!("the variable {name}") }));
    }
    Ok(None)
}

/// The source for the systemd credential `name`.
#[must_use]
pub fn credential(name: &str, environment: &Environment) -> Source {
    let directory = environment.path("CREDENTIALS_DIRECTORY");
    Source::Credential { name: name.to_owned(), path: directory.map(|directory| directory.join(name)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(variables: &[(&str, &str)]) -> Result<Option<String>, String> {
        let environment =
            variables.iter().fold(Environment::default(), |environment, (name, value)| environment.with(name, *value));
        let source = access_token(&environment).map_err(|errors| errors.to_string())?;
        Ok(source.map(|source| match source {
            Source::File(path) => path.display().to_string(),
            Source::Value { token, origin } => format!("{origin}: {}", token.expose()),
            Source::Credential { name, .. } => name,
        }))
    }

    #[test]
    fn the_first_variable_set_is_used_and_may_name_a_file() {
        let value = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(origin(&[]), Ok(None));
        assert_eq!(origin(&[("GITLAB_TOKEN", "")]), Ok(None));
        assert_eq!(origin(&[("PRIVATE_TOKEN", "b")]), value("the variable PRIVATE_TOKEN: b"));
        assert_eq!(origin(&[("PRIVATE_TOKEN", "b"), ("GITLAB_TOKEN", " a\n")]), value("the variable GITLAB_TOKEN: a"));
        assert_eq!(origin(&[("PRIVATE_TOKEN", "b"), ("GITLAB_TOKEN_FILE", "/t")]), value("/t"));
    }

    #[test]
    fn an_invalid_variable_is_an_error_without_its_value() {
        for variables in [&[("GITLAB_TOKEN", "a"), ("GITLAB_TOKEN_FILE", "/t")][..], &[("PRIVATE_TOKEN", "two words")]]
        {
            let error = origin(variables).unwrap_err();
            assert!(error.contains(variables[0].0) && !error.contains("two words"), "{error}");
        }
    }
}
