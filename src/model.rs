//! The types that all rooms share: times, addresses, ids and credentials.
//!
//! Plain values without side effects. Every room may import them; they import only `secret`. No other room uses `jiff`
//! and `url`.

mod access;
mod address;
mod clocks;
mod event;
mod evidence;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod hook;
mod life;
mod names;
mod query;
mod registered;
mod report;
mod rows;
mod shared;
mod text;
mod time;
mod webhook;

use std::fmt;
use std::num::NonZeroU64;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use access::{AccessRecord, AccessTokenFacts, AccessTokenOwner, AccessTokenReport, AccessTokenState};
pub use address::{AddressError, MAX_URL_BYTES, ServerUrl};
pub use clocks::{Belief, Witness};
pub use event::{Event, EventKind};
pub use evidence::{
    Boot, Candidate, CandidateSource, Claim, Conclusion, Evidence, Finding, Held, Rejection, Rungs, Stamp,
};
pub use hook::{Announced, HookDelivery, HookEvent, HookKind, HookRecord};
pub use life::TokenLife;
pub(crate) use names::named_enum;
pub use names::{Action, RotationRule, StateName, Step, StopAction, Trouble, VerifyOutcome, Why};
pub use query::{encode_query, query_parameters};
pub use registered::RegisteredWith;
pub use report::{DaemonReport, LastVerify, NextStep, PlannedRotation, Report, RunnerReport, SharingReport};
pub use rows::PrettyRows;
pub use shared::{
    Lineage, Link, MAX_LINKS, MAX_SHARE_NAME_BYTES, Member, RecordedShare, Sender, ShareName, ShareNameError,
    SharedChange, SharedPending, SharedRunner, SharedToken,
};
pub use text::{is_unprintable, printable_json};
pub use time::{Timestamp, TimestampError, format_span, parse_span};
pub use webhook::{WebhookUrl, WebhookUrlError};

use crate::secret::{Digest, Token};

/// GitLab's id of a runner; unique within one server.
///
/// Range: 1 to 2^63 - 1, the common range of GitLab's database and TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct RunnerId(NonZeroU64);

impl RunnerId {
    /// Checks that a number is in the range of runner ids.
    ///
    /// # Errors
    /// [`IdError::RunnerId`] for zero and for more than 63 bits.
    pub fn try_new(number: u64) -> Result<Self, IdError> {
        let number = NonZeroU64::new(number).ok_or(IdError::RunnerId)?;
        if i64::try_from(number.get()).is_ok() { Ok(Self(number)) } else { Err(IdError::RunnerId) }
    }

    /// The id as a number.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0.get()
    }
}

impl TryFrom<u64> for RunnerId {
    type Error = IdError;

    fn try_from(number: u64) -> Result<Self, IdError> {
        Self::try_new(number)
    }
}

impl From<RunnerId> for u64 {
    fn from(id: RunnerId) -> Self {
        id.number()
    }
}

impl FromStr for RunnerId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let number = text.parse().map_err(|_| IdError::RunnerId)?;
        Self::try_new(number)
    }
}

impl fmt::Display for RunnerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The id of this machine in GitLab: one runner manager per value.
///
/// Format: `s_` or `r_`, followed by twelve characters of `0-9a-zA-Z`.
/// Source: `.runner_system_id` as gitlab-runner writes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct SystemId(String);

impl SystemId {
    /// The id as sent to GitLab.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SystemId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let body = text.strip_prefix("s_").or_else(|| text.strip_prefix("r_"));
        match body {
            Some(body) if body.len() == 12 && body.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(IdError::SystemId),
        }
    }
}

impl fmt::Display for SystemId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Identifies a runner in the state directory.
///
/// The user chooses an enrollment's key (1 to 64 characters of `[A-Za-z0-9._-]`). The key of an entry that was only
/// found in config.toml contains an `@`, so the two cannot collide. Clones share the text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunnerKey(Arc<str>);

impl RunnerKey {
    /// Checks the key of an enrollment.
    ///
    /// # Errors
    /// [`IdError::EnrollmentKey`] if the key is not a plain file name or too long.
    pub fn enrollment(key: &str) -> Result<Self, IdError> {
        if is_enrollment_key(key) { Ok(Self(key.into())) } else { Err(IdError::EnrollmentKey) }
    }

    /// Returns the key of a runner without an enrollment: its id, or else 32 hex digits of its token's digest, at its
    /// server.
    #[must_use]
    pub fn found(url: &ServerUrl, id: Option<RunnerId>, token: Digest) -> Self {
        let runner = id.map_or_else(|| format!("token-{}", &token.to_hex()[..32]), |id| id.to_string());
        Self(format!("{runner}@{}", url.file_name()).into())
    }

