//! Atomic and durable file operations: temporary files, renames, syncs.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::Error;

/// Maximum number of symbolic links that are followed to one file.
pub(super) const MAX_LINKS: usize = 40;

/// A file under a temporary name, which is removed unless it is renamed.
pub(super) struct TemporaryFile {
    file: File,
    name: TemporaryName,
}

struct TemporaryName {
    path: PathBuf,
    is_renamed: bool,
}

/// An open directory, to sync it later: then it takes no new descriptor and cannot fail for lack of one.
pub(super) struct Directory {
    file: File,
    path: PathBuf,
}

impl Directory {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        Ok(Self { file, path: path.to_owned() })
    }

    pub(super) fn sync(&self) -> Result<(), Error> {
        match self.file.sync_all() {
            // The file system cannot sync a directory.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            synced => synced.map_err(Error::io("sync", &self.path)),
        }
    }
}

impl TemporaryFile {
    /// Creates it with mode 0600; replaces a leftover of a crash.
    pub(super) fn create(path: PathBuf) -> Result<Self, Error> {
        let open = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mut opened = open();
        if opened.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
            remove_file(&path)?;
            opened = open();
        }
        let file = opened.map_err(Error::io("create", &path))?;
        Ok(Self { file, name: TemporaryName { path, is_renamed: false } })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn path(&self) -> &Path {
        &self.name.path
    }

    /// Sets the permission bits regardless of the umask.
    pub(super) fn set_mode(&self, mode: u32) -> Result<(), Error> {
        self.file.set_permissions(Permissions::from_mode(mode)).map_err(Error::io("set the mode of", self.path()))
    }

    /// Copies the owner of `path`, or of its directory if it does not exist. Only root can, and only root needs to.
    pub(super) fn give_to_owner_of(&self, path: &Path) {
        let Ok(owner) = fs::metadata(path).or_else(|_| fs::metadata(parent(path))) else { return };
        if let Err(error) = std::os::unix::fs::fchown(&self.file, Some(owner.uid()), Some(owner.gid())) {
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
    pub(super) fn rename(self, name: &Path) -> io::Result<File> {
        let Self { file, name: mut temporary } = self;
        fs::rename(&temporary.path, name)?;
        temporary.is_renamed = true;
        Ok(file)
    }

    /// Renames it unless `name` exists; not yet durable.
    pub(super) fn rename_if_free(mut self, name: &Path) -> io::Result<()> {
        rename_if_free(&self.name.path, name)?;
        self.name.is_renamed = true;
        Ok(())
    }
}

impl Drop for TemporaryName {
    fn drop(&mut self) {
        if !self.is_renamed
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!(path = %self.path.display(), %error, "cannot remove a temporary file");
        }
    }
}

/// Renames a file unless `name` exists; not yet durable.
pub(super) fn rename_if_free(path: &Path, name: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, path, CWD, name, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // The file system lacks the flag; a race of a few microseconds remains.
        Err(rustix::io::Errno::INVAL) if !name.exists() => fs::rename(path, name),
        Err(errno) => Err(errno.into()),
    }
}

/// Replaces one of the agent's files durably, with mode 0600.
pub(super) fn replace_file(path: &Path, content: &[u8]) -> Result<(), Error> {
    replace_file_through(&temporary_name(path), path, content).map(drop)
}

/// As [`replace_file`], with this temporary file in the same directory. Returns the version that was written.
pub(super) fn replace_file_through(temporary: &Path, path: &Path, content: &[u8]) -> Result<Option<Seen>, Error> {
    let directory = Directory::open(parent(path))?;
    let mut temporary = TemporaryFile::create(temporary.to_owned())?;
    temporary.set_mode(0o600)?;
    temporary.fill(content)?;
    let file = temporary.rename(path).map_err(Error::io("replace", path))?;
    directory.sync()?;
    Ok(file.metadata().ok().map(|written| Seen::of(&written)))
}

