//! The port to the disk of an access token.

use std::path::{Path, PathBuf};

use crate::secret::{Digest, Source, SourceError, Token, TokenPurpose};
use crate::store::{self, AccessFile, AccessLock, AccessMark, AccessNote, Intent, JournalAnswer, Pending, Store};

use crate::model::{AccessRecord, RunnerKey, Timestamp};
use crate::ops::ServerAccess;

type Stored<T> = Result<T, store::Error>;

/// The disk operations of an access token; see [`AccessFile`] for the guarantees of each call.
#[expect(async_fn_in_trait, missing_docs, reason = "one thread runs everything; the implementation has the docs")]
pub trait AccessDisk: 'static {
    type Lock;
    /// Why no rotation is possible with this source; in words.
    fn check_place(&self, source: &Source) -> Result<(), &'static str>;
    /// Without waiting.
    async fn lock(&self) -> Stored<Option<Self::Lock>>;
    /// Reads the token where it belongs.
    async fn token(&self) -> Result<Token, SourceError>;
    async fn probe(&self) -> Stored<()>;
    async fn replace(&self, former: Vec<Digest>, token: Token) -> Stored<Option<Token>>;
    async fn record(&self) -> Stored<AccessRecord>;
    async fn save(&self, record: AccessRecord) -> Stored<()>;
    async fn pending(&self) -> Stored<Option<Pending>>;
    async fn begin(&self, intent: Intent) -> Stored<()>;
    async fn answered(&self, answer: JournalAnswer) -> Stored<()>;
    async fn clear(&self) -> Stored<()>;
    async fn note(&self) -> Stored<AccessNote>;
    async fn note_use(&self, used_at: Timestamp) -> Stored<()>;
    async fn add_mark(&self, mark: AccessMark) -> Stored<()>;
    async fn remove_mark(&self, token: Digest) -> Stored<()>;
}

/// An access token on the disk: its source, and what is kept about it.
#[derive(Clone, Debug)]
pub struct StoredAccessToken {
    source: Source,
    file: AccessFile,
}

impl StoredAccessToken {
    /// The token of a source.
    #[must_use]
    pub fn new(source: Source, file: AccessFile) -> Self {
        Self { source, file }
    }

    /// The access token of a server, kept in this store.
    #[must_use]
    pub fn of(store: Store, access: &ServerAccess) -> Self {
        Self::with_key(store, access, RunnerKey::access_token(&access.url))
    }

    /// An access token that the settings do not name, kept apart from theirs. `path` is its file without symbolic links, and
    /// `None` for one that is in no file.
    #[must_use]
    pub fn apart(store: Store, access: &ServerAccess, path: Option<&Path>) -> Self {
        let key = path.map_or_else(
            || RunnerKey::access_token(&access.url),
            |path| RunnerKey::access_token_file(&access.url, &path.to_string_lossy()),
        );
        Self::with_key(store, access, key)
    }

    fn with_key(store: Store, access: &ServerAccess, key: RunnerKey) -> Self {
        let source = access.access_token.clone();
        let path = match &source {
            Source::File(path) => path.clone(),
            // Nothing is written there.
            Source::Credential { .. } | Source::Value { .. } => PathBuf::new(),
        };
        Self::new(source, AccessFile::new(store, path, key))
    }

    fn is_file(&self) -> bool {
        matches!(self.source, Source::File(_))
    }
}

impl AccessDisk for StoredAccessToken {
    type Lock = AccessLock;

    fn check_place(&self, source: &Source) -> Result<(), &'static str> {
        match source {
            Source::File(_) if self.file.has_state() => Ok(()),
            Source::File(_) => Err("an access token is rotated only with a state directory, which keeps the new one"),
            Source::Credential { .. } | Source::Value { .. } => Err(
                "a systemd credential or a variable cannot be written: put the access token into a file in the state directory once, and name that file",
            ),
        }
    }

    async fn lock(&self) -> Stored<Option<AccessLock>> {
        if self.is_file() { self.file.lock().await.map(Some) } else { Ok(None) }
    }

    async fn token(&self) -> Result<Token, SourceError> {
        self.source.read_for(TokenPurpose::Access)
    }

    async fn note(&self) -> Stored<AccessNote> {
        if self.is_file() { self.file.note().await } else { Ok(AccessNote::default()) }
    }

    async fn note_use(&self, used_at: Timestamp) -> Stored<()> {
        if self.is_file() { self.file.note_use(used_at).await } else { Ok(()) }
    }

    async fn remove_mark(&self, token: Digest) -> Stored<()> {
        if self.is_file() { self.file.remove_mark(token).await } else { Ok(()) }
    }

    async fn probe(&self) -> Stored<()> {
        self.file.probe().await
    }

    async fn replace(&self, former: Vec<Digest>, token: Token) -> Stored<Option<Token>> {
        self.file.replace(former, token).await
    }

    async fn record(&self) -> Stored<AccessRecord> {
        self.file.record().await
    }

    async fn save(&self, record: AccessRecord) -> Stored<()> {
        self.file.save(record).await
    }

    async fn pending(&self) -> Stored<Option<Pending>> {
        self.file.pending().await
    }

    async fn begin(&self, intent: Intent) -> Stored<()> {
        self.file.begin(intent).await
    }

    async fn answered(&self, answer: JournalAnswer) -> Stored<()> {
        self.file.answered(answer).await
    }

    async fn clear(&self) -> Stored<()> {
        self.file.clear().await
    }

    async fn add_mark(&self, mark: AccessMark) -> Stored<()> {
        self.file.add_mark(mark).await
    }
}
