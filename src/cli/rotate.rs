//! `rotate`: replaces tokens by new ones.

use std::rc::Rc;
use std::time::Duration;

use super::arguments::RotateArguments;
use super::context::Context;
use super::interrupt::Interrupt;
use super::selection::{Wanted, argument_token, read_file};
use super::told::{Told, end, of_runner};
use super::workbench::{Nap, Workbench};
use super::{Error, Exit};
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
    let wanted = Wanted::new(arguments.selection, &context.environment)?;
    let bench = Workbench::open(context, interrupt).await?;
    bench
        .for_all(&wanted, |bench, runner, unfinished| rotate_one(bench, runner, unfinished, access_token.clone()))
        .await
}

async fn rotate_one(
    bench: Rc<Workbench>,
    mut runner: Runner,
    unfinished: Option<Unfinished>,
    access_token: Option<Token>,
) -> Told {
    let rotated = match unfinished {
        Some(Unfinished::LostReset) => match settle(&bench, &mut runner).await {
            Ok(_) => try_rotate(&bench, &mut runner, access_token.as_ref()).await,
            Err(error) => Err(error),
        },
        Some(Unfinished::Unsaved) => match bench.ops.save(&mut runner).await {
            Ok(_) => try_rotate(&bench, &mut runner, access_token.as_ref()).await,
            Err(error) => Err(error.into()),
        },
        Some(Unfinished::Unregistration) | None => try_rotate(&bench, &mut runner, access_token.as_ref()).await,
    };
    rotated.unwrap_or_else(|error| {
        let action = if error.exit() == Exit::Refused { "refused" } else { "failed" };
        Told::failed(of_runner(&runner, bench.now()), action, "not rotated", &error)
    })
}

async fn try_rotate(bench: &Workbench, runner: &mut Runner, access_token: Option<&Token>) -> Result<Told, Error> {
    if access_token.is_some() && runner.record.id.is_none() {
        return Err(Error::Verdict {
            exit: Exit::LocalFile,
            message: "its id is not known, which a rotation with an access token needs".to_owned(),
            hint: Some("write its `id` into config.toml, or leave the access token out".to_owned()),
        });
    }
    let rotation = match bench.ops.rotate(runner, access_token, bench.now()).await {
        Err(error) if error.outcome() == Outcome::ResetRefused && access_token.is_none() => {
            match configured_access(bench, runner)? {
                Some(token) => bench.ops.rotate(runner, Some(&token), bench.now()).await,
                None => Err(error),
            }
        }
        result => result,
    };
    match rotation {
        Ok(Rotation::Rotated { unsaved, .. }) => rotated(bench, runner, unsaved).await,
        Ok(Rotation::Adopted(_)) => Ok(adopted(bench, runner)),
        Ok(Rotation::Unchanged) => Err(Error::Verdict {
            exit: Exit::Refused,
            message: "the server answered with the token that it was asked to replace".to_owned(),
            hint: None,
        }),
        Err(error) if matches!(error.outcome(), Outcome::Lost { .. }) => {
            let failure = Error::from(error);
            bench.reporter.remark(&format!(
                "runner `{}`: {}: finding out whether the token was replaced",
                runner.label(),
                super::report::chain(&failure)
            ));
            settle(bench, runner).await?;
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
fn configured_access(bench: &Workbench, runner: &Runner) -> Result<Option<Token>, Error> {
    if runner.record.id.is_none() {
        return Ok(None);
    }
    let server = bench.agent.servers.iter().find(|server| server.url == runner.record.url);
    let Some(server) = server else { return Ok(None) };
    if let Some(remark) = server.access_token.remark() {
        tracing::warn!("{remark}");
    }
    Ok(Some(server.access_token.read()?))
}

async fn rotated(bench: &Workbench, runner: &mut Runner, unsaved: Option<store::Error>) -> Result<Told, Error> {
    if let Some(error) = unsaved {
        save(bench, runner, error).await?;
    }
    let now = runner.date.unwrap_or_else(|| bench.now());
    bench.ops.note_state(runner, "active", now).await?;
    let report = of_runner(runner, now);
    let end = end(report.token_expires_at, now);
    Ok(Told::done(report, "rotated", format!("has a new token, which {end}")))
}

fn adopted(bench: &Workbench, runner: &Runner) -> Told {
    let now = runner.date.unwrap_or_else(|| bench.now());
    let report = of_runner(runner, now);
    let end = end(report.token_expires_at, now);
    Told::done(report, "adopted", format!("somebody else has rotated it already, the new token is accepted and {end}"))
}

/// Writes a new token into config.toml, however long it takes if nothing else holds it.
async fn save(bench: &Workbench, runner: &mut Runner, first: store::Error) -> Result<(), Error> {
    let is_safe = bench.ops.disk().has_state();
    let mut last = ops::Error::from(first);
    let mut tries = 0;
    while !is_safe || tries < SAVE_TRIES {
        tries += 1;
        if !is_safe {
            bench.reporter.remark(&format!(
                "error: the new token of runner `{}` is nowhere but in memory, trying again: {}",
                runner.label(),
                super::report::chain(&last)
            ));
        }
        tokio::time::sleep(SAVE_PAUSE).await;
        match bench.ops.save(runner).await {
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
            super::report::chain(error)
        ),
        hint: Some("correct that, then run any command on this runner: it writes the token first".to_owned()),
    }
}

/// Finds out whether a reset happened whose answer was lost, by asking with the OLD token.
///
/// # Errors
/// If it happened, so that the new token is lost; or if it cannot be found out now.
async fn settle(bench: &Workbench, runner: &mut Runner) -> Result<(), Error> {
    let mut accepted = 0;
    let mut last = None;
    for _ in 0..ASKS {
        if bench.nap(bench.certainty_wait(runner, bench.timing().settle_after)).await == Nap::Interrupted {
            return Err(Error::Interrupted(UNSETTLED.to_owned()));
        }
        match bench.ops.verify(runner, bench.now()).await {
            Ok(_) => accepted += 1,
            Err(error) if error.outcome() == Outcome::Refused => return Err(lost(bench, runner).await?),
            Err(error) => last = Some(error),
        }
        if accepted == ACCEPTED_ENOUGH {
            return Ok(bench.ops.settle(runner).await?);
        }
    }
    let reason = last.map_or_else(String::new, |error| format!(": {}", super::report::chain(&error)));
    Err(Error::Verdict {
        exit: Exit::Unreachable,
        message: format!("{UNSETTLED}{reason}"),
        hint: Some("rotate it again once the server answers: the old token is asked about first".to_owned()),
    })
}

const UNSETTLED: &str = "the answer to the rotation was lost, and it is not known whether it happened";

async fn lost(bench: &Workbench, runner: &mut Runner) -> Result<Error, Error> {
    bench.ops.settle(runner).await?;
    bench.ops.note_state(runner, "rejected", bench.now()).await?;
    Ok(Error::Verdict {
        exit: Exit::Refused,
        message: "the answer to the rotation was lost, and the old token is refused now: the new one is lost"
            .to_owned(),
        hint: Some(
            "rotate it by its id with --pat-file, or register it again with `runner-agent register --force`".to_owned(),
        ),
    })
}
