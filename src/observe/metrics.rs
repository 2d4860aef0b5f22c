//! The metrics in the Prometheus text format 0.0.4.
//!
//! What is counted comes from the [`Tally`]; what is measured is taken from the [`Board`] anew for each
//! reader, so that nothing of a runner that is gone stays behind.

use prometheus::{GaugeVec, Opts, Registry, TextEncoder};

use super::board::{Board, Posting};
use super::tally::{Tally, registered};
use crate::clock::Reading;
use crate::lifecycle::State;
use crate::model::Timestamp;

/// The media type of the text.
pub(super) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// What tells runners apart: stable across rotations.
const RUNNER: [&str; 3] = ["id", "name", "host"];

/// Writes everything that can be measured now.
///
/// # Errors
/// None that is known of: the names are constants.
pub fn metrics(tally: &Tally, board: &Board, reading: Reading) -> Result<String, prometheus::Error> {
    let gauges = Gauges::new();
    for posting in board.postings() {
        gauges.measure(&posting, reading);
    }
    let mut families = tally.registry().gather();
    families.extend(gauges.registry.gather());
    families.sort_by(|one, other| one.name().cmp(other.name()));
    TextEncoder::new().encode_to_string(&families)
}

struct Gauges {
    registry: Registry,
    expiry: GaugeVec,
    expires_in: GaugeVec,
    last_verify: GaugeVec,
    last_rotation: GaugeVec,
    state: GaugeVec,
    clock_skew: GaugeVec,
}

impl Gauges {
    fn new() -> Self {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            registered(&registry, GaugeVec::new(Opts::new(format!("runner_agent_{name}"), help), labels))
        };
        let states = [RUNNER.as_slice(), &["state"]].concat();
        gauge("build_info", "The version that runs; the value is always 1.", &["version"])
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1.0);
        Self {
            expiry: gauge(
                "token_expiry_timestamp_seconds",
                "Server time at which the token stops working; absent if it has no end.",
                &RUNNER,
            ),
            expires_in: gauge(
                "token_expires_in_seconds",
                "Time until the token stops working by the server's clock, negative once it has; absent if it has no end.",
                &RUNNER,
            ),
            last_verify: gauge(
                "last_verify_timestamp_seconds",
                "Server time at which the token was last checked, with or without an answer; absent if it never was.",
                &RUNNER,
            ),
            last_rotation: gauge(
                "last_rotation_timestamp_seconds",
                "Server time at which the token was last replaced by a reset; absent if it never was.",
                &RUNNER,
            ),
            state: gauge("state", "1 for the state that the runner is in, 0 for all others.", &states),
            clock_skew: gauge(
                "clock_skew_seconds",
                "Server time minus this machine's when the server told it last, to a second.",
                &["host"],
            ),
            registry,
        }
    }

    fn measure(&self, posting: &Posting, reading: Reading) {
        let report = &posting.report;
        let id = report.id.map(|id| id.to_string()).unwrap_or_default();
        let runner = [id.as_str(), &posting.label, &posting.host];
        let set = |gauge: &GaugeVec, value: Option<f64>| {
            if let Some(value) = value {
                gauge.with_label_values(&runner).set(value);
            }
        };
        set(&self.expiry, report.token_expires_at.map(seconds));
        set(&self.expires_in, posting.expires_in_secs(reading));
        set(&self.last_verify, report.last_verify.as_ref().map(|verify| seconds(verify.at)));
        set(&self.last_rotation, posting.last_rotation_at.map(seconds));
        for word in State::WORDS {
            let value = if word == report.state { 1.0 } else { 0.0 };
            self.state.with_label_values(&[runner[0], runner[1], runner[2], word]).set(value);
        }
        if let Some(millis) = posting.skew_millis {
            self.clock_skew.with_label_values(&[&posting.host]).set(millis as f64 / 1000.0);
        }
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.as_millis() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observe::Phase;
    use crate::observe::tests::{key, now, posting};
    use crate::observe::{Deed, Ending};

    fn text(board: &Board) -> String {
        metrics(&Tally::new(), board, now()).unwrap()
    }

    #[test]
    fn the_text_is_the_one_that_dashboards_rely_on() {
        let (tally, board) = (Tally::new(), Board::default());
        tally.requested("verify", "ok", Duration::from_millis(20));
        tally.requested("verify", "timeout", Duration::from_secs(31));
        tally.did(Deed::Rotation, Ending::Done);
        tally.wrote_config(true);
        board.enter(Phase::Serving);
        board.post(&key("build-1"), posting("build-1", Some(7), "active"));
        board.post(&key("wanted"), posting("a \"quoted\"\nname", None, "unregistered"));
        let text = metrics(&tally, &board, now()).unwrap().replace(env!("CARGO_PKG_VERSION"), "VERSION");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_runner_that_is_gone_leaves_no_series() {
        let board = Board::default();
        let empty = text(&board);
        board.post(&key("a"), posting("a", Some(1), "active"));
        assert_ne!(text(&board), empty);
        board.remove(&key("a"));
        assert_eq!(text(&board), empty);
    }

    #[test]
    fn every_runner_is_in_exactly_one_state() {
        for word in State::WORDS {
            let board = Board::default();
            board.post(&key("a"), posting("a", Some(1), word));
            let text = text(&board);
            let states: Vec<_> = text.lines().filter(|line| line.starts_with("runner_agent_state{")).collect();
            assert_eq!(states.len(), State::WORDS.len());
            let current: Vec<_> = states.iter().filter(|line| line.ends_with(" 1")).collect();
            assert!(current.len() == 1 && current[0].contains(&format!("state=\"{word}\"")), "{current:?}");
        }
    }
}
