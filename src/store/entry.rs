//! A `[[runners]]` entry of config.toml.

use std::sync::Arc;

use crate::model::{AddressError, Expiry, RunnerId, ServerUrl, Site, Timestamp, TlsFiles};
use crate::secret::{Token, TokenError};

/// One `[[runners]]` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its position among the entries, counted from 0.
    pub position: usize,
    /// The line of its header, counted from 1.
    pub line: usize,
    /// The local name; several entries may share one.
    pub name: Option<String>,
    /// The instance, if the url is valid.
    pub url: Option<ServerUrl>,
    /// GitLab's id; absent if missing or 0.
    pub id: Option<RunnerId>,
    /// The authentication token.
    pub token: EntryToken,
    /// Server time at which the token was issued.
    pub obtained_at: Option<Timestamp>,
    /// When the token stops working.
    pub expiry: Expiry,
    /// The executor's name; absent for custom runners.
    pub executor: Option<Arc<str>>,
    /// How to trust the server, as written in the entry.
    pub tls: TlsFiles,
    /// Whether `FF_DISABLE_AUTOMATIC_TOKEN_ROTATION` is set for it.
    pub rotation_disabled: bool,
    /// Its problems, in the order of reporting.
    pub problems: Vec<EntryProblem>,
}

/// The `token` of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryToken {
    /// There is no `token`, or it is not text.
    Absent,
    /// A placeholder of configuration management: an empty text, or one with `<`, `>` or white space in it.
    Placeholder,
    /// A token with white space around it, as a person may paste one. gitlab-runner cannot use it as it is.
    Padded(Token),
    /// Written out.
    Literal(Token),
    /// `$NAME` or `${NAME}`: used expanded, never written expanded.
    Variable {
        /// The variable's name.
        name: String,
        /// Its value, if it is set to a token.
        token: Option<Token>,
    },
    /// An invalid token.
    Unusable(TokenError),
}

/// A problem of an entry, with its remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryProblem {
    /// There is no `url`.
    #[error("it has no url: add the address of the GitLab instance")]
    NoUrl,
    /// The `url` is invalid.
    #[error("its url is unusable: {0}")]
    Url(AddressError),
    /// There is no `token`.
    #[error("it has no token: register the runner, or remove the entry")]
    NoToken,
    /// The `token` is a placeholder.
    #[error("its token is a placeholder: register the runner, or write its token there")]
    PlaceholderToken,
    /// The `token` is invalid.
    #[error("its token is unusable: {0}")]
    Token(TokenError),
    /// The token's variable holds no token.
    #[error("its token is the variable `{0}`, which holds no token: set it, or write the token itself")]
    Variable(String),
    /// A key holds a value of another type.
    #[error("its `{key}` is not {expected}: correct it")]
    WrongType {
        /// The key as in the file.
        key: &'static str,
        /// The expected type.
        expected: &'static str,
    },
}

impl EntryProblem {
    /// Whether it makes the entry unusable for requests.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::NoUrl
            | Self::Url(_)
            | Self::NoToken
            | Self::PlaceholderToken
            | Self::Token(_)
            | Self::Variable(_) => true,
            Self::WrongType { key, .. } => {
                matches!(*key, "url" | "token" | "id" | "tls-ca-file" | "tls-cert-file" | "tls-key-file")
            }
        }
    }
}

impl EntryToken {
    /// The token itself, written out or expanded.
    #[must_use]
    pub fn token(&self) -> Option<&Token> {
        match self {
            Self::Literal(token) | Self::Padded(token) => Some(token),
            Self::Variable { token, .. } => token.as_ref(),
            Self::Absent | Self::Placeholder | Self::Unusable(_) => None,
        }
    }
}

impl Entry {
    /// The server and token for requests about this runner.
    ///
    /// # Errors
    /// The first fatal [`EntryProblem`].
    pub fn access(&self) -> Result<(Site, Token), EntryProblem> {
        if let Some(problem) = self.problems.iter().find(|problem| problem.is_fatal()) {
            return Err(problem.clone());
        }
        let url = self.url.clone().ok_or(EntryProblem::NoUrl)?;
        let token = self.token.token().cloned().ok_or(EntryProblem::NoToken)?;
        Ok((Site { url, tls: self.tls.clone() }, token))
    }

    /// Whether another entry says the same, wherever it is in the file.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let Self { position: _, line: _, name, url, id, token, obtained_at, expiry, executor, tls, .. } = self;
        (name, url, id, token) == (&other.name, &other.url, &other.id, &other.token)
            && (obtained_at, expiry, executor, tls) == (&other.obtained_at, &other.expiry, &other.executor, &other.tls)
            && (self.rotation_disabled, &self.problems) == (other.rotation_disabled, &other.problems)
    }

    /// Whether the entry lacks only its token and [`Edit::Complete`](super::Edit::Complete) can fill it in: it has no
    /// token or a placeholder, and nothing else is wrong with it.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        let lacks_token = |problem: &EntryProblem| {
            matches!(problem, EntryProblem::NoToken | EntryProblem::PlaceholderToken) || !problem.is_fatal()
        };
        self.token.token().is_none() && self.problems.iter().all(lacks_token)
    }
}
