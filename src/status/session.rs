//! The session of the page over HTTP: a code from the socket, which only its owner can use, becomes a cookie.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Reading;
use crate::secret::{NoRandomness, RandomSecret};

/// How long a code can be used.
pub(super) const CODE_LIFE: Duration = Duration::from_secs(60);

/// How long a session lasts.
pub(super) const SESSION_LIFE: Duration = Duration::from_secs(12 * 3600);

/// The one code and the one session that are valid.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    code: Option<Expiring>,
    session: Option<Expiring>,
    /// The number of the session.
    number: u64,
}

/// A secret and the time since boot at which it ends.
#[derive(Debug)]
struct Expiring {
    secret: RandomSecret,
    ends: Duration,
}

impl Expiring {
    fn new(secret: RandomSecret, life: Duration, reading: Reading) -> Self {
        Self { secret, ends: reading.since_boot.saturating_add(life) }
    }

    fn is_valid(&self, reading: Reading) -> bool {
        reading.since_boot < self.ends
    }

    fn matches(&self, text: &str, reading: Reading) -> bool {
        self.secret.matches(text) && self.is_valid(reading)
    }
}

impl Sessions {
    /// Issues a code. It ends the session, and the code before it.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub(super) fn issue(&self, reading: Reading) -> Result<String, NoRandomness> {
        let code = RandomSecret::try_new()?;
        let text = code.expose().to_owned();
        let mut state = self.state();
        state.session = None;
        state.code = Some(Expiring::new(code, CODE_LIFE, reading));
        Ok(text)
    }

    /// Exchanges a code for the secret of a new session; `None` if it is not valid. A wrong code takes nothing from the
    /// right one.
    pub(super) fn redeem(&self, code: &str, reading: Reading) -> Option<String> {
        let mut state = self.state();
        if !state.code.as_ref()?.matches(code, reading) {
            return None;
        }
        let session = RandomSecret::try_new().ok()?;
        let text = session.expose().to_owned();
        state.code = None;
        state.session = Some(Expiring::new(session, SESSION_LIFE, reading));
        state.number += 1;
        Some(text)
    }

    /// The number of the session with this secret; `None` if it has ended, or never was.
    pub(super) fn find(&self, secret: &str, reading: Reading) -> Option<u64> {
        let state = self.state();
        state.session.as_ref()?.matches(secret, reading).then_some(state.number)
    }

    /// Whether the session of this number goes on.
    pub(super) fn is_open(&self, number: u64, reading: Reading) -> bool {
        let state = self.state();
        state.number == number && state.session.as_ref().is_some_and(|session| session.is_valid(reading))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No panic under the lock can leave a partial update.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::now;

    fn later(span: Duration) -> Reading {
        Reading { since_boot: now().since_boot + span, ..now() }
    }

    #[test]
    fn a_code_is_valid_once_and_for_a_minute() {
        let sessions = Sessions::default();
        assert_eq!(sessions.redeem("", now()), None, "no code was issued");
        let code = sessions.issue(now()).unwrap();
        assert_eq!(sessions.redeem("wrong", now()), None);
        let secret = sessions.redeem(&code, now()).expect("a wrong code takes nothing from the right one");
        assert_ne!(secret, code);
        assert_eq!(sessions.redeem(&code, now()), None, "used");
        assert_eq!((sessions.find(&secret, now()), sessions.find(&code, now())), (Some(1), None));
        let late = sessions.issue(now()).unwrap();
        assert_eq!(sessions.redeem(&late, later(CODE_LIFE)), None, "too old");
    }

    #[test]
    fn a_new_code_ends_the_session_and_the_code_before() {
        let sessions = Sessions::default();
        let first = sessions.issue(now()).unwrap();
        let secret = sessions.redeem(&first, now()).unwrap();
        let unused = sessions.issue(now()).unwrap();
        assert!(sessions.find(&secret, now()).is_none() && !sessions.is_open(1, now()));
        let last = sessions.issue(now()).unwrap();
        assert_eq!(sessions.redeem(&unused, now()), None);
        let secret = sessions.redeem(&last, now()).unwrap();
        assert_eq!(sessions.find(&secret, now()), Some(2));
        assert!(sessions.is_open(2, now()) && !sessions.is_open(1, now()));
    }

    #[test]
    fn a_session_ends_after_half_a_day() {
        let sessions = Sessions::default();
        let secret = sessions.redeem(&sessions.issue(now()).unwrap(), now()).unwrap();
        assert!(sessions.find(&secret, later(SESSION_LIFE - CODE_LIFE)).is_some());
        assert!(sessions.find(&secret, later(SESSION_LIFE)).is_none() && !sessions.is_open(1, later(SESSION_LIFE)));
    }
}
