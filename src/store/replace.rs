//! The replace of config.toml: whole or not at all, with its owner and mode, seen by everybody at once.
//!
//! In order: lock the sidecar, read, edit, write and sync a temporary file beside it, make sure that nobody
//! changed the original meanwhile (else edit what is there now), rename, sync the directory. A file that is a
//! mount point cannot be renamed onto: it is overwritten in place, from a complete copy in the state directory
//! that is replayed if that was interrupted.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use super::error::Error;
use super::files::{
    Temporary, beside, make_directory, parent, read_file, remove_durably, replace_file, sync_directory, temporary_name,
};
use super::hooks::Hooks;
use super::locks::{lock_itself, lock_sidecar};
use crate::secret::sha256_hex;

/// How often a change by somebody else, between reading and renaming, is taken up.
pub(super) const MAX_TRIES: u32 = 5;

/// The room that a probe asks for beyond the file's present size, in bytes: more than one new entry takes.
const PROBE_MARGIN: usize = 4096;

/// The first line of the complete copy.
const COPY_HEADER: &str = "runner-agent copy 1 ";

/// The permission bits of others, which a file with tokens must not have.
const KEPT_MODE: u32 = 0o770;

/// Where config.toml is, and what there is to replace it with.
pub(super) struct Place<'a> {
    /// The resolved path.
    pub(super) path: &'a Path,
    /// This config.toml's state directory.
    pub(super) state: Option<&'a Path>,
    pub(super) hooks: &'a Hooks,
}

/// config.toml as it was read.
struct Original {
    content: Vec<u8>,
    /// Absent if there is no file.
    metadata: Option<Metadata>,
}

/// How a try to replace ended.
enum Outcome {
    Done,
    ChangedMeanwhile,
}

