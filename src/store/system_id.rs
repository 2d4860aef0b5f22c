//! The machine's system_id, in gitlab-runner's file and by its derivation.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use super::config_lock::{ConfigLock, ConfigLocks, Lockable, Urgency};
use super::error::Error;
use super::files::{FileContent, TEMPORARY, TemporaryFile, make_directory, parent, read_version, replace, sync};
use crate::files::{Access, Place, link_target};
use crate::model::SystemId;
use crate::secret::{Fingerprint, hmac_sha256_hex};

/// The file beside config.toml.
const FILE_NAME: &str = ".runner_system_id";

/// Maximum number of attempts if another process creates and removes the file.
const MAX_TRIES: u32 = 5;

/// The characters of a random system_id.
const ALPHABET: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// Reads the file beside config.toml; creates a missing one and fills an empty one.
///
/// A system_id that is derived from the machine-id is stable: it is used even if the file cannot be written.
///
/// # Errors
/// [`Error::SystemId`] for an invalid file, [`Error::SystemIdLink`] for a link to nowhere, [`Error::Io`].
pub(super) fn read_or_create(
    config_path: &Path,
    machine_id_path: &Path,
    locks: &ConfigLocks,
) -> Result<SystemId, Error> {
    let path = &config_path.with_file_name(FILE_NAME);
    if let Some(system_id) = read(path)? {
        return Ok(system_id);
    }
    let machine_id = machine_id(machine_id_path)?;
    let text = match &machine_id {
        Some(machine_id) => derived(machine_id),
        None => format!("r_{}", random_word(path)?),
    };
    let system_id = text.parse().map_err(|_| Error::SystemId { path: path.to_owned() })?;
    match write(path, &text, config_path, locks) {
        Ok(None) => Ok(system_id),
        Ok(Some(theirs)) => Ok(theirs),
        Err(error) if machine_id.is_some() => {
            tracing::debug!(%error, "cannot write the system_id; it will be derived again");
            Ok(system_id)
        }
        Err(error) => Err(error),
    }
}

/// Reads the file beside config.toml without creating it. `None` if the id is still to be chosen by chance.
///
/// # Errors
/// As [`read_or_create`].
pub(super) fn read_or_derive(config_path: &Path, machine_id_path: &Path) -> Result<Option<SystemId>, Error> {
    let path = &config_path.with_file_name(FILE_NAME);
    if let Some(system_id) = read(path)? {
        return Ok(Some(system_id));
    }
    Ok(machine_id(machine_id_path)?.and_then(|machine_id| derived(&machine_id).parse().ok()))
}

/// Replaces the system_id of a copied disk by this machine's own.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn take_over(config_path: &Path, machine_id_path: &Path, locks: &ConfigLocks) -> Result<(), Error> {
    let path = &config_path.with_file_name(FILE_NAME);
    let Some(machine_id) = machine_id(machine_id_path)? else { return Ok(()) };
    let config = found(config_path)?;
    let _lock = lock(&config, locks)?;
    let place = found(path)?;
    replace(&place, place.beside(TEMPORARY), derived(&machine_id).as_bytes()).map(drop)
}

/// Locks config.toml: the file beside it has no lock of its own.
fn lock(config: &Place, locks: &ConfigLocks) -> Result<ConfigLock, Error> {
    locks.lock(&Lockable { place: config, is_mount_point: false }, Urgency::CanWait)
}

fn found(path: &Path) -> Result<Place, Error> {
    Place::find(path).map_err(Error::io("read", path))
}

fn derived(machine_id: &str) -> String {
    format!("s_{}", &hmac_sha256_hex(machine_id.as_bytes(), b"gitlab-runner")[..12])
}

/// A hash of the machine-id that does not reveal it.
pub(super) fn machine(machine_id_path: &Path) -> Option<Fingerprint> {
    let machine_id = machine_id(machine_id_path).ok()??;
    Some(Fingerprint::of(hmac_sha256_hex(machine_id.as_bytes(), b"runner-agent machine").as_bytes()))
}

