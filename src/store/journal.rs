//! The journal: one request to the server, and its answer.
//!
//! A file of fixed size with two slots, the intent and the answer. It is allocated before the request is sent:
//! writing the answer cannot fail for lack of space. Each slot is a line of SHA-256 and a line of JSON, padded
//! with spaces; a wrong checksum marks an incomplete write.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use serde::{Deserialize, Serialize, Serializer};

use super::error::Error;
use super::files::{
    FileIn, OwnFile as _, TEMPORARY, TemporaryFile, read_file, remove_durably, remove_file, replace_file, sync,
};
use super::record::keys;
use super::wire::{StoredExpiry, optional_text};
use crate::files::{self, Access, OwnDirectory};
use crate::model::{Expiry, RunnerId, RunnerKey, ServerUrl, SystemId, Timestamp};
use crate::secret::{Digest, Fingerprint, Token, sha256_hex};

/// The maximum length of a journaled description, in characters.
pub const MAX_DESCRIPTION_CHARS: usize = 200;

/// The size of the file, in bytes.
const FILE_BYTES: usize = 4096;

/// Where the answer begins: an intent has at most a URL of 1 KiB and a description whose characters take six
/// bytes each; the answer's slot begins a disk sector of its own.
const ANSWER_AT: usize = 3072;

/// A request that is about to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The requested operation.
    pub operation: JournalOperation,
    /// Estimated server time.
    pub at: Timestamp,
    /// The runner manager that sends it.
    #[serde(default, with = "optional_text")]
    pub system_id: Option<SystemId>,
    /// Who asked for it; absent in journals of version 0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_by: Option<AskedBy>,
    /// Whole digest of the token that the operation names by its fingerprint; absent in journals of version 0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Digest>,
}

/// Who asked for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AskedBy {
    /// The daemon, by its settings.
    Daemon,
    /// A command.
    Command,
}

/// What an unregistration does with the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoredFate {
    /// It stays.
    Keep,
    /// It is removed, and its text stays in the record.
    KeepText,
    /// It is removed, and its text is kept in a file.
    Drop,
}

/// The operation of a request, with the data to settle it after a crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JournalOperation {
    /// Creates a runner.
    Register {
        /// The instance.
        url: ServerUrl,
        /// Its description, truncated to [`MAX_DESCRIPTION_CHARS`].
        #[serde(serialize_with = "truncated")]
        description: String,
        /// Fingerprint of the registration token.
        seed: Fingerprint,
        /// The key that all registrations of its name share; absent in journals of version 0.1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        common: Option<RunnerKey>,
    },
    /// Replaces a token.
    Rotate {
        /// The instance.
        url: ServerUrl,
        /// The runner.
        id: Option<RunnerId>,
        /// Fingerprint of the replaced token.
        old: Fingerprint,
        /// Whether it is authenticated by an access token; allowed once per token.
        #[serde(default)]
        by_id: bool,
    },
    /// Deletes a runner or its manager on this machine.
    Unregister {
        /// The instance.
        url: ServerUrl,
        /// The runner.
        id: Option<RunnerId>,
        /// Fingerprint of its token.
        fingerprint: Fingerprint,
        /// Whether only this machine's manager is deleted.
        manager_only: bool,
        /// What happens to the entry; absent in journals of version 0.1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fate: Option<StoredFate>,
    },
}

/// The server's answer.
///
/// `remote = "Self"`: like a [`Record`](super::Record), it must not be serialized by accident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct JournalAnswer {
    /// The runner's id, if the answer contains one.
    pub id: Option<RunnerId>,
    /// The new token; absent once the runner is deleted.
    #[serde(default, with = "optional_text")]
    pub token: Option<Token>,
    /// When it stops working.
    #[serde(with = "StoredExpiry")]
    pub expiry: Expiry,
    /// Server time of the answer.
    pub obtained_at: Option<Timestamp>,
    /// Whether the answer has the shape that GitLab documents; a token from another one is only a candidate.
    #[serde(default = "is_documented")]
    pub is_documented: bool,
}

/// An operation that was begun and not cleared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The runner.
    pub key: RunnerKey,
    /// The request.
    pub intent: Intent,
    /// The answer, if it was written.
    pub answer: Option<JournalAnswer>,
}

impl Pending {
    /// Whether it is a reset whose answer was not written.
    #[must_use]
    pub fn is_lost_reset(&self) -> bool {
        matches!(self.intent.operation, JournalOperation::Rotate { .. }) && self.answer.is_none()
    }

