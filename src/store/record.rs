//! Runner records: the source of truth that config.toml is projected from.

use serde::{Deserialize, Serialize};

use super::entry_text::EntryText;
use super::error::Error;
use super::files::{FileIn, OwnFile as _, Seen, TEMPORARY, names_in, read_file, remove_durably, replace};
use super::wire::{optional_credential, optional_text, text};
use super::{held, journal};
use crate::files::OwnDirectory;
use crate::model::{
    Belief, Credential, LastVerify, Origin, RecordedShare, RegisteredWith, RunnerId, RunnerKey, ServerUrl, StateName,
    Timestamp,
};
use crate::secret::{Digest, Fingerprint, Token};

/// Incremented when a field changes its meaning; other schemas are rejected.
const SCHEMA: u32 = 1;

/// The number of former tokens that a record keeps.
pub const MAX_FORMER_TOKENS: usize = 16;

/// One runner's record.
///
/// `remote = "Self"` generates serde's functions without its traits: a record contains its token, and so no
/// other file can serialize one by accident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Record {
    /// Names the runner's files.
    pub key: RunnerKey,
    /// How the runner was created.
    pub origin: Origin,
    /// The key of its enrollment; absent for a one-shot or found runner.
    pub enrollment: Option<String>,
    /// The registration token, or the given token, that it was created from.
    pub seed: Option<Fingerprint>,
    /// Its whole digest; absent in records of version 0.1.
    #[serde(default)]
    pub seed_digest: Option<Digest>,
    /// The GitLab instance.
    pub url: ServerUrl,
    /// GitLab's id of the runner, once known.
    pub id: Option<RunnerId>,
    /// The id that the server has named for a token of this runner; an id in config.toml is only a claim.
    #[serde(default)]
    pub confirmed_id: Option<RunnerId>,
    /// The runner whose token was put into the entry of this one.
    #[serde(default)]
    pub given_to: Option<RunnerId>,
    /// The local name of its entry.
    pub name: Option<String>,
    /// The current token with its times; absent once it is unregistered.
    #[serde(default, with = "optional_credential")]
    pub credential: Option<Credential>,
    /// The tokens that it had before, oldest first, at most [`MAX_FORMER_TOKENS`].
    #[serde(rename = "retired")]
    pub former_tokens: Vec<Fingerprint>,
    /// Their whole digests, in the same order; those that version 0.1 has written are missing.
    #[serde(rename = "retired_digests", default)]
    pub former_digests: Vec<Digest>,
    /// The machine that wrote the record; another value reveals a copied disk.
    pub machine: Option<Fingerprint>,
    /// Its entry while that is not in config.toml.
    #[serde(default, with = "optional_text")]
    pub entry_text: Option<EntryText>,
    /// Server time at which the agent first saw a credential of unknown issue time.
    pub first_seen_at: Option<Timestamp>,
    /// The last verification.
    pub last_verify: Option<LastVerify>,
    /// Server time of the last successful rotation.
    pub last_reset_at: Option<Timestamp>,
    /// How long a token of this runner lives, in seconds, as measured by two clocks that agreed.
    #[serde(default)]
    pub token_life_secs: Option<u64>,
    /// Which of two clocks that differ is believed.
    #[serde(default)]
    pub belief: Option<Belief>,
    /// The token that a reset by id returned; allowed once per token.
    pub recovered: Option<Fingerprint>,
    /// Whether it came with a copied disk: another machine may use the same token.
    #[serde(default)]
    pub is_copy: bool,
    /// The lifecycle state; absent until the server was asked.
    #[serde(with = "text")]
    pub state: Option<StateName>,
    /// Server time at which it entered that state.
    pub since: Option<Timestamp>,
    /// The key that it was moved from: what a crash has left there is older.
    #[serde(default)]
    pub moved_from: Option<RunnerKey>,
    /// The settings in GitLab that it was registered with; absent for a given token, and in records of version 0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered_with: Option<Box<RegisteredWith>>,
    /// How it is shared with other machines, over a store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<Box<RecordedShare>>,
}

/// All records of one config.toml.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// The valid ones, by key.
    pub records: Vec<Record>,
    /// One error per damaged record.
    pub damaged: Vec<Error>,
}

impl Record {
    /// The name of its entry, or its key.
    #[must_use]
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(self.key.as_str())
    }

    /// When its token came to replace another one, in server time, as far as known.
    #[must_use]
    pub fn replaced_at(&self) -> Option<Timestamp> {
        let obtained_at = self.credential.as_ref().and_then(|credential| credential.obtained_at);
        self.last_reset_at.max(obtained_at).max(self.first_seen_at.filter(|_| obtained_at.is_none()))
    }

    /// Sets the token that it was created from.
    pub fn set_seed(&mut self, token: &Token) {
        self.seed = Some(token.fingerprint());
        self.seed_digest = Some(token.digest());
    }

    /// Whether it was created from this token. A record of version 0.1 only says so by eight hex digits.
    #[must_use]
    pub fn has_seed(&self, token: &Token) -> bool {
        self.seed == Some(token.fingerprint()) && self.seed_digest.is_none_or(|digest| digest == token.digest())
    }

    /// The id that the server has named for a token of this runner. Version 0.1 did not note it: a registration of
    /// that version is known by its seed, whose whole digest it did not note either.
    #[must_use]
    pub fn named_id(&self) -> Option<RunnerId> {
        let is_of_version_0_1 = self.seed.is_some() && self.seed_digest.is_none();
        self.confirmed_id.or(self.id.filter(|_| is_of_version_0_1))
    }

    /// Adds a token that must not come back; drops the oldest beyond [`MAX_FORMER_TOKENS`].
    pub fn add_former_token(&mut self, digest: Digest) {
        self.former_digests.retain(|known| *known != digest);
        self.former_digests.push(digest);
        drop_oldest(&mut self.former_digests);
        let fingerprint = digest.fingerprint();
        self.former_tokens.retain(|known| *known != fingerprint);
        self.former_tokens.push(fingerprint);
        drop_oldest(&mut self.former_tokens);
    }

    /// Forgets that a token was a former one, because it is the current one again.
    pub fn remove_former_token(&mut self, digest: Digest) {
        self.former_digests.retain(|known| *known != digest);
        let fingerprint = digest.fingerprint();
        if !self.is_digest_known(&fingerprint) {
            self.former_tokens.retain(|known| *known != fingerprint);
        }
    }

    fn is_digest_known(&self, former: &Fingerprint) -> bool {
        self.former_digests.iter().any(|digest| digest.has_fingerprint(former))
    }
}

