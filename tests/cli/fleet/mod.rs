//! `fleet`, against a GitLab with an access token.

mod access;
mod changes;
mod enroll;
mod lists;
mod prune;
mod terminal;
mod tokens;

use test_gitlab::{Gitlab, NewRunner, Role, Scope};

use crate::bench::{Bench, Done};

/// A GitLab with runners, and an administrator who looks at them.
pub(crate) struct Site {
    pub(crate) bench: Bench,
    pub(crate) access_token: String,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::with(Gitlab::start())
    }

    pub(crate) fn of_version(version: &str) -> Self {
        Self::with(Gitlab::builder().version(version).start())
    }

    fn with(gitlab: Gitlab) -> Self {
        let access_token = gitlab.add_access_token_of(Role::Admin, [Scope::Api]);
        Self { bench: Bench::with(gitlab), access_token }
    }

    pub(crate) fn gitlab(&self) -> &Gitlab {
        &self.bench.gitlab
    }

    /// `fleet` with these words, the access token in the environment.
    pub(crate) fn fleet(&self, words: &[&str]) -> Done {
        self.fleet_with(words, &[("GITLAB_TOKEN", &self.access_token)])
    }

    pub(crate) fn fleet_with(&self, words: &[&str], variables: &[(&str, &str)]) -> Done {
        let url = self.gitlab().url();
        self.bench.run_with(&[&["fleet", "--url", &url], words].concat(), variables)
    }

    /// So many runners of the instance; the numbers of all.
    pub(crate) fn add_runners(&self, count: usize) -> Vec<u64> {
        (0..count).map(|n| self.gitlab().add_runner(NewRunner::instance().description(format!("r{n}"))).0).collect()
    }
}

/// The rows of a document.
pub(crate) fn rows(done: &Done, name: &str) -> Vec<serde_json::Value> {
    let document: serde_json::Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{done:?}"));
    assert_eq!(document["schema"], 1);
    document[name].as_array().unwrap().clone()
}

/// The numbers in rows.
pub(crate) fn ids(rows: &[serde_json::Value]) -> Vec<u64> {
    rows.iter().map(|row| row["id"].as_u64().unwrap()).collect()
}
