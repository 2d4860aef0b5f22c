//! `rotate`: replaces tokens by new ones.

use std::rc::Rc;

use super::arguments::RotateArguments;
use super::context::Context;
use super::interrupt::Interrupt;
use super::outcome::RunnerOutcome;
use super::selection::{RunnerSelector, argument_token, read_file};
use super::session::{CommandSession, Driver, error_of};
use super::text::expiry_text;
use super::{Error, Exit};
use crate::engine::{Asker, Budget, Drive, IdTrust, ManagedRunner, StepFailure, record_report};
use crate::error_chain::chain;
use crate::lifecycle::{Goal, Outcome, State};
use crate::model::Action;
use crate::ops::{self, AccessToken, EntryFate, SoleCopies};
use crate::secret::TokenPurpose;

/// Rotates the selected runners. An interrupt cancels no reset that is under way, and lets no other one begin.
pub(super) async fn rotate(
    context: &Context<'_>,
    arguments: RotateArguments,
    interrupt: Interrupt,
) -> Result<Exit, Error> {
    if arguments.selection.is_empty() && !arguments.all_runners {
        return Err(Error::Usage("specify runners: --name, --url, --id, --token, or --all-runners".to_owned()));
    }
    let access_token = match (&arguments.pat, &arguments.pat_file) {
        (Some(argument), _) => Some(argument_token("--pat", argument, TokenPurpose::Access)?),
        (None, Some(path)) => Some(read_file(path, &context.environment, TokenPurpose::Access)?),
        (None, None) => None,
    };
    let tls = arguments.tls.files(&context.environment);
    let access_token = access_token.map(|token| AccessToken { token, tls });
    let id_trust = match (arguments.force, arguments.selection.id.is_some()) {
        (true, _) => IdTrust::Vouched,
        (false, true) => IdTrust::Named,
        (false, false) => IdTrust::None,
    };
    let parallel = arguments.parallel;
    let selector = RunnerSelector::new(arguments.selection, &context.environment)?;
    let session = CommandSession::open(context, interrupt.clone(), parallel).await?;
    let sole_copies = session.ops().sole_copies().clone();
    let rotation =
        session.for_all(&selector, |session, managed| rotate_one(session, managed, access_token.clone(), id_trust));
    until_interrupted(&interrupt, &sole_copies, rotation).await
}

/// Does work that resets tokens. After an interrupt no other reset begins.
pub(super) async fn until_interrupted<T>(
    interrupt: &Interrupt,
    sole_copies: &SoleCopies,
    work: impl Future<Output = T>,
) -> T {
    let closing = async {
        interrupt.asked().await;
        sole_copies.close();
        std::future::pending().await
    };
    tokio::select! {
        biased;
        done = work => done,
        never = closing => never,
    }
}

async fn rotate_one(
    session: Rc<CommandSession>,
    managed: ManagedRunner,
    access_token: Option<AccessToken>,
    id_trust: IdTrust,
) -> RunnerOutcome {
    let goal = if access_token.is_some() { Goal::RotatedById } else { Goal::Rotated };
    let has_id = managed.runner.record.id.is_some();
    let mut driver = session.driver(managed, Asker::Command { access_token, entry_fate: EntryFate::Keep });
    driver.id_trust = id_trust;
    let rotated = if goal == Goal::RotatedById && !has_id {
        Err(id_is_missing())
    } else {
        try_rotate(&session, &mut driver, goal).await
    };
    rotated.unwrap_or_else(|error| {
        let error = match error {
            Error::Operation(ops::Error::Stopping) => Error::Interrupted("not begun".to_owned()),
            error => error,
        };
        let action = if error.exit() == Exit::Refused { Action::Refused } else { Action::Failed };
        RunnerOutcome::failed(record_report(&driver.runner, driver.now()), action, "not rotated", &error)
    })
}

fn id_is_missing() -> Error {
    Error::Verdict {
        exit: Exit::LocalFile,
        message: "a rotation with an access token needs the runner's id, which is unknown".to_owned(),
        hint: Some("write its `id` into config.toml, or leave the access token out".to_owned()),
    }
}

