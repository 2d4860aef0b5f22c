//! The tally: what has happened since the process started, counted where it happens.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

/// How something ended that changes a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationOutcome {
    /// As it should.
    Done,
    /// Somebody else had done it already, and theirs was taken over.
    Adopted,
    /// The server answered with the token that there was.
    Unchanged,
    /// Not asked for, since it would shut out another machine.
    Withheld,
    /// The server declined.
    Refused,
    /// The answer was lost, so that it may have happened.
    Lost,
    /// It did not happen and is tried again.
    Failed,
}

impl OperationOutcome {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Done, Self::Adopted, Self::Unchanged, Self::Withheld, Self::Refused, Self::Lost, Self::Failed];

    /// The value of the label `outcome`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Adopted => "adopted",
            Self::Unchanged => "unchanged",
            Self::Withheld => "withheld",
            Self::Refused => "refused",
            Self::Lost => "lost",
            Self::Failed => "failed",
        }
    }
}

/// What a runner goes through that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Its token was to be replaced in time.
    Rotation,
    /// It was to be made.
    Registration,
    /// It was to be saved although its token was refused.
    Recovery,
}

/// The counters. Clones count together.
#[derive(Clone, Debug)]
pub struct Counters {
    registry: Registry,
    rotations: IntCounterVec,
    registrations: IntCounterVec,
    recoveries: IntCounterVec,
    config_writes: IntCounterVec,
    requests: IntCounterVec,
    durations: HistogramVec,
}

/// The upper bounds of the histogram of requests, in seconds: from a server next door to one that is given up.
const DURATION_BUCKETS: [f64; 9] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

impl Counters {
    /// Nothing has happened yet. What can happen to a runner is shown as zero from the start, so that the
    /// first time is an increase.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let deeds = |what, help| {
            let counter = counter(&registry, &format!("runner_agent_{what}_total"), help, &["outcome"]);
            for outcome in OperationOutcome::ALL {
                let _zero = counter.with_label_values(&[outcome.label()]);
            }
            counter
        };
        let rotations = deeds("rotations", "Rotations of tokens before their expiry.");
        let registrations = deeds("registrations", "Registrations of runners that an enrollment asks for.");
        let recoveries =
            deeds("recoveries", "Recoveries of runners whose token was refused, by a reset or a new registration.");
        let config_writes = counter(
            &registry,
            "runner_agent_config_writes_total",
            "Changes of config.toml that were asked of the disk.",
            &["outcome"],
        );
        for outcome in [OperationOutcome::Done, OperationOutcome::Failed] {
            let _zero = config_writes.with_label_values(&[outcome.label()]);
        }
        let requests = counter(
            &registry,
            "runner_agent_api_requests_total",
            "Requests to GitLab that have ended, answered or not.",
            &["endpoint", "outcome"],
        );
        let durations = durations(&registry);
        Self { registry, rotations, registrations, recoveries, config_writes, requests, durations }
    }

    /// Counts what became of a runner.
    pub fn count_operation(&self, operation: Operation, outcome: OperationOutcome) {
        let counter = match operation {
            Operation::Rotation => &self.rotations,
            Operation::Registration => &self.registrations,
            Operation::Recovery => &self.recoveries,
        };
        counter.with_label_values(&[outcome.label()]).inc();
    }

    /// Counts a change of config.toml.
    pub fn count_config_write(&self, is_done: bool) {
        let outcome = if is_done { OperationOutcome::Done } else { OperationOutcome::Failed };
        self.config_writes.with_label_values(&[outcome.label()]).inc();
    }

    /// Counts a request; both labels are words of a fixed list.
    pub fn count_request(&self, endpoint: &'static str, outcome: &'static str, took: Duration) {
        self.requests.with_label_values(&[endpoint, outcome]).inc();
        let duration: Histogram = self.durations.with_label_values(&[endpoint]);
        duration.observe(took.as_secs_f64());
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

fn durations(registry: &Registry) -> HistogramVec {
    let options = HistogramOpts::new(
        "runner_agent_api_request_duration_seconds",
        "How long requests to GitLab took until they were answered or given up.",
    );
    registered(registry, HistogramVec::new(options.buckets(DURATION_BUCKETS.to_vec()), &["endpoint"]))
}

/// Adds a metric of this room to a registry of this room.
#[expect(clippy::expect_used, reason = "every name is a constant of this room, different and well-formed")]
pub(super) fn registered<M: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<M>) -> M {
    let metric = metric.expect("its name is well-formed");
    registry.register(Box::new(metric.clone())).expect("its name is its own");
    metric
}
