//! The state of this GitLab, and the rules that need no HTTP.

pub(crate) mod access;
pub(crate) mod clock;
pub(crate) mod job;
pub(crate) mod manager;
pub(crate) mod owner;
pub(crate) mod registration;
pub(crate) mod replica;
pub(crate) mod runner;
pub(crate) mod token;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;

use crate::Version;
use access::{AccessToken, AccessTokens, NewAccessToken};
use clock::Clock;
use job::Job;
use owner::{Group, Project};
use registration::Registration;
use replica::Replica;
use runner::{NewRunner, Runner};
use token::Tokens;

/// Since this release an expired token is refused.
const EXPIRY_ENFORCED_SINCE: (u16, u16) = (15, 5);

/// The database.
pub(crate) struct State {
    pub(crate) version: Version,
    pub(crate) clock: Clock,
    /// The lifetime of new tokens.
    pub(crate) token_life: Option<Duration>,
    pub(crate) runners: BTreeMap<u64, Runner>,
    pub(crate) projects: BTreeMap<u64, Project>,
    pub(crate) groups: BTreeMap<u64, Group>,
    pub(crate) jobs: BTreeMap<u64, Job>,
    pub(crate) registration: Registration,
    pub(crate) access: AccessTokens,
    /// How many days an access token may live at most; `None` for no limit, and then no expiry is required.
    pub(crate) access_token_days: Option<u32>,
    pub(crate) tokens: Tokens,
    /// Whether releases up to 15.8 answer verify with the JSON string `"200"`.
    pub(crate) verify_is_json_string: bool,
    /// What answers verify and the look at an access token instead of the database.
    pub(crate) replica: Replica,
    /// Whether lists ignore their filters, as a release does that does not know them.
    pub(crate) ignores_filters: bool,
    /// Whether a proxy strips `X-Gitlab-Meta`.
    pub(crate) strips_meta: bool,
    /// Whether every release serves the endpoints below `/ci/api/v1`.
    pub(crate) serves_v1: bool,
    last_id: u64,
    /// The runner that a token was given to.
    given_to: HashMap<String, u64>,
}

/// A backup of the database.
#[derive(Clone)]
pub struct Backup {
    runners: BTreeMap<u64, Runner>,
    projects: BTreeMap<u64, Project>,
    groups: BTreeMap<u64, Group>,
    jobs: BTreeMap<u64, Job>,
    last_id: u64,
}

impl fmt::Debug for Backup {
    /// Omits the tokens.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Backup").field("runners", &self.runners.len()).finish_non_exhaustive()
    }
}

impl State {
    pub(crate) fn new(version: Version) -> Self {
        let mut tokens = Tokens::default();
        Self {
            version,
            clock: Clock::default(),
            token_life: None,
            runners: BTreeMap::new(),
            projects: BTreeMap::new(),
            groups: BTreeMap::new(),
            jobs: BTreeMap::new(),
            registration: Registration::new(tokens.registration(version, true)),
            access: AccessTokens::default(),
            access_token_days: Some(365),
            tokens,
            verify_is_json_string: false,
            replica: Replica::default(),
            ignores_filters: false,
            strips_meta: false,
            serves_v1: false,
            last_id: 0,
            given_to: HashMap::new(),
        }
    }

    /// The next id; runners, projects, groups, jobs and managers share one sequence, so ids of two kinds never match.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Copies what a backup contains.
    pub(crate) fn backup(&self) -> Backup {
        let State { runners, projects, groups, jobs, last_id, .. } = self;
        Backup {
            runners: runners.clone(),
            projects: projects.clone(),
            groups: groups.clone(),
            jobs: jobs.clone(),
            last_id: *last_id,
        }
    }

    /// Goes back to a backup. New ids repeat those given since, as the database's sequences do; new tokens repeat none.
    pub(crate) fn restore(&mut self, backup: &Backup) {
        let Backup { runners, projects, groups, jobs, last_id } = backup.clone();
        (self.runners, self.projects, self.groups, self.jobs, self.last_id) =
            (runners, projects, groups, jobs, last_id);
        self.note_change();
    }

