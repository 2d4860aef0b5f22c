//! What is seen while the files of the hooks cannot be read.

use std::collections::{BTreeMap, BTreeSet};

use super::Sighting;
use crate::model::{RunnerKey, Timestamp};

/// The last of everything that was seen.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// The runners that are there, and the server's time of that.
    pub(super) there: Option<(BTreeSet<RunnerKey>, Timestamp)>,
    /// The last sighting of each.
    pub(super) seen: BTreeMap<RunnerKey, Sighting>,
    /// Those that are no longer served.
    pub(super) dismissed: BTreeMap<RunnerKey, Timestamp>,
}

impl Backlog {
    /// Something was seen.
    pub(super) fn see(&mut self, sighting: Sighting) {
        self.dismissed.remove(&sighting.key);
        self.seen.insert(sighting.key.clone(), sighting);
    }
}
