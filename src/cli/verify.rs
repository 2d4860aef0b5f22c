//! `verify`: asks the servers whether they accept the tokens.

use crate::model::{Action, StateName};
use std::rc::Rc;

use super::arguments::VerifyArguments;
use super::context::Context;
use super::interrupt::Interrupt;
use super::outcome::{RunnerOutcome, of_runner};
use super::selection::RunnerSelector;
use super::session::{CommandSession, Nap};
use super::text::expiry_text;
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
    let wanted = RunnerSelector::new(arguments.selection, &context.environment)?;
    let work = async {
        let session = CommandSession::open(context, interrupt.clone()).await?;
        let deletes = arguments.delete;
        session.for_all(&wanted, |session, runner, _| verify_one(session, runner, deletes)).await
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

async fn verify_one(session: Rc<CommandSession>, mut runner: Runner, deletes: bool) -> RunnerOutcome {
    match ask(&session, &mut runner).await {
        Ok(told) => told,
        Err(error) if deletes && error.outcome() == Outcome::Refused => {
            confirm_and_drop(&session, &mut runner, error).await
        }
        Err(error) => not_verified(&session, &runner, error),
    }
}

async fn ask(session: &CommandSession, runner: &mut Runner) -> Result<RunnerOutcome, ops::Error> {
    let verification = session.ops.verify(runner, session.now()).await?;
    let now = runner.date.unwrap_or_else(|| session.now());
    session.ops.note_state(runner, StateName::Active, now).await?;
    let report = of_runner(runner, now);
    let expiry = expiry_text(report.token_expires_at, now);
    Ok(match verification {
        Verification::Accepted { .. } => RunnerOutcome::done(report, Action::Verified, format!("accepted, {expiry}")),
        Verification::Adopted(_) => RunnerOutcome::done(
            report,
            Action::Adopted,
            format!("accepted, with a token that somebody else has put there, {expiry}"),
        ),
    })
}

/// One refusal can come of a server that is being restored; the one that counts comes later.
async fn confirm_and_drop(session: &CommandSession, runner: &mut Runner, refused: ops::Error) -> RunnerOutcome {
    let wait = session.certainty_wait(runner, session.timing().confirm_after);
    if session.nap(wait).await == Nap::Interrupted {
        return not_verified(session, runner, refused);
    }
    match ask(session, runner).await {
        Ok(told) => told,
        Err(error) if error.outcome() == Outcome::Refused => drop_entry(session, runner).await,
        Err(error) => not_verified(session, runner, error),
    }
}

async fn drop_entry(session: &CommandSession, runner: &mut Runner) -> RunnerOutcome {
    let before = of_runner(runner, session.now());
    match session.ops.drop_entry(runner, session.now()).await {
        Ok(()) => {
            let kept = match &runner.dropped_to {
                Some(path) => format!("what was dropped is kept in {}", path.display()),
                None => "nothing of it is kept without a state directory".to_owned(),
            };
            let report = crate::model::RunnerReport { state: StateName::Retired, ..before };
            RunnerOutcome::done(report, Action::Dropped, format!("refused twice and dropped from config.toml, {kept}"))
        }
        Err(error) => RunnerOutcome::failed(before, Action::Refused, "refused, and not dropped", &error.into()),
    }
}

fn not_verified(session: &CommandSession, runner: &Runner, error: ops::Error) -> RunnerOutcome {
    let report = of_runner(runner, session.now());
    let (action, line) = match error.outcome() {
        Outcome::Refused => (Action::Refused, "refused"),
        Outcome::MustAct(_) | Outcome::RotationClosed => (Action::Failed, "not verified, somebody must act"),
        _ if error.failure().is_some() => (Action::Unanswered, "not known, the server did not say"),
        _ => (Action::Failed, "not verified"),
    };
    RunnerOutcome::failed(report, action, line, &error.into())
}
