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

/// A gauge of a runner: name, help text and value. It has no series while there is no value.
type RunnerGauge = (&'static str, &'static str, fn(&RunnerStatus, Reading) -> Option<f64>);

const RUNNER_GAUGES: [RunnerGauge; 4] = [
    (
        "token_expiry_timestamp_seconds",
        "Server time at which the token expires; absent if it does not.",
        |status, _| status.report.token_expires_at.map(seconds),
    ),
    (
        "token_expires_in_seconds",
        "Time until the token expires by the server's clock, negative afterwards; absent if it does not.",
        RunnerStatus::expires_in_secs,
    ),
    (
        "last_verify_timestamp_seconds",
        "Server time of the last verification, answered or not; absent if there was none.",
        |status, _| status.report.last_verify.as_ref().map(|verify| seconds(verify.at)),
    ),
    ("last_rotation_timestamp_seconds", "Server time of the last rotation; absent if there was none.", |status, _| {
        status.last_rotation_at.map(seconds)
    }),
];

/// Encodes all metrics at `reading`.
///
/// # Errors
/// None is known, because all names are constants.
pub fn metrics(counters: &Counters, registry: &StatusRegistry, reading: Reading) -> Result<String, prometheus::Error> {
    let mut families = counters.registry().gather();
    families.extend(gauges(&registry.runners(), reading).gather());
    families.sort_by(|one, other| one.name().cmp(other.name()));
    TextEncoder::new().encode_to_string(&families)
}

fn gauges(runners: &[RunnerStatus], reading: Reading) -> Registry {
    let gauges = Registry::new();
    let gauge = |name: &str, help: &str, labels: &[&str]| {
        registered(&gauges, GaugeVec::new(Opts::new(format!("runner_agent_{name}"), help), labels))
    };
    gauge("build_info", "The running version; the value is always 1.", &["version"])
        .with_label_values(&[env!("CARGO_PKG_VERSION")])
        .set(1.0);
    let help = "Server time minus local time at the last response with a date, accurate to a second.";
    let clock_skew = gauge("clock_skew_seconds", help, &["host"]);
    let state_labels = [RUNNER.as_slice(), &["state"]].concat();
    let state = gauge("state", "1 for the runner's current state, 0 for all others.", &state_labels);
    let runner_gauges = RUNNER_GAUGES.map(|(name, help, value)| (gauge(name, help, &RUNNER), value));
    for status in runners {
        let id = status.report.id.map(|id| id.to_string()).unwrap_or_default();
        for (gauge, value) in &runner_gauges {
            if let Some(value) = value(status, reading) {
                gauge.with_label_values(&[&id, &status.label, &status.host]).set(value);
            }
        }
        for name in STATES {
            let value = f64::from(u8::from(name == status.report.state));
            state.with_label_values(&[&id, &status.label, &status.host, name.as_str()]).set(value);
        }
        if let Some(millis) = status.skew_millis {
            clock_skew.with_label_values(&[&status.host]).set(millis as f64 / 1000.0);
        }
    }
    gauges
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
