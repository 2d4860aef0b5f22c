//! What a runner was registered with.

use serde::{Deserialize, Serialize};

/// The settings in GitLab that a registration asked for. They can have been changed in GitLab since.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RegisteredWith {
    /// The description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The tags, in alphabetical order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tag_list: Vec<String>,
    /// Whether it runs untagged jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_untagged: Option<bool>,
    /// Whether it is locked to its project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked: Option<bool>,
    /// Whether it started paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// `not_protected` or `ref_protected`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_level: Option<String>,
    /// Maximum duration of a job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum_timeout_secs: Option<u64>,
    /// Note for administrators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintenance_note: Option<String>,
}

impl RegisteredWith {
    /// The flags of the settings that differ in `other`.
    #[must_use]
    pub fn differing_flags(&self, other: &Self) -> Vec<&'static str> {
        [
            ("--description", self.description != other.description),
            ("--tag-list", self.tag_list != other.tag_list),
            ("--run-untagged", self.run_untagged != other.run_untagged),
            ("--locked", self.locked != other.locked),
            ("--paused", self.paused != other.paused),
            ("--access-level", self.access_level != other.access_level),
            ("--maximum-timeout", self.maximum_timeout_secs != other.maximum_timeout_secs),
            ("--maintenance-note", self.maintenance_note != other.maintenance_note),
        ]
        .into_iter()
        .filter_map(|(flag, differs)| differs.then_some(flag))
        .collect()
    }
}