fn drop_oldest<T>(tokens: &mut Vec<T>) {
    let surplus = tokens.len().saturating_sub(MAX_FORMER_TOKENS);
    tokens.drain(..surplus);
}

/// Reads all records of a directory, by key.
pub(super) fn read_all(directory: &OwnDirectory) -> Result<Records, Error> {
    let keys = keys(directory, ".json")?;
    let mut found = Records { records: Vec::with_capacity(keys.len()), damaged: Vec::new() };
    for key in keys {
        match read(directory, &key) {
            Ok(Some(record)) => found.records.push(record),
            Ok(None) => {}
            Err(error @ Error::Record { .. }) => found.damaged.push(error),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Returns the version of the file that was written, if known.
pub(super) fn save(directory: &OwnDirectory, record: &Record) -> Result<Option<Seen>, Error> {
    let file = file_of(directory, &record.key);
    let stored = content_of(record).map_err(|error| Error::Record { path: file.path(), reason: error.to_string() })?;
    let place = file.place("replace")?;
    replace(&place, place.beside(TEMPORARY), &stored)
}

pub(super) fn remove(directory: &OwnDirectory, key: &RunnerKey) -> Result<(), Error> {
    remove_durably(&file_of(directory, key))
}

/// Moves the record and what is held to another key, and sets its enrollment. The caller holds the locks of both.
///
/// The new files are complete before the old ones go. After a crash in between, the next call removes the old ones.
pub(super) fn rename(
    directory: &OwnDirectory,
    old: &RunnerKey,
    new: &RunnerKey,
    enrollment: Option<String>,
) -> Result<Option<Record>, Error> {
    let Some(mut record) = read(directory, old)? else { return Ok(None) };
    for key in [old, new] {
        if journal::is_pending(directory, key)? {
            return Err(Error::Unsettled { key: key.clone() });
        }
    }
    record.enrollment = enrollment;
    if old == new {
        save(directory, &record)?;
        return Ok(Some(record));
    }
    let record = match read(directory, new)? {
        // It may have a newer token by now.
        Some(moved) if moved.moved_from.as_ref() == Some(old) && is_same_runner(&moved, &record) => moved,
        Some(_) => return Err(Error::KeyTaken { key: new.clone() }),
        None => {
            record.key = new.clone();
            record.moved_from = Some(old.clone());
            held::copy(directory, old, new)?;
            save(directory, &record)?;
            record
        }
    };
    remove(directory, old)?;
    held::remove(directory, old)?;
    Ok(Some(record))
}

fn is_same_runner(one: &Record, other: &Record) -> bool {
    one.url == other.url && (one.id == other.id || one.id.is_none() || other.id.is_none())
}

/// Lists the runner keys of files with this suffix, sorted.
pub(super) fn keys(directory: &OwnDirectory, suffix: &str) -> Result<Vec<RunnerKey>, Error> {
    let mut keys = Vec::new();
    for name in names_in(directory.path())? {
        let stem = name.to_str().and_then(|name| name.strip_suffix(suffix));
        keys.extend(stem.and_then(|stem| RunnerKey::try_from(stem.to_owned()).ok()));
    }
    keys.sort();
    Ok(keys)
}

/// Reads one record; `None` if there is none.
pub(super) fn read(directory: &OwnDirectory, key: &RunnerKey) -> Result<Option<Record>, Error> {
    let file = file_of(directory, key);
    let Some(content) = read_file(&file)? else { return Ok(None) };
    parse(&content, key).map(Some).map_err(|reason| Error::Record { path: file.path(), reason })
}

fn file_of<'d>(directory: &'d OwnDirectory, key: &RunnerKey) -> FileIn<'d> {
    FileIn { directory, name: format!("{key}.json") }
}

/// The file content of a record.
pub(super) fn content_of(record: &Record) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec_pretty(&Versioned { schema: SCHEMA, record })
}

/// Parses the record of `key`. The error says why it is invalid, without its content.
pub(super) fn parse(content: &[u8], key: &RunnerKey) -> Result<Record, String> {
    // serde's error texts can quote the content, so only the position is kept.
    let at = |error: serde_json::Error| format!("line {}, column {}", error.line(), error.column());
    let Schema { schema } = serde_json::from_slice(content).map_err(at)?;
    if schema != SCHEMA {
        return Err(format!("unknown schema {schema}"));
    }
    let record = Record::deserialize(&mut serde_json::Deserializer::from_slice(content)).map_err(at)?;
    if record.key == *key { Ok(record) } else { Err("it belongs to another key".to_owned()) }
}

#[derive(Deserialize)]
struct Schema {
    schema: u32,
}

#[derive(Serialize)]
struct Versioned<'r> {
    schema: u32,
    #[serde(flatten, with = "Record")]
    record: &'r Record,
}
