//! The words of the domain: times, addresses, identities and credentials.
//!
//! Plain values without behaviour of their own; every room may import them, and they import nothing
//! but `secret`. `jiff` and `url` are used here and nowhere else.

mod address;
#[cfg(any(test, fuzzing))]
#[path = "../tests/fuzz/checks/model.rs"]
pub mod fuzzing;
mod names;
mod report;
mod text;
mod time;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use address::{AddressError, MAX_URL_BYTES, ServerUrl};
pub(crate) use names::named_enum;
pub use names::{Action, StateName, Step, Trouble, VerifyOutcome, Why};
pub use report::{LastVerify, NextStep, Report, RunnerReport};
pub use text::is_unprintable;
pub use time::{Timestamp, TimestampError, format_span, parse_span};

use crate::secret::{Fingerprint, Token};

/// The number GitLab gives a runner; unique within one server.
///
/// Range: 1 to 2^63 - 1, what both GitLab's database and TOML can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct RunnerId(u64);

impl RunnerId {
    /// Takes a number that GitLab could have given out.
    ///
    /// # Errors
    /// [`IdentityError::RunnerId`] for zero and for what does not fit 63 bits.
    pub fn try_new(number: u64) -> Result<Self, IdentityError> {
        if number == 0 || i64::try_from(number).is_err() {
            return Err(IdentityError::RunnerId);
        }
        Ok(Self(number))
    }

    /// The bare number.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for RunnerId {
    type Error = IdentityError;

    fn try_from(number: u64) -> Result<Self, IdentityError> {
        Self::try_new(number)
    }
}

impl From<RunnerId> for u64 {
    fn from(id: RunnerId) -> Self {
        id.0
    }
}

impl FromStr for RunnerId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let number = text.parse().map_err(|_| IdentityError::RunnerId)?;
        Self::try_new(number)
    }
}

impl fmt::Display for RunnerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The name of this machine towards GitLab: one runner manager per value.
///
/// Format: `s_` or `r_` and twelve of `0-9a-zA-Z`.
/// Source: `.runner_system_id` as gitlab-runner writes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct SystemId(String);

impl SystemId {
    /// The text that goes over the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SystemId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let body = text.strip_prefix("s_").or_else(|| text.strip_prefix("r_"));
        match body {
            Some(body) if body.len() == 12 && body.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(IdentityError::SystemId),
        }
    }
}

impl fmt::Display for SystemId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What ties a runner to its files in the state directory.
///
/// An enrollment's key is the user's word (`[A-Za-z0-9._-]`, at most 64); the key of an entry that was
/// only found in config.toml contains an `@`, so that the two can never collide.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunnerKey(String);

impl RunnerKey {
    /// Takes a user's word as the key of an enrollment.
    ///
    /// # Errors
    /// [`IdentityError::EnrollmentKey`] if the word could not be a plain file name.
    pub fn enrollment(word: &str) -> Result<Self, IdentityError> {
        if !is_plain_word(word) {
            return Err(IdentityError::EnrollmentKey);
        }
        Ok(Self(word.to_owned()))
    }

    /// Makes the key of a runner that no enrollment asked for: its id, or else its token's
    /// fingerprint, at its server.
    #[must_use]
    pub fn found(url: &ServerUrl, id: Option<RunnerId>, fingerprint: &Fingerprint) -> Self {
        match id {
            Some(id) => Self(format!("{id}@{}", url.file_name())),
            None => Self(format!("token-{fingerprint}@{}", url.file_name())),
        }
    }

    /// The key as the stem of a file name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RunnerKey {
    type Error = IdentityError;

    fn try_from(text: String) -> Result<Self, IdentityError> {
        let parts_are_plain = match text.split_once('@') {
            Some((runner, host)) => is_plain_word(runner) && is_plain_file_name(host),
            None => is_plain_word(&text),
        };
        if parts_are_plain { Ok(Self(text)) } else { Err(IdentityError::EnrollmentKey) }
    }
}

impl From<RunnerKey> for String {
    fn from(key: RunnerKey) -> Self {
        key.0
    }
}

