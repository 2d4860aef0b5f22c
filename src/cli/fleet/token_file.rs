//! Where a new token is written: a file of its own, which is there before the token is asked for.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::cli::{Error, Exit};
use crate::secret::Token;
use crate::settings::Environment;

/// A file that waits for a token. Removed again unless it gets one.
#[derive(Debug)]
pub(super) struct TokenFile {
    path: PathBuf,
    file: File,
    is_filled: bool,
}

impl TokenFile {
    /// Makes the file, for its owner alone, so that no token is asked for that has no place.
    ///
    /// # Errors
    /// [`Exit::LocalFile`] if it is there already or cannot be made.
    pub(super) fn prepare(path: &Path, environment: &Environment) -> Result<Self, Error> {
        let path = environment.absolute(path);
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = made.map_err(|error| unusable(&path, &error))?;
        Ok(Self { path, file, is_filled: false })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the token, durably.
    ///
    /// # Errors
    /// [`Exit::LocalFile`]; the token is lost then.
    pub(super) fn fill(&mut self, token: &Token) -> Result<(), Error> {
        let line = zeroize::Zeroizing::new(format!("{}\n", token.expose()));
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_all());
        let written = written.and_then(|()| File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all());
        written.map_err(|error| unusable(&self.path, &error))?;
        self.is_filled = true;
        Ok(())
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        if !self.is_filled {
            std::fs::remove_file(&self.path).ok();
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
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_file_is_there_before_and_gone_if_it_got_no_token() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let file = TokenFile::prepare(&path, &Environment::default()).unwrap();
        assert!(path.exists());
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_token_is_for_the_owner_alone_and_no_file_is_overwritten() {
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