    /// Returns the key of the lock that registrations of this name at this server share, whatever their own keys are.
    #[must_use]
    pub fn registration(url: &ServerUrl, name: &str) -> Self {
        let identity = Digest::of(format!("{url}\n{name}").as_bytes()).to_hex();
        Self(format!("name-{}@{}", &identity[..32], url.file_name()).into())
    }

    /// Returns the key of what is kept about the access token of a server, in a directory of its own.
    #[must_use]
    pub fn access_token(url: &ServerUrl) -> Self {
        Self(format!("access-token@{}", url.file_name()).into())
    }

    /// Returns the key of what is kept about the access token in a file that the settings do not name.
    #[must_use]
    pub fn access_token_file(url: &ServerUrl, path: &str) -> Self {
        let identity = Digest::of(path.as_bytes()).to_hex();
        Self(format!("access-token-{}@{}", &identity[..16], url.file_name()).into())
    }

    /// Returns the key of what hooks were told about the settings, in a directory of its own.
    #[must_use]
    pub fn settings() -> Self {
        Self("settings@agent".into())
    }

    /// The key as the stem of a file name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RunnerKey {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        let is_valid = match text.split_once('@') {
            Some((runner, host)) => is_enrollment_key(runner) && is_plain_file_name(host),
            None => is_enrollment_key(&text),
        };
        if is_valid { Ok(Self(text.into())) } else { Err(IdError::EnrollmentKey) }
    }
}

impl From<RunnerKey> for String {
    fn from(key: RunnerKey) -> Self {
        key.as_str().to_owned()
    }
}

impl fmt::Display for RunnerKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Maximum length of an enrollment key, in bytes. A file name has room for a suffix.
pub const MAX_KEY_BYTES: usize = 64;

fn is_enrollment_key(key: &str) -> bool {
    key.len() <= MAX_KEY_BYTES && is_plain_file_name(key)
}

fn is_plain_file_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= 160 && !name.starts_with('.') && name.bytes().all(is_plain)
}

/// An invalid id or key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a runner id.
    #[error("a runner id is a number from 1 to 9223372036854775807")]
    RunnerId,
    /// Not a system_id.
    #[error("a system_id is `s_` or `r_` followed by twelve letters and digits")]
    SystemId,
    /// Not a key.
    #[error("a key has 1 to {MAX_KEY_BYTES} of the characters A-Z a-z 0-9 . _ - and does not start with a dot")]
    EnrollmentKey,
}

/// When a token expires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// Not known: an entry without the key, or a server before 14.8.
    #[default]
    Unknown,
    /// `null` in the server's answer, `0001-01-01T00:00:00Z` in config.toml.
    Never,
    /// The server's wall time from which the token is refused.
    At(Timestamp),
}

impl Expiry {
    /// Returns the point in time, if there is one.
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
    /// The token.
    pub token: Token,
    /// Server time at which the token was issued; absent in entries that users wrote.
    pub obtained_at: Option<Timestamp>,
    /// When the token expires.
    pub expiry: Expiry,
}

/// How a runner was created, which decides what may be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Created by us, with a registration token or an access token. It can be created again, and unregistering
    /// deletes it.
    Registered,
    /// Its authentication token was provided. Unregistering deletes only this machine's manager.
    Given,
    /// Created through the API of 2016, which has neither verification nor rotation.
    V1,
}

/// The TLS files of a `[[runners]]` entry or enrollment, as written there. Clones share them; few runners have any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsFiles(Option<Arc<TlsPaths>>);

/// The paths of [`TlsFiles`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsPaths {
    /// PEM certificates to trust in addition to the system's (`tls-ca-file`).
    pub ca_file: Option<std::path::PathBuf>,
    /// PEM client certificate chain (`tls-cert-file`).
    pub cert_file: Option<std::path::PathBuf>,
    /// PEM private key of the client certificate (`tls-key-file`).
    pub key_file: Option<std::path::PathBuf>,
}

impl From<TlsPaths> for TlsFiles {
    fn from(paths: TlsPaths) -> Self {
        Self(Some(paths).filter(|paths| *paths != TlsPaths::default()).map(Arc::new))
    }
}

impl Deref for TlsFiles {
    type Target = TlsPaths;

    fn deref(&self) -> &TlsPaths {
        const NONE: &TlsPaths = &TlsPaths { ca_file: None, cert_file: None, key_file: None };
        self.0.as_deref().unwrap_or(NONE)
    }
}

/// The address of a runner's server and the TLS files to connect with.
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
        let digest = Digest::of(b"glrt-abc");
        let with_id = RunnerKey::found(&url, RunnerId::try_new(42).ok(), digest);
        assert_eq!(with_id.as_str(), "42@gitlab.example.com");
        assert_eq!(RunnerKey::try_from(String::from(with_id.clone())), Ok(with_id));
    }
}
