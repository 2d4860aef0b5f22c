//! The calls of the API that this client makes.

use std::fmt;

use reqwest::Method;

/// One call of the Runners API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `POST /runners`: make a runner with a registration token.
    Register,
    /// `POST /runners/verify`: ask whether a runner's token is good, and until when.
    Verify,
    /// `DELETE /runners`: delete a runner with all its managers.
    DeleteRunner,
    /// `DELETE /runners/managers`: delete one machine's manager of a runner.
    DeleteManager,
    /// `POST /runners/reset_authentication_token`: rotate by the current token.
    Reset,
    /// `POST /runners/:id/reset_authentication_token`: rotate by an access token.
    ResetById,
}

impl Endpoint {
    /// Every call there is.
    pub const ALL: [Self; 6] =
        [Self::Register, Self::Verify, Self::DeleteRunner, Self::DeleteManager, Self::Reset, Self::ResetById];

    /// A stable word for logs and metric labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Verify => "verify",
            Self::DeleteRunner => "delete_runner",
            Self::DeleteManager => "delete_manager",
            Self::Reset => "reset",
            Self::ResetById => "reset_by_id",
        }
    }

    /// What the call does, as the act in "cannot …".
    #[must_use]
    pub fn act(self) -> &'static str {
        match self {
            Self::Register => "register a runner",
            Self::Verify => "verify the runner",
            Self::DeleteRunner => "delete the runner",
            Self::DeleteManager => "delete the runner's manager",
            Self::Reset => "rotate the runner's token",
            Self::ResetById => "rotate the runner's token by its id",
        }
    }

    pub(super) fn method(self) -> Method {
        match self {
            Self::Register | Self::Verify | Self::Reset | Self::ResetById => Method::POST,
            Self::DeleteRunner | Self::DeleteManager => Method::DELETE,
        }
    }

    /// Whether repeating the call can do harm or means something else than the first time, so that it
    /// never goes over a connection that the server may be closing.
    pub(super) fn changes_something(self) -> bool {
        match self {
            Self::Verify => false,
            Self::Register | Self::DeleteRunner | Self::DeleteManager | Self::Reset | Self::ResetById => true,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.act())
    }
}
