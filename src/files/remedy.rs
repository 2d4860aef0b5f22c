//! What a person can do about a file that cannot be used: whose it is, what hides it, what is full.
//!
//! Every error of a file that a message shows passes [`explain`], so that the same failure has the same remedy
//! everywhere.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;

use super::look;
use crate::host::Identity;

/// The directories that `ProtectHome=` of a unit hides.
///
/// Source: systemd.exec(5).
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

/// The directories that `PrivateTmp=` of a unit replaces.
///
/// Source: systemd.exec(5).
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// What a file is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileUse {
    /// A token or another secret is read from it.
    Secret,
    /// It is read.
    Read,
    /// It is written, created, renamed or removed.
    Write,
}

/// Adds the remedy to the error of a system call on a path, if one is known. The kind stays; an error that has words of its
/// own stays as it is.
#[must_use]
pub fn explain(path: &Path, usage: FileUse, error: io::Error) -> io::Error {
    let Some(errno) = Errno::from_io_error(&error) else { return error };
    let identity = Identity::of_process();
    let remedy = cause(path, usage, errno, &identity).and_then(|cause| cause.remedy(path, usage, &identity));
    match remedy {
        Some(remedy) => io::Error::new(error.kind(), Explained { error, remedy }),
        None => error,
    }
}

/// Where a file that this process can read, and that all users can read as well, gets a mode for this process alone.
#[must_use]
pub fn how_to_hide(path: &Path, user: u32, group: u32, mode: u32) -> String {
    let identity = Identity::of_process();
    Holder { path: path.to_owned(), user, group, mode, is_directory: false }.how_to_hide(&identity)
}

/// An error of the system with its remedy.
#[derive(Debug)]
struct Explained {
    error: io::Error,
    remedy: String,
}

impl fmt::Display for Explained {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.error, self.remedy)
    }
}

impl std::error::Error for Explained {}

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cause {
    /// The sandbox of a unit hides a directory.
    Hidden {
        /// The directory.
        directory: &'static str,
        /// The setting of the unit.
        setting: &'static str,
    },
    /// The mode of a file or directory does not allow it.
    Denied(Holder),
    /// The mode allows it, and something else does not.
    DeniedElsewhere,
    /// The file system, or its mount, is read-only.
    ReadOnly,
    /// The file system is full.
    Full,
    /// The user's quota is used up.
    Quota,
}

/// A file or directory that keeps a process from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    path: PathBuf,
    user: u32,
    group: u32,
    mode: u32,
    is_directory: bool,
}

fn cause(path: &Path, usage: FileUse, errno: Errno, identity: &Identity) -> Option<Cause> {
    match errno {
        Errno::ACCESS => Some(hidden(path, identity).unwrap_or_else(|| denied(path, usage))),
        Errno::NOENT if usage != FileUse::Write => hidden(path, identity),
        Errno::ROFS => Some(hidden(path, identity).unwrap_or(Cause::ReadOnly)),
        Errno::NOSPC => Some(Cause::Full),
        Errno::DQUOT => Some(Cause::Quota),
        _ => None,
    }
}

/// The sandbox covers the directories of homes by one without any permission, or by an empty file system, and the
/// temporary directories by others.
fn hidden(path: &Path, identity: &Identity) -> Option<Cause> {
    let below = |directory: &&&str| path.starts_with(directory);
    if let Some(directory) = HOMES.iter().find(below) {
        let is_closed = look(Path::new(directory)).is_ok_and(|found| found.mode() & 0o777 == 0);
        let is_hidden = is_mount_point(directory) && (is_closed || identity.unit.is_some());
        return is_hidden.then_some(Cause::Hidden { directory, setting: "ProtectHome=" });
    }
    let directory = TEMPORARY.iter().find(below)?;
    (identity.unit.is_some() && is_mount_point(directory))
        .then_some(Cause::Hidden { directory, setting: "PrivateTmp=" })
}

