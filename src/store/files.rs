//! Atomic and durable file operations: temporary files, renames, syncs.
//!
//! The agent's own files are an [`OwnFile`] each; config.toml and what is beside it are a [`Place`].

use std::fs::{File, Metadata, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::Error;
use crate::files::{self, Access, Opened, OwnDirectory, Place};

/// Maximum size of config.toml and of each file of the agent, in bytes.
pub const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// A file under a temporary name, which is removed unless it is renamed.
pub(super) struct TemporaryFile {
    file: File,
    name: TemporaryName,
}

struct TemporaryName {
    place: Place,
    is_renamed: bool,
}

impl TemporaryFile {
    /// Creates it with mode 0600; replaces a leftover of a crash.
    pub(super) fn create(place: Place) -> Result<Self, Error> {
        let mut created = place.create();
        if created.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
            place.remove().map_err(Error::io("remove", place.path()))?;
            created = place.create();
        }
        let file = created.map_err(Error::io("create", place.path()))?;
        Ok(Self { file, name: TemporaryName { place, is_renamed: false } })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn path(&self) -> &Path {
        self.name.place.path()
    }

    /// Sets the permission bits regardless of the umask.
    pub(super) fn set_mode(&self, mode: u32) -> Result<(), Error> {
        self.file.set_permissions(Permissions::from_mode(mode)).map_err(Error::io("set the mode of", self.path()))
    }

    /// Gives it to the owner of another file, or of its directory if there is none. Only root can, and only root needs to.
    pub(super) fn give_to_owner_of(&self, place: &Place) {
        let owner = place.metadata().map(|found| (found.uid(), found.gid()));
        let Ok((user, group)) = owner.or_else(|_| place.owner_of_directory()) else { return };
        if let Err(error) = std::os::unix::fs::fchown(&self.file, Some(user), Some(group)) {
            tracing::debug!(%error, path = %self.path().display(), "cannot change the file's owner");
        }
    }

    /// Writes the content and syncs it.
    pub(super) fn fill(&mut self, content: &[u8]) -> Result<(), Error> {
        let written = self.file.write_all(content).and_then(|()| self.file.sync_all());
        written.map_err(Error::io("write", self.path()))
    }

    /// Takes the space for this many bytes.
    pub(super) fn reserve(&mut self, bytes: u64) -> Result<(), Error> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        match fallocate(&self.file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => self.file.sync_all().map_err(Error::io("write", self.path())),
            // The file system has to be given the bytes.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.fill(&vec![b'#'; usize::try_from(bytes).unwrap_or(usize::MAX)])
            }
            Err(errno) => Err(Error::io("write", self.path())(errno.into())),
        }
    }

    /// Renames it atomically; not yet durable. Returns the open file.
    pub(super) fn rename(mut self, to: &Place) -> io::Result<File> {
        self.name.place.rename(to)?;
        self.name.is_renamed = true;
        Ok(self.file)
    }

    /// Renames it unless there is a file; not yet durable.
    pub(super) fn rename_if_free(mut self, to: &Place) -> io::Result<()> {
        self.name.place.rename_if_free(to)?;
        self.name.is_renamed = true;
        Ok(())
    }
}

impl Drop for TemporaryName {
    fn drop(&mut self) {
        if !self.is_renamed
            && let Err(error) = self.place.remove()
        {
            tracing::debug!(path = %self.place.path().display(), %error, "cannot remove a temporary file");
        }
    }
}

/// One of the agent's own files: a path below the state directory, or a name in an open directory.
pub(super) trait OwnFile {
    /// As [`Place::own`].
    fn find(&self) -> io::Result<Place>;

    /// For messages.
    fn path(&self) -> PathBuf;

    /// [`OwnFile::find`] with the error of this room.
    fn place(&self, action: &'static str) -> Result<Place, Error> {
        self.find().map_err(|source| Error::io(action, &self.path())(source))
    }
}

impl OwnFile for PathBuf {
    fn find(&self) -> io::Result<Place> {
        Place::own(self)
    }

    fn path(&self) -> PathBuf {
        self.clone()
    }
}

/// A name in an open directory.
pub(super) struct FileIn<'d> {
    pub(super) directory: &'d OwnDirectory,
    pub(super) name: String,
}

impl OwnFile for FileIn<'_> {
    fn find(&self) -> io::Result<Place> {
        self.directory.place(&self.name)
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join(&self.name)
    }
}

/// The place of one of the agent's own files.
pub(super) fn own(action: &'static str, path: &Path) -> Result<Place, Error> {
    Place::own(path).map_err(Error::io(action, path))
}

/// Replaces one of the agent's files durably, with mode 0600.
pub(super) fn replace_file(file: &dyn OwnFile, content: &[u8]) -> Result<(), Error> {
    let place = file.place("replace")?;
    replace(&place, place.beside(TEMPORARY), content).map(drop)
}

