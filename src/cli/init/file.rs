//! Writes agent.toml as a whole or not at all, with mode 0600.

use std::io::{self, Write as _};
use std::path::Path;

use crate::cli::{Error, Exit};
use crate::files::{Place, is_there, make_directories, read_trusted_text};
use crate::settings::sets_nothing;

/// Maximum size of a file that is read to see whether it sets anything, in bytes.
const MAX_READ_BYTES: u64 = 4 * 1024 * 1024;

/// Refuses to replace a file without `force`.
///
/// # Errors
/// [`Exit::LocalFile`].
pub(super) fn check_free(path: &Path, force: bool) -> Result<(), Error> {
    if force || !is_there(path) {
        return Ok(());
    }
    Err(exists(path))
}

/// Writes the file, durably.
///
/// # Errors
/// [`Exit::LocalFile`]; nothing has changed then.
pub(super) fn write(path: &Path, text: &str, force: bool) -> Result<(), Error> {
    replace(path, text, force).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists if !force => exists(path),
        _ => Error::Verdict {
            exit: Exit::LocalFile,
            message: format!("cannot write {}: {error}", path.display()),
            hint: (error.kind() == io::ErrorKind::PermissionDenied)
                .then(|| "use sudo, or name a file of your own with --agent-config".to_owned()),
        },
    })
}

fn replace(path: &Path, text: &str, force: bool) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        make_directories(parent)?;
    }
    let place = Place::find(path)?;
    let temporary = place.beside("new");
    // One that an earlier process has left.
    temporary.remove()?;
    let mut file = temporary.create()?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| if force { temporary.rename(&place) } else { temporary.rename_if_free(&place) });
    if written.is_err() {
        let _left = temporary.remove();
    }
    written?;
    place.sync_directory()
}

fn exists(path: &Path) -> Error {
    let is_empty = read_trusted_text(path, MAX_READ_BYTES).is_ok_and(|text| sets_nothing(&text));
    let hint = if is_empty { "it sets nothing yet: add --force to replace it" } else { "add --force to replace it" };
    Error::Verdict {
        exit: Exit::LocalFile,
        message: format!("{} exists already", path.display()),
        hint: Some(hint.to_owned()),
    }
}
