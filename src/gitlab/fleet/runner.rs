//! A runner as the management API shows it.

use serde::{Deserialize, Serialize};

use super::{ContactStatus, Group, JobExecution, Project, RefAccess, RunnerType, User};
use crate::gitlab::lenient::{optional_number, runner_id, time};
use crate::model::{RunnerId, Timestamp};

/// A runner as lists show it, and as assigning answers.
///
/// Every field but `id` may be missing. Source: docs/api/runners, "List owned runners"; GitLab's entity of a runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetRunner {
    /// The runner's number; a number, or its digits as a text in old releases.
    #[serde(deserialize_with = "runner_id")]
    pub id: RunnerId,
    /// What people call it; null if it has none.
    #[serde(default)]
    pub description: Option<String>,
    /// The address of its last contact; null since 17.0, empty in some releases.
    #[serde(default)]
    pub ip_address: Option<String>,
    /// Whether it takes jobs; deprecated since 14.8 in favour of `paused`.
    #[serde(default)]
    pub active: Option<bool>,
    /// Whether it takes no jobs; since 14.8.
    #[serde(default)]
    pub paused: Option<bool>,
    /// Whether it is an instance runner; deprecated in favour of `runner_type`.
    #[serde(default)]
    pub is_shared: Option<bool>,
    /// Whose jobs it takes.
    #[serde(default)]
    pub runner_type: Option<RunnerType>,
    /// The name of its program, as it told; null if it did not.
    #[serde(default)]
    pub name: Option<String>,
    /// Whether it was seen lately; null if it never was.
    #[serde(default)]
    pub online: Option<bool>,
    /// How it is.
    #[serde(default)]
    pub status: Option<ContactStatus>,
    /// Whether it works on a job; since 18.2.
    #[serde(default)]
    pub job_execution_status: Option<JobExecution>,
    /// Who made it; since 18.1, null where that is not visible.
    #[serde(default)]
    pub created_by: Option<User>,
    /// When it was made, server time in RFC 3339; since 18.1.
    #[serde(default, deserialize_with = "time")]
    pub created_at: Option<Timestamp>,
}

impl FleetRunner {
    /// Whether it takes no jobs, in the words of any release; `None` if the answer does not say.
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
    /// What lists show too.
    #[serde(flatten)]
    pub runner: FleetRunner,
    /// The tags of the jobs it takes.
    #[serde(default)]
    pub tag_list: Option<Vec<String>>,
    /// Whether it takes jobs without tags too.
    #[serde(default)]
    pub run_untagged: Option<bool>,
    /// Whether it cannot be assigned to further projects.
    #[serde(default)]
    pub locked: Option<bool>,
    /// The longest a job may take, in seconds; null for no limit of its own.
    #[serde(default, deserialize_with = "optional_number")]
    pub maximum_timeout: Option<u64>,
    /// Which refs it takes jobs of.
    #[serde(default)]
    pub access_level: Option<RefAccess>,
    /// The version of its program on the machine seen last; null or empty if never told. Deprecated since 17.0
    /// in favour of its managers'.
    #[serde(default)]
    pub version: Option<String>,
    /// The revision of that program; as for `version`.
    #[serde(default)]
    pub revision: Option<String>,
    /// The operating system of that machine; as for `version`.
    #[serde(default)]
    pub platform: Option<String>,
    /// The processor architecture of that machine; as for `version`.
    #[serde(default)]
    pub architecture: Option<String>,
    /// Its last contact, server time in RFC 3339, up to an hour behind; null if it never was in contact.
    #[serde(default, deserialize_with = "time")]
    pub contacted_at: Option<Timestamp>,
    /// The note for those who maintain it; since 16.10, null without the right to change the runner.
    #[serde(default)]
    pub maintenance_note: Option<String>,
    /// The projects it is assigned to, as far as the access token's user sees them; missing if not asked for.
    #[serde(default)]
    pub projects: Option<Vec<Project>>,
    /// The groups it belongs to, as far as the access token's user sees them.
    #[serde(default)]
    pub groups: Option<Vec<Group>>,
}

/// A machine that uses a runner's token.
///
/// Source: GitLab's entity of a runner manager; since 17.1 or 17.2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manager {
    /// The manager's number.
    #[serde(deserialize_with = "crate::gitlab::lenient::number")]
    pub id: u64,
    /// The machine's name to GitLab; `<legacy>` for calls that named none.
    #[serde(default)]
    pub system_id: Option<String>,
    /// The version of its program; null or empty if never told.
    #[serde(default)]
    pub version: Option<String>,
    /// The revision of its program; as for `version`.
    #[serde(default)]
    pub revision: Option<String>,
    /// Its operating system; as for `version`.
    #[serde(default)]
    pub platform: Option<String>,
    /// Its processor architecture; as for `version`.
    #[serde(default)]
    pub architecture: Option<String>,
    /// When it came first, server time in RFC 3339.
    #[serde(default, deserialize_with = "time")]
    pub created_at: Option<Timestamp>,
    /// Its last contact, server time in RFC 3339, up to an hour behind.
    #[serde(default, deserialize_with = "time")]
    pub contacted_at: Option<Timestamp>,
    /// The address of its last contact.
    #[serde(default)]
    pub ip_address: Option<String>,
    /// How it is.
    #[serde(default)]
    pub status: Option<ContactStatus>,
    /// Whether it works on a job; since 18.2.
    #[serde(default)]
    pub job_execution_status: Option<JobExecution>,
}
