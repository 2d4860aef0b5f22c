//! The operations under test: their preparation, the operation itself, and what must hold afterwards.

use std::fs;
use std::time::Duration;

use fake_gitlab::{Endpoint, NewRunner};
use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;
use test_support::{Output, PATIENCE, Process};

use super::hooks;
use super::oracle::{Goal, check};
use super::sandbox::FaultSandbox;
use super::strace::{self, Injection};

/// The exit code if some runners succeeded and some failed.
const PARTIAL: i32 = 6;

/// The exit code if the server does not answer, and after a lost answer.
const UNREACHABLE: i32 = 5;

/// What `register` reports that does not register by itself.
const REGISTRATION_LOST: &str = "no other one is registered";

/// How long a daemon with a fault may work before it is stopped.
const WORK_TIME: Duration = Duration::from_secs(4);

/// How long after that the daemon may make its last calls, such as writing its state.
const LAST_CALLS: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// `register`, one shot.
    Register,
    /// The daemon's enrollment.
    Enroll,
    /// `rotate`, one shot.
    Rotate,
    /// `access-token rotate`.
    AccessToken,
    /// `run --once` with a token that is due for rotation.
    Once,
    /// The same for a runner that hooks are run for.
    Hooks,
    /// `unregister`, one shot.
    Unregister,
    /// The shutdown of a daemon that unregisters its enrolled runners.
    Shutdown,
    /// The start of a daemon after a registration was killed.
    ReplayRegister,
    /// The same after a rotation whose answer was journaled.
    ReplayRotate,
    /// The same after a rotation whose answer was lost.
    ReplayLost,
    /// The same after an unregistration.
    ReplayUnregister,
}

impl Work {
    pub(crate) const ALL: [Self; 12] = [
        Self::Register,
        Self::Enroll,
        Self::Rotate,
        Self::AccessToken,
        Self::Once,
        Self::Hooks,
        Self::Unregister,
        Self::Shutdown,
        Self::ReplayRegister,
        Self::ReplayRotate,
        Self::ReplayLost,
        Self::ReplayUnregister,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Enroll => "enroll",
            Self::Rotate => "rotate",
            Self::AccessToken => "access-token",
            Self::Once => "once",
            Self::Hooks => "hooks",
            Self::Unregister => "unregister",
            Self::Shutdown => "shutdown",
            Self::ReplayRegister => "replay-register",
            Self::ReplayRotate => "replay-rotate",
            Self::ReplayLost => "replay-lost",
            Self::ReplayUnregister => "replay-unregister",
        }
    }

    /// The request that the operation sends, if it sends one.
    pub(crate) fn endpoint(self) -> Option<Endpoint> {
        match self {
            Self::Register | Self::Enroll => Some(Endpoint::Register),
            Self::Rotate | Self::Once | Self::Hooks => Some(Endpoint::Reset),
            Self::AccessToken => Some(Endpoint::RotateAccessToken),
            Self::Unregister | Self::Shutdown => Some(Endpoint::Delete),
            Self::ReplayLost => Some(Endpoint::ResetById),
            Self::ReplayRegister | Self::ReplayRotate | Self::ReplayUnregister => None,
        }
    }

    pub(crate) fn is_enrolling(self) -> bool {
        matches!(self, Self::Enroll | Self::Shutdown)
    }

    /// The signal that starts the operation, if one does.
    pub(crate) fn begins_with(self) -> Option<&'static str> {
        (self == Self::Shutdown).then_some("SIGTERM")
    }

    /// What must hold once the daemon has run without a fault.
    pub(crate) fn goal(self) -> Goal {
        match self {
            Self::Register => Goal::InStep,
            Self::Unregister => Goal::InStepOrGone,
            Self::ReplayUnregister => Goal::None,
            Self::AccessToken => Goal::AccessToken,
            Self::Enroll
            | Self::Rotate
            | Self::Once
            | Self::Hooks
            | Self::Shutdown
            | Self::ReplayRegister
            | Self::ReplayRotate
            | Self::ReplayLost => Goal::One,
        }
    }

    /// Prepares the state from which the operation starts.
    pub(crate) fn prepare(self, sandbox: &FaultSandbox) -> Result<(), String> {
        match self {
            Self::Register | Self::Enroll | Self::AccessToken => Ok(()),
            Self::Rotate | Self::Unregister => must_succeed(&register(sandbox, &[])?, sandbox),
            Self::Once => {
                add_due(sandbox);
                Ok(())
            }
            Self::Hooks => hooks::prepare(sandbox),
            Self::Shutdown => {
                let daemon = sandbox.start(&["run"], &[]);
                daemon.wait_for(PATIENCE, |daemon| is_settled(sandbox, daemon, Goal::One));
                daemon.signal(Signal::QUIT);
                must_succeed(&daemon.try_end()?, sandbox)
            }
            Self::ReplayRegister => kill_at(Self::Register, sandbox, RENAME_OF_CONFIG),
            Self::ReplayRotate => kill_at(Self::Rotate, sandbox, RENAME_OF_CONFIG),
            Self::ReplayLost => {
                kill_at(Self::Rotate, sandbox, ("pwrite64", "/state/{state}/runners/{registered}.pending"))
            }
            Self::ReplayUnregister => kill_at(Self::Unregister, sandbox, RENAME_OF_CONFIG),
        }
    }

    /// Runs the operation, under strace if there are arguments for it.
    pub(crate) fn act(self, sandbox: &FaultSandbox, strace: &[String]) -> Result<Output, String> {
        match self {
            Self::Register => register(sandbox, strace),
            Self::Rotate => sandbox.start(&["rotate", "--name", "build-1"], strace).try_end(),
            Self::AccessToken => sandbox.start(&["access-token", "rotate"], strace).try_end(),
            Self::Once | Self::Hooks => sandbox.start(&["run", "--once"], strace).try_end(),
            Self::Unregister => sandbox.start(&["unregister", "--name", "build-1"], strace).try_end(),
            Self::Enroll
            | Self::Shutdown
            | Self::ReplayRegister
            | Self::ReplayRotate
            | Self::ReplayLost
            | Self::ReplayUnregister => {
                let earlier = sandbox.gitlab.requests().len();
                let daemon = sandbox.start(&["run"], strace);
                daemon.wait_for(WORK_TIME, |daemon| {
                    is_settled(sandbox, daemon, self.goal()) && is_accepted(sandbox, earlier)
                });
                daemon.wait_for(LAST_CALLS, |_| false);
                daemon.signal(if self == Self::Shutdown { Signal::TERM } else { Signal::QUIT });
                daemon.try_end()
            }
        }
    }

    /// Repeats a one-shot command, as a user does after a failure.
    pub(crate) fn repeat(self, sandbox: &FaultSandbox) -> Result<(), String> {
        match self {
            Self::Register => {
                let repeated = register(sandbox, &[])?;
                // A registration whose answer was lost is repeated only for a person who has looked for the orphan.
                if repeated.code == Some(UNREACHABLE) && repeated.stderr.contains(REGISTRATION_LOST) {
                    must_succeed(&register_with(sandbox, &["--force"], &[])?, sandbox)?;
                } else {
                    must_succeed(&repeated, sandbox)?;
                }
                check(sandbox, Goal::One)
            }
            Self::Unregister => {
                if check(sandbox, Goal::None).is_err() {
                    must_succeed(&self.act(sandbox, &[])?, sandbox)?;
                }
                check(sandbox, Goal::None)
            }
            _ => Ok(()),
        }
    }

    /// Whether it reports that it has done its work on the runner. A pass also reports the neighbour's entry, whose token
    /// is a variable that is not set.
    pub(crate) fn has_succeeded(self, output: &Output) -> bool {
        output.is_success() || (matches!(self, Self::Once | Self::Hooks) && output.code == Some(PARTIAL))
    }

    /// What holds after a one-shot command that reports success.
    pub(crate) fn promise(self) -> Option<Goal> {
        match self {
            Self::Register | Self::Rotate | Self::Once | Self::Hooks => Some(Goal::One),
            Self::AccessToken => Some(Goal::AccessToken),
            Self::Unregister => Some(Goal::None),
            _ => None,
        }
    }
}

