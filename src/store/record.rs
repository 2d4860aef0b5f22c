//! What is known of a runner besides its entry: the truth that config.toml is projected from.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::compose::EntryText;
use super::error::Error;
use super::files::{read_file, remove_durably, replace_file};
use super::wire::{StoredExpiry, stored_token};
use crate::model::{Credential, LastVerify, Origin, RunnerId, RunnerKey, ServerUrl, StateName, Timestamp};
use crate::secret::Fingerprint;

/// Raised when a field changes its meaning; a record of a later schema is not understood.
const SCHEMA: u32 = 1;

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
    /// Server time at which the agent saw its credential first, where nobody told when that was issued.
    pub first_seen_at: Option<Timestamp>,
    /// The last verification.
    pub last_verify: Option<LastVerify>,
    /// Server time of the last successful rotation.
    pub last_reset_at: Option<Timestamp>,
    /// The token that came of a reset by the runner's number, which is done once in a token's life.
    pub recovered: Option<Fingerprint>,
    /// Whether it came with a copied disk, so that another machine may use its token too.
    pub is_copy: bool,
    /// The lifecycle state; absent before a server was asked.
    pub state: Option<StateName>,
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

/// Reads all records of a directory, by key.
pub(super) fn read_all(directory: &Path) -> Result<Records, Error> {
    let mut found = Records::default();
    for key in keys(directory, ".json")? {
        match read(directory, &key) {
            Ok(Some(record)) => found.records.push(record),
            Ok(None) => {}
            Err(error @ Error::Record { .. }) => found.damaged.push(error),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

pub(super) fn save(directory: &Path, record: &Record) -> Result<(), Error> {
    let path = directory.join(format!("{}.json", record.key));
    let stored = content_of(record).map_err(|error| Error::Record { path: path.clone(), reason: error.to_string() })?;
    replace_file(&path, &stored)
}

pub(super) fn remove(directory: &Path, key: &RunnerKey) -> Result<(), Error> {
    remove_durably(&directory.join(format!("{key}.json")))
}

/// The keys whose files with this suffix are in a directory, sorted.
pub(super) fn keys(directory: &Path, suffix: &str) -> Result<Vec<RunnerKey>, Error> {
    let mut keys = Vec::new();
    for file in fs::read_dir(directory).map_err(Error::disk("read", directory))? {
        let name = file.map_err(Error::disk("read", directory))?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(suffix));
        keys.extend(stem.and_then(|stem| RunnerKey::try_from(stem.to_owned()).ok()));
    }
    keys.sort();
    Ok(keys)
}

/// Reads one record; `None` if there is none.
pub(super) fn read(directory: &Path, key: &RunnerKey) -> Result<Option<Record>, Error> {
    let path = directory.join(format!("{key}.json"));
    let Some(content) = read_file(&path)? else { return Ok(None) };
    parse(&content, key).map(Some).map_err(|reason| Error::Record { path, reason })
}

/// What is written for a record.
pub(super) fn content_of(record: &Record) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec_pretty(&Stored::of(record))
}

/// Understands what was written for `key`, or says why it cannot.
pub(super) fn parse(content: &[u8], key: &RunnerKey) -> Result<Record, String> {
    // serde's own words can quote the content, so only the place is told.
    let at = |error: serde_json::Error| format!("line {}, column {}", error.line(), error.column());
    let schema: Schema = serde_json::from_slice(content).map_err(at)?;
    if schema.schema != SCHEMA {
        return Err(format!("schema {} is not known", schema.schema));
    }
    let stored: Stored = serde_json::from_slice(content).map_err(at)?;
    if stored.key != *key {
        return Err("it was written for another key".to_owned());
    }
    stored.into_record().map_err(str::to_owned)
}

#[derive(Deserialize)]
struct Schema {
    schema: u32,
}

/// A record as it is on the disk, tokens and all.
#[derive(Serialize, Deserialize)]
struct Stored {
    schema: u32,
    key: RunnerKey,
    origin: Origin,
    enrollment: Option<String>,
    seed: Option<Fingerprint>,
    url: ServerUrl,
    id: Option<RunnerId>,
    name: Option<String>,
    credential: Option<StoredCredential>,
    retired: Vec<Fingerprint>,
    machine: Option<Fingerprint>,
    entry_text: Option<String>,
    first_seen_at: Option<Timestamp>,
    last_verify: Option<LastVerify>,
    last_reset_at: Option<Timestamp>,
    #[serde(default)]
    recovered: Option<Fingerprint>,
    #[serde(default)]
    is_copy: bool,
    state: String,
    since: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
struct StoredCredential {
    token: String,
    obtained_at: Option<Timestamp>,
    expiry: StoredExpiry,
}

impl Stored {
    fn of(record: &Record) -> Self {
        let credential = record.credential.as_ref().map(|credential| StoredCredential {
            token: credential.token.expose().to_owned(),
            obtained_at: credential.obtained_at,
            expiry: credential.expiry.into(),
        });
        Self {
            schema: SCHEMA,
            key: record.key.clone(),
            origin: record.origin,
            enrollment: record.enrollment.clone(),
            seed: record.seed.clone(),
            url: record.url.clone(),
            id: record.id,
            name: record.name.clone(),
            credential,
            retired: record.retired.clone(),
            machine: record.machine.clone(),
            entry_text: record.entry_text.as_ref().map(|text| text.expose().to_owned()),
            first_seen_at: record.first_seen_at,
            last_verify: record.last_verify.clone(),
            last_reset_at: record.last_reset_at,
            recovered: record.recovered.clone(),
            is_copy: record.is_copy,
            state: record.state.map_or("", StateName::as_str).to_owned(),
            since: record.since,
        }
    }

    fn into_record(self) -> Result<Record, &'static str> {
        let credential = self.credential.map(StoredCredential::into_credential).transpose()?;
        let entry_text = self.entry_text.map(|text| EntryText::parse(&text)).transpose();
        Ok(Record {
            key: self.key,
            origin: self.origin,
            enrollment: self.enrollment,
            seed: self.seed,
            url: self.url,
            id: self.id,
            name: self.name,
            credential,
            retired: self.retired,
            machine: self.machine,
            entry_text: entry_text.map_err(|_| "its entry_text is not an entry")?,
            first_seen_at: self.first_seen_at,
            last_verify: self.last_verify,
            last_reset_at: self.last_reset_at,
            recovered: self.recovered,
            is_copy: self.is_copy,
            state: StateName::from_name(&self.state),
            since: self.since,
        })
    }
}

impl StoredCredential {
    fn into_credential(self) -> Result<Credential, &'static str> {
        let token = stored_token(&self.token).ok_or("its token is not a token")?;
        Ok(Credential { token, obtained_at: self.obtained_at, expiry: self.expiry.into() })
    }
}
