//! The filters of a list, and how they become query parameters.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{ContactStatus, DeprecatedScope, JobStatus, OwnerName, RunnerType, Sort};
use crate::gitlab::Endpoint;
use crate::model::SystemId;

/// Which list of runners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RunnerScope {
    /// The runners that the access token's user manages, without instance runners.
    #[default]
    Owned,
    /// Every runner of the instance; needs an administrator or auditor.
    All,
    /// The runners available to a project: its own, its groups' and the instance's.
    Project(OwnerName),
    /// The runners available to a group; since 14.8 including those of parent groups and of the instance.
    Group(OwnerName),
}

/// Filters for runners. Absent ones match everything; a runner must match all others.
///
/// Source: docs/api/runners, "List owned runners".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunnerFilters {
    /// Filter by type.
    pub runner_type: Option<RunnerType>,
    /// Filter by status.
    pub status: Option<ContactStatus>,
    /// Filter by paused or not; since 14.8.
    pub paused: Option<bool>,
    /// Filter by tags; a runner must have all of them.
    pub tag_list: Vec<String>,
    /// Filter by version prefix, such as `15.` or `16.1`; since 16.6.
    pub version_prefix: Option<String>,
    /// The deprecated predecessor of `type`, `status` and `paused`; not for a group's list.
    pub scope: Option<DeprecatedScope>,
}

/// Filters for the jobs of a runner, and their order. Source: docs/api/runners, "List runner's jobs".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilters {
    /// Filter by status.
    pub status: Option<JobStatus>,
    /// Filter by the machine that ran them; since 16.8.
    pub system_id: Option<SystemId>,
    /// The order.
    pub sort: Option<Sort>,
}

impl RunnerScope {
    pub(super) fn endpoint(&self) -> Endpoint {
        match self {
            Self::Owned => Endpoint::ListOwned,
            Self::All => Endpoint::ListAll,
            Self::Project(_) => Endpoint::ListOfProject,
            Self::Group(_) => Endpoint::ListOfGroup,
        }
    }

    pub(super) fn path(&self) -> String {
        match self {
            Self::Owned => "runners".to_owned(),
            Self::All => "runners/all".to_owned(),
            Self::Project(project) => format!("projects/{}/runners", project.segment()),
            Self::Group(group) => format!("groups/{}/runners", group.segment()),
        }
    }
}

impl RunnerFilters {
    pub(super) fn query(&self) -> Query {
        let mut query = Query::default();
        query.add("type", self.runner_type.as_ref());
        query.add("status", self.status.as_ref());
        query.add("paused", self.paused);
        query.add("tag_list", (!self.tag_list.is_empty()).then(|| self.tag_list.join(",")));
        query.add("version_prefix", self.version_prefix.as_ref());
        query.add("scope", self.scope.as_ref());
        query
    }
}

impl JobFilters {
    pub(super) fn query(&self) -> Query {
        let mut query = Query::default();
        query.add("status", self.status.as_ref());
        query.add("system_id", self.system_id.as_ref());
        if let Some(sort) = &self.sort {
            query.add("order_by", Some("id"));
            query.add("sort", Some(sort));
        }
        query
    }
}

/// The query parameters of a request; none of them is a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(&'static str, String)>);

/// Everything but the unreserved characters of RFC 3986.
pub(super) const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl Query {
    /// Adds a parameter if it has a value.
    pub(super) fn add(&mut self, name: &'static str, value: Option<impl ToString>) {
        self.0.extend(value.map(|value| (name, value.to_string())));
    }

    /// Returns a copy with one more parameter.
    pub(super) fn with(&self, name: &'static str, value: impl ToString) -> Self {
        let mut query = self.clone();
        query.add(name, Some(value));
        query
    }

    /// Appends the parameters to a path.
    pub(super) fn append_to(&self, path: &str) -> String {
        let pairs: Vec<_> =
            self.0.iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, RESERVED))).collect();
        if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_become_parameters_and_absent_ones_none() {
        assert_eq!(RunnerFilters::default().query().append_to("runners"), "runners");
        let filters = RunnerFilters {
            runner_type: Some(RunnerType::Group),
            status: Some(ContactStatus::NeverContacted),
            paused: Some(false),
            tag_list: vec!["tag 1".to_owned(), "ä&b=c".to_owned()],
            version_prefix: Some("16.1".to_owned()),
            scope: Some(DeprecatedScope::Shared),
        };
        assert_eq!(
            filters.query().append_to("runners/all"),
            "runners/all?type=group_type&status=never_contacted&paused=false&tag_list=tag%201%2C%C3%A4%26b%3Dc&version_prefix=16.1&scope=shared"
        );
        let jobs = JobFilters {
            status: Some(JobStatus::Running),
            system_id: Some("s_0123456789ab".parse().unwrap()),
            sort: Some(Sort::Ascending),
        };
        assert_eq!(
            jobs.query().with("page", 2).append_to("runners/1/jobs"),
            "runners/1/jobs?status=running&system_id=s_0123456789ab&order_by=id&sort=asc&page=2"
        );
    }
}
