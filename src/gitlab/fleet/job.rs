//! A job in the list of those that a runner took.

use serde::{Deserialize, Serialize};

use super::{JobStatus, Project, User};
use crate::gitlab::lenient::{number, time};
use crate::model::Timestamp;

/// A job. Every field but `id` may be missing. Source: docs/api/runners, "List runner's jobs"; since 10.3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CiJob {
    /// The job's number.
    #[serde(deserialize_with = "number")]
    pub id: u64,
    /// The address of the runner that took it.
    #[serde(default)]
    pub ip_address: Option<String>,
    /// How it is.
    #[serde(default)]
    pub status: Option<JobStatus>,
    /// The stage of its pipeline.
    #[serde(default)]
    pub stage: Option<String>,
    /// Its name in the pipeline.
    #[serde(default)]
    pub name: Option<String>,
    /// The branch or tag it is about.
    #[serde(default, rename = "ref")]
    pub reference: Option<String>,
    /// Whether that is a tag.
    #[serde(default)]
    pub tag: Option<bool>,
    /// How much of the code its tests cover, in percent; null if it does not tell.
    #[serde(default)]
    pub coverage: Option<f64>,
    /// When it was made, server time in RFC 3339.
    #[serde(default, deserialize_with = "time")]
    pub created_at: Option<Timestamp>,
    /// When the runner began, server time in RFC 3339; null before that.
    #[serde(default, deserialize_with = "time")]
    pub started_at: Option<Timestamp>,
    /// When it ended, server time in RFC 3339; null before that.
    #[serde(default, deserialize_with = "time")]
    pub finished_at: Option<Timestamp>,
    /// How long it took, in seconds; null before it began.
    #[serde(default)]
    pub duration: Option<f64>,
    /// Whose it is.
    #[serde(default)]
    pub user: Option<User>,
    /// The commit it is about.
    #[serde(default)]
    pub commit: Option<Commit>,
    /// The pipeline it belongs to.
    #[serde(default)]
    pub pipeline: Option<Pipeline>,
    /// The project it belongs to.
    #[serde(default)]
    pub project: Option<Project>,
}

/// A commit. Source: as for [`CiJob`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its hash in hexadecimal.
    pub id: String,
    /// The first digits of that.
    #[serde(default)]
    pub short_id: Option<String>,
    /// The first line of its message.
    #[serde(default)]
    pub title: Option<String>,
    /// When it was made, RFC 3339.
    #[serde(default, deserialize_with = "time")]
    pub created_at: Option<Timestamp>,
    /// The hashes of those before it.
    #[serde(default)]
    pub parent_ids: Option<Vec<String>>,
    /// Its whole message.
    #[serde(default)]
    pub message: Option<String>,
    /// Who wrote it.
    #[serde(default)]
    pub author_name: Option<String>,
    /// The address of who wrote it.
    #[serde(default)]
    pub author_email: Option<String>,
    /// When it was written, by the author's clock, RFC 3339.
    #[serde(default, deserialize_with = "time")]
    pub authored_date: Option<Timestamp>,
    /// Who put it in place.
    #[serde(default)]
    pub committer_name: Option<String>,
    /// The address of who put it in place.
    #[serde(default)]
    pub committer_email: Option<String>,
    /// When it was put in place, by the committer's clock, RFC 3339.
    #[serde(default, deserialize_with = "time")]
    pub committed_date: Option<Timestamp>,
}

/// A pipeline. Source: as for [`CiJob`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipeline {
    /// The pipeline's number.
    #[serde(deserialize_with = "number")]
    pub id: u64,
    /// The hash of the commit it is about.
    #[serde(default)]
    pub sha: Option<String>,
    /// The branch or tag it is about.
    #[serde(default, rename = "ref")]
    pub reference: Option<String>,
    /// How it is; the words of a job's.
    #[serde(default)]
    pub status: Option<JobStatus>,
}
