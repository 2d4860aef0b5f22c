//! `rotate`: replaces tokens by new ones.

use crate::model::{Action, StateName};
use std::rc::Rc;
use std::time::Duration;

use super::arguments::RotateArguments;
use super::context::Context;
use super::interrupt::Interrupt;
use super::outcome::{RunnerOutcome, of_runner};
use super::selection::{RunnerSelector, argument_token, read_file};
use super::session::{CommandSession, Nap};
use super::text::expiry_text;
use super::{Error, Exit};
use crate::error_chain::chain;
use crate::lifecycle::Outcome;
use crate::ops::{self, Rotation, Runner, Unfinished};
use crate::secret::Token;
use crate::store;

/// How often writing a new token is tried where it is safe in the state directory meanwhile.
const SAVE_TRIES: u32 = 4;

/// The pause between two such tries.
const SAVE_PAUSE: Duration = Duration::from_millis(500);

/// How often the old token must be accepted until a lost reset counts as one that did not happen.
const ACCEPTED_ENOUGH: u32 = 2;

/// How often the old token is asked about at most.
const ASKS: u32 = 4;

/// Rotates those that are selected. An interrupt cancels no reset that is under way.
pub(super) async fn rotate(
    context: &Context<'_>,
    arguments: RotateArguments,
    interrupt: Interrupt,
) -> Result<Exit, Error> {
    if arguments.selection.is_empty() && !arguments.all_runners {
        return Err(Error::Usage("say which runners: --name, --url, --id, --token, or --all-runners".to_owned()));
    }
    let access_token = match (&arguments.pat, &arguments.pat_file) {
        (Some(argument), _) => Some(argument_token("--pat", argument)?),
        (None, Some(path)) => Some(read_file(path, &context.environment)?),
        (None, None) => None,
    };
    let wanted = RunnerSelector::new(arguments.selection, &context.environment)?;
    let session = CommandSession::open(context, interrupt).await?;
    session
        .for_all(&wanted, |session, runner, unfinished| rotate_one(session, runner, unfinished, access_token.clone()))
        .await
}

async fn rotate_one(
    session: Rc<CommandSession>,
    mut runner: Runner,
    unfinished: Option<Unfinished>,
    access_token: Option<Token>,
) -> RunnerOutcome {
    let rotated = match unfinished {
        Some(Unfinished::LostReset) => match settle(&session, &mut runner).await {
            Ok(_) => try_rotate(&session, &mut runner, access_token.as_ref()).await,
            Err(error) => Err(error),
        },
        Some(Unfinished::Unsaved) => match session.ops.save(&mut runner).await {
            Ok(_) => try_rotate(&session, &mut runner, access_token.as_ref()).await,
            Err(error) => Err(error.into()),
        },
        Some(Unfinished::Unregistration) | None => try_rotate(&session, &mut runner, access_token.as_ref()).await,
    };
    rotated.unwrap_or_else(|error| {
        let action = if error.exit() == Exit::Refused { Action::Refused } else { Action::Failed };
        RunnerOutcome::failed(of_runner(&runner, session.now()), action, "not rotated", &error)
    })
}

async fn try_rotate(
    session: &CommandSession,
    runner: &mut Runner,
    access_token: Option<&Token>,
) -> Result<RunnerOutcome, Error> {
    if access_token.is_some() && runner.record.id.is_none() {
        return Err(Error::Verdict {
            exit: Exit::LocalFile,
            message: "its id is not known, which a rotation with an access token needs".to_owned(),
            hint: Some("write its `id` into config.toml, or leave the access token out".to_owned()),
        });
    }
    let rotation = match session.ops.rotate(runner, access_token, session.now()).await {
        Err(error) if error.outcome() == Outcome::ResetRefused && access_token.is_none() => {
            match configured_access(session, runner)? {
                Some(token) => session.ops.rotate(runner, Some(&token), session.now()).await,
                None => Err(error),
            }
        }
        result => result,
    };
    match rotation {
        Ok(Rotation::Rotated { unsaved, .. }) => rotated(session, runner, unsaved).await,
        Ok(Rotation::Adopted(_)) => Ok(adopted(session, runner)),
        Ok(Rotation::Unchanged) => Err(Error::Verdict {
            exit: Exit::Refused,
            message: "the server answered with the token that it was asked to replace".to_owned(),
            hint: None,
        }),
        Err(error) if matches!(error.outcome(), Outcome::Lost { .. }) => {
            let failure = Error::from(error);
            session.reporter.remark(&format!(
                "runner `{}`: {}: finding out whether the token was replaced",
                runner.label(),
                chain(&failure)
            ));
            settle(session, runner).await?;
            Err(Error::Verdict {
                exit: Exit::Unreachable,
                message: "the answer to the rotation was lost, and it did not happen: the old token is still accepted"
                    .to_owned(),
                hint: Some("try again".to_owned()),
            })
        }
        Err(error) => Err(error.into()),
    }
}

