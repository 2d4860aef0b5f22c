//! Secrets: tokens that cannot be printed, and their sources.
//!
//! A [`Token`] has no `Display` and no `Serialize`; its `Debug` shows its fingerprint, and its memory is zeroed on
//! drop. Code that needs the text calls [`Token::expose`], which is easy to search for. All hashing is here too,
//! because only hashes of a secret may be shown.

mod handover;
mod mask;
mod password;
mod random;
mod sealing;
mod source;
mod token_class;

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

pub use handover::{Hidden, Launch, execute_again, has_copy, take as take_over};
pub use mask::{masked, token_length, without_tokens};
pub use password::Password;
pub use random::{NoRandomness, RandomSecret};
pub use sealing::{MIN_KEY_BYTES, SealingError, SealingKey};
pub use source::{Source, SourceError, read_descriptor, read_stream};
pub use token_class::{TokenClass, TokenPurpose, WrongTokenClass};

/// Maximum length of a token, in bytes. Source: GitLab's database column for tokens.
pub const MAX_TOKEN_BYTES: usize = 512;

/// An authentication, registration or access token of GitLab.
///
/// Opaque: prefixes and lengths change between releases and with every rotation. Clones share one text, which is zeroed
/// with the last of them.
#[derive(Clone)]
pub struct Token(Arc<Secret>);

struct Secret {
    text: Zeroizing<Box<str>>,
    /// Computed once: a runner is found by it in every comparison with config.toml.
    digest: OnceLock<Digest>,
}

/// Why a text is no token; does not contain the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The text is empty.
    #[error("the token is empty")]
    Empty,
    /// Longer than [`MAX_TOKEN_BYTES`].
    #[error("the token has {0} bytes, more than the maximum of {MAX_TOKEN_BYTES}")]
    TooLong(usize),
    /// A character that would break a header or a TOML string, or refer to a variable in config.toml.
    #[error(
        "the token has an invalid character (white space, a quote, a backslash, `$`, a control or non-ASCII character)"
    )]
    Character,
}

impl Token {
    /// Parses a token.
    ///
    /// # Errors
    /// [`TokenError`] for a text that cannot be stored and sent safely.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        if text.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong(text.len()));
        }
        let is_safe = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\' | b'`' | b'$');
        if !text.bytes().all(is_safe) {
            return Err(TokenError::Character);
        }
        Ok(Self(Arc::new(Secret { text: Zeroizing::new(text.into()), digest: OnceLock::new() })))
    }

    /// The secret text; only for request bodies, config.toml and the state directory.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0.text
    }

    /// The fingerprint, the only part of a token that may be shown.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.digest().fingerprint()
    }

    /// The whole digest, by which tokens are compared where the token itself is not kept.
    #[must_use]
    pub fn digest(&self) -> Digest {
        *self.0.digest.get_or_init(|| Digest::of(self.expose().as_bytes()))
    }

    /// Whether the token has the prefix of a created runner: `glrt-`, also after an instance-wide prefix. Not used
    /// for runners that this agent registered.
    #[must_use]
    pub fn looks_created(&self) -> bool {
        self.expose().starts_with("glrt-") || self.expose().contains("-glrt-")
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.expose().as_bytes() == other.expose().as_bytes()
    }
}

impl Eq for Token {}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Token({})", self.fingerprint())
    }
}

/// A secret's SHA-256. Unlike a [`Fingerprint`], no other secret can be made to have the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// Computes the digest of bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Its first eight hex digits, for people.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let [first, second, third, fourth, ..] = self.0;
        Fingerprint(u32::from_be_bytes([first, second, third, fourth]))
    }

    /// Whether [`Digest::fingerprint`] is this one.
    #[must_use]
    pub fn has_fingerprint(&self, fingerprint: &Fingerprint) -> bool {
        self.fingerprint() == *fingerprint
    }

    /// All 64 lower-case hex digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fingerprint().fmt(formatter)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        let mut bytes = [0; 32];
        let digits = text.as_bytes();
        let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if digits.len() != 64 || !digits.iter().all(is_hex) {
            return Err(DigestError);
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| DigestError)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| DigestError)?;
        }
        Ok(Self(bytes))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_hex()
    }
}

/// A text that is not a [`Digest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest is 64 lower-case hex digits")]
pub struct DigestError;