    /// Lets the replica know of a change of tokens.
    pub(crate) fn note_change(&mut self) {
        self.replica.note(self.clock.now(), &self.runners, &self.access);
    }

    /// Runs a read on the replica's runners.
    pub(crate) fn on_replica<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let Some(old) = self.replica.runners(self.clock.now()) else { return read(self) };
        let present = std::mem::replace(&mut self.runners, old);
        let answer = read(self);
        self.runners = present;
        answer
    }

    /// Runs a read on the replica's access tokens.
    pub(crate) fn on_replica_of_access<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let Some(old) = self.replica.access(self.clock.now()) else { return read(self) };
        let present = std::mem::replace(&mut self.access, old);
        let answer = read(self);
        self.access = present;
        answer
    }

    /// Creates an access token and returns its text.
    pub(crate) fn create_access_token(&mut self, new: NewAccessToken) -> String {
        let id = self.access.next_id();
        let text = new.text.clone().unwrap_or_else(|| self.tokens.access());
        self.access.0.insert(text.clone(), AccessToken::new(id, new, self.clock.now()));
        self.note_change();
        text
    }

    /// Revokes an access token and creates its successor; returns the successor's text.
    pub(crate) fn rotate_access_token(&mut self, old: &str, expires_on: Option<Date>) -> Option<String> {
        let id = self.access.next_id();
        let now = self.clock.now();
        let text = self.tokens.access();
        let rotated = self.access.0.get_mut(old)?;
        rotated.revoked = true;
        let successor = AccessToken {
            id,
            revoked: false,
            created_at: now,
            last_used_at: None,
            expires_on,
            rotate_requests: 0,
            ..rotated.clone()
        };
        self.access.0.insert(text.clone(), successor);
        Some(text)
    }

    /// Creates a runner with a fresh token.
    pub(crate) fn create_runner(&mut self, new: NewRunner) -> &mut Runner {
        let id = self.next_id();
        let now = self.clock.now();
        let token = new.token.clone().unwrap_or_else(|| self.tokens.runner(self.version, new.runner_type, new.origin));
        let expires_at = self.expiry_of_a_token_given_out_now();
        self.given_to.insert(token.clone(), id);
        let runner = Runner::new(id, token, expires_at, new, now);
        self.runners.entry(id).or_insert(runner)
    }

    /// Replaces a runner's token; the old one is invalid immediately.
    pub(crate) fn rotate(&mut self, id: u64) -> Option<&mut Runner> {
        let expires_at = self.expiry_of_a_token_given_out_now();
        let now = self.clock.now();
        let runner = self.runners.get_mut(&id)?;
        runner.token = self.tokens.runner(self.version, runner.runner_type, runner.origin);
        runner.token_expires_at = expires_at;
        runner.rotation_deadline = None;
        runner.updated_at = now;
        runner.rotations += 1;
        self.given_to.insert(runner.token.clone(), id);
        Some(runner)
    }

    /// Finds the runner of a token, unless the token has expired.
    pub(crate) fn runner_by_live_token(&self, token: &str) -> Option<&Runner> {
        let now = self.clock.now();
        let (major, minor) = EXPIRY_ENFORCED_SINCE;
        let is_enforced = self.version.is_at_least(major, minor);
        let runner = self.runner_by_token(token)?;
        (!is_enforced || !runner.is_expired_at(now)).then_some(runner)
    }

    /// Finds the runner of a token, even an expired one. The first look finds nearly every one: a search among thousands
    /// would cost more than the request.
    pub(crate) fn runner_by_token(&self, token: &str) -> Option<&Runner> {
        let given_to = self.given_to.get(token).and_then(|id| self.runners.get(id));
        let searched = || self.runners.values().find(|runner| runner.token == token);
        given_to.filter(|runner| runner.token == token).or_else(searched)
    }

    fn expiry_of_a_token_given_out_now(&self) -> Option<Timestamp> {
        self.token_life.map(|life| self.clock.in_the_future(life))
    }
}
