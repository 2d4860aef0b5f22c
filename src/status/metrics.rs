//! The metrics in the Prometheus text format 0.0.4.
//!
//! The gauges are built from the [`StatusRegistry`] for each scrape, so a removed runner leaves no series. They are made
//! and encoded in pages of runners, each metric by itself, as the format wants.

use std::collections::BTreeMap;
use std::ops::Range;
use std::vec;

use prometheus::TextEncoder;
use prometheus::proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::counters::Counters;
use super::pages::{PAGE, Page, PageError};
use super::registry::{RunnerStatus, StatusRegistry};
use crate::clock::Reading;
use crate::model::{AccessTokenReport, StateName, Timestamp};

/// The content type.
pub(super) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The labels that identify a runner, stable across rotations, in the order of the text.
const RUNNER: [&str; 3] = ["host", "id", "name"];

/// The values of these labels.
type RunnerLabels = [String; 3];

/// The possible states of a served runner, in the order of the text.
const STATES: [StateName; 7] = [
    StateName::Active,
    StateName::Failed,
    StateName::NotRenewable,
    StateName::Rejected,
    StateName::Retired,
    StateName::Uncertain,
    StateName::Unregistered,
];

/// A gauge of a runner: name, help text and value. It has no series while there is no value.
type RunnerGauge = (&'static str, &'static str, fn(&RunnerStatus, Reading) -> Option<f64>);

const RUNNER_GAUGES: [RunnerGauge; 6] = [
    (
        "token_obtained_timestamp_seconds",
        "Server time at which the token was issued, with the expiry its life; absent if it is not known.",
        |status, _| status.report.token_obtained_at.map(seconds),
    ),
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
    (
        "next_rotation_timestamp_seconds",
        "Server time from which the next rotation is due, past while it fails; absent if none is planned.",
        |status, _| status.next_rotation_at.map(seconds),
    ),
];

/// The same of shared runners.
const SHARED_GAUGES: [RunnerGauge; 4] = [
    ("sharing_generation", "Generation of the shared runner's token on this machine.", |status, _| {
        Some(status.report.sharing.as_ref()?.generation? as f64)
    }),
    ("sharing_members", "Machines that share the runner; absent until its store has answered.", |status, _| {
        Some(status.report.sharing.as_ref()?.members? as f64)
    }),
    (
        "sharing_last_contact_timestamp_seconds",
        "Server time of the last answer of the shared runner's store; absent if there was none.",
        |status, _| status.report.sharing.as_ref()?.contact_at.map(seconds),
    ),
    ("sharing_store_up", "1 if the store of the shared runner can be used, else 0.", |status, _| {
        let sharing = status.report.sharing.as_ref()?;
        Some(f64::from(u8::from(sharing.problem.is_none() && sharing.contact_at.is_some())))
    }),
];

/// A value with labels beside those of the runner.
type Labelled = (Vec<LabelPair>, f64);

/// A gauge of a runner with labels of its own: name, help text, and the labels with the value.
type LabelledGauge = (&'static str, &'static str, fn(&RunnerStatus) -> Option<Labelled>);

/// The same of shared runners. Each runner has one series, however many machines share it.
const SHARED_INFO: [LabelledGauge; 2] = [
    ("sharing_info", "Name and engine of the shared runner's store; the value is always 1.", |status| {
        let sharing = status.report.sharing.as_ref()?;
        let engine = label("engine", sharing.engine.as_deref().unwrap_or_default());
        Some((vec![engine, label("share", sharing.share.as_str())], 1.0))
    }),
    (
        "sharing_changing",
        "1 while the machine in the label changes the shared runner, 0 if it was the last that did; absent until one is known.",
        |status| {
            let sharing = status.report.sharing.as_ref()?;
            let machine = sharing.changing.as_ref().or(sharing.changed_by.as_ref())?;
            Some((vec![label("machine", machine)], f64::from(u8::from(sharing.changing.is_some()))))
        },
    ),
];

