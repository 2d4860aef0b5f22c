//! A replica of the database, which lags.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::access::AccessTokens;
use super::runner::Runner;

/// How far a replica is behind the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lag {
    /// It stays as the database is now.
    Frozen,
    /// It has the database of this long ago, by the server's clock.
    By(Duration),
    /// It lacks the last change of a token.
    OneChange,
}

/// What answers verify and the look at an access token: the database, or a replica behind it.
#[derive(Default)]
pub(crate) struct Replica {
    lag: Option<Lag>,
    /// The runners after each change of a token since the lag began, oldest first.
    runners: Vec<(Timestamp, BTreeMap<u64, Runner>)>,
    /// The access tokens after each of their changes since the lag began, oldest first.
    access: Vec<(Timestamp, AccessTokens)>,
}

impl Replica {
    /// Starts or ends a lag.
    pub(crate) fn set(
        &mut self,
        lag: Option<Lag>,
        now: Timestamp,
        runners: &BTreeMap<u64, Runner>,
        access: &AccessTokens,
    ) {
        self.lag = lag;
        (self.runners, self.access) = match lag {
            Some(_) => (vec![(now, runners.clone())], vec![(now, access.clone())]),
            None => (Vec::new(), Vec::new()),
        };
    }

    /// Notes a change of tokens, if there was one.
    pub(crate) fn note(&mut self, now: Timestamp, runners: &BTreeMap<u64, Runner>, access: &AccessTokens) {
        let (Some((_, last)), Some((_, last_access))) = (self.runners.last(), self.access.last()) else { return };
        let tokens = |runners: &BTreeMap<u64, Runner>| -> Vec<_> {
            runners.values().map(|runner| (runner.id, runner.token.clone(), runner.token_expires_at)).collect()
        };
        if tokens(last) != tokens(runners) {
            self.runners.push((now, runners.clone()));
        }
        if last_access.state_of_each() != access.state_of_each() {
            self.access.push((now, access.clone()));
        }
    }

    /// The replica's runners; `None` if it does not lag.
    pub(crate) fn runners(&self, now: Timestamp) -> Option<BTreeMap<u64, Runner>> {
        seen(self.lag?, &self.runners, now).cloned()
    }

    /// The replica's access tokens; `None` if it does not lag.
    pub(crate) fn access(&self, now: Timestamp) -> Option<AccessTokens> {
        seen(self.lag?, &self.access, now).cloned()
    }
}

/// What a replica with this lag has of a history.
fn seen<T>(lag: Lag, history: &[(Timestamp, T)], now: Timestamp) -> Option<&T> {
    let (oldest, newest) = (history.first()?, history.len() - 1);
    let (_, content) = match lag {
        Lag::Frozen => oldest,
        Lag::OneChange => &history[newest.saturating_sub(1)],
        Lag::By(span) => {
            let seen_until = now - SignedDuration::try_from(span).expect("a span of time that a test can mean");
            history.iter().rev().find(|(at, _)| *at <= seen_until).unwrap_or(oldest)
        }
    };
    Some(content)
}