async fn try_rotate(session: &CommandSession, driver: &mut Driver, goal: Goal) -> Result<RunnerOutcome, Error> {
    let drive = session.drive(driver, goal, Budget::BY_RULES).await;
    if let Some(stored) = rescue(session, driver, &drive).await {
        return rotated(session, driver, stored).await;
    }
    match (drive.outcome(), driver.state()) {
        (Some(Outcome::Rotated(_)), _) => rotated(session, driver, drive).await,
        (Some(Outcome::Adopted(_)), _) => {
            let report = record_report(&driver.runner, driver.now());
            let expiry = expiry_text(report.token_expires_at, driver.now());
            let line = if driver.runner.twin_of.is_some() {
                format!("has the new token of the same runner at another address, which {expiry}")
            } else {
                format!("another process has rotated it already, the new token is accepted and {expiry}")
            };
            Ok(RunnerOutcome::done(report, Action::Adopted, line))
        }
        (Some(Outcome::NotRotated), _) => Err(Error::Verdict {
            exit: Exit::Refused,
            message: "the server answered with the token that it was asked to replace".to_owned(),
            hint: None,
        }),
        (_, State::Uncertain(_)) => Err(unsettled(drive)),
        (Some(Outcome::Refused), State::Rejected(_)) => Err(Error::Verdict {
            exit: Exit::Refused,
            message: "the answer to the rotation was lost, and the old token is refused now: the new one is lost"
                .to_owned(),
            hint: Some(
                "rotate it by its id with --pat-file, or register it again with `runner-agent register --force`"
                    .to_owned(),
            ),
        }),
        (Some(Outcome::Accepted(_)), _) => Err(Error::Verdict {
            exit: Exit::Unreachable,
            message: "the answer to the rotation was lost, and it did not happen: the old token is still accepted"
                .to_owned(),
            hint: Some("try again".to_owned()),
        }),
        _ => Err(error_of(drive)),
    }
}

/// Writes a token that is in memory alone, for as long as that takes. Returns how it became the runner's, if it did.
pub(super) async fn rescue(session: &CommandSession, driver: &mut Driver, drive: &Drive) -> Option<Drive> {
    if !driver.runner.is_unstored() || matches!(drive.outcome(), Some(Outcome::Rotated(_))) {
        return None;
    }
    let error = drive.failure().map(|failure| chain(failure).to_string()).unwrap_or_default();
    session.remark_in_memory(driver.runner.label(), &error);
    let stored = session.drive(driver, Goal::Stored, Budget::Unlimited).await;
    match (stored.outcome(), stored.failure()) {
        (Some(Outcome::Adopted(_)), _) => return Some(stored),
        (_, Some(failure)) if driver.runner.is_unstored() => {
            tracing::error!(runner = driver.runner.label(), error = chain(failure), "ending nevertheless");
        }
        _ => {}
    }
    None
}

/// Reports a new token, once config.toml holds it.
pub(super) async fn rotated(
    session: &CommandSession,
    driver: &mut Driver,
    drive: Drive,
) -> Result<RunnerOutcome, Error> {
    if let Some(StepFailure::Unsaved(first)) = drive.into_failure() {
        let budget = session.saving_budget(&driver.runner, &first);
        let saved = session.drive(driver, Goal::Saved, budget).await;
        match (saved.outcome(), saved.into_failure()) {
            (_, Some(StepFailure::Unsaved(error))) => return Err(unsaved(&error)),
            (None, _) => return Err(unsaved(&first)),
            (Some(_), _) => {}
        }
    }
    let report = record_report(&driver.runner, driver.now());
    let expiry = expiry_text(report.token_expires_at, driver.now());
    Ok(RunnerOutcome::done(report, Action::Rotated, format!("has a new token, which {expiry}")))
}

fn unsaved(error: &ops::Error) -> Error {
    Error::Verdict {
        exit: Exit::LocalFile,
        message: format!(
            "the new token is safe in the state directory, but cannot be written to config.toml: {}",
            chain(error)
        ),
        hint: Some("fix this, then run any command on this runner: it writes the token first".to_owned()),
    }
}

fn unsettled(drive: Drive) -> Error {
    let unsettled = "the answer to the rotation was lost, and it is not known whether it happened";
    if drive.is_interrupted {
        return Error::Interrupted(unsettled.to_owned());
    }
    let reason = drive.failure().map_or_else(String::new, |error| format!(": {}", chain(error)));
    Error::Verdict {
        exit: Exit::Unreachable,
        message: format!("{unsettled}{reason}"),
        hint: Some("rotate it again once the server answers: the old token is verified first".to_owned()),
    }
}