/// The access token that agent.toml has for this runner's server, for a token that is refused already.
fn configured_access(session: &CommandSession, runner: &Runner) -> Result<Option<Token>, Error> {
    if runner.record.id.is_none() {
        return Ok(None);
    }
    let server = session.config.servers.iter().find(|server| server.url == runner.record.url);
    let Some(server) = server else { return Ok(None) };
    if let Some(remark) = server.access_token.remark() {
        tracing::warn!("{remark}");
    }
    Ok(Some(server.access_token.read()?))
}

async fn rotated(
    session: &CommandSession,
    runner: &mut Runner,
    unsaved: Option<store::Error>,
) -> Result<RunnerOutcome, Error> {
    if let Some(error) = unsaved {
        save(session, runner, error).await?;
    }
    let now = runner.date.unwrap_or_else(|| session.now());
    session.ops.note_state(runner, StateName::Active, now).await?;
    let report = of_runner(runner, now);
    let expiry = expiry_text(report.token_expires_at, now);
    Ok(RunnerOutcome::done(report, Action::Rotated, format!("has a new token, which {expiry}")))
}

fn adopted(session: &CommandSession, runner: &Runner) -> RunnerOutcome {
    let now = runner.date.unwrap_or_else(|| session.now());
    let report = of_runner(runner, now);
    let expiry = expiry_text(report.token_expires_at, now);
    RunnerOutcome::done(
        report,
        Action::Adopted,
        format!("somebody else has rotated it already, the new token is accepted and {expiry}"),
    )
}

/// Writes a new token into config.toml, however long it takes if nothing else holds it.
async fn save(session: &CommandSession, runner: &mut Runner, first: store::Error) -> Result<(), Error> {
    let is_safe = session.ops.disk().has_state();
    let mut last = ops::Error::from(first);
    let mut tries = 0;
    while !is_safe || tries < SAVE_TRIES {
        tries += 1;
        if !is_safe {
            session.reporter.remark(&format!(
                "error: the new token of runner `{}` is nowhere but in memory, trying again: {}",
                runner.label(),
                chain(&last)
            ));
        }
        tokio::time::sleep(SAVE_PAUSE).await;
        match session.ops.save(runner).await {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(unsaved(&last))
}

/// What is said of a token that config.toml does not take.
pub(super) fn unsaved(error: &ops::Error) -> Error {
    Error::Verdict {
        exit: Exit::LocalFile,
        message: format!(
            "the new token is safe in the state directory, but config.toml does not take it: {}",
            chain(error)
        ),
        hint: Some("correct that, then run any command on this runner: it writes the token first".to_owned()),
    }
}

/// Finds out whether a reset happened whose answer was lost, by asking with the OLD token.
///
/// # Errors
/// If it happened, so that the new token is lost; or if it cannot be found out now.
async fn settle(session: &CommandSession, runner: &mut Runner) -> Result<(), Error> {
    let mut accepted = 0;
    let mut last = None;
    for _ in 0..ASKS {
        if session.nap(session.certainty_wait(runner, session.timing().settle_after)).await == Nap::Interrupted {
            return Err(Error::Interrupted(UNSETTLED.to_owned()));
        }
        match session.ops.verify(runner, session.now()).await {
            Ok(_) => accepted += 1,
            Err(error) if error.outcome() == Outcome::Refused => return Err(lost(session, runner).await?),
            Err(error) => last = Some(error),
        }
        if accepted == ACCEPTED_ENOUGH {
            return Ok(session.ops.settle(runner).await?);
        }
    }
    let reason = last.map_or_else(String::new, |error| format!(": {}", chain(&error)));
    Err(Error::Verdict {
        exit: Exit::Unreachable,
        message: format!("{UNSETTLED}{reason}"),
        hint: Some("rotate it again once the server answers: the old token is asked about first".to_owned()),
    })
}

const UNSETTLED: &str = "the answer to the rotation was lost, and it is not known whether it happened";

async fn lost(session: &CommandSession, runner: &mut Runner) -> Result<Error, Error> {
    session.ops.settle(runner).await?;
    session.ops.note_state(runner, StateName::Rejected, session.now()).await?;
    Ok(Error::Verdict {
        exit: Exit::Refused,
        message: "the answer to the rotation was lost, and the old token is refused now: the new one is lost"
            .to_owned(),
        hint: Some(
            "rotate it by its id with --pat-file, or register it again with `runner-agent register --force`".to_owned(),
        ),
    })
}
