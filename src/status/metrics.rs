//! The metrics in the Prometheus text format 0.0.4.
//!
//! The gauges are built from the [`StatusRegistry`] for each scrape, so a removed runner leaves no series.

use prometheus::{GaugeVec, Opts, Registry, TextEncoder};

use super::counters::{Counters, registered};
use super::registry::{RunnerStatus, StatusRegistry};
use crate::clock::Reading;
use crate::model::{StateName, Timestamp};

/// The content type.
pub(super) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The labels that identify a runner, stable across rotations.
const RUNNER: [&str; 3] = ["id", "name", "host"];

/// The possible states of a served runner.
const STATES: [StateName; 7] = [
    StateName::Unregistered,
    StateName::Active,
    StateName::Uncertain,
    StateName::Rejected,
    StateName::NotRenewable,
    StateName::Failed,
    StateName::Retired,
];

/// Encodes all metrics at `reading`.
///
/// # Errors
/// None is known, because all names are constants.
pub fn metrics(counters: &Counters, registry: &StatusRegistry, reading: Reading) -> Result<String, prometheus::Error> {
    let gauges = Gauges::new();
    for status in registry.runners() {
        gauges.measure(&status, reading);
    }
    let mut families = counters.registry().gather();
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
        gauge("build_info", "The running version; the value is always 1.", &["version"])
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1.0);
        Self {
            expiry: gauge(
                "token_expiry_timestamp_seconds",
                "Server time at which the token expires; absent if it does not.",
                &RUNNER,
            ),
            expires_in: gauge(
                "token_expires_in_seconds",
                "Time until the token expires by the server's clock, negative afterwards; absent if it does not.",
                &RUNNER,
            ),
            last_verify: gauge(
                "last_verify_timestamp_seconds",
                "Server time of the last verification, answered or not; absent if there was none.",
                &RUNNER,
            ),
            last_rotation: gauge(
                "last_rotation_timestamp_seconds",
                "Server time of the last rotation; absent if there was none.",
                &RUNNER,
            ),
            state: gauge("state", "1 for the runner's current state, 0 for all others.", &states),
            clock_skew: gauge(
                "clock_skew_seconds",
                "Server time minus local time at the last response with a date, accurate to a second.",
                &["host"],
            ),
            registry,
        }
    }

    fn measure(&self, status: &RunnerStatus, reading: Reading) {
        let report = &status.report;
        let id = report.id.map(|id| id.to_string()).unwrap_or_default();
        let runner = [id.as_str(), &status.label, &status.host];
        let set = |gauge: &GaugeVec, value: Option<f64>| {
            if let Some(value) = value {
                gauge.with_label_values(&runner).set(value);
            }
        };
        set(&self.expiry, report.token_expires_at.map(seconds));
        set(&self.expires_in, status.expires_in_secs(reading));
        set(&self.last_verify, report.last_verify.as_ref().map(|verify| seconds(verify.at)));
        set(&self.last_rotation, status.last_rotation_at.map(seconds));
        for state in STATES {
            let value = if state == report.state { 1.0 } else { 0.0 };
            self.state.with_label_values(&[runner[0], runner[1], runner[2], state.as_str()]).set(value);
        }
        if let Some(millis) = status.skew_millis {
            self.clock_skew.with_label_values(&[&status.host]).set(millis as f64 / 1000.0);
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
    use crate::status::Phase;
    use crate::status::tests::{key, now, status};
    use crate::status::{Operation, OperationOutcome};

    fn text(registry: &StatusRegistry) -> String {
        metrics(&Counters::new(), registry, now()).unwrap()
    }

    #[test]
    fn the_text_is_what_dashboards_rely_on() {
        let (counters, registry) = (Counters::new(), StatusRegistry::default());
        counters.count_request("verify", "ok", Duration::from_millis(20));
        counters.count_request("verify", "timeout", Duration::from_secs(31));
        counters.count_operation(Operation::Rotation, OperationOutcome::Done);
        counters.count_config_write(true);
        registry.enter(Phase::Serving);
        registry.update(&key("build-1"), status("build-1", Some(7), StateName::Active));
        registry.update(&key("new"), status("a \"quoted\"\nname", None, StateName::Unregistered));
        let text = metrics(&counters, &registry, now()).unwrap().replace(env!("CARGO_PKG_VERSION"), "VERSION");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_removed_runner_leaves_no_series() {
        let registry = StatusRegistry::default();
        let empty = text(&registry);
        registry.update(&key("a"), status("a", Some(1), StateName::Active));
        assert_ne!(text(&registry), empty);
        registry.remove(&key("a"));
        assert_eq!(text(&registry), empty);
    }

    #[test]
    fn every_runner_is_in_exactly_one_state() {
        for state in STATES {
            let registry = StatusRegistry::default();
            registry.update(&key("a"), status("a", Some(1), state));
            let text = text(&registry);
            let states: Vec<_> = text.lines().filter(|line| line.starts_with("runner_agent_state{")).collect();
            assert_eq!(states.len(), STATES.len());
            let current: Vec<_> = states.iter().filter(|line| line.ends_with(" 1")).collect();
            assert!(current.len() == 1 && current[0].contains(&format!("state=\"{state}\"")), "{current:?}");
        }
    }
}
