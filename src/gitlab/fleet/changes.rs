//! Changes of a runner, and new runners.

use std::time::Duration;

use serde::Serialize;

use crate::gitlab::{AccessLevel, RegisterParameters};
use crate::model::Timestamp;

/// Changes of a runner. Absent fields keep their value; at least one must be set.
///
/// Source: docs/api/runners, "Update runner's details".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunnerChanges {
    /// The new description.
    pub description: Option<String>,
    /// Whether it is paused; since 14.8, before that see [`PauseParameter`].
    pub paused: Option<bool>,
    /// The new list of tags; it may be empty only if the runner runs untagged jobs.
    pub tag_list: Option<Vec<String>>,
    /// Whether it runs untagged jobs.
    pub run_untagged: Option<bool>,
    /// Whether it is locked to its projects.
    pub locked: Option<bool>,
    /// Which refs it runs jobs for.
    pub access_level: Option<AccessLevel>,
    /// Maximum duration of a job, sent in whole seconds; `Some(None)` removes the limit.
    pub maximum_timeout: Option<Option<Duration>>,
    /// The maintenance note; since 16.10.
    pub maintenance_note: Option<String>,
}

impl RunnerChanges {
    /// Whether there are no changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The parameter that pauses a runner, which depends on the release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PauseParameter {
    /// `paused`, since 14.8.
    #[default]
    Paused,
    /// Its inverse `active`, which 14.8 deprecated.
    Active,
}

/// A runner to create with an access token. Source: docs/api/users, "Create a runner linked to a user".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRunner {
    /// The owner.
    pub owner: NewRunnerOwner,
    /// The settings; `info` is not sent, since the call does not have it.
    pub parameters: RegisterParameters,
    /// When its first token expires: five minutes to fifteen days ahead, and within the instance's limit. Since 18.10,
    /// ignored before.
    pub token_expires_at: Option<Timestamp>,
    /// Until when that token can be rotated, at most its expiry; a deadline equal to the expiry means never. Since 18.10,
    /// ignored before.
    pub token_rotation_deadline: Option<Timestamp>,
}

/// The owner of a new runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewRunnerOwner {
    /// The instance.
    Instance,
    /// A group, by its id.
    Group(u64),
    /// A project, by its id.
    Project(u64),
}

/// Which registration token to reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistrationTokenScope {
    /// The instance's.
    Instance,
    /// A project's.
    Project(super::OwnerName),
    /// A group's.
    Group(super::OwnerName),
}

/// The body of `PUT /runners/:id`.
#[derive(Serialize)]
pub(super) struct UpdateRequest<'a> {
    /// At most 1024 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    /// Since 14.8; must not be combined with its inverse `active`.
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<bool>,
    /// Deprecated since 14.8.
    #[serde(skip_serializing_if = "Option::is_none")]
    active: Option<bool>,
    /// Separated by commas, which every version splits; empty for no tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    tag_list: Option<String>,
    /// `false` needs a tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    run_untagged: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    locked: Option<bool>,
    /// `not_protected` or `ref_protected`.
    #[serde(skip_serializing_if = "Option::is_none")]
    access_level: Option<&'static str>,
    /// Whole seconds, at least 600, or null for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    maximum_timeout: Option<Option<u64>>,
    /// At most 1024 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    maintenance_note: Option<&'a str>,
}

impl<'a> UpdateRequest<'a> {
    pub(super) fn new(changes: &'a RunnerChanges, parameter: PauseParameter) -> Self {
        Self {
            description: changes.description.as_deref(),
            paused: changes.paused.filter(|_| parameter == PauseParameter::Paused),
            active: changes.paused.filter(|_| parameter == PauseParameter::Active).map(|paused| !paused),
            tag_list: changes.tag_list.as_ref().map(|tags| tags.join(",")),
            run_untagged: changes.run_untagged,
            locked: changes.locked,
            access_level: changes.access_level.map(AccessLevel::as_str),
            maximum_timeout: changes.maximum_timeout.map(|timeout| timeout.map(|timeout| timeout.as_secs())),
            maintenance_note: changes.maintenance_note.as_deref(),
        }
    }
}

/// The body of `POST /user/runners`.
#[derive(Serialize)]
pub(super) struct CreateRequest<'a> {
    /// Determines which of the two ids is required.
    runner_type: &'static str,
    /// For `group_type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    group_id: Option<u64>,
    /// For `project_type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    project_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maintenance_note: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    locked: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_level: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_untagged: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag_list: Option<String>,
    /// Whole seconds, at least 600.
    #[serde(skip_serializing_if = "Option::is_none")]
    maximum_timeout: Option<u64>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_expires_at: Option<Timestamp>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_rotation_deadline: Option<Timestamp>,
}

impl<'a> CreateRequest<'a> {
    pub(super) fn new(new: &'a NewRunner) -> Self {
        let (runner_type, group_id, project_id) = match new.owner {
            NewRunnerOwner::Instance => ("instance_type", None, None),
            NewRunnerOwner::Group(id) => ("group_type", Some(id), None),
            NewRunnerOwner::Project(id) => ("project_type", None, Some(id)),
        };
        let parameters = &new.parameters;
        Self {
            runner_type,
            group_id,
            project_id,
            description: parameters.description.as_deref(),
            maintenance_note: parameters.maintenance_note.as_deref(),
            paused: parameters.paused,
            locked: parameters.locked,
            access_level: parameters.access_level.map(AccessLevel::as_str),
            run_untagged: parameters.run_untagged,
            tag_list: (!parameters.tag_list.is_empty()).then(|| parameters.tag_list.join(",")),
            maximum_timeout: parameters.maximum_timeout.as_ref().map(Duration::as_secs),
            token_expires_at: new.token_expires_at,
            token_rotation_deadline: new.token_rotation_deadline,
        }
    }
}

/// The body of `POST /projects/:id/runners`.
#[derive(Serialize)]
pub(super) struct AssignRequest {
    /// The runner's id.
    pub(super) runner_id: u64,
}