/// The mode of the agent's own files, which [`Place::create`] gives them.
const OWN_MODE: u32 = 0o600;

/// Replaces a file durably, with mode 0600, through this temporary file in the same directory. Returns the version that
/// was written.
pub(super) fn replace(place: &Place, temporary: Place, content: &[u8]) -> Result<Option<Seen>, Error> {
    let mut temporary = TemporaryFile::create(temporary)?;
    temporary.fill(content)?;
    let file = temporary.rename(place).map_err(Error::io("replace", place.path()))?;
    sync(place)?;
    let Ok(written) = file.metadata() else { return Ok(None) };
    if written.mode() & 0o7777 == OWN_MODE {
        return Ok(Some(Seen::of(&written)));
    }
    // A umask takes rights from the owner too.
    let own_mode = Permissions::from_mode(OWN_MODE);
    file.set_permissions(own_mode).map_err(Error::io("set the mode of", place.path()))?;
    Ok(None)
}

/// Makes renames and removals beside a file durable.
pub(super) fn sync(place: &Place) -> Result<(), Error> {
    place.sync_directory().map_err(Error::io("sync", parent(place.path())))
}

/// Removes one of the agent's files durably; a missing one is not an error.
pub(super) fn remove_durably(file: &dyn OwnFile) -> Result<(), Error> {
    let place = match file.find() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(|error| Error::io("remove", &file.path())(error))?,
    };
    if place.remove().map_err(Error::io("remove", place.path()))? { sync(&place) } else { Ok(()) }
}

/// Removes one of the agent's files.
pub(super) fn remove_file(file: &dyn OwnFile) -> Result<(), Error> {
    let removed = file.find().and_then(|place| place.remove());
    removed.map(drop).map_err(|error| Error::io("remove", &file.path())(error))
}

/// Reads one of the agent's files; `None` if it is missing.
pub(super) fn read_file(file: &dyn OwnFile) -> Result<Option<Vec<u8>>, Error> {
    let read = || file.find()?.open(Access::Read)?.read(MAX_FILE_BYTES);
    unless_missing(read(), || file.path())
}

fn unless_missing<T>(read: io::Result<T>, path: impl Fn() -> PathBuf) -> Result<Option<T>, Error> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", &path())(error)),
    }
}

/// Opens a regular file; `None` if it is missing. Rejects other types: reading a pipe would block, and replacing a device
/// would break the machine.
pub(super) fn open_if_there(place: &Place) -> Result<Option<Opened>, Error> {
    unless_missing(place.open(Access::Read), || place.path().to_owned())
}

/// A file as it was read.
pub(super) struct FileContent {
    pub(super) content: Vec<u8>,
    /// The file that was read.
    pub(super) opened: Opened,
    /// The version that was read; `None` if another one could look the same.
    pub(super) seen: Option<Seen>,
}

/// Reads a regular file; `None` if it is missing.
pub(super) fn read_version(place: &Place) -> Result<Option<FileContent>, Error> {
    let Some(mut opened) = open_if_there(place)? else { return Ok(None) };
    let seen = Seen::before_reading(&opened.metadata);
    let content = opened.read(MAX_FILE_BYTES).map_err(Error::io("read", place.path()))?;
    Ok(Some(FileContent { content, opened, seen }))
}

/// A version of a file, by what the file system says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    device: u64,
    inode: u64,
    size: u64,
    modified_at: (i64, i64),
    changed_at: (i64, i64),
}

/// Two ticks of the slowest kernel clock: files that were changed within one tick have one time.
const TICK: Duration = Duration::from_millis(20);

impl Seen {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified_at: (metadata.mtime(), metadata.mtime_nsec()),
            changed_at: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The version that is about to be read; `None` if it is so new that another change could look the same.
    pub(super) fn before_reading(metadata: &Metadata) -> Option<Self> {
        let seen = Self::of(metadata);
        let (seconds, nanos) = seen.changed_at;
        let since_epoch = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?);
        // The clock by which the kernel stamps files.
        let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        let age = Duration::try_from(now).ok()?.checked_sub(since_epoch)?;
        (age > TICK).then_some(seen)
    }
}

/// Creates a directory and its parents with mode 0700; existing ones are unchanged.
pub(super) fn make_directory(path: &Path) -> Result<(), Error> {
    files::make_directories(path).map_err(Error::io("create", path))
}

/// A file's directory; `.` for a bare name.
pub(super) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Ends the name of the temporary file beside a file; a fixed name.
pub(super) const TEMPORARY: &str = "runner-agent.tmp";

/// The names in a directory of the agent's own.
pub(super) fn names_in(directory: &Path) -> Result<Vec<std::ffi::OsString>, Error> {
    let names = || Place::own(&directory.join("-"))?.names_beside();
    names().map_err(Error::io("read", directory))
}

/// Resolves symbolic links; the file need not exist.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, Error> {
    files::resolve(path).map_err(Error::io("read", path))
}