impl Place<'_> {
    /// Reads the file, has it edited, and replaces it if that changed anything; `edit` is called again with
    /// the new content if somebody changed the file meanwhile.
    ///
    /// # Errors
    /// Those of the disk and of `edit`; the file is untouched then, unless it is a mount point.
    pub(super) fn replace(&self, edit: &mut dyn FnMut(&str) -> String) -> Result<(), Error> {
        let is_mount_point = self.is_mount_point();
        let _lock = self.lock(is_mount_point)?;
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
                Outcome::Done => return Ok(()),
                Outcome::ChangedMeanwhile => {
                    tracing::debug!(path = %self.path.display(), "config.toml was changed meanwhile, editing it again");
                }
            }
        }
        Err(Error::ChangedMeanwhile { path: self.path.to_owned(), tries: MAX_TRIES })
    }

    /// Does all of a replace but the rename.
    pub(super) fn probe(&self) -> Result<(), Error> {
        make_directory(parent(self.path))?;
        let is_mount_point = self.is_mount_point();
        let _lock = self.lock(is_mount_point)?;
        let original = self.read_original()?;
        let mut sample = original.content.clone();
        sample.extend(std::iter::repeat_n(b'#', PROBE_MARGIN));
        if is_mount_point {
            let state = self.state.ok_or_else(|| Error::MountPoint { path: self.path.to_owned() })?;
            OpenOptions::new().write(true).open(self.path).map_err(Error::disk("write", self.path))?;
            return Temporary::create(state.join(".probe"))?.fill(&sample);
        }
        self.temporary(&original)?.fill(&sample)
    }

    /// Finishes a write in place that was interrupted.
    pub(super) fn replay(&self) -> Result<(), Error> {
        let Some(copy) = self.copy() else { return Ok(()) };
        let Some(stored) = read_file(&copy)? else { return Ok(()) };
        let content = copied_content(&stored).ok_or_else(|| Error::DamagedCopy { path: copy.clone() })?;
        let Some(current) = read_file(self.path)? else {
            tracing::warn!(path = %self.path.display(), "config.toml is away; its interrupted write stays to be finished");
            return Ok(());
        };
        if current != content {
            tracing::warn!(path = %self.path.display(), "finishing an interrupted write of config.toml");
            let _lock = lock_itself(self.path)?;
            self.write_in_place(content)?;
        }
        remove_durably(&copy)
    }

    /// The file's content as text.
    pub(super) fn text<'c>(&self, content: &'c [u8]) -> Result<&'c str, Error> {
        std::str::from_utf8(content).map_err(|_| Error::NotText { path: self.path.to_owned() })
    }

    fn is_mount_point(&self) -> bool {
        use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
        let attributes = statx(CWD, self.path, AtFlags::empty(), StatxFlags::BASIC_STATS);
        let is_root = attributes.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
        is_root || self.hooks.pretends_mount_point()
    }

    /// A mount point is the same file for everybody, so it can be locked itself; its directory is not.
    fn lock(&self, is_mount_point: bool) -> Result<File, Error> {
        if is_mount_point { lock_itself(self.path) } else { lock_sidecar(&beside(self.path, "lock")) }
    }

    fn read_original(&self) -> Result<Original, Error> {
        let mut file = match File::open(self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Original { content: Vec::new(), metadata: None });
            }
            Err(error) => return Err(Error::disk("read", self.path)(error)),
        };
        let metadata = file.metadata().map_err(Error::disk("read", self.path))?;
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(Error::disk("read", self.path))?;
        Ok(Original { content, metadata: Some(metadata) })
    }

    /// Makes sure that what is there already will stay: an earlier try may have ended before its sync.
    fn settle(&self, original: &Original) -> Result<(), Error> {
        if original.metadata.is_none() {
            return Ok(());
        }
        let synced = File::open(self.path).and_then(|file| file.sync_all());
        synced.map_err(Error::disk("sync", self.path))?;
        sync_directory(parent(self.path))
    }

    fn rename(&self, original: &Original, edited: &[u8]) -> Result<Outcome, Error> {
        let mut temporary = self.temporary(original)?;
        temporary.fill(edited)?;
        self.hooks.before_rename(self.path);
        if !self.is_unchanged(original)? {
            return Ok(Outcome::ChangedMeanwhile);
        }
        match temporary.rename(self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return self.overwrite(original, edited),
            Err(error) => return Err(Error::disk("replace", self.path)(error)),
        }
        self.hooks.renamed();
        sync_directory(parent(self.path))?;
        Ok(Outcome::Done)
    }

    /// The replacement, still empty, with the owner and mode it will have.
    fn temporary(&self, original: &Original) -> Result<Temporary, Error> {
        let temporary = Temporary::create(temporary_name(self.path))?;
        let Some(wanted) = &original.metadata else {
            temporary.set_mode(0o600)?;
            return Ok(temporary);
        };
        let made = temporary.file().metadata().map_err(Error::disk("read", temporary.path()))?;
        let uid = (made.uid() != wanted.uid()).then_some(wanted.uid());
        let gid = (made.gid() != wanted.gid()).then_some(wanted.gid());
        if (uid.is_some() || gid.is_some()) && fchown(temporary.file(), uid, gid).is_err() {
            return Err(Error::Owner { path: self.path.to_owned(), uid: wanted.uid(), gid: wanted.gid() });
        }
        temporary.set_mode(wanted.mode() & KEPT_MODE)?;
        Ok(temporary)
    }

    fn is_unchanged(&self, original: &Original) -> Result<bool, Error> {
        let now = self.read_original()?;
        Ok(now.content == original.content && now.metadata.is_some() == original.metadata.is_some())
    }

    fn overwrite(&self, original: &Original, edited: &[u8]) -> Result<Outcome, Error> {
        let copy = self.copy().ok_or_else(|| Error::MountPoint { path: self.path.to_owned() })?;
        let mut stored = format!("{COPY_HEADER}{}\n", sha256_hex(edited)).into_bytes();
        stored.extend(edited);
        replace_file(&copy, &stored)?;
        self.hooks.before_rename(self.path);
        if !self.is_unchanged(original)? {
            remove_durably(&copy)?;
            return Ok(Outcome::ChangedMeanwhile);
        }
        self.write_in_place(edited)?;
        self.hooks.renamed();
        remove_durably(&copy)?;
        Ok(Outcome::Done)
    }

    fn write_in_place(&self, content: &[u8]) -> Result<(), Error> {
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).open(self.path)?;
            let metadata = file.metadata()?;
            reserve(&file, metadata.len(), content.len())?;
            file.write_all(content)?;
            file.set_len(u64::try_from(content.len()).unwrap_or(u64::MAX))?;
            if metadata.mode() & 0o777 & !KEPT_MODE != 0
                && let Err(error) = file.set_permissions(Permissions::from_mode(metadata.mode() & KEPT_MODE))
            {
                tracing::warn!(path = %self.path.display(), %error, "others can read config.toml");
            }
            file.sync_all()
        };
        write().map_err(Error::disk("overwrite", self.path))
    }

    fn copy(&self) -> Option<PathBuf> {
        self.state.map(|state| state.join("config.copy"))
    }
}

/// Claims the space that a longer content needs, before the first byte of the old one is lost.
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

fn copied_content(stored: &[u8]) -> Option<&[u8]> {
    let stored = stored.strip_prefix(COPY_HEADER.as_bytes())?;
    let (checksum, content) = stored.split_at_checked(64)?;
    let content = content.strip_prefix(b"\n")?;
    (sha256_hex(content).as_bytes() == checksum).then_some(content)
}
