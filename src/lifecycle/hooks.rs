//! What hooks are run for: the difference between what was announced last and what is known now. And how often they are
//! tried.

use std::time::Duration;

use super::schedule::doubled;
use super::{Active, Fraction, NotRenewable, Rules, State, next_rotation};
use crate::model::{Announced, HookKind, RunnerId, RunnerKey, Timestamp};
use crate::secret::Digest;

/// The delay after the first failed attempt. It doubles with each further one.
const FIRST_DELAY: Duration = Duration::from_secs(1);

/// The longest delay.
const LONGEST_DELAY: Duration = Duration::from_secs(15 * 60);

/// The fixed share of a delay; the rest is random.
const FIXED_SHARE: f64 = 0.75;

/// How many events of one runner wait for one hook. A further one displaces the oldest.
pub const MOST_QUEUED: usize = 100;

/// How long a runner has to be away before it counts as unregistered. A file that is written anew, or a record that moves,
/// takes less.
pub const GONE_AFTER: Duration = Duration::from_secs(60);

/// What is known about a runner now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenRunner {
    /// Its token, which is written.
    pub token: Option<Digest>,
    /// GitLab's id of it.
    pub id: Option<RunnerId>,
    /// Whether the server refuses the token; `None` until that is known.
    pub is_rejected: Option<bool>,
    /// As [`is_expiring`] says.
    pub is_expiring: bool,
}

/// The events that lead from what was announced to what is seen, in order. The first sight of a runner makes none.
#[must_use]
pub fn runner_events(former: Option<&Announced>, seen: &SeenRunner) -> Vec<HookKind> {
    let Some(former) = former else { return Vec::new() };
    let has_other_id = former.id.is_some() && seen.id.is_some() && former.id != seen.id;
    let is_replaced = former.token != seen.token;
    let mut events = Vec::new();
    match (former.token, seen.token) {
        (None, None) => {}
        (None, Some(_)) => events.push(HookKind::Registered),
        (Some(_), None) => events.push(HookKind::Unregistered),
        (Some(_), Some(_)) if is_replaced => {
            let is_recovered = has_other_id || former.is_rejected;
            events.push(if is_recovered { HookKind::Recovered } else { HookKind::Rotated });
        }
        (Some(_), Some(_)) if former.is_rejected && seen.is_rejected == Some(false) => {
            events.push(HookKind::Recovered);
        }
        (Some(_), Some(_)) => {}
    }
    if seen.token.is_some() {
        if seen.is_rejected == Some(true) && (is_replaced || !former.is_rejected) {
            events.push(HookKind::Rejected);
        }
        if seen.is_expiring && (is_replaced || !former.is_expiring) {
            events.push(HookKind::Expiring);
        }
    }
    events
}

/// What is announced once these events were made.
#[must_use]
pub fn announced_runner(former: Option<&Announced>, seen: &SeenRunner) -> Announced {
    let same = former.filter(|former| former.token == seen.token);
    Announced {
        token: seen.token,
        id: seen.id.or(same.and_then(|former| former.id)),
        is_rejected: seen.is_rejected.unwrap_or(same.is_some_and(|former| former.is_rejected)),
        // Once for each token.
        is_expiring: seen.is_expiring || same.is_some_and(|former| former.is_expiring),
        ..Announced::default()
    }
}

/// As [`runner_events`], for an access token that was rotated so often. Another one that a person has put into its file is
/// none.
#[must_use]
pub fn access_events(former: Option<&Announced>, token: Option<Digest>, rotations: u64) -> Vec<HookKind> {
    let is_rotated = former.is_some_and(|former| former.rotations < rotations && former.token != token);
    if is_rotated { vec![HookKind::AccessTokenRotated] } else { Vec::new() }
}

/// As [`runner_events`], for settings with these mistakes. They were valid when they were seen first.
#[must_use]
pub fn settings_events(former: Option<&Announced>, mistakes: Option<Digest>) -> Vec<HookKind> {
    let is_new = mistakes.is_some() && former.and_then(|former| former.token) != mistakes;
    if is_new { vec![HookKind::SettingsRejected] } else { Vec::new() }
}

