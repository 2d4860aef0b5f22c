//! Which rows a list shows, and how that is asked for.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{ContactStatus, DeprecatedScope, JobStatus, OwnerName, RunnerType, Sort};
use crate::gitlab::Endpoint;
use crate::model::SystemId;

/// Which list of runners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RunnerScope {
    /// Those that the access token's user manages, instance runners left out.
    #[default]
    Owned,
    /// Every runner of the instance; for administrators and auditors.
    All,
    /// Those that serve a project: its own, those of the groups above it, and those of the instance.
    Project(OwnerName),
    /// Those that serve a group; since 14.8 also those of the groups above it and of the instance.
    Group(OwnerName),
}

/// Which runners of a list; a field that is absent lets all pass, and all given ones must match.
///
/// Source: docs/api/runners, "List owned runners".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunnerFilters {
    /// By whose jobs they take.
    pub runner_type: Option<RunnerType>,
    /// By how they are.
    pub status: Option<ContactStatus>,
    /// By whether they take no jobs; since 14.8.
    pub paused: Option<bool>,
    /// By tags, all of which they must have.
    pub tag_list: Vec<String>,
    /// By the beginning of their program's version, such as `15.` or `16.1`; since 16.6.
    pub version_prefix: Option<String>,
    /// The deprecated filter before `type`, `status` and `paused`; not for a group's list.
    pub scope: Option<DeprecatedScope>,
}

/// Which jobs of a runner, and in which order. Source: docs/api/runners, "List runner's jobs".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilters {
    /// By how they are.
    pub status: Option<JobStatus>,
    /// By the machine that took them; since 16.8.
    pub system_id: Option<SystemId>,
    /// Which way the list goes.
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

/// Parameters in the address of a request; never a secret among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(&'static str, String)>);

/// All that is not unreserved in RFC 3986.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl Query {
    /// Adds a parameter that has a value.
    pub(super) fn add(&mut self, name: &'static str, value: Option<impl ToString>) {
        self.0.extend(value.map(|value| (name, value.to_string())));
    }

    /// The same with one more parameter.
    pub(super) fn with(&self, name: &'static str, value: impl ToString) -> Self {
        let mut query = self.clone();
        query.add(name, Some(value));
        query
    }

    /// Behind a path.
    pub(super) fn behind(&self, path: &str) -> String {
        let pairs: Vec<_> =
            self.0.iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, VALUE))).collect();
        if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_become_parameters_and_absent_ones_none() {
        assert_eq!(RunnerFilters::default().query().behind("runners"), "runners");
        let filters = RunnerFilters {
            runner_type: Some(RunnerType::Group),
            status: Some(ContactStatus::NeverContacted),
            paused: Some(false),
            tag_list: vec!["tag 1".to_owned(), "ä&b=c".to_owned()],
            version_prefix: Some("16.1".to_owned()),
            scope: Some(DeprecatedScope::Shared),
        };
        assert_eq!(
            filters.query().behind("runners/all"),
            "runners/all?type=group_type&status=never_contacted&paused=false&tag_list=tag%201%2C%C3%A4%26b%3Dc&version_prefix=16.1&scope=shared"
        );
        let jobs = JobFilters {
            status: Some(JobStatus::Running),
            system_id: Some("s_0123456789ab".parse().unwrap()),
            sort: Some(Sort::Ascending),
        };
        assert_eq!(
            jobs.query().with("page", 2).behind("runners/1/jobs"),
            "runners/1/jobs?status=running&system_id=s_0123456789ab&order_by=id&sort=asc&page=2"
        );
    }
}
