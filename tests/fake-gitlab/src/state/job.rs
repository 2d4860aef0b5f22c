//! Jobs, as far as a runner's list of jobs shows them.

use jiff::Timestamp;

/// A job that a runner took.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// The job's id.
    pub id: u64,
    /// The runner that took it.
    pub runner_id: u64,
    /// The project it belongs to.
    pub project_id: u64,
    /// The machine that took it.
    pub system_id: Option<String>,
    /// A CI status, such as `running`.
    pub status: String,
    /// When it was created, by the server's clock.
    pub created_at: Timestamp,
}
