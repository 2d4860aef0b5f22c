//! Runners and managers as the management API returns them.

use serde::{Deserialize, Serialize};

use super::{ContactStatus, Group, JobExecution, Project, RefAccess, RunnerType, User};
use crate::gitlab::lenient::{optional_number, runner_id, time};
use crate::model::{RunnerId, Timestamp};

/// A runner in lists and in the answer to an assignment.
///
/// Every field but `id` may be missing. Source: docs/api/runners, "List owned runners"; GitLab's entity of a runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetRunner {
    /// The runner's id; a string of digits in old releases.
    #[serde(deserialize_with = "runner_id")]
    pub id: RunnerId,
    /// The description; null if it has none.
    pub description: Option<String>,
    /// The IP address of its last contact; null since 17.0, empty in some releases.
    pub ip_address: Option<String>,
    /// Whether it is not paused; deprecated since 14.8 in favour of `paused`.
    pub active: Option<bool>,
    /// Whether it is paused; since 14.8.
    pub paused: Option<bool>,
    /// Whether it is an instance runner; deprecated in favour of `runner_type`.
    pub is_shared: Option<bool>,
    /// The type.
    pub runner_type: Option<RunnerType>,
    /// The program name that it reported; null if it did not.
    pub name: Option<String>,
    /// Whether it is online; null if it was never seen.
    pub online: Option<bool>,
    /// The status.
    pub status: Option<ContactStatus>,
    /// Whether it is running a job; since 18.2.
    pub job_execution_status: Option<JobExecution>,
    /// The user who created it; since 18.1, null if not visible.
    pub created_by: Option<User>,
    /// When it was created, server time in RFC 3339; since 18.1.
    #[serde(default, deserialize_with = "time")]
    pub created_at: Option<Timestamp>,
}

impl FleetRunner {
    /// Whether it is paused, for any release; `None` if the answer does not say.
    #[must_use]
    pub fn is_paused(&self) -> Option<bool> {
        self.paused.or(self.active.map(|active| !active))
    }
}

/// A runner with all its details.
///
/// Source: docs/api/runners, "Get runner's details"; GitLab's entity of a runner's details.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerDetails {
    /// The fields that lists have too.
    #[serde(flatten)]
    pub runner: FleetRunner,
    /// The tags.
    pub tag_list: Option<Vec<String>>,
    /// Whether it runs untagged jobs.
    pub run_untagged: Option<bool>,
    /// Whether it is locked to its projects.
    pub locked: Option<bool>,
    /// Maximum duration of a job, in seconds; null for no limit of its own.
    #[serde(default, deserialize_with = "optional_number")]
    pub maximum_timeout: Option<u64>,
    /// Which refs it runs jobs for.
    pub access_level: Option<RefAccess>,
    /// The program version on the machine seen last; null or empty if never reported. Deprecated since 17.0 in favour
    /// of its managers'.
    pub version: Option<String>,
    /// The program revision; as for `version`.
    pub revision: Option<String>,
    /// The operating system; as for `version`.
    pub platform: Option<String>,
    /// The processor architecture; as for `version`.
    pub architecture: Option<String>,
    /// Last contact, server time in RFC 3339, up to an hour behind; null if there was none.
    #[serde(default, deserialize_with = "time")]
    pub contacted_at: Option<Timestamp>,
    /// The maintenance note; since 16.10, null without the right to change the runner.
    pub maintenance_note: Option<String>,
    /// The projects it is assigned to and the access token's user can see; missing if not requested.
    pub projects: Option<Vec<Project>>,
    /// The groups it belongs to and the access token's user can see.
    pub groups: Option<Vec<Group>>,
}

/// A machine that uses a runner's token.
///
/// Source: GitLab's entity of a runner manager; since 17.1 or 17.2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manager {
    /// The manager's id.
    #[serde(deserialize_with = "crate::gitlab::lenient::number")]
    pub id: u64,
    /// The machine's id; `<legacy>` for calls without one.
    pub system_id: Option<String>,
    /// The program version; null or empty if never reported.
    pub version: Option<String>,
    /// The program revision; as for `version`.
    pub revision: Option<String>,
    /// The operating system; as for `version`.
    pub platform: Option<String>,
    /// The processor architecture; as for `version`.
    pub architecture: Option<String>,
    /// First contact, server time in RFC 3339.
    #[serde(default, deserialize_with = "time")]
    pub created_at: Option<Timestamp>,
    /// Last contact, server time in RFC 3339, up to an hour behind.
    #[serde(default, deserialize_with = "time")]
    pub contacted_at: Option<Timestamp>,
    /// The IP address of its last contact.
    pub ip_address: Option<String>,
    /// The status.
    pub status: Option<ContactStatus>,
    /// Whether it is running a job; since 18.2.
    pub job_execution_status: Option<JobExecution>,
}
