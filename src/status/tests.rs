//! Fixtures.

use std::time::Duration;

use super::{Counters, PageAccess, Phase, RunnerStatus, Sources, StatusRegistry};
use crate::clock::{Reading, ServerTime};
use crate::model::{
    LastVerify, NextStep, RunnerId, RunnerKey, RunnerReport, StateName, Step, Timestamp, VerifyOutcome, Why,
};

pub(super) fn key(name: &str) -> RunnerKey {
    RunnerKey::enrollment(name).unwrap()
}

/// The data of a daemon with one ready runner.
pub(super) fn sources(is_alive: bool) -> Sources {
    let registry = StatusRegistry::default();
    registry.enter(Phase::Serving);
    registry.update(status("a", Some(1), StateName::Active));
    Sources {
        instance_id: "a".to_owned(),
        registry,
        counters: Counters::new(),
        is_alive: Box::new(move || is_alive),
        access: PageAccess::default(),
    }
}

/// Half an hour into 2027.
pub(super) fn now() -> Reading {
    Reading { wall: at("2027-01-01T00:30:00Z"), since_boot: Duration::from_secs(1800) }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A runner whose server is 90 seconds ahead. It has a token if it has an id.
pub(super) fn status(name: &str, id: Option<u64>, state: StateName) -> RunnerStatus {
    let began = Reading { wall: at("2027-01-01T00:00:00Z"), since_boot: Duration::ZERO };
    let report = RunnerReport {
        name: Some(name.to_owned()),
        id: id.map(|id| RunnerId::try_new(id).unwrap()),
        url: Some("https://gitlab.example.com:8443".parse().unwrap()),
        executor: None,
        token_fingerprint: None,
        token_obtained_at: id.map(|_| at("2027-01-01T00:00:00Z")),
        token_expires_at: id.map(|_| at("2027-01-01T01:00:00Z")),
        state,
        since: None,
        last_verify: id.map(|_| LastVerify { at: at("2027-01-01T00:00:10Z"), outcome: VerifyOutcome::Accepted }),
        next: Some(NextStep { step: Step::Verify, at: at("2027-01-01T00:40:00Z"), why: Why::Interval }),
        rotation: None,
        at_stop: None,
        action: None,
        error: None,
        clock_skew_seconds: None,
        sharing: None,
    };
    RunnerStatus {
        key: RunnerKey::enrollment(name).unwrap_or_else(|_| key("odd")),
        not_ready_because: None,
        next_rotation_at: id.map(|_| at("2027-01-01T00:38:00Z")),
        last_rotation_at: id.map(|_| at("2026-12-31T23:59:59Z")),
        time: ServerTime::from_local(began).with_date(at("2027-01-01T00:01:30Z"), began),
        skew_millis: id.map(|_| 90_000),
        report,
    }
}
