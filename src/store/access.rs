//! The file of an access token, and what is kept about it in the state directory: `access/<key>.json` (the record) and
//! `<key>.pending` (the journal).
//!
//! Processes with other state directories may use the same file. All of them lock it beside the file, as they lock
//! config.toml; and before a rotation is sent, its token's digest is noted there, in `.NAME.rotating`. So a process that
//! finds an old token in the file knows that another one may have rotated it.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::blocking::BlockingStore;
use super::config_lock::Lockable;
use super::error::Error;
use super::files::{FileIn, OwnFile as _, TEMPORARY, TemporaryFile, read_file, replace_file, sync};
use super::replace::FileRules;
use super::wire::optional_text;
use super::{Intent, JournalAnswer, Pending, Store, held, journal};
use crate::files::{Access, OwnDirectory, Place};
use crate::model::{AccessRecord, AccessTokenFacts, RunnerKey, Timestamp};
use crate::secret::{Digest, Token, TokenError, sha256_hex};

/// Incremented when a field changes its meaning; other schemas are rejected.
const SCHEMA: u32 = 1;

/// Ends the name of the note beside the file.
const ROTATING: &str = "rotating";

/// Maximum size of the note, in bytes.
const MAX_NOTE_BYTES: u64 = 16 * 1024;

/// How many rotations the note names at most.
const MAX_MARKS: usize = 32;

/// The bits of the mode stay as they are, unlike those of config.toml: other programs of its owner may read the file.
const TOKEN_RULES: FileRules =
    FileRules { name: "the token file", copy: copy_of, kept_mode: 0o777, is_whole: holds_token };

/// The file of one access token with what is kept about it, on a disk thread.
#[derive(Clone, Debug)]
pub struct AccessFile {
    store: Store,
    path: PathBuf,
    key: RunnerKey,
}

/// Locks a token file until it is dropped.
#[derive(Debug)]
#[must_use = "the lock is released on drop"]
pub struct AccessLock {
    _file: File,
}

/// A rotation that was sent, or is about to be: an entry of the note beside the token file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessMark {
    /// The token that it is sent with.
    pub token: Digest,
    /// Server time.
    pub at: Timestamp,
}

/// The note beside a token file, which all processes share that have the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessNote {
    schema: u32,
    /// Rotations. The newest come last.
    pub sent: Vec<AccessMark>,
    /// Server time at which one of them has last used the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_at: Option<Timestamp>,
}

impl AccessFile {
    /// The file at a path.
    #[must_use]
    pub fn new(store: Store, path: PathBuf, key: RunnerKey) -> Self {
        Self { store, path, key }
    }

    /// Whether there is a state directory.
    #[must_use]
    pub fn has_state(&self) -> bool {
        self.store.has_state()
    }

    /// Locks the file against other processes without waiting, and finishes an interrupted write.
    ///
    /// # Errors
    /// [`Error::FileLocked`], [`Error::Io`].
    pub async fn lock(&self) -> Result<AccessLock, Error> {
        self.work(|disk, path, _| {
            let place = find(path)?;
            let lockable = Lockable { place: &place, is_mount_point: place.is_mount_point() };
            let lock = lockable.lock_common(Duration::ZERO)?;
            disk.token_target(&place, &TOKEN_RULES).replay_locked()?;
            Ok(AccessLock { _file: lock })
        })
        .await
    }

    /// Rehearses a replace of the file, and a change of the state directory.
    ///
    /// # Errors
    /// What a later [`AccessFile::replace`] or [`AccessFile::begin`] would fail with.
    pub async fn probe(&self) -> Result<(), Error> {
        self.work(|disk, path, key| {
            if let Some(access) = disk.access()? {
                let place = FileIn { directory: &access, name: format!("{key}.probe") }.place("write")?;
                TemporaryFile::create(place)?.reserve(16 * 1024)?;
            }
            disk.token_target(&find(path)?, &TOKEN_RULES).probe_locked()
        })
        .await
    }

    /// Puts a token into the file, in place of one of `former`, of nothing, or of no file. Returns the token that the file
    /// holds then, which is another one if a person has put it there; `None` for what is no token.
    ///
    /// # Errors
    /// As [`Store::edit`].
    pub async fn replace(&self, former: Vec<Digest>, token: Token) -> Result<Option<Token>, Error> {
        self.work(move |disk, path, _| {
            let place = find(path)?;
            let mut held = None;
            disk.token_target(&place, &TOKEN_RULES).replace_locked(&mut |text| {
                let (edited, holds) = with_token(text, &former, &token);
                held = holds;
                edited
            })?;
            Ok(held)
        })
        .await
    }