    /// Whether it is a reset of this token whose answer was not written.
    #[must_use]
    pub fn is_lost_reset_of(&self, token: Digest) -> bool {
        self.is_lost_reset() && self.intent.token == Some(token)
    }
}

/// The journals of requests whose answers are outstanding, open: an answer then takes no new descriptor, so that the only
/// copy of a token can be written even if there is none left.
#[derive(Default)]
pub(super) struct OpenJournals(BTreeMap<RunnerKey, File>);

impl OpenJournals {
    /// Writes the intent and space for the answer, durably. Refuses to overwrite an answer that contains a token.
    pub(super) fn begin(&mut self, directory: &OwnDirectory, key: &RunnerKey, intent: &Intent) -> Result<(), Error> {
        self.0.remove(key);
        let file = begin(directory, key, intent)?;
        self.0.insert(key.clone(), file);
        Ok(())
    }

    /// Puts the intent in place of the whole journal, at once: its answer is kept elsewhere, or was of no effect.
    pub(super) fn take_back_to(
        &mut self,
        directory: &OwnDirectory,
        key: &RunnerKey,
        intent: &Intent,
    ) -> Result<(), Error> {
        self.0.remove(key);
        let file = file_of(directory, key);
        let former = read_file(&file)?;
        write_intent(&file, intent, former.as_deref()).map(drop)
    }

    /// Writes the answer into its slot, durably.
    pub(super) fn answered(
        &mut self,
        directory: &OwnDirectory,
        key: &RunnerKey,
        answer: &JournalAnswer,
    ) -> Result<(), Error> {
        let journal = file_of(directory, key);
        let path = journal.path();
        let slot = slot(&StoredAnswer(answer.clone()), FILE_BYTES - ANSWER_AT, &path)?;
        files::note(&path);
        let write = |file: &File| file.write_all_at(&slot, ANSWER_AT as u64).and_then(|()| file.sync_all());
        let written = match self.0.get(key).filter(|file| is_at(file, &path)) {
            Some(file) => write(file),
            None => match journal.find().and_then(|place| place.open(Access::Write)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(Error::NotBegun { key: key.clone() });
                }
                opened => opened.and_then(|opened| write(&opened.file)),
            },
        };
        written.map_err(Error::io("write", &path))
    }

    /// Ends an operation.
    pub(super) fn clear(&mut self, directory: &OwnDirectory, key: &RunnerKey) -> Result<(), Error> {
        // Frees the descriptor that the removal needs.
        self.0.remove(key);
        remove_durably(&file_of(directory, key))
    }
}

/// Whether an open file is the one of this name; takes no descriptor.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |found: Metadata| (found.dev(), found.ino());
    file.metadata().map(identity).ok().is_some_and(|open| files::look(path).map(identity).ok() == Some(open))
}

fn begin(directory: &OwnDirectory, key: &RunnerKey, intent: &Intent) -> Result<File, Error> {
    let file = file_of(directory, key);
    let former = read_file(&file)?;
    let former = match former.as_deref().map(JournalContent::of) {
        None | Some(JournalContent::NeverSent) => None,
        Some(JournalContent::Whole(_, None | Some(JournalAnswer { token: None, .. }))) => former,
        Some(JournalContent::Whole(_, Some(_)) | JournalContent::Foreign) => {
            return Err(Error::Unsettled { key: key.clone() });
        }
    };
    write_intent(&file, intent, former.as_deref())
}

/// Replaces a journal by an intent without an answer, durably.
fn write_intent(journal: &FileIn<'_>, intent: &Intent, former: Option<&[u8]>) -> Result<File, Error> {
    let mut content = slot(intent, ANSWER_AT, &journal.path())?;
    content.resize(FILE_BYTES, b' ');
    let place = journal.place("replace")?;
    let mut temporary = TemporaryFile::create(place.beside(TEMPORARY))?;
    temporary.set_mode(0o600)?;
    temporary.fill(&content)?;
    let file = temporary.rename(&place).map_err(Error::io("replace", place.path()))?;
    sync(&place).inspect_err(|_| take_back(journal, former))?;
    Ok(file)
}

