//! The classes of GitLab's tokens, by their prefixes, and which of them a place takes.

use std::fmt;

use super::Token;

/// The class of a token that carries one of GitLab's prefixes.
///
/// Source: GitLab's "Token overview". Access tokens can have another prefix of the administrator's choice, and old tokens have
/// none: those have no class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenClass {
    /// `glpat-`: a personal, project or group access token.
    Access,
    /// `gldt-`: a deploy token.
    Deploy,
    /// `glcbt-`: the token of a CI job.
    Job,
    /// `glptt-`: a pipeline trigger token.
    Trigger,
    /// `glrt-`: the authentication token of a runner that was created in GitLab.
    Created,
    /// `glrtr-`: the authentication token of a runner that was registered with a registration token.
    Registered,
    /// `GR1348941`: a registration token of a project or group.
    Registration,
}

/// What a token is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenPurpose {
    /// To register a runner. Takes a created runner's token too, as gitlab-runner does.
    Registration,
    /// To register a runner by API v1, which has no created runners.
    FirstApiRegistration,
    /// To authenticate as a runner.
    Runner,
    /// To manage runners as a user.
    Access,
}

/// A token of a class that its place does not take; never contains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is {class}, but {purpose} is needed here: {}", class.destination())]
pub struct WrongTokenClass {
    /// The class of the token.
    pub class: TokenClass,
    /// What is needed instead.
    pub purpose: TokenPurpose,
}

/// GitLab's prefixes.
const PREFIXES: [(&str, TokenClass); 7] = [
    ("glpat-", TokenClass::Access),
    ("gldt-", TokenClass::Deploy),
    ("glcbt-", TokenClass::Job),
    ("glptt-", TokenClass::Trigger),
    ("glrt-", TokenClass::Created),
    ("glrtr-", TokenClass::Registered),
    ("GR1348941", TokenClass::Registration),
];

/// Maximum length of the prefix that an instance puts before GitLab's, with a hyphen between them.
const MAX_INSTANCE_PREFIX: usize = 20;

impl Token {
    /// Its class; `None` for a token without one of GitLab's prefixes, of which nothing is known. `acme-glrt-…` has the prefix of
    /// an instance before that of GitLab.
    #[must_use]
    pub fn class(&self) -> Option<TokenClass> {
        class_of(self.expose())
    }
}

fn class_of(text: &str) -> Option<TokenClass> {
    let hyphens = text.match_indices('-').map(|(at, _)| at).take_while(|at| *at <= MAX_INSTANCE_PREFIX);
    std::iter::once(text).chain(hyphens.map(|at| &text[at + 1..])).find_map(class_at_start)
}

fn class_at_start(text: &str) -> Option<TokenClass> {
    PREFIXES.iter().find(|(prefix, _)| text.starts_with(prefix)).map(|(_, class)| *class)
}

impl TokenPurpose {
    /// Checks that a token can serve the purpose. One without a class can.
    ///
    /// # Errors
    /// [`WrongTokenClass`] for a token that GitLab certainly refuses.
    pub fn check(self, token: &Token) -> Result<(), WrongTokenClass> {
        match token.class() {
            Some(class) if !self.takes(class) => Err(WrongTokenClass { class, purpose: self }),
            Some(_) | None => Ok(()),
        }
    }

    fn takes(self, class: TokenClass) -> bool {
        match class {
            TokenClass::Access => self == Self::Access,
            TokenClass::Deploy | TokenClass::Job | TokenClass::Trigger => false,
            TokenClass::Created => matches!(self, Self::Runner | Self::Registration),
            TokenClass::Registered => self == Self::Runner,
            TokenClass::Registration => matches!(self, Self::Registration | Self::FirstApiRegistration),
        }
    }
}

impl TokenClass {
    /// The class of the token that a person has given where the name of a file is wanted; `None` for a name. A path with a
    /// directory in it is a name.
    #[must_use]
    pub fn of_file_name(text: &str) -> Option<Self> {
        let text = text.trim();
        class_of(text).filter(|_| !text.contains('/'))
    }

