//! Where a file is: an open directory and a name in it.

use std::ffi::{CStr, OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat, StatVfsMountFlags, StatxAttributes,
    StatxFlags, accessat, fstat, fstatvfs, mkdirat, openat, openat2, readlinkat, renameat, renameat_with, statx,
    unlinkat,
};
use rustix::io::Errno;

use super::current::note;
use super::remedy::{FileUse, explain};
use super::{Exposure, is_trusted, refused};

/// Maximum number of symbolic links that are followed to one file.
const MAX_LINKS: usize = 40;

/// Permission bits that let other users than the owner write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// A name in an open directory. The file may be missing, and may be another one with each call.
#[derive(Clone, Debug)]
pub struct Place {
    directory: Arc<OwnedFd>,
    name: OsString,
    path: PathBuf,
}

impl Place {
    /// Resolves a path, following symbolic links to the end; the file itself may be missing.
    ///
    /// A link is followed if it and its directory belong to this process's user, to root, or to the owner of what it leads
    /// to: another user could otherwise have a process of root write files that are not that user's.
    ///
    /// # Errors
    /// A directory that is missing or cannot be read, and `PermissionDenied` for a link that is not followed.
    pub fn find(path: &Path) -> io::Result<Self> {
        note(path);
        let path = std::path::absolute(path)?;
        match Self::without_links(&path)? {
            Some(place) if !place.is_link()? => Ok(place),
            Some(_) | None => walk(&path, true)?.place(),
        }
    }

    /// As [`Place::find`], for a file of the agent's own, whose name is never a link. Its directory must belong to this
    /// process's user or to root, and only its owner may write in it.
    ///
    /// # Errors
    /// As [`Place::find`], and `PermissionDenied` for such a directory.
    pub fn own(path: &Path) -> io::Result<Self> {
        note(path);
        let path = std::path::absolute(path)?;
        let place = match Self::without_links(&path)? {
            Some(place) => place,
            None => walk(&path, false)?.place()?,
        };
        place.check_own_directory()?;
        Ok(place)
    }

    /// How another user than this process's and root could put a file into the directory. What is mounted read-only is the
    /// choice of those who mounted it.
    ///
    /// # Errors
    /// Those of the system calls.
    pub fn exposure_of_directory(&self) -> io::Result<Option<Exposure>> {
        let found = fstat(&self.directory)?;
        let (user, mode) = (found.st_uid, found.st_mode & 0o7777);
        let exposure = if !is_trusted(user) {
            Exposure::Foreign { user }
        } else if mode & WRITABLE_BY_OTHERS != 0 {
            Exposure::Writable { mode }
        } else {
            return Ok(None);
        };
        let is_read_only = fstatvfs(&self.directory)?.f_flag.contains(StatVfsMountFlags::RDONLY);
        Ok((!is_read_only).then_some(exposure))
    }