/// Encodes all metrics at `reading`.
///
/// # Errors
/// None is known, because all names are constants.
pub fn metrics(
    counters: &Counters,
    registry: &StatusRegistry,
    reading: Reading,
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    pages(counters, registry, reading).collect()
}

/// The same in pages.
pub(super) fn pages(counters: &Counters, registry: &StatusRegistry, reading: Reading) -> Pages {
    Pages {
        numbers: registry.numbers(),
        counters: counters.clone(),
        registry: registry.clone(),
        reading,
        by_labels: BTreeMap::new(),
        skews: BTreeMap::new(),
        has_shared: false,
        stage: Stage::Listing,
    }
}

/// Lists the runners in the order of the text, a page at a time, then encodes one metric after the other.
pub(super) struct Pages {
    counters: Counters,
    registry: StatusRegistry,
    reading: Reading,
    /// The runners that are to be listed.
    numbers: Range<u64>,
    by_labels: BTreeMap<RunnerLabels, u64>,
    /// Server time minus local time in milliseconds, of each host.
    skews: BTreeMap<String, i64>,
    /// Whether any runner is shared.
    has_shared: bool,
    stage: Stage,
}

enum Stage {
    Listing,
    Encoding {
        /// The runners with their numbers, in the order of their labels.
        runners: Vec<(RunnerLabels, u64)>,
        /// The metrics that are left, by name.
        families: vec::IntoIter<Family>,
        /// The metric under way, how many of its runners are done, and whether its header is.
        present: Option<(Family, usize, bool)>,
    },
}

/// A metric: its name and help text without samples, or with all of them, and where those come from.
struct Family {
    family: MetricFamily,
    source: SampleSource,
}

enum SampleSource {
    /// The family has them.
    Present,
    Runners(fn(&RunnerStatus, Reading) -> Option<f64>),
    Labelled(fn(&RunnerStatus) -> Option<Labelled>),
    States,
}

impl Iterator for Pages {
    type Item = Page;

    fn next(&mut self) -> Option<Page> {
        match self.stage {
            Stage::Listing if !self.numbers.is_empty() => {
                self.list();
                Some(Ok(String::new()))
            }
            Stage::Listing => {
                let families = self.families().into_iter();
                let runners = std::mem::take(&mut self.by_labels).into_iter().collect();
                self.stage = Stage::Encoding { runners, families, present: None };
                self.encode()
            }
            Stage::Encoding { .. } => self.encode(),
        }
    }
}

impl Pages {
    /// Lists a page of runners.
    fn list(&mut self) {
        let identify = |number, status: &RunnerStatus| {
            let id = status.report.id.map(|id| id.to_string()).unwrap_or_default();
            let is_shared = status.report.sharing.is_some();
            ([status.host(), id, status.label().to_owned()], number, status.skew_millis, is_shared)
        };
        for (labels, number, skew, is_shared) in self.registry.page(&mut self.numbers, PAGE, identify) {
            if let Some(skew) = skew {
                self.skews.insert(labels[0].clone(), skew);
            }
            self.has_shared |= is_shared;
            self.by_labels.insert(labels, number);
        }
    }

