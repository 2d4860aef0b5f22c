//! The owners of runners: projects, groups and users.

use std::fmt;
use std::str::FromStr;

use percent_encoding::utf8_percent_encode;
use serde::{Deserialize, Serialize};

use super::query::RESERVED;
use crate::gitlab::lenient::{number, time};
use crate::model::Timestamp;

/// A project in the answers about runners and jobs.
///
/// Source: docs/api/runners, "Get runner's details" and "List runner's jobs".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// The project's id.
    #[serde(deserialize_with = "number")]
    pub id: u64,
    /// The description; null if it has none.
    pub description: Option<String>,
    /// The name.
    pub name: Option<String>,
    /// The name with those of its groups.
    pub name_with_namespace: Option<String>,
    /// The last part of the path.
    pub path: Option<String>,
    /// The whole path, such as `group/project`.
    pub path_with_namespace: Option<String>,
    /// When it was created, server time in RFC 3339; only in some answers.
    #[serde(default, deserialize_with = "time")]
    pub created_at: Option<Timestamp>,
}

/// A group in a runner's details. Source: GitLab's entity of a runner's details.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The group's id.
    #[serde(deserialize_with = "number")]
    pub id: u64,
    /// The name.
    pub name: Option<String>,
    /// The URL of its page.
    pub web_url: Option<String>,
}

/// A user, with the fields that the answer shows. Source: docs/api/runners, "List runner's jobs"; since 18.1 also
/// `created_by` of a runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The user's id.
    #[serde(deserialize_with = "number")]
    pub id: u64,
    /// The full name.
    pub name: Option<String>,
    /// The login name.
    pub username: Option<String>,
    /// `active`, `blocked` and the like.
    pub state: Option<String>,
    /// The URL of the user's picture.
    pub avatar_url: Option<String>,
    /// The URL of the user's page.
    pub web_url: Option<String>,
    /// When the account was created, server time in RFC 3339.
    #[serde(default, deserialize_with = "time")]
    pub created_at: Option<Timestamp>,
    /// The biography; null if not set.
    pub bio: Option<String>,
    /// The location; null if not set.
    pub location: Option<String>,
    /// The public email address; empty if not set.
    pub public_email: Option<String>,
    /// The Skype name; empty if not set. Removed in newer releases.
    pub skype: Option<String>,
    /// The LinkedIn name; empty if not set.
    pub linkedin: Option<String>,
    /// The Twitter name; empty if not set.
    pub twitter: Option<String>,
    /// The user's website; empty if not set.
    pub website_url: Option<String>,
    /// The organization; null if not set.
    pub organization: Option<String>,
}

/// An id or a whole path, percent-encoded as one path segment.
pub(in crate::gitlab) fn segment(name: &str) -> impl fmt::Display {
    utf8_percent_encode(name, RESERVED)
}

/// A project or group by its id or its whole path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerName(String);

/// A text that is not the id or path of a project or group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a project or group: use its id, or its whole path such as `group/project`")]
pub struct OwnerNameError(String);

impl OwnerName {
    /// Returns the id if the name is one.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        self.0.parse().ok()
    }

    /// Returns the name percent-encoded as one path segment.
    pub(super) fn segment(&self) -> impl fmt::Display {
        segment(&self.0)
    }
}

impl FromStr for OwnerName {
    type Err = OwnerNameError;

    /// Accepts any name except empty, `.` and `..`: even encoded, they change the path of the URL.
    fn from_str(text: &str) -> Result<Self, OwnerNameError> {
        let name = text.trim_matches('/');
        if matches!(name.trim(), "" | "." | "..") {
            return Err(OwnerNameError(text.to_owned()));
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for OwnerName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_becomes_one_segment() {
        for (name, segment) in [
            ("9", "9"),
            ("group/project", "group%2Fproject"),
            ("/group/sub group/p/", "group%2Fsub%20group%2Fp"),
            ("grüppe/projekt", "gr%C3%BCppe%2Fprojekt"),
            ("a/../b", "a%2F..%2Fb"),
            ("a/100%", "a%2F100%25"),
            ("a/b%2Fc", "a%2Fb%252Fc"),
            ("a?b#c&d=e+f", "a%3Fb%23c%26d%3De%2Bf"),
        ] {
            assert_eq!(name.parse::<OwnerName>().unwrap().segment().to_string(), segment, "{name}");
        }
    }

    #[test]
    fn empty_and_dot_names_are_rejected() {
        for name in ["", " ", "/", ".", "..", "/../", " .. "] {
            assert!(name.parse::<OwnerName>().is_err(), "{name:?}");
        }
        assert_eq!("12".parse::<OwnerName>().unwrap().number(), Some(12));
        assert_eq!("12/a".parse::<OwnerName>().unwrap().number(), None);
    }
}
