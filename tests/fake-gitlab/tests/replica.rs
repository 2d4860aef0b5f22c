//! A replica that lags, and a restored backup.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use fake_gitlab::{Gitlab, Lag, NewRunner};
use serde_json::json;
use test_support::http::send;

const SECOND: Duration = Duration::from_secs(1);

fn verify(gitlab: &Gitlab, token: &str) -> u16 {
    send(gitlab, "POST", "/runners/verify", json!({ "token": token })).status
}

fn reset(gitlab: &Gitlab, token: &str) -> String {
    let reply = send(gitlab, "POST", "/runners/reset_authentication_token", json!({ "token": token }));
    reply.json()["token"].as_str().unwrap().to_owned()
}

#[test]
fn frozen_replica_knows_only_the_old_token() {
    let gitlab = Gitlab::start();
    let (_, old) = gitlab.add_runner(NewRunner::instance());
    gitlab.set_replica_lag(Some(Lag::Frozen));
    let new = reset(&gitlab, &old);
    assert_eq!((verify(&gitlab, &old), verify(&gitlab, &new)), (200, 403));
    gitlab.set_replica_lag(None);
    assert_eq!((verify(&gitlab, &old), verify(&gitlab, &new)), (403, 200));
}

#[test]
fn replica_catches_up_after_its_lag() {
    let gitlab = Gitlab::start();
    let (id, old) = gitlab.add_runner(NewRunner::instance());
    gitlab.set_replica_lag(Some(Lag::By(5 * SECOND)));
    gitlab.advance(10 * SECOND);
    let new = gitlab.revoke(id);
    assert_eq!((verify(&gitlab, &old), verify(&gitlab, &new)), (200, 403));
    gitlab.advance(6 * SECOND);
    assert_eq!((verify(&gitlab, &old), verify(&gitlab, &new)), (403, 200));
}

#[test]
fn replica_can_lack_the_last_change() {
    let gitlab = Gitlab::start();
    let (_, first) = gitlab.add_runner(NewRunner::instance());
    gitlab.set_replica_lag(Some(Lag::OneChange));
    assert_eq!(verify(&gitlab, &first), 200);
    let second = reset(&gitlab, &first);
    let third = reset(&gitlab, &second);
    assert_eq!([&first, &second, &third].map(|token| verify(&gitlab, token)), [403, 200, 403]);
}

#[test]
fn restored_backup_brings_old_tokens_back() {
    let gitlab = Gitlab::start();
    let (id, old) = gitlab.add_runner(NewRunner::instance());
    let backup = gitlab.backup();
    let new = reset(&gitlab, &old);
    let (later, later_token) = gitlab.add_runner(NewRunner::instance());
    gitlab.restore(&backup);
    assert_eq!([&old, &new, &later_token].map(|token| verify(&gitlab, token)), [200, 403, 403]);
    assert_eq!(gitlab.runners().iter().map(|runner| runner.id).collect::<Vec<_>>(), [id]);
    assert!(!format!("{backup:?}").contains(&old));
    // The database gives the ids out again.
    assert_eq!(gitlab.add_runner(NewRunner::instance()).0, later);
}