    /// All metrics by name.
    fn families(&self) -> Vec<Family> {
        let present = |family| Family { family, source: SampleSource::Present };
        let version = [label("version", env!("CARGO_PKG_VERSION"))];
        let skews = self.skews.iter().map(|(host, millis)| gauge([label("host", host)], *millis as f64 / 1000.0));
        let mut families: Vec<_> = self.counters.registry().gather().into_iter().map(present).collect();
        families.push(present(family(
            "build_info",
            "The running version; the value is always 1.",
            vec![gauge(version, 1.0)],
        )));
        families.push(present(family(
            "clock_skew_seconds",
            "Server time minus local time at the last response with a date, accurate to a second.",
            skews.collect(),
        )));
        let daemon = self.registry.daemon();
        let expiry = |report: &AccessTokenReport| {
            Some(gauge([label("server", report.server.as_str())], seconds(report.expires_at?)))
        };
        families.push(present(family(
            "access_token_expiry_timestamp_seconds",
            "Server time at which the access token of a server expires; absent if it does not, or is not known.",
            daemon.access_tokens.iter().filter_map(expiry).collect(),
        )));
        let is_in_force = daemon.settings_error.is_none() && daemon.config_error.is_none();
        families.push(present(family(
            "config_last_reload_successful",
            "1 if the last reading of agent.toml and config.toml was successful, else 0.",
            vec![gauge(None, f64::from(u8::from(is_in_force)))],
        )));
        let in_force = |error: Option<String>| vec![gauge(None, f64::from(u8::from(error.is_none())))];
        families.push(present(family(
            "settings_in_force",
            "1 if agent.toml as it is on the disk is in force, 0 if it is invalid.",
            in_force(daemon.settings_error),
        )));
        families.push(present(family(
            "config_in_force",
            "1 if config.toml as it is on the disk is in force, 0 if it cannot be read.",
            in_force(daemon.config_error),
        )));
        families.push(Family {
            family: family("state", "1 for the runner's current state, 0 for all others.", Vec::new()),
            source: SampleSource::States,
        });
        let shared = SHARED_GAUGES.into_iter().filter(|_| self.has_shared);
        families.extend(RUNNER_GAUGES.into_iter().chain(shared).map(|(name, help, value)| Family {
            family: family(name, help, Vec::new()),
            source: SampleSource::Runners(value),
        }));
        let labelled = SHARED_INFO.into_iter().filter(|_| self.has_shared);
        families.extend(labelled.map(|(name, help, value)| Family {
            family: family(name, help, Vec::new()),
            source: SampleSource::Labelled(value),
        }));
        families.sort_by(|one, other| one.family.name().cmp(other.family.name()));
        families
    }

    /// Encodes the next page; `None` after the last.
    fn encode(&mut self) -> Option<Page> {
        let Stage::Encoding { runners, families, present } = &mut self.stage else { return None };
        let (metric, done, has_header) = match present {
            Some(present) => present,
            None => present.insert((families.next()?, 0, false)),
        };
        let page = &runners[*done..runners.len().min(*done + PAGE)];
        let (registry, reading) = (&self.registry, self.reading);
        let samples = match metric.source {
            SampleSource::Present => metric.family.take_metric(),
            SampleSource::Runners(value) => gauges(registry, page, |status| value(status, reading)),
            SampleSource::Labelled(value) => labelled(registry, page, value),
            SampleSource::States => states(registry, page),
        };
        *done += page.len();
        let is_last = *done >= runners.len() || matches!(metric.source, SampleSource::Present);
        // A metric without samples has no header either.
        let text =
            if samples.is_empty() { Ok(String::new()) } else { encoded(&mut metric.family, samples, has_header) };
        if is_last {
            *present = None;
        }
        Some(text)
    }
}

/// The samples of a gauge of these runners. One that is gone, or has no value, has none.
fn gauges(
    registry: &StatusRegistry,
    runners: &[(RunnerLabels, u64)],
    value: impl Fn(&RunnerStatus) -> Option<f64>,
) -> Vec<Metric> {
    let values = registry.look_up(runners.iter().map(|(_, number)| *number), |status| value(status?));
    let valued = runners.iter().zip(values).filter_map(|((labels, _), value)| Some((labels, value?)));
    valued.map(|(labels, value)| gauge(of_runner(labels), value)).collect()
}

