//! Access tokens of users, groups and projects, sent as `PRIVATE-TOKEN`.

use std::collections::BTreeMap;
use std::fmt;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::Version;

/// The scope of an access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everything.
    Api,
    /// Reading.
    ReadApi,
    /// Only `POST /user/runners`, since 16.2.
    CreateRunner,
    /// Only calls under `/runners/:id`, since 17.1.
    ManageRunner,
    /// Nothing about runners.
    ReadUser,
    /// Only rotating itself, since 17.9.
    SelfRotate,
}

impl Scope {
    /// Every scope.
    pub(crate) const ALL: [Self; 6] =
        [Self::Api, Self::ReadApi, Self::CreateRunner, Self::ManageRunner, Self::ReadUser, Self::SelfRotate];

    /// The name in the API, such as `read_api`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::ReadApi => "read_api",
            Self::CreateRunner => "create_runner",
            Self::ManageRunner => "manage_runner",
            Self::ReadUser => "read_user",
            Self::SelfRotate => "self_rotate",
        }
    }

    pub(crate) fn exists_in(self, version: Version) -> bool {
        match self {
            Self::Api | Self::ReadApi | Self::ReadUser => true,
            Self::CreateRunner => version.is_at_least(16, 2),
            Self::ManageRunner => version.is_at_least(17, 1),
            Self::SelfRotate => version.is_at_least(17, 9),
        }
    }
}

/// The role of an access token's user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Sees no project and no group, only instance runners.
    Outsider,
    /// Sees all projects and groups, and manages none.
    Guest,
    /// Owns all projects and groups, and manages no instance runner.
    Owner,
    /// Manages everything.
    Admin,
}

/// Whose access token it is, which decides the call that rotates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessTokenOwner {
    /// A user.
    User,
    /// The group with this id.
    Group(u64),
    /// The project with this id.
    Project(u64),
}

/// An access token to create: by default an administrator's, without scopes and without an expiry.
#[derive(Clone)]
pub struct NewAccessToken {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) owner: AccessTokenOwner,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) expires_on: Option<Date>,
    pub(crate) text: Option<String>,
}

impl NewAccessToken {
    /// A user's access token.
    #[must_use]
    pub fn personal() -> Self {
        Self {
            name: "runner-agent".to_owned(),
            role: Role::Admin,
            owner: AccessTokenOwner::User,
            scopes: Vec::new(),
            expires_on: None,
            text: None,
        }
    }

    /// The access token of a group, which has the role of an owner.
    #[must_use]
    pub fn group(id: u64) -> Self {
        Self { role: Role::Owner, owner: AccessTokenOwner::Group(id), ..Self::personal() }
    }

    /// The access token of a project, which has the role of an owner.
    #[must_use]
    pub fn project(id: u64) -> Self {
        Self { role: Role::Owner, owner: AccessTokenOwner::Project(id), ..Self::personal() }
    }

    /// Sets the role of its user.
    #[must_use]
    pub fn role(self, role: Role) -> Self {
        Self { role, ..self }
    }

    /// Sets the name.
    #[must_use]
    pub fn name(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// Sets the scopes.
    #[must_use]
    pub fn scopes<const N: usize>(self, scopes: [Scope; N]) -> Self {
        Self { scopes: scopes.to_vec(), ..self }
    }

    /// Ends it at 00:00 UTC of a day.
    #[must_use]
    pub fn expires_on(self, day: Date) -> Self {
        Self { expires_on: Some(day), ..self }
    }

    /// Sets its text instead of a random one.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        Self { text: Some(text.to_owned()), ..self }
    }
}

/// Whether an access token still works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validity {
    Live,
    Expired,
    Revoked,
}

/// An access token, without its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// Its id.
    pub id: u64,
    /// Its name, which its successors keep.
    pub name: String,
    /// The role of its user.
    pub role: Role,
    /// Whose it is.
    pub owner: AccessTokenOwner,
    /// Its scopes, which its successors keep.
    pub scopes: Vec<Scope>,
    /// Whether it was revoked, which a rotation does too.
    pub revoked: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was used last, within a minute.
    pub last_used_at: Option<Timestamp>,
    /// The day at whose 00:00 UTC it ends.
    pub expires_on: Option<Date>,
    /// How many requests to rotate it have reached GitLab, refused ones included.
    pub rotate_requests: usize,
    /// The id of the first token of its family: of itself, or of the first one that was rotated.
    pub family: u64,
}

/// GitLab notes the use of a token at most this often.
const USE_IS_NOTED_EVERY: SignedDuration = SignedDuration::from_mins(1);

impl AccessToken {
    pub(crate) fn new(id: u64, new: NewAccessToken, now: Timestamp) -> Self {
        let NewAccessToken { name, role, owner, scopes, expires_on, text: _ } = new;
        Self {
            id,
            name,
            role,
            owner,
            scopes,
            revoked: false,
            created_at: now,
            last_used_at: None,
            expires_on,
            rotate_requests: 0,
            family: id,
        }
    }

    pub(crate) fn validity(&self, now: Timestamp) -> Validity {
        match self.expires_on {
            _ if self.revoked => Validity::Revoked,
            Some(day) if day <= day_of(now) => Validity::Expired,
            Some(_) | None => Validity::Live,
        }
    }

    /// The whole days that are left at this time; `None` for one that never ends.
    #[must_use]
    pub fn days_left_at(&self, now: Timestamp) -> Option<i32> {
        let left = self.expires_on?.since(day_of(now)).expect("days of the calendar");
        Some(left.get_days())
    }

    /// Whether it works at this time.
    #[must_use]
    pub fn is_active_at(&self, now: Timestamp) -> bool {
        self.validity(now) == Validity::Live
    }

    pub(crate) fn note_use(&mut self, now: Timestamp) {
        if self.last_used_at.is_none_or(|last| now.duration_since(last) >= USE_IS_NOTED_EVERY) {
            self.last_used_at = Some(now);
        }
    }
}

/// The day in UTC.
pub(crate) fn day_of(now: Timestamp) -> Date {
    now.to_zoned(TimeZone::UTC).date()
}

/// The id of the first access token: far from the ids of runners.
const FIRST_ID: u64 = 9001;

/// All access tokens by their text; none is ever removed.
#[derive(Clone, Default)]
pub(crate) struct AccessTokens(pub(crate) BTreeMap<String, AccessToken>);

impl fmt::Debug for AccessTokens {
    /// Omits the tokens.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("AccessTokens").field(&self.0.len()).finish()
    }
}

impl AccessTokens {
    /// The next id, of a sequence of its own.
    pub(crate) fn next_id(&self) -> u64 {
        FIRST_ID.saturating_add(u64::try_from(self.0.len()).expect("a test has few tokens"))
    }

    /// Revokes the tokens of a family, as reuse detection does.
    pub(crate) fn revoke_family(&mut self, family: u64) {
        for token in self.0.values_mut().filter(|token| token.family == family) {
            token.revoked = true;
        }
    }

    /// What a replica has to know of: which tokens there are, and which of them work.
    pub(crate) fn state_of_each(&self) -> Vec<(&str, bool, Option<Date>)> {
        self.0.iter().map(|(text, token)| (text.as_str(), token.revoked, token.expires_on)).collect()
    }
}
