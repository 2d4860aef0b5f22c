//! The file that a command reads a token from.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::HookError;
use super::file_work::{clean_up, file_work, in_background};
use super::limit::TimeLimit;
use crate::files::Place;
use crate::secret::Token;

/// How long the removal may take at least, also at the end of the time limit.
const REMOVAL: Duration = Duration::from_secs(1);

/// A file with a token. It is removed at the latest when this is dropped.
#[derive(Debug)]
pub(super) struct TokenFile {
    /// The path as it was given: work on the file is known by it.
    path: PathBuf,
    /// Absent once it was removed.
    place: Option<Place>,
}

impl TokenFile {
    /// Writes the file.
    pub(super) async fn write(limit: TimeLimit, path: &Path, token: &Token) -> Result<Self, HookError> {
        let (owned, token) = (path.to_owned(), token.clone());
        // If the write comes too late, what it returns is dropped, and the file with it.
        let written = file_work(limit, path, move || Self::write_now(owned, &token)).await?;
        written.map_err(|error| HookError::of_file(path, &error))
    }

    fn write_now(path: PathBuf, token: &Token) -> io::Result<Self> {
        let place = Place::own(&path)?;
        place.remove()?;
        let mut file = place.create()?;
        let written = Self { path, place: Some(place) };
        file.write_all(token.expose().as_bytes())?;
        file.write_all(b"\n")?;
        Ok(written)
    }

    /// Its path behind all links.
    pub(super) fn path(&self) -> &Path {
        self.place.as_ref().map_or(&self.path, Place::path)
    }

    /// Removes it. A failure is logged.
    pub(super) async fn remove(mut self, limit: TimeLimit) {
        let Some(place) = self.place.take() else { return };
        let removal = clean_up(limit.or_at_least(REMOVAL), &self.path, move || remove(&place)).await;
        if let Err(error) = removal {
            tracing::warn!(%error, "cannot remove the file with a hook's token yet");
        }
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            in_background(&self.path, move || remove(&place));
        }
    }
}

fn remove(place: &Place) {
    if let Err(error) = place.remove() {
        tracing::warn!(path = %place.path().display(), %error, "cannot remove the file with a hook's token");
    }
}
