//! Random texts that prove what their owner has been given.

use std::fmt;
use std::hint::black_box;

use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use super::hex;

/// How many random bytes a secret has.
const BYTES: usize = 16;

/// 128 random bits, as 32 lower-case hex digits.
pub struct RandomSecret(Zeroizing<String>);

/// The system has no random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system has no random numbers")]
pub struct NoRandomness;

impl RandomSecret {
    /// Draws a secret.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn try_new() -> Result<Self, NoRandomness> {
        let mut bytes = Zeroizing::new([0; BYTES]);
        SystemRandom::new().fill(&mut *bytes).map_err(|_| NoRandomness)?;
        Ok(Self(Zeroizing::new(hex(&*bytes))))
    }

    /// The secret text; only for its owner.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether a text is this secret. Takes the same time for each text of its length.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let (own, other) = (self.0.as_bytes(), text.as_bytes());
        let differences =
            own.iter().zip(other).fold(0, |differences, (own, other)| black_box(differences | (own ^ other)));
        own.len() == other.len() && differences == 0
    }
}

impl fmt::Debug for RandomSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RandomSecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_matches_its_own_text_alone() {
        let (secret, other) = (RandomSecret::try_new().unwrap(), RandomSecret::try_new().unwrap());
        let text = secret.expose().to_owned();
        assert!(text.len() == 2 * BYTES && secret.matches(&text));
        let last = if text.ends_with('0') { "1" } else { "0" };
        let wrong = format!("{}{last}", &text[..text.len() - 1]);
        for wrong in ["", &text[1..], &format!("{text}0"), &wrong, other.expose()] {
            assert!(!secret.matches(wrong), "{wrong}");
        }
        assert_eq!(format!("{secret:?}"), "RandomSecret");
    }
}
