//! The file for a new token, created before the token is requested.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::cli::{Error, Exit};
use crate::files::Place;
use crate::secret::{MAX_TOKEN_BYTES, Token};
use crate::settings::Environment;

/// The longest token and its line end, in bytes.
const LONGEST_LINE: usize = MAX_TOKEN_BYTES + 1;

/// A file with space for the longest token. Removed on drop unless it was filled.
#[derive(Debug)]
pub(super) struct TokenFile {
    path: PathBuf,
    place: Place,
    file: File,
    is_filled: bool,
}

impl TokenFile {
    /// Creates the file with mode 0600 and fills it with empty lines, so that a full disk is noticed before a token
    /// is requested.
    ///
    /// # Errors
    /// [`Exit::LocalFile`] if it exists already or cannot be written at full size.
    pub(super) fn prepare(path: &Path, environment: &Environment) -> Result<Self, Error> {
        let path = environment.absolute(path);
        let made = Place::find(&path).and_then(|place| Ok((place.create()?, place)));
        let (file, place) = made.map_err(|error| unusable(&path, &error))?;
        let made = Self { path, place, file, is_filled: false };
        made.write(&[b'\n'; LONGEST_LINE]).map_err(|error| unusable(&made.path, &error))?;
        Ok(made)
    }

    /// The absolute path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the token over the empty lines, durably.
    ///
    /// # Errors
    /// [`Exit::LocalFile`]; the token is lost.
    pub(super) fn fill(&mut self, token: &Token) -> Result<(), Error> {
        let line = zeroize::Zeroizing::new(format!("{}\n", token.expose()));
        self.write(line.as_bytes()).map_err(|error| unusable(&self.path, &error))?;
        self.is_filled = true;
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        // Remaining empty lines are harmless.
        let _left = self.file.set_len(length).and_then(|()| self.file.sync_all());
        Ok(())
    }

    /// Writes at the start of the file, durably.
    fn write(&self, content: &[u8]) -> io::Result<()> {
        self.file.write_all_at(content, 0)?;
        self.file.sync_all()?;
        self.place.sync_directory()
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        if !self.is_filled {
            let _left = self.place.remove();
        }
    }
}

fn unusable(path: &Path, error: &io::Error) -> Error {
    let hint = match error.kind() {
        io::ErrorKind::AlreadyExists => Some("name a file that does not exist yet".to_owned()),
        _ => None,
    };
    let message = format!("cannot write the token to `{}`: {error}", path.display());
    Error::Verdict { exit: Exit::LocalFile, message, hint }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn an_unfilled_file_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let file = TokenFile::prepare(&path, &Environment::default()).unwrap();
        assert!(path.exists());
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn space_for_the_longest_token_is_reserved() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let mut file = TokenFile::prepare(&path, &Environment::default()).unwrap();
        let longest = "x".repeat(MAX_TOKEN_BYTES);
        let before = path.metadata().unwrap();
        assert!(before.len() > longest.len() as u64 && before.blocks() > 0, "{before:?}");
        file.fill(&Token::parse(&longest).unwrap()).unwrap();
        let after = path.metadata().unwrap();
        assert_eq!((after.len(), after.blocks()), (before.len(), before.blocks()));
        assert_eq!(after.ino(), before.ino());
    }

    #[test]
    fn the_file_has_mode_0600_and_none_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let mut file = TokenFile::prepare(&path, &Environment::default()).unwrap();
        file.fill(&Token::parse("glrt-abc").unwrap()).unwrap();
        drop(file);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "glrt-abc\n");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let error = TokenFile::prepare(&path, &Environment::default()).unwrap_err();
        assert_eq!(error.exit(), Exit::LocalFile);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "glrt-abc\n");
    }
}
