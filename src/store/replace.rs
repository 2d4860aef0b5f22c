//! Replaces config.toml, or a token file, atomically and keeps its owner and mode.
//!
//! In order: lock the sidecar, read, edit, write and sync a temporary file beside it, check that the original is
//! unchanged (else edit the new content), rename, sync the directory. A mount point cannot be renamed onto: it is
//! overwritten in place from a complete copy in the state directory. An interrupted overwrite is finished from the
//! copy, but a newer external edit wins.

use std::fs::{File, Metadata, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::attributes;
use super::config_lock::{ConfigLock, ConfigLocks, Lockable, Urgency};
use super::error::Error;
use super::files::{
    FileContent, TEMPORARY, TemporaryFile, open_if_there, own, read_file, read_version, remove_durably, replace_file,
    sync,
};
use super::test_hooks::TestHooks;
use crate::files::{Access, Opened, Place};
use crate::secret::sha256_hex;

/// Maximum number of attempts if other processes change the file between read and rename.
pub(super) const MAX_TRIES: u32 = 5;

/// Extra space that a probe requires, in bytes: more than one new entry needs.
const PROBE_MARGIN: u64 = 4096;

/// Starts the copy's first line, before the original's length and the checksum of both contents.
const COPY_HEADER: &str = "runner-agent copy 2 ";

/// What is particular to a kind of file.
pub(super) struct FileRules {
    /// Its name, for the log.
    pub(super) name: &'static str,
    /// The name of the recovery copy in the state directory of the file at a path.
    pub(super) copy: fn(&Path) -> String,
    /// The permission bits that are kept.
    pub(super) kept_mode: u32,
    /// Whether a content is one that a process has written to its end.
    pub(super) is_whole: fn(&[u8]) -> bool,
}

/// A file with many tokens is not accessible to others.
pub(super) const CONFIG_RULES: FileRules =
    FileRules { name: "config.toml", copy: |_| "config.copy".to_owned(), kept_mode: 0o770, is_whole: is_toml };

/// The file to replace.
pub(super) struct ReplaceTarget<'a> {
    pub(super) place: &'a Place,
    pub(super) rules: &'a FileRules,
    /// This config.toml's state directory.
    pub(super) state: Option<&'a Path>,
    pub(super) locks: &'a ConfigLocks,
    pub(super) hooks: &'a TestHooks,
}

/// config.toml as it was read.
struct Original {
    content: Vec<u8>,
    /// Absent if there is no file.
    opened: Option<Opened>,
}

impl Original {
    fn metadata(&self) -> Option<&Metadata> {
        self.opened.as_ref().map(|opened| &opened.metadata)
    }
}

/// The contents before and after a write in place, kept until it completes.
struct RecoveryCopy<'c> {
    before: &'c [u8],
    after: &'c [u8],
}

/// How far a write in place got whose copy still exists.
enum Interrupted {
    /// It did not start.
    Unwritten,
    /// It completed.
    Written,
    /// It stopped in the middle.
    Torn,
    /// Another process has written the file since.
    Superseded,
}

/// The result of one attempt to replace.
enum ReplaceAttempt {
    Done,
    ChangedMeanwhile,
}

