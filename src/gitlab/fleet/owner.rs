//! Whom runners belong to: projects, groups and users.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use crate::gitlab::lenient::{number, time};
use crate::model::Timestamp;

/// A project in the answers about runners and jobs.
///
/// Source: docs/api/runners, "Get runner's details" and "List runner's jobs".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// The project's number.
    #[serde(deserialize_with = "number")]
    pub id: u64,
    /// What it is about; null if it does not say.
    #[serde(default)]
    pub description: Option<String>,
    /// Its own name.
    #[serde(default)]
    pub name: Option<String>,
    /// Its name behind those of the groups above it.
    #[serde(default)]
    pub name_with_namespace: Option<String>,
    /// The last part of its path.
    #[serde(default)]
    pub path: Option<String>,
    /// Its whole path, such as `group/project`.
    #[serde(default)]
    pub path_with_namespace: Option<String>,
    /// When it was made, server time in RFC 3339; only in some answers.
    #[serde(default, deserialize_with = "time")]
    pub created_at: Option<Timestamp>,
}

/// A group in a runner's details. Source: GitLab's entity of a runner's details.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The group's number.
    #[serde(deserialize_with = "number")]
    pub id: u64,
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
    /// Its page.
    #[serde(default)]
    pub web_url: Option<String>,
}

/// A user, as far as the answer shows one. Source: docs/api/runners, "List runner's jobs"; since 18.1 also
/// `created_by` of a runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The user's number.
    #[serde(deserialize_with = "number")]
    pub id: u64,
    /// The whole name.
    #[serde(default)]
    pub name: Option<String>,
    /// The name to log in with.
    #[serde(default)]
    pub username: Option<String>,
    /// `active`, `blocked` and the like.
    #[serde(default)]
    pub state: Option<String>,
    /// The picture.
    #[serde(default)]
    pub avatar_url: Option<String>,
    /// The user's page.
    #[serde(default)]
    pub web_url: Option<String>,
    /// When the account was made, server time in RFC 3339.
    #[serde(default, deserialize_with = "time")]
    pub created_at: Option<Timestamp>,
    /// What the user says about themselves; null if nothing.
    #[serde(default)]
    pub bio: Option<String>,
    /// Where the user is; null if not told.
    #[serde(default)]
    pub location: Option<String>,
    /// The address to write to; empty if not told.
    #[serde(default)]
    pub public_email: Option<String>,
    /// The name there; empty if not told. Gone from newer releases.
    #[serde(default)]
    pub skype: Option<String>,
    /// The name there; empty if not told.
    #[serde(default)]
    pub linkedin: Option<String>,
    /// The name there; empty if not told.
    #[serde(default)]
    pub twitter: Option<String>,
    /// A page of the user's own; empty if not told.
    #[serde(default)]
    pub website_url: Option<String>,
    /// Whom the user works for; null if not told.
    #[serde(default)]
    pub organization: Option<String>,
}

/// A project or group as a caller names it: by its number, or by its whole path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerName(String);

/// A name that cannot be one of a project or group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot be a project or group: give its number, or its whole path such as `group/project`")]
pub struct OwnerNameError(String);

/// All that is not unreserved in RFC 3986: a path becomes one segment of the address.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl OwnerName {
    /// The number, where the name is one.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        self.0.parse().ok()
    }

    /// As one segment of an address.
    pub(super) fn segment(&self) -> impl fmt::Display {
        utf8_percent_encode(&self.0, SEGMENT)
    }
}

impl FromStr for OwnerName {
    type Err = OwnerNameError;

    /// Takes any name but those that would be another address, whatever their encoding: nothing, `.` and `..`.
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
    fn a_path_is_one_segment_whatever_is_in_it() {
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
    fn what_no_address_can_say_is_refused() {
        for name in ["", " ", "/", ".", "..", "/../", " .. "] {
            assert!(name.parse::<OwnerName>().is_err(), "{name:?}");
        }
        assert_eq!("12".parse::<OwnerName>().unwrap().number(), Some(12));
        assert_eq!("12/a".parse::<OwnerName>().unwrap().number(), None);
    }
}
