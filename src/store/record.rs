//! What is known of a runner besides its entry: the truth that config.toml is projected from.

use super::compose::EntryText;
use super::error::Error;
use crate::model::{Credential, LastVerify, Origin, RunnerId, RunnerKey, ServerUrl, Timestamp};
use crate::secret::Fingerprint;

/// How many retired tokens a record remembers.
pub const MAX_RETIRED: usize = 16;

/// One runner's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What its files are named by.
    pub key: RunnerKey,
    /// How the runner came into being.
    pub origin: Origin,
    /// The key of the enrollment that asked for it; absent for a one-shot or found runner.
    pub enrollment: Option<String>,
    /// Of the registration token (or given token) it came of.
    pub seed: Option<Fingerprint>,
    /// The instance.
    pub url: ServerUrl,
    /// GitLab's number, once known.
    pub id: Option<RunnerId>,
    /// The local name of its entry.
    pub name: Option<String>,
    /// The current token with its times; absent once it is unregistered.
    pub credential: Option<Credential>,
    /// Tokens it had before, oldest first, at most [`MAX_RETIRED`].
    pub retired: Vec<Fingerprint>,
    /// The machine it was recorded on, to notice a copied disk.
    pub machine: Option<Fingerprint>,
    /// Its entry while that is not in config.toml.
    pub entry_text: Option<EntryText>,
    /// Server time at which the agent saw it first.
    pub first_seen_at: Option<Timestamp>,
    /// The last verification.
    pub last_verify: Option<LastVerify>,
    /// Server time of the last successful rotation.
    pub last_reset_at: Option<Timestamp>,
    /// The lifecycle state in snake case.
    pub state: String,
    /// Server time since which it is in that state.
    pub since: Option<Timestamp>,
}

/// All records of one config.toml.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// Those that can be read, by key.
    pub records: Vec<Record>,
    /// One error for each that cannot.
    pub damaged: Vec<Error>,
}

impl Record {
    /// Remembers a token as one that must not come back; forgets the oldest beyond [`MAX_RETIRED`].
    pub fn retire(&mut self, fingerprint: Fingerprint) {
        self.retired.retain(|known| *known != fingerprint);
        self.retired.push(fingerprint);
        let surplus = self.retired.len().saturating_sub(MAX_RETIRED);
        self.retired.drain(..surplus);
    }
}