impl ReplaceTarget<'_> {
    /// Reads and edits the file, and replaces it if it changed. Calls `edit` again with the new content after a
    /// concurrent change.
    ///
    /// # Errors
    /// Those of disk operations; the file is unchanged then, unless it is a mount point.
    pub(super) fn replace(&self, edit: &mut dyn FnMut(&str) -> String) -> Result<(), Error> {
        // The token to write may be in force already.
        let _lock = self.lock(self.is_mount_point(), Urgency::Pressing)?;
        self.replace_locked(edit)
    }

    /// The same for a caller that holds the lock.
    pub(super) fn replace_locked(&self, edit: &mut dyn FnMut(&str) -> String) -> Result<(), Error> {
        let is_mount_point = self.is_mount_point();
        for _ in 0..MAX_TRIES {
            let original = self.read_original()?;
            let text = self.text(&original.content)?;
            let edited = edit(text);
            if edited == text {
                return self.settle(&original);
            }
            let outcome = if is_mount_point {
                self.overwrite(&original, edited.as_bytes())?
            } else {
                self.rename(&original, edited.as_bytes())?
            };
            match outcome {
                ReplaceAttempt::Done => return Ok(()),
                ReplaceAttempt::ChangedMeanwhile => {
                    tracing::debug!(path = %self.path().display(), "{} was changed concurrently; editing it again", self.rules.name);
                }
            }
        }
        Err(Error::ChangedMeanwhile { path: self.path().to_owned(), tries: MAX_TRIES })
    }

    /// Rehearses a replace up to the rename.
    pub(super) fn probe(&self, urgency: Urgency) -> Result<(), Error> {
        let _lock = self.lock(self.is_mount_point(), urgency)?;
        self.probe_locked()
    }

    /// The same for a caller that holds the lock.
    pub(super) fn probe_locked(&self) -> Result<(), Error> {
        let is_mount_point = self.is_mount_point();
        let opened = open_if_there(self.place)?;
        let bytes = opened.as_ref().map_or(0, |opened| opened.metadata.len()) + PROBE_MARGIN;
        if self.place.is_immutable() || !is_mount_point && self.place.is_directory_immutable() {
            return Err(Error::Immutable { path: self.path().to_owned() });
        }
        if is_mount_point {
            let state = self.state.ok_or_else(|| Error::MountPoint { path: self.path().to_owned() })?;
            self.place.open(Access::Write).map_err(Error::io("write", self.path()))?;
            return TemporaryFile::create(own("create", &state.join(".probe"))?)?.reserve(bytes);
        }
        self.temporary(opened.as_ref())?.reserve(bytes)
    }

    /// Finishes an interrupted write in place, unless another process has written the file since.
    pub(super) fn replay(&self) -> Result<(), Error> {
        let Some(copy) = self.copy() else { return Ok(()) };
        if read_file(&copy)?.is_none() {
            return Ok(());
        }
        if open_if_there(self.place)?.is_none() {
            tracing::warn!(path = %self.path().display(), "{} is missing; keeping its interrupted write for later", self.rules.name);
            return Ok(());
        }
        // A process that writes in place holds this lock and removes its copy before it releases the lock.
        let _lock = self.lock(true, Urgency::Pressing)?;
        self.replay_locked()
    }

    /// The same for a caller that holds the lock.
    pub(super) fn replay_locked(&self) -> Result<(), Error> {
        let Some(copy) = self.copy() else { return Ok(()) };
        let Some(stored) = read_file(&copy)? else { return Ok(()) };
        let copied = RecoveryCopy::parse(&stored).ok_or_else(|| Error::DamagedCopy { path: copy.clone() })?;
        match copied.interrupted(&self.read_original()?.content, self.rules) {
            Interrupted::Unwritten | Interrupted::Written => {}
            Interrupted::Torn => {
                tracing::warn!(path = %self.path().display(), "finishing an interrupted write of {}", self.rules.name);
                self.fill_in_place(self.open_in_place(copied.after.len())?, copied.after)?;
            }
            Interrupted::Superseded => {
                tracing::warn!(
                    path = %self.path().display(),
                    "{} was changed after an interrupted write; keeping the newer content", self.rules.name
                );
            }
        }
        remove_durably(&copy)
    }

    /// The file's content as text.
    pub(super) fn text<'c>(&self, content: &'c [u8]) -> Result<&'c str, Error> {
        std::str::from_utf8(content).map_err(|_| Error::NotText { path: self.path().to_owned() })
    }

    fn path(&self) -> &Path {
        self.place.path()
    }

    fn is_mount_point(&self) -> bool {
        self.place.is_mount_point() || self.hooks.pretends_mount_point()
    }

    fn lock(&self, is_mount_point: bool, urgency: Urgency) -> Result<ConfigLock, Error> {
        self.locks.lock(&Lockable { place: self.place, is_mount_point }, urgency)
    }

    fn read_original(&self) -> Result<Original, Error> {
        let (content, opened) =
            read_version(self.place)?.map(|FileContent { content, opened, .. }| (content, opened)).unzip();
        Ok(Original { content: content.unwrap_or_default(), opened })
    }

    /// Syncs the unchanged file: an earlier attempt may have stopped before its sync.
    fn settle(&self, original: &Original) -> Result<(), Error> {
        let Some(opened) = &original.opened else { return Ok(()) };
        opened.file.sync_all().map_err(Error::io("sync", self.path()))?;
        sync(self.place)
    }

    fn rename(&self, original: &Original, edited: &[u8]) -> Result<ReplaceAttempt, Error> {
        let mut temporary = self.temporary(original.opened.as_ref())?;
        temporary.fill(edited)?;
        self.hooks.before_rename(self.path());
        if !self.is_unchanged(original)? {
            return Ok(ReplaceAttempt::ChangedMeanwhile);
        }
        match temporary.rename(self.place) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return self.overwrite(original, edited),
            Err(error) => return Err(Error::io("replace", self.path())(error)),
        }
        self.hooks.renamed();
        sync(self.place)?;
        Ok(ReplaceAttempt::Done)
    }

    /// Creates the empty replacement with its final owner, mode and attributes.
    fn temporary(&self, original: Option<&Opened>) -> Result<TemporaryFile, Error> {
        let temporary = TemporaryFile::create(self.place.beside(TEMPORARY))?;
        let Some(Opened { file, metadata: wanted }) = original else {
            temporary.set_mode(0o600)?;
            return Ok(temporary);
        };
        let made = temporary.file().metadata().map_err(Error::io("read", temporary.path()))?;
        let uid = (made.uid() != wanted.uid()).then_some(wanted.uid());
        let gid = (made.gid() != wanted.gid()).then_some(wanted.gid());
        if (uid.is_some() || gid.is_some()) && fchown(temporary.file(), uid, gid).is_err() {
            return Err(Error::Owner { path: self.path().to_owned(), uid: wanted.uid(), gid: wanted.gid() });
        }
        attributes::keep(file, temporary.file()).map_err(|(name, source)| Error::Attribute {
            path: self.path().to_owned(),
            name,
            source: Arc::new(source),
        })?;
        // After the ACL, whose mask is the group's part of the mode.
        temporary.set_mode(wanted.mode() & self.rules.kept_mode)?;
        Ok(temporary)
    }

    fn is_unchanged(&self, original: &Original) -> Result<bool, Error> {
        let now = self.read_original()?;
        Ok(now.content == original.content && now.metadata().is_some() == original.metadata().is_some())
    }

    fn overwrite(&self, original: &Original, edited: &[u8]) -> Result<ReplaceAttempt, Error> {
        let copy = self.copy().ok_or_else(|| Error::MountPoint { path: self.path().to_owned() })?;
        replace_file(&copy, &RecoveryCopy { before: &original.content, after: edited }.to_bytes())?;
        self.hooks.before_rename(self.path());
        let opened = match self.is_unchanged(original) {
            Ok(true) => self.open_in_place(edited.len()).map(Some),
            Ok(false) => Ok(None),
            Err(error) => Err(error),
        };
        let Ok(Some(file)) = opened else {
            // Nothing was written.
            remove_durably(&copy)?;
            return opened.map(|_| ReplaceAttempt::ChangedMeanwhile);
        };
        self.fill_in_place(file, edited)?;
        self.hooks.renamed();
        remove_durably(&copy)?;
        Ok(ReplaceAttempt::Done)
    }

    /// Opens the file to overwrite and allocates the space first.
    fn open_in_place(&self, needed: usize) -> Result<File, Error> {
        let open = || -> io::Result<File> {
            let Opened { file, metadata } = self.place.open(Access::Write)?;
            if self.hooks.has_no_space() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            reserve(&file, metadata.len(), needed)?;
            Ok(file)
        };
        open().map_err(Error::io("overwrite", self.path()))
    }

    fn fill_in_place(&self, mut file: File, content: &[u8]) -> Result<(), Error> {
        let mut fill = || -> io::Result<()> {
            let mode = file.metadata()?.mode();
            file.write_all(content)?;
            file.set_len(u64::try_from(content.len()).unwrap_or(u64::MAX))?;
            if mode & 0o777 & !self.rules.kept_mode != 0
                && let Err(error) = file.set_permissions(Permissions::from_mode(mode & self.rules.kept_mode))
            {
                tracing::warn!(path = %self.path().display(), %error, "cannot remove the access of others to {}", self.rules.name);
            }
            file.sync_all()
        };
        fill().map_err(Error::io("overwrite", self.path()))
    }

    fn copy(&self) -> Option<PathBuf> {
        self.state.map(|state| state.join((self.rules.copy)(self.path())))
    }
}