/// The same of a gauge with labels of its own.
fn labelled(
    registry: &StatusRegistry,
    runners: &[(RunnerLabels, u64)],
    value: impl Fn(&RunnerStatus) -> Option<Labelled>,
) -> Vec<Metric> {
    let values = registry.look_up(runners.iter().map(|(_, number)| *number), |status| value(status?));
    let valued = runners.iter().zip(values).filter_map(|((labels, _), value)| Some((labels, value?)));
    let of_value = |(labels, (own, value)): (_, Labelled)| {
        let mut labels: Vec<_> = of_runner(labels).into_iter().chain(own).collect();
        labels.sort_by(|one, other| one.name().cmp(other.name()));
        gauge(labels, value)
    };
    valued.map(of_value).collect()
}

/// The samples that say in which state these runners are.
fn states(registry: &StatusRegistry, runners: &[(RunnerLabels, u64)]) -> Vec<Metric> {
    let states = registry.look_up(runners.iter().map(|(_, number)| *number), |status| Some(status?.report.state));
    let present = runners.iter().zip(states).filter_map(|((labels, _), state)| Some((labels, state?)));
    let of_state = |(labels, present): (_, StateName)| {
        STATES.map(|state| {
            let labels = of_runner(labels).into_iter().chain([label("state", state.as_str())]);
            gauge(labels, f64::from(u8::from(state == present)))
        })
    };
    present.flat_map(of_state).collect()
}

/// Encodes samples of a metric, the first time with its header.
fn encoded(family: &mut MetricFamily, samples: Vec<Metric>, has_header: &mut bool) -> Page {
    family.set_metric(samples);
    let text = TextEncoder::new().encode_to_string(std::slice::from_ref(family)).map_err(PageError::from)?;
    family.set_metric(Vec::new());
    if !std::mem::replace(has_header, true) {
        return Ok(text);
    }
    // The crate writes the help text and the type, a line each, before the samples.
    Ok(text.splitn(3, '\n').nth(2).unwrap_or_default().to_owned())
}

fn family(name: &str, help: &str, samples: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(format!("runner_agent_{name}"));
    family.set_help(help.to_owned());
    family.set_field_type(MetricType::GAUGE);
    family.set_metric(samples);
    family
}

fn gauge(labels: impl IntoIterator<Item = LabelPair>, value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(labels.into_iter().collect());
    metric.set_gauge(gauge);
    metric
}

fn of_runner(labels: &RunnerLabels) -> impl IntoIterator<Item = LabelPair> {
    std::array::from_fn::<_, 3, _>(|at| label(RUNNER[at], &labels[at]))
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}

