//! The file that gets a copy of a rotated token.

use std::path::{Path, PathBuf};

use tokio::time::{Instant, sleep};

use super::kept::{KeptSession, KeptToken, resolved};
use super::pass::LOCK_POLL;
use crate::cli::context::Context;
use crate::cli::{Error, Exit};
use crate::error_chain::chain;
use crate::model::RunnerKey;
use crate::ops::LOCK_WAIT;
use crate::secret::{Digest, Source, SourceError, Token, TokenError, TokenPurpose};
use crate::store::{self, AccessFile, AccessLock};

/// A file that can be written, and what it holds.
pub(super) struct CopyFile {
    path: PathBuf,
    file: AccessFile,
    /// The token in it, which may be replaced.
    former: Option<Digest>,
}

impl CopyFile {
    /// Tests the file before a rotation; `None` for the token's own file, which gets the new one anyway.
    ///
    /// # Errors
    /// If it holds something else than an access token, and what a later [`CopyFile::write`] would fail with.
    pub(super) async fn prepare(
        context: &Context<'_>,
        session: &KeptSession,
        token: &KeptToken,
        path: &Path,
    ) -> Result<Option<Self>, Error> {
        let path = context.environment.absolute(path);
        let place = resolved(&path)?;
        if let Source::File(own) = &token.access.access_token
            && resolved(own)? == place
        {
            return Ok(None);
        }
        let former = present(&path)?;
        let key = RunnerKey::access_token_file(&token.access.url, &place.to_string_lossy());
        let copy = Self { file: AccessFile::new(session.store.clone(), path.clone(), key), path, former };
        let _lock = copy.lock().await?;
        copy.file.probe().await?;
        Ok(Some(copy))
    }

    /// The absolute path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces what the file holds.
    ///
    /// # Errors
    /// [`Exit::LocalFile`] if it cannot be written, or was changed since it was prepared.
    pub(super) async fn write(&self, token: &Token) -> Result<(), Error> {
        let unwritten = |why: String| Error::Verdict {
            exit: Exit::LocalFile,
            message: format!("the token cannot be written into `{}`: {why}", self.path.display()),
            hint: None,
        };
        let former = self.former.into_iter().collect();
        let written = async {
            let _lock = self.lock().await?;
            self.file.replace(former, token.clone()).await
        };
        match written.await.map_err(|error| unwritten(chain(&error)))? {
            Some(held) if held == *token => Ok(()),
            Some(_) | None => Err(unwritten("another process has changed it meanwhile".to_owned())),
        }
    }

    async fn lock(&self) -> Result<AccessLock, store::Error> {
        let began = Instant::now();
        loop {
            match self.file.lock().await {
                Err(store::Error::FileLocked { .. }) if began.elapsed() < LOCK_WAIT => sleep(LOCK_POLL).await,
                locked => return locked,
            }
        }
    }
}

/// The token in a file; `None` if it is missing or empty.
fn present(path: &Path) -> Result<Option<Digest>, Error> {
    match Source::File(path.to_owned()).read_for(TokenPurpose::Access) {
        Ok(token) => Ok(Some(token.digest())),
        Err(SourceError::Invalid { source: TokenError::Empty, .. }) => Ok(None),
        Err(SourceError::Unreadable { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::Verdict {
            exit: Exit::LocalFile,
            message: format!("--write: {}", chain(&error)),
            hint: Some("name a file that holds an access token, is empty, or does not exist".to_owned()),
        }),
    }
}