fn is_mount_point(directory: &str) -> bool {
    statx(CWD, directory, AtFlags::empty(), StatxFlags::BASIC_STATS)
        .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Finds what refuses: a directory on the way that cannot be searched, the file, or for a new file its directory.
fn denied(path: &Path, usage: FileUse) -> Cause {
    let mut way: Vec<_> = path.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
    way.reverse();
    let is_refused = |path: &&Path| look(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    let closed = way.iter().position(is_refused).and_then(|at| way.get(at.checked_sub(1)?));
    let directory = path.parent().unwrap_or(Path::new("/"));
    let candidates = match (closed, usage) {
        (Some(closed), _) => vec![*closed],
        (None, FileUse::Secret | FileUse::Read) => vec![path],
        (None, FileUse::Write) => vec![path, directory],
    };
    let refuses = |path: &&Path| {
        let wanted = match usage {
            _ if closed.is_some() => rustix::fs::Access::EXEC_OK,
            FileUse::Secret | FileUse::Read => rustix::fs::Access::READ_OK,
            FileUse::Write => rustix::fs::Access::WRITE_OK,
        };
        rustix::fs::accessat(CWD, *path, wanted, AtFlags::EACCESS) == Err(Errno::ACCESS)
    };
    let holder = candidates.into_iter().find(refuses).and_then(|path| {
        let found = look(path).ok()?;
        let (user, group, mode) = (found.uid(), found.gid(), found.mode() & 0o7777);
        Some(Holder { path: path.to_owned(), user, group, mode, is_directory: found.is_dir() })
    });
    holder.map_or(Cause::DeniedElsewhere, Cause::Denied)
}

impl Cause {
    fn remedy(&self, path: &Path, usage: FileUse, identity: &Identity) -> Option<String> {
        let shown = path.display();
        let unit = identity.unit.as_deref().unwrap_or("the unit");
        let edit = identity.unit.as_ref().map_or_else(String::new, |unit| format!(" (`systemctl edit {unit}`)"));
        let directory = path.parent().unwrap_or(Path::new("/")).display();
        Some(match self {
            Self::Hidden { directory, setting } => {
                let hides = format!("the sandbox of {unit} hides {directory} ({setting})");
                if usage == FileUse::Secret {
                    format!(
                        "{hides}: pass the file with `LoadCredential=NAME:{shown}` in a drop-in{edit} and name it `{{ credential = \"NAME\" }}`, or move it to /etc/runner-agent"
                    )
                } else {
                    format!("{hides}: move the file, for example to /etc, or change {setting} in a drop-in{edit}")
                }
            }
            Self::Denied(holder) => return holder.remedy(usage, identity),
            Self::DeniedElsewhere if identity.is_container => {
                "its mode allows it, so SELinux or AppArmor may not: mount it with `:Z`".to_owned()
            }
            Self::DeniedElsewhere => return None,
            Self::ReadOnly if identity.is_container => format!(
                "it is read-only in this container: mount `{directory}` as a writable volume, without `:ro` (`readOnly: true`)"
            ),
            Self::ReadOnly if identity.unit.is_some() => format!(
                "the sandbox of {unit} makes it read-only, or the file system is: add `ReadWritePaths={directory}` in a drop-in{edit}"
            ),
            Self::ReadOnly => format!(
                "the file system is mounted read-only: see `findmnt --target {directory}`, and `dmesg` for errors of the disk"
            ),
            Self::Full => format!(
                "the file system is full: see `df -h {directory}` and `df -i {directory}`, and free space or enlarge it"
            ),
            Self::Quota => format!("the disk quota of user {} is used up: free space, or raise it", identity.user),
        })
    }
}

impl Holder {
    /// A process of root that is refused lacks a capability.
    fn remedy(&self, usage: FileUse, identity: &Identity) -> Option<String> {
        let Self { path, user, group, mode, .. } = self;
        let (path, own) = (path.display(), identity.user);
        let belongs = format!("`{path}` belongs to user {user} (mode {mode:04o})");
        let is_write = usage == FileUse::Write;
        Some(if *user == own {
            let right = match (self.is_directory, is_write) {
                (true, true) => "u+rwx",
                (true, false) => "u+rx",
                (false, true) => "u+rw",
                (false, false) => "u+r",
            };
            format!(
                "the mode {mode:04o} of `{path}` refuses its owner, who is this process's user: run `chmod {right} {path}`"
            )
        } else if own == 0 {
            if usage != FileUse::Secret {
                // The store says which capability.
                return None;
            }
            format!(
                "{belongs}, and this process is root without the right to read the files of others: run `chown root {path}`, or pass the file with `LoadCredential=`"
            )
        } else if identity.is_container {
            let process = format!("this process is user {own}");
            if is_write {
                let group = identity.groups.first().unwrap_or(&own);
                format!(
                    "{belongs}, and {process}: run `chown {own}:{group} {path}` where it is mounted from, mount it with `:U` (podman), or start the container with `--user {user}`"
                )
            } else {
                format!("{belongs}, and {process}: {} where it is mounted from", self.how_to_open(identity))
            }
        } else if *user == 0 && identity.unit.is_none() {
            format!("{belongs}, and this process is user {own}: run the command as root, by `sudo`")
        } else {
            let open = if is_write { format!("run `chown {own} {path}`") } else { self.how_to_open(identity) };
            format!("{belongs} and group {group}, and this process is user {own}: {open}")
        })
    }

    /// How this process gets to read it.
    fn how_to_open(&self, identity: &Identity) -> String {
        let (path, own) = (self.path.display(), identity.user);
        let (by_group, by_owner) = if self.is_directory { ("0750", "0700") } else { ("0440", "0400") };
        if identity.groups.contains(&self.group) {
            return format!("run `chmod {by_group} {path}`, which lets its group {} read it", self.group);
        }
        let owner = format!("run `chown {own} {path}` and `chmod {by_owner} {path}`");
        match identity.groups.first() {
            Some(group) => format!("{owner}, or `chgrp {group} {path}` and `chmod {by_group} {path}`,"),
            None => owner,
        }
    }

    /// How all other users are kept from reading it, while this process is not.
    fn how_to_hide(&self, identity: &Identity) -> String {
        let is_readable = identity.user == self.user && self.mode & 0o400 != 0
            || identity.user != self.user && identity.groups.contains(&self.group) && self.mode & 0o040 != 0;
        let path = self.path.display();
        if is_readable || identity.user == 0 && self.user == 0 {
            format!("run `chmod o-r {path}`")
        } else {
            let open = self.how_to_open(identity);
            let open = open.trim_end_matches(',');
            format!("it belongs to user {}, and this process is user {}: {open}", self.user, identity.user)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(user: u32, is_container: bool, unit: Option<&str>) -> Identity {
        Identity { user, groups: vec![0], is_container, unit: unit.map(str::to_owned) }
    }

    fn holder(user: u32, group: u32, mode: u32, is_directory: bool) -> Holder {
        Holder { path: "/data/file".into(), user, group, mode, is_directory }
    }

    #[test]
    fn each_cause_has_a_remedy_that_works_where_the_process_runs() {
        use FileUse::{Read, Secret, Write};
        let (unit, container) = (identity(0, false, Some("a.service")), identity(65534, true, None));
        let (user, root) = (identity(1000, false, None), identity(0, false, None));
        let hidden = |directory, setting| Cause::Hidden { directory, setting };
        let denied = |user, group, mode| Cause::Denied(holder(user, group, mode, false));
        let closed = |user, group, mode| Cause::Denied(holder(user, group, mode, true));
        for (cause, usage, identity, expected) in [
            (
                hidden("/home", "ProtectHome="),
                Secret,
                &unit,
                "`LoadCredential=NAME:/data/file` in a drop-in (`systemctl edit a.service`)",
            ),
            (
                hidden("/tmp", "PrivateTmp="),
                Read,
                &unit,
                "the sandbox of a.service hides /tmp (PrivateTmp=): move the file",
            ),
            (
                denied(1000, 1000, 0o600),
                Secret,
                &container,
                "run `chown 65534 /data/file` and `chmod 0400 /data/file`, or `chgrp 0 /data/file` and `chmod 0440 /data/file`, where it is mounted from",
            ),
            (
                denied(1000, 0, 0o600),
                Read,
                &container,
                "run `chmod 0440 /data/file`, which lets its group 0 read it where it is mounted from",
            ),
            (
                closed(1000, 1000, 0o755),
                Write,
                &container,
                "run `chown 65534:0 /data/file` where it is mounted from, mount it with `:U` (podman), or start the container with `--user 1000`",
            ),
            (denied(0, 0, 0o600), Secret, &user, "run the command as root, by `sudo`"),
            (
                denied(1001, 1001, 0o600),
                Secret,
                &unit,
                "run `chown root /data/file`, or pass the file with `LoadCredential=`",
            ),
            (denied(1001, 1001, 0o600), Write, &user, "run `chown 1000 /data/file`"),
            (denied(1000, 1000, 0o200), Secret, &user, "run `chmod u+r /data/file`"),
            (closed(1000, 1000, 0o500), Write, &user, "run `chmod u+rwx /data/file`"),
            (Cause::DeniedElsewhere, Read, &container, "mount it with `:Z`"),
            (Cause::ReadOnly, Write, &container, "mount `/data` as a writable volume"),
            (Cause::ReadOnly, Write, &unit, "add `ReadWritePaths=/data` in a drop-in"),
            (Cause::ReadOnly, Write, &root, "see `findmnt --target /data`"),
            (Cause::Full, Write, &root, "see `df -h /data`"),
            (Cause::Quota, Write, &user, "the disk quota of user 1000 is used up"),
        ] {
            let remedy = cause.remedy(Path::new("/data/file"), usage, identity).unwrap();
            assert!(remedy.contains(expected), "{cause:?}: {remedy}");
        }
        // The store names the capability.
        assert_eq!(denied(1001, 1001, 0o600).remedy(Path::new("/data/file"), Write, &root), None);
    }

    #[test]
    fn a_file_is_hidden_from_others_without_hiding_it_from_this_process() {
        for (user, group, mode, own, expected) in [
            (1000, 1000, 0o644, 1000, "run `chmod o-r /data/file`"),
            (1000, 0, 0o644, 65534, "run `chmod o-r /data/file`"),
            (1000, 0, 0o604, 65534, "run `chmod 0440 /data/file`"),
            (
                1000,
                1000,
                0o644,
                65534,
                "it belongs to user 1000, and this process is user 65534: run `chown 65534 /data/file`",
            ),
            (0, 0, 0o644, 0, "run `chmod o-r /data/file`"),
        ] {
            let remedy = holder(user, group, mode, false).how_to_hide(&identity(own, true, None));
            assert!(remedy.contains(expected), "{user}:{group} {mode:o} {own}: {remedy}");
        }
    }

    #[test]
    fn an_error_with_words_of_its_own_is_not_explained() {
        let refused = super::super::refused("another user's".to_owned());
        let explained = explain(Path::new("/data/file"), FileUse::Read, refused);
        assert_eq!(explained.to_string(), "another user's");
        let full = explain(Path::new("/data/file"), FileUse::Write, Errno::NOSPC.into());
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert!(full.to_string().starts_with("No space left on device"), "{full}");
    }
}