fn seconds(at: Timestamp) -> f64 {
    at.as_millis() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::{GaugeVec, Opts, Registry};

    use super::*;
    use crate::model::{AccessTokenState, SharingReport};
    use crate::status::Phase;
    use crate::status::counters::registered;
    use crate::status::tests::{key, now, status};
    use crate::status::{HookOutcome, Operation, OperationOutcome};

    fn text(registry: &StatusRegistry) -> String {
        metrics(&Counters::new(), registry, now()).unwrap()
    }

    fn shared() -> RunnerStatus {
        let mut status = status("docker", Some(9), StateName::Active);
        status.report.sharing = Some(Box::new(SharingReport {
            engine: Some("etcd".to_owned()),
            generation: Some(3),
            changed_by: Some("s_0123456789ab".to_owned()),
            members: Some(20),
            contact_at: status.report.last_verify.as_ref().map(|verify| verify.at),
            ..SharingReport::new("docker-fleet".parse().unwrap())
        }));
        status
    }

    fn access_token() -> AccessTokenReport {
        AccessTokenReport {
            server: "https://gitlab.example.com".parse().unwrap(),
            source: "/var/lib/runner-agent/access-token".to_owned(),
            state: AccessTokenState::Active,
            token_fingerprint: None,
            name: None,
            scopes: None,
            missing_scopes: Vec::new(),
            expires_at: Some(Timestamp::from_date("2027-01-31").unwrap()),
            next_rotation_at: None,
            rotates: true,
            rotations: 0,
            asked_at: None,
            last_error: None,
        }
    }

    #[test]
    fn the_text_is_what_dashboards_rely_on() {
        let (counters, registry) = (Counters::new(), StatusRegistry::default());
        counters.count_request("verify", "ok", Duration::from_millis(20));
        counters.count_request("verify", "timeout", Duration::from_secs(31));
        counters.count_operation(Operation::Rotation, OperationOutcome::Done);
        counters.count_config_write(true);
        counters.count_disk_job(Duration::from_millis(2));
        counters.expect_access_rotations(&access_token().server);
        counters.expect_hook("log");
        counters.count_hook("log", HookOutcome::Done);
        registry.report_access_token(access_token());
        registry.enter(Phase::Serving);
        registry.update(status("build-1", Some(7), StateName::Active));
        registry.update(status("a \"quoted\"\nname", None, StateName::Unregistered));
        registry.update(shared());
        let text = metrics(&counters, &registry, now()).unwrap().replace(env!("CARGO_PKG_VERSION"), "VERSION");
        insta::assert_snapshot!(text);
    }

    /// All metrics as the crate encodes them at once.
    fn at_once(counters: &Counters, runners: &[RunnerStatus], reading: Reading) -> String {
        let gauges = Registry::new();
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            registered(&gauges, GaugeVec::new(Opts::new(format!("runner_agent_{name}"), help), labels))
        };
        let info = gauge("build_info", "The running version; the value is always 1.", &["version"]);
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        let help = "Server time minus local time at the last response with a date, accurate to a second.";
        let clock_skew = gauge("clock_skew_seconds", help, &["host"]);
        for (name, help) in [
            (
                "config_last_reload_successful",
                "1 if the last reading of agent.toml and config.toml was successful, else 0.",
            ),
            ("settings_in_force", "1 if agent.toml as it is on the disk is in force, 0 if it is invalid."),
            ("config_in_force", "1 if config.toml as it is on the disk is in force, 0 if it cannot be read."),
        ] {
            gauge(name, help, &[]).with_label_values::<&str>(&[]).set(1.0);
        }
        let state_labels = [RUNNER.as_slice(), &["state"]].concat();
        let state = gauge("state", "1 for the runner's current state, 0 for all others.", &state_labels);
        let known = RUNNER_GAUGES.into_iter().chain(SHARED_GAUGES);
        let runner_gauges: Vec<_> = known.map(|(name, help, value)| (gauge(name, help, &RUNNER), value)).collect();
        let info_gauges = SHARED_INFO.map(|(name, help, value)| {
            let own = if name == "sharing_info" { ["engine", "share"].as_slice() } else { &["machine"] };
            (gauge(name, help, &[RUNNER.as_slice(), own].concat()), value)
        });
        for status in runners {
            let id = status.report.id.map(|id| id.to_string()).unwrap_or_default();
            let (host, label) = (status.host(), status.label());
            for (gauge, value) in &runner_gauges {
                if let Some(value) = value(status, reading) {
                    gauge.with_label_values(&[host.as_str(), &id, label]).set(value);
                }
            }
            for (gauge, value) in &info_gauges {
                if let Some((own, value)) = value(status) {
                    let labels = [host.as_str(), &id, label].into_iter().chain(own.iter().map(LabelPair::value));
                    gauge.with_label_values(&labels.collect::<Vec<_>>()).set(value);
                }
            }
            for name in STATES {
                let value = f64::from(u8::from(name == status.report.state));
                state.with_label_values(&[host.as_str(), &id, label, name.as_str()]).set(value);
            }
            if let Some(millis) = status.skew_millis {
                clock_skew.with_label_values(&[host.as_str()]).set(millis as f64 / 1000.0);
            }
        }
        let mut families = counters.registry().gather();
        families.extend(gauges.gather());
        families.sort_by(|one, other| one.name().cmp(other.name()));
        TextEncoder::new().encode_to_string(&families).unwrap()
    }

    #[test]
    fn the_pages_are_byte_for_byte_what_the_crate_encodes_at_once() {
        let counters = Counters::new();
        counters.count_request("verify", "ok", Duration::from_millis(20));
        for count in [0, 1, PAGE, 3 * PAGE + 1] {
            let registry = StatusRegistry::default();
            for number in 0..count {
                let id = u64::try_from(number * 7919 % 1000).ok().filter(|id| *id > 0 && number % 5 > 0);
                let state = STATES[number % STATES.len()];
                let name = format!("{}-\\\"{}\"", number % 3, number);
                let mut status = status(&name, id, state);
                status.report.url = format!("https://gitlab-{}.example.com", number % 11).parse().ok();
                status.skew_millis = status.skew_millis.map(|_| i64::try_from(number).unwrap());
                status.key = key(&format!("k-{number}"));
                status.report.sharing = shared().report.sharing.filter(|_| number % 7 == 2);
                registry.update(status);
            }
            let whole = at_once(&counters, &registry.runners(), now());
            assert_eq!(metrics(&counters, &registry, now()).unwrap(), whole, "{count} runners");
        }
    }

    #[test]
    fn shared_runner_has_one_series_that_names_the_machine_which_changes_it_or_did_last() {
        let registry = StatusRegistry::default();
        let changing = |changing: Option<&str>, changed_by: Option<&str>| {
            let mut status = shared();
            let sharing = status.report.sharing.as_mut().unwrap();
            (sharing.changing, sharing.changed_by) = (changing.map(str::to_owned), changed_by.map(str::to_owned));
            registry.update(status);
            let text = text(&registry);
            let lines = text.lines().filter(|line| line.starts_with("runner_agent_sharing_changing{"));
            lines
                .map(|line| line.split("machine=").nth(1).unwrap().replace(",name=\"docker\"}", ""))
                .collect::<Vec<_>>()
        };
        assert_eq!(changing(None, None), [""; 0]);
        assert_eq!(changing(None, Some("s_a")), ["\"s_a\" 0"]);
        assert_eq!(changing(Some("s_b"), Some("s_a")), ["\"s_b\" 1"]);
        assert_eq!(changing(None, Some("s_b")), ["\"s_b\" 0"]);
    }

    #[test]
    fn a_reload_is_successful_if_both_files_could_be_read() {
        let registry = StatusRegistry::default();
        let value = |registry: &StatusRegistry| {
            let text = text(registry);
            let line =
                text.lines().find(|line| line.starts_with("runner_agent_config_last_reload_successful ")).unwrap();
            line.rsplit(' ').next().unwrap().to_owned()
        };
        assert_eq!(value(&registry), "1");
        let error = "line 3: unknown key".to_owned();
        registry.report_settings(Some(&error));
        assert_eq!(value(&registry), "0");
        registry.report_settings(None);
        registry.report_config(Some(&error));
        assert_eq!(value(&registry), "0");
        registry.report_config(None);
        assert_eq!(value(&registry), "1");
    }

    #[test]
    fn a_removed_runner_leaves_no_series() {
        let registry = StatusRegistry::default();
        let empty = text(&registry);
        registry.update(status("a", Some(1), StateName::Active));
        assert_ne!(text(&registry), empty);
        registry.remove(&key("a"));
        assert_eq!(text(&registry), empty);
    }

    #[test]
    fn every_runner_is_in_exactly_one_state() {
        for state in STATES {
            let registry = StatusRegistry::default();
            registry.update(status("a", Some(1), state));
            let text = text(&registry);
            let states: Vec<_> = text.lines().filter(|line| line.starts_with("runner_agent_state{")).collect();
            assert_eq!(states.len(), STATES.len());
            let current: Vec<_> = states.iter().filter(|line| line.ends_with(" 1")).collect();
            assert!(current.len() == 1 && current[0].contains(&format!("state=\"{state}\"")), "{current:?}");
        }
    }
}
