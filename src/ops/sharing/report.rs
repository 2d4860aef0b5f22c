//! What a machine knows of the store of a shared runner, for people.

use tokio::time::Instant;

use super::StoreMemory;
use crate::lifecycle::sharing::is_store_refusal_proven;
use crate::model::{Lineage, ShareName, SharingReport, Timestamp};
use crate::ops::Runner;
use crate::sharing;

impl Runner {
    /// How the runner is shared, as its record has it; `None` if it is not shared.
    #[must_use]
    pub fn recorded_sharing(&self) -> Option<SharingReport> {
        let shared = self.record.shared.as_ref()?;
        Some(SharingReport {
            generation: shared.lineage.as_ref().map(Lineage::generation),
            untold: shared.is_untold,
            ..SharingReport::new(shared.name.clone())
        })
    }

    /// The same with what this process knows of the store. The name is that of a runner that is not registered yet.
    #[must_use]
    pub fn sharing(&self, name: Option<ShareName>, now: Timestamp) -> Option<SharingReport> {
        let recorded = self.recorded_sharing().or_else(|| name.map(SharingReport::new))?;
        let Some(memory) = self.store.as_deref() else { return Some(recorded) };
        let stored = memory.runner();
        let pending = stored.and_then(|stored| stored.pending.as_ref());
        let report = SharingReport {
            changing: pending.map(|pending| pending.sender.machine.to_string()),
            changed_by: stored.and_then(|stored| stored.changed_by.as_ref()).map(ToString::to_string),
            // One that was read and has no value has no members.
            members: memory.seen.as_ref().map(|_| stored.map_or(0, |stored| stored.members.len())),
            contact_at: memory.contact.map(|contact| now.minus(contact.elapsed())),
            problem: memory.problem.clone(),
            is_lasting: memory.problem.is_some() && memory.is_lasting,
            ..recorded
        };
        Some(report.at(now))
    }

    /// Why the store of the runner keeps this machine from being ready: it has never answered this process, or a person has
    /// to act. A store that fails later changes nothing until a rotation needs it, as with a server.
    #[must_use]
    pub fn store_trouble(&self) -> Option<&str> {
        let memory = self.store.as_deref()?;
        memory.problem.as_deref().filter(|_| memory.is_lasting || memory.contact.is_none())
    }

    /// The store has answered: what was wrong is over, unless it is what the answer says. Returns whether anything was.
    pub(super) fn note_store_answer(&mut self) -> bool {
        let stored = self.store.as_deref().and_then(StoreMemory::runner);
        let is_another = stored.is_some_and(|stored| self.is_of_another_share(stored));
        let memory = self.memory();
        if is_another || memory.is_about_writes {
            return false;
        }
        (memory.refused, memory.refusal) = (None, None);
        if memory.problem.take().is_none() {
            return false;
        }
        tracing::info!(runner = self.label(), "the store of the shared runner can be used again");
        true
    }

    /// Notes that the store cannot be used, and says so once.
    pub fn note_store_failure(&mut self, error: &sharing::Error) {
        let text = error.to_string();
        let label = self.label().to_owned();
        let memory: &mut StoreMemory = self.memory();
        let (was_troubled, was_lasting) = (memory.problem.replace(text.clone()).is_some(), memory.is_lasting);
        memory.refusal = (!error.is_passing()).then(|| error.clone());
        memory.refused = error.is_refusal().then(|| memory.refused.unwrap_or_else(Instant::now));
        let is_proven = memory.refused.is_none_or(|refused| is_store_refusal_proven(refused.elapsed()));
        (memory.is_lasting, memory.is_about_writes) = (!error.is_passing() && is_proven, false);
        if was_troubled && was_lasting == memory.is_lasting {
            return;
        }
        if !memory.is_lasting {
            let meanwhile = match self.record.credential {
                Some(_) => "going on with the token of this machine, which is not rotated meanwhile",
                None => "this machine has no token yet, and waits for the store",
            };
            tracing::warn!(runner = label, error = text, "the store of the shared runner cannot be used: {meanwhile}");
        } else {
            let hint = error.hint();
            tracing::error!(runner = label, error = text, hint, "the store of the shared runner cannot be used");
        }
    }
}
