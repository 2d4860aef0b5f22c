//! The exit codes, which are part of what scripts rely on.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed in a way that none of the others names.
    Failed = 1,
    /// Wrong usage, or a selection that is ambiguous.
    Usage = 2,
    /// Refused by the server.
    Refused = 3,
    /// A local file is unusable or locked.
    LocalFile = 4,
    /// The server is unreachable, busy, or not a GitLab API.
    Unreachable = 5,
    /// Of several runners some are done and some failed.
    Partial = 6,
}

impl Exit {
    /// Brings the ends of several runners together: all alike, or else [`Exit::Partial`] where some are
    /// done, or else the first failure.
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

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_documented_ones() {
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
    fn several_ends_make_one() {
        assert_eq!(Exit::of_all(&[]), Exit::Done);
        assert_eq!(Exit::of_all(&[Exit::Done, Exit::Done]), Exit::Done);
        assert_eq!(Exit::of_all(&[Exit::Done, Exit::Refused]), Exit::Partial);
        assert_eq!(Exit::of_all(&[Exit::Refused, Exit::Unreachable]), Exit::Refused);
    }
}
