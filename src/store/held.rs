//! Candidates and evidence, in a file beside the record: `<key>.held`. Version 0.1 leaves it alone.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::files::{FileIn, OwnFile as _, read_file, remove_durably, replace_file, sync};
use super::record;
use super::wire::{StoredExpiry, text};
use crate::files::OwnDirectory;
use crate::model::{
    Candidate, CandidateSource, Evidence, Expiry, Finding, Held, Origin, RunnerId, RunnerKey, Timestamp,
};
use crate::secret::Token;

/// Incremented when a field changes its meaning; other schemas are rejected.
const SCHEMA: u32 = 1;

/// Maximum number of damaged files of one runner that are kept under other names.
const MAX_DAMAGED: u32 = 100;

/// Tokens: the serde form stays private to the room.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Candidate")]
struct StoredCandidate {
    #[serde(with = "text")]
    token: Token,
    source: CandidateSource,
    noted_at: Timestamp,
    obtained_at: Option<Timestamp>,
    #[serde(with = "StoredExpiry")]
    expiry: Expiry,
    id: Option<RunnerId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<Origin>,
    refused: Option<Finding>,
}

#[derive(Serialize, Deserialize)]
struct OneCandidate(#[serde(with = "StoredCandidate")] Candidate);

#[derive(Serialize, Deserialize)]
struct StoredHeld {
    schema: u32,
    key: RunnerKey,
    candidates: Vec<OneCandidate>,
    evidence: Option<Box<Evidence>>,
}

/// Reads what is kept for a runner; empty if there is no file.
pub(super) fn read(directory: &OwnDirectory, key: &RunnerKey) -> Result<Held, Error> {
    let file = file_of(directory, key);
    let Some(content) = read_file(&file)? else { return Ok(Held::default()) };
    parse(&content, key).map_err(|reason| Error::Held { path: file.path(), reason })
}

/// Replaces the file, or removes it if there is nothing to keep. A damaged one is set aside.
pub(super) fn save(directory: &OwnDirectory, key: &RunnerKey, held: Held) -> Result<(), Error> {
    let file = file_of(directory, key);
    keep_damaged(directory, key)?;
    if held.is_empty() {
        return remove_durably(&file);
    }
    let content = content_of(key, held).map_err(|error| Error::Held { path: file.path(), reason: at(&error) })?;
    replace_file(&file, &content)
}

/// Reads what is kept for each key. Most runners have no such file.
pub(super) fn read_each(directory: &OwnDirectory, keys: &[RunnerKey]) -> Vec<Result<Held, Error>> {
    let present: Option<BTreeSet<RunnerKey>> = record::keys(directory, ".held").ok().map(BTreeSet::from_iter);
    let is_missing = |key: &RunnerKey| present.as_ref().is_some_and(|present| !present.contains(key));
    let read = |key| if is_missing(key) { Ok(Held::default()) } else { read(directory, key) };
    keys.iter().map(read).collect()
}

/// Removes the file; a damaged one is set aside.
pub(super) fn remove(directory: &OwnDirectory, key: &RunnerKey) -> Result<(), Error> {
    save(directory, key, Held::default())
}

/// Copies what is held for one key to another, before what is held there. A damaged file is set aside.
pub(super) fn copy(directory: &OwnDirectory, old: &RunnerKey, new: &RunnerKey) -> Result<(), Error> {
    keep_damaged(directory, old)?;
    keep_damaged(directory, new)?;
    let (mut all, own) = (read(directory, old)?, read(directory, new)?);
    all.candidates.retain(|candidate| !own.candidates.iter().any(|known| known.token == candidate.token));
    all.candidates.extend(own.candidates);
    all.evidence = all.evidence.or(own.evidence);
    save(directory, new, all)
}

/// Renames a damaged file: it may hold the only copy of a token.
fn keep_damaged(directory: &OwnDirectory, key: &RunnerKey) -> Result<(), Error> {
    let Err(error @ Error::Held { .. }) = read(directory, key) else { return Ok(()) };
    let kept = set_aside(&file_of(directory, key))?;
    tracing::error!(%error, kept = %kept.display(), "keeping a damaged file under another name");
    Ok(())
}

/// The file content.
pub(super) fn content_of(key: &RunnerKey, held: Held) -> serde_json::Result<Vec<u8>> {
    let candidates = held.candidates.into_iter().map(OneCandidate).collect();
    let stored = StoredHeld { schema: SCHEMA, key: key.clone(), candidates, evidence: held.evidence };
    serde_json::to_vec_pretty(&stored)
}

/// Parses the file of `key`. The error says why it is invalid, without its content.
pub(super) fn parse(content: &[u8], key: &RunnerKey) -> Result<Held, String> {
    let Schema { schema } = serde_json::from_slice(content).map_err(|error| at(&error))?;
    if schema != SCHEMA {
        return Err(format!("unknown schema {schema}"));
    }
    let stored: StoredHeld = serde_json::from_slice(content).map_err(|error| at(&error))?;
    if stored.key != *key {
        return Err("it belongs to another key".to_owned());
    }
    let candidates = stored.candidates.into_iter().map(|OneCandidate(candidate)| candidate).collect();
    Ok(Held { candidates, evidence: stored.evidence })
}

fn file_of<'d>(directory: &'d OwnDirectory, key: &RunnerKey) -> FileIn<'d> {
    FileIn { directory, name: format!("{key}.held") }
}

/// Renames a damaged file to an unused name and returns that.
fn set_aside(file: &FileIn<'_>) -> Result<PathBuf, Error> {
    let place = file.place("rename")?;
    for number in 1..=MAX_DAMAGED {
        let mut name = place.name().to_owned();
        name.push(format!(".damaged-{number}"));
        let kept = place.sibling(name);
        match place.rename_if_free(&kept) {
            Ok(()) => {
                sync(&place)?;
                return Ok(kept.path().to_owned());
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io("rename", place.path())(error)),
        }
    }
    Err(Error::io("rename", place.path())(io::Error::other("too many damaged files of this runner are kept already")))
}

/// serde's error texts can quote the content, so only the position is kept.
pub(super) fn at(error: &serde_json::Error) -> String {
    format!("line {}, column {}", error.line(), error.column())
}

#[derive(Deserialize)]
struct Schema {
    schema: u32,
}
