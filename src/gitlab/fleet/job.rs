//! A job in the list of a runner's jobs.

use serde::{Deserialize, Serialize};

use super::{JobStatus, Project, User};
use crate::gitlab::lenient::{number, time};
use crate::model::Timestamp;

/// A job. Every field but `id` may be missing. Source: docs/api/runners, "List runner's jobs"; since 10.3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CiJob {
    /// The job's id.
    #[serde(deserialize_with = "number")]
    pub id: u64,
    /// The IP address of its runner.
    pub ip_address: Option<String>,
    /// The status.
    pub status: Option<JobStatus>,
    /// The pipeline stage.
    pub stage: Option<String>,
    /// The name of the job.
    pub name: Option<String>,
    /// The branch or tag.
    #[serde(default, rename = "ref")]
    pub reference: Option<String>,
    /// Whether `ref` is a tag.
    pub tag: Option<bool>,
    /// Test coverage in percent; null if not measured.
    pub coverage: Option<f64>,
    /// When it was created, server time in RFC 3339.
    #[serde(default, deserialize_with = "time")]
    pub created_at: Option<Timestamp>,
    /// When it started, server time in RFC 3339; null before that.
    #[serde(default, deserialize_with = "time")]
    pub started_at: Option<Timestamp>,
    /// When it finished, server time in RFC 3339; null before that.
    #[serde(default, deserialize_with = "time")]
    pub finished_at: Option<Timestamp>,
    /// Duration in seconds; null before it started.
    pub duration: Option<f64>,
    /// The user who started it.
    pub user: Option<User>,
    /// The commit.
    pub commit: Option<Commit>,
    /// The pipeline.
    pub pipeline: Option<Pipeline>,
    /// The project.
    pub project: Option<Project>,
}

/// A commit. Source: as for [`CiJob`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The hash in hexadecimal.
    pub id: String,
    /// The first digits of the hash.
    pub short_id: Option<String>,
    /// The first line of the message.
    pub title: Option<String>,
    /// When it was created, RFC 3339.
    #[serde(default, deserialize_with = "time")]
    pub created_at: Option<Timestamp>,
    /// The hashes of its parents.
    pub parent_ids: Option<Vec<String>>,
    /// The whole message.
    pub message: Option<String>,
    /// The author's name.
    pub author_name: Option<String>,
    /// The author's email address.
    pub author_email: Option<String>,
    /// When it was authored, by the author's clock, RFC 3339.
    #[serde(default, deserialize_with = "time")]
    pub authored_date: Option<Timestamp>,
    /// The committer's name.
    pub committer_name: Option<String>,
    /// The committer's email address.
    pub committer_email: Option<String>,
    /// When it was committed, by the committer's clock, RFC 3339.
    #[serde(default, deserialize_with = "time")]
    pub committed_date: Option<Timestamp>,
}

/// A pipeline. Source: as for [`CiJob`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipeline {
    /// The pipeline's id.
    #[serde(deserialize_with = "number")]
    pub id: u64,
    /// The hash of its commit.
    pub sha: Option<String>,
    /// The branch or tag.
    #[serde(default, rename = "ref")]
    pub reference: Option<String>,
    /// The status, with the same names as a job's.
    pub status: Option<JobStatus>,
}
