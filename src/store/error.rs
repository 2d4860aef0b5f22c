//! Errors of disk operations.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::files::{FileUse, explain};
use crate::host::Process;
use crate::model::RunnerKey;

const RUN_AS_OWNER: &str = "run as that user or as root, or change the file's owner";

const USE_SUDO: &str = "use sudo, or run as the user that the file belongs to";

const GIVE_CAPABILITIES: &str = "it is root without the capability for this, as in the sandbox of its service: give the file to root, or the service its group by `SupplementaryGroups=`, or another user's files by `CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER` in a drop-in";

/// The acts that write nothing.
const READING: [&str; 3] = ["read", "find", "open"];

/// An error of a disk operation; never contains a token or a file's content.
///
/// Cloneable: changes that share one replace of config.toml share its failure.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("cannot {act} `{}`", path.display())]
    Io {
        /// The attempted operation: `read`, `create`, `replace`.
        act: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// config.toml is not UTF-8.
    #[error("`{}` is not UTF-8 text: restore it, or save it as UTF-8", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// config.toml is not TOML.
    #[error("cannot understand `{}` at line {line}, column {column}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
        /// What the parser expected.
        message: String,
    },
    /// `runners` is not a list of tables.
    #[error("`runners` in line {line} of `{}` is not a list of tables: write each runner as [[runners]]", path.display())]
    RunnersShape {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// No entry belongs to the runner.
    #[error("no [[runners]] entry in `{}` belongs to {runner}", path.display())]
    NoSuchEntry {
        /// The file.
        path: PathBuf,
        /// The runner by id or fingerprint, and its server.
        runner: String,
    },
    /// The entry's token is an environment variable, which cannot be rewritten.
    #[error(
        "the entry in line {line} of `{}` takes its token from the variable `{variable}`, which cannot be rewritten: put the token itself there, or renew it where the variable is set",
        path.display()
    )]
    VariableToken {
        /// The file.
        path: PathBuf,
        /// Of the entry's header, counted from 1.
        line: usize,
        /// The variable's name.
        variable: String,
    },
    /// The entry holds a token that is not one of the runner's.
    #[error(
        "the entry in line {line} of `{}` holds an unknown token, which may be the only copy: it is not overwritten before the server has refused it twice",
        path.display()
    )]
    UnknownToken {
        /// The file.
        path: PathBuf,
        /// Of the entry's header, counted from 1.
        line: usize,
    },
    /// The file or its directory has the attribute `i` or `a`.
    #[error("`{}` or its directory has the attribute `i` or `a`, so it cannot be replaced: run `chattr -ia` on both", path.display())]
    Immutable {
        /// The file.
        path: PathBuf,
    },
    /// The replacement cannot have an extended attribute of the file.
    #[error("cannot keep the attribute `{name}` of `{}`: let this process set it, or remove it with `setfattr -x`", path.display())]
    Attribute {
        /// The file.
        path: PathBuf,
        /// As `getfattr` names it.
        name: String,
        /// Why.
        source: Arc<io::Error>,
    },
    /// An entry cannot be added to `runners = [...]`.
    #[error("`runners` in line {line} of `{}` is written as one array: write each runner as [[runners]]", path.display())]
    InlineRunners {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// The edit would change something else; nothing was written.
    #[error("cannot edit `{}` without changing something else in it: nothing was written, please report how the entry is written", path.display())]
    EditMismatch {
        /// The file.
        path: PathBuf,
    },
    /// Another process keeps changing config.toml.
    #[error("`{}` was changed {tries} times by another process during the update: try again", path.display())]
    ChangedMeanwhile {
        /// The file.
        path: PathBuf,
        /// The number of attempts.
        tries: u32,
    },
    /// The replacement cannot keep the owner.
    #[error("cannot keep the owner {uid}:{gid} of `{}`", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// The owner to keep.
        uid: u32,
        /// The group to keep.
        gid: u32,
    },
    /// A mount point can only be overwritten, which needs a copy in the state directory.
    #[error("`{}` is a mount point and can only be overwritten in place, which needs a state directory: give one, or mount its directory instead", path.display())]
    MountPoint {
        /// The file.
        path: PathBuf,
    },
    /// The copy to finish an interrupted write from is damaged.
    #[error("`{}` is damaged: compare it with config.toml, then remove it", path.display())]
    DamagedCopy {
        /// The copy.
        path: PathBuf,
    },
    /// Another daemon serves this config.toml.
    #[error(
        "another runner-agent{} serves this config.toml (`{}` is locked): {}",
        holder.as_ref().map_or_else(String::new, |holder| format!(" ({holder})")),
        path.display(),
        holder.as_ref().map_or_else(|| "`runner-agent status` shows what it does".to_owned(), Process::how_to_manage)
    )]
    InstanceLocked {
        /// The lock file.
        path: PathBuf,
        /// The holder, if known.
        holder: Option<Process>,
    },
    /// Another process works on this runner.
    #[error("another runner-agent{} works on runner `{key}`: try again when it is done", by(*holder))]
    RunnerLocked {
        /// The runner.
        key: RunnerKey,
        /// The process id of the holder, if known.
        holder: Option<u32>,
    },
    /// Another process holds the lock of config.toml, or of all state, for too long.
    #[error("another process{} holds `{}`: find it with `fuser -v`, and try again", by(*holder), path.display())]
    FileLocked {
        /// The lock file.
        path: PathBuf,
        /// The process id of the holder, if known.
        holder: Option<u32>,
    },
    /// The machine's system_id is invalid and must not be replaced silently.
    #[error("`{}` does not hold a system_id (`s_` or `r_` and twelve letters and digits): restore it, or remove it to become a new runner manager", path.display())]
    SystemId {
        /// `.runner_system_id`.
        path: PathBuf,
    },
    /// The file of the system_id is a link to a file that cannot be made; a system_id that is not kept would make a new
    /// runner manager at every start.
    #[error("`{}` links to `{}`, which does not exist and cannot be created safely: create its directory, or replace the link by a file", path.display(), target.display())]
    SystemIdLink {
        /// `.runner_system_id`.
        path: PathBuf,
        /// The file that it points to.
        target: PathBuf,
    },
    /// A runner's record is damaged.
    #[error("`{}` is not a record of this agent ({reason}): restore it, or remove it to forget what is known of the runner or access token", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// The reason, without the content.
        reason: String,
    },
    /// The file of a runner's former tokens is damaged; it may hold the only copy of one.
    #[error("`{}` is damaged ({reason}): restore it, or remove it to forget the former tokens of that runner", path.display())]
    Held {
        /// The file.
        path: PathBuf,
        /// The reason, without the content.
        reason: String,
    },
    /// Another runner has the record of this key.
    #[error("there is a record of another runner with the key `{key}`: unregister that runner, or use another key")]
    KeyTaken {
        /// The key.
        key: RunnerKey,
    },
    /// The journal contains an unsettled answer; overwriting it could lose a token.
    #[error("the last operation on runner `{key}` has an answer that is not settled yet")]
    Unsettled {
        /// The runner.
        key: RunnerKey,
    },
    /// The journal has no request for the answer.
    #[error("no operation on runner `{key}` is in the journal")]
    NotBegun {
        /// The runner.
        key: RunnerKey,
    },
    /// The disk thread has stopped.
    #[error("the disk thread has stopped")]
    Stopped,
}

