//! The imitated GitLab release.

use std::fmt;
use std::str::FromStr;

/// The last minor of each major release, used if only the major is given.
const LAST_MINOR: u16 = 11;

/// A GitLab release, ordered by age.
///
/// It parses from `"15.1"` or from a bare major such as `"18"`, which stands for that major's last release, `18.11`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The major, such as 18.
    pub major: u16,
    /// The minor, such as 11.
    pub minor: u16,
}

impl Version {
    /// Names a release by its two numbers.
    #[must_use]
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// Whether this release is the given one or newer.
    #[must_use]
    pub const fn is_at_least(self, major: u16, minor: u16) -> bool {
        self.major > major || (self.major == major && self.minor >= minor)
    }
}

impl Default for Version {
    fn default() -> Self {
        Self::new(18, LAST_MINOR)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Version {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ParseVersionError(text.to_owned());
        let mut numbers = text.trim().split('.');
        let major = numbers.next().and_then(|major| major.parse().ok()).ok_or_else(refused)?;
        let minor = match numbers.next() {
            Some(minor) => minor.parse().map_err(|_| refused())?,
            None => LAST_MINOR,
        };
        Ok(Self { major, minor })
    }
}

impl From<&str> for Version {
    /// Converts a literal in a test.
    ///
    /// # Panics
    /// The text is not a version.
    fn from(text: &str) -> Self {
        text.parse().expect("a GitLab version such as 15.1 or 18")
    }
}

/// An invalid GitLab version.
#[derive(Debug, PartialEq, Eq)]
pub struct ParseVersionError(String);

impl fmt::Display for ParseVersionError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}` is no GitLab version: write it like 15.1 or 18", self.0)
    }
}

impl std::error::Error for ParseVersionError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_major_means_its_last_minor_release() {
        assert_eq!(Version::from("16"), Version::new(16, 11));
        assert!(Version::from("18").is_at_least(18, 10));
        assert!(!Version::from("15.1").is_at_least(15, 9));
    }

    #[test]
    fn invalid_versions_are_rejected() {
        assert!("latest".parse::<Version>().is_err());
        assert!("16.x".parse::<Version>().is_err());
    }
}
