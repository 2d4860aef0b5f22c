//! Why the disk did not do what was asked.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::RunnerKey;

const RUN_AS_OWNER: &str = "run as that user or as root, or change the file's owner";

const GIVE_CAPABILITIES: &str = "it is root without the capability for this, as in the sandbox of its service: give the file to root, or the service its group by `SupplementaryGroups=`, or another user's files by `CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER` in a drop-in";

/// Why the disk did not do what was asked; never contains a token or a file's content.
///
/// It can be cloned because changes that share one replace of config.toml share its failure.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The system refused; the source says why.
    #[error("cannot {act} `{}`", path.display())]
    Io {
        /// What was attempted: `read`, `create`, `replace`.
        act: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
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
    /// `runners` is something else than a list of tables.
    #[error("`runners` in line {line} of `{}` is not a list of tables: write each runner as [[runners]]", path.display())]
    RunnersShape {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// No entry belongs to the runner that was to be changed.
    #[error("no [[runners]] entry in `{}` belongs to {runner}", path.display())]
    NoSuchEntry {
        /// The file.
        path: PathBuf,
        /// The runner by id or fingerprint, and its server.
        runner: String,
    },
    /// The entry's token is an environment variable, which would go stale.
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
    /// A whole entry cannot be added to or taken from `runners = [...]`.
    #[error("`runners` in line {line} of `{}` is written as one array: write each runner as [[runners]]", path.display())]
    InlineRunners {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// The edited text would have changed more than it should; nothing was written.
    #[error("cannot edit `{}` without changing something else in it: nothing was written, please report how the entry is written", path.display())]
    EditMismatch {
        /// The file.
        path: PathBuf,
    },
    /// Somebody changes config.toml all the time.
    #[error("`{}` was changed by somebody else {tries} times while it was to be replaced", path.display())]
    ChangedMeanwhile {
        /// The file.
        path: PathBuf,
        /// How often it was tried.
        tries: u32,
    },
    /// The replacement would belong to somebody else.
    #[error("cannot keep the owner {uid}:{gid} of `{}`", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// The owner to keep.
        uid: u32,
        /// The group to keep.
        gid: u32,
    },
    /// A mount point cannot be replaced, only overwritten, which needs a copy in the state directory.
    #[error("`{}` is a mount point and can only be overwritten in place, which needs a state directory: give one, or mount its directory instead", path.display())]
    MountPoint {
        /// The file.
        path: PathBuf,
    },
    /// The complete copy that an interrupted write in place would be repaired from is damaged.
    #[error("`{}` is damaged: compare it with config.toml, then remove it", path.display())]
    DamagedCopy {
        /// The copy.
        path: PathBuf,
    },
    /// Another daemon serves this config.toml.
    #[error("another runner-agent{} serves this config.toml (`{}` is locked): stop it first", by(*holder), path.display())]
    InstanceLocked {
        /// The lock file.
        path: PathBuf,
        /// The process that holds it, as far as it said so.
        holder: Option<u32>,
    },
    /// Another process works on this runner.
    #[error("another runner-agent{} works on runner `{key}`: try again when it is done", by(*holder))]
    RunnerLocked {
        /// The runner.
        key: RunnerKey,
        /// The process that holds it, as far as it said so.
        holder: Option<u32>,
    },
    /// Another process replaces config.toml and does not come to an end.
    #[error("another process holds `{}`: look what it is with `fuser`, and try again", path.display())]
    FileLocked {
        /// The lock file.
        path: PathBuf,
    },
    /// The machine's identity is unusable and must not be replaced silently.
    #[error("`{}` does not hold a system_id (`s_` or `r_` and twelve letters and digits): restore it, or remove it to become a new runner manager", path.display())]
    SystemId {
        /// `.runner_system_id`.
        path: PathBuf,
    },
    /// A runner's record is unusable.
    #[error("`{}` is not a runner's record ({reason}): restore it, or remove it to forget what is known of that runner", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// What is wrong with it, without its content.
        reason: String,
    },
    /// The journal holds an answer that has not been settled; overwriting it could lose a token.
    #[error("the last operation on runner `{key}` has an answer that is not settled yet")]
    Unsettled {
        /// The runner.
        key: RunnerKey,
    },
    /// The journal was to take an answer to a request it does not know.
    #[error("no operation on runner `{key}` is in the journal")]
    NotBegun {
        /// The runner.
        key: RunnerKey,
    },
    /// The thread that does the disk work is gone.
    #[error("the disk work has ended")]
    Stopped,
}

/// What an [`Error`] means to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A file or directory cannot be used as it is; a later try may succeed.
    Unusable,
    /// Somebody else is at it.
    Locked,
    /// The runner has no entry in config.toml.
    NoSuchEntry,
    /// The entry is written in a way that this change cannot be made in.
    Refused,
}

impl Error {
    /// What the failure means to the caller.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InstanceLocked { .. } | Self::RunnerLocked { .. } | Self::FileLocked { .. } => ErrorKind::Locked,
            Self::NoSuchEntry { .. } => ErrorKind::NoSuchEntry,
            Self::VariableToken { .. } | Self::InlineRunners { .. } | Self::EditMismatch { .. } => ErrorKind::Refused,
            Self::Io { .. }
            | Self::NotText { .. }
            | Self::Syntax { .. }
            | Self::RunnersShape { .. }
            | Self::ChangedMeanwhile { .. }
            | Self::Owner { .. }
            | Self::MountPoint { .. }
            | Self::DamagedCopy { .. }
            | Self::SystemId { .. }
            | Self::Record { .. }
            | Self::Unsettled { .. }
            | Self::NotBegun { .. }
            | Self::Stopped => ErrorKind::Unusable,
        }
    }

    /// What the user can do about it, where the message does not say so already.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        self.hint_for(rustix::process::geteuid().is_root())
    }

    /// The same for root, who is refused only for want of a capability, or for another user.
    fn hint_for(&self, is_root: bool) -> Option<&'static str> {
        let is_owner = matches!(self, Self::Owner { .. });
        let is_refused = matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied);
        if is_root { (is_owner || is_refused).then_some(GIVE_CAPABILITIES) } else { is_owner.then_some(RUN_AS_OWNER) }
    }

    /// Makes the error of a system call on a path, to be used in `map_err`.
    pub(super) fn io(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { act, path, source: Arc::new(source) }
    }
}

fn by(holder: Option<u32>) -> String {
    holder.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_that_is_refused_is_told_of_capabilities() {
        let disk = |kind: io::ErrorKind| Error::io("read", Path::new("/config.toml"))(kind.into());
        let owner = Error::Owner { path: "/config.toml".into(), uid: 0, gid: 999 };
        for (error, for_root, for_others) in [
            (disk(io::ErrorKind::PermissionDenied), Some(GIVE_CAPABILITIES), None),
            (disk(io::ErrorKind::StorageFull), None, None),
            (owner, Some(GIVE_CAPABILITIES), Some(RUN_AS_OWNER)),
        ] {
            assert_eq!((error.hint_for(true), error.hint_for(false)), (for_root, for_others), "{error}");
        }
    }
}