impl fmt::Display for RunnerKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The longest enrollment key, in bytes: leaves room for a suffix within any file system's limit.
pub const MAX_KEY_BYTES: usize = 64;

fn is_plain_word(word: &str) -> bool {
    word.len() <= MAX_KEY_BYTES && is_plain_file_name(word)
}

fn is_plain_file_name(word: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !word.is_empty() && word.len() <= 160 && !word.starts_with('.') && word.bytes().all(is_plain)
}

/// An identity that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not a runner's id.
    #[error("a runner id is a number from 1 to 9223372036854775807")]
    RunnerId,
    /// Not a system_id.
    #[error("a system_id is `s_` or `r_` followed by twelve letters and digits")]
    SystemId,
    /// Not a key.
    #[error("a key has 1 to {MAX_KEY_BYTES} of the characters A-Z a-z 0-9 . _ - and does not begin with a dot")]
    EnrollmentKey,
}

/// When a token stops working, as far as anybody told us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// Nobody said: an entry without the key, or a server before 14.8.
    #[default]
    Unknown,
    /// The server said `null`, config.toml says `0001-01-01T00:00:00Z`.
    Never,
    /// The server's wall time from which it refuses the token.
    At(Timestamp),
}

impl Expiry {
    /// The point in time, where there is one.
    #[must_use]
    pub fn at(self) -> Option<Timestamp> {
        match self {
            Self::At(timestamp) => Some(timestamp),
            Self::Unknown | Self::Never => None,
        }
    }
}

/// An authentication token with its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The secret itself.
    pub token: Token,
    /// Server time at which the token was issued; absent in entries that people wrote.
    pub obtained_at: Option<Timestamp>,
    /// When the server will stop accepting it.
    pub expiry: Expiry,
}

/// How a runner came into being, which decides what may be done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Made by us, with a registration token or an access token: it can be made again, and unregistering
    /// deletes it.
    Registered,
    /// Its authentication token was given to us: only this machine's manager is ever deleted.
    Given,
    /// Made through the API of 2016, which knows neither verify nor rotation.
    V1,
}

/// The TLS files of one `[[runners]]` entry or enrollment, as written there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsFiles {
    /// PEM certificates to trust besides the system's (`tls-ca-file`).
    pub ca_file: Option<std::path::PathBuf>,
    /// PEM certificate chain to present (`tls-cert-file`).
    pub cert_file: Option<std::path::PathBuf>,
    /// PEM private key to it (`tls-key-file`).
    pub key_file: Option<std::path::PathBuf>,
}

/// Where a runner's server is and how to trust it: what one connection is made from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Site {
    /// The GitLab instance.
    pub url: ServerUrl,
    /// Its TLS files.
    pub tls: TlsFiles,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runner_id_fits_63_bits_and_is_not_zero() {
        assert!(RunnerId::try_new(0).is_err());
        assert!(RunnerId::try_new(1 << 63).is_err());
        assert!(RunnerId::try_new((1 << 63) - 1).is_ok());
    }

    #[test]
    fn a_system_id_has_the_official_form() {
        assert!("s_0123456789ab".parse::<SystemId>().is_ok());
        assert!("r_ABCDEFabc123".parse::<SystemId>().is_ok());
        for wrong in ["", "s_", "x_0123456789ab", "s_0123456789a", "s_0123456789abc", "s_0123456789a\n"] {
            assert!(wrong.parse::<SystemId>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_key_is_always_a_plain_file_name() {
        for wrong in ["", ".", "..", ".hidden", "a/b", "a b", "a@b", &"x".repeat(65)] {
            assert!(RunnerKey::enrollment(wrong).is_err(), "{wrong:?}");
        }
        let url: ServerUrl = "https://gitlab.example.com/".parse().unwrap();
        let fingerprint = Token::parse("glrt-abc").unwrap().fingerprint();
        let with_id = RunnerKey::found(&url, Some(RunnerId(42)), &fingerprint);
        assert_eq!(with_id.as_str(), "42@gitlab.example.com");
        assert_eq!(RunnerKey::try_from(String::from(with_id.clone())), Ok(with_id));
    }
}
