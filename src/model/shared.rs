//! A runner that many machines share, as their store has it.

use super::SystemId;
use crate::secret::Digest;

/// How many links a lineage keeps: a machine that was away for as many rotations finds its own link in it.
pub const MAX_LINKS: usize = 64;

/// One token in the succession of a shared runner's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// Counts the tokens from 1. Two machines that were cut off from each other can give one number to two tokens.
    pub generation: u64,
    /// The token's SHA-256.
    pub token: Digest,
}

/// A token and those that it grew from, oldest first, at most [`MAX_LINKS`]. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
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

    fn of(mut former: Vec<Link>, newest: Link) -> Self {
        let surplus = (former.len() + 1).saturating_sub(MAX_LINKS);
        former.drain(..surplus);
        Self { former, newest }
    }
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
}

/// A change of a shared runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SharedChange {
    /// The runner is registered or created.
    Register,
    /// Its token is reset by the token itself. GitLab accepts that for the present token alone.
    Reset,
    /// Its token is reset by the runner's id and an access token. Nothing fences it.
    ResetById,
}
