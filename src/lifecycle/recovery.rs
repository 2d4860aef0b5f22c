//! The recovery ladder: the steps allowed for a refused token.

use super::{Rejected, Rejection, Step};

/// The rungs available to one runner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Whether its token may be reset by its id: an access token for its server exists, the token is not shared with
    /// other machines, and it is not itself the result of such a reset.
    pub reset_by_id: bool,
    /// When it may be registered again; never for a given runner or one of the API v1.
    pub register: RegisterAgain,
}

/// When a runner with a refused token is registered again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RegisterAgain {
    /// Never.
    #[default]
    Never,
    /// If the token expired or the new one was lost; both are unintended.
    Expired,
    /// For any reason, including revocation.
    Always,
}

impl RegisterAgain {
    fn allows(self, rejection: Rejection) -> bool {
        match (self, rejection) {
            (Self::Never, _) | (Self::Expired, Rejection::Refused) => false,
            (Self::Always, _) | (Self::Expired, Rejection::Expired | Rejection::Lost) => true,
        }
    }
}

impl Recovery {
    /// The next rung for a rejected runner; `None` at the top of the ladder.
    pub(super) fn next_rung(self, state: &Rejected) -> Option<Step> {
        if state.rungs.is_removed {
            return None;
        }
        if self.reset_by_id && !state.rungs.reset_failed {
            return Some(Step::ResetById);
        }
        let rungs = state.rungs;
        let may_register = self.register.allows(state.rejection) && !rungs.register_failed && !rungs.register_lost;
        may_register.then_some(Step::RegisterAgain)
    }
}
