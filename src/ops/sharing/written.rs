//! What a write of this machine has changed in the store, for people.

use crate::model::{Link, SharedChange, SharedRunner, SystemId};
use crate::ops::Runner;

/// A token that this machine has put into the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its own change that has brought the token; `None` for one that it had already.
    pub change: Option<SharedChange>,
    /// The token that stood there.
    pub former: Option<Link>,
}

impl Written {
    /// What the write of `next` over `former` by this machine says; `None` unless it brings another token.
    pub(super) fn between(former: Option<&SharedRunner>, next: &SharedRunner, own: &SystemId) -> Option<Self> {
        let link = |runner: &SharedRunner| runner.token.as_ref().map(|token| token.lineage.newest());
        let (before, after) = (former.and_then(link), link(next));
        if after.is_none() || after == before {
            return None;
        }
        let pending = former.and_then(|former| former.pending.as_ref());
        let change = pending.filter(|pending| pending.sender.machine == *own).map(|pending| pending.change);
        Some(Self { change, former: before })
    }
}

impl Runner {
    /// The last token that this machine has put into the store, once.
    pub fn take_written(&mut self) -> Option<Written> {
        self.store.as_mut()?.written.take()
    }

    /// The generation's token on this machine, as its record has it.
    #[must_use]
    pub fn shared_link(&self) -> Option<Link> {
        Some(self.record.shared.as_ref()?.lineage.as_ref()?.newest())
    }

    /// Whether the store has the same.
    #[must_use]
    pub fn is_link_in_store(&self) -> bool {
        let stored = self.stored_token().map(|token| token.lineage.newest());
        stored.is_some() && stored == self.shared_link()
    }

    /// The machine that has changed the runner last, and its host as far as it is a member.
    #[must_use]
    pub fn changed_by(&self) -> Option<(&SystemId, Option<&str>)> {
        let stored = self.stored_runner()?;
        let machine = stored.changed_by.as_ref()?;
        let member = stored.members.iter().find(|member| member.machine == *machine);
        Some((machine, member.map(|member| member.host.as_str())))
    }
}