/// Classifies an [`Error`] for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A file or directory is unusable; a retry may succeed.
    Unusable,
    /// Another process holds the lock.
    Locked,
    /// The runner has no entry in config.toml.
    NoSuchEntry,
    /// The entry's form does not allow the change.
    Refused,
}

impl Error {
    /// Classifies the failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InstanceLocked { .. } | Self::RunnerLocked { .. } | Self::FileLocked { .. } => ErrorKind::Locked,
            Self::NoSuchEntry { .. } => ErrorKind::NoSuchEntry,
            Self::VariableToken { .. }
            | Self::UnknownToken { .. }
            | Self::InlineRunners { .. }
            | Self::EditMismatch { .. } => ErrorKind::Refused,
            Self::Io { .. }
            | Self::NotText { .. }
            | Self::Syntax { .. }
            | Self::RunnersShape { .. }
            | Self::ChangedMeanwhile { .. }
            | Self::Owner { .. }
            | Self::Immutable { .. }
            | Self::Attribute { .. }
            | Self::MountPoint { .. }
            | Self::DamagedCopy { .. }
            | Self::SystemId { .. }
            | Self::SystemIdLink { .. }
            | Self::Record { .. }
            | Self::Held { .. }
            | Self::KeyTaken { .. }
            | Self::Unsettled { .. }
            | Self::NotBegun { .. }
            | Self::Stopped => ErrorKind::Unusable,
        }
    }

    /// A remedy, unless the message contains it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        self.hint_for(rustix::process::geteuid().is_root())
    }

    /// For root, a refusal means a missing capability.
    fn hint_for(&self, is_root: bool) -> Option<&'static str> {
        let is_owner = matches!(self, Self::Owner { .. });
        // One with words of its own has its remedy in them.
        let is_refused = matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied && source.get_ref().is_none());
        match (is_owner, is_refused) {
            (false, false) => None,
            _ if is_root => Some(GIVE_CAPABILITIES),
            (true, _) => Some(RUN_AS_OWNER),
            (false, true) => Some(USE_SUDO),
        }
    }

    /// Corrects the line of an error about an entry.
    pub(super) fn with_line(self, correct: impl FnOnce(usize) -> usize) -> Self {
        match self {
            Self::VariableToken { path, line, variable } => Self::VariableToken { path, line: correct(line), variable },
            Self::UnknownToken { path, line } => Self::UnknownToken { path, line: correct(line) },
            other => other,
        }
    }

    /// Wraps the error of a system call on a path, for `map_err`.
    pub(super) fn io(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        let usage = if READING.contains(&act) { FileUse::Read } else { FileUse::Write };
        move |error| {
            let source = Arc::new(explain(&path, usage, error));
            Self::Io { act, path, source }
        }
    }
}

fn by(holder: Option<u32>) -> String {
    holder.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_hints_at_rights_that_root_and_other_users_lack() {
        let disk = |kind: io::ErrorKind| Error::io("read", Path::new("/config.toml"))(kind.into());
        let owner = Error::Owner { path: "/config.toml".into(), uid: 0, gid: 999 };
        for (error, for_root, for_others) in [
            (disk(io::ErrorKind::PermissionDenied), Some(GIVE_CAPABILITIES), Some(USE_SUDO)),
            (disk(io::ErrorKind::StorageFull), None, None),
            (owner, Some(GIVE_CAPABILITIES), Some(RUN_AS_OWNER)),
        ] {
            assert_eq!((error.hint_for(true), error.hint_for(false)), (for_root, for_others), "{error}");
        }
    }
}
