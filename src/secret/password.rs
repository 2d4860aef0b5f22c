//! Passwords for other servers than GitLab.

use std::fmt;

use zeroize::Zeroizing;

/// A password. Unlike a [`Token`](super::Token) it goes into the body of a request alone, so it may have all characters but
/// control characters.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Parses a password; `None` if it is empty or has a control character.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_valid = !text.is_empty() && !text.chars().any(char::is_control);
        is_valid.then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// The secret text; only for request bodies.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password")
    }
}
