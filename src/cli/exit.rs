//! The exit codes, a stable interface for scripts.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed in a way that no other code names.
    Failed = 1,
    /// Wrong usage, or an ambiguous selection.
    Usage = 2,
    /// Refused by the server.
    Refused = 3,
    /// A local file is unusable or locked.
    LocalFile = 4,
    /// The server is unreachable, busy, or not a GitLab API.
    Unreachable = 5,
    /// Some runners succeeded and some failed.
    Partial = 6,
}

impl Exit {
    /// Combines the results of several runners: [`Exit::Done`] if all succeeded, [`Exit::Partial`] if some did,
    /// otherwise the first failure.
    #[must_use]
    pub fn of_all(exits: &[Self]) -> Self {
        let is_done = |exit: &&Self| **exit == Self::Done;
        match exits.iter().find(|exit| !is_done(exit)) {
            None => Self::Done,
            Some(_) if exits.iter().any(|exit| is_done(&exit)) => Self::Partial,
            Some(failure) => *failure,
        }
    }
}

impl Exit {
    /// What the code means.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Usage => "wrong usage or settings that are missing",
            Self::Refused => "the server refuses it",
            Self::LocalFile => "a local file or setting cannot be used, or is locked",
            Self::Unreachable => "the server is unreachable, busy, or not GitLab",
            Self::Partial => "some runners failed",
        }
    }

    /// The name by which systemd shows the code, if it means something else there.
    ///
    /// Source: systemd.exec(5), the exit codes of the LSB.
    #[must_use]
    pub fn misleading_name(self) -> Option<&'static str> {
        match self {
            Self::Done | Self::Failed => None,
            Self::Usage => Some("INVALIDARGUMENT"),
            Self::Refused => Some("NOTIMPLEMENTED"),
            Self::LocalFile => Some("NOPERMISSION"),
            Self::Unreachable => Some("NOTINSTALLED"),
            Self::Partial => Some("NOTCONFIGURED"),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_have_the_documented_numbers() {
        let table = [
            (Exit::Done, 0),
            (Exit::Failed, 1),
            (Exit::Usage, 2),
            (Exit::Refused, 3),
            (Exit::LocalFile, 4),
            (Exit::Unreachable, 5),
            (Exit::Partial, 6),
        ];
        for (exit, number) in table {
            assert_eq!(exit as u8, number);
        }
    }

    #[test]
    fn results_of_several_runners_combine() {
        assert_eq!(Exit::of_all(&[]), Exit::Done);
        assert_eq!(Exit::of_all(&[Exit::Done, Exit::Done]), Exit::Done);
        assert_eq!(Exit::of_all(&[Exit::Done, Exit::Refused]), Exit::Partial);
        assert_eq!(Exit::of_all(&[Exit::Refused, Exit::Unreachable]), Exit::Refused);
    }
}
