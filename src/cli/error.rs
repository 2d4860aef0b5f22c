//! Errors of commands, with exit codes and hints.

use std::io;

use super::Exit;
use super::check::Finding;
use crate::daemon::StartError;
use crate::engine::StepFailure;
use crate::gitlab::{self, ErrorClass, ErrorKind};
use crate::host::Identity;
use crate::ops;
use crate::secret::SourceError;
use crate::settings;
use crate::sharing;
use crate::status::{StatusClientError, StatusServerError};
use crate::store;
use crate::systemd::is_unit_installed;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The command line is invalid or ambiguous.
    #[error("{0}")]
    Usage(String),
    /// The settings are invalid.
    #[error(transparent)]
    Settings(#[from] settings::Errors),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A secret is missing or unreadable.
    #[error(transparent)]
    Secret(#[from] SourceError),
    /// An operation failed.
    #[error(transparent)]
    Operation(#[from] ops::Error),
    /// The store of shared runners cannot be used.
    #[error(transparent)]
    Sharing(#[from] sharing::Error),
    /// The status server cannot listen.
    #[error(transparent)]
    StatusServer(#[from] StatusServerError),
    /// The daemon did not answer.
    #[error(transparent)]
    Question(#[from] StatusClientError),
    /// A call of the management API failed.
    #[error(transparent)]
    Call {
        /// The failure of the call.
        #[from]
        error: gitlab::Error,
    },
    /// A call failed because of the access token.
    #[error("{error}; the token is {origin}")]
    AccessToken {
        /// The failure of the call.
        error: gitlab::Error,
        /// The source of the token, with its fingerprint.
        origin: String,
    },
    /// A command found that it cannot do what was asked.
    #[error("{message}")]
    Verdict {
        /// The exit code.
        exit: Exit,
        /// What was found.
        message: String,
        /// What the user can do.
        hint: Option<String>,
    },
    /// Mistakes in files, of which the first stands for all where there is room for one.
    #[error("{}", .0.first().map_or_else(String::new, Finding::place_and_message))]
    Mistakes(Vec<Finding>),
    /// A signal ended the command early.
    #[error("interrupted: {0}")]
    Interrupted(String),
    /// The system lacks what every command needs.
    #[error("cannot start")]
    System(#[source] io::Error),
}

impl From<StepFailure> for Error {
    fn from(failure: StepFailure) -> Self {
        match failure {
            StepFailure::Operation(error) | StepFailure::Unsaved(error) => error.into(),
            StepFailure::UsedElsewhere { .. } => Self::Verdict {
                exit: Exit::Failed,
                message: failure.to_string(),
                hint: failure.hint().map(str::to_owned),
            },
        }
    }
}

impl From<StartError> for Error {
    fn from(error: StartError) -> Self {
        match error {
            StartError::NothingToServe { has_server, .. } => {
                let hint = nothing_to_serve(has_server, Identity::of_process().is_container);
                Self::Verdict { exit: Exit::Usage, message: error.to_string(), hint: Some(hint) }
            }
            StartError::Settings(errors) => errors.into(),
            StartError::Store(error) => error.into(),
            StartError::StatusServer(error) => error.into(),
            StartError::Operation(error) => error.into(),
            StartError::Sharing(error) => error.into(),
        }
    }
}

/// What to do if the daemon has nothing to serve. A container has its settings from variables, a machine from a file.
fn nothing_to_serve(has_server: bool, is_container: bool) -> String {
    let missing = if has_server { "CI_SERVER_URL is set: add" } else { "set CI_SERVER_URL and" };
    let variables = format!(
        "{missing} one of REGISTRATION_TOKEN_FILE, REGISTRATION_TOKEN, CI_SERVER_TOKEN_FILE and CI_SERVER_TOKEN"
    );
    let file = "write an agent.toml, for which `runner-agent init` asks a few questions";
    let (first, second) = if has_server || is_container { (variables.as_str(), file) } else { (file, &*variables) };
    format!(
        "{first}; or {second}; or say with --wait-for-config (WAIT_FOR_CONFIG=true) that another process is to write config.toml"
    )
}

impl Error {
    /// Whether GitLab itself says that it does not have the object of a call.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Call { error } if error.kind() == ErrorKind::NotFound)
    }

    /// The exit code of the command.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Settings(errors) if errors.is_usage() => Exit::Usage,
            Self::Secret(SourceError::WrongClass { .. })
            | Self::Operation(ops::Error::Secret(SourceError::WrongClass { .. })) => Exit::Usage,
            Self::Settings(_) | Self::Store(_) | Self::Secret(_) | Self::StatusServer(_) => Exit::LocalFile,
            Self::Question(StatusClientError::Connect { .. }) => Exit::LocalFile,
            Self::Question(
                StatusClientError::NotRunning(_)
                | StatusClientError::OtherInstance(_)
                | StatusClientError::NoDaemon(_)
                | StatusClientError::OtherUser { .. }
                | StatusClientError::TimedOut(_)
                | StatusClientError::InvalidResponse { .. },
            ) => Exit::Unreachable,
            Self::Operation(error) => of_operation(error),
            Self::Sharing(error) => of_store(error),
            Self::Call { error } | Self::AccessToken { error, .. } => of_class(error.class()),
            Self::Verdict { exit, .. } => *exit,
            Self::Mistakes(findings) if findings.iter().all(|finding| finding.exit == Exit::Usage) => Exit::Usage,
            Self::Mistakes(_) => Exit::LocalFile,
            Self::Interrupted(_) | Self::System(_) => Exit::Failed,
        }
    }

    /// What the user can do, if the message does not say so.
    pub(super) fn hint(&self) -> Option<&str> {
        match self {
            Self::Operation(ops::Error::Disk(store::Error::Unsettled { .. })) => Some(
                "the answer to a reset was lost: `runner-agent rotate` on this runner verifies the old token first",
            ),
            Self::Operation(error) => error.hint(),
            Self::Sharing(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Call { error } | Self::AccessToken { error, .. } => error.hint(),
            Self::Verdict { hint, .. } => hint.as_deref(),
            Self::StatusServer(error) => Some(match error {
                StatusServerError::Socket { .. } => "use another path with --socket, or stop the daemon that uses it",
                StatusServerError::Tcp { .. } => {
                    "choose another address in [http], --listen-address or LISTEN_ADDRESS, or stop the process that uses it, which `ss -ltnp` run as root names"
                }
            }),
            Self::Question(error) => Some(match error {
                StatusClientError::NotRunning(_) => {
                    how_to_reach(is_unit_installed(), rustix::process::geteuid().is_root())
                }
                StatusClientError::OtherInstance(_) => {
                    "name the daemon's own file with --config or CONFIG_FILE, or its socket with --socket"
                }
                StatusClientError::NoDaemon(_) => "name the daemon's own socket with --socket",
                StatusClientError::OtherUser { .. } => "run as that user, or name the socket with --socket",
                StatusClientError::Connect { source, .. } if source.kind() != io::ErrorKind::PermissionDenied => {
                    "use another path with --socket, also for the daemon"
                }
                StatusClientError::Connect { .. } => {
                    "only the daemon's user and root may connect: run the command by `sudo`"
                }
                StatusClientError::TimedOut(_) | StatusClientError::InvalidResponse { .. } => {
                    "check the daemon's log and restart it"
                }
            }),
            Self::Usage(_)
            | Self::Settings(_)
            | Self::Secret(_)
            | Self::Mistakes(_)
            | Self::Interrupted(_)
            | Self::System(_) => None,
        }
    }
}

/// What to do if no daemon answers. The sockets of a user are others than those of root's unit.
fn how_to_reach(has_unit: bool, is_root: bool) -> &'static str {
    match (has_unit, is_root) {
        (true, true) => {
            "`systemctl status runner-agent` says whether the service has failed, was stopped or waits for its settings, and `journalctl -u runner-agent` why; `systemctl start runner-agent` starts it"
        }
        (true, false) => {
            "the daemon of the service answers root alone: run the command by `sudo`; `systemctl status runner-agent` says whether the service runs"
        }
        (false, _) => "start it with `runner-agent run`, or name its socket with --socket",
    }
}

/// The exit code of an operation that failed.
pub(super) fn of_operation(error: &ops::Error) -> Exit {
    match error {
        ops::Error::Asking(failure)
        | ops::Error::Registering(failure)
        | ops::Error::Probing(failure)
        | ops::Error::Deleting { failure, .. }
        | ops::Error::Changing(failure) => of_class(failure.class),
        ops::Error::Unproven { .. }
        | ops::Error::RegistrationLost { .. }
        | ops::Error::AwaitsToken { .. }
        | ops::Error::Unstored { .. }
        | ops::Error::TwinMoved(_) => Exit::Unreachable,
        ops::Error::FirstApi(_) | ops::Error::WrongToken { .. } => Exit::Usage,
        ops::Error::Disk(_)
        | ops::Error::Secret(_)
        | ops::Error::Compose(_)
        | ops::Error::Entry { .. }
        | ops::Error::VariableToken { .. }
        | ops::Error::NoRoom
        | ops::Error::OtherServer { .. }
        | ops::Error::UnconfirmedId(_)
        | ops::Error::OtherRunner { .. }
        | ops::Error::EntryDisputed(_)
        | ops::Error::Replaced(_)
        | ops::Error::UnregisteredElsewhere(_)
        | ops::Error::Unfinished(_)
        | ops::Error::NoEntry(_)
        | ops::Error::NoStore(_)
        | ops::Error::OtherShare { .. }
        | ops::Error::RecoveredOften(_)
        | ops::Error::NoReason { .. }
        | ops::Error::NotRegisteredAnew(_)
        | ops::Error::NoToken(_) => Exit::LocalFile,
        ops::Error::Sharing { error, .. } => of_store(error),
        ops::Error::SharedElsewhere(_) => Exit::Unreachable,
        ops::Error::Stopping | ops::Error::Unjudged(_) | ops::Error::UnclearElsewhere(_) => Exit::Unreachable,
    }
}

/// A command does not wait for a second refusal: a person reads which right is missing, and can repeat it.
pub(super) fn of_store(error: &sharing::Error) -> Exit {
    if error.is_passing() { Exit::Unreachable } else { Exit::LocalFile }
}

pub(super) fn of_class(class: ErrorClass) -> Exit {
    match class {
        ErrorClass::RefusedByServer => Exit::Refused,
        ErrorClass::Unreachable => Exit::Unreachable,
        ErrorClass::Local => Exit::LocalFile,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_with_nothing_to_serve_is_sent_to_init_and_a_container_to_its_variables() {
        assert!(nothing_to_serve(false, false).starts_with("write an agent.toml, for which `runner-agent init` asks"));
        assert!(nothing_to_serve(false, true).starts_with("set CI_SERVER_URL and one of"));
        assert!(nothing_to_serve(true, false).starts_with("CI_SERVER_URL is set: add one of"));
    }
}
