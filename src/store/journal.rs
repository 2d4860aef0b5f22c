//! The journal: what is about to be asked of the server, and what it answered.

use crate::model::{Expiry, RunnerId, RunnerKey, ServerUrl, SystemId, Timestamp};
use crate::secret::{Fingerprint, Token};

/// The longest description kept of a registration, in characters.
pub const MAX_DESCRIPTION_CHARS: usize = 200;

/// A request that is about to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// What it asks for.
    pub operation: Operation,
    /// Server time, as far as known.
    pub at: Timestamp,
    /// The manager it is sent as.
    pub system_id: Option<SystemId>,
}

/// What a request asks for, with what is needed to settle it after a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new runner.
    Register {
        /// The instance.
        url: ServerUrl,
        /// Its description there, cut to [`MAX_DESCRIPTION_CHARS`].
        description: String,
        /// Of the registration token.
        seed: Fingerprint,
    },
    /// A new token.
    Rotate {
        /// The instance.
        url: ServerUrl,
        /// The runner.
        id: Option<RunnerId>,
        /// Of the token that is replaced.
        old: Fingerprint,
    },
    /// The end of a runner or of its manager on this machine.
    Unregister {
        /// The instance.
        url: ServerUrl,
        /// The runner.
        id: Option<RunnerId>,
        /// Of its token.
        fingerprint: Fingerprint,
        /// Whether only this machine's manager is deleted.
        manager_only: bool,
    },
}

/// What the server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalAnswer {
    /// The runner's number, where the answer has one.
    pub id: Option<RunnerId>,
    /// The new token; absent when the runner is gone.
    pub token: Option<Token>,
    /// When it stops working.
    pub expiry: Expiry,
    /// Server time of the answer.
    pub obtained_at: Option<Timestamp>,
}

/// An operation that was begun and not cleared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The runner.
    pub key: RunnerKey,
    /// What was asked.
    pub intent: Intent,
    /// What was answered, if that came to the disk.
    pub answer: Option<JournalAnswer>,
}