    /// Opens the directory of a path in one step, if no symbolic link is on the way to it.
    fn without_links(path: &Path) -> io::Result<Option<Self>> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(is_directory()) };
        if path.components().any(|component| component == Component::ParentDir) {
            return Ok(None);
        }
        let open = |flags| {
            let links = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            openat2(CWD, parent, flags | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), links)
        };
        let opened = match open(OFlags::RDONLY) {
            // It may be used, but not read.
            Err(Errno::ACCESS) => open(OFlags::PATH),
            opened => opened,
        };
        match opened {
            Ok(directory) => Ok(Some(Self::in_directory(directory, parent, name))),
            // A link, a kernel without this call, or a filter of calls.
            Err(Errno::LOOP | Errno::NOSYS | Errno::PERM | Errno::INVAL) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn in_directory(directory: OwnedFd, path: &Path, name: &OsStr) -> Self {
        Self { directory: Arc::new(directory), name: name.to_owned(), path: path.join(name) }
    }

    fn check_own_directory(&self) -> io::Result<()> {
        check_own(&fstat(&self.directory)?, self.path.parent().unwrap_or(Path::new("/")))
    }

    /// A path for system calls that know no open directory, such as `bind`: it leads through the descriptor.
    #[must_use]
    pub fn path_by_descriptor(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.directory.as_raw_fd().to_string()).join(&self.name)
    }

    /// The path behind all links, for messages and for comparing.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name in the directory.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Another name in the same directory.
    #[must_use]
    pub fn sibling(&self, name: impl Into<OsString>) -> Self {
        let name = name.into();
        Self { directory: Arc::clone(&self.directory), path: self.path.with_file_name(&name), name }
    }

    /// A hidden name beside the file: `.config.toml.lock`.
    #[must_use]
    pub fn beside(&self, suffix: &str) -> Self {
        let mut name = OsString::from(".");
        name.push(&self.name);
        name.push(".");
        name.push(suffix);
        self.sibling(name)
    }

    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Owner and group of the directory.
    ///
    /// # Errors
    /// Those of the system call.
    pub fn owner_of_directory(&self) -> io::Result<(u32, u32)> {
        let found = fstat(&self.directory)?;
        Ok((found.st_uid, found.st_gid))
    }

    /// Device and inode of the directory, which is open: no other directory gets them meanwhile.
    ///
    /// # Errors
    /// Those of the system call.
    pub fn id_of_directory(&self) -> io::Result<(u64, u64)> {
        let found = fstat(&self.directory)?;
        Ok((found.st_dev, found.st_ino))
    }

    /// What is there now; a link is not followed.
    ///
    /// # Errors
    /// `NotFound`, and those of the system calls.
    pub fn metadata(&self) -> io::Result<Metadata> {
        File::from(self.look()?).metadata()
    }

    /// A descriptor of what is there, which can be asked about and not read.
    fn look(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.directory, &self.name, flags, Mode::empty())?)
    }

    /// Sets the permission bits of what is there, which is no link.
    ///
    /// # Errors
    /// Those of the system calls.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        let found = self.look()?;
        if FileType::from_raw_mode(fstat(&found)?.st_mode) == FileType::Symlink {
            return Err(io::Error::other("a symbolic link has taken its place"));
        }
        // A socket cannot be opened, and its descriptor cannot be changed.
        let link = format!("/proc/self/fd/{}", found.as_raw_fd());
        Ok(rustix::fs::chmod(link, Mode::from_raw_mode(mode))?)
    }

    /// Whether anything is there.
    ///
    /// # Errors
    /// Those of the system calls.
    pub fn exists(&self) -> io::Result<bool> {
        Ok(self.found()?.is_some())
    }

    fn is_link(&self) -> io::Result<bool> {
        Ok(self.found()?.is_some_and(|found| found.file_type().is_symlink()))
    }

    fn found(&self) -> io::Result<Option<Metadata>> {
        match self.metadata() {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether it is a mount point, which no other file can be renamed onto.
    #[must_use]
    pub fn is_mount_point(&self) -> bool {
        statx(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)
            .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
    }

    /// Whether the file system forbids to change the file or to add to it, by its attributes `i` and `a`.
    #[must_use]
    pub fn is_immutable(&self) -> bool {
        is_immutable(&self.directory, &self.name)
    }

    /// The same of its directory: no file can be renamed in it.
    #[must_use]
    pub fn is_directory_immutable(&self) -> bool {
        is_immutable(&self.directory, OsStr::new(""))
    }

    /// Creates the file with mode 0600, for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists`, and those of the system call.
    pub fn create(&self) -> io::Result<File> {
        note(&self.path);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(openat(&self.directory, &self.name, flags, Mode::RUSR | Mode::WUSR)?))
    }

    /// Creates the file with mode 0600, or empties it, for writing.
    ///
    /// # Errors
    /// Those of the system call.
    pub fn create_or_empty(&self) -> io::Result<File> {
        note(&self.path);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(openat(&self.directory, &self.name, flags, Mode::RUSR | Mode::WUSR)?))
    }

    /// Opens a directory of this name, to lock it or to change its mode.
    ///
    /// # Errors
    /// Those of the system call.
    pub fn open_directory(&self) -> io::Result<File> {
        note(&self.path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(openat(&self.directory, &self.name, flags, Mode::empty())?))
    }

    /// Renames the file to another place, atomically; not yet durable.
    ///
    /// # Errors
    /// Those of the system call.
    pub fn rename(&self, to: &Self) -> io::Result<()> {
        note(&self.path);
        Ok(renameat(&self.directory, &self.name, &to.directory, &to.name)?)
    }

    /// As [`Place::rename`], unless there is a file.
    ///
    /// # Errors
    /// `AlreadyExists`, and those of the system call.
    pub fn rename_if_free(&self, to: &Self) -> io::Result<()> {
        note(&self.path);
        match renameat_with(&self.directory, &self.name, &to.directory, &to.name, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            // The file system lacks the flag; a race of a few microseconds remains.
            Err(Errno::INVAL) if !to.exists()? => self.rename(to),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Removes the file; returns whether there was one.
    ///
    /// # Errors
    /// Those of the system call.
    pub fn remove(&self) -> io::Result<bool> {
        note(&self.path);
        match unlinkat(&self.directory, &self.name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The names in the directory, in no order.
    ///
    /// # Errors
    /// Those of the system calls.
    pub fn names_beside(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for found in Dir::read_from(&self.directory)? {
            let name = OsString::from_vec(found?.file_name().to_bytes().to_vec());
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// How many names the directory has, as far as this limit.
    ///
    /// # Errors
    /// Those of the system calls.
    pub fn count_beside(&self, limit: usize) -> io::Result<usize> {
        let is_dot = |name: &CStr| matches!(name.to_bytes(), b"." | b"..");
        let names = Dir::read_from(&self.directory)?
            .filter(|found| !found.as_ref().is_ok_and(|found| is_dot(found.file_name())));
        names.take(limit).try_fold(0, |count, found| Ok(found.map(|_| count + 1)?))
    }

    /// Makes renames and removals in the directory durable. Takes no descriptor.
    ///
    /// # Errors
    /// Those of the system call.
    pub fn sync_directory(&self) -> io::Result<()> {
        note(&self.path);
        sync(&self.directory)
    }
}

/// Fails if another user could add files to a directory.
pub(super) fn check_own(found: &Stat, directory: &Path) -> io::Result<()> {
    let directory = directory.display();
    if !is_trusted(found.st_uid) {
        return Err(refused(format!(
            "its directory `{directory}` belongs to user {}, who could replace it: choose a directory of this process's user",
            found.st_uid
        )));
    }
    if found.st_mode & WRITABLE_BY_OTHERS != 0 {
        return Err(refused(format!(
            "other users can write in its directory `{directory}` (mode {:04o}): run `chmod go-w`",
            found.st_mode & 0o7777
        )));
    }
    Ok(())
}

fn sync(directory: &OwnedFd) -> io::Result<()> {
    match rustix::fs::fsync(directory) {
        // The file system cannot sync a directory.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        // It was opened without the right to read it.
        Err(Errno::BADF) => Err(Errno::ACCESS.into()),
        Err(errno) => Err(errno.into()),
    }
}

fn is_immutable(directory: &OwnedFd, name: &OsStr) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    let fixed = StatxAttributes::IMMUTABLE | StatxAttributes::APPEND;
    statx(directory, name, flags, StatxFlags::BASIC_STATS).is_ok_and(|found| found.stx_attributes.intersects(fixed))
}

/// The path behind all links that are followed, as far as it exists, with the rest of it.
///
/// # Errors
/// As [`Place::find`], but for what is missing.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    Ok(walk(&path, true)?.path())
}

/// Creates a directory and those above it with mode 0700; existing ones are unchanged.
///
/// # Errors
/// As [`Place::find`], and those of the system calls.
pub fn make_directories(path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let Walked { mut at, missing, .. } = walk(&path, true)?;
    for name in missing {
        match mkdirat(&at.opened, &name, Mode::RWXU) {
            Ok(()) => sync(&openat(&at.opened, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)?,
            // Another process is as fast.
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        at = at.enter(&name)?;
    }
    if at.is_directory { Ok(()) } else { Err(Errno::NOTDIR.into()) }
}

/// Checks that [`make_directories`] could make a directory, or that it is there, and that this process may write in it. Makes
/// nothing.
///
/// # Errors
/// As [`make_directories`], naming the directory that cannot be written in.
pub fn check_directory(path: &Path) -> io::Result<()> {
    let Walked { at, .. } = walk(&std::path::absolute(path)?, true)?;
    if !at.is_directory {
        return Err(Errno::NOTDIR.into());
    }
    let wanted = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    accessat(&at.opened, ".", wanted, AtFlags::EACCESS).map_err(|errno| {
        // What refuses a new file there refuses it by this directory.
        let error = explain(&at.path.join("new"), FileUse::Write, errno.into());
        io::Error::new(error.kind(), format!("{}: {error}", at.path.display()))
    })
}

/// A directory, or at the end of a path any file.
struct Spot {
    /// To ask about and to search alone.
    opened: OwnedFd,
    path: PathBuf,
    is_directory: bool,
}

/// What a path leads to.
struct Walked {
    /// The last thing that exists on the way; only in a directory can what is missing be made.
    at: Spot,
    /// Its directory and its name there; `None` for `/` and what `..` leads to.
    name: Option<(OwnedFd, OsString)>,
    /// The names below it that do not exist.
    missing: Vec<OsString>,
}

impl Walked {
    fn path(self) -> PathBuf {
        self.missing.iter().fold(self.at.path, |path, name| path.join(name))
    }

    /// The place of a file: at most its own name is missing.
    fn place(self) -> io::Result<Place> {
        match (&self.missing[..], self.name) {
            ([], Some((directory, name))) => {
                let above = self.at.path.parent().unwrap_or(Path::new("/"));
                Ok(Place::in_directory(directory, above, &name))
            }
            ([], None) => Err(is_directory()),
            (_, _) if !self.at.is_directory => Err(Errno::NOTDIR.into()),
            ([name], _) => Ok(Place::in_directory(readable(self.at.opened), &self.at.path, name)),
            _ => Err(Errno::NOENT.into()),
        }
    }
}

impl Spot {
    fn root() -> io::Result<Self> {
        let opened = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { opened, path: PathBuf::from("/"), is_directory: true })
    }

    fn up(mut self) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.opened = openat(&self.opened, "..", flags, Mode::empty())?;
        self.path.pop();
        Ok(self)
    }

    /// A directory in it, which is no link.
    fn enter(self, name: &OsStr) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(&self.opened, name, flags, Mode::empty())?;
        Ok(Self { opened, path: self.path.join(name), is_directory: true })
    }

    fn owner(&self) -> io::Result<u32> {
        Ok(fstat(&self.opened)?.st_uid)
    }
}

/// The same directory, opened to be read, if this process may.
fn readable(directory: OwnedFd) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(&directory, ".", flags, Mode::empty()).unwrap_or(directory)
}

/// The links that were followed.
#[derive(Default)]
struct Links {
    count: usize,
    untrusted: Vec<UntrustedLink>,
}

/// A link that a user who is not trusted could have made or replaced.
struct UntrustedLink {
    user: u32,
    path: PathBuf,
    /// How many names of the path are left once what it leads to is reached.
    left: usize,
}

impl Links {
    /// Where a link leads.
    fn follow(&mut self, link: &OwnedFd, from: &Spot, name: &OsStr, left: usize) -> io::Result<PathBuf> {
        self.count += 1;
        if self.count > MAX_LINKS {
            return Err(io::Error::other("too many symbolic links"));
        }
        for user in [fstat(link)?.st_uid, from.owner()?] {
            if !is_trusted(user) {
                self.untrusted.push(UntrustedLink { user, path: from.path.join(name), left });
            }
        }
        Ok(PathBuf::from(OsString::from_vec(readlinkat(link, "", Vec::new())?.into_bytes())))
    }

    /// Something that is no link was reached with this many names left. What a link leads to has to belong to each user
    /// who could have made the link.
    fn reached(&mut self, spot: &Spot, left: usize) -> io::Result<()> {
        while self.untrusted.last().is_some_and(|link| link.left >= left) {
            let Some(UntrustedLink { user, path, .. }) = self.untrusted.pop() else { return Ok(()) };
            let owner = spot.owner()?;
            if owner != user {
                return Err(refused(format!(
                    "the symbolic link `{}` or its directory belongs to user {user}, and it leads to `{}`, which belongs to user {owner}: give the path without the link",
                    path.display(),
                    spot.path.display()
                )));
            }
        }
        Ok(())
    }
}

/// Resolves an absolute path, one name after the other.
fn walk(path: &Path, follows_last: bool) -> io::Result<Walked> {
    let mut at = Spot::root()?;
    let mut name_there = None;
    let mut links = Links::default();
    let mut left: Vec<OsString> = Vec::new();
    push(&mut left, path);
    while let Some(name) = left.pop() {
        if name == ".." {
            (at, name_there) = (at.up()?, None);
            links.reached(&at, left.len())?;
            continue;
        }
        let found = match openat(&at.opened, &name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Ok(found) => found,
            Err(Errno::NOENT) => {
                // Whatever is made there belongs to its directory.
                links.reached(&at, 0)?;
                left.push(name);
                left.reverse();
                return Ok(Walked { at, name: None, missing: left });
            }
            Err(errno) => return Err(errno.into()),
        };
        let is_last = left.is_empty();
        let file_type = FileType::from_raw_mode(fstat(&found)?.st_mode);
        if file_type == FileType::Symlink && (!is_last || follows_last) {
            let target = links.follow(&found, &at, &name, left.len())?;
            if target.is_absolute() {
                at = Spot::root()?;
            }
            name_there = None;
            let before = left.len();
            push(&mut left, &target);
            if left.len() == before {
                links.reached(&at, before)?;
            }
            continue;
        }
        let is_directory = file_type == FileType::Directory;
        let path = at.path.join(&name);
        if !is_last && !is_directory {
            left.reverse();
            return Ok(Walked { at: Spot { opened: found, path, is_directory }, name: None, missing: left });
        }
        if is_last {
            name_there = Some((readable(at.opened), name));
        }
        at = Spot { opened: found, path, is_directory };
        links.reached(&at, left.len())?;
    }
    Ok(Walked { at, name: name_there, missing: Vec::new() })
}

/// Adds the names of a path, the first one on top.
fn push(left: &mut Vec<OsString>, path: &Path) {
    let names = path.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    left.extend(names);
}

fn is_directory() -> io::Error {
    io::Error::new(io::ErrorKind::IsADirectory, "it is a directory")
}