/// The system_id in a file; `None` if it is missing or has no bytes.
fn read(path: &Path) -> Result<Option<SystemId>, Error> {
    let Some(content) = content_of(path)?.filter(|content| !content.is_empty()) else { return Ok(None) };
    let invalid = || Error::SystemId { path: path.to_owned() };
    let text = std::str::from_utf8(&content).map_err(|_| invalid())?;
    let system_id = text.trim_end_matches(['\n', '\r']).parse().map_err(|_| invalid())?;
    Ok(Some(system_id))
}

/// The bytes of a file; `None` if it or its directory is missing.
fn content_of(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match Place::find(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => {
            let read = read_version(&found.map_err(|error| not_followed(path, error))?)?;
            Ok(read.map(|FileContent { content, .. }| content))
        }
    }
}

/// Creates or fills the file durably; returns its system_id instead if another process was faster.
fn write(path: &Path, text: &str, config_path: &Path, locks: &ConfigLocks) -> Result<Option<SystemId>, Error> {
    make_directory(parent(path))?;
    let config = found(config_path)?;
    let _lock = lock(&config, locks)?;
    let place = followed(path)?;
    for _ in 0..MAX_TRIES {
        if let Some(theirs) = read(place.path())? {
            return Ok(Some(theirs));
        }
        let written = match place.metadata() {
            Ok(empty) => fill(&place, &empty, text).map(|()| true)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Of a link's target only the directory says whose it is to be.
                create(&place, text, if place.path() == path { &config } else { &place })?
            }
            Err(error) => return Err(Error::io("read", place.path())(error)),
        };
        if written {
            sync(&place)?;
            return Ok(None);
        }
    }
    Err(Error::ChangedMeanwhile { path: place.path().to_owned(), tries: MAX_TRIES })
}

/// The file itself, behind symbolic links that are followed; it may be missing, but its directory exists.
fn followed(path: &Path) -> Result<Place, Error> {
    Place::find(path).map_err(|error| not_followed(path, error))
}

fn not_followed(path: &Path, error: io::Error) -> Error {
    match link_target(path) {
        Ok(target) => Error::SystemIdLink { path: path.to_owned(), target: parent(path).join(target) },
        Err(_) => Error::io("read", path)(error),
    }
}

/// Creates the file with the owner of another one; returns false if it exists.
fn create(place: &Place, text: &str, owner: &Place) -> Result<bool, Error> {
    let mut temporary = TemporaryFile::create(place.beside(TEMPORARY))?;
    temporary.set_mode(0o600)?;
    temporary.give_to_owner_of(owner);
    temporary.fill(text.as_bytes())?;
    match temporary.rename_if_free(place) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::io("create", place.path())(error)),
    }
}

/// Replaces an empty file and keeps its owner and mode. A mount point is written in place.
fn fill(place: &Place, empty: &Metadata, text: &str) -> Result<(), Error> {
    let mut temporary = TemporaryFile::create(place.beside(TEMPORARY))?;
    temporary.give_to_owner_of(place);
    temporary.set_mode(empty.mode() & 0o777)?;
    temporary.fill(text.as_bytes())?;
    match temporary.rename(place) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            let write = || {
                let file = place.open(Access::Write)?.file;
                file.write_all_at(text.as_bytes(), 0)?;
                file.sync_all()
            };
            write().map_err(Error::io("write", place.path()))
        }
        renamed => renamed.map(drop).map_err(Error::io("replace", place.path())),
    }
}

/// The machine-id; `None` if missing or uninitialized.
fn machine_id(path: &Path) -> Result<Option<String>, Error> {
    let Some(content) = content_of(path)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&content).trim().to_owned();
    Ok(Some(text).filter(|text| !text.is_empty() && text != "uninitialized"))
}

fn random_word(path: &Path) -> Result<String, Error> {
    let mut word = String::new();
    while word.len() < 12 {
        let mut bytes = [0_u8; 32];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| Error::io("create", path)(errno.into()))?;
        // Larger bytes would bias towards the alphabet's first characters.
        let usable = bytes.iter().filter(|byte| usize::from(**byte) < 256 - 256 % ALPHABET.len());
        let letters = usable.map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]));
        word.extend(letters.take(12 - word.len()));
    }
    Ok(word)
}
