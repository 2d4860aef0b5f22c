//! Runners.

use jiff::Timestamp;
use serde_json::Value;

use super::manager::{LEGACY_SYSTEM_ID, Manager};

/// The scope of a runner's jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunnerType {
    /// All jobs of the instance.
    Instance,
    /// Jobs of a group.
    Group,
    /// Jobs of its projects.
    Project,
}

impl RunnerType {
    /// The name in the API, such as `instance_type`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Instance => "instance_type",
            Self::Group => "group_type",
            Self::Project => "project_type",
        }
    }

    /// The type with this name in the API.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Instance, Self::Group, Self::Project].into_iter().find(|runner_type| runner_type.name() == name)
    }
}

/// How a runner was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// By a registration token: its own token has no prefix, or `glrtr-` on newer releases.
    Registered,
    /// By a user: its token starts with `glrt-`.
    Created,
}

/// Which branches a runner serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AccessLevel {
    /// All of them.
    #[default]
    NotProtected,
    /// Only protected ones.
    RefProtected,
}

impl AccessLevel {
    /// The name in the API, such as `ref_protected`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotProtected => "not_protected",
            Self::RefProtected => "ref_protected",
        }
    }
}

/// A runner as the server knows it; tests get copies.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Runner {
    /// The runner's id.
    pub id: u64,
    /// Its current token.
    pub token: String,
    /// When that token expires, by the server's clock; `None` for never.
    pub token_expires_at: Option<Timestamp>,
    /// When its rotation deadline is, if it has one.
    pub rotation_deadline: Option<Timestamp>,
    /// How often the token was rotated.
    pub rotations: usize,
    /// The scope of its jobs.
    pub runner_type: RunnerType,
    /// How it was created.
    pub origin: Origin,
    /// The projects it is assigned to, its owner first.
    pub projects: Vec<u64>,
    /// The groups it belongs to.
    pub groups: Vec<u64>,
    /// Whether its owner is deleted.
    pub is_orphaned: bool,
    /// Its description, empty if it has none.
    pub description: String,
    /// The maintenance note.
    pub maintenance_note: Option<String>,
    /// The tags of the jobs that it takes.
    pub tags: Vec<String>,
    /// Whether it takes jobs without tags.
    pub run_untagged: bool,
    /// Whether it cannot be assigned to further projects.
    pub locked: bool,
    /// Which branches it serves.
    pub access_level: AccessLevel,
    /// The longest job that it takes, in seconds.
    pub maximum_timeout: Option<u64>,
    /// Whether it takes no new jobs.
    pub paused: bool,
    /// The `info` object as last sent, `null` if it never was.
    pub info: Value,
    /// When it was created, by the server's clock.
    pub created_at: Timestamp,
    /// When it was last changed, by the server's clock.
    pub updated_at: Timestamp,
    /// The last contact, by the server's clock. Unlike a real server, which saves one contact in about 40 minutes,
    /// this one saves each.
    pub contacted_at: Option<Timestamp>,
    /// The machines that used its token, by their first contact.
    pub managers: Vec<Manager>,
}

impl Runner {
    /// The machine with this system id.
    #[must_use]
    pub fn manager(&self, system_id: &str) -> Option<&Manager> {
        self.managers.iter().find(|manager| manager.system_id == system_id)
    }

