//! `verify`: asks the servers whether they accept the tokens.

use std::rc::Rc;

use super::arguments::VerifyArguments;
use super::context::Context;
use super::interrupt::Interrupt;
use super::outcome::RunnerOutcome;
use super::selection::RunnerSelector;
use super::session::{CommandSession, Driver, error_of};
use super::text::expiry_text;
use super::{Error, Exit};
use crate::engine::{Asker, Budget, Drive, ManagedRunner, record_report};
use crate::lifecycle::{Goal, Outcome, State};
use crate::model::{Action, RunnerReport, StateName};
use crate::ops::EntryFate;

/// Verifies the selected runners, or all. An interrupt ends it at once, since a verification changes nothing.
pub(super) async fn verify(
    context: &Context<'_>,
    arguments: VerifyArguments,
    interrupt: Interrupt,
) -> Result<Exit, Error> {
    let parallel = arguments.parallel;
    let selector = RunnerSelector::new(arguments.selection, &context.environment)?;
    let goal = if arguments.delete { Goal::Refused } else { Goal::Verified };
    let work = async {
        let session = CommandSession::open(context, interrupt.clone(), parallel).await?;
        session.for_all(&selector, |session, managed| verify_one(session, managed, goal)).await
    };
    let end = async {
        // An entry that is being dropped is dropped completely.
        if arguments.delete { interrupt.interrupted_twice().await } else { interrupt.asked().await }
    };
    tokio::select! {
        biased;
        () = end => Err(Error::Interrupted("not every runner was verified".to_owned())),
        result = work => result,
    }
}

async fn verify_one(session: Rc<CommandSession>, managed: ManagedRunner, goal: Goal) -> RunnerOutcome {
    let asker = Asker::Command { access_token: None, entry_fate: EntryFate::Drop };
    // A lost reset is settled by a rotation or by the daemon, which need its journal.
    let mut driver = session.driver(ManagedRunner { unfinished: None, ..managed }, asker);
    let drive = session.drive(&mut driver, goal, Budget::BY_RULES).await;
    let report = record_report(&driver.runner, driver.now());
    let expiry = expiry_text(report.token_expires_at, driver.now());
    let is_answered = match drive.outcome() {
        Some(Outcome::Accepted(_) | Outcome::Adopted(_)) => true,
        Some(Outcome::Refused) => goal == Goal::Verified,
        _ => false,
    };
    if is_answered && let Some(error) = driver.store_refusal().await {
        let (action, answer) = match drive.outcome() {
            Some(Outcome::Refused) => (Action::Refused, "refused".to_owned()),
            Some(Outcome::Adopted(_)) => (Action::Adopted, format!("accepted, {expiry}")),
            _ => (Action::Verified, format!("accepted, {expiry}")),
        };
        let line = format!("{answer}; the store that it is shared in cannot be used");
        return RunnerOutcome::failed(report, action, line, &error.into());
    }
    match drive.outcome() {
        Some(Outcome::Accepted(_)) => RunnerOutcome::done(report, Action::Verified, format!("accepted, {expiry}")),
        Some(Outcome::Adopted(_)) => RunnerOutcome::done(
            report,
            Action::Adopted,
            format!("accepted, with a token that another process has written, {expiry}"),
        ),
        Some(Outcome::Refused) if goal == Goal::Refused && matches!(driver.state(), State::Rejected(_)) => {
            drop_entry(&session, driver).await
        }
        _ => not_verified(report, drive),
    }
}

async fn drop_entry(session: &CommandSession, mut driver: Driver) -> RunnerOutcome {
    let now = driver.now();
    let before = record_report(&driver.runner, now);
    let Some(dead) = driver.runner.digest() else {
        return RunnerOutcome::failed(
            before,
            Action::Refused,
            "refused, and not dropped",
            &Error::Usage(String::new()),
        );
    };
    match session.ops().drop_entry(&mut driver.runner, dead, now).await {
        Ok(dropped_to) => {
            let kept = match dropped_to {
                Some(path) => format!("a copy of the entry is in {}", path.display()),
                None => "without a state directory no copy of it is kept".to_owned(),
            };
            let report = RunnerReport { state: StateName::Retired, ..before };
            RunnerOutcome::done(report, Action::Dropped, format!("refused twice and dropped from config.toml, {kept}"))
        }
        Err(error) => RunnerOutcome::failed(before, Action::Refused, "refused, and not dropped", &error.into()),
    }
}

/// The outcome of a verification without a result.
pub(super) fn not_verified(report: RunnerReport, drive: Drive) -> RunnerOutcome {
    let outcome = drive.outcome();
    let error = error_of(drive);
    let (action, line) = match (outcome, &error) {
        (Some(Outcome::Refused), _) => (Action::Refused, "refused"),
        (Some(Outcome::MustAct(_) | Outcome::Claimed(_)), _) => (Action::Failed, "not verified, needs attention"),
        (_, Error::Operation(error)) if error.failure().is_some() => {
            (Action::Unanswered, "unknown: the server could not be asked")
        }
        _ => (Action::Failed, "not verified"),
    };
    RunnerOutcome::failed(report, action, line, &error)
}
