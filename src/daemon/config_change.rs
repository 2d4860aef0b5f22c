//! Reads config.toml after a change, and finds out whom the change concerns.

use std::sync::Arc;

use crate::clock::Clock;
use crate::engine::{Config, Engine};
use crate::ops::{Disk, Enrollment, Error, RegistrationSource, Server};
use crate::store::{Difference, Entry, RecordQuery, Snapshot};

/// config.toml, compared with the version that was known.
pub(super) struct ConfigChange {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) difference: Difference,
    /// Whether this process has made it.
    pub(super) is_own: bool,
    /// Whether the change can concern other runners than those whose entries differ: an entry is new or gone, or a token may
    /// be that of another runner.
    pub(super) concerns_others: bool,
}

impl ConfigChange {
    /// # Errors
    /// [`Error::Disk`] if config.toml or the records cannot be read.
    pub(super) async fn read<S: Server, D: Disk, C: Clock>(
        engine: &Engine<S, D, C>,
        config: &Config,
        known: &Snapshot,
    ) -> Result<Self, Error> {
        let snapshot = engine.ops.disk().read().await?;
        let difference = snapshot.difference(known);
        let is_own = snapshot.found == known.found;
        // A token that this process has written is none that an enrollment is given.
        let may_be_given = !is_own && config.enrollments.iter().any(is_given);
        let concerns_others = if difference.is_empty() {
            false
        } else if !difference.has_same_runners || difference.is_reordered || may_be_given {
            true
        } else {
            are_known_elsewhere(engine.ops.disk(), &[known, &snapshot], &difference).await?
        };
        Ok(Self { snapshot, difference, is_own, concerns_others })
    }
}

fn is_given(enrollment: &Enrollment) -> bool {
    matches!(enrollment.source, RegistrationSource::Given(_))
}

/// Whether other runners may have the tokens of entries that differ. Without a state directory only the entries tell.
async fn are_known_elsewhere(disk: &impl Disk, versions: &[&Snapshot], difference: &Difference) -> Result<bool, Error> {
    for entry in &difference.entries.entries {
        if is_known_elsewhere(disk, versions, entry).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether another entry or another runner's record has an entry's token. One without a token may wait for any.
async fn is_known_elsewhere(disk: &impl Disk, versions: &[&Snapshot], entry: &Entry) -> Result<bool, Error> {
    let Some(digest) = entry.token.token().map(|token| token.digest()) else { return Ok(true) };
    if versions.iter().any(|snapshot| snapshot.count_of(digest) > 1) {
        return Ok(true);
    }
    let records = disk.records_with(RecordQuery::Token(digest)).await?;
    Ok(records.iter().any(|record| record.id != entry.id || entry.url.as_ref() != Some(&record.url)))
}
