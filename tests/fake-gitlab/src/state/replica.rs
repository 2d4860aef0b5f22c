//! A replica of the database, which lags.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

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

/// What answers verify: the database, or a replica behind it.
#[derive(Default)]
pub(crate) struct Replica {
    lag: Option<Lag>,
    /// The runners after each change of a token since the lag began, oldest first.
    history: Vec<(Timestamp, BTreeMap<u64, Runner>)>,
}

impl Replica {
    /// Starts or ends a lag.
    pub(crate) fn set(&mut self, lag: Option<Lag>, now: Timestamp, runners: &BTreeMap<u64, Runner>) {
        self.lag = lag;
        self.history = if lag.is_some() { vec![(now, runners.clone())] } else { Vec::new() };
    }

    /// Notes a change of tokens, if there was one.
    pub(crate) fn note(&mut self, now: Timestamp, runners: &BTreeMap<u64, Runner>) {
        let Some((_, last)) = self.history.last() else { return };
        let tokens = |runners: &BTreeMap<u64, Runner>| -> Vec<_> {
            runners.values().map(|runner| (runner.id, runner.token.clone(), runner.token_expires_at)).collect()
        };
        if tokens(last) != tokens(runners) {
            self.history.push((now, runners.clone()));
        }
    }

    /// The replica's runners; `None` if it does not lag.
    pub(crate) fn runners(&self, now: Timestamp) -> Option<BTreeMap<u64, Runner>> {
        let (oldest, newest) = (self.history.first()?, self.history.len() - 1);
        let (_, runners) = match self.lag? {
            Lag::Frozen => oldest,
            Lag::OneChange => &self.history[newest.saturating_sub(1)],
            Lag::By(span) => {
                let seen_until = now - SignedDuration::try_from(span).expect("a span of time that a test can mean");
                self.history.iter().rev().find(|(at, _)| *at <= seen_until).unwrap_or(oldest)
            }
        };
        Some(runners.clone())
    }
}