    pub(super) fn new(
        id: u64,
        token: String,
        token_expires_at: Option<Timestamp>,
        new: NewRunner,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            token,
            token_expires_at,
            rotation_deadline: new.rotation_deadline,
            rotations: 0,
            runner_type: new.runner_type,
            origin: new.origin,
            projects: new.projects,
            groups: new.groups,
            is_orphaned: false,
            description: new.description,
            maintenance_note: None,
            tags: new.tags,
            run_untagged: true,
            locked: new.locked,
            access_level: AccessLevel::default(),
            maximum_timeout: None,
            paused: new.paused,
            info: Value::Null,
            created_at: now,
            updated_at: now,
            contacted_at: None,
            managers: Vec::new(),
        }
    }

    /// Whether the token has expired; at the instant of its expiry it is still valid.
    pub(crate) fn is_expired_at(&self, now: Timestamp) -> bool {
        self.token_expires_at.is_some_and(|expires_at| expires_at < now)
    }

    /// Whether the rotation deadline has passed. A deadline equal to the expiry forbids rotation altogether.
    pub(crate) fn is_rotation_closed_at(&self, now: Timestamp) -> bool {
        self.rotation_deadline.is_some_and(|deadline| deadline <= now || Some(deadline) == self.token_expires_at)
    }

    /// Records a contact without a machine.
    pub(crate) fn contact(&mut self, info: Option<&Value>, now: Timestamp) {
        self.contacted_at = Some(now);
        if let Some(info) = info {
            self.info = info.clone();
        }
    }

    /// Records a contact of a machine; `new_id` is used for a new machine.
    pub(crate) fn contact_by(&mut self, system_id: Option<&str>, info: Option<&Value>, new_id: u64, now: Timestamp) {
        self.contact(info, now);
        let system_id = system_id.unwrap_or(LEGACY_SYSTEM_ID);
        let known = self.managers.iter().position(|manager| manager.system_id == system_id);
        let index = known.unwrap_or_else(|| {
            self.managers.push(Manager {
                id: new_id,
                system_id: system_id.to_owned(),
                info: Value::Null,
                created_at: now,
                contacted_at: now,
            });
            self.managers.len() - 1
        });
        let manager = &mut self.managers[index];
        manager.contacted_at = now;
        if let Some(info) = info {
            manager.info = info.clone();
        }
    }
}

/// A runner that a test adds.
#[derive(Clone, Debug)]
pub struct NewRunner {
    pub(crate) runner_type: RunnerType,
    pub(crate) origin: Origin,
    pub(crate) token: Option<String>,
    pub(crate) projects: Vec<u64>,
    pub(crate) groups: Vec<u64>,
    pub(crate) description: String,
    pub(crate) tags: Vec<String>,
    pub(crate) locked: bool,
    pub(crate) paused: bool,
    pub(crate) rotation_deadline: Option<Timestamp>,
}

impl NewRunner {
    /// A runner of the whole instance, created by a user.
    #[must_use]
    pub fn instance() -> Self {
        Self {
            runner_type: RunnerType::Instance,
            origin: Origin::Created,
            token: None,
            projects: Vec::new(),
            groups: Vec::new(),
            description: String::new(),
            tags: Vec::new(),
            locked: false,
            paused: false,
            rotation_deadline: None,
        }
    }

    /// A runner of a group, created by a user.
    #[must_use]
    pub fn group(group_id: u64) -> Self {
        Self { runner_type: RunnerType::Group, groups: vec![group_id], ..Self::instance() }
    }

    /// A runner of a project, created by a user.
    #[must_use]
    pub fn project(project_id: u64) -> Self {
        Self { runner_type: RunnerType::Project, projects: vec![project_id], ..Self::instance() }
    }

    /// Registered with a registration token instead of created by a user, which changes its token's format.
    #[must_use]
    pub fn registered(mut self) -> Self {
        self.origin = Origin::Registered;
        self
    }

    /// With this token instead of a fresh one.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// With a description.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// With tags.
    #[must_use]
    pub fn tags<const N: usize>(mut self, tags: [&str; N]) -> Self {
        self.tags = tags.map(str::to_owned).to_vec();
        self
    }

    /// Locked to its project.
    #[must_use]
    pub fn locked(mut self) -> Self {
        self.locked = true;
        self
    }

    /// Paused.
    #[must_use]
    pub fn paused(mut self) -> Self {
        self.paused = true;
        self
    }

    /// With a rotation deadline (since 18.10).
    #[must_use]
    pub fn rotation_deadline(mut self, deadline: Timestamp) -> Self {
        self.rotation_deadline = Some(deadline);
        self
    }
}
