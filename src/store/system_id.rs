//! The machine's system_id, in gitlab-runner's file and by its derivation.

use std::io;
use std::path::Path;

use super::error::Error;
use super::files::{
    TemporaryFile, beside, make_directory, parent, read_file, replace_file, sync_directory, temporary_name,
};
use super::locks::lock_sidecar;
use crate::model::SystemId;
use crate::secret::{Fingerprint, hmac_sha256_hex};

/// The file beside config.toml.
const FILE_NAME: &str = ".runner_system_id";

/// The characters of a random system_id.
const ALPHABET: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// Reads the file beside config.toml, or creates it.
///
/// A system_id that is derived from the machine-id is stable: it is used even if the file cannot be written.
///
/// # Errors
/// [`Error::SystemId`] for an invalid file, [`Error::Io`].
pub(super) fn read_or_create(config_path: &Path, machine_id_path: &Path) -> Result<SystemId, Error> {
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
    match create(path, &text, config_path) {
        Ok(None) => Ok(system_id),
        Ok(Some(theirs)) => Ok(theirs),
        Err(error) if machine_id.is_some() => {
            tracing::debug!(%error, "cannot write the system_id; it will be derived again");
            Ok(system_id)
        }
        Err(error) => Err(error),
    }
}

/// Replaces the system_id of a copied disk by this machine's own.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn take_over(config_path: &Path, machine_id_path: &Path) -> Result<(), Error> {
    let path = &config_path.with_file_name(FILE_NAME);
    let Some(machine_id) = machine_id(machine_id_path)? else { return Ok(()) };
    let _lock = lock_sidecar(&beside(config_path, "lock"))?;
    replace_file(path, derived(&machine_id).as_bytes())
}

fn derived(machine_id: &str) -> String {
    format!("s_{}", &hmac_sha256_hex(machine_id.as_bytes(), b"gitlab-runner")[..12])
}

/// A hash of the machine-id that does not reveal it.
pub(super) fn machine(machine_id_path: &Path) -> Option<Fingerprint> {
    let machine_id = machine_id(machine_id_path).ok()??;
    Some(Fingerprint::of(hmac_sha256_hex(machine_id.as_bytes(), b"runner-agent machine").as_bytes()))
}

fn read(path: &Path) -> Result<Option<SystemId>, Error> {
    let Some(content) = read_file(path)? else { return Ok(None) };
    let invalid = || Error::SystemId { path: path.to_owned() };
    let text = std::str::from_utf8(&content).map_err(|_| invalid())?;
    let system_id = text.trim_end_matches(['\n', '\r']).parse().map_err(|_| invalid())?;
    Ok(Some(system_id))
}

/// Creates the file durably; returns the existing system_id if another process was faster.
fn create(path: &Path, text: &str, config_path: &Path) -> Result<Option<SystemId>, Error> {
    make_directory(parent(path))?;
    let _lock = lock_sidecar(&beside(config_path, "lock"))?;
    let mut temporary = TemporaryFile::create(temporary_name(path))?;
    temporary.set_mode(0o600)?;
    temporary.give_to_owner_of(config_path);
    temporary.fill(text.as_bytes())?;
    match temporary.rename_if_free(path) {
        Ok(()) => sync_directory(parent(path)).map(|()| None),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(path),
        Err(error) => Err(Error::io("create", path)(error)),
    }
}

/// The machine-id; `None` if missing or uninitialized.
fn machine_id(path: &Path) -> Result<Option<String>, Error> {
    let Some(content) = read_file(path)? else { return Ok(None) };
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