/// The id of an event: the same if a crash makes it be made again. `number` counts the events of this key.
#[must_use]
pub fn event_id(key: &RunnerKey, number: u64, kind: HookKind, token: Option<Digest>) -> String {
    let token = token.map(Digest::to_hex).unwrap_or_default();
    Digest::of(format!("{key}\n{number}\n{kind}\n{token}").as_bytes()).to_hex()
}

/// Whether a token is in the last eighth of its life and is not about to be renewed: nothing rotates it, the server does
/// not, or the attempts fail.
#[must_use]
pub fn is_expiring(state: &State, rules: &Rules, now: Timestamp) -> bool {
    let is_pressing = state.validity().is_some_and(|validity| validity.is_pressing(now));
    is_pressing
        && match state {
            State::Active(active) => next_rotation(state, rules).is_none() || has_failed(active),
            State::NotRenewable(NotRenewable { .. }) | State::Uncertain(_) | State::Failed(_) => true,
            // It was announced as such.
            State::Rejected(_) => false,
            State::Unregistered(_) | State::Retired { .. } => false,
        }
}

fn has_failed(active: &Active) -> bool {
    active.failures > 0 || active.fruitless_resets > 0 || active.changed.is_some()
}

/// The delay after so many failed attempts.
#[must_use]
pub fn retry_delay(attempts: u32, chance: Fraction) -> Duration {
    let ceiling = doubled(FIRST_DELAY, attempts).min(LONGEST_DELAY);
    let fixed = ceiling.mul_f64(FIXED_SHARE);
    fixed + chance.of(ceiling - fixed)
}