    /// Reads the record; an empty one if there is none, and without a state directory.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Record`] if it is damaged.
    pub async fn record(&self) -> Result<AccessRecord, Error> {
        self.in_access(|_, access, key| read_record(access, key)).await
    }

    /// Writes the record durably.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn save(&self, record: AccessRecord) -> Result<(), Error> {
        self.in_access(move |_, access, key| {
            let file = record_of(access, key);
            let invalid = |error: serde_json::Error| Error::Record { path: file.path(), reason: held::at(&error) };
            replace_file(&file, &serde_json::to_vec_pretty(&StoredAccess::from(record)).map_err(invalid)?)
        })
        .await
    }

    /// As [`Store::pending_of`].
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn pending(&self) -> Result<Option<Pending>, Error> {
        self.in_access(|_, access, key| journal::pending_of(access, key)).await
    }

    /// As [`Store::begin`].
    ///
    /// # Errors
    /// As [`Store::begin`].
    pub async fn begin(&self, intent: Intent) -> Result<(), Error> {
        self.in_access(move |disk, access, key| disk.access_journals.begin(access, key, &intent)).await
    }

    /// As [`Store::answered`].
    ///
    /// # Errors
    /// As [`Store::answered`].
    pub async fn answered(&self, answer: JournalAnswer) -> Result<(), Error> {
        self.in_access(move |disk, access, key| disk.access_journals.answered(access, key, &answer)).await
    }

    /// As [`Store::clear`].
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn clear(&self) -> Result<(), Error> {
        self.in_access(|disk, access, key| disk.access_journals.clear(access, key)).await
    }

    /// Reads the note beside the file. One that cannot be read is an error: it may be about the present token.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn note(&self) -> Result<AccessNote, Error> {
        self.work(|_, path, _| read_note(&find(path)?.beside(ROTATING))).await
    }

    /// Adds a rotation to the note beside the file durably. A mount point has none: its directory is this container's alone.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn add_mark(&self, mark: AccessMark) -> Result<(), Error> {
        self.change_note(move |note| {
            note.sent.retain(|known| known.token != mark.token);
            note.sent.push(mark);
            let excess = note.sent.len().saturating_sub(MAX_MARKS);
            note.sent.drain(..excess);
        })
        .await
    }

    /// Removes a token from the note beside the file durably.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn remove_mark(&self, token: Digest) -> Result<(), Error> {
        self.change_note(move |note| note.sent.retain(|known| known.token != token)).await
    }

    /// Notes beside the file durably when the token was last used.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn note_use(&self, used_at: Timestamp) -> Result<(), Error> {
        self.change_note(move |note| note.used_at = Some(used_at)).await
    }

    async fn change_note(&self, change: impl FnOnce(&mut AccessNote) + Send + 'static) -> Result<(), Error> {
        self.work(move |_, path, _| {
            let place = find(path)?;
            if place.is_mount_point() {
                return Ok(());
            }
            let file = place.beside(ROTATING);
            let former = read_note(&file)?;
            let mut note = AccessNote { schema: SCHEMA, ..former.clone() };
            change(&mut note);
            if note.sent == former.sent && note.used_at == former.used_at {
                return Ok(());
            }
            let mut temporary = TemporaryFile::create(file.beside(TEMPORARY))?;
            // It holds no secret, and processes of other users read it.
            temporary.set_mode(0o644)?;
            temporary.give_to_owner_of(&place);
            let content = serde_json::to_vec(&note);
            temporary.fill(&content.map_err(|error| Error::io("write", file.path())(error.into()))?)?;
            temporary.rename(&file).map_err(Error::io("replace", file.path()))?;
            sync(&file)
        })
        .await
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut BlockingStore, &Path, &RunnerKey) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (path, key) = (self.path.clone(), self.key.clone());
        self.store.work(move |disk| work(disk, &path, &key)).await
    }

    async fn in_access<T: Default + Send + 'static>(
        &self,
        work: impl FnOnce(&mut BlockingStore, &Rc<OwnDirectory>, &RunnerKey) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.work(|disk, _, key| match disk.access()? {
            Some(access) => work(disk, &access, key),
            None => Ok(T::default()),
        })
        .await
    }
}

