//! A runner that many machines share, as their store has it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Credential, Origin, RunnerId, ServerUrl, SystemId, Timestamp};
use crate::secret::Digest;

/// How many links a lineage keeps: a machine that was away for as many rotations finds its own link in it.
pub const MAX_LINKS: usize = 64;

/// One token in the succession of a shared runner's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Link {
    /// Counts the tokens from 1. Two machines that were cut off from each other can give one number to two tokens.
    pub generation: u64,
    /// The token's SHA-256.
    pub token: Digest,
}

/// A token and those that it grew from, oldest first, at most [`MAX_LINKS`]. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Link>", into = "Vec<Link>")]
pub struct Lineage {
    former: Vec<Link>,
    newest: Link,
}

impl Lineage {
    /// The lineage of the first token.
    #[must_use]
    pub fn first(token: Digest) -> Self {
        Self { former: Vec::new(), newest: Link { generation: 1, token } }
    }

    /// The link of the present token.
    #[must_use]
    pub fn newest(&self) -> Link {
        self.newest
    }

    /// The present generation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.newest.generation
    }

    /// The digest of the present token.
    #[must_use]
    pub fn token(&self) -> Digest {
        self.newest.token
    }

    /// All links, oldest first.
    pub fn links(&self) -> impl DoubleEndedIterator<Item = Link> + '_ {
        self.former.iter().copied().chain([self.newest])
    }

    /// Whether the present token is that link, or grew from it.
    #[must_use]
    pub fn has(&self, link: Link) -> bool {
        self.links().any(|known| known == link)
    }

    /// Whether a link of this generation would still be known.
    #[must_use]
    pub fn reaches(&self, generation: u64) -> bool {
        self.links().next().is_some_and(|oldest| oldest.generation <= generation)
    }

    /// The lineage after a reset has replaced the present token.
    #[must_use]
    pub fn with_next(&self, token: Digest) -> Self {
        Self::of(self.links().collect(), Link { generation: self.generation() + 1, token })
    }

    /// The lineage of a token that is written over `other` although it may not have grown from it: the next generation of
    /// both.
    #[must_use]
    pub fn over(&self, other: &Self, token: Digest) -> Self {
        let mut former: Vec<_> = self.links().chain(other.links()).collect();
        former.sort_by_key(|link| (link.generation, link.token));
        former.dedup();
        let generation = self.generation().max(other.generation()) + 1;
        Self::of(former, Link { generation, token })
    }

    /// The lineage with these links, oldest first. `None` without a link, and unless the last generation is the highest.
    #[must_use]
    pub fn from_links(mut links: Vec<Link>) -> Option<Self> {
        let newest = links.pop()?;
        let is_last = links.iter().all(|link| link.generation <= newest.generation);
        is_last.then(|| Self::of(links, newest))
    }

    fn of(mut former: Vec<Link>, newest: Link) -> Self {
        let surplus = (former.len() + 1).saturating_sub(MAX_LINKS);
        former.drain(..surplus);
        Self { former, newest }
    }
}

impl From<Lineage> for Vec<Link> {
    fn from(lineage: Lineage) -> Self {
        lineage.links().collect()
    }
}

impl TryFrom<Vec<Link>> for Lineage {
    type Error = &'static str;

    fn try_from(links: Vec<Link>) -> Result<Self, Self::Error> {
        Self::from_links(links).ok_or("the last link is not the newest one")
    }
}

/// What the record of a shared runner says of the sharing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedShare {
    /// The name in the store.
    pub name: ShareName,
    /// The lineage of the record's token, or of the one before; `None` before there was one.
    pub lineage: Option<Lineage>,
    /// Whether an answer has brought the present token, and no write to the store has told of it yet.
    pub is_untold: bool,
    /// How the runner was made, as the store has said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Whether this machine has left the runner at a stop, and GitLab has not accepted its token since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_left: bool,
}

/// A machine and its boot, which a change is sent by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sender {
    /// The machine.
    pub machine: SystemId,
    /// Drawn at each start of its agent: a process that was killed sends nothing any more.
    pub boot: u64,
}

/// A change of the runner that a machine has announced, and whose result is not in the store yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedPending {
    /// What it does.
    pub change: SharedChange,
    /// Who.
    pub sender: Sender,
    /// The token that it replaces.
    pub token: Option<Digest>,
    /// Drawn for each change: one that is taken back and announced again is another one.
    pub number: u64,
}

/// A change of a shared runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SharedChange {
    /// The runner is registered or created.
    Register,
    /// Its token is reset by the token itself. GitLab accepts that for the present token alone.
    Reset,
    /// Its token is reset by the runner's id and an access token. Nothing fences it.
    ResetById,
}

/// The name by which machines share a runner, as in `share_as`.
///
/// 1 to 40 lower-case letters, digits and dashes, not at either end: it names an object of the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ShareName(Arc<str>);

/// Maximum length of a [`ShareName`], in bytes. A Kubernetes name has room for a prefix.
pub const MAX_SHARE_NAME_BYTES: usize = 40;

impl ShareName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ShareName {
    type Err = ShareNameError;

    fn from_str(text: &str) -> Result<Self, ShareNameError> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_valid = (1..=MAX_SHARE_NAME_BYTES).contains(&text.len())
            && text.bytes().all(is_plain)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if is_valid { Ok(Self(text.into())) } else { Err(ShareNameError) }
    }
}

impl TryFrom<String> for ShareName {
    type Error = ShareNameError;

    fn try_from(text: String) -> Result<Self, ShareNameError> {
        text.parse()
    }
}

impl From<ShareName> for String {
    fn from(name: ShareName) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for ShareName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A text that is not a [`ShareName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name of a shared runner has 1 to 40 lower-case letters, digits and dashes, with no dash at either end")]
pub struct ShareNameError;

/// A machine that uses a shared runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its system_id.
    pub machine: SystemId,
    /// Its host name, for people.
    pub host: String,
    /// Server time at which it joined.
    pub joined_at: Timestamp,
}

/// A runner that many machines share, with everything that they have to know of each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedRunner {
    /// The GitLab instance.
    pub url: ServerUrl,
    /// How the runner was made.
    pub origin: Origin,
    /// GitLab's id of the runner, once the server has named it.
    pub id: Option<RunnerId>,
    /// The present token with its succession; absent before the runner is registered.
    pub token: Option<SharedToken>,
    /// The machine that has written the present token, if it said so.
    pub changed_by: Option<SystemId>,
    /// A change whose result is not here yet.
    pub pending: Option<SharedPending>,
    /// The machines that use it, by system_id. One that is silent counts.
    pub members: Vec<Member>,
    /// Server times of the last recoveries by id, oldest first.
    pub recoveries: Vec<Timestamp>,
    /// The last member, which is about to delete the runner.
    pub leaving: Option<Sender>,
}

/// The present token of a shared runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedToken {
    /// The token with its times.
    pub credential: Credential,
    /// The tokens that it grew from.
    pub lineage: Lineage,
}

impl SharedRunner {
    /// A runner that is not registered yet and has no members.
    #[must_use]
    pub fn new(url: ServerUrl, origin: Origin) -> Self {
        let (id, token, changed_by, pending, leaving) = Default::default();
        Self { url, origin, id, token, changed_by, pending, members: Vec::new(), recoveries: Vec::new(), leaving }
    }

    /// Whether it is another runner than the one with this server and id.
    #[must_use]
    pub fn is_other_than(&self, url: &ServerUrl, id: Option<RunnerId>) -> bool {
        self.url != *url || self.id.zip(id).is_some_and(|(theirs, ours)| theirs != ours)
    }
}
