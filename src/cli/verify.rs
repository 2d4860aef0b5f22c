//! `verify`: asks the servers whether they accept the tokens.

use std::rc::Rc;

use super::arguments::VerifyArguments;
use super::context::Context;
use super::interrupt::Interrupt;
use super::selection::Wanted;
use super::told::{Told, end, of_runner};
use super::workbench::{Nap, Workbench};
use super::{Error, Exit};
use crate::lifecycle::Outcome;
use crate::ops::{self, Runner, Verification};

/// Verifies those that are selected, or else everybody. An interrupt ends it at once, since asking changes
/// nothing.
pub(super) async fn verify(
    context: &Context<'_>,
    arguments: VerifyArguments,
    interrupt: Interrupt,
) -> Result<Exit, Error> {
    let wanted = Wanted::new(arguments.selection, &context.environment)?;
    let work = async {
        let bench = Workbench::open(context, interrupt.clone()).await?;
        let deletes = arguments.delete;
        bench.for_all(&wanted, |bench, runner, _| verify_one(bench, runner, deletes)).await
    };
    let end = async {
        // An entry that is being dropped is dropped wholly.
        if arguments.delete { interrupt.insisted().await } else { interrupt.asked().await }
    };
    tokio::select! {
        biased;
        () = end => Err(Error::Interrupted("not every runner was verified".to_owned())),
        result = work => result,
    }
}

async fn verify_one(bench: Rc<Workbench>, mut runner: Runner, deletes: bool) -> Told {
    match ask(&bench, &mut runner).await {
        Ok(told) => told,
        Err(error) if deletes && error.outcome() == Outcome::Refused => {
            confirm_and_drop(&bench, &mut runner, error).await
        }
        Err(error) => not_verified(&bench, &runner, error),
    }
}

async fn ask(bench: &Workbench, runner: &mut Runner) -> Result<Told, ops::Error> {
    let verification = bench.ops.verify(runner, bench.now()).await?;
    let now = runner.date.unwrap_or_else(|| bench.now());
    bench.ops.note_state(runner, "active", now).await?;
    let report = of_runner(runner, now);
    let end = end(report.token_expires_at, now);
    Ok(match verification {
        Verification::Accepted { .. } => Told::done(report, "verified", format!("accepted, {end}")),
        Verification::Adopted(_) => {
            Told::done(report, "adopted", format!("accepted, with a token that somebody else has put there, {end}"))
        }
    })
}

/// One refusal can come of a server that is being restored; the one that counts comes later.
async fn confirm_and_drop(bench: &Workbench, runner: &mut Runner, refused: ops::Error) -> Told {
    let wait = bench.certainty_wait(runner, bench.timing().confirm_after);
    if bench.nap(wait).await == Nap::Interrupted {
        return not_verified(bench, runner, refused);
    }
    match ask(bench, runner).await {
        Ok(told) => told,
        Err(error) if error.outcome() == Outcome::Refused => drop_entry(bench, runner).await,
        Err(error) => not_verified(bench, runner, error),
    }
}

async fn drop_entry(bench: &Workbench, runner: &mut Runner) -> Told {
    let before = of_runner(runner, bench.now());
    match bench.ops.drop_entry(runner, bench.now()).await {
        Ok(()) => {
            let kept = match &runner.dropped_to {
                Some(path) => format!("what was dropped is kept in {}", path.display()),
                None => "nothing of it is kept without a state directory".to_owned(),
            };
            let report = crate::model::RunnerReport { state: "retired".to_owned(), ..before };
            Told::done(report, "dropped", format!("refused twice and dropped from config.toml, {kept}"))
        }
        Err(error) => Told::failed(before, "refused", "refused, and not dropped", &error.into()),
    }
}

fn not_verified(bench: &Workbench, runner: &Runner, error: ops::Error) -> Told {
    let report = of_runner(runner, bench.now());
    let (action, line) = match error.outcome() {
        Outcome::Refused => ("refused", "refused"),
        Outcome::MustAct(_) | Outcome::RotationClosed => ("failed", "not verified, somebody must act"),
        _ if error.failure().is_some() => ("unanswered", "not known, the server did not say"),
        _ => ("failed", "not verified"),
    };
    Told::failed(report, action, line, &error.into())
}