#[derive(Serialize, Deserialize)]
struct StoredAccess {
    schema: u32,
    #[serde(default, with = "optional_text")]
    token: Option<Token>,
    facts: Option<AccessTokenFacts>,
    asked_at: Option<Timestamp>,
    refused_at: Option<Timestamp>,
    is_unsupported: bool,
    spent: Vec<Digest>,
    lost_at: Option<Timestamp>,
    declined: Option<String>,
    rotations: u64,
    rotated_at: Option<Timestamp>,
    #[serde(default)]
    last_use: Option<Timestamp>,
    #[serde(default)]
    spread: Option<u32>,
    uses_elsewhere: u32,
    #[serde(default)]
    use_age_seconds: Option<u64>,
    #[serde(default)]
    settles_from: Option<(Timestamp, Timestamp)>,
}

impl From<AccessRecord> for StoredAccess {
    fn from(record: AccessRecord) -> Self {
        let AccessRecord { token, facts, asked_at, refused_at, is_unsupported, spent, .. } = record;
        let AccessRecord { lost_at, declined, rotations, rotated_at, last_use, spread, uses_elsewhere, .. } = record;
        let (use_age_seconds, settles_from) = (record.use_age.map(|age| age.as_secs()), record.settles_from);
        Self {
            schema: SCHEMA,
            token,
            facts,
            asked_at,
            refused_at,
            is_unsupported,
            spent,
            lost_at,
            declined,
            rotations,
            rotated_at,
            last_use,
            spread,
            uses_elsewhere,
            use_age_seconds,
            settles_from,
        }
    }
}

impl From<StoredAccess> for AccessRecord {
    fn from(stored: StoredAccess) -> Self {
        let StoredAccess { token, facts, asked_at, refused_at, is_unsupported, spent, .. } = stored;
        let StoredAccess { lost_at, declined, rotations, rotated_at, last_use, spread, uses_elsewhere, .. } = stored;
        let (use_age, settles_from) = (stored.use_age_seconds.map(Duration::from_secs), stored.settles_from);
        Self {
            token,
            facts,
            asked_at,
            refused_at,
            is_unsupported,
            spent,
            lost_at,
            declined,
            rotations,
            rotated_at,
            last_use,
            spread,
            uses_elsewhere,
            use_age,
            settles_from,
        }
    }
}

#[derive(Deserialize)]
struct Schema {
    schema: u32,
}

fn read_record(access: &OwnDirectory, key: &RunnerKey) -> Result<AccessRecord, Error> {
    let file = record_of(access, key);
    let Some(content) = read_file(&file)? else { return Ok(AccessRecord::default()) };
    let damaged = |reason| Error::Record { path: file.path(), reason };
    let at = |error: serde_json::Error| damaged(held::at(&error));
    let Schema { schema } = serde_json::from_slice(&content).map_err(at)?;
    if schema != SCHEMA {
        return Err(damaged(format!("unknown schema {schema}")));
    }
    serde_json::from_slice::<StoredAccess>(&content).map(AccessRecord::from).map_err(at)
}

fn record_of<'d>(access: &'d OwnDirectory, key: &RunnerKey) -> FileIn<'d> {
    FileIn { directory: access, name: format!("{key}.json") }
}

fn read_note(file: &Place) -> Result<AccessNote, Error> {
    let mut opened = match file.open(Access::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(AccessNote::default()),
        opened => opened.map_err(Error::io("read", file.path()))?,
    };
    let content = opened.read(MAX_NOTE_BYTES).map_err(Error::io("read", file.path()))?;
    let read = serde_json::from_slice(&content).ok().filter(|note: &AccessNote| note.schema == SCHEMA);
    read.ok_or_else(|| Error::io("read", file.path())(io::Error::other("it is not understood: remove it")))
}

fn find(path: &Path) -> Result<Place, Error> {
    Place::find(path).map_err(Error::io("read", path))
}

/// Each token file of a state directory has a recovery copy of its own.
fn copy_of(path: &Path) -> String {
    format!("access-token-{}.copy", &sha256_hex(path.as_os_str().as_bytes())[..16])
}

fn holds_token(content: &[u8]) -> bool {
    std::str::from_utf8(content).is_ok_and(|text| Token::parse(text.trim()).is_ok())
}

/// The text with a token in place of one of `former` or of nothing, and the token that it holds.
fn with_token(text: &str, former: &[Digest], token: &Token) -> (String, Option<Token>) {
    match Token::parse(text.trim()) {
        Ok(found) if former.contains(&found.digest()) => {
            (text.replacen(found.expose(), token.expose(), 1), Some(token.clone()))
        }
        Ok(found) => (text.to_owned(), Some(found)),
        Err(TokenError::Empty) => (format!("{}\n", token.expose()), Some(token.clone())),
        Err(TokenError::TooLong(_) | TokenError::Character) => (text.to_owned(), None),
    }
}
