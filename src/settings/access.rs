//! Which access token a command uses, where the command line does not say.

use super::diagnostics::Place;
use super::{Environment, Errors, Mistake};
use crate::secret::{Source, Token};

/// The variables with an access token, and their twins that name a file with it; the first that is set counts.
pub(super) const ACCESS_TOKENS: [[&str; 2]; 2] =
    [["GITLAB_TOKEN", "GITLAB_TOKEN_FILE"], ["PRIVATE_TOKEN", "PRIVATE_TOKEN_FILE"]];

/// The place of the access token that the environment names, if it names one.
///
/// # Errors
/// A variable that holds no token, or that is set along with its twin.
pub fn access_token(environment: &Environment) -> Result<Option<Source>, Errors> {
    for [name, twin] in ACCESS_TOKENS {
        let file = environment.path(twin);
        let Some(text) = environment.text(name) else {
            if let Some(path) = file {
                return Ok(Some(Source::File(path)));
            }
            continue;
        };
        let mistake = |message| Errors::from(Mistake { place: Place::Variable(name), message });
        if file.is_some() {
            return Err(mistake(format!("{name} and {twin} are both set: set one of them")));
        }
        let token = Token::parse(text.trim()).map_err(|error| mistake(error.to_string()))?;
        return Ok(Some(Source::Value { token, origin: format!("the variable {name}") }));
    }
    Ok(None)
}

/// The systemd credential of this name.
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
    fn the_first_variable_counts_and_a_twin_names_a_file() {
        let value = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(origin(&[]), Ok(None));
        assert_eq!(origin(&[("GITLAB_TOKEN", "")]), Ok(None));
        assert_eq!(origin(&[("PRIVATE_TOKEN", "b")]), value("the variable PRIVATE_TOKEN: b"));
        assert_eq!(origin(&[("PRIVATE_TOKEN", "b"), ("GITLAB_TOKEN", " a\n")]), value("the variable GITLAB_TOKEN: a"));
        assert_eq!(origin(&[("PRIVATE_TOKEN", "b"), ("GITLAB_TOKEN_FILE", "/t")]), value("/t"));
    }

    #[test]
    fn a_variable_that_cannot_be_meant_is_a_mistake_that_shows_nothing() {
        for variables in [&[("GITLAB_TOKEN", "a"), ("GITLAB_TOKEN_FILE", "/t")][..], &[("PRIVATE_TOKEN", "two words")]]
        {
            let error = origin(variables).unwrap_err();
            assert!(error.contains(variables[0].0) && !error.contains("two words"), "{error}");
        }
    }
}
