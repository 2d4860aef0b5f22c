//! Which occurrences become events, and with which text: the one place that makes them.

use crate::engine::StepReport;
use crate::lifecycle::{Outcome, State, Step};
use crate::model::{AccessTokenReport, EventKind, RunnerId, StateName, Timestamp};
use crate::ops::{AccessEvent, Runner};
use crate::status::StatusRegistry;

/// Records events of one runner.
pub(super) struct RunnerEvents<'a> {
    pub(super) registry: &'a StatusRegistry,
    pub(super) runner: &'a Runner,
    /// The server's time.
    pub(super) now: Timestamp,
}

impl RunnerEvents<'_> {
    fn record(&self, kind: EventKind, text: &str) {
        self.registry.record_event(self.now, Some(self.runner.label()), kind, text);
    }

    /// Records what a step did. Returns whether it was an event.
    pub(super) fn record_step(&self, report: &StepReport) -> bool {
        let id = self.runner.record.id.map(RunnerId::number);
        let by_id = id.map(|id| format!(" as runner {id}")).unwrap_or_default();
        let (kind, text) = match (report.step, report.outcomes.first()) {
            (Step::Register, Some(Outcome::Registered(_))) => (EventKind::Registered, format!("registered{by_id}")),
            (Step::RegisterAgain, Some(Outcome::Registered(_))) => (
                EventKind::Recovered,
                format!("registered again{by_id}, into the same entry; the old runner may be deleted in GitLab"),
            ),
            (Step::Rotate, Some(Outcome::Rotated(validity))) => {
                let expires = validity.expiry.at().map(|at| format!("; the new one expires at {}", at.whole_seconds()));
                (EventKind::Rotated, format!("the token was rotated{}", expires.unwrap_or_default()))
            }
            (Step::ResetById, Some(Outcome::Rotated(_))) => {
                (EventKind::Recovered, "the token was reset with the access token".to_owned())
            }
            (_, Some(Outcome::Adopted(_))) => (EventKind::Adopted, REPLACED.to_owned()),
            _ => return false,
        };
        self.record(kind, &text);
        true
    }

    /// Records that another process has replaced the token.
    pub(super) fn record_replacement(&self) {
        self.record(EventKind::Adopted, REPLACED);
    }

    /// Records that a state was entered; `problem` is what a person should know of it.
    pub(super) fn record_transition(&self, before: StateName, state: &State, problem: Option<&str>) {
        let problem = problem.unwrap_or_default();
        match state {
            // A registration is an event of its step, and the end of an unregistration of the runner's dismissal.
            State::Unregistered(_) | State::Retired { .. } => {}
            State::Active(_) => match before {
                StateName::Rejected | StateName::Failed | StateName::NotRenewable | StateName::Uncertain => {
                    self.record(EventKind::Recovered, "the server accepts its token");
                }
                StateName::Unregistered
                | StateName::Active
                | StateName::Retired
                | StateName::Expired
                | StateName::Unusable
                | StateName::Unknown => {}
            },
            State::Uncertain(_) => self.record(EventKind::Uncertain, problem),
            State::Rejected(_) => self.record(EventKind::Rejected, problem),
            State::NotRenewable(_) => self.record(EventKind::NotRenewable, problem),
            State::Failed(_) => self.record(EventKind::NeedsAttention, problem),
        }
    }

    /// Records that a step begins to fail.
    pub(super) fn record_failure(&self, step: Step, why: &str) {
        self.record(EventKind::Failing, &format!("{} fails: {why}", step.as_str().replace('_', " ")));
    }

    /// Records that a step has succeeded after it failed.
    pub(super) fn record_success(&self) {
        self.record(EventKind::WorksAgain, "works again");
    }

    /// Records that the runner is no longer served.
    pub(super) fn record_dismissal(&self) {
        if self.runner.is_unregistered() {
            self.record(EventKind::Unregistered, "unregistered by another process");
        } else {
            self.record(EventKind::Released, "no longer served");
        }
    }

    /// Records that a stop has unregistered it.
    pub(super) fn record_unregistration(&self) {
        self.record(EventKind::Unregistered, "unregistered");
    }
}

const REPLACED: &str = "another process has replaced the token";

/// Records why the settings on the disk are not in force, unless that is known; `error` has one sentence per line.
pub(super) fn record_settings_error(registry: &StatusRegistry, now: Timestamp, error: &str) {
    if registry.daemon().settings_error.as_deref() != Some(error) {
        registry.record_event(now, None, EventKind::SettingsRejected, &error.replace('\n', "; "));
    }
}

/// Records that other settings are in force.
pub(super) fn record_settings(registry: &StatusRegistry, now: Timestamp) {
    registry.record_event(now, None, EventKind::SettingsChanged, "agent.toml has changed: its settings are in force");
}

/// Records that another process has changed config.toml.
pub(super) fn record_config(registry: &StatusRegistry, now: Timestamp) {
    registry.record_event(now, None, EventKind::ConfigChanged, "another process has changed config.toml");
}

/// Records that config.toml cannot be read.
pub(super) fn record_config_error(registry: &StatusRegistry, now: Timestamp, error: &str) {
    registry.record_event(now, None, EventKind::ConfigRejected, &format!("config.toml cannot be read: {error}"));
}

/// Records what has happened to an access token.
pub(super) fn record_access(registry: &StatusRegistry, now: Timestamp, event: AccessEvent, report: &AccessTokenReport) {
    let (kind, what) = match event {
        AccessEvent::Found(_) => (EventKind::AccessTokenChanged, "another one is in its file"),
        AccessEvent::Rotated(_) => (EventKind::AccessTokenRotated, "it was rotated"),
        AccessEvent::Restored(_) => {
            (EventKind::AccessTokenChanged, "its file had one that was rotated before, and has the newest one again")
        }
        AccessEvent::Displaced(_) => {
            (EventKind::AccessTokenChanged, "another one was put into its file during a rotation")
        }
        AccessEvent::NotExecuted => return,
        AccessEvent::Lost => (EventKind::AccessTokenProblem, "the new one is lost with the answer to its rotation"),
    };
    registry.record_event(now, None, kind, &format!("access token for {}: {what}", report.server));
}

/// Records that an access token has a problem.
pub(super) fn record_access_problem(registry: &StatusRegistry, now: Timestamp, report: &AccessTokenReport, why: &str) {
    let text = format!("access token for {}: {why}", report.server);
    registry.record_event(now, None, EventKind::AccessTokenProblem, &text);
}