    /// Where such a token belongs.
    fn destination(self) -> &'static str {
        match self {
            Self::Access => {
                "give an access token to `fleet` and `shared heal` by --access-token-file, to `rotate` by --pat-file, and to the daemon as `access_token` in a [[server]] of agent.toml, with which an [[enroll]] with `create` makes its runner"
            }
            Self::Deploy => "a deploy token serves repositories and registries, and is of no use to this program",
            Self::Job => "a job token serves its job only, and is of no use to this program",
            Self::Trigger => "a trigger token starts pipelines, and is of no use to this program",
            Self::Created | Self::Registered => {
                "give a runner's token by --token or --token-file, as CI_SERVER_TOKEN, or as `token` in an [[enroll]] of agent.toml"
            }
            Self::Registration => {
                "give a registration token by --registration-token or --registration-token-file, as REGISTRATION_TOKEN, or as `registration_token` in an [[enroll]] of agent.toml"
            }
        }
    }
}

impl fmt::Display for TokenClass {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Access => "a personal, project or group access token (glpat-)",
            Self::Deploy => "a deploy token (gldt-)",
            Self::Job => "a CI job token (glcbt-)",
            Self::Trigger => "a pipeline trigger token (glptt-)",
            Self::Created => "a runner authentication token (glrt-)",
            Self::Registered => "a runner authentication token (glrtr-)",
            Self::Registration => "a registration token (GR1348941)",
        })
    }
}

impl fmt::Display for TokenPurpose {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Registration => "a registration token, or a created runner's token (glrt-),",
            Self::FirstApiRegistration => "a registration token",
            Self::Runner => "a runner authentication token (glrt- or glrtr-)",
            Self::Access => "an access token (glpat-)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Token {
        Token::parse(text).unwrap()
    }

    #[test]
    fn a_class_is_read_from_the_prefix_also_after_an_instances() {
        for (prefix, class) in PREFIXES {
            for before in ["", "acme-", "acme-corp-", "a2345678901234567890-"] {
                assert_eq!(token(&format!("{before}{prefix}secret")).class(), Some(class), "{before}{prefix}");
            }
            assert_eq!(token(&format!("acme{prefix}secret")).class(), None, "{prefix}");
            assert_eq!(token(&format!("a23456789012345678901-{prefix}secret")).class(), None, "{prefix}");
        }
        for text in ["abcdefghij0123456789", "t1_abcdefghij0123456789", "custom-abc", "glagent-abc", "glrt", "GR13"] {
            assert_eq!(token(text).class(), None, "{text}");
        }
    }

    #[test]
    fn a_token_is_no_name_of_a_file_and_a_path_is_one() {
        for (prefix, class) in PREFIXES {
            for before in ["", "acme-", " "] {
                assert_eq!(
                    TokenClass::of_file_name(&format!("{before}{prefix}secret")),
                    Some(class),
                    "{before}{prefix}"
                );
            }
            assert_eq!(TokenClass::of_file_name(&format!("./{prefix}secret")), None, "{prefix}");
        }
        for name in ["runner-token", "token", "/etc/runner-agent/glrt-token", "../glpat-x", ""] {
            assert_eq!(TokenClass::of_file_name(name), None, "{name}");
        }
    }

    #[test]
    fn only_a_class_that_gitlab_refuses_is_refused() {
        use TokenPurpose::{Access, FirstApiRegistration, Registration, Runner};
        let table: [(&str, &[TokenPurpose]); 8] = [
            ("glpat-secret", &[Access]),
            ("gldt-secret", &[]),
            ("glcbt-secret", &[]),
            ("glptt-secret", &[]),
            ("glrt-secret", &[Registration, Runner]),
            ("glrtr-secret", &[Runner]),
            ("GR1348941secret", &[Registration, FirstApiRegistration]),
            ("custom-secret", &[Registration, FirstApiRegistration, Runner, Access]),
        ];
        for (text, taking) in table {
            for purpose in [Registration, FirstApiRegistration, Runner, Access] {
                let checked = purpose.check(&token(text));
                assert_eq!(checked.is_ok(), taking.contains(&purpose), "{text} {purpose:?}");
                assert!(checked.err().is_none_or(|error| !error.to_string().contains("secret")), "{text}");
            }
        }
    }

    #[test]
    fn a_refusal_names_the_class_the_need_and_the_destination() {
        let error = TokenPurpose::Runner.check(&token("acme-GR1348941secret")).unwrap_err();
        insta::assert_snapshot!(error, @"this is a registration token (GR1348941), but a runner authentication token (glrt- or glrtr-) is needed here: give a registration token by --registration-token or --registration-token-file, as REGISTRATION_TOKEN, or as `registration_token` in an [[enroll]] of agent.toml");
    }
}
