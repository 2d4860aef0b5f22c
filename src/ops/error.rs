//! Why an operation failed, and the effect on the runner.

use std::error::Error as StdError;
use std::fmt;

use crate::gitlab::{self, AnswerText, Disposition, ErrorClass, Reason};
use crate::lifecycle::{Outcome, Settling, Trouble};
use crate::model::{RunnerId, ServerUrl, ShareName, Timestamp};
use crate::secret::{Fingerprint, SourceError, WrongTokenClass};
use crate::sharing;
use crate::store::{self, ComposeError, EntryProblem};

/// What to do about a value in the store that is of another runner or server.
pub const OTHER_SHARE_REMEDY: &str =
    "use another name in `share_as`, or remove the one in the store with `runner-agent shared forget`";

/// A failed call to a server.
#[derive(Debug)]
pub struct Failure {
    /// Whether the server may have executed the request, and what can be done next.
    pub disposition: Disposition,
    /// The kind of failure.
    pub class: ErrorClass,
    /// Whether the answer, if one came, is one of GitLab's for this call.
    pub is_understood: bool,
    /// Whether GitLab's application may have seen the request.
    pub may_have_reached: bool,
    /// A verdict in unknown words, to compare with other answers of the same server, and what it means if it is genuine.
    pub unproven: Option<Box<(AnswerText, Disposition)>>,
    /// Server time, if the server answered.
    pub date: Option<Timestamp>,
    /// The remedy, for the user.
    pub hint: Option<String>,
    /// The underlying error, with its causes.
    pub error: Box<dyn StdError + Send + Sync>,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(formatter)
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

impl From<gitlab::Error> for Failure {
    fn from(error: gitlab::Error) -> Self {
        Self {
            disposition: error.disposition(),
            class: error.class(),
            is_understood: error.is_understood(),
            may_have_reached: error.may_have_reached_rails(),
            unproven: error.unproven().map(|text| Box::new((text, error.disposition_if_proven()))),
            date: error.date(),
            hint: error.hint().map(str::to_owned),
            error: Box::new(error),
        }
    }
}

#[cfg(test)]
impl Failure {
    /// A failure of which only the disposition counts.
    pub(crate) fn of(disposition: Disposition, text: &'static str) -> Self {
        Self {
            disposition,
            class: ErrorClass::Unreachable,
            is_understood: true,
            may_have_reached: true,
            unproven: None,
            date: None,
            hint: None,
            error: text.into(),
        }
    }
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A verification was not answered with an acceptance; the server changed nothing.
    #[error(transparent)]
    Asking(Failure),
    /// A registration failed.
    #[error(transparent)]
    Registering(Failure),
    /// A registration was not sent, because what answers there is not a GitLab at present.
    #[error(transparent)]
    Probing(Failure),
    /// The answer to a registration or reset has a token in it but is not GitLab's, and the token is not accepted yet.
    #[error(
        "the answer for runner `{runner}` is not one of GitLab's ({oddity}): the token in it is kept and verified again"
    )]
    Unproven {
        /// The runner's name or key.
        runner: String,
        /// What is odd about it.
        oddity: &'static str,
        /// Server time of the answer, or of the refusal of its token.
        date: Option<Timestamp>,
    },
    /// A token from an odd answer is not accepted yet, and without a state directory there is no place for it.
    #[error(
        "the token {token} from an odd answer for runner `{runner}` is not accepted yet, and without a state directory there is no place for it: it is lost once the process ends"
    )]
    Unstored {
        /// The runner's name or key.
        runner: String,
        /// Fingerprint of the token.
        token: Fingerprint,
    },
    /// A registration was not sent, because a token from an earlier odd answer may be good.
    #[error(
        "runner `{runner}` is not registered again while a token from an earlier answer may be good: it is verified first"
    )]
    AwaitsToken {
        /// The runner's name or key.
        runner: String,
        /// Server time of a refusal of that token.
        date: Option<Timestamp>,
    },
    /// A registration was not sent, because the answer to an earlier one was lost.
    #[error(
        "the answer to a registration of `{runner}` was lost at {at}, and GitLab may have made a runner then: no other one is registered"
    )]
    RegistrationLost {
        /// The runner's name.
        runner: String,
        /// Estimated server time of the lost one.
        at: Timestamp,
    },
    /// A deletion was not confirmed.
    #[error("{failure}")]
    Deleting {
        /// The failed call.
        failure: Failure,
        /// How to find out what became of it.
        settling: Settling,
    },
    /// The token that was refused is no longer the one in record and entry.
    #[error("the token of runner `{0}` was replaced meanwhile: its entry stays")]
    Replaced(String),
    /// Another process has unregistered the runner.
    #[error("another process has unregistered runner `{0}`")]
    UnregisteredElsewhere(String),
    /// Another process has unregistered the runner, and could not remove its entry: that comes first.
    #[error("another process has unregistered runner `{0}`, and has left its entry")]
    Unfinished(String),
    /// A reset or a deletion failed.
    #[error(transparent)]
    Changing(Failure),
    /// The disk failed; no token was spent.
    #[error(transparent)]
    Disk(#[from] store::Error),
    /// The secret that the runner is registered with is unavailable.
    #[error(transparent)]
    Secret(#[from] SourceError),
    /// The entry cannot be composed from the template.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// The entry in config.toml is unusable.
    #[error("the entry of runner `{runner}` is unusable: {problem}")]
    Entry {
        /// The runner's name or key.
        runner: String,
        /// Why it is unusable.
        problem: EntryProblem,
    },
    /// The entry takes its token from an environment variable, which a rotation cannot update.
    #[error("runner `{runner}` takes its token from the variable `{variable}`, which a rotation cannot update")]
    VariableToken {
        /// The runner's name or key.
        runner: String,
        /// The variable's name.
        variable: String,
    },
    /// config.toml writes `runners` as one array, so an entry cannot be added.
    #[error("config.toml writes `runners` as one array, so an entry cannot be added: write each runner as [[runners]]")]
    NoRoom,
    /// The record with this key is of a runner on another server.
    #[error("the record of runner `{runner}` belongs to {recorded}: give the enrollment another key")]
    OtherServer {
        /// The runner's name or key.
        runner: String,
        /// The server it belongs to.
        recorded: ServerUrl,
    },
    /// The runner was registered through the API v1 of 2016, which lacks the call.
    #[error("runner `{0}` was registered through the API v1, which supports neither verification nor rotation")]
    FirstApi(String),
    /// Its token is not a runner's, and is not sent.
    #[error("the token {token} of runner `{runner}` in config.toml is of another kind, and is not sent: {wrong}")]
    WrongToken {
        /// The runner's name or key.
        runner: String,
        /// Fingerprint of the token.
        token: Fingerprint,
        /// What it is, what is needed, and where it belongs.
        wrong: WrongTokenClass,
    },
    /// An id in config.toml is only a claim, and nothing is done by it with an access token.
    #[error("the server has not confirmed the id of runner `{0}`, which config.toml claims")]
    UnconfirmedId(String),
    /// The entry claims another id than that of the runner whose token it holds.
    #[error("the entry of runner `{runner}` has the id {claimed}, but its token is that of runner {actual}")]
    OtherRunner {
        /// The runner's name or key.
        runner: String,
        /// The id in the entry.
        claimed: RunnerId,
        /// The id that the server names for the token.
        actual: RunnerId,
    },
    /// Its token is dead, and another token of it was neither accepted nor refused.
    #[error("runner `{0}`: its token is refused, and the server has not answered about another token of it yet")]
    Unjudged(String),
    /// Nothing is registered into an entry with an unknown token: the new one could not be written over it.
    #[error("the entry of runner `{0}` holds a token that the agent does not know, and which may be good")]
    EntryDisputed(String),
    /// A reset was not sent: the same runner at another address has got a new token just now.
    #[error(
        "the runner at another address that had the token of runner `{0}` has got a new one just now, and a server that has not noticed accepts the old one for a while"
    )]
    TwinMoved(String),
    /// A reset was not sent: that by another record of the runner got an answer that is not GitLab's.
    #[error("the answer to a reset of runner `{0}` under another record is unclear: its token is verified first")]
    UnclearElsewhere(String),
    /// The process stops, and begins nothing whose answer it might not live to see.
    #[error("not sent, because the agent is stopping")]
    Stopping,
    /// A reset was not sent: without a state directory, the entry is the only place for a new token.
    #[error("runner `{0}` has no entry in config.toml, the only place for a new token without a state directory")]
    NoEntry(String),
    /// The runner is shared with other machines, and there is no `[sharing]` in the settings.
    #[error(
        "runner `{0}` is shared with other machines, and the settings do not say so: [sharing] or its `share_as` is missing"
    )]
    NoStore(String),
    /// The store of a shared runner cannot be used.
    #[error("shared runner `{runner}`: {error}")]
    Sharing {
        /// The runner's name or key.
        runner: String,
        /// What went wrong.
        error: sharing::Error,
    },
    /// The store has another runner under the name.
    #[error(
        "the store has the runner {} of {url} under the name `{name}`, which is not runner `{runner}`: its token is not used, and nothing is overwritten",
        id.map_or_else(|| "without an id".to_owned(), |id| id.number().to_string())
    )]
    OtherShare {
        /// The runner's name or key.
        runner: String,
        /// The name in the store.
        name: ShareName,
        /// The store's server.
        url: ServerUrl,
        /// The store's id.
        id: Option<RunnerId>,
    },
    /// The token of a shared runner was recovered often enough by its id.
    #[error(
        "the token of shared runner `{0}` was recovered by its id twice within a day: something else resets it, and nothing is reset any more"
    )]
    RecoveredOften(String),
    /// No known token of a shared runner is accepted, and its store does not show why: nothing is reset by its id.
    #[error(
        "shared runner `{runner}`: the server accepts none of its tokens, and the store does not show why, so its token is not reset by its id; {}",
        strangers_text(strangers)
    )]
    NoReason {
        /// The runner.
        runner: String,
        /// The system ids of the managers in GitLab that are no members, if GitLab lists them.
        strangers: Vec<String>,
    },
    /// Another machine changes the shared runner, or its token in the store is compared with ours first.
    #[error("shared runner `{0}`: another machine is at work on it")]
    SharedElsewhere(String),
    /// A shared runner is registered by one machine, once.
    #[error("runner `{0}` is shared with other machines, and is not registered anew")]
    NotRegisteredAnew(String),
    /// The record has no token.
    #[error("runner `{0}` has no token")]
    NoToken(String),
}

