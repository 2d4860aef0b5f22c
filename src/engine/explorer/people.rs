//! What people do, and how many of their mistakes come together.
//!
//! People work on a machine at any time and in any order: they enroll, verify, rotate, unregister, reset and delete
//! runners in GitLab, change the settings, stop and start. A few of their acts are *mistakes* about whose token or
//! whose entry is where: another runner's token in an entry, an entry that is gone, copied, or without its id or token,
//! an old config.toml, a second runner by force.
//!
//! Such mistakes come one at a time, as in the single-fault model of other protocols. After one, the next comes only
//! once things have settled: a daemon has run for [`SETTLING`], and in that time no other act came, GitLab answered
//! every request, and the disk took every write. Two mistakes at once can contradict each other without any trace of
//! which one was meant: if the token of runner 1 is put into the entry of runner 2, and that entry is then replaced by an
//! old copy, no program can know whether the person has corrected the mistake or made a second one.
//!
//! Faults of GitLab, of gateways, of the machine, of the disk and of clocks are not restricted: any number of them comes
//! before, during and after a mistake. `EXPLORER_MISTAKES=together` lifts the restriction.
//!
//! Settings with two enrollments of one name at one server are refused, so they come with the lifted restriction only.

use super::act::Act;
use super::play::{ENROLLED, Setup};
use super::world::State;

/// How many mistakes of people come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mistakes {
    /// The next one comes once things have settled.
    OneByOne,
    /// Any number.
    Together,
}

/// The time in milliseconds in which a daemon notices a mistake and settles what it can: the confirmation of a refusal
/// and its repetitions after a failure take less.
const SETTLING: i64 = 900_000;

/// The mistakes of one run so far.
pub(super) struct People {
    mistakes: Mistakes,
    has_erred: bool,
}

impl People {
    pub(super) fn new(setup: &Setup) -> Self {
        Self { mistakes: setup.mistakes, has_erred: false }
    }

    /// Whether people do this now. Every act passes here, so that a list that is shrunk stays within the model too.
    pub(super) fn may_do(&mut self, act: &Act, state: &State) -> bool {
        match self.mistakes {
            Mistakes::Together => true,
            Mistakes::OneByOne if is_mistake(act) => !std::mem::replace(&mut self.has_erred, true),
            Mistakes::OneByOne => !is_refused(act, state),
        }
    }

    /// A daemon has run since this time, in which no act came.
    pub(super) fn have_waited(&mut self, since: i64, state: &State) {
        if state.now() - since >= SETTLING && state.is_undisturbed(since) {
            self.has_erred = false;
        }
    }
}

/// Whether an act is a mistake about whose token or whose entry is where.
fn is_mistake(act: &Act) -> bool {
    matches!(
        act,
        Act::RestoreConfig
            | Act::DeleteEntry(_)
            | Act::SwapToken(..)
            | Act::DuplicateEntry(_)
            | Act::RemoveId(_)
            | Act::BlankToken(_)
            | Act::RegisterForce(_)
    )
}

/// Whether the settings are refused that would follow: the ones before stay in force.
fn is_refused(act: &Act, state: &State) -> bool {
    let Act::Enroll(index) = act else { return false };
    let index = usize::from(*index) % ENROLLED.len();
    let is_same = |key: &str| if index == 3 { key == "other" } else { key != "other" };
    let mut others = state.config.enrollments.iter().filter(|other| !is_same(other.key.as_str()));
    others.any(|other| other.entry.name == ENROLLED[index])
}
