//! The table rows of runners, managers, projects and jobs.

use super::rows::TableRow;
use crate::cli::table::{Cell, Heading, Tone};
use crate::gitlab::fleet::{
    CiJob, ContactStatus, FleetRunner, JobExecution, JobStatus, Manager, Project, RunnerDetails,
};
use crate::model::{Timestamp, format_span};

impl TableRow for FleetRunner {
    const NAME: &'static str = "runners";

    fn headings() -> Vec<Heading> {
        vec![("ID", false), ("STATE", false), ("TYPE", false), ("DESCRIPTION", true), ("CREATED", false)]
    }

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        vec![
            Cell::new(Some(self.id.to_string())),
            state(self),
            kind(self),
            Cell::new(self.description.as_deref()),
            Cell::new(self.created_at.map(|at| ago(at, now))),
        ]
    }
}

impl TableRow for RunnerDetails {
    const NAME: &'static str = "runners";

    fn headings() -> Vec<Heading> {
        vec![
            ("ID", false),
            ("STATE", false),
            ("TYPE", false),
            ("DESCRIPTION", true),
            ("TAGS", true),
            ("VERSION", false),
            ("SEEN", false),
        ]
    }

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        vec![
            Cell::new(Some(self.runner.id.to_string())),
            state(&self.runner),
            kind(&self.runner),
            Cell::new(self.runner.description.as_deref()),
            Cell::new(self.tag_list.as_ref().map(|tags| tags.join(" "))),
            Cell::new(self.version.as_deref()),
            Cell::new(Some(seen(self.contacted_at, now))),
        ]
    }
}

impl TableRow for Manager {
    const NAME: &'static str = "managers";

    fn headings() -> Vec<Heading> {
        vec![
            ("ID", false),
            ("SYSTEM_ID", false),
            ("STATE", false),
            ("VERSION", false),
            ("PLATFORM", true),
            ("ADDRESS", true),
            ("SEEN", false),
        ]
    }

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let platform = match (&self.platform, &self.architecture) {
            (Some(platform), Some(architecture)) => Some(format!("{platform}/{architecture}")),
            (platform, architecture) => platform.clone().or(architecture.clone()),
        };
        vec![
            Cell::new(Some(self.id.to_string())),
            Cell::new(self.system_id.as_deref()),
            state_of(self.status.as_ref(), false, self.job_execution_status.as_ref()),
            Cell::new(self.version.as_deref()),
            Cell::new(platform),
            Cell::new(self.ip_address.as_deref()),
            Cell::new(Some(seen(self.contacted_at, now))),
        ]
    }
}

impl TableRow for Project {
    const NAME: &'static str = "projects";

    fn headings() -> Vec<Heading> {
        vec![("ID", false), ("PATH", true)]
    }

    fn cells(&self, _: Timestamp) -> Vec<Cell> {
        let path = self.path_with_namespace.as_deref().or(self.path.as_deref());
        vec![Cell::new(Some(self.id.to_string())), Cell::new(path)]
    }
}

impl TableRow for CiJob {
    const NAME: &'static str = "jobs";

    fn headings() -> Vec<Heading> {
        vec![
            ("ID", false),
            ("STATUS", false),
            ("PROJECT", true),
            ("NAME", true),
            ("REF", true),
            ("CREATED", false),
            ("TOOK", false),
        ]
    }

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let tone = match &self.status {
            Some(JobStatus::Success) => Some(Tone::Good),
            Some(JobStatus::Failed) => Some(Tone::Bad),
            Some(JobStatus::Canceled | JobStatus::Canceling | JobStatus::Skipped) => Some(Tone::Quiet),
            _ => None,
        };
        let project = self.project.as_ref().and_then(|project| project.path_with_namespace.as_deref());
        let took = self.duration.filter(|secs| secs.is_finite() && *secs >= 0.0);
        let took = took.and_then(|secs| std::time::Duration::try_from_secs_f64(secs).ok()).map(format_span);
        vec![
            Cell::new(Some(self.id.to_string())),
            Cell::new(self.status.as_ref().map(JobStatus::as_str)).toned(tone),
            Cell::new(project),
            Cell::new(self.name.as_deref()),
            Cell::new(self.reference.as_deref()),
            Cell::new(self.created_at.map(|at| ago(at, now))),
            Cell::new(took),
        ]
    }
}

fn kind(runner: &FleetRunner) -> Cell {
    Cell::new(runner.runner_type.as_ref().map(|kind| kind.as_str().trim_end_matches("_type")))
}

/// A runner's state, coloured.
pub(super) fn state(runner: &FleetRunner) -> Cell {
    state_of(runner.status.as_ref(), runner.is_paused() == Some(true), runner.job_execution_status.as_ref())
}

fn state_of(status: Option<&ContactStatus>, is_paused: bool, execution: Option<&JobExecution>) -> Cell {
    let contact = status.filter(|status| **status != ContactStatus::Paused);
    let tone = match contact {
        _ if is_paused => Some(Tone::Quiet),
        Some(ContactStatus::Online) => Some(Tone::Good),
        Some(ContactStatus::Offline) => Some(Tone::Bad),
        Some(ContactStatus::Stale | ContactStatus::NeverContacted | ContactStatus::NotConnected) => {
            Some(Tone::Doubtful)
        }
        _ => None,
    };
    let mut words = Vec::new();
    if is_paused || status == Some(&ContactStatus::Paused) {
        words.push("paused".to_owned());
    }
    words.extend(contact.map(|status| status.as_str().replace('_', " ")));
    if execution == Some(&JobExecution::Active) {
        words.push("busy".to_owned());
    }
    Cell::new(Some(words.join(", "))).toned(tone)
}

/// How long ago a runner contacted the server, or `never`.
pub(super) fn seen(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map_or_else(|| "never".to_owned(), |at| ago(at, now))
}

/// `3d 4h ago`.
pub(super) fn ago(at: Timestamp, now: Timestamp) -> String {
    match now.since(at) {
        span if span.as_secs() == 0 => "now".to_owned(),
        span => format!("{} ago", format_span(span)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_state_has_words_and_a_tone() {
        for (runner, words, tone) in [
            (json!({ "id": 1, "status": "online" }), "online", Some(Tone::Good)),
            (
                json!({ "id": 1, "status": "online", "job_execution_status": "active" }),
                "online, busy",
                Some(Tone::Good),
            ),
            (json!({ "id": 1, "status": "never_contacted", "online": null }), "never contacted", Some(Tone::Doubtful)),
            (json!({ "id": 1, "status": "paused", "paused": true }), "paused", Some(Tone::Quiet)),
            (json!({ "id": 1, "status": "offline", "active": false }), "paused, offline", Some(Tone::Quiet)),
            (json!({ "id": 1, "status": "offline" }), "offline", Some(Tone::Bad)),
            (json!({ "id": 1, "status": "hibernating" }), "hibernating", None),
            (json!({ "id": 1 }), "-", None),
        ] {
            let runner: FleetRunner = serde_json::from_value(runner).unwrap();
            assert_eq!(state(&runner), Cell::new(Some(words)).toned(tone));
        }
    }

    #[test]
    fn times_are_shown_relative_to_now() {
        let now: Timestamp = "2027-01-15T08:00:00Z".parse().unwrap();
        let at = |text: &str| text.parse().unwrap();
        assert_eq!(ago(at("2027-01-12T04:00:00Z"), now), "3d 4h ago");
        assert_eq!(ago(at("2027-01-16T00:00:00Z"), now), "now");
        assert_eq!(seen(None, now), "never");
    }
}