/// How many strangers a message names.
const NAMED_STRANGERS: usize = 5;

fn strangers_text(strangers: &[String]) -> String {
    let named = strangers.iter().take(NAMED_STRANGERS).cloned().collect::<Vec<_>>().join(", ");
    match strangers.len() {
        0 => "another store or a machine without it may have reset it".to_owned(),
        1 => format!("GitLab lists a manager that is no member here and may have reset it: {named}"),
        count if count <= NAMED_STRANGERS => {
            format!("GitLab lists {count} managers that are no members here, one of which may have reset it: {named}")
        }
        count => format!(
            "GitLab lists {count} managers that are no members here, one of which may have reset it: {named} and others"
        ),
    }
}

impl Error {
    /// The effect on the runner's state.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Asking(failure) => match failure.disposition {
                Disposition::NotExecuted { retry_after } | Disposition::Unknown { retry_after }
                    if !failure.is_understood =>
                {
                    Outcome::NotUnderstood { retry_after }
                }
                Disposition::NotExecuted { retry_after } | Disposition::Unknown { retry_after } => {
                    Outcome::Deferred { retry_after }
                }
                Disposition::Refused => Outcome::Refused,
                Disposition::Gone | Disposition::RotationClosed | Disposition::Unsupported => {
                    Outcome::Claimed(Trouble::Unsupported)
                }
                Disposition::MustAct(reason) => Outcome::Claimed(trouble(reason)),
            },
            Self::Registering(failure) => match failure.disposition {
                Disposition::NotExecuted { retry_after } => Outcome::Deferred { retry_after },
                Disposition::Unknown { retry_after } => Outcome::Lost { retry_after },
                Disposition::Refused => Outcome::Declined(Trouble::RegistrationRefused),
                Disposition::Gone | Disposition::RotationClosed | Disposition::Unsupported => {
                    Outcome::Declined(Trouble::Unsupported)
                }
                Disposition::MustAct(reason) => Outcome::Declined(trouble(reason)),
            },
            Self::Probing(failure) => match failure.disposition {
                Disposition::NotExecuted { retry_after } | Disposition::Unknown { retry_after } => {
                    Outcome::Deferred { retry_after }
                }
                _ => Outcome::Deferred { retry_after: None },
            },
            Self::Unproven { .. } | Self::RegistrationLost { .. } => Outcome::Lost { retry_after: None },
            Self::AwaitsToken { .. } | Self::Unstored { .. } => Outcome::Deferred { retry_after: None },
            Self::EntryDisputed(_) => Outcome::Contested,
            Self::Deleting { settling, .. } => Outcome::NotUnregistered(*settling),
            Self::UnregisteredElsewhere(_) => Outcome::Released,
            Self::Replaced(_) => Outcome::Nudged,
            Self::Unfinished(_) | Self::UnclearElsewhere(_) => Outcome::ResetDeferred { retry_after: None },
            Self::Changing(failure) => match failure.disposition {
                Disposition::NotExecuted { retry_after } => Outcome::ResetDeferred { retry_after },
                Disposition::Unknown { retry_after } => Outcome::Lost { retry_after },
                Disposition::Refused => Outcome::ResetRefused,
                Disposition::Gone => Outcome::Removed,
                Disposition::RotationClosed | Disposition::Unsupported => Outcome::RotationClosed,
                Disposition::MustAct(reason) => Outcome::Declined(trouble(reason)),
            },
            Self::TwinMoved(_) => Outcome::Doubtful,
            Self::FirstApi(_) => Outcome::MustAct(Trouble::Unsupported),
            // A token file may appear later; checking for it sends no request.
            Self::Disk(_) | Self::Secret(_) | Self::Stopping | Self::Unjudged(_) => {
                Outcome::Deferred { retry_after: None }
            }
            Self::NoEntry(_) => Outcome::NoEntry,
            // The store may answer, or a person may grant what is missing, at any time: no token is spent for another look.
            Self::Sharing { .. }
            | Self::SharedElsewhere(_)
            | Self::NoStore(_)
            | Self::OtherShare { .. }
            | Self::RecoveredOften(_)
            | Self::NoReason { .. }
            | Self::NotRegisteredAnew(_) => Outcome::Deferred { retry_after: None },
            Self::Compose(_)
            | Self::Entry { .. }
            | Self::VariableToken { .. }
            | Self::NoRoom
            | Self::OtherServer { .. }
            | Self::UnconfirmedId(_)
            | Self::OtherRunner { .. }
            | Self::WrongToken { .. }
            | Self::NoToken(_) => Outcome::MustAct(Trouble::LocalFile),
        }
    }

    /// The failed call, if a server was called.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        let (Self::Asking(failure)
        | Self::Registering(failure)
        | Self::Probing(failure)
        | Self::Deleting { failure, .. }
        | Self::Changing(failure)) = self
        else {
            return None;
        };
        Some(failure)
    }

    /// Gives a refusal of the runner's token a better hint than the general one, if there is one.
    pub fn explain_refusal(&mut self, hint: impl FnOnce() -> Option<String>) {
        let (Self::Asking(failure) | Self::Registering(failure) | Self::Changing(failure)) = self else { return };
        if failure.disposition == Disposition::Refused {
            failure.hint = hint().or(failure.hint.take());
        }
    }

    /// Whether the server refuses the runner's token.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.failure().is_some_and(|failure| failure.disposition == Disposition::Refused)
    }

    /// Server time, if the server answered.
    #[must_use]
    pub fn date(&self) -> Option<Timestamp> {
        match self {
            Self::Unproven { date, .. } | Self::AwaitsToken { date, .. } => *date,
            _ => self.failure()?.date,
        }
    }

    /// The remedy, unless the message already contains it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Disk(error) => return error.hint(),
            Self::Sharing { error, .. } => return error.hint(),
            Self::NoStore(_) => {
                return Some(
                    "add [sharing] with the engine and its address, and `share_as` to its [[enroll]], to agent.toml",
                );
            }
            Self::OtherShare { .. } => {
                return Some(OTHER_SHARE_REMEDY);
            }
            Self::RecoveredOften(_) => {
                return Some("find out what resets it, then `runner-agent shared heal` gives it a new token");
            }
            Self::NoReason { .. } => {
                return Some(
                    "find the other store or machine that resets it, and let it use this store; then `runner-agent shared heal` gives the runner a new token",
                );
            }
            Self::NotRegisteredAnew(_) => {
                return Some(
                    "`runner-agent shared heal` gives it a new token, and `shared forget` gives up the runner",
                );
            }
            Self::UnconfirmedId(_) => {
                return Some(
                    "check the `id` of its entry in GitLab, then say --force; the runner with that id gets a new token",
                );
            }
            Self::EntryDisputed(_) => {
                return Some(
                    "`verify` asks the server about it: once it is refused twice, a minute apart, it may be overwritten; or remove the token from the entry",
                );
            }
            Self::OtherRunner { .. } => {
                return Some("put the token of the runner with that id into the entry, or correct its `id`");
            }
            Self::WrongToken { .. } => return Some("put the runner's own token into its entry, or remove the entry"),
            Self::TwinMoved(_) => return Some("try again in ten minutes"),
            Self::RegistrationLost { .. } => {
                return Some(
                    "look in GitLab for a runner with this description that was never contacted, and delete it; then go on with --force, or reload the daemon",
                );
            }
            _ => {}
        }
        self.failure()?.hint.as_deref()
    }
}

fn trouble(reason: Reason) -> Trouble {
    match reason {
        Reason::Parameters => Trouble::InvalidRequest,
        Reason::RegistrationRefused => Trouble::RegistrationRefused,
        Reason::RegistrationDisabled => Trouble::RegistrationDisabled,
        Reason::AccessToken | Reason::AccessTokenRights => Trouble::AccessDenied,
        Reason::Orphaned => Trouble::Orphaned,
        Reason::Unassigned => Trouble::Unassigned,
    }
}
