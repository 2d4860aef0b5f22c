//! Tokens that leave the machine sealed: only those who have the key can read them, or write one that is believed.

use std::fmt;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf;
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use super::{Digest, Fingerprint, Token};

/// The fewest bytes of a key's text. 32 random bytes have 44 characters in base64 and 64 in hex. It is no password: what is
/// sealed stands where others can try all short ones.
pub const MIN_KEY_BYTES: usize = 32;

/// A key that tokens are sealed with.
#[derive(Clone)]
pub struct SealingKey {
    key: LessSafeKey,
    fingerprint: Fingerprint,
}

/// Why a token cannot be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealingError {
    /// The text of the key is too short to be random.
    #[error(
        "an encryption key has at least {MIN_KEY_BYTES} characters, such as those of `openssl rand -base64 32`, and this one has {0}"
    )]
    ShortKey(usize),
    /// The system has no random numbers.
    #[error("the system has no random numbers")]
    NoRandomness,
    /// Sealed with another key, or about something else, or damaged.
    #[error("it was sealed with another key, or is damaged")]
    NotOpened,
}

impl SealingKey {
    /// A key from its text, as a file or credential has it.
    ///
    /// # Errors
    /// [`SealingError::ShortKey`].
    pub fn from_text(text: &str) -> Result<Self, SealingError> {
        if text.len() < MIN_KEY_BYTES {
            return Err(SealingError::ShortKey(text.len()));
        }
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"runner-agent shared runner");
        let derived = salt.extract(text.as_bytes());
        // The lengths are those of the algorithm.
        let key = derived.expand(&[b"token"], &CHACHA20_POLY1305).map(UnboundKey::from);
        let key = LessSafeKey::new(key.map_err(|_| SealingError::NoRandomness)?);
        // Of the derived key: the text of the key is shown in no form.
        let mut shown = [0; 32];
        derived
            .expand(&[b"name"], hkdf::HKDF_SHA256)
            .and_then(|name| name.fill(&mut shown))
            .map_err(|_| SealingError::NoRandomness)?;
        Ok(Self { key, fingerprint: Digest::of(&shown).fingerprint() })
    }

    /// Tells keys apart, in messages and beside what was sealed.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Seals a token. It opens only with the same `about`, which is not secret.
    ///
    /// # Errors
    /// [`SealingError::NoRandomness`].
    pub fn seal(&self, token: &Token, about: &[u8]) -> Result<Vec<u8>, SealingError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| SealingError::NoRandomness)?;
        let mut text = Zeroizing::new(token.expose().as_bytes().to_vec());
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(about), &mut text)
            .map_err(|_| SealingError::NoRandomness)?;
        Ok([&nonce, text.as_slice(), tag.as_ref()].concat())
    }

    /// Opens what [`SealingKey::seal`] has returned.
    ///
    /// # Errors
    /// [`SealingError::NotOpened`].
    pub fn open(&self, sealed: &[u8], about: &[u8]) -> Result<Token, SealingError> {
        let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(SealingError::NotOpened)?;
        let mut text = Zeroizing::new(text.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.key.open_in_place(nonce, Aad::from(about), &mut text).map_err(|_| SealingError::NotOpened)?;
        let opened = std::str::from_utf8(opened).map_err(|_| SealingError::NotOpened)?;
        Token::parse(opened).map_err(|_| SealingError::NotOpened)
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SealingKey({})", self.fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> SealingKey {
        SealingKey::from_text(&text.repeat(32)).unwrap()
    }

    #[test]
    fn sealed_token_opens_with_its_key_and_for_its_runner_only() {
        let token = Token::parse("glrt-secret").unwrap();
        let sealed = key("a").seal(&token, b"first").unwrap();
        assert_eq!(key("a").open(&sealed, b"first"), Ok(token));
        assert_eq!(key("b").open(&sealed, b"first"), Err(SealingError::NotOpened));
        assert_eq!(key("a").open(&sealed, b"other"), Err(SealingError::NotOpened));
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert_eq!(key("a").open(&damaged, b"first"), Err(SealingError::NotOpened), "{at}");
        }
        assert_eq!(key("a").open(&sealed[..NONCE_LEN], b"first"), Err(SealingError::NotOpened));
        assert_eq!(key("a").open(b"", b"first"), Err(SealingError::NotOpened));
    }

    #[test]
    fn sealed_token_is_never_the_same_twice() {
        let token = Token::parse("glrt-secret").unwrap();
        let sealed = || key("a").seal(&token, b"").unwrap();
        assert_ne!(sealed(), sealed());
        assert!(!sealed().windows(6).any(|bytes| bytes == b"secret"));
    }

    #[test]
    fn key_is_shown_by_a_fingerprint_of_its_own() {
        let (first, second) = (key("a"), key("b"));
        assert_ne!(first.fingerprint(), second.fingerprint());
        assert_ne!(first.fingerprint(), Fingerprint::of("a".repeat(32).as_bytes()));
        assert_eq!(format!("{first:?}"), format!("SealingKey({})", first.fingerprint()));
        assert_eq!(SealingKey::from_text("short").unwrap_err(), SealingError::ShortKey(5));
    }
}
