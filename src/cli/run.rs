//! `run`: the daemon.

use super::arguments::RunArguments;
use super::context::Context;
use super::{Error, Exit};
use crate::daemon::{Assembly, PassOutcome, ShutdownOutcome};
use crate::model::{RunnerReport, StateName, VerifyOutcome};
use crate::signals::Signals;

/// Runs until a signal ends it, or makes one pass.
pub(super) async fn run(context: &Context<'_>, arguments: &RunArguments, mut signals: Signals) -> Result<Exit, Error> {
    let assembly = Assembly::new(&context.overrides, &context.environment).await?;
    if !arguments.once {
        return Ok(match assembly.serve(&mut signals).await? {
            ShutdownOutcome::Done => Exit::Done,
            ShutdownOutcome::Unfinished => Exit::Failed,
        });
    }
    let on_interrupt =
        || context.reporter.remark("interrupted: finishing operations in progress; a second signal ends at once");
    match assembly.pass(&mut signals, on_interrupt).await? {
        PassOutcome::Complete(runners) => Ok(report(context, runners)),
        PassOutcome::CutShort(why) => {
            Err(Error::Interrupted(format!("{why} before the pass was complete: the next start finishes it")))
        }
    }
}

fn report(context: &Context<'_>, runners: Vec<RunnerReport>) -> Exit {
    let exits: Vec<_> = runners.iter().map(exit_of).collect();
    let now = context.now();
    context.reporter.runners(runners, |runners| super::list::table(runners, now));
    Exit::of_all(&exits)
}

fn exit_of(runner: &RunnerReport) -> Exit {
    if runner.error.is_some() {
        return Exit::LocalFile;
    }
    let is_accepted = runner.last_verify.as_ref().is_none_or(|verify| verify.outcome == VerifyOutcome::Accepted);
    match runner.state {
        StateName::Active if is_accepted => Exit::Done,
        StateName::Active | StateName::Unregistered | StateName::Uncertain => Exit::Unreachable,
        StateName::Rejected
        | StateName::NotRenewable
        | StateName::Failed
        | StateName::Retired
        | StateName::Unusable
        | StateName::Unknown => Exit::Refused,
    }
}
