//! `run`: the daemon.

use super::arguments::RunArguments;
use super::check::mistakes_at_start;
use super::context::Context;
use super::error::of_operation;
use super::outcome::of_entry;
use super::{Error, Exit};
use crate::daemon::{Assembly, Ending, Pass, PassOutcome, PassedRunner, ShutdownOutcome, StartError};
use crate::engine::StepFailure;
use crate::model::{RunnerReport, StateName, VerifyOutcome};
use crate::signals::Signals;
use crate::store::Entry;

/// Runs until a signal ends it, or makes one pass.
pub(super) async fn run(context: &Context<'_>, arguments: &RunArguments, mut signals: Signals) -> Result<Exit, Error> {
    let started = match Assembly::start(&context.overrides, &context.environment, &mut signals).await {
        Ok(started) => started,
        Err(error) => return not_started(context, error).await,
    };
    let Some(assembly) = started else {
        let message = "stopped before the start was complete: a disk or network share may not answer";
        if arguments.once {
            return Err(Error::Interrupted(message.to_owned()));
        }
        // Like a stop during any other start: nothing was begun.
        tracing::warn!("{message}");
        return Ok(Exit::Done);
    };
    if !arguments.once {
        return Ok(match assembly.serve(&mut signals).await? {
            ShutdownOutcome::Done => Exit::Done,
            ShutdownOutcome::Unfinished => Exit::Failed,
        });
    }
    let on_interrupt =
        || context.reporter.remark("interrupted: finishing operations in progress; a second signal ends at once");
    match assembly.pass(&mut signals, on_interrupt).await? {
        PassOutcome::Complete(pass) => Ok(report(context, pass)),
        PassOutcome::CutShort(why) => {
            Err(Error::Interrupted(format!("{why} before the pass was complete: the next start finishes it")))
        }
    }
}

/// Reports each mistake in the files at once, as `check` finds them, if one of them is why the start failed.
async fn not_started(context: &Context<'_>, error: StartError) -> Result<Exit, Error> {
    match &error {
        StartError::Settings(_) | StartError::Store(_) => {}
        StartError::NothingToServe { .. }
        | StartError::StatusServer(_)
        | StartError::Operation(_)
        | StartError::Sharing(_) => return Err(error.into()),
    }
    let mistakes = mistakes_at_start(context).await?;
    Err(if mistakes.is_empty() { error.into() } else { Error::Mistakes(mistakes) })
}

fn report(context: &Context<'_>, pass: Pass) -> Exit {
    let rows = pass.runners.into_iter().map(|passed| (exit_of(&passed), passed.report));
    let rows = rows.chain(pass.unusable.iter().map(|entry| (Exit::LocalFile, of_unusable(entry))));
    let (mut exits, runners): (Vec<_>, Vec<_>) = rows.unzip();
    // Mistakes in agent.toml, like those that are found without config.toml.
    exits.extend(pass.errors.iter().map(|_| Exit::LocalFile));
    let now = context.now();
    context.reporter.runners(runners.iter(), || super::list::table(|| runners.iter(), now));
    Exit::of_all(&exits)
}

pub(super) fn of_unusable(entry: &Entry) -> RunnerReport {
    let error = entry.access().err().map(|problem| format!("in line {}, {problem}", entry.line));
    RunnerReport { state: StateName::Unusable, error, ..of_entry(entry) }
}

/// The exit code for a runner: that of what failed, else by its state.
fn exit_of(passed: &PassedRunner) -> Exit {
    match &passed.ending {
        Ending::Done { is_accepted } => of_state(&passed.report, *is_accepted),
        Ending::Failed(StepFailure::Operation(error) | StepFailure::Unsaved(error)) => of_operation(error),
        Ending::Failed(StepFailure::UsedElsewhere { .. }) | Ending::Panicked => Exit::Failed,
    }
}

fn of_state(runner: &RunnerReport, is_accepted: bool) -> Exit {
    match runner.state {
        StateName::Active if is_accepted => Exit::Done,
        StateName::Active => match runner.last_verify.as_ref().map(|verify| verify.outcome) {
            None | Some(VerifyOutcome::Accepted) => Exit::Done,
            Some(VerifyOutcome::Refused | VerifyOutcome::Trouble(_)) => Exit::Refused,
            Some(VerifyOutcome::Unanswered) => Exit::Unreachable,
        },
        StateName::Unregistered | StateName::Uncertain => Exit::Unreachable,
        StateName::Rejected
        | StateName::NotRenewable
        | StateName::Failed
        | StateName::Retired
        | StateName::Expired
        | StateName::Unusable
        | StateName::Unknown => Exit::Refused,
    }
}