/// The first eight hex digits of a secret's SHA-256, for people. Two secrets can share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(u32);

impl Fingerprint {
    /// Computes the fingerprint of bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Digest::of(bytes).fingerprint()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:08x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), formatter)
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 8 || !text.bytes().all(is_hex) {
            return Err(FingerprintError);
        }
        u32::from_str_radix(text, 16).map(Self).map_err(|_| FingerprintError)
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = FingerprintError;

    fn try_from(text: String) -> Result<Self, FingerprintError> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

/// A text that is not a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is eight lower-case hex digits")]
pub struct FingerprintError;

/// Computes SHA-256 as 64 lower-case hex digits.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Computes HMAC-SHA256 as 64 lower-case hex digits.
#[must_use]
pub fn hmac_sha256_hex(key: &[u8], message: &[u8]) -> String {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    hex(&mac.finalize().into_bytes())
}

/// Returns 32 random bits from the system.
#[must_use]
pub fn random_bits() -> u32 {
    let mut bytes = [0; 4];
    // Fails only on a system without a random source; delays then lose their jitter but keep their bounds.
    let _drawn = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u32::from_ne_bytes(bytes)
}

/// Keeps the memory of this process, which holds tokens, out of core dumps and other users' debuggers.
///
/// # Errors
/// The system refuses one of the two settings; the other one is still applied.
pub fn disable_core_dumps() -> io::Result<()> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let not_dumpable = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let no_size = setrlimit(Resource::Core, none);
    Ok(not_dumpable.and(no_size)?)
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_shows_only_its_fingerprint() {
        let token = Token::parse("glrt-secret").unwrap();
        assert_eq!(format!("{token:?}"), format!("Token({})", token.fingerprint()));
        assert!(!format!("{token:?}").contains("secret"));
    }

    #[test]
    fn a_text_that_breaks_a_header_or_toml_is_no_token() {
        assert_eq!(Token::parse(""), Err(TokenError::Empty));
        assert_eq!(Token::parse(&"x".repeat(600)), Err(TokenError::TooLong(600)));
        for wrong in ["a b", "a\nb", "a\"b", "a'b", "a\0b", "a\\b", "tök", "$HOME", "glrt-${HOME}"] {
            assert_eq!(Token::parse(wrong), Err(TokenError::Character), "{wrong:?}");
        }
    }

    #[test]
    fn routable_and_prefixed_tokens_are_tokens() {
        for text in ["glrt-t1_abc.01.0a1b2c3d4", "acme-glrt-abc", "GR1348941abc", "0123456789abcdef0123456789abcd"] {
            assert!(Token::parse(text).is_ok(), "{text}");
        }
        assert!(Token::parse("acme-glrt-abc").unwrap().looks_created());
        assert!(!Token::parse("glrtr-abc").unwrap().looks_created());
    }

    #[test]
    fn fingerprint_of_a_digest_is_that_of_its_token() {
        let (token, other) = (Token::parse("glrt-a").unwrap(), Token::parse("glrt-b").unwrap());
        assert_eq!(token.digest().fingerprint(), token.fingerprint());
        assert!(token.digest().has_fingerprint(&token.fingerprint()));
        assert!(!token.digest().has_fingerprint(&other.fingerprint()));
        assert!(token.digest().to_hex().starts_with(&token.fingerprint().to_string()));
        assert_eq!(Digest::try_from(token.digest().to_hex()), Ok(token.digest()));
    }

    #[test]
    fn hashes_match_known_values() {
        assert_eq!(&sha256_hex(b"abc")[..16], "ba7816bf8f01cfea");
        assert_eq!(&hmac_sha256_hex(b"key", b"The quick brown fox jumps over the lazy dog")[..16], "f7bc83f430538424");
    }
}