/// Allocates the space for longer content.
fn reserve(file: &File, present: u64, needed: usize) -> io::Result<()> {
    let needed = u64::try_from(needed).unwrap_or(u64::MAX);
    if needed <= present {
        return Ok(());
    }
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, needed) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
        reserved => reserved.map_err(io::Error::from),
    }
}

impl<'c> RecoveryCopy<'c> {
    fn to_bytes(&self) -> Vec<u8> {
        let contents = [self.before, self.after].concat();
        let header = format!("{COPY_HEADER}{} {}\n", self.before.len(), sha256_hex(&contents));
        [header.as_bytes(), &contents].concat()
    }

    /// `None` if the copy is damaged.
    fn parse(stored: &'c [u8]) -> Option<Self> {
        let line_end = stored.iter().position(|byte| *byte == b'\n')?;
        let (header, contents) = (std::str::from_utf8(&stored[..line_end]).ok()?, &stored[line_end + 1..]);
        let (length, checksum) = header.strip_prefix(COPY_HEADER)?.split_once(' ')?;
        let (before, after) = contents.split_at_checked(length.parse().ok()?)?;
        (sha256_hex(contents) == checksum).then_some(Self { before, after })
    }

    fn interrupted(&self, current: &[u8], rules: &FileRules) -> Interrupted {
        if current == self.before {
            Interrupted::Unwritten
        } else if current == self.after {
            Interrupted::Written
        } else if self.is_mixed(current) || !(rules.is_whole)(current) {
            Interrupted::Torn
        } else {
            Interrupted::Superseded
        }
    }

    /// Whether every byte is from before or after: a crash may persist any part first. The file grows with each
    /// write and shrinks in one step.
    fn is_mixed(&self, current: &[u8]) -> bool {
        let (from, to, present) = (self.before.len(), self.after.len(), current.len());
        let is_of_either = |(position, byte): (usize, &u8)| {
            self.after.get(position) == Some(byte) || self.before.get(position) == Some(byte)
        };
        (present == to || present == from || (from..to).contains(&present))
            && current.iter().enumerate().all(is_of_either)
    }
}

fn is_toml(content: &[u8]) -> bool {
    std::str::from_utf8(content).is_ok_and(|text| toml_edit::Document::parse(text).is_ok())
}
