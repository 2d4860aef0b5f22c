//! `fleet`, against a GitLab with an access token.

mod access;
mod changes;
mod enroll;
mod filters;
mod lists;
mod prune;
mod terminal;
mod tokens;

use fake_gitlab::{Builder, Gitlab, NewRunner, Role, Scope};
use test_support::{Output, Sandbox};

/// A GitLab with an administrator's access token.
pub(crate) struct Site {
    pub(crate) sandbox: Sandbox,
    pub(crate) access_token: String,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::with(Gitlab::builder())
    }

    pub(crate) fn of_version(version: &str) -> Self {
        Self::with(Gitlab::builder().version(version))
    }

    fn with(gitlab: Builder) -> Self {
        let sandbox = super::sandbox_with(gitlab);
        let access_token = sandbox.gitlab.add_access_token_of(Role::Admin, [Scope::Api]);
        Self { sandbox, access_token }
    }

    pub(crate) fn gitlab(&self) -> &Gitlab {
        &self.sandbox.gitlab
    }

    /// Runs `fleet` with these arguments and the access token in the environment.
    pub(crate) fn fleet(&self, args: &[&str]) -> Output {
        self.fleet_with(args, &[("GITLAB_TOKEN", &self.access_token)])
    }

    pub(crate) fn fleet_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Output {
        let url = self.gitlab().url();
        self.sandbox.run_with(&[&["fleet", "--url", &url], args].concat(), variables)
    }

    /// Adds this many instance runners and returns their ids.
    pub(crate) fn add_runners(&self, count: usize) -> Vec<u64> {
        (0..count).map(|n| self.gitlab().add_runner(NewRunner::instance().description(format!("r{n}"))).0).collect()
    }
}

/// The rows of a JSON document on stdout.
pub(crate) fn rows(done: &Output, name: &str) -> Vec<serde_json::Value> {
    let document: serde_json::Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{done:?}"));
    assert_eq!(document["schema"], 1);
    document[name].as_array().unwrap().clone()
}

/// The ids in rows.
pub(crate) fn ids(rows: &[serde_json::Value]) -> Vec<u64> {
    rows.iter().map(|row| row["id"].as_u64().unwrap()).collect()
}