/// Takes back an intent that was not made durable, or the request would look as if it had been sent.
fn take_back(journal: &FileIn<'_>, former: Option<&[u8]>) {
    let taken = match former {
        Some(former) => replace_file(journal, former),
        None => remove_file(journal),
    };
    if let Err(error) = taken {
        let path = journal.path();
        tracing::warn!(path = %path.display(), %error, "cannot remove a request from the journal that was not sent");
    }
}

/// Reads the operations that were begun and not cleared.
pub(super) fn pending(directory: &OwnDirectory) -> Result<Vec<Pending>, Error> {
    let mut pending = Vec::new();
    for key in keys(directory, ".pending")? {
        let Some(content) = read_file(&file_of(directory, &key))? else { continue };
        match JournalContent::of(&content) {
            JournalContent::Whole(intent, answer) => pending.push(Pending { key, intent, answer }),
            JournalContent::NeverSent => {
                tracing::warn!(runner = %key, "removing an incomplete journal: its request was never sent");
                remove_durably(&file_of(directory, &key))?;
            }
            JournalContent::Foreign => {
                let path = file_of(directory, &key).path();
                tracing::error!(runner = %key, path = %path.display(),
                    "keeping a journal of another version of runner-agent: start that version once to settle it");
            }
        }
    }
    Ok(pending)
}

/// Reads one runner's operation, if it was begun and not cleared.
pub(super) fn pending_of(directory: &OwnDirectory, key: &RunnerKey) -> Result<Option<Pending>, Error> {
    let Some(content) = read_file(&file_of(directory, key))? else { return Ok(None) };
    match JournalContent::of(&content) {
        JournalContent::Whole(intent, answer) => Ok(Some(Pending { key: key.clone(), intent, answer })),
        JournalContent::NeverSent | JournalContent::Foreign => Ok(None),
    }
}

/// Whether an operation of the runner was begun and not cleared, also by another version.
pub(super) fn is_pending(directory: &OwnDirectory, key: &RunnerKey) -> Result<bool, Error> {
    let content = read_file(&file_of(directory, key))?;
    Ok(content.is_some_and(|content| !matches!(JournalContent::of(&content), JournalContent::NeverSent)))
}

/// The content of a journal file.
pub(super) enum JournalContent {
    Whole(Intent, Option<JournalAnswer>),
    /// The intent is incomplete: the request was not sent.
    NeverSent,
    /// Complete, but not understood.
    Foreign,
}

impl JournalContent {
    pub(super) fn of(content: &[u8]) -> Self {
        let Some(intent) = read_slot(content.get(..ANSWER_AT).unwrap_or(content)) else { return Self::NeverSent };
        let intent = serde_json::from_slice(intent).ok();
        let answer = content.get(ANSWER_AT..).and_then(read_slot);
        let answer = answer.map(|json| serde_json::from_slice(json).ok());
        match (intent, answer) {
            (Some(intent), None) => Self::Whole(intent, None),
            (Some(intent), Some(Some(StoredAnswer(answer)))) => Self::Whole(intent, Some(answer)),
            (None, _) | (Some(_), Some(None)) => Self::Foreign,
        }
    }
}

/// Version 0.1 journaled only documented answers.
fn is_documented() -> bool {
    true
}

fn file_of<'d>(directory: &'d OwnDirectory, key: &RunnerKey) -> FileIn<'d> {
    FileIn { directory, name: format!("{key}.pending") }
}

fn slot<T: Serialize>(value: &T, size: usize, path: &Path) -> Result<Vec<u8>, Error> {
    let too_long = |error: std::io::Error| Error::io("write", path)(error);
    let json = serde_json::to_string(value).map_err(|error| too_long(error.into()))?;
    let mut slot = format!("{}\n{json}\n", sha256_hex(json.as_bytes())).into_bytes();
    if slot.len() > size {
        return Err(too_long(std::io::Error::other("the journal entry is too long")));
    }
    slot.resize(size, b' ');
    Ok(slot)
}

/// The JSON of a completely written slot.
fn read_slot(slot: &[u8]) -> Option<&[u8]> {
    let mut lines = slot.splitn(3, |byte| *byte == b'\n');
    let (checksum, json, _padding) = (lines.next()?, lines.next()?, lines.next()?);
    (sha256_hex(json).as_bytes() == checksum).then_some(json)
}

#[derive(Serialize, Deserialize)]
struct StoredAnswer(#[serde(with = "JournalAnswer")] JournalAnswer);

fn truncated<S: Serializer>(description: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&description.chars().take(MAX_DESCRIPTION_CHARS).collect::<String>())
}