/// Removes a file durably; a missing one is not an error.
pub(super) fn remove_durably(path: &Path) -> Result<(), Error> {
    let directory = match Directory::open(parent(path)) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    if remove_file(path)? { directory.sync() } else { Ok(()) }
}

/// Removes a file; returns whether it existed.
pub(super) fn remove_file(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("remove", path)(error)),
    }
}

/// Reads one of the agent's files; `None` if it is missing. Rejects other types, of which a pipe is not waited for.
pub(super) fn read_file(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let read = || {
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(not_regular());
        }
        let mut content = Vec::new();
        content.try_reserve(usize::try_from(found.len()).unwrap_or(usize::MAX).saturating_add(1))?;
        // Without a limit, the size would be asked for again.
        file.take(u64::MAX).read_to_end(&mut content)?;
        Ok(content)
    };
    unless_missing(read(), path)
}

fn unless_missing<T>(read: io::Result<T>, path: &Path) -> Result<Option<T>, Error> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

fn not_regular() -> io::Error {
    io::Error::other("it is not a regular file")
}

/// The metadata of a regular file; `None` if it is missing. Rejects other types: reading a pipe would block, and replacing
/// a device would break the machine.
pub(super) fn metadata_of(path: &Path) -> Result<Option<Metadata>, Error> {
    unless_missing(regular_file(path), path)
}

fn regular_file(path: &Path) -> io::Result<Metadata> {
    let found = fs::metadata(path)?;
    if found.is_file() { Ok(found) } else { Err(not_regular()) }
}

/// A file as it was read.
pub(super) struct FileContent {
    pub(super) content: Vec<u8>,
    pub(super) metadata: Metadata,
    /// The version that was read; `None` if another one could look the same.
    pub(super) seen: Option<Seen>,
}

/// Reads a regular file; see [`metadata_of`].
pub(super) fn read_version(path: &Path) -> Result<Option<FileContent>, Error> {
    let read = || {
        regular_file(path)?;
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        let seen = Seen::before_reading(&metadata);
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        Ok(FileContent { content, metadata, seen })
    };
    unless_missing(read(), path)
}

/// As [`read_version`], without the version.
pub(super) fn read_with_metadata(path: &Path) -> Result<Option<(Vec<u8>, Metadata)>, Error> {
    Ok(read_version(path)?.map(|read| (read.content, read.metadata)))
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
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        make_directory(above)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync_directory(parent(path)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(Error::io("create", path)(error)),
    }
}

/// Syncs a directory.
pub(super) fn sync_directory(path: &Path) -> Result<(), Error> {
    Directory::open(path)?.sync()
}

/// A file's directory; `.` for a bare name.
pub(super) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The temporary file beside a file; a fixed name.
pub(super) fn temporary_name(path: &Path) -> PathBuf {
    beside(path, "runner-agent.tmp")
}

/// A hidden name beside a file: `.config.toml.lock`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

/// Resolves symbolic links; the file need not exist.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, Error> {
    let mut resolved = std::path::absolute(path).map_err(Error::io("find", path))?;
    for _ in 0..MAX_LINKS {
        match fs::read_link(&resolved) {
            Ok(link) => resolved = parent(&resolved).join(link),
            Err(error) if is_no_link(&error) => return existing_parent_resolved(&resolved),
            Err(error) => return Err(Error::io("read", &resolved)(error)),
        }
    }
    Err(Error::io("read", path)(io::Error::other("too many symbolic links")))
}

fn is_no_link(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Resolves the existing part of a path and keeps the rest.
fn existing_parent_resolved(path: &Path) -> Result<PathBuf, Error> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(path.to_owned()) };
    match parent.canonicalize() {
        Ok(parent) => Ok(parent.join(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(existing_parent_resolved(parent)?.join(name)),
        Err(error) => Err(Error::io("read", parent)(error)),
    }
}