/// Whether a daemon has nothing left to do.
pub(crate) fn is_settled(sandbox: &FaultSandbox, daemon: &Process, goal: Goal) -> bool {
    let log = daemon.log();
    log.contains("serving") && check(sandbox, goal).is_ok()
}

/// Whether GitLab has accepted a request of this daemon, or there is no runner: then only calls to the disk can follow.
fn is_accepted(sandbox: &FaultSandbox, earlier: usize) -> bool {
    let requests = sandbox.gitlab.requests();
    let mut statuses = requests.iter().skip(earlier).filter_map(|request| request.status);
    sandbox.gitlab.runners().is_empty() || statuses.any(|status| status < 300)
}

/// The call that activates the new config.toml.
const RENAME_OF_CONFIG: (&str, &str) = ("renameat", "/config");

fn kill_at(work: Work, sandbox: &FaultSandbox, (syscall, path): (&str, &str)) -> Result<(), String> {
    work.prepare(sandbox)?;
    let call = strace::Call::first(syscall, path);
    work.act(sandbox, &call.strace_args(sandbox, Injection::Kill))?;
    if strace::is_injected(sandbox) {
        fs::remove_file(sandbox.path("injected")).unwrap();
        Ok(())
    } else {
        Err(format!("the preparing kill was not injected: {}", sandbox.logs()))
    }
}

fn register(sandbox: &FaultSandbox, strace: &[String]) -> Result<Output, String> {
    register_with(sandbox, &[], strace)
}

fn register_with(sandbox: &FaultSandbox, further: &[&str], strace: &[String]) -> Result<Output, String> {
    let (url, token) = (sandbox.gitlab.url(), sandbox.path("token").display().to_string());
    let args = [
        "register",
        "-n",
        "--url",
        &url,
        "--registration-token-file",
        &token,
        "--name",
        "build-1",
        "--executor",
        "shell",
    ];
    sandbox.start(&[&args[..], further].concat(), strace).try_end()
}

fn must_succeed(output: &Output, sandbox: &FaultSandbox) -> Result<(), String> {
    if output.is_success() {
        Ok(())
    } else {
        Err(format!("fails without a fault, code {:?}: {}", output.code, sandbox.logs()))
    }
}

/// Adds an entry without a record, whose token has used up most of its lifetime.
fn add_due(sandbox: &FaultSandbox) {
    let (id, token) = sandbox.gitlab.add_runner(NewRunner::instance());
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let (from, to) = (now - SignedDuration::from_mins(50), now + SignedDuration::from_mins(10));
    sandbox.gitlab.expire_at(id, Some(to));
    let entry = format!(
        "[[runners]]\n  name = \"build-1\"\n  url = \"{}\"\n  id = {id}\n  token = \"{token}\" # kept secret\n  \
         token_obtained_at = {from}\n  token_expires_at = {to}\n  executor = \"shell\"\n",
        sandbox.gitlab.url()
    );
    sandbox.write_config(&(sandbox.config() + &entry));
}
