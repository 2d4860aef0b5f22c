//! Filters of runner lists.

use super::{Call, entities};
use crate::Answer;
use crate::state::State;
use crate::state::runner::{Runner, RunnerType};

const TYPES: [&str; 3] = ["instance_type", "group_type", "project_type"];
const STATUSES: [&str; 7] = ["active", "paused", "online", "offline", "never_contacted", "stale", "not_connected"];
/// The deprecated scopes of all lists but a group's.
pub(super) const SCOPES: [&str; 4] = ["active", "paused", "online", "offline"];
/// The deprecated scopes of `/runners/all` and of a project's list.
pub(super) const WIDE_SCOPES: [&str; 6] = ["specific", "shared", "active", "paused", "online", "offline"];

/// The filters of a request; an absent one matches all runners.
pub(super) struct Filters {
    runner_type: Option<RunnerType>,
    status: Option<String>,
    paused: Option<bool>,
    tags: Vec<String>,
    version_prefix: Option<String>,
    scope: Option<String>,
}

impl Filters {
    /// Reads the filters, or refuses with 400.
    pub(super) fn read(call: &Call<'_>, scopes: &[&str]) -> Result<Self, Answer> {
        let parameters = call.parameters;
        let runner_type = parameters.choice("type", &TYPES)?;
        let version_prefix = parameters.text("version_prefix")?;
        let starts_wrongly =
            |prefix: &String| !prefix.starts_with(|first: char| first.is_ascii_digit() || first == '.');
        if version_prefix.as_ref().is_some_and(starts_wrongly) {
            return Err(Answer::raw_error(400, "version_prefix is invalid"));
        }
        let scope = parameters.text("scope")?;
        if scope.as_ref().is_some_and(|scope| !scopes.contains(&scope.as_str())) {
            return Err(Answer::message(400, "400 Bad request - Scope contains invalid value"));
        }
        Ok(Self {
            runner_type: runner_type.as_deref().and_then(RunnerType::from_name),
            status: parameters.choice("status", &STATUSES)?,
            paused: parameters.boolean("paused")?,
            tags: parameters.list("tag_list")?.unwrap_or_default(),
            version_prefix,
            scope,
        })
    }

    pub(super) fn let_pass(&self, state: &State, runner: &Runner) -> bool {
        if state.ignores_filters {
            return true;
        }
        self.runner_type.is_none_or(|runner_type| runner_type == runner.runner_type)
            && self.paused.is_none_or(|paused| paused == runner.paused)
            && self.tags.iter().all(|tag| runner.tags.contains(tag))
            && self.version_prefix.as_ref().is_none_or(|prefix| runs_version(runner, prefix))
            && self.status.as_ref().is_none_or(|status| is_in(state, runner, status))
            && self.scope.as_ref().is_none_or(|scope| is_in(state, runner, scope))
    }
}

fn is_in(state: &State, runner: &Runner, state_or_scope: &str) -> bool {
    match state_or_scope {
        "active" => !runner.paused,
        "paused" => runner.paused,
        "shared" => runner.runner_type == RunnerType::Instance,
        "specific" => runner.runner_type != RunnerType::Instance,
        status => entities::status(state, runner.contacted_at, runner.created_at) == status,
    }
}

fn runs_version(runner: &Runner, prefix: &str) -> bool {
    runner.managers.iter().any(|manager| manager.info("version").is_some_and(|version| version.starts_with(prefix)))
}