/// Whether an event is given up after so many failed attempts: the first one is no retry.
#[must_use]
pub fn is_given_up(attempts: u32, retries: u32) -> bool {
    attempts > retries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    fn announced(token: Option<&str>, id: u64, is_rejected: bool) -> Announced {
        let id = RunnerId::try_new(id).ok();
        Announced { token: token.map(digest), id, is_rejected, ..Announced::default() }
    }

    fn seen(token: Option<&str>, id: u64, is_rejected: Option<bool>) -> SeenRunner {
        SeenRunner { token: token.map(digest), id: RunnerId::try_new(id).ok(), is_rejected, is_expiring: false }
    }

    #[test]
    fn events_are_the_difference_to_what_was_announced() {
        use HookKind::{Recovered, Registered, Rejected, Rotated, Unregistered};
        for (former, seen, expected) in [
            (None, seen(Some("a"), 1, Some(false)), vec![]),
            (None, seen(None, 0, None), vec![]),
            (Some(announced(None, 0, false)), seen(None, 0, None), vec![]),
            (Some(announced(None, 0, false)), seen(Some("a"), 1, None), vec![Registered]),
            (Some(announced(Some("a"), 1, false)), seen(Some("a"), 1, None), vec![]),
            (Some(announced(Some("a"), 1, false)), seen(Some("b"), 1, None), vec![Rotated]),
            (Some(announced(Some("a"), 0, false)), seen(Some("b"), 1, None), vec![Rotated]),
            (Some(announced(Some("a"), 1, true)), seen(Some("b"), 1, None), vec![Recovered]),
            (Some(announced(Some("a"), 1, false)), seen(Some("b"), 2, None), vec![Recovered]),
            (Some(announced(Some("a"), 1, false)), seen(Some("b"), 1, Some(true)), vec![Rotated, Rejected]),
            (Some(announced(Some("a"), 1, false)), seen(Some("a"), 1, Some(true)), vec![Rejected]),
            (Some(announced(Some("a"), 1, true)), seen(Some("a"), 1, Some(true)), vec![]),
            (Some(announced(Some("a"), 1, true)), seen(Some("a"), 1, None), vec![]),
            (Some(announced(Some("a"), 1, true)), seen(Some("a"), 1, Some(false)), vec![Recovered]),
            (Some(announced(Some("a"), 1, false)), seen(None, 1, None), vec![Unregistered]),
        ] {
            assert_eq!(runner_events(former.as_ref(), &seen), expected, "{former:?} {seen:?}");
            let next = announced_runner(former.as_ref(), &seen);
            assert_eq!(runner_events(Some(&next), &seen), [], "an event is made once: {former:?} {seen:?}");
        }
    }

    #[test]
    fn a_refusal_is_remembered_until_the_server_accepts_the_token() {
        let former = announced(Some("a"), 1, true);
        let unknown = announced_runner(Some(&former), &seen(Some("a"), 0, None));
        assert_eq!(unknown, former);
        assert_eq!(runner_events(Some(&unknown), &seen(Some("a"), 1, Some(false))), [HookKind::Recovered]);
    }

    #[test]
    fn a_token_is_announced_once_as_expiring() {
        let former = announced(Some("a"), 1, false);
        let ending = SeenRunner { is_expiring: true, ..seen(Some("a"), 1, Some(false)) };
        assert_eq!(runner_events(Some(&former), &ending), [HookKind::Expiring]);
        let said = announced_runner(Some(&former), &ending);
        let said = announced_runner(Some(&said), &seen(Some("a"), 1, Some(false)));
        assert_eq!(runner_events(Some(&said), &ending), []);
        let other = SeenRunner { token: Some(digest("b")), ..ending };
        assert_eq!(runner_events(Some(&said), &other), [HookKind::Rotated, HookKind::Expiring]);
    }

    #[test]
    fn access_tokens_count_when_rotated_and_settings_when_their_mistakes_are_new() {
        let former = Announced { token: Some(digest("a")), rotations: 1, ..Announced::default() };
        assert_eq!(access_events(None, Some(digest("a")), 1), []);
        assert_eq!(access_events(Some(&former), Some(digest("b")), 1), [], "a person has put it there");
        assert_eq!(access_events(Some(&former), Some(digest("b")), 2), [HookKind::AccessTokenRotated]);
        assert_eq!(settings_events(None, None), []);
        assert_eq!(settings_events(None, Some(digest("a"))), [HookKind::SettingsRejected]);
        assert_eq!(settings_events(Some(&former), Some(digest("a"))), []);
        assert_eq!(settings_events(Some(&former), Some(digest("b"))), [HookKind::SettingsRejected]);
        assert_eq!(settings_events(Some(&former), None), []);
    }

    #[test]
    fn an_event_id_depends_on_all_that_makes_the_event() {
        let (key, other) = (RunnerKey::enrollment("a").unwrap(), RunnerKey::enrollment("b").unwrap());
        let id = event_id(&key, 1, HookKind::Rotated, Some(digest("a")));
        assert_eq!(id, event_id(&key, 1, HookKind::Rotated, Some(digest("a"))));
        assert_eq!(id.len(), 64);
        for changed in [
            event_id(&other, 1, HookKind::Rotated, Some(digest("a"))),
            event_id(&key, 2, HookKind::Rotated, Some(digest("a"))),
            event_id(&key, 1, HookKind::Rejected, Some(digest("a"))),
            event_id(&key, 1, HookKind::Rotated, Some(digest("b"))),
        ] {
            assert_ne!(id, changed);
        }
    }

    #[test]
    fn delays_double_up_to_a_quarter_of_an_hour() {
        let delay = |attempts| retry_delay(attempts, Fraction::from_bits(u32::MAX)).as_secs_f64().round();
        assert_eq!([1, 2, 3, 5, 30].map(delay), [1.0, 2.0, 4.0, 16.0, 900.0]);
        assert_eq!(retry_delay(1, Fraction::ZERO), Duration::from_millis(750));
        assert!(!is_given_up(5, 5) && is_given_up(6, 5) && is_given_up(1, 0));
    }
}
