//! The recovery ladder: what may be done about a token that is refused.

use super::{Rejected, Rejection, Step};

/// Which rungs there are for one runner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Whether its token may be reset by its number: there is an access token for its server, it is not
    /// shared with other machines, and its token did not come of such a reset itself.
    pub reset_by_id: bool,
    /// When it may be registered anew; never for a runner that no registration token can make.
    pub register: RegisterAgain,
}

/// When a runner whose token is refused is registered anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RegisterAgain {
    /// Never.
    #[default]
    Never,
    /// When it died of age, or a reset's answer was lost: nobody wanted it gone.
    Expired,
    /// Whatever it died of, revocation included.
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
    /// The next rung for a rejected runner; none at the top of the ladder.
    pub(super) fn next_rung(self, state: &Rejected) -> Option<Step> {
        if state.rungs.is_removed {
            return None;
        }
        if self.reset_by_id && !state.rungs.reset_failed {
            return Some(Step::ResetById);
        }
        let may_register = self.register.allows(state.rejection) && !state.rungs.register_failed;
        may_register.then_some(Step::RegisterAgain)
    }
}
