//! Counters of what has happened since the process started.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use crate::model::{ServerUrl, named_enum};

named_enum! {
    /// The result of an operation.
    pub enum OperationOutcome {
        /// It succeeded.
        Done = "done",
        /// Another process had done it already, and its token was adopted.
        Adopted = "adopted",
        /// The server returned the current token.
        Unchanged = "unchanged",
        /// Not requested, because it would lock out another machine.
        Withheld = "withheld",
        /// The server refused.
        Refused = "refused",
        /// The answer was lost, so the operation may have been executed.
        Lost = "lost",
        /// It was not executed and will be retried.
        Failed = "failed",
    }
}

named_enum! {
    /// What has come of an attempt of a hook.
    pub enum HookOutcome {
        /// It has succeeded.
        Done = "done",
        /// It has failed and is tried again.
        Failed = "failed",
        /// It has failed for the last time, and the event was dropped.
        Dropped = "dropped",
    }
}

/// An operation that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Replacing the token before its expiry.
    Rotation,
    /// Registering the runner.
    Registration,
    /// Recovering the runner after its token was refused.
    Recovery,
}

/// The counters. Clones share them.
#[derive(Clone, Debug)]
pub struct Counters {
    registry: Registry,
    rotations: IntCounterVec,
    registrations: IntCounterVec,
    recoveries: IntCounterVec,
    config_writes: IntCounterVec,
    access_rotations: IntCounterVec,
    hooks: IntCounterVec,
    requests: IntCounterVec,
    durations: HistogramVec,
    disk_jobs: Histogram,
}

/// The upper bounds of the request histogram in seconds, from a nearby server to the request timeout.
const DURATION_BUCKETS: [f64; 9] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// The upper bounds of the histogram of the disk thread's jobs in seconds: from a read to the time after which a job that
/// has not ended counts as stuck.
const DISK_JOB_BUCKETS: [f64; 8] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 90.0];

/// What can become of a rotation of an access token.
const ACCESS_OUTCOMES: [OperationOutcome; 4] =
    [OperationOutcome::Done, OperationOutcome::Refused, OperationOutcome::Lost, OperationOutcome::Failed];

impl Counters {
    /// Creates counters at zero. Every outcome has a series from the start, so the first event is an increase.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let operations = |name, help| {
            let counter = counter(&registry, &format!("runner_agent_{name}_total"), help, &["outcome"]);
            for outcome in OperationOutcome::ALL {
                let _zero = counter.with_label_values(&[outcome.as_str()]);
            }
            counter
        };
        let rotations = operations("rotations", "Token rotations before expiry.");
        let registrations = operations("registrations", "Registrations of enrolled runners.");
        let recoveries = operations("recoveries", "Recoveries from a refused token, by a reset or a new registration.");
        let config_writes =
            counter(&registry, "runner_agent_config_writes_total", "Attempted changes of config.toml.", &["outcome"]);
        for outcome in [OperationOutcome::Done, OperationOutcome::Failed] {
            let _zero = config_writes.with_label_values(&[outcome.as_str()]);
        }
        let access_rotations = counter(
            &registry,
            "runner_agent_access_token_rotations_total",
            "Rotations of the access token of a server.",
            &["server", "outcome"],
        );
        let hooks = counter(&registry, "runner_agent_hooks_total", "Attempts of a hook.", &["hook", "outcome"]);
        let requests = counter(
            &registry,
            "runner_agent_api_requests_total",
            "Completed requests to GitLab, answered or not.",
            &["endpoint", "outcome"],
        );
        let duration = HistogramOpts::new(
            "runner_agent_api_request_duration_seconds",
            "Time until a request to GitLab was answered or failed.",
        );
        let durations =
            registered(&registry, HistogramVec::new(duration.buckets(DURATION_BUCKETS.to_vec()), &["endpoint"]));
        let disk_job = HistogramOpts::new(
            "runner_agent_disk_job_seconds",
            "Time that a finished job on config.toml or the state directory has taken.",
        );
        let disk_jobs = registered(&registry, Histogram::with_opts(disk_job.buckets(DISK_JOB_BUCKETS.to_vec())));
        Self {
            registry,
            rotations,
            registrations,
            recoveries,
            config_writes,
            access_rotations,
            hooks,
            requests,
            durations,
            disk_jobs,
        }
    }

    /// Counts an operation.
    pub fn count_operation(&self, operation: Operation, outcome: OperationOutcome) {
        let counter = match operation {
            Operation::Rotation => &self.rotations,
            Operation::Registration => &self.registrations,
            Operation::Recovery => &self.recoveries,
        };
        counter.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Counts an attempt to change config.toml.
    pub fn count_config_write(&self, is_written: bool) {
        let outcome = if is_written { OperationOutcome::Done } else { OperationOutcome::Failed };
        self.config_writes.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Counts a job of the disk thread that has ended.
    pub fn count_disk_job(&self, took: Duration) {
        self.disk_jobs.observe(took.as_secs_f64());
    }

    /// Gives a server whose access token is rotated its series.
    pub fn expect_access_rotations(&self, server: &ServerUrl) {
        for outcome in ACCESS_OUTCOMES {
            let _zero = self.access_rotations.with_label_values(&[server.as_str(), outcome.as_str()]);
        }
    }

    /// Counts a rotation of a server's access token.
    pub fn count_access_rotation(&self, server: &ServerUrl, outcome: OperationOutcome) {
        self.access_rotations.with_label_values(&[server.as_str(), outcome.as_str()]).inc();
    }

    /// Gives a hook its series.
    pub fn expect_hook(&self, hook: &str) {
        for outcome in HookOutcome::ALL {
            let _zero = self.hooks.with_label_values(&[hook, outcome.as_str()]);
        }
    }

    /// Counts an attempt of a hook.
    pub fn count_hook(&self, hook: &str, outcome: HookOutcome) {
        self.hooks.with_label_values(&[hook, outcome.as_str()]).inc();
    }

    /// Counts a request. Both labels have a fixed set of values.
    pub fn count_request(&self, endpoint: &'static str, outcome: &'static str, took: Duration) {
        self.requests.with_label_values(&[endpoint, outcome]).inc();
        self.durations.with_label_values(&[endpoint]).observe(took.as_secs_f64());
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

fn counter(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

/// Adds a metric to a registry.
#[expect(clippy::expect_used, reason = "every name is a distinct, well-formed constant")]
pub(super) fn registered<M: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<M>) -> M {
    let metric = metric.expect("a well-formed name");
    registry.register(Box::new(metric.clone())).expect("a distinct name");
    metric
}
